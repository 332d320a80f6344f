"""Real ranks that are killed in mid-training, and what becomes of the training."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from botocore.exceptions import EndpointConnectionError

from jobs.training import shards
from jobs.training.encoding import SAMPLE_ROWS, Examples
from jobs.training.families.neural_network import (
    MODEL,
    NeuralNetworkFamily,
    checkpoint,
    job,
    launchers,
)
from jobs.training.families.neural_network.launch import RankLost, _kind_of, launch
from jobs.training.families.neural_network.network import load
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.model import NeuralNetwork, Precision
from tests.conftest import SOAK
from tests.jobs.training.families.neural_network import faulty_rank
from tests.jobs.training.small import NETWORK, data_of, environment_at, job_of

EACH_EPOCH: NeuralNetwork = replace(NETWORK, dropout=0.3, checkpoint_seconds=0)


def _fault(monkeypatch: pytest.MonkeyPatch) -> None:
    function = f"{faulty_rank.__name__}:{faulty_rank.killed_once.__name__}"
    monkeypatch.setattr(launchers, "FUNCTION", function)


@pytest.mark.parametrize("precision", ["float32", pytest.param("mixed_float16", marks=SOAK)])
def test_ranks_that_are_killed_go_on_to_the_very_weights_of_an_undisturbed_training(
    ranked: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    settings = replace(EACH_EPOCH, precision=precision)
    weights, outcomes = [], []
    for name in ("undisturbed", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        work = replace(job_of(settings), checkpoint=folder / "checkpoint")
        job.write(folder, work)
        # No stage server is up there: each rank is a process of its own.
        where = ranked if name == "undisturbed" else environment_at(tmp_path)
        launch(where, folder, ranks=2, timeout_seconds=120, restarts=1)
        weights.append(load(folder / MODEL).get_weights())
        outcomes.append(job.read_outcome(folder))
        _fault(monkeypatch)
    assert (tmp_path / "killed" / "was killed").exists()
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert outcomes[1] == outcomes[0]
    assert len(outcomes[1].history["loss"]) == EACH_EPOCH.epochs > 2


def test_the_next_attempt_of_a_night_goes_on_from_the_checkpoint_and_then_it_is_gone(
    ranked: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = replace(EACH_EPOCH, restarts=0, ranks=1)
    alone = environment_at(tmp_path)
    folders = [tmp_path / "first attempt", tmp_path / "second", tmp_path / "undisturbed"]
    for folder in folders:
        folder.mkdir()
    with monkeypatch.context() as faulty:
        _fault(faulty)
        with pytest.raises(NightshiftError, match="killed by SIGKILL"):
            NeuralNetworkFamily().fit(data_of(), once, alone, folders[0])
    (left,) = alone.jobs.iterdir()
    began = _epochs_in(left)
    resumed = NeuralNetworkFamily().fit(data_of(), once, alone, folders[1])
    assert not list(alone.jobs.iterdir())
    undisturbed = NeuralNetworkFamily().fit(data_of(), once, ranked, folders[2])
    assert began == 1
    assert resumed.curves == undisturbed.curves
    np.testing.assert_array_equal(resumed.sample_scores, undisturbed.sample_scores)


def test_a_checkpoint_that_cannot_be_deleted_is_no_reason_to_lose_the_model(
    ranked: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink
    kept = []

    def away(file: Path, missing_ok: bool = False) -> None:
        if file.parent == ranked.jobs:
            kept.append(file)
            raise EndpointConnectionError(endpoint_url="http://store")
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", away)
    fit = NeuralNetworkFamily().fit(data_of(), replace(NETWORK, ranks=1), ranked, tmp_path)
    assert len(kept) == 1
    assert fit.file.exists()


def test_rows_with_another_category_or_number_have_another_checkpoint() -> None:
    """Also beyond the first of many rows, of which a correction has changed one since."""
    data = data_of(rows=4 * SAMPLE_ROWS)
    family = NeuralNetworkFamily()
    digests = {family._digest(data, NETWORK)}
    assert isinstance(data.fit, Examples)
    for name in ("numeric", "categorical", "label"):
        values = getattr(data.fit, name).copy()
        values.flat[-1] += 1
        corrected = replace(data, fit=replace(data.fit, **{name: values}))
        digests.add(family._digest(corrected, NETWORK))
    assert len(digests) == 4
    assert family._digest(data_of(rows=4 * SAMPLE_ROWS), NETWORK) in digests


def test_of_wide_rows_no_more_are_looked_at_at_once_than_a_file_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_once: list[int] = []
    read = Examples.read

    def counting(rows: Examples, first: int, count: int) -> Examples:
        at_once.append(count)
        return read(rows, first, count)

    data = data_of(rows=250)
    row_bytes = 4 * (len(data.encoding.columns) + 1)
    monkeypatch.setattr(Examples, "read", counting)
    monkeypatch.setattr(shards, "SHARD_BYTES", 100 * row_bytes)
    NeuralNetworkFamily()._digest(data, NETWORK)
    assert at_once == [100, 100, 50]


def test_a_checkpoint_that_cannot_be_read_is_dropped_and_the_training_begins_anew(
    ranked: Environment, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.write_bytes(b"PK cut off")
    job.write(tmp_path, replace(job_of(NETWORK), checkpoint=checkpoint))
    launch(ranked, tmp_path, ranks=1, timeout_seconds=120)
    assert len(job.read_outcome(tmp_path).history["loss"]) == NETWORK.epochs
    assert not checkpoint.exists()


class _Busy(type(Path())):  # type: ignore[misc]
    """A file of a store that has no time."""

    def read_bytes(self) -> bytes:
        raise OSError(16, "Please reduce your request rate.")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> keras.Model:
    """A compiled network of one rank."""
    monkeypatch.setattr(checkpoint.hvd, "rank", lambda: 0)
    monkeypatch.setattr(checkpoint.hvd, "broadcast", lambda value, **_: value)
    inputs, last = keras.Input((1,)), keras.layers.Dense(1)
    made = keras.Sequential([inputs, last])
    made.compile("sgd", "mse")
    return made


def test_a_checkpoint_that_cannot_be_read_now_stays_and_the_ranks_are_started_again(
    model: keras.Model, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint"
    _written(file, model)
    busy = checkpoint.Checkpoints(_Busy(file), 0)
    with pytest.raises(job.CheckpointAway, match=r"read now .*reduce your .*deleted") as found:
        busy.restore(model)
    assert _kind_of("".join(traceback.format_exception(found.value))) is RankLost
    # The store has time again.
    assert checkpoint.Checkpoints(file, 0).restore(model) == 3


def test_a_checkpoint_that_cannot_be_written_is_told_and_the_training_goes_on(
    model: keras.Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    _written(tmp_path / "file" / "checkpoint", model)
    assert "checkpoint cannot be written ([Errno 17] File ex" in capfd.readouterr().err


def _written(file: Path, model: keras.Model) -> None:
    """Have the third of many epochs end."""
    kept = checkpoint.Checkpoints(file, 0)
    kept.set_model(model)
    kept.set_params({"epochs": 9})
    kept.curves = {"loss": [3.0, 2.0]}
    kept.on_epoch_end(2, {"loss": 1.0})


def _epochs_in(checkpoint: Path) -> int:
    import json

    with np.load(checkpoint, allow_pickle=False) as kept:
        return len(json.loads(kept["curves"].tobytes())["loss"])
