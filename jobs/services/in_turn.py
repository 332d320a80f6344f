"""One child of the stage server that does one piece of work after another.

What the first has opened and imported, the next need not: a stage of a night takes up the session
with Spark that the one before it had.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jobs.output import note_lost, why_lost
from jobs.services import child, stage_client
from jobs.services.stage_client import Ended, Forked
from pipelines import wire
from pipelines.errors import NightshiftError

if TYPE_CHECKING:
    from pipelines.environment import Environment

_NO_MORE = {"takes": "no more"}
"""Said in place of an exit code."""
_END_SECONDS = 5.0
"""Time for a child that is asked for nothing more to release what it has."""


@contextmanager
def in_turn(function: str, asked: str) -> Iterator[None]:
    """Have all calls of a function, from here on and by this process, done by one child.

    It is forked at the first. Where it was killed, or our code was edited since it was forked, the
    next call has another one.

    Args:
        function: As it is called.
        asked: The entry for the stage server of what does it again and again, by `serve`.
    """
    turns = _Turns(asked)
    # Of a run within whose stage this one is made: its child has work of its own.
    around = stage_client.IN_TURN.get(function)
    stage_client.IN_TURN[function] = turns
    try:
        yield
    finally:
        stage_client.IN_TURN.pop(function)
        if around is not None:
            stage_client.IN_TURN[function] = around
        turns.end()


def serve(do: Callable[[dict[str, Any]], int]) -> None:
    """Do what is asked for on the standard input, one after another, until that ends.

    Args:
        do: Does one, and returns its exit code.
    """
    began_ns = time.time_ns()
    has_done_any = False
    with _standard_input() as line:
        while (argument := next_message(line)) is not None:
            if has_done_any and child.were_edited_since(began_ns):
                wire.send(line, _NO_MORE)
                return
            code = do(argument)
            has_done_any = True
            used = sum(os.times()[:4])
            done = {
                "exit_code": code,
                "cpu_seconds": used,
                "lost": why_lost(),
            }
            wire.send(line, done)


class _Turns:
    """The child that is asked, as long as it takes more."""

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._child: _Child | None = None

    def called(
        self, environment: Environment, argument: Mapping[str, Any], environ: Mapping[str, str]
    ) -> Ended:
        """As `stage_client.called`."""
        done = self._child.do(argument) if self._child else None
        if done is None:
            # There was none, or it takes no more.
            self.end()
            self._child = _Child(environment, self._asked, environ)
            done = self._child.do(argument)
        assert done is not None, "a new child takes one"
        return done

    def end(self) -> None:
        """End the child, if there is one."""
        if self._child:
            self._child.end()
            self._child = None


class _Child:
    """One that was forked, and is asked by a socket of its own."""

    def __init__(self, environment: Environment, asked: str, environ: Mapping[str, str]) -> None:
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                self._work = Forked(environment, asked, {}, environ, asked=theirs)
        except BaseException:
            self._line.close()
            raise
        self._has_done_any = False
        self._is_over = False

    def do(self, argument: Mapping[str, Any]) -> Ended | None:
        """How it ended; None: it was not begun."""
        if self._is_over or (self._has_done_any and self._is_gone()):
            return None
        try:
            reply = self._ask(argument)
        except BaseException:  # such as Ctrl-C
            self._is_over = True
            self._work.kill()
            raise
        if reply is None:
            self._is_over = True
            ended = stage_client.ended(self._work)
            # It ought to have told before it ended.
            return replace(ended, code=ended.code or NightshiftError.exit_code)
        if reply == _NO_MORE:
            self._is_over = True
            return None
        self._has_done_any = True
        # The server's code may be of before.
        note_lost(str(reply.get("lost", "")))
        self._work.cpu_seconds_before = float(reply["cpu_seconds"])
        return Ended(code=int(reply["exit_code"]), said="")

    def _ask(self, argument: Mapping[str, Any]) -> dict[str, Any] | None:
        # It may end meanwhile, which its reply tells.
        with suppress(OSError):
            wire.send(self._line, dict(argument))
        return next_message(self._line)

    def end(self) -> None:
        """Ask for nothing more."""
        self._line.close()
        try:
            self._work.wait(_END_SECONDS)
        finally:
            self._work.kill()

    def _is_gone(self) -> bool:
        # Between two requests it says nothing: what can be read is its end.
        readable, _, _ = select.select([self._line], [], [], 0)
        return bool(readable)


def next_message(line: socket.socket) -> dict[str, Any] | None:
    """What is said next; None: nothing will be."""
    received = b""
    while (message := wire.decode(received)) is None:
        data = wire.receive(line)
        if not data:
            return None
        received += data
    return message


def _standard_input() -> socket.socket:
    """The socket that is the input of this process, which has none from here on.

    Programs that it starts would read what is not for them.
    """
    line = socket.socket(fileno=os.dup(0))
    child.have_no_input()
    return line
