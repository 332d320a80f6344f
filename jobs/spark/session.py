"""The Spark session of a client: a thin connection to the one Spark Connect server of its home.

A cluster's server takes the place of the home's own by `SPARK_REMOTE`.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from jobs.services import processes
from jobs.services.secrets import secret
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FEW_ROWS = {
    # Interpreted: code for a query that runs once, over some thousand rows, takes longer to make
    # than it saves.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    # Planned once: each stage of a query that is planned anew is a job of its own.
    "spark.sql.adaptive.enabled": "false",
    # A task takes longer to begin than to do its part of so few.
    "spark.sql.shuffle.partitions": "2",
}
"""Settings of Spark under which a query over few rows costs least (docs/performance.md)."""
_MANY_ROWS = {
    "spark.sql.codegen.wholeStage": "true",
    "spark.sql.codegen.factoryMode": "FALLBACK",
    "spark.sql.adaptive.enabled": "true",
}
"""Spark's own defaults."""
MEANING = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.decimalOperations.allowPrecisionLoss": "true",
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    # INT96, Spark's default, is 12 bytes an instant, and files tell no bounds of it.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "true",
    "spark.sql.storeAssignmentPolicy": "ANSI",
    # Else Delta refuses a version that was followed by another more than 30 days ago, though its
    # files are there: our own retention keeps what is in use.
    "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration": "false",
}
"""Settings of Spark on which it depends what rows say: the same on every server."""
_RETRIES = 5
_ANSWER_SECONDS = 60
"""Enough for a server that is just being started anew."""
_EXECUTOR_SECONDS = 30
"""Until people are told that no executor of a cluster has been free."""
_SIGNS_OF_LOSS = ("StatusCode.UNAVAILABLE", "NO_ACTIVE_SESSION", "INVALID_HANDLE")
"""What Spark's client says when its server is gone, or when a new one at the same place does not
know the session."""
_LOGGERS_OF_ERRORS = (
    "DataFrameQueryContextLogger",
    "SQLQueryContextLogger",
    "pyspark.sql.connect.logging",
)
"""By which Spark's client also writes errors that it raises to stderr: each as a line of JSON that
holds Java's whole stack."""
_LEVEL_OF_CLIENT = "SPARK_CONNECT_LOG_LEVEL"
"""Variable of Spark's client: whoever sets it wants to see what the client does."""
_TO_LOOPBACK = [("grpc.enable_http_proxy", 0)]
"""Of gRPC: else it asks a proxy of the environment for our own server, to which none leads."""
_sessions: dict[tuple[int, str], SparkSession] = {}
"""Open sessions by process id and address, in the order in which they were last asked for.

A forked child has its parent's sessions here too, and must not use their channels.
"""
_settings: dict[str, str] = {}
"""Of sessions that this process opens from here on, where they differ from the server's."""
_one_opens = threading.Lock()
"""Threads of a stage that connect at once get one session: frames of two cannot be joined."""


def connect(environment: Environment) -> SparkSession:
    """This process's session on the server of the environment; the same one at every call.

    Raises:
        NightshiftError: no server answers.
    """
    key = (os.getpid(), address(environment))
    with _one_opens:
        session = _sessions.pop(key, None)
        if session is None or session.client.is_closed:
            session = _new_session(environment)
        # At the end: see `disconnect`.
        _sessions[key] = session
        _make_active(session)
        return session


def plan_for(environment: Environment, *, many_rows: bool) -> None:
    """Have Spark run the queries of this process as suits so many rows; a cluster decides itself.

    Args:
        environment: Whose server it is.
        many_rows: Whether compiled code and plans that adapt make up for what they cost.
    """
    if environment.spark_remote:
        return
    with _one_opens:
        _settings.update(settings_of_many_rows(environment) if many_rows else FEW_ROWS)
        for (process_id, _), session in _sessions.items():
            if process_id == os.getpid() and not session.client.is_closed:
                _set(session, _settings)


