"""A night in Airflow in which a stage was refused: what still runs, and how the run ends.

By Airflow's own `dag.test()`, which decides as its scheduler does.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dags.tasks import OUTCOME
from pipelines.stages import STAGES
from tests.dags.conftest import home_of_airflow, in_airflow

ALL = {stage.name for stage in STAGES}
NOT_RUN: dict[str, set[str]] = {
    "none": set(),
    "train": {"evaluate"},
    "evaluate": set(),
    "features": {"train", "evaluate", "predict", "check_predictions", "monitor"},
    "predict": {"check_predictions", "monitor"},
}
"""Stage that is refused -> stages that do not run."""

_Told = tuple[str, dict[str, str], list[str]]

REFUSING = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
for argument in sys.argv:
    if argument.startswith("--result="):
        plan = {"has_work": True, "summary": "to do: all", "rows": []}
        is_kept = "correction" in os.environ["STUB_FAILS"] and "ingest" in sys.argv
        kept = ["2013-02-27"] if is_kept else []
        ran = {"tables": {}, "report": None, "message": "refused", "kept": kept}
        told = ran if sys.argv[1] == "run" else plan
        Path(argument.partition("=")[2]).write_text(json.dumps(told))
if sys.argv[1] == "run":
    with open(os.environ["STUB_RAN"], "a") as ran:
        print(sys.argv[sys.argv.index("--stage") + 1], file=ran)
if "awaiting" in os.environ["STUB_FAILS"] and "predict" in sys.argv:
    sys.exit(5)
fails = os.environ["STUB_FAILS"] in sys.argv or is_kept
sys.exit(1 if fails and sys.argv[1] == "run" else 0)
"""
"""Stands for `nightshift`: plans a whole night, and refuses the stage that it is told to, which
Airflow does not retry."""

NIGHTS = """
import json, os, sys
from datetime import UTC, datetime
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from dags import tasks
tasks.executable = lambda: Path(sys.argv[1])
file = os.path.join(os.environ["AIRFLOW__CORE__DAGS_FOLDER"], "flights.py")
told = {}

def test(failing, **asked):
    os.environ["STUB_FAILS"] = failing
    ran = Path(os.environ["AIRFLOW_HOME"]) / "ran"
    ran.write_text("")
    os.environ["STUB_RAN"] = str(ran)
    dag = DagBag(dag_folder=file).dags["flights"]
    run = dag.test(run_conf={"date": "2013-03-01", **asked}, logical_date=datetime.now(UTC))
    states = {one.task_id: one.state for one in run.get_task_instances()}
    return run.state, states, ran.read_text().split()

for failing in sys.argv[2:]:
    told[failing] = test(failing)
told["correction"] = test("correction")
told["awaiting"] = test("awaiting")
told["awaiting correction"] = test("awaiting correction")
told["chosen"] = test("none", stages=["predict", "features"])
print("\\n" + json.dumps(told))
"""


@pytest.fixture(scope="module")
def nights(made_database: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, _Told]:
    """Refused stage -> state of the run, and of each task, and the stages that ran.

    And `correction`, where new files of a day before are refused; `awaiting`, where no model serves
    and one awaits a person; both; and `chosen`: a run of two stages, of which none is refused.
    """
    home = home_of_airflow(tmp_path_factory.mktemp("nights"), made_database, "flights")
    command = home / "nightshift"
    command.write_text(REFUSING)
    command.chmod(0o755)
    line = in_airflow(home, NIGHTS, str(command), *NOT_RUN)
    told: dict[str, _Told] = json.loads(line)
    return told


@pytest.mark.parametrize("refused", NOT_RUN)
def test_tomorrow_is_scored_without_a_good_training_and_the_run_still_fails(
    refused: str, nights: dict[str, _Told]
) -> None:
    expected = dict.fromkeys(ALL | {"plan", OUTCOME}, "success")
    if refused in ALL:
        expected |= dict.fromkeys([*NOT_RUN[refused], OUTCOME], "upstream_failed")
        expected[refused] = "failed"
    state, tasks, _ = nights[refused]
    assert tasks == expected
    assert state == ("failed" if refused in ALL else "success")


def test_a_run_of_some_stages_does_these_in_their_order_and_no_other(
    nights: dict[str, _Told],
) -> None:
    state, tasks, ran = nights["chosen"]
    assert ran == ["features", "predict"]
    assert state == "success"
    assert set(tasks.values()) == {"success"}


def test_a_night_whose_first_model_awaits_a_person_is_skipped_from_there_and_no_failure(
    nights: dict[str, _Told],
) -> None:
    state, tasks, ran = nights["awaiting"]
    assert ran[-1] == "predict"
    skipped = ["predict", "check_predictions", "monitor", OUTCOME]
    assert tasks == dict.fromkeys(ALL | {"plan"}, "success") | dict.fromkeys(skipped, "skipped")
    assert state == "success"


def test_such_a_night_beside_a_bad_correction_fails(nights: dict[str, _Told]) -> None:
    state, tasks, _ = nights["awaiting correction"]
    assert tasks["predict"] == "failed"
    assert tasks[OUTCOME] == "upstream_failed"
    assert state == "failed"


def test_all_of_a_night_runs_beside_a_bad_correction_and_the_run_fails(
    nights: dict[str, _Told],
) -> None:
    state, tasks, ran = nights["correction"]
    assert ran == [stage.name for stage in STAGES]
    assert state == "failed"
    last = {STAGES[-1].name: "failed", OUTCOME: "upstream_failed"}
    assert tasks == dict.fromkeys(ALL | {"plan"}, "success") | last
