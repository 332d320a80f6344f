"""Has work done in a process of its own.

A fork of the stage server where one is up, else a new process.

Importing this is cheap: the light `nightshift` command asks here before it imports anything heavy.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from jobs.services import stopped, usage
from jobs.services.die_with_parent import dying_with_parent
from pipelines import forwarding, wire
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError, UsageError


class Turns(Protocol):
    """Who has calls of a function done by one child: see `in_turn`."""

    def called(
        self, environment: Environment, argument: Mapping[str, Any], environ: Mapping[str, str]
    ) -> Ended:
        """See the function of that name."""


IN_TURN: dict[str, Turns] = {}
"""By function, where that is so at present."""


class Work(Protocol):
    """Work that another process does."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, negative for the signal that killed it.

        None when it still runs after `timeout` seconds.
        """

    def kill(self) -> None:
        """End it at once; harmless when it has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a child of the stage server has ended."""

    code: int
    """Its exit code; of one that a signal killed that of a fault."""
    said: str
    """What the server says of it: why it was killed, or not begun. Empty: it ended by itself."""

    @property
    def is_refused(self) -> bool:
        """Whether the server does not run such a thing, as one of older code: nothing was done."""
        return forwarding.is_refused(self.code, self.said)

    @property
    def is_lost(self) -> bool:
        """Whether it was killed, alone or with its server: it could tell nobody."""
        return bool(self.said) and not self.is_refused


def available(environment: Environment, most_seconds: float | None = None) -> bool:
    """Whether the home's stage server answers.

    Args:
        environment: Whose home it is.
        most_seconds: Wait no longer for the answer; None: as long as a busy one may take.
    """
    # A home with a path too long for a socket (a UsageError) has no stage server either.
    with suppress(OSError, UsageError):
        return wire.answers(environment, most_seconds)
    return False


def call(
    environment: Environment, function: str, argument: Mapping[str, Any], environ: Mapping[str, str]
) -> int:
    """Have a function called in a child of the stage server that writes to our output.

    Returns its exit code.

    The child ends when this process does. One that a signal killed gives the exit code of a fault,
    and a message.
    """
    ended = called(environment, function, argument, environ)
    if ended.said:
        print(ended.said, file=sys.stderr, flush=True)
    return ended.code


def called(
    environment: Environment, function: str, argument: Mapping[str, Any], environ: Mapping[str, str]
) -> Ended:
    """As `call`, and prints nothing itself of how it ended."""
    with stopped.told(environment.home):
        return _called(environment, function, argument, environ)


def _called(
    environment: Environment, function: str, argument: Mapping[str, Any], environ: Mapping[str, str]
) -> Ended:
    if (turns := IN_TURN.get(function)) is not None:
        done = turns.called(environment, argument, environ)
        # A server of older code knows no such thing.
        if not done.is_refused:
            return done
    return ended(Forked(environment, function, argument, environ))


def ended(work: Forked) -> Ended:
    """How the work of a child ends, which is waited for."""
    try:
        code = work.wait()
    finally:
        work.kill()
    assert code is not None, "waited without a timeout"
    return Ended(code=code if code >= 0 else NightshiftError.exit_code, said=work.message)


def spawn(
    environment: Environment,
    function: str,
    argument: Mapping[str, Any],
    environ: Mapping[str, str],
    output: IO[str] | None = None,
) -> Work:
    """Start work that goes on beside us, in a child of the stage server or a new process.

    It ends when this process does.
    """
    if available(environment):
        with suppress(OSError, UsageError):  # it has ended since
            return Forked(environment, function, argument, environ, output)
    return Started(environment, function, argument, environ, output)


class Forked:
    """Work in a child of the stage server, which lives as long as our connection."""

    def __init__(
        self,
        environment: Environment,
        function: str,
        argument: Mapping[str, Any],
        environ: Mapping[str, str],
        output: IO[str] | None = None,
        asked: socket.socket | None = None,
    ) -> None:
        """Begin.

        Args:
            asked: What the child has as its input; None: nothing.
        """
        request = {
            "function": function,
            "argument": dict(argument),
            "environ": dict(environ),
            # A relative path means there what it means here.
            "folder": _working_folder(),
            "umask": wire.umask(),
        }
        self.message = ""
        self.cpu_seconds_before = 0.0
        """That the child had used before what is asked of it now."""
        self._code: int | None = None
        self._received = b""
        self._connection = wire.connect(environment)
        self._began = time.monotonic()
        # What is in our buffers belongs before the child's first line.
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        given = [asked.fileno()] if asked else []
        wire.send(self._connection, request, [*_outputs(output), *given])

    def fileno(self) -> int:
        """Of what can be read when the child has ended, for `select`; -1: that is known."""
        return self._connection.fileno()

    def wait(self, timeout: float | None = None) -> int | None:
        """See `Work`."""
        while self._code is None:
            readable, _, _ = select.select([self._connection], [], [], timeout)
            if not readable:
                return None
            self._receive()
        return self._code

    def kill(self) -> None:
        """See `Work`."""
        # The stage server ends the child of a connection that closes.
        self._connection.close()
        if self._code is None:
            self._code = -signal.SIGKILL  # as `Popen` tells it of a process

    def _receive(self) -> None:
        data = wire.receive(self._connection)
        self._received += data
        reply = wire.decode(self._received) if data else wire.GONE
        if reply is not None:
            self._code = int(reply["exit_code"])
            self.message = str(reply.get("message", ""))
            usage.add_forked(reply.get("taken", {}), self._began, self.cpu_seconds_before)
            self._connection.close()


def _working_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        # Such as of a checkout that was cloned anew beside this shell.
        raise UsageError("The working folder is gone: change to one that is there.") from None


class Started:
    """Work in a new process."""

    def __init__(
        self,
        environment: Environment,
        function: str,
        argument: Mapping[str, Any],
        environ: Mapping[str, str],
        output: IO[str] | None = None,
    ) -> None:
        import subprocess

        variables = {
            **os.environ,
            **environment.variables(),
            "PYTHONPATH": python_path(),
            **environ,
        }
        program = [sys.executable, "-m", "jobs.services.child", function]
        self._process = subprocess.Popen(
            dying_with_parent(program),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=variables,
            text=True,
        )
        assert self._process.stdin is not None
        # By its input, because every user can read a command line and settings may be secret. A
        # child that died at once is seen by `wait`, not here.
        with suppress(BrokenPipeError), self._process.stdin as pipe:
            json.dump(dict(argument), pipe)

    def wait(self, timeout: float | None = None) -> int | None:
        """See `Work`."""
        from subprocess import TimeoutExpired

        with suppress(TimeoutExpired):
            return self._process.wait(timeout)
        return None

    def kill(self) -> None:
        """See `Work`."""
        self._process.kill()
        self._process.wait()


def python_path() -> str:
    """The value of `PYTHONPATH` with which another process finds our packages."""
    own = str(ROOT)
    others = os.environ.get("PYTHONPATH")
    return f"{own}{os.pathsep}{others}" if others else own


def _outputs(output: IO[str] | None) -> tuple[int, int]:
    """The open files that the child writes to: its output and its errors."""
    if output:
        return (output.fileno(), output.fileno())
    return (_descriptor(sys.stdout, 1), _descriptor(sys.stderr, 2))


def _descriptor(stream: Any, default: int) -> int:
    # A test or a notebook may have put an object without a file in its place.
    with suppress(OSError, AttributeError, ValueError):
        return int(stream.fileno())
    return default
