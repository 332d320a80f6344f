"""Stage `predict`: each night's champion scores tomorrow's rows, which are staged for the gate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.lake import ops, tables
from jobs.spark.session import connect
from jobs.training import dataset, serving
from jobs.version import code_version
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.run import Run

if TYPE_CHECKING:
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.scoring import Scorer


def predict(run: Run) -> dict[str, object]:
    """Stage a probability for every scoring row of the nights that have a champion.

    Raises:
        Refused: no night of the run has one.
    """
    from jobs.training.registry import Registry

    registry = Registry(run.environment, run.pipeline.name)
    champions = {
        day: model
        for day in run.days
        if (model := serving.in_force(run.environment, registry, day))
    }
    if not champions:
        raise Refused(
            f"No model of '{run.pipeline.name}' was in force on {run.days}: nothing can be scored. "
            "Run stages train and evaluate until one is promoted."
        )
    pinned, nights = dataset.snapshot(run, dataset.SCORED), Days(min(champions), max(champions))
    scored = pa.concat_tables(_score(run, dataset.read(run, pinned, nights), champions, registry))
    rows = _stamped(run, scored, pinned)
    # With a schema: Spark infers none from a night without rows, such as the last before the feeds
    # end.
    frame = connect(run.environment).createDataFrame(rows, from_arrow_schema(rows.schema))
    # Only the nights that have a champion: what others hold from runs of their own stays.
    staged = tables.stage_rows(
        run,
        dataset.PREDICTED,
        frame,
        nights.shifted(run.pipeline.table(dataset.PREDICTED).partition_lead_days),
    )
    return {
        "predictions": staged,
        "scoring_version": pinned.version,
        "models": sorted({m.version for m in champions.values()}, key=int),
        "nights_without_model": [str(day) for day in run.days if day not in champions],
    }


def _score(
    run: Run, rows: pa.Table, champions: dict[date, ModelVersion], registry: Registry
) -> list[pa.Table]:
    from jobs.training import scoring

    scorers: dict[str, Scorer] = {
        m.version: scoring.load(registry, m)
        for m in {m.version: m for m in champions.values()}.values()
    }
    column = run.pipeline.table(dataset.SCORED).partition
    # Night by night: the same rows in the same call give the same floats, in a long run as in a
    # nightly one.
    return [
        _night(run, dataset.between(rows, column, Days.of(day)), model, scorers[model.version])
        for day, model in champions.items()
    ]


def _night(run: Run, rows: pa.Table, model: ModelVersion, scorer: Scorer) -> pa.Table:
    shown = rows.select(
        [*run.pipeline.entity, *(c for c in run.pipeline.carried if c not in run.pipeline.entity)]
    )
    made_by = {
        "model_name": model.name,
        "model_version": model.version,
        "model_run_id": model.run_id,
    }
    return _with(
        shown.append_column(
            run.pipeline.prediction, pa.array(np.asarray(scorer.score(rows), np.float64))
        ),
        made_by,
    )


def _stamped(run: Run, rows: pa.Table, pinned: dataset.Snapshot) -> pa.Table:
    return _with(
        rows,
        {
            "run_id": run.run_id,
            "predicted_at": ops.now(),
            "scoring_version": pinned.version,
            "code_version": code_version(),
        },
    )


def _with(rows: pa.Table, constants: Mapping[str, object]) -> pa.Table:
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), len(rows)))
    return rows
