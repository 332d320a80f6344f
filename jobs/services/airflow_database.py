"""Prepares Airflow's database: its tables, and the accounts where it keeps them.

`python -m jobs.services.airflow_database`, with the variables of an Airflow process.
"""

from __future__ import annotations

import json
import subprocess
import sys

from jobs.services.accounts import Account, accounts
from jobs.services.airflow import program
from jobs.services.die_with_parent import dying_with_parent
from jobs.services.shared_locks import hold_at
from pipelines.environment import Environment
from pipelines.errors import NightshiftError


def main() -> int:
    """Bring the tables to the installed version, then make the accounts that are missing.

    Returns the exit code of the first step that failed, else 0.
    """
    environment = Environment.read()
    try:
        # Airflow itself waits for another machine at the same for 1.8 s, and then fails.
        with hold_at(environment, "airflow_database", "tables of Airflow"):
            return _prepare(environment)
    except NightshiftError as error:
        print(f"{error.kind}: {error}", file=sys.stderr)
        return error.exit_code


def _prepare(environment: Environment) -> int:
    code = _run("db", "migrate")
    if environment.auth == "fab" and not code:
        there = _users()
        missing = [one for one in accounts(environment) if one.user not in there]
        for account in missing:
            code = code or _create(account)
    return code


def _users() -> set[str]:
    """Who has an account; nobody where Airflow cannot say it."""
    listed = subprocess.run(
        dying_with_parent(program("users", "list", "--output", "json")),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    # Before it Airflow may print anything.
    _, _, rows = f"\n{listed.stdout}".rpartition("\n[")
    try:
        return {row["username"] for row in json.loads(f"[{rows}")}
    except ValueError:
        # To create one who is there changes nothing.
        return set()


def _create(account: Account) -> int:
    """Make an account; one that is there keeps its role and password."""
    words = ["users", "create", "--username", account.user, "--role", account.role.title()]
    person = [
        "--firstname",
        account.user,
        "--lastname",
        "-",
        "--email",
        f"{account.user}@localhost",
    ]
    # It asks for the password twice. Given as an argument, everyone could read it in `ps`.
    return _run(*words, *person, answers=f"{account.password}\n" * 2)


def _run(*arguments: str, answers: str = "") -> int:
    ended = subprocess.run(
        dying_with_parent(program(*arguments)),
        input=answers,
        text=True,
        check=False,
        # Without a terminal of its own it reads answers from its input.
        start_new_session=True,
    )
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
