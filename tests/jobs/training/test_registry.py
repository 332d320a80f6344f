from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from threading import active_count

import pytest
from botocore.exceptions import EndpointConnectionError
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import create_sqlalchemy_engine
from sqlalchemy.exc import OperationalError

from jobs.training import registry as registries
from jobs.training.registry import ModelVersion, Registry
from pipelines.environment import ROOT
from pipelines.errors import NightshiftError, UsageError
from tests.jobs.training.small import environment_at, models_at, moved_by_hand, registered_by_hand
from tests.postgres import Postgres

_MAKERS = {
    "a stage": "registry.create(environment, 'toy')",
    "another": "registry.Registry(environment, 'toy')",
    "the pages": "mlflow_ui._pages(environment)",
}
_MAKER = """
import sys
from jobs.training import mlflow_ui, registry
from pipelines.environment import Environment
environment = Environment.read()
print("ready", flush=True)
sys.stdin.readline()
"""
"""Makes what MLflow keeps once it is told to."""

NIGHT = date(2013, 1, 24)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(models_at(tmp_path), "small")


def keep(registry: Registry, folder: Path, fingerprint: str, as_of: date = NIGHT) -> ModelVersion:
    files = folder / "files"
    files.mkdir(exist_ok=True)
    (files / "model.keras").write_bytes(fingerprint.encode())
    return registry.keep(
        files,
        as_of=as_of,
        fingerprint=fingerprint,
        family="linear",
        recipe="as ever",
        params={"epochs": 2},
        curves={"loss": [0.6, 0.5]},
        pins={"ranks": 2},
    )


