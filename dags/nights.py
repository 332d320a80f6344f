"""Which days a DAG run is about: those that a person asked for, else the one that is due."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.timezone import coerce_datetime
from airflow.sdk.types import DagRunProtocol
from airflow.timetables.interval import CronDataIntervalTimetable

from pipelines import replay
from pipelines.days import Days, parse_day
from pipelines.environment import Environment
from pipelines.errors import UsageError, no_such
from pipelines.spec import Pipeline

_OF_ONE_DAY = ("backfill", "scheduled")
"""Runs that have a day of their own, by their interval."""
_OF_AIRFLOW = ("openlineage",)
"""What Airflow's own operators add to the configuration of a run that they trigger."""


class RunRefused(AirflowFailException):
    """What a run was asked for makes no sense; another attempt would be asked the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """What a DAG run processes."""

    days: Days
    stands_for: date | None = None
    """The day of today's calendar for which a recorded day is replayed; None: the days are meant
    as they are."""

    def __str__(self) -> str:
        replayed = f" (replayed for {self.stands_for})" if self.stands_for else ""
        return f"Night of {self.days}{replayed}"


def night_of(pipeline: Pipeline, context: Context, schedule: str | None = None) -> Night:
    """What the DAG run processes: the days of its params, else the one that its schedule means.

    Days that a person has chosen decide, whatever the logical date of their run is: Airflow's form
    fills that with the moment of the click.

    Args:
        pipeline: Whose night it is.
        context: Airflow's.
        schedule: When what the run does is due each day, as a cron expression; None: as the nights
            are.

    Raises:
        RunRefused: the params make no sense, the pipeline has no such days, or the run has a day of
            its own.
        AirflowSkipException: nothing is due: the feeds have ended, or a replay has, or it had not
            begun when the run was due.
    """
    run = context["dag_run"]
    try:
        chosen = chosen_days(context["params"])
        if chosen and run.run_type in _OF_ONE_DAY:
            raise UsageError(_contradiction(pipeline, run, chosen))
        night = Night(days=chosen) if chosen else _due(pipeline, run, schedule)
        pipeline.require_days(night.days)
    except replay.NothingDue as nothing:
        raise AirflowSkipException(str(nothing)) from None
    except UsageError as error:
        raise RunRefused(str(error)) from None
    return night


def days_to_tell(pipeline: Pipeline, context: Context) -> Days:
    """What people are told that a run is about: its days, also where these make no sense.

    Then it is the night that would be due without them, or the first of the pipeline.
    """
    with suppress(RunRefused, AirflowSkipException):
        return night_of(pipeline, context).days
    with suppress(UsageError):
        due = _due(pipeline, context["dag_run"]).days
        pipeline.require_days(due)
        return due
    return Days.of(pipeline.first_day)


def _contradiction(pipeline: Pipeline, run: DagRunProtocol, chosen: Days) -> str:
    own = due_day(pipeline, run, pipeline.schedule)
    return (
        f"This {run.run_type} run is that of {own}, and its configuration asks for {chosen}, as "
        "that of every other run beside it. Leave 'date', 'from' and 'to' out of the configuration "
        "of a backfill: its dates are the days. To process other days, trigger the DAG with them."
    )


def chosen_days(params: Mapping[str, Any]) -> Days | None:
    """The days that were asked for by `date`, or by `from` and `to`; None when none of them is set.

    Raises:
        UsageError: a mixture of them, or a day that does not exist.
    """
    # A form field that was left empty holds '' or null: nothing was asked for.
    names = [name for name in ("date", "from", "to") if params.get(name)]
    given = {name: params[name] for name in names}
    if given.keys() == {"date"}:
        return Days.of(parse_day(given["date"]))
    if given.keys() == {"from", "to"}:
        first = parse_day(given["from"])
        last = parse_day(given["to"])
        return Days(first, last)
    if given:
        listed = ", ".join(f"{name} {day}" for name, day in given.items())
        raise UsageError(
            "Give either 'date' for one night, "
            f"or both 'from' and 'to' for a range; given: {listed}."
        )
    return None


def require_known(params: Collection[str], known: Collection[str]) -> None:
    """Refuse what a run's configuration asks for and no param is, such as `day` for `date`.

    Airflow passes it on in silence, and the run would be that of another night.

    Raises:
        RunRefused: the first such name, with the near miss and all that are known.
    """
    for name in params:
        if name not in known and name not in _OF_AIRFLOW:
            raise RunRefused(str(no_such("param of this DAG", name, known)))


def due_day(pipeline: Pipeline, run: DagRunProtocol, schedule: str) -> date:
    """The local day on which the run's data interval begins.

    A run at 04:30 is about the day before. For one that was triggered it is the last interval that
    had ended at its logical date or, without one, at its moment: which one Airflow gives it, if
    any, depends on who triggers.

    Args:
        pipeline: In whose timezone the day is.
        run: Of a DAG of the pipeline.
        schedule: When what the run does is due each day, as a cron expression.
    """
    zone = ZoneInfo(pipeline.timezone)
    begins: datetime | None = run.data_interval_start
    if run.run_type not in _OF_ONE_DAY or begins is None:
        moment = coerce_datetime(run.logical_date or run.run_after).astimezone(zone)
        # What clocks on the wall say, as if it were UTC: in a zone where they go forward over the
        # hour of the schedule Airflow's interval of that day is empty, and the day the next one.
        wall = coerce_datetime(moment.replace(tzinfo=UTC))
        timetable = CronDataIntervalTimetable(schedule, timezone="UTC")
        begins = timetable.infer_manual_data_interval(run_after=wall).start
        zone = ZoneInfo("UTC")
    # Airflow's may be Pendulum's, whose days are not subtracted as others are.
    return datetime.fromtimestamp(begins.timestamp(), zone).date()


def _due(pipeline: Pipeline, run: DagRunProtocol, schedule: str | None = None) -> Night:
    """The night that is due when nobody has asked for another.

    Raises:
        NothingDue: there is none.
        UsageError: what the home keeps of the replay cannot be read.
    """
    day = due_day(pipeline, run, schedule or pipeline.schedule)
    is_recorded = pipeline.last_day is None or day <= pipeline.last_day
    if is_recorded:
        # Of a backfill over recorded dates too: they mean themselves.
        return Night(days=Days.of(day))
    if pipeline.replay is None:
        if run.run_type == "scheduled":
            raise replay.NothingDue(
                f"Nothing to do for {day}: the feeds of '{pipeline.name}' "
                f"end on {pipeline.last_day}. Trigger with a date to run."
            )
        return Night(days=Days.of(day))
    calendar = replay.calendar(pipeline, Environment.read())
    due_at = run.data_interval_end
    if run.run_type == "scheduled" and due_at and due_at <= calendar.began:
        # Airflow makes up for the last moment of a schedule before a DAG is first seen.
        raise replay.NothingDue(
            f"Nothing to do for {day}: its night was due at {due_at:%Y-%m-%d %H:%M} UTC, and the "
            f"replay of '{pipeline.name}' began at {calendar.began:%Y-%m-%d %H:%M} UTC. "
            "Trigger the DAG to run it now."
        )
    triggered_at = run.logical_date or run.run_after
    if run.run_type not in _OF_ONE_DAY and triggered_at >= calendar.began:
        # Between midnight and the hour of the schedule, the last night that was due is older.
        day = max(day, calendar.first_today)
    return Night(days=Days.of(calendar.day_of(day)), stands_for=day)
