"""Stage `features`: one point-in-time join for what is trained on and for what is scored.

One join, so that the two cannot differ. Its rows are those of the pipeline's entity table: of the
run's days (to be scored), and of earlier days whose outcome became known in the run's days (to be
trained on). A training row is the very row that was scored, joined as of the same moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial, reduce
from itertools import chain
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BooleanType,
    DateType,
    NullType,
    NumericType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

from features import store
from features.computed import computed
from jobs.ingestion.records import no_rows
from jobs.lake import tables
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import exists
from jobs.lake.partitions import column_types, published_days
from jobs.lake.publications import Input, Origin
from jobs.lake.transforms import definitions, labels_of, parameters, require_dates
from jobs.spark.session import connect
from jobs.stages.check import audit_and_publish
from jobs.stages.moments import refusing_late_moments
from pipelines import features as declared
from pipelines.days import Days, ranges
from pipelines.errors import UsageError, explaining, refuse_unless
from pipelines.spec import SCORING, TRAINING

if TYPE_CHECKING:
    from pyspark.sql import Column
    from pyspark.sql.types import StructType

    from jobs.lake.knowledge import Seen
    from pipelines.features import FeatureView
    from pipelines.run import Run
    from pipelines.spec import Pipeline

_LANDED = "landed_date"
_LEARNED = "learned"
"""The day on which a row's label became known."""
_TOLD = "__told"
"""What became known of a row: structs of that day and the label; none in rows only to be scored."""
_FAR_DAYS = 31
"""Evenings that lie further apart are read, joined and recorded by themselves: a join more costs
about what the facts of a month do."""
_ONE_DAY = timedelta(days=1)
_LABEL_TYPES = {"binary_classification": "int", "regression": "double"}
"""Learning task -> Spark's type of its label."""
_READ_AS_NUMBERS = (NumericType, BooleanType, NullType, StringType)
"""Spark's types of a numeric feature; of a text the number that it says."""
_READ_AS_TEXTS = (*_READ_AS_NUMBERS, DateType, TimestampType, TimestampNTZType)
"""Those of a categorical one, whose texts are its categories."""
_SAYS_A_NUMBER = r"(?i)\A[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?|nan)\z"
"""Texts that Arrow reads as one, by which a model does."""
_SHOWN = 40
"""Characters of a text that a message shows."""


