"""Has people told: what is wrong once for each cause, and once that it is right again.

`ops.alerts` keeps what they were told. A lake that cannot be read, or not soon, keeps nobody from
being told.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from jobs import outcome
from jobs.lake.store_faults import what_store_says
from jobs.services import promptly
from pipelines.errors import NightshiftError
from pipelines.events import ALARMS, Channel, Event, Notification
from pipelines.redaction import redacted
from pipelines.run import Run
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from jobs.lake.alerts import Row

_Reading = Callable[[], "Sequence[Row]"]
_LISTED = 5
"""Alarms that a recovery names."""
_MODEL_MAKING_STAGES = ("train", outcome.PROMOTING_STAGE)
_TOLD_ONCE = (Event.APPROVAL_EXPIRED, Event.ALIAS_MOVED)
"""What any run may tell that comes first: by `ops.alerts` the next one knows that people know."""


def tell(run: Run, notification: Notification) -> tuple[Channel, ...]:
    """Have the channels of the run's pipeline deliver the notification.

    An alarm of the same cause is not sent again before a recovery. A night that is done is followed
    by the recovery, if there is an alarm that it ends.

    Returns:
        The channels that failed.
    """
    from jobs.services import shared_locks

    with ExitStack() as held:
        # Two runs that end at the same time must not both tell; rather both than neither.
        name = f"alerts.{run.pipeline.name}"
        try:
            lock = shared_locks.hold(run.environment, name, most_seconds=promptly.MOST_SECONDS)
            promptly.lock(lambda: held.enter_context(lock))
        # Such as a full disk, which may be the very failure to tell of; or who tells before is
        # stuck.
        except (OSError, NightshiftError) as error:
            _warn(run, "another run may tell it too", error)
        if notification.event in ALARMS:
            return _tell_alarm(run, notification)
        if notification.event in _TOLD_ONCE:
            return _send_and_record(run, notification)
        if notification.event is Event.NIGHT_DONE:
            return _tell_done(run, notification)
        return _send(run, [notification])[0]


def _tell_alarm(run: Run, notification: Notification) -> tuple[Channel, ...]:
    cause = _cause(notification)
    standing = _standing(run)
    if cause in [row["cause"] for row in standing]:
        print(f"People know of it already: {cause}", file=sys.stderr, flush=True)
        return ()
    why = _why_no_model(run, notification, standing)
    if why is not None:
        print(f"People know why: {why['cause']}", file=sys.stderr, flush=True)
        return ()
    same = _same_refusal(run, notification, standing)
    if same is not None:
        print(f"People know of it already: {same['cause']}", file=sys.stderr, flush=True)
        # For those who ask which nights it has stopped.
        _record(run, notification, cause=same["cause"])
        return ()
    return _send_and_record(run, notification)


def _why_no_model(run: Run, notification: Notification, standing: Sequence[Row]) -> Row | None:
    """Of a night that no model can score: what people know of its training or evaluation.

    None when nothing is known of them, or something else is wrong.
    """
    from jobs.lake.model_events import NONE_IN_FORCE

    no_model = NONE_IN_FORCE.format(name=run.pipeline.name, days=run.days)
    if not notification.message.startswith(no_model):
        return None
    # The newest first: what kept a model from being made before may have been mended since.
    for row in reversed(standing):
        makes_models = row["stage"] in _MODEL_MAKING_STAGES
        if makes_models and row["last_day"] == run.days.last and not _is_over(run, row["stage"]):
            return row
    return None


def _same_refusal(run: Run, notification: Notification, standing: Sequence[Row]) -> Row | None:
    """What people know of another night that was refused for the same data; None: nothing.

    As a night that follows one with a bad file, and reads that file too.
    """
    stage = notification.stage
    if notification.event is not Event.STAGE_REFUSED or stage is None:
        return None
    alike = [row for row in standing if row["event"] == notification.event]
    told = [row for row in alike if row["stage"] == stage]
    if not told:
        return None
    refusals = _read(run, lambda: outcome.refusals(run, stage))
    own = _refused_by(refusals, run.run_id)
    for row in told:
        before = [one for one in refusals if one["started_at"] <= row["told_at"]]
        other = _refused_by(before, row["run_id"])
        if own and other and _is_the_same(own, other, reads_files=stage == STAGES[0].name):
            return row
    return None


def _refused_by(refusals: Sequence[Row], run_id: str) -> Row | None:
    """What the last refusal of the run tells of the data; None: it tells nothing."""
    of_run = [row for row in refusals if row["run_id"] == run_id]
    found: Row = json.loads(of_run[-1]["metrics"] or "{}") if of_run else {}
    return found if found.get("found_in") else None


def _is_the_same(own: Row, other: Row, *, reads_files: bool) -> bool:
    """Whether all that a refusal has found another has found too, in the same data."""
    here, there = set(own["found_in"]), set(other["found_in"])
    # What is read is refused file by file; a table as a whole, whichever of its days is bad.
    is_same_data = here <= there or (not reads_files and here >= there)
    return is_same_data and _broken(own) <= _broken(other)


def _broken(refusal: Row) -> set[tuple[str, ...]]:
    return {
        tuple(str(one[name]) for name in ("table", "expectation", "column"))
        for one in refusal["failures"]
    }


def _is_over(run: Run, stage: str) -> bool:
    """Whether the stage has succeeded since: then its alarm is no reason any more."""
    attempts = _read(run, lambda: outcome.attempts_of_night(run, stage))
    return bool(attempts) and attempts[-1]["status"] in ("done", outcome.CURRENT)


def _tell_done(run: Run, done: Notification) -> tuple[Channel, ...]:
    """Tell of a night that is done, and that what was wrong up to its last day is right again."""
    ended = _ended(run)
    if not ended:
        return _send(run, [done])[0]
    # At once: one after the other may take longer than a callback has.
    recovered = _recovery(done, ended)
    of_done, of_recovery = _send(run, [done, recovered])
    if _was_told(run, of_recovery):
        _record(run, recovered, ended)
    return of_done + of_recovery


def _recovery(done: Notification, ended: Sequence[Row]) -> Notification:
    listed = [f"  - {row['cause']}" for row in ended[:_LISTED]]
    hidden = len(ended) - _LISTED
    more = [f"  - … and {hidden} more"] if hidden > 0 else []
    return Notification(
        event=Event.RECOVERED,
        pipeline=done.pipeline,
        days=done.days,
        run_id=done.run_id,
        stage=None,
        message="\n".join([f"{done.message} Over is what people were told of:", *listed, *more]),
        page=done.page,
    )


def _send_and_record(run: Run, notification: Notification) -> tuple[Channel, ...]:
    (failed,) = _send(run, [notification])
    if _was_told(run, failed):
        _record(run, notification)
    return failed


def _was_told(run: Run, failed: tuple[Channel, ...]) -> bool:
    """Whether anybody was reached; if not, the next attempt tells it again."""
    from jobs.notifications.channels import channels_of, has_reached

    return has_reached(channels_of(run.environment, run.pipeline), failed)


def _send(run: Run, notifications: Sequence[Notification]) -> list[tuple[Channel, ...]]:
    from jobs.notifications.channels import send_all

    return send_all(run.environment, run.pipeline, notifications)


def _cause(notification: Notification) -> str:
    """What happened to which days, and the first thing that is wrong: a retry has the same."""
    from jobs.notifications.message import first_words

    happened = f"{notification.event} {notification.days}".strip()
    if notification.event is Event.PREDICTIONS_LATE:
        return happened
    stage = f" {notification.stage}" if notification.stage else ""
    return f"{happened}{stage}: {first_words(notification.message)}"


def _standing(run: Run) -> Sequence[Row]:
    # Arrow takes longer to import than everything else here.
    from jobs.lake import alerts

    return _read(run, lambda: alerts.standing(run.environment, run.pipeline.name))


def _ended(run: Run) -> Sequence[Row]:
    from jobs.lake import alerts

    return _read(run, lambda: alerts.ended_by(run))


def _read(run: Run, rows: _Reading) -> Sequence[Row]:
    try:
        return promptly.read(rows)
    except Exception as error:  # a lake that is away may be the very failure to tell of
        _warn(run, "what people were told before is not known", error)
        return []


def _record(
    run: Run, notification: Notification, ended: Sequence[Row] = (), cause: str | None = None
) -> None:
    from jobs.lake import alerts

    told = cause or _cause(notification)
    if ended:
        what = "; ".join(f"the end of {row['cause']}" for row in ended)
        write = partial(alerts.record_end, run.environment, notification, ended)
    else:
        what = told
        write = partial(alerts.record, run.environment, notification, run.days.last, told)
    try:
        promptly.record(write)
    except Exception as error:
        _warn(run, f"'{what}' is not on record, and they may be told again", error)


def _warn(run: Run, what: str, error: Exception) -> None:
    why = redacted(what_store_says(error) or str(error), run.environment.variables())
    print(f"Warning: people are told, but {what}: {why}", file=sys.stderr, flush=True)
