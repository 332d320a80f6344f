"""What a run refuses to go on without: nights, files, and what the stages before were to make."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from operator import itemgetter
from typing import TYPE_CHECKING

from jobs.lake import ops
from jobs.lake.locations import sql_name
from pipelines.errors import Refused
from pipelines.spec import PREDICTIONS, SCORING
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from jobs.planning.survey import Survey
    from pipelines.run import Run
    from pipelines.stages import Stage

_HOLES_SHOWN = 12
NEEDED = {"predict": SCORING, "monitor": PREDICTIONS}
"""By stage the table that must have the run's own nights, as all before it: without them it would
leave them out."""


def require_no_hole(run: Run, survey: Survey) -> None:
    """Refuse to go on over nights that are not made, or not whole, and cannot be.

    Raises:
        Refused: there are some; the message names the nights, their files and the ways out.
    """
    # The plan still tells the others.
    accepted = survey.accepted_holes()
    holes = [hole for hole in survey.holes if hole not in accepted]
    if not holes:
        return
    count = len(holes)
    lines = [
        f"{count} night(s) before {run.days.first} are not made, or not whole, and lack files:"
    ]
    lines += _listed_holes([f"{hole.night}: {', '.join(hole.files)}" for hole in holes])
    lines.append(
        f"Files are looked for in {run.environment.landing}. Have the source drop them and run "
        "again: these nights are caught up. Or say --allow-gap: then everything is made without "
        "them, and made again when they land."
    )
    if survey.new_feeds:
        lines.append(
            f"Of a feed that is new ({', '.join(survey.new_feeds)}) declare the first_day: then it "
            "has no drop of nights before it."
        )
    raise Refused("\n".join(lines))


def work_on_raw_tables(stages: tuple[Stage, ...]) -> bool:
    """Whether the stages shape raw tables as they are, without the one that reads files."""
    return STAGES[0] not in stages and any(one.group == "shape" for one in stages)


def require_read(run: Run, survey: Survey) -> None:
    """Refuse to make nights that never were: of no file there is a row.

    Raises:
        Refused: there are some; the message names the nights, their files and the ways out.
    """
    unread = survey.unread()
    if not unread:
        return
    lines = [f"{len(unread)} night(s) of {run.days} were never read, so nothing is made of any:"]
    lines += _listed_holes([f"{night}: {why}" for night, why in unread.items()])
    lines.append(
        f"Stage '{STAGES[0].name}' reads them, once their files are in {run.environment.landing}. "
        "Or leave them out: name other days, or say --allow-gap, which goes over those before the "
        "last whose files are not there."
    )
    raise Refused("\n".join(lines))


def _listed_holes(told: Sequence[str]) -> list[str]:
    hidden = len(told) - _HOLES_SHOWN
    more = [f"  … and {hidden} more"] if hidden > 0 else []
    return [*(f"  - {one}" for one in told[:_HOLES_SHOWN]), *more]


def require_made(run: Run, stage: Stage, survey: Survey) -> None:
    """Refuse to go on without what the stages before were to make of the run's own nights.

    A scheduler goes on after a stage that a person has marked as a success, as if it had published.

    Raises:
        Refused: a table lacks one of these nights; the message names it, why, and the way out.
    """
    lacking = survey.lacking(NEEDED[stage.name]) if stage.name in NEEDED else None
    if lacking is None:
        return
    table, night = lacking
    name = run.pipeline.name
    publishers = [one.name for one in STAGES if one.audits == table.made_by] or [table.made_by]
    raise Refused(
        f"{sql_name(run, table.name)} lacks the night of {night}, and so does what is made of it: "
        f"'{stage.name}' has nothing to work on. '{publishers[0]}' publishes it; "
        f"{_why_unmade(run, night, [table.made_by, *publishers])}\n"
        "To mark a task as a success publishes nothing. Once the night can be made, clear "
        f"'{table.made_by}' with what follows it, or: nightshift run {name} --date {night}"
    )


def _why_unmade(run: Run, night: date, stages: Sequence[str]) -> str:
    """How the last attempt at these stages ended that did not succeed, in a sentence."""
    about = [("pipeline", "=", run.pipeline.name), ("last_day", ">=", night)]
    columns = ["stage", "status", "started_at", "first_day", "error"]
    rows = ops.read(run.environment, "stage_runs", about, columns).to_pylist()
    own = [row for row in rows if row["stage"] in stages and row["first_day"] <= night]
    failed = [row for row in own if row["error"]]
    if not failed:
        return "no attempt that failed is on record."
    last = max(failed, key=itemgetter("started_at"))
    words = last["error"].splitlines()[0]
    return f"the last attempt at '{last['stage']}' was {last['status']}: {words}"
