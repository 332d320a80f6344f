"""The doctor tells what is amiss and the way out, and nobody's password."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
from aiosmtpd.controller import Controller

from jobs.__main__ import main
from jobs.commands import doctor
from jobs.services import processes, usage
from jobs.services.definitions import Health, services
from jobs.services.supervision import Process, Supervisor
from jobs.training import horovod_build
from pipelines import catalog, cores
from pipelines.environment import ROOT, Environment
from tests.conftest import free_port
from tests.postgres import Postgres

Row = dict[str, str]
PASSWORD = "s3cret"


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """Of a new home with ports that nobody uses."""
    ports = ("SPARK", "AIRFLOW", "MLFLOW")
    free = {f"NIGHTSHIFT_{name}_PORT": str(free_port()) for name in ports}
    return {"NIGHTSHIFT_HOME": str(tmp_path / "home"), **free}


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Horovod may take long to load in a process of its own."""
    monkeypatch.setattr(doctor, "_BUILD_SECONDS", 300)


def _have_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """Put what stands for NVIDIA's driver on PATH.

    Args:
        folder: Where it is kept.
        monkeypatch: Of the test.
        does: Lines of a shell, which name GPUs.
    """
    driver = folder / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\n{does}")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def _asked(variables: dict[str, str]) -> tuple[int, dict[str, Row]]:
    code, found = doctor.doctor(Environment.read(variables))
    rows = [dict(zip(doctor.COLUMNS, row, strict=True)) for row in found]
    assert PASSWORD not in str(rows)
    return code, {row["what"]: row for row in rows}


@contextmanager
def _listening() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_processes_that_nothing_watches_are_a_problem(variables: dict[str, str]) -> None:
    marked = {**os.environ, processes.MARK: variables["NIGHTSHIFT_HOME"]}
    # As after a kill of the supervisor.
    left = subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=marked
    )
    try:
        # Only what answers surely runs its program, whose environment can be read.
        left.stdin.write(b"?")
        assert left.stdout.read(1) == b"?"
        code, rows = _asked(variables)
    finally:
        left.kill()
        left.wait()
    assert (code, rows["platform"]["state"]) == (3, "problem")
    assert rows["platform"]["found"] == "1 of its processes run, and nothing watches them"


def test_a_machine_on_which_all_is_well_has_no_problem_and_is_left_as_it_was(
    variables: dict[str, str],
) -> None:
    began = time.monotonic()
    code, rows = _asked(variables)
    # One or two on a quiet machine.
    assert time.monotonic() - began < 120
    assert code == 0, rows
    assert {row["state"] for row in rows.values()} <= {"ok", "warning"}
    assert rows["Python"]["found"].endswith(sys.executable)
    assert rows["Keras"]["found"].startswith("3.")
    assert "Gloo" in rows["Horovod is built with"]["found"]
    port = variables["NIGHTSHIFT_AIRFLOW_PORT"]
    assert rows[f"port {port} (airflow-api)"]["found"] == "free"
    assert (rows["platform"]["found"], rows["platform"]["way_out"]) == ("down", "nightshift up")
    assert rows["warehouse"]["found"] == rows["SMTP server"]["found"] == "not set"
    assert not Path(variables["NIGHTSHIFT_HOME"]).exists()