def settings_of_many_rows(environment: Environment) -> dict[str, str]:
    """Those that differ from `FEW_ROWS`."""
    # Spark's own 200 would be tiny tasks still.
    partitions = max(4, 2 * environment.spark_cores)
    return {**_MANY_ROWS, "spark.sql.shuffle.partitions": str(partitions)}


def disconnect(environment: Environment | None = None) -> None:
    """End this process's session, so that the server forgets it at once.

    A later `connect` makes a new one.

    Args:
        environment: Whose server the session is with; None: end the sessions with every server.
    """
    wanted = address(environment) if environment else None
    with _one_opens:
        for process_id, server in list(_sessions):
            if process_id == os.getpid() and wanted in (None, server):
                _sessions.pop((process_id, server)).stop()
        # What is left, the last one at the end, which is so the active one again.
        for (process_id, _), left in _sessions.items():
            if process_id == os.getpid() and not left.client.is_closed:
                _make_active(left)


def forget_lost(environment: Environment) -> None:
    """Forget the session of this process with its own server, if that has ended it, or has ended.

    A server ends those that were long unused. A later `connect` makes a new one.
    """
    key = (os.getpid(), address(environment))
    with _one_opens:
        session = _sessions.get(key)
        if session and not (processes.answers(environment.spark_port) and _answers(session)):
            del _sessions[key]
            with suppress(Exception):
                session.client.close()


def explain_loss(environment: Environment, error: BaseException) -> NightshiftError | None:
    """The plain words for an error of Spark's client whose server has ended or restarted.

    None for every other error.
    """
    from pyspark.errors import PySparkException  # seconds to import, and only needed after a fault

    if not isinstance(error, PySparkException):
        return None
    message = str(error)
    if not any(sign in message for sign in _SIGNS_OF_LOSS):
        return None
    # What follows the host of an address may be a token.
    host = (environment.spark_remote or "").partition("/;")[0]
    log = host or environment.logs / "spark.log"
    return NightshiftError(
        f"The Spark Connect server ended or restarted while the stage ran; look in {log} "
        "for the reason. Where that tells none it was killed: out of memory? `dmesg` tells. "
        "Nothing of the stage was published by halves: run it again."
    )


def _answers(session: SparkSession) -> bool:
    try:
        session.conf.get("spark.sql.ansi.enabled")
    except Exception:  # whatever it is, a new session is no worse
        return False
    return True


def _new_session(environment: Environment) -> SparkSession:
    if not environment.spark_remote:
        _require_own_server(environment)

    from pyspark.sql.connect.client.retries import DefaultPolicy  # seconds to import

    _silence()
    if environment.spark_remote:
        _require_answer(environment.spark_remote)
    session = _opened(environment)
    if environment.spark_remote:
        _require_version(session)
        _agree_on_meaning(session)
    else:
        # By default a client tries a dead server for ten minutes; on loopback it is gone for good.
        session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
        _set(session, _settings)
        if environment.spark_master:
            _await_executors(environment, session)
    return session


def _await_executors(environment: Environment, session: SparkSession) -> None:
    """Return when an executor of the cluster has done a task.

    Spark waits for one for as long as it takes, and says so in the server's log alone. It may be
    right to wait, as for a busy cluster; but not without a word.
    """
    told = (
        f"Waiting for executors of the Spark cluster at {environment.spark_master}: none has been "
        f"free for {_EXECUTOR_SECONDS} s. All are busy, or there is none for want of a worker "
        f"with a free core and {environment.spark_memory} of free memory "
        f"(NIGHTSHIFT_SPARK_MEMORY); {environment.logs / 'spark.log'} tells more."
    )
    telling = threading.Timer(_EXECUTOR_SECONDS, _tell, [told])
    telling.daemon = True
    telling.start()
    try:
        session.range(1).collect()
    finally:
        telling.cancel()
        # One that has begun to tell ends before anything else is told.
        telling.join()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _opened(environment: Environment) -> SparkSession:
    from pyspark.sql import SparkSession

    if environment.spark_remote:
        return SparkSession.builder.remote(environment.spark_remote).create()

    from pyspark.sql.connect.client import DefaultChannelBuilder
    from pyspark.sql.connect.session import SparkSession as SessionOfConnect

    channel = DefaultChannelBuilder(address(environment), _TO_LOOPBACK)
    # As `remote` does: by it Spark's functions know that their columns are Connect's.
    os.environ["SPARK_CONNECT_MODE_ENABLED"] = "1"
    session = SessionOfConnect.builder.channelBuilder(channel).create()
    return cast("SparkSession", session)


