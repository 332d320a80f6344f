"""Real Horovod: processes that find each other and average their gradients."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest

from jobs.services.stage_client import Work
from jobs.training.families import TIMELINE
from jobs.training.families.neural_network import MODEL, NeuralNetworkFamily, job
from jobs.training.families.neural_network.launch import launch
from jobs.training.families.neural_network.launchers import OnThisMachine
from jobs.training.families.neural_network.network import load
from jobs.training.families.neural_network.rendezvous import Place
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from pipelines.model import NeuralNetwork, Training
from tests.conftest import SOAK
from tests.jobs.training.small import NETWORK, TRAINING, TWIN, data_of, job_of

Weights = list[np.ndarray]
ENDLESS = replace(NETWORK, epochs=100_000)


@pytest.mark.parametrize("ranks", [pytest.param(2, marks=SOAK), 4])
def test_more_ranks_make_the_same_model_dropout_and_all(
    ranked: Environment, tmp_path: Path, ranks: int
) -> None:
    dropping = replace(NETWORK, dropout=0.3, input_dropout=0.3)
    many, together = _train(ranked, tmp_path / "many", dropping, ranks=ranks)
    one, alone = _train(ranked, tmp_path / "one", dropping, ranks=1)
    assert together.steps_per_epoch == alone.steps_per_epoch == 8
    for curve in ("loss", "val_loss"):
        np.testing.assert_allclose(together.history[curve], alone.history[curve], rtol=1e-4)
    assert together.slope == pytest.approx(alone.slope, rel=1e-4)
    for ours, theirs in zip(many, one, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)


def test_accumulated_batches_make_the_model_of_one_large_batch(
    ranked: Environment, tmp_path: Path
) -> None:
    large, whole = _train(ranked, tmp_path / "large", NETWORK, ranks=2)
    parted = replace(NETWORK, batch_size=16, accumulated_batches=4)
    small, in_parts = _train(ranked, tmp_path / "small", parted, ranks=2)
    assert in_parts.steps_per_epoch == whole.steps_per_epoch == 8
    np.testing.assert_allclose(in_parts.history["loss"], whole.history["loss"], rtol=1e-4)
    for ours, theirs in zip(small, large, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-4)


def test_gradients_that_are_sent_as_halves_make_nearly_the_same_model(
    ranked: Environment, tmp_path: Path
) -> None:
    plain, _ = _train(ranked, tmp_path / "plain", NETWORK, ranks=2)
    halves = replace(NETWORK, compression="fp16")
    rounded, outcome = _train(ranked, tmp_path / "halves", halves, ranks=2)
    pairs = list(zip(rounded, plain, strict=True))
    assert any(not np.array_equal(a, b) for a, b in pairs)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert outcome.history["val_loss"][-1] < 0.9 * np.log(2)


@pytest.mark.parametrize(
    "settings",
    [
        replace(NETWORK, precision="mixed_bfloat16"),
        pytest.param(replace(NETWORK, precision="mixed_float16"), marks=SOAK),
        replace(NETWORK, precision="mixed_float16", accumulated_batches=2, batch_size=32),
    ],
)
def test_hidden_layers_of_16_bits_make_nearly_the_same_model_of_32(
    ranked: Environment, tmp_path: Path, settings: NeuralNetwork
) -> None:
    plain, _ = _train(ranked, tmp_path / "plain", NETWORK, ranks=2)
    mixed, outcome = _train(ranked, tmp_path / "mixed", settings, ranks=2)
    pairs = list(zip(mixed, plain, strict=True))
    assert any(not np.array_equal(a, b) for a, b in pairs)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=0.1)
    assert outcome.history["val_loss"][-1] < 0.9 * np.log(2)
    kept = load(tmp_path / "mixed" / MODEL)
    assert {layer.compute_dtype for layer in kept.layers} <= {"float32", "int32"}
    assert {str(weight.dtype) for weight in kept.weights} == {"float32"}


def test_the_timeline_tells_of_each_exchange_when_it_is_asked_for(
    ranked: Environment, tmp_path: Path
) -> None:
    _train(replace(ranked, timeline="on"), tmp_path / "on", NETWORK, ranks=2)
    told = json.loads((tmp_path / "on" / TIMELINE).read_text())
    assert {"NEGOTIATE_ALLREDUCE", "ALLREDUCE"} <= {event.get("name") for event in told}
    _train(ranked, tmp_path / "off", NETWORK, ranks=2)
    assert not (tmp_path / "off" / TIMELINE).exists()


def test_a_variable_of_horovod_reaches_ranks_that_the_stage_server_forks(
    ranked: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server was started before it was set.
    asked_for = tmp_path / "asked for.json"
    monkeypatch.setenv("HOROVOD_TIMELINE", str(asked_for))
    _train(ranked, tmp_path / "job", NETWORK, ranks=2)
    assert asked_for.exists()


def test_a_training_without_validation_days_is_calibrated_as_told(
    ranked: Environment, tmp_path: Path
) -> None:
    kernels = []
    for slope in (None, 0.5):
        folder = tmp_path / str(slope)
        folder.mkdir()
        job.hand_slope(folder, slope)
        told = replace(job_of(), validation=None)
        weights, outcome = _trained(ranked, folder, told, ranks=1)
        assert outcome.slope == slope
        assert "val_loss" not in outcome.history
        kernels.append(weights[-2])
    np.testing.assert_allclose(kernels[1], kernels[0] * 0.5, rtol=1e-6)


def test_ranks_that_are_ready_wait_for_the_slope_of_another_training(
    ranked: Environment, tmp_path: Path
) -> None:
    slope: Future[float | None] = Future()
    data = replace(data_of(), validation=None, calibration=slope)
    ready = threading.Timer(3, slope.set_result, [0.5])
    ready.start()
    fit = NeuralNetworkFamily().fit(data, NETWORK, ranked, tmp_path)
    ready.join()
    assert fit.calibration_slope == 0.5


def test_ranks_that_wait_for_the_slope_of_a_training_that_fails_end_with_it(
    rank_server: tuple[Environment, int], tmp_path: Path
) -> None:
    environment, server = rank_server
    slope: Future[float | None] = Future()
    data = replace(data_of(), validation=None, calibration=slope)
    failing = threading.Timer(3, slope.set_exception, [NightshiftError("came apart")])
    failing.start()
    with pytest.raises(NightshiftError, match="came apart"):
        NeuralNetworkFamily().fit(data, NETWORK, environment, tmp_path)
    _wait_until_childless(server)
    assert not (tmp_path / MODEL).exists()


def test_ranks_of_a_training_that_is_called_off_end(
    rank_server: tuple[Environment, int], tmp_path: Path
) -> None:
    environment, server = rank_server
    called_off = threading.Event()
    nobody_wants_it = threading.Timer(3, called_off.set)
    nobody_wants_it.start()
    with pytest.raises(NightshiftError, match="called off"):
        NeuralNetworkFamily().fit(data_of(), ENDLESS, environment, tmp_path, called_off)
    _wait_until_childless(server)


def test_ranks_to_whom_nobody_hands_a_slope_say_so(ranked: Environment, tmp_path: Path) -> None:
    hasty = replace(NETWORK, timeout_seconds=1)
    job.write(tmp_path, replace(job_of(hasty), validation=None))
    with pytest.raises(NightshiftError, match=r"No slope was handed over in 1 s: .*slope\.json"):
        launch(ranked, tmp_path, ranks=1, timeout_seconds=60)


def test_a_training_that_comes_apart_leaves_no_model(ranked: Environment, tmp_path: Path) -> None:
    wild = job_of()
    wild.fit.label[:] = np.inf
    with pytest.raises(Refused, match=r"^The training came apart: its loss and weights are not"):
        _trained(ranked, tmp_path, wild, ranks=2)
    assert not (tmp_path / MODEL).exists()


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
    assert psutil.Process(server).status() != psutil.STATUS_ZOMBIE, "the stage server died"
    job.write(tmp_path, job_of(ENDLESS))
    ended: list[float] = []
    killer = Thread(target=_kill_one, args=(server, ended))
    killer.start()
    with pytest.raises(
        NightshiftError,
        match=r"Rank \d of the training (was killed by SIGKILL|failed), so all ranks were ended",
    ):
        # Far longer than a busy machine pauses, so that the end of a rank alone ends it sooner.
        launch(environment, tmp_path, ranks=2, timeout_seconds=600)
    killer.join()
    assert time.monotonic() - ended[0] < 60
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
    (tmp_path / "fit" / "shard-00000").write_bytes(b"cut short")
    with pytest.raises(
        NightshiftError,
        match=r"Rank \d of the training failed, so all ranks were ended:\n(.*\n)*.*was cut short",
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
    return _trained(environment, folder, job_of(network, training), ranks)


def _trained(
    environment: Environment, folder: Path, work: job.Job, ranks: int
) -> tuple[Weights, job.Outcome]:
    job.write(folder, work)
    launch(environment, folder, ranks, timeout_seconds=120)
    weights: Weights = load(folder / MODEL).get_weights()
    return weights, job.read_outcome(folder)


def _kill_one(server: int, ended: list[float]) -> None:
    deadline = time.monotonic() + 60
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


def test_ranks_that_hold_different_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras
    import tensorflow as tf

    from jobs.training.families.neural_network import horovod_keras3

    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(1),
        ]
    )
    digests: list[tf.Tensor] = []

    def gather(own: tf.Tensor) -> tf.Tensor:
        """Of four ranks, the third of which holds what it was told before."""
        digests.append(own)
        return tf.concat([own, own, digests[0], own], axis=0)

    monkeypatch.setattr(horovod_keras3.hvd, "allgather", gather)
    horovod_keras3.require_alike(model)
    # One bit of one weight.
    kernel, bias = model.get_weights()
    kernel[1] = np.nextafter(kernel[1], np.float32(9))
    model.set_weights([kernel, bias])
    with pytest.raises(NightshiftError, match=r"weights of ranks \[2\] are not those of rank 0"):
        horovod_keras3.require_alike(model)


def test_a_training_whose_ranks_end_with_different_models_fails(
    ranked: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(job_of(), validation=None)
    folders = {"0": tmp_path / "zero", "1": tmp_path / "one"}
    for slope, folder in zip((0.9, 1.1), folders.values(), strict=True):
        folder.mkdir()
        job.write(folder, known)
        job.hand_slope(folder, slope)
    start = OnThisMachine.start

    def each_its_own(launcher: OnThisMachine, _: Path, place: Place) -> Work:
        return start(launcher, folders[place.variables["HOROVOD_RANK"]], place)

    monkeypatch.setattr(OnThisMachine, "start", each_its_own)
    with pytest.raises(NightshiftError, match=r"Rank \d of the training "):
        launch(ranked, folders["0"], 2, timeout_seconds=120)
    errors = [job.error_file(folder, int(rank)) for rank, folder in folders.items()]
    told = [error.read_text() for error in errors if error.exists()]
    assert told
    assert all("the weights of ranks [1] are not those of rank 0" in one for one in told)
