"""One number says what rows hold, whatever their order."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.lake.content import fingerprint

Pair = tuple[int | None, str | None]


def _frame(spark: SparkSession, *rows: Pair) -> DataFrame:
    return spark.createDataFrame(list(rows), "a int, `b c` string")


def _fingerprint(spark: SparkSession, *rows: Pair) -> int:
    aggregate = fingerprint(["a", "b c"]).alias("it")
    found = _frame(spark, *rows).agg(aggregate).first()
    assert found is not None
    return int(found["it"])


def test_the_order_of_rows_does_not_matter_and_every_value_does(spark: SparkSession) -> None:
    rows: list[Pair] = [
        (1, "x"),
        (2, None),
        (2, None),
    ]
    as_it_was = _fingerprint(spark, *rows)
    assert _fingerprint(spark, *reversed(rows)) == as_it_was
    assert _fingerprint(spark, (1, "x"), (2, None)) != as_it_was
    assert _fingerprint(spark, (1, "y"), (2, None), (2, None)) != as_it_was


def test_a_null_is_no_value_of_the_column_beside_it(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(None, 1), (1, None)], "a int, b int")
    aggregate = fingerprint(["a", "b"]).alias("it")
    hashes = frame.groupBy("a").agg(aggregate).collect()
    assert len({row["it"] for row in hashes}) == 2


def test_no_rows_are_nought_and_a_condition_leaves_rows_out(spark: SparkSession) -> None:
    assert _fingerprint(spark) == 0
    frame = _frame(spark, (1, "x"), (2, "y"))
    found = frame.agg(
        fingerprint(["a", "b c"], F.col("a") == 1).alias("first"),
        fingerprint(["a", "b c"], F.col("a") == 3).alias("none"),
    ).first()
    assert found is not None
    assert found["first"] == _fingerprint(spark, (1, "x"))
    assert found["none"] == 0


def test_a_column_may_have_any_signs_in_its_name(spark: SparkSession) -> None:
    names = ["a.b", "a`b", "größe 😀"]
    frame = spark.createDataFrame([(1, 2, 3)], names)
    aggregate = fingerprint(names, added=["a`b"]).alias("it")
    assert frame.agg(aggregate).first() is not None
