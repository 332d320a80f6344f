"""The Spark Connect server: who may speak to it, and that it never outlives its owner."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from jobs.services import processes
from jobs.services.secrets import secret
from jobs.spark import properties, server
from jobs.spark.server import configuration, cores_at_once, running_server
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError, UsageError
from tests.conftest import free_port

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Leaves without the client's exit handler, which would wait for a session that it never got.
CLIENT = """
import os, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.remote(sys.argv[1]).create()
try:
    spark.range(1).count()
except Exception as error:
    print("refused" if "UNAUTHENTICATED" in str(error) else error, flush=True)
os._exit(0)
"""
OWNER = """
import time
from jobs.spark.server import running_server
from pipelines.environment import Environment
with running_server(Environment.read()):
    print("up", flush=True)
    time.sleep(600)
"""


def holder_of(port: int) -> psutil.Process:
    """The process that listens on the port."""
    holder = processes.listener(port)
    assert holder is not None
    return holder


def shares_classes(process: psutil.Process) -> bool:
    """Whether Java took the archive: one that does not fit, it does not map.

    Where it is old, `python -m jobs.commands.class_archive` makes it anew.
    """
    return str(server.CLASS_ARCHIVE) in {part.path for part in process.memory_maps()}


def test_an_installed_package_takes_the_jars_of_the_environment_that_it_runs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / "home")})
    monkeypatch.setattr(server, "ROOT", tmp_path / "site")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    with pytest.raises(NightshiftError, match=r"site/.venv/jars/delta nor in .*venv/jars/delta"):
        server.own_jars(environment)
    jar = tmp_path / "venv" / "jars" / "delta" / "io.delta_delta-spark_4.2_2.13-4.4.0.jar"
    jar.parent.mkdir(parents=True)
    jar.touch()
    assert server.own_jars(environment) == [jar]


def test_it_listens_on_loopback_alone(shared_environment: Environment, spark: SparkSession) -> None:
    addresses = set()
    for connection in holder_of(shared_environment.spark_port).net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            addresses.add(connection.laddr.ip)
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_it_shares_the_classes_that_set_up_wrote_down(
    shared_environment: Environment, spark: SparkSession
) -> None:
    assert shares_classes(holder_of(shared_environment.spark_port))


def test_what_set_up_wrote_down_is_asked_for_only_where_it_is(
    shared_environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLASS_ARCHIVE", tmp_path / "none.jsa")
    monkeypatch.setattr(server, "LOCAL_FILES", tmp_path / "none.jar")
    command = " ".join(server.command(shared_environment))
    assert "SharedArchiveFile" not in command
    assert "LocalFiles" not in command


def test_the_server_of_up_compiles_what_is_hot_and_that_of_a_command_what_is_first(
    shared_environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(server.os, "execve", lambda _, words, __: started.extend(words))
    monkeypatch.setattr(server.os, "chdir", lambda _: None)
    monkeypatch.setattr(server, "die_with_parent", lambda _: None)
    monkeypatch.setattr(server, "fresh_folder", lambda _: None)
    monkeypatch.setattr(server.Environment, "read", lambda: shared_environment)
    server.main()
    of_up, of_command = " ".join(started), " ".join(server.command(shared_environment))
    assert "-XX:Tier4InvocationThreshold=" in of_up
    assert "TieredStopAtLevel" not in of_up
    assert "-XX:TieredStopAtLevel=1" in of_command
    assert "Tier4" not in of_command


@pytest.mark.parametrize(
    ("lasting", "flag"),
    [
        (True, "Tier4"),
        (False, "TieredStopAtLevel"),
    ],
)
def test_a_server_of_one_s_own_may_be_as_that_of_up(
    lasting: bool, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    started: list[str] = []

    def note(words: list[str], _: object) -> list[str]:
        started.extend(words)
        raise NightshiftError("seen")

    monkeypatch.setattr(server, "dying_with_parent", note)
    with (
        pytest.raises(NightshiftError, match="seen"),
        running_server(environment, 0, lasting=lasting),
    ):
        pytest.fail("no server was started")
    assert flag in " ".join(started)


def test_an_archive_of_classes_that_does_not_fit_keeps_nothing_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.jsa"
    damaged.write_bytes(b"no archive")
    monkeypatch.setattr(server, "CLASS_ARCHIVE", damaged)
    home = tmp_path / "home"
    environment = Environment.read({"NIGHTSHIFT_HOME": str(home), "NIGHTSHIFT_SPARK_MEMORY": "1g"})
    with running_server(environment, port=0) as own:
        assert str(damaged) in " ".join(holder_of(own.spark_port).cmdline())
    assert "jsa" not in (home / "logs" / "spark.log").read_text()


def test_no_process_is_started_for_the_mode_of_a_file(
    spark: SparkSession, chmod_calls: Path, tmp_path: Path
) -> None:
    before = chmod_calls.read_text()
    # What is made below is of this folder's group, and hands that on.
    tmp_path.chmod(0o2755)
    rows = spark.range(6).selectExpr("id", "id % 3 AS day")
    rows.write.partitionBy("day").parquet(str(tmp_path / "table"))
    assert chmod_calls.read_text() == before
    modes: dict[bool, set[int]] = {True: set(), False: set()}
    for path in (tmp_path / "table").rglob("*"):
        modes[path.is_dir()].add(path.stat().st_mode & 0o7777)
    assert modes == {True: {0o2755}, False: {0o644}}


@pytest.mark.parametrize("credentials", ["", "/;token=wrong"])
def test_a_client_without_the_token_is_refused(
    shared_environment: Environment, spark: SparkSession, credentials: str
) -> None:
    address = f"sc://localhost:{shared_environment.spark_port}{credentials}"
    client = subprocess.run(
        [sys.executable, "-c", CLIENT, address], capture_output=True, text=True, timeout=120
    )
    assert client.stdout == "refused\n", client.stderr


def test_the_token_is_not_on_the_command_line(
    shared_environment: Environment, spark: SparkSession
) -> None:
    command_line = " ".join(holder_of(shared_environment.spark_port).cmdline())
    assert secret(shared_environment, "spark_token") not in command_line


def test_times_are_utc_and_delta_is_there(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    spark.range(3).write.format("delta").save(path)
    rows = spark.read.format("delta").load(path).orderBy("id").collect()
    assert [row.id for row in rows] == [0, 1, 2]


def test_a_running_server_is_used_and_left_running(
    shared_environment: Environment, spark: SparkSession
) -> None:
    with running_server(shared_environment) as environment:
        assert environment == shared_environment
    assert processes.answers(shared_environment.spark_port)


def test_the_owner_of_a_server_waits_until_others_have_done_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    events: list[str] = []
    monkeypatch.setattr(server, "_is_running", lambda _: "start" in events)
    monkeypatch.setattr(server, "stop", lambda _: events.append("stop"))
    monkeypatch.setattr(server, "start", lambda _, **__: events.append("start") or "process")
    owner_is_in = threading.Event()
    other_is_in = threading.Event()

    def own() -> None:
        with running_server(environment):
            owner_is_in.set()
            other_is_in.wait(10)

    owner = threading.Thread(target=own)
    owner.start()
    owner_is_in.wait(10)
    with running_server(environment):
        other_is_in.set()
        owner.join(0.2)
        events.append("other is done")
    owner.join(10)
    assert events == ["start", "other is done", "stop"]


def test_a_clusters_server_is_left_alone(tmp_path: Path) -> None:
    environment = Environment.read(
        {"NIGHTSHIFT_HOME": str(tmp_path), "SPARK_REMOTE": "sc://cluster:15002"}
    )
    with running_server(environment) as reached:
        assert reached == environment
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_another_home_uses_is_taken(
    shared_environment: Environment, spark: SparkSession, tmp_path: Path
) -> None:
    other = replace(shared_environment, home=tmp_path / "other")
    message = (
        f"Port {shared_environment.spark_port}.* taken by process .*"
        "Nightshift home .*NIGHTSHIFT_SPARK_PORT"
    )
    with pytest.raises(NightshiftError, match=message), running_server(other):
        pytest.fail("two homes must not share a server")


def test_a_server_that_cannot_start_tells_the_end_of_its_log(tmp_path: Path) -> None:
    environment = Environment.read(
        {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_SPARK_MEMORY": "9000000t"}
    )
    message = r"ended with exit code 1(.|\n)*Could not reserve enough space"
    with pytest.raises(NightshiftError, match=message), running_server(environment, port=0):
        pytest.fail("no server was started")


def test_a_cluster_that_does_not_answer_is_named_before_a_driver_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "_MASTER_SECONDS", 0.2)
    away = f"spark://127.0.0.1:{free_port()}"
    variables = {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_SPARK_MASTER": away}
    environment = Environment.read(variables)
    message = f"No master of the Spark cluster answers at {away} within .*NIGHTSHIFT_SPARK_MASTER"
    with pytest.raises(NightshiftError, match=message), running_server(environment, port=0):
        pytest.fail("no server was started")
    assert capsys.readouterr().err == f"Waiting for the Spark cluster at {away}.\n"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=message):
        server.main()


@pytest.mark.parametrize(
    ("master", "host"),
    [
        ("spark://10.0.0.5:7077", "127.0.0.1"),
        ("spark://10.0.0.5:7077", "127.0.1.1"),
        ("spark://10.0.0.5:7077", "localhost"),
        ("spark://10.0.0.5:7077", "0.0.0.0"),
        ("spark://127.0.0.1:7077", "0.0.0.0"),
    ],
)
def test_executors_are_told_no_address_by_which_they_mean_themselves(
    master: str, host: str, tmp_path: Path
) -> None:
    given = {"NIGHTSHIFT_SPARK_MASTER": master, "NIGHTSHIFT_SPARK_HOST": host}
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path), **given})
    with pytest.raises(UsageError, match=f"cannot reach this machine by {host}"):
        configuration(environment)


@pytest.mark.parametrize("host", ["203.0.113.9", "127.0.0.1:7078", "127.0.0.1\n"])
def test_an_address_that_is_not_this_machines_is_named_before_a_driver_asks_for_it(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MASTER_SECONDS", 0.2)
    variables = {
        "NIGHTSHIFT_HOME": str(tmp_path),
        "NIGHTSHIFT_SPARK_MASTER": f"spark://127.0.0.1:{free_port()}",
        "NIGHTSHIFT_SPARK_HOST": host,
    }
    message = re.escape(f"NIGHTSHIFT_SPARK_HOST={host!r} is no address of this machine")
    environment = Environment.read(variables)
    with pytest.raises(UsageError, match=message), running_server(environment, port=0):
        pytest.fail("no server was started")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=message):
        server.main()


def test_a_name_that_cannot_be_looked_up_just_now_is_a_fault_that_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_away(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", be_away)
    environment = Environment.read(
        {
            "NIGHTSHIFT_HOME": str(tmp_path),
            "NIGHTSHIFT_SPARK_MASTER": "spark://10.0.0.5:7077",
            "NIGHTSHIFT_SPARK_HOST": "driver.example",
        }
    )
    message = "NIGHTSHIFT_SPARK_HOST='driver.example' cannot be looked up just now (Temp"
    with (
        pytest.raises(NightshiftError, match=re.escape(message)) as error,
        running_server(environment, port=0),
    ):
        pytest.fail("no server was started")
    # Airflow tries no wrong usage again.
    assert not isinstance(error.value, UsageError)


def of_cluster(home: Path, master: str, *lines: str) -> Environment:
    """An environment that computes on a cluster, with a file of settings of these lines."""
    file = home / "spark.properties"
    file.write_text("\n".join(lines))
    return Environment.read(
        {
            "NIGHTSHIFT_HOME": str(home),
            "NIGHTSHIFT_SPARK_MASTER": master,
            "NIGHTSHIFT_SPARK_HOST": "10.0.0.7",
            "NIGHTSHIFT_SPARK_CORES": "8",
            "NIGHTSHIFT_SPARK_PROPERTIES": str(file),
        }
    )


@pytest.mark.parametrize(
    ("master", "lines", "asked"),
    [
        ("spark://10.0.0.5:7077", [], ("spark.cores.max", "8")),
        ("yarn", [], ("spark.executor.instances", "8")),
        ("yarn", ["# each", "spark.executor.cores  4"], ("spark.executor.instances", "2")),
        (
            "k8s://https://10.0.0.5:6443",
            ["spark.kubernetes.container.image=nights:1"],
            ("spark.executor.instances", "8"),
        ),
    ],
)
def test_a_cluster_is_asked_for_executors_in_the_words_of_its_kind(
    master: str,
    lines: list[str],
    asked: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    environment = of_cluster(tmp_path, master, *lines)
    words = server.command(environment)
    assert f"--conf=spark.master={master}" in words
    assert f"--conf={'='.join(asked)}" in words
    place = words.index("--properties-file")
    assert words[place + 1] == str(environment.spark_properties)


def test_executors_belong_to_the_pod_of_their_driver_unless_a_site_says_otherwise(
    tmp_path: Path,
) -> None:
    image, own = "spark.kubernetes.container.image=nights:1", "spark.kubernetes.namespace=own"
    master = "k8s://https://10.0.0.5:6443"
    account = tmp_path / "account"
    outside = replace(of_cluster(tmp_path, master, image), kubernetes_account=account)
    assert not any(name.startswith("spark.kubernetes") for name in configuration(outside))
    account.mkdir()
    (account / "namespace").write_text("nights")
    told = configuration(outside)
    assert told["spark.kubernetes.namespace"] == "nights"
    assert told["spark.kubernetes.driver.pod.name"] == socket.gethostname()
    there = replace(of_cluster(tmp_path, master, image, own), kubernetes_account=account)
    assert "spark.kubernetes.namespace" not in configuration(there)
    assert "spark.kubernetes.namespace=own" not in " ".join(server.command(there))
    elsewhere = replace(of_cluster(tmp_path, "spark://10.0.0.5:7077"), kubernetes_account=account)
    assert not any(name.startswith("spark.kubernetes") for name in configuration(elsewhere))


def test_a_driver_that_stays_for_weeks_outlives_executors_that_are_lost_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    most = "spark.executor.maxNumFailures"
    told = configuration(of_cluster(tmp_path, "yarn"))
    assert told["spark.executor.failuresValidityInterval"] == "10m"
    assert int(told[most]) >= 100
    assert most not in configuration(of_cluster(tmp_path, "yarn", f"{most}=7"))
    # There the master counts them, of each application that does not get better.
    assert most not in configuration(of_cluster(tmp_path, "spark://10.0.0.5:7077"))


def test_a_site_may_give_executors_code_and_python_as_an_archive(tmp_path: Path) -> None:
    master, own = "spark://10.0.0.5:7077", "spark.executorEnv.PYTHONPATH"
    in_place = of_cluster(tmp_path, master)
    assert configuration(in_place)[own] == str(ROOT)
    assert server.server_variables(in_place)["PYSPARK_PYTHON"] == sys.executable
    python = "../nights/.venv/bin/python"
    lines = (
        "spark.archives          /srv/nights.tar.gz#nights",
        f"spark.pyspark.python    {python}",
        f"{own}                   ../nights",
    )
    packed = of_cluster(tmp_path, master, *lines)
    assert not any(own in word for word in server.command(packed))
    assert server.server_variables(packed)["PYSPARK_PYTHON"] == python


def test_a_site_may_say_itself_how_many_executors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_CONF_DIR", "/etc/hadoop")
    for line in ("spark.executor.instances: 3", "spark.dynamicAllocation.enabled=true"):
        told = configuration(of_cluster(tmp_path, "yarn", line))
        assert "spark.executor.instances" not in told


@pytest.mark.parametrize(
    ("master", "lines", "cores"),
    [
        ("spark://10.0.0.5:7077", [], 8),
        ("yarn", [], 8),
        ("yarn", ["spark.executor.cores 4"], 8),
        ("yarn", ["spark.executor.instances 20", "spark.executor.cores 4"], 80),
        ("yarn", ["spark.dynamicAllocation.maxExecutors 5"], 8),
        ("yarn", ["spark.dynamicAllocation.maxExecutors 50"], 50),
        ("yarn", ["spark.executor.instances many"], 8),
    ],
)
def test_as_many_cores_work_at_once_as_settings_tell(
    master: str, lines: list[str], cores: int, tmp_path: Path
) -> None:
    assert cores_at_once(of_cluster(tmp_path, master, *lines)) == cores


def test_without_a_cluster_the_servers_own_cores_work(tmp_path: Path) -> None:
    told = {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_SPARK_CORES": "3"}
    assert cores_at_once(Environment.read(told)) == 3


@pytest.mark.parametrize(
    ("master", "lines", "message"),
    [
        ("yarn", [], "needs HADOOP_CONF_DIR"),
        ("k8s://https://10.0.0.5:6443", [], "by spark.kubernetes.container.image in the file"),
    ],
)
def test_a_cluster_of_which_more_must_be_known_is_refused_before_a_driver_starts(
    master: str, lines: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HADOOP_CONF_DIR", "YARN_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=message):
        server.command(of_cluster(tmp_path, master, *lines))


def test_a_file_that_sets_what_the_platform_sets_is_refused_and_no_value_shown(
    tmp_path: Path,
) -> None:
    lines = ["spark.sql.session.timeZone Europe/Paris", "spark.hadoop.key = hunter2"]
    environment = of_cluster(tmp_path, "spark://10.0.0.5:7077", *lines)
    with pytest.raises(UsageError, match="sets spark.sql.session.timeZone, which") as refused:
        server.command(environment)
    assert "hunter2" not in str(refused.value)
    assert environment.spark_properties is not None
    environment.spark_properties.unlink()
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        server.command(environment)


def test_a_line_of_settings_may_go_on_in_the_next(
    tmp_path: Path,
) -> None:
    lines = [
        "spark.jars.packages = a:b:1,\\",
        "    c:d:2,\\",
        "    e:f:3",
        "# a comment does not go on \\",
        "spark.hadoop.folder = C:\\\\",
        "spark.executor.cores 2\\",
    ]
    assert properties.read(of_cluster(tmp_path, "spark://10.0.0.5:7077", *lines)) == {
        "spark.jars.packages": "a:b:1,c:d:2,e:f:3",
        "spark.hadoop.folder": "C:\\\\",
        "spark.executor.cores": "2",
    }


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], {"host": "proxy", "port": "3128", "ssl.enabled": "false"}),
        (["spark.hadoop.fs.s3a.proxy.host=other", "spark.hadoop.fs.s3a.proxy.port=80"], {}),
    ],
)
def test_a_site_may_name_another_proxy_for_spark_than_the_environment_does(
    lines: list[str], found: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    here = of_cluster(tmp_path, "spark://10.0.0.5:7077", *lines)
    words = server.command(replace(here, lake="s3://nights/lake"))
    begun = "--conf=spark.hadoop.fs.s3a.proxy."
    told = [word.removeprefix(begun) for word in words if word.startswith(begun)]
    assert dict(word.split("=") for word in told) == found


_PROXY, _WITHOUT = "http://proxy:3128", "localhost,.example.org"


@pytest.mark.parametrize(
    ("told", "lines", "found"),
    [
        ({"https_proxy": _PROXY}, [], {"https_proxy": _PROXY}),
        (
            {"HTTPS_PROXY": "proxy:3128", "NO_PROXY": _WITHOUT},
            [],
            {"https_proxy": _PROXY, "no_proxy": _WITHOUT},
        ),
        (
            {"http_proxy": _PROXY, "AWS_ENDPOINT_URL": "http://store:9000"},
            [],
            {"http_proxy": _PROXY},
        ),
        # None that leads there.
        ({"http_proxy": _PROXY}, [], {}),
        ({"https_proxy": _PROXY, "no_proxy": ".amazonaws.com"}, [], {}),
        # Everybody who sees Spark's settings would see it.
        ({"https_proxy": "http://ann:s3cret@proxy:3128"}, [], {}),
        ({"https_proxy": "http://t0ken@proxy:3128"}, [], {}),
        # What a site says itself.
        ({"https_proxy": _PROXY}, ["spark.hadoop.fs.s3a.proxy.host=other"], {}),
        ({"https_proxy": _PROXY}, ["spark.executorEnv.https_proxy=http://other"], {}),
        ({"https_proxy": _PROXY}, ["spark.executorEnv.NO_PROXY=*"], {}),
    ],
)
def test_python_on_executors_is_told_of_the_proxy_that_leads_to_the_store(
    told: dict[str, str],
    lines: list[str],
    found: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    here = of_cluster(tmp_path, "spark://10.0.0.5:7077", *lines)
    at_store = replace(here, lake="s3://nights/lake")
    assert _proxies_of_executors(at_store) == found
    assert "s3cret" not in " ".join(server.command(at_store))
    assert _proxies_of_executors(here) == {}, "there is no store"


def _proxies_of_executors(environment: Environment) -> dict[str, str]:
    begun = "spark.executorEnv."
    names = (f"{begun}{name}_proxy" for name in ("http", "https", "no"))
    set_there = configuration(environment)
    return {name.removeprefix(begun): set_there[name] for name in names if name in set_there}


@pytest.mark.parametrize(
    ("master", "addresses"),
    [
        ("spark://one:7077,two:7078", [("one", 7077), ("two", 7078)]),
        ("k8s://https://api.internal:6443", [("api.internal", 6443)]),
        ("k8s://api.internal", [("api.internal", 443)]),
        ("yarn", []),
    ],
)
def test_a_master_is_asked_where_it_is(
    master: str, addresses: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(
        server.processes, "answers", lambda port, host: bool(asked.append((host, port)))
    )
    assert server.master_answers(master) == (not addresses)
    assert asked == addresses


def test_a_killed_owner_leaves_no_server(tmp_path: Path) -> None:
    port = processes.free_port()
    variables = {
        "NIGHTSHIFT_HOME": str(tmp_path),
        "NIGHTSHIFT_SPARK_PORT": str(port),
        "NIGHTSHIFT_SPARK_MEMORY": "512m",
    }
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    process = holder_of(port)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 20
    while processes.is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes.is_alive(process)


@pytest.mark.parametrize(
    "locale",
    [
        {},
        {"LANG": "C"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX"},
    ],
)
def test_java_reads_names_of_files_in_utf_8_where_the_locale_is_the_plain_one(
    locale: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in locale.items():
        monkeypatch.setenv(name, value)
    variables = server.server_variables(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / "ü")}))
    java = Path(variables["JAVA_HOME"]) / "bin" / "java"
    told = subprocess.run(
        [java, "-XshowSettings:properties", "-version"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "sun.jnu.encoding = UTF-8" in told.stderr


def test_a_locale_with_letters_of_its_own_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.ISO-8859-1")
    home = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    assert "LC_ALL" not in server.server_variables(home)


def test_rows_are_those_of_every_machine_whatever_its_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=tr -Duser.country=TR")
    cluster = replace(home, spark_master="spark://127.0.0.1:7077")
    for environment, which in ((home, "driver"), (cluster, "executor")):
        options = configuration(environment)[f"spark.{which}.extraJavaOptions"]
        java = Path(server.server_variables(environment)["JAVA_HOME"]) / "bin" / "java"
        told = subprocess.run(
            [java, *shlex.split(options), "-XshowSettings:locale", "-version"],
            capture_output=True,
            text=True,
            check=True,
        )
        # There `upper('i')` is another letter, and Bengali names of files have other digits.
        assert "default locale = English (United States)" in told.stderr
