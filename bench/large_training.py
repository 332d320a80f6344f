"""How much memory a rank takes of a training that is larger: `python -m bench.large_training`.

Lays rows of the width of flights' out in files, trains a network on them by two ranks of a thread
each, and prints each rank's largest resident memory, the seconds, and the rows a second. Then one
rank alone on half of them, by which the efficiency of two is told: rows a second of each. A rank's
share of a step is the same in both, as where Horovod tells its efficiency. With `--bound` each is
kept to a core, as on a machine of its own: else the threads of a single rank that read ahead and
exchange have the core that the other would have.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from bench.cases.training import LIBRARIES
from jobs.services.own_server import preloaded
from jobs.training import shards
from jobs.training.encoding import Encoding, Examples
from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.launch import launch
from jobs.training.shards import SHARD_ROWS, Shards
from pipelines.environment import Environment
from pipelines.model import NeuralNetwork

_NUMERIC = 50
_VOCABULARIES = {
    "carrier": 16,
    "origin": 3,
    "dest": 105,
    "engine": 4,
    "type": 3,
    "hour": 20,
}
_LOOK_SECONDS = 0.2
_MEGABYTE = 1024 * 1024


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--step-rows", type=int, default=1024, help="of a rank in a step")
    parser.add_argument("--bound", action="store_true", help="keep each rank to a core")
    asked = parser.parse_args()
    encoding = encoding_of_rows()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rows = laid_out(home / "rows", asked.rows)
        size = len(rows) * rows.row_bytes / _MEGABYTE
        print(f"{len(rows):,} rows of {rows.width} words, {size:,.0f} MB", flush=True)
        half = replace(rows, rows=rows.rows[: len(rows.rows) // 2])
        own = Environment.read({"NIGHTSHIFT_HOME": str(home)})
        with preloaded(own, LIBRARIES) as environment:
            two, one = (
                _trained(environment, encoding, taught, ranks, asked)
                for taught, ranks in ((rows, 2), (half, 1))
            )
    print(f"efficiency of two ranks: {two / (2 * one):.2f}")


def _trained(
    environment: Environment,
    encoding: Encoding,
    rows: Shards,
    ranks: int,
    asked: argparse.Namespace,
) -> float:
    """Rows a second, of an epoch."""
    epochs: int = asked.epochs
    folder = environment.home / f"job-{ranks}"
    folder.mkdir()
    shards.conclude(rows)
    network = NeuralNetwork(
        ranks=ranks,
        epochs=epochs,
        batch_size=ranks * asked.step_rows,
        timeout_seconds=36_000,
    )
    work = job.Job(
        task="binary_classification",
        seed=1,
        network=network,
        encoding=encoding,
        fit=rows,
        validation=rows.sample(),
        expected_slope=1.0,
        checkpoint=folder / "checkpoint",
    )
    job.write(folder, work)
    began = time.monotonic()
    with _Watch(ranks if asked.bound else 0) as watch:
        launch(environment, folder, ranks, network.timeout_seconds)
    seconds = time.monotonic() - began
    peaks = ", ".join(f"{peak / _MEGABYTE:,.0f}" for peak in sorted(watch.peaks.values()))
    assert len(watch.bound) == (ranks if asked.bound else 0), watch.bound
    speed = epochs * len(rows) / seconds
    print(
        f"{ranks} ranks: {seconds:.0f} s for {epochs} epochs with their start, {speed:,.0f} rows a "
        f"second; most memory of a rank: {peaks} MB",
        flush=True,
    )
    return speed


class _Watch:
    """The largest resident memory of each process below this one, in bytes, while it lasts.

    Args:
        bound: So many ranks are kept to a core each, of this process's.
    """

    def __init__(self, bound: int) -> None:
        self.peaks: dict[int, int] = {}
        self.bound: set[int] = set()
        self._to_bind = bound
        self._before = set(psutil.Process().children(recursive=True))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            below = psutil.Process().children(recursive=True)
            for process in below:
                # One may have ended meanwhile.
                with suppress(psutil.NoSuchProcess):
                    memory = process.memory_info().rss
                    before = self.peaks.get(process.pid, 0)
                    self.peaks[process.pid] = max(memory, before)
            if self._to_bind and not self.bound:
                with suppress(psutil.NoSuchProcess):
                    self._bind(below)

    def _bind(self, below: Iterable[psutil.Process]) -> None:
        # Of the new processes below, ranks alone start none.
        new = [one for one in below if one not in self._before]
        ranks = [one for one in new if not one.children()]
        if len(ranks) != self._to_bind:
            return
        cores = sorted(os.sched_getaffinity(0))
        for rank, core in zip(ranks, cores, strict=False):
            for thread in rank.threads():
                # Those that it starts from now on inherit that. One may have ended meanwhile.
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, {core})
            self.bound.add(rank.pid)


def laid_out(folder: Path, rows: int) -> Shards:
    """So many drawn rows of the width of flights', in files."""
    draw = np.random.default_rng(1)
    numbers: list[int] = []
    for first in range(0, rows, SHARD_ROWS):
        count = min(SHARD_ROWS, rows - first)
        shards.write_file(folder, len(numbers), _drawn(draw, count))
        numbers.append(count)
    return shards.conclude(
        Shards(
            folder=folder,
            rows=tuple(numbers),
            numeric=_NUMERIC,
            categorical=len(_VOCABULARIES),
        )
    )


def _drawn(draw: np.random.Generator, rows: int) -> Examples:
    numeric = draw.normal(size=(rows, _NUMERIC)).astype(np.float32)
    first = 0
    columns = []
    for known in _VOCABULARIES.values():
        columns.append(draw.integers(first, first + known + 1, rows, np.int32))
        first += known + 1
    share = 1 / (1 + np.exp(1.5 - numeric[:, 0]))
    is_late = draw.random(rows) < share
    return Examples(
        numeric=numeric,
        categorical=np.stack(columns, axis=1),
        label=is_late.astype(np.float32),
    )


def encoding_of_rows() -> Encoding:
    """What their columns are."""
    names = tuple(f"number_{one}" for one in range(_NUMERIC))
    vocabularies = {}
    for name, known in _VOCABULARIES.items():
        vocabularies[name] = tuple(map(str, range(known)))
    return Encoding(
        numeric=names,
        vocabularies=vocabularies,
        means=(0.0,) * _NUMERIC,
        variances=(1.0,) * _NUMERIC,
        lows=(-4.0,) * _NUMERIC,
        highs=(4.0,) * _NUMERIC,
        indicators=(),
        label_mean=0.25,
    )


if __name__ == "__main__":
    main()
