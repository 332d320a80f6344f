"""A host that was lost takes part again when it is back, from a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from botocore.exceptions import EndpointConnectionError

from jobs.services.stage_client import Work
from jobs.training.families.neural_network import job, launch, returning
from jobs.training.families.neural_network.rendezvous import LOOPBACK, Place
from jobs.training.families.neural_network.returning import HostsAreBackError, Returning
from tests.jobs.training.families.neural_network.test_launch import Fake
from tests.jobs.training.small import environment_at, job_of

_ALL = {"one": 1, "two": 1}
_LOST = -9


@dataclass
class Away:
    """A launcher of two hosts, the second of which is away at first."""

    checkpoint: Path
    works: list[Fake]
    """What becomes of the ranks, in the order in which they are started."""
    told: list[Mapping[str, int]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    address: str = LOOPBACK

    def hosts(self, ranks: int) -> Mapping[str, int]:
        return _ALL

    def left(self, ranks: int) -> Mapping[str, int]:
        # First after the loss, then when it was asked whether the host is back.
        is_back = len(self.told) == 1
        self.told.append(_ALL if is_back else {"one": 1})
        return self.told[-1]

    def prepare(self, folder: Path, places: Sequence[Place], timeout_seconds: float) -> None:
        pass

    def start(self, folder: Path, place: Place) -> Work:
        self.started.append(place.host)
        return self.works.pop(0)

    def last_words(self, rank: Work) -> str:
        return ""

    def await_end(self, folder: Path, ranks: int) -> None:
        pass


class Training(Fake):
    """Writes a checkpoint at each look, and never ends."""

    file: Path

    def wait(self, timeout: float | None = None) -> int | None:
        self.file.write_text(f"{self.file.read_text() if self.file.exists() else ''}x")
        return None


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(returning, "_ASK_SECONDS", 0)
    monkeypatch.setattr(returning, "_LOOK_SECONDS", 0)
    work = replace(job_of(), checkpoint=tmp_path / "checkpoint")
    job.write(tmp_path, work)
    return work.checkpoint


def _train(launcher: Away, folder: Path, monkeypatch: pytest.MonkeyPatch, restarts: int) -> None:
    monkeypatch.setattr(launch, "launcher_of", lambda _: launcher)
    launch.launch(environment_at(folder), folder, 2, timeout_seconds=60, restarts=restarts)


def _training(checkpoint: Path) -> Training:
    work = Training(None)
    work.file = checkpoint
    return work


def test_a_host_that_is_back_takes_part_again_from_a_checkpoint(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = _training(checkpoint)
    launcher = Away(
        checkpoint,
        [Fake(None), Fake(_LOST), alone, Fake(0), Fake(0)],
    )
    _train(launcher, checkpoint.parent, monkeypatch, restarts=1)
    assert launcher.started == ["one", "two", "one", "one", "two"]
    assert alone.killed
    assert "Hosts are back: the ranks are started again, on one, two." in capfd.readouterr().err


def test_one_that_is_lost_again_costs_the_others_nothing(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = [
        Fake(None),
        Fake(_LOST),
        _training(checkpoint),
        Fake(None),
        Fake(_LOST),
        Fake(0),
    ]
    launcher = Away(checkpoint, works)
    _train(launcher, checkpoint.parent, monkeypatch, restarts=1)
    assert launcher.started == ["one", "two", "one", "one", "two", "one"]


class Hiccuping:
    """A checkpoint in a store, of which each look gives what comes next, or raises it."""

    def __init__(self, *told: os.stat_result | Exception) -> None:
        self._told = iter(told)

    def stat(self) -> os.stat_result:
        told = next(self._told)
        if isinstance(told, Exception):
            raise told
        return told


def test_a_store_that_cannot_tell_for_a_moment_ends_no_training(
    checkpoint: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    first.write_text("x")
    second = tmp_path / "second"
    second.write_text("xx")
    # Of the errors of a store that is away some are an `OSError`, and some are not.
    away = (TimeoutError("timed out"), EndpointConnectionError(endpoint_url="http://store"))
    seen = Hiccuping(
        first.stat(),
        *away,
        first.stat(),
        *away,
        second.stat(),
    )
    launcher = Away(checkpoint, [])
    beside = Returning(launcher, 2, 1, cast("Path", seen))
    beside._reached = _ALL
    for _ in range(6):
        beside.look()
    # What has been written meanwhile is still noticed.
    with pytest.raises(HostsAreBackError, match="one, two"):
        beside.look()


def test_without_a_checkpoint_nobody_is_started_anew(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 200

    class Brief(Fake):
        def wait(self, timeout: float | None = None) -> int | None:
            nonlocal looks
            looks -= 1
            return None if looks else 0

    launcher = Away(checkpoint, [Fake(None), Fake(_LOST), Brief(None)])
    _train(launcher, checkpoint.parent, monkeypatch, restarts=1)
    assert launcher.started == ["one", "two", "one"]
    assert len(launcher.told) == 2
