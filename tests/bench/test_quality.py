from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bench import quality
from bench.harness import OURS
from jobs.training import backtest as backtests
from jobs.training import paired
from jobs.training.backtest import Backtest, Results
from jobs.training.metrics import Vector
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.model import Training
from tests.jobs.training import small

SCORED = Days(
    small.LAST + timedelta(days=1),
    small.LAST + timedelta(days=5),
)
KNOWN = Days(small.FIRST, SCORED.last + timedelta(days=1))
ROWS = small.rows_of(KNOWN)
LINEAR = small.learned_by(small.SMALL, small.LINEAR)
NIGHTS = [small.LAST, small.LAST + timedelta(days=3)]
PARTS = [
    Days(SCORED.first, NIGHTS[1]),
    Days(NIGHTS[1] + timedelta(days=1), SCORED.last),
]


class _Peer:
    """Keeps what it is told, and says the same of each row."""

    def __init__(self, said: float = 0.5) -> None:
        self.told: list[tuple[pa.Table, pa.Table]] = []
        self._said = said

    def __call__(self, known: pa.Table, asked: pa.Table, training: Training) -> Vector:
        self.told.append((known, asked))
        return np.full(len(asked), self._said)


def _backtest(folder: Path, rows: pa.Table = ROWS) -> Backtest:
    environment: Environment = small.environment_at(folder)
    small.publish(environment, rows)
    return Backtest(pipeline=LINEAR, days=SCORED, every=3, environment=environment, run_id="b1")


def _results(walked: Backtest, **peers: quality.Peer) -> Results:
    return backtests.gathered(list(quality.walk(walked, peers)))


def test_a_peer_learns_from_the_window_of_each_night_and_scores_the_days_after(
    tmp_path: Path,
) -> None:
    peer = _Peer()
    results = _results(_backtest(tmp_path), peer=peer)
    for night, part, (known, asked) in zip(
        NIGHTS,
        PARTS,
        peer.told,
        strict=True,
    ):
        landed = pc.min_max(known["landed_date"]).as_py()
        window = timedelta(days=small.TRAINING.window_days - 1)
        assert landed == {"min": night - window, "max": night}
        assert known[small.TRAINING.label].null_count == 0
        # Neither a label nor what would tell it.
        assert asked.column_names == list(small.TRAINING.features)
        days = results.day.astype("datetime64[D]")
        is_of_part = (days >= np.datetime64(part.first)) & (days <= part.last)
        assert len(asked) == is_of_part.sum() > 0


def test_nothing_that_became_known_after_a_night_reaches_a_peer(tmp_path: Path) -> None:
    later = pc.greater(ROWS["landed_date"], pa.scalar(NIGHTS[0]))
    label = small.TRAINING.label
    other = pc.if_else(later, pc.subtract(1, ROWS[label]), ROWS[label])
    turned = small.with_column(ROWS, label, other.cast(pa.int32()))
    firsts = []
    for name, rows in (("as it was", ROWS), ("turned", turned)):
        peer = _Peer()
        results = _results(_backtest(tmp_path / name, rows), peer=peer)
        firsts.append((peer.told[0], results.label))
    assert firsts[0][0] == firsts[1][0]
    assert not np.array_equal(firsts[0][1], firsts[1][1])


def test_peers_stand_beside_a_backtest_of_ours_on_the_same_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walked = _backtest(tmp_path)
    results = _results(walked, one=_Peer(0.2), other=_Peer(0.4))
    np.testing.assert_allclose(results.predictions["mean of these"], 0.3)
    assert quality.with_ours(walked, results, None) is results
    assert f"No backtest of 'small' named '{walked.digest}'" in capsys.readouterr().err
    list(backtests.walk(walked, walked.environment))
    both = quality.with_ours(walked, results, None)
    ours = backtests.read(walked)
    assert both.keys.equals(ours.keys)
    np.testing.assert_array_equal(both.predictions[OURS], ours.predictions["model"])
    assert list(both.predictions) == [OURS, "one", "other", "mean of these"]
    header, (mine, first, *_) = quality.told(LINEAR, both)
    task = task_of(LINEAR.training.task)
    own = task.losses(ours.label, both.predictions["one"])
    other = task.losses(ours.label, both.predictions[OURS])
    more = paired.difference(own, other, ours.day)
    assert header[-3:] == ("loss less ours", "low", "high")
    assert mine[-3:] == (None, None, None)
    assert first[-3:] == (more.mean, more.low, more.high)
    assert mine[:2] == (OURS, len(ours.label))
    measured = task.measure(ours.label, ours.predictions["model"])
    assert mine[2:-3] == tuple(measured.values())


def test_what_has_changed_since_a_backtest_is_not_compared_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walked = _backtest(tmp_path)
    list(backtests.walk(walked, walked.environment))
    results = _results(walked, peer=_Peer())
    turned = replace(results, label=1 - results.label)
    assert quality.with_ours(walked, turned, walked.digest) is turned
    assert "Labels have changed" in capsys.readouterr().err
    longer = replace(
        walked,
        days=Days(SCORED.first, SCORED.last + timedelta(days=1)),
    )
    others = _results(longer, peer=_Peer())
    assert quality.with_ours(longer, others, walked.digest) is others
    assert "has scored other rows" in capsys.readouterr().err
    header, rows = quality.told(LINEAR, others)
    assert [row[-3:] for row in rows] == [(None, None, None)] * 2
    assert len(header) == len(rows[0])


def test_the_logistic_regression_takes_gaps_and_what_it_has_not_seen() -> None:
    is_late = pc.greater(ROWS["landed_date"], pa.scalar(date(2013, 1, 20)))
    known, asked = ROWS.filter(pc.invert(is_late)), ROWS.filter(is_late)
    known = known.filter(pc.is_valid(known["failed"]))
    asked = asked.filter(pc.is_valid(asked["failed"]))
    label = asked["failed"].to_numpy()
    said = quality.logistic_regression(known, asked, small.TRAINING)
    assert said[label == 1].mean() > said[label == 0].mean() + 0.1
    strange = small.with_column(
        asked,
        "oven",
        pa.array([None, *["new"] * (len(asked) - 1)]),
    )
    emptied = small.without_values(strange, "gappy")
    others = quality.logistic_regression(known, emptied, small.TRAINING)
    assert np.isfinite(others).all()


@pytest.mark.parametrize(
    "words",
    [[], ["--quick", "--from", "2013-01-01", "--to", "2013-01-09"], ["--from", "2013-01-01"]],
)
def test_days_are_named_or_the_last_two_weeks(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["quality", *words])
    with pytest.raises(SystemExit, match="2"):
        quality.main()


def test_the_last_two_weeks_are_those_of_the_lake(tmp_path: Path) -> None:
    walked = _backtest(tmp_path)
    days = quality._last_days(LINEAR, walked.environment)
    assert days == Days(KNOWN.last - timedelta(days=13), KNOWN.last)
