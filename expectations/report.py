"""The data-quality report of a run.

An index that people read, and Great Expectations' Data Docs of each table.

A report is files alone, and no page of it asks anything of the network: it can be read offline,
mailed, or shown inside another page, and nobody learns that it was read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

from expectations.gate import Verdict

_INDEX, _VERDICT = "index.html", "verdict.json"
_STYLE = (Path(__file__).parent / "report.css").read_text()
_ELSEWHERE = re.compile(
    r"""<script[^>]+src="https?://[^>]*>\s*</script>|<link[^>]+href="https?://[^>]*>|<img[^>]+src="https?://[^>]*>|<footer.*?</footer>""",
    re.DOTALL | re.IGNORECASE,
)
_STATUS = {"failed": "Refused", "warned": "Passed with warnings", "passed": "Passed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """Which run a report is about."""

    title: str
    pipeline: str
    days: str
    run_id: str
    stage: str
    checked_at: str
    tables: tuple[str, ...]
    """SQL names of all gated tables, in the order of a night."""


def write(folder: Path, about: About, verdicts: Sequence[Verdict]) -> Path:
    """Write the pages of the judged tables and the index of all tables of these days.

    Returns the index.

    What other stages have written for the same days stays.
    """
    for verdict in verdicts:
        page = folder / _short(verdict.table)
        _put(page / _INDEX, data_docs(verdict))
        _put(page / _VERDICT, json.dumps(_record(about, verdict), default=str))
    _put(folder / _INDEX, index(about, list(_records(folder, about.tables))))
    return folder / _INDEX


def data_docs(verdict: Verdict) -> str:
    """The table's page of Great Expectations' Data Docs, which fetches nothing from elsewhere."""
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(verdict.result))
    return _ELSEWHERE.sub("", page).replace("</head>", f"<style>{_STYLE}</style></head>", 1)


def index(about: About, records: Sequence[Mapping[str, Any]]) -> str:
    """The page with what failed in this run, all tables, and everything that was checked.

    Earlier runs' verdicts are marked.
    """
    now = [record for record in records if record["run_id"] == about.run_id]
    status = _worst(now)
    failed, warned = _findings(now, blocking=True), _findings(now, blocking=False)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_STATUS[status]}: {escape(about.pipeline)} {escape(about.days)}</title>
<style>{_STYLE}</style></head>
<body class="index"><main>
<header><p class="eyebrow">Data quality · {escape(about.pipeline)}</p>
<h1>{escape(about.days)} <span class="badge {status}">{_STATUS[status]}</span></h1>
<p class="muted">{escape(about.title)} Run <code>{escape(about.run_id)}</code>,
last stage <code>{escape(about.stage)}</code>, {_moment(about.checked_at)} UTC.</p></header>
{_figures(now)}
{_section("What failed", "Nothing of the stage was published.", failed)}
{_section("Warnings", "Reported, and published all the same.", warned)}
<h2>Tables</h2>{_overview(records, about.run_id)}
<h2>Everything that was checked</h2>{"".join(_all_checks(record) for record in records)}
</main></body></html>
"""


def _figures(records: Sequence[Mapping[str, Any]]) -> str:
    checks = [check for record in records for check in record["checks"]]
    figures = {
        "tables judged": len(records),
        "refused": sum(not record["passed"] for record in records),
        "rows": sum(record["rows"] for record in records),
        "checks": len(checks),
        "failed": sum(not check["success"] and check["severity"] == "critical" for check in checks),
        "warnings": sum(
            not check["success"] and check["severity"] != "critical" for check in checks
        ),
    }
    cells = (
        f'<div class="{_figure_class(name, value)}"><b>{value:,}</b><span>{name}</span></div>'
        for name, value in figures.items()
    )
    return f'<div class="figures">{"".join(cells)}</div>'


def _figure_class(name: str, value: int) -> str:
    return "figure bad" if value and name in ("refused", "failed") else "figure"


def _findings(records: Sequence[Mapping[str, Any]], *, blocking: bool) -> list[str]:
    failed = [
        (record, check) for record in records for check in record["checks"] if not check["success"]
    ]
    return [
        _finding(record, check)
        for record, check in failed
        if (check["severity"] == "critical") == blocking
    ]


def _finding(record: Mapping[str, Any], check: Mapping[str, Any]) -> str:
    kind = "failed" if check["severity"] == "critical" else "warned"
    return f"""<article class="finding {kind}">
<h3><a href="{_link(record)}">{escape(record["table"])}</a> {_code(check["column"])}</h3>
<p>{escape(check["says"])}</p>
<p class="observed">Found: <b>{escape(check["error"] or check["observed"])}</b>
<span class="muted">{escape(check["expectation"])}</span></p>
{_examples(check["examples"])}</article>"""


def _examples(examples: Sequence[Mapping[str, str]]) -> str:
    if not examples:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in examples[0])
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in example.values()) + "</tr>"
        for example in examples
    )
    return _table(head, rows)


