"""A small pipeline with made-up rows, for tests of the model; and its twin, a regression.

A batch fails when `x` is high or it was made on line 'BB'; the twin's batches weigh more then.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from jobs.lake import publications
from jobs.lake.publications import Publication
from jobs.training import dataset, serving
from jobs.training.dataset import Dataset
from jobs.training.encoding import Examples
from jobs.training.families.neural_network import MODEL, NeuralNetworkFamily, job
from jobs.training.registry import ModelVersion, Registry
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.feeds import Column, Feed
from pipelines.model import (
    Family,
    GroupMean,
    LastValue,
    LinearModel,
    NeuralNetwork,
    Promotion,
    Training,
)
from pipelines.run import Run
from pipelines.spec import Pipeline
from pipelines.stages import stage
from tests import empty_registry

FIRST, LAST = date(2013, 1, 1), date(2013, 1, 24)
NETWORK = NeuralNetwork(
    hidden=(8,),
    embedding_size=2,
    dropout=0.0,
    input_dropout=0.0,
    epochs=4,
    batch_size=64,
    learning_rate=0.02,
    timeout_seconds=120,
)
LINEAR = LinearModel()
TRAINING = Training(
    task="binary_classification",
    label="failed",
    numeric=("x", "gappy", "noise"),
    categorical=("line", "oven"),
    baselines=(GroupMean(columns=("line",)),),
    family=NETWORK,
    slices=("line",),
    window_days=16,
    holdout_days=6,
    validation_days=4,
    min_rows=100,
)
SMALL = Pipeline(
    name="small",
    title="Which of tomorrow's batches will fail?",
    owner="tests",
    timezone="Europe/Berlin",
    schedule="30 4 * * *",
    first_day=FIRST,
    last_day=date(2013, 12, 31),
    feeds=(
        Feed(
            name="batches",
            path="batches/{date}.csv",
            columns=(
                Column(name="batch", type="int", required=True),
                Column(name="product"),
            ),
            key=("batch",),
        ),
    ),
    derived=(),
    entity=("batch_date", "line", "batch", "oven"),
    event_date="batch_date",
    entity_table="batches",
    training=TRAINING,
    # Tests give models of unlike quality one recipe, which are no refreshes of one another.
    promotion=Promotion(resamples=200, min_slice_rows=10, refresh_days=None),
    prediction="failure_probability",
    carried=("product", "batch"),
)
TWIN = replace(
    SMALL,
    name="twin",
    title="What will tomorrow's batches weigh?",
    training=replace(
        TRAINING,
        task="regression",
        label="weight",
        numeric=("x", "gappy", "noise", "last_weight"),
        baselines=(
            GroupMean(columns=("line",), name="usual"),
            LastValue(feature="last_weight", name="persistence"),
        ),
    ),
    prediction="expected_weight",
)


PIPELINES = (SMALL, TWIN)
"""One of each learning task."""


def publication(day: date, **said: Any) -> Publication:
    """One of a day, of now, that says what is given."""
    one = Publication(
        day=day,
        version=0,
        attempt=1,
        run_id="r1",
        stage="features",
        rows=12,
        checksum="1",
        definition="one",
        inputs=(),
        changed=True,
        code_version="1",
        published_at=publications.now(),
    )
    return replace(one, **said)


def learned_by(pipeline: Pipeline, family: Family) -> Pipeline:
    """The pipeline with another model family."""
    return replace(pipeline, training=replace(pipeline.training, family=family))


def environment_at(home: Path) -> Environment:
    """An environment of its own, without any server."""
    return Environment.read({"NIGHTSHIFT_HOME": str(home)})


def models_at(home: Path) -> Environment:
    """An environment with an empty model registry."""
    empty_registry.put_in(home)
    return environment_at(home)


def serving_model(
    environment: Environment,
    registry: Registry,
    night: date,
) -> ModelVersion | None:
    """The model that scores a night, as `predict` asks for it."""
    models, gone = serving.models_there(environment, registry, Days.of(night))
    serving.require_none_gone(gone)
    return models.get(night)


def run_of(
    environment: Environment,
    stage_name: str,
    last: date = LAST,
    first: date | None = None,
    *,
    retrain: bool = False,
    pipeline: Pipeline = SMALL,
) -> Run:
    """A run of a small pipeline."""
    days = Days(first or last, last)
    run = Run(pipeline=pipeline, days=days, environment=environment, retrain=retrain)
    return run.at(stage(stage_name))


def rows_of(days: Days, per_day: int = 40, seed: int = 1) -> pa.Table:
    """Training rows that became known on those days, the last of each day without a label."""
    n = per_day * len(days)
    draw = np.random.default_rng(seed)
    line = draw.choice(["AA", "BB", "CC"], n)
    x = draw.normal(size=n)
    gaps = draw.random(n) < 0.2
    log_odds = 2 * x + (line == "BB") - 1
    probability = 1 / (1 + np.exp(-log_odds))
    failed = (draw.random(n) < probability).astype(np.int32)
    usual_weight = 50 + 5 * log_odds
    weight = usual_weight + draw.normal(scale=4, size=n)
    landed = np.repeat(np.array(list(days), "datetime64[D]"), per_day)
    batch = np.tile(np.arange(per_day), len(days))
    unlabelled = batch == per_day - 1
    # The order of the draws decides what is drawn.
    oven = draw.choice(["north", "south"], n)
    gappy = draw.normal(size=n)
    noise = draw.normal(size=n)
    last_weight = usual_weight + draw.normal(scale=8, size=n)
    return pa.table(
        {
            "landed_date": pa.array(landed),
            "batch_date": pa.array(landed),
            "line": line,
            "batch": pa.array(batch, pa.int32()),
            "oven": oven,
            "product": pa.repeat("rolls", n),
            "x": x,
            "gappy": pa.array(gappy, mask=gaps),
            "noise": noise,
            "last_weight": pa.array(last_weight, mask=gaps),
            "failed": pa.array(failed, mask=unlabelled),
            "weight": pa.array(weight, mask=unlabelled),
        }
    )


def publish(
    environment: Environment,
    rows: pa.Table,
    table: str = "training",
    partition: str = "landed_date",
    *,
    pipeline: Pipeline = SMALL,
) -> None:
    """Replace a published table of a small pipeline."""
    path = environment.table_path(f"{pipeline.name}.{table}")
    write_deltalake(path, rows, partition_by=[partition], mode="overwrite")


def scoring_rows(days: Days, per_day: int = 40) -> pa.Table:
    """Scoring rows of those nights, each about the day after."""
    rows = rows_of(days, per_day, seed=2).drop_columns(["failed", "weight"])
    tomorrow = [day.as_py() + timedelta(days=1) for day in rows["landed_date"]]
    return with_column(rows, "batch_date", pa.array(tomorrow, pa.date32()))


def with_column(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The rows with other values in one column."""
    return rows.set_column(rows.column_names.index(name), name, values)


