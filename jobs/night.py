"""Plans a night as data, and performs it stage by stage.

In the stage server when one is up, else in this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobs import outcome
from jobs.lake.store_faults import explain_away, explain_log_fault
from jobs.output import harmless, outlive_readers
from jobs.services import locks, shared_locks, stage_client
from jobs.services.home import closed_to_us
from jobs.services.imports import import_meanwhile
from jobs.services.in_turn import in_turn, serve
from jobs.services.usage import Meter
from jobs.spark.server import running_server
from jobs.spark.session import disconnect, explain_loss, forget_lost, plan_for
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import (
    AwaitsApproval,
    AwaitsTurn,
    NightshiftError,
    NotLanded,
    Refused,
    without_stack,
)
from pipelines.events import Event, Notification
from pipelines.for_ranks import for_ranks
from pipelines.landing import expected_files, stamp
from pipelines.redaction import redacted
from pipelines.run import Run
from pipelines.spec import QUARANTINE_SUFFIX
from pipelines.stages import STAGES, Stage

if TYPE_CHECKING:
    from jobs.planning.passes import Pass as Planned
    from jobs.services.usage import Usage

PERFORM = "jobs.night:perform"
PERFORM_IN_TURN = "jobs.night:perform_in_turn"
"""This module's entries for the stage server."""

