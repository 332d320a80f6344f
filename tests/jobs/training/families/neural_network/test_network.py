from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest

from jobs.training import encoding
from jobs.training.encoding import Examples
from jobs.training.families.neural_network import network
from jobs.training.families.neural_network.dropout import SharedDropout
from jobs.training.families.neural_network.job import Job
from jobs.training.tasks import LearningTask, task_of
from pipelines.days import Days
from pipelines.model import Training
from tests.jobs.training.small import (
    FIRST,
    NETWORK,
    TRAINING,
    TWIN,
    job_of,
    rows_of,
    with_column,
)

BINARY = task_of("binary_classification")
_TASKS = (TRAINING, TWIN.training)
BOTH_TASKS = pytest.mark.parametrize(
    "training",
    [*_TASKS, *(replace(one, categorical=()) for one in _TASKS)],
    ids=[
        "binary_classification",
        "regression",
        "binary_classification of numbers",
        "regression of numbers",
    ],
)
"""Each with categories, and without."""


def test_a_missing_value_counts_as_the_mean() -> None:
    job = job_of()
    model = _build(job)
    _unsettle(model)
    some = job.fit.take(np.arange(4))
    gone = _with_first_number(some, np.nan)
    mean = _with_first_number(some, job.encoding.means[0])
    np.testing.assert_allclose(_predict(model, gone), _predict(model, mean), rtol=1e-5)


def test_a_value_that_no_row_had_counts_as_the_nearest_that_one_had() -> None:
    job = job_of()
    model = _build(job)
    _unsettle(model)
    some = job.fit.take(np.arange(4))
    far = _with_first_number(some, 50)
    further = _with_first_number(some, 5000)
    np.testing.assert_array_equal(_predict(model, far), _predict(model, further))


