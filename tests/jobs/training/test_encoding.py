from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import encoding, odd_inputs
from jobs.training.encoding import Encoding
from pipelines.days import Days
from pipelines.errors import NightshiftError, Refused
from pipelines.model import Logarithm
from tests.jobs.training.small import (
    FIRST,
    TRAINING,
    TWIN,
    content,
    rows_of,
    with_column,
    without_values,
)

ROWS = rows_of(Days.of(FIRST), 200).slice(0, 199)
LEARNED = encoding.learn(ROWS, TRAINING)
SPARE = replace(TRAINING, numeric=("x",), categorical=("c",))


def test_categories_share_one_table_whose_first_row_of_each_column_is_unknown() -> None:
    assert LEARNED.vocabularies == {"line": ("AA", "BB", "CC"), "oven": ("north", "south")}
    assert LEARNED.embedding_rows == 7
    given_rows = _with(
        line=["AA", "CC", "ZZ", None],
        oven=["south", "north", None, "ZZZ"],
    )
    assert encoding.encode(given_rows, LEARNED).categorical.tolist() == [
        [1, 6],
        [3, 5],
        [0, 4],
        [0, 4],
    ]


def test_a_rare_category_is_unknown() -> None:
    rare = ["RR"] * 9 + ["AA"] * 100 + ["BB"] * 90
    learned = encoding.learn(with_column(ROWS, "line", pa.array(rare)), TRAINING)
    assert learned.vocabularies["line"] == ("AA", "BB")


def test_of_too_many_categories_the_most_frequent_are_learned_and_no_other_is_odd() -> None:
    lines = ["DD"] * 20 + ["CC"] * 60 + ["BB"] * 60 + ["AA"] * 59
    rows = with_column(ROWS, "line", pa.array(lines))
    learned = encoding.learn(rows, replace(TRAINING, max_categories=2))
    # Of two that are as frequent the first by name would be taken.
    assert learned.vocabularies["line"] == ("BB", "CC")
    assert learned.unknown is not None
    assert learned.unknown["line"] == ("AA", "DD")
    assert odd_inputs.count(rows, learned)["line", "unseen"] == 0
    one = encoding.learn(rows, replace(TRAINING, max_categories=1))
    assert one.vocabularies["line"] == ("BB",)


@pytest.mark.parametrize("last", ["once-97", None])
def test_of_more_rare_categories_than_are_listed_none_is_written_down_and_gaps_are_odd_if_new(
    monkeypatch: pytest.MonkeyPatch, last: str | None
) -> None:
    once = [f"once-{number}" for number in range(97)]
    lines = ["AA"] * 100 + once + ["once-96", last]
    rows = with_column(ROWS, "line", pa.array(lines))
    monkeypatch.setattr(encoding, "LISTED", 96)
    learned = encoding.learn(rows, TRAINING)
    assert learned.vocabularies["line"] == ("AA",)
    assert learned.unknown == {"line": () if last else (None,), "oven": ()}
    read = Encoding.from_json(learned.to_json())
    assert read == learned
    assert "once-" not in learned.to_json()
    # Nobody knows which values that column had, but whether some had none.
    asked = _with(
        line=["never", None, "AA", "once-1"],
        oven=["never", None, "north", "south"],
    )
    found = odd_inputs.count(asked, read)
    assert found["line", "unseen"] == 0
    assert found["line", "missing"] == (1 if last else 0)
    assert (found["oven", "unseen"], found["oven", "missing"]) == (1, 1)


def test_as_many_rare_categories_as_are_listed_are_all_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    once = [f"once-{number}" for number in range(97)]
    lines = ["AA"] * 100 + once + [None, None]
    rows = with_column(ROWS, "line", pa.array(lines))
    monkeypatch.setattr(encoding, "LISTED", 97)
    learned = encoding.learn(rows, TRAINING)
    assert learned.unlisted == ()
    assert learned.unknown is not None
    assert learned.unknown["line"] == (*sorted(once), None)


def test_of_more_categories_than_are_learned_one_that_no_row_had_is_odd() -> None:
    rows = rows_of(Days.of(FIRST), 601)
    # The last one of a day has no label, and such rows are not learned from.
    labelled = rows.slice(0, 600)
    lines = pa.array([f"line-{number % 60}" for number in range(600)])
    learned = encoding.learn(
        with_column(labelled, "line", lines),
        replace(TRAINING, max_categories=20),
    )
    assert len(learned.vocabularies["line"]) == 20
    asked = _with(
        line=["line-0", "line-59", None, "never"],
        oven=["north"] * 4,
    )
    found = odd_inputs.count(asked, Encoding.from_json(learned.to_json()))
    assert found == {("line", "missing"): 1, ("line", "unseen"): 1}


