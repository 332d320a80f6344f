"""Files of models in an object store that is away for a while."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.lake.store_faults import what_store_says
from jobs.training import registry as registries
from jobs.training.registry import Registry
from pipelines import places
from pipelines.errors import NightshiftError
from tests.jobs.training.small import environment_at
from tests.jobs.training.test_registry import keep
from tests.object_store.conftest import ObjectStore


@pytest.fixture
def registry(store: ObjectStore, tmp_path: Path) -> Registry:
    models = places.place(f"s3://{store.new_bucket()}/models")
    environment = replace(environment_at(tmp_path), models=models)
    registries.create(environment, "small")
    return Registry(environment, "small")


@pytest.mark.parametrize("kind", ["throttled", "away"])
def test_a_store_that_is_away_does_not_pass_for_a_model_that_is_gone(
    kind: str,
    registry: Registry,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of MLflow's library: no need to wait.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    model = keep(registry, tmp_path, "one")
    store.fail(kind, path=r".*/models/.*|/[^/]*", method="GET|HEAD")
    for read in (
        lambda: registry.fetch(model, ["model.keras"], tmp_path),
        lambda: registry.pins(model),
    ):
        with pytest.raises(Exception, match=r".") as caught:
            read()
        assert not isinstance(caught.value, NightshiftError)
        assert what_store_says(caught.value)
    store.mend()
    # It is back for the second try.
    store.fail(kind, path=r".*\.keras", method="GET|HEAD", times=1)
    registry.fetch(model, ["model.keras"], tmp_path)
    assert (tmp_path / "model.keras").read_bytes() == b"one"


def test_a_model_that_is_gone_from_a_store_is_told_so(registry: Registry, tmp_path: Path) -> None:
    model = keep(registry, tmp_path, "one")
    (file,) = registry._environment.models.rglob("model.keras")
    file.unlink()
    with pytest.raises(NightshiftError, match=r"model.keras of model 'small' version 1 cannot be"):
        registry.fetch(model, ["model.keras"], tmp_path)
