"""The client of Airflow's API, against a small server that answers like it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobs.services import airflow_api
from jobs.services.airflow_api import Airflow, DagRunError, Task
from pipelines.errors import NightshiftError
from pipelines.resources import TRAINING, Pool

RUN = "/api/v2/dags/flights/dagRuns/r1"
START = "2026-11-25T00:00:00+00:00"
END = "2026-11-25T00:01:30+00:00"


def instance(
    name: str, state: str | None, seconds: float | None = None, start: str | None = START
) -> dict[str, Any]:
    return {
        "task_id": name,
        "state": state,
        "duration": seconds,
        "try_number": 1,
        "start_date": start,
    }


def earlier_lines(count: int) -> list[dict[str, Any]]:
    return [{"event": f"line {number}"} for number in range(count)]


@dataclass
class Script:
    """What the server answers, by method and path: the answers in turn, the last one for ever."""

    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    """Each request's method and path, with its content, or with its credentials."""

    def next_answer(self, path: str) -> tuple[int, bytes]:
        """The answer whose turn it is."""
        turns = self.answers.get(path, [(404, {"detail": "no such thing"})])
        status, content = turns.pop(0) if len(turns) > 1 else turns[0]
        if isinstance(content, bytes):
            return status, content
        return status, json.dumps(content).encode()


@pytest.fixture
def script() -> Script:
    return Script(
        {"POST /auth/token": [(201, {"access_token": "t1"}), (201, {"access_token": "t2"})]}
    )


def airflow_at(port: int) -> Airflow:
    return Airflow(url=f"http://127.0.0.1:{port}", user="admin", password="secret")


