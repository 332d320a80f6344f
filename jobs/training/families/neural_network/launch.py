"""Starts the ranks of a training on this machine and ends all when one dies or time is up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.services import stage_client
from jobs.services.for_ranks import for_ranks, without
from jobs.training.families import TIMELINE
from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.rendezvous import rendezvous
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

FUNCTION = "jobs.training.families.neural_network.rank:main"
"""What the stage server forks; it must be among those that it allows."""
_LOOK_SECONDS = 0.05
_LINES = 12
"""Of a traceback that are shown: its end names the error."""
_SHELL_OF_SIGNALS = 128
"""A shell reports a death by signal as this plus its number."""


def launch(
    environment: Environment,
    folder: Path,
    ranks: int,
    timeout_seconds: float,
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Train the job laid out in the folder on that many ranks.

    Args:
        environment: Whose stage server forks them.
        folder: Of the job.
        ranks: How many.
        timeout_seconds: After which all are ended.
        meanwhile: Called again and again while they work; what it raises ends them.

    Raises:
        NightshiftError: a rank died or time was up. No rank is left behind.
    """
    with rendezvous(ranks) as variables:
        running: list[stage_client.Work] = []
        try:
            for environ in variables:  # one by one: what was started before a failure must be ended
                running.append(_start(environment, folder, environ))  # noqa: PERF401
            _wait_for_all(running, folder, timeout_seconds, meanwhile)
        finally:
            for rank in running:
                rank.kill()


def _start(environment: Environment, folder: Path, environ: dict[str, str]) -> stage_client.Work:
    argument = {"folder": str(folder)}
    timeline = {"HOROVOD_TIMELINE": str(folder / TIMELINE)} if environment.timeline == "on" else {}
    variables = {
        "TF_CPP_MIN_LOG_LEVEL": "3",  # quiet, unless a person wants it otherwise
        **without(os.environ),
        **for_ranks(os.environ),
        **timeline,
        **environ,
    }
    return stage_client.spawn(environment, FUNCTION, argument, variables)


def _wait_for_all(
    running: Sequence[stage_client.Work],
    folder: Path,
    timeout_seconds: float,
    meanwhile: Callable[[], None],
) -> None:
    # Horovod itself would hang: a rank waits for ever for one that died or that takes fewer steps.
    deadline = time.monotonic() + timeout_seconds
    waiting = dict(enumerate(running))
    while waiting:
        meanwhile()
        for number, rank in list(waiting.items()):
            code = rank.wait(_LOOK_SECONDS)
            if code:
                raise NightshiftError(_death(folder, number, code))
            if code is not None:
                del waiting[number]
        if waiting and time.monotonic() > deadline:
            raise NightshiftError(
                f"Training was ended after {timeout_seconds:g} s: ranks {list(waiting)} still ran. "
                "Raise NeuralNetwork.timeout_seconds if it needs longer."
            )


def _death(folder: Path, number: int, code: int) -> str:
    error = job.error_file(folder, number)
    if error.exists():
        traceback = "\n".join(error.read_text().splitlines()[-_LINES:])
        return f"Rank {number} of the training failed, so all ranks were ended:\n{traceback}"
    killed = -code if code < 0 else code - _SHELL_OF_SIGNALS
    how = f"killed by {_signal(killed)}" if killed > 0 else f"gone with exit code {code}"
    return (
        f"Rank {number} of the training was {how}, so all ranks were ended. "
        "Out of memory? Train with fewer ranks (NIGHTSHIFT_RANKS) or a shorter window."
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
