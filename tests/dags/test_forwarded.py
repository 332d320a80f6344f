"""Tasks whose command a child of the stage server does: all else is as with a process of theirs."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException
from structlog.testing import capture_logs

from dags.callbacks import StageRefused
from dags.process import Process
from dags.tasks import (
    CommandOperator,
    MaintenanceOperator,
    PlanOperator,
    StageOperator,
    dag_arguments,
)
from pipelines import forwarding, wire
from pipelines.catalog import pipeline
from pipelines.environment import ROOT
from pipelines.stages import stage
from tests.dags.conftest import Instance, context, printed_until

PIPELINE = pipeline("flights")
FUNCTION = "tests.dags.served:in_child"
SERVER = f"""
import sys
from pathlib import Path
from jobs.services.stage_server import StageServer
StageServer(Path(sys.argv[1]), preload=(), allowed={{"{FUNCTION}"}}).serve()
"""
TASK = f"""
import logging, os, sys
from dags.process import Process
from pipelines import forwarding
forwarding.FUNCTION = "{FUNCTION}"
Process(logging.getLogger()).run(["nightshift", "run", "flights"], dict(os.environ))
"""
RESULT = {
    "outcome": "refused",
    "message": "the reason",
    "report": None,
    "tables": {},
    "exit_code": 1,
}


class Served:
    """A home whose stage server is up, and what that is to do in place of a command."""

    def __init__(self, home: Path, process: subprocess.Popen[bytes]) -> None:
        self.home = home
        self.process = process

    def does(self, what: str) -> None:
        (self.home / "does").write_text(what)

    def asked(self) -> dict[str, Any]:
        """Of the last command."""
        told: dict[str, Any] = json.loads((self.home / "asked").read_text())
        return told

    def processes(self) -> list[psutil.Process]:
        """The child that sleeps, and the process that it has started."""
        assert until((self.home / "pids").exists)
        pids = (self.home / "pids").read_text().split()
        return [psutil.Process(int(pid)) for pid in pids]


def until(holds: Callable[[], object], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds())


def is_gone(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.fixture
def served(stub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(forwarding, "FUNCTION", FUNCTION)
    # A Unix socket's path is short.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("NIGHTSHIFT_HOME", folder)
        path = Path(folder) / "run" / "stages.sock"
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(path)], cwd=ROOT)
        assert until(path.exists)
        try:
            yield Served(Path(folder), process)
        finally:
            process.terminate()
            process.wait(timeout=20)


def execute(operator: CommandOperator) -> tuple[dict[str, Any], BaseException | None]:
    """Run the task; returns what it has handed on, and how it failed."""
    instance = Instance()
    try:
        operator.execute(context(date="2013-03-01") | {"ti": instance})
    except AirflowException as error:
        return instance.pushed, error
    return instance.pushed, None


def ingest() -> StageOperator:
    return StageOperator(pipeline=PIPELINE, stage=stage("ingest"))


def plan() -> PlanOperator:
    with DAG(**dag_arguments(PIPELINE)):
        return PlanOperator(pipeline=PIPELINE)


def calls(stub: Path) -> list[list[str]]:
    """Of processes that tasks have started."""
    lines = stub.read_text().splitlines() if stub.exists() else []
    return [json.loads(line) for line in lines]


def test_a_stage_ends_with_the_lines_the_result_and_the_code_of_the_child(
    served: Served, stub: Path
) -> None:
    served.does("refuse")
    (served.home / "result").write_text(json.dumps(RESULT))
    before = os.umask(0o027)
    try:
        with capture_logs() as logged:
            pushed, error = execute(ingest())
    finally:
        os.umask(before)
    by_line = {entry["event"]: entry["log_level"] for entry in logged}
    assert by_line["flights 2013-03-01  run r1"] == "info"
    assert by_line["Warning: one thing"] == "warning"
    assert by_line["Refused: the reason"] == by_line["  - of a day"] == "error"
    assert isinstance(error, StageRefused)
    assert str(error) == "ingest of 2013-03-01 was refused (exit code 1): the reason"
    assert pushed["result"] == RESULT
    assert calls(stub) == []
    assert served.asked()["words"][:2] == ["run", "flights"]
    assert served.asked()["folder"] == str(ROOT)
    assert served.asked()["umask"] == 0o027


def test_a_child_has_the_variables_that_a_client_sends(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of this task")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "1")
    monkeypatch.setenv("SOME_PASSWORD", "s3cret")
    served.does("plan")
    pushed, error = execute(plan())
    assert error is None
    assert pushed["plan"]["summary"] == "nothing"
    common = {"https_proxy": "http://proxy:3128", "TF_NUM_INTEROP_THREADS": "1"}
    assert served.asked()["variables"] == {"AWS_PROFILE": "of this task", **common}
    served.does("come apart")
    execute(ingest())
    # A stage has the credentials of the server.
    assert served.asked()["variables"] == common


def test_killing_the_task_ends_the_child_and_all_that_it_has_started(
    served: Served, stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.does("sleep")
    operator = ingest()
    ended: list[Any] = []
    task = threading.Thread(target=lambda: ended.append(execute(operator)[1]))
    task.start()
    # At once, and not when it ends.
    assert "ingest is under way" in printed_until(capsys, "ingest is under way")
    processes = served.processes()
    operator.on_kill()
    task.join(timeout=20)
    assert "exit code -15" in str(ended[0])
    assert until(lambda: all(map(is_gone, processes)))
    operator.on_kill()  # again, when it is gone: no harm
    # Nobody tells of it as of a loss: the task was ended.
    assert calls(stub) == []


def test_a_time_limit_unwinds_the_task_and_then_ends_the_child(served: Served) -> None:
    class Limited(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "under way" in record.getMessage():
                raise TimeoutError

    log = logging.getLogger("of a task with a limit")
    log.addHandler(Limited())
    log.setLevel(logging.INFO)
    log.propagate = False
    served.does("sleep")
    process = Process(log)
    with pytest.raises(TimeoutError):
        process.run(["nightshift", "run", "flights"], {"NIGHTSHIFT_HOME": str(served.home)})
    processes = served.processes()
    assert not any(map(is_gone, processes))
    process.end()
    assert until(lambda: all(map(is_gone, processes)))


def test_a_task_whose_process_is_killed_leaves_no_child(served: Served) -> None:
    served.does("sleep")
    task = subprocess.Popen([sys.executable, "-c", TASK], cwd=ROOT)
    processes = served.processes()
    task.send_signal(signal.SIGKILL)
    task.wait()
    assert until(lambda: all(map(is_gone, processes)))


@pytest.mark.parametrize("how", ["die", "come apart", "server"])
def test_a_child_that_is_lost_is_told_of_by_the_command_and_not_done_again(
    how: str, served: Served, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose() -> None:
        """The server goes, and its child with it; what that has started would hold its output."""
        *_, below = served.processes()
        served.process.kill()
        below.kill()

    served.does("sleep" if how == "server" else how)
    monkeypatch.setenv("STUB_EXIT", "3")
    monkeypatch.setenv("STUB_RESULT", json.dumps({**RESULT, "message": "it was killed"}))
    if how == "server":
        threading.Thread(target=lose).start()
    with capture_logs() as logged:
        pushed, error = execute(ingest())
    if how != "come apart":
        why = "the stage server has gone" if how == "server" else "killed by SIGKILL"
        assert any(why in one["event"] and one["log_level"] == "error" for one in logged)
    assert "failed (exit code 3): it was killed" in str(error)
    assert pushed["result"]["message"] == "it was killed"
    (words,) = calls(stub)
    assert words[:-1] == served.asked()["words"]
    lost = json.loads(words[-1].removeprefix("--lost="))
    assert datetime.fromisoformat(lost["since"]).tzinfo
    assert ("cpu_seconds" in lost["taken"]) == (how != "server")


def test_a_plan_whose_child_is_lost_is_done_by_a_process(
    served: Served, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.does("die")
    monkeypatch.setenv("STUB_RESULT", json.dumps({"summary": "one", "has_work": True}))
    pushed, error = execute(plan())
    assert error is None
    assert pushed["plan"]["summary"] == "one"
    assert calls(stub) == [served.asked()["words"]]


def test_a_server_of_older_code_does_nothing_and_a_process_does_it(
    served: Served, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "FUNCTION", "jobs.older:in_child")
    with capture_logs() as logged:
        _, error = execute(ingest())
    assert error is None
    assert not any("does not run" in one["event"] for one in logged)
    ((what, *_),) = calls(stub)
    assert what == "run"
    assert not (served.home / "asked").exists()


def test_another_command_is_done_by_a_process(served: Served, stub: Path) -> None:
    execute(MaintenanceOperator())
    ((what, *_),) = calls(stub)
    assert what == "maintain"


@pytest.mark.parametrize("home", ["h" * 120, ""], ids=["too long for a socket", "no server"])
def test_without_a_server_a_process_does_it(
    home: str, stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / home))
    assert execute(ingest())[1] is None
    assert len(calls(stub)) == 1


@pytest.mark.timeout(60)  # it was waited for without end
def test_beside_a_server_that_answers_nothing_a_process_does_it(
    served: Served, stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_ANSWER_SECONDS", 0.5)
    served.process.send_signal(signal.SIGSTOP)
    try:
        assert execute(ingest())[1] is None
    finally:
        served.process.send_signal(signal.SIGCONT)
    assert len(calls(stub)) == 1


def test_what_is_wrong_with_a_setting_the_command_says(served: Served, stub: Path) -> None:
    variables = {**os.environ, "NIGHTSHIFT_RANKS": "none"}
    program = stub.with_name("nightshift")
    ended = Process(logging.getLogger()).run(
        [str(program), "run", "flights"],
        variables,
    )
    assert ended.exit_code == 0
    assert calls(stub) == [["run", "flights"]]
    assert not (served.home / "asked").exists()
