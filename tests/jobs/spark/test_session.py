"""A client's session: one for a process and server, and plain words when its server is gone."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.errors import PySparkException

from jobs.services import processes
from jobs.spark import server, session
from jobs.spark.session import FEW_ROWS
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError
from tests import proxy

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def failure(frame: DataFrame) -> PySparkException:
    """The error that collecting the frame ends with."""
    with pytest.raises(PySparkException) as caught:
        frame.collect()
    return caught.value


def test_every_call_gives_the_same_session_until_it_is_closed(
    shared_environment: Environment, spark: SparkSession
) -> None:
    assert session.connect(shared_environment) is spark


def test_the_end_of_one_server_leaves_sessions_with_others_open(
    shared_environment: Environment, spark: SparkSession
) -> None:
    session.disconnect(replace(shared_environment, spark_port=processes.free_port()))
    assert session.connect(shared_environment) is spark
    assert not spark.client.is_closed


def test_a_session_that_the_server_has_forgotten_is_forgotten_here(
    shared_environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(session, "_sessions", {})
        own = session.connect(shared_environment)
        session.forget_lost(shared_environment)
        assert session.connect(shared_environment) is own
        # As the server does with one that nobody has used for an hour.
        own.client.release_session()
        session.forget_lost(shared_environment)
        other = session.connect(shared_environment)
        assert other is not own
        assert other.range(2).count() == 2
        session.disconnect(shared_environment)
        # Of a server that is not there nothing is asked.
        nobody = replace(shared_environment, spark_port=processes.free_port())
        session.forget_lost(nobody)
    assert session.connect(shared_environment) is spark
    assert spark.range(2).count() == 2


def test_without_a_server_the_message_says_how_to_start_one(
    shared_environment: Environment,
) -> None:
    nobody = replace(shared_environment, spark_port=processes.free_port())
    message = "No Spark Connect server answers on port .*`nightshift up`"
    with pytest.raises(NightshiftError, match=message):
        session.connect(nobody)


_MISTAKES = """
import logging.config
from pyspark.errors import PySparkException
from pyspark.sql import functions as F
from jobs.spark import session
from pipelines.environment import Environment

spark = session.connect(Environment.read())
# As libraries do that come later.
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
zero = spark.range(1)
for mistake in (zero.select("nothing"), zero.select(1 / F.col("id")), zero.selectExpr("1 / id")):
    try:
        mistake.collect()
    except PySparkException as error:
        print(error.getCondition())
session.disconnect()
"""


def test_a_mistake_in_a_query_is_raised_and_not_logged_besides(
    shared_environment: Environment, spark: SparkSession
) -> None:
    client = subprocess.run(
        [sys.executable, "-c", _MISTAKES],
        cwd=ROOT,
        env=shared_environment.variables(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert client.stderr == ""
    assert client.stdout.split() == [
        "UNRESOLVED_COLUMN.WITH_SUGGESTION",
        "DIVIDE_BY_ZERO",
        "DIVIDE_BY_ZERO",
    ]


_COUNT = """
from jobs.spark import session
from pipelines.environment import Environment
from pyspark.sql import functions as F

