"""Stage `features`: one point-in-time join for what is trained on and for what is scored.

One join, so that the two cannot differ. Its rows are those of the pipeline's entity table: of the
run's days (to be scored), and of earlier days whose outcome became known in the run's days (to be
trained on). A training row is the very row that was scored, joined as of the same moment.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from features import store
from jobs.lake import tables
from jobs.spark.session import connect
from jobs.stages.check import audit_and_publish
from jobs.stages.transform import written_for
from pipelines import features as declared
from pipelines.days import Days
from pipelines.errors import UsageError
from pipelines.spec import SCORING, TRAINING

if TYPE_CHECKING:
    from pipelines.run import Run
    from pipelines.spec import Pipeline

_LANDED = "landed_date"
_LEARNED = "learned"
"""The day on which a row's label became known; null in rows to be scored."""
_LABEL_TYPES = {"binary_classification": "int", "regression": "double"}
"""Learning task -> Spark's type of its label."""


def features(run: Run) -> dict[str, object]:
    """Stage, judge and publish the training and scoring rows of the run's days.

    Returns:
        Rows of both tables, labelled rows, outcomes that no published row of the entity table
        matches, and what the check found.

    Raises:
        UsageError: there is no function for the labels, or a declared feature that nobody gives.
        GateRefused: a table failed; neither is published.
    """
    # Spark's functions work without a JVM only from the first session on.
    connect(run.environment)
    outcomes = _outcomes(run)
    # Computed once: every view asks these rows, and both tables are parts of the join.
    entities = _entity_rows(run, outcomes).localCheckpoint()
    rows = store.historical(run.pipeline, run.environment, entities).localCheckpoint()
    trained = tables.stage_rows(run, TRAINING, _training(run, rows))
    scored = tables.stage_rows(run, SCORING, _scoring(run, rows))
    known = outcomes.count if outcomes else 0
    made: dict[str, object] = {
        "training_rows": trained,
        "scoring_rows": scored,
        "labelled": outcomes.labelled if outcomes else 0,
        "outcomes_never_scored": known - trained,
    }
    return {**made, **audit_and_publish(run, (TRAINING, SCORING))}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcomes:
    """What became known in the run's days."""

    rows: DataFrame
    """Entity, label, and `learned`: the day on which it became known."""
    count: int
    labelled: int
    first: date
    last: date
    """Event dates between which they lie."""


def _outcomes(run: Run) -> _Outcomes | None:
    """None when nothing became known."""
    labels = _labels_of(run.pipeline)
    # Its parameters name the tables that it reads.
    names = list(inspect.signature(labels).parameters)
    if any(_drops_nothing(run, name) for name in names):
        return None
    inputs = {name: tables.read(run, name, run.days) for name in names}
    rows = labels(**inputs).withColumnRenamed(_LANDED, _LEARNED)
    event = run.pipeline.event_date
    counted = rows.agg(
        F.count(F.lit(1)),
        F.count(run.pipeline.training.label),
        F.min(event),
        F.max(event),
    ).first()
    assert counted is not None, "an aggregation without keys has one row"
    count, known, first, last = counted
    if not count:
        return None
    return _Outcomes(rows=rows, count=count, labelled=known, first=first, last=last)


def _labels_of(pipeline: Pipeline) -> Callable[..., DataFrame]:
    return written_for(pipeline, "labels", "<outcomes>", f"'{pipeline.name}' has no labels")


def _drops_nothing(run: Run, name: str) -> bool:
    """Whether the feed of that name drops nothing in the run's days: its table may not exist."""
    feeds = {feed.name: feed for feed in run.pipeline.feeds}
    return name in feeds and run.pipeline.drop_days(feeds[name], run.days) is None


def _entity_rows(run: Run, outcomes: _Outcomes | None) -> DataFrame:
    """Rows to be scored (`learned` is null) and to be trained on, with every key of the views."""
    training = run.pipeline.training
    no_label = F.lit(None).cast(_LABEL_TYPES[training.task])
    not_learned = F.lit(None).cast("date")
    to_score = _entities(run, run.days).withColumns(
        {training.label: no_label, _LEARNED: not_learned}
    )
    if outcomes is None:
        return to_score
    # What is about a day was scored in the night before it.
    evenings = Days(outcomes.first, outcomes.last).shifted(-1)
    night_before = F.date_sub(run.pipeline.event_date, 1)
    scored_then = _entities(run, evenings).where(F.col(_LANDED) == night_before)
    to_train_on = scored_then.join(outcomes.rows, list(run.pipeline.entity))
    return to_score.unionByName(to_train_on)


def _entities(run: Run, days: Days) -> DataFrame:
    """Rows of the entity table without the features that the join gives back, for both alike."""
    rows = tables.read(run, run.pipeline.entity_table, days)
    return rows.drop(*declared.names(run.pipeline.views))


def _training(run: Run, rows: DataFrame) -> DataFrame:
    learned = rows.where(F.col(_LEARNED).isNotNull())
    # A training row belongs to the day on which its label came, not to that of its scoring.
    landed = learned.withColumn(_LANDED, F.col(_LEARNED))
    label = run.pipeline.training.label
    return landed.select(_LANDED, *_columns(run, rows), label)


def _scoring(run: Run, rows: DataFrame) -> DataFrame:
    unknown = rows.where(F.col(_LEARNED).isNull())
    return unknown.select(_LANDED, *_columns(run, rows))


def _columns(run: Run, rows: DataFrame) -> list[str]:
    pipeline = run.pipeline
    training = pipeline.training
    wanted = [*pipeline.entity, *pipeline.carried, "event_timestamp"]
    wanted += [*training.categorical, *training.numeric]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise UsageError(
            f"Neither {pipeline.entity_table} nor the feature views of '{pipeline.name}' give "
            f"{missing}, which the pipeline declares."
        )
    # Each once: what is carried may be a feature too.
    return list(dict.fromkeys(wanted))
