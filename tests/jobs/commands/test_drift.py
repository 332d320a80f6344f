"""What `nightshift drift` tells of a night."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from matplotlib.image import imread

from jobs.commands.drift import HEADER, drift
from jobs.lake import ops
from jobs.training import plots
from jobs.training.page_parts import png_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.model import Watch
from tests.jobs.training import small

NIGHTS = Days(date(2013, 2, 1), date(2013, 2, 10))
PIPELINE = replace(small.SMALL, watch=Watch(nights=3, min_nights=2))
ONE_DAY = timedelta(days=1)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Nights in which `x` drifts since the last but one; quality is low with a wide interval."""
    made = small.environment_at(tmp_path)
    rows = []
    for night in NIGHTS:
        is_new = night > NIGHTS.last - 2 * ONE_DAY
        of_night = {"pipeline": "small", "night": night, "threshold": 0.2}
        drifting = of_night | {"kind": "feature", "statistic": "wasserstein"}
        quality = {"kind": "quality", "feature": "loss_saved", "statistic": "shortfall"}
        ends = {"value": 0.3, "low": 0.12, "high": 0.4, "is_over": False}
        rows += [
            drifting | {"feature": "x", "value": 0.5 if is_new else 0.1, "is_over": is_new},
            drifting | {"feature": "y", "value": 0.02, "is_over": False},
            of_night | quality | ends,
        ]
    ops.append(made, "drift", rows)
    return made


def test_what_drifts_most_comes_first_and_an_interval_counts_by_its_lower_end(
    environment: Environment,
) -> None:
    told = drift(environment, PIPELINE, Days.of(NIGHTS.last))
    shown = [dict(zip(HEADER, row, strict=True)) for row in told.rows]
    assert [row["feature"] for row in shown] == ["x", "loss_saved", "y"]
    assert [row["times_allowed"] for row in shown] == pytest.approx([2.5, 0.6, 0.1])
    assert [row["nights_over"] for row in shown] == [2, 0, 0]
    assert [row["in_alarm"] for row in shown] == [True, False, False]
    day_before = drift(environment, PIPELINE, Days.of(NIGHTS.last - ONE_DAY))
    assert dict(zip(HEADER, day_before.rows[0], strict=True))["in_alarm"] is False


@pytest.mark.parametrize(
    ("days", "nights"),
    [(Days.of(NIGHTS.last), 28), (NIGHTS, 10)],
)
def test_the_picture_shows_nights_and_measures(
    days: Days, nights: int, environment: Environment
) -> None:
    picture = drift(environment, PIPELINE, days).picture
    folder = environment.reports / "small" / f"{NIGHTS.last}..{NIGHTS.last}"
    assert picture == folder / f"drift-{nights}-nights.png"
    height, width, _ = imread(picture).shape
    assert (height > 200, width) == (True, 990)


def test_a_drift_without_end_is_drawn_and_is_no_gap() -> None:
    def drawn(times: float) -> bytes:
        figure = plots.nights_and_measures("small", ["a", "b"], {"feature x": [1.0, times]})
        return png_of(figure)

    assert drawn(math.inf) == drawn(9.0) != drawn(math.nan)


def test_a_night_that_was_not_watched_is_told_with_the_way_out(environment: Environment) -> None:
    with pytest.raises(UsageError, match=r"was measured in the night 2013-02-11.*--stage mon"):
        drift(environment, PIPELINE, Days.of(NIGHTS.last + ONE_DAY))
    other = replace(PIPELINE, name="other")
    with pytest.raises(UsageError, match="Nothing of other"):
        drift(environment, other, Days.of(NIGHTS.last))


@pytest.mark.parametrize("night", [date.min, date.max])
def test_a_night_beyond_the_feeds_is_refused_as_by_other_commands(
    environment: Environment, night: date
) -> None:
    with pytest.raises(UsageError, match=f"'small' has no data for {night}: its feeds cover"):
        drift(environment, PIPELINE, Days.of(night))
