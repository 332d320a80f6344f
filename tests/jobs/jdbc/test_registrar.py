"""Which tables of the lake the JDBC server knows, without a Spark."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.errors import PySparkException

from jobs.jdbc import server
from jobs.jdbc.registrar import Registrar
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from tests.jobs.warehouse.lake import FIRST, PIPELINE, SUMS, Lake


@dataclass
class Statements:
    """A Spark that only remembers what it was told."""

    told: list[str] = field(default_factory=list)
    refused: str = ""
    """A statement that it cannot do."""

    def sql(self, statement: str) -> None:
        if statement == self.refused:
            raise PySparkException("it was cancelled")
        self.told.append(statement)

    def registered(self) -> list[str]:
        """The toy's tables that were registered since this was asked last."""
        made = [one.split()[2] for one in self.told if one.startswith("CREATE TABLE")]
        self.told.clear()
        names = [name.replace("`", "") for name in made]
        return sorted(name for name in names if name.startswith("toy."))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Two tables."""
    pipeline = replace(PIPELINE, derived=(SUMS,))
    made = Lake(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}), pipeline)
    made.publish_predictions(FIRST)
    rows = pa.table({"landed_date": [FIRST], "n": [1]})
    made.publish({FIRST: rows}, SUMS.name)
    return made


def registrar(lake: Lake, spark: Statements) -> Registrar:
    return Registrar(lake.environment, spark)  # type: ignore[arg-type]


def test_a_table_is_registered_once_until_its_columns_are_others(lake: Lake) -> None:
    spark = Statements()
    one = registrar(lake, spark)
    one.follow()
    assert spark.registered() == ["toy.predictions", "toy.sums"]
    lake.publish_predictions(FIRST, salt="corrected")
    one.follow()
    assert spark.registered() == []


def test_a_table_with_a_broken_log_keeps_no_other_one_out(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Path(lake.environment.table_path("toy.predictions")) / "_delta_log"
    (commit,) = log.glob("*.json")
    whole = commit.read_bytes()
    commit.write_text("{")
    spark = Statements()
    one = registrar(lake, spark)
    one.follow()
    assert spark.registered() == ["toy.sums"]
    assert "toy.predictions cannot be read, and will be tried again" in capsys.readouterr().out
    commit.write_bytes(whole)
    one.follow()
    assert spark.registered() == ["toy.predictions"]


def test_a_table_that_cannot_be_forgotten_keeps_no_other_one_out(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    spark = Statements()
    one = registrar(lake, spark)
    one.follow()
    shutil.rmtree(lake.environment.table_path("toy.predictions"))
    columns = {"landed_date": [FIRST], "n": [1], "m": [2]}
    lake.publish({FIRST: pa.table(columns)}, SUMS.name)
    spark.registered()
    spark.refused = "DROP TABLE IF EXISTS `toy`.`predictions`"
    one.follow()
    assert spark.registered() == ["toy.sums"]
    assert "toy.predictions cannot be read, and will be tried again" in capsys.readouterr().out
    spark.refused = ""
    one.follow()
    assert spark.told == ["DROP TABLE IF EXISTS `toy`.`predictions`"]


def test_a_table_with_other_capitals_stays_registered_though_the_old_name_was_kept_once(
    lake: Lake,
) -> None:
    spark = Statements()
    one = registrar(lake, spark)
    one.follow()
    spark.told.clear()
    place = Path(lake.environment.table_path("toy.sums"))
    place.rename(place.with_name("SUMS"))
    spark.refused = "DROP TABLE IF EXISTS `toy`.`sums`"
    one.follow()
    spark.refused = ""
    one.follow()
    about = [one for one in spark.told if "sums" in one.lower()]
    assert about[-1].startswith("CREATE TABLE `toy`.`SUMS` USING delta")
    spark.told.clear()
    one.follow()
    assert spark.told == []


def test_a_bucket_that_is_gone_does_not_end_the_server(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Environment) -> list[str]:
        raise NightshiftError("The object store has no bucket 'lake'.")

    monkeypatch.setattr("jobs.jdbc.registrar.stored_tables", gone)
    server._follow(registrar(lake, Statements()))
    told = capsys.readouterr().out
    assert "The tables could not be looked up, and will be again: The object store has no" in told
