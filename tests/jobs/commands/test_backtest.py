from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.commands.backtest import Outcome, backtest, changed
from jobs.services import stage_client
from jobs.services.own_server import preloaded
from jobs.training import backtest as backtests
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import Refused, UsageError
from pipelines.model import LinearModel, NeuralNetwork, OneOf
from tests.jobs.training import small

SCORED = Days(
    small.LAST + timedelta(days=1),
    small.LAST + timedelta(days=6),
)


def test_settings_are_those_of_the_family_or_of_the_training() -> None:
    made = changed(small.SMALL, None, ["epochs=9", "window_days=12", "hidden=(4, 2)"]).training
    assert made.family == NeuralNetwork(
        hidden=(4, 2),
        embedding_size=2,
        dropout=0.0,
        input_dropout=0.0,
        epochs=9,
        batch_size=64,
        learning_rate=0.02,
        timeout_seconds=120,
    )
    assert made.window_days == 12
    assert changed(small.SMALL, "linear", ["l2=7"]).training.family == LinearModel(l2=7)
    assert changed(small.SMALL, None, []) == small.SMALL
    listed = changed(small.SMALL, None, ["hidden=[4, 2]"]).training.family
    assert listed == replace(small.NETWORK, hidden=(4, 2))


def test_what_tune_may_try_binds_no_backtest() -> None:
    searched = replace(small.SMALL, search={"epochs": OneOf(values=(2, 4))})
    assert changed(searched, None, ["epochs=9"]).training.settings["epochs"] == 9
    assert changed(searched, "linear", []).training.family == LinearModel()


@pytest.mark.parametrize(
    ("family", "setting", "message"),
    [
        ("lineal", "l2=7", "No model family named 'lineal'. Did you mean 'linear'"),
        (None, "epoch=7", "No setting named 'epoch'. Did you mean 'epochs'"),
        ("linear", "epochs=7", "No setting named 'epochs'"),
        (None, "epochs", "'epochs' is no setting: write it as name=value"),
        (None, "epochs={[]: 1}", r"'{\[\]: 1}' is no whole number"),
        (None, "epochs=0", "epochs must be at least 1"),
        (None, "window_days=1000000", "window_days and holdout_days must be at most 36,525 tog"),
        (None, "holdout_days=1000000", "window_days and holdout_days must be at most 36,525 tog"),
        (None, "epochs=many", "epochs has a value of another kind .*: 'many' is no whole number"),
        (None, "epochs=True", "another kind than it takes: True is no whole number"),
        (None, "window_days=14.5", "another kind than it takes: 14.5 is no whole number"),
        (None, "seed='x'", "another kind than it takes: 'x' is no whole number"),
        (None, "seed=-1", "seed must be from 0 to 4294967295"),
        (None, "hidden=(8, 0.5)", r"\(8, 0.5\) is no tuple of whole numbers"),
        (None, "rows_in_process=few", "'few' is no whole number or None"),
        ("linear", "l2=1e999", "another kind than it takes: inf is no finite number"),
        ("linear", "l2=abc", "'abc' is no finite number"),
        (None, "min_rows=None", "None is no whole number"),
        (None, "baselines=(1,)", r"\(1,\) is no tuple of GroupMean or LastValue"),
        (None, "compression=3", "compression has a value of another kind"),
        (None, "window_days=2", "validation_days must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    family: str | None, setting: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        changed(small.SMALL, family, [setting])


def test_a_setting_has_one_value() -> None:
    with pytest.raises(UsageError, match="Setting 'epochs' is given twice"):
        changed(small.SMALL, None, ["epochs=2", "epochs=4"])


def test_features_can_be_left_out_by_name_or_pattern() -> None:
    declared = small.SMALL.training
    made = changed(small.SMALL, None, ["epochs=9"], ["gap*", "oven"]).training
    assert made.features == ("x", "noise", "line")
    assert made.unread == ("gappy", "oven")
    assert made.family == replace(small.NETWORK, epochs=9)
    with pytest.raises(UsageError, match="No feature named 'gapy'. Did you mean 'gappy'"):
        changed(small.SMALL, None, [], ["x", "gapy"])
    with pytest.raises(UsageError, match="at least one numeric feature"):
        changed(small.SMALL, None, [], list(declared.numeric))


def test_a_model_that_does_not_read_what_tells_is_worse(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, SCORED.last)))
    whole = _backtest(environment, "l2=1", None)
    blind = changed(small.SMALL, "linear", ["l2=1"], ["x"])
    digest = Path(whole.page).parent.name
    told = backtest(blind, environment, SCORED, 3, digest)
    assert Path(told.page).parent.name != digest
    _, _, other = told.rows
    assert float(str(other[-1])) < 0


def test_the_model_is_shown_beside_baselines_and_another_backtest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, SCORED.last)))
    blunt = _backtest(environment, "l2=10000", None)
    digest = Path(blunt.page).parent.name
    told = _backtest(environment, "l2=1", digest)
    assert told.header[:5] == ("model", "rows", "AUC", "log loss", "Brier score")
    model, baseline, other = told.rows
    assert [row[0] for row in told.rows] == ["model", "group_mean", f"backtest_{digest}"]
    assert model[-3:] == (None, None, None)
    for worse in (baseline, other):
        loss, of_model = float(str(worse[3])), float(str(model[3]))
        assert worse[-3] == pytest.approx(loss - of_model)
        assert float(str(worse[-2])) > 0
    assert Path(told.page).read_text().count("data:image/png") >= 5
    assert "2013-01-27  117 rows, " in capsys.readouterr().err
    assert not (tmp_path / "mlflow.db").exists()


