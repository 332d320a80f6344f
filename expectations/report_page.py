"""The page of a report that people read first: what failed, what is in the files, all tables.

Rows hold what a stranger wrote. So every text is escaped, and a browser is told to run no script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from expectations.page import page

INDEX = "index.html"
_STATUS = {"failed": "Refused", "warned": "Passed with warnings", "passed": "Passed"}
"""Status -> what people read, worst first."""
_OVERVIEW_HEAD = (
    "<th>Table</th>"
    "<th>Verdict</th>"
    '<th class="number">Rows</th>'
    '<th class="number">Quarantined</th>'
    '<th class="number">Checks passed</th>'
    "<th>Stage</th>"
    "<th>Judged (UTC)</th>"
)
_CHECKS_HEAD = (
    "<th></th><th>Column or measure</th><th>What must hold</th><th>Found</th><th>Severity</th>"
)
_FEED_FIGURES = {
    "files": "Files",
    "in_files": "Rows in files",
    "staged": "Good rows",
    "unchanged": "Unchanged",
    "quarantined": "Quarantined",
}
"""Figure of a feed -> the head of its column."""
_BAD_ROWS_HEAD = '<th>File</th><th class="number">Line</th><th>What is wrong</th><th>Record</th>'
_GOOD_FILES = (
    "Have the source drop good files, and run again "
    "(in Airflow: Clear ingest with what follows it)."
)
_OTHERS_SHOWN = 20

_Record = Mapping[str, Any]
"""What a stage found, as `expectations/report.py` keeps it."""


def index(
    about: _Record, records: Sequence[_Record], files: _Record | None, others: Sequence[_Record]
) -> str:
    """The page of a run.

    Args:
        about: The run.
        records: Verdicts on tables, in the order of a night.
        files: What was found in the landed files; None: the run has not looked.
        others: Other runs' reports of the same days.
    """
    status = worst(records, files)
    failed = [*_refused_files(files), *_findings(records, blocking=True)]
    warned = _findings(records, blocking=False)
    details = [_all_checks(record) for record in records]
    named = f"{_STATUS[status]}: {about['pipeline']} {about['days']}"
    body = f"""<header><p class="eyebrow">Data quality · {escape(about["pipeline"])}</p>
<h1>{escape(about["days"])} {_badge(status)}</h1>
<p class="muted">{escape(about["title"])} Run <code>{escape(about["run_id"])}</code>,
last stage <code>{escape(about["stage"])}</code>, {_moment(about["checked_at"])} UTC.</p></header>
{_figures(records, files)}
{_section("What failed", "Nothing of the stage was published.", failed)}
{_section("Warnings", "Reported, and published all the same.", warned)}
{_files(files)}
{_section("Tables", "", [_overview(records)] if records else [])}
{_section("Everything that was checked", "", details)}
{_section("Other runs of these days", "", _other_runs(others))}"""
    return page(named, body)


def leading_to(folder: str, title: str) -> str:
    """A page that leads to the index of a folder beside it, from a disk and over HTTP alike."""
    # './' first: a run's id may hold a colon, and would be read as a scheme.
    address = escape(f"./{quote(folder)}/{INDEX}")
    leads = f'<meta http-equiv="refresh" content="0; url={address}">'
    return page(title, f'<p><a href="{address}">{escape(title)}</a></p>', leads)


def worst(records: Sequence[_Record], files: _Record | None) -> str:
    """The status of a run: that of the worst that it found."""
    given = {_status(record) for record in records}
    if files and not files["passed"]:
        given.add("failed")
    return next((status for status in _STATUS if status in given), "passed")


def short(table: str) -> str:
    """The name of a table without its pipeline's."""
    return table.rpartition(".")[2]


def _figures(records: Sequence[_Record], files: _Record | None) -> str:
    checks = _checks(records)
    failed = [check for check in checks if not check["success"]]
    blocking = [check for check in failed if _blocks(check)]
    feeds = files["feeds"] if files else []
    figures = {}
    if feeds:
        figures["rows in files"] = sum(feed["in_files"] for feed in feeds)
    figures["quarantined"] = sum(part["quarantined"] for part in (*feeds, *records))
    if records:
        figures["tables judged"] = len(records)
        figures["refused"] = sum(not record["passed"] for record in records)
        figures["checks"] = len(checks)
        figures["failed"] = len(blocking)
        figures["warnings"] = len(failed) - len(blocking)
    cells = [_figure(name, value) for name, value in figures.items()]
    return f'<div class="figures">{"".join(cells)}</div>'


def _checks(records: Sequence[_Record]) -> list[_Record]:
    checks = []
    for record in records:
        checks += record["checks"]
    return checks


def _blocks(check: _Record) -> bool:
    return bool(check["severity"] == "critical")


def _figure(name: str, value: int) -> str:
    style = _figure_class(name, value)
    return f'<div class="{style}"><b>{value:,}</b><span>{name}</span></div>'


def _figure_class(name: str, value: int) -> str:
    return "figure bad" if value and name in ("refused", "failed") else "figure"


def _refused_files(files: _Record | None) -> list[str]:
    if not files or files["passed"]:
        return []
    return [
        f"""<article class="finding failed">
<h3>Landed files</h3>
<pre class="observed">{escape(files["refusal"])}</pre>
{_bad_rows(files)}</article>"""
    ]


def _findings(records: Sequence[_Record], *, blocking: bool) -> list[str]:
    findings = []
    for record in records:
        failed = [check for check in record["checks"] if not check["success"]]
        shown = [check for check in failed if _blocks(check) == blocking]
        findings += [_finding(record, check) for check in shown]
    return findings


