"""The command `nightshift run`: a plan, a night that tells what it does, or its stages as rows."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.output import log_to_stderr, show
from pipelines.days import Days
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    from pipelines.run import Run
    from pipelines.stages import Stage

PLAN = ("stage", "days", "tables", "does")
STAGES = ("run_id", "stage", "status", "seconds", "metrics", "error")


def show_plan(run: Run, stages: tuple[Stage, ...], form: str) -> int:
    """Print a row for each stage that the run would do; returns 0."""
    from jobs.night import steps_of

    days = str(run.days)
    steps = steps_of(run, stages)
    rows = []
    for step in steps:
        tables = " ".join(step.tables)
        rows.append((step.stage.name, days, tables, step.stage.does))
    show(PLAN, rows, form)
    return 0


def perform(
    run: Run,
    night: Callable[[], int],
    form: str,
    result: Path | None = None,
    since: datetime | None = None,
    kept: Sequence[Days] = (),
) -> int:
    """Perform the night; returns its exit code.

    As a table a line is printed when a stage is done. For programs there is one row for each stage
    in the end, also when the last was refused or failed, and all else that is printed goes to
    stderr.

    Args:
        run: The run.
        night: Performs it.
        form: How it is told.
        result: The file into which it is told as well, for a scheduler.
        since: When it began (UTC); None: now.
        kept: Into which it puts days whose corrected files were not accepted, where all else was.
    """
    since = since or datetime.now(UTC)
    if run.profile:
        night = partial(_perform_looked_at, run, night, since)
    telling = (
        night if result is None else partial(_perform_telling, run, night, since, result, kept)
    )
    if form == "table":
        return telling()
    try:
        with log_to_stderr():
            code = telling()
    except Exception:
        _show_what_is_known(run, since, form)
        raise
    show(STAGES, stage_rows(run, since), form)
    return code


def _show_what_is_known(run: Run, since: datetime, form: str) -> None:
    """Print the rows of a run that an error has ended, which is told and not what comes of these.

    A program reads rows all the same, and none where the record cannot be read.
    """
    try:
        rows = stage_rows(run, since)
    except Exception:  # a lake that is away may be why the run failed
        rows = []
    with suppress(OSError):  # such as a full disk
        show(STAGES, rows, form)


def _perform_looked_at(run: Run, night: Callable[[], int], since: datetime) -> int:
    """Perform the night, and write the page of where its time went, however it ended."""
    from jobs.commands.profile import write_page

    started = time.monotonic()
    try:
        return night()
    finally:
        try:
            told = write_page(run, since.timestamp(), time.monotonic() - started)
        except OSError as error:  # such as a full disk, which may be why the night failed
            print(f"Warning: no page of where its time went: {error}", file=sys.stderr, flush=True)
        else:
            print(f"profile             {told or 'no stage had anything to do'}", flush=True)


def _perform_telling(
    run: Run,
    night: Callable[[], int],
    since: datetime,
    result: Path,
    kept: Sequence[Days],
) -> int:
    """Perform the night, and write what became of it, whatever that is."""
    from jobs.commands.result import write_result
    from jobs.night import message_of

    try:
        code = night()
    except Exception as error:
        known = error if isinstance(error, NightshiftError) else NightshiftError()
        code = known.exit_code
        fault = message_of(error, run.environment.variables())
        with _only_warned_of(result):
            write_result(result, run, since, code, fault)
        raise
    # Of a good night it is a fault: run again, it has nothing to do but to write that file.
    with _only_warned_of(result) if code else nullcontext():
        write_result(result, run, since, code, None, kept)
    return code


@contextmanager
def _only_warned_of(result: Path) -> Iterator[None]:
    """A file that cannot be written is told beside why the night is not done, which counts."""
    try:
        yield
    except OSError as error:  # such as a full disk, which may be why
        print(f"Warning: no result in {result}: {error}", file=sys.stderr, flush=True)


def stage_rows(run: Run, since: datetime) -> Sequence[tuple[object, ...]]:
    """What `ops.stage_runs` holds of the run since that instant, in the order of the stages."""
    from jobs.lake import ops

    # The same run id may have been given to an earlier run.
    of_run = [
        ("run_id", "=", run.run_id),
        ("pipeline", "=", run.pipeline.name),
        ("started_at", ">=", since),
    ]
    recorded = ops.read(run.environment, "stage_runs", of_run).to_pylist()
    recorded.sort(key=lambda row: row["started_at"])
    for row in recorded:
        row["metrics"] = json.loads(row["metrics"]) if row["metrics"] else None
    values = itemgetter(*STAGES)
    return [values(row) for row in recorded]
