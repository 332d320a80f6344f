"""A night is served by what was promoted by then, and by nothing that was made later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.commands import decide
from jobs.commands.decide import Said
from jobs.lake import model_events, ops
from jobs.training import serving
from jobs.training.registry import ModelVersion, Registry
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from tests.jobs.training.small import (
    SMALL,
    models_at,
    moved_by_hand,
    registered_by_hand,
    serving_model,
)

FIRST = date(2013, 1, 21)
SECOND = date(2013, 1, 23)
THIRD = date(2013, 1, 25)
NIGHTS = Days(date(2013, 1, 20), date(2013, 1, 26))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return models_at(tmp_path)


@pytest.fixture
def registry(environment: Environment) -> Registry:
    return Registry(environment, "small")


@pytest.fixture
def evaluated(
    environment: Environment, registry: Registry, tmp_path: Path
) -> Callable[..., ModelVersion]:
    """Keeps a model as of a night and records what became of it."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "linear.json").write_text("{}")

    def keep(as_of: date, event: str = "promoted") -> ModelVersion:
        model = registry.keep(
            files,
            as_of=as_of,
            fingerprint=str(as_of),
            family="linear",
            recipe="as ever",
            params={},
            curves={},
            pins={},
        )
        if event == "promoted":
            registry.set_champion(model.version)
        _record(environment, model, event)
        return model

    return keep


def _record(environment: Environment, model: ModelVersion, event: str) -> None:
    row = {
        "pipeline": model.name,
        "as_of": model.as_of,
        "event": event,
        "model_version": model.version,
        "created_at": ops.now(),
    }
    ops.append(environment, model_events.TABLE, [row])


def _served(environment: Environment, registry: Registry) -> dict[int, str]:
    """Day of the month -> version."""
    models, gone = serving.models_there(environment, registry, NIGHTS)
    assert not gone
    return {night.day: model.version for night, model in models.items()}


def test_each_night_has_the_last_model_promoted_by_then(
    environment: Environment, registry: Registry, evaluated: Callable[..., ModelVersion]
) -> None:
    assert _served(environment, registry) == {}
    evaluated(FIRST)
    evaluated(SECOND)
    evaluated(SECOND, "kept")
    evaluated(THIRD)
    served = {
        21: "1",
        22: "1",
        23: "2",
        24: "2",
        25: "4",
        26: "4",
    }
    assert _served(environment, registry) == served
    assert list(_served(environment, registry)) == list(served), "in the order of the nights"
    for night in NIGHTS:
        alone = serving_model(environment, registry, night)
        assert (alone and alone.version) == served.get(night.day)


def test_the_candidate_is_left_out(
    environment: Environment, registry: Registry, evaluated: Callable[..., ModelVersion]
) -> None:
    evaluated(FIRST)
    evaluated(SECOND)

    def served(besides: str) -> dict[int, str]:
        turns = {}
        for night in NIGHTS:
            turn = serving.turn_of(environment, registry, night, besides)
            if turn:
                turns[night.day] = turn.version
        return turns

    assert served(besides="2") == dict.fromkeys(range(21, 27), "1")
    assert served(besides="1") == dict.fromkeys(range(23, 27), "2")


