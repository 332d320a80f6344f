"""What is declared of a feature must hold: each bound, each required value, each by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pyspark.sql import Row, SparkSession

from expectations import feature_rules
from expectations.feature_rules import MISSING, OUT_OF_RANGE, Rules
from pipelines.features import Feature, FeatureView, names
from pipelines.flights import PIPELINE
from pipelines.model import Training
from tests.jobs.toy import READINGS, SENSORS, TOY


def _plausible(feature: Feature) -> float:
    bounds = [bound for bound in (feature.least, feature.most) if bound is not None]
    return float(sum(bounds) / len(bounds)) if bounds else 1.0


def _judged(
    spark: SparkSession,
    rules: Rules,
    rows: list[dict[str, float | None]],
) -> list[Row]:
    schema = ", ".join(f"`{name}` double" for name in rows[0])
    frame = spark.createDataFrame([tuple(row.values()) for row in rows], schema)
    judged = frame.selectExpr(*(f"{sql} AS {name}" for name, sql in rules.derived.items()))
    return judged.collect()


def test_rows_as_declared_break_no_rule(spark: SparkSession) -> None:
    good = {feature.name: _plausible(feature) for feature in PIPELINE.features}
    (row,) = _judged(spark, feature_rules.of_model(PIPELINE), [good])
    assert row.asDict() == {OUT_OF_RANGE: None, MISSING: None}


def test_each_bound_of_each_feature_is_held_and_named(spark: SparkSession) -> None:
    good = {feature.name: _plausible(feature) for feature in PIPELINE.features}
    broken = {}
    for feature in PIPELINE.features:
        if feature.least is not None:
            low = feature.least - 1
            broken[feature.name, low] = good | {feature.name: low}
        if feature.most is not None:
            high = feature.most + 1
            broken[feature.name, high] = good | {feature.name: high}
    found = _judged(spark, feature_rules.of_model(PIPELINE), list(broken.values()))
    named = []
    for row in found:
        name, _, value = row[OUT_OF_RANGE].partition(" = ")
        named.append((name, float(value)))
    assert named == list(broken)


def test_a_required_feature_without_a_value_is_named_and_another_may_lack_one(
    spark: SparkSession,
) -> None:
    good = {feature.name: _plausible(feature) for feature in PIPELINE.features}
    rows = [good | {feature.name: None} for feature in PIPELINE.features]
    found = _judged(spark, feature_rules.of_model(PIPELINE), rows)
    expected = [feature.name if feature.is_required else None for feature in PIPELINE.features]
    assert [row[MISSING] for row in found] == expected
    assert {row[OUT_OF_RANGE] for row in found} == {None}


@pytest.mark.parametrize("name", ["größe", "end"])
def test_a_feature_may_have_a_name_that_sql_reads_otherwise(spark: SparkSession, name: str) -> None:
    view = FeatureView(
        name="named",
        table="readings",
        keys={"id": "id"},
        features=(Feature(name=name, least=0, is_required=True),),
        event="landed_date",
    )
    feeds = (READINGS.with_new([name]), SENSORS)
    pipeline = replace(TOY, feeds=feeds, views=(view,), training=_reading(name))
    rules = feature_rules.of_table(pipeline, "readings")
    low, missing = _judged(spark, rules, [{name: -1.0}, {name: None}])
    assert low[OUT_OF_RANGE] == f"{name} = -1.0"
    assert missing[MISSING] == name


# Without a word on whether it is whole it is what its column is, which may be doubles.
@pytest.mark.parametrize("is_whole", [False, None], ids=["double", "as its column"])
@pytest.mark.parametrize("bounded", [["least"], ["most"], ["least", "most"]])
def test_what_is_no_number_lies_in_no_range(
    spark: SparkSession, bounded: list[str], is_whole: bool | None
) -> None:
    bounds = {"least": 0, "most": 9}
    within = {name: bounds[name] for name in bounded}
    amount = Feature(name="amount", is_whole=is_whole, **within)
    view = FeatureView(
        name="few",
        table="readings",
        keys={"id": "id"},
        features=(amount,),
        event="landed_date",
    )
    rules = feature_rules.of_table(replace(TOY, views=(view,)), "readings")
    rows = [{"amount": value} for value in (float("nan"), 5.0, None)]
    odd, good, none = _judged(spark, rules, rows)
    assert odd[OUT_OF_RANGE] == "amount = NaN"
    assert good[OUT_OF_RANGE] is none[OUT_OF_RANGE] is None


def _reading(name: str) -> Training:
    return replace(TOY.training, numeric=(name,))


def test_a_table_is_held_to_what_is_read_from_it_and_not_to_what_is_finished_later() -> None:
    rules = feature_rules.of_table(PIPELINE, "planes")
    assert "year" not in rules.derived[OUT_OF_RANGE]
    assert "seats" in rules.derived[OUT_OF_RANGE]


def _of_site(site: str, feature: Feature) -> FeatureView:
    return FeatureView(
        name=f"of_{len(site)}",
        table="readings",
        keys={"id": "id"},
        constants={"site": site} if site else {},
        features=(feature,),
        event="landed_date",
    )


def _rules_of(*views: FeatureView) -> Rules:
    feeds = (READINGS.with_new(["site"]), SENSORS)
    training = replace(TOY.training, numeric=names(views))
    pipeline = replace(TOY, feeds=feeds, views=views, training=training)
    return feature_rules.of_table(pipeline, "readings")


def test_a_view_with_a_constant_holds_the_rows_that_it_reads_alone_to_its_bounds(
    spark: SparkSession,
) -> None:
    odd = r"the 'north\' site"
    lower = Feature(name="lower", column="amount", most=1, is_required=True)
    upper = Feature(name="upper", column="amount", most=100)
    rules = _rules_of(_of_site("south", upper), _of_site(odd, lower))
    schema = "site string, amount double"
    rows = [
        (odd, 2.0),
        (odd, None),
        ("south", 2.0),
        ("south", 101.0),
        ("south", None),
        ("x", 999.0),
    ]
    frame = spark.createDataFrame(rows, schema)
    judged = frame.selectExpr(*(f"{sql} AS {name}" for name, sql in rules.derived.items()))
    assert [tuple(row) for row in judged.collect()] == [
        ("amount = 2.0", None),
        (None, "amount"),
        (None, None),
        ("amount = 101.0", None),
        (None, None),
        (None, None),
    ]


def test_of_two_features_of_one_column_each_holds_it_to_its_own_bounds(spark: SparkSession) -> None:
    above = Feature(name="above", column="amount", least=0)
    below = Feature(name="below", column="amount", most=9)
    rules = _rules_of(_of_site("", above), replace(_of_site("", below), name="other"))
    low, high = _judged(spark, rules, [{"amount": -1.0}, {"amount": 10.0}])
    assert (low[OUT_OF_RANGE], high[OUT_OF_RANGE]) == ("amount = -1.0", "amount = 10.0")


def test_a_missing_value_that_is_filled_on_reading_is_none_of_the_table(
    spark: SparkSession,
) -> None:
    count = Feature(name="count", column="amount", when_unknown=0, least=0, is_required=True)
    rules = _rules_of(_of_site("", count))
    assert set(rules.derived) == {OUT_OF_RANGE}
    missing, low = _judged(spark, rules, [{"amount": None}, {"amount": -1.0}])
    assert (missing[OUT_OF_RANGE], low[OUT_OF_RANGE]) == (None, "amount = -1.0")


def test_features_without_bounds_or_duties_have_no_rules() -> None:
    free = FeatureView(
        name="free",
        table="readings",
        keys={"id": "id"},
        features=(Feature(name="amount"),),
        event="landed_date",
    )
    rules = feature_rules.of_table(replace(TOY, views=(free,)), "readings")
    assert (dict(rules.derived), rules.each_row) == ({}, ())
