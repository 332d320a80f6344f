"""Airflow's scheduler, which ends whole when its loop has failed, and which no run can block.

`python -m dags.scheduler [OPTION …]`, with the variables of an Airflow process and options of
`airflow scheduler`.

What Airflow 3.3.2 lacks for that is told below, each beside what makes up for it. Such a part goes
with the version that has it; one whose place in Airflow has gone ends the scheduler as it starts.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.__main__ import main as airflow_main
from airflow.executors import local_executor
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagrun import DagRun
from airflow.utils.state import DagRunState
from sqlalchemy.orm import Session

_Loop = Callable[[SchedulerJobRunner], None]
_Scheduling = Callable[[SchedulerJobRunner, DagRun, Session], Any]

_MOST_AHEAD = timedelta(minutes=10)
"""By which a browser's clock, whose moment Airflow's form fills in, may be ahead of ours."""
_run_worker = local_executor._run_worker


def main() -> None:
    """Be the scheduler until it is told to end, or its loop fails."""
    mend()
    sys.argv = ["airflow", "scheduler", *sys.argv[1:]]
    airflow_main()


def mend() -> None:
    """Have Airflow do what it lacks."""
    runner = SchedulerJobRunner
    runner._run_scheduler_loop = ending_with(runner._run_scheduler_loop)
    runner._schedule_dag_run = failing_ahead(runner._schedule_dag_run)
    local_executor._run_worker = run_worker


def ending_with(loop: _Loop) -> _Loop:
    """The loop that, where it fails, has its process end at once with exit code 1.

    Airflow 3.3.2 waits for its executor then, and was seen waiting for good (a run that it was at
    had been deleted): a process that lives and starts no task. One that has ended is started anew
    by who supervises it, and takes up what was running as that of any scheduler that is gone.
    """

    def loop_or_end(runner: SchedulerJobRunner) -> None:
        try:
            loop(runner)
        except Exception:
            runner.log.exception("The scheduler's loop has failed: the process ends")
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    return loop_or_end


def run_worker(**given: Any) -> None:
    """Be a worker of the LocalExecutor, which ends after its task where its scheduler has.

    That of Airflow 3.3.2 ends at the end of its queue, which it never sees: it holds the other end
    of that pipe too, as its siblings do. Each scheduler that was killed left its workers behind.
    """
    given["input"]._writer.close()
    _run_worker(**given)


def failing_ahead(schedule: _Scheduling) -> _Scheduling:
    """The scheduling that fails a run of ours whose logical date is in the future.

    Airflow 3.3.2 starts none of its tasks until then, and says so in the scheduler's log alone. As
    the one active run of its DAG it keeps all others waiting, for days or until its time is up.
    """

    def schedule_or_fail(runner: SchedulerJobRunner, dag_run: DagRun, session: Session) -> Any:
        ahead = dag_run.logical_date and dag_run.logical_date - datetime.now(UTC)
        if not ahead or ahead < _MOST_AHEAD or not _is_ours(dag_run):
            return schedule(runner, dag_run, session)
        dag_run.set_state(DagRunState.FAILED)
        dag_run.note = _why_not(dag_run.logical_date)
        runner.log.error(
            "Run %s of %s has failed: %s", dag_run.run_id, dag_run.dag_id, dag_run.note
        )
        session.flush()
        # Else none is made by the schedule until another run has ended.
        runner._set_exceeds_max_active_runs(dag_model=dag_run.dag_model, session=session)
        return None

    return schedule_or_fail


def _is_ours(dag_run: DagRun) -> bool:
    return "nightshift" in [tag.name for tag in dag_run.dag_model.tags]


def _why_not(logical_date: datetime) -> str:
    return (
        f"Its logical date, {logical_date.astimezone(UTC):%Y-%m-%d %H:%M} UTC, is in the future: "
        "until then Airflow would start no task of it, and no other run beside it. Trigger the DAG "
        "anew without that date: which day a run processes is a param, such as 'Night'."
    )


if __name__ == "__main__":
    main()
