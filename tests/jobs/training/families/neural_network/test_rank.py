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

from jobs.training.families.neural_network import MODEL, job
from jobs.training.families.neural_network.launch import launch
from jobs.training.families.neural_network.loop import Shares
from jobs.training.families.neural_network.network import load
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.model import NeuralNetwork, Training
from tests.jobs.training.small import NETWORK, TRAINING, TWIN, job_of

Weights = list[np.ndarray]
ENDLESS = replace(NETWORK, epochs=100_000, patience=100_000)


@given(
    rows=st.integers(8, 5000),
    wanted=st.integers(1, 300),
    ranks=st.integers(1, 8),
)
def test_ranks_get_equal_shares_of_nearly_all_rows(rows: int, wanted: int, ranks: int) -> None:
    shares = Shares.of(rows, wanted, ranks)
    used = shares.steps * shares.rows * ranks
    assert shares.rows >= 1
    assert rows - shares.steps * ranks < used <= rows


def test_two_ranks_train_like_one_with_batches_twice_as_large(
    ranked: Environment, tmp_path: Path
) -> None:
    halves = replace(NETWORK, batch_size=64, epochs=2)
    whole = replace(halves, batch_size=128, learning_rate=2 * NETWORK.learning_rate)
    two, together = _train(ranked, tmp_path / "two", halves, ranks=2)
    one, alone = _train(ranked, tmp_path / "one", whole, ranks=1)
    # Too few steps for a warm-up, which one rank does not have.
    assert together.steps_per_epoch == alone.steps_per_epoch == 4
    np.testing.assert_allclose(together.history["loss"], alone.history["loss"], rtol=1e-5)
    for ours, theirs in zip(two, one, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)


def test_the_same_job_gives_the_same_weights_bit_for_bit(
    ranked: Environment, tmp_path: Path
) -> None:
    dropping = replace(NETWORK, dropout=0.3)
    first, _ = _train(ranked, tmp_path / "a", dropping, ranks=2)
    again, _ = _train(ranked, tmp_path / "b", dropping, ranks=2)
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_training_learns_to_tell_classes_apart(ranked: Environment, tmp_path: Path) -> None:
    _, outcome = _train(ranked, tmp_path, NETWORK, ranks=2)
    assert outcome.history["val_loss"][-1] < 0.9 * np.log(2)
    assert outcome.slope is not None


def test_training_learns_numbers(ranked: Environment, tmp_path: Path) -> None:
    _, outcome = _train(ranked, tmp_path, NETWORK, ranks=2, training=TWIN.training)
    variance = float(np.var(job_of(training=TWIN.training).validation.label))
    assert outcome.history["val_loss"][-1] < 0.5 * variance
    assert outcome.slope is None


def test_a_killed_rank_ends_the_training_at_once(
    rank_server: tuple[Environment, int], tmp_path: Path
) -> None:
    environment, server = rank_server
    job.write(tmp_path, job_of(ENDLESS))
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
    job.write(tmp_path, job_of(ENDLESS))
    with pytest.raises(NightshiftError, match=r"ended after 1 s: ranks \[0, 1\] still ran"):
        launch(environment, tmp_path, ranks=2, timeout_seconds=1)
    _wait_until_childless(server)


def test_the_traceback_of_a_rank_is_shown(ranked: Environment, tmp_path: Path) -> None:
    job.write(tmp_path, job_of())
    (tmp_path / "fit_label.npy").write_bytes(b"not an array")
    with pytest.raises(
        NightshiftError,
        match=r"Rank \d of the training failed, so all ranks were ended:\n(.*\n)*.*ValueError",
    ):
        launch(ranked, tmp_path, ranks=2, timeout_seconds=60)


def _train(
    environment: Environment,
    folder: Path,
    network: NeuralNetwork,
    ranks: int,
    training: Training = TRAINING,
) -> tuple[Weights, job.Outcome]:
    folder.mkdir(exist_ok=True)
    job.write(folder, job_of(network, training))
    launch(environment, folder, ranks, timeout_seconds=120)
    weights: Weights = load(folder / MODEL).get_weights()
    return weights, job.read_outcome(folder)


def _kill_one(server: int, ended: list[float]) -> None:
    deadline = time.monotonic() + 30
    ranks = psutil.Process(server).children()
    while len(ranks) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        ranks = psutil.Process(server).children()
    # Until both have joined the ring: a rank that dies before is noticed by its exit code alone.
    time.sleep(2)
    ended.append(time.monotonic())
    ranks[-1].kill()


def _wait_until_childless(server: int) -> None:
    deadline = time.monotonic() + 10
    while psutil.Process(server).children():
        assert time.monotonic() < deadline, "a rank was left behind"
        time.sleep(0.05)
