from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from jobs.training import registry as registries
from jobs.training.registry import ModelVersion, Registry
from pipelines.errors import NightshiftError, UsageError
from tests.jobs.training.small import models_at

NIGHT = date(2013, 1, 24)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(models_at(tmp_path), "small")


def keep(registry: Registry, folder: Path, fingerprint: str, as_of: date = NIGHT) -> ModelVersion:
    files = folder / "files"
    files.mkdir(exist_ok=True)
    (files / "model.keras").write_bytes(fingerprint.encode())
    return registry.keep(
        files, as_of, fingerprint, {"epochs": 2}, {"loss": [0.6, 0.5]}, {"ranks": 2}
    )


def test_an_empty_registry_knows_nothing(registry: Registry) -> None:
    assert (
        registry.champion(),
        registry.candidate(NIGHT),
        registry.trained("f"),
        registry.versions(),
    ) == (None, None, None, [])
    with pytest.raises(UsageError, match=r"No version of model 'small' named '7'"):
        registry.version("7")


def test_preparing_twice_is_harmless(tmp_path: Path) -> None:
    for _ in range(2):
        registries.prepare(models_at(tmp_path), "small")


def test_a_kept_model_is_the_challenger_and_found_by_fingerprint_and_night(
    registry: Registry, tmp_path: Path
) -> None:
    first, second = keep(registry, tmp_path, "one"), keep(registry, tmp_path, "two")
    assert [(v.version, v.aliases) for v in registry.versions()] == [
        ("2", ("challenger",)),
        ("1", ()),
    ]
    assert registry.trained("one") == first
    assert registry.candidate(NIGHT) == registry.version(second.version)
    assert registry.curves(first, "loss") == {"loss": [0.6, 0.5]}
    registry.challenge(first)
    found = registry.candidate(NIGHT)
    assert found is not None
    assert found.version == first.version


def test_promotion_moves_the_alias(registry: Registry, tmp_path: Path) -> None:
    first, second = keep(registry, tmp_path, "one"), keep(registry, tmp_path, "two")
    for model in (first, second):
        registry.promote(model)
        found = registry.champion()
        assert found is not None
        assert found.version == model.version


def test_a_file_is_fetched_as_it_was_registered(registry: Registry, tmp_path: Path) -> None:
    model = keep(registry, tmp_path, "one")
    assert registry.fetch(model, "model.keras", tmp_path).read_bytes() == b"one"


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
        registry.fetch(model, "model.keras", tmp_path)


def test_a_training_killed_before_its_last_step_is_registered_by_the_next(
    registry: Registry, tmp_path: Path
) -> None:
    model = keep(registry, tmp_path, "one")
    registry._client.delete_model_version("small", model.version)
    found = registry.trained("one")
    assert found is not None
    assert (found.run_id, found.fingerprint, found.as_of) == (model.run_id, "one", NIGHT)


def test_a_run_that_failed_is_no_model(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(registry._client, "log_artifacts", full)
    with pytest.raises(OSError, match="disk full"):
        keep(registry, tmp_path, "one")
    assert registry.trained("one") is None
