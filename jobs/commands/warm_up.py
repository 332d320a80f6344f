"""The first work of a new platform, done by `up`.

So that the first night does not pay for what only happens once.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from pipelines import catalog
from pipelines.environment import Environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

WARM_UP = "_warm_up-"
"""How the name of a folder begins that is used for that; no table's does."""


def main(argument: dict[str, dict[str, str]]) -> None:
    """Create MLflow's database, and take Spark and Delta once through what every stage does.

    Write, replace, read, count.

    Args:
        argument: `environment`: the variables of the home.
    """
    from jobs.lake.arrow_files import arrow_files
    from jobs.spark.session import connect
    from jobs.training import registry

    environment = Environment.read(argument["environment"])
    for name in catalog.names():
        registry.create(environment, name)
    # In the lake, which executors on other machines see too.
    folder = f"{WARM_UP}{uuid4().hex}"
    try:
        use_delta(connect(environment), f"{environment.lake}/{folder}")
    finally:
        # Where Spark wrote nothing, its own error says why; and some stores refuse to take away the
        # objects by which S3A marks folders.
        with suppress(OSError):
            arrow_files(environment.lake).delete_dir(folder)


def use_delta(spark: SparkSession, path: str) -> None:
    """Write a small table, replace its days, read it, join it: the server loads code for each."""
    from pyspark.sql import functions as F

    rows = spark.range(1000).withColumn("day", F.col("id") % 3)
    writer = rows.repartition("day").write.format("delta").mode("overwrite")
    replacing = writer.partitionBy("day").option("replaceWhere", "day >= 0 AND day <= 2")
    replacing.save(path)

    table = spark.read.format("delta").load(path)
    row_hash = F.xxhash64("id").cast("decimal(38,0)")
    aggregates = (F.count(F.lit(1)), F.sum(row_hash))
    table.where("day = 1").agg(*aggregates).first()
    rows.join(table, "id").groupBy("id").count().count()
