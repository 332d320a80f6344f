"""Training and scoring rows on real flights.

Equal to the pandas reference, blind to what came later, the same bulk or nightly.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyarrow import csv
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    BooleanType,
    DataType,
    DateType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from jobs.commands.land import land
from jobs.ingestion.records import columns as columns_of
from jobs.lake import amounts, publications, tables
from jobs.lake.knowledge import Knowledge
from jobs.lake.publications import Origin
from jobs.lake.transforms import labels_of
from jobs.spark.session import plan_for
from jobs.stages import features
from jobs.stages.transform import transform
from jobs.training.encoding import doubles
from jobs.transforms.flights import labels as flight_labels
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.features import Feature, FeatureView
from pipelines.feeds import Feed
from pipelines.flights import PIPELINE
from pipelines.run import Run
from pipelines.spec import Table
from pipelines.stages import stage
from tests.conftest import SOAK
from tests.jobs.toy import READINGS, TOY
from tests.reference import flights as reference

WINTER = Days(date(2012, 12, 31), date(2013, 1, 4))
SPRING = Days(date(2013, 2, 8), date(2013, 3, 11))
AUTUMN = Days(date(2013, 10, 4), date(2013, 11, 3))
"""From long enough before 2013-03-10 and 2013-11-03, when the clocks change, for whole windows of
28 days. Those of autumn are loaded by `make soak` alone: `test_flights.py` of the transforms has
them always."""
BEFORE, CHANGE = date(2013, 3, 9), date(2013, 3, 10)
YEAR_END = Days(date(2013, 12, 31), date(2013, 12, 31))


def run_of(environment: Environment, stage_name: str, days: Days) -> Run:
    return Run(pipeline=PIPELINE, days=days, environment=environment).at(stage(stage_name))


def publish(run: Run, made_by: str) -> None:
    """Publish what a stage has staged, without a gate."""
    for table in run.pipeline.tables:
        if table.made_by == made_by and tables.is_staged(run, table.name):
            tables.publish(run, table.name)


def load(environment: Environment, *ranges: Days) -> None:
    """Raw tables with the drops of these days alone, and derived tables of each range in a pass."""
    for days in ranges:
        land(PIPELINE, environment, days)
    for feed in PIPELINE.feeds:
        path = environment.table_path(f"{PIPELINE.name}.{feed.name}")
        rows = read_drops(environment, feed, ranges[0].first)
        write_deltalake(path, rows, partition_by=["landed_date"])
    # Not in one pass: of the days between there is nothing, and each is a file of every table.
    for days in ranges:
        run = run_of(environment, "transform", days)
        transform(run)
        publish(run, "transform")


def read_drops(environment: Environment, feed: Feed, first: date) -> pa.Table:
    """All that has landed of a feed; what has no day in its name landed on the first."""
    folder = environment.landing / PIPELINE.name
    parts = [
        read_drop(feed, path, date.fromisoformat(path.stem))
        for path in folder.glob(f"{feed.name}/*.csv")
    ]
    return pa.concat_tables(parts or [read_drop(feed, folder / feed.path, first)])


def read_drop(feed: Feed, path: Path, day: date) -> pa.Table:
    """A file of a feed as the rows of its raw table."""
    kinds = {
        "string": pa.string(),
        "int": pa.int32(),
        "double": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", "UTC"),
    }
    types = {column.name: kinds[column.type] for column in feed.columns}
    options = csv.ConvertOptions(
        column_types=types,
        null_values=["NA", ""],
        strings_can_be_null=True,
    )
    rows = csv.read_csv(path, convert_options=options)
    landed = pa.array([day] * rows.num_rows, pa.date32())
    return rows.append_column("landed_date", landed)


@pytest.fixture(scope="module")
def loaded(
    shared_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """A lake with the tables that features read: the year's hard days and the windows before."""
    folder = tmp_path_factory.mktemp("features")
    environment = replace(shared_environment, lake=str(folder / "lake"), landing=folder / "landing")
    # As a run of so many days does.
    plan_for(environment, many_rows=True)
    autumn = [AUTUMN] if os.environ.get("SOAK") else []
    load(environment, WINTER, SPRING, *autumn, YEAR_END)
    plan_for(environment, many_rows=False)
    return environment


@pytest.fixture
def copied(loaded: Environment, tmp_path: Path) -> Environment:
    """A lake of the test's own with the same tables."""
    shutil.copytree(loaded.lake, tmp_path / "lake")
    return replace(loaded, lake=str(tmp_path / "lake"))


@pytest.fixture(scope="module", autouse=True)
def no_gate() -> Iterator[None]:
    """What is judged and how is tested elsewhere."""

    def publish_all(run: Run, names: list[str]) -> dict[str, int]:
        return {name: tables.publish(run, name).rows for name in names}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "audit_and_publish", publish_all)
        yield


def joined(environment: Environment, first: str, last: str | None = None) -> Run:
    """A run that has been through the features stage."""
    days = Days(date.fromisoformat(first), date.fromisoformat(last or first))
    run = run_of(environment, "features", days)
    features.features(run)
    return run


