from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import encoding
from jobs.training import model as network
from pipelines.days import Days
from tests.jobs.training.small import FIRST, TRAINING, job_of, rows_of


def test_a_missing_value_counts_as_the_mean() -> None:
    work = job_of()
    model = network.build(work.encoding, TRAINING)
    some = work.validation.take(np.arange(4))
    gone, mean = some.numeric.copy(), some.numeric.copy()
    gone[:, 0], mean[:, 0] = np.nan, work.encoding.means[0]
    np.testing.assert_allclose(
        _predict(model, gone, some.categorical), _predict(model, mean, some.categorical), rtol=1e-5
    )


def test_a_value_that_no_row_had_counts_as_the_nearest_that_one_had() -> None:
    work = job_of()
    model = network.build(work.encoding, TRAINING)
    some = work.validation.take(np.arange(4))
    far, further = some.numeric.copy(), some.numeric.copy()
    far[:, 0], further[:, 0] = 50, 5000
    np.testing.assert_array_equal(
        _predict(model, far, some.categorical), _predict(model, further, some.categorical)
    )


def test_a_column_that_never_varied_says_nothing_when_it_does() -> None:
    rows = rows_of(Days.of(FIRST), 200).slice(0, 199)
    learned = encoding.learn(
        rows.set_column(rows.column_names.index("x"), "x", pa.repeat(1.0, len(rows))), TRAINING
    )
    model = network.build(learned, TRAINING)
    some = encoding.encode(rows, learned)
    constant = some.numeric.copy()
    constant[:, 0] = 1
    np.testing.assert_array_equal(
        _predict(model, some.numeric, some.categorical), _predict(model, constant, some.categorical)
    )


def test_an_untrained_model_gives_about_the_base_rate() -> None:
    work = job_of()
    model = network.build(work.encoding, TRAINING)
    given_rates = _predict(model, work.fit.numeric, work.fit.categorical)
    assert given_rates.mean() == pytest.approx(work.encoding.base_rate, abs=0.15)


def test_a_saved_model_gives_the_same_probabilities_and_carries_no_code_of_ours(
    tmp_path: Path,
) -> None:
    work = job_of()
    model = network.build(work.encoding, TRAINING)
    network.prepare(model, TRAINING, steps=4, ranks=2)
    network.save(model, tmp_path / "model.keras")
    loaded = network.load(tmp_path / "model.keras")
    fit = work.fit
    np.testing.assert_array_equal(
        _predict(loaded, fit.numeric, fit.categorical),
        _predict(model, fit.numeric, fit.categorical),
    )
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        modules = _modules(json.loads(archive.read("config.json")))
    assert {name.split(".")[0] for name in modules} <= {"keras", "builtins"}


def test_calibration_becomes_part_of_the_weights() -> None:
    work = job_of()
    model = network.build(work.encoding, TRAINING)
    last = model.get_layer(network.OUTPUT)
    last.set_weights([last.get_weights()[0] * 8, last.get_weights()[1]])
    fit, base = work.fit, network.logit(work.encoding.base_rate)
    before = _predict(model, fit.numeric, fit.categorical)
    slope = network.calibrate(model, work.encoding, work.validation)
    expected = base + slope * (network.logit(before) - base)
    assert slope < 1
    exact = (before > 0.01) & (
        before < 0.99
    )  # nearer to 0 and 1 the floats of `before` are too coarse to compare
    np.testing.assert_allclose(
        network.logit(_predict(model, fit.numeric, fit.categorical))[exact],
        expected[exact],
        atol=1e-3,
    )


@given(st.floats(0.55, 1.9))
def test_the_slope_that_made_the_labels_is_found_again(slope: float) -> None:
    distance = np.linspace(-3, 3, 2001)
    foretold = 1 / (1 + np.exp(-(-1 + slope * distance)))
    assert network.fit_slope(distance, foretold, base=-1.0, trust=1.0) == pytest.approx(
        slope, abs=1e-6
    )
    careful = network.fit_slope(distance, foretold, base=-1.0)
    assert min(slope, 1) - 1e-9 <= careful <= max(slope, 1) + 1e-9


def _predict(model: object, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
    return np.asarray(
        model({"numeric": numeric, "categorical": categorical}, training=False), np.float64
    )[:, 0]  # type: ignore[operator]


def _modules(config: object) -> set[str]:
    if isinstance(config, list):
        return {name for part in config for name in _modules(part)}
    if not isinstance(config, dict):
        return set()
    own = {config["module"]} if isinstance(config.get("module"), str) else set()
    return own | {name for part in config.values() for name in _modules(part)}
