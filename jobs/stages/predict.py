"""Stage `predict`: each night's champion scores tomorrow's rows, which are staged for the gate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.lake import approvals, model_events, ops, snapshots, tables
from jobs.lake.knowledge import Knowledge
from jobs.lake.publications import Input, Origin
from jobs.lake.snapshots import Snapshot
from jobs.lake.transforms import definitions
from jobs.spark.session import connect
from jobs.training import scoring, serving
from jobs.version import code_version
from pipelines.days import Days
from pipelines.errors import Refused
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, SCORING

if TYPE_CHECKING:
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.scoring import Scorer


def predict(run: Run) -> dict[str, object]:
    """Stage a prediction for every scoring row of the nights that have a champion.

    Raises:
        Refused: no night of the run has one.
    """
    from jobs.training.registry import Registry

    registry = Registry(run.environment, run.pipeline.name)
    put_back = serving.put_right(run.environment, registry)
    champions = serving.serving_models(run.environment, registry, run.days)
    if not champions:
        raise Refused(
            f"No model of '{run.pipeline.name}' was in force on {run.days}: nothing can be scored. "
            + _way_out(run)
        )
    knowledge = Knowledge.of_now(run)
    # Only the nights that have a champion: what others hold from runs of their own stays.
    nights = Days(min(champions), max(champions))
    snapshot = snapshots.newest(run, SCORING)
    scored = _score(run, snapshots.read(run, snapshot, nights), champions, registry)
    return {
        "predictions": _stage(run, _stamped(run, scored, snapshot), champions, knowledge),
        "scoring_version": snapshot.version,
        # By number: as a text, '10' comes before '9'.
        "models": sorted({model.version for model in champions.values()}, key=int),
        "nights_without_model": [str(day) for day in run.days if day not in champions],
        "alias_was_moved_to": put_back,
    }


def _way_out(run: Run) -> str:
    name = run.pipeline.name
    recorded = model_events.events(run.environment, name)
    awaiting = approvals.awaiting(recorded)
    if awaiting:
        version = awaiting[-1]["model_version"]
        return f"One awaits a person: nightshift approve {name} {version} --why TEXT"
    return "Run stages train and evaluate until one is promoted."


def _score(
    run: Run, rows: pa.Table, champions: Mapping[date, ModelVersion], registry: Registry
) -> pa.Table:
    models = {model.version: model for model in champions.values()}
    scorers = {version: scoring.load(registry, model) for version, model in models.items()}
    column = run.pipeline.table(SCORING).partition
    # Night by night: the same rows in the same call give the same floats, in a long run as in a
    # nightly one.
    nights: list[pa.Table] = []
    for day, model in champions.items():
        own = snapshots.between(rows, column, Days.of(day))
        nights.append(_night(run, own, model, scorers[model.version]))
    return pa.concat_tables(nights)


def _night(
    run: Run,
    rows: pa.Table,
    model: ModelVersion,
    scorer: Scorer,
) -> pa.Table:
    pipeline = run.pipeline
    # A pipeline may carry a column that is part of its entity.
    shown = dict.fromkeys((*pipeline.entity, *pipeline.carried))
    scores = pa.array(scorer.score(rows), pa.float64())
    predicted = rows.select(list(shown)).append_column(pipeline.prediction, scores)
    made_by = {
        "model_name": model.name,
        "model_version": model.version,
        "model_run_id": model.run_id,
    }
    return _with(predicted, made_by)


def _stamped(run: Run, rows: pa.Table, snapshot: Snapshot) -> pa.Table:
    made_by = {
        "run_id": run.run_id,
        "predicted_at": ops.now(),
        "scoring_version": snapshot.version,
        "code_version": code_version(),
    }
    return _with(rows, made_by)


def _with(rows: pa.Table, constants: Mapping[str, object]) -> pa.Table:
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), len(rows)))
    return rows


def _stage(
    run: Run,
    rows: pa.Table,
    champions: Mapping[date, ModelVersion],
    knowledge: Knowledge,
) -> int:
    # With a schema: Spark infers none from a night without rows, such as the last before the feeds
    # end.
    frame = connect(run.environment).createDataFrame(rows, from_arrow_schema(rows.schema))
    table = run.pipeline.table(PREDICTIONS)
    inputs = {}
    for night, model in champions.items():
        inputs[table.day_of(night)] = _inputs(night, model, knowledge)
    origin = Origin(definition=definitions(run.pipeline)[PREDICTIONS], inputs=inputs)
    return tables.stage_rows(run, PREDICTIONS, frame, inputs, origin)


def _inputs(night: date, model: ModelVersion, knowledge: Knowledge) -> tuple[Input, ...]:
    rows = knowledge.table_input(SCORING, Days.of(night))
    scored_by = Input(
        # With a slash, as every name that is no table's.
        name=f"models/{model.name}",
        first_day=model.as_of,
        last_day=model.as_of,
        digest=model.run_id,
        version=int(model.version),
    )
    return rows, scored_by
