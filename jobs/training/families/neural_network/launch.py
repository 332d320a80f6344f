"""Starts the ranks of a training, ends all when one dies or time is up, and restarts lost ones."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.launchers import Launcher, Rank, launcher_of
from jobs.training.families.neural_network.rendezvous import rendezvous
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

_LOOK_SECONDS = 0.05
_LINES = 12
"""Of a traceback that are shown: its end names the error."""
_SHELL_OF_SIGNALS = 128
"""A shell reports a death by signal as this plus its number."""
_UNREACHED = 255
"""Exit code of an ssh that has lost its host."""
_LOST = "HorovodInternalError"
"""What a rank dies of when another has gone."""
_OUT_OF_MEMORY = "Out of memory? Train with fewer ranks (NIGHTSHIFT_RANKS) or a shorter window."


class RankLost(NightshiftError):
    """A rank has gone, and not by a fault of the training: another attempt may go well."""


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
            from the last checkpoint.

    Raises:
        NightshiftError: a rank died or time was up. No rank is left behind.
    """
    launcher = launcher_of(environment)
    hosts = launcher.hosts(ranks)
    deadline = time.monotonic() + timeout_seconds
    for left in range(restarts, -1, -1):
        taking_part = min(ranks, sum(hosts.values()))
        attempt = _Attempt(launcher, folder, deadline, timeout_seconds)
        try:
            attempt.run(hosts, taking_part, meanwhile)
        except RankLost as lost:
            if not left:
                raise
            hosts = launcher.left(ranks)
            where = ", ".join(hosts)
            print(
                f"Warning: {lost} They are started again ({where}), from the last checkpoint.",
                file=sys.stderr,
                flush=True,
            )
        else:
            return


class _Attempt:
    """One start of all ranks."""

    def __init__(
        self, launcher: Launcher, folder: Path, deadline: float, timeout_seconds: float
    ) -> None:
        self._launcher = launcher
        self._folder = folder
        self._deadline = deadline
        self._timeout_seconds = timeout_seconds

    def run(self, hosts: Mapping[str, int], ranks: int, meanwhile: Callable[[], None]) -> None:
        """Have the job done; whatever happens, no rank is left behind."""
        for number in range(ranks):
            # Of an earlier attempt.
            job.error_file(self._folder, number).unlink(missing_ok=True)
        with rendezvous(hosts, ranks, self._launcher.address) as found:
            running: dict[int, Rank] = {}
            try:
                for number, place in enumerate(found):
                    running[number] = self._launcher.start(self._folder, place)
                self._wait_for_all(running, meanwhile)
            finally:
                for rank in running.values():
                    rank.kill()

    def _wait_for_all(self, running: Mapping[int, Rank], meanwhile: Callable[[], None]) -> None:
        # Horovod itself would hang: a rank waits for ever for one that died or that takes fewer
        # steps.
        waiting = dict(running)
        while waiting:
            meanwhile()
            for number, rank in list(waiting.items()):
                code = rank.wait(_LOOK_SECONDS)
                if code:
                    raise self._death(self._first_to_die(waiting, number, code))
                if code is not None:
                    del waiting[number]
            if waiting and time.monotonic() > self._deadline:
                raise NightshiftError(
                    f"Training was ended after {self._timeout_seconds:g} s: ranks {list(waiting)} "
                    "still ran. Raise NeuralNetwork.timeout_seconds if it needs longer."
                )

    def _first_to_die(
        self, waiting: Mapping[int, Rank], noticed: int, code: int
    ) -> tuple[int, Rank, int]:
        """The rank that took the others with it, if there is one, else the one that was noticed.

        The others die of its absence in the same moment, and leave a traceback.
        """
        for number, rank in waiting.items():
            own = code if number == noticed else rank.wait(_LOOK_SECONDS)
            if own and not job.error_file(self._folder, number).exists():
                return number, rank, own
        return noticed, waiting[noticed], code

    def _death(self, dead: tuple[int, Rank, int]) -> NightshiftError:
        number, rank, code = dead
        error = job.error_file(self._folder, number)
        if error.exists():
            traceback = "\n".join(error.read_text().splitlines()[-_LINES:])
            kind = RankLost if _LOST in traceback else NightshiftError
            return kind(
                f"Rank {number} of the training failed, so all ranks were ended:\n{traceback}"
            )
        said = self._launcher.last_words(rank)
        return RankLost(
            f"Rank {number} of the training was {_how(code)}, so all ranks were ended. "
            + (f"It said last: {said}" if said else _OUT_OF_MEMORY)
        )


def _how(code: int) -> str:
    killed = -code if code < 0 else code - _SHELL_OF_SIGNALS
    if code == _UNREACHED:
        return f"gone with exit code {code}, as when its host cannot be reached"
    return f"killed by {_signal(killed)}" if killed > 0 else f"gone with exit code {code}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