def features(run: Run) -> dict[str, object]:
    """Stage, judge and publish the training and scoring rows of the run's days.

    Of a run that is about one of these tables only that one.

    Returns:
        Rows of both tables, labelled rows, outcomes that no published row of the entity table
        matches, and what the check found.

    Raises:
        UsageError: there is no function for the labels, or a declared feature that nobody gives.
        GateRefused: a table failed; neither is published.
    """
    # Spark's functions work without a JVM only from the first session on.
    connect(run.environment)
    tables.unstage_others(run)
    # Before anything is read: what is replaced meanwhile makes these rows too old to be published.
    knowledge = Knowledge.of_now(run)
    outcomes = _outcomes(run, knowledge.first_day(run.pipeline.entity_table, run.days.first))
    entities = _computed_entity_rows(run, outcomes, knowledge)
    rows = _joined(run, entities, [*outcomes.evenings, *run.days], knowledge)
    finished = f"The features of '{run.pipeline.name}' cannot be finished as they are declared"
    with explaining(PySparkException, finished):
        # Computed once: both tables are parts of it.
        rows = computed(rows)
    _refuse_odd_texts(rows, run.pipeline)
    definition = definitions(run.pipeline)[TRAINING]
    made: dict[str, object] = {}
    never_scored: dict[str, object] = {}
    if run.makes(TRAINING):
        origin = _origin_of_training(run, outcomes, knowledge, definition)
        trained = tables.stage_rows(run, TRAINING, _training(run, rows), origin=origin)
        made["training_rows"] = trained
        never_scored["outcomes_never_scored"] = outcomes.count - trained
    if run.makes(SCORING):
        scored_from = {day: _inputs_of_scoring(run, Days.of(day), knowledge) for day in run.days}
        origin = Origin(definition=definition, inputs=scored_from)
        made["scoring_rows"] = tables.stage_rows(run, SCORING, _scoring(run, rows), origin=origin)
    made |= {"labelled": outcomes.labelled, **never_scored}
    if outcomes.early:
        made["outcomes_before_their_day"] = outcomes.early
    names = list(filter(run.makes, (TRAINING, SCORING)))
    return {**made, **audit_and_publish(run, names)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcomes:
    """What became known in the run's days."""

    rows: DataFrame | None = None
    """Entity, label, and `learned`: the day on which it became known."""
    given: StructType | None = None
    """Their columns."""
    count: int = 0
    labelled: int = 0
    early: int = 0
    """Told before the day that they are about had come, and left out: the night that they landed in
    had still to foretell them."""
    about: Mapping[date, Collection[date]] = field(default_factory=dict)
    """For each day on which some became known, their event dates; in the place of those before the
    pipeline's first day, that day."""
    first_night: date = date.min
    """The first in which rows were scored."""

    @property
    def evenings(self) -> list[date]:
        """Those before their event dates, in which they were scored, in order."""
        about = set(chain.from_iterable(self.about.values()))
        return sorted(day - _ONE_DAY for day in about if day > self.first_night)


def _outcomes(run: Run, first_night: date) -> _Outcomes:
    """All that became known in the run's days, which may be nothing."""
    labels = labels_of(run.pipeline)
    # Its parameters name the tables that it reads.
    names = parameters(labels)
    if all(_tells_nothing(run, name) for name in names):
        return _Outcomes()
    inputs = {name: _rows_for_labels(run, name) for name in names}
    event, label = run.pipeline.event_date, run.pipeline.training.label
    function = f"`labels` of jobs/transforms/{run.pipeline.name}.py"
    made = labels(**inputs)
    refuse_unless(
        isinstance(made, DataFrame),
        f"{function} gave {made!r}: it must return a DataFrame with a row for each outcome.",
    )
    # Here and not in the join, so that a column that is not there is told as one of the labels.
    told = made.select(_LANDED, *run.pipeline.entity, label)
    rows = told.withColumnRenamed(_LANDED, _LEARNED)
    # An outcome that names no day matches nothing.
    is_later = F.col(event) > F.col(_LEARNED)
    is_early = F.coalesce(is_later, F.lit(False))
    is_timely = ~is_early
    # No night can ever be made before it, and a source may say any day, such as one of the year 1.
    first_day = F.lit(min(first_night, run.pipeline.first_day))
    is_before = F.col(event) < first_day
    since_first = F.when(is_before, first_day).otherwise(F.col(event))
    by_day = rows.groupBy(_LEARNED).agg(
        F.count_if(is_early).alias("early"),
        F.count_if(is_timely).alias("rows"),
        F.count(F.when(is_timely, F.col(label))).alias("labelled"),
        F.collect_set(F.when(is_timely, since_first)).alias("about"),
    )
    whose = f"{function} must give landed_date, {', '.join(run.pipeline.entity)} and {label}"
    with explaining(PySparkException, whose):
        _refuse_odd_labels(told.schema, run.pipeline, function)
        found = by_day.collect()
    about = {}
    for row in found:
        if row["rows"]:
            about[row[_LEARNED]] = set(row["about"])
    return _Outcomes(
        rows=rows.where(is_timely),
        given=told.schema,
        count=sum(row["rows"] for row in found),
        labelled=sum(row["labelled"] for row in found),
        early=sum(row["early"] for row in found),
        about=about,
        first_night=first_night,
    )


def _refuse_odd_labels(given: StructType, pipeline: Pipeline, function: str) -> None:
    """Refuse outcomes whose days are no dates, or whose label is no number."""
    require_dates(given, (_LANDED, pipeline.event_date), function)
    label = pipeline.training.label
    kind = given[label].dataType
    refuse_unless(
        isinstance(kind, NumericType | NullType),
        f"{function} gave {label} as {kind.simpleString()}, which must be a number: "
        f"`CAST({label} AS {_LABEL_TYPES[pipeline.training.task].upper()})`.",
    )


def _rows_for_labels(run: Run, name: str) -> DataFrame:
    """Rows of the run's days; none of a feed that has not begun, whose table does not exist."""
    if _drops_nothing(run, name) and not exists(run, name):
        return no_rows(connect(run.environment), run.pipeline.feed(name))
    return tables.read(run, name, run.days)


def _tells_nothing(run: Run, name: str) -> bool:
    """Whether the feed of that name drops nothing in the run's days, and has no rows of them.

    It has some of days before a first day, or after a last, that was declared since.
    """
    if not _drops_nothing(run, name):
        return False
    return not any(day in run.days for day in published_days(run, name))


def _drops_nothing(run: Run, name: str) -> bool:
    """Whether the feed of that name drops nothing in the run's days."""
    feeds = {feed.name: feed for feed in run.pipeline.feeds}
    return name in feeds and run.pipeline.drop_days(feeds[name], run.days) is None


def _computed_entity_rows(run: Run, outcomes: _Outcomes, knowledge: Knowledge) -> DataFrame:
    """Those of `_entity_rows`, computed once: every view asks them."""
    pipeline = run.pipeline
    whose = (
        f"{pipeline.name}.{pipeline.entity_table} must give landed_date, event_timestamp and "
        f"{', '.join(pipeline.entity)}, of the types that the labels have"
    )
    with explaining(PySparkException, whose):
        # Those of a feed, or made before, no transform has looked at.
        rows = refusing_late_moments(_entity_rows(run, outcomes, knowledge), pipeline)
        rows = computed(rows)
    if outcomes.given is not None:
        _refuse_texts_beside_others(outcomes.given, rows.schema, pipeline)
    return rows


def _refuse_texts_beside_others(
    labels: StructType, entities: StructType, pipeline: Pipeline
) -> None:
    """Refuse an entity of which one side tells texts: '1' and '01' would be one number, and two."""
    for name in pipeline.entity:
        kinds = [given[name].dataType for given in (entities, labels)]
        texts = [isinstance(kind, StringType) for kind in kinds]
        own, told = (kind.simpleString() for kind in kinds)
        refuse_unless(
            all(texts) or not any(texts),
            f"{pipeline.name}.{pipeline.entity_table} gives {name} as {own}, and `labels` of "
            f"jobs/transforms/{pipeline.name}.py as {told}: a row and its outcome are found by "
            f"their entity, of one type. `CAST({name} AS {own.upper()})` in `labels`.",
        )


def _entity_rows(run: Run, outcomes: _Outcomes, knowledge: Knowledge) -> DataFrame:
    """Rows to be scored, to be trained on, or both, with every key of the views.

    Each once: in a pass over many days most of them are both.
    """
    training = run.pipeline.training
    # As the table has it, if it does: a night without outcomes tells no type of its own.
    published = column_types(run, TRAINING).get(training.label, _LABEL_TYPES[training.task])
    no_label = F.lit(None).cast(published)
    if outcomes.rows is None or not outcomes.about:
        no_day = F.lit(None).cast("date")
        nothing = F.struct(no_day.alias(_LEARNED), no_label.alias(training.label))
        to_score = _entities(run, run.days, knowledge)
        return to_score.withColumn(_TOLD, F.array_repeat(nothing, 0))
    label = F.coalesce(training.label, no_label).alias(training.label)
    told = F.array(F.struct(_LEARNED, label)).alias(_TOLD)
    # What is about a day was scored in the night before it.
    night_before = F.date_sub(run.pipeline.event_date, 1).alias(_LANDED)
    row = [_LANDED, *run.pipeline.entity]
    of_row = outcomes.rows.select(night_before, *run.pipeline.entity, told)
    if any(evening in run.days for evening in outcomes.evenings):
        # A row that is scored here too stays one, also where it was told of several times.
        all_told = F.flatten(F.collect_list(_TOLD))
        of_row = of_row.groupBy(*row).agg(all_told.alias(_TOLD))
    parts = [_entities(run, days, knowledge) for days in _read_for(run, outcomes)]
    rows = reduce(DataFrame.unionByName, parts).join(of_row, row, "left")
    return rows.where(_is_scored(run) | F.col(_TOLD).isNotNull())


def _read_for(run: Run, outcomes: _Outcomes) -> list[Days]:
    """The run's days, and the evenings before them: as one where no night lies between."""
    evenings = [evening for evening in outcomes.evenings if evening < run.days.first]
    before = ranges(evenings, _FAR_DAYS)
    *others, last = before or [run.days]
    if last.last == run.days.first - _ONE_DAY:
        return [*others, Days(last.first, run.days.last)]
    return [*before, run.days]


def _entities(run: Run, nights: Days, knowledge: Knowledge) -> DataFrame:
    """What each night had to score, as it was known then.

    Without the features that the join gives back, for both alike; but with what views are looked
    up by, which the join asks before it writes a feature of that name over it.
    """
    name = run.pipeline.entity_table
    seen = knowledge.seen_then(name)
    rows = _as_seen(run, name, nights, knowledge, seen)
    # Nor a label of that name: what is scored has none yet, and what is learned from gets its own.
    others = (run.pipeline.training.label, _LEARNED, _TOLD)
    asked: set[str] = set()
    for view in run.pipeline.views:
        asked.update(view.keys.values())
    given = [name for name in declared.names(run.pipeline.views) if name not in asked]
    return rows.drop(*given, *others)


def _joined(
    run: Run,
    entities: DataFrame,
    nights: Iterable[date],
    knowledge: Knowledge,
) -> DataFrame:
    """The rows of these nights with every feature, as it was known in the row's own night."""
    asked = set(nights)
    looked_up = {view.table for view in run.pipeline.views}
    near = [knowledge.pieces(looked_up, days) for days in ranges(asked, _FAR_DAYS)]
    parts = []
    for piece in chain.from_iterable(near):
        if asked.isdisjoint(piece):
            continue
        first, last = F.lit(piece.first), F.lit(piece.last)
        rows = entities.where(F.col(_LANDED).between(first, last))
        read = partial(_facts, run, knowledge, piece)
        parts.append(store.historical(run.pipeline, run.environment, rows, read))
    return reduce(DataFrame.unionByName, parts)


def _facts(
    run: Run,
    knowledge: Knowledge,
    nights: Days,
    name: str,
    first: date | None,
) -> DataFrame:
    """Rows of a table that landed from that day on, as the last of the nights knew them."""
    if first is None:
        first = knowledge.first_day(name, run.pipeline.first_day)
    # What lands after the nights is not known in them.
    days = Days(min(first, nights.first), nights.last)
    if first > nights.last:
        # Nobody asks, or what nothing known then can answer: a day that no table has.
        days = Days.of(date.max)
    return _as_seen(run, name, days, knowledge, knowledge.seen_by(name, nights.last))


def _as_seen(
    run: Run,
    name: str,
    days: Days,
    knowledge: Knowledge,
    seen: Seen,
) -> DataFrame:
    rows = tables.read(run, name, days)
    return tables.as_seen(run, name, rows, knowledge.unseen(name, days, seen), seen)


def _origin_of_training(
    run: Run, outcomes: _Outcomes, knowledge: Knowledge, definition: str
) -> Origin:
    needed = {}
    known = {}
    for day in run.days:
        labels = _inputs_of_labels(run, day, knowledge)
        known[day] = knowledge.known_day(labels, day)
        needed[day] = labels
        before = [about - _ONE_DAY for about in outcomes.about.get(day, ())]
        # Also those before the first night: it is not the first once nights before it are made.
        for evenings in ranges(before, _FAR_DAYS):
            needed[day] += _inputs_of_scoring(run, evenings, knowledge)
            # Before there was a label, but for evenings that were made when they were found.
            asked = {run.pipeline.entity_table, *(view.table for view in run.pipeline.views)}
            known[day] = max(known[day], knowledge.known_to_others(asked, evenings))
    return Origin(definition=definition, inputs=needed, known=known)


def _inputs_of_labels(run: Run, day: date, knowledge: Knowledge) -> tuple[Input, ...]:
    """What became known on that day: the last versions, whenever those became known."""
    names = parameters(labels_of(run.pipeline))
    return tuple(knowledge.table_input(name, Days.of(day)) for name in names)


def _inputs_of_scoring(run: Run, nights: Days, knowledge: Knowledge) -> tuple[Input, ...]:
    """What the join as of these nights reads: the rows, and for each view its facts."""
    needed = {run.pipeline.entity_table: nights}
    for view in run.pipeline.views:
        facts = _days_of_facts(run, view, nights)
        before = needed.get(view.table, facts)
        first = min(before.first, facts.first)
        needed[view.table] = Days(first, max(before.last, facts.last))
    return tuple(knowledge.table_input(name, days, nights) for name, days in needed.items())


def _days_of_facts(run: Run, view: FeatureView, nights: Days) -> Days:
    """The days on which facts may have landed that the view gives on these nights."""
    back = declared.days_back(view)
    if back is None:
        return Days(min(run.pipeline.first_day, nights.first), nights.last)
    return nights.since(back)


def _training(run: Run, rows: DataFrame) -> DataFrame:
    learned = rows.select("*", F.inline(_TOLD))
    # A training row belongs to the day on which its label came, not to that of its scoring.
    landed = learned.withColumn(_LANDED, F.col(_LEARNED))
    label = run.pipeline.training.label
    return landed.select(_LANDED, *_columns(run, rows), label)


def _scoring(run: Run, rows: DataFrame) -> DataFrame:
    return rows.where(_is_scored(run)).select(_LANDED, *_columns(run, rows))


def _is_scored(run: Run) -> Column:
    """Whether a row is one to be scored in the run's days; what is only trained on was before."""
    return F.col(_LANDED) >= F.lit(run.days.first)


def _columns(run: Run, rows: DataFrame) -> list[str]:
    pipeline = run.pipeline
    training = pipeline.training
    wanted = [*pipeline.entity, *pipeline.carried, "event_timestamp"]
    wanted += [*training.categorical, *training.numeric, *training.unread]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise UsageError(
            f"Neither {pipeline.entity_table} nor the feature views of '{pipeline.name}' give "
            f"{missing}, which the pipeline declares."
        )
    _refuse_odd_kinds(rows.schema, pipeline)
    # Each once: what is carried may be a feature too.
    return list(dict.fromkeys(wanted))


def _refuse_odd_kinds(given: StructType, pipeline: Pipeline) -> None:
    """Refuse features that no model could read: the night would end in its training."""
    for name in pipeline.training.numeric:
        kind = given[name].dataType
        refuse_unless(
            isinstance(kind, _READ_AS_NUMBERS),
            f"The numeric feature '{name}' of '{pipeline.name}' is of type {kind.simpleString()}, "
            "which is no number. Make one of it in the transform that gives it: of a date or an "
            "instant, how long ago it was.",
        )
    for name in pipeline.training.categorical:
        kind = given[name].dataType
        refuse_unless(
            isinstance(kind, _READ_AS_TEXTS),
            f"The categorical feature '{name}' of '{pipeline.name}' is of type "
            f"{kind.simpleString()}, of which a model makes no category. Make a text of it in the "
            "transform that gives it: of a list, `array_join`.",
        )


def _refuse_odd_texts(rows: DataFrame, pipeline: Pipeline) -> None:
    """Refuse texts of numeric features that say no number: the training, or predict, would end."""
    kinds = {field.name: field.dataType for field in rows.schema}
    texts = [name for name in pipeline.training.numeric if isinstance(kinds.get(name), StringType)]
    for name in texts:
        odd = rows.where(~F.col(name).rlike(_SAYS_A_NUMBER))
        rows_ = F.count(name).alias("rows")
        first = F.min(F.left(name, F.lit(_SHOWN))).alias("first")
        found = odd.agg(rows_, first).first()
        assert found is not None, "an aggregate without groups has a row"
        refuse_unless(
            not found["rows"],
            f"The numeric feature '{name}' of '{pipeline.name}' is a text, which is no number in "
            f"{found['rows']:,} rows, such as '{found['first']}'. Make a number of it in the "
            f"transform that gives it: `try_cast({name} AS DOUBLE)` is null where there is none.",
        )
