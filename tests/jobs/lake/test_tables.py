"""Write, audit, publish.

What is published is exactly the days of the run, once, and a late twin changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs.lake import amounts, staging, tables
from jobs.lake.commits import Fenced, Published
from jobs.lake.locations import exists, path
from jobs.spark.session import settings_of_many_rows
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.run import Run

MakeRun = Callable[..., Run]
_Weather = tuple[str, str, float | None, float | None]
"""Origin, day, inches of rain, least visibility."""
_SCHEMA = "origin string, landed_date date, wd_precip double, wd_visib_min double"


def _weather(spark: SparkSession, *rows: _Weather) -> DataFrame:
    dated = []
    for origin, day, *values in rows:
        dated.append((origin, date.fromisoformat(day), *values))
    return spark.createDataFrame(dated, _SCHEMA)


def _published(run: Run) -> list[_Weather]:
    rows = tables.read(run, "weather_daily").orderBy("landed_date", "origin")
    found = []
    for row in rows.collect():
        day = str(row["landed_date"])
        found.append((row["origin"], day, row["wd_precip"], row["wd_visib_min"]))
    return found


def test_a_run_replaces_exactly_its_days(spark: SparkSession, make_run: MakeRun) -> None:
    both, second = (
        make_run("transform", "2013-01-01", "2013-01-02"),
        make_run("transform", "2013-01-02"),
    )
    tables.stage_rows(
        both,
        "weather_daily",
        _weather(
            spark,
            ("EWR", "2013-01-01", 0.0, 1.0),
            ("EWR", "2013-01-02", 0.1, 2.0),
            ("JFK", "2013-01-02", 0.2, 3.0),
        ),
    )
    assert tables.publish(both, "weather_daily").rows == 3
    tables.stage_rows(second, "weather_daily", _weather(spark, ("LGA", "2013-01-02", 0.3, 4.0)))
    assert tables.publish(second, "weather_daily").rows == 1
    assert _published(both) == [
        ("EWR", "2013-01-01", 0.0, 1.0),
        ("LGA", "2013-01-02", 0.3, 4.0),
    ]


def test_what_is_written_and_read_is_counted(spark: SparkSession, make_run: MakeRun) -> None:
    both = make_run("transform", "2013-01-01", "2013-01-02")
    first = make_run("transform", "2013-01-01")
    rows = _weather(
        spark,
        ("EWR", "2013-01-01", 0.0, 1.0),
        ("EWR", "2013-01-02", 0.1, 2.0),
        ("JFK", "2013-01-02", 0.2, 3.0),
    )
    amounts.start()
    tables.stage_rows(both, "weather_daily", rows)
    written = amounts.counted()
    assert (written.rows_written, written.rows_read) == (3, 0)
    folder = Path(path(both, "weather_daily"))
    assert written.bytes_written == sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    amounts.start()
    assert tables.staged(both, "weather_daily").count() == 3
    assert (amounts.counted().rows_read, amounts.counted().rows_written) == (3, 0)
    tables.publish(both, "weather_daily")
    amounts.start()
    assert tables.read(first, "weather_daily", first.days).count() == 1
    assert amounts.counted().rows_read == 1
    assert tables.read(first, "weather_daily").count() == 3
    assert amounts.counted().rows_read == 4
    assert amounts.counted().bytes_read > written.bytes_written


@pytest.fixture
def adapting(spark: SparkSession, shared_environment: Environment) -> Iterator[SparkSession]:
    """Spark plans for many rows, of which 100 kB are much."""
    settings = {
        **settings_of_many_rows(shared_environment),
        "spark.sql.adaptive.advisoryPartitionSizeInBytes": "100k",
    }
    before = {name: spark.conf.get(name) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    yield spark
    for name, value in before.items():
        assert value is not None
        spark.conf.set(name, value)


def test_a_large_day_is_as_many_files_as_its_size_asks_for_and_says_the_same(
    adapting: SparkSession, make_run: MakeRun
) -> None:
    run = make_run("transform", "2013-01-01", "2013-01-02")
    rows = adapting.range(0, 40_000, 1, 8).selectExpr(
        "'EWR' AS origin",
        "IF(id % 1000 = 0, DATE '2013-01-02', DATE '2013-01-01') AS landed_date",
        "rand(1) AS wd_precip",
        "rand(2) AS wd_visib_min",
    )
    written = {}
    for adapts in ("true", "false"):
        adapting.conf.set("spark.sql.adaptive.enabled", adapts)
        tables.stage_rows(run, "weather_daily", rows)
        written[adapts] = staging.require(run, "weather_daily")
    files = {
        adapts: Counter(file.day for file in staged.files) for adapts, staged in written.items()
    }
    assert files["false"] == {"2013-01-01": 1, "2013-01-02": 1}
    assert files["true"]["2013-01-01"] > 1
    assert files["true"]["2013-01-02"] == 1
    assert written["true"].checksums == written["false"].checksums
    tables.publish(run, "weather_daily")
    assert tables.read(run, "weather_daily").count() == 40_000


def test_nothing_is_visible_before_it_is_published(spark: SparkSession, make_run: MakeRun) -> None:
    run = make_run("transform", "2013-01-01")
    tables.stage_rows(run, "weather_daily", _weather(spark, ("EWR", "2013-01-01", 0.0, 1.0)))
    assert not exists(run, "weather_daily")
    with pytest.raises(NightshiftError, match="does not exist yet"):
        tables.read(run, "weather_daily")


def test_the_same_rows_again_make_no_commit(spark: SparkSession, make_run: MakeRun) -> None:
    rows = [("EWR", "2013-01-01", None, 1.0), ("JFK", "2013-01-01", 0.5, None)]
    first = make_run("transform", "2013-01-01")
    tables.stage_rows(first, "weather_daily", _weather(spark, *rows))
    published = tables.publish(first, "weather_daily")
    again = make_run("transform", "2013-01-01")
    tables.stage_rows(again, "weather_daily", _weather(spark, *reversed(rows)))
    assert tables.publish(again, "weather_daily") == Published(
        rows=2, version=published.version, changed=False
    )


def test_a_null_that_moves_to_the_neighbouring_column_is_a_change(
    spark: SparkSession, make_run: MakeRun
) -> None:
    run = make_run("transform", "2013-01-01")
    tables.stage_rows(run, "weather_daily", _weather(spark, ("EWR", "2013-01-01", None, 1.0)))
    tables.publish(run, "weather_daily")
    moved = make_run("transform", "2013-01-01")
    tables.stage_rows(moved, "weather_daily", _weather(spark, ("EWR", "2013-01-01", 1.0, None)))
    assert tables.publish(moved, "weather_daily").changed
    assert _published(run) == [("EWR", "2013-01-01", 1.0, None)]


def test_an_empty_day_leaves_no_stale_row(spark: SparkSession, make_run: MakeRun) -> None:
    run = make_run("transform", "2013-01-01")
    tables.stage_rows(run, "weather_daily", _weather(spark, ("EWR", "2013-01-01", 0.0, 1.0)))
    tables.publish(run, "weather_daily")
    empty = make_run("transform", "2013-01-01")
    assert tables.stage_rows(empty, "weather_daily", _weather(spark)) == 0
    assert tables.publish(empty, "weather_daily").rows == 0
    assert _published(run) == []


def test_a_late_twin_is_fenced_and_changes_nothing(spark: SparkSession, make_run: MakeRun) -> None:
    late = replace(make_run("transform", "2013-01-01"), attempt=1)
    successor = replace(make_run("transform", "2013-01-01"), attempt=2)
    tables.stage_rows(successor, "weather_daily", _weather(spark, ("EWR", "2013-01-01", 0.0, 1.0)))
    tables.publish(successor, "weather_daily")
    tables.stage_rows(late, "weather_daily", _weather(spark, ("EWR", "2013-01-01", 9.0, 9.0)))
    with pytest.raises(Fenced, match="published by a later run"):
        tables.publish(late, "weather_daily")
    assert _published(late) == [("EWR", "2013-01-01", 0.0, 1.0)]


def test_rows_outside_the_days_of_the_run_are_refused(
    spark: SparkSession, make_run: MakeRun
) -> None:
    seed, run = make_run("transform", "2013-01-01"), make_run("transform", "2013-01-02")
    tables.stage_rows(seed, "weather_daily", _weather(spark, ("EWR", "2013-01-01", 0.0, 1.0)))
    tables.publish(seed, "weather_daily")
    strange = _weather(spark, ("EWR", "2013-01-05", 0.0, 1.0))
    with pytest.raises(NightshiftError, match="rows for 2013-01-05 .* may only replace 2013-01-02"):
        tables.stage_rows(run, "weather_daily", strange)
    assert not tables.is_staged(run, "weather_daily")
    assert _published(seed) == [("EWR", "2013-01-01", 0.0, 1.0)]


def test_the_current_rows_are_the_staged_days_over_the_published_ones(
    spark: SparkSession, make_run: MakeRun
) -> None:
    before, run = (
        make_run("transform", "2013-01-01", "2013-01-02"),
        make_run("transform", "2013-01-02"),
    )
    tables.stage_rows(
        before,
        "weather_daily",
        _weather(spark, ("EWR", "2013-01-01", 0.0, 1.0), ("EWR", "2013-01-02", 0.0, 2.0)),
    )
    tables.publish(before, "weather_daily")
    tables.stage_rows(run, "weather_daily", _weather(spark, ("EWR", "2013-01-02", 7.0, 7.0)))
    both = Days(date(2013, 1, 1), date(2013, 1, 2))
    seen = tables.current(run, "weather_daily", both).collect()
    assert sorted((str(row["landed_date"]), row["wd_precip"]) for row in seen) == [
        ("2013-01-01", 0.0),
        ("2013-01-02", 7.0),
    ]


def test_staged_rows_may_replace_later_days_too(spark: SparkSession, make_run: MakeRun) -> None:
    before, run = (
        make_run("transform", "2013-01-01", "2013-01-03"),
        make_run("transform", "2013-01-02"),
    )
    tables.stage_rows(
        before,
        "weather_daily",
        _weather(
            spark,
            *(("EWR", f"2013-01-0{d}", 0.0, 1.0) for d in (1, 2, 3)),
        ),
    )
    tables.publish(before, "weather_daily")
    extended = Days(date(2013, 1, 2), date(2013, 1, 3))
    tables.stage_rows(
        run,
        "weather_daily",
        _weather(
            spark,
            *(("EWR", f"2013-01-0{d}", 5.0, 1.0) for d in (2, 3)),
        ),
        extended,
    )
    assert staging.require(run, "weather_daily").span == extended
    tables.publish(run, "weather_daily")
    assert [row[2] for row in _published(run)] == [0.0, 5.0, 5.0]


def test_published_tables_use_no_feature_that_a_reader_may_lack(
    spark: SparkSession, make_run: MakeRun
) -> None:
    from deltalake import DeltaTable

    run = make_run("transform", "2013-01-01")
    tables.stage_rows(run, "weather_daily", _weather(spark, ("EWR", "2013-01-01", 0.0, 1.0)))
    tables.publish(run, "weather_daily")
    delta = DeltaTable(path(run, "weather_daily"))
    assert delta.protocol().min_reader_version == 1
    assert delta.metadata().partition_columns == ["landed_date"]
    assert delta.history(1)[0]["userMetadata"].count(run.run_id) == 1


def test_rows_taken_back_are_no_longer_staged(spark: SparkSession, make_run: MakeRun) -> None:
    run = make_run("transform", "2013-01-01")
    tables.stage_rows(run, "weather_daily", _weather(spark, ("EWR", "2013-01-01", 0.0, 1.0)))
    tables.unstage(run, "weather_daily")
    assert not tables.is_staged(run, "weather_daily")
    tables.unstage(run, "weather_daily")


def test_old_stagings_are_forgotten_and_new_ones_kept(
    spark: SparkSession, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "STAGINGS_KEPT", 2)
    runs = [make_run("transform", f"2013-01-0{day}") for day in (3, 1, 2)]
    for run in runs:
        tables.stage_rows(run, "weather_daily", _weather(spark))
    staging.prune(runs[-1])
    assert [tables.is_staged(run, "weather_daily") for run in runs] == [False, True, True]