def _silence() -> None:
    """Leave it to us to tell of an error, once and in plain words."""
    if _LEVEL_OF_CLIENT in os.environ:
        return

    from pyspark.logger import PySparkLogger

    for name in _LOGGERS_OF_ERRORS:
        # By its level: a library that configures logging takes back that a logger is disabled.
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL)


def _make_active(session: SparkSession) -> None:
    """Have libraries that ask Spark for the session of this thread, as Feast does, get this one.

    Spark itself keeps the first one that the thread opened, whatever server that was with, and
    none once that is closed.
    """
    kind: Any = type(session)  # of Spark Connect; the class that types know is another
    kind._active_session.session = session
    kind._default_session = session


def _set(session: SparkSession, settings: Mapping[str, str]) -> None:
    for name, value in settings.items():
        session.conf.set(name, value)


def _require_version(session: SparkSession) -> None:
    """Refuse a server that is older than our client: it does not know all that is asked of it.

    Raises:
        NightshiftError: it is; the message names both.
    """
    import pyspark

    theirs, ours = session.version, pyspark.__version__
    if _release(theirs) < _release(ours):
        session.stop()
        raise NightshiftError(
            f"The Spark of SPARK_REMOTE is {theirs}, and our client {ours} asks for what an older "
            "server does not know. Have a server of the client's version."
        )


def _release(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


def _agree_on_meaning(session: SparkSession) -> None:
    """Have a server that others have set up mean what ours means.

    Raises:
        NightshiftError: it keeps a setting of its own, by which rows would say something else.
    """
    from pyspark.errors import PySparkException

    for name, wanted in MEANING.items():
        try:
            session.conf.set(name, wanted)
            why = ""
        except PySparkException as error:
            why = f" ({error})"
        kept = session.conf.get(name, None)
        if str(kept).lower() != wanted.lower():
            session.stop()
            raise NightshiftError(
                f"The Spark of SPARK_REMOTE has {name}={kept} and does not let sessions change it"
                f"{why}: rows would say something else there. Have it set to {wanted}."
            )


def address(environment: Environment) -> str:
    """Where the server is, as a client of Spark Connect takes it; the token is in it."""
    if environment.spark_remote:
        return environment.spark_remote
    token = secret(environment, "spark_token")
    # The client sends a token without TLS only to the name "localhost", never to 127.0.0.1.
    return f"sc://localhost:{environment.spark_port}/;token={token}"


def _require_answer(address: str) -> None:
    # Asked first, because the client itself would try for ten minutes, and say nothing of it.
    import grpc
    from pyspark.sql.connect.client import DefaultChannelBuilder

    channel = DefaultChannelBuilder(address).toChannel()
    try:
        grpc.channel_ready_future(channel).result(timeout=_ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        # What follows the host may be a token.
        host = address.partition("/;")[0]
        raise NightshiftError(
            f"No Spark Connect server answers at {host} (SPARK_REMOTE) within {_ANSWER_SECONDS} s: "
            "it is not there, is not reached from here, or speaks no TLS, which the client demands "
            "of all hosts but 'localhost' where a token is given."
        ) from None
    finally:
        channel.close()


def _require_own_server(environment: Environment) -> None:
    # Asked first, because the client itself would try for minutes.
    if not processes.answers(environment.spark_port):
        raise NightshiftError(
            f"No Spark Connect server answers on port {environment.spark_port}. Start the platform "
            f"with `nightshift up`; if it is up, read {environment.logs / 'spark.log'}."
        )
