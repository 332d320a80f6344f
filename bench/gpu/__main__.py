"""What a training gains by GPUs: `python -m bench.gpu`, on a machine that has some.

Trains the network of flights on drawn rows: on the processor, on a GPU in each precision, and on
all GPUs, with gradients as they are and as 16-bit floats. Of each way it writes the rows a second,
the loss in the end and the most memory of a GPU into `bench/gpu/figures.json`, and whether the same
training gives the same scores again.

`--on-processor` tries the script itself where there is no GPU: its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any, get_args

from bench.large_training import encoding_of_rows, laid_out
from jobs.commands.doctor import horovod_build, seen_gpus
from jobs.training import machine
from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.launch import launch
from jobs.training.shards import Shards
from pipelines.environment import Environment
from pipelines.model import Compression, NeuralNetwork, Precision

_FIGURES = Path(__file__).with_name("figures.json")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS = 7200
_LOOK_SECONDS = 0.5
_MEMORY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One way to train the same network on the same rows."""

    device: str
    """`processor` or `GPU`."""
    ranks: int = 1
    precision: Precision = "float32"
    compression: Compression = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured of a way."""

    rows_per_second: float
    """Of an epoch: the start of libraries is taken off."""
    loss: float
    """Of the last epoch."""
    most_gpu_megabytes: int | None
    """In use of any GPU, by whomever; None: nobody tells."""
    is_repeatable: bool
    """Whether the same training came to the same scores, bit for bit."""


def main() -> int:
    """Measure, print and write the figures; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--into", type=Path, default=_FIGURES)
    parser.add_argument("--on-processor", action="store_true")
    asked = parser.parse_args()
    gpus = seen_gpus()
    if not gpus and not asked.on_processor:
        print("No GPU is seen by nvidia-smi. --on-processor tries the script.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        rows = laid_out(Path(folder) / "rows", asked.rows)
        measured = []
        for way in ways(len(gpus)):
            figures = _measured(Path(folder), way, rows, asked.epochs)
            measured.append({**asdict(way), **asdict(figures)})
            print(json.dumps(measured[-1]), flush=True)
    told = {**_machine(gpus), "rows": asked.rows, "epochs": asked.epochs, "ways": measured}
    asked.into.write_text(f"{json.dumps(told, indent=2)}\n")
    print(f"Written to {asked.into}.")
    return 0


def ways(gpus: int) -> list[Way]:
    """Those that a machine with so many GPUs can be measured in."""
    found = [Way(device="processor")]
    if gpus:
        found += [Way(device="GPU", precision=one) for one in get_args(Precision)]
    if gpus > 1:
        found += [Way(device="GPU", ranks=gpus, compression=one) for one in get_args(Compression)]
    return found


def _measured(home: Path, way: Way, rows: Shards, epochs: int) -> Figures:
    with _seen_devices(way), _memory_watched() as most:
        # The first start reads libraries from a cold disk.
        _, first = _trained(home, way, rows, 1)
        started, again = _trained(home, way, rows, 1)
        seconds, outcome = _trained(home, way, rows, 1 + epochs)
    return Figures(
        rows_per_second=round(epochs * len(rows) / max(seconds - started, 1e-3)),
        loss=outcome.history["loss"][-1],
        most_gpu_megabytes=max(most, default=None),
        is_repeatable=first.scores == again.scores,
    )


def _trained(
    home: Path,
    way: Way,
    rows: Shards,
    epochs: int,
) -> tuple[float, job.Outcome]:
    """Seconds with the start of the ranks, and what came out."""
    network = NeuralNetwork(
        ranks=way.ranks,
        epochs=epochs,
        precision=way.precision,
        compression=way.compression,
        timeout_seconds=_SECONDS,
    )
    with tempfile.TemporaryDirectory(dir=home) as name:
        folder = Path(name)
        work = job.Job(
            task="binary_classification",
            seed=1,
            network=network,
            encoding=encoding_of_rows(),
            fit=rows,
            validation=rows.sample(),
            expected_slope=1.0,
            checkpoint=folder / "checkpoint",
        )
        job.write(folder, work)
        environment = Environment.read({"NIGHTSHIFT_HOME": str(home / "home")})
        began = time.monotonic()
        launch(environment, folder, way.ranks, _SECONDS)
        return time.monotonic() - began, job.read_outcome(folder)


@contextmanager
def _seen_devices(way: Way) -> Iterator[None]:
    """Ranks that are to compute on the processor see no GPU."""
    before = os.environ.get(_VISIBLE)
    try:
        if way.device == "processor":
            os.environ[_VISIBLE] = "-1"
        yield
    finally:
        os.environ.pop(_VISIBLE, None)
        if before is not None:
            os.environ[_VISIBLE] = before


@contextmanager
def _memory_watched() -> Iterator[list[int]]:
    """Megabytes of GPUs that are in use, look by look, while the block lasts."""
    seen: list[int] = []
    over = Event()

    def look() -> None:
        while shutil.which(_MEMORY[0]) and not over.wait(_LOOK_SECONDS):
            asked = subprocess.run(_MEMORY, capture_output=True, text=True, check=False)
            seen.extend(map(int, asked.stdout.split()))

    thread = Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _machine(gpus: Sequence[str]) -> dict[str, Any]:
    built, why = horovod_build()
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpus": list(gpus),
        "gradients_go_by": "NCCL" if gpus and built.get("nccl") else "Gloo",
        "horovod_is_built_with": [name for name, has in built.items() if has] or why,
        "tensorflow": version("tensorflow"),
        **machine.machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
