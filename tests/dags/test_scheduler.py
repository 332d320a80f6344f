"""Airflow's scheduler whose loop fails: its process ends, whatever its executor waits for."""

from __future__ import annotations

import os
import subprocess
import sys

_SCHEDULER = """
import sys, time
from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from dags.scheduler import ending_with

class Waiting(BaseExecutor):
    def start(self): pass
    def end(self):
        print("the executor ends", flush=True)
        time.sleep(600)

def loop(runner):
    if sys.argv[1] == "fails":
        raise RuntimeError("the run was deleted")

SchedulerJobRunner._run_scheduler_loop = ending_with(loop)
SchedulerJobRunner(Job(), executors=[Waiting()])._execute()
"""


def test_a_scheduler_whose_loop_fails_does_not_wait_for_its_executor() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _SCHEDULER, "fails"],
        env={**os.environ, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = ended.stdout + ended.stderr
    assert ended.returncode == 1, told
    assert "RuntimeError: the run was deleted" in told
    assert "the executor ends" not in told


def test_a_scheduler_that_is_told_to_end_has_its_executor_end() -> None:
    scheduler = subprocess.Popen(
        [sys.executable, "-c", _SCHEDULER, "ends"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert scheduler.stdout is not None
        assert any("the executor ends" in line for line in scheduler.stdout)
    finally:
        scheduler.kill()
        scheduler.wait()
