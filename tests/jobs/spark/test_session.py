"""The embedded Spark Connect server: who may speak to it, and that it never outlives its owner."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from pyspark.errors import PySparkException

from jobs.services import processes
from jobs.services.secrets import secret
from jobs.spark import session
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def test_it_listens_on_loopback_alone(house: Environment, spark: SparkSession) -> None:
    holder = processes.listener(house.spark_port)
    assert holder is not None
    listening = {
        connection.laddr.ip
        for connection in holder.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize("credentials", ["", "/;token=wrong"])
def test_a_client_without_the_token_is_refused(
    house: Environment, spark: SparkSession, credentials: str
) -> None:
    code = (
        "import os, sys; from pyspark.sql import SparkSession; "
        "s = SparkSession.builder.remote(sys.argv[1]).create()\n"
        "try: s.range(1).count()\nexcept Exception as error: "
        "print('refused' if 'UNAUTHENTICATED' in str(error) else error, flush=True)\nos._exit(0)"
    )
    address = f"sc://localhost:{house.spark_port}{credentials}"
    client = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, timeout=120
    )
    assert client.stdout == "refused\n", client.stderr


def test_the_token_is_not_on_the_command_line(house: Environment, spark: SparkSession) -> None:
    holder = processes.listener(house.spark_port)
    assert holder is not None
    assert secret(house, "spark_token") not in " ".join(holder.cmdline())


def test_every_call_gives_the_same_session_until_it_is_closed(
    house: Environment, spark: SparkSession
) -> None:
    assert session.connect(house) is spark


def test_times_are_utc_and_delta_is_there(spark: SparkSession, tmp_path: Path) -> None:
    assert spark.conf.get("spark.sql.session.timeZone") == "UTC"
    spark.range(3).write.format("delta").save(str(tmp_path / "table"))
    assert [
        row.id
        for row in spark.read.format("delta").load(str(tmp_path / "table")).orderBy("id").collect()
    ] == [0, 1, 2]


def test_a_running_server_is_used_and_left_running(house: Environment, spark: SparkSession) -> None:
    with session.server(house) as environment:
        assert environment == house
    assert processes.answers(house.spark_port)


def test_the_owner_of_a_server_waits_until_others_have_done_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, events = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}), []
    monkeypatch.setattr(session, "_is_running", lambda _: "start" in events)
    monkeypatch.setattr(session, "stop", lambda _: events.append("stop"))
    monkeypatch.setattr(session, "start", lambda _: events.append("start") or "process")
    owner_is_in, other_is_in = threading.Event(), threading.Event()

    def own() -> None:
        with session.server(environment):
            owner_is_in.set()
            other_is_in.wait(10)

    owner = threading.Thread(target=own)
    owner.start()
    owner_is_in.wait(10)
    with session.server(environment):
        other_is_in.set()
        owner.join(0.2)
        events.append("other is done")
    owner.join(10)
    assert events == ["start", "other is done", "stop"]


def test_the_end_of_one_server_leaves_sessions_with_others_open(
    house: Environment, spark: SparkSession
) -> None:
    session.disconnect(replace(house, spark_port=processes.free_port()))
    assert session.connect(house) is spark
    assert not spark.client.is_closed


def test_a_clusters_server_is_left_alone(tmp_path: Path) -> None:
    environment = replace(
        Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}), spark_remote="sc://cluster:15002"
    )
    with session.server(environment) as reached:
        assert reached == environment
    assert list(tmp_path.iterdir()) == []


def test_without_a_server_the_message_says_how_to_start_one(house: Environment) -> None:
    with pytest.raises(
        NightshiftError, match="No Spark Connect server answers on port .*`nightshift up`"
    ):
        session.connect(replace(house, spark_port=processes.free_port()))


def test_a_port_that_another_home_uses_is_taken(
    house: Environment, spark: SparkSession, tmp_path: Path
) -> None:
    other = replace(house, home=tmp_path / "other")
    with (
        pytest.raises(
            NightshiftError,
            match=(
                f"Port {house.spark_port}.* taken by process "
                ".*Nightshift home .*NIGHTSHIFT_SPARK_PORT"
            ),
        ),
        session.server(other),
    ):
        pytest.fail("two homes must not share a server")


def test_a_server_that_cannot_start_tells_the_end_of_its_log(tmp_path: Path) -> None:
    environment = Environment.read(
        {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_SPARK_MEMORY": "1x"}
    )
    with (
        pytest.raises(NightshiftError, match=r"ended with exit code 1(.|\n)*1x"),
        session.server(environment, port=0),
    ):
        pytest.fail("no server was started")


def test_a_killed_owner_leaves_no_server(tmp_path: Path) -> None:
    variables = {
        "NIGHTSHIFT_HOME": str(tmp_path),
        "NIGHTSHIFT_SPARK_PORT": str(processes.free_port()),
        "NIGHTSHIFT_SPARK_MEMORY": "512m",
    }
    code = (
        "import time; from jobs import session; from pipelines.environment import Environment\n"
        "with session.server(Environment.read()): print('up', flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    server = processes.listener(int(variables["NIGHTSHIFT_SPARK_PORT"]))
    assert server is not None
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    deadline = time.monotonic() + 20
    while processes.is_alive(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes.is_alive(server)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_the_loss_of_a_server_is_events_in_plain_words(
    is_restarted: bool, house: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failure(frame: DataFrame) -> PySparkException:
        with pytest.raises(PySparkException) as caught:
            frame.collect()
        return caught.value

    monkeypatch.setattr(session, "_RETRIES", 1)
    environment = replace(house, home=tmp_path, spark_port=processes.free_port())
    server = session.start(environment)
    rows = session.connect(environment).range(3)
    no_loss = failure(rows.select("nothing"))
    server.kill()
    server.wait()
    if is_restarted:
        server = session.start(environment)
    lost = failure(rows)
    session.disconnect(environment)
    session.stop(server)
    assert session.explain_loss(environment, no_loss) is None
    assert re.search(
        r"ended or restarted .*spark\.log.*run it again",
        str(session.explain_loss(environment, lost)),
    )


def test_threads_that_connect_at_once_share_one_session(
    house: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_sessions", {})
    with ThreadPoolExecutor(8) as pool:
        opened = {id(one): one for one in pool.map(lambda _: session.connect(house), range(8))}
    for one in opened.values():
        one.client.close()
    assert len(opened) == 1
