"""A home in which Airflow's own database is ready, and no service runs."""

from __future__ import annotations

from jobs.services import airflow
from jobs.services.secrets import make_all
from pipelines.environment import Environment


def prepare(environment: Environment) -> None:
    """Make secrets, passwords and the database, with the accounts that are kept there."""
    environment.logs.mkdir(parents=True)
    make_all(environment)
    airflow.make_login(environment)
    migrate(environment)


def migrate(environment: Environment) -> None:
    """Bring the database to what the settings ask for, which it is not yet."""
    migration = airflow.migration(environment)
    assert migration is not None
    airflow.migrated(environment, migration.wait())
