from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from jobs.training import baselines
from jobs.training.baselines import Means
from jobs.training.tasks.binary_classification import BinaryClassification
from jobs.training.tasks.regression import Regression
from pipelines.errors import UsageError
from pipelines.model import Baseline, GroupMean, LastValue
from tests.jobs.training.small import TRAINING

ROWS = pa.table(
    {
        "line": ["AA", "AA", "AA", "BB", "BB", None],
        "oven": ["north", "north", "south", "north", "north", "north"],
        "failed": [1, 1, 0, 0, 0, 1],
        "weight": [10.0, 11.0, 12.0, 13.0, 14.0, 15.0],
    }
)
BY_LINE = GroupMean(columns=("line",))
BY_OVEN = GroupMean(columns=("oven",))
YESTERDAY = LastValue(feature="yesterday")
BY_LINE_AND_OVEN = GroupMean(columns=("line", "oven"))


def test_a_mean_is_that_of_the_values_as_if_seen_once_more_at_the_overall_mean() -> None:
    fitted = baselines.fit(BY_LINE_AND_OVEN, ROWS, "failed", prior_rows=1)
    assert isinstance(fitted, Means)
    assert fitted.overall == 0.5
    assert fitted.means == {
        ("AA", "north"): pytest.approx(2.5 / 3),
        ("AA", "south"): 0.25,
        ("BB", "north"): pytest.approx(0.5 / 3),
        (None, "north"): 0.75,
    }


def test_values_of_two_groups_are_never_taken_for_one() -> None:
    rows = pa.table(
        {
            "line": ["A|B", "A", "", None],
            "oven": ["C", "B|C", "", ""],
            "label": [1, 0, 1, 0],
        }
    )
    fitted = baselines.fit(BY_LINE_AND_OVEN, rows, "label", prior_rows=1)
    assert fitted.predict(rows).tolist() == [0.75, 0.25, 0.75, 0.25]


def test_an_unseen_value_has_the_overall_mean() -> None:
    fitted = baselines.fit(BY_LINE_AND_OVEN, ROWS, "failed", prior_rows=1)
    asked = pa.table(
        {
            "line": ["AA", "ZZ", None],
            "oven": ["south", "north", None],
        }
    )
    assert fitted.predict(asked).tolist() == [0.25, 0.5, 0.5]


def test_the_mean_of_numbers_is_a_climatology() -> None:
    fitted = baselines.fit(BY_LINE, ROWS, "weight", prior_rows=Regression().prior_rows)
    asked = pa.table({"line": ["AA", "BB", "ZZ"]})
    of_aa = (10 + 11 + 12) / 3
    of_bb = (13 + 14) / 2
    overall = 12.5
    assert fitted.predict(asked).tolist() == [of_aa, of_bb, overall]


def test_a_rate_of_few_rows_is_never_certain() -> None:
    fitted = baselines.fit(BY_LINE, ROWS, "failed", prior_rows=BinaryClassification().prior_rows)
    rates = fitted.predict(ROWS)
    assert 0 < rates.min() < rates.max() < 1


@pytest.mark.parametrize("baseline", [BY_LINE, LastValue(feature="weight")])
def test_numbers_may_be_decimals(baseline: Baseline) -> None:
    decimals = ROWS["weight"].cast(pa.decimal128(10, 2))
    rows = ROWS.set_column(ROWS.column_names.index("weight"), "weight", decimals)
    fitted = baselines.fit(baseline, rows, "weight", prior_rows=1)
    usual = baselines.fit(baseline, ROWS, "weight", prior_rows=1)
    assert fitted.predict(rows).tolist() == usual.predict(ROWS).tolist()


def test_the_last_value_is_repeated_and_the_mean_stands_in_where_there_is_none() -> None:
    fitted = baselines.fit(YESTERDAY, ROWS, "weight", prior_rows=0)
    asked = pa.table({"yesterday": [3, None, 5]})
    assert fitted.predict(asked).tolist() == [3.0, 12.5, 5.0]


def test_an_infinite_last_value_is_none_or_any_model_would_win_over_it() -> None:
    fitted = baselines.fit(YESTERDAY, ROWS, "weight", prior_rows=0)
    asked = pa.table({"yesterday": [3.0, float("inf"), float("-inf")]})
    assert fitted.predict(asked).tolist() == [3.0, 12.5, 12.5]


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        ((), "needs a baseline"),
        ((replace(BY_LINE, name="by line"),), "cannot be named"),
        ((replace(BY_LINE, name="champion"),), "must not be named"),
        ((BY_LINE, BY_OVEN), "have one name"),
        ((LastValue(feature="line"),), "no numeric features"),
    ],
)
def test_a_declaration_with_odd_baselines_is_refused(
    baselines: tuple[Baseline, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        replace(TRAINING, baselines=baselines)
