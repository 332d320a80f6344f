"""The feature store of one pipeline in one installation.

Feast's registry in the home, our as-of join behind it.
"""

from __future__ import annotations

import hashlib
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import feast
import yaml  # type: ignore[import-untyped]
from feast import FeatureStore, RepoConfig

from pipelines.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from pyspark.sql import DataFrame

    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

_SETTINGS = Path(__file__).with_name("feature_store.yaml")


def historical(pipeline: Pipeline, environment: Environment, rows: DataFrame) -> DataFrame:
    """The entity rows with every feature of the pipeline as of their `event_timestamp`.

    The facts are looked up at once; only their last join to the rows is left to be computed. The
    rows are read once for each feature view: checkpoint or persist them when they cost more than a
    scan.
    """
    store, module = open_store(pipeline, environment), _module(pipeline)
    service = store.get_feature_service(pipeline.name)
    found = store.get_historical_features(
        entity_df=module.prepare(rows), features=service, full_feature_names=True
    )
    finished: DataFrame = module.finish(found.to_spark_df())
    return finished


def entity_table(pipeline: Pipeline) -> str:
    """The table whose rows are scored."""
    return str(_module(pipeline).ENTITY_TABLE)


def open_store(pipeline: Pipeline, environment: Environment) -> FeatureStore:
    """The store, its registry holding the definitions of today's code."""
    registry = environment.home / "feast" / f"{pipeline.name}.db"
    definitions = _module(pipeline).definitions(environment)
    applied, wanted = registry.with_suffix(".sha256"), _fingerprint(definitions)
    if not (registry.exists() and applied.exists() and applied.read_text() == wanted):
        _apply(pipeline, registry, definitions)
        applied.write_text(wanted)
    return _store(pipeline, registry)


def _apply(pipeline: Pipeline, registry: Path, definitions: list[Any]) -> None:
    """Write the registry anew, beside the old one, and put it in its place.

    No reader sees half of it, no old view stays.
    """
    registry.parent.mkdir(
        parents=True, exist_ok=True, mode=0o700
    )  # Feast unpickles what a registry holds
    fresh = registry.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    _store(pipeline, fresh).apply(definitions)
    fresh.replace(registry)


def _store(pipeline: Pipeline, registry: Path) -> FeatureStore:
    settings = {
        **yaml.safe_load(_SETTINGS.read_text()),
        "project": pipeline.name,
        "registry": str(registry),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's deprecations of its own defaults
        return FeatureStore(config=RepoConfig(repo_path=_SETTINGS.parent, **settings))


def _fingerprint(definitions: list[Any]) -> str:
    digest = hashlib.sha256(feast.__version__.encode())
    for one in definitions:
        digest.update(_timeless(one.to_proto()).SerializeToString(deterministic=True))
    return digest.hexdigest()


def _timeless(message: Any) -> Any:
    """The message without its instants.

    Feast stamps every definition with the time at which the object was made.
    """
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.message_type.full_name == "google.protobuf.Timestamp":
            message.ClearField(field.name)
        else:
            for part in value if field.is_repeated else [value]:
                _timeless(part)
    return message


def _module(pipeline: Pipeline) -> ModuleType:
    name = f"features.{pipeline.name}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(
            f"features/{pipeline.name}.py does not exist: "
            f"it defines the feature views of '{pipeline.name}'."
        ) from None
