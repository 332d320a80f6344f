"""The home's registry holds the definitions of today's code, written only when they change."""

from __future__ import annotations

import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from feast import FeatureStore

from features import store
from pipelines.environment import ROOT, Environment
from pipelines.flights import PIPELINE


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def test_a_new_home_gets_a_registry_with_every_view(environment: Environment) -> None:
    made = store.open_store(PIPELINE, environment)
    declared = sorted(view.name for view in PIPELINE.views)
    assert sorted(view.name for view in made.list_feature_views()) == declared
    assert [service.name for service in made.list_feature_services()] == ["flights"]


def test_feast_is_imported_without_its_checks_at_each_call_and_nothing_else_is() -> None:
    program = """
import features.store, feast, typeguard
checks = "TypeCheckMemo" in feast.FeatureView.__init__.__code__.co_names
print(checks, typeguard.typechecked.__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "typechecked"]


def test_unchanged_definitions_are_not_applied_again(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.open_store(PIPELINE, environment)
    monkeypatch.setattr(store, "_apply", lambda *_: pytest.fail("applied again"))
    assert store.open_store(PIPELINE, environment).get_feature_service("flights").name == "flights"


def test_changed_definitions_replace_the_registry_and_leave_no_old_view(
    environment: Environment,
) -> None:
    store.open_store(PIPELINE, environment)
    fewer = tuple(view for view in PIPELINE.views if view.name != "plane")
    changed = store.open_store(replace(PIPELINE, views=fewer), environment)
    assert "plane" not in [view.name for view in changed.list_feature_views()]


def test_another_lake_is_a_change(environment: Environment) -> None:
    store.open_store(PIPELINE, environment)
    moved = store.open_store(PIPELINE, replace(environment, lake="s3a://elsewhere"))
    assert "s3a://elsewhere/flights/rolling" in moved.get_feature_view("co").batch_source.query


def test_feasts_own_command_finds_the_registry(environment: Environment) -> None:
    store.open_store(PIPELINE, environment)
    folder = store.store_folder(PIPELINE, environment)
    opened = FeatureStore(repo_path=str(folder))
    assert "co" in [view.name for view in opened.list_feature_views()]
    assert opened.config.offline_store.type == "features.asof.AsOfOfflineStore"


def test_the_registry_is_in_a_folder_that_nobody_else_can_enter(environment: Environment) -> None:
    store.open_store(PIPELINE, environment)
    folder = store.store_folder(PIPELINE, environment)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
