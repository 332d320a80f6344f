"""What stages cost is on record with what they read and wrote, and is told in total."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs import night
from jobs.lake import amounts, costs, ops, snapshots
from jobs.lake.amounts import Amounts
from jobs.lake.data_files import day_files
from jobs.lake.sql import query
from jobs.services.usage import Usage
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import Refused, UsageError
from pipelines.prices import Prices
from pipelines.run import Run
from pipelines.stages import STAGES, stage
from tests.jobs.training.small import FIRST, environment_at, publish, rows_of, run_of

_AT = datetime(2013, 1, 6, 9, tzinfo=UTC)
_PRICES = Prices(currency="EUR", cpu_hour=1.0, memory_gb_hour=0.1, storage_gb=2.0)
_HOUR = 3600.0
_TAKEN = Usage(
    seconds=2 * _HOUR, cpu_seconds=_HOUR, spark_cpu_seconds=_HOUR / 2, peak_bytes=5 * 10**9
)


def test_processor_memory_and_storage_are_priced() -> None:
    # 1.5 core hours, 5 GB for two hours, and half a GB kept.
    assert costs.price(_TAKEN, 500_000_000, _PRICES) == pytest.approx(1.5 + 1.0 + 1.0)
    of_a_cluster = replace(_TAKEN, spark_cpu_seconds=None)
    assert costs.price(of_a_cluster, 0, _PRICES) == pytest.approx(1.0 + 1.0)


def test_odd_prices_are_refused() -> None:
    with pytest.raises(UsageError, match="cpu_hour must not be negative"):
        replace(_PRICES, cpu_hour=-1.0)
    with pytest.raises(UsageError, match="need a currency"):
        replace(_PRICES, currency="")


def test_days_of_a_table_are_counted_by_its_log_alone(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    days = Days(FIRST, FIRST + timedelta(days=2))
    rows = rows_of(days)
    publish(environment, rows)
    run = run_of(environment, "train")
    files = list(Path(environment.table_path("small.training")).glob("*/*.parquet"))
    amounts.start()
    read = snapshots.read(run, snapshots.newest(run, "training"), days)
    assert amounts.counted() == Amounts(
        rows_read=len(read), bytes_read=sum(file.stat().st_size for file in files)
    )
    amounts.start()
    first = snapshots.read(run, snapshots.newest(run, "training"), Days.of(FIRST))
    assert amounts.counted().rows_read == len(first) < len(rows)


def test_an_empty_table_counts_nothing(tmp_path: Path) -> None:
    from deltalake import DeltaTable

    empty = pa.schema({"day": pa.date32()}).empty_table()
    write_deltalake(str(tmp_path), empty, partition_by=["day"])
    amounts.start()
    amounts.add_files_read(day_files(DeltaTable(str(tmp_path)), lambda _: True))
    assert amounts.counted() == Amounts()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = environment_at(tmp_path)
    days = Days.of(date(2013, 1, 5))
    of_flights = Run(pipeline=pipeline("flights"), days=days, environment=environment, run_id="r1")
    return of_flights.at(stage("predict"))


def _rows(run: Run) -> list[dict[str, Any]]:
    found = ops.read(run.environment, "costs").sort_by([("started_at", "ascending")])
    return found.to_pylist()  # type: ignore[no-any-return]


def test_each_stage_that_is_performed_is_on_record_with_what_it_took(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(doing: Run) -> dict[str, object]:
        amounts.add_read(1000, 10_000)
        amounts.add_written(500, 4_000)
        return {"predictions": 500}

    monkeypatch.setattr(night, "_function", lambda _: work)
    for _ in range(2):
        assert night.perform(run.to_json()) == 0
    first, second = _rows(run)
    told = {name: first[name] for name in ("run_id", "pipeline", "stage", "status")}
    assert told == {"run_id": "r1", "pipeline": "flights", "stage": "predict", "status": "done"}
    # The second one by itself.
    for row in (first, second):
        assert (row["rows_read"], row["bytes_read"]) == (1000, 10_000)
        assert (row["rows_written"], row["bytes_written"]) == (500, 4_000)
    assert first["peak_bytes"] > 10_000_000
    assert first["cpu_seconds"] > 0
    assert first["cost"] > 0
    recorded = ops.read(run.environment, "stage_runs").to_pylist()
    took = {(row["started_at"], row["seconds"]) for row in recorded}
    assert took == {(row["started_at"], row["seconds"]) for row in (first, second)}


def test_a_stage_that_is_refused_has_its_cost_too(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(doing: Run) -> dict[str, object]:
        raise Refused("no model")

    monkeypatch.setattr(night, "_function", lambda _: refuse)
    assert night.perform(run.to_json()) == 1
    (row,) = _rows(run)
    assert (row["status"], row["rows_read"], row["model_version"]) == ("refused", 0, None)


def test_a_cost_that_cannot_be_kept_fails_no_stage(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(night, "_function", lambda _: lambda _: {})
    monkeypatch.setattr(costs, "record", full)
    assert night.perform(run.to_json()) == 0
    assert "the stage's cost is not recorded: OSError: no space left" in capsys.readouterr().err
    assert len(ops.read(run.environment, "stage_runs")) == 1


def test_training_and_judging_are_those_of_a_model(run: Run) -> None:
    counted = {"model_version": "7"}
    for name in ("train", "evaluate", "monitor"):
        costs.record(run.at(stage(name)), _AT, "done", _TAKEN, counted)
    costs.record(run.at(stage("predict")), _AT, "failed", _TAKEN, None)
    models = {row["stage"]: row["model_version"] for row in _rows(run)}
    assert models == {"train": "7", "evaluate": "7", "monitor": None, "predict": None}


def _cost(
    stage: str,
    run_id: str,
    cost: float,
    **more: object,
) -> dict[str, object]:
    """A row of `ops.costs`."""
    row = {
        "run_id": run_id,
        "pipeline": "small",
        "stage": stage,
        "first_day": date(2013, 1, 5),
        "last_day": date(2013, 1, 5),
        "status": "done",
        "started_at": _AT,
        "seconds": 10.0,
        "cpu_seconds": 20.0,
        "peak_bytes": 10**9,
        "rows_read": 100,
        "bytes_read": 1000,
        "rows_written": 50,
        "bytes_written": 500_000,
        "cost": cost,
        "currency": "EUR",
    }
    return {**row, **more}


@pytest.fixture
def priced(tmp_path: Path) -> Environment:
    """Two runs; the first has scored 2,000 rows, the second was not to score."""
    environment = environment_at(tmp_path)
    rows = [
        _cost("ingest", "one", 1.0, rows_written=9_999, spark_cpu_seconds=5.0),
        _cost("predict", "one", 2.0, rows_written=2_000),
        # Those of an attempt that failed are nobody's predictions.
        _cost("predict", "one", 1.0, rows_written=700, status="failed"),
        _cost("ingest", "two", 4.0, peak_bytes=3 * 10**9),
    ]
    ops.append(environment, "costs", rows)
    return environment


def test_the_cost_of_1000_predictions_is_that_of_the_run(priced: Environment) -> None:
    asked = "SELECT run_id, cost, predictions, cost_per_1000 FROM ops.cost_per_1000_predictions"
    _, rows = query(priced, f"{asked} ORDER BY run_id")
    assert rows == [("one", 4.0, 2000, 2.0), ("two", 4.0, 0, None)]


def test_the_cost_of_a_stage_is_that_of_all_its_runs(priced: Environment) -> None:
    asked = "SELECT stage, runs, cost, cost_per_run, share, cpu_seconds, peak_bytes"
    _, rows = query(priced, f"{asked} FROM ops.cost_per_stage ORDER BY stage")
    assert rows == [
        ("ingest", 2, 5.0, 2.5, 0.625, 45.0, 3 * 10**9),
        ("predict", 2, 3.0, 1.5, 0.375, 40.0, 10**9),
    ]


def test_where_everything_is_free_there_is_no_share(tmp_path: Path) -> None:
    environment = environment_at(tmp_path)
    ops.append(environment, "costs", [_cost("ingest", "one", 0.0)])
    assert query(environment, "SELECT cost, share FROM ops.cost_per_stage")[1] == [(0.0, None)]


def test_the_cost_of_a_model_has_the_trainings_that_led_to_it(priced: Environment) -> None:
    trained = []
    events = []
    for number, what in enumerate(("promoted", "kept", "kept", "approved"), start=1):
        at = _AT + timedelta(days=number)
        version = str(number)
        trained += [
            _cost("train", version, 2.0, started_at=at, model_version=version),
            _cost("evaluate", version, 0.5, started_at=at, model_version=version),
        ]
        event = {"pipeline": "small", "event": what, "model_version": version, "as_of": at.date()}
        events.append({**event, "created_at": at + timedelta(hours=1)})
    # Two that made no model, on the way to the one that was approved.
    for hours, status in ((0, "failed"), (1, "refused")):
        at = _AT + timedelta(days=2, hours=hours)
        trained.append(_cost("train", f"none {hours}", 0.25, started_at=at, status=status))
    ops.append(priced, "costs", trained)
    assert "ops.cost_per_model" not in query(priced, "SHOW TABLES")[1]
    ops.append(priced, "model_events", events)
    asked = "SELECT model_version, cost, trainings, cost_with_others FROM ops.cost_per_model"
    assert query(priced, f"{asked} ORDER BY model_version")[1] == [
        ("1", 2.5, 1, 2.5),
        # Those of 2 and 3 led to no model that serves.
        ("4", 2.5, 3, 8.0),
    ]


def test_a_view_is_listed_and_described_and_has_no_versions(priced: Environment) -> None:
    names = [row[0] for row in query(priced, "SHOW TABLES")[1]]
    assert names == ["ops.cost_per_1000_predictions", "ops.cost_per_stage", "ops.costs"]
    described = query(priced, "DESCRIBE ops.cost_per_stage")[1]
    assert ("cost", "DOUBLE") in [row[:2] for row in described]
    assert query(priced, "USE ops; SELECT count(*) FROM cost_per_stage")[1] == [(2,)]
    for moment in ("VERSION AS OF 0", "TIMESTAMP AS OF '2100-01-01'", "KNOWN AS OF '2013-01-05'"):
        with pytest.raises(UsageError, match="is a view, which has no versions"):
            query(priced, f"FROM ops.cost_per_stage {moment}")


def test_a_night_tells_in_the_end_what_it_cost(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def perform(doing: Run) -> int:
        of_run = {"pipeline": "flights", "started_at": ops.now()}
        row = _cost(doing.doing.name, doing.run_id, 0.5, **of_run)
        ops.append(doing.environment, "costs", [row])
        return 0

    earlier = _cost("predict", run.run_id, 99.0, pipeline="flights")
    ops.append(run.environment, "costs", [earlier])
    of_now = {"pipeline": "flights", "started_at": ops.now() + timedelta(minutes=1)}
    failed = _cost("predict", run.run_id, 0.0, status="failed", **of_now)
    free = {"cpu_seconds": 0.0, "bytes_written": 0, "rows_written": 9_999}
    ops.append(run.environment, "costs", [{**failed, **free}])
    monkeypatch.setattr(night, "_perform_in_server_or_here", perform)
    monkeypatch.setattr("jobs.services.stage_client.available", lambda _: True)
    # Nothing is published here.
    monkeypatch.setattr("jobs.planning.required.require_made", lambda run, stage, found: None)
    assert night.run_night(run, STAGES, notify=False) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    count = len(STAGES)
    cost, cpu, megabytes = 0.5 * count, 20 * count, 0.5 * count
    assert (
        told.split()
        == (
            f"cost {cost:.4g} EUR: {cpu} CPU seconds, at most 1.0 GB of memory, {megabytes} MB "
            f"written, {1000 * cost / 50:.3g} EUR per 1,000 predictions"
        ).split()
    )
    assert night.run_night(run, (stage("predict"),), notify=False) == 0
    # Of single stages, as in Airflow, their lines tell enough.
    assert "cost" not in capsys.readouterr().out


def test_nothing_is_told_where_nothing_was_measured(run: Run) -> None:
    assert costs.of_run(run.environment, "flights", "r1", _AT) is None
