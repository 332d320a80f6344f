"""The limits by which a leak shows in weather let honest models in, and keep a planted leak out."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import Ridge

from jobs.examples.weather import source
from jobs.training import comparison, promotion
from jobs.training.comparison import CANDIDATE, HeldOut
from jobs.training.metrics import Vector
from jobs.training.tasks import task_of
from pipelines.catalog import pipeline
from pipelines.model import LinearModel

WEATHER = pipeline("weather")
REGRESSION = task_of(WEATHER.training.task)
NIGHTS = [
    date(2013, 2, 28),
    date(2013, 6, 29),
    date(2013, 7, 9),
    date(2013, 10, 28),
]
"""A hard fortnight, and those that are foretold best, pooled and within a day."""


@pytest.fixture(scope="module")
def hours() -> pd.DataFrame:
    """Each hour of the year with what was known of its temperature the evening before."""
    observed = source()["observations"]
    by_day = pd.DataFrame(
        {
            "day": pd.to_datetime(observed["observed_date"]),
            "place": observed["station"] + "|" + observed["hour"],
            "temp": pd.to_numeric(observed["temp"], errors="coerce"),
        }
    ).pivot_table(index="day", columns="place", values="temp")
    known = {
        "temp": by_day,
        "same_hour": by_day.shift(1).ffill(limit=1),
        "week": by_day.rolling(7, min_periods=1).mean().shift(1),
        "month": by_day.rolling(28, min_periods=1).mean().shift(1),
    }
    for evening in ("EWR|23", "JFK|23", "LGA|23"):
        last = by_day[evening].shift(1)
        known[evening] = by_day.apply(lambda _, last=last: last)
    stacked = {name: frame.stack() for name, frame in known.items()}
    rows = pd.DataFrame(stacked)
    return rows.dropna().reset_index()


def _reason(hours: pd.DataFrame, night: date, features: list[str]) -> str | None:
    """Why the gate suspects a leak in a model of the night; None: it does not."""
    training = WEATHER.training
    age = (pd.Timestamp(night) - hours["day"]).dt.days
    unseen = training.holdout_days + training.validation_days
    past = hours[(age >= unseen) & (age < unseen + training.window_days)]
    held = hours[(age >= 0) & (age < training.holdout_days)]
    assert isinstance(training.family, LinearModel)
    scale = past[features].std()
    ridge = Ridge(alpha=training.family.l2).fit(
        past[features] / scale,
        past["temp"],
    )
    label: Vector = held["temp"].to_numpy()
    judged = HeldOut(
        task=REGRESSION,
        rows=pa.table({}),
        day=held["day"].to_numpy(),
        label=label,
        models={CANDIDATE: np.asarray(ridge.predict(held[features] / scale))},
        baselines={},
    )
    limits = promotion.thresholds(WEATHER.promotion, REGRESSION, label)
    return promotion.leaks(comparison.measure(judged, (), 1, None), limits)


@pytest.mark.parametrize("night", NIGHTS)
def test_an_honest_model_is_let_in_and_one_that_reads_the_label_is_not(
    night: date, hours: pd.DataFrame
) -> None:
    honest = [name for name in hours.columns if name not in ("day", "place", "temp")]
    assert _reason(hours, night, honest) is None
    reason = _reason(hours, night, [*honest, "temp"])
    assert reason is not None
    assert "must have seen the future" in reason
