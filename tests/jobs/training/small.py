"""A small pipeline with made-up rows, for tests of the model.

Late when `x` is high or the carrier is 'BB'.
"""

from __future__ import annotations

import atexit
import shutil
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from jobs.training import encoding
from jobs.training.job import Job
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.flights import PIPELINE
from pipelines.model import Gate, Training
from pipelines.run import Run
from pipelines.stages import stage

FIRST, LAST = date(2013, 1, 1), date(2013, 1, 24)
TRAINING = Training(
    label="late",
    numeric=("x", "gappy", "noise"),
    categorical=("carrier", "origin"),
    baseline=("carrier",),
    slices=("carrier",),
    window_days=16,
    holdout_days=6,
    validation_days=4,
    min_rows=100,
    hidden=(8,),
    embedding_size=2,
    dropout=0.0,
    input_dropout=0.0,
    epochs=4,
    batch_size=32,
    learning_rate=0.02,
    timeout_seconds=120,
)
SMALL = replace(
    PIPELINE,
    name="small",
    first_day=FIRST,
    training=TRAINING,
    gate=Gate(resamples=200, min_slice_rows=10),
)


def environment_at(home: Path) -> Environment:
    """An environment of its own, without any server."""
    return Environment.read({"NIGHTSHIFT_HOME": str(home)})


def models_at(home: Path) -> Environment:
    """An environment with an empty model registry: a copy, because making one takes seconds."""
    shutil.copyfile(_empty_registry(), home / "mlflow.db")
    return environment_at(home)


@cache
def _empty_registry() -> Path:
    from mlflow.tracking import MlflowClient

    folder = mkdtemp()
    atexit.register(shutil.rmtree, folder)
    MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return Path(folder) / "mlflow.db"


def run_of(
    environment: Environment,
    stage_name: str,
    last: date = LAST,
    first: date | None = None,
    *,
    retrain: bool = False,
) -> Run:
    """A run of the small pipeline."""
    return Run(
        pipeline=SMALL, days=Days(first or last, last), environment=environment, retrain=retrain
    ).at(stage(stage_name))


def rows_of(days: Days, per_day: int = 40, seed: int = 1) -> pa.Table:
    """Training rows that became known on those days, the last of each day without a label."""
    n, draw = per_day * len(days), np.random.default_rng(seed)
    carrier = draw.choice(["AA", "BB", "CC"], n)
    x, gaps = draw.normal(size=n), draw.random(n) < 0.2
    late = (draw.random(n) < 1 / (1 + np.exp(1 - 2 * x - (carrier == "BB")))).astype(np.int32)
    landed = np.repeat(np.array(list(days), "datetime64[D]"), per_day)
    return pa.table(
        {
            "landed_date": pa.array(landed),
            "flight_date": pa.array(landed),
            "carrier": carrier,
            "flight": pa.array(np.tile(np.arange(per_day), len(days)), pa.int32()),
            "origin": draw.choice(["EWR", "JFK"], n),
            "dest": pa.repeat("BOS", n),
            "sched_dep_time": pa.repeat(pa.scalar(900, pa.int32()), n),
            "x": x,
            "gappy": pa.array(draw.normal(size=n), mask=gaps),
            "noise": draw.normal(size=n),
            "late": pa.array(late, mask=np.tile(np.arange(per_day) == per_day - 1, len(days))),
        }
    )


def publish(
    environment: Environment,
    rows: pa.Table,
    table: str = "training",
    partition: str = "landed_date",
) -> None:
    """Replace a published table of the small pipeline."""
    write_deltalake(
        environment.table_path(f"small.{table}"), rows, partition_by=[partition], mode="overwrite"
    )


def scoring_rows(days: Days, per_day: int = 40) -> pa.Table:
    """Scoring rows of those nights, each about the day after."""
    rows = rows_of(days, per_day, seed=2).drop_columns(["late"])
    tomorrow = [day.as_py() + timedelta(days=1) for day in rows["landed_date"]]
    return rows.set_column(
        rows.column_names.index("flight_date"), "flight_date", pa.array(tomorrow, pa.date32())
    )


def job_of(training: Training = TRAINING, rows: int = 512) -> Job:
    """A training on made-up rows, without any table."""
    made = rows_of(Days.of(FIRST), rows + 65).slice(0, rows + 64)
    fit, validation = made.slice(0, rows), made.slice(rows)
    learned = encoding.learn(fit, training)
    return Job(
        training=training,
        encoding=learned,
        fit=encoding.encode(fit, learned, training.label),
        validation=encoding.encode(validation, learned, training.label),
    )
