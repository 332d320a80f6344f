from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs.lake import ops
from jobs.stages import train as stage
from jobs.training import backtest as backtests
from jobs.training import backtest_page, scoring
from jobs.training.backtest import Backtest, Done
from jobs.training.registry import Registry
from jobs.training.scoring import Scorer
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.model import GroupMean
from pipelines.spec import Pipeline
from tests.jobs.training import small

KNOWN = Days(small.FIRST, small.LAST + timedelta(days=6))
SCORED = Days(small.LAST + timedelta(days=1), KNOWN.last)
ROWS = small.rows_of(KNOWN)
LINEAR = small.learned_by(small.SMALL, small.LINEAR)


def _backtest(environment: Environment, pipeline: Pipeline = LINEAR, every: int = 3) -> Backtest:
    return Backtest(
        pipeline=pipeline, days=SCORED, every=every, environment=environment, run_id="b1"
    )


def _walk(backtest: Backtest) -> list[Done]:
    return list(backtests.walk(backtest, backtest.environment))


def _read_other(backtest: Backtest, digest: str) -> backtests.Results:
    return backtests.read_other(backtest, digest, backtests.read(backtest).keys)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    made = small.environment_at(tmp_path)
    small.publish(made, ROWS)
    return made


def test_a_pipeline_whose_labels_are_declared_to_come_later_has_results_of_its_own(
    tmp_path: Path,
) -> None:
    promotion = replace(LINEAR.promotion, label_lag_days=1)
    environment = small.environment_at(tmp_path)
    late = _backtest(environment, replace(LINEAR, promotion=promotion))
    assert late.digest != _backtest(environment).digest


@pytest.mark.parametrize("every", [6, 7, 10**7, 10**12])
def test_one_training_may_score_all_days_however_rare_it_is(every: int, tmp_path: Path) -> None:
    backtest = _backtest(small.environment_at(tmp_path), every=every)
    assert backtest.parts == [SCORED]


def test_each_part_is_scored_by_what_the_night_before_it_would_have_served(
    tmp_path: Path,
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS)
    backtest = _backtest(environment)
    done = _walk(backtest)
    nights = [small.LAST, small.LAST + timedelta(days=3)]
    found = [(one.as_of, one.rows) for one in done]
    assert found == [(night, 39 * 3) for night in nights]
    results = backtests.read(backtest)
    registry = Registry(environment, LINEAR.name)
    assert registry.versions() == []
    served = []
    for night in nights:
        stage.train(small.run_of(environment, "train", night, pipeline=LINEAR))
        about = Days(night + timedelta(days=1), night + timedelta(days=3))
        scorer = scoring.load(registry, registry.versions()[0])
        served.append(scorer.score(_labelled(about)))
    np.testing.assert_array_equal(results.predictions["model"], np.concatenate(served))
    assert set(results.predictions) == {"model", "group_mean"}
    assert results.slices["line"].tolist() == _labelled(SCORED)["line"].to_pylist()


def test_what_became_known_after_a_night_changes_nothing_that_it_says(tmp_path: Path) -> None:
    later = pc.greater(ROWS["landed_date"], pa.scalar(small.LAST))
    turned = pc.if_else(later, pc.subtract(1, ROWS["failed"]), ROWS["failed"])
    changed = small.with_column(ROWS, "failed", turned)
    said, labels = [], []
    for name, rows in (("as it was", ROWS), ("turned", changed)):
        environment = small.environment_at(tmp_path / name)
        small.publish(environment, rows)
        once = _backtest(environment, every=len(SCORED))
        _walk(once)
        results = backtests.read(once)
        said.append(results.predictions)
        labels.append(results.label)
    for model, predictions in said[0].items():
        np.testing.assert_array_equal(said[1][model], predictions)
    np.testing.assert_array_equal(labels[1], 1 - labels[0])


def test_a_whole_label_beyond_the_numbers_that_a_double_tells_apart_is_rounded(
    tmp_path: Path,
) -> None:
    run = small.run_of(small.environment_at(tmp_path), "train", small.LAST)
    rows = _labelled(Days.of(small.LAST))
    large = pa.array([2**53 + 1] * len(rows))
    kept = backtests.kept_rows(run, small.with_column(rows, "failed", large), {})
    assert kept[backtests.LABEL].to_pylist() == [float(2**53)] * len(rows)