print(session.connect(Environment.read()).range(3).where(F.col("id") > 0).count())
session.disconnect()
"""


def test_a_proxy_for_the_world_is_not_asked_for_our_own_server(
    shared_environment: Environment, spark: SparkSession
) -> None:
    with proxy.dead_end() as world:
        told = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), world.address)
        client = subprocess.run(
            [sys.executable, "-c", _COUNT],
            cwd=ROOT,
            env={**proxy.without_proxy(shared_environment.variables()), **told},
            capture_output=True,
            text=True,
        )
    assert world.asked == []
    assert (client.stdout, client.stderr) == ("2\n", "")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_the_loss_of_a_server_is_told_in_plain_words(
    is_restarted: bool,
    shared_environment: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "_RETRIES", 1)
    environment = replace(shared_environment, home=tmp_path, spark_port=processes.free_port())
    process = server.start(environment)
    rows = session.connect(environment).range(3)
    no_loss = failure(rows.select("nothing"))
    process.kill()
    process.wait()
    if is_restarted:
        process = server.start(environment)
    loss = failure(rows)
    session.disconnect(environment)
    server.stop(process)
    assert session.explain_loss(environment, no_loss) is None
    explained = str(session.explain_loss(environment, loss))
    assert re.search(r"ended or restarted .*spark\.log.*run it again", explained)


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_cluster_without_executors_is_waited_for_and_told(
    is_busy: bool,
    shared_environment: Environment,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(session, "_EXECUTOR_SECONDS", 0.2 if is_busy else 60)
    on_cluster = replace(shared_environment, spark_master="spark://host:7077", spark_memory="2g")
    collect = type(spark.range(1)).collect

    def late(frame: DataFrame) -> object:
        time.sleep(1)
        return collect(frame)

    monkeypatch.setattr(type(spark.range(1)), "collect", late)
    opened = session._new_session(on_cluster)
    opened.client.close()
    told = capfd.readouterr().err
    assert ("Waiting for executors of the Spark cluster at spark://host:7077" in told) is is_busy
    assert ("All are busy, or there is none" in told) is is_busy
    assert ("2g of free memory" in told) is is_busy


@pytest.mark.usefixtures("own_sessions")
def test_threads_that_connect_at_once_share_one_session(shared_environment: Environment) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(session.connect, [shared_environment] * 8))
    assert len({id(one) for one in opened}) == 1


@pytest.mark.usefixtures("own_sessions")
def test_the_active_session_is_the_one_that_was_connected_last(
    shared_environment: Environment, tmp_path: Path
) -> None:
    spark = session.connect(shared_environment)
    theirs = replace(shared_environment, home=tmp_path, spark_port=processes.free_port())
    process = server.start(theirs)
    try:
        other = session.connect(theirs)
        # What Feast asks for.
        assert type(spark).getActiveSession() is other
        assert session.connect(shared_environment) is spark
        assert type(spark).getActiveSession() is spark
        nobody = replace(shared_environment, spark_port=processes.free_port())
        session.disconnect(nobody)
        assert type(spark).getActiveSession() is spark
        session.connect(theirs)
    finally:
        session.disconnect(theirs)
        server.stop(process)
    assert type(spark).getActiveSession() is spark


def _settings(session: SparkSession) -> tuple[str, ...]:
    return tuple(str(session.conf.get(name)) for name in FEW_ROWS)


def test_a_run_of_many_rows_has_spark_compile_what_a_night_has_it_interpret(
    shared_environment: Environment, spark: SparkSession
) -> None:
    interpreted = ("false", "NO_CODEGEN", "false", "2")
    compiled = ("true", "FALLBACK", "true", str(max(4, 2 * shared_environment.spark_cores)))
    session.plan_for(shared_environment, many_rows=False)
    assert _settings(spark) == interpreted
    session.plan_for(shared_environment, many_rows=True)
    try:
        assert _settings(spark) == compiled
        fresh = session._new_session(shared_environment)
        assert _settings(fresh) == compiled
        fresh.client.close()
    finally:
        session.plan_for(shared_environment, many_rows=False)
    assert _settings(spark) == interpreted


def test_a_cluster_decides_itself(shared_environment: Environment, spark: SparkSession) -> None:
    cluster = replace(shared_environment, spark_remote="sc://cluster:15002")
    before = _settings(spark)
    for many_rows in (True, False):
        session.plan_for(cluster, many_rows=many_rows)
        assert _settings(spark) == before


@pytest.mark.policy
def test_importing_it_is_light() -> None:
    heavy = {"pyspark", "pandas", "pyarrow", "grpc", "numpy", "jobs.spark.server"}
    client = subprocess.run(
        [sys.executable, "-c", "import sys, jobs.spark.session; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert heavy & set(client.stdout.split()) == set()


def test_the_token_of_a_clusters_address_is_in_no_message() -> None:
    environment = Environment.read({"SPARK_REMOTE": "sc://cluster:15002/;token=SECRET"})
    lost = PySparkException("StatusCode.UNAVAILABLE")
    explained = str(session.explain_loss(environment, lost))
    assert "sc://cluster:15002 " in explained
    assert "SECRET" not in explained


def test_a_server_that_was_killed_is_looked_for_where_the_kernel_tells_of_it(
    tmp_path: Path,
) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    explained = str(session.explain_loss(environment, PySparkException("StatusCode.UNAVAILABLE")))
    # It had no time to say anything in its log.
    assert "Where that tells none it was killed: out of memory? `dmesg` tells." in explained


def _server_of_others(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, **settings: str
) -> subprocess.Popen[bytes]:
    """A Spark Connect server whose settings are not ours."""
    ours = server.configuration(environment)
    theirs = {**ours, **{f"spark.sql.{name}": value for name, value in settings.items()}}
    monkeypatch.setattr(server, "configuration", lambda _, **__: theirs)
    return server.start(environment)


def test_on_a_server_of_others_rows_mean_the_same(
    shared_environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(shared_environment, home=tmp_path, spark_port=processes.free_port())
    process = _server_of_others(
        own,
        monkeypatch,
        **{"session.timeZone": "America/New_York", "ansi.enabled": "false"},
    )
    theirs = replace(own, spark_remote=session.address(own))
    try:
        spark = session.connect(theirs)
        row = spark.sql("SELECT current_timezone(), try_cast('1' AS int)").first()
        assert row is not None and row[0] == "UTC"
        # Without ANSI this would be a null, of which nobody hears.
        failure(spark.sql("SELECT CAST('no number' AS int)"))
        kept = {name: spark.conf.get(name) for name in session.MEANING}
        assert kept == session.MEANING
    finally:
        session.disconnect(theirs)
        server.stop(process)


@pytest.mark.parametrize("why", ["nobody listens", "no TLS"])
def test_a_server_of_others_that_does_not_answer_is_named_without_its_token(
    why: str, shared_environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_ANSWER_SECONDS", 2)
    is_there = why == "no TLS"
    port = shared_environment.spark_port if is_there else processes.free_port()
    address = f"sc://127.0.0.1:{port}/;token=SECRET"
    theirs = replace(shared_environment, home=tmp_path, spark_remote=address)
    with pytest.raises(NightshiftError, match=rf"answers at sc://127\.0\.0\.1:{port} \(") as told:
        session.connect(theirs)
    assert "SECRET" not in str(told.value)
    # Nothing is kept of it.
    assert not [key for key in session._sessions if address in key]


@pytest.mark.parametrize(
    ("version", "is_taken"),
    [
        ("3.5.6", False),
        ("4.1.2", False),
        ("4.2.9", True),
        ("4.10.0-vendor1", True),
    ],
)
def test_a_server_of_others_that_is_older_than_the_client_is_refused(
    version: str, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Theirs:
        """A session with a server of that version."""

        stopped = False

        def __init__(self) -> None:
            self.version = version

        def stop(self) -> None:
            self.stopped = True

    monkeypatch.setattr("pyspark.__version__", "4.2.0")
    theirs: Any = Theirs()
    with nullcontext() if is_taken else pytest.raises(NightshiftError, match=rf"is {version}, "):
        session._require_version(theirs)
    assert theirs.stopped is not is_taken


def test_a_setting_that_a_server_of_others_keeps_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Kept:
        """A session whose server gives back what it was started with."""

        stopped = False

        @property
        def conf(self) -> Kept:
            return self

        def set(self, name: str, value: str) -> None:
            raise PySparkException(f"{name} is not yours to change")

        def get(self, name: str, default: str | None) -> str | None:
            return "Europe/Paris" if name.endswith("timeZone") else default

        def stop(self) -> None:
            self.stopped = True

    kept = Kept()
    refusal = "spark.sql.session.timeZone=Europe/Paris and does not let.*not yours.*Have it set to"
    with pytest.raises(NightshiftError, match=refusal):
        session._agree_on_meaning(kept)  # type: ignore[arg-type]
    assert kept.stopped