def without_values(rows: pa.Table, *names: str) -> pa.Table:
    """The rows with nulls in these columns."""
    for name in names:
        nulls = pa.nulls(len(rows), rows.schema.field(name).type)
        rows = with_column(rows, name, nulls)
    return rows


def data_of(training: Training = TRAINING, rows: int = 512) -> Dataset:
    """Made-up rows to train on, without any table, and 64 to validate on."""
    made = rows_of(Days.of(FIRST), rows + 65)
    return dataset.laid_out(training, made.slice(0, rows), made.slice(rows, 64))


def a_network(training: Training = TRAINING, seed: int = 1) -> Any:
    """A Keras network for `data_of` whose weights are drawn, not trained."""
    # TensorFlow takes seconds to import, and most tests need none.
    from jobs.training.families.neural_network import network

    settings = training.family
    assert isinstance(settings, NeuralNetwork)
    model = network.build(data_of(training).encoding, settings, task_of(training.task))
    draw = np.random.default_rng(seed)
    for layer in model.layers:
        weights = []
        for weight in layer.get_weights():
            noise = draw.normal(0, 0.3, weight.shape)
            weights.append(weight + noise)
        layer.set_weights(weights)
    return model


def save_network(training: Training, folder: Path, seed: int = 1) -> None:
    """Its files, the light ones too."""
    from jobs.training.families.neural_network import network

    network.save(a_network(training, seed), folder / MODEL)
    family = NeuralNetworkFamily()
    for variant in family.light.files:
        family.light.make(family.load(folder, data_of(training).encoding), folder, variant)


def registered_by_hand(registry: Registry) -> str:
    """A version that somebody made of a run of their own, without this platform."""
    client = registry._client
    experiment = client.get_experiment_by_name(registry.name)
    run_id = client.create_run(experiment.experiment_id).info.run_id
    source = f"runs:/{run_id}/model"
    answer = client.create_model_version(registry.name, source=source, run_id=run_id)
    return str(answer.version)


def moved_by_hand(registry: Registry, version: str, alias: str = "champion") -> None:
    """Point an alias to a version as somebody does in MLflow."""
    registry._client.set_registered_model_alias(registry.name, alias, version)


def content(examples: Examples) -> list[bytes]:
    """Every value that a model would see, to tell examples apart by."""
    return [array.tobytes() for array in (examples.numeric, examples.categorical, examples.label)]


def job_of(network: NeuralNetwork = NETWORK, training: Training = TRAINING) -> job.Job:
    """A training of the network on made-up rows."""
    return job.of(data_of(training), network, checkpoint=Path("/nowhere/checkpoint"))
