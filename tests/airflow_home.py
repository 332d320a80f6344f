"""A home in which Airflow's own database is ready, and no service runs."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.services import airflow
from jobs.services.secrets import make_all
from pipelines.environment import Environment


def prepare(environment: Environment) -> None:
    """Make secrets, passwords and the database, with the accounts that are kept there."""
    _make_all_but_the_database(environment)
    migrate(environment)


def migrate(environment: Environment) -> None:
    """Bring the database to what the settings ask for, which it is not yet."""
    migration = airflow.migration(environment)
    assert migration is not None
    airflow.migrated(environment, migration.wait())


def prepare_by_copy(environment: Environment, made: Environment) -> None:
    """The same with a copy of another home's database, as Airflow takes seconds to make one.

    Accounts in it have the passwords of the other home.
    """
    _make_all_but_the_database(environment)
    shutil.copyfile(database(made), database(environment))
    airflow.migrated(environment, 0)


def database(environment: Environment) -> Path:
    """The file of a home's database."""
    return environment.home / "airflow" / "airflow.db"


def _make_all_but_the_database(environment: Environment) -> None:
    environment.logs.mkdir(parents=True)
    make_all(environment)
    airflow.make_login(environment)
