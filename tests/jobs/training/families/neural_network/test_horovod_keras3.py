"""The Keras 3 module on two real ranks, with any optimizer: what it may do with gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from jobs.training.families.neural_network.rendezvous import rendezvous
from pipelines.environment import ROOT

PROGRAM = "tests.jobs.training.families.neural_network.two_ranks"
_SECONDS = 240
Weights = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The weights after each way of training, all by the same two ranks."""
    file = tmp_path_factory.mktemp("ranks") / "weights.npz"
    with rendezvous(2) as variables:
        ranks: list[subprocess.Popen[bytes]] = []
        for own in variables:
            known = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **own}
            program = [sys.executable, "-m", PROGRAM, str(file)]
            ranks.append(subprocess.Popen(program, env=known))
        try:
            codes = [rank.wait(timeout=_SECONDS) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
    assert codes == [0, 0]
    loaded: Weights = np.load(Path(file))
    return loaded


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
def test_compressed_gradients_train_nearly_the_same(trained: Weights, optimizer: str) -> None:
    rounded, plain = _of(trained, f"{optimizer}/fp16"), _of(trained, f"{optimizer}/plain")
    assert not np.array_equal(rounded, plain), "nothing was rounded: it was not compressed"
    # Adam takes a step of a size of its own where a gradient is all but nothing.
    np.testing.assert_allclose(rounded, plain, atol=2e-3)
