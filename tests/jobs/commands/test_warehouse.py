"""The command that has PostgreSQL catch up by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.__main__ import main
from jobs.commands.warehouse import warehouse
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.errors import UsageError
from tests.jobs.warehouse.lake import FEW_DAYS, PIPELINE, Lake
from tests.postgres import Postgres

LATER = date(2013, 1, 20)


@pytest.fixture
def lake(tmp_path: Path, postgres: Postgres) -> Lake:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    return Lake(replace(environment, warehouse_url=postgres.database("warehouse")))


def test_it_tells_what_is_behind_and_what_it_did(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.publish_predictions(LATER)
    few = f"{FEW_DAYS[0]}..{FEW_DAYS[-1]}"
    both = [(3, few), (1, str(LATER))]
    code, rows = warehouse(lake.environment, [PIPELINE], is_dry=True)
    assert (code, rows) == (0, [("toy.predictions", "behind", *one) for one in both])
    code, rows = warehouse(lake.environment, [PIPELINE], is_dry=False)
    assert (code, rows) == (0, [("toy.predictions", "published", *one) for one in both])
    code, rows = warehouse(lake.environment, [PIPELINE], is_dry=False)
    assert (code, rows) == (0, [("toy.predictions", "current", *one) for one in both])
    lake.require_same(dict.fromkeys([*FEW_DAYS, LATER], ""))


def test_what_could_not_be_published_is_a_fault(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.publish_predictions(*FEW_DAYS)
    warehouse(lake.environment, [PIPELINE], is_dry=False)
    lake.do("UPDATE nightshift.publications SET lake = 'elsewhere'")
    assert warehouse(lake.environment, [PIPELINE], is_dry=False) == (3, [])
    assert "Fault: toy.predictions: PostgreSQL holds 2013-01-05" in capsys.readouterr().err


def test_days_of_a_table_that_was_altered_are_not_current(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.publish_predictions(*FEW_DAYS)
    warehouse(lake.environment, [PIPELINE], is_dry=False)
    lake.do("DROP VIEW toy.predictions")
    lake.do("ALTER TABLE toy._predictions ALTER note TYPE varchar(99)")
    few = (3, f"{FEW_DAYS[0]}..{FEW_DAYS[-1]}")
    refused = (3, [("toy.predictions", "refused", *few)])
    assert warehouse(lake.environment, [PIPELINE], is_dry=True) == refused
    assert warehouse(lake.environment, [PIPELINE], is_dry=False) == refused
    told = capsys.readouterr().err
    said = "somebody has altered column 'note' in PostgreSQL from text to character vary"
    assert said in told
    _, _, way_out = told.strip().rpartition("publish: ")
    lake.do(way_out)
    code, rows = warehouse(lake.environment, [PIPELINE], is_dry=False)
    assert (code, rows) == (0, [("toy.predictions", "current", *few)])
    lake.require_same(dict.fromkeys(FEW_DAYS, ""))


def test_a_pipeline_that_somebody_is_writing_keeps_no_other_from_being_published(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.publish_predictions(*FEW_DAYS)
    few = (3, f"{FEW_DAYS[0]}..{FEW_DAYS[-1]}")
    monkeypatch.setattr(catalog, "names", lambda: ["flights", "toy"])

    def declaration(name: str) -> SimpleNamespace:
        if name == "flights":
            raise UsageError("pipelines/flights.py, line 7: NameError: name 'Fed' is not defined")
        return SimpleNamespace(PIPELINE=PIPELINE)

    monkeypatch.setattr(catalog, "_declaration", declaration)
    for name, value in lake.environment.variables().items():
        monkeypatch.setenv(name, value)
    assert main(["warehouse", "--format", "json"]) == 3
    printed = capsys.readouterr()
    (told,) = json.loads(printed.out)
    assert tuple(told.values()) == ("toy.predictions", "published", *few)
    assert "Fault: flights: pipelines/flights.py, line 7" in printed.err
    # By name it is refused.
    assert main(["warehouse", "flights"]) == 2


def test_without_an_address_it_says_which_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    monkeypatch.delenv("NIGHTSHIFT_WAREHOUSE_URL", raising=False)
    assert main(["warehouse"]) == 2
    assert "NIGHTSHIFT_WAREHOUSE_URL is not set" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_a_fault_without_the_password(
    lake: Lake,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in lake.environment.variables().items():
        monkeypatch.setenv(name, value)
    postgres.stop()
    assert main(["warehouse", "weather", "--dry-run"]) == 3
    said = capsys.readouterr().err
    assert "Fault: PostgreSQL: " in said and "Connection refused" in said
    assert postgres.url().split(":")[2].split("@")[0] not in said