@pytest.fixture
def airflow(script: Script) -> Iterator[Airflow]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path, _, _ = self.path.partition("?")
            request = f"{self.command} {path}"
            sent = json.loads(content) if content else self.headers.get("Authorization")
            script.asked.append((request, sent))
            status, answer = script.next_answer(request)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PATCH = answer  # noqa: N815 - the names that the server looks for

        def log_message(self, *_: object) -> None:
            """Keep the test's output quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield airflow_at(server.server_port)
        server.shutdown()


def test_a_run_is_triggered_with_its_params(airflow: Airflow, script: Script) -> None:
    script.answers["POST /api/v2/dags/flights/dagRuns"] = [(200, {"dag_run_id": "r1"})]
    assert airflow.trigger("flights", {"date": "2013-04-01"}, run_id="r1") == "r1"
    assert script.asked == [
        ("POST /auth/token", {"username": "admin", "password": "secret"}),
        (
            "POST /api/v2/dags/flights/dagRuns",
            {"logical_date": None, "conf": {"date": "2013-04-01"}, "dag_run_id": "r1"},
        ),
    ]


def test_a_run_gets_a_note(airflow: Airflow, script: Script) -> None:
    script.answers[f"PATCH {RUN}"] = [(200, {"dag_run_id": "r1"})]
    airflow.note("flights", "r1", "**2013-04-01**")
    assert script.asked[-1] == (f"PATCH {RUN}", {"note": "**2013-04-01**"})


def test_pools_are_made_and_those_that_are_there_stay(airflow: Airflow, script: Script) -> None:
    script.answers["GET /api/v2/pools/there"] = [(200, {"name": "there", "slots": 7})]
    script.answers["POST /api/v2/pools"] = [
        (201, {"name": "training"}),
        (409, {"detail": "another was faster"}),
        (403, {"detail": "Forbidden"}),
    ]
    pools = [
        Pool(name="there", slots=1),
        TRAINING,
        Pool(name="other", slots=3, doc="Others."),
    ]
    airflow.make_pools(pools)
    sent = [content for request, content in script.asked if request == "POST /api/v2/pools"]
    assert sent == [
        {"name": "training", "slots": 1, "description": TRAINING.doc},
        {"name": "other", "slots": 3, "description": "Others."},
    ]
    with pytest.raises(NightshiftError, match='POST /pools with 403: "Forbidden"'):
        airflow.make_pools(pools)


def test_a_pool_and_a_note_are_asked_for_again_while_the_database_is_busy(
    airflow: Airflow, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow_api, "_LOOK_SECONDS", 0)
    busy = (500, {"detail": "Database error"})
    script.answers["POST /api/v2/pools"] = [busy, busy, (201, {"name": "training"})]
    airflow.make_pools([TRAINING])
    script.answers[f"PATCH {RUN}"] = [busy, (200, {"dag_run_id": "r1"})]
    airflow.note("flights", "r1", "now")
    # What would then have happened twice is not.
    runs = "POST /api/v2/dags/flights/dagRuns"
    script.answers[runs] = [busy, (200, {"dag_run_id": "r1"})]
    with pytest.raises(NightshiftError, match="with 500"):
        airflow.trigger("flights", {})
    assert [request for request, _ in script.asked].count(runs) == 1
    # But not for ever.
    script.answers["POST /api/v2/pools"] = [busy] * airflow_api._TRIES
    with pytest.raises(NightshiftError, match='POST /pools with 500: "Database error"'):
        airflow.make_pools([TRAINING])


def test_waiting_tells_each_change_of_a_task_once(airflow: Airflow, script: Script) -> None:
    done = {"state": "success", "start_date": START, "end_date": END}
    script.answers[f"GET {RUN}"] = [
        (200, {"state": "running"}),
        (200, {"state": "running"}),
        (200, done),
    ]
    waiting = instance("check_raw", None, start=None)
    running = {"task_instances": [waiting, instance("ingest", "running")]}
    ended = {"task_instances": [instance("ingest", "success", 1.5)]}
    script.answers[f"GET {RUN}/taskInstances"] = [
        (200, running),
        (200, running),
        (200, ended),
    ]
    changes: list[Task] = []
    assert airflow.wait("flights", "r1", 30, changes.append) == 90
    assert [(task.name, task.state, task.seconds) for task in changes] == [
        ("ingest", "running", None),
        ("ingest", "success", 1.5),
    ]


def test_a_failed_run_tells_the_end_of_the_failed_tasks_log(
    airflow: Airflow, script: Script
) -> None:
    script.answers[f"GET {RUN}"] = [(200, {"state": "failed"})]
    failed = instance("ingest", "failed", 2)
    skipped = instance("check_raw", "upstream_failed")
    script.answers[f"GET {RUN}/taskInstances"] = [(200, {"task_instances": [failed, skipped]})]
    events = earlier_lines(100)
    error = {"exc_type": "AirflowFailException", "exc_value": "ingest of 2013-04-01 was refused"}
    events += [
        {"event": "Refused: the file is missing.\nLand it first."},
        {"event": "::endgroup::"},
        {"event": "Task failed", "error_detail": [error]},
    ]
    script.answers[f"GET {RUN}/taskInstances/ingest/logs/1"] = [(200, {"content": events})]
    with pytest.raises(DagRunError) as caught:
        airflow.wait("flights", "r1", 30)
    message = str(caught.value).splitlines()
    assert message[0] == f"Run r1 of 'flights' failed. See {airflow.url}/dags/flights/runs/r1"
    assert message[1] == "ingest failed, try 1. The end of its log:"
    assert message[-4:-2] == ["  Refused: the file is missing.", "  Land it first."]
    assert message[-2:] == [
        "  Task failed",
        "  AirflowFailException: ingest of 2013-04-01 was refused",
    ]
    assert len(message) == 27


def test_a_run_that_never_ends_is_given_up(airflow: Airflow, script: Script) -> None:
    script.answers[f"GET {RUN}"] = [(200, {"state": "running"})]
    script.answers[f"GET {RUN}/taskInstances"] = [(200, {"task_instances": []})]
    with pytest.raises(NightshiftError, match="Run r1 of 'flights' is not finished after 0 s"):
        airflow.wait("flights", "r1", 0.1)


def test_an_expired_token_is_renewed(airflow: Airflow, script: Script) -> None:
    script.answers[f"GET {RUN}"] = [
        (401, {"detail": "expired"}),
        (200, {"state": "running"}),
    ]
    assert airflow.run("flights", "r1") == {"state": "running"}
    credentials = [sent for request, sent in script.asked if request == f"GET {RUN}"]
    assert credentials == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize("answer", [{"detail": "no"}, b"not json", ["a list"]])
def test_what_airflow_refuses_names_the_request_and_its_words(
    airflow: Airflow, script: Script, answer: Any
) -> None:
    script.answers[f"GET {RUN}"] = [(422, answer)]
    message = "Airflow answered GET /dags/flights/dagRuns/r1 with 422: "
    with pytest.raises(NightshiftError, match=message):
        airflow.run("flights", "r1")
    assert not airflow.has_dag("flights")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"<html>Sign in</html>", "is no Airflow"),
        (b"[]", "is no Airflow"),
        (b"\xff", "is no Airflow"),
        ({"hello": "there"}, "does not let 'admin' in"),
    ],
)
def test_another_program_that_answers_is_told(
    airflow: Airflow, script: Script, said: Any, told: str
) -> None:
    script.answers["POST /auth/token"] = [(200, said)]
    with pytest.raises(NightshiftError, match=told):
        airflow.note("flights", "r1", "a note")


def test_a_program_that_speaks_no_http_is_told() -> None:
    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        connection.recv(65_536)
        connection.sendall(b"SSH-2.0-other\r\n")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        with pytest.raises(NightshiftError, match="is no Airflow"):
            airflow_at(listening.getsockname()[1]).token()


def test_a_wrong_password_and_a_dead_airflow_are_told_apart(
    airflow: Airflow, script: Script
) -> None:
    script.answers["POST /auth/token"] = [(401, {"detail": "Invalid credentials"})]
    with pytest.raises(NightshiftError, match="does not let 'admin' in"):
        airflow.run("flights", "r1")
    message = r"No answer from Airflow at http://127.0.0.1:1 .*nightshift status"
    with pytest.raises(NightshiftError, match=message):
        airflow_at(1).run("flights", "r1")
