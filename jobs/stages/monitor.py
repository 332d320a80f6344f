"""The monitor stage: how good published predictions were, once their labels arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake import ops
from jobs.training import dataset, quality
from pipelines.days import Days
from pipelines.run import Run

_TABLE = "live_quality"


def monitor(run: Run) -> dict[str, object]:
    """Measure the predictions whose labels became known on the run's days.

    The figures are by day, event date and model.
    """
    arrived = _arrived(run)
    rows = [_row(run, part) for part in _parts(run, arrived)]
    inside = f"landed_date >= '{run.days.first}' AND landed_date <= '{run.days.last}'"
    ops.replace(run.environment, _TABLE, rows, f"pipeline = '{run.pipeline.name}' AND {inside}")
    return {"labels": len(arrived), "measured": len(rows), **_pooled(run, arrived)}


def _arrived(run: Run) -> pa.Table:
    """Labels of the run's days beside the published predictions for them."""
    pipeline = run.pipeline
    landed = pipeline.table(dataset.TABLE).partition
    known = dataset.labelled(run, dataset.snapshot(run, dataset.TABLE), run.days)
    labels = known.select([landed, *pipeline.entity, pipeline.training.label])
    wanted = [*pipeline.entity, pipeline.prediction, "model_version"]
    if not len(labels) or not dataset.exists(run, dataset.PREDICTED):
        return labels.slice(0, 0)
    bounds = pc.min_max(labels[pipeline.event_date]).as_py()
    given = dataset.read(
        run,
        dataset.snapshot(run, dataset.PREDICTED),
        Days(bounds["min"], bounds["max"]),
        tuple(wanted),
    ).select(wanted)
    return labels.join(given, keys=list(pipeline.entity), join_type="inner")


def _parts(run: Run, arrived: pa.Table) -> list[pa.Table]:
    if not len(arrived):
        return []
    by = [run.pipeline.table(dataset.TABLE).partition, run.pipeline.event_date, "model_version"]
    found = (
        arrived.group_by(by, use_threads=False)
        .aggregate([])
        .sort_by([(name, "ascending") for name in by])
        .to_pylist()
    )
    return [arrived.filter(_all_equal(arrived, values)) for values in found]


def _all_equal(rows: pa.Table, values: dict[str, Any]) -> pa.ChunkedArray:
    first, *others = [
        pc.equal(rows[name], pa.scalar(value, rows.schema.field(name).type))
        for name, value in values.items()
    ]
    for other in others:
        first = pc.and_(first, other)
    return first


def _row(run: Run, part: pa.Table) -> dict[str, Any]:
    first = part.slice(0, 1).to_pylist()[0]
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "landed_date": first[run.pipeline.table(dataset.TABLE).partition],
        "event_date": first[run.pipeline.event_date],
        "model_version": first["model_version"],
        **_measure(run, part).to_json(),
        "measured_at": ops.now(),
    }


def _measure(run: Run, rows: pa.Table) -> quality.Quality:
    label, probability = (
        rows[name].to_numpy().astype(np.float64)
        for name in (run.pipeline.training.label, run.pipeline.prediction)
    )
    return quality.measure(label, probability)


def _pooled(run: Run, arrived: pa.Table) -> dict[str, object]:
    return {"pooled": _measure(run, arrived).to_json()} if len(arrived) else {}
