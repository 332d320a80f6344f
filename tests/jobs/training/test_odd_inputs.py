from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.training import encoding, odd_inputs
from jobs.training.encoding import Encoding
from pipelines.days import Days
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.model import Serving
from tests.jobs.training import small

ENCODING = small.data_of().encoding
USUAL = small.rows_of(Days.of(small.FIRST), per_day=6)
ODD = pa.table(
    {
        "x": pa.array(
            [np.nan, None, np.inf, -np.inf, 0.0, 1e300],
            pa.float64(),
            from_pandas=False,
        ),
        # Training had gaps in it.
        "gappy": pa.array([None] * 6, pa.float64()),
        "noise": [0.0] * 6,
        "line": pa.array(
            ["AA", "ZZ", None, "", "BB", "CC"],
            pa.string(),
        ),
        "oven": ["north"] * 6,
    }
)


def test_what_training_had_is_not_odd() -> None:
    assert odd_inputs.count(USUAL, ENCODING) == Counter()


def test_each_kind_is_counted_by_column() -> None:
    assert odd_inputs.count(ODD, ENCODING) == {
        ("x", "missing"): 2,
        ("x", "infinite"): 2,
        ("line", "missing"): 1,
        ("line", "unseen"): 2,
    }


def test_what_was_too_rare_to_learn_or_missing_then_is_not_odd() -> None:
    rows = small.rows_of(Days.of(small.FIRST), per_day=500)
    # The last one of a day has no label, and such rows are not learned from.
    rows = rows.slice(0, 499)
    line = rows["line"].to_pylist()
    line[:5] = ["seldom"] * 3 + [None] * 2
    learned = encoding.learn(
        small.with_column(rows, "line", pa.array(line)),
        small.TRAINING,
    )
    assert "seldom" not in learned.vocabularies["line"]
    asked = small.with_column(
        USUAL,
        "line",
        pa.array(["seldom", None, "never", "AA", "BB", "CC"]),
    )
    assert odd_inputs.count(asked, learned) == {("line", "unseen"): 1}
    read = Encoding.from_json(learned.to_json())
    assert read.unknown == learned.unknown
    assert odd_inputs.count(asked, read) == {("line", "unseen"): 1}


def test_of_a_model_of_before_nobody_knows_which_categories_it_has_seen() -> None:
    told = json.loads(ENCODING.to_json())
    del told["unknown"]
    before = Encoding.from_json(json.dumps(told))
    assert odd_inputs.count(ODD, before) == {
        ("x", "missing"): 2,
        ("x", "infinite"): 2,
    }


def test_a_column_that_the_rows_lack_is_named() -> None:
    with pytest.raises(NightshiftError, match="The model reads column 'oven', which the rows do"):
        odd_inputs.count(ODD.drop_columns(["oven"]), ENCODING)


def test_counts_of_parts_add_up() -> None:
    rows = [ODD.slice(row, 1) for row in range(len(ODD))]
    parts = (odd_inputs.count(row, ENCODING) for row in rows)
    assert sum(parts, Counter()) == odd_inputs.count(ODD, ENCODING)


def test_a_pipeline_may_refuse_them(tmp_path: Path) -> None:
    run = small.run_of(small.environment_at(tmp_path), "predict")
    found = odd_inputs.count(ODD, ENCODING)
    odd_inputs.require_none(run, found)
    strict = replace(run, pipeline=replace(run.pipeline, serving=Serving(odd_inputs="refuse")))
    odd_inputs.require_none(strict, Counter())
    with pytest.raises(Refused) as refused:
        odd_inputs.require_none(strict, found)
    assert (
        "small.scoring of 2013-01-24 has values that no row of training had: "
        "line unseen in 2 rows; x infinite in 2 rows; x missing in 2 rows; line missing in 1 rows."
    ) in str(refused.value)


def test_another_policy_is_refused() -> None:
    with pytest.raises(UsageError, match=r"odd_inputs cannot be 'guess'\. Known: score, refuse\."):
        Serving(odd_inputs="guess")  # type: ignore[arg-type]