_STATUS = {
    Refused.exit_code: "refused",
    NotLanded.exit_code: "not landed",
    AwaitsApproval.exit_code: "awaits approval",
}
"""In `ops.stage_runs`, of a stage that did not succeed; of every other code it is `failed`."""
_FEW_DAYS = 4
_FEW_BYTES = 4_000_000
"""Up to so many days of a run, and so many bytes of their files, Spark interprets its queries:
docs/performance.md says what that saves. A week of flights costs the same either way."""
_NOT_ACCEPTED = (Refused.exit_code, NotLanded.exit_code)
_WhatHappened = Callable[[], Notification | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pass:
    """Stages, and what they are performed on."""

    stages: tuple[Stage, ...]
    days: Days
    tables: tuple[str, ...] = ()
    """Those that they make; (): all of theirs."""
    is_correction: bool = False
    """The night goes on when one refuses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _How:
    """How stages are performed."""

    notify: bool
    """Have people told by the channels that the pipeline declares."""
    in_place: bool
    """In this process, which is a child of the stage server already."""
    wait_seconds: float | None = None
    """How long to wait for another run of the pipeline; None: until it has ended."""
    is_tried: bool = False
    """In parts, when files are not accepted: nobody is told before it is known which."""


class _RefusedBefore(Refused):
    """A stage was refused before it began: what it works on is not there."""

    def __init__(self, stage: Stage, message: str) -> None:
        super().__init__(message)
        self.stage = stage


@dataclass(slots=True)
class _Ending:
    """How a night will end, as far as it has come."""

    failed: Stage | None = None
    """The first stage that did not succeed."""
    code: int = 0
    """The exit code of the night: that of the stage; without one, that of a correction."""
    is_over: bool = False
    """A stage did not succeed without which the night cannot go on."""
    kept: list[Days] = field(default_factory=list)
    """Days that stay as they are, because their new files were not accepted."""

    def after_correction(self, corrected: _Ending, days: Days) -> None:
        """Take in how the correction of days ended that are in force without it."""
        if corrected.code in _NOT_ACCEPTED:
            self.kept.append(days)
            self.code = self.code or corrected.code
        elif corrected.failed:
            self.after(corrected.failed, corrected.code)

    def after(self, stage: Stage, code: int) -> None:
        """Take in how a stage ended."""
        if not code:
            return
        if self.failed is None:
            # A correction that is in force without its new files hides nothing of the night's own.
            self.failed = stage
            self.code = code
        self.is_over = not stage.may_fail

    def skips(self, stage: Stage) -> bool:
        """Whether the stage is left out: it would only work on what was not made."""
        return self.is_over or (self.failed is not None and stage.may_fail)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One line of the plan: a stage, and the tables that it stages or publishes."""

    stage: Stage
    tables: tuple[str, ...]


def steps_of(run: Run, stages: tuple[Stage, ...]) -> tuple[Step, ...]:
    """What the run would do, in order."""
    return tuple(Step(stage=stage, tables=_tables_of(run, stage)) for stage in stages)


def run_night(
    run: Run,
    stages: tuple[Stage, ...],
    *,
    allow_gap: bool = False,
    notify: bool = True,
    in_place: bool = False,
    wait_seconds: float | None = None,
) -> int:
    """Perform the stages on the run's days, one after another until one does not succeed.

    After one that may fail, the night goes on with the next that may not.

    Uses what `nightshift up` has started, and starts and stops what it needs when nothing is up.

    Args:
        run: The run; each stage is given it in turn.
        stages: What to perform, in order.
        allow_gap: Read no night that lacks files, but for a last one that was never made.
        notify: Have people told by the channels that the pipeline declares.
        in_place: Perform them in this process, which is a child of the stage server already.
        wait_seconds: How long to wait for another run of the pipeline; None: until it has ended.

    Returns:
        The exit code of the first stage that did not succeed; 0 when all did.

    Raises:
        AwaitsTurn: another run of the pipeline has not ended in that time.
    """
    run = replace(run, is_exact=True)
    how = _How(notify=notify, in_place=in_place, wait_seconds=wait_seconds)
    passes = _passes_as_named(run, stages, allow_gap)
    return _perform_passes(run, stages, passes, _Ending(), how)


def make_true(
    run: Run,
    stages: tuple[Stage, ...],
    *,
    allow_gap: bool = False,
    notify: bool = True,
    in_place: bool = False,
    wait_seconds: float | None = None,
    kept: list[Days] | None = None,
) -> int:
    """Do what is missing or stale up to the run's last night, and nothing else.

    Nights that were missed are caught up, corrected files flow on, and a night that failed goes on
    where it stopped. After a stage that may fail, the night goes on with the next that may not; and
    where corrected files of days before are not accepted, with what is in force of these days.
    Nothing is started when there is nothing to do.

    Args:
        run: Up to whose last night everything shall be true.
        stages: Those that may do something, in order.
        allow_gap: Go on over nights that lack files, also over those of the run before its last.
        notify: Have people told by the channels that the pipeline declares.
        in_place: Perform them in this process, which is a child of the stage server already.
        wait_seconds: How long to wait for another run of the pipeline; None: until it has ended.
        kept: Gets the days whose corrected files were not accepted, where all else succeeded.

    Returns:
        The exit code of the first stage that did not succeed, where there is one but for
        corrections that were not accepted; else that of the first of these; 0 when all succeeded or
        nothing was to do.

    Raises:
        AwaitsTurn: another run of the pipeline has not ended in that time.
        Refused: nights before the run's first were never made, and lack files.
    """
    ending = _Ending()
    passes = _passes(run, stages, ending, allow_gap)
    how = _How(notify=notify, in_place=in_place, wait_seconds=wait_seconds)
    code = _perform_passes(run, stages, passes, ending, how)
    if kept is not None and ending.failed is None:
        kept += ending.kept
    return code


def lost(
    run: Run,
    began: datetime,
    taken: Usage,
    *,
    notify: bool = True,
) -> int:
    """Record, and tell, that a stage's process was killed, where it has recorded nothing itself.

    Args:
        run: At its stage.
        began: When the process was started (UTC).
        taken: What the process took, as the stage server told it.
        notify: Have people told by the channels that the pipeline declares.

    Returns:
        The exit code of a fault.
    """
    code = NightshiftError.exit_code
    if outcome.has_recorded(run, began):
        # How the stage itself ended stands; what was to follow it has not.
        return code
    _record_loss(run, began, code, taken)
    if notify:
        _tell(run, partial(outcome.of_stage, run, code, began))
        if run.doing.name in outcome.EXPIRING_STAGES:
            _tell(run, partial(outcome.expiry, run))
    return code


def perform(argument: dict[str, Any]) -> int:
    """Do one stage in this process, record it in `ops.stage_runs`, and return its exit code.

    Args:
        argument: A `Run` as `Run.to_json` wrote it.
    """
    run = Run.from_json(argument)
    outlive_readers()
    started = time.time()
    meter = Meter(run.environment)
    from jobs.lake import amounts  # measured too, as all that a stage imports

    amounts.start()
    try:
        plan_for(run.environment, many_rows=_has_many_rows(run))
        with _looked_at(run):
            metrics = _function(run.doing)(_numbered(run))
        taken = meter.read()
        # Within: a store may go away just then, and that is told as any other fault.
        _record(run, started, taken.seconds, status="done", metrics=metrics)
    except Exception as error:  # whatever it is, it must be recorded and end as an exit code
        told = explain_loss(run.environment, error) or error
        # The client's settings: in the stage server this process has those of `nightshift up`.
        code, message = explain(told, run.environment.variables())
        taken = meter.read()
        details = told.details() if isinstance(told, NightshiftError) else {}
        if _record_failure(run, started, taken.seconds, code, message, details or None):
            _record_costs(run, started, _status(code), taken)
        return code
    _record_costs(run, started, "done", taken, metrics)
    print(f"{run.doing.name:<18}{taken.seconds:6.1f} s  {summary(metrics)}", flush=True)
    return 0


def perform_in_turn(_: dict[str, Any]) -> None:
    """Do one stage after another in this process, as its client asks for them."""
    serve(_perform_next)


def _perform_next(argument: dict[str, Any]) -> int:
    environment = Run.from_json(argument).environment
    if environment.spark_remote:
        try:
            return perform(argument)
        finally:
            # Whether a cluster that others run still knows it may take minutes to find out.
            with suppress(Exception):
                disconnect()
    # The server may have been started anew since the last stage, or have waited for too long.
    forget_lost(environment)
    return perform(argument)


def _looked_at(run: Run) -> AbstractContextManager[None]:
    """Where the time of the stage goes is looked at for so long, if the run asks for it."""
    if not run.profile:
        return nullcontext()
    from jobs.services.sampler import sampling

    # A run may do a stage for some days, and then for others, or for the same ones anew.
    name = f"{run.doing.name}_{run.days.first}..{run.days.last}"
    named = [run.profiles / f"{name}.json"]
    while named[-1].exists():
        named.append(run.profiles / f"{name}_{len(named) + 1}.json")
    about = {"stage": run.doing.name, "days": str(run.days)}
    return sampling(named[-1], about)


def _has_many_rows(run: Run) -> bool:
    """Whether the run's days have so many rows that Spark's compiled code pays off."""
    if len(run.days) > _FEW_DAYS:
        return True
    dated = [file for file in expected_files(run.pipeline, run.days) if not file.feed.is_reference]
    found = [stamp(run.environment.landing / file.name) for file in dated]
    return sum(one.size for one in found if one) > _FEW_BYTES


def explain(
    error: BaseException,
    variables: Mapping[str, str] = os.environ,
) -> tuple[int, str]:
    """Print what went wrong for a person, with a traceback only for faults of our own.

    Args:
        error: What was raised.
        variables: The environment variables whose secrets nobody may read.

    Returns:
        The exit code and the message.
    """
    error = _explained(error, variables)
    if not isinstance(error, NightshiftError):
        lines = traceback.format_exception(error)
        print(_readable("".join(lines), variables), file=sys.stderr, end="")
    message = message_of(error, variables)
    kind = error.kind if isinstance(error, NightshiftError) else NightshiftError.kind
    print(f"{kind}: {message}", file=sys.stderr, flush=True)
    code = error.exit_code if isinstance(error, NightshiftError) else NightshiftError.exit_code
    return code, message


def message_of(error: BaseException, variables: Mapping[str, str] = os.environ) -> str:
    """The error in words, without secrets and harmless to a terminal.

    Our own as it stands, another's after the name of its type.
    """
    return _readable(_in_words(error, variables), variables)


def _readable(text: str, variables: Mapping[str, str]) -> str:
    # An error may quote an address, and a value of a row that a stranger wrote.
    lines = redacted(text, variables).expandtabs().split("\n")
    return "\n".join(harmless(line) for line in lines)


def _explained(error: BaseException, variables: Mapping[str, str]) -> BaseException:
    """The error in plain words of ours, where we have any."""
    of_others = explain_away(error, variables) or explain_log_fault(error, variables)
    return of_others or _explain_closed_home(error, variables) or error


def _explain_closed_home(
    error: BaseException, variables: Mapping[str, str]
) -> NightshiftError | None:
    """The plain words for what may not be read in a home of somebody else; None: of all else."""
    if not isinstance(error, PermissionError):
        return None
    return closed_to_us(Environment.read(variables).home)


def _in_words(error: BaseException, variables: Mapping[str, str]) -> str:
    error = _explained(error, variables)
    if isinstance(error, NightshiftError):
        return str(error)
    # Spark's messages end with the server's stack, which the traceback has printed already.
    words = without_stack(str(error)).strip()
    return f"{type(error).__name__}: {words}"


def summary(metrics: dict[str, Any]) -> str:
    """The plain numbers and words of a stage's metrics on one line.

    Nested values stay in `ops.stage_runs`.
    """
    return ", ".join(
        f"{name} {_short(value)}"
        for name, value in metrics.items()
        if isinstance(value, int | float | str)
    )


def one_run_at_a_time(
    run: Run, wait_seconds: float | None = None, *, command: str = "run"
) -> AbstractContextManager[None]:
    """Hold the pipeline's lock: two runs of one pipeline take turns, on whatever machine.

    Args:
        run: Of the pipeline.
        wait_seconds: How long to wait for another run; None: until it has ended.
        command: That holds it: another than `run` is told by its name, as its run has no stages.
    """
    pipeline = run.pipeline.name
    now = datetime.now(UTC)
    who = f"run {run.run_id}" if command == "run" else f"`nightshift {command}`"
    return shared_locks.hold(
        run.environment,
        f"pipeline.{pipeline}",
        waiting=f"Waiting for another run of '{pipeline}' to finish.",
        holder=f"{who}, which came at {now:%Y-%m-%d %H:%M} UTC ({locks.this_process()})",
        most_seconds=wait_seconds,
    )


def _tables_of(run: Run, stage: Stage) -> tuple[str, ...]:
    makers = (stage.name, stage.audits)
    made = [table.name for table in run.pipeline.tables if table.made_by in makers]
    return tuple(f"{run.pipeline.name}.{name}" for name in made)


def _perform_passes(
    run: Run,
    stages: tuple[Stage, ...],
    passes: Iterable[_Pass],
    ending: _Ending,
    how: _How,
) -> int:
    notify = how.notify
    done = 0
    since = datetime.now(UTC)
    try:
        with (
            one_run_at_a_time(run, how.wait_seconds),
            in_turn(PERFORM, PERFORM_IN_TURN),
            ExitStack() as started,
        ):
            for one in passes:
                if not done and not stage_client.available(run.environment):
                    started.enter_context(running_server(run.environment))
                if not done and not how.in_place:
                    # What is told in the end reads tables: a third of a second of imports, in which
                    # this process only waits for a stage.
                    import_meanwhile("jobs.lake.costs", "jobs.commands.result", "jobs.lake.ops")
                done += 1
                asked_for = run.days
                part = replace(
                    run,
                    days=one.days,
                    tables=one.tables,
                    as_of=asked_for.last,
                    named=asked_for.first,
                )
                if one.is_correction:
                    _perform_correction(part, one.stages, ending, how)
                else:
                    _perform_all(part, one.stages, ending, how)
                if ending.is_over:
                    break
    except Exception as error:  # before or between stages, so none has recorded it
        # Whoever set a limit to the wait for another run tries again.
        if notify and not isinstance(error, AwaitsTurn):
            begins = error.stage if isinstance(error, _RefusedBefore) else stages[0]
            _tell(run, partial(_of_failure, run, begins, error))
        raise
    if done and stages == STAGES:
        _tell_costs(run, since)
        if notify and not ending.code:
            _tell(run, partial(outcome.night_done, run))
    _tell_that_it_went_on(stages, ending)
    return ending.code


def _perform_correction(
    run: Run,
    stages: tuple[Stage, ...],
    ending: _Ending,
    how: _How,
) -> None:
    """Accept new files of days that are in force, or keep what is published of these days.

    A good file does not wait for a bad one of another day: days that are not accepted together are
    halved until the bad ones stand alone.
    """
    # What is only judged was staged by another task, together.
    can_halve = len(run.days) > 1 and stages[0] == STAGES[0]
    of_pass = _Ending()
    _perform_all(run, stages, of_pass, replace(how, is_tried=can_halve))
    if can_halve and of_pass.code in _NOT_ACCEPTED:
        for half in run.days.halves():
            if not ending.is_over:
                _perform_correction(replace(run, days=half), stages, ending, how)
    else:
        ending.after_correction(of_pass, run.days)


def _tell_costs(run: Run, since: datetime) -> None:
    """Print what the stages of a night cost that were measured since, if that can be read."""
    from jobs.lake import costs

    found = None
    with suppress(Exception):
        found = costs.of_run(run.environment, run.pipeline.name, run.run_id, since)
    if found is not None:
        print(f"{'cost':<18}          {found}", flush=True)


def _tell_that_it_went_on(stages: tuple[Stage, ...], ending: _Ending) -> None:
    """At the end, because by then the reason has scrolled by."""
    for days in ending.kept:
        print(
            f"New files of {days} were not accepted (see above): what was published of these days "
            f"stays in force, and the night ends with exit code {ending.code}.",
            file=sys.stderr,
            flush=True,
        )
    if ending.failed is None or ending.is_over or stages[-1].may_fail:
        return
    print(
        f"Stage {ending.failed.name} did not succeed (see above): the night went on with the model "
        f"that serves, and ends with exit code {ending.code}.",
        file=sys.stderr,
        flush=True,
    )


def _of_failure(run: Run, begins: Stage, error: Exception) -> Notification:
    """What people are told of an error before a stage that was about to begin."""
    message = message_of(error, run.environment.variables())
    if isinstance(error, Refused):
        # A hole; or the stages before those of this run have left out its nights.
        return outcome.notification(run, Event.STAGE_REFUSED, message, begins.name)
    return outcome.notification(run, Event.STAGE_FAILED, message)


def _passes(
    run: Run,
    stages: tuple[Stage, ...],
    ending: _Ending,
    allow_gap: bool,
) -> Iterator[_Pass]:
    """What the survey says, asked anew whenever a stage has done something."""
    # Arrow and Delta take longer to import than everything else here.
    from jobs.lake import publications
    from jobs.planning import passes, required, survey

    told = publications.all_told(run)
    # Who publishes a table records them too, but what is up to date is not published.
    publications.record_left_out(run, told)
    found = survey.Survey(run, told, allow_gap=allow_gap)
    if STAGES[0] in stages and not allow_gap:
        with _recorded_at(run, STAGES[0]):
            required.require_no_hole(run, found)
    changing: tuple[Stage, ...] = ()
    for unit in passes.units():
        asked = tuple(stage for stage in unit if stage in stages and not ending.skips(stage))
        if not asked:
            continue
        if changing:
            # Not before: after the last stage that is asked for nobody needs to know.
            found = found.after(changing)
        with _recorded_at(run, asked[0]):
            required.require_made(run, asked[0], found)
        before = passes.first_of_stage(run, asked[0], found)
        for early in before:
            yield _Pass(stages=unit, days=early.days, tables=early.tables)
        if before:
            found = found.after(unit)
        planned = passes.of_stage(run, asked[0], found)
        if not (planned or before):
            _pass_by(run, asked)
        reads_files = unit[0] == STAGES[0]
        for one in _passes_of(unit, asked, planned):
            # Another run may have made some of the days since this one staged them with its own.
            is_correction = reads_files and found.corrected(one.days) == {*one.days}
            yield replace(one, is_correction=is_correction)
        changing = unit if planned or before else ()


def _passes_of(
    unit: tuple[Stage, ...], asked: tuple[Stage, ...], planned: Sequence[Planned]
) -> Iterator[_Pass]:
    """The passes of a unit, of which some stages are asked for.

    All of the unit but for the last pass, though only its first stage be asked for: what is made of
    later nights follows from these once they are published.
    """
    for one in planned:
        is_asked = one is planned[-1] or asked[0].audits
        stages = asked if is_asked else unit
        yield _Pass(stages=stages, days=one.days, tables=one.tables)


def _passes_as_named(
    run: Run,
    stages: tuple[Stage, ...],
    allow_gap: bool,
) -> Iterator[_Pass]:
    """The stages on exactly the run's nights; where gaps are allowed, on those beside them."""
    # Arrow and Delta take longer to import than everything else here.
    from jobs.planning import passes, required, survey

    if required.work_on_raw_tables(stages):
        with _recorded_at(run, stages[0]):
            required.require_read(run, survey.Survey(run, allow_gap=allow_gap))
    if allow_gap:
        yield from _passes_over_gaps(run, stages)
        return
    for unit in passes.units():
        asked = tuple(stage for stage in unit if stage in stages)
        if asked:
            _require_made(run, asked[0])
            yield _Pass(stages=asked, days=run.days)


def _passes_over_gaps(run: Run, stages: tuple[Stage, ...]) -> Iterator[_Pass]:
    """The stages on all of the run's nights, but for those that lack files.

    Of a night that was made the raw rows stay, and what is made of them is made anew.
    """
    # Arrow and Delta take longer to import than everything else here.
    from jobs.planning import passes

    parts = passes.parts_over_gaps(run)
    for why in parts.kept.values():
        print(f"{why}.", flush=True)
    for unit in passes.units():
        asked = tuple(stage for stage in unit if stage in stages)
        if not asked:
            continue
        _require_made(run, asked[0], allow_gap=True)
        nights = parts.read if unit[0] == STAGES[0] else parts.made
        own = passes.asked_of(unit[0], nights)
        planned = [passes.Pass(days=days) for days in own]
        if asked[0].audits:
            # Files may have landed, or gone, since the stage before it staged in a task of its own:
            # it has published all but the last of its ranges.
            planned = passes.last_staged(run, asked[0]) or planned
        if not planned:
            _pass_by(run, asked)
        yield from _passes_of(unit, asked, planned)


def _require_made(run: Run, stage: Stage, *, allow_gap: bool = False) -> None:
    """Refuse a stage of a run that does exactly its nights without what they must have by then."""
    # Arrow and Delta take longer to import than everything else here.
    from jobs.planning import required, survey

    if stage.name in required.NEEDED:
        with _recorded_at(run, stage):
            found = survey.Survey(run, allow_gap=allow_gap)
            required.require_made(run, stage, found)


@contextmanager
def _recorded_at(run: Run, stage: Stage) -> Iterator[None]:
    """Record what the block refuses as a refusal of the stage, which is not performed."""
    try:
        yield
    except Refused as refused:
        message = message_of(refused, run.environment.variables())
        status = _STATUS[Refused.exit_code]
        _record(run.at(stage), time.time(), 0.0, status=status, error=message)
        raise _RefusedBefore(stage, str(refused)) from refused


def _pass_by(run: Run, stages: tuple[Stage, ...]) -> None:
    """Tell of stages that have nothing to do, and record it."""
    for stage in stages:
        print(f"{stage.name:<18}          current", flush=True)
        _record(run.at(stage), time.time(), 0.0, status=outcome.CURRENT)


def _perform_all(
    run: Run,
    stages: tuple[Stage, ...],
    ending: _Ending,
    how: _How,
) -> None:
    for stage in stages:
        if ending.skips(stage):
            continue
        doing = run.at(stage)
        began = datetime.now(UTC)
        code = perform(doing.to_json()) if how.in_place else _perform_in_server_or_here(doing)
        is_known = not (how.is_tried and code in _NOT_ACCEPTED)
        if how.notify and is_known:
            _tell(doing, partial(outcome.of_stage, doing, code, began))
        if how.notify and stage.name in outcome.EXPIRING_STAGES:
            _tell(doing, partial(outcome.expiry, doing))
        if how.notify and stage.name in outcome.FOLLOWING_STAGES:
            _tell(doing, partial(outcome.alias_moved, doing))
        ending.after(stage, code)


def _perform_in_server_or_here(run: Run) -> int:
    if not stage_client.available(run.environment):
        return perform(run.to_json())
    began = datetime.now(UTC)
    meter = Meter(run.environment)
    # The server has its own variables, and ranks are to have those of this shell.
    variables = for_ranks(os.environ)
    code = stage_client.call(run.environment, PERFORM, run.to_json(), variables)
    if code and outcome.reason(run, began) is None:
        # It was killed, and could not record it. The stage server has told what it took.
        _record_loss(run, began, code, meter.read())
    return code


def _record_loss(run: Run, began: datetime, code: int, taken: Usage) -> None:
    started = began.timestamp()
    if _record_failure(run, started, taken.seconds, code, outcome.NO_REASON):
        _count_nothing()
        _record_costs(run, started, _status(code), taken)


def _count_nothing() -> None:
    """What this process has read and written is no stage's."""
    from jobs.lake import amounts

    amounts.start()


def _tell(run: Run, what_happened: _WhatHappened) -> None:
    """Have people told, if there is something to tell; a failure here never fails the night."""
    try:
        notification = what_happened()
        if notification:
            # Imported here because every command imports this module, and few have people told.
            from jobs.telling import tell

            tell(run, notification)
    except Exception as error:
        message = message_of(error, run.environment.variables())
        print(f"Warning: nobody was notified: {message}", file=sys.stderr, flush=True)


def _function(stage: Stage) -> Any:
    module, _, name = stage.function.partition(":")
    return getattr(import_module(module), name)


def _numbered(run: Run) -> Run:
    """The run with the number of this attempt, taken before it reads anything."""
    from jobs.lake.locations import exists
    from jobs.lake.publications import next_attempt

    made = [table.name for table in run.pipeline.tables if table.made_by == run.doing.name]
    quarantines = [name + QUARANTINE_SUFFIX for name in made]
    # Published before the table itself, and even when nothing else of the attempt is.
    made += [name for name in quarantines if exists(run, name)]
    return replace(run, attempt=next_attempt(run, made)) if made else run


def _record_failure(
    run: Run,
    started: float,
    seconds: float,
    code: int,
    message: str,
    details: dict[str, Any] | None = None,
) -> bool:
    """Record it; False: it cannot be, which is told, and then its cost cannot be either."""
    try:
        _record(run, started, seconds, status=_status(code), metrics=details, error=message)
    except Exception as error:
        # Such as a full disk, which may be why the stage failed.
        explain(error, run.environment.variables())
        return False
    return True


def _status(code: int) -> str:
    return _STATUS.get(code, "failed")


def _record_costs(
    run: Run,
    started: float,
    status: str,
    taken: Usage,
    metrics: dict[str, Any] | None = None,
) -> None:
    """Add what the stage took to `ops.costs`; a failure here never fails the stage."""
    from jobs.lake import costs

    try:
        costs.record(run, datetime.fromtimestamp(started, UTC), status, taken, metrics)
    except Exception as error:
        message = message_of(error, run.environment.variables())
        print(f"Warning: the stage's cost is not recorded: {message}", file=sys.stderr, flush=True)


def _record(
    run: Run,
    started: float,
    seconds: float,
    *,
    status: str,
    metrics: dict[str, Any] | None = None,
    error: str | None = None,
) -> None:
    from jobs.lake import ops
    from jobs.version import code_version

    row = {
        **ops.of_stage(run, datetime.fromtimestamp(started, UTC), status),
        "seconds": seconds,
        "metrics": json.dumps(metrics, default=str) if metrics is not None else None,
        "error": error,
        "code_version": code_version(),
    }
    ops.append(run.environment, "stage_runs", [row])


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
