"""A training by two ranks on two hosts, of which one is lost in the midst of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.launch import launch
from pipelines.environment import Environment
from tests.jobs.training.small import NETWORK, job_of


def train_and_lose(
    environment: Environment,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    left: str,
    lose: Callable[[], None],
) -> job.Job:
    """See the training go on to its end, on the host that is left; gives its job."""
    steady = replace(NETWORK, epochs=150, checkpoint_seconds=0)
    work = replace(job_of(steady), checkpoint=folder / "checkpoint")
    job.write(folder, work)
    was_lost = threading.Event()

    def look() -> None:
        # As soon as there is something to go on from.
        if work.checkpoint.exists() and not was_lost.is_set():
            was_lost.set()
            lose()

    launch(environment, folder, 2, timeout_seconds=240, meanwhile=look, restarts=1)
    assert was_lost.is_set()
    assert f"They are started again, on {left}." in capfd.readouterr().err
    assert len(job.read_outcome(folder).history["loss"]) == steady.epochs
    return work
