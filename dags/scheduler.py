"""Airflow's scheduler, which ends when its loop has failed.

`python -m dags.scheduler [OPTION …]`, with the variables of an Airflow process and options of
`airflow scheduler`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from airflow.__main__ import main as airflow_main
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

_Loop = Callable[[SchedulerJobRunner], None]


def main() -> None:
    """Be the scheduler until it is told to end, or its loop fails."""
    loop = ending_with(SchedulerJobRunner._run_scheduler_loop)
    SchedulerJobRunner._run_scheduler_loop = loop
    sys.argv = ["airflow", "scheduler", *sys.argv[1:]]
    airflow_main()


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


if __name__ == "__main__":
    main()
