"""The Keras 3 module on two real ranks, with any optimizer: what it may do with gradients."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import horovod.tensorflow as hvd
import keras
import numpy as np
import pytest
import tensorflow as tf

from jobs.training.families.neural_network import horovod_keras3
from jobs.training.families.neural_network.horovod_keras3 import HOST, _Exchange
from jobs.training.families.neural_network.rendezvous import HERE, LOOPBACK, rendezvous
from pipelines.environment import ROOT
from tests.jobs.training.families.neural_network.two_ranks import GATHERED

PROGRAM = "tests.jobs.training.families.neural_network.two_ranks"
_SECONDS = 240
Weights = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The weights after each way of training, all by the same two ranks."""
    file = tmp_path_factory.mktemp("ranks") / "weights.npz"
    _run_on_two_ranks(file.parent, "-m", PROGRAM, str(file))
    loaded: Weights = np.load(Path(file))
    return loaded


def _run_on_two_ranks(folder: Path, *words: str) -> None:
    known = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(horovod_keras3.__file__).parent}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with rendezvous({HERE: 2}, 2, LOOPBACK) as places:
        ranks: list[subprocess.Popen[bytes]] = []
        for place in places:
            variables = {**known, **place.variables}
            rank = subprocess.Popen([sys.executable, *words], env=variables, cwd=folder)
            ranks.append(rank)
        try:
            codes = [rank.wait(timeout=_SECONDS) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
    assert codes == [0, 0]


def test_the_example_of_the_docs_runs_and_its_model_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/horovod.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "train.py").write_text(program)
    _run_on_two_ranks(tmp_path, "train.py")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert type(model.optimizer) is keras.optimizers.AdamW


FIRST, SECOND = "0000:3b:00.0", "0000:86:00.0"
"""Where GPUs of a host sit."""
BOTH = (FIRST, SECOND)


def _driver(places: Sequence[str]) -> SimpleNamespace:
    """CUDA's, of a process that sees GPUs at these places."""

    def get(device: Any, number: int) -> None:
        # What the reference leads to.
        device._obj.value = number

    def tell(place: Any, size: int, device: ctypes.c_int) -> None:
        told = places[device.value].encode()
        assert len(told) < size
        place.value = told

    return SimpleNamespace(cuInit=lambda flags: None, cuDeviceGet=get, cuDeviceGetPCIBusId=tell)


@dataclass(frozen=True, kw_only=True)
class _Rank:
    """One, as far as GPUs go."""

    host: str = "one"
    places: tuple[str, ...] = (FIRST,)
    """Of the GPUs that it sees."""
    own: int = 0
    """Number of the one that it has taken."""


ONE = _Rank()
LIKE_ONE = _Rank(places=BOTH)
OTHER = _Rank(places=BOTH, own=1)
LIKE_OTHER = _Rank(places=(SECOND,))
"""As in a Pod, or of a task to which Spark gives one GPU."""
ELSEWHERE = _Rank(host="two")
WITHOUT = _Rank(places=())
UNTOLD = _Rank(places=("",))
"""As of a driver that does not say."""


@pytest.mark.parametrize(
    ("has_nccl", "ranks", "device"),
    [
        (False, [ONE, LIKE_ONE], ""),
        (True, [ONE], ""),
        (True, [LIKE_ONE, OTHER], ""),
        (True, [ONE, LIKE_OTHER], ""),
        (True, [ONE, ELSEWHERE], ""),
        # As on executors to which Spark gives none.
        (True, [LIKE_ONE, LIKE_ONE], HOST),
        (True, [ONE, LIKE_ONE], HOST),
        (True, [OTHER, LIKE_OTHER], HOST),
        (True, [ONE, ELSEWHERE, LIKE_ONE], HOST),
        (True, [ONE, WITHOUT], HOST),
        (True, [WITHOUT, ONE], HOST),
        (True, [WITHOUT], HOST),
        (True, [UNTOLD], HOST),
    ],
)
def test_gradients_go_by_nccl_where_each_rank_has_a_gpu_of_its_own(
    has_nccl: bool,
    ranks: list[_Rank],
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hvd, "nccl_built", lambda: has_nccl)
    told = [_told_by(rank, tmp_path, monkeypatch) for rank in ranks]
    of_all = tf.constant([list(one) for one in told], tf.uint8)
    monkeypatch.setattr(hvd, "allgather", lambda own: of_all)
    for rank in ranks:
        _be(rank, tmp_path, monkeypatch)
        assert horovod_keras3.gradients_meet_on() == device