def test_a_model_that_names_no_column_as_unlisted_is_read_as_before() -> None:
    told = json.loads(LEARNED.to_json())
    del told["unlisted"]
    assert Encoding.from_json(json.dumps(told)) == LEARNED
    # For a while a column of too many was left out.
    del told["unknown"]["line"]
    both = ["never", None, None, "never"]
    asked = _with(line=both, oven=both)
    found = odd_inputs.count(asked, Encoding.from_json(json.dumps(told)))
    assert found == {("oven", "missing"): 2, ("oven", "unseen"): 2}


def test_only_columns_with_gaps_get_an_indicator() -> None:
    assert LEARNED.indicators == ("gappy",)
    numeric = encoding.encode(ROWS, LEARNED).numeric
    assert np.isnan(numeric).any(axis=0).tolist() == [
        False,
        True,
        False,
    ]


def test_a_column_without_any_value_is_learned_as_zero() -> None:
    empty = without_values(ROWS, "noise")
    learned = encoding.learn(empty, TRAINING)
    assert (learned.means[2], learned.variances[2], learned.indicators) == (
        0.0,
        1.0,
        ("gappy", "noise"),
    )


def test_bounds_are_those_of_nearly_all_rows() -> None:
    values = np.r_[np.zeros(999), np.ones(999), 1e6]
    rows = pa.table(
        {
            "x": values,
            "c": ["A"] * 1999,
            "failed": [0, 1] * 999 + [0],
        }
    )
    learned = encoding.learn(rows, SPARE)
    deviation = np.sqrt(learned.variances[0])
    low = learned.lows[0] * deviation + learned.means[0]
    high = learned.highs[0] * deviation + learned.means[0]
    assert low == pytest.approx(0, abs=1e-9)
    assert high == pytest.approx(1, abs=1e-9)


def test_mean_and_scale_are_those_of_the_labels() -> None:
    weights = ROWS["weight"].to_numpy()
    learned = encoding.learn(ROWS, TWIN.training)
    assert learned.label_mean == pytest.approx(weights.mean())
    assert learned.label_scale == pytest.approx(weights.std())


def test_labels_that_are_all_alike_have_the_scale_one() -> None:
    alike = with_column(ROWS, "weight", pa.repeat(50.0, len(ROWS)))
    assert encoding.learn(alike, TWIN.training).label_scale == 1.0


@pytest.mark.parametrize("huge", [1e30, -1e39, 1e200, float("inf")])
def test_numbers_that_nothing_can_scale_are_refused_by_the_name_of_their_column(
    huge: float,
) -> None:
    one = np.where(
        np.arange(len(ROWS)) == 0,
        huge,
        ROWS["x"].to_numpy(),
    )
    rows = with_column(ROWS, "x", pa.array(one))
    with pytest.raises(Refused, match=r"have values of x that are no number, infinite, or so"):
        encoding.learn(rows, TRAINING)
    weights = with_column(ROWS, "weight", pa.array(one))
    with pytest.raises(Refused, match=r"have values of weight that are"):
        encoding.learn(weights, TWIN.training)


def test_a_label_that_is_no_number_is_refused() -> None:
    label = TRAINING.label
    labels = ROWS[label].to_numpy().astype(np.float64)
    labels[0] = np.nan
    rows = with_column(ROWS, label, pa.array(labels))
    with pytest.raises(Refused, match=f"have values of {label} that are no number"):
        encoding.learn(rows, TRAINING)


def test_a_whole_number_of_64_bits_is_read_as_the_nearest_float() -> None:
    whole = pa.array(
        np.arange(len(ROWS)) + 2**62 + 1,
        pa.int64(),
    )
    rows = with_column(ROWS, "x", whole)
    learned = encoding.learn(rows, TRAINING)
    read = encoding.encode(rows, learned).numeric[:, 0]
    np.testing.assert_allclose(read, float(2**62), rtol=1e-6)