def test_of_few_days_no_interval_is_told(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, SCORED.last)))
    linear = changed(small.SMALL, "linear", [])
    for count, is_told in ((1, False), (4, False), (5, True)):
        last = SCORED.first + timedelta(days=count - 1)
        days = Days.of(last).since(count - 1)
        made = backtest(linear, environment, days, 5)
        _, (*_, difference, low, high) = made.rows
        assert difference > 0  # type: ignore[operator]
        assert ((low, high) != (None, None)) == is_told


def test_days_without_a_label_are_told_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(
        environment,
        small.rows_of(Days(small.FIRST, SCORED.last - timedelta(days=1))),
    )
    linear = changed(small.SMALL, "linear", [])
    told = backtest(linear, environment, SCORED, 1)
    assert told.rows[0][:2] == ("model", 39 * 5)
    why = f"no labelled row about {SCORED.last}"
    assert f"1 left out: {why}" in capsys.readouterr().err
    page = Path(told.page).read_text()
    assert (why in page, "5 times, every 1 days" in page) == (True, True)
    beyond = Days.of(SCORED.last + timedelta(days=20))
    with pytest.raises(Refused, match=f"no labelled row about {beyond}"):
        backtest(linear, environment, beyond, 1)


def test_libraries_are_kept_ready_where_no_stage_server_is_up(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    with preloaded(environment, ()) as unchanged:
        assert unchanged == environment
    with preloaded(environment, ("json",)) as own:
        assert own.lake == environment.lake
        assert stage_client.available(own)
        assert not stage_client.available(environment)
        with preloaded(own, ("json",)) as there:
            assert there == own
    assert not stage_client.available(own)


@pytest.mark.parametrize(
    "elsewhere",
    [{"rank_executors": "on"}, {"rank_hosts": "one:2"}, {"rank_pod": Path("pod.json")}],
)
def test_no_library_is_kept_ready_for_ranks_elsewhere_which_need_the_spark_of_the_home(
    elsewhere: dict[str, Any], tmp_path: Path
) -> None:
    environment = replace(small.environment_at(tmp_path), **elsewhere)
    with preloaded(environment, ("json",)) as unchanged:
        assert unchanged == environment


@pytest.mark.parametrize("first", ["0001-01-01", "2012-12-31"])
def test_days_before_the_feeds_begin_are_wrong_usage(first: str, tmp_path: Path) -> None:
    days = Days(date.fromisoformat(first), SCORED.last)
    with pytest.raises(UsageError, match="'small' has no data for .* cover the days from 2013"):
        backtest(small.SMALL, small.environment_at(tmp_path), days, 3)


@pytest.mark.parametrize("day", [0, 7])
def test_days_before_the_first_training_are_told_with_the_first_that_can_be_scored(
    day: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = small.environment_at(tmp_path)
    first = small.FIRST + timedelta(days=day)
    with pytest.raises(
        UsageError,
        match=r"Days of 'small' before 2013-01-09 can be scored by no model .* and "
        rf"{first}\.\.2013-01-30 begin earlier: a training takes 8 days of labels, which begin on "
        "2013-01-01",
    ):
        backtest(small.SMALL, environment, Days(first, SCORED.last), 3)
    assert capsys.readouterr().err == "", "no line of progress"


def test_the_first_day_that_can_be_scored_is_scored(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, SCORED.last)))
    few = changed(small.SMALL, "linear", ["min_rows=1"])
    first = Days.of(small.FIRST + timedelta(days=8))
    (model, rows, *_), _ = backtest(few, environment, first, 1).rows
    assert (model, rows) == ("model", 39)


def test_rows_of_another_label_are_told_with_the_days_to_make_anew(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    rows = small.rows_of(Days(small.FIRST, SCORED.last))
    small.publish(environment, rows.drop_columns(["failed"]))
    with pytest.raises(
        UsageError,
        # A window of 16 days, and 6 held-out ones, up to the night of the 24th.
        match="nightshift run small --restate --from 2013-01-03 --to 2013-01-30$",
    ):
        backtest(changed(small.SMALL, "linear", []), environment, SCORED, 3)


def test_a_backtest_of_another_label_is_no_rival(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, SCORED.last)))
    linear = changed(small.SMALL, "linear", [])
    digest = Path(backtest(linear, environment, SCORED, 6).page).parent.name
    for setting, told in (
        ("label=weight", "has the label failed, and this one weight"),
        ("task=regression", "has the task binary_classification, and this one regression"),
    ):
        other = changed(small.SMALL, "linear", [setting])
        with pytest.raises(UsageError, match=f"Backtest {digest} {told}: losses of different"):
            backtest(other, environment, SCORED, 6, digest)


def test_another_backtest_that_is_not_there_is_told_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[object] = []
    monkeypatch.setattr(backtests, "walk", lambda *asked: trained.append(asked) or iter(()))
    with pytest.raises(UsageError, match="No backtest of 'small' named 'l2=7'"):
        _backtest(small.environment_at(tmp_path), "l2=1", "l2=7")
    elsewhere = tmp_path / "backtests" / "twin" / "of another"
    elsewhere.mkdir(parents=True)
    (elsewhere / "2013-01-24.parquet").touch()
    (tmp_path / "backtests" / "small").mkdir()
    with pytest.raises(UsageError, match="No backtest of 'small' named .*. Known: none"):
        _backtest(small.environment_at(tmp_path), "l2=1", "../twin/of another")
    assert trained == []


def _backtest(environment: Environment, setting: str, against: str | None) -> Outcome:
    return backtest(changed(small.SMALL, "linear", [setting]), environment, SCORED, 3, against)
