"""Feast's point-in-time join on Spark, ours.

Bitemporal, one pass a feature view, right on ties and composite keys.

Feast's own Spark store multiplies rows on tied timestamps, joins two-column keys as one string
without a separator, and depends on the time zone of the session. This one takes Feast's definitions
and answers for every entity row at time T with the latest fact that was both true and known by
then:

- A fact is visible when its event time and, where its source declares one, its created time are not
  after T. A source that declares a created time and leaves it empty in a row never shows that row.
- Of the visible facts the latest by event counts, then the latest created, then the greatest by
  value.
- A fact older than the view's time to live counts as none; one exactly as old still counts.
- An entity row with a null key gets nulls. No entity row is ever dropped or multiplied.

A task answers for whole keys. Where many rows ask, a key with too many facts and questions for a
task is cut into slices of time; and of several views, what is asked twice is looked up once.

A source partitioned by date is read only where the facts can lie, when it declares its
`date_partition_column`: that date must not be more than a day before the (UTC) event, nor more than
a day after the time at which the fact is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from operator import add, and_
from typing import TYPE_CHECKING, Any

from feast import BatchFeatureView, OnDemandFeatureView
from feast.infra.offline_stores.contrib.spark_offline_store.spark import (
    SparkOfflineStore,
    SparkOfflineStoreConfig,
    SparkRetrievalJob,
)
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.infra.offline_stores.offline_store import RetrievalMetadata
from feast.infra.offline_stores.offline_utils import get_feature_view_query_context
from pydantic import Field
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from features.computed import computed
from pipelines.errors import NightshiftError, UsageError, explaining
from pipelines.quoting import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column
    from pyspark.sql.window import WindowSpec

_BROADCAST_ROWS = 500_000
"""Up to so many answers of a view are sent to every task. Of more they are shuffled, and so are the
entity rows, of which many may share a key and a time."""
_DISTINCT_ROWS = 100_000
"""Of more entity rows questions are asked once each, which is a shuffle of its own; of fewer the
answers are made one."""
_SLICE_ROWS = 1_000_000
"""Of one key's facts and questions, as many as a task sorts within seconds."""
_MOST_SLICES = 64
"""Each is a term of the expression that tells the slice of a row."""
_PASSES_AT_ONCE = 3
"""The server plans one pass while it computes another; more would only wait for its cores."""
_EVENT_TIMESTAMP = "event_timestamp"
"""Feast's own name for the time of an entity row."""
_SLACK = timedelta(days=2)
"""How far a partition date may lie from the time of its facts: it may be a local date, and a fact
may land on the day before it holds."""
_BEGINNING = datetime(1, 1, 3, tzinfo=UTC)
"""Before every fact, and `_SLACK` after Python's first day."""
_AT = "__at"
"""Column of a timeline: when a fact became visible, or a question was asked."""
_ASKED = "__asked"
"""Column of a timeline: position of the view that a question is asked of; null: a fact."""
_FACT = "__fact"
"""Column of a timeline: the fact, null in a question until it is answered."""
_ROW = "__row"
"""Column of a timeline: the entity row that asks, where it is not joined afterwards."""
_SLICE = "__slice"
"""Column of a timeline: the slice of time in which a row lies, counted from the earliest."""
_BEFORE = "__before"
"""Column: the fact that was the latest before a slice."""


class AsOfOfflineStoreConfig(SparkOfflineStoreConfig):
    """Configuration of `AsOfOfflineStore`: Feast finds it by this name."""

    type: str = "features.asof.AsOfOfflineStore"
    stand_ins: dict[str, Callable[[date | None], str]] = Field(default_factory=dict)
    """By relation what gives the name of a view to be read in its place.

    It is called with the first partition date of which rows may count; None: all before do.
    """


class AsOfJob(SparkRetrievalJob):
    """A retrieval whose rows are a Spark DataFrame, still to be computed."""

    def __init__(self, rows: DataFrame, **about: Any) -> None:
        super().__init__(spark_session=rows.sparkSession, query="", **about)
        self._rows = rows

    def to_spark_df(self) -> DataFrame:
        """The entity rows with their features."""
        return self._rows


