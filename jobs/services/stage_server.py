"""One process that has imported the heavy libraries, and forks a child for each request.

It stays single-threaded, runs no TensorFlow operation and opens no gRPC channel, so that a fork of
it is sound. Of our own modules it has imported what most stages need. A child drops all of them
when one was edited since: an edit is in force at the next request.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from jobs.services import child, usage
from jobs.services.die_with_parent import die_with_parent
from jobs.services.secrets import private_folder
from pipelines import wire
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError

PRELOAD = (
    "numpy",
    "pandas",
    "pyarrow.dataset",
    "deltalake",
    "duckdb",
    "psycopg",
    "pyspark.sql.connect.session",
    "pyspark.sql.connect.functions",
    "pyspark.sql.functions",
    "tensorflow",
    "keras",
    "horovod.tensorflow",
    "great_expectations",
    "mlflow",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "sklearn.linear_model",
    "sklearn.metrics",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    # Our own, without pipelines: what such a module does is its author's affair. Feast is imported
    # by these, in less time than by itself.
    "expectations.data_docs",
    "features.asof",
    "features.store",
    "jobs.__main__",
    "jobs.commands.sql",
    "jobs.commands.sql_memory",
    "jobs.lake.sql",
    "jobs.night",
    "jobs.stages.check",
    "jobs.stages.evaluate",
    "jobs.stages.features",
    "jobs.stages.ingest",
    "jobs.stages.monitor",
    "jobs.stages.predict",
    "jobs.stages.train",
    "jobs.stages.transform",
    "jobs.training.families.neural_network.rank",
)
"""Modules that a stage may need. Missing ones are left to the stage that misses them."""
_GRACE_SECONDS = 5.0
"""Time for a child whose client is gone to unwind, and for Spark to stop what it did for it."""
_QUEUE = 64
"""Clients that may wait to be accepted, while a fork is under way."""
_MOST_FILES = 4
"""Taken with one read; a request sends two or three."""
_PEER = struct.Struct("3i")
"""Linux's `struct ucred`: process, user and group id."""


@dataclass(eq=False, slots=True)
class _Client:
    """A connection, and the child that works for it."""

    connection: socket.socket
    received: bytes = b""
    descriptors: list[int] = field(default_factory=list)
    pid: int = 0
    pidfd: int = -1
    kill_at: float | None = None
    """When a child that was asked to end is killed; None: it was not asked."""


