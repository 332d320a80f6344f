"""A worker of Celery's, without a broker."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from jobs.services import celery_worker
from pipelines.environment import Environment


def test_a_worker_is_well_while_its_heart_beats(home: Environment) -> None:
    started = time.time() - 5
    assert not celery_worker.beats(home, started)
    home.runtime.mkdir(parents=True)
    heart = home.runtime / "worker.heartbeat"
    heart.touch()
    assert celery_worker.beats(home, started)
    # Of the one before it says nothing.
    assert not celery_worker.beats(home, time.time() + 5)
    # Where the clock was put back since, that it beats now is all there is to know.
    assert celery_worker.beats(home, time.time() + 3600)
    os.utime(heart, (time.time() - 60, time.time() - 60))
    assert not celery_worker.beats(home, time.time() - 120)


def test_a_worker_takes_the_queues_of_its_machine(home: Environment) -> None:
    assert not any("--queues" in word for word in celery_worker.arguments(home, []))
    told = celery_worker.arguments(replace(home, queues="default,big"), ["--skip-serve-logs"])
    assert told[:2] == ["celery", "worker"]
    assert "--queues=default,big" in told
    assert told[-1] == "--skip-serve-logs"


def test_workers_of_two_homes_of_a_machine_have_names_of_their_own(
    home: Environment, tmp_path: Path
) -> None:
    other = replace(home, home=tmp_path / "other")
    assert celery_worker.arguments(home, []) != celery_worker.arguments(other, [])
