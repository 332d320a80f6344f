from __future__ import annotations

import numpy as np
import pytest

from jobs.training import paired

DAYS = np.repeat(np.arange(200), 10)
DRAW = np.random.default_rng(3)
OTHER = DRAW.normal(size=len(DAYS)) + 3


def test_a_difference_lies_in_an_interval_that_days_and_not_rows_decide() -> None:
    by_day = np.repeat(
        DRAW.normal(loc=-0.1, scale=0.5, size=200),
        10,
    )
    found = paired.difference(OTHER + by_day, OTHER, DAYS)
    assert found.mean == pytest.approx(by_day.mean())
    # 1.96 standard errors of 200 days to each side; of 2,000 rows it would be a third of that.
    expected = 2 * 1.96 * by_day.std() / np.sqrt(200)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)
    assert found.low < found.mean < found.high


def test_days_count_by_their_rows() -> None:
    day = np.array([0, 0, 0, 1])
    found = paired.difference(
        np.array([1.0, 1, 1, 5]),
        np.zeros(4),
        day,
    )
    assert (found.mean, found.low, found.high) == (2, 1, 5)


def test_each_day_has_the_mean_of_its_rows() -> None:
    day = np.array(["2013-01-02", "2013-01-01", "2013-01-02"], "datetime64[D]")
    days, means = paired.by_day(
        np.array([3.0, 5, 5]),
        np.array([1.0, 1, 1]),
        day,
    )
    assert days.astype(str).tolist() == ["2013-01-01", "2013-01-02"]
    assert means.tolist() == [4, 3]