def _be(rank: _Rank, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boot = folder / "boot_id"
    boot.write_text(rank.host)
    monkeypatch.setattr(horovod_keras3, "_BOOT", boot)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: _driver(rank.places))
    seen = [SimpleNamespace(name=f"/physical_device:GPU:{rank.own}")] if rank.places else []
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: seen)


def _told_by(rank: _Rank, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What the others hear of it."""
    told: list[Any] = []

    def gathered(own: Any) -> Any:
        told.append(own.numpy())
        return own

    _be(rank, folder, monkeypatch)
    monkeypatch.setattr(hvd, "allgather", gathered)
    horovod_keras3.gradients_meet_on()
    # Without NCCL nobody is asked.
    return told[0].tobytes() if told else b"-"


def _of(trained: Weights, way: str) -> np.ndarray:
    names = sorted(name for name in trained if name.startswith(f"{way}/"))
    return np.concatenate([np.ravel(trained[name]) for name in names])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_accumulated_batches_train_like_one_batch_of_so_many_times_the_rows(
    trained: Weights, optimizer: str
) -> None:
    ours = _of(trained, f"{optimizer}/accumulated")
    np.testing.assert_allclose(ours, _of(trained, f"{optimizer}/plain"), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_large_table_is_exchanged_by_the_rows_that_were_looked_up(
    trained: Weights, optimizer: str
) -> None:
    np.testing.assert_array_equal(
        _of(trained, f"{optimizer}/by_rows"), _of(trained, f"{optimizer}/plain")
    )
    by_rows = _gathered(trained, optimizer, "by_rows")
    assert by_rows > 0, "the table was exchanged whole"
    assert by_rows % 3 == 0, "how many rows, which, and what is added to each"
    for whole in ("plain", "accumulated", "fp16", "of_a_small_table"):
        assert _gathered(trained, optimizer, whole) == 0


def test_rows_of_ranks_are_added_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = tf.constant([2, 1, 3])
    rows = tf.constant([1, 4, 1, 4, 1, 0])
    values = [0.1, 2.0, 1e7, 0.3, 0.7, 5.0]
    sums = tf.reshape(tf.constant(values), (-1, 1))
    gathered = iter([counts, rows, sums])
    monkeypatch.setattr(hvd, "allgather", lambda _: next(gathered))
    monkeypatch.setattr(hvd, "size", lambda: 3)
    exchange = _Exchange(hvd.Compression.none, "", looked_up=3)
    table = tf.Variable(tf.zeros((40, 1)))
    own = tf.IndexedSlices(sums[:2], rows[:2], table.shape)
    (mean,) = exchange.averaged([own], [table])
    shares = sums.numpy() / np.float32(3)
    expected = np.zeros((40, 1), np.float32)
    for row, share in zip(rows.numpy(), shares, strict=True):
        expected[row] += share
    np.testing.assert_array_equal(mean.numpy(), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_rows_are_compressed_as_whole_gradients_are(trained: Weights, optimizer: str) -> None:
    rounded, plain = _of(trained, f"{optimizer}/by_rows_fp16"), _of(trained, f"{optimizer}/plain")
    assert not np.array_equal(rounded, plain), "nothing was rounded: it was not compressed"
    np.testing.assert_allclose(rounded, plain, atol=2e-3)


def _gathered(trained: Weights, optimizer: str, way: str) -> int:
    return int(trained[f"{GATHERED}/{optimizer}/{way}"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_compressed_gradients_train_nearly_the_same(trained: Weights, optimizer: str) -> None:
    rounded, plain = _of(trained, f"{optimizer}/fp16"), _of(trained, f"{optimizer}/plain")
    assert not np.array_equal(rounded, plain), "nothing was rounded: it was not compressed"
    # Adam takes a step of a size of its own where a gradient is all but nothing.
    np.testing.assert_allclose(rounded, plain, atol=2e-3)
