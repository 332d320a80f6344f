"""The home's registry holds the definitions of today's code, written only when they change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureService, FeatureView

from features import flights, store
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.flights import PIPELINE

Definitions = Callable[[Environment], list[Any]]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def test_a_new_home_gets_a_registry_with_every_view(environment: Environment) -> None:
    made = store.open_store(PIPELINE, environment)
    assert sorted(view.name for view in made.list_feature_views()) == [
        "departure",
        "plane",
        "rolling",
        "weather_daily",
        "weather_hourly",
    ]
    assert [service.name for service in made.list_feature_services()] == ["flights"]


def test_unchanged_definitions_are_not_applied_again(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open_store(PIPELINE, environment)
    monkeypatch.setattr(store, "_apply", lambda *_: pytest.fail("applied again"))
    assert store.open_store(PIPELINE, environment).get_feature_service("flights").name == "flights"


def test_changed_definitions_replace_the_registry_and_leave_no_old_view(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open_store(PIPELINE, environment)
    monkeypatch.setattr(flights, "definitions", _without(flights.definitions, "plane"))
    assert "plane" not in [
        view.name for view in store.open_store(PIPELINE, environment).list_feature_views()
    ]


def test_another_lake_is_a_change(environment: Environment) -> None:
    store.open_store(PIPELINE, environment)
    moved = store.open_store(PIPELINE, replace(environment, lake="s3a://elsewhere"))
    assert "s3a://elsewhere/flights/rolling" in moved.get_feature_view("rolling").batch_source.query


def test_a_pipeline_without_definitions_is_told_which_file_to_write(
    environment: Environment,
) -> None:
    with pytest.raises(UsageError, match=r"features/taxi\.py does not exist"):
        store.open_store(replace(PIPELINE, name="taxi"), environment)


def _without(definitions: Definitions, name: str) -> Definitions:
    def fewer(environment: Environment) -> list[Any]:
        kept = [one for one in definitions(environment) if one.name not in {name, PIPELINE.name}]
        return [
            *kept,
            FeatureService(
                name=PIPELINE.name, features=[one for one in kept if isinstance(one, FeatureView)]
            ),
        ]

    return fewer
