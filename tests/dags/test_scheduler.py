"""Airflow's scheduler does what Airflow's own does not: it ends whole, and no run blocks others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from jobs.services.processes import is_alive
from tests.dags.conftest import home_of_airflow, in_airflow

_SCHEDULER = """
import sys, time
from pathlib import Path
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.local_executor import LocalExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from dags.scheduler import mend

class Waiting(BaseExecutor):
    def start(self): pass
    def end(self):
        print("the executor ends", flush=True)
        time.sleep(600)

def loop(runner):
    (executor,) = runner.executors
    if isinstance(executor, LocalExecutor):
        draft = Path(sys.argv[2]).with_suffix(".draft")
        draft.write_text(" ".join(map(str, executor.workers)))
        draft.rename(sys.argv[2])
    if sys.argv[1] == "fails":
        raise RuntimeError("the run was deleted")
    if sys.argv[1] == "goes on":
        time.sleep(600)

SchedulerJobRunner._run_scheduler_loop = loop
mend()
executor = LocalExecutor(parallelism=2) if sys.argv[2:] else Waiting()
SchedulerJobRunner(Job(), executors=[executor])._execute()
"""

_AHEAD = """
import json
from datetime import UTC, datetime, timedelta
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from dags.scheduler import mend
mend()
manager = DagBundlesManager()
manager.sync_bundles_to_db()
(bundle,) = manager.get_all_dag_bundles()
bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
sync_bag_to_db(bag, bundle.name, bundle.version)
now = datetime.now(UTC)
dag = SerializedDagModel.get_dag("weather")

class Full(BaseExecutor):
    slots_available = 0

runner = SchedulerJobRunner(Job(), executors=[Full()])
runner._scheduler_use_job_schedule = False
seen = []
for name, ahead in [("next_year", timedelta(days=365)), ("a_minute", timedelta(minutes=1))]:
    dag.create_dagrun(
        run_id=name,
        logical_date=now + ahead,
        data_interval=(now, now),
        run_after=now - timedelta(minutes=1),
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state="queued",
    )
    with create_session() as session:
        # As where the schedule would have made a run beside it.
        session.get(DagModel, "weather").exceeds_max_non_backfill = True
    with create_session() as session:
        runner._do_scheduling(session)
    with create_session() as session:
        runs = {run.run_id: (run.state, run.note) for run in session.query(DagRun)}
        is_full = session.get(DagModel, "weather").exceeds_max_non_backfill
    seen.append((runs, is_full))
print("\\n" + json.dumps(seen))
"""


def scheduler(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SCHEDULER, *words],
        env={**os.environ, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_scheduler_whose_loop_fails_does_not_wait_for_its_executor() -> None:
    failing = scheduler("fails")
    told, _ = failing.communicate(timeout=60)
    assert failing.returncode == 1, told
    assert "RuntimeError: the run was deleted" in told
    assert "the executor ends" not in told


def test_a_scheduler_that_is_told_to_end_has_its_executor_end() -> None:
    ending = scheduler("ends")
    try:
        assert ending.stdout is not None
        assert any("the executor ends" in line for line in ending.stdout)
    finally:
        ending.kill()
        ending.wait()


@pytest.mark.parametrize("how", ["fails", "goes on"])
def test_workers_of_a_scheduler_that_has_ended_end_too(how: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    ending = scheduler(how, str(pids))
    while ending.poll() is None and not pids.exists():
        time.sleep(0.05)
    named = [int(pid) for pid in pids.read_text().split()]
    workers = []
    for pid in named:
        # One that is gone has done what is asked for.
        with suppress(psutil.NoSuchProcess):
            workers.append(psutil.Process(pid))
    assert len(named) == 2
    if how == "goes on":
        assert ending.poll() is None
        ending.send_signal(signal.SIGKILL)
    try:
        assert ending.wait(timeout=60) == (1 if how == "fails" else -signal.SIGKILL)
        _, left = psutil.wait_procs(workers, timeout=15)
        # Whoever inherits them may wait for none.
        assert [one for one in left if is_alive(one)] == []
    finally:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()


def test_a_run_whose_logical_date_is_in_the_future_fails_and_keeps_no_other_waiting(
    made_database: Path, tmp_path: Path
) -> None:
    home = home_of_airflow(tmp_path, made_database, "weather")
    seen = json.loads(in_airflow(home, _AHEAD))
    (runs, is_full), (later, _) = seen
    state, note = runs["next_year"]
    assert state == "failed"
    assert "is in the future" in note
    assert "Trigger the DAG anew without that date" in note
    assert not is_full, "the schedule goes on"
    # The clock of a browser may be a little ahead.
    assert later["a_minute"] == ["running", None]