def test_the_alias_decides_nothing_and_is_put_back(
    environment: Environment,
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = evaluated(FIRST)
    evaluated(SECOND)
    moved_by_hand(registry, first.version)
    assert _served(environment, registry)[26] == "2"
    assert serving.put_right(environment, registry) == "1"
    told = capsys.readouterr().err
    assert "pointed to version 1, which does not serve" in told
    assert "nightshift rollback small --to VERSION" in told
    assert registry.champion() == "2"
    (move,) = model_events.alias_moves(environment, "small")
    assert (move["who"], move["model_version"], move["rival_version"]) == ("somebody", "1", "2")
    assert move["reason"] == (
        "Somebody has moved the alias 'champion' of 'small' in MLflow from version 2 to version 1; "
        "MLflow does not keep who. By ops.model_events version 2 serves: the alias was put back to "
        "it."
    )
    # It says nothing of the model.
    assert [one["event"] for one in model_events.events(environment, "small", "1")] == ["promoted"]
    assert serving.put_right(environment, registry) is None
    assert len(model_events.alias_moves(environment, "small")) == 1
    registry.remove_champion()
    assert serving.put_right(environment, registry) is None
    assert registry.champion() == "2"
    assert capsys.readouterr().err == ""


def test_an_alias_on_a_model_that_nobody_let_serve_is_taken_away(
    environment: Environment, registry: Registry, evaluated: Callable[..., ModelVersion]
) -> None:
    kept = evaluated(FIRST, "kept")
    moved_by_hand(registry, kept.version)
    assert serving.put_right(environment, registry) == "1"
    assert registry.champion() is None
    (move,) = model_events.alias_moves(environment, "small")
    assert move["reason"].endswith("no model serves: the alias was taken away.")


def test_an_alias_that_has_not_followed_yet_was_moved_by_nobody(
    environment: Environment,
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluated(FIRST)
    evaluated(SECOND)
    # No stage server is up, which would have the alias follow.
    decide.rollback(environment, SMALL, None, Said(who="alice", why="odd"))
    assert registry.champion() == "2"
    assert serving.put_right(environment, registry) is None
    assert registry.champion() == "1"
    # As one who is killed between record and alias.
    _record(environment, registry.version("2"), "restored")
    assert serving.put_right(environment, registry) is None
    assert registry.champion() == "2"
    assert capsys.readouterr().err == ""
    moved_by_hand(registry, "1")
    assert serving.put_right(environment, registry) == "1", "to what served before, by hand"


def test_an_alias_was_moved_by_nobody_where_who_set_it_was_killed_before_that_was_remembered(
    environment: Environment,
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluated(FIRST)
    evaluated(SECOND)
    remember = registry._client.set_registered_model_tag

    def killed(*arguments: str) -> None:
        if registry.champion() == "1":
            raise KeyboardInterrupt
        remember(*arguments)

    decide.rollback(environment, SMALL, None, Said(who="alice", why="odd"))
    with monkeypatch.context() as patch:
        patch.setattr(registry._client, "set_registered_model_tag", killed)
        with pytest.raises(KeyboardInterrupt):
            serving.put_right(environment, registry)
    decide.rollback(environment, SMALL, "2", Said(who="alice", why="well again"))
    assert registry.champion() == "1"
    assert serving.put_right(environment, registry) is None
    assert registry.champion() == "2"
    assert model_events.alias_moves(environment, "small") == []


def test_an_alias_that_was_set_before_that_was_remembered_counts_as_moved(
    environment: Environment, registry: Registry, evaluated: Callable[..., ModelVersion]
) -> None:
    evaluated(FIRST)
    evaluated(SECOND)
    registry._client.delete_registered_model_tag("small", "nightshift.champion")
    assert serving.put_right(environment, registry) is None, "it is right"
    moved_by_hand(registry, "1")
    assert serving.put_right(environment, registry) == "1"


def test_an_alias_on_a_version_that_others_made_is_put_back(
    environment: Environment,
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluated(FIRST)
    moved_by_hand(registry, registered_by_hand(registry))
    assert serving.put_right(environment, registry) == "2"
    assert "pointed to version 2, which does not serve" in capsys.readouterr().err
    assert registry.champion() == "1"


def test_the_stage_server_has_the_alias_follow_and_the_cards_that_are_concerned(
    environment: Environment,
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving.catalog, "pipeline", lambda _: SMALL)
    first = evaluated(FIRST)
    evaluated(SECOND)
    evaluated(THIRD)
    moved_by_hand(registry, first.version)
    _record(environment, registry.version("3"), "rolled_back")
    argument = {"environment": environment.variables(), "pipeline": "small"}
    assert serving.follow_in_child({**argument, "versions": ["2", "3", "9"]}) == 0
    assert registry.champion() == "2"
    # The next night tells of it.
    assert len(model_events.alias_moves(environment, "small")) == 1
    cards = {
        page.parent.name: page.read_text() for page in environment.cards("small").rglob("*.md")
    }
    assert sorted(cards) == ["2", "3"]
    assert "version 2: serves since" in cards["2"]
    assert "version 3: rolled back" in cards["3"]


def test_where_the_registered_model_is_gone_nobody_has_moved_its_alias(
    environment: Environment,
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving.catalog, "pipeline", lambda _: SMALL)
    evaluated(FIRST)
    evaluated(SECOND)
    registry._client.delete_registered_model("small")
    assert serving.put_right(environment, registry) is None
    with pytest.raises(
        NightshiftError,
        match="^Version 2 of model 'small' serves and is not in MLflow. Restore it there, or have "
        "another one serve: nightshift rollback small",
    ):
        serving_model(environment, registry, THIRD)
    argument = {"environment": environment.variables(), "pipeline": "small"}
    assert serving.follow_in_child({**argument, "versions": ["2"]}) == 0
    assert model_events.alias_moves(environment, "small") == []


def test_a_deleted_version_whose_turn_is_over_asks_for_no_rollback_of_what_serves(
    environment: Environment, registry: Registry, evaluated: Callable[..., ModelVersion]
) -> None:
    evaluated(FIRST)
    evaluated(SECOND)
    registry._client.delete_model_version("small", "1")
    with pytest.raises(NightshiftError) as raised:
        serving_model(environment, registry, FIRST)
    assert str(raised.value) == (
        "Version 1 of model 'small' scored the nights from 2013-01-21 to 2013-01-22, serves no "
        "more, and is not in MLflow, so they cannot be scored again. Restore MLflow from a backup, "
        "or leave these nights out: ask for nights from 2013-01-23 on."
    )
    left, gone = serving.models_there(environment, registry, Days(SECOND, THIRD))
    assert not gone
    assert {model.version for model in left.values()} == {"2"}


@pytest.fixture
def find(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Asks for version 1 as a child of the stage server does."""
    monkeypatch.setattr(serving.catalog, "pipeline", lambda _: SMALL)

    def ask(variables: Mapping[str, str] | None = None) -> int:
        given = variables or environment.variables()
        argument = {"environment": given, "pipeline": "small", "version": "1"}
        return serving.find_in_child(argument)

    return ask


def test_a_version_is_found_with_the_files_by_which_it_serves(
    environment: Environment,
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    find: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "files" / "encoding.json").write_text("{}")
    evaluated(FIRST)
    assert find() == 0
    (file,) = (environment.home / "mlartifacts").rglob("linear.json")
    file.write_text("[]")
    assert find() == Refused.exit_code
    assert capsys.readouterr().out.startswith(
        "cannot serve: linear.json of model 'small' version 1 was changed after it was registered"
    )
    file.unlink()
    assert find() == Refused.exit_code
    told = capsys.readouterr()
    assert told.out.startswith("cannot serve: linear.json of model 'small' version 1 cannot be")
    assert "tonight" not in told.out
    registry._client.delete_model_version("small", "1")
    assert find() == Refused.exit_code
    told = capsys.readouterr()
    assert (told.out, told.err) == ("was deleted in MLflow, so it cannot serve\n", "")


def test_a_version_that_has_learned_another_label_cannot_come_back(
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    find: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "files" / "encoding.json").write_text("{}")
    model = evaluated(FIRST)
    registry._client.log_param(model.run_id, "label", "failed")
    assert find() == 0
    registry._client.log_param(model.run_id, "task", "regression")
    assert find() == Refused.exit_code
    assert capsys.readouterr().out == (
        "has learned 'failed' (regression) and not 'failed' (binary classification), which 'small' "
        "declares, so it cannot serve\n"
    )


def test_a_version_that_has_learned_what_is_no_task_any_more_cannot_come_back(
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    find: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = evaluated(FIRST)
    registry._client.log_param(model.run_id, "task", "ranking")
    assert find() == Refused.exit_code
    assert capsys.readouterr().out.startswith("has learned 'failed' (ranking) and not 'failed' (")


def test_an_mlflow_that_is_away_has_told_nothing(
    environment: Environment,
    find: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in decide._BRIEFLY.items():
        monkeypatch.setenv(name, value)
    away = {**environment.variables(), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    assert find(away) == NightshiftError.exit_code
    told = capsys.readouterr()
    assert told.out.splitlines()[-1].startswith("MLflow at http://127.0.0.1:9 is away, or refuses")
    argument = {"environment": away, "pipeline": "small", "versions": ["1"]}
    assert serving.follow_in_child(argument) == NightshiftError.exit_code
    both = told.err + capsys.readouterr().err
    assert "Warning: the alias and the cards have not followed. MLflow at http" in both
    assert "Traceback" not in both


def test_another_pipelines_model_never_serves(
    environment: Environment, registry: Registry, evaluated: Callable[..., ModelVersion]
) -> None:
    evaluated(FIRST)
    assert _served(environment, Registry(environment, "twin")) == {}


def test_the_history_is_read_once_for_many_nights(
    environment: Environment,
    registry: Registry,
    evaluated: Callable[..., ModelVersion],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluated(FIRST)
    evaluated(SECOND)
    evaluated(THIRD)
    reads: list[int] = []
    read = ops.read_once

    def counted(*arguments: object) -> pa.Table:
        rows = read(*arguments)  # type: ignore[arg-type]
        reads.append(len(rows))
        return rows

    monkeypatch.setattr(ops, "read_once", counted)
    assert len(_served(environment, registry)) == 6
    assert reads == [3]


def test_the_events_of_one_model_are_oldest_first(
    environment: Environment, evaluated: Callable[..., ModelVersion]
) -> None:
    one = evaluated(FIRST)
    evaluated(SECOND)
    _record(environment, one, "kept")
    about = model_events.events(environment, "small", one.version)
    assert [event["event"] for event in about] == ["promoted", "kept"]
    assert len(model_events.events(environment, "small")) == 3
    assert isinstance(about[0]["created_at"], datetime)
