"""However often a stage is tried in Airflow, people get one message of why the night failed.

By Airflow's own `dag.test()`, its callbacks, the real `nightshift notify`, and a web server.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.dags.conftest import in_airflow

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

NIGHT = """
import os, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb
from dags import tasks
initdb()
tasks.executable = lambda: Path(sys.argv[1])
file = os.path.join(os.environ["AIRFLOW__CORE__DAGS_FOLDER"], "flights.py")
dag = DagBag(dag_folder=file).dags["flights"]
for task in dag.tasks:
    task.retry_delay = timedelta(0)
    task.retry_exponential_backoff = 0
run = dag.test(run_conf={"date": "2013-03-01"}, logical_date=datetime.now(UTC))
print("\\n" + run.state)
"""


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


@pytest.mark.parametrize(
    ("exit_code", "attempts", "event"), [(1, 1, "stage_refused"), (3, 3, "stage_failed")]
)
def test_a_stage_that_is_tried_again_is_told_of_once(
    exit_code: int,
    attempts: int,
    event: str,
    posted: tuple[str, list[dict[str, str]]],
    tmp_path: Path,
) -> None:
    command = tmp_path / "nightshift"
    command.write_text(FAILING)
    command.chmod(0o755)
    address, messages = posted
    tried = tmp_path / "attempts"
    variables = {
        "NIGHTSHIFT_HOME": str(tmp_path / "home"),
        "NIGHTSHIFT_WEBHOOK_URL": address,
        "no_proxy": "127.0.0.1",
        "ATTEMPTS": str(tried),
        "EXIT": str(exit_code),
    }
    airflow = tmp_path / "airflow"
    airflow.mkdir()
    assert in_airflow(airflow, NIGHT, str(command), **variables) == "failed"
    assert len(tried.read_text().splitlines()) == attempts
    assert [(one["event"], one["stage"], one["days"]) for one in messages] == [
        (event, "check_raw", "2013-03-01")
    ]
    assert messages[0]["message"].startswith("check_raw of 2013-03-01 ")
