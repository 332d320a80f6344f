"""Looks whether the predictions of a night are there by the time that its pipeline declares.

By a DAG of its own, because the night that is worst is the one that never began: a deadline of
Airflow's belongs to a run, and of a night without a run nothing would be told.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import Context, CronDataIntervalTimetable, Param
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from airflow.sdk.types import DagRunProtocol

from dags.nights import Night, night_of, require_known
from dags.tasks import CommandOperator, late_command, safe_run_id
from pipelines import replay
from pipelines.environment import Environment
from pipelines.spec import DEADLINE_SUFFIX, Pipeline

_IN_TIME = timedelta(minutes=15)
"""A run that begins so soon after the deadline was not made up for."""


class DeadlineOperator(CommandOperator):
    """Has people told, by the `nightshift notify` command, if the predictions are not there."""

    ui_color = "#f2e6dc"

    def __init__(self, *, pipeline: Pipeline, **options: Any) -> None:
        super().__init__(
            task_id="look",
            doc_md="Look whether tomorrow's predictions are published; have people told if not.",
            execution_timeout=timedelta(minutes=5),
            do_xcom_push=False,
            **options,
        )
        self.pipeline = pipeline

    def execute(self, context: Context) -> None:
        """Look for the predictions of the night that the DAG run is about.

        Raises:
            AirflowSkipException: no night has been due yet.
        """
        require_known(context["params"], _params())
        by = self.pipeline.predictions_by
        # A pipeline without it has no such DAG.
        assert by is not None
        night = night_of(self.pipeline, context, _schedule(self.pipeline, by))
        self.log.info("%s", night)
        if _is_before_the_first(self.pipeline, night):
            raise AirflowSkipException(f"The replay of '{self.pipeline.name}' began on this day.")
        run = context["dag_run"]
        asked = late_command(self.pipeline, night.days, safe_run_id(run.run_id))
        due = _made_up_for(run)
        if due is not None:
            asked.append(f"--since={due.isoformat()}")
        ended = self._run_command(asked)
        if ended.exit_code:
            raise AirflowException(
                f"Not everybody was told (exit code {ended.exit_code}): {ended.last_line}"
            )


def _made_up_for(run: DagRunProtocol) -> datetime | None:
    """The deadline that had passed when the scheduler could begin its run; None: no such run.

    Airflow makes up for the last one before a DAG is first seen, too, when nothing was promised.
    """
    due, began = run.data_interval_end, run.start_date
    if run.run_type != "scheduled" or due is None or began is None:
        return None
    return due if began - due > _IN_TIME else None


def _is_before_the_first(pipeline: Pipeline, night: Night) -> bool:
    """Whether the replay began on the day of the deadline, maybe after its night would be due."""
    if night.stands_for is None:
        return False
    calendar = replay.calendar(pipeline, Environment.read())
    return night.stands_for <= calendar.first_today


def deadline_arguments(pipeline: Pipeline, by: time) -> dict[str, Any]:
    """Everything about the DAG that looks for the predictions of a pipeline."""
    zone = ZoneInfo(pipeline.timezone)
    return {
        "dag_id": f"{pipeline.name}{DEADLINE_SUFFIX}",
        "description": f"Tells people if '{pipeline.name}' has not predicted by {by:%H:%M}.",
        # After a pause of the scheduler, the last deadline that has passed is looked at.
        "schedule": CronDataIntervalTimetable(_schedule(pipeline, by), timezone=pipeline.timezone),
        "start_date": datetime.combine(pipeline.first_day, datetime.min.time(), zone),
        "catchup": False,
        "is_paused_upon_creation": False,
        "max_active_runs": 1,
        "dagrun_timeout": timedelta(hours=12),
        "default_args": {
            "owner": pipeline.owner,
            # Whoever must be told may be away for a while.
            "retries": 5,
            "retry_delay": timedelta(minutes=5),
        },
        "tags": ["nightshift", "deadline", f"{pipeline.name}{DEADLINE_SUFFIX}"],
        "params": _params(),
    }


def _schedule(pipeline: Pipeline, by: time) -> str:
    """That time of each day on which a night is due: of others nothing is promised."""
    # Without them, as in '@daily', it is each day.
    days = pipeline.schedule.split()[2:] or ["*", "*", "*"]
    return " ".join([str(by.minute), str(by.hour), *days])


def _params() -> dict[str, Param]:
    return {
        "date": Param(
            None,
            title="Night",
            description="The day whose night must have predicted. Leave empty for the last one.",
            type=["null", "string"],
            format="date",
        ),
    }
