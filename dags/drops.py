"""Plays the source of an example: drops its files, as `dags/sources.py` schedules it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import Context, CronDataIntervalTimetable, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.nights import chosen_days, due_day, require_known
from dags.tasks import CommandOperator
from pipelines import replay
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.spec import SOURCE_SUFFIX, Pipeline, Replay

_MOST_MINUTES = 720
"""That a file may be late; a night waits for as long by default."""


class SourceOperator(CommandOperator):
    """Drops files by the `nightshift land` command; one that is late after a wait."""

    ui_color = "#e2f2dc"

    def __init__(self, *, pipeline: Pipeline, **options: Any) -> None:
        super().__init__(
            task_id="drop",
            doc_md="Drop the files up to the day that has ended; leave those that are there.",
            execution_timeout=timedelta(minutes=15),
            do_xcom_push=False,
            **options,
        )
        self.pipeline = pipeline

    def execute(self, context: Context) -> None:
        """Drop the files up to the day of the DAG run, but not the one that is to be late.

        Raises:
            TaskDeferred: a file is to be late; Airflow calls `drop_late` when its time has come.
        """
        require_known(context["params"], _params(self.pipeline))
        last = last_dropped(self.pipeline, context)
        late = context["params"].get("late")
        self._land(last, late)
        if late:
            minutes = context["params"]["late_minutes"]
            self.log.info("%s of %s is %s minutes late.", late, last, minutes)
            self.defer(
                trigger=TimeDeltaTrigger(timedelta(minutes=minutes)),
                method_name="drop_late",
                kwargs={"last": str(last)},
            )

    def drop_late(self, context: Context, event: object, last: str) -> None:
        """Drop the file that was late."""
        self._land(date.fromisoformat(last), None)

    def _land(self, last: date, late: str | None) -> None:
        ended = self._run_command(land_command(self.pipeline, last, late))
        if ended.exit_code == UsageError.exit_code:
            raise AirflowFailException(f"The drop was called wrongly: {ended.last_line}")
        if ended.exit_code:
            raise AirflowException(
                f"The drop failed (exit code {ended.exit_code}): {ended.last_line}"
            )


def land_command(pipeline: Pipeline, last: date, late: str | None) -> list[str]:
    """Arguments of `nightshift` that drop all files up to a day, but not the late feed's."""
    arguments = ["land", pipeline.name, "--until", str(last)]
    return [*arguments, "--withhold", late] if late else arguments


def last_dropped(pipeline: Pipeline, context: Context) -> date:
    """The last recorded day whose files the DAG run drops: that of its params, else the one due.

    Raises:
        AirflowFailException: there is no such day, or the replay has not begun.
    """
    try:
        chosen = chosen_days(context["params"])
        if chosen:
            pipeline.require_days(chosen)
            return chosen.last
        calendar = replay.calendar(pipeline, Environment.read())
        # A pipeline without it has no calendar.
        assert pipeline.replay is not None
        due = due_day(pipeline, context["dag_run"], pipeline.replay.drops)
        return calendar.delivered_by(due)
    except UsageError as error:
        raise AirflowFailException(str(error)) from None


def source_arguments(pipeline: Pipeline, played: Replay) -> dict[str, Any]:
    """Everything about the DAG that plays the source of a pipeline."""
    zone = ZoneInfo(pipeline.timezone)
    return {
        "dag_id": f"{pipeline.name}{SOURCE_SUFFIX}",
        "description": f"Drops the files of '{pipeline.name}' as its source would.",
        "schedule": CronDataIntervalTimetable(played.drops, timezone=pipeline.timezone),
        "start_date": datetime.combine(pipeline.first_day, datetime.min.time(), zone),
        "catchup": False,
        "is_paused_upon_creation": False,
        "max_active_runs": 1,
        "dagrun_timeout": timedelta(days=1),
        "default_args": {
            "owner": pipeline.owner,
            "retries": 2,
            "retry_delay": timedelta(minutes=1),
        },
        "tags": ["nightshift", "source", f"{pipeline.name}{SOURCE_SUFFIX}"],
        "params": _params(pipeline),
    }


def _params(pipeline: Pipeline) -> dict[str, Param]:
    daily = [feed.name for feed in pipeline.feeds if not feed.is_reference]
    return {
        "date": Param(
            None,
            title="Up to",
            description="The last recorded day whose files are dropped. Leave empty for the one "
            "that yesterday stands for.",
            type=["null", "string"],
            format="date",
        ),
        "late": Param(
            None,
            title="Late",
            description="A feed whose file of that day comes late, if it is not there yet.",
            type=["null", "string"],
            enum=[None, *daily],
        ),
        "late_minutes": Param(
            5,
            title="Late by",
            description="After how many minutes the late file comes.",
            type="integer",
            minimum=1,
            maximum=_MOST_MINUTES,
        ),
    }
