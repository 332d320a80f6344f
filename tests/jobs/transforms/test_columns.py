"""Keys that are made of several values."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from expectations import fragments
from jobs.transforms.columns import joined
from jobs.transforms.rolling import daily_sums
from pipelines.rolling import DailySum, Grain, Rolling, Statistic

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

DAY = date(2024, 4, 1)
PAIRS = [
    ("a|b", "c"),
    ("a", "b|c"),
    ("a\\", "b"),
    ("a\\|b", "c"),
    ("a", None),
    ("plain", "7"),
]


def _pairs(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame(PAIRS, "shop string, product string")


def _keys(rows: DataFrame, *columns: str) -> list[str | None]:
    told = rows.select(joined(*columns).alias("own"))
    return [row["own"] for row in told.collect()]


def _summed(sql: str, *columns: str) -> Rolling:
    """One sum by one grain of these columns."""
    grain = Grain(
        name="field",
        columns=columns,
        windows=(7,),
        statistics=("total",),
    )
    return Rolling(
        sums=(DailySum(name="total", sql=sql),),
        statistics=(Statistic(name="total", amount="total"),),
        grains=(grain,),
    )


def test_values_with_the_sign_that_joins_them_make_keys_of_their_own(spark: SparkSession) -> None:
    assert _keys(_pairs(spark), "shop", "product") == [
        r"a\|b|c",
        r"a|b\|c",
        "a\\\\|b",
        r"a\\\|b|c",
        None,
        "plain|7",
    ]


def test_a_key_of_one_column_is_its_value(spark: SparkSession) -> None:
    shops = [shop for shop, _ in PAIRS]
    assert _keys(_pairs(spark), "shop") == shops


def test_suites_join_keys_as_transforms_do(spark: SparkSession) -> None:
    rows = _pairs(spark)
    for columns in (("shop",), ("shop", "product")):
        of_suite = fragments.joined(", ".join(columns))
        told = rows.selectExpr(f"{of_suite} AS own").collect()
        assert [row["own"] for row in told] == _keys(rows, *columns)


def test_the_past_of_one_thing_is_not_summed_up_with_another_s(spark: SparkSession) -> None:
    values = [(DAY, "a|b", "c", 1), (DAY, "a", "b|c", 20)]
    rows = spark.createDataFrame(values, "landed_date date, shop string, product string, units int")
    told = daily_sums(rows, _summed("sum(units)", "shop", "product"))
    assert sorted(row["total"] for row in told.collect()) == [1, 20]


def test_rows_may_have_columns_named_as_those_of_the_sums(spark: SparkSession) -> None:
    values = [(DAY, "rye", 3), (DAY, "rye", 4)]
    rows = spark.createDataFrame(values, "landed_date date, grain string, key int")
    told = daily_sums(rows, _summed("sum(key)", "grain"))
    assert told.columns == ["landed_date", "grain", "key", "total"]
    assert told.collect() == [(DAY, "field", "rye", 7)]
