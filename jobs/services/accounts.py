"""Who may sign in to Airflow, its API and our pages: names, roles, and generated passwords."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jobs.services.secrets import make_password, password_file, secret, write_private
from pipelines.environment import ADMIN, Environment

COLUMNS = ("user", "role", "password_file")
OF_FAB = (
    "These are the accounts that `nightshift up` makes where they are missing. Who may sign in, "
    "and as what, Airflow's database says (NIGHTSHIFT_AUTH=fab): nightshift airflow users list"
)
"""What a list of `accounts` is where users and roles are kept in Airflow's database."""


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
    """Everyone whom the settings name, the admin first; `write_passwords` makes their passwords."""
    admin = Account(user=ADMIN, role=ADMIN, password_file=environment.secrets / "admin_password")
    others = [
        Account(user=user, role=role, password_file=password_file(environment, user))
        for user, role in _named(environment).items()
    ]
    return [admin, *others]


def rows(environment: Environment) -> list[tuple[object, ...]]:
    """A row of `COLUMNS` for each account."""
    known = accounts(environment)
    return [(one.user, one.role, str(one.password_file)) for one in known]


def roles(environment: Environment) -> str:
    """The users with their roles, as Airflow's simple auth manager reads them."""
    everyone = {ADMIN: ADMIN, **_named(environment)}
    return ",".join(f"{user}:{role}" for user, role in everyone.items())


def write_passwords(environment: Environment) -> None:
    """Make the passwords that are missing, and write the file in which Airflow finds them all.

    That is, its simple auth manager.
    """
    secret(environment, "admin_password")
    for user in _named(environment):
        make_password(environment, user)
    # To a user who is not in it Airflow would give a password, and write that into its log.
    passwords = {one.user: one.password for one in accounts(environment)}
    write_private(passwords_file(environment), json.dumps(passwords))


def passwords_file(environment: Environment) -> Path:
    """Where `write_passwords` writes."""
    return environment.secrets / "airflow_passwords.json"


def _named(environment: Environment) -> Mapping[str, str]:
    words = (environment.users or "").split(",")
    return dict(word.strip().split(":") for word in words if word.strip())
