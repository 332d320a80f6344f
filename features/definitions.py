"""Feast's entities, feature views and service, as they follow from a pipeline's declaration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from feast import Entity, FeatureService, FeatureView, Field
from feast.types import Float64, Int64, String
from feast.value_type import ValueType
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import IntegralType, StructType

from features.sources import lake_source
from pipelines import features as declared
from pipelines.quoting import quoted

if TYPE_CHECKING:
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
    from pyspark.sql import Column

    from pipelines.environment import Environment
    from pipelines.features import Feature
    from pipelines.spec import Pipeline

Definition = Any
"""An entity, a feature view or the feature service: Feast's classes are untyped."""
_VALUE = re.compile(r"\bvalue\b")
"""What stands in `Feature.finish` for the value that was looked up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lookup:
    """What views over one table have in common: they are answered in one pass over it."""

    table: str
    keys: tuple[str, ...]
    event: str
    created: str | None
    max_age_hours: int | None

    @classmethod
    def of(cls, view: declared.FeatureView) -> _Lookup:
        return cls(
            table=view.table,
            # Sorted, so that views that declare them in another order have a lookup in common.
            keys=tuple(sorted({*view.keys, *view.constants})),
            event=view.event,
            created=view.created,
            max_age_hours=view.max_age_hours,
        )


def definitions(pipeline: Pipeline, environment: Environment) -> list[Definition]:
    """Everything to be registered with Feast; the service is named after the pipeline."""
    columns = _columns_by_lookup(pipeline.views)
    keys: set[str] = set()
    for view in pipeline.views:
        keys.update(_Lookup.of(view).keys)
    entities = {name: _entity(name) for name in sorted(keys)}
    views = []
    projections = []
    for view in pipeline.views:
        names = columns[_Lookup.of(view)]
        made = _view(pipeline, environment, view, entities, names)
        views.append(made)
        read = [names[feature.looked_up] for feature in view.features]
        # Two features may read one column, and Feast is asked for it once.
        projections.append(made.with_join_key_map(_join_keys(view))[list(dict.fromkeys(read))])
    service = FeatureService(
        name=pipeline.name,
        features=projections,
        description=pipeline.title,
        owner=pipeline.owner,
    )
    return [*entities.values(), *views, service]


def with_constants(rows: DataFrame, pipeline: Pipeline) -> DataFrame:
    """The entity rows with every join key that is the same for all of them."""
    constants: dict[str, Column] = {}
    for view in pipeline.views:
        for key, value in view.constants.items():
            constants[view.constant_column(key)] = F.lit(value)
    return rows.withColumns(constants) if constants else rows


def finished(rows: DataFrame, pipeline: Pipeline) -> DataFrame:
    """The joined rows with each feature under its own name, in its own type.

    Feast calls what it looked up `<view>__<column>`.
    """
    columns = _columns_by_lookup(pipeline.views)
    is_asked = any(feature.is_whole is None for feature in pipeline.features)
    # Asked of the server only where a declaration leaves it to the table.
    types = rows.schema if is_asked else StructType()
    values: dict[str, Column] = {}
    joined: list[str] = []
    for view in pipeline.views:
        for feature in view.features:
            name = f"{view.name}__{columns[_Lookup.of(view)][feature.looked_up]}"
            values[feature.name] = _value(feature, name, types)
            joined.append(name)
    constants: list[str] = []
    for view in pipeline.views:
        constants += [view.constant_column(key) for key in view.constants]
    # Spark takes no empty set of columns.
    named = rows.withColumns(values) if values else rows
    return named.drop(*joined, *constants)


def _value(feature: Feature, joined: str, types: StructType) -> Column:
    value = F.col(quoted(joined))
    if feature.finish:
        value = F.expr(_VALUE.sub(lambda _: quoted(joined), feature.finish))
    if feature.when_unknown is not None:
        value = F.coalesce(value, F.lit(feature.when_unknown))
    is_whole = feature.is_whole
    if is_whole is None:
        is_whole = isinstance(types[joined].dataType, IntegralType)
    return value.cast("long" if is_whole else "double")


def _columns_by_lookup(
    views: Iterable[declared.FeatureView],
) -> dict[_Lookup, dict[str, str]]:
    """For each lookup, what its views read: SQL -> the name of the column that it becomes."""
    found: dict[_Lookup, dict[str, str]] = {}
    for view in views:
        columns = found.setdefault(_Lookup.of(view), {})
        for feature in view.features:
            columns.setdefault(feature.looked_up, view.lookup_column(feature))
    return found


def _entity(key: str) -> Entity:
    return Entity(name=key, join_keys=[key], value_type=ValueType.STRING)


def _join_keys(view: declared.FeatureView) -> dict[str, str]:
    """Key of the view's table -> column of the entity rows."""
    constants = {key: view.constant_column(key) for key in view.constants}
    return {**view.keys, **constants}


def _view(
    pipeline: Pipeline,
    environment: Environment,
    view: declared.FeatureView,
    entities: Mapping[str, Entity],
    columns: Mapping[str, str],
) -> FeatureView:
    """A view of Feast. Its keys are in the schema too, or Feast would ask Spark for their types."""
    lookup = _Lookup.of(view)
    keys = [Field(name=key, dtype=String) for key in lookup.keys]
    whole = {columns[feature.looked_up] for feature in view.features if feature.is_whole}
    features = [
        Field(name=name, dtype=Int64 if name in whole else Float64) for name in columns.values()
    ]
    # Feast takes 0 for any age.
    age = timedelta(hours=view.max_age_hours) if view.max_age_hours else timedelta(0)
    return FeatureView(
        name=view.name,
        entities=[entities[key] for key in lookup.keys],
        schema=[*keys, *features],
        ttl=age,
        source=_source(pipeline, environment, view, lookup, columns),
        # There is no online store: whole nights are scored.
        online=False,
        description=view.doc,
        owner=pipeline.owner,
    )


def _source(
    pipeline: Pipeline,
    environment: Environment,
    view: declared.FeatureView,
    lookup: _Lookup,
    columns: Mapping[str, str],
) -> SparkSource:
    plain = [name for sql, name in columns.items() if sql == name]
    computed: dict[str, str] = {}
    for sql, name in columns.items():
        if sql != name:
            computed[name] = quoted(sql) if declared.is_plain(sql) else sql
    return lake_source(
        environment,
        name=view.name,
        table=f"{pipeline.name}.{view.table}",
        columns=(*lookup.keys, *plain),
        computed=computed,
        event=view.event,
        created=declared.known_since(view, pipeline.timezone),
    )
