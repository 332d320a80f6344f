"""Settings are tried by backtests, and what was tried is never tried again."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Event, Lock, main_thread
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from mlflow.tracking import MlflowClient

from jobs.commands import tune
from jobs.services import signals
from jobs.training import backtest, tuning
from jobs.training.backtest import Backtest
from jobs.training.families import NeedsMore
from jobs.training.tuning import Tried, Tuning
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.model import Between, Choice, LinearModel, OneOf
from pipelines.spec import Pipeline
from tests.jobs.training import small

SCORED = Days(
    small.LAST + timedelta(days=1),
    small.LAST + timedelta(days=6),
)
_SEARCH: dict[str, Choice] = {
    "l2": Between(low=0.1, high=1e5, is_log=True),
    "window_days": OneOf(values=(12, 16)),
}


def _pipeline(search: dict[str, Choice] = _SEARCH, l2: float = 20_000) -> Pipeline:
    """Whose declared setting is far too strict."""
    return replace(small.learned_by(small.SMALL, LinearModel(l2=l2)), search=search)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, SCORED.last)))
    return environment


def _tune(
    environment: Environment,
    trials: int,
    **options: Any,
) -> list[tuple[object, ...]]:
    asked: dict[str, Any] = {"every": 3, "seconds": None, "at_once": 1, **options}
    pipeline = asked.pop("pipeline", _pipeline())
    return tune.tune(pipeline, environment, SCORED, trials=trials, **asked)


def test_trials_side_by_side_are_of_this_machine(environment: Environment) -> None:
    elsewhere = replace(environment, rank_hosts="one:1,two:1")
    with pytest.raises(UsageError, match="--at-once is of trials on this machine"):
        _tune(elsewhere, 2, at_once=2)


def test_a_better_setting_than_the_declared_one_is_found(environment: Environment) -> None:
    rows = _tune(environment, 8)
    assert len(rows) == 8
    best = dict(zip(tune.HEADER, rows[0], strict=True))
    declared = next(row for row in rows if row[0] == 0)
    assert "l2=20000" in str(declared[6])
    assert declared[3:6] == (None, None, None)
    assert best["state"] == "done"
    gain = declared[2] - best["loss"]  # type: ignore[operator]
    assert best["gain over declared"] == pytest.approx(gain)
    assert best["low"] > 0  # type: ignore[operator]
    advice = tune.advice(_pipeline(), rows)
    assert f"Trial {best['trial']} is better" in advice
    assert "try it on other days" in advice


def test_the_loss_of_a_trial_is_that_of_its_backtest(environment: Environment) -> None:
    rows = _tune(environment, 3)
    again = Backtest(
        pipeline=_pipeline(), days=SCORED, every=3, environment=environment, run_id="r"
    )
    declared = next(row for row in rows if row[0] == 0)
    assert declared[7] == again.digest
    results = backtest.read(again)
    loss = tuning.task_of("binary_classification").losses(
        results.label, results.predictions["model"]
    )
    assert declared[2] == pytest.approx(loss.mean())


def test_a_night_without_a_label_after_it_tells_nothing_of_a_trial(
    environment: Environment,
) -> None:
    closed = pa.array(list(SCORED)[:3], pa.date32())
    rows = small.rows_of(Days(small.FIRST, SCORED.last))
    small.publish(
        environment,
        rows.filter(pc.invert(pc.is_in(rows["batch_date"], closed))),
    )
    (row,) = _tune(environment, 1)
    told = dict(zip(tune.HEADER, row, strict=True))
    assert (told["state"], told["loss"] > 0) == ("done", True)  # type: ignore[operator]


def test_rows_that_are_not_there_yet_count_to_no_settings(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    for _ in range(2):
        with pytest.raises(NightshiftError, match=r"small\.training does not exist yet"):
            _tune(environment, 2)
    rows = small.rows_of(Days(small.FIRST, SCORED.last))
    small.publish(
        environment,
        rows.filter(pc.less(rows["batch_date"], pa.scalar(SCORED.first))),
    )
    for _ in range(2):
        with pytest.raises(Refused, match="has no labelled row about"):
            _tune(environment, 2)
    small.publish(environment, rows)
    assert [row[1] for row in _tune(environment, 2)] == ["done", "done"]


def test_what_is_done_is_not_done_again(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _tune(environment, 3)
    assert _tune(environment, 3) == first
    monkeypatch.setattr(backtest, "walk", _never)
    assert _tune(environment, 2) == first


def test_the_same_command_goes_on_with_other_settings_than_those_of_before(
    environment: Environment,
) -> None:
    for trials in (3, 6, 7, 8):
        rows = _tune(environment, trials)
    assert len(rows) == 8
    assert len({row[6] for row in rows}) == 8


def test_two_homes_go_on_alike(environment: Environment, tmp_path: Path) -> None:
    other = small.environment_at(tmp_path / "other")
    small.publish(other, small.rows_of(Days(small.FIRST, SCORED.last)))
    tried: list[list[object]] = []
    for home in (environment, other):
        _tune(home, 3)
        tried.append([row[6] for row in _tune(home, 5)])
    assert tried[0] == tried[1]


def test_of_few_combinations_each_is_judged_once(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = backtest.walk
    judged: list[str] = []

    def counted(asked: Backtest, ranks_in: Environment) -> Any:
        judged.append(asked.digest)
        return walk(asked, ranks_in)

    monkeypatch.setattr(backtest, "walk", counted)
    search: dict[str, Choice] = {
        "l2": OneOf(values=(1.0, 20_000)),
        "window_days": OneOf(values=(12, 16)),
        # With 0 there is nothing to judge by.
        "validation_days": OneOf(values=(0, 4)),
    }
    pipeline = _pipeline(search)
    rows = _tune(environment, 8, pipeline=pipeline)
    assert len({row[6] for row in rows}) == 8
    assert len(set(judged)) == len(judged)
    # All have been tried: others have the same ends.
    before = {row[6]: row[1:3] for row in rows}
    monkeypatch.setattr(backtest, "walk", _never)
    after = _tune(environment, 11, pipeline=pipeline)
    assert len(after) == 11
    assert all(row[1:3] == before[row[6]] for row in after)


def test_other_rows_are_another_tuning_whose_trials_are_compared_over_them_alone(
    environment: Environment,
) -> None:
    rows = small.rows_of(Days(small.FIRST, SCORED.last))
    is_before = pc.less(rows["batch_date"], pa.scalar(SCORED.last))
    small.publish(environment, rows.filter(is_before))
    _tune(environment, 2)
    # The labels of the last day have become known.
    small.publish(environment, rows)
    after = _tune(environment, 3)
    assert [row[1] for row in after] == ["done"] * 3
    declared = next(row for row in after if row[0] == 0)
    (best, *_) = after
    gain = declared[2] - best[2]  # type: ignore[operator]
    assert best[3] == pytest.approx(gain)


def test_rows_that_change_while_settings_are_tried_end_the_tuning_with_the_way_out(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = backtest.walk
    rows = small.rows_of(Days(small.FIRST, SCORED.last))

    def changing(asked: Backtest, ranks_in: Environment) -> Any:
        yield from walk(asked, ranks_in)
        small.publish(environment, rows)

    with monkeypatch.context() as patched:
        patched.setattr(backtest, "walk", changing)
        with pytest.raises(NightshiftError, match="has changed while .* the same command again"):
            _tune(environment, 2)
    assert [row[1] for row in _tune(environment, 2)] == ["done", "done"]


def test_a_trial_that_was_cut_off_is_done_from_where_it_was(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = backtest.walk
    nights: list[float | None] = []

    def cut_off(asked: Backtest, ranks_in: Environment) -> Any:
        for done in walk(asked, ranks_in):
            yield done
            raise KeyboardInterrupt

    def counted(asked: Backtest, ranks_in: Environment) -> Any:
        for done in walk(asked, ranks_in):
            nights.append(done.seconds)
            yield done

    monkeypatch.setattr(backtest, "walk", cut_off)
    with pytest.raises(KeyboardInterrupt):
        _tune(environment, 1)
    monkeypatch.setattr(backtest, "walk", counted)
    rows = _tune(environment, 2)
    assert nights[0] is None
    assert nights[1] is not None
    # What was cut off counts for nothing, and is told by the trial that went on with it.
    assert [row[1] for row in rows] == ["done", "done"]
    assert len(nights) == 4
    assert _tune(environment, 2) == rows


@pytest.mark.parametrize(
    "cut_off",
    [
        b'{"op_code":4,"tri',
        # Something was written behind it all the same.
        b'{"op_code":4,"tri{"op_code":4,"trial_id":0}\n{"op_code":4,"trial_id":0}\n',
        # As a power failure leaves a file.
        b"\0" * 40,
    ],
    ids=["at the end", "in the middle", "of zeros"],
)
def test_a_journal_that_a_full_disk_has_cut_off_is_gone_on_with(
    environment: Environment, cut_off: bytes
) -> None:
    (first,) = _tune(environment, 1)
    (journal,) = (environment.home / "tunings").rglob("*.log")
    with journal.open("ab") as file:
        file.write(cut_off)
    rows = _tune(environment, 2)
    assert [row[1] for row in rows] == ["done", "done"]
    assert first[:3] in [row[:3] for row in rows]
    assert _tune(environment, 2) == rows


@pytest.mark.parametrize("error", [Refused, NeedsMore, UsageError])
def test_a_trial_that_is_refused_has_failed_and_others_go_on(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[NightshiftError],
) -> None:
    walk = backtest.walk
    asked_for: list[str] = []

    def refusing(asked: Backtest, ranks_in: Environment) -> Any:
        asked_for.append(asked.digest)
        if len(asked_for) == 2:
            raise error("its loss is no finite number")
        return walk(asked, ranks_in)

    monkeypatch.setattr(backtest, "walk", refusing)
    rows = _tune(environment, 3)
    assert sorted(str(row[1]) for row in rows) == ["done", "done", "failed"]
    assert rows[-1][1:3] == ("failed", None)
    assert "Trial 1 failed, no loss: its loss is no finite number" in capsys.readouterr().err


def test_a_fault_ends_the_tuning_once_and_then_counts_as_one_of_the_settings(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = backtest.walk
    faulty: set[str] = set()

    def failing(asked: Backtest, ranks_in: Environment) -> Any:
        if faulty and asked.digest not in faulty:
            return walk(asked, ranks_in)
        faulty.add(asked.digest)
        raise NightshiftError("Rank 0 of the training was gone with exit code 1")

    monkeypatch.setattr(backtest, "walk", failing)
    with pytest.raises(NightshiftError, match="exit code 1"):
        _tune(environment, 3)
    rows = _tune(environment, 3)
    assert sorted(str(row[1]) for row in rows) == ["done", "done", "failed"]
    assert len(faulty) == 1
    monkeypatch.setattr(backtest, "walk", _never)
    assert _tune(environment, 3) == rows


def test_a_fault_ends_a_tuning_side_by_side_too(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> Any:
        raise NightshiftError("Rank 0 of the training was gone with exit code 1")

    monkeypatch.setattr(backtest, "walk", failing)
    with pytest.raises(NightshiftError, match="exit code 1"):
        _tune(environment, 2, at_once=2)


@pytest.fixture
def press_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Presses it in a thread, and returns when the main thread has asked the trials to end.

    It is not ignored, as in what a script has in the background.
    """
    interrupted_once_done = signals.interrupted_once_done
    has_asked = Event()

    def noticed(end: Callable[[], None]) -> AbstractContextManager[None]:
        def ask() -> None:
            end()
            has_asked.set()

        return interrupted_once_done(ask)

    def press() -> None:
        has_asked.clear()
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
        assert has_asked.wait(20)

    monkeypatch.setattr(signals, "interrupted_once_done", noticed)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield press
    signal.signal(signal.SIGINT, before)