@pytest.fixture(scope="module")
def in_one_pass(loaded: Environment) -> Mapping[str, pd.DataFrame]:
    """Training and scoring rows of the two nights around the change of the clocks in spring."""
    run = joined(loaded, str(BEFORE), str(CHANGE))
    return {name: rows_of(run, name) for name in ("scoring", "training")}


def of_night(rows: pd.DataFrame, night: date) -> pd.DataFrame:
    """Those of one night."""
    return rows[rows["landed_date"] == night].reset_index(drop=True)


def rows_of(run: Run, name: str, day: str | None = None) -> pd.DataFrame:
    """Staged rows, of one night or of all, sorted by their key."""
    staged = tables.staged(run, name)
    if day is not None:
        staged = staged.where(F.col("landed_date") == F.lit(date.fromisoformat(day)))
    # An instant as a number: pandas would show it in the client's own time zone.
    seconds = F.unix_seconds("event_timestamp")
    rows: pd.DataFrame = staged.withColumn("event_timestamp", seconds).toPandas()
    return rows.sort_values(["landed_date", *reference.KEY], ignore_index=True)


def assert_same(rows: pd.DataFrame, expected: pd.DataFrame, rtol: float = 0) -> None:
    """The columns that are expected have the expected values, in the same order of rows."""
    pd.testing.assert_frame_equal(
        _plain(rows[list(expected.columns)]),
        _plain(expected),
        check_dtype=False,
        rtol=rtol,
        atol=0,
    )


def _plain(rows: pd.DataFrame) -> pd.DataFrame:
    """One kind of null, whichever side a frame comes from."""
    values = rows.astype(object).where(rows.notna(), np.nan)
    return values.infer_objects()


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("2013-01-01", "2013-01-03"),
        ("2013-03-09", "2013-03-10"),
        pytest.param("2013-11-02", "2013-11-03", marks=SOAK),
    ],
)
def test_both_tables_are_what_pandas_finds(loaded: Environment, first: str, last: str) -> None:
    run = joined(loaded, first, last)
    for day in run.days:
        scored = rows_of(run, "scoring", str(day))
        trained = rows_of(run, "training", str(day))
        # Sums of floats depend on their order, in their last digits.
        assert_same(scored, reference.scoring(day).drop(columns="tailnum"), rtol=1e-12)
        assert_same(trained, reference.training(day).drop(columns="tailnum"), rtol=1e-12)
        moment = reference.scoring_moment(day).timestamp()
        assert set(scored["event_timestamp"]) == {int(moment)}


def test_the_tables_have_the_declared_columns_and_no_others(loaded: Environment) -> None:
    run = joined(loaded, "2013-01-02")
    declared = {
        "landed_date",
        "event_timestamp",
        *PIPELINE.entity,
        *PIPELINE.carried,
        *PIPELINE.training.features,
    }
    assert set(tables.staged(run, "scoring").columns) == declared
    assert set(tables.staged(run, "training").columns) == {*declared, "late"}


def test_one_pass_over_some_nights_gives_what_the_nights_give(
    in_one_pass: Mapping[str, pd.DataFrame], loaded: Environment
) -> None:
    for day in (BEFORE, CHANGE):
        night = joined(loaded, str(day))
        for name, rows in in_one_pass.items():
            assert_same(of_night(rows, day), rows_of(night, name))


def test_a_flight_is_trained_on_with_the_features_it_was_scored_with(loaded: Environment) -> None:
    run = joined(loaded, "2013-03-08", "2013-03-11")
    scored = rows_of(run, "scoring").drop(columns="landed_date")
    trained = rows_of(run, "training").drop(columns="landed_date")
    both = trained[reference.KEY].merge(scored[reference.KEY])
    assert len(both) > 2000
    assert_same(both.merge(scored), both.merge(trained.drop(columns="late")))


def test_nothing_after_the_scoring_moment_matters(
    in_one_pass: Mapping[str, pd.DataFrame], copied: Environment
) -> None:
    night, tomorrow = BEFORE, CHANGE
    scored = of_night(in_one_pass["scoring"], night)
    trained = in_one_pass["training"]
    known = trained[trained["landed_date"] == night]
    of_both_days = trained[trained["flight_date"] <= tomorrow]

    change_everything_after(copied, night)
    changed = joined(copied, str(night), str(tomorrow))
    assert_same(rows_of(changed, "scoring", str(night)), scored)
    # What became known a day later has other labels now, and the features that it had.
    later = rows_of(changed, "training")
    assert_same(later[later["landed_date"] == night], known)
    later_of_both_days = later[later["flight_date"] <= tomorrow]
    assert_same(later_of_both_days.drop(columns="late"), of_both_days.drop(columns="late"))
    assert later["late"].sum() > trained["late"].sum()

    remove_everything_after(copied, night)
    removed = joined(copied, str(night))
    assert_same(rows_of(removed, "scoring"), scored)
    assert_same(rows_of(removed, "training"), known)


