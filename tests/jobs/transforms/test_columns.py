"""Keys that are made of several values."""

from __future__ import annotations

from datetime import date

from pyspark.sql import SparkSession

from expectations import fragments
from jobs.transforms.columns import joined
from jobs.transforms.rolling import daily_sums
from pipelines.rolling import DailySum, Grain, Rolling, Statistic

PAIRS = [("a|b", "c"), ("a", "b|c"), ("a\\", "b"), ("a\\|b", "c"), ("a", None), ("plain", "7")]


def test_values_with_the_sign_that_joins_them_make_keys_of_their_own(spark: SparkSession) -> None:
    rows = spark.createDataFrame(PAIRS, "shop string, product string")
    told = rows.select(joined("shop", "product").alias("key"))
    keys = [row["key"] for row in told.collect()]
    assert keys == [r"a\|b|c", r"a|b\|c", "a\\\\|b", r"a\\\|b|c", None, "plain|7"]


def test_a_key_of_one_column_is_its_value(spark: SparkSession) -> None:
    rows = spark.createDataFrame(PAIRS, "shop string, product string")
    keys = [row["key"] for row in rows.select(joined("shop").alias("key")).collect()]
    assert keys == [shop for shop, _ in PAIRS]


def test_suites_join_keys_as_transforms_do(spark: SparkSession) -> None:
    rows = spark.createDataFrame(PAIRS, "shop string, product string")
    for columns in (("shop",), ("shop", "product")):
        own = joined(*columns)
        told = rows.select(own.alias("own"))
        suite = rows.selectExpr(f"{fragments.joined(', '.join(columns))} AS own")
        assert told.collect() == suite.collect()


def test_the_past_of_one_thing_is_not_summed_up_with_another_s(spark: SparkSession) -> None:
    grain = Grain(name="sp", columns=("shop", "product"), windows=(7,), statistics=("sold",))
    sold = Statistic(name="sold", amount="sold")
    sums = (DailySum(name="sold", sql="sum(units)"),)
    rolling = Rolling(sums=sums, statistics=(sold,), grains=(grain,))
    day = date(2024, 4, 1)
    values = [(day, "a|b", "c", 1), (day, "a", "b|c", 20)]
    rows = spark.createDataFrame(values, "landed_date date, shop string, product string, units int")
    assert sorted(row["sold"] for row in daily_sums(rows, rolling).collect()) == [1, 20]


def test_rows_may_have_columns_named_as_those_of_the_sums(spark: SparkSession) -> None:
    grain = Grain(name="field", columns=("grain",), windows=(7,), statistics=("kilos",))
    kilos = Statistic(name="kilos", amount="kilos")
    sums = (DailySum(name="kilos", sql="sum(key)"),)
    rolling = Rolling(sums=sums, statistics=(kilos,), grains=(grain,))
    values = [(date(2024, 4, 1), "rye", 3), (date(2024, 4, 1), "rye", 4)]
    rows = spark.createDataFrame(values, "landed_date date, grain string, key int")
    told = daily_sums(rows, rolling)
    assert told.columns == ["landed_date", "grain", "key", "kilos"]
    assert [tuple(row)[1:] for row in told.collect()] == [("field", "rye", 7)]