def _finding(record: _Record, check: _Record) -> str:
    kind = "failed" if _blocks(check) else "warned"
    observed = check["error"] or check["observed"]
    # The page of data quality leads to it.
    anchor = escape(f"{record['table']}|{check['expectation']}|{check['column'] or ''}")
    return f"""<article class="finding {kind}" id="{anchor}">
<h3><a href="{_link(record)}">{escape(record["table"])}</a> {_code(check["column"])}</h3>
<p>{escape(check["says"])}</p>
<p class="observed">Found: <b>{escape(observed)}</b>
<span class="muted">{escape(check["expectation"])}</span></p>
{_examples(check["examples"])}{_way_out(check)}</article>"""


def _way_out(check: _Record) -> str:
    if not _blocks(check):
        return ""
    if not check["way_out"]:
        return f'<p class="way">{_GOOD_FILES}</p>'
    return (
        f'<p class="way">{_GOOD_FILES} Or let it through:</p><pre>{escape(check["way_out"])}</pre>'
    )


def _examples(examples: Sequence[Mapping[str, str]]) -> str:
    if not examples:
        return ""
    # All examples of a check have the same columns.
    head = "".join(f"<th>{escape(name)}</th>" for name in examples[0])
    return _table(head, [_row(example.values()) for example in examples])


def _row(values: Any) -> str:
    cells = [f"<td>{escape(value)}</td>" for value in values]
    return f"<tr>{''.join(cells)}</tr>"


def _files(files: _Record | None) -> str:
    if not files or not files["feeds"]:
        return ""
    head = "".join(f'<th class="number">{name}</th>' for name in _FEED_FIGURES.values())
    rows = [_feed_row(feed) for feed in files["feeds"]]
    parts = [_table(f"<th>Table</th>{head}", rows)]
    if files["passed"] and files["bad_rows"]:
        parts.append(f"<h3>Quarantined rows</h3>{_bad_rows(files)}")
    return _section("Files", "Rows in files = good rows + unchanged + quarantined.", parts)


def _feed_row(feed: _Record) -> str:
    cells = [f'<td class="number">{feed[name]:,}</td>' for name in _FEED_FIGURES]
    return f"<tr><td>{escape(feed['table'])}</td>{''.join(cells)}</tr>"


def _bad_rows(files: _Record) -> str:
    rows = [_bad_row(row) for row in files["bad_rows"]]
    return _table(_BAD_ROWS_HEAD, rows) if rows else ""


def _bad_row(row: _Record) -> str:
    return f"""<tr><td>{escape(row["file"])}</td>
<td class="number">{row["line"]:,}</td>
<td>{escape(row["reason"])}</td>
<td><code>{escape(row["record"])}</code></td></tr>"""


def _overview(records: Sequence[_Record]) -> str:
    return _table(_OVERVIEW_HEAD, [_overview_row(record) for record in records])


def _overview_row(record: _Record) -> str:
    checks = record["checks"]
    passed = sum(check["success"] for check in checks)
    return f"""<tr>
<td><a href="{_link(record)}">{escape(record["table"])}</a></td>
<td>{_badge(_status(record))}</td>
<td class="number">{record["rows"]:,}</td>
<td class="number">{record["quarantined"]:,}</td>
<td class="number">{passed} of {len(checks)}</td>
<td>{escape(record["stage"])}</td>
<td>{_moment(record["checked_at"])}</td></tr>"""


def _all_checks(record: _Record) -> str:
    checks = record["checks"]
    rows = [_check_row(check) for check in checks]
    how = f'<span class="muted">{len(checks)} checks in {record["seconds"]:.1f} s</span>'
    summary = f"<summary>{escape(record['table'])} {how}</summary>"
    docs = f'<p><a href="{_link(record)}">The Data Docs of this table</a></p>'
    return f"<details>{summary}{docs}{_table(_CHECKS_HEAD, rows)}</details>"


def _check_row(check: _Record) -> str:
    style = "" if check["success"] else "bad"
    mark = "✓" if check["success"] else "✗"
    observed = check["error"] or check["observed"]
    return f"""<tr class="{style}">
<td>{mark}</td>
<td>{_code(check["column"])}</td>
<td>{escape(check["says"])}</td>
<td>{escape(observed)}</td>
<td>{escape(check["severity"])}</td></tr>"""


def _other_runs(others: Sequence[_Record]) -> list[str]:
    if not others:
        return []
    rows = [_other_run(run) for run in others[:_OTHERS_SHOWN]]
    return [_table("<th>Run</th><th>Verdict</th><th>Written (UTC)</th>", rows)]


def _other_run(run: _Record) -> str:
    address = escape(f"../{quote(run['folder'])}/{INDEX}")
    return f"""<tr><td><a href="{address}">{escape(run["folder"])}</a></td>
<td>{_badge(run["status"])}</td>
<td>{_moment(run["checked_at"])}</td></tr>"""


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
    says = f'<p class="muted">{meaning}</p>' if meaning else ""
    return f"<h2>{title}</h2>{says}{''.join(items)}"


def _status(record: _Record) -> str:
    if not record["passed"]:
        return "failed"
    is_clean = all(check["success"] for check in record["checks"])
    return "passed" if is_clean else "warned"


def _badge(status: str) -> str:
    return f'<span class="badge {status}">{_STATUS[status]}</span>'


def _link(record: _Record) -> str:
    return escape(f"{short(record['table'])}/{INDEX}")


def _code(column: str | None) -> str:
    return f"<code>{escape(column)}</code>" if column else ""


def _moment(instant: str) -> str:
    # To the second: 19 characters of an ISO timestamp.
    return escape(instant[:19].replace("T", " "))
