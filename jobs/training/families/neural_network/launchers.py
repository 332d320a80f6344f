"""Where ranks are started.

On this machine, on hosts by a command that reaches them, in Pods, or on Spark's executors.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Protocol

import psutil

from jobs.services import stage_client
from jobs.services.die_with_parent import dying_with_parent
from jobs.services.stage_client import Work
from jobs.training.families import TooFewPlaces
from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.executors import OnExecutors
from jobs.training.families.neural_network.pods import OnPods
from jobs.training.families.neural_network.rendezvous import HERE, LOOPBACK, Place
from jobs.training.families.neural_network.told import told_by_variables
from jobs.version import source_hash
from pipelines import places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.for_ranks import store_credentials, without
from pipelines.forwarding import OF_NETWORK

FUNCTION = "jobs.training.families.neural_network.rank:main"
"""What the stage server forks; it must be among those that it allows."""
# Modules, and no lines of Python: of ssh the other side's shell would take them apart.
_ON_HOST = ("-m", "jobs.training.families.neural_network.on_host")
_CODE_HASH = ("-m", "jobs.version")
_ANSWER_SECONDS = 30
"""That a host has to say whether it can be reached."""
_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 {host}"
_GONE_SECONDS = 10
"""The stage server ends a rank gently, and after 5 seconds for good."""
_LOOK_SECONDS = 0.05
_GRACE_SECONDS = 5
"""For a rank whose connection was closed, to be seen gone."""
_TOLD_BYTES = 2000
"""Of what a host has said last: it names the fault."""


class Launcher(Protocol):
    """A way to start ranks."""

    @property
    def address(self) -> str:
        """Of this machine, at which ranks find each other."""

    def hosts(self, ranks: int) -> Mapping[str, int]:
        """The hosts that may take part, and how many ranks each may have, of so many.

        Raises:
            TooFewPlaces: for so many.
        """

    def left(self, ranks: int) -> Mapping[str, int]:
        """Those of them that can be reached and have our code, after a rank was lost.

        Raises:
            NightshiftError: there are none.
        """

    def prepare(self, folder: Path, places: Sequence[Place], timeout_seconds: float) -> None:
        """Make ready for the ranks of these places, which are started next, for so long at most."""

    def start(self, folder: Path, place: Place) -> Work:
        """Start the rank of that place on the job in the folder."""

    def last_words(self, rank: Work) -> str:
        """What was said of a rank that left no traceback; empty: nothing."""

    def await_end(self, folder: Path, ranks: int) -> None:
        """Return when those that were killed are gone, so that others can take their places."""


def launcher_of(environment: Environment) -> Launcher:
    """The one that the environment asks for."""
    if environment.rank_pod:
        return OnPods(environment)
    if environment.rank_executors == "on":
        return OnExecutors(environment)
    return OnHosts(environment) if environment.hosts else OnThisMachine(environment)


class OnThisMachine:
    """Forks of the stage server, or new processes where none is up."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    @property
    def address(self) -> str:
        """See `Launcher`."""
        return LOOPBACK

    def hosts(self, ranks: int) -> Mapping[str, int]:
        """See `Launcher`."""
        return {HERE: ranks}

    def left(self, ranks: int) -> Mapping[str, int]:
        """See `Launcher`."""
        return {HERE: ranks}

    def prepare(self, folder: Path, places: Sequence[Place], timeout_seconds: float) -> None:
        """See `Launcher`; each is started by itself."""

    def start(self, folder: Path, place: Place) -> Work:
        """See `Launcher`."""
        variables = {**without(os.environ), **told_by_variables(self._environment, folder, place)}
        if job.lies_in_store(folder):
            variables |= {**places.address_of_store(os.environ), **store_credentials(os.environ)}
            # The address of a proxy may hold a password, for which it is hidden above.
            variables |= {name: os.environ[name] for name in OF_NETWORK if name in os.environ}
        argument = {"folder": str(folder)}
        return stage_client.spawn(self._environment, FUNCTION, argument, variables)

    def last_words(self, rank: Work) -> str:
        """See `Launcher`."""
        return ""

    def await_end(self, folder: Path, ranks: int) -> None:
        """See `Launcher`."""
        deadline = time.monotonic() + _GONE_SECONDS
        files = [job.process_file(folder, number) for number in range(ranks)]
        for file in files:
            while file.exists() and time.monotonic() < deadline:
                if not psutil.pid_exists(int(file.read_text() or 0)):
                    break
                time.sleep(_LOOK_SECONDS)
            file.unlink(missing_ok=True)


