from __future__ import annotations

import pyarrow as pa
import pytest

from jobs.training import baseline

ROWS = pa.table(
    {
        "carrier": ["AA", "AA", "AA", "BB", "BB", None],
        "dest": ["BOS", "BOS", "ATL", "BOS", "BOS", "BOS"],
        "late": [1, 1, 0, 0, 0, 1],
    }
)


def test_a_rate_is_that_of_the_values_as_if_seen_once_more_at_the_overall_rate() -> None:
    fitted = baseline.fit(ROWS, ("carrier", "dest"), "late")
    assert fitted.overall == 0.5
    assert fitted.rates == {
        "AA|BOS": pytest.approx(2.5 / 3),
        "AA|ATL": 0.25,
        "BB|BOS": pytest.approx(0.5 / 3),
        "|BOS": 0.75,
    }


def test_an_unseen_value_has_the_overall_rate() -> None:
    fitted = baseline.fit(ROWS, ("carrier", "dest"), "late")
    asked = pa.table({"carrier": ["AA", "ZZ", None], "dest": ["ATL", "BOS", "BOS"]})
    assert fitted.predict(asked).tolist() == [0.25, 0.5, 0.75]
