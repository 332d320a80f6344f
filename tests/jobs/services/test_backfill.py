"""A backfill with more runs at once than it has nights, in a real Airflow.

Nights are planned by the real command; stages are stubs, which tell when they ran.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

from jobs.services import lifecycle
from jobs.services.airflow_api import Airflow, Content, own_airflow
from jobs.services.definitions import Service, services
from pipelines.days import Days, parse_day
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError
from pipelines.stages import STAGES
from tests.airflow_home import prepare_by_copy
from tests.conftest import free_port
from tests.e2e.conftest import processes_of

pytestmark = pytest.mark.timeout(900)
NIGHTS = Days(parse_day("2013-03-01"), parse_day("2013-03-03"))
_MOST_SECONDS = 600
STUB = f"""#!{sys.executable}
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
with open(os.environ["STUB_CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "plan":
    from jobs.__main__ import main
    sys.exit(main())
for argument in sys.argv:
    if argument.startswith("--result="):
        result = dict(tables=dict(), report=None, message=None)
        open(argument.partition("=")[2], "w").write(json.dumps(result))
"""
DAG_FILE = """from pathlib import Path
from airflow.sdk import DAG
from dags import tasks
from pipelines.flights import PIPELINE
tasks.executable = lambda: Path({stub!r})
with DAG(**tasks.dag_arguments(PIPELINE)):
    tasks.night(PIPELINE)
"""


def of_airflow(environment: Environment) -> tuple[Service, ...]:
    """Airflow without the platform around it."""
    return tuple(one for one in services(environment) if one.needs_database)


@pytest.fixture
def airflow(
    made: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Airflow]:
    """The platform's Airflow, up, in which the stages of flights are stubs."""
    for name in os.environ:
        if name.startswith(("NIGHTSHIFT_", "AIRFLOW")):
            monkeypatch.delenv(name)
    folder = tmp_path / "dags"
    folder.mkdir()
    stub = tmp_path / "nightshift"
    stub.write_text(STUB)
    stub.chmod(0o755)
    (folder / "flights.py").write_text(DAG_FILE.format(stub=str(stub)))
    monkeypatch.setenv("STUB_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder))
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIGHTSHIFT_AIRFLOW_PORT", str(free_port()))
    monkeypatch.setattr(lifecycle, "services", of_airflow)
    environment = Environment.read()
    prepare_by_copy(environment, made)
    try:
        assert lifecycle.up(environment) == 0
        yield own_airflow(environment)
    finally:
        lifecycle.down(environment)
        assert processes_of(environment.home) == []


def test_nights_of_a_backfill_take_turns_however_many_may_run_at_once(
    airflow: Airflow, tmp_path: Path
) -> None:
    assert airflow.call("GET", "/pools/training")["slots"] == 1, "`up` makes it"
    # Somebody deletes it: the plan of the next night makes it again, and no training hangs.
    airflow.call("DELETE", "/pools/training")
    wait_for(lambda: airflow.has_dag("flights"))
    # A backfill that SQLite refuses is taken back by Airflow 3.3.2, and a scheduler that was at one
    # of its runs then fails and hangs. So it is asked for when nothing else writes.
    wait_for(lambda: set(states(airflow, "scheduled")) == {"success"})
    asked = {"dag_id": "flights", "max_active_runs": 10, "reprocess_behavior": "none"}
    span = {"from_date": f"{NIGHTS.first}T00:00:00Z", "to_date": f"{NIGHTS.last}T23:00:00Z"}
    options = {"run_backwards": False, "dag_run_conf": {}}
    wait_for(lambda: is_accepted(airflow, {**asked, **span, **options}))
    wait_for(lambda: states(airflow) == ["success"] * len(NIGHTS))

    lines = (tmp_path / "calls").read_text().splitlines()
    called = [json.loads(line) for line in lines]
    of_nights = [argv for argv in called if argv[0] in ("plan", "run")]
    nights = [argv[argv.index("--from") + 1] for argv in of_nights]
    turns = [night for night, _ in groupby(nights)]
    assert turns == list(map(str, NIGHTS)), "the oldest first, and none before it has ended"
    assert len(of_nights) == len(NIGHTS) * (len(STAGES) + 1), "nothing is done twice"


def is_accepted(airflow: Airflow, backfill: Content) -> bool:
    """Whether Airflow takes the backfill: on SQLite it does not while another writes."""
    try:
        airflow.call("POST", "/backfills", backfill)
    except NightshiftError as error:
        # 503; or 500, where its record of what was asked could not be written.
        if not re.search(r"\b50[03]\b", str(error)):
            raise
        return False
    return True


def states(airflow: Airflow, run_type: str = "backfill") -> list[str]:
    runs = airflow.call("GET", f"/dags/flights/dagRuns?run_type={run_type}&limit=100")
    return [run["state"] for run in runs["dag_runs"]]


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _MOST_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(1)
