"""The data-quality report of a run.

An index that people read, and Great Expectations' Data Docs of each table.

A report is files alone, and no page of it asks anything of the network: it can be read offline,
mailed, or shown inside another page, and nobody learns that it was read.

Rows hold what a stranger wrote. So every text is escaped, and a browser is told to run no script.
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

_INDEX = "index.html"
_VERDICT = "verdict.json"
_STYLE = (Path(__file__).parent / "report.css").read_text()
_POLICY = """<meta http-equiv="Content-Security-Policy" content="default-src 'none';
style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">"""
"""What a browser may do for a page: no script, nothing from elsewhere. The second wall, should a
text ever be shown unescaped."""
_LEFT_OUT = (
    # They need libraries that would be fetched.
    "<script.*?</script>",
    "<link[^>]*>",
    r'<img[^>]+src="https?://[^>]*>',
    # The footer invites to Great Expectations' own pages.
    "<footer.*?</footer>",
)
_ELSEWHERE = re.compile("|".join(_LEFT_OUT), re.DOTALL | re.IGNORECASE)
"""What a page of the Data Docs would run, or fetch from elsewhere, or lead to there."""
_ICON = "html_success_icon"
"""The one part of a page's content that is HTML of Great Expectations' own."""
_STATUS = {"failed": "Refused", "warned": "Passed with warnings", "passed": "Passed"}
"""Status -> what people read, worst first."""
_OVERVIEW_HEAD = (
    "<th>Table</th>"
    "<th>Verdict</th>"
    '<th class="number">Rows</th>'
    '<th class="number">Checks passed</th>'
    "<th>Stage</th>"
    "<th>Judged (UTC)</th>"
)
_CHECKS_HEAD = (
    "<th></th><th>Column or measure</th><th>What must hold</th><th>Found</th><th>Severity</th>"
)

_Record = Mapping[str, Any]
"""A table's verdict as `verdict.json` holds it, by this run or an earlier one."""


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
        record = _record(about, verdict)
        _put(page / _VERDICT, json.dumps(record, default=str))
    # Read back from the folder: other stages and earlier runs have put theirs there too.
    records = list(_records(folder, about.tables))
    _put(folder / _INDEX, index(about, records))
    return folder / _INDEX


def data_docs(verdict: Verdict) -> str:
    """The table's page of Great Expectations' Data Docs, which fetches nothing from elsewhere."""
    content = ValidationResultsPageRenderer().render(verdict.result)
    page = _Page().render(_escaped(content.to_json_dict()))
    offline = _ELSEWHERE.sub("", page)
    # First in the head, as the policy holds for what comes after it.
    guarded = offline.replace("<head>", f"<head>{_POLICY}", 1)
    return guarded.replace("</head>", f"<style>{_STYLE}</style></head>", 1)


class _Page(DefaultJinjaPageView):
    """A page of content that is escaped already.

    Great Expectations 1.24 itself escapes only what fills the gaps of a sentence, and not the cells
    of a table: Jinja's rule for HTML does not know its templates, whose names end with `.j2`.
    """

    def _validate_document(self, document: object) -> None:
        """Take the content as JSON too."""

    @staticmethod
    def _escape_template_param_value(value: object) -> object:
        return value


