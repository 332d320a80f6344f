"""The command `nightshift migrate`: raw tables follow their declaration.

Old days stay readable by everyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.commands import migration
from jobs.lake.commits import nights_left_out
from jobs.lake.locations import sql_name
from jobs.lake.partitions import published_days
from jobs.night import one_run_at_a_time
from jobs.spark.server import running_server
from pipelines.errors import Refused, UsageError, no_such

if TYPE_CHECKING:
    from datetime import date

    from jobs.commands.migration import Change
    from pipelines.feeds import Feed
    from pipelines.run import Run

HEADER = ("table", "column", "in the table", "declared", "what")
_WITHOUT_DAYS = "no day is there: the first that is published brings the type"
_Row = tuple[object, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """What became of a column."""

    change: Change
    what: str
    is_refused: bool = False


def migrate(
    run: Run,
    table: str | None,
    *,
    is_dry: bool,
    is_restating: bool = False,
) -> tuple[int, list[_Row]]:
    """Bring raw tables to their declared columns, or only tell what would be done.

    It holds the pipeline's lock. A kill leaves each table as it was, or as it shall be.

    Args:
        run: Whose pipeline's tables they are.
        table: Only this one; None: those of all feeds.
        is_dry: Change nothing.
        is_restating: Rewrite also days that were corrected since, so that nights before see the
            correction.

    Returns:
        The exit code, that of a refusal where a column could not be migrated; and a row for each
        column that differs.

    Raises:
        UsageError: the pipeline has no such raw table.
    """
    outcomes: list[_Outcome] = []
    # Before the lock: a name that is wrong is told at once, whatever runs.
    feeds = _feeds(run, table)
    with one_run_at_a_time(run, command="migrate"):
        for feed in feeds:
            outcomes += _of_feed(run, feed, is_dry, is_restating)
    is_refused = any(one.is_refused for one in outcomes)
    rows = [_row(run, one) for one in outcomes]
    return Refused.exit_code if is_refused else 0, rows


def _row(run: Run, one: _Outcome) -> _Row:
    change = one.change
    name = sql_name(run, change.feed.name)
    return name, change.column, change.before, change.after, one.what


def _feeds(run: Run, table: str | None) -> Sequence[Feed]:
    if table is None:
        return run.pipeline.feeds
    wanted = table.removeprefix(f"{run.pipeline.name}.")
    feeds = [feed for feed in run.pipeline.feeds if feed.name == wanted]
    if feeds:
        return feeds
    if any(made.name == wanted for made in run.pipeline.tables):
        raise UsageError(
            f"{sql_name(run, wanted)} has the columns that its code makes, and gets new ones with "
            f"the next day that is published. `nightshift plan {run.pipeline.name} --date D` tells "
            f"which days are outdated; `nightshift run {run.pipeline.name} --restate --from F "
            "--to L` makes those that you name anew. A column gets another type on all days at "
            "once."
        )
    raise no_such("table", wanted, [feed.name for feed in run.pipeline.feeds])


def _of_feed(run: Run, feed: Feed, is_dry: bool, is_restating: bool) -> list[_Outcome]:
    found = migration.changes(run, feed)
    new = [one for one in found if one.kind == "new"]
    is_empty = not published_days(run, feed.name)
    retyped = [one for one in found if one.kind == "other type" and is_empty]
    readable = [one for one in found if one.is_readable and not is_empty]
    others = [one for one in found if one not in (*new, *retyped, *readable)]
    outcomes = _added(run, feed, new, is_dry)
    outcomes += [_Outcome(change=one, what=_WITHOUT_DAYS) for one in retyped]
    corrected = migration.corrected_days(run, feed) if readable and not is_restating else []
    if corrected:
        outcomes += [_refused_for(run, one, corrected) for one in readable]
    else:
        outcomes += _reread(run, feed, readable, is_dry)
    return outcomes + [_other(run, one) for one in others]


def _added(
    run: Run,
    feed: Feed,
    new: Sequence[Change],
    is_dry: bool,
) -> list[_Outcome]:
    if new and not is_dry:
        migration.add(run, new)
    days = len(published_days(run, feed.name))
    verb = "would be added" if is_dry else "added"
    what = f"{verb}: null on the {days} days that are there"
    return [_Outcome(change=one, what=what) for one in new]


def _reread(
    run: Run,
    feed: Feed,
    readable: Sequence[Change],
    is_dry: bool,
) -> list[_Outcome]:
    """Of columns whose values can be read as their declared type."""
    days = len(published_days(run, feed.name))
    if is_dry:
        what = f"{days} days would be rewritten, if all values fit"
        return [_Outcome(change=one, what=what) for one in readable]
    if not readable:
        return []
    with running_server(run.environment):
        problems = {one.column: _problem(run, one) for one in readable}
        fitting = [one for one in readable if problems[one.column] is None]
        of_key = [one for one in fitting if one.column in feed.key]
        clash = migration.sharing_keys(run, of_key) if of_key else None
        if clash:
            told = f"refused, because rows would share a key: {clash}. {_ways_out(run, feed)}"
            problems.update((one.column, told) for one in of_key)
            fitting = [one for one in fitting if one not in of_key]
        if fitting:
            migration.rewrite(run, fitting)
    return [_read(one, problems[one.column], days) for one in readable]


def _problem(run: Run, one: Change) -> str | None:
    unreadable = migration.unreadable(run, one)
    return unreadable and f"refused, because not all is {one.after}: {unreadable}"


def _refused_for(run: Run, one: Change, corrected: Sequence[date]) -> _Outcome:
    what = (
        f"refused: {len(corrected)} day(s), the first is {corrected[0]}, were corrected later, and "
        f"nights before see them as they were, in the old type. `nightshift migrate "
        f"{run.pipeline.name} --restate` has these nights see the correction; or declare the "
        "column under another name"
    )
    return _Outcome(change=one, what=what, is_refused=True)


def _read(one: Change, problem: str | None, days: int) -> _Outcome:
    if problem:
        return _Outcome(change=one, what=problem, is_refused=True)
    what = f"{days} days rewritten; what is made of them is made anew by the next night"
    return _Outcome(change=one, what=what)


def _other(run: Run, one: Change) -> _Outcome:
    if one.kind == "added by files":
        what = "added by files; declare it to give it a type"
        return _Outcome(change=one, what=what)
    if one.kind == "gone":
        what = "no longer declared: stays for the days that have it, null on later ones"
        return _Outcome(change=one, what=what)
    if one.kind == "twin":
        what = "refused: the names differ only in case; declare it by its name in the table"
        return _Outcome(change=one, what=what, is_refused=True)
    told = f"refused: not every {one.before} is read as {one.after} without loss"
    what = f"{told}. {_ways_out(run, one.feed)}"
    return _Outcome(change=one, what=what, is_refused=True)


def _ways_out(run: Run, feed: Feed) -> str:
    left_out = nights_left_out(run, feed.name, published_days(run, feed.name))
    first = ""
    # A reference feed has rows of those nights alone that found its file changed.
    if left_out and not feed.is_reference:
        which = f"night {left_out[0]}, which was left out ({len(left_out)} in all)"
        first = f"Land the files of {which}. "
    return (
        f"{first}Make all days of the table anew from their files in one run "
        f"(nightshift run {run.pipeline.name} --restate --from F --to L), "
        "or declare it under another name"
    )
