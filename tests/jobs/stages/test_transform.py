"""Derived tables are made for the run's days from no more than their windows.

Each night of a table with a window is made from what was known by then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    CalendarIntervalType,
    DataType,
    DateType,
    DayTimeIntervalType,
    GeometryType,
    IntegerType,
    MapType,
    StringType,
    StructType,
    TimestampNTZType,
    TimestampType,
    TimeType,
    VariantType,
    YearMonthIntervalType,
)

from jobs.commands.land import land
from jobs.lake import tables
from jobs.lake.commits import publish
from jobs.lake.locations import path, version
from jobs.lake.publications import Origin, in_force
from jobs.stages.ingest import ingest
from jobs.stages.transform import _refuse_odd_rows, transform
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.flights import PIPELINE as FLIGHTS
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, Table
from pipelines.stages import stage
from tests.jobs.lake.test_commits import staged
from tests.jobs.toy import TOY

MakeRun = Callable[..., Run]
TOTALS = Table(
    name="totals",
    made_by="transform",
    reads=("readings", "sensors"),
    window_days=3,
    key=("landed_date",),
)
DOUBLED = Table(
    name="doubled",
    made_by="transform",
    reads=("totals",),
    key=("landed_date",),
)
SUMMED = replace(TOY, derived=(TOTALS, DOUBLED))


@pytest.fixture
def seen() -> Iterator[list[tuple[str, list[str]]]]:
    """Puts a module of transforms in the place of `jobs/transforms/toy.py`.

    Holds the days that each call was given.
    """
    calls: list[tuple[str, list[str]]] = []

    def totals(readings: DataFrame, sensors: DataFrame, days: Days) -> DataFrame:
        calls.append((f"readings for {days}", _days_of(readings)))
        calls.append((f"sensors for {days}", _days_of(sensors)))
        # A reading counts on its own day and on the two after it.
        counted = F.sequence("landed_date", F.date_add("landed_date", 2))
        each = readings.select(F.explode(counted).alias("day"), "amount")
        first = F.lit(days.first)
        last = F.lit(days.last)
        within = each.where(F.col("day").between(first, last))
        by_day = within.withColumnRenamed("day", "landed_date").groupBy("landed_date")
        return by_day.agg(F.sum("amount").alias("total"))

    def doubled(totals: DataFrame, days: Days) -> DataFrame:
        twice = (F.col("total") * 2).alias("twice")
        return totals.select("landed_date", twice)

    module = ModuleType("jobs.transforms.toy")
    module.totals = totals  # type: ignore[attr-defined]
    module.doubled = doubled  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    yield calls
    del sys.modules[module.__name__]


def test_nothing_is_made_where_predictions_are_told_by_another_column(
    seen: list[tuple[str, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.stages.transform.connect", lambda _: None)
    run = _run(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}), "2013-01-05")
    (day,) = run.days
    publish(run, PREDICTIONS, staged(run, {day: [1]}, PREDICTIONS))
    entity = ("about", *(name for name in TOY.entity if name != TOY.event_date))
    renamed = replace(SUMMED, entity=entity, event_date="about")
    with pytest.raises(NightshiftError, match=f"Name the column '{TOY.event_date}' again"):
        transform(replace(run, pipeline=renamed))
    assert not seen


def _days_of(rows: DataFrame) -> list[str]:
    days = rows.select("landed_date").distinct().sort("landed_date")
    return [str(row[0]) for row in days.collect()]


def _run(
    environment: Environment, first: str, last: str | None = None, name: str = "transform"
) -> Run:
    days = Days(date.fromisoformat(first), date.fromisoformat(last or first))
    return Run(pipeline=SUMMED, days=days, environment=environment).at(stage(name))


def _publish_readings(
    spark: SparkSession,
    environment: Environment,
    amounts: dict[str, float],
    known: str | None = None,
) -> None:
    """Publish a reading a day, known from its own day or from the one that is given."""
    run = _run(environment, min(amounts), max(amounts), "ingest")
    # Ids do not matter here: one for all.
    rows = []
    for day, amount in amounts.items():
        rows.append((1, amount, date.fromisoformat(day)))
    frame = spark.createDataFrame(rows, "id int, amount double, landed_date date")
    late = {day: date.fromisoformat(known) for day in run.days} if known else {}
    tables.stage_rows(run, "readings", frame, origin=Origin(known=late))
    tables.publish(run, "readings")


def _publish_sensors(spark: SparkSession, environment: Environment, *days: str) -> None:
    run = _run(environment, min(days), max(days), "ingest")
    rows = [(n, date.fromisoformat(day)) for n, day in enumerate(days)]
    tables.stage_rows(run, "sensors", spark.createDataFrame(rows, "id int, landed_date date"))
    tables.publish(run, "sensors")


def _transform(
    environment: Environment,
    first: str,
    last: str | None = None,
) -> dict[str, Any]:
    run = _run(environment, first, last)
    metrics = transform(run)
    for table in SUMMED.derived:
        tables.publish(run, table.name)
    return metrics


def _rows(environment: Environment, name: str) -> dict[str, float]:
    published = tables.read(_run(environment, "2013-01-01"), name)
    rows = published.sort("landed_date").collect()
    return {str(day): value for day, value in rows}


@pytest.fixture
def toy(spark: SparkSession, environment: Environment, seen: list[Any]) -> Environment:
    """The environment with published readings of a week and two snapshots of the sensors."""
    # Powers of ten: a total shows which days it is of.
    amounts = {f"2013-01-0{day}": 10.0**day for day in range(1, 8)}
    _publish_readings(spark, environment, amounts)
    _publish_sensors(spark, environment, "2013-01-01", "2013-01-05")
    return environment


def test_a_table_is_given_its_window_and_the_snapshots_landed_by_then(
    toy: Environment, seen: list[tuple[str, list[str]]]
) -> None:
    metrics = _transform(toy, "2013-01-04")
    assert seen == [
        ("readings for 2013-01-04", ["2013-01-02", "2013-01-03", "2013-01-04"]),
        ("sensors for 2013-01-04", ["2013-01-01"]),
    ]
    assert metrics == {"rows_staged": 2, "tables": {"totals": 1, "doubled": 1}}
    assert _rows(toy, "totals") == {"2013-01-04": 11100.0}


def test_a_snapshot_of_before_the_first_day_that_is_declared_by_now_is_still_read(
    toy: Environment, seen: list[tuple[str, list[str]]]
) -> None:
    run = _run(toy, "2013-01-04")
    later = replace(SUMMED, first_day=date(2013, 1, 3))
    transform(replace(run, pipeline=later))
    assert seen[1] == ("sensors for 2013-01-04", ["2013-01-01"])
    tables.publish(run, "totals")
    # Or else no change of it would reach the day.
    given = in_force(run, "totals")[run.days.last].inputs
    (snapshots,) = (one for one in given if one.name == "toy.sensors")
    assert snapshots.first_day == date(2013, 1, 1)
    assert snapshots.last_day == run.days.last


def test_a_correction_is_seen_from_the_night_that_found_it_on(
    spark: SparkSession, toy: Environment
) -> None:
    _transform(toy, "2013-01-03", "2013-01-06")
    before = _rows(toy, "totals")
    _publish_readings(spark, toy, {"2013-01-03": 7.0}, known="2013-01-05")
    _transform(toy, "2013-01-03", "2013-01-06")
    after = _rows(toy, "totals")
    assert after == {**before, "2013-01-05": 110007.0}
    # One by one, in another order, they are the same.
    for day in ("2013-01-05", "2013-01-03", "2013-01-04"):
        _transform(toy, day)
    assert _rows(toy, "totals") == after
    assert _rows(toy, "doubled") == {day: 2 * total for day, total in after.items()}


def test_a_day_that_was_found_late_is_unknown_to_the_nights_before(
    spark: SparkSession, toy: Environment
) -> None:
    _publish_readings(spark, toy, {"2013-01-08": 10.0**8}, known="2013-01-09")
    _transform(toy, "2013-01-08", "2013-01-09")
    assert _rows(toy, "totals") == {"2013-01-08": 11000000.0, "2013-01-09": 110000000.0}
    # Made late: no night between may look it up. A correction makes nothing late.
    assert _known(toy, "totals") == {"2013-01-08": "2013-01-09", "2013-01-09": "2013-01-09"}
    _transform(toy, "2013-01-03")
    _publish_readings(spark, toy, {"2013-01-03": 7.0}, known="2013-01-05")
    _transform(toy, "2013-01-03", "2013-01-05")
    known = _known(toy, "totals")
    assert (known["2013-01-03"], known["2013-01-05"]) == ("2013-01-03", "2013-01-05")


def _known(environment: Environment, name: str) -> dict[str, str]:
    """From when each day of a table is known."""
    published = in_force(_run(environment, "2013-01-01"), name)
    return {str(day): str(one.known_day) for day, one in published.items()}


def test_a_table_about_its_own_day_is_made_from_the_last_version_and_known_as_late(
    spark: SparkSession, toy: Environment
) -> None:
    _total_by_day(toy, "2013-01-03")
    _publish_readings(spark, toy, {"2013-01-03": 7.0}, known="2013-01-05")
    for day in ("2013-01-03", "2013-01-04"):
        _total_by_day(toy, day)
    assert _rows(toy, "totals") == {"2013-01-03": 7.0, "2013-01-04": 10000.0}
    assert _known(toy, "totals") == {"2013-01-03": "2013-01-05", "2013-01-04": "2013-01-04"}


def _total_by_day(environment: Environment, day: str, *, is_exact: bool = False) -> None:
    """Make and publish the totals as a table about its own day alone."""
    about_its_day = replace(SUMMED, derived=(replace(TOTALS, window_days=1),))
    run = replace(_run(environment, day), pipeline=about_its_day, is_exact=is_exact)
    transform(run)
    tables.publish(run, "totals")


def test_a_table_about_its_own_day_is_first_made_as_it_was_before_a_late_correction(
    spark: SparkSession, toy: Environment
) -> None:
    _publish_readings(spark, toy, {"2013-01-03": 7.0}, known="2013-01-05")
    for total, known in ((1000.0, "2013-01-03"), (7.0, "2013-01-05")):
        _total_by_day(toy, "2013-01-03")
        assert _rows(toy, "totals") == {"2013-01-03": total}
        assert _known(toy, "totals") == {"2013-01-03": known}


def test_a_run_of_exactly_its_days_makes_no_table_as_it_was_before_a_late_correction(
    spark: SparkSession, toy: Environment
) -> None:
    day = "2013-01-03"
    _publish_readings(spark, toy, {day: 7.0}, known="2013-01-05")
    _total_by_day(toy, day, is_exact=True)
    assert _rows(toy, "totals") == {day: 7.0}
    assert _known(toy, "totals") == {day: day}


def test_days_that_were_corrected_late_together_are_made_together_as_they_were(
    spark: SparkSession, toy: Environment, seen: list[tuple[str, list[str]]]
) -> None:
    _publish_readings(spark, toy, {"2013-01-02": 7.0, "2013-01-03": 8.0}, known="2013-01-05")
    follows = replace(TOTALS, follows_corrections=True)
    run = _run(toy, "2013-01-02", "2013-01-03")
    run = replace(run, pipeline=replace(SUMMED, derived=(follows,)))
    for second, third in ((110.0, 1110.0), (17.0, 25.0)):
        seen.clear()
        transform(run)
        tables.publish(run, "totals")
        assert _rows(toy, "totals") == {"2013-01-02": second, "2013-01-03": third}
        asked = [told for told, _ in seen if told.startswith("readings")]
        assert asked == ["readings for 2013-01-02..2013-01-03"]


def test_a_day_again_changes_no_row(toy: Environment) -> None:
    _transform(toy, "2013-01-02", "2013-01-06")
    run = _run(toy, "2013-01-03")
    versions = [version(run, table.name) for table in SUMMED.derived]
    _transform(toy, "2013-01-03")
    assert [version(run, table.name) for table in SUMMED.derived] == versions


def test_a_run_about_one_table_makes_that_one_from_what_is_published_of_the_others(
    spark: SparkSession, toy: Environment
) -> None:
    day = "2013-01-03"
    _transform(toy, day)
    _publish_readings(spark, toy, {day: 7.0})
    run = _run(toy, day)
    # Staged and never published, as where it was refused.
    transform(run)
    metrics = transform(replace(run, tables=("doubled",)))
    assert metrics == {"rows_staged": 1, "tables": {"doubled": 1}}
    assert not tables.is_staged(run, "totals")
    tables.publish(run, "doubled")
    assert _rows(toy, "doubled") == {day: 2 * _rows(toy, "totals")[day]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            replace(TOTALS, name="orphan"),
            (
                r"'toy.orphan' has no transform: "
                r"write `def orphan\(readings, sensors, days\)` in jobs/transforms/toy.py"
            ),
        ),
        (
            replace(TOTALS, reads=("readings",)),
            (
                r"'toy.totals' reads readings, but `totals` of jobs/transforms/toy.py takes "
                r"\(readings, sensors, days\): write `def totals\(readings, days\)`, "
                r"or change `reads`"
            ),
        ),
    ],
)
def test_a_table_without_a_function_that_fits_is_told_what_to_write(
    table: Table, message: str, environment: Environment, seen: list[Any]
) -> None:
    run = replace(_run(environment, "2013-01-01"), pipeline=replace(TOY, derived=(table,)))
    with pytest.raises(UsageError, match=message):
        transform(run)


def test_a_column_that_is_not_there_is_told_with_its_function_and_what_is_near(
    toy: Environment,
) -> None:
    def totals(readings: DataFrame, sensors: DataFrame, days: Days) -> DataFrame:
        return readings.select("landed_date", "amuont")

    sys.modules["jobs.transforms.toy"].totals = totals  # type: ignore[attr-defined]
    message = r"toy.totals .* `totals` of jobs/transforms/toy.py says: .*`amuont`.*`amount`.*\]\.$"
    with pytest.raises(UsageError, match=message):
        transform(_run(toy, "2013-01-04"))


def _gives_nothing(readings: DataFrame) -> None:
    readings.groupBy("landed_date").agg(F.sum("amount").alias("total"))


def _gives_no_day(readings: DataFrame) -> DataFrame:
    return readings.groupBy("id").agg(F.sum("amount").alias("total"))


def _gives_a_text_for_a_day(readings: DataFrame) -> DataFrame:
    return readings.selectExpr("CAST(landed_date AS STRING) AS landed_date", "amount AS total")


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (_gives_nothing, "gave None for 2013-01-04: it must return a DataFrame with the rows of"),
        (_gives_no_day, r"gave rows without landed_date: .* It gave id, total\.$"),
        (_gives_a_text_for_a_day, "gave landed_date as string, which must be a date: `CAST"),
    ],
)
def test_rows_that_no_table_can_take_are_told_with_their_function(
    gives: Callable[[DataFrame], DataFrame], message: str, toy: Environment
) -> None:
    def totals(readings: DataFrame, sensors: DataFrame, days: Days) -> DataFrame:
        return gives(readings)

    sys.modules["jobs.transforms.toy"].totals = totals  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=f"^`totals` of jobs/transforms/toy.py {message}"):
        transform(_run(toy, "2013-01-04"))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({}, r"gave rows without event_timestamp, reading_date: each row must tell its day"),
        (
            {"event_timestamp": TimestampType(), "reading_date": StringType()},
            "gave reading_date as string, which must be a date: `CAST",
        ),
    ],
    ids=["lacking", "text"],
)
def test_rows_that_cannot_be_scored_are_told_with_their_function(
    kinds: dict[str, DataType], message: str
) -> None:
    _expect_unscored(kinds, message)


def _expect_unscored(kinds: dict[str, DataType], message: str) -> None:
    schema = StructType()
    given = {"landed_date": DateType(), "id": IntegerType(), **kinds}
    for name, kind in given.items():
        schema.add(name, kind)
    table = Table(name="scored", made_by="transform", key=("id",))
    pipeline = replace(TOY, derived=(table,), entity_table="scored")
    rows: Any = SimpleNamespace(columns=schema.names, schema=schema)
    with pytest.raises(UsageError, match=f"^`scored` {message}"):
        _refuse_odd_rows(rows, pipeline, table, "`scored`")


@pytest.mark.parametrize(
    "kind",
    [DateType(), TimestampNTZType(), StringType()],
    ids=["date", "without-zone", "text"],
)
def test_moments_that_are_no_instants_are_told_with_their_function_and_the_way_out(
    kind: DataType,
) -> None:
    message = (
        f"gave event_timestamp as {kind.simpleString()}, which must be a timestamp: .* "
        r"`scoring_moment\(TIMEZONE\)`"
    )
    kinds = {"event_timestamp": kind, "seen_at": TimestampType(), "reading_date": DateType()}
    _expect_unscored(kinds, message)


@pytest.mark.parametrize(
    ("kind", "says", "way_out"),
    [
        (MapType(StringType(), IntegerType()), "map<string,int>, .* keeps map", "to_json"),
        (VariantType(), "variant, .* keeps variant", "to_json"),
        (CalendarIntervalType(), "interval, .* keeps interval", "CAST"),
        (DayTimeIntervalType(0), "interval day, .* keeps interval", "CAST"),
        (YearMonthIntervalType(), "interval year to month, .* keeps interval", "CAST"),
        (TimeType(), r"time\(6\), .* keeps time", "CAST"),
        (GeometryType(4326), r"geometry\(4326\), .* keeps geometry", "ST_AsBinary"),
        (
            StructType().add("tags", ArrayType(VariantType())),
            "struct<tags:array<variant>>, .* keeps variant",
            "to_json",
        ),
    ],
    ids=["map", "variant", "interval", "days", "months", "time", "geometry", "within"],
)
def test_a_column_that_no_table_keeps_is_told_with_its_function_its_type_and_the_way_out(
    kind: DataType, says: str, way_out: str
) -> None:
    schema = StructType().add("landed_date", DateType()).add("odd", kind)
    rows: Any = SimpleNamespace(columns=schema.names, schema=schema)
    message = rf"^`totals` gave odd of toy.totals as {says}: have it give `{way_out}\(odd.*\)`"
    with pytest.raises(UsageError, match=message):
        _refuse_odd_rows(rows, SUMMED, TOTALS, "`totals`")


def test_a_map_is_kept_where_nobody_sums_it_up() -> None:
    kind = MapType(StringType(), IntegerType())
    schema = StructType().add("landed_date", DateType()).add("odd", kind)
    rows: Any = SimpleNamespace(columns=schema.names, schema=schema)
    table = replace(TOTALS, volatile=("odd",))
    _refuse_odd_rows(rows, SUMMED, table, "`totals`")


def test_lists_and_parts_of_what_a_table_keeps_are_kept() -> None:
    days = ArrayType(DateType())
    parts = StructType().add("one", IntegerType()).add("days", days)
    schema = StructType().add("landed_date", DateType()).add("parts", ArrayType(parts))
    rows: Any = SimpleNamespace(columns=schema.names, schema=schema)
    _refuse_odd_rows(rows, SUMMED, TOTALS, "`totals`")


def test_a_value_that_no_sql_of_a_transform_can_take_is_told_with_its_function(
    toy: Environment,
) -> None:
    def totals(readings: DataFrame, sensors: DataFrame, days: Days) -> DataFrame:
        return readings.selectExpr("landed_date", "amount / (id - id) AS total")

    sys.modules["jobs.transforms.toy"].totals = totals  # type: ignore[attr-defined]
    message = r"`totals` of jobs/transforms/toy.py says: \[DIVIDE_BY_ZERO\] .*`try_divide`.*\.$"
    with pytest.raises(UsageError, match=message):
        transform(_run(toy, "2013-01-04"))


def test_a_pipeline_without_its_module_is_told_which_file_is_missing(
    environment: Environment,
) -> None:
    with pytest.raises(
        UsageError, match=r"jobs/transforms/toy.py does not exist.*for its transforms"
    ):
        transform(_run(environment, "2013-01-01"))


def test_flights_in_one_pass_are_flights_night_by_night(
    environment: Environment, make_run: MakeRun
) -> None:
    days = Days(date(2012, 12, 31), date(2013, 1, 2))
    bulk = replace(environment, lake=f"{environment.lake}_bulk")
    land(FLIGHTS, environment, days)
    for day in days:
        _flights_night(make_run, str(day))
    _flights_night(make_run, str(days.first), str(days.last), environment=bulk)
    nightly = make_run("ingest", str(days.first))
    whole = replace(nightly, environment=bulk)
    for table in FLIGHTS.tables:
        if table.made_by in ("ingest", "transform"):
            assert _sorted_rows(nightly, table).equals(_sorted_rows(whole, table)), table.name


def _sorted_rows(run: Run, table: Table) -> pa.Table:
    """Without Spark, which would plan and shuffle for seconds."""
    rows = DeltaTable(path(run, table.name)).to_pyarrow_table()
    said = rows.drop_columns(list(table.volatile))
    return said.sort_by([(name, "ascending") for name in sorted(said.column_names)])


def _flights_night(
    make_run: MakeRun,
    first: str,
    last: str | None = None,
    **changed: Environment,
) -> None:
    """Ingest and transform, published without a gate."""
    for name, function in (("ingest", ingest), ("transform", transform)):
        run = replace(make_run(name, first, last), **changed)
        function(run)
        for table in FLIGHTS.tables:
            if table.made_by == name and tables.is_staged(run, table.name):
                tables.publish(run, table.name)
