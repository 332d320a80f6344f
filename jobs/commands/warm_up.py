"""The first work of a new platform, done by `up`.

So that the first night does not pay for what only happens once.
"""

from __future__ import annotations

from pipelines import catalog
from pipelines.environment import Environment


def main(argument: dict[str, dict[str, str]]) -> None:
    """Create MLflow's database, and take Spark and Delta once through what every stage does.

    Write, replace, read, count.

    Args:
        argument: `environment`: the variables of the home.
    """
    from pyspark.sql import functions as F

    from jobs.spark.session import connect
    from jobs.training.registry import prepare

    environment = Environment.read(argument["environment"])
    for name in catalog.names():
        prepare(environment, name)
    spark, place = connect(environment), str(environment.home / "spark" / "warm-up")
    rows = spark.range(1000).withColumn("day", F.col("id") % 3)
    writer = rows.repartition("day").write.format("delta").mode("overwrite").partitionBy("day")
    writer.option("replaceWhere", "day >= 0 AND day <= 2").save(place)
    read = spark.read.format("delta").load(place)
    read.where("day = 1").agg(
        F.count(F.lit(1)), F.sum(F.xxhash64("id").cast("decimal(38,0)"))
    ).first()
    rows.join(read, "id").groupBy("id").count().count()