def change_everything_after(environment: Environment, night: date) -> None:
    """Other outcomes, weather, schedules and planes.

    Of the outcomes, also those of the night's own flights that became known after it.
    """
    run = run_of(environment, "transform", Days(night + timedelta(days=1), SPRING.last))
    outcomes = tables.read(run, "flights", run.days)
    tables.stage_rows(run, "flights", outcomes.withColumn("arr_delay", F.col("arr_delay") + 300))
    tables.publish(run, "flights")
    transform(run)
    publish(run, "transform")
    for name in ("rolling", "weather_hourly", "weather_daily", "departures"):
        rows = tables.read(run, name, run.days)
        absurd = rows.select(*(_absurd(rows, column) for column in rows.columns))
        tables.stage_rows(run, name, absurd)
        tables.publish(run, name)
    first_register = tables.read(run, "planes").where("landed_date = '2012-12-31'")
    changed = {
        "landed_date": F.lit(run.days.first),
        "seats": F.lit(800),
        "year": F.lit(1903),
    }
    tables.stage_rows(run, "planes", first_register.withColumns(changed))
    tables.publish(run, "planes")


def _absurd(rows: DataFrame, column: str) -> Column:
    kind = dict(rows.dtypes)[column]
    is_number = kind in ("int", "bigint", "double")
    is_key = column in ("flight", "sched_dep_time")
    if is_key or not is_number:
        return F.col(column)
    return (F.col(column) + 1000).cast(kind).alias(column)


def remove_everything_after(environment: Environment, night: date) -> None:
    run = run_of(environment, "transform", Days(night + timedelta(days=1), SPRING.last))
    for name in ("flights", "rolling", "weather_hourly", "weather_daily", "departures", "planes"):
        nothing = tables.read(run, name, run.days).where("false")
        tables.stage_rows(run, name, nothing)
        tables.publish(run, name)


def test_one_pass_makes_every_table_of_a_night_blind_to_the_raw_rows_of_the_next(
    copied: Environment,
) -> None:
    night, tomorrow = BEFORE, CHANGE
    run = run_of(copied, "transform", Days(night, tomorrow))
    names = [table.name for table in PIPELINE.derived]
    before = {name: _by_day(tables.read(run, name, run.days)) for name in names}
    change_everything_that_lands_on(copied, tomorrow)
    transform(run)
    for name in names:
        made = _by_day(tables.staged(run, name))
        assert_same(made[night], before[name][night], rtol=1e-12)
        assert not made[tomorrow].equals(before[name][tomorrow]), name


def _by_day(rows: DataFrame) -> dict[date, pd.DataFrame]:
    """Rows of a table by the day on which they landed, in one order."""
    columns = sorted(rows.columns)
    found = rows.select(*columns).toPandas().sort_values(columns, ignore_index=True)
    by_day = dict(iter(found.groupby("landed_date")))
    return {day: some.reset_index(drop=True) for day, some in by_day.items()}


def change_everything_that_lands_on(environment: Environment, day: date) -> None:
    """Other numbers in every file of the day and in the registers, and fewer rows."""
    run = run_of(environment, "ingest", Days.of(day))
    for feed in PIPELINE.feeds:
        days = Days.of(WINTER.first if feed.is_reference else day)
        rows = tables.read(run, feed.name, days)
        fewer = rows.where(F.abs(F.hash(*feed.key)) % 10 > 0)
        told = set(rows.columns) - set(feed.key)
        changed = {name: _absurd(rows, name) for name in told}
        changed["landed_date"] = F.lit(day)
        if feed.name == "airports":
            changed["tzone"] = F.lit("Asia/Tokyo")
        tables.stage_rows(run, feed.name, fewer.withColumns(changed))
        tables.publish(run, feed.name)


def test_nothing_that_arrived_after_the_scoring_moment_matters(
    in_one_pass: Mapping[str, pd.DataFrame], copied: Environment
) -> None:
    night, tomorrow = BEFORE, CHANGE
    before = in_one_pass
    correct_everything_of(copied, night, known=tomorrow)
    again = joined(copied, str(night), str(tomorrow))
    scored = rows_of(again, "scoring")
    assert_same(scored, before["scoring"])
    # Labels are the last that are known; what they are learned with is what was scored.
    learned = rows_of(again, "training")
    assert_same(learned.drop(columns="late"), before["training"].drop(columns="late"))
    assert learned["late"].sum() > before["training"]["late"].sum()
    # The night that found the corrections is scored by itself as in a range.
    alone = joined(copied, str(tomorrow))
    assert_same(rows_of(alone, "scoring"), rows_of(again, "scoring", str(tomorrow)))


def correct_everything_of(environment: Environment, night: date, known: date) -> None:
    """Other rows of a day in every table, found by a later night."""
    run = run_of(environment, "transform", Days.of(night))
    late = Origin(known={night: known})
    for name in ("flights", "weather_hourly", "weather_daily", "departures"):
        rows = tables.read(run, name, run.days)
        # As it is, so that there is a record of it: the raw tables were written without one.
        tables.stage_rows(run, name, rows)
        tables.publish(run, name)
        absurd = rows.select(*(_absurd(rows, column) for column in rows.columns))
        tables.stage_rows(run, name, absurd, origin=late)
        tables.publish(run, name)
        assert tables.read(run, name, run.days).count() == absurd.count()


