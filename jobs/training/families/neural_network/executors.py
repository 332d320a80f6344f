"""Ranks on the executors of a Spark cluster: a task of one query is a rank."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import TYPE_CHECKING
from uuid import uuid4

from jobs.services.die_with_parent import dying_with_parent
from jobs.services.stage_client import Work
from jobs.spark.server import cores_at_once, running_server
from jobs.spark.session import connect
from jobs.training.families import TooFewPlaces
from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.numbered import NumberedRank
from jobs.training.families.neural_network.on_executor import end_of_output
from jobs.training.families.neural_network.on_host import LEFT_ALONE
from jobs.training.families.neural_network.rendezvous import OF_A_RANK, Place
from jobs.training.families.neural_network.told import told_by_variables
from jobs.training.families.neural_network.wanted import LOST, Line, await_close, reach
from pipelines import places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

_MODULE = "jobs.training.families.neural_network.on_executor"
_PATIENCE_SECONDS = 30
"""Until it is told that a rank waits."""
_START_SECONDS = 600
"""For executors to have a core for each rank."""
_REPLACED_SECONDS = 120
"""For Spark to replace executors that were lost, and to begin where it is not up."""
_LOOK_SECONDS = 0.1
_GONE_SECONDS = 10
"""For a query to end that nobody wants."""
_TOLD_CHARACTERS = 1000
"""Of what Spark says: Java's stack follows."""
_NOT_BEGUN, _BEHIND = "The rank did not begin: ", "(end of what it said)"
"""Around what Spark hands on among its own words."""


class OnExecutors:
    """A query of Spark, each task of which is one rank.

    Horovod's own `horovod.spark.run` is no way here: it needs a classic session of Spark, and what
    its servers receive they unpickle (see `rendezvous`).
    """

    def __init__(self, environment: Environment) -> None:
        """Those of the environment.

        Raises:
            UsageError: there are none, or they could not reach this machine.
        """
        if environment.spark_remote or not environment.spark_master:
            raise UsageError(
                "NIGHTSHIFT_RANK_EXECUTORS=on needs a Spark cluster whose executors have our code: "
                "NIGHTSHIFT_SPARK_MASTER, and no SPARK_REMOTE."
            )
        if environment.rendezvous_address is None:
            raise UsageError(
                "NIGHTSHIFT_RANK_EXECUTORS=on needs NIGHTSHIFT_RENDEZVOUS_ADDRESS: this machine's "
                "private address, at which the ranks on the executors find each other."
            )
        self._environment = environment
        self._address = environment.rendezvous_address
        self._query: _Query | None = None

    @property
    def address(self) -> str:
        """See `Launcher`."""
        return self._address

    def hosts(self, ranks: int) -> Mapping[str, int]:
        """See `Launcher`: Spark finds a core for each."""
        cores = cores_at_once(self._environment)
        if ranks > cores:
            found = (
                f"NIGHTSHIFT_SPARK_CORES takes {cores} cores of the cluster, of which each rank "
                "needs one"
            )
            raise TooFewPlaces(ranks, found, "raise it")
        return {f"task-{number}": 1 for number in range(ranks)}

    def left(self, ranks: int) -> Mapping[str, int]:
        """See `Launcher`: as many as get a core in time, of executors that are left or new ones.

        While ranks are at work none is looked for: what waits for a core there would stand in the
        way of everything that asks that Spark.
        """
        if self._query:
            return self.hosts(self._query.ranks)
        came = _count_that_come(self._environment, self._address, ranks)
        # Of none at all the next ones are waited for as the first were.
        return self.hosts(came or ranks)

    def prepare(self, folder: Path, places: Sequence[Place], timeout_seconds: float) -> None:
        """See `Launcher`: the query, with all its tasks."""
        self._query = _Query(self._environment, self._address, folder, places)

    def start(self, folder: Path, place: Place) -> Work:
        """See `Launcher`."""
        assert self._query is not None, "they are prepared before one is started"
        return NumberedRank(self._query, int(place.variables["HOROVOD_RANK"]))

    def last_words(self, rank: Work) -> str:
        """See `Launcher`."""
        assert isinstance(rank, NumberedRank)
        return rank.last_words()

    def await_end(self, folder: Path, ranks: int) -> None:
        """See `Launcher`."""
        if self._query:
            self._query.end()
            self._query.await_gone()
            self._query = None


class _Tasks:
    """Those of a query that runs beside us, on the Spark that is up or on one of its own."""

    def __init__(
        self,
        environment: Environment,
        count: int,
        work: _BeRanks | _Come,
    ) -> None:
        self.fault = ""
        """Why there are none, or no more; empty: nobody knows."""
        self._tag = f"ranks-{uuid4().hex}"
        self._session: SparkSession | None = None
        # A cluster without a free core has a session wait too.
        self._thread = Thread(
            target=self._run,
            args=(environment, count, work),
            daemon=True,
        )
        self._thread.start()

    @property
    def are_over(self) -> bool:
        """Whether the query has ended, well or not."""
        return not self._thread.is_alive()

    def await_gone(self) -> None:
        """Return when Spark is free of them, or does not get free."""
        self._thread.join(_GONE_SECONDS)
        if self._session and self._thread.is_alive():
            # Such as one on an executor that hangs.
            with suppress(Exception):
                self._session.interruptTag(self._tag)
            self._thread.join(_GONE_SECONDS)

    def _run(self, environment: Environment, count: int, work: _BeRanks | _Come) -> None:
        try:
            with running_server(environment) as server:
                self._session = connect(server)
                # Of this thread alone.
                self._session.addTag(self._tag)
                numbers = self._session.range(0, count, 1, count)
                numbers.mapInArrow(work, "id long").collect()
        except Exception as error:  # of Spark, whatever it is: it is told of ranks that never came
            _, is_ours, said = str(error).partition(_NOT_BEGUN)
            words = said.partition(_BEHIND)[0] if is_ours else str(error)
            self.fault = " ".join(words.split())[:_TOLD_CHARACTERS]


