"""Who may sign in to Airflow, its API and our pages: names, roles, and generated passwords."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.services.secrets import password, secret, write_private
from pipelines.environment import ADMIN, Environment

COLUMNS = ("user", "role", "password_file")


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One person who may sign in."""

    user: str
    role: str
    """viewer, user, op or admin."""
    password_file: Path
    """Mode 0600."""

    @property
    def password(self) -> str:
        """What the file holds."""
        return self.password_file.read_text().strip()


def accounts(environment: Environment) -> list[Account]:
    """Everyone whom the settings name, the admin first; their passwords are made when missing."""
    secret(environment, "admin_password")
    admin = Account(user=ADMIN, role=ADMIN, password_file=environment.secrets / "admin_password")
    others = [
        Account(user=user, role=role, password_file=password(environment, user))
        for user, role in _named(environment).items()
    ]
    return [admin, *others]


def rows(environment: Environment) -> list[tuple[object, ...]]:
    """A row of `COLUMNS` for each account."""
    return [(one.user, one.role, str(one.password_file)) for one in accounts(environment)]


def roles(environment: Environment) -> str:
    """The users with their roles, as Airflow's simple auth manager reads them."""
    everyone = {ADMIN: ADMIN, **_named(environment)}
    return ",".join(f"{user}:{role}" for user, role in everyone.items())


def write_passwords(environment: Environment) -> None:
    """Write the file in which Airflow's simple auth manager finds every password."""
    # To a user who is not in it Airflow would give a password, and write that into its log.
    passwords = {one.user: one.password for one in accounts(environment)}
    write_private(environment.secrets / "airflow_passwords.json", json.dumps(passwords))


def _named(environment: Environment) -> Mapping[str, str]:
    words = (environment.users or "").split(",")
    return dict(word.strip().split(":") for word in words if word.strip())