def test_a_huge_number_may_be_read_by_its_logarithm() -> None:
    training = replace(TRAINING, logarithms=(Logarithm(features=("x",), bend=10),))
    one = np.where(
        np.arange(len(ROWS)) == 0,
        1e300,
        ROWS["x"].to_numpy(),
    )
    learned = encoding.learn(with_column(ROWS, "x", pa.array(one)), training)
    assert np.isfinite([*learned.means, *learned.variances]).all()


@pytest.mark.parametrize("constant", [0.1, 1e17 / 3])
def test_a_constant_is_its_own_mean(constant: float) -> None:
    rows = with_column(ROWS, "x", pa.array(np.full(len(ROWS), constant)))
    learned = encoding.learn(rows, TRAINING)
    assert learned.means[0] == constant
    assert learned.variances[0] == 1.0
    assert learned.lows[0] == 0.0
    assert learned.highs[0] == 0.0


def test_a_missing_column_is_named() -> None:
    told = (
        r"reads column 'x', which the rows do not have.* Where it is declared, .* --restate --from "
        r"DAY --to DAY\. Where it was taken out of the declaration, .* candidate that is fit"
    )
    with pytest.raises(NightshiftError, match=told):
        encoding.encode(ROWS.drop_columns(["x"]), LEARNED)


def test_a_long_tail_is_read_by_its_logarithm_in_training_and_scoring_alike() -> None:
    training = replace(TRAINING, logarithms=(Logarithm(features=("x",), bend=10),))
    known = [-1e4, -10, 0, 10, 1e4]
    missing = [None] * (len(ROWS) - len(known))
    rows = with_column(ROWS, "x", pa.array([*known, *missing]))
    learned = encoding.learn(rows, training)
    again = Encoding.from_json(learned.to_json())
    assert again == learned
    read = encoding.encode(rows, again).numeric[:, 0]
    sizes = np.log([1001, 2, 1, 2, 1001])
    bent = sizes * [-1, -1, 0, 1, 1]
    np.testing.assert_allclose(read[:5], bent, rtol=1e-6)
    assert np.isnan(read[5:]).all()
    assert learned.means[0] == pytest.approx(0)
    assert learned.variances[0] == pytest.approx(np.var(bent))
    straight = encoding.encode(rows, encoding.learn(rows, TRAINING)).numeric[:, 0]
    assert straight[0] == -1e4


def test_a_change_of_one_value_is_seen() -> None:
    examples = encoding.encode(ROWS, LEARNED, "failed")
    same = encoding.encode(ROWS, LEARNED, "failed")
    assert content(same) == content(examples)
    same.numeric[5, 0] += 1
    assert content(same) != content(examples)


@given(st.permutations(range(30)))
def test_a_row_is_encoded_alike_wherever_it_stands(order: list[int]) -> None:
    there = encoding.encode(ROWS.take(pa.array(order)), LEARNED, "failed")
    here = encoding.encode(ROWS, LEARNED, "failed").take(np.array(order))
    assert content(there) == content(here)


_CATEGORIES = st.text(st.characters(codec="utf-8"), min_size=1)


@given(
    values=st.lists(_CATEGORIES, unique=True),
    mean=st.floats(allow_nan=False, allow_infinity=False),
    rate=st.floats(0, 1),
    scale=st.floats(0.1, 9),
)
def test_an_encoding_survives_its_file(
    values: list[str], mean: float, rate: float, scale: float
) -> None:
    written = Encoding(
        numeric=("x",),
        vocabularies={"line": tuple(values)},
        means=(mean,),
        variances=(1.0,),
        lows=(-2.0,),
        highs=(mean,),
        indicators=("x",),
        label_mean=rate,
        label_scale=scale,
    )
    assert Encoding.from_json(written.to_json()) == written


def test_a_file_of_an_older_version_still_encodes() -> None:
    older = json.loads(LEARNED.to_json())
    older["base_rate"] = older.pop("label_mean")
    for unknown in ("label_scale", "lows", "highs"):
        del older[unknown]
    read = Encoding.from_json(json.dumps(older))
    given = encoding.encode(ROWS, read, "failed")
    assert content(given) == content(encoding.encode(ROWS, LEARNED, "failed"))
    assert read.label_mean == LEARNED.label_mean


def _with(**columns: list[str | None]) -> pa.Table:
    rows = ROWS.slice(0, 4)
    for name, values in columns.items():
        rows = with_column(rows, name, pa.array(values, pa.string()))
    return rows
