"""The monitor stage: how good published predictions were, once their labels arrive.

And what else a night is watched for: drift, skew and coverage (`jobs/training/watch.py`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from itertools import takewhile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake import approvals, model_events, ops, snapshots
from jobs.lake.locations import exists
from jobs.lake.partitions import published_days
from jobs.planning.seen import seen_by
from jobs.training import alarms, dataset, metrics, watch
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.errors import UsageError
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, TRAINING

_TABLE = "live_quality"


def monitor(run: Run) -> dict[str, object]:
    """Measure the predictions whose labels became known on the run's days, and watch these nights.

    The measures are by day, event date and model; what is watched, by night. An outcome that was
    told before, and on these days anew, is measured as it was told last, and taken out of the
    measures of the day on which it was told before. What models have foretold that have learned
    another label is not measured.

    Models that have awaited a person for too long are refused, also where no model is trained or
    evaluated.
    """
    approvals.expire(run)
    labels, days_before = _labels(run)
    arrived = _with_predictions(run, labels)
    landed = run.pipeline.table(TRAINING).partition
    rows = [_row(run, part) for part in _parts(run, arrived)]
    days = ", ".join(f"'{day}'" for day in (*days_before, *run.days))
    about = f"pipeline = '{run.pipeline.name}' AND landed_date IN ({days})"
    # Also by nothing: measures of labels that have been taken back must go.
    ops.replace(run.environment, _TABLE, rows, about)
    own = snapshots.between(arrived, landed, run.days)
    measured = sum(row["landed_date"] in run.days for row in rows)
    pooled = {"pooled": _measure(run, own)} if len(own) else {}
    return {"labels": len(own), "measured": measured, **pooled, **_watch(run)}


def _watch(run: Run) -> dict[str, object]:
    rows = [*watch.rows(run)]
    days = _told_of_now(run)
    inside = f"night >= '{run.days.first}' AND night <= '{run.days.last}'"
    predicate = f"pipeline = '{run.pipeline.name}' AND {inside}"
    ops.replace(run.environment, alarms.TABLE, rows, predicate)
    told = alarms.change(run.environment, run.pipeline, days)
    return {
        "watched": len(rows),
        "alarms": len(told.lasting),
        "drift": alarms.in_words(told.lasting, run.pipeline.watch) if told.lasting else None,
        "drift_began": [str(measure) for measure in told.began],
        "drift_ended": list(told.ended),
    }


def _told_of_now(run: Run) -> Days:
    """The last of the run's nights that this stage was never done for; at least its last night.

    Of the others people were told when it was.
    """
    last = run.days.last
    known = seen_by(run, run.doing)
    backwards = reversed([*run.days])
    new = takewhile(lambda night: night not in known, backwards)
    return Days(min(new, default=last), last)


def _labels(run: Run) -> tuple[pa.Table, list[date]]:
    """Labels of the run's days, and of days before on which some of theirs had been told already.

    Each as it was told last, and these days before.
    """
    pipeline = run.pipeline
    landed, keys = pipeline.table(TRAINING).partition, list(pipeline.entity)
    told = _told_around(run)
    own = snapshots.between(told, landed, run.days)
    is_before = pc.less(told[landed], pa.scalar(run.days.first))
    before = told.filter(is_before)
    anew = _of_events(run, before, own)
    days_before = sorted(set(anew[landed].to_pylist()))
    last = dataset.last_told(told, keys)
    known = last.filter(pc.is_valid(last[pipeline.training.label]))
    wanted = pa.array([*days_before, *run.days], pa.date32())
    return known.filter(pc.is_in(known[landed], wanted)), days_before


def _told_around(run: Run) -> pa.Table:
    """Outcomes of the run's days, and whatever else was told of the same events before and since.

    In the order in which they became known.
    """
    landed, event_date = run.pipeline.table(TRAINING).partition, run.pipeline.event_date
    since = run.pipeline.labels_land(run.days)
    lag = since.last - run.days.last
    near = Days(run.days.first - lag, since.last)
    told = _told(run, near)
    own = snapshots.between(told, landed, run.days)
    first = pc.min(own[event_date]).as_py()
    if first is not None and first < near.first:
        # Of an event of long ago.
        earlier = _told(run, Days(first, near.first - timedelta(days=1)))
        told = pa.concat_tables([earlier, told])
    newest = max(published_days(run, TRAINING), default=near.last)
    if newest <= near.last:
        return told
    # Of these events, and of others of the days that are measured anew, something may have been
    # told long after.
    days = [*run.days, *_of_events(run, told, own)[landed].to_pylist()]
    wanted = pa.array(days, pa.date32())
    measured = told.filter(pc.is_in(told[landed], wanted))
    bounds = pc.min_max(measured[event_date]).as_py()
    if bounds["min"] is None:
        return told
    about = Days(bounds["min"], bounds["max"])
    later = _told(run, Days(near.last + timedelta(days=1), newest), about)
    again = _of_events(run, later, measured)
    return pa.concat_tables([told, again.select(told.column_names)])


def _of_events(run: Run, rows: pa.Table, others: pa.Table) -> pa.Table:
    """The rows that are about the events of the others."""
    keys = list(run.pipeline.entity)
    return rows.join(others.select(keys), keys=keys, join_type="left semi")


def _told(run: Run, days: Days, about: Days | None = None) -> pa.Table:
    """Outcomes that became known on those days, with a label or without; about all days or some."""
    # As they are known by now, also of days after the run's.
    latest = replace(snapshots.newest(run, TRAINING), night=date.max)
    rows = dataset.outcomes(run, latest, days, run.pipeline.entity, about)
    landed = run.pipeline.table(TRAINING).partition
    columns = (landed, *run.pipeline.entity, run.pipeline.training.label)
    return rows.select(list(dict.fromkeys(columns)))


def _with_predictions(run: Run, labels: pa.Table) -> pa.Table:
    """The labels beside the published predictions for them."""
    pipeline = run.pipeline
    if not len(labels) or not exists(run, PREDICTIONS):
        # Without a prediction a label measures nothing.
        return labels.slice(0, 0)
    bounds = pc.min_max(labels[pipeline.event_date]).as_py()
    about = Days(bounds["min"], bounds["max"])
    columns = (*pipeline.entity, pipeline.prediction, "model_version")
    predicted = snapshots.read(run, snapshots.newest(run, PREDICTIONS), about, columns)
    if pipeline.prediction not in predicted.column_names:
        # It was named anew, and no night has foretold under that name yet.
        return labels.slice(0, 0)
    # Without what was foretold under the name of before.
    known = predicted.filter(pc.is_valid(predicted[pipeline.prediction]))
    keys = list(pipeline.entity)
    # Inner, because some rows were labelled and never scored.
    arrived = labels.join(known.select(list(columns)), keys=keys, join_type="inner")
    others = pa.array(_of_other_labels(run, arrived), pa.string())
    return arrived.filter(pc.invert(pc.is_in(arrived["model_version"], others)))


def _of_other_labels(run: Run, foretold: pa.Table) -> list[str]:
    """Those of the versions that have foretold something else than is declared by now."""
    versions = pc.unique(foretold["model_version"]).to_pylist()
    recorded = model_events.events(run.environment, run.pipeline.name)
    known = {one["model_version"] for one in recorded}.intersection(versions)
    if not known:
        return []
    from jobs.training import serving
    from jobs.training.registry import Registry

    registry = Registry(run.environment, run.pipeline.name)
    models = []
    for version in sorted(known):
        # Of one that was deleted in MLflow nobody knows.
        with suppress(UsageError):
            models.append(registry.version(version))
    return list(serving.other_labels(run.pipeline, registry, models))


def _parts(run: Run, arrived: pa.Table) -> list[pa.Table]:
    if not len(arrived):
        return []
    by = [run.pipeline.table(TRAINING).partition, run.pipeline.event_date, "model_version"]
    # Without an aggregate, a group is its key alone.
    distinct = arrived.group_by(by, use_threads=False).aggregate([])
    ordered = distinct.sort_by([(name, "ascending") for name in by])
    return [arrived.filter(_all_equal(arrived, values)) for values in ordered.to_pylist()]


def _all_equal(rows: pa.Table, values: dict[str, Any]) -> pa.ChunkedArray:
    equal = pa.chunked_array([pa.repeat(True, len(rows))])
    for name, value in values.items():
        wanted = pa.scalar(value, rows.schema.field(name).type)
        equal = pc.and_(equal, pc.equal(rows[name], wanted))
    return equal


def _row(run: Run, part: pa.Table) -> dict[str, Any]:
    first = part.slice(0, 1).to_pylist()[0]
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "landed_date": first[run.pipeline.table(TRAINING).partition],
        "event_date": first[run.pipeline.event_date],
        "model_version": first["model_version"],
        **_measure(run, part),
        "measured_at": ops.now(),
    }


def _measure(run: Run, rows: pa.Table) -> dict[str, Any]:
    training = run.pipeline.training
    label = rows[training.label].to_numpy().astype(np.float64)
    prediction = rows[run.pipeline.prediction].to_numpy().astype(np.float64)
    return metrics.summary(task_of(training.task), label, prediction)
