"""The command `nightshift plan`: what is missing, stale or current up to a night, and why."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.commands.result import write_json
from pipelines import catalog
from pipelines.days import Days, ranges
from pipelines.errors import NightshiftError, Refused
from pipelines.spec import PREDICTIONS, TRAINING
from pipelines.stages import STAGES, Stage, stage

if TYPE_CHECKING:
    from jobs.planning.survey import Finding, Hole, Survey
    from pipelines.run import Run

HEADER = ("what", "state", "nights", "days", "reason")
"""`what` is a table or a stage, `nights` is how many, `days` which: the first and the last of
consecutive ones."""
Row = tuple[object, ...]

_UNDER_WAY = frozenset({"missing", "stale", "due", "hole", "awaits approval"})
"""States of what a run has to do, falls over, or leaves to a person."""
_TOLD_APART = frozenset({"train", "evaluate", "monitor"})
"""Stages that are due by rules of their own."""
_LINES_OF_A_NOTE = 12
_MOST_CHARACTERS = 1000
"""Of the note of a DAG run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a run would do."""

    rows: Sequence[Row]
    """As `HEADER` names them."""
    has_work: bool
    """Whether a run would do anything, a refusal included."""
    accepted_gaps: int = 0
    """Nights that lack files, and that a later one went over: they are told, and nobody waits."""

    @property
    def nights(self) -> int:
        """How many are to be done of the table or stage of which most are.

        Also those that lack files: these may have landed when the run comes to them.
        """
        to_do: Counter[object] = Counter()
        for what, state, nights, *_ in self.rows:
            assert isinstance(nights, int)
            to_do[what] += nights if state in _UNDER_WAY else 0
        for what, state, *_ in self.rows:
            if state == "hole":
                to_do[what] -= self.accepted_gaps
                break
        return max(to_do.values(), default=0)

    @property
    def summary(self) -> str:
        """What is to be done and why, a line for all that has the same to be done."""
        if not self.has_work:
            return "nothing to do, all is current."
        alike: dict[Row, list[str]] = {}
        for what, state, _, days, reason in self.rows:
            if state in _UNDER_WAY:
                alike.setdefault((state, days, reason), []).append(str(what))
        lines = [_line(said, names) for said, names in alike.items()]
        hidden = len(lines) - _LINES_OF_A_NOTE
        more = [f"- … and {hidden} more"] if hidden > 0 else []
        return "\n".join(["to do:", *lines[:_LINES_OF_A_NOTE], *more])


def plan(
    run: Run,
    stages: tuple[Stage, ...] = STAGES,
    *,
    allow_gap: bool = False,
    is_exact: bool = False,
    are_named: bool = False,
) -> Plan:
    """A row for each table and run of nights that have the same state for the same reason.

    After the tables, a row for each stage that makes none. What follows from tables that are to be
    made anew counts as stale; nothing is changed.

    Args:
        run: As it would be given to `nightshift run`.
        stages: Those that it would do; of the others nothing is told.
        allow_gap: Whether it would go on over nights that lack files.
        is_exact: Whether it would do the stages on its days, current or not.
        are_named: Whether `--stage` names them, be it all of them.
    """
    from jobs.planning.passes import has_work, parts_over_gaps
    from jobs.planning.required import work_on_raw_tables
    from jobs.planning.survey import Survey

    survey = Survey(run, allow_gap=allow_gap)
    reads_files = STAGES[0] in stages
    rows = [_row_of_hole(run, hole) for hole in survey.holes if reads_files]
    foreseen = survey.foreseen()
    for findings in foreseen:
        asked = [one for one in findings if _is_made_by(stages, one)]
        rows += [_row(run, part) for part in _alike(asked)]
    names = {one.name for one in stages}
    rows += [row for row in _rows_of_stages(run, survey, foreseen) if row[0] in names]
    if is_exact:
        is_whole = stages == STAGES and not are_named
        which = "--restate does all stages" if is_whole else "--stage does these stages"
        parts = parts_over_gaps(run) if allow_gap else None
        if reads_files and not allow_gap:
            rows += _rows_of_absent_files(run, survey)
        if work_on_raw_tables(stages):
            for night, why in survey.unread().items():
                rows.append(_row_of_days(run, Days.of(night), why, "hole"))
        for night, why in parts.kept.items() if parts else ():
            rows.append(_row_of_days(run, Days.of(night), why, "hole"))
        for days in parts.made if parts else [run.days]:
            rows.append(_row_of_days(run, days, f"{which} on these days"))
        return Plan(rows=rows, has_work=True)
    is_refused = reads_files and _has_hole(run, survey) and not allow_gap
    accepted = survey.accepted_holes() if reads_files else []
    return Plan(
        rows=rows,
        has_work=is_refused or has_work(run, survey, stages),
        accepted_gaps=len(accepted),
    )


def _is_made_by(stages: tuple[Stage, ...], found: Finding) -> bool:
    """Whether one of the stages stages or publishes the table."""
    return any(found.table.made_by in (one.name, one.audits) for one in stages)


def write_result(plan: Plan, path: Path) -> None:
    """Write the plan as JSON, for a scheduler, with its rows by column."""
    result = {
        "has_work": plan.has_work,
        "nights": plan.nights,
        "summary": plan.summary,
        "rows": [dict(zip(HEADER, row, strict=True)) for row in plan.rows],
    }
    write_json(path, result)


def prepare_run(run: Run, plan: Plan, dag_run: str) -> None:
    """Prepare our own Airflow for a run of the pipeline's DAG: pools, and the plan as its note.

    Where it cannot be done, a warning is printed: a note is a help, and pools may be there.
    """
    from jobs.services.airflow_api import own_airflow

    airflow = own_airflow(run.environment)
    try:
        # `up` has made them. A stage whose pool a person has deleted would wait for ever.
        airflow.make_pools(catalog.pools())
        airflow.note(run.pipeline.name, dag_run, _note(run, plan))
    except NightshiftError as error:
        print(f"Warning: the run got no note: {error}", file=sys.stderr, flush=True)


def _note(run: Run, plan: Plan) -> str:
    # Its first line is what Airflow shows of a note at first sight.
    text = f"**{run.days}**: {plan.summary}"
    if len(text) <= _MOST_CHARACTERS:
        return text
    return f"{text[: _MOST_CHARACTERS - 2]} …"


def _line(said: Row, names: Sequence[str]) -> str:
    state, days, reason = said
    # The run's page names the pipeline.
    short = ", ".join(name.rpartition(".")[2] for name in names)
    return f"- {state} {days}: {short} ({reason})"


def _has_hole(run: Run, survey: Survey) -> bool:
    from jobs.planning.required import require_no_hole

    try:
        require_no_hole(run, survey)
    except Refused:
        return True
    return False


def _rows_of_stages(
    run: Run, survey: Survey, foreseen: Sequence[Sequence[Finding]]
) -> Iterator[Row]:
    """Of stages that make no table, whether each is due; and after those before it have run."""
    from jobs.planning.passes import of_stage, why_due

    findings = chain.from_iterable(foreseen)
    changing = {one.table.name for one in findings if one.state in ("missing", "stale")}
    why_train = why_due(run, stage("train"), survey)
    if why_train is None and TRAINING in changing:
        why_train = f"{run.pipeline.name}.{TRAINING} will change"
    why_evaluate = why_due(run, stage("evaluate"), survey)
    if why_evaluate is None and why_train:
        why_evaluate = "a model will be trained"
    yield _row_of_stage(run, "train", why_train)
    yield _row_of_stage(run, "evaluate", why_evaluate)
    measured = of_stage(run, stage("monitor"), survey)
    for due in measured:
        why = "not measured since its labels or predictions were published"
        yield "monitor", "due", len(due.days), str(due.days), why
    if not measured:
        is_changing = not changing.isdisjoint((TRAINING, PREDICTIONS))
        why_monitor = "labels or predictions will change" if is_changing else None
        yield _row_of_stage(run, "monitor", why_monitor)
    for one in _other_stages(run):
        coming = [f"{run.pipeline.name}.{name}" for name in one.reads if name in changing]
        will_change = f"{', '.join(coming)} will change" if coming else None
        for days in ranges(survey.seen.missed_by(one)):
            why = "not done since what it reads was published"
            yield one.name, "due", len(days), str(days), why
        yield _row_of_stage(run, one.name, why_due(run, one, survey) or will_change)


def _other_stages(run: Run) -> list[Stage]:
    """Those that make no table, and are due by what they read alone."""
    makers = {table.made_by for table in run.pipeline.tables}
    others = [one for one in STAGES if not {one.name, one.audits} & makers]
    return [one for one in others if one.name not in _TOLD_APART]


def _row_of_stage(run: Run, name: str, why: str | None) -> Row:
    night = run.days.last
    return name, "due" if why else "current", 1, str(night), why or ""


def _row_of_days(run: Run, days: Days, why: str, state: str = "due") -> Row:
    return run.pipeline.name, state, len(days), str(days), why


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one table, those together that say the same of consecutive nights."""
    groups = groupby(enumerate(findings), key=_in_common)
    return [[one for _, one in group] for _, group in groups]