def test_a_night_without_outcomes_has_an_empty_training_table(loaded: Environment) -> None:
    run = run_of(loaded, "features", Days.of(date(2012, 12, 31)))
    made = features.features(run)
    assert made["training_rows"] == 0
    assert made["scoring_rows"] == 842
    assert made["outcomes_never_scored"] == 0
    scoring = tables.staged(run, "scoring").columns
    assert set(tables.staged(run, "training").columns) == {*scoring, "late"}


@pytest.mark.parametrize("moved", ["first_day", "last_day"])
def test_outcomes_outside_of_days_that_were_declared_since_are_learned_from_as_before(
    loaded: Environment, in_one_pass: Mapping[str, pd.DataFrame], moved: str
) -> None:
    ends = {"first_day": BEFORE + timedelta(days=1), "last_day": BEFORE - timedelta(days=1)}
    feeds = []
    for feed in PIPELINE.feeds:
        is_told = feed.name == "flights"
        feeds.append(replace(feed, **{moved: ends[moved]}) if is_told else feed)
    declared_since = replace(PIPELINE, feeds=tuple(feeds))
    run = replace(run_of(loaded, "features", Days.of(BEFORE)), pipeline=declared_since)
    features.features(replace(run, tables=("training",)))
    made = rows_of(run, "training")
    assert len(made)
    pd.testing.assert_frame_equal(made, of_night(in_one_pass["training"], BEFORE))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("training", "scoring"),
        ("scoring", "training"),
    ],
)
def test_a_run_about_one_of_both_tables_makes_that_one_alone(
    loaded: Environment, name: str, other: str
) -> None:
    run = joined(loaded, "2012-12-31")
    rows = tables.staged(run, name).count()
    made = features.features(replace(run, tables=(name,)))
    assert made[name] == made[f"{name}_rows"] == rows
    assert not made.keys() & {other, f"{other}_rows"}
    assert ("outcomes_never_scored" in made) == (name == "training")
    assert not tables.is_staged(run, other)


def test_a_night_without_a_schedule_scores_nothing_and_counts_unscheduled_outcomes(
    loaded: Environment,
) -> None:
    run = run_of(loaded, "features", YEAR_END)
    made = features.features(run)
    assert made["training_rows"] == 0
    assert made["scoring_rows"] == 0
    assert made["outcomes_never_scored"] == len(reference.training(YEAR_END.first))


def test_labels_are_counted_and_cancelled_flights_are_kept_without_one(loaded: Environment) -> None:
    run = run_of(loaded, "features", Days.of(date(2013, 1, 2)))
    made = features.features(run)
    expected = reference.training(date(2013, 1, 2))
    assert made["training_rows"] == len(expected)
    assert made["labelled"] == expected["late"].notna().sum()
    assert expected["late"].isna().any()