class StageServer:
    """Takes requests on a Unix socket until a signal stops it."""

    def __init__(
        self, path: Path, preload: Sequence[str] = PRELOAD, allowed: Collection[str] = child.ALLOWED
    ) -> None:
        self._path = path
        self._preload = preload
        self._allowed = allowed
        self._own_code: child.Code = {}
        self._selector = selectors.DefaultSelector()
        self._clients: set[_Client] = set()
        self._listening = socket.socket(socket.AF_UNIX)
        # A signal writes to the one, so that the selector sees it on the other and wakes.
        self._wake, self._waker = socket.socketpair()
        self._stopping = False

    def serve(self) -> None:
        """Import, listen, and serve until SIGTERM; then no child is left."""
        self._import()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._listen()
        try:
            while not self._stopping:
                for key, _ in self._selector.select(self._patience()):
                    handler, *arguments = key.data
                    handler(*arguments)
                self._kill_overdue_children()
        finally:
            self._path.unlink(missing_ok=True)
            for client in list(self._clients):
                self._drop(client)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._waker.send(b"x")

    def _import(self) -> None:
        started = time.monotonic()
        began_ns = time.time_ns()
        for name in self._preload:
            clock = time.monotonic()
            # Any error: of our own modules half an edit may be on disk.
            try:
                importlib.import_module(name)
            except Exception as error:
                _log(f"cannot preload {name}: {type(error).__name__}: {error}")
            _log(f"{name:<30} {time.monotonic() - clock:6.2f} s")
        self._own_code = child.code_of_own_modules(began_ns)
        # What is here now is never freed: the collector then leaves its pages shared with the
        # children.
        gc.collect()
        gc.freeze()
        _log(f"imported in {time.monotonic() - started:.1f} s; {_threads()} thread(s)")

    def _listen(self) -> None:
        private_folder(self._path.parent)
        self._path.unlink(missing_ok=True)
        # No moment in which the socket is open to others.
        old = os.umask(0o177)
        try:
            self._listening.bind(str(self._path))
        finally:
            os.umask(old)
        self._listening.listen(_QUEUE)
        self._wake.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ, (self._accept,))
        # What was sent tells nothing: reading it only lets the selector sleep again.
        self._selector.register(self._wake, selectors.EVENT_READ, (self._wake.recv, 64))
        _log(f"listening on {self._path}")

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        user = _peer_uid(connection)
        # 0, root, could become this user anyway.
        if user not in (os.getuid(), 0):
            _log(f"refused a client of user {user}")
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, (self._read, client))

    def _read(self, client: _Client) -> None:
        # Its child ended in the same look, and was answered first.
        if client not in self._clients:
            return
        try:
            received = socket.recv_fds(client.connection, wire.READ_BYTES, _MOST_FILES)
            data, descriptors, _, _ = received
        except OSError:
            data = b""
            descriptors = []
        client.descriptors += descriptors
        client.received += data
        if not data:
            self._client_is_gone(client)
        elif not client.pid:
            self._try_to_begin(client)

    def _try_to_begin(self, client: _Client) -> None:
        try:
            request = wire.decode(client.received)
            if request is None:
                return
            self._check(request, client)
        except (wire.ProtocolError, UsageError) as error:
            self._reply(client, UsageError.exit_code, str(error))
            return
        try:
            self._fork(client, request)
        except OSError as error:
            self._reply(client, NightshiftError.exit_code, f"The stage server cannot fork: {error}")

    def _check(self, request: dict[str, Any], client: _Client) -> None:
        if request.get("function") not in self._allowed:
            raise UsageError(
                f"The stage server does not run {request.get('function')!r}. "
                f"It runs: {', '.join(sorted(self._allowed))}."
            )
        is_whole = (
            isinstance(request.get("argument"), dict)
            and _is_text(request.get("environ"))
            and len(client.descriptors) >= 2
        )
        if not is_whole:
            raise UsageError(
                "A request is a function, an argument (an object), "
                "an environ (an object of text), and two or three open files."
            )

    def _fork(self, client: _Client, request: dict[str, Any]) -> None:
        # Else the child would write what is in our buffers a second time.
        sys.stdout.flush()
        sys.stderr.flush()
        client.pid = os.fork()
        if client.pid == 0:
            self._be_child(client, request)
        _log(f"child {client.pid}: {request['function']}")
        client.pidfd = os.pidfd_open(client.pid)
        self._selector.register(client.pidfd, selectors.EVENT_READ, (self._reap, client))
        _close_all(client.descriptors)

    def _be_child(self, client: _Client, request: dict[str, Any]) -> NoReturn:
        code = NightshiftError.exit_code
        try:
            die_with_parent(signal.SIGKILL)
            os.setsid()  # a group of its own, so that one signal reaches all that it starts
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            _take_files(client.descriptors)
            self._close_inherited()
            _become_the_clients(request)
            child.look_for_modules_anew()
            if child.is_edited(self._own_code):
                child.forget_own_modules()
            code = child.execute(request["function"], request["argument"])
        except OSError as error:
            # Such as a folder that only the client sees.
            print(f"Fault: the stage server cannot work there: {error}", file=sys.stderr)
        finally:
            child.end(code)

    def _close_inherited(self) -> None:
        # A connection held open here would hide its client's death, or our own.
        self._selector.close()
        for own in (self._listening, self._wake, self._waker):
            own.close()
        for client in self._clients:
            client.connection.close()
            _close_all(client.descriptors)
            if client.pidfd >= 0:
                os.close(client.pidfd)

    def _client_is_gone(self, client: _Client) -> None:
        self._selector.unregister(client.connection)
        if not client.pid:
            self._forget(client)
            return
        _log(f"child {client.pid}: its client is gone")
        client.kill_at = time.monotonic() + _GRACE_SECONDS
        _signal_group(client.pid, signal.SIGTERM)

    def _kill_overdue_children(self) -> None:
        now = time.monotonic()
        for client in self._clients:
            if client.kill_at is not None and client.kill_at <= now:
                _signal_group(client.pid, signal.SIGKILL)
                client.kill_at = None

    def _patience(self) -> float | None:
        """Seconds until a child is due to be killed; None: no child is."""
        times = [client.kill_at for client in self._clients if client.kill_at is not None]
        if not times:
            return None
        return max(0.0, min(times) - time.monotonic())

    def _reap(self, client: _Client) -> None:
        # What the child left behind ends too: its group lives until the child is reaped.
        _signal_group(client.pid, signal.SIGKILL)
        _, status, taken = os.wait4(client.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        _log(f"child {client.pid}: exit code {code}")
        self._selector.unregister(client.pidfd)
        os.close(client.pidfd)
        client.pid = 0
        client.pidfd = -1
        message = _death(-code) if code < 0 else ""
        self._reply(client, code, message, usage.of_ended(taken))

    def _reply(
        self,
        client: _Client,
        code: int,
        message: str = "",
        taken: Mapping[str, float] | None = None,
    ) -> None:
        told = {"exit_code": code, "message": message, "taken": dict(taken or {})}
        # The client may be gone.
        with suppress(OSError):
            wire.send(client.connection, told)
        self._forget(client)

    def _forget(self, client: _Client) -> None:
        # It may be unregistered already, because its client went.
        with suppress(KeyError, ValueError):
            self._selector.unregister(client.connection)
        client.connection.close()
        _close_all(client.descriptors)
        self._clients.discard(client)

    def _drop(self, client: _Client) -> None:
        if client.pid:
            _signal_group(client.pid, signal.SIGKILL)
            os.waitpid(client.pid, 0)
        self._forget(client)


def _take_files(descriptors: Sequence[int]) -> None:
    """Give the child its client's files: output, errors, and input if there is any."""
    output, errors, *given = descriptors
    os.dup2(output, 1)
    os.dup2(errors, 2)
    if given:
        os.dup2(given[0], 0)
    else:
        child.have_no_input()


def _become_the_clients(request: dict[str, Any]) -> None:
    """Give the child its own variables, folder, umask and random numbers.

    Its lines show as they come.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    os.environ.update(request["environ"])
    if folder := request.get("folder"):
        os.chdir(folder)
    if (umask := request.get("umask")) is not None:
        os.umask(umask)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # Python reseeds its own generator after a fork, NumPy does not


def _signal_group(pid: int, number: signal.Signals) -> None:
    # The group does not exist yet in the child's first moments.
    for send in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send(pid, number)
            return


def _death(number: int) -> str:
    reason = " Out of memory? `dmesg` tells." if number == signal.SIGKILL else ""
    return f"Fault: the stage's process was killed by {signal.Signals(number).name}.{reason}"


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, uid, _ = _PEER.unpack(credentials)
    return int(uid)


def _is_text(environ: object) -> bool:
    if not isinstance(environ, dict):
        return False
    return all(isinstance(value, str) for value in environ.values())


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 0


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    """Serve the home of this process's environment.

    Arguments name the only modules to import, instead of all that a stage may need.
    """
    # Read when the libraries are imported: a quiet TensorFlow, and an MLflow that reports to
    # nobody.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    path = wire.socket_path(Environment.read(), "stages")
    StageServer(path, preload=sys.argv[1:] or PRELOAD).serve()


if __name__ == "__main__":
    main()
