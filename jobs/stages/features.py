"""Stage `features`: one point-in-time join for what is trained on and for what is scored.

So that the two cannot differ.

Entity rows are the departures of the run's days (to be scored) and those departures whose outcome
became known in the run's days (to be trained on). A training row is the very departures row that
was scored, joined as of the same moment.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from features import store
from jobs.lake import tables
from jobs.stages.check import audit_and_publish
from jobs.stages.transform import written_for
from pipelines.days import Days
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.run import Run

_LANDED = "landed_date"
_LEARNED = "learned"
"""The day on which a row's label became known; null in rows to be scored."""


def features(run: Run) -> dict[str, object]:
    """Stage, judge and publish the training and scoring rows of the run's days.

    Returns:
        Rows of both tables, labelled rows, outcomes that no published departure matches, and what
        the check found.

    Raises:
        UsageError: there is no function for the labels, or a declared feature that nobody gives.
        GateRefused: a table failed; neither is published.
    """
    outcomes = _outcomes(run)
    entities = _entity_rows(run, outcomes).localCheckpoint()
    rows = store.historical(run.pipeline, run.environment, entities).localCheckpoint()
    trained = tables.stage_rows(run, "training", _training(run, rows))
    scored = tables.stage_rows(run, "scoring", _scoring(run, rows))
    made = {
        "training_rows": trained,
        "scoring_rows": scored,
        "labelled": outcomes.labelled if outcomes else 0,
        "outcomes_without_departure": (outcomes.count if outcomes else 0) - trained,
    }
    return {**made, **audit_and_publish(run, ("training", "scoring"))}


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
    function = written_for(
        run.pipeline, "labels", "<outcomes>", f"'{run.pipeline.name}' has no labels"
    )
    names = list(inspect.signature(function).parameters)
    if any(_drops_nothing(run, name) for name in names):
        return None
    rows = function(**{name: tables.read(run, name, run.days) for name in names}).withColumnRenamed(
        _LANDED, _LEARNED
    )
    event = run.pipeline.event_date
    found = rows.agg(
        F.count(F.lit(1)), F.count(run.pipeline.training.label), F.min(event), F.max(event)
    ).first()
    assert found is not None, "an aggregation without keys has one row"
    count, labelled, first, last = found
    return (
        _Outcomes(rows=rows, count=count, labelled=labelled, first=first, last=last)
        if count
        else None
    )


def _drops_nothing(run: Run, name: str) -> bool:
    """Whether the feed of that table has no drop in the run's days.

    So that the table may not exist yet.
    """
    feed = next((feed for feed in run.pipeline.feeds if feed.name == name), None)
    return feed is not None and run.pipeline.drop_days(feed, run.days) is None


def _entity_rows(run: Run, outcomes: _Outcomes | None) -> DataFrame:
    """Rows to be scored (`learned` is null) and to be trained on, with every key of the views."""
    label, scorable = run.pipeline.training.label, _departures(run, run.days)
    to_score = scorable.withColumns(
        {label: F.lit(None).cast("int"), _LEARNED: F.lit(None).cast("date")}
    )
    if outcomes is None:
        return to_score
    evenings = Days(outcomes.first, outcomes.last).shifted(-1)
    known = _departures(run, evenings).where(
        F.col(_LANDED) == F.date_sub(run.pipeline.event_date, 1)
    )
    return to_score.unionByName(known.join(outcomes.rows, list(run.pipeline.entity)))


def _departures(run: Run, days: Days) -> DataFrame:
    """Rows of the entity table without its feature columns.

    Those come back by the join, for both kinds alike.
    """
    return tables.read(run, store.entity_table(run.pipeline), days).drop(
        *run.pipeline.training.numeric
    )


def _training(run: Run, rows: DataFrame) -> DataFrame:
    learned = rows.where(F.col(_LEARNED).isNotNull()).withColumn(_LANDED, F.col(_LEARNED))
    return learned.select(_LANDED, *_columns(run, rows), run.pipeline.training.label)


def _scoring(run: Run, rows: DataFrame) -> DataFrame:
    return rows.where(F.col(_LEARNED).isNull()).select(_LANDED, *_columns(run, rows))


def _columns(run: Run, rows: DataFrame) -> list[str]:
    spec = run.pipeline
    wanted = list(
        dict.fromkeys(
            [
                *spec.entity,
                *spec.carried,
                "event_timestamp",
                *spec.training.categorical,
                *spec.training.numeric,
            ]
        )
    )
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise UsageError(
            f"Neither {store.entity_table(spec)} nor the feature views "
            f"of '{spec.name}' give {missing}, which the pipeline declares."
        )
    return wanted