def test_an_outcome_of_before_all_nights_is_counted_and_has_nothing_read(
    loaded: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(loaded, "features", Days.of(SPRING.last))
    amounts.start()
    before = features.features(run)
    read = amounts.counted().rows_read
    for about in (date.min, date(1970, 1, 1)):
        monkeypatch.setattr("jobs.transforms.flights.labels", _with_one_about(about))
        amounts.start()
        made = features.features(run)
        assert amounts.counted().rows_read == read
        assert made["training_rows"] == before["training_rows"]
        assert made["outcomes_never_scored"] == before["outcomes_never_scored"] + 1


def _with_one_about(day: date) -> Callable[[DataFrame], DataFrame]:
    """The labels of flights, and one more."""

    def labels(flights: DataFrame) -> DataFrame:
        told = flight_labels(flights)
        old = told.limit(1).withColumn("flight_date", F.lit(day))
        return told.unionByName(old)

    return labels


def test_an_event_of_long_ago_that_is_told_anew_has_its_own_evening_read_alone(
    copied: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago, night = date(2013, 1, 2), SPRING.last
    evening, evening_before = (day - timedelta(days=1) for day in (long_ago, night))
    scored = rows_of(joined(copied, str(evening)), "scoring").drop(columns="landed_date")
    run = run_of(copied, "features", Days.of(night))
    old = flight_labels(tables.read(run, "flights", Days.of(long_ago)))
    again = old.where(F.col("flight_date") == F.lit(long_ago))

    def labels(flights: DataFrame) -> DataFrame:
        of_night = flights.where(F.col("landed_date") == F.lit(night))
        told_anew = again.withColumn("landed_date", F.lit(night))
        asked = told_anew.join(of_night, "landed_date", "left_semi")
        return flight_labels(flights).unionByName(asked)

    monkeypatch.setattr("jobs.transforms.flights.labels", labels)
    read: list[Days] = []
    real = features._entities

    def reading(run: Run, nights: Days, knowledge: Knowledge) -> DataFrame:
        read.append(nights)
        return real(run, nights, knowledge)

    monkeypatch.setattr(features, "_entities", reading)
    bulk = joined(copied, str(evening_before), str(night))
    of_bulk = publications.in_force(bulk, "training")[night].inputs
    read.clear()
    alone = joined(copied, str(night))
    first, last = read
    assert first == Days.of(evening)
    assert last.first >= evening_before - timedelta(days=1)
    # What was read is on record, and nothing between.
    given = publications.in_force(alone, "training")[night].inputs
    assert given == of_bulk
    own = [one for one in given if one.name == f"flights.{PIPELINE.entity_table}"]
    recorded = [Days(one.first_day, one.last_day) for one in own]
    assert [days.last for days in recorded] == [evening, evening_before]
    assert all(len(days) < 7 for days in recorded)
    trained = rows_of(alone, "training")
    assert_same(rows_of(bulk, "training", str(night)), trained)
    learned = trained[trained["flight_date"] == long_ago].drop(columns=["landed_date", "late"])
    assert len(learned) > 500
    expected = scored.merge(learned[reference.KEY])
    assert_same(learned, expected)


def test_a_lake_without_departures_tells_what_to_run(environment: Environment) -> None:
    with pytest.raises(NightshiftError, match="does not exist yet"):
        features.features(run_of(environment, "features", Days.of(date(2012, 12, 31))))


def test_labels_that_lack_a_column_are_told_with_the_columns_that_they_must_have(
    loaded: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labels(flights: DataFrame) -> DataFrame:
        return flights.select("landed_date", "flight_date", "carrier")

    monkeypatch.setattr("jobs.transforms.flights.labels", labels)
    message = "`labels` of jobs/transforms/flights.py must give landed_date, .* and late: .*UNRES"
    with pytest.raises(UsageError, match=message):
        features.features(run_of(loaded, "features", Days.of(date(2013, 1, 2))))


def test_a_pipeline_without_labels_is_told_where_to_write_them(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("jobs.transforms.flights.labels")
    run = run_of(environment, "features", Days.of(date(2013, 1, 5)))
    message = (
        r"'flights' has no labels: "
        r"write `def labels\(<outcomes>\)` in jobs/transforms/flights.py"
    )
    with pytest.raises(UsageError, match=message):
        features.features(run)


def test_labels_of_a_table_that_no_correction_reaches_are_refused_with_the_way_out(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labels(rolling: DataFrame) -> DataFrame:
        return rolling

    monkeypatch.setattr("jobs.transforms.flights.labels", labels)
    run = run_of(environment, "features", Days.of(date(2013, 1, 5)))
    message = "takes rolling, whose days say for ever .* 28 days .* follows_corrections=True"
    with pytest.raises(UsageError, match=message):
        features.features(run)
    by_name = {table.name: table for table in run.pipeline.derived}
    follows = replace(by_name["rolling"], follows_corrections=True)
    derived = tuple((by_name | {"rolling": follows}).values())
    assert labels_of(replace(run.pipeline, derived=derived)) is labels


LABELS = {"landed_date": DateType(), "flight_date": DateType(), "late": IntegerType()}


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"landed_date": TimestampType()}, "gave landed_date as timestamp, which must be a date"),
        ({"flight_date": StringType()}, "gave flight_date as string, which must be a date"),
        ({"late": BooleanType()}, r"gave late as boolean, .* a number: `CAST\(late AS INT\)`"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_labels_of_another_type_are_told_with_the_one_that_they_must_have(
    odd: dict[str, DataType], message: str
) -> None:
    def schema(kinds: dict[str, DataType]) -> StructType:
        return StructType([StructField(name, kind) for name, kind in kinds.items()])

    features._refuse_odd_labels(schema(LABELS), PIPELINE, "`labels`")
    with pytest.raises(UsageError, match=f"^`labels` {message}"):
        features._refuse_odd_labels(schema(LABELS | odd), PIPELINE, "`labels`")


@pytest.mark.parametrize(
    ("told", "own"),
    [
        (StringType(), IntegerType()),
        (IntegerType(), StringType()),
    ],
)
def test_an_entity_that_is_text_on_one_side_alone_is_told(told: DataType, own: DataType) -> None:
    def schema(kind: DataType) -> StructType:
        return StructType([StructField(name, kind) for name in PIPELINE.entity])

    features._refuse_texts_beside_others(schema(told), schema(told), PIPELINE)
    features._refuse_texts_beside_others(schema(IntegerType()), schema(LongType()), PIPELINE)
    first = PIPELINE.entity[0]
    message = (
        f"^flights.{PIPELINE.entity_table} gives {first} as {own.simpleString()}, and `labels` of "
        rf"jobs/transforms/flights.py as {told.simpleString()}: .* `CAST\({first} AS "
    )
    with pytest.raises(UsageError, match=message):
        features._refuse_texts_beside_others(schema(told), schema(own), PIPELINE)


def test_labels_that_give_nothing_are_told_what_they_must_return(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def labels(flights: DataFrame) -> None:
        """Lacks its `return`."""

    monkeypatch.setattr("jobs.transforms.flights.labels", labels)
    monkeypatch.setattr(features.tables, "read", lambda *_: None)
    message = "`labels` of jobs/transforms/flights.py gave None: it must return a DataFrame"
    night = date(2013, 1, 2)
    run = run_of(environment, "features", Days.of(night))
    with pytest.raises(UsageError, match=message):
        features._outcomes(run, night)


OLD = replace(READINGS, name="old", path="old/{date}.csv", last_day=date(2013, 1, 31))
NEW = replace(READINGS, name="new", path="new/{date}.csv", first_day=date(2013, 2, 1))


def outcomes_of(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    days: Days,
    there: Mapping[str, DataFrame],
    first_night: date | None = None,
) -> features._Outcomes:
    """What became known of two feeds, of which one follows the other; `taken` is the day."""

    def labels(old: DataFrame, new: DataFrame) -> DataFrame:
        both = old.unionByName(new)
        return both.selectExpr("landed_date", "taken AS reading_date", "id", "1 AS high")

    def read(_: Run, name: str, some: Days) -> DataFrame:
        is_of_these = F.col("landed_date").between(some.first, some.last)
        return there[name].where(is_of_these)

    monkeypatch.setattr(features, "labels_of", lambda _: labels)
    monkeypatch.setattr(features, "exists", lambda _, name: name in there)
    monkeypatch.setattr(features.tables, "read", read)
    pipeline = replace(TOY, feeds=(OLD, NEW), entity_table="old")
    run = Run(pipeline=pipeline, days=days, environment=environment).at(stage("features"))
    return features._outcomes(run, first_night or days.first)


def readings(spark: SparkSession, *rows: tuple[date, date]) -> DataFrame:
    """Of these days of landing, each about a day."""
    columns = columns_of(READINGS)
    numbered = [(landed, place, about) for place, (landed, about) in enumerate(rows)]
    found = spark.createDataFrame(numbered, "landed_date date, id int, taken date")
    lacking = {name: F.lit(None) for name in columns if name not in found.columns}
    return found.withColumns(lacking).select(*columns)


def test_labels_of_a_feed_that_has_ended_and_of_one_that_has_not_begun_are_those_of_the_other(
    environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, late = date(2013, 1, 15), date(2013, 2, 5)
    old = readings(spark, (early, early))
    new = readings(spark, (late, late), (late, late))
    before = outcomes_of(environment, monkeypatch, Days.of(early), {"old": old})
    after = outcomes_of(environment, monkeypatch, Days.of(late), {"old": old, "new": new})
    every_day = Days(early, late)
    both = outcomes_of(environment, monkeypatch, every_day, {"old": old, "new": new})
    assert (before.count, after.count, both.count) == (1, 2, 3)
    assert {**before.about, **after.about} == both.about


def test_an_outcome_of_a_day_that_has_not_come_is_counted_and_learned_by_no_model(
    environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = date(2013, 1, 15)
    tomorrow, next_week = night + timedelta(days=1), night + timedelta(days=7)
    rows = [(night, night), (night, tomorrow), (night, next_week)]
    there = {"old": readings(spark, *rows)}
    found = outcomes_of(environment, monkeypatch, Days.of(night), there)
    assert (found.count, found.labelled, found.early) == (1, 1, 2)
    assert found.about == {night: {night}}
    assert found.rows is not None
    assert [row["reading_date"] for row in found.rows.collect()] == [night]
    none = {"old": readings(spark, *rows[1:])}
    alone = outcomes_of(environment, monkeypatch, Days.of(night), none)
    assert (alone.count, alone.early, alone.evenings) == (0, 2, [])


def test_evenings_of_before_the_first_night_are_on_record_and_none_of_those_that_are_read(
    environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    night, first_night = date(2013, 1, 15), date(2013, 1, 10)
    before = date(2013, 1, 5)
    told = [date.min, date(1970, 1, 1), before, first_night, night]
    there = {"old": readings(spark, *((night, about) for about in told))}
    found = outcomes_of(environment, monkeypatch, Days.of(night), there, first_night)
    assert found.about == {night: {TOY.first_day, before, first_night, night}}
    assert found.evenings == [night - timedelta(days=1)]
    assert found.count == len(told)


def test_an_entity_table_may_have_a_column_named_as_the_label(
    environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = date(2013, 1, 2)
    about = night + timedelta(days=1)
    entity = dict.fromkeys(PIPELINE.entity, "one") | {"flight_date": about}
    rows = spark.createDataFrame([{"landed_date": night, **entity, "late": 1}])
    outcome = spark.createDataFrame([{"learned": about, **entity, "late": 0}])
    monkeypatch.setattr(features, "_as_seen", lambda *_: rows)
    known = features._Outcomes(
        rows=outcome,
        count=1,
        labelled=1,
        about={about: Days.of(about)},
    )
    run = run_of(environment, "features", Days.of(night))
    found = features._entity_rows(run, known, Knowledge(run, {"departures": []}))
    assert "late" not in found.columns
    (row,) = found.collect()
    assert [one["late"] for one in row["__told"]] == [0]


def test_a_feature_may_be_named_as_a_column_that_another_view_is_looked_up_by(
    environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = Feature(name="hour", column="amount")
    heat = Feature(name="heat", column="amount")
    of_id = FeatureView(
        name="of_id",
        table="past",
        keys={"id": "id"},
        features=(hour,),
    )
    of_hour = FeatureView(
        name="of_hour",
        table="past",
        keys={"hour": "hour"},
        features=(heat,),
    )
    past_table = Table(name="past", made_by="transform", key=("id",))
    pipeline = replace(
        TOY,
        derived=(past_table, replace(past_table, name="state")),
        entity_table="state",
        views=(of_id, of_hour),
        training=replace(TOY.training, numeric=("hour", "heat")),
    )
    night = Days.of(date(2013, 1, 2))
    rows = """
        SELECT *, DATE '2013-01-02' AS landed_date, TIMESTAMP '2013-01-03 05:00:00Z' AS
            event_timestamp
        FROM VALUES (1, 5, 2.5D), (2, 7, 9.5D) AS (id, hour, amount)
    """
    past = spark.sql(rows)
    asked = past.where("id = 1").withColumn("hour", F.lit(7)).drop("amount")
    frames = {"past": past, "state": asked}
    monkeypatch.setattr(features, "_as_seen", lambda _, name, *__: frames[name])
    run = Run(pipeline=pipeline, days=night, environment=environment).at(stage("features"))
    knowledge = Knowledge(run, {"past": [], "state": []})
    entities = features._entities(run, night, knowledge)
    (found,) = features._joined(run, entities, night, knowledge).collect()
    assert (found["hour"], found["heat"]) == (2.5, 9.5)


def test_a_row_that_is_told_of_twice_is_scored_once_and_trained_on_twice(
    environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = date(2013, 1, 2)
    about, later = night + timedelta(days=1), night + timedelta(days=2)
    entity = dict.fromkeys(PIPELINE.entity, "one") | {"flight_date": about}
    other = entity | {"carrier": "another"}
    nights = [{"landed_date": night, **one} for one in (entity, other)]
    outcomes = [
        {"learned": about, **entity, "late": 0},
        {"learned": later, **entity, "late": 1},
    ]
    rows, outcome = spark.createDataFrame(nights), spark.createDataFrame(outcomes)
    monkeypatch.setattr(features, "_as_seen", lambda *_: rows)
    monkeypatch.setattr(features, "_columns", lambda *_: ["carrier"])
    of_day = Days.of(about)
    known = features._Outcomes(
        rows=outcome,
        count=2,
        labelled=2,
        about={about: of_day, later: of_day},
    )
    run = run_of(environment, "features", Days(night, later))
    found = features._entity_rows(run, known, Knowledge(run, {"departures": []}))
    scored = sorted(features._scoring(run, found).collect())
    assert scored == [(night, "another"), (night, "one")]
    trained = sorted(features._training(run, found).collect())
    assert trained == [(about, "one", 0), (later, "one", 1)]


@pytest.mark.parametrize(
    ("first", "last", "read"),
    [
        (19, 19, [(19, 20)]),
        (15, 19, [(15, 20)]),
        (11, 12, [(11, 12), (20, 20)]),
        (18, 18, [(18, 18), (20, 20)]),
        (20, 20, [(20, 20)]),
    ],
)
def test_nights_between_those_that_are_told_of_and_the_run_s_are_not_read(
    environment: Environment, first: int, last: int, read: list[tuple[int, int]]
) -> None:
    night = date(2013, 1, 20)
    run = run_of(environment, "features", Days.of(night))
    evenings = Days(night.replace(day=first), night.replace(day=last))
    told = features._Outcomes(about={night: evenings.shifted(1)})
    found = features._read_for(run, told)
    assert [(days.first.day, days.last.day) for days in found] == read


def test_only_the_rows_of_before_that_are_told_of_are_trained_on(
    environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = date(2013, 1, 3)
    before, day = night - timedelta(days=1), night + timedelta(days=1)
    carriers = {"told": before, "untold": before, "inside": night, "new": night}
    entity = dict.fromkeys(PIPELINE.entity, "one")
    rows = []
    for carrier, evening in carriers.items():
        about = {"flight_date": evening + timedelta(days=1), "carrier": carrier}
        rows.append({"landed_date": evening, **entity, **about})
    known = [
        {"learned": day, **rows[0], "late": 1},
        {"learned": day + timedelta(days=1), **rows[0], "late": 0},
        {"learned": day, **rows[2], "late": 1},
    ]
    outcomes = features._Outcomes(
        rows=spark.createDataFrame(known).drop("landed_date"),
        count=3,
        labelled=3,
        about={day: Days(night, day)},
    )
    evenings = spark.createDataFrame(rows)
    monkeypatch.setattr(features, "_as_seen", lambda *_: evenings)
    monkeypatch.setattr(features, "_columns", lambda *_: ["carrier"])
    run = run_of(environment, "features", Days(night, day + timedelta(days=1)))
    found = features._entity_rows(run, outcomes, Knowledge(run, {"departures": []}))
    scored = features._scoring(run, found).select("carrier").collect()
    assert sorted(row["carrier"] for row in scored) == ["inside", "new"]
    trained = features._training(run, found).drop("landed_date").collect()
    assert sorted(trained) == [
        ("inside", 1),
        ("told", 0),
        ("told", 1),
    ]


@pytest.mark.parametrize("there", ["integer", "long", "double"])
def test_a_night_without_outcomes_has_labels_of_the_type_that_the_table_has(
    environment: Environment,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    there: str,
) -> None:
    night = date(2013, 1, 2)
    rows = spark.createDataFrame([{"landed_date": night, "carrier": "UA"}])
    monkeypatch.setattr(features, "_as_seen", lambda *_: rows)
    monkeypatch.setattr(features, "column_types", lambda *_: {"late": there})
    monkeypatch.setattr(features, "_columns", lambda *_: ["carrier"])
    run = run_of(environment, "features", Days.of(night))
    nothing, knowledge = features._Outcomes(), Knowledge(run, {"departures": []})
    found = features._entity_rows(run, nothing, knowledge)
    told = features._training(run, found)
    assert told.schema["late"].dataType.typeName() == there


def test_a_feature_that_cannot_be_finished_is_told(
    environment: Environment, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    misspelled = spark.range(1).select(F.expr("idd * 2").alias("doubled"))
    monkeypatch.setattr(features, "_outcomes", lambda *_: features._Outcomes())
    monkeypatch.setattr(features, "_computed_entity_rows", lambda *_: None)
    monkeypatch.setattr(features, "_joined", lambda *_: misspelled)
    message = "features of 'flights' cannot be finished as they are declared: .*UNRESOLVED.*`idd`"
    with pytest.raises(UsageError, match=message):
        features.features(run_of(environment, "features", Days.of(date(2013, 1, 2))))


def test_a_declared_feature_that_nobody_gives_is_named(
    environment: Environment, spark: SparkSession
) -> None:
    run = run_of(environment, "features", Days.of(date(2013, 1, 1)))
    keys = {*PIPELINE.entity, *PIPELINE.carried, "event_timestamp"}
    given = (keys | set(PIPELINE.training.features)) - {"seats"}
    schema = ", ".join(f"{name} int" for name in given)
    rows = spark.createDataFrame([], schema)
    message = r"Neither departures nor the feature views of 'flights' give \['seats'\]"
    with pytest.raises(UsageError, match=message):
        features._columns(run, rows)


def _without_rows(spark: SparkSession, types: dict[str, str]) -> DataFrame:
    schema = ", ".join(f"{name} {type_}" for name, type_ in types.items())
    return spark.createDataFrame([], schema)


@pytest.mark.parametrize("kind", ["date", "timestamp", "array<int>"])
def test_a_numeric_feature_that_is_no_number_is_told_before_anything_is_published(
    environment: Environment, spark: SparkSession, kind: str
) -> None:
    run = run_of(environment, "features", Days.of(date(2013, 1, 1)))
    wanted = {*PIPELINE.entity, *PIPELINE.carried, "event_timestamp"}
    wanted |= set(PIPELINE.training.features)
    kinds = dict.fromkeys(wanted, "int") | {"seats": "boolean"}

    assert "seats" in features._columns(run, _without_rows(spark, kinds))
    message = rf"numeric feature 'seats' of 'flights' is of type {kind}, which is no number"
    with pytest.raises(UsageError, match=message):
        features._columns(run, _without_rows(spark, kinds | {"seats": kind}))


@pytest.mark.parametrize("kind", ["array<string>", "struct<of:int>", "binary"])
def test_a_categorical_feature_that_is_no_text_is_told_before_anything_is_published(
    environment: Environment, spark: SparkSession, kind: str
) -> None:
    run = run_of(environment, "features", Days.of(date(2013, 1, 1)))
    wanted = {*PIPELINE.entity, *PIPELINE.carried, "event_timestamp"}
    wanted |= set(PIPELINE.training.features)
    kinds = dict.fromkeys(wanted, "int")

    for good in ("date", "timestamp", "timestamp_ntz", "decimal(9,2)", "boolean", "string"):
        assert "dest" in features._columns(run, _without_rows(spark, kinds | {"dest": good}))
    message = rf"categorical feature 'dest' of 'flights' is of type {kind}, of which a model"
    with pytest.raises(UsageError, match=message):
        features._columns(run, _without_rows(spark, kinds | {"dest": kind}))


def test_a_text_of_a_numeric_feature_that_says_no_number_is_told(spark: SparkSession) -> None:
    numbers = ["1", "-.5", "+1.e-3", "Infinity", "NaN", None]
    good = spark.createDataFrame([(text,) for text in numbers], "seats string")
    features._refuse_odd_texts(good, PIPELINE)
    texts = [(text,) for text in ("n/a", "", "1 ", "1d")]
    odd = good.union(spark.createDataFrame(texts, "seats string"))
    message = r"numeric feature 'seats' of 'flights' is a text, which is no number in 4 rows, such"
    with pytest.raises(UsageError, match=message):
        features._refuse_odd_texts(odd, PIPELINE)
    read = doubles(pa.chunked_array([numbers]))
    assert np.isnan(read).tolist() == [False] * 4 + [True] * 2
