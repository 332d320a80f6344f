"""However often a stage is tried in Airflow, people get one message of why the night failed.

And they are told of what no stage can tell: a maintenance that was killed, a declaration that
cannot be read. By Airflow's own `dag.test()`, its callbacks, the real commands that have people
told, and a web server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.environment import ROOT
from tests.dags.conftest import home_of_airflow, in_airflow

FAILING = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
if sys.argv[1] == "notify":
    os.execv(sys.executable, [sys.executable, "-m", "jobs", *sys.argv[1:]])
for argument in sys.argv:
    if argument.startswith("--result="):
        plan = {{"has_work": True, "summary": "to do: all", "rows": []}}
        ran = {{"tables": {{}}, "report": None, "message": "the reason"}}
        told = ran if sys.argv[1] == "run" else plan
        Path(argument.partition("=")[2]).write_text(json.dumps(told))
if sys.argv[1] != "run" or "check_raw" not in sys.argv:
    sys.exit(0)
with open(os.environ["ATTEMPTS"], "a") as attempts:
    attempts.write("tried\\n")
sys.exit(int(os.environ["EXIT"]))
"""
"""Stands for `nightshift`: `check_raw` ends as it is told to; what notifies is the real one."""

RUNS = """
import json, os, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from dags import tasks
tasks.executable = lambda: Path(sys.argv[1])
states = []
for name, conf, variables in json.loads(sys.argv[2]):
    os.environ.update(variables)
    file = os.path.join(os.environ["AIRFLOW__CORE__DAGS_FOLDER"], f"{name}.py")
    dag = DagBag(dag_folder=file).dags[name]
    for task in dag.tasks:
        task.retry_delay = timedelta(0)
        task.retry_exponential_backoff = 0
    run = dag.test(run_conf=conf, logical_date=datetime.now(UTC))
    states.append(run.state)
print("\\n" + json.dumps(states))
"""
REFUSED, FAILED = "2013-03-01", "2013-03-02"
"""Nights whose check ends with 1, which Airflow doesn't try again, and with 3, which it does."""

MAINTAINING = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "maintain" and int(os.environ["EXIT"]) < 0:
    os.kill(os.getpid(), -int(os.environ["EXIT"]))
sys.exit(int(os.environ["EXIT"]) if sys.argv[1] == "maintain" else 0)
"""
"""Stands for `nightshift`: `maintain` ends as it is told to, or is killed."""

LOOK = f"""
import json, os, sys
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from dags import tasks
command = Path("nightshift")
command.write_text("#!/bin/sh\\nexec {sys.executable} -m jobs $@\\n")
command.chmod(0o755)
tasks.executable = command.absolute
bag = DagBag(dag_folder="dags", bundle_path=Path("dags"))
bag.dags["declarations"].get_task("look").execute({{}})
print("\\n" + json.dumps([sorted(bag.dags), [Path(file).name for file in bag.import_errors]]))
"""
"""Reads the DAG files of this folder, and does the task that looks at the declarations."""


@pytest.fixture
def posted() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The address of a web server, and what is posted there."""
    messages: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            messages.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the output of a test is what the code under test says."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", messages
    server.shutdown()
    server.server_close()


def test_a_stage_that_is_tried_again_is_told_of_once(
    posted: tuple[str, list[dict[str, str]]], made_database: Path, tmp_path: Path
) -> None:
    command = tmp_path / "nightshift"
    command.write_text(FAILING)
    command.chmod(0o755)
    address, messages = posted
    variables = {
        "NIGHTSHIFT_HOME": str(tmp_path / "home"),
        "NIGHTSHIFT_WEBHOOK_URL": address,
        "no_proxy": "127.0.0.1",
    }
    airflow = home_of_airflow(tmp_path, made_database, "flights")
    nights = []
    for code, night in ((1, REFUSED), (3, FAILED)):
        told = {"EXIT": str(code), "ATTEMPTS": str(tmp_path / night)}
        nights.append(("flights", {"date": night}, told))
    ended = in_airflow(airflow, RUNS, str(command), json.dumps(nights), **variables)
    assert json.loads(ended) == ["failed", "failed"]
    tried = [(tmp_path / night).read_text().split() for night in (REFUSED, FAILED)]
    assert list(map(len, tried)) == [1, 3]
    assert [(one["event"], one["stage"], one["days"]) for one in messages] == [
        ("stage_refused", "check_raw", REFUSED),
        ("stage_failed", "check_raw", FAILED),
    ]
    for one in messages:
        assert one["message"].startswith(f"check_raw of {one['days']} ")


def test_of_a_maintenance_that_could_not_tell_itself_people_are_told_once(
    made_database: Path, tmp_path: Path
) -> None:
    command = tmp_path / "nightshift"
    command.write_text(MAINTAINING)
    command.chmod(0o755)
    codes = (-9, 2, 3)
    runs = []
    for code in codes:
        told = {"EXIT": str(code), "CALLS": str(tmp_path / str(code))}
        runs.append(("maintenance", {}, told))
    airflow = home_of_airflow(tmp_path, made_database, "maintenance")
    ended = in_airflow(airflow, RUNS, str(command), json.dumps(runs))
    assert json.loads(ended) == ["failed"] * 3
    for code in codes:
        lines = (tmp_path / str(code)).read_text().splitlines()
        called = [json.loads(line) for line in lines]
        assert [words[0] for words in called[:3]] == ["maintain"] * 3
        assert ["--no-notify" in words for words in called[:3]] == [True, True, False]
        announced = called[3:]
        # Of 3 it has told itself.
        assert len(announced) == (code != 3)
        for *words, message in announced:
            assert words == ["announce", "--event", "maintenance_failed"]
            assert f"maintain failed (exit code {code})" in message


def test_of_a_declaration_that_cannot_be_read_people_are_told_where_the_error_is(
    posted: tuple[str, list[dict[str, str]]], tmp_path: Path
) -> None:
    for name in ("dags", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name)
    with (tmp_path / "pipelines" / "flights.py").open("a") as declaration:
        declaration.write("\nPIPELINE.no_such_method()\n")
    lines = len((tmp_path / "pipelines" / "flights.py").read_text().splitlines())
    address, messages = posted
    looked = subprocess.run(
        [sys.executable, "-c", LOOK],
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "NIGHTSHIFT_HOME": str(tmp_path / "home"),
            "NIGHTSHIFT_WEBHOOK_URL": address,
            "no_proxy": "127.0.0.1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert looked.returncode == 0, looked.stdout + looked.stderr
    names, broken = json.loads(looked.stdout.splitlines()[-1])
    assert broken == ["flights.py"]
    assert "flights_deadline" not in names, "it cannot tell"
    (message,) = messages
    assert (message["event"], message["pipeline"]) == ("declaration_unreadable", "flights")
    assert f"pipelines/flights.py, line {lines}: AttributeError" in message["message"]
    assert f"line {lines}" in message["text"]
