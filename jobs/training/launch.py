"""Starts the ranks of a training on this machine and ends all when one dies or time is up."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.services import stage_client
from jobs.training import job
from jobs.training.rendezvous import rendezvous
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

_FUNCTION = "jobs.training.rank:main"
_LOOK_SECONDS = 0.05
_LINES = 12


def launch(environment: Environment, place: Path, ranks: int, timeout_seconds: float) -> None:
    """Train the job laid out in `place` on that many ranks.

    Raises:
        NightshiftError: a rank died or time was up. No rank is left behind.
    """
    with rendezvous(ranks) as variables:
        running: list[stage_client.Work] = []
        try:
            for environ in variables:  # one by one: what was started before a failure must be ended
                running.append(_start(environment, place, environ))  # noqa: PERF401
            _wait_for_all(running, place, timeout_seconds)
        finally:
            for rank in running:
                rank.kill()


def _start(environment: Environment, place: Path, environ: dict[str, str]) -> stage_client.Work:
    return stage_client.spawn(
        environment, _FUNCTION, {"folder": str(place)}, {**environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    )


def _wait_for_all(
    running: Sequence[stage_client.Work], place: Path, timeout_seconds: float
) -> None:
    # Horovod itself would hang: a rank waits for ever for one that died or that takes fewer steps.
    deadline = time.monotonic() + timeout_seconds
    codes: dict[int, int] = {}
    while len(codes) < len(running):
        for number, rank in enumerate(running):
            code = None if number in codes else rank.wait(_LOOK_SECONDS)
            if code:
                raise NightshiftError(_death(place, number, code))
            if code is not None:
                codes[number] = code
        if time.monotonic() > deadline:
            waiting = [number for number in range(len(running)) if number not in codes]
            raise NightshiftError(
                f"Training was ended after {timeout_seconds:g} s: ranks {waiting} still ran. "
                "Raise Training.timeout_seconds if it needs longer."
            )


def _death(place: Path, number: int, code: int) -> str:
    error = job.error_file(place, number)
    if error.exists():
        told = "\n".join(error.read_text().splitlines()[-_LINES:])
        return f"Rank {number} of the training failed, so all ranks were ended:\n{told}"
    killed = -code if code < 0 else code - 128
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