def _count_that_come(environment: Environment, address: str, ranks: int) -> int:
    """How many of so many ranks get a core within the time that Spark has to replace executors."""
    line = Line(address, ranks)
    # Each keeps its core until it was counted, so that none is counted for two. One whose executor
    # is lost meanwhile has none any more: what Spark begins in its place is not held.
    tasks = _Tasks(environment, ranks, _Come(address=address, port=line.port))
    deadline = time.monotonic() + _REPLACED_SECONDS
    try:
        while line.held < ranks and not tasks.are_over and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return line.there
    finally:
        line.close()
        tasks.await_gone()


class _Query:
    """The ranks of an attempt."""

    def __init__(
        self, environment: Environment, address: str, folder: Path, ranks: Sequence[Place]
    ) -> None:
        self.ranks = len(ranks)
        self._folder = folder
        self._address = address
        self._began = time.monotonic()
        self._has_told = False
        self._line = Line(address, self.ranks)
        told = told_by_variables(environment, folder, ranks[0])
        variables = {**places.address_of_store(os.environ), **told}
        work = _BeRanks(
            folder=str(folder),
            port=self._line.port,
            variables={one: value for one, value in variables.items() if one not in OF_A_RANK},
        )
        self._tasks = _Tasks(environment, self.ranks, work)

    def code(self, number: int) -> int | None:
        """Exit code of a rank; None: it has not ended."""
        # Before the line is asked: what a task tells comes before its query ends.
        is_over = self._tasks.are_over
        code = LOST if is_over else None
        if self._line.is_held(number):
            end = self._line.end_of(number)
            code = end.code if end else None
        elif not is_over:
            code = self._patience(number)
        # Whatever became of its executor afterwards: the training was done.
        return 0 if code == LOST and job.has_outcome(self._folder) else code

    def last_words(self, number: int) -> str:
        """What a rank has said last; of one that never came, what Spark says of the query."""
        end = self._line.end_of(number) if self._line.is_held(number) else None
        return (end.said if end else "") or self._tasks.fault

    def end(self) -> None:
        """Want the ranks no longer."""
        self._line.close()

    def await_gone(self) -> None:
        """Return when the ranks are gone, and Spark is free of them."""
        self._tasks.await_gone()

    def _patience(self, number: int) -> int | None:
        waited = time.monotonic() - self._began
        if waited > _PATIENCE_SECONDS and not self._has_told:
            self._has_told = True
            told = f"Rank {number} waits: {self._why_not_there}."
            print(told, file=sys.stderr, flush=True)
        if waited > _START_SECONDS:
            self._tasks.fault = f"within {_START_SECONDS} s {self._why_not_there}"
            return LOST
        return None

    @property
    def _why_not_there(self) -> str:
        return f"no core of the executors was free for it, or none reaches {self._address}"


@dataclass(frozen=True, kw_only=True)
class _Come:
    """Comes for the rank of each number that it gets, and is none."""

    address: str
    port: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["id"].to_pylist():
                if line := reach(self.address, self.port, number):
                    # One that has gone before the stage looks would not be counted.
                    await_close(line)
            yield batch


@dataclass(frozen=True, kw_only=True)
class _BeRanks:
    """Is the rank of each number that it gets; Spark sends it to its workers."""

    folder: str
    port: int
    variables: dict[str, str]

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["id"].to_pylist():
                self._be(number)
            yield batch

    def _be(self, number: int) -> None:
        """Be one rank, in a process of its own: other tasks of this worker need no TensorFlow.

        Raises:
            NightshiftError: it could not begin; Spark tries again, maybe on another executor. What
                becomes of one that has begun goes by its line.
        """
        arguments = [self.folder, str(self.port), str(number)]
        with TemporaryFile() as said:
            done = subprocess.run(
                dying_with_parent([sys.executable, "-m", _MODULE, *arguments]),
                env={**os.environ, **self.variables, **_own_gpus()},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
            )
            if done.returncode not in (0, LEFT_ALONE):
                raise NightshiftError(f"{_NOT_BEGUN}{end_of_output(said)}{_BEHIND}")


def _own_gpus() -> dict[str, str]:
    """The variable of those that Spark has given this task; empty: Spark gives out none."""
    from pyspark import TaskContext

    task = TaskContext.get()
    given = task.resources().get("gpu") if task else None
    return {"CUDA_VISIBLE_DEVICES": ",".join(given.addresses)} if given else {}