def test_a_row_belongs_to_the_day_of_its_event_however_late_its_label_landed(
    tmp_path: Path,
) -> None:
    late = pa.array([number % 2 for number in range(len(ROWS))])
    happened = pc.subtract(
        ROWS["landed_date"].cast(pa.int32()),
        late.cast(pa.int32()),
    )
    rows = small.with_column(ROWS, "batch_date", happened.cast(pa.date32()))
    environment = small.environment_at(tmp_path)
    small.publish(environment, rows)
    backtest = replace(_backtest(environment), days=Days.of(SCORED.first))
    _walk(backtest)
    day = np.datetime64(SCORED.first)
    expected = rows.filter(pc.is_valid(rows["failed"]))["batch_date"].to_numpy() == day
    results = backtests.read(backtest)
    assert len(results.label) == expected.sum()
    assert set(results.day) == {day}


def test_what_is_done_is_not_done_again_until_what_it_follows_from_has_changed(
    environment: Environment,
) -> None:
    backtest = _backtest(environment)
    first = _walk(backtest)
    assert all(done.seconds is not None for done in first)
    again = _walk(backtest)
    assert [(done.as_of, done.rows, done.seconds) for done in again] == [
        (done.as_of, done.rows, None) for done in first
    ]
    (backtest.folder / f"{small.LAST}.parquet").unlink()
    assert [done.seconds is None for done in _walk(backtest)] == [False, True]
    small.publish(environment, ROWS)
    assert all(done.seconds is not None for done in _walk(backtest))


def test_a_home_that_a_backtest_makes_is_private(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path / "home")
    with pytest.raises(NightshiftError, match=r"small\.training does not exist yet"):
        _walk(_backtest(environment))
    assert environment.home.stat().st_mode & 0o777 == 0o700


def test_what_was_emptied_is_done_again(environment: Environment) -> None:
    backtest = _backtest(environment)
    _walk(backtest)
    (backtest.folder / f"{small.LAST}.parquet").write_bytes(b"")
    assert [done.seconds is None for done in _walk(backtest)] == [False, True]