def _in_common(placed: tuple[int, Finding]) -> tuple[str, str, int]:
    """What all findings of one row share."""
    from jobs.planning.reasons import without_days

    place, one = placed
    # From one night to the next both grow by one; over a gap the night grows by more.
    return one.state, without_days(one.reason), one.night.toordinal() - place


def _row_of_hole(run: Run, hole: Hole) -> Row:
    reason = f"{', '.join(hole.files)} has not landed"
    return run.pipeline.name, "hole", 1, str(hole.night), reason


def _rows_of_absent_files(run: Run, survey: Survey) -> Iterator[Row]:
    """Of nights of the run that lack files, without which it reads none of its nights."""
    feeds = [feed.name for feed in run.pipeline.feeds]
    for night in run.days:
        files = survey.files.absent(night, feeds)
        if files:
            way_out = "; --allow-gap keeps its raw rows" if survey.has_landed(night) else ""
            why = f"{', '.join(files)} is not there{way_out}"
            yield _row_of_days(run, Days.of(night), why, "hole")


def _row(run: Run, findings: Sequence[Finding]) -> Row:
    from jobs.planning.reasons import of_all

    first = findings[0]
    nights = Days(first.night, findings[-1].night)
    name = f"{run.pipeline.name}.{first.table.name}"
    reason = of_all([one.reason for one in findings])
    return name, first.state, len(findings), str(nights), reason
