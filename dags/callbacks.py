"""What a task tells people, by the commands `nightshift notify` and `announce`.

A callback runs in the task's own process, once the task has ended for good or its files are late,
or in the DAG processor when that process was lost. The DAG's own callbacks run in the DAG processor
alone, later, and hold up its reading of DAG files: one is used, of what no task is told of.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol, cast

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.nights import RunRefused
from dags.process import level_of
from pipelines.environment import ROOT, Environment
from pipelines.events import Event
from pipelines.stages import PLAN

_MOST_SECONDS = 17
"""Airflow ends the process of a task 20 seconds after the task (`task_success_overtime`)."""
_MOST_CHARACTERS = 2000
"""Of a reason given as an argument of a command."""
_TIMED_OUT = "timed_out"
"""Airflow's reason for a run whose time was up, in the context of its DAG's callback."""
_LOST = "The process of the task was lost: it was killed, or its machine was. Its log may say more."
_NO_WORDS = "Its error says nothing. Its log may say more."

_Command = Callable[[Context, Event], list[str]]

_log = logging.getLogger(__name__)


class StageRefused(AirflowFailException):
    """The stage judged the data or the model and refused it; another attempt would too."""


class FilesMissing(AirflowFailException):
    """The stage has waited for files as long as its pipeline lets it."""


class MaintenanceTold(AirflowException):
    """Maintenance could not clean something; of that it has told itself, by its last attempt."""


class NotifyingTask(Protocol):
    """A task that can be told of."""

    def notify_command(self, context: Context, event: Event) -> list[str]:
        """The command that has people told of the event."""


class NightsTask(NotifyingTask, Protocol):
    """One that knows of the whole night, too."""

    def night_command(self, context: Context, event: Event) -> list[str]:
        """The command that has people told of the event as one of no stage."""


def stage_failed(context: Context) -> None:
    """A stage was refused, has waited in vain, or has failed, after its last attempt."""
    exception = context.get("exception")
    event = _event_of(exception)
    # In the DAG processor a task has no start: then nothing that is recorded is of this attempt.
    began = getattr(context.get("ti"), "start_date", None) or datetime.now(UTC)
    _notify(context, event, f"--since={began.isoformat()}", _message(str(exception or _LOST)))


def run_timed_out(context: Context) -> None:
    """The time of a run was up, if that is why it failed; of all else its tasks have told.

    Airflow then skips what has not ended, and has none of its callbacks called.
    """
    if context.get("reason") != _TIMED_OUT:
        return
    dag = context["dag"]
    limit = f"{dag.dagrun_timeout / timedelta(hours=1):g} h" if dag.dagrun_timeout else "its time"
    message = (
        f"The run had not ended after {limit}, and Airflow has ended it: what was left is skipped. "
        "Clear the run to go on."
    )
    # Airflow names the last that began and has not ended; between two stages, any of those to come.
    has_begun = getattr(context.get("ti"), "try_number", 1) > 0
    is_of_stage = has_begun and hasattr(context["task"], "notify_command")
    plan = cast(NightsTask, dag.get_task(PLAN))
    command = None if is_of_stage else plan.night_command
    since = f"--since={datetime.now(UTC).isoformat()}"
    _notify(context, Event.STAGE_FAILED, since, _message(message), command=command)


def maintenance_lost(context: Context) -> None:
    """A maintenance has come to no end of its own, after its last attempt."""
    exception = context.get("exception")
    if isinstance(exception, MaintenanceTold):
        return
    what = "It was not done, and what is old grows until `nightshift maintain` succeeds"
    _notify(context, Event.MAINTENANCE_FAILED, _message(f"{what}: {exception or _LOST}"))


def feed_late(context: Context, message: str) -> bool:
    """The files that a stage waits for have not landed by the deadline.

    Returns:
        Whether anybody was reached.
    """
    return _notify(context, Event.FEED_LATE, _message(message))


def correction_refused(context: Context, message: str) -> None:
    """Corrected files of days before were not accepted, and the night goes on without them."""
    _notify(context, Event.STAGE_REFUSED, _message(message))


def model_evaluated(context: Context) -> None:
    """The command tells whether the run has promoted a model."""
    _notify(context, Event.MODEL_PROMOTED)


def approvals_expired(context: Context) -> None:
    """The command tells whether a model awaited a person for too long."""
    _notify(context, Event.APPROVAL_EXPIRED)


def alias_followed(context: Context) -> None:
    """The command tells whether somebody had moved MLflow's alias by hand."""
    _notify(context, Event.ALIAS_MOVED)


def night_watched(context: Context) -> None:
    """The command tells whether drift was found, or has ended."""
    _notify(context, Event.DRIFT_FOUND)


def tables_published(context: Context) -> None:
    """The command tells whether PostgreSQL, where it is set, could not follow."""
    if Environment.read().warehouse_url is not None:
        _notify(context, Event.WAREHOUSE_FAILED)


def last_stage_done(context: Context) -> None:
    """The command tells whether all stages of the night are done."""
    _notify(context, Event.NIGHT_DONE)


def of_events(
    told: Collection[str], asked: Iterable[Callable[[Context], None]]
) -> list[Callable[[Context], None]]:
    """Those of the callbacks after a success that have something to tell.

    Args:
        told: Events that the command has found: those of others nobody need ask about again, in a
            process of its own.
        asked: Callbacks after a success.
    """
    return [one for one in asked if _TELLS_OF[one] in told]


_TELLS_OF: Mapping[Callable[[Context], None], Event] = {
    model_evaluated: Event.MODEL_PROMOTED,
    approvals_expired: Event.APPROVAL_EXPIRED,
    alias_followed: Event.ALIAS_MOVED,
    night_watched: Event.DRIFT_FOUND,
    tables_published: Event.WAREHOUSE_FAILED,
    last_stage_done: Event.NIGHT_DONE,
}


def _event_of(exception: object) -> Event:
    if isinstance(exception, StageRefused | RunRefused):
        return Event.STAGE_REFUSED
    return Event.FEED_MISSING if isinstance(exception, FilesMissing) else Event.STAGE_FAILED


def _message(text: str) -> str:
    """The option of the command, whatever the text holds."""
    # An empty option is refused.
    told = text[:_MOST_CHARACTERS].strip() or _NO_WORDS
    return f"--message={told}".replace("\0", " ")


def _notify(
    context: Context,
    event: Event,
    *more: str,
    command: _Command | None = None,
) -> bool:
    """Run the command and pass on what it prints; whatever goes wrong, the task is as it was.

    Args:
        context: Airflow's.
        event: What happened.
        more: Options of the command.
        command: Gives it; None: that of the task.

    Returns:
        Whether it has succeeded.
    """
    try:
        asked = command or cast(NotifyingTask, context["task"]).notify_command
        words = asked(context, event)
        ended = subprocess.run(
            [*words, *more],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_MOST_SECONDS,
        )
    except Exception as error:
        _log.warning("Nobody was notified of %s: %s", event, error)
        return False
    level = logging.INFO
    for line in ended.stdout.splitlines():
        level = level_of(line, level)
        _log.log(level, "%s", line)
    if ended.returncode:
        _log.warning("`nightshift %s` ended with exit code %s", words[1], ended.returncode)
    return not ended.returncode
