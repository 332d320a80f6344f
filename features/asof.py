"""Feast's point-in-time join on Spark, ours: bitemporal, one pass a feature view, right on ties and composite keys.

Feast's own Spark store multiplies rows on tied timestamps, joins two-column keys as one string without a separator,
and depends on the time zone of the session. This one takes Feast's definitions and answers for every entity row at time
T with the latest fact that was both true and known by then:

- A fact is visible when its event time and, where its source declares one, its created time are not after T. A source
  that declares a created time and leaves it empty in a row never shows that row.
- Of the visible facts the latest by event counts, then the latest created, then the greatest by value.
- A fact older than the view's time to live counts as none; one exactly as old still counts.
- An entity row with a null key gets nulls. No entity row is ever dropped or multiplied.

A source partitioned by date is read only where the facts can lie, when it declares its `date_partition_column`: that
date must not be more than a day before the (UTC) event, nor more than a day after the time at which the fact is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING, Any

from feast import BatchFeatureView, OnDemandFeatureView
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkOfflineStore, SparkOfflineStoreConfig, SparkRetrievalJob
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.offline_stores.offline_utils import get_feature_view_query_context
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from pipelines.errors import NightshiftError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import Column

_BROADCAST_ROWS = 500_000
"""Up to so many entity rows, what a view answers is small enough to be sent to every task instead of shuffled."""
_EVENT_TIMESTAMP = "event_timestamp"
_SLACK = timedelta(days=1)
_AT, _ASKED, _FACT = "__at", "__asked", "__fact"


class AsOfOfflineStoreConfig(SparkOfflineStoreConfig):
    """Configuration of `AsOfOfflineStore`: Feast finds it by this name."""

    type: str = "features.asof.AsOfOfflineStore"


class AsOfJob(SparkRetrievalJob):
    """A retrieval whose rows are a Spark DataFrame, still to be computed."""

    def __init__(self, rows: DataFrame, **about: Any) -> None:
        super().__init__(spark_session=rows.sparkSession, query="", **about)
        self._rows = rows

    def to_spark_df(self) -> DataFrame:
        """The entity rows with their features."""
        return self._rows


class AsOfOfflineStore(SparkOfflineStore):
    """Feast's Spark store with our join. It works on classic and Connect sessions: the one of the entity rows."""

    @staticmethod
    def get_historical_features(  # noqa: D102 -- Feast's own interface
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = True,  # always: what was not known yet is never seen
        **kwargs: Any,
    ) -> AsOfJob:
        _require_supported(feature_views)
        rows = _entity_rows(entity_df)
        time = _time_column(rows)
        span = _Span.of(rows, time)
        contexts = get_feature_view_query_context(feature_refs, feature_views, registry, project, (span.first, span.last))
        views = [_View.of(context, full_feature_names) for context in contexts]
        _require_columns(rows, views)
        answers = [_answer(view, rows, time, span) for view in views]
        return AsOfJob(
            rows=reduce(lambda left, answer: _attach(left, answer, time, span), answers, rows),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry),
            metadata=RetrievalMetadata(feature_refs, [c for c in rows.columns if c != time], span.first, span.last),
            config=config,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    """How many entity rows there are, and between which times."""

    rows: int
    first: datetime
    last: datetime

    @classmethod
    def of(cls, rows: DataFrame, time: str) -> _Span:
        # As numbers, because a collected timestamp is a naive one in the client's own time zone.
        bounds = rows.agg(F.count(F.lit(1)), F.unix_micros(F.min(time)), F.unix_micros(F.max(time))).first()
        assert bounds is not None, "an aggregation without keys has one row"
        count, first, last = bounds
        return cls(rows=count, first=_instant(first or 0), last=_instant(last or 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """A requested feature view, in terms of its source's columns."""

    name: str
    source: str
    """What stands behind FROM."""
    keys: dict[str, str]
    """Join key in the entity rows -> column of the source."""
    features: dict[str, str]
    """Name in the result -> column of the source."""
    event: str
    created: str | None
    partition: str | None
    ttl: timedelta | None

    @classmethod
    def of(cls, context: Any, full_feature_names: bool) -> _View:
        columns = [selection.split(" AS ") for selection in context.entity_selections]
        prefix = f"{context.name}__" if full_feature_names else ""
        return cls(
            name=context.name,
            source=context.table_subquery,
            keys={key: column for column, key in columns},
            features={prefix + context.field_mapping.get(column, column): column for column in context.features},
            event=context.timestamp_field,
            created=context.created_timestamp_column or None,
            partition=context.date_partition_column or None,
            ttl=timedelta(seconds=context.ttl) if context.ttl else None,
        )


def _answer(view: _View, rows: DataFrame, time: str, span: _Span) -> DataFrame:
    """For each key and time that the entity rows ask for, what the view knew then."""
    asked = [*(F.col(_quoted(key)) for key in view.keys), F.col(_quoted(time)).alias(_AT), F.lit(1).alias(_ASKED), F.lit(None).alias(_FACT)]
    timeline = _facts(view, rows.sparkSession, span).union(_with_keys(rows, view.keys).select(*asked))
    # A fact known at the very moment of the question counts: facts sort before questions.
    so_far = Window.partitionBy(*map(_quoted, view.keys)).orderBy(_AT, _ASKED).rowsBetween(Window.unboundedPreceding, Window.currentRow)
    latest = timeline.withColumn(_FACT, F.max(_FACT).over(so_far)).where(F.col(_ASKED) == 1)
    if view.ttl is not None:
        latest = latest.where(F.col(_FACT)["event"] >= F.col(_AT) - F.lit(view.ttl))
    answers = latest.dropDuplicates([*view.keys, _AT])
    values = [F.col(_FACT)["values"][f"f{i}"].alias(name) for i, name in enumerate(view.features)]
    return answers.select(*map(_quoted, view.keys), F.col(_AT).alias(time), *values)


def _facts(view: _View, spark: SparkSession, span: _Span) -> DataFrame:
    """Facts of the view that some entity row may see: keys, when each became visible, and the fact itself.

    The fact is a struct that sorts as facts supersede each other: event, created, then the values.
    """
    source = _in_partitions(spark.sql(f"SELECT * FROM {view.source}"), view, span)
    event = F.col(_quoted(view.event))
    known = F.greatest(event, F.col(_quoted(view.created))) if view.created else event
    seen = source.where(event.between(_literal(_earliest(view, span)), _literal(span.last)))
    if view.created:
        seen = seen.where(F.col(_quoted(view.created)) <= _literal(span.last))
    values = F.struct(*(F.col(_quoted(column)).alias(f"f{i}") for i, column in enumerate(view.features.values())))
    created = [F.col(_quoted(view.created)).alias("created")] if view.created else []
    keys = [F.col(_quoted(column)).alias(key) for key, column in view.keys.items()]
    fact = F.struct(event.alias("event"), *created, values.alias("values"))
    return _with_keys(seen, view.keys.values()).select(*keys, known.alias(_AT), F.lit(0).alias(_ASKED), fact.alias(_FACT))


def _in_partitions(source: DataFrame, view: _View, span: _Span) -> DataFrame:
    if view.partition is None:
        return source
    # Dates as text: Spark casts them to the column's own type while it plans, so that Delta prunes either kind.
    day, until = F.col(_quoted(view.partition)), span.last + _SLACK
    source = source.where(day <= F.lit(f"{until:%Y-%m-%d}"))
    if view.ttl is None:
        return source
    return source.where(day >= F.lit(f"{_earliest(view, span) - _SLACK:%Y-%m-%d}"))


def _attach(left: DataFrame, answer: DataFrame, time: str, span: _Span) -> DataFrame:
    """The rows with the answer's features: an answer has each key and time once, so none is multiplied."""
    features = answer.columns[answer.columns.index(time) + 1 :]
    keys = answer.columns[: -len(features)]
    right = F.broadcast(answer) if span.rows <= _BROADCAST_ROWS else answer
    return left.join(right, keys, "left").select(*map(_quoted, [*left.columns, *features]))


def _with_keys(frame: DataFrame, keys: Any) -> DataFrame:
    for key in keys:
        frame = frame.where(F.col(_quoted(key)).isNotNull())
    return frame


def _earliest(view: _View, span: _Span) -> datetime:
    return span.first - view.ttl if view.ttl is not None else datetime(1, 1, 2, tzinfo=UTC)


def _instant(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _literal(moment: datetime) -> Column:
    return F.timestamp_micros(F.lit((moment - _instant(0)) // timedelta(microseconds=1)))


def _quoted(column: str) -> str:
    return f"`{column}`"


def _entity_rows(entity_df: Any) -> DataFrame:
    if isinstance(entity_df, DataFrame):
        return entity_df
    if entity_df is None:
        raise UsageError("The as-of store needs entity rows: give get_historical_features an entity_df, not a range of dates.")
    spark = SparkSession.getActiveSession()
    if spark is None:
        raise NightshiftError(
            "No Spark session is open. Connect first (jobs.session.connect), or give the entity rows as a Spark DataFrame."
        )
    return spark.sql(entity_df) if isinstance(entity_df, str) else spark.createDataFrame(entity_df)


def _time_column(rows: DataFrame) -> str:
    """The column with the time of each entity row: `event_timestamp`, else the only timestamp."""
    found = [name for name, kind in rows.dtypes if kind == "timestamp"]
    if _EVENT_TIMESTAMP in found:
        return _EVENT_TIMESTAMP
    if len(found) != 1:
        raise UsageError(
            f"Entity rows need their time in a column '{_EVENT_TIMESTAMP}' of type timestamp. Timestamps found: {found or 'none'}."
        )
    return found[0]


def _require_supported(feature_views: Sequence[Any]) -> None:
    for view in feature_views:
        if isinstance(view, BatchFeatureView) or not isinstance(view.batch_source, SparkSource):
            raise UsageError(
                f"Feature view '{view.name}' must be a plain FeatureView over a SparkSource: the as-of store runs no transformations."
            )


def _require_columns(rows: DataFrame, views: Sequence[_View]) -> None:
    columns = set(rows.columns)
    for view in views:
        missing = [key for key in view.keys if key not in columns]
        if missing:
            raise UsageError(f"The entity rows lack {missing}, join keys of feature view '{view.name}'. They have: {sorted(columns)}.")
        twice = sorted(columns & set(view.features))
        if twice:
            raise UsageError(
                f"{twice} of feature view '{view.name}' are already there. Drop or rename them, or ask for full_feature_names."
            )
        columns |= set(view.features)