def test_two_of_the_same_at_once_leave_whole_files(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    backtest = _backtest(environment)
    twins = 0

    def write(*given: object) -> None:
        nonlocal twins
        twins += 1
        pq.write_table(*given)
        # The twin writes the same night before this one is done with it.
        if twins == 1:
            _walk(replace(backtest, run_id="twin"))

    monkeypatch.setattr(backtests, "pq", SimpleNamespace(**{**vars(pq), "write_table": write}))
    assert [one.rows for one in _walk(backtest)] == [39 * 3, 39 * 3]
    assert sorted(file.suffix for file in backtest.folder.iterdir()) == [".parquet"] * 2


def test_other_settings_are_another_backtest_and_other_ranks_are_not(
    environment: Environment,
) -> None:
    backtest = _backtest(environment)
    tight = small.learned_by(small.SMALL, replace(small.LINEAR, l2=100.0))
    others = [
        _backtest(environment, tight),
        _backtest(environment, every=1),
        _backtest(environment, small.SMALL),
    ]
    assert len({backtest.digest, *(other.digest for other in others)}) == 4
    ranked = small.learned_by(small.SMALL, replace(small.NETWORK, ranks=7))
    assert _backtest(environment, ranked).digest == others[-1].digest


def test_code_that_changes_meanwhile_makes_no_other_backtest_of_it(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    backtest = _backtest(environment)
    _walk(backtest)
    monkeypatch.setattr(backtests.pins, "how", lambda *_: {"code": "another"})
    assert len(backtests.read(backtest).keys) > 0
    assert _backtest(environment).folder != backtest.folder


def test_every_night_and_day_is_measured_once_for_people_to_query(
    environment: Environment,
) -> None:
    backtest = _backtest(environment)
    _walk(backtest)
    # As if it had been killed before the file was there.
    (backtest.folder / f"{small.LAST}.parquet").unlink()
    _walk(backtest)
    measured = ops.read(environment, "backtests").to_pylist()
    days = [(row["event_date"], row["model"]) for row in measured]
    expected = [(day, model) for day in SCORED for model in ("group_mean", "model")]
    assert sorted(days) == expected
    assert {row["settings_digest"] for row in measured} == {backtest.digest}
    results = backtests.read(backtest)
    task = task_of("binary_classification")
    of_day = results.day == np.datetime64(SCORED.first)
    said = results.predictions["model"][of_day]
    key = itemgetter("event_date", "model")
    (first,) = [row for row in measured if key(row) == expected[1]]
    assert first["log_loss"] == pytest.approx(
        task.losses(results.label[of_day], said).mean(), abs=1e-6
    )
    assert (first["rows"], first["as_of"]) == (39, small.LAST)


def test_another_backtest_is_compared_on_the_same_rows_or_not_at_all(
    environment: Environment,
) -> None:
    backtest = _backtest(environment)
    tight = _backtest(
        environment,
        small.learned_by(small.SMALL, replace(small.LINEAR, l2=100.0)),
    )
    _walk(backtest)
    _walk(tight)
    other = _read_other(backtest, tight.digest)
    np.testing.assert_array_equal(other.label, backtests.read(backtest).label)
    assert not np.array_equal(
        other.predictions["model"], backtests.read(backtest).predictions["model"]
    )
    with pytest.raises(UsageError, match=rf"No backtest .* 'nothing'.* Known: .*{tight.digest}"):
        _read_other(backtest, "nothing")
    (tight.folder / f"{small.LAST}.parquet").unlink()
    with pytest.raises(UsageError, match=rf"{tight.digest} has scored other rows"):
        _read_other(backtest, tight.digest)


def test_another_backtest_may_have_scored_other_days_too(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(
        environment,
        small.rows_of(Days(small.FIRST, SCORED.last + timedelta(days=6))),
    )

    def days(first: int, last: int) -> Days:
        return Days(small.LAST + timedelta(days=first), small.LAST + timedelta(days=last))

    tight = small.learned_by(small.SMALL, replace(small.LINEAR, l2=100.0))
    other = replace(_backtest(environment, tight), days=days(1, 9))
    _walk(other)
    long = backtests.read(other)
    # A part that is cut short, and other phases: of days 2 to 9 as of later nights than theirs.
    for first, last in ((1, 5), (2, 7), (3, 9)):
        _walk(replace(other, days=days(first, last)))
    assert [done.seconds for done in _walk(other)] == [None] * 3
    for first, last in (
        (1, 9),
        (1, 6),
        (4, 9),
        (1, 5),
    ):
        asked = replace(_backtest(environment), days=days(first, last))
        _walk(asked)
        found = _read_other(asked, other.digest)
        is_asked = np.isin(long.day, list(map(np.datetime64, asked.days)))
        np.testing.assert_array_equal(
            found.predictions["model"], long.predictions["model"][is_asked]
        )
    # As of a night that it has not: of each day the last one before it.
    asked = replace(_backtest(environment, every=2), days=days(8, 9))
    _walk(asked)
    found = _read_other(asked, other.digest)
    late = backtests.read(replace(other, days=days(3, 9)))
    for day, expected in zip(asked.days, (long, late), strict=True):
        here, there = found.day == np.datetime64(day), expected.day == np.datetime64(day)
        np.testing.assert_array_equal(
            found.predictions["model"][here], expected.predictions["model"][there]
        )
    beyond = replace(_backtest(environment), days=days(8, 10))
    _walk(beyond)
    with pytest.raises(UsageError, match=rf"{other.digest} has scored other rows"):
        _read_other(beyond, other.digest)
    none = replace(_backtest(environment), days=days(10, 11))
    _walk(none)
    with pytest.raises(UsageError, match=rf"{other.digest} has scored other rows"):
        _read_other(none, other.digest)


def test_a_shorter_backtest_takes_nothing_from_the_record_of_a_longer_one(
    environment: Environment,
) -> None:
    backtest = _backtest(environment)
    _walk(backtest)
    shorter = Days(SCORED.first, SCORED.last - timedelta(days=1))
    _walk(replace(backtest, days=shorter))
    measured = ops.read(environment, "backtests").to_pylist()
    days = sorted(row["event_date"] for row in measured if row["model"] == "model")
    assert days == list(SCORED)


def test_days_without_a_label_are_refused(environment: Environment) -> None:
    beyond = Days.of(KNOWN.last + timedelta(days=20))
    with pytest.raises(Refused, match=rf"no labelled row about {beyond}"):
        _walk(replace(_backtest(environment), days=beyond))


@pytest.mark.parametrize(
    "by",
    [
        {"slices": ("product", "line", "product")},
        {"baselines": (GroupMean(columns=("line", "product")),)},
    ],
    ids=["slices", "baselines"],
)
def test_rows_that_lack_what_is_compared_by_are_refused_before_a_training(
    by: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a column is declared as carried, and no night has published it yet."""
    environment = small.environment_at(tmp_path)
    small.publish(environment, ROWS.drop_columns(["product"]))
    trained: list[object] = []
    monkeypatch.setattr(backtests.candidate, "make", lambda *given: trained.append(given))
    declared = replace(LINEAR, training=replace(LINEAR.training, **by))
    backtest = _backtest(environment, declared)
    told = (
        "small.training has no column product, which .* nightshift run small --restate "
        f"--from 2013-01-02 --to {SCORED.last}"
    )
    with pytest.raises(UsageError, match=told):
        _walk(backtest)
    # Before a trial of `tune`, to whose settings it would count.
    with pytest.raises(UsageError, match=told):
        backtests.require_labels(backtest)
    assert trained == []


def test_a_part_without_a_label_is_left_out(environment: Environment) -> None:
    """As a weekend without an event, and a last part whose labels have yet to come."""
    closed = [SCORED.first, SCORED.last]
    is_closed = pc.is_in(ROWS["batch_date"], pa.array(closed, pa.date32()))
    small.publish(environment, ROWS.filter(pc.invert(is_closed)))
    backtest = _backtest(environment, every=1)
    done = _walk(backtest)
    assert [one.rows for one in done] == [0, 39, 39, 39, 39, 0]
    results = backtests.read(backtest)
    open_days = np.array(list(SCORED)[1:-1], "datetime64[D]")
    np.testing.assert_array_equal(np.unique(results.day), open_days)
    recorded = ops.read(environment, "backtests")["event_date"].to_pylist()
    assert set(recorded) == set(list(SCORED)[1:-1])
    assert {one.seconds for one in _walk(backtest)} == {None}
    # The labels have come.
    small.publish(environment, ROWS)
    assert [one.rows for one in _walk(backtest)] == [39] * 6


def test_a_model_whose_predictions_are_none_is_refused(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(_: Scorer, rows: pa.Table) -> np.ndarray:
        return np.full(len(rows), np.nan)

    monkeypatch.setattr(Scorer, "score", nonsense)
    with pytest.raises(Refused, match="117 of 117 predictions are no probability"):
        _walk(_backtest(environment))


@pytest.mark.parametrize("pipeline", small.PIPELINES, ids=lambda pipeline: pipeline.name)
def test_the_page_shows_every_picture(tmp_path: Path, pipeline: Pipeline) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, ROWS, pipeline=pipeline)
    backtest = _backtest(environment, small.learned_by(pipeline, small.LINEAR))
    _walk(backtest)
    results = backtests.read(backtest)
    figures = backtest_page.pictures(task_of(pipeline.training.task), results)
    rivals = [baseline.name for baseline in pipeline.training.baselines]
    assert {"By month", *(f"Model against {rival}, by day" for rival in rivals)} < set(figures)
    page = backtest_page.page(
        "A & B",
        "5 <b>rows</b>",
        ("x",),
        [(0.5,), (None,)],
        figures,
        backtest.settings,
    )
    assert page.count("data:image/png;base64,") == len(figures)
    assert "<h1>A &amp; B</h1>" in page
    assert "<p>5 &lt;b&gt;rows&lt;/b&gt;</p>" in page
    assert ">0.5000</td>" in page
    # Behind what people look for, a setting a line.
    assert page.index("<details>") > page.rindex("data:image/png;base64,")
    assert "<td>family.l2</td><td>" in page
    assert not re.search(r"[{}']", page[page.index("<details>") :])


def _labelled(days: Days) -> pa.Table:
    rows = ROWS.filter(pc.is_valid(ROWS["failed"]))
    order = [("landed_date", "ascending"), ("batch_date", "ascending")]
    keys = [(name, "ascending") for name in ("line", "batch", "oven")]
    ordered = rows.sort_by([*order, *keys])
    from_first = pc.greater_equal(ordered["landed_date"], pa.scalar(days.first))
    to_last = pc.less_equal(ordered["landed_date"], pa.scalar(days.last))
    return ordered.filter(pc.and_(from_first, to_last))
