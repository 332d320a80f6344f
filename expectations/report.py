"""The data-quality reports of a pipeline: what is written where.

A run has a folder of its own for the days that it worked on, `<pipeline>/<days>/<run>/`: an index
that people read, and Great Expectations' Data Docs of each table. Beside the runs of some days lies
`index.html`, which leads to the latest of them.

A report is files alone, and no page of it asks anything of the network: it can be read offline,
mailed, or shown inside another page, and nobody learns that it was read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations import report_page
from expectations.report_page import INDEX
from pipelines.places import write_whole

if TYPE_CHECKING:
    from expectations.gate import Verdict

_VERDICT = "verdict.json"
_FILES = "files.json"
_STATUS = "status.json"
"""What other runs' pages say of this one."""

_Record = Mapping[str, Any]
"""What one stage found, as JSON: of a table, or of the landed files."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedFigures:
    """What became of the records in the files of one feed."""

    table: str
    files: int
    in_files: int
    staged: int
    unchanged: int
    quarantined: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A record of a file that cannot be a row."""

    file: str
    line: int
    reason: str
    """The column, its value and what is wrong with it."""
    record: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """What was found in the landed files."""

    feeds: tuple[FeedFigures, ...] = ()
    bad_rows: tuple[BadRow, ...] = ()
    """Some of those that are quarantined."""
    refusal: str | None = None
    """Why the files were refused, and the way out; None: they were not."""


def write_verdicts(
    folder: Path,
    about: About,
    verdicts: Sequence[Verdict],
    ways: Mapping[tuple[str, str, str | None], str],
) -> Path:
    """Write the pages of the judged tables and the index; returns the index.

    Args:
        folder: Of the days, in which each run has its own.
        about: The run.
        verdicts: What the gate says.
        ways: Table, expectation and column of a failure -> the command that lets it through.
    """
    # It needs Great Expectations, which takes seconds to import.
    from expectations.data_docs import data_docs

    own = _own_folder(folder, about.run_id)
    for verdict in verdicts:
        page = own / report_page.short(verdict.table)
        _put(page / INDEX, data_docs(verdict))
        record = _record(about, verdict, ways)
        _put(page / _VERDICT, json.dumps(record, default=str))
    return _write_index(own, about)


def write_files(folder: Path, about: About, files: Files) -> Path:
    """Write what was found in the landed files, and the index; returns the index.

    Args:
        folder: Of the days, in which each run has its own.
        about: The run.
        files: What was found.
    """
    own = _own_folder(folder, about.run_id)
    record = {"stage": about.stage, "passed": files.refusal is None, **asdict(files)}
    _put(own / _FILES, json.dumps(record))
    return _write_index(own, about)


def _own_folder(folder: Path, run_id: str) -> Path:
    """The folder in which the run writes from now on.

    One that tells a refusal is never written again: a run that is taken up after it (a cleared task
    in Airflow) goes on in the next, which begins with what other stages have found.
    """
    own = folder / run_id
    number = 1
    while refused := {record["stage"] for record in _records(own) if not record["passed"]}:
        number += 1
        before, own = own, folder / f"{run_id}~{number}"
        if not own.exists():
            _carry_over(before, own, refused)
    return own


def _carry_over(before: Path, own: Path, refused: Iterable[str]) -> None:
    for path in _record_files(before):
        if json.loads(path.read_text())["stage"] in refused:
            continue
        # What was found in the files has no page; a verdict has, beside it.
        found = [path] if path.name == _FILES else list(path.parent.iterdir())
        for file in found:
            write_whole(own / file.relative_to(before), file.read_bytes())


def _write_index(own: Path, about: About) -> Path:
    of_table = {record.get("table"): record for record in _records(own)}
    verdicts = [of_table[name] for name in about.tables if name in of_table]
    # What was found in the files is of no table.
    files = of_table.get(None)
    others = list(_other_runs(own))
    page = report_page.index(asdict(about), verdicts, files, others)
    _put(own / INDEX, page)
    status = {
        "folder": own.name,
        "status": report_page.worst(verdicts, files),
        "checked_at": about.checked_at,
    }
    _put(own / _STATUS, json.dumps(status))
    title = f"The latest report of {about.pipeline} {about.days}"
    _put(own.parent / INDEX, report_page.leading_to(own.name, title))
    return own / INDEX


def _other_runs(own: Path) -> Iterable[_Record]:
    """The other reports of the same days, newest first."""
    others = [path for path in own.parent.glob(f"*/{_STATUS}") if path.parent != own]
    found = [json.loads(path.read_text()) for path in others]
    return sorted(found, key=lambda status: status["checked_at"], reverse=True)


def _record(
    about: About, verdict: Verdict, ways: Mapping[tuple[str, str, str | None], str]
) -> dict[str, Any]:
    checks = []
    for check in verdict.checks:
        way = ways.get((verdict.table, check.expectation, check.column))
        checks.append({**asdict(check), "way_out": way})
    return {
        "stage": about.stage,
        "checked_at": about.checked_at,
        "table": verdict.table,
        "rows": verdict.rows,
        "quarantined": verdict.quarantined,
        "passed": verdict.passed,
        "seconds": verdict.seconds,
        "checks": checks,
    }


def _record_files(own: Path) -> list[Path]:
    return [*own.glob(_FILES), *own.glob(f"*/{_VERDICT}")]


def _records(own: Path) -> list[_Record]:
    return [json.loads(path.read_text()) for path in _record_files(own)]


def _put(path: Path, text: str) -> None:
    write_whole(path, text.encode())