def test_in_a_database_elsewhere_files_of_models_lie_in_the_home_all_the_same(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "where one stands"
    folder.mkdir()
    monkeypatch.chdir(folder)
    environment = replace(models_at(tmp_path), mlflow_uri=postgres.database("mlflow"))
    registry = Registry(environment, "small")
    model = keep(registry, tmp_path, "one")
    (tmp_path / "fetched").mkdir()
    registry.fetch(model, ["model.keras"], tmp_path / "fetched")
    assert [one.name for one in registries.artifact_folders(environment, "small")] == [model.run_id]
    assert list(folder.iterdir()) == []


def test_a_home_that_was_copied_has_the_files_of_its_models_to_itself(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    original = models_at(before)
    first = Registry(original, "small")
    model = keep(first, tmp_path, "one")
    shutil.copytree(before, after)
    second = Registry(environment_at(after), "small")
    newer = keep(second, tmp_path, "two")
    folders = registries.artifact_folders(original, "small")
    assert [folder.name for folder in folders] == [model.run_id]
    shutil.rmtree(before)
    for one, content in ((model, b"one"), (newer, b"two")):
        folder = tmp_path / one.run_id
        folder.mkdir()
        second.fetch(one, ["model.keras"], folder)
        assert (folder / "model.keras").read_bytes() == content


def test_files_of_models_that_lie_elsewhere_on_purpose_stay_there(tmp_path: Path) -> None:
    environment = models_at(tmp_path)
    elsewhere = replace(environment, models=tmp_path / "elsewhere")
    model = keep(Registry(elsewhere, "small"), tmp_path, "one")
    at_home = Registry(environment, "small")
    newer = keep(at_home, tmp_path, "two")
    found = {one.name for one in registries.artifact_folders(elsewhere, "small")}
    assert found == {model.run_id, newer.run_id}


def test_an_empty_registry_knows_nothing(registry: Registry) -> None:
    assert registry.champion() is None
    assert registry.candidate(NIGHT) is None
    assert registry.trained("f") is None
    assert registry.versions() == []
    with pytest.raises(UsageError, match=r"No version of model 'small' named '7'"):
        registry.version("7")


@pytest.mark.parametrize("version", ["9" * 30, "9" * 5_000, "1.0", "-1", ""])
def test_what_is_no_number_of_a_version_names_none(
    registry: Registry, tmp_path: Path, version: str
) -> None:
    keep(registry, tmp_path, "one")
    with pytest.raises(UsageError, match="No version of model 'small' named"):
        registry.version(version)


def test_a_server_that_does_not_answer_is_not_taken_for_an_empty_registry(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(registry, tmp_path, "one")

    def away(_: str) -> None:
        raise MlflowException("API request failed")

    monkeypatch.setattr(registry._client, "get_registered_model", away)
    with pytest.raises(MlflowException, match="API request failed"):
        registry.versions()


def test_a_store_that_goes_away_between_pictures_is_told_as_that(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep(registry, tmp_path, "one")
    plot = tmp_path / "loss.png"
    plot.touch()
    registry._client.log_artifact(model.run_id, str(plot), "plots")
    real = registry._client.list_artifacts
    asked: list[str] = []

    def list_once(run_id: str, folder: str) -> object:
        asked.append(folder)
        if len(asked) > 1:
            raise EndpointConnectionError(endpoint_url="http://store")
        return real(run_id, folder)

    def away(*_: object) -> None:
        # What MLflow says of a file that is gone, too.
        raise MlflowException("Failed to download artifacts from path 'loss.png'")

    monkeypatch.setattr(registry._client, "list_artifacts", list_once)
    monkeypatch.setattr(registry._store_of(model), "download_artifacts", away)
    with pytest.raises(EndpointConnectionError):
        registry.pictures(model, ["loss"])


def test_a_model_without_finite_losses_that_was_kept_once_is_not_taken_for_trained(
    registry: Registry, tmp_path: Path
) -> None:
    model = keep(registry, tmp_path, "one")
    assert registry.trained("one") == model
    registry._client.log_metric(model.run_id, "val_loss", float("nan"))
    assert registry.trained("one") is None


def test_preparing_twice_is_harmless(tmp_path: Path) -> None:
    for _ in range(2):
        registries.create(models_at(tmp_path), "small")


def test_a_kept_model_is_the_challenger_and_found_by_fingerprint_and_night(
    registry: Registry, tmp_path: Path
) -> None:
    first = keep(registry, tmp_path, "one")
    second = keep(registry, tmp_path, "two")
    aliases = [(model.version, model.aliases) for model in registry.versions()]
    assert aliases == [("2", ("challenger",)), ("1", ())]
    assert registry.trained("one") == first
    assert registry.candidate(NIGHT) == registry.version(second.version)
    assert registry.curves(first, "loss") == {"loss": [0.6, 0.5]}
    registry.challenge(first)
    candidate = registry.candidate(NIGHT)
    assert candidate is not None
    assert candidate.version == first.version


def test_a_nights_candidate_is_the_one_that_was_trained_or_found_for_it_last(
    registry: Registry, tmp_path: Path
) -> None:
    first = keep(registry, tmp_path, "one")
    keep(registry, tmp_path, "two")
    registry.challenge(first)
    keep(registry, tmp_path, "next", as_of=NIGHT + timedelta(days=1))
    candidate = registry.candidate(NIGHT)
    assert candidate is not None
    assert candidate.version == first.version


def test_a_model_is_looked_up_without_a_list_of_all(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep(registry, tmp_path, "one")
    registry.set_champion(model.version)

    def search(*_: object, **__: object) -> None:
        raise AssertionError("all versions were listed")

    monkeypatch.setattr(registry._client, "search_model_versions", search)
    monkeypatch.setattr(registry._client, "get_registered_model", search)
    assert registry.champion() == "1"
    assert registry.version("1") == registry.candidate(NIGHT)
    assert registry.version("1").aliases == ("challenger", "champion")


def test_a_version_that_is_no_number_is_unknown(registry: Registry, tmp_path: Path) -> None:
    keep(registry, tmp_path, "one")
    with pytest.raises(UsageError, match=r"No version of model 'small' named 'x'.*Known: 1"):
        registry.version("x")


def test_promotion_moves_the_alias(registry: Registry, tmp_path: Path) -> None:
    first = keep(registry, tmp_path, "one")
    second = keep(registry, tmp_path, "two")
    for model in (first, second):
        registry.set_champion(model.version)
        assert registry.champion() == model.version


def test_a_version_that_others_made_is_no_model_and_its_run_is_kept(
    registry: Registry, tmp_path: Path
) -> None:
    own = keep(registry, tmp_path, "one")
    foreign = registered_by_hand(registry)
    for alias in ("champion", "challenger"):
        moved_by_hand(registry, foreign, alias)
    assert [model.version for model in registry.versions()] == ["1"]
    assert registry.of_others() == ["2"]
    assert registry.champion() == "2"
    candidate = registry.candidate(NIGHT)
    assert candidate is not None
    assert candidate.version == "1"
    with pytest.raises(UsageError, match=r"No version of model 'small' named '2'.*Known: 1"):
        registry.version("2")
    assert own.run_id in registry.runs()
    assert len(registry.runs()) == 2
    # The one that `keep` pins names no table.
    registry._client.delete_model_version("small", "1")
    assert registry.pinned() == set()


def test_a_version_remembers_its_family(registry: Registry, tmp_path: Path) -> None:
    keep(registry, tmp_path, "one")
    assert registry.version("1").family == "linear"


def test_a_version_from_before_there_were_families_is_a_neural_network(
    registry: Registry, tmp_path: Path
) -> None:
    keep(registry, tmp_path, "one")
    registry._client.delete_model_version_tag("small", "1", "family")
    assert registry.version("1").family == "neural_network"


def test_a_database_that_says_nothing_is_given_up_after_some_seconds(
    tmp_path: Path, postgres: Postgres
) -> None:
    environment = replace(environment_at(tmp_path), mlflow_uri=postgres.database("silent"))
    engine = create_sqlalchemy_engine(environment.mlflow_uri)
    with postgres.frozen():
        began = time.monotonic()
        with pytest.raises(OperationalError, match="timeout"):
            engine.connect()
    # MLflow tries ten times.
    assert time.monotonic() - began < 30


_TOLD_ONCE = """
import sys
from jobs.training import registry
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
try:
    MlflowClient(sys.argv[1]).create_experiment("another")
except MlflowException as error:
    print(error)
"""


def test_a_fault_of_the_database_is_raised_and_not_written_with_a_stack(
    registry: Registry, tmp_path: Path
) -> None:
    # As a disk that is full, it takes nothing.
    address = f"sqlite:///file:{tmp_path / 'mlflow.db'}?mode=ro&uri=true"
    told = subprocess.run(
        [sys.executable, "-c", _TOLD_ONCE, address],
        # MLflow makes a folder of such an address, below the one that it runs in.
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "attempt to write a readonly database" in told.stdout
    assert "Traceback" not in told.stderr


def test_a_file_is_fetched_as_it_was_registered(registry: Registry, tmp_path: Path) -> None:
    model = keep(registry, tmp_path, "one")
    folder = tmp_path / "fetched"
    folder.mkdir()
    registry.fetch(model, ["model.keras"], folder)
    assert (folder / "model.keras").read_bytes() == b"one"


def test_a_file_that_was_changed_afterwards_is_never_given_out(
    registry: Registry, tmp_path: Path
) -> None:
    model = keep(registry, tmp_path, "one")
    (stored,) = (tmp_path / "mlartifacts").rglob("model.keras")
    stored.write_bytes(b"evil")
    with pytest.raises(
        NightshiftError,
        match=r"model.keras of model 'small' version 1 was changed after it was registered",
    ):
        registry.fetch(model, ["model.keras"], tmp_path)


def test_what_serves_and_is_gone_names_the_way_back(registry: Registry, tmp_path: Path) -> None:
    model = keep(registry, tmp_path, "one")
    way = "nightshift rollback small --why TEXT. Where none served before, the next candidate"
    (stored,) = (tmp_path / "mlartifacts").rglob("model.keras")
    stored.unlink()
    with pytest.raises(NightshiftError, match=rf"cannot be read .* {way}"):
        registry.fetch(model, ["model.keras"], tmp_path)
    assert registry.in_service("1") == registry.version("1")
    registry._client.delete_model_version("small", "1")
    with pytest.raises(NightshiftError, match=rf"Version 1 of model 'small' serves and .* {way}"):
        registry.in_service("1")


def test_a_disk_that_is_full_is_no_fault_of_a_models_file(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep(registry, tmp_path, "one")

    def fail(*_: object) -> None:
        # All that MLflow says of it.
        raise MlflowException("Failed to download artifacts, please ensure the path is correct.")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(registry._store_of(model), "download_artifacts", fail)
    monkeypatch.setattr(registries, "_require_room", full)
    with pytest.raises(OSError, match="No space left"):
        registry.fetch(model, ["model.keras"], tmp_path)
    with pytest.raises(OSError, match="No space left"):
        registry.pins(model)


def test_the_pins_of_many_models_are_read_by_few_threads(
    registry: Registry, tmp_path: Path
) -> None:
    models = [keep(registry, tmp_path, str(number)) for number in range(12)]
    before = active_count()
    assert all(registry.pins(model) is not None for model in models)
    # Stores are parts of cycles, and end their threads when they are collected.
    gc.collect()
    until = time.monotonic() + 20
    while active_count() - before >= 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert active_count() - before < 4


def test_the_proof_of_room_for_a_file_leaves_nothing(tmp_path: Path) -> None:
    registries._require_room(tmp_path, 3_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_training_killed_before_its_last_step_is_registered_by_the_next(
    registry: Registry, tmp_path: Path
) -> None:
    model = keep(registry, tmp_path, "one")
    registry._client.delete_model_version("small", model.version)
    again = registry.trained("one")
    assert again is not None
    assert (again.run_id, again.fingerprint) == (model.run_id, "one")
    assert (again.as_of, again.family) == (NIGHT, "linear")


def test_a_run_that_failed_is_no_model(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(registry._client, "log_artifacts", full)
    with pytest.raises(OSError, match="disk full"):
        keep(registry, tmp_path, "one")
    assert registry.trained("one") is None


def test_all_who_begin_with_an_empty_database_at_once_find_it_made(tmp_path: Path) -> None:
    makers = {
        name: subprocess.Popen(
            [sys.executable, "-c", _MAKER + makes],
            env={**os.environ, "NIGHTSHIFT_HOME": str(tmp_path / "home")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, makes in _MAKERS.items()
    }
    for maker in makers.values():
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers.values():
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    for name, maker in makers.items():
        _, said = maker.communicate(timeout=120)
        assert maker.returncode == 0, f"{name}: {said}"


def test_what_a_version_has_learned_cannot_be_told_without_its_run(
    registry: Registry, tmp_path: Path
) -> None:
    model = keep(registry, tmp_path, "one")
    assert registry.params(model)["epochs"] == "2"
    gone = replace(model, run_id="0" * 32)
    with pytest.raises(NightshiftError, match=r"run of model 'small' version 1 is not in MLflow"):
        registry.params(gone)


def test_an_experiment_that_was_deleted_is_told_before_anything_is_trained(
    registry: Registry, tmp_path: Path
) -> None:
    model = keep(registry, tmp_path, "one")
    client = registry._client
    experiment = client.get_experiment_by_name("small").experiment_id
    client.delete_experiment(experiment)
    way_out = (
        "^Experiment 'small' was deleted in MLflow.*: "
        f"MLFLOW_TRACKING_URI=sqlite:///.*db mlflow experiments restore -x {experiment}$"
    )
    with pytest.raises(NightshiftError, match=way_out):
        registry.trained("one")
    with pytest.raises(NightshiftError, match=way_out):
        keep(registry, tmp_path, "two")
    # Whoever only looks sees what there is, and the platform starts.
    assert [one.version for one in registry.versions()] == [model.version]
    assert registry.others() == set()
    registries.create(environment_at(tmp_path), "small")
    client.restore_experiment(experiment)
    assert registry.trained("one") == model
