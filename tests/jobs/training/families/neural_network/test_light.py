from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.training.encoding import ENCODING, encode
from jobs.training.families.light import EXACT, QUANTISED, Model
from jobs.training.families.neural_network import Network, NeuralNetworkFamily, network
from jobs.training.metrics import Vector
from jobs.training.proof import PARITY
from jobs.training.scoring import Scorer
from pipelines.days import Days
from pipelines.model import NeuralNetwork, Training
from tests.jobs.training import small

FAMILY = NeuralNetworkFamily()
ROWS = small.rows_of(Days.of(small.FIRST), per_day=3000)
ODD = small.rows_of(Days.of(small.FIRST), per_day=3000, seed=3)
_PLACES = st.integers(0, len(ROWS) - 1)
TASKS = [pipeline.training for pipeline in small.PIPELINES]
NUMBERS = [replace(training, categorical=()) for training in TASKS]
"""They read no category."""
WIDE = NeuralNetwork(hidden=(128, 64), embedding_size=8)


def _light(training: Training, folder: Path) -> dict[str, Model]:
    small.save_network(training, folder)
    return {
        "trained": Network(keras_model=network.load(folder / "model.keras")),
        EXACT: FAMILY.light.load(folder, EXACT),
        QUANTISED: FAMILY.light.load(folder, QUANTISED),
    }


def _says(model: Model, training: Training) -> Vector:
    encoding = small.data_of(training).encoding
    odd = ODD.set_column(
        ODD.column_names.index("oven"),
        "oven",
        [["attic"] * len(ODD)],
    )
    examples = [encode(rows, encoding) for rows in (ROWS, odd)]
    return np.concatenate([model.score(one) for one in examples])


@pytest.mark.parametrize("training", [*TASKS, *NUMBERS])
def test_the_light_network_says_what_the_trained_one_does(
    training: Training, tmp_path: Path
) -> None:
    light = _light(training, tmp_path)
    trained = _says(light["trained"], training)
    assert len(np.unique(trained)) > 5000, "the rows differ"
    apart = np.abs(_says(light[EXACT], training) - trained)
    assert apart.max() <= PARITY * max(1.0, np.abs(trained).max())


def test_rounded_weights_are_a_third_in_size_and_nearly_as_good(tmp_path: Path) -> None:
    training = small.learned_by(small.SMALL, WIDE).training
    light = _light(training, tmp_path)
    sizes = {}
    for name, file in FAMILY.light.files.items():
        sizes[name] = (tmp_path / file).stat().st_size
    assert sizes[QUANTISED] < 0.5 * sizes[EXACT]
    trained = _says(light["trained"], training)
    apart = np.abs(_says(light[QUANTISED], training) - trained)
    assert 0 < apart.mean() < 0.02


def test_it_is_scored_without_tensorflow(tmp_path: Path) -> None:
    small.save_network(small.TRAINING, tmp_path)
    (tmp_path / ENCODING).write_text(small.data_of().encoding.to_json())
    program = (
        "import sys; from pathlib import Path; from jobs.training import scoring\n"
        "from jobs.training.families import family_of\n"
        f"scorer = scoring.load_from(Path({str(tmp_path)!r}), family_of('neural_network'))\n"
        "import pyarrow as pa\n"
        "row = {'x': [1.0], 'gappy': [None], 'noise': [0.0], 'line': ['AA'], 'oven': ['north']}\n"
        "print(float(scorer.score(pa.table(row))[0]), 'tensorflow' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    score, has_tensorflow = told.stdout.split()
    assert 0 < float(score) < 1
    assert has_tensorflow == "False"
    assert told.stderr == ""


def test_many_threads_get_each_its_own_scores(tmp_path: Path) -> None:
    light = _light(small.TRAINING, tmp_path)[EXACT]
    rows = encode(ROWS, small.data_of().encoding)
    every = light.score(rows)

    def one(place: int) -> bool:
        alone = light.score(rows.take(np.array([place])))
        return bool(np.abs(alone[0] - every[place]) < PARITY)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(one, range(400)))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tmp_path_factory.mktemp("network")
    small.save_network(small.TRAINING, folder)
    return Scorer(
        model=FAMILY.light.load(folder, EXACT),
        encoding=small.data_of().encoding,
    )


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(_PLACES, min_size=1, max_size=6000))
def test_a_score_is_the_same_bits_wherever_its_row_stands(scorer: Scorer, rows: list[int]) -> None:
    every = scorer.score(ROWS)
    np.testing.assert_array_equal(scorer.score(ROWS.take(rows)), every[rows])