def test_programs_read_it_as_json_and_csv(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["doctor", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {tuple(row) for row in told} == {doctor.COLUMNS}
    assert main(["doctor", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "what,found,state,way_out"


def test_it_imports_no_heavy_library(variables: dict[str, str]) -> None:
    program = (
        "import sys; from jobs.__main__ import main; main(['doctor']); "
        "print([name for name in ('tensorflow', 'pyspark', 'mlflow', 'airflow') "
        "if name in sys.modules], file=sys.stderr)"
    )
    known = {**os.environ, **variables}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=known, capture_output=True, text=True, check=True
    )
    assert ran.stderr.splitlines()[-1] == "[]"


def test_a_taken_port_is_told_with_who_holds_it_and_the_variable_that_chooses_another(
    variables: dict[str, str],
) -> None:
    with _listening() as port:
        code, rows = _asked({**variables, "NIGHTSHIFT_MLFLOW_PORT": str(port)})
    row = rows[f"port {port} (mlflow)"]
    assert (code, row["state"]) == (3, "problem")
    assert str(psutil.Process().pid) in row["found"]
    assert "NIGHTSHIFT_MLFLOW_PORT" in row["way_out"]


def test_it_tells_by_which_channels_people_are_told(variables: dict[str, str]) -> None:
    _, rows = _asked(variables)
    assert rows["flights tells people by"]["found"] == "log"
    hook = f"https://chat.example/{PASSWORD}"
    _, rows = _asked({**variables, "NIGHTSHIFT_WEBHOOK_URL": hook})
    assert rows["weather tells people by"]["found"] == "log, webhook"


def test_a_pipeline_that_somebody_is_writing_hides_nothing_of_the_others(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "names", lambda: ["draft", "flights"])
    code, rows = _asked(variables)
    assert (code, rows["pipeline draft"]["state"]) == (3, "problem")
    assert "No module named 'pipelines.draft'" in rows["pipeline draft"]["found"]
    assert rows["flights tells people by"]["found"] == "log"
    assert "ranks" in rows["processor"]["found"]
    assert rows["processor"]["state"] != "problem"


def test_a_cluster_whose_name_leads_nowhere_does_not_answer(variables: dict[str, str]) -> None:
    nowhere = "spark.invalid:7077"
    for variable, scheme in (("SPARK_REMOTE", "sc"), ("NIGHTSHIFT_SPARK_MASTER", "spark")):
        code, rows = _asked({**variables, variable: f"{scheme}://{nowhere}"})
        row = rows["Spark" if scheme == "sc" else "Spark cluster"]
        assert (code, row["state"]) == (3, "problem")
        assert row["found"].endswith(f"{nowhere} does not answer")
        assert variable in row["way_out"]


def test_a_part_that_is_not_told_what_the_parts_share_is_a_problem(
    variables: dict[str, str], tmp_path: Path
) -> None:
    given = {**variables, "NIGHTSHIFT_SERVICES": "airflow-api,mlflow"}
    code, rows = _asked(given)
    assert (code, rows["this part"]["state"]) == (3, "problem")
    assert "NIGHTSHIFT_SECRET" in rows["this part"]["found"]
    places = ("LAKE", "LANDING", "REPORTS", "MODELS", "JOBS")
    shared = {f"NIGHTSHIFT_{one}": f"{tmp_path}/{one}" for one in places}
    of_all = {
        "NIGHTSHIFT_SECRET": PASSWORD * 8,
        "NIGHTSHIFT_AIRFLOW_DATABASE": "postgresql://127.0.0.1:1/airflow",
        "MLFLOW_TRACKING_URI": "postgresql://127.0.0.1:1/mlflow",
    }
    _, rows = _asked({**given, **shared, **of_all})
    assert rows["this part"]["state"] == "ok"


def test_an_executor_that_lacks_what_it_needs_is_a_problem(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, rows = _asked(variables)
    assert "executor" not in rows
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    code, rows = _asked(variables)
    assert (code, rows["executor"]["state"]) == (3, "problem")
    assert "AIRFLOW__CELERY__BROKER_URL" in rows["executor"]["found"]


def test_where_yarn_is_its_own_configuration_says(variables: dict[str, str]) -> None:
    _, rows = _asked({**variables, "NIGHTSHIFT_SPARK_MASTER": "yarn"})
    assert rows["Spark cluster"]["found"] == "YARN, where HADOOP_CONF_DIR says"


def test_a_program_that_reaches_no_host_since_it_is_not_there_is_named(
    variables: dict[str, str],
) -> None:
    given = {
        "NIGHTSHIFT_RANK_HOSTS": "trainer-1",
        "NIGHTSHIFT_RENDEZVOUS_ADDRESS": "10.0.0.5",
        "NIGHTSHIFT_HOST_COMMAND": "no-such-program {host}",
    }
    _, rows = _asked({**variables, **given})
    found = rows["ranks on trainer-1"]["found"]
    assert found == "The program no-such-program cannot be run: No such file or directory."


@pytest.mark.parametrize(
    ("address", "found"),
    [("", "nothing"), ("10.255.255.1", "10.255.255.1: Cannot assign requested address")],
)
def test_an_address_at_which_no_rank_finds_another_is_a_problem(
    address: str, found: str, variables: dict[str, str]
) -> None:
    given = {
        "NIGHTSHIFT_RANK_HOSTS": "trainer-1",
        "NIGHTSHIFT_RENDEZVOUS_ADDRESS": address,
        "NIGHTSHIFT_HOST_COMMAND": "false {host}",
    }
    code, rows = _asked({**variables, **given})
    row = rows["ranks find each other at"]
    assert (code, row["found"], row["state"]) == (3, found, "problem")
    assert "NIGHTSHIFT_RENDEZVOUS_ADDRESS" in row["way_out"]


def test_servers_that_do_not_answer_are_problems(variables: dict[str, str]) -> None:
    closed = free_port()
    address = f"postgresql://ann:{PASSWORD}@127.0.0.1:{closed}/night"
    given = {
        **variables,
        "NIGHTSHIFT_WAREHOUSE_URL": address,
        "NIGHTSHIFT_AIRFLOW_DATABASE": address.replace("postgresql", "postgresql+psycopg2"),
        "NIGHTSHIFT_SMTP_URL": f"smtp://ann:{PASSWORD}@127.0.0.1:{closed}",
        "MLFLOW_TRACKING_URI": f"http://ann:{PASSWORD}@127.0.0.1:{closed}",
        "SPARK_REMOTE": f"sc://127.0.0.1:{closed}/;token={PASSWORD}",
    }
    code, rows = _asked(given)
    assert code == 3
    asked = {
        "warehouse": "NIGHTSHIFT_WAREHOUSE_URL",
        "Airflow's database": "NIGHTSHIFT_AIRFLOW_DATABASE",
        "SMTP server": "NIGHTSHIFT_SMTP_URL",
        "MLflow": "MLFLOW_TRACKING_URI",
        "Spark": "SPARK_REMOTE",
    }
    for what, variable in asked.items():
        assert rows[what]["state"] == "problem", what
        assert variable in rows[what]["way_out"]
    assert rows["Java"]["found"].startswith("not needed")


def test_a_postgresql_that_answers_tells_its_version(
    variables: dict[str, str], postgres: Postgres
) -> None:
    address = postgres.database("doctor")
    given = {**variables, "NIGHTSHIFT_WAREHOUSE_URL": address}
    _, rows = _asked({**given, "NIGHTSHIFT_AIRFLOW_DATABASE": address})
    for what in ("warehouse", "Airflow's database"):
        assert rows[what]["state"] == "ok"
        assert rows[what]["found"].startswith("PostgreSQL 1")
    wrong = address.rpartition("/")[0] + "/nobodys"
    code, rows = _asked({**given, "NIGHTSHIFT_WAREHOUSE_URL": wrong})
    assert (code, rows["warehouse"]["state"]) == (3, "problem")
    assert "nobodys" in rows["warehouse"]["found"]


def test_a_mail_server_that_answers_is_well(variables: dict[str, str]) -> None:
    server = Controller(object(), hostname="127.0.0.1", port=free_port(), ready_timeout=60)
    server.start()
    try:
        _, rows = _asked({**variables, "NIGHTSHIFT_SMTP_URL": f"smtp://127.0.0.1:{server.port}"})
    finally:
        server.stop()
    assert (rows["SMTP server"]["found"], rows["SMTP server"]["state"]) == ("answers", "ok")


def _found(
    variables: dict[str, str],
    what: str,
) -> dict[str, doctor.Finding]:
    """The rows of one question alone."""
    found = doctor._findings(what, Environment.read(variables))
    return {one.what: one for one in found}


class _MLflow(BaseHTTPRequestHandler):
    """Answers who has signed in as ann, and sends nobody else on."""

    def do_GET(self) -> None:
        expected = b64encode(f"ann:{PASSWORD}/@".encode()).decode()
        is_right = self.headers["Authorization"] == f"Basic {expected}"
        self.send_response(200 if is_right and self.path == "/x/health" else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_an_mlflow_whose_address_has_a_login_is_asked_with_it(variables: dict[str, str]) -> None:
    with HTTPServer(("127.0.0.1", 0), _MLflow) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        right = {**variables, "MLFLOW_TRACKING_URI": f"http://ann:{PASSWORD}%2F%40@{host}/x"}
        wrong = {**variables, "MLFLOW_TRACKING_URI": f"http://ann:no@{host}/x"}
        told = _found(right, "databases")["MLflow"]
        refused = _found(wrong, "databases")["MLflow"]
        server.shutdown()
    assert (told.found, told.state) == ("answers 200", "ok")
    assert (refused.found, refused.state) == ("HTTP Error 401: Unauthorized", "problem")


def test_machines_that_would_take_no_turns_are_warned_of(variables: dict[str, str]) -> None:
    server = {**variables, "MLFLOW_TRACKING_URI": "https://mlflow.internal"}
    told = _found(server, "turns of machines")["turns of machines"]
    assert told.state == "warning"
    assert "would not wait for the nights of this one" in told.found
    assert not _found(variables, "turns of machines")


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        ({}, "set NIGHTSHIFT_EMAIL_FROM, NIGHTSHIFT_EMAIL_TO, or unset NIGHTSHIFT_SMTP_URL"),
        ({"FROM": "a@b"}, "set NIGHTSHIFT_EMAIL_TO, or unset NIGHTSHIFT_SMTP_URL"),
        ({"FROM": "a@b", "TO": "c"}, "hold addresses such as"),
        ({"FROM": "a@b", "TO": " ,"}, "hold addresses such as"),
    ],
)
def test_mail_that_would_reach_nobody_is_a_problem(
    variables: dict[str, str], given: dict[str, str], way_out: str
) -> None:
    addresses = {f"NIGHTSHIFT_EMAIL_{name}": value for name, value in given.items()}
    url = f"smtp://127.0.0.1:{free_port()}"
    told = _found({**variables, **addresses, "NIGHTSHIFT_SMTP_URL": url}, "SMTP server")["e-mail"]
    assert (told.found, told.state) == ("tells nobody", "problem")
    assert way_out in told.way_out


def test_mail_with_all_that_it_needs_is_well(variables: dict[str, str]) -> None:
    addresses = {"NIGHTSHIFT_EMAIL_FROM": "a@b", "NIGHTSHIFT_EMAIL_TO": "c@d, e@f"}
    url = f"smtp://127.0.0.1:{free_port()}"
    told = _found({**variables, **addresses, "NIGHTSHIFT_SMTP_URL": url}, "SMTP server")["e-mail"]
    assert (told.found, told.state) == ("is set", "ok")


def test_a_webhook_to_which_nothing_is_posted_is_a_problem(variables: dict[str, str]) -> None:
    assert _found(variables, "webhook") == {}
    hook = {**variables, "NIGHTSHIFT_WEBHOOK_URL": "https://chat.example/x"}
    assert _found(hook, "webhook")["webhook"].state == "ok"
    hook["NIGHTSHIFT_WEBHOOK_URL"] = f"https://ann:{PASSWORD}@chat.example/x"
    told = _found(hook, "webhook")["webhook"]
    assert (told.found, told.state) == ("tells nobody", "problem")
    assert "no user or password before it" in told.way_out


@pytest.mark.parametrize("odd", ["chat.bücher.example/x", "chat.example/ü", "chat.example/a b"])
def test_a_webhook_that_no_request_can_hold_is_a_problem(
    variables: dict[str, str], odd: str
) -> None:
    hook = {**variables, "NIGHTSHIFT_WEBHOOK_URL": f"https://{odd}"}
    told = _found(hook, "webhook")["webhook"]
    assert (told.found, told.state) == ("tells nobody", "problem")
    assert "a host as xn--… and others as %C3%BC" in told.way_out
    assert odd not in told.way_out


def test_a_machine_without_java_is_told_what_to_install(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    code, rows = _asked(variables)
    assert (code, rows["Java"]["state"]) == (3, "problem")
    assert "openjdk-17" in rows["Java"]["way_out"]


def test_more_ranks_than_cores_are_warned_of(variables: dict[str, str]) -> None:
    _, rows = _asked({**variables, "NIGHTSHIFT_RANKS": "4096"})
    assert "4096 ranks" in rows["processor"]["found"]
    assert rows["processor"]["state"] == "warning"


def test_cores_are_those_of_a_containers_quota(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(cores, "_QUOTA", quota)
    quota.write_text("50000 100000\n")
    _, rows = _asked({**variables, "NIGHTSHIFT_RANKS": "2"})
    assert "1 cores; 2 ranks" in rows["processor"]["found"]
    assert "NIGHTSHIFT_RANKS=1" in rows["processor"]["way_out"]


@pytest.mark.parametrize(
    ("built", "way", "level"),
    [
        ({"gloo": True, "nccl": True}, "NCCL", "ok"),
        ({"gloo": True, "nccl": False}, "Gloo, through the host's memory", "warning"),
    ],
)
def test_with_gpus_it_tells_how_gradients_go(
    built: dict[str, bool],
    way: str,
    level: str,
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _have_driver(tmp_path, monkeypatch, "echo NVIDIA H100 80GB HBM3\necho NVIDIA H100 80GB HBM3\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(doctor, "horovod_build", lambda: (built, ""))
    monkeypatch.setattr(doctor, "_has_cuda", lambda: True)
    _, rows = _asked({**variables, "NIGHTSHIFT_RANKS": "1"})
    assert rows["GPUs"]["found"] == "NVIDIA H100 80GB HBM3; NVIDIA H100 80GB HBM3"
    assert rows["ranks run on"]["state"] == "ok"
    assert (rows["gradients go by"]["found"], rows["gradients go by"]["state"]) == (way, level)
    _, rows = _asked({**variables, "NIGHTSHIFT_RANKS": "2"})
    assert rows["ranks run on"]["found"] == "a GPU each, 2 of 2"
    _, rows = _asked({**variables, "NIGHTSHIFT_RANKS": "3"})
    assert rows["ranks run on"]["found"] == "3 ranks share 2 GPUs"
    assert rows["ranks run on"]["state"] == "warning"
    # NCCL takes no GPU twice.
    assert rows["gradients go by"]["found"] == "Gloo, through the host's memory"
    assert rows["gradients go by"]["state"] == "warning"


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("", []),
        ("-1", []),
        ("1", ["B"]),
        ("1, 0", ["B", "A"]),
        # CUDA shows none after one that is not there.
        ("0,7,1", ["A"]),
        ("GPU-8932f937", ["GPU-8932f937"]),
    ],
)
def test_only_gpus_that_programs_see_count(
    visible: str,
    seen: list[str],
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _have_driver(tmp_path, monkeypatch, "echo A\necho B\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert doctor.seen_gpus() == seen
    monkeypatch.setattr(doctor, "horovod_build", lambda: ({"gloo": True}, ""))
    told = _found(variables, "GPUs")
    by = f" (CUDA_VISIBLE_DEVICES={visible})"
    assert told["GPUs"].found == ("; ".join(seen) or "none seen") + by
    assert (told["ranks run on"].found == "the processor") == (not seen)


def test_a_driver_that_first_wakes_its_gpus_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _have_driver(tmp_path, monkeypatch, "sleep 0.3\necho NVIDIA H100\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # As for the answer of another machine.
    monkeypatch.setattr(doctor, "_SECONDS", 0.1)
    assert doctor.seen_gpus() == ["NVIDIA H100"]


def test_each_host_that_trains_is_asked_whether_it_has_the_code_of_here(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    hosts = tmp_path / "reach"
    hosts.write_text(
        "#!/bin/sh\n"
        f'case $1 in good) shift; echo Welcome; exec {sys.executable} "$@";; old) echo 0123abc;;\n'
        'away) echo "no route to host" >&2; exit 255;; esac\n'
    )
    hosts.chmod(0o700)
    code, rows = _asked(
        {
            **variables,
            "NIGHTSHIFT_RANK_HOSTS": "good:2,old,away",
            "NIGHTSHIFT_HOST_COMMAND": f"{hosts} {{host}}",
            "NIGHTSHIFT_RENDEZVOUS_ADDRESS": "127.0.0.1",
        }
    )
    assert code == 3
    meeting = rows["ranks find each other at"]
    assert meeting["state"] == "warning"
    assert meeting["found"] == "127.0.0.1, which leads each host to itself"
    assert "NIGHTSHIFT_RENDEZVOUS_ADDRESS" in meeting["way_out"]
    assert rows["ranks on good"]["found"] == "2, with the code of here"
    assert rows["ranks on old"]["found"] == "other code: 0123abc"
    assert rows["ranks on away"]["found"] == "no route to host"
    states = [rows[f"ranks on {host}"]["state"] for host in ("good", "old", "away")]
    assert states == ["ok", "problem", "problem"]


def test_a_horovod_without_gloo_or_without_libraries_is_a_problem(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"no tensorflow/libtensorflow_framework"):
        horovod_build.parts([str(tmp_path)])
    monkeypatch.setattr(doctor, "horovod_build", lambda: ({}, "it cannot be loaded: OSError"))
    code, rows = _asked(variables)
    assert code == 3
    assert rows["Horovod is built with"]["found"] == "it cannot be loaded: OSError"


def test_a_service_that_has_died_is_a_problem(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [one.name for one in services(Environment.read(variables))]
    dead = Process(name="", state="FATAL", pid=0, started_at=0, why="")
    monkeypatch.setattr(Supervisor, "processes", lambda _: dict.fromkeys(names, dead))
    monkeypatch.setattr(Health, "ask", lambda environment: Health(environment=environment))
    code, rows = _asked(variables)
    assert (code, rows["platform"]["state"]) == (3, "problem")
    assert "spark died" in rows["platform"]["found"]


def test_a_jdbc_server_that_only_this_start_asked_for_has_died(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = services(Environment.read(variables).with_jdbc())
    dead = Process(name="", state="FATAL", pid=0, started_at=0, why="")
    known = {one.name: dead for one in started}
    monkeypatch.setattr(Supervisor, "processes", lambda _: known)
    monkeypatch.setattr(Health, "ask", lambda environment: Health(environment=environment))
    _, rows = _asked(variables)
    assert "jdbc died" in rows["platform"]["found"]
    assert "port 10000 (jdbc)" in rows


def test_what_cannot_be_asked_hides_no_other_row(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Environment) -> Iterator[doctor.Finding]:
        raise OSError(f"postgresql://ann:{PASSWORD}@db is odd")

    monkeypatch.setitem(doctor._CHECKS, "memory", broken)
    code, rows = _asked(variables)
    assert (code, rows["memory"]["state"]) == (3, "problem")
    assert rows["memory"]["found"] == "cannot be told: OSError postgresql://ann:***@db is odd"
    assert "Keras" in rows


def test_little_memory_and_disk_are_told(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1073741824\n")
    monkeypatch.setattr(usage, "_MEMORY_LIMITS", (limit,))
    monkeypatch.setattr(doctor, "_LEAST_DISK", 1e9)
    code, rows = _asked(variables)
    assert rows["memory"]["state"] == "warning"
    assert rows["memory"]["found"].endswith("of 1.0 GB")
    assert (code, rows["disk of the lake"]["state"]) == (3, "problem")
    limit.write_text("max\n")
    assert not _asked(variables)[1]["memory"]["found"].endswith("of 1.0 GB")


def test_ranks_in_pods_that_cannot_be_started_are_a_problem(
    variables: dict[str, str], tmp_path: Path
) -> None:
    given = {
        "NIGHTSHIFT_RANK_POD": str(tmp_path / "none.json"),
        "NIGHTSHIFT_RENDEZVOUS_ADDRESS": "10.0.0.5",
    }
    code, rows = _asked({**variables, **given})
    row = rows["ranks are Pods in"]
    assert (code, row["state"]) == (3, "problem")
    assert "NIGHTSHIFT_RANK_POD needs NIGHTSHIFT_JOBS in an object store" in row["found"]
    assert "ranks are in Pods of their own" in rows["processor"]["found"]


def test_ranks_on_executors_are_told_with_what_they_lack(variables: dict[str, str]) -> None:
    given = {
        "NIGHTSHIFT_RANK_EXECUTORS": "on",
        "NIGHTSHIFT_SPARK_MASTER": "spark://127.0.0.1:1",
        "NIGHTSHIFT_SPARK_CORES": "4",
        "NIGHTSHIFT_RANKS": "3",
    }
    code, rows = _asked({**variables, **given})
    assert (code, rows["ranks are tasks of"]["state"]) == (3, "problem")
    assert "needs NIGHTSHIFT_RENDEZVOUS_ADDRESS" in rows["ranks are tasks of"]["found"]
    assert "ranks are on executors of Spark" in rows["processor"]["found"]
    given["NIGHTSHIFT_RENDEZVOUS_ADDRESS"] = "127.0.0.1"
    rows = _asked({**variables, **given})[1]
    assert rows["ranks are tasks of"]["found"] == "spark://127.0.0.1:1, 3 of 4 cores"
    given["NIGHTSHIFT_RANKS"] = "5"
    rows = _asked({**variables, **given})[1]
    assert "5 ranks were asked for" in rows["ranks are tasks of"]["found"]
