"""The feature store of one pipeline in one installation.

Feast's registry in the home, our as-of join behind it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import feast
import yaml
from feast import FeatureStore, RepoConfig

from features import definitions
from features.sources import relation

if TYPE_CHECKING:
    from datetime import date

    from pyspark.sql import DataFrame

    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

    Read = Callable[[str, date | None], DataFrame]
    """Gives at least the rows of a table that landed from a day on; None: all rows."""

_STORE_FILE = "feature_store.yaml"
"""Feast's own name for it: its command looks for this file."""
_REGISTRY_FILE = "registry.db"
_APPLIED_FILE = "applied.sha256"
"""Fingerprint of the definitions that the registry holds."""


def historical(
    pipeline: Pipeline,
    environment: Environment,
    rows: DataFrame,
    read: Read | None = None,
) -> DataFrame:
    """The entity rows with every feature of the pipeline as of their `event_timestamp`.

    The facts are looked up at once; only their last join to the rows is left to be computed. The
    rows are read once for each feature view, of more than a million rows several times: checkpoint
    or persist them when they cost more than a scan.

    Args:
        pipeline: Whose features they are.
        environment: Tells where the lake is.
        rows: What is asked about.
        read: What gives the rows of a table; None: they are as it has them now.
    """
    store = open_store(pipeline, environment)
    # An object of this store alone: its registry knows nothing of it.
    store.config.offline_store.stand_ins = _stand_ins(pipeline, environment, read)
    joined = store.get_historical_features(
        entity_df=definitions.with_constants(rows, pipeline),
        features=store.get_feature_service(pipeline.name),
        # Views may have features of the same name: each is told apart by its view's.
        full_feature_names=True,
    )
    return definitions.finished(joined.to_spark_df(), pipeline)


def open_store(pipeline: Pipeline, environment: Environment) -> FeatureStore:
    """The store, its registry holding the definitions of today's code."""
    folder = store_folder(pipeline, environment)
    wanted = definitions.definitions(pipeline, environment)
    fingerprint = _fingerprint(wanted)
    applied = folder / _APPLIED_FILE
    is_applied = applied.exists() and applied.read_text() == fingerprint
    has_registry = (folder / _REGISTRY_FILE).exists()
    if not (is_applied and has_registry):
        _apply(pipeline, folder, wanted)
        applied.write_text(fingerprint)
    return _store(pipeline, folder, _REGISTRY_FILE)


def store_folder(pipeline: Pipeline, environment: Environment) -> Path:
    """Where the registry lies, and the file by which Feast's own command finds it."""
    return environment.home / "feast" / pipeline.name


def _stand_ins(
    pipeline: Pipeline, environment: Environment, read: Read | None
) -> dict[str, Callable[[date | None], str]]:
    """What a query reads in the place of each table that is looked up, if not the table."""
    if read is None:
        return {}
    tables = {view.table for view in pipeline.views}
    found = {}
    for table in tables:
        found[relation(environment, f"{pipeline.name}.{table}")] = _stand_in(table, read)
    return found


def _stand_in(table: str, read: Read) -> Callable[[date | None], str]:
    """What names a view of the table's rows, in their session."""

    # Feature views over one table may ask for the same days.
    @cache
    def named(first: date | None) -> str:
        name = f"instead_of_{table}_{uuid4().hex}"
        read(table, first).createOrReplaceTempView(name)
        return name

    return named


def _apply(pipeline: Pipeline, folder: Path, wanted: list[definitions.Definition]) -> None:
    """Write the registry anew, beside the old one, and put it in its place.

    No reader sees half of it, no old view stays.
    """
    # Feast unpickles what a registry holds: nobody else may write here.
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    fresh = folder / f"{_REGISTRY_FILE}.new"
    fresh.unlink(missing_ok=True)
    _store(pipeline, folder, fresh.name).apply(wanted)
    fresh.replace(folder / _REGISTRY_FILE)
    settings = yaml.safe_dump(_settings(pipeline, _REGISTRY_FILE), sort_keys=False)
    (folder / _STORE_FILE).write_text(settings)


def _store(pipeline: Pipeline, folder: Path, registry: str) -> FeatureStore:
    settings = _settings(pipeline, str(folder / registry))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's deprecations of its own defaults
        return FeatureStore(config=RepoConfig(repo_path=folder, **settings))


def _settings(pipeline: Pipeline, registry: str) -> dict[str, Any]:
    return {
        "project": pipeline.name,
        "provider": "local",
        "registry": registry,
        "offline_store": {"type": "features.asof.AsOfOfflineStore"},
        # Nights are scored in batches.
        "online_store": None,
        # Feast warns of the older ones.
        "entity_key_serialization_version": 3,
    }


def _fingerprint(wanted: list[definitions.Definition]) -> str:
    # Another version of Feast may write its registry in another way.
    digest = hashlib.sha256(feast.__version__.encode())
    for one in wanted:
        message = _timeless(one.to_proto())
        digest.update(message.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _timeless(message: Any) -> Any:
    """The message without its instants.

    Feast stamps every definition with the time at which the object was made.
    """
    for field, value in message.ListFields():
        # A plain value, or a map, which is iterated by its keys: neither holds an instant.
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.message_type.full_name == "google.protobuf.Timestamp":
            message.ClearField(field.name)
        else:
            parts = value if field.is_repeated else [value]
            for part in parts:
                _timeless(part)
    return message
