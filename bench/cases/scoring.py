"""Predictions of many rows of flights' width: read, scored, written as Parquet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as arrow
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake

from bench import like_flights, spark_cluster
from bench.harness import Answer, Case, Peer, Round, Work
from bench.like_flights import DAY, DAYS, FIRST_DAY, KEY, SEED, TRAINING
from jobs.lake.data_files import DayFile, day_files
from jobs.spark.server import cores_at_once, running_server
from jobs.spark.session import connect, plan_for
from jobs.training import encoding, file_scoring, scoring
from jobs.training.encoding import ENCODING, Encoding
from jobs.training.families.light import EXACT
from jobs.training.families.neural_network import MODEL, NeuralNetworkFamily
from jobs.training.registry import Registry
from jobs.training.tasks import task_of
from pipelines.environment import Environment
from pipelines.model import NeuralNetwork

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

_ROWS_AT_ONCE = 500_000
_PREDICTION = "late_probability"
_WAKING_BYTES = 64_000_000
"""Of files that are scored before a round: enough for a task of each core, which loads the model.
"""
_PREDICT_BATCH = 1024
"""Rows of a step of `predict`: with its own default, 32, it takes nearly twice as long."""


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    own, other = (one.sort_by(KEY) for one in (ours, theirs))
    if len(own) == 0 or own[KEY] != other[KEY]:
        return False
    apart = own[_PREDICTION].to_numpy() - other[_PREDICTION].to_numpy()
    return bool(np.abs(apart).max() <= 1e-6)


CASE = Case(
    name="scoring",
    what="Spark's workers read the files, score by LiteRT, and write files",
    peers=(
        Peer(
            name="pandas_udf",
            what="a pandas UDF of Spark that calls `predict` of Keras (1,024 rows a step)",
            goal=0.05,
        ),
        Peer(
            name="plain_pandas_udf",
            what="the same with `predict` as it is by default (32 rows a step)",
            goal=0.05,
            largest=1_000_000,
            in_quick=False,
        ),
        Peer(
            name="single_process",
            what="one process: Arrow's batches, the same encoding, LiteRT on one thread",
            goal=1.0,
        ),
        Peer(
            name="cluster",
            what="ours, on two executors of a standalone cluster",
            in_quick=False,
        ),
    ),
    sizes=(100_000, 1_000_000, 10_000_000),
    quick_size=100_000,
    repeats=5,
    same=_same,
)


def prepare(folder: Path, size: int) -> None:
    """A table of so many rows, and a network of the declared size whose weights are drawn."""
    draw = np.random.default_rng(SEED)
    table = str(folder / "table")
    written = 0
    while written < size:
        count = min(_ROWS_AT_ONCE, size - written)
        write_deltalake(
            table, like_flights.rows(draw, written, count), partition_by=[DAY], mode="append"
        )
        written += count
    model = folder / "model"
    model.mkdir()
    learned = _encoding(like_flights.rows(draw, 0, 20_000))
    (model / ENCODING).write_text(learned.to_json())
    _save_network(learned, model, draw)


def ours(folder: Path) -> Work:
    """As stage `predict` scores many rows."""
    with running_server(_environment(folder, "ours"), 0) as environment:
        yield from _scoring(environment, folder, "ours")


def cluster(folder: Path) -> Work:
    """The same on two executors of a standalone cluster, of a core each."""
    own = _environment(folder, "cluster")
    with spark_cluster.cluster(own, folder / "cluster") as made:
        yield from _scoring(made.environment, folder, "cluster's")


def _scoring(environment: Environment, folder: Path, name: str) -> Work:
    plan_for(environment, many_rows=True)
    session = connect(environment)
    registry = Registry(environment, "flights")
    model = registry.keep(
        folder / "model",
        as_of=FIRST_DAY,
        fingerprint="drawn",
        family=NeuralNetwork.name,
        recipe="drawn",
        params={},
        curves={},
        pins={},
    )
    shipped = file_scoring.ship(session, registry, model, EXACT, {"model_version": "1"})
    days = [FIRST_DAY + timedelta(days=number) for number in range(DAYS)]
    asked = file_scoring.Asked(
        table=str(folder / "table"),
        schema=pa.schema(DeltaTable(folder / "table").schema()),
        partition=DAY,
        by_day=dict.fromkeys(days, shipped),
        shown=(DAY, KEY),
        task=TRAINING.task,
        prediction=_PREDICTION,
        stamps={},
        told_by=DAY,
        cores=cores_at_once(environment),
    )
    place, awake = folder / name, folder / f"{name}, awake"
    place.mkdir()
    awake.mkdir()

    def wake() -> None:
        file_scoring.write_on_spark(session, asked, _waking_files(folder), str(awake))

    def work() -> Answer:
        file_scoring.write_on_spark(session, asked, _files(folder), str(place))
        return lambda: _written(place)

    yield Round(do=work, before=wake)


def _files(folder: Path) -> list[DayFile]:
    return list(day_files(DeltaTable(folder / "table"), lambda _: True))


def _waking_files(folder: Path) -> list[DayFile]:
    """All files of the first days, which are of one size."""
    files = _files(folder)
    count = math.ceil(_WAKING_BYTES / files[0].size)
    days = {file.day for file in files[:count]}
    return [file for file in files if file.day in days]


def pandas_udf(folder: Path) -> Work:
    """As a careful user writes it: the model is loaded once a task, and a step has many rows."""
    yield from _by_udf(folder, "udf", _PREDICT_BATCH)


def plain_pandas_udf(folder: Path) -> Work:
    """As one finds it in most tutorials, but for the model, which is loaded once a task."""
    yield from _by_udf(folder, "plain udf", None)


def _by_udf(folder: Path, name: str, batch: int | None) -> Work:
    from pyspark.sql import functions as F

    with running_server(_environment(folder, name), 0) as environment:
        plan_for(environment, many_rows=True)
        session = connect(environment)
        predict = _udf(str(folder / "model"), batch)

        def score(rows: DataFrame, to: str) -> None:
            features = F.struct(*TRAINING.numeric, *TRAINING.categorical)
            scored = rows.select(DAY, KEY, predict(features).alias(_PREDICTION))
            scored.write.mode("overwrite").parquet(to)

        def rows() -> DataFrame:
            return session.read.format("delta").load(str(folder / "table"))

        def wake() -> None:
            days = [file.day for file in _waking_files(folder)]
            few = rows().where(F.col(DAY).isin(days))
            score(few, str(folder / f"{name}, awake"))

        def work() -> Answer:
            score(rows(), str(folder / name))
            return lambda: _written(folder / name)

        yield Round(do=work, before=wake)


def single_process(folder: Path) -> Work:
    """The shortest way from file to file in one process."""
    scorer = scoring.load_from(folder / "model", NeuralNetworkFamily())
    target = folder / "single.parquet"

    def work() -> Answer:
        source = DeltaTable(folder / "table").to_pyarrow_dataset()
        columns = [KEY, *scorer.encoding.columns]
        schema = pa.schema({KEY: pa.int64(), _PREDICTION: pa.float64()})
        with pq.ParquetWriter(target, schema) as writer:
            for batch in source.to_batches(columns=columns, batch_size=65_536):
                scores = scorer.score(pa.Table.from_batches([batch]))
                writer.write_batch(pa.record_batch([batch[KEY], scores], schema=schema))
        return lambda: pq.read_table(target)

    yield work


def _udf(folder: str, batch_size: int | None) -> Any:
    import pandas as pd
    from pyspark.sql.pandas.functions import pandas_udf

    def predict(batches: Iterator[pd.DataFrame]) -> Iterator[pd.Series]:
        import keras
        import pandas as pd
        import pyarrow as pa

        from jobs.training import encoding as ours

        learned = ours.Encoding.from_json((Path(folder) / ENCODING).read_text())
        model = keras.saving.load_model(f"{folder}/{MODEL}", compile=False)
        for batch in batches:
            rows = ours.encode(pa.Table.from_pandas(batch), learned)
            inputs = {"numeric": rows.numeric, "categorical": rows.categorical}
            scores = model.predict(inputs, batch_size=batch_size, verbose=0)
            yield pd.Series(scores[:, 0].astype("float64"))

    predict.__annotations__ = {
        "batches": Iterator[pd.DataFrame],
        "return": Iterator[pd.Series],
    }
    # Its overloads know no iterators of frames.
    made: Any = pandas_udf
    return made("double")(predict)


def _environment(folder: Path, name: str) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(folder / f"home of {name}")})


def _written(folder: Path) -> pa.Table:
    return arrow.dataset(folder, format="parquet").to_table(columns=[KEY, _PREDICTION])


def _encoding(rows: pa.Table) -> Encoding:
    is_late = np.arange(len(rows)) % 5 == 0
    label = pa.array(is_late.astype(np.int32))
    labelled = rows.append_column(TRAINING.label, label)
    return encoding.learn(labelled, TRAINING)


def _save_network(learned: Encoding, folder: Path, draw: np.random.Generator) -> None:
    from jobs.training.families.neural_network import network

    model = network.build(learned, like_flights.network_settings(), task_of(TRAINING.task))
    for layer in model.layers:
        drawn = []
        for weight in layer.get_weights():
            noise = draw.normal(0, 0.05, weight.shape)
            drawn.append(weight + noise)
        layer.set_weights(drawn)
    network.save(model, folder / MODEL)
    family = NeuralNetworkFamily()
    family.light.make(family.load(folder, learned), folder, EXACT)
