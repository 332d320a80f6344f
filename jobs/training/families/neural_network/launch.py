"""Starts the ranks of a training, ends all when one dies or time is up, and restarts lost ones."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jobs.services.stage_client import Work
from jobs.training.families import NeedsMore
from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.launchers import Launcher, launcher_of
from jobs.training.families.neural_network.rendezvous import rendezvous
from jobs.training.families.neural_network.returning import HostsAreBackError, Returning
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused

_LOOK_SECONDS = 0.05
_LINES = 12
"""Of a traceback that are shown: its end names the error."""
_SHELL_OF_SIGNALS = 128
"""A shell reports a death by signal as this plus its number."""
_UNREACHED = 255
"""Exit code of an ssh that has lost its host."""
_LEFT = 75
"""Exit code of a rank on another host whose connection has ended."""
_HANGS = 0
"""In the place of an exit code: the rank has not ended, and the others died of its silence."""
_SIGNS_OF_LOSS = (
    "onnection closed by peer",
    "onnection reset by peer",
    "Horovod has been shut down",
    "gloo::IoException",
    "Timed out waiting",
)
"""What a rank dies of when another has gone or hangs, in its traceback."""
_SIGNS_OF_MEMORY = ("MemoryError", "ResourceExhaustedError", "bad_alloc")
"""What a rank dies of that found no memory, in its traceback."""
_REFUSAL = f"\n{Refused.__module__}.{Refused.__qualname__}: "
"""How the last line of a traceback begins where the training itself was refused."""
_PASSING = f"\n{job.CheckpointAway.__module__}.{job.CheckpointAway.__qualname__}: "
"""How the last line of a traceback begins of a fault that may be over for the next attempt."""
_TRACEBACK = "\nTraceback (most recent call last):"
_SETTLE_SECONDS = 20
"""For a rank that took others with it to be seen gone: ssh notices a lost host after 15 s."""
_OUT_OF_MEMORY = "Out of memory? Train with fewer ranks (NIGHTSHIFT_RANKS) or a shorter window."


class RankLost(NightshiftError):
    """A rank has gone, and not by a fault of the training: another attempt may go well."""


class RankKilled(RankLost, NeedsMore):
    """A rank was killed, as a system without memory does. So was the one that took its place."""


def launch(
    environment: Environment,
    folder: Path,
    ranks: int,
    timeout_seconds: float,
    meanwhile: Callable[[], None] = lambda: None,
    restarts: int = 0,
) -> None:
    """Train the job laid out in the folder on that many ranks.

    Args:
        environment: Which says where they are started.
        folder: Of the job; where they are started on other hosts, one that those see.
        ranks: How many.
        timeout_seconds: After which all are ended.
        meanwhile: Called again and again while they work; what it raises ends them.
        restarts: How often lost ranks are started anew, on the hosts that are left: they go on
            from the last checkpoint. So do all of them when hosts are back, which is not counted.

    Raises:
        Refused: a rank refused the training, as one that came apart.
        NeedsMore: time was up, or memory.
        NightshiftError: a rank died. No rank is left behind, whatever happens.
    """
    launcher = launcher_of(environment)
    hosts = launcher.hosts(ranks)
    deadline = time.monotonic() + timeout_seconds
    has_grown = False
    while True:
        taking_part = min(ranks, sum(hosts.values()))
        looks = [meanwhile]
        if taking_part < ranks and not has_grown:
            checkpoint = job.read(folder).checkpoint
            looks.append(Returning(launcher, ranks, taking_part, checkpoint).look)
        attempt = _Attempt(launcher, folder, deadline, timeout_seconds)
        try:
            attempt.run(hosts, taking_part, looks)
        except HostsAreBackError as back:
            hosts = back.hosts
            # Once, and at no cost: should they be lost again, the others go on as before.
            has_grown = True
            restarts += 1
            _tell(f"Hosts are back: the ranks are started again, on {back}.")
        except RankLost as lost:
            if not restarts:
                raise
            restarts -= 1
            hosts = launcher.left(ranks)
            _tell(f"Warning: {lost} They are started again, on {', '.join(hosts)}.")
        else:
            return


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Attempt:
    """One start of all ranks."""

    def __init__(
        self, launcher: Launcher, folder: Path, deadline: float, timeout_seconds: float
    ) -> None:
        self._launcher = launcher
        self._folder = folder
        self._deadline = deadline
        self._timeout_seconds = timeout_seconds

    def run(
        self,
        hosts: Mapping[str, int],
        ranks: int,
        looks: Sequence[Callable[[], None]],
    ) -> None:
        """Have the job done; whatever happens, no rank is left behind."""
        for number in range(ranks):
            # Of an earlier attempt.
            job.error_file(self._folder, number).unlink(missing_ok=True)
        with rendezvous(hosts, ranks, self._launcher.address) as found:
            running: dict[int, Work] = {}
            try:
                left = max(1.0, self._deadline - time.monotonic())
                self._launcher.prepare(self._folder, found, left)
                for number, place in enumerate(found):
                    running[number] = self._launcher.start(self._folder, place)
                self._wait_for_all(running, looks)
            finally:
                for rank in running.values():
                    rank.kill()
                # What starts next must not meet them, nor what they still write.
                self._launcher.await_end(self._folder, ranks)

    def _wait_for_all(
        self, running: Mapping[int, Work], looks: Sequence[Callable[[], None]]
    ) -> None:
        # Horovod itself would hang: a rank waits for ever for one that died or that takes fewer
        # steps.
        waiting = dict(running)
        while waiting:
            for look in looks:
                look()
            for number, rank in list(waiting.items()):
                code = rank.wait(_LOOK_SECONDS)
                if code:
                    raise self._death(self._first_to_die(waiting, number, code))
                if code is not None:
                    del waiting[number]
            if waiting and time.monotonic() > self._deadline:
                raise NeedsMore(
                    f"Training was ended after {self._timeout_seconds:g} s: ranks {list(waiting)} "
                    "still ran. Raise NeuralNetwork.timeout_seconds if it needs longer."
                )

    def _first_to_die(
        self, waiting: Mapping[int, Work], noticed: int, code: int
    ) -> tuple[int, Work, int]:
        """The rank that took the others with it; the one that was noticed, if nobody can tell.

        The others die of its absence in the same moment, and leave tracebacks that say so. One that
        has not ended after that is the one that hangs.
        """
        dead = {noticed: code}
        until = min(time.monotonic() + _SETTLE_SECONDS, self._deadline)
        while True:
            silent: list[int] = []
            for number, rank in waiting.items():
                own = dead.get(number) or rank.wait(_LOOK_SECONDS)
                if own:
                    dead[number] = own
                if own is None:
                    silent.append(number)
            told = {number: self._traceback(number) for number in waiting}
            faulty = [one for one in waiting if told[one] and not _tells_of_loss(told[one])]
            gone = [one for one in dead if not told[one]]
            if culprits := [*faulty, *gone]:
                number = culprits[0]
                return number, waiting[number], dead.get(number, code)
            if not silent:
                return noticed, waiting[noticed], code
            if time.monotonic() > until:
                return silent[0], waiting[silent[0]], _HANGS

    def _traceback(self, number: int) -> str:
        """What a rank has left; empty: nothing."""
        error = job.error_file(self._folder, number)
        return error.read_text() if error.exists() else ""

    def _death(self, dead: tuple[int, Work, int]) -> NightshiftError:
        number, rank, code = dead
        if code == _HANGS:
            return RankLost(
                f"Rank {number} of the training hung: it said nothing to the others for so long "
                "that they gave it up, so all ranks were ended."
            )
        traceback = self._traceback(number)
        if traceback:
            if refusal := _refusal(traceback):
                return Refused(refusal)
            kind = _kind_of(traceback)
            end = "\n".join(traceback.splitlines()[-_LINES:])
            return kind(f"Rank {number} of the training failed, so all ranks were ended:\n{end}")
        said = self._launcher.last_words(rank)
        killed = _signal_of(code)
        why = _OUT_OF_MEMORY if killed == signal.SIGKILL else ""
        message = f"Rank {number} of the training was {_how(code)}, so all ranks were ended. " + (
            f"It said last: {said}" if said else why
        )
        if killed == signal.SIGKILL:
            return RankKilled(message.strip())
        is_lost = killed > 0 or code in (_UNREACHED, _LEFT)
        return RankLost(message.strip()) if is_lost else NightshiftError(message.strip())


def _refusal(traceback: str) -> str:
    """What a rank has refused its training for; empty: it died of something else.

    All ranks come to the same, so that it is no news which of them has said it first.
    """
    _, found, said = traceback.rpartition(_REFUSAL)
    return said.strip() if found and _TRACEBACK not in said else ""


def _kind_of(traceback: str) -> type[NightshiftError]:
    if _tells_of_loss(traceback) or _PASSING in traceback:
        return RankLost
    wants_memory = any(sign in traceback for sign in _SIGNS_OF_MEMORY)
    return NeedsMore if wants_memory else NightshiftError


def _tells_of_loss(traceback: str) -> bool:
    return any(sign in traceback for sign in _SIGNS_OF_LOSS)


def _signal_of(code: int) -> int:
    """The signal that an exit code tells of; 0 or less: none."""
    if code == _UNREACHED:
        return 0
    return -code if code < 0 else code - _SHELL_OF_SIGNALS


def _how(code: int) -> str:
    killed = _signal_of(code)
    if code == _UNREACHED:
        return f"gone with exit code {code}, as when its host cannot be reached"
    return f"killed by {_signal(killed)}" if killed > 0 else f"gone with exit code {code}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