class AsOfOfflineStore(SparkOfflineStore):
    """Feast's Spark store with our join.

    It works on classic and Connect sessions: the one of the entity rows.
    """

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
        columns = rows.columns
        span = _Span.of(rows, time)
        contexts = get_feature_view_query_context(
            feature_refs,
            feature_views,
            registry,
            project,
            (span.first, span.last),
        )
        read = _reading(config.offline_store.stand_ins, span)
        views = [_View.of(context, full_feature_names, read) for context in contexts]
        _require_columns(columns, views)
        joined = _joined(rows, views, time, span)
        shown = list(columns)
        for view in views:
            shown += view.features
        keys = [column for column in columns if column != time]
        return AsOfJob(
            rows=joined.select(*map(_column, shown)),
            full_feature_names=full_feature_names,
            on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(
                feature_refs, project, registry
            ),
            metadata=RetrievalMetadata(feature_refs, keys, span.first, span.last),
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
        bounds = rows.agg(
            F.count(F.lit(1)),
            F.unix_micros(F.min(time)),
            F.unix_micros(F.max(time)),
        ).first()
        assert bounds is not None, "an aggregation without keys has one row"
        count, first, last = bounds
        # No rows have no times; any will do, because nothing is asked.
        return cls(rows=count, first=_instant(first or 0), last=_instant(last or 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """Facts to be read, in terms of their own columns."""

    relation: str
    """What stands behind FROM."""
    keys: tuple[str, ...]
    event: str
    created: str | None
    partition: str | None
    ttl: timedelta | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """A requested feature view, or one of its aliases."""

    name: str
    source: _Source
    keys: tuple[str, ...]
    """Columns of the entity rows, in the order of the source's keys."""
    features: dict[str, str]
    """Name in the result -> column of the source."""

    @classmethod
    def of(
        cls,
        context: Any,
        full_feature_names: bool,
        read: Callable[[_Source], str],
    ) -> _View:
        # Feast gives each key as `column of the source AS column of the entity rows`.
        selections = [selection.split(" AS ") for selection in context.entity_selections]
        prefix = f"{context.name}__" if full_feature_names else ""
        source = _Source(
            relation=context.table_subquery,
            keys=tuple(column for column, _ in selections),
            event=context.timestamp_field,
            created=context.created_timestamp_column or None,
            partition=context.date_partition_column or None,
            ttl=timedelta(seconds=context.ttl) if context.ttl else None,
        )
        source = replace(source, relation=read(source))
        features = {}
        for column in context.features:
            name = context.field_mapping.get(column, column)
            features[prefix + name] = column
        keys = tuple(key for _, key in selections)
        return cls(name=context.name, source=source, keys=keys, features=features)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Aliases of one view: they are answered in one pass over their source."""

    source: _Source
    views: list[_View]
    columns: list[str]
    """The source's columns that any of the views needs."""

    @classmethod
    def all_of(cls, views: Sequence[_View]) -> list[_Group]:
        by_source: dict[_Source, list[_View]] = {}
        for view in views:
            by_source.setdefault(view.source, []).append(view)
        groups = []
        for source, members in by_source.items():
            columns: dict[str, None] = {}
            for view in members:
                columns |= dict.fromkeys(view.features.values())
            groups.append(cls(source=source, views=members, columns=list(columns)))
        return groups


def _reading(
    stand_ins: Mapping[str, Callable[[date | None], str]], span: _Span
) -> Callable[[_Source], str]:
    """Puts into a source's query what is read in the place of its relations."""

    def read(source: _Source) -> str:
        query = source.relation
        first = _first_partition(source, span)
        for relation, stand_in in stand_ins.items():
            if relation in query:
                query = query.replace(relation, stand_in(first))
        return query

    return read


def _joined(rows: DataFrame, views: Sequence[_View], time: str, span: _Span) -> DataFrame:
    """The rows with the features of all views."""
    groups = _Group.all_of(views)
    if len(views) == 1:
        return _answered(groups[0], rows, time, span)
    with ThreadPoolExecutor(_PASSES_AT_ONCE) as pool:
        answers = list(pool.map(lambda group: _answers(group, rows, time, span), groups))
    joined = rows
    for group, answer in zip(groups, answers, strict=True):
        many = _with_many_answers(answer, span)
        for position, view in enumerate(group.views):
            right = _answers_of(position, group, answer, time)
            if position not in many:
                right = F.broadcast(right)
            # An answer has each key and time once, so no row is multiplied.
            keys = dict.fromkeys(view.keys)
            joined = joined.join(right, [*keys, time], "left")
    return joined


def _with_many_answers(answers: DataFrame, span: _Span) -> set[int]:
    """Positions of the views whose answers are too many to be sent to every task."""
    if span.rows <= _BROADCAST_ROWS:
        return set()
    counted = answers.groupBy(_ASKED).count()
    many = counted.where(F.col("count") > _BROADCAST_ROWS).collect()
    return {row[_ASKED] for row in many}


def _answers_of(position: int, group: _Group, answers: DataFrame, time: str) -> DataFrame:
    """The answers to one view of the group, columns named as in the result."""
    view = group.views[position]
    # A column of the entity rows that several keys are asked by is joined by once.
    keys: dict[str, Column] = {}
    for i, key in enumerate(view.keys):
        keys[key] = _renamed(_key(i), key)
    values = []
    for name, column in view.features.items():
        values.append(_value_of(group, column).alias(name))
    own = answers.where(F.col(_ASKED) == position)
    return own.select(*keys.values(), _renamed(_AT, time), *values)


def _looking_up(group: _Group) -> AbstractContextManager[None]:
    """Tell what Spark refuses as a fault of the views."""
    names = ", ".join(view.name for view in group.views)
    said = f"Feature view {names} cannot be looked up as its keys, event, created and features say"
    return explaining(PySparkException, said)


def _answered(group: _Group, rows: DataFrame, time: str, span: _Span) -> DataFrame:
    """The rows with the features of the group's only view: each goes through the timeline itself.

    With more views that would be a sort of whole rows for each, in one plan.
    """
    (view,) = group.views
    whole = F.struct(*map(_column, rows.columns)).alias(_ROW)
    asked = F.lit(0).alias(_ASKED)
    with _looking_up(group):
        questions = rows.select(_renamed(time, _AT), asked, *_keys_of(view), whole)
        latest = _latest(group, _facts(group, rows.sparkSession, span), questions, span)
        own = [F.col(_ROW)[name].alias(name) for name in rows.columns]
        values = [
            F.when(_is_young(group.source), _value_of(group, column)).alias(name)
            for name, column in view.features.items()
        ]
        answered = latest.select(*own, *values)
        # Asks the server: what is wrong with the view is told here, not by whoever reads the rows.
        _ = answered.schema
    return answered


def _answers(group: _Group, rows: DataFrame, time: str, span: _Span) -> DataFrame:
    """For each view, key and time that the entity rows ask for, the latest fact visible then."""
    source = group.source
    with _looking_up(group):
        facts = _facts(group, rows.sparkSession, span)
        questions = _questions(group, rows, time)
        each = [_ASKED, *_key_columns(source), _AT]
        are_many = span.rows > _DISTINCT_ROWS
        if are_many:
            # Before they are sent to where their facts are: many rows ask the same.
            questions = questions.dropDuplicates(each)
        once = _latest(group, facts, questions, span).where(_is_young(source))
        if not are_many:
            once = once.dropDuplicates(each)
        # Computed here and now: all views in one plan cost the planner more than the joins
        # themselves.
        return computed(once)


def _latest(group: _Group, facts: DataFrame, questions: DataFrame, span: _Span) -> DataFrame:
    """The questions with the latest fact of their key that was visible then."""
    timeline = facts.unionByName(questions, allowMissingColumns=True)
    keys = _key_columns(group.source)
    bounds = _bounds_of_slices(timeline, keys) if span.rows > _SLICE_ROWS else []
    if bounds:
        latest = _latest_in_slices(timeline, keys, bounds)
    else:
        latest = timeline.withColumn(_FACT, F.max(_FACT).over(_so_far(keys)))
    return latest.where(F.col(_ASKED).isNotNull())


def _bounds_of_slices(timeline: DataFrame, keys: Sequence[str]) -> list[int]:
    """Where the timelines are cut, in microseconds: none where no key has too many rows."""
    counted = timeline.groupBy(*keys).count()
    longest = computed(counted.orderBy(F.desc("count")).limit(1))
    found = longest.first()
    rows = 0 if found is None else found["count"]
    slices = min(math.ceil(rows / _SLICE_ROWS), _MOST_SLICES)
    if slices < 2:
        return []
    shares = [number / slices for number in range(1, slices)]
    of_key = _with_keys_of(longest, timeline, keys)
    cuts = of_key.agg(F.percentile_approx(F.unix_micros(_AT), shares)).first()
    assert cuts is not None, "an aggregation without keys has one row"
    return sorted(set(cuts[0]))


def _with_keys_of(few: DataFrame, timeline: DataFrame, keys: Sequence[str]) -> DataFrame:
    """The rows whose keys are among the few, also where these are null."""
    others = [_renamed(key, f"{key} of few") for key in keys]
    same = [_column(key).eqNullSafe(_column(f"{key} of few")) for key in keys]
    few = F.broadcast(few.select(*others))
    return timeline.join(few, reduce(and_, same), "left_semi")


def _latest_in_slices(
    timeline: DataFrame,
    keys: Sequence[str],
    bounds: Sequence[int],
) -> DataFrame:
    """The timeline with the latest fact of each row, a task for each key and slice of time.

    It is that of the row's own slice, or the latest of all slices before: whichever supersedes.
    """
    passed = [(F.unix_micros(_AT) > bound).cast("int") for bound in bounds]
    sliced = timeline.withColumn(_SLICE, reduce(add, passed))
    latest = F.max(_FACT).alias(_BEFORE)
    of_slices = sliced.groupBy(*keys, _SLICE).agg(latest)
    earlier = Window.partitionBy(*keys).orderBy(_SLICE).rowsBetween(Window.unboundedPreceding, -1)
    before = of_slices.withColumn(_BEFORE, F.max(_BEFORE).over(earlier))
    in_slice = _so_far([*keys, _SLICE])
    within = sliced.withColumn(_FACT, F.max(_FACT).over(in_slice))
    # A question without a key has no slices of it, and stays.
    joined = within.join(before, [*keys, _SLICE], "left")
    return joined.withColumn(_FACT, F.greatest(_FACT, _BEFORE)).drop(_SLICE, _BEFORE)


def _is_young(source: _Source) -> Column:
    """Whether the fact still counts at the time of the question."""
    if source.ttl is None:
        return F.lit(True)
    oldest = F.col(_AT) - F.lit(source.ttl)
    return F.col(_FACT)["event"] >= oldest


def _value_of(group: _Group, column: str) -> Column:
    """A column of the source, of the fact."""
    return F.col(_FACT)["values"][_value(group.columns.index(column))]


def _so_far(keys: Sequence[str]) -> WindowSpec:
    """What a timeline holds of the keys up to each of its rows."""
    # A fact known at the very moment of the question counts: facts, which ask for no view, sort
    # before questions.
    order = (F.col(_AT), F.col(_ASKED).asc_nulls_first())
    keyed = Window.partitionBy(*keys).orderBy(*order)
    return keyed.rowsBetween(Window.unboundedPreceding, Window.currentRow)


def _questions(group: _Group, rows: DataFrame, time: str) -> DataFrame:
    """What the entity rows ask of each view of the group: a key and a time."""
    asked = []
    for position, view in enumerate(group.views):
        of_view = F.lit(position).alias(_ASKED)
        asked.append(F.struct(of_view, *_keys_of(view)))
    # One pass over the rows, however many views ask.
    each = F.inline(F.array(*asked))
    questions = rows.select(_renamed(time, _AT), each)
    return _with_whole_keys(questions, group.source)


def _keys_of(view: _View) -> list[Column]:
    """Columns of the entity rows that hold the view's keys, named as in a timeline."""
    return [_renamed(key, _key(i)) for i, key in enumerate(view.keys)]


def _facts(group: _Group, spark: SparkSession, span: _Span) -> DataFrame:
    """Facts that some entity row may see: keys, when each became visible, and the fact itself.

    The fact is a struct that sorts as facts supersede each other: by event, then created, then the
    values.
    """
    source = group.source
    last = _literal(span.last)
    event = _column(source.event)
    facts = _in_partitions(spark.sql(f"SELECT * FROM {source.relation}"), source, span)
    facts = facts.where(event.between(_literal(_earliest(source, span)), last))
    visible_at = event
    times = [event.alias("event")]
    if source.created is not None:
        created = _column(source.created)
        # Without this a null would pass: greatest() looks past it.
        facts = facts.where(created <= last)
        visible_at = F.greatest(event, created)
        times.append(created.alias("created"))
    keys = [_renamed(key, _key(i)) for i, key in enumerate(source.keys)]
    values = [_renamed(column, _value(i)) for i, column in enumerate(group.columns)]
    fact = F.struct(*times, F.struct(*values).alias("values"))
    selected = facts.select(*keys, visible_at.alias(_AT), fact.alias(_FACT))
    return _with_whole_keys(selected, source)


def _in_partitions(facts: DataFrame, source: _Source, span: _Span) -> DataFrame:
    if source.partition is None:
        return facts
    # Dates as text: Spark casts them to the column's own type while it plans, so that Delta prunes
    # either kind.
    day = _column(source.partition)
    first = _first_partition(source, span)
    last = (span.last + _SLACK).date()
    facts = facts.where(day <= F.lit(str(last)))
    return facts if first is None else facts.where(day >= F.lit(str(first)))


def _first_partition(source: _Source, span: _Span) -> date | None:
    """The first partition date of facts that can count; None: no fact is too old."""
    if not span.rows:
        # Nobody asks, so that none counts: else all since 1970 would.
        return date.max
    if source.ttl is None:
        return None
    return (_earliest(source, span) - _SLACK).date()


def _with_whole_keys(frame: DataFrame, source: _Source) -> DataFrame:
    """Without the rows that lack a key: they can neither ask nor answer."""
    for key in _key_columns(source):
        frame = frame.where(F.col(key).isNotNull())
    return frame


def _key_columns(source: _Source) -> list[str]:
    return [_key(i) for i in range(len(source.keys))]


def _key(i: int) -> str:
    return f"__key{i}"


def _value(i: int) -> str:
    return f"value{i}"


def _earliest(source: _Source, span: _Span) -> datetime:
    """The event time of the oldest fact that can count."""
    if source.ttl is None:
        return _BEGINNING
    return span.first - source.ttl


def _instant(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _literal(moment: datetime) -> Column:
    # As a number: a datetime would be read in the time zone of the session.
    since_epoch = moment - _instant(0)
    return F.timestamp_micros(F.lit(since_epoch // timedelta(microseconds=1)))


def _column(name: str) -> Column:
    # Quoted, because a dot in a name would be taken for a field of a struct.
    return F.col(quoted(name))


def _renamed(column: str, name: str) -> Column:
    return _column(column).alias(name)


def _entity_rows(entity_df: Any) -> DataFrame:
    if isinstance(entity_df, DataFrame):
        return entity_df
    if entity_df is None:
        raise UsageError(
            "The as-of store needs entity rows: "
            "give get_historical_features an entity_df, not a range of dates."
        )
    spark = SparkSession.getActiveSession()
    if spark is None:
        raise NightshiftError(
            "No Spark session is open. Connect first (jobs.spark.session.connect), "
            "or give the entity rows as a Spark DataFrame."
        )
    if isinstance(entity_df, str):
        return spark.sql(entity_df)
    return spark.createDataFrame(entity_df)


def _time_column(rows: DataFrame) -> str:
    """The column with the time of each entity row: `event_timestamp`.

    Where none has that name, the only timestamp.
    """
    timestamps = [name for name, kind in rows.dtypes if kind == "timestamp"]
    if _EVENT_TIMESTAMP in timestamps:
        return _EVENT_TIMESTAMP
    # One of another type is meant all the same: as of another column other facts are found.
    if _EVENT_TIMESTAMP in rows.columns or len(timestamps) != 1:
        raise UsageError(
            f"Entity rows need their time in a column '{_EVENT_TIMESTAMP}' of type timestamp. "
            f"Timestamps found: {timestamps or 'none'}."
        )
    return timestamps[0]


def _require_supported(feature_views: Sequence[Any]) -> None:
    for view in feature_views:
        # A batch view is a plain one by type, and would have its transformation left out.
        is_plain = not isinstance(view, BatchFeatureView)
        if not (is_plain and isinstance(view.batch_source, SparkSource)):
            raise UsageError(
                f"Feature view '{view.name}' must be a plain FeatureView over a SparkSource: "
                "the as-of store runs no transformations."
            )


def _require_columns(entity_columns: Sequence[str], views: Sequence[_View]) -> None:
    columns = set(entity_columns)
    for view in views:
        missing = [key for key in view.keys if key not in columns]
        if missing:
            raise UsageError(
                f"The entity rows lack {missing}, join keys of feature view '{view.name}'. "
                f"They have: {sorted(columns)}."
            )
        twice = sorted(columns & set(view.features))
        if twice:
            raise UsageError(
                f"{twice} of feature view '{view.name}' are already there. "
                "Drop or rename them, or ask for full_feature_names."
            )
        columns |= set(view.features)