def _overview(records: Sequence[Mapping[str, Any]], run_id: str) -> str:
    head = (
        '<th>Table</th><th>Verdict</th><th class="number">Rows</th>'
        '<th class="number">Checks passed</th><th>Stage</th><th>Judged (UTC)</th>'
    )
    rows = (_verdict(record, stale=record["run_id"] != run_id) for record in records)
    return _table(head, "".join(rows))


def _verdict(record: Mapping[str, Any], *, stale: bool) -> str:
    status, checks = _status(record), record["checks"]
    passed = sum(check["success"] for check in checks)
    return f"""<tr{' class="stale"' if stale else ""}>
<td><a href="{_link(record)}">{escape(record["table"])}</a></td>
<td><span class="badge {status}">{_STATUS[status]}</span></td>
<td class="number">{record["rows"]:,}</td>
<td class="number">{passed} of {len(checks)}</td>
<td>{escape(record["stage"])}</td>
<td>{_moment(record["checked_at"])}{" by an earlier run" if stale else ""}</td></tr>"""


def _all_checks(record: Mapping[str, Any]) -> str:
    rows = "".join(
        f"""<tr class="{"" if check["success"] else "bad"}">
<td>{"✓" if check["success"] else "✗"}</td>
<td>{_code(check["column"])}</td>
<td>{escape(check["says"])}</td>
<td>{escape(check["error"] or check["observed"])}</td>
<td>{escape(check["severity"])}</td></tr>"""
        for check in record["checks"]
    )
    table = _table(
        "<th></th><th>Column or measure</th><th>What must hold</th><th>Found</th><th>Severity</th>",
        rows,
    )
    how = f'<span class="muted">{len(record["checks"])} checks in {record["seconds"]:.1f} s</span>'
    docs = f'<p><a href="{_link(record)}">The Data Docs of this table</a></p>'
    return f"<details><summary>{escape(record['table'])} {how}</summary>{docs}{table}</details>"


def _table(head: str, rows: str) -> str:
    return (
        '<div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _section(title: str, meaning: str, items: Sequence[str]) -> str:
    return f'<h2>{title}</h2><p class="muted">{meaning}</p>{"".join(items)}' if items else ""


def _record(about: About, verdict: Verdict) -> dict[str, Any]:
    return {
        "run_id": about.run_id,
        "stage": about.stage,
        "checked_at": about.checked_at,
        "table": verdict.table,
        "rows": verdict.rows,
        "passed": verdict.passed,
        "seconds": verdict.seconds,
        "checks": [asdict(check) for check in verdict.checks],
    }


def _records(folder: Path, tables: Iterable[str]) -> Iterable[dict[str, Any]]:
    for table in tables:
        place = folder / _short(table) / _VERDICT
        if place.exists():
            yield json.loads(place.read_text())


def _status(record: Mapping[str, Any]) -> str:
    if not record["passed"]:
        return "failed"
    return "passed" if all(check["success"] for check in record["checks"]) else "warned"


def _worst(records: Sequence[Mapping[str, Any]]) -> str:
    found = {_status(record) for record in records}
    return next((status for status in _STATUS if status in found), "passed")


def _short(table: str) -> str:
    return table.rpartition(".")[2]


def _link(record: Mapping[str, Any]) -> str:
    return escape(f"{_short(record['table'])}/{_INDEX}")


def _code(column: str | None) -> str:
    return f"<code>{escape(column)}</code>" if column else ""


def _moment(instant: str) -> str:
    return escape(instant[:19].replace("T", " "))


def _put(place: Path, text: str) -> None:
    """Write a file whole or not at all: people may be reading."""
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(place)