# With more trials than run at once Optuna waits for the next to end, and else for all.
@pytest.mark.parametrize("trials", [2, 4])
def test_ctrl_c_ends_trials_side_by_side_with_the_nights_that_they_are_at(
    trials: int,
    environment: Environment,
    press_ctrl_c: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    walk = backtest.walk
    one_at_a_time = Lock()
    nights: list[bool] = []
    handlers: list[object] = []

    def interrupted(asked: Backtest, ranks_in: Environment) -> Any:
        for done in walk(asked, ranks_in):
            # The other trial goes no further meanwhile, however long that takes.
            with one_at_a_time:
                nights.append(done.seconds is not None)
                if len(nights) == 2:
                    press_ctrl_c()
                    handlers.append(signal.getsignal(signal.SIGINT))
            yield done

    monkeypatch.setattr(backtest, "walk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _tune(environment, trials, at_once=2, every=1)
    assert not [one for one in threading.enumerate() if one.name.startswith("ThreadPoolExecutor")]
    assert len(nights) < 6, "of two trials of six"
    # A second one would end the process.
    assert handlers == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    told = capsys.readouterr().err
    assert "Ending with the night that each trial is at. Ctrl-C again ends at once" in told
    assert "cut off" not in told
    rows = _tune(environment, 2, at_once=2, every=1)
    assert [row[1] for row in rows] == ["done", "done"]
    assert nights.count(True) == 2 * 6, "each night is trained once"


def test_ranks_that_ctrl_c_ends_count_to_no_settings(
    environment: Environment, press_ctrl_c: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2)

    def ended(*_: object) -> Any:
        if both.wait(60) == 0:
            press_ctrl_c()
        both.wait(60)
        raise NightshiftError("Rank 0 of the training was gone with exit code 3")

    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(backtest, "walk", ended)
            with pytest.raises(KeyboardInterrupt):
                _tune(environment, 3, at_once=2)
    rows = _tune(environment, 3, at_once=2)
    assert [row[1] for row in rows] == ["done"] * 3


def test_a_fault_of_a_trial_ends_the_other_with_the_night_that_it_is_at(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = backtest.walk
    first = Lock()
    begun = Event()
    has_failed = Event()
    nights: list[str] = []

    def failing(asked: Backtest, ranks_in: Environment) -> Any:
        if first.acquire(blocking=False):
            begun.wait(60)
            raise NightshiftError("Rank 0 of the training was gone with exit code 1")
        for done in walk(asked, ranks_in):
            nights.append(asked.digest)
            begun.set()
            # It is at this night when the other fails, however slow that is.
            has_failed.wait(10)
            yield done

    monkeypatch.setattr(backtest, "walk", failing)
    # By which the fault asks the other to end.
    monkeypatch.setattr(tuning, "Event", lambda: has_failed)
    with pytest.raises(NightshiftError, match="exit code 1"):
        _tune(environment, 2, at_once=2, every=1)
    assert len(nights) < 3, "of six"


def test_settings_that_were_interrupted_in_between_have_failed_twice_all_the_same(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: BaseException) -> Any:
        def walk(*_: object) -> Any:
            raise error

        return walk

    for error in (NightshiftError("lost"), KeyboardInterrupt(), OSError("disk full")):
        with monkeypatch.context() as patched:
            patched.setattr(backtest, "walk", failing(error))
            with pytest.raises(type(error)):
                _tune(environment, 1)
    monkeypatch.setattr(backtest, "walk", failing(NightshiftError("lost again")))
    assert [row[1] for row in _tune(environment, 1)] == ["failed"]


def test_a_network_that_comes_apart_on_its_ranks_is_one_failed_trial(
    ranked: Environment,
) -> None:
    small.publish(ranked, small.rows_of(Days(small.FIRST, SCORED.last)))
    # A rate that no network bears, and one that it does.
    search: dict[str, Choice] = {"learning_rate": OneOf(values=(1e30, 0.02))}
    wild = replace(small.NETWORK, learning_rate=1e30, epochs=1)
    pipeline = replace(small.learned_by(small.SMALL, wild), search=search)
    first = _tune(ranked, 1, pipeline=pipeline)
    assert [row[1] for row in first] == ["failed"]
    rows = _tune(ranked, 3, pipeline=pipeline)
    assert len(rows) == 3


def test_a_trial_that_is_clearly_worse_is_pruned(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_TRIALS_BEFORE_PRUNING", 1)
    monkeypatch.setattr(tuning, "_NIGHTS_BEFORE_PRUNING", 0)
    choice = Between(low=1e4, high=1e9, is_log=True)
    pipeline = _pipeline({"l2": choice}, l2=1e4)
    rows = _tune(environment, 6, pipeline=pipeline)
    pruned = [row for row in rows if row[1] == "pruned"]
    assert pruned
    assert rows[0][0] == 0
    assert tune.advice(pipeline, rows).startswith("The declared settings are the best")


def test_trials_run_side_by_side(environment: Environment) -> None:
    rows = _tune(environment, 4, at_once=2)
    assert [row[1] for row in rows].count("done") >= 3


def test_networks_are_tried_side_by_side_and_gone_on_with(
    ranked: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = backtest.walk
    trained: list[tuple[str, bool]] = []

    def counted(asked: Backtest, ranks_in: Environment) -> Any:
        for done in walk(asked, ranks_in):
            trained.append((asked.digest, done.seconds is not None))
            yield done

    monkeypatch.setattr(backtest, "walk", counted)
    small.publish(ranked, small.rows_of(Days(small.FIRST, SCORED.last)))
    network = replace(small.NETWORK, epochs=1)
    # Of two values both trials may draw the same one.
    search: dict[str, Choice] = {"learning_rate": Between(low=0.01, high=0.1)}
    learned = small.learned_by(small.SMALL, network)
    # The home, and what was walked in it, is that of other tests too.
    own = replace(learned.training, seed=20_000_101)
    pipeline = replace(learned, search=search, training=own)
    # Each ends with its first night of two.
    assert _tune(ranked, 2, pipeline=pipeline, at_once=2, seconds=1e-3) == []
    begun = dict(trained)
    rows = _tune(ranked, 2, pipeline=pipeline, at_once=2)
    assert [row[1] for row in rows] == ["done", "done"]
    losses = [row[2] for row in rows]
    assert losses == sorted(set(losses))
    settings = {str(row[6]) for row in rows}
    assert len(settings) == 2
    assert f"learning_rate={network.learning_rate}" in settings
    # Every night of each is trained once, also those of before.
    assert set(begun) <= {row[7] for row in rows}
    fresh = [digest for digest, is_fresh in trained if is_fresh]
    assert sorted(fresh) == sorted(2 * [str(row[7]) for row in rows])
    monkeypatch.setattr(backtest, "walk", _never)
    assert _tune(ranked, 2, pipeline=pipeline, at_once=2) == rows


def test_when_the_time_is_up_a_trial_ends_with_its_night_and_goes_on_the_next_time(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    walk = backtest.walk
    nights: list[float | None] = []

    def counted(asked: Backtest, ranks_in: Environment) -> Any:
        for done in walk(asked, ranks_in):
            nights.append(done.seconds)
            yield done

    monkeypatch.setattr(backtest, "walk", counted)
    assert _tune(environment, 50, seconds=1e-3, every=2) == []
    assert len(nights) == 1
    told = capsys.readouterr().err
    assert "Trial 0 cut off, no loss: time is up, and the same command goes on" in told
    assert "has ended yet" in tune.advice(_pipeline(), [])
    # One night more each time: nothing is lost, and nothing else is begun.
    assert _tune(environment, 50, seconds=1e-3, every=2) == []
    rows = _tune(environment, 50, seconds=1e-3, every=2)
    assert [row[1] for row in rows] == ["done"]
    assert [seconds is None for seconds in nights] == [False, True, False, True, True, False]


def test_trials_in_mlflow_are_those_that_have_ended(environment: Environment) -> None:
    _tune(environment, 1, seconds=1e-3)
    rows = _tune(environment, 1)
    client = MlflowClient(tracking_uri=environment.mlflow_uri)
    experiment = client.get_experiment_by_name(f"{small.SMALL.name}-tune")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_name for run in runs] == [f"trial {rows[0][0]}"]


def test_an_experiment_that_was_deleted_is_told_before_anything_is_tried(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _tune(environment, 1)
    client = MlflowClient(tracking_uri=environment.mlflow_uri)
    experiment = client.get_experiment_by_name(f"{small.SMALL.name}-tune").experiment_id
    client.delete_experiment(experiment)
    monkeypatch.setattr(backtest, "walk", _never)
    with pytest.raises(NightshiftError, match="Experiment 'small-tune' was deleted in MLflow"):
        _tune(environment, 2)
    # What is done is shown all the same.
    assert _tune(environment, 1) == rows


def test_where_the_declared_settings_have_failed_nothing_is_said_to_be_better_than_they(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = backtest.walk

    def refusing(asked: Backtest, ranks_in: Environment) -> Any:
        if asked.pipeline.training.settings["l2"] == 20_000:
            raise Refused("its loss is no finite number")
        return walk(asked, ranks_in)

    monkeypatch.setattr(backtest, "walk", refusing)
    rows = _tune(environment, 3)
    told = tune.advice(_pipeline(), rows)
    assert told.startswith(f"Trial {rows[0][0]} is the best that was tried.")
    assert "their own trial was not done" in told


def test_trials_whose_results_were_deleted_are_told_without_their_gain(
    environment: Environment,
) -> None:
    before = _tune(environment, 3)
    shutil.rmtree(environment.home / "backtests")
    rows = _tune(environment, 3)
    assert [row[:3] for row in rows] == [row[:3] for row in before]
    assert {row[3] for row in rows} == {None}
    assert "is not known: their own trial was not done, or" in tune.advice(_pipeline(), rows)


def test_trials_are_in_mlflow(environment: Environment) -> None:
    rows = _tune(environment, 2)
    client = MlflowClient(tracking_uri=environment.mlflow_uri)
    experiment = client.get_experiment_by_name(f"{small.SMALL.name}-tune")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"trial 0", "trial 1"}
    shown = {run.data.tags["backtest"]: run for run in runs}
    for row in rows:
        run = shown[str(row[7])]
        assert run.data.metrics["mean_loss"] == pytest.approx(row[2])
        assert set(run.data.params) == set(_SEARCH)
    assert not client.search_model_versions(f"name = '{small.SMALL.name}'")


def test_another_search_or_other_days_are_another_tuning(environment: Environment) -> None:
    def digest(days: Days = SCORED, **changes: Any) -> str:
        pipeline = replace(_pipeline(), **changes)
        declared = Backtest(
            pipeline=pipeline, days=days, every=3, environment=environment, run_id="r"
        )
        return Tuning(declared=declared).digest

    other_days = digest(Days(SCORED.first, SCORED.last - timedelta(days=1)))
    other_search = digest(search={"l2": Between(low=1, high=2)})
    assert len({digest(), other_days, other_search}) == 3
    assert digest() == digest()


def test_a_pipeline_that_declares_nothing_to_try_says_what_to_write(
    environment: Environment,
) -> None:
    with pytest.raises(UsageError, match="declares nothing to try"):
        _tune(environment, 2, pipeline=_pipeline({}))


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ({"min_row": Between(low=1, high=2)}, "named 'min_row'. Did you mean 'min_rows'"),
        ({"family": OneOf(values=(1, 2))}, "No setting of 'small' named 'family'"),
        ({"l2": (1, 2)}, "must be a Between or a OneOf"),
        (
            {"l2": OneOf(values=(1.0, 10.0))},
            r"Pipeline 'small': search\['l2'\] lacks 20000, which is declared .*: add it to .*1.0",
        ),
        ({"l2": OneOf(values=("a", 20_000))}, r"has the values \['a'\], but takes a finite number"),
        ({"window_days": OneOf(values=(16, 20.0))}, r"\[20.0\], but takes a whole number"),
        ({"window_days": Between(low=12, high=16)}, "takes a whole number: add is_whole=True"),
        ({"numeric": Between(low=1, high=2)}, r"a tuple of texts: name some, as OneOf\(values"),
        ({"task": OneOf(values=("regression", "binary_classification"))}, "leave it out"),
        ({"label": OneOf(values=("failed", "weight"))}, "losses of different things"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(search: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        _pipeline(search)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Between(low=2, high=2), "holds nothing"),
        (lambda: Between(low=0, high=2, is_log=True), "a logarithm needs a low above 0"),
        (lambda: Between(low=0.5, high=2, is_whole=True), "its ends must be whole"),
        (lambda: OneOf(values=(1,)), "leaves no choice"),
        (lambda: Between(low=1, high=float("inf")), "its ends must be finite numbers"),
        (lambda: Between(low=1, high=float("inf"), is_whole=True), "must be finite numbers"),
        (lambda: Between(low=1, high="many"), "its ends must be finite numbers"),  # type: ignore[arg-type]
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(make: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_values_that_do_not_go_together_are_a_failed_trial(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    search: dict[str, Choice] = {"validation_days": OneOf(values=(0, 4))}
    rows = _tune(environment, 6, pipeline=_pipeline(search))
    assert {row[1] for row in rows} == {"done", "failed"}
    assert "failed, no loss: validation_days must be from 1" in capsys.readouterr().err


def test_a_declared_value_is_found_among_those_to_try_however_it_is_written(
    environment: Environment,
) -> None:
    search: dict[str, Choice] = {"l2": OneOf(values=(20_000.0, 1.0))}
    rows = _tune(environment, 1, pipeline=_pipeline(search))
    assert rows[0][6] == "l2=20000"


def test_losses_of_labels_in_a_small_unit_are_told_by_digits_that_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried = Tried(
        number=3,
        state="done",
        loss=1.23456e-12,
        settings={"l2": 1.0},
        backtest="abc",
        why="",
        gain=None,
    )
    tune._tell(tried)
    assert capsys.readouterr().err == "Trial 3 done, loss 1.2346e-12\n"
    row = (3, "done", tried.loss, 2.5e-13, 1e-13, 3e-13, "l2=1.0", "abc")
    assert "declared settings of 'small' by 2.5e-13 a row. The" in tune.advice(_pipeline(), [row])


def test_optuna_says_nothing_beside_us(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    _tune(environment, 1)
    told = capsys.readouterr()
    assert "Trial 0 done, loss 0." in told.err
    assert "[I " not in told.err
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR


def _never(*_: object) -> Any:
    raise AssertionError("nothing is left to do")