def _escaped(content: Any) -> Any:
    """The content of a page, as JSON, with every text in it escaped."""
    if isinstance(content, dict):
        return {name: part if name == _ICON else _escaped(part) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [_escaped(part) for part in content]
    if content is None or isinstance(content, int | float):
        return content
    return escape(str(content))


def index(about: About, records: Sequence[_Record]) -> str:
    """The page with what failed in this run, all tables, and everything that was checked.

    Earlier runs' verdicts are marked.
    """
    now = [record for record in records if record["run_id"] == about.run_id]
    status = _worst(now)
    failed = _findings(now, blocking=True)
    warned = _findings(now, blocking=False)
    details = [_all_checks(record) for record in records]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{_POLICY}
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
<h2>Everything that was checked</h2>{"".join(details)}
</main></body></html>
"""


def _figures(records: Sequence[_Record]) -> str:
    checks = _checks(records)
    failed = [check for check in checks if not check["success"]]
    blocking = [check for check in failed if _blocks(check)]
    figures = {
        "tables judged": len(records),
        "refused": sum(not record["passed"] for record in records),
        "rows": sum(record["rows"] for record in records),
        "checks": len(checks),
        "failed": len(blocking),
        "warnings": len(failed) - len(blocking),
    }
    cells = [_figure(name, value) for name, value in figures.items()]
    return f'<div class="figures">{"".join(cells)}</div>'


def _checks(records: Sequence[_Record]) -> list[Mapping[str, Any]]:
    checks = []
    for record in records:
        checks += record["checks"]
    return checks


def _blocks(check: Mapping[str, Any]) -> bool:
    return bool(check["severity"] == "critical")


def _figure(name: str, value: int) -> str:
    style = _figure_class(name, value)
    return f'<div class="{style}"><b>{value:,}</b><span>{name}</span></div>'


def _figure_class(name: str, value: int) -> str:
    return "figure bad" if value and name in ("refused", "failed") else "figure"


def _findings(records: Sequence[_Record], *, blocking: bool) -> list[str]:
    findings = []
    for record in records:
        failed = [check for check in record["checks"] if not check["success"]]
        shown = [check for check in failed if _blocks(check) == blocking]
        findings += [_finding(record, check) for check in shown]
    return findings


def _finding(record: _Record, check: Mapping[str, Any]) -> str:
    kind = "failed" if _blocks(check) else "warned"
    observed = check["error"] or check["observed"]
    return f"""<article class="finding {kind}">
<h3><a href="{_link(record)}">{escape(record["table"])}</a> {_code(check["column"])}</h3>
<p>{escape(check["says"])}</p>
<p class="observed">Found: <b>{escape(observed)}</b>
<span class="muted">{escape(check["expectation"])}</span></p>
{_examples(check["examples"])}</article>"""


def _examples(examples: Sequence[Mapping[str, str]]) -> str:
    if not examples:
        return ""
    # All examples of a check have the same columns.
    head = "".join(f"<th>{escape(name)}</th>" for name in examples[0])
    rows = [_example(example) for example in examples]
    return _table(head, rows)


def _example(example: Mapping[str, str]) -> str:
    cells = [f"<td>{escape(value)}</td>" for value in example.values()]
    return f"<tr>{''.join(cells)}</tr>"


def _overview(records: Sequence[_Record], run_id: str) -> str:
    rows = [_overview_row(record, stale=record["run_id"] != run_id) for record in records]
    return _table(_OVERVIEW_HEAD, rows)


def _overview_row(record: _Record, *, stale: bool) -> str:
    status = _status(record)
    checks = record["checks"]
    passed = sum(check["success"] for check in checks)
    style = ' class="stale"' if stale else ""
    note = " by an earlier run" if stale else ""
    return f"""<tr{style}>
<td><a href="{_link(record)}">{escape(record["table"])}</a></td>
<td><span class="badge {status}">{_STATUS[status]}</span></td>
<td class="number">{record["rows"]:,}</td>
<td class="number">{passed} of {len(checks)}</td>
<td>{escape(record["stage"])}</td>
<td>{_moment(record["checked_at"])}{note}</td></tr>"""


def _all_checks(record: _Record) -> str:
    checks = record["checks"]
    rows = [_check_row(check) for check in checks]
    how = f'<span class="muted">{len(checks)} checks in {record["seconds"]:.1f} s</span>'
    summary = f"<summary>{escape(record['table'])} {how}</summary>"
    docs = f'<p><a href="{_link(record)}">The Data Docs of this table</a></p>'
    return f"<details>{summary}{docs}{_table(_CHECKS_HEAD, rows)}</details>"


def _check_row(check: Mapping[str, Any]) -> str:
    style = "" if check["success"] else "bad"
    mark = "✓" if check["success"] else "✗"
    observed = check["error"] or check["observed"]
    return f"""<tr class="{style}">
<td>{mark}</td>
<td>{_code(check["column"])}</td>
<td>{escape(check["says"])}</td>
<td>{escape(observed)}</td>
<td>{escape(check["severity"])}</td></tr>"""


def _table(head: str, rows: Sequence[str]) -> str:
    return (
        '<div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody>"
        "</table></div>"
    )


def _section(title: str, meaning: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    return f'<h2>{title}</h2><p class="muted">{meaning}</p>{"".join(items)}'


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
        path = folder / _short(table) / _VERDICT
        if path.exists():
            yield json.loads(path.read_text())


def _status(record: _Record) -> str:
    if not record["passed"]:
        return "failed"
    is_clean = all(check["success"] for check in record["checks"])
    return "passed" if is_clean else "warned"


def _worst(records: Sequence[_Record]) -> str:
    given = {_status(record) for record in records}
    return next((status for status in _STATUS if status in given), "passed")


def _short(table: str) -> str:
    return table.rpartition(".")[2]


def _link(record: _Record) -> str:
    return escape(f"{_short(record['table'])}/{_INDEX}")


def _code(column: str | None) -> str:
    return f"<code>{escape(column)}</code>" if column else ""


def _moment(instant: str) -> str:
    # To the second: 19 characters of an ISO timestamp.
    return escape(instant[:19].replace("T", " "))


def _put(path: Path, text: str) -> None:
    """Write a file whole or not at all: people may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of this process alone, and hidden until it has its name.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
