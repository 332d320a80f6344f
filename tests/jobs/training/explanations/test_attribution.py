"""Attributions add up to what the model says, and are those that the method promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.training import explanations
from jobs.training.encoding import Encoding, Examples, encode
from jobs.training.explanations import attribute, neural_network
from jobs.training.explanations.attribution import Attribution, base_row, base_values
from jobs.training.families.linear import LinearFamily
from jobs.training.families.neural_network import Network, network
from jobs.training.scoring import Scorer
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.errors import NightshiftError, Refused
from pipelines.model import Training
from tests.jobs.training import small

TRAININGS = (small.TRAINING, small.TWIN.training)
SHARED = replace(small.TRAINING, shared=("x",))
ROWS = small.rows_of(Days.of(small.FIRST), 40, seed=3)
BOTH_TASKS = pytest.mark.parametrize("training", TRAININGS, ids=["classification", "regression"])


def odd_rows() -> pa.Table:
    """Usual rows, one far beyond all that were trained on, and categories that none had."""
    x = ROWS["x"].to_numpy().copy()
    x[0] = 1e6
    line = ROWS["line"].to_pylist()
    line[1], line[2] = "ZZ", None
    far = small.with_column(ROWS, "x", pa.array(x))
    return small.with_column(far, "line", pa.array(line))


def a_network(
    training: Training,
    hidden: tuple[int, ...] = (8, 5),
    seed: int = 1,
    size: float = 0.5,
) -> Scorer:
    """A network with weights that are drawn, none of them 0."""
    encoding = small.data_of(training).encoding
    made = replace(small.NETWORK, hidden=hidden)
    model = network.build(encoding, made, task_of(training.task))
    draw = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([draw.normal(scale=size, size=shape) for shape in shapes])
    return Scorer(model=Network(keras_model=model), encoding=encoding)


def linear_numbers(scorer: Scorer, training: Training, rows: Examples) -> Any:
    return task_of(training.task).link(scorer.model.score(rows))


@BOTH_TASKS
@settings(max_examples=25)
@given(
    hidden=st.lists(st.integers(1, 12), max_size=3).map(tuple),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([0.01, 0.3, 1.0, 3.0]),
)
def test_attributions_of_any_network_add_up_to_what_it_says(
    training: Training, hidden: tuple[int, ...], seed: int, size: float
) -> None:
    scorer = a_network(training, hidden, seed, size)
    task = task_of(training.task)
    rows = odd_rows()
    found = attribute(scorer, "neural_network", task, rows)
    assert found.of_features.shape == (len(rows), len(scorer.encoding.columns))
    scale = np.maximum(1, np.abs(found.linear))
    assert (np.abs(found.totals - found.linear) / scale).max() < 1e-4
    np.testing.assert_allclose(
        task.inverse_link(found.totals), scorer.score(rows), rtol=1e-4, atol=1e-4
    )


@BOTH_TASKS
@pytest.mark.parametrize("hidden", [(), (8, 5)])
def test_a_network_without_categories_is_explained_too(
    training: Training, hidden: tuple[int, ...]
) -> None:
    numbers = replace(training, categorical=())
    scorer = a_network(numbers, hidden)
    found = attribute(scorer, "neural_network", task_of(numbers.task), odd_rows())
    assert found.of_features.shape == (len(ROWS), len(numbers.numeric))


def test_attributions_of_a_network_are_integrated_gradients() -> None:
    scorer = a_network(SHARED)
    rows = encode(odd_rows(), scorer.encoding)
    task = task_of(SHARED.task)
    network = scorer.model
    exact = neural_network.attribute(network, scorer.encoding, task, rows)  # type: ignore[arg-type]
    for row in (0, 3, 7):
        stepped = by_small_steps(scorer, rows.take(np.array([row])))
        np.testing.assert_allclose(exact.of_features[row], stepped, atol=2e-3)


def by_small_steps(scorer: Scorer, row: Examples, steps: int = 4000) -> Any:
    """Integrated gradients of one row by differences of many small steps, from the definition."""
    encoding = scorer.encoding
    model = scorer.model.keras_model  # type: ignore[attr-defined]
    unit = model.get_layer("probability")
    encoder = keras.Model(
        {tensor.name: tensor for tensor in model.inputs},
        [model.get_layer("hidden_1").input, unit.input],
    )
    at_start = encoder(network.inputs(base_row(encoding)))
    at_end = encoder(network.inputs(row))
    start = [np.asarray(one, np.float64)[0] for one in at_start]
    end = [np.asarray(one, np.float64)[0] for one in at_end]
    weights = [np.asarray(w, np.float64) for w in model.get_weights()]
    _, kernel_1, bias_1, kernel_2, bias_2, last, _ = weights
    units = len(bias_2)

    def slopes(at: Any) -> Any:
        first = at @ kernel_1 + bias_1
        second = np.maximum(first, 0) @ kernel_2 + bias_2
        of_second = last[:units, 0] * (second > 0)
        of_first = of_second @ kernel_2.T * (first > 0)
        return of_first @ kernel_1.T

    shares = (np.arange(steps) + 0.5) / steps
    deep = end[0] - start[0]
    of_deep = deep * np.mean(
        [slopes(start[0] + share * deep) for share in shares],
        axis=0,
    )
    of_wide = (end[1] - start[1])[units:] * last[units:, 0]
    # x, gappy, noise; whether gappy is missing; then line and oven.
    sizes = [len(values) + 1 for values in encoding.vocabularies.values()]
    wide_ends = np.cumsum([4, *sizes])
    found = of_deep[:3] + of_wide[:3]
    found[1] += of_deep[3] + of_wide[3]
    of_line, of_oven = (slice(*ends) for ends in pairwise(wide_ends))
    line = of_deep[4:6].sum() + of_wide[of_line].sum()
    oven = of_deep[6:8].sum() + of_wide[of_oven].sum()
    return [*found, line, oven]


@BOTH_TASKS
def test_an_attribution_of_a_linear_model_is_what_the_feature_alone_changes(
    training: Training, tmp_path: Any
) -> None:
    data = small.data_of(replace(training, family=small.LINEAR))
    family = LinearFamily()
    fit = family.fit(data, small.LINEAR, small.environment_at(tmp_path), tmp_path)
    scorer = Scorer(model=fit.model, encoding=data.encoding)
    rows = encode(odd_rows(), data.encoding)
    found = attribute(scorer, "linear", task_of(training.task), odd_rows())
    # Labels of one kind are beyond every probability that a float tells from 1.
    usual = np.abs(linear_numbers(scorer, training, rows)) < 12
    base = base_row(data.encoding)
    for place, name in enumerate(data.encoding.columns):
        numeric, categorical = rows.numeric.copy(), rows.categorical.copy()
        if name in data.encoding.numeric:
            numeric[:, place] = base.numeric[0, place]
        else:
            position = place - len(data.encoding.numeric)
            categorical[:, position] = base.categorical[0, position]
        without = replace(rows, numeric=numeric, categorical=categorical)
        changed = linear_numbers(scorer, training, rows) - linear_numbers(scorer, training, without)
        np.testing.assert_allclose(
            found.of_features[usual, place], changed[usual], rtol=1e-4, atol=1e-4
        )


def test_the_base_row_is_the_mean_of_numbers_and_knows_no_category() -> None:
    scorer = a_network(small.TRAINING)
    nobody = {
        name: pa.array([value])
        for name, value in zip(scorer.encoding.numeric, scorer.encoding.means, strict=True)
    }
    nobody |= {name: pa.array(["never seen"]) for name in scorer.encoding.categorical}
    found = attribute(scorer, "neural_network", task_of("binary_classification"), pa.table(nobody))
    np.testing.assert_allclose(found.of_features, 0, atol=1e-6)
    assert found.base == pytest.approx(found.totals[0])


def test_a_base_is_told_in_the_unit_of_the_feature() -> None:
    encoding = replace(small.data_of().encoding, bends={"x": 10.0})
    values = base_values(encoding)
    size = np.log1p(abs(float(values["x"])) / 10)
    bent = float(np.sign(encoding.means[0]) * size)
    assert bent == pytest.approx(encoding.means[0])
    assert values["noise"] == encoding.means[2]
    assert values["line"] == "unknown"


def test_a_missing_number_counts_for_its_feature() -> None:
    scorer = a_network(small.TRAINING)
    missing = small.without_values(ROWS, "gappy")
    mean = small.with_column(
        ROWS,
        "gappy",
        pa.array(
            [scorer.encoding.means[1]] * len(ROWS),
            pa.float64(),
        ),
    )
    task = task_of("binary_classification")
    gone, there = (attribute(scorer, "neural_network", task, rows) for rows in (missing, mean))
    assert np.abs(gone.of_features[:, 1]).min() > 1e-3
    np.testing.assert_allclose(there.of_features[:, 1], 0, atol=1e-6)


@pytest.mark.parametrize("wrong", ["attributions", "linear"])
def test_attributions_that_do_not_add_up_are_told_to_nobody(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*arguments: Any) -> Attribution:
        good = neural_network.attribute(*arguments)
        if wrong == "attributions":
            return replace(good, of_features=good.of_features * 1.01)
        return replace(good, base=good.base + 0.1, linear=good.linear + 0.1)

    monkeypatch.setattr(explanations, "METHODS", {"neural_network": odd})
    with pytest.raises(NightshiftError, match=r"of 40 rows do not add up to (the|what)"):
        attribute(a_network(small.TRAINING), "neural_network", task_of(small.TRAINING.task), ROWS)


def test_a_family_without_a_method_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="'forest' is not explained. Families that are: neural_net"):
        attribute(a_network(small.TRAINING), "forest", task_of(small.TRAINING.task), ROWS)


def test_a_network_of_other_layers_is_refused() -> None:
    encoding = small.data_of().encoding
    model = old_network(encoding)
    scorer = Scorer(model=Network(keras_model=model), encoding=encoding)
    with pytest.raises(Refused, match="not the wide and deep network of today"):
        attribute(scorer, "neural_network", task_of(small.TRAINING.task), ROWS)


def old_network(encoding: Encoding) -> keras.Model:
    """A network without a wide part."""
    numeric = keras.Input((len(encoding.numeric),), name="numeric")
    categorical = keras.Input((len(encoding.categorical),), dtype="int32", name="categorical")
    embedded = keras.layers.Embedding(encoding.embedding_rows, 2, name="embedding")(categorical)
    flat = keras.layers.Flatten()(embedded)
    joined = keras.layers.Concatenate()([numeric, flat])
    hidden = keras.layers.Dense(8, activation="relu", name="hidden_1")(joined)
    unit = keras.layers.Dense(1, activation="sigmoid", name="probability")
    return keras.Model({"numeric": numeric, "categorical": categorical}, unit(hidden))


@pytest.fixture(autouse=True)
def _forget_graphs() -> Iterator[None]:
    """Each example builds a network; Keras keeps them all."""
    yield
    keras.backend.clear_session()