class OnHosts:
    """The site's own way to run a command on a host, such as ssh; one connection a rank.

    What the rank needs goes through the connection's input, so that no command line shows it.
    """

    def __init__(self, environment: Environment) -> None:
        """Those of the environment.

        Raises:
            UsageError: it does not say how hosts reach this machine.
        """
        if environment.rendezvous_address is None:
            raise UsageError(
                "NIGHTSHIFT_RANK_HOSTS needs NIGHTSHIFT_RENDEZVOUS_ADDRESS: this machine's private "
                "address, at which the ranks on those hosts find each other."
            )
        self._environment = environment
        self._address = environment.rendezvous_address

    @property
    def address(self) -> str:
        """See `Launcher`."""
        return self._address

    def hosts(self, ranks: int) -> Mapping[str, int]:
        """See `Launcher`."""
        hosts = self._environment.hosts
        places_there = sum(hosts.values())
        if places_there < ranks:
            found = f"NIGHTSHIFT_RANK_HOSTS has places for {places_there}"
            raise TooFewPlaces(ranks, found, "name more hosts")
        return hosts

    def left(self, ranks: int) -> Mapping[str, int]:
        """See `Launcher`."""
        told = self.code_hashes()
        own = source_hash()
        # One of other code would have all refused: the others are better off without it.
        well = [name for name, (answers, said) in told.items() if answers and own in said]
        found = {name: self._environment.hosts[name] for name in well}
        if not found:
            says = "; ".join(f"{name}: {said}" for name, (_, said) in told.items())
            raise NightshiftError(
                f"None of the hosts that train has our code, {own}, and can be reached. {says}"
            )
        return found

    def code_hashes(self) -> dict[str, tuple[bool, str]]:
        """Have every host tell the hash of its code.

        Returns:
            By host whether it did so in time, and all that was said: there may be greetings.
        """
        asked = {name: self._run(name, *_CODE_HASH) for name in self._environment.hosts}
        deadline = time.monotonic() + _ANSWER_SECONDS
        told: dict[str, tuple[bool, str]] = {}
        for name, answer in asked.items():
            code = answer.wait(max(0.0, deadline - time.monotonic()))
            answer.kill()
            silence = "it said nothing" if code is not None else "it did not answer in time"
            said = answer.last_words() or silence
            told[name] = (code == 0, said)
        return told

    def prepare(self, folder: Path, places: Sequence[Place], timeout_seconds: float) -> None:
        """See `Launcher`; each is started by itself."""

    def start(self, folder: Path, place: Place) -> Work:
        """See `Launcher`."""
        variables = told_by_variables(self._environment, folder, place)
        request = {
            "folder": str(folder),
            "variables": {**places.address_of_store(os.environ), **variables},
        }
        rank = self._run(place.host, *_ON_HOST)
        rank.tell(json.dumps(request))
        return rank

    def await_end(self, folder: Path, ranks: int) -> None:
        """See `Launcher`; each was waited for when it was killed."""

    def last_words(self, rank: Work) -> str:
        """See `Launcher`."""
        assert isinstance(rank, _Reached)
        return rank.last_words()

    def _run(self, host: str, *arguments: str) -> _Reached:
        words = shlex.split(self._environment.host_command or _SSH)
        if not self._environment.host_command:
            # The shell of the other side takes it apart again.
            words.append(shlex.quote(sys.executable))
        command = [word.replace("{host}", host) for word in words]
        return _Reached([*command, *arguments])


class _Reached:
    """A process of ours that has one run on another host."""

    def __init__(self, command: list[str]) -> None:
        self._said = TemporaryFile()  # noqa: SIM115 - read when the process has ended
        self._last_words = ""
        self._process = subprocess.Popen(
            dying_with_parent(command),
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
        )

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        # One that has ended already tells so by its exit code.
        with suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def wait(self, timeout: float | None = None) -> int | None:
        """See `Work`."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout)
        return None

    def kill(self) -> None:
        """See `Work`; the rank ends when its input does."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        self._process.kill()
        self._process.wait()
        self._last_words = self.last_words()
        self._said.close()

    def last_words(self) -> str:
        """The end of what it has said."""
        if self._said.closed:
            return self._last_words
        end = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, end - _TOLD_BYTES))
        return self._said.read().decode(errors="replace").strip()
