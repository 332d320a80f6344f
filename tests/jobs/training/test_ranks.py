"""Real Horovod: processes that find each other and average their gradients."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import job
from jobs.training.launch import launch
from jobs.training.loop import Shares
from jobs.training.model import load
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from tests.jobs.training.small import TRAINING, job_of

Weights = list[np.ndarray]


@given(st.integers(8, 5000), st.integers(1, 300), st.integers(1, 8))
def test_ranks_get_equal_shares_of_nearly_all_rows(rows: int, wanted: int, ranks: int) -> None:
    shares = Shares.of(rows, wanted, ranks)
    used = shares.steps * shares.rows * ranks
    assert shares.rows >= 1
    assert rows - shares.steps * ranks < used <= rows


def test_two_ranks_train_like_one_with_batches_twice_as_large(
    ranked: Environment, tmp_path: Path
) -> None:
    two, told = _train(ranked, tmp_path / "two", ranks=2, batch_size=64, epochs=2)
    one, alone = _train(
        ranked,
        tmp_path / "one",
        ranks=1,
        batch_size=128,
        epochs=2,
        learning_rate=2 * TRAINING.learning_rate,
    )
    assert (
        told.steps_per_epoch == alone.steps_per_epoch == 4
    )  # too few for a warm-up, which one rank does not have
    np.testing.assert_allclose(told.history["loss"], alone.history["loss"], rtol=1e-5)
    for ours, theirs in zip(two, one, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)


def test_the_same_job_gives_the_same_weights_bit_for_bit(
    ranked: Environment, tmp_path: Path
) -> None:
    first, _ = _train(ranked, tmp_path / "a", ranks=2, dropout=0.3)
    again, _ = _train(ranked, tmp_path / "b", ranks=2, dropout=0.3)
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_training_learns(ranked: Environment, tmp_path: Path) -> None:
    _, told = _train(ranked, tmp_path, ranks=2)
    assert told.history["val_loss"][-1] < 0.9 * np.log(2)


def test_a_killed_rank_ends_the_training_at_once(
    rank_server: tuple[Environment, int], tmp_path: Path
) -> None:
    environment, server = rank_server
    endless = replace(TRAINING, epochs=100_000, patience=100_000)
    job.write(tmp_path, job_of(endless))
    ended: list[float] = []
    killer = Thread(target=_kill_one, args=(server, ended))
    killer.start()
    with pytest.raises(
        NightshiftError,
        match=r"Rank \d of the training (was killed by SIGKILL|failed), so all ranks were ended",
    ):
        launch(environment, tmp_path, ranks=2, timeout_seconds=60)
    killer.join()
    assert time.monotonic() - ended[0] < 5
    _wait_until_childless(server)


def test_a_training_over_its_time_is_ended(
    rank_server: tuple[Environment, int], tmp_path: Path
) -> None:
    environment, server = rank_server
    job.write(tmp_path, job_of(replace(TRAINING, epochs=100_000, patience=100_000)))
    with pytest.raises(NightshiftError, match=r"ended after 1 s: ranks \[0, 1\] still ran"):
        launch(environment, tmp_path, ranks=2, timeout_seconds=1)
    _wait_until_childless(server)


def test_the_traceback_of_a_rank_is_told(ranked: Environment, tmp_path: Path) -> None:
    job.write(tmp_path, job_of())
    (tmp_path / "fit_label.npy").write_bytes(b"not an array")
    with pytest.raises(
        NightshiftError,
        match=r"Rank \d of the training failed, so all ranks were ended:\n(.*\n)*.*ValueError",
    ):
        launch(ranked, tmp_path, ranks=2, timeout_seconds=60)


def _train(
    environment: Environment, place: Path, ranks: int, **changes: object
) -> tuple[Weights, job.Outcome]:
    place.mkdir(exist_ok=True)
    (place / job.MODEL).unlink(missing_ok=True)
    job.write(place, job_of(replace(TRAINING, **changes)))  # type: ignore[arg-type]
    launch(environment, place, ranks, timeout_seconds=120)
    weights: Weights = load(place / job.MODEL).get_weights()
    return weights, job.read_outcome(place)


def _kill_one(server: int, ended: list[float]) -> None:
    deadline = time.monotonic() + 30
    while len(ranks := psutil.Process(server).children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    ended.append(time.monotonic())
    ranks[-1].kill()


def _wait_until_childless(server: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.Process(server).children():
        assert time.monotonic() < deadline, "a rank was left behind"
        time.sleep(0.05)