def test_rows_of_many_categories_are_scored_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One-hot they would take rows x columns x categories: tens of gigabytes of a validation."""
    job = job_of()
    model = _build(job)
    _unsettle(model)
    whole = network.scores(model, job.fit)
    at_once: list[int] = []

    class Watched:
        get_layer = model.get_layer

        def __call__(self, given: Mapping[str, np.ndarray], training: bool) -> object:
            at_once.append(len(given["numeric"]))
            return model(given, training=training)

    width = 2 * job.encoding.embedding_rows
    monkeypatch.setattr(network, "_MOST_ONE_HOT", 200 * width)
    np.testing.assert_allclose(network.scores(Watched(), job.fit), whole, rtol=1e-6)
    assert at_once == [200, 200, 112]


def test_an_input_that_a_day_shares_moves_a_prediction_by_less() -> None:
    job = job_of()
    shared = replace(job.encoding, shared=("x",))
    plain = network.build(job.encoding, NETWORK, BINARY)
    held_back = network.build(shared, NETWORK, BINARY)
    _unsettle(plain)
    held_back.set_weights(plain.get_weights())
    some = job.fit.take(np.arange(200))
    weighted = job.encoding.means[0] + NETWORK.shared_weight * (
        some.numeric[:, 0] - job.encoding.means[0]
    )
    numeric = some.numeric.copy()
    numeric[:, 0] = weighted
    nearer = replace(some, numeric=numeric)
    # Within the bounds, beyond which a value counts as the nearest that one had.
    usual = np.abs(some.numeric[:, 0]) < 2
    expected = _predict(plain, nearer)
    np.testing.assert_allclose(_predict(held_back, some)[usual], expected[usual], rtol=1e-4)


def test_a_column_that_never_varied_says_nothing_when_it_does() -> None:
    rows = rows_of(Days.of(FIRST), 200).slice(0, 199)
    constant = with_column(rows, "x", pa.repeat(1.0, len(rows)))
    learned = encoding.learn(constant, TRAINING)
    model = network.build(learned, NETWORK, BINARY)
    _unsettle(model)
    varied = _predict(model, encoding.encode(rows, learned))
    np.testing.assert_array_equal(varied, _predict(model, encoding.encode(constant, learned)))


def test_an_untrained_classifier_gives_about_the_base_rate() -> None:
    keras.utils.set_random_seed(1)
    job = job_of()
    predictions = _predict(_build(job), job.fit)
    np.testing.assert_allclose(predictions, job.encoding.label_mean, rtol=1e-5)


def test_an_untrained_regression_gives_numbers_of_the_labels_size() -> None:
    keras.utils.set_random_seed(1)
    job = job_of(training=TWIN.training)
    predictions = _predict(_build(job), job.fit)
    deviations = (predictions - job.encoding.label_mean) / job.encoding.label_scale
    assert np.abs(deviations.mean()) < 1
    assert job.encoding.label_mean == pytest.approx(45, abs=5)


@BOTH_TASKS
def test_a_saved_model_gives_the_same_predictions_and_carries_no_code_of_ours(
    training: Training, tmp_path: Path
) -> None:
    job = job_of(training=training)
    model = _build(job)
    _unsettle(model)
    network.compile_for(model, job.network, task_of(job.task), steps=4)
    network.save(model, tmp_path / "model.keras")
    loaded = network.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(_predict(loaded, job.fit), _predict(model, job.fit))
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        modules = set(_modules(json.loads(archive.read("config.json"))))
    assert {name.split(".")[0] for name in modules} <= {"keras", "builtins"}


def test_a_file_that_would_run_code_of_its_own_is_refused_and_runs_none(tmp_path: Path) -> None:
    ran, file = tmp_path / "ran", tmp_path / "model.keras"
    place = str(ran)
    given = keras.Input((2,), name="numeric")
    # Keras keeps the bytes of a lambda's code, and runs it when it builds the model.
    planted = keras.layers.Lambda(
        lambda numbers: (__import__("pathlib").Path(place).touch(), numbers)[1]
    )
    keras.Model(given, planted(given)).save(file)
    ran.unlink()
    with pytest.raises((TypeError, ValueError), match="lambda.*arbitrary code"):
        network.load(file)
    assert not ran.exists()
    # It is no blank: whoever does not ask for safety has run it.
    keras.saving.load_model(file, safe_mode=False)
    assert ran.exists()


def test_calibration_becomes_part_of_the_weights() -> None:
    job = job_of()
    model = _build(job)
    last = model.get_layer(BINARY.unit)
    kernel, bias = last.get_weights()
    overconfident = 8 * np.random.default_rng(1).normal(size=kernel.shape)
    last.set_weights([overconfident, bias])
    base = BINARY.link(job.encoding.label_mean)
    before = _predict(model, job.fit)
    slope = _slope(model, job, BINARY)
    assert slope is not None
    assert slope < 1
    network.stretch(model, job.encoding, BINARY, slope)
    expected = base + slope * (BINARY.link(before) - base)
    after = BINARY.link(_predict(model, job.fit))
    # Nearer to 0 and 1 the floats of `before` are too coarse to compare.
    exact = (before > 0.01) & (before < 0.99)
    np.testing.assert_allclose(after[exact], expected[exact], atol=1e-3)


def test_a_regression_is_left_as_it_is() -> None:
    job = job_of(training=TWIN.training)
    assert _slope(_build(job), job, task_of(job.task)) is None


@BOTH_TASKS
def test_the_saved_network_says_what_the_trained_one_does_and_leaves_nothing_out(
    training: Training,
) -> None:
    job = job_of(training=training)
    task = task_of(job.task)
    dropping = replace(NETWORK, dropout=0.5, input_dropout=0.5)
    trained = network.build(
        job.encoding, dropping, task, lambda share: SharedDropout(share, 1, 0, 1)
    )
    _unsettle(trained)
    scoring = network.as_it_scores(trained, job.encoding, dropping, task)
    # Sums of the same numbers, in another order.
    of_scoring = task.link(_predict(scoring, job.fit))
    of_trained = task.link(_predict(trained, job.fit))
    np.testing.assert_allclose(of_scoring, of_trained, atol=1e-3)
    kinds = {type(layer).__name__ for layer in scoring.layers}
    assert not kinds & {"SharedDropout", "Dropout"}
    assert scoring.count_params() == _build(job).count_params()


def _unsettle(model: keras.Model) -> None:
    """Give every unit something to say: the last one begins with zeros."""
    draw = np.random.default_rng(1)
    for weights in model.trainable_variables:
        weights.assign(draw.normal(size=weights.shape))


def _slope(model: keras.Model, job: Job, task: LearningTask) -> float | None:
    assert job.validation is not None
    assert isinstance(job.validation, Examples)
    distance, label = network.distances(model, job.encoding, task, job.validation)
    return task.calibration_slope(distance, label, task.link(job.encoding.label_mean), 1.0)


def _build(job: Job) -> keras.Model:
    return network.build(job.encoding, job.network, task_of(job.task))


def _with_first_number(examples: Examples, value: float) -> Examples:
    numeric = examples.numeric.copy()
    numeric[:, 0] = value
    return replace(examples, numeric=numeric)


def _predict(model: keras.Model, examples: Examples) -> np.ndarray:
    outputs = model(network.inputs(examples), training=False)
    return np.asarray(outputs, np.float64)[:, 0]


def _modules(config: object) -> Iterator[str]:
    if isinstance(config, list):
        for part in config:
            yield from _modules(part)
    if isinstance(config, dict):
        if isinstance(config.get("module"), str):
            yield config["module"]
        yield from _modules(list(config.values()))


@pytest.mark.parametrize("steps", [1, 9, 10, 57])
def test_rates_are_those_of_the_schedule_of_keras(steps: int) -> None:
    warmup = steps // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=max(1, steps - warmup),
        warmup_target=3e-3,
        warmup_steps=warmup,
    )
    # A training that goes on with fewer ranks may take more steps than were planned.
    numbers = range(steps + 3)
    wanted = [float(schedule(number)) for number in numbers]
    rates = network.Rates(3e-3, steps)
    found = [float(rates(number)) for number in numbers]
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-9)
