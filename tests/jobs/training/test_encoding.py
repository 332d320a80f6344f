from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import encoding
from jobs.training.encoding import Encoding
from pipelines.days import Days
from pipelines.errors import NightshiftError
from tests.jobs.training.small import FIRST, TRAINING, rows_of

ROWS = rows_of(Days.of(FIRST), 200).slice(0, 199)
LEARNED = encoding.learn(ROWS, TRAINING)
SPARE = replace(TRAINING, numeric=("x",), categorical=("c",))


def test_categories_share_one_table_whose_first_row_of_each_column_is_unknown() -> None:
    assert LEARNED.vocabularies == {"carrier": ("AA", "BB", "CC"), "origin": ("EWR", "JFK")}
    assert LEARNED.embedding_rows == 7
    given_rows = _with(carrier=["AA", "CC", "ZZ", None], origin=["JFK", "EWR", None, "ZZZ"])
    assert encoding.encode(given_rows, LEARNED).categorical.tolist() == [
        [1, 6],
        [3, 5],
        [0, 4],
        [0, 4],
    ]


def test_a_rare_category_is_unknown() -> None:
    rare = ["RR"] * 9 + ["AA"] * 100 + ["BB"] * 90
    learned = encoding.learn(
        ROWS.set_column(ROWS.column_names.index("carrier"), "carrier", pa.array(rare)), TRAINING
    )
    assert learned.vocabularies["carrier"] == ("AA", "BB")


def test_only_columns_with_gaps_get_an_indicator() -> None:
    assert LEARNED.indicators == ("gappy",)
    assert np.isnan(encoding.encode(ROWS, LEARNED).numeric).any(axis=0).tolist() == [
        False,
        True,
        False,
    ]


def test_a_column_without_any_value_is_learned_as_zero() -> None:
    empty = ROWS.set_column(
        ROWS.column_names.index("noise"), "noise", pa.nulls(len(ROWS), pa.float64())
    )
    learned = encoding.learn(empty, TRAINING)
    assert (learned.means[2], learned.variances[2], learned.indicators) == (
        0.0,
        1.0,
        ("gappy", "noise"),
    )


def test_bounds_are_those_of_nearly_all_rows() -> None:
    values = np.r_[np.zeros(999), np.ones(999), 1e6]
    learned = encoding.learn(
        pa.table({"x": values, "c": ["A"] * 1999, "late": [0, 1] * 999 + [0]}), SPARE
    )
    deviation = np.sqrt(learned.variances[0])
    assert learned.lows[0] * deviation + learned.means[0] == pytest.approx(0, abs=1e-9)
    assert learned.highs[0] * deviation + learned.means[0] == pytest.approx(1, abs=1e-9)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(NightshiftError, match=r"reads column 'x', which the rows do not have"):
        encoding.encode(ROWS.drop_columns(["x"]), LEARNED)


def test_a_change_of_one_value_changes_the_fingerprint() -> None:
    examples = encoding.encode(ROWS, LEARNED, "late")
    same = encoding.encode(ROWS, LEARNED, "late")
    assert same.fingerprint() == examples.fingerprint()
    same.numeric[5, 0] += 1
    assert same.fingerprint() != examples.fingerprint()


@given(st.permutations(range(30)))
def test_a_row_is_encoded_alike_wherever_it_stands(order: list[int]) -> None:
    there = encoding.encode(ROWS.take(pa.array(order)), LEARNED, "late")
    here = encoding.encode(ROWS, LEARNED, "late").take(np.array(order))
    assert there.fingerprint() == here.fingerprint()


@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1), unique=True),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1),
)
def test_an_encoding_survives_its_file(values: list[str], mean: float, rate: float) -> None:
    written = Encoding(
        numeric=("x",),
        vocabularies={"carrier": tuple(values)},
        means=(mean,),
        variances=(1.0,),
        lows=(-2.0,),
        highs=(mean,),
        indicators=("x",),
        base_rate=rate,
    )
    assert Encoding.from_json(written.to_json()) == written


def test_a_file_of_an_older_version_still_encodes() -> None:
    older = json.loads(LEARNED.to_json())
    del older["lows"], older["highs"]
    read = Encoding.from_json(json.dumps(older))
    assert (
        encoding.encode(ROWS, read, "late").fingerprint()
        == encoding.encode(ROWS, LEARNED, "late").fingerprint()
    )


def _with(**columns: list[str | None]) -> pa.Table:
    rows = ROWS.slice(0, 4)
    for name, values in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.string()))
    return rows
