"""Airflow's own database, made and cleaned by its own commands."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.services import airflow
from jobs.services.leftovers import Rule
from jobs.services.secrets import make_all
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError
from tests.airflow_home import database, migrate, prepare_by_copy
from tests.jobs.services.conftest import BY_FAB
from tests.postgres import Postgres

NOW = datetime.now(UTC)
_REGISTRY = """
from jobs.training import registry
from pipelines.environment import Environment
registry.create(Environment.read(), "flights")
"""


def rule(*, is_dry: bool = False) -> Rule:
    return Rule(before=NOW - timedelta(days=30), is_dry=is_dry)


def copied(made: Environment, folder: Path, **given: str) -> Environment:
    """A home of the test's own with the same database, and with the settings that are given."""
    environment = Environment.read({"NIGHTSHIFT_HOME": str(folder), **given})
    prepare_by_copy(environment, made)
    return environment


@pytest.fixture
def migrated(made: Environment, tmp_path: Path) -> Environment:
    """A home whose Airflow has a database, with a line of its log of long ago and one of now."""
    environment = copied(made, tmp_path)
    days = [NOW - timedelta(days=60), NOW - timedelta(days=1)]
    moments = [(str(day), "trigger") for day in days]
    with closing(sqlite3.connect(database(environment))) as opened, opened:
        opened.executemany("INSERT INTO log (dttm, event) VALUES (?, ?)", moments)
    return environment


def events(environment: Environment) -> int:
    with closing(sqlite3.connect(database(environment))) as opened:
        rows = opened.execute("SELECT count(*) FROM log WHERE event = 'trigger'").fetchone()
    return int(rows[0])


def test_old_rows_go_a_dry_run_only_tells_and_a_fault_is_no_success(migrated: Environment) -> None:
    told = airflow.clean_database(migrated, rule(is_dry=True))
    assert told is not None
    assert told.deleted == 1
    assert events(migrated) == 2
    assert airflow.clean_database(migrated, rule()) == told
    assert events(migrated) == 1
    with closing(sqlite3.connect(database(migrated))) as opened:
        opened.execute("ALTER TABLE log RENAME COLUMN dttm TO at")
    message = r"could not be cleaned \(exit code 1\):(.|\n)*did not clean them: \['log'\]"
    with pytest.raises(NightshiftError, match=message):
        airflow.clean_database(migrated, rule())


def test_old_results_of_celery_and_old_sign_ins_of_fab_go_too(
    made_by_fab: Environment, tmp_path: Path
) -> None:
    environment = copied(made_by_fab, tmp_path, **BY_FAB)
    days = [NOW - timedelta(days=60), NOW - timedelta(days=1)]
    moments = [(str(day),) for day in days]
    with closing(sqlite3.connect(database(environment))) as opened, opened:
        # As a worker of Celery's makes them.
        for table in ("celery_taskmeta", "celery_tasksetmeta"):
            opened.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, date_done DATETIME)")
            opened.executemany(f"INSERT INTO {table} (date_done) VALUES (?)", moments)
        opened.executemany("INSERT INTO session (expiry) VALUES (?)", moments)
    cleaned = airflow.clean_database(environment, rule())
    assert cleaned is not None
    assert cleaned.deleted == 3


def test_it_is_cleaned_in_a_shell_that_names_other_users_too(
    migrated: Environment, tmp_path: Path
) -> None:
    environment = replace(migrated, users="ann:viewer")
    cleaned = airflow.clean_database(environment, rule())
    assert cleaned is not None
    assert cleaned.deleted == 1
    assert airflow.migration(environment) is None, "and who is named changes nothing in it"
    elsewhere = replace(environment, airflow_database=f"sqlite:///{tmp_path}/other.db")
    assert airflow.clean_database(elsewhere, rule()) is None


def test_accounts_in_the_database_are_made_once(made_by_fab: Environment, tmp_path: Path) -> None:
    assert said(made_by_fab).count('" created with role') == 3
    own = copied(made_by_fab, tmp_path, **BY_FAB)
    named = replace(own, users=f"{own.users},eve:viewer")
    airflow.make_login(named)
    migrate(named)
    assert said(named).count('" created with role') == 1
    assert "already exist" not in said(named), "a process for each of those would be in vain"


def said(environment: Environment) -> str:
    """What the migration of its database has said."""
    return (environment.logs / "airflow-migrate.log").read_text()


def test_a_task_of_airflow_from_which_its_database_is_hidden_cleans_it_too(
    migrated: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As `block_orm_access` of Airflow's supervisor does.
    for section in ("DATABASE", "CORE"):
        monkeypatch.setenv(f"AIRFLOW__{section}__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
    cleaned = airflow.clean_database(migrated, rule())
    assert cleaned is not None
    assert cleaned.deleted == 1


def test_where_airflow_was_never_started_there_is_nothing_to_clean(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    assert airflow.clean_database(environment, rule()) is None


def test_a_database_that_somebody_has_deleted_is_made_anew(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda words, **_: begun.append(words))
    home.logs.mkdir(parents=True)
    airflow.make_login(home)
    airflow.migrated(home, 0)
    database(home).touch()
    airflow.migration(home)
    assert begun == [], "what is there was made"
    database(home).unlink()
    airflow.migration(home)
    assert begun[0][-1] == "jobs.services.airflow_database"
    assert airflow.clean_database(home, rule()) is None


def test_machines_that_start_at_once_make_the_tables_one_after_another(
    postgres: Postgres, tmp_path: Path
) -> None:
    shared = {
        "NIGHTSHIFT_AIRFLOW_DATABASE": postgres.database("airflow"),
        "MLFLOW_TRACKING_URI": postgres.create("mlflow"),
    }
    homes = [
        Environment.read({"NIGHTSHIFT_HOME": str(tmp_path / name), **shared})
        for name in ("one", "two")
    ]
    for home in homes:
        home.logs.mkdir(parents=True)
        make_all(home)
        airflow.make_login(home)
    migrations = [airflow.migration(home) for home in homes]
    registries = [
        subprocess.Popen(
            [sys.executable, "-c", _REGISTRY],
            # MLflow's own lock is a file there: each machine has another.
            env={**airflow.every_variable(home), "TMPDIR": str(home.home)},
            cwd=ROOT,
        )
        for home in homes
    ]
    codes = [one.wait() for one in (*migrations, *registries) if one is not None]
    logs = [home.logs / "airflow-migrate.log" for home in homes]
    assert codes == [0] * 4, [log.read_text() for log in logs]
