"""Who may sign in: names and roles from the settings, passwords that nobody chose."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from jobs.__main__ import main
from jobs.commands.airflow import pass_on
from jobs.services import accounts, airflow
from jobs.services.processes import MARK, free_port
from pipelines.environment import Environment

ANN_AND_BOB = "ann:viewer, bob:user"


def passwords(environment: Environment) -> dict[str, str]:
    """As Airflow reads them."""
    path = environment.secrets / "airflow_passwords.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read: dict[str, str] = json.loads(path.read_text())
    return read


def test_everyone_named_has_a_role_and_a_password_of_their_own(home: Environment) -> None:
    shared = replace(home, users=ANN_AND_BOB)
    airflow.make_login(shared)
    assert accounts.roles(shared) == "admin:admin,ann:viewer,bob:user"
    made = accounts.accounts(shared)
    assert [(one.user, one.role) for one in made] == [
        ("admin", "admin"),
        ("ann", "viewer"),
        ("bob", "user"),
    ]
    assert passwords(shared) == {one.user: one.password for one in made}
    assert len({one.password for one in made}) == 3
    assert all(len(one.password) >= 20 for one in made)
    assert {stat.S_IMODE(one.password_file.stat().st_mode) for one in made} == {0o600}


def test_who_is_named_no_more_is_out_and_who_comes_back_has_the_same_password(
    home: Environment,
) -> None:
    shared = replace(home, users=ANN_AND_BOB)
    airflow.make_login(shared)
    first = passwords(shared)
    airflow.make_login(replace(home, users="bob:op"))
    assert passwords(home) == {"admin": first["admin"], "bob": first["bob"]}
    airflow.make_login(shared)
    assert passwords(shared) == first


def test_airflow_reads_the_accounts_and_makes_no_password_of_its_own(home: Environment) -> None:
    shared = replace(home, users=ANN_AND_BOB)
    airflow.make_login(shared)
    variables = airflow.every_variable(shared)
    # In a process of its own: Airflow reads its settings when it is imported.
    program = (
        "from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import *\n"
        "users = {user.username: user.role for user in SimpleAuthManager.get_users()}\n"
        "print(json.dumps([users, SimpleAuthManager.get_passwords()]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True
    )
    users, read = json.loads(ended.stdout.splitlines()[-1])
    assert users == {"admin": "admin", "ann": "viewer", "bob": "user"}
    assert read == passwords(shared)


def test_the_command_lists_who_may_sign_in_and_shows_no_password(
    home: Environment, run_command: Callable[..., str]
) -> None:
    shared = replace(home, users=ANN_AND_BOB)
    shown = run_command(shared, "users", "--format", "csv")
    folder = home.secrets
    assert not folder.exists(), "to list makes nothing"
    assert shown.splitlines() == [
        "user,role,password_file",
        f"admin,admin,{folder / 'admin_password'}",
        f"ann,viewer,{folder / 'passwords' / 'ann'}",
        f"bob,user,{folder / 'passwords' / 'bob'}",
    ]
    airflow.make_login(shared)
    again = run_command(shared, "users", "--format", "csv")
    assert again == shown
    assert not any(one.password in shown for one in accounts.accounts(shared))


def test_where_airflow_keeps_accounts_the_list_says_that_it_is_not_of_them(
    home: Environment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in home.variables().items():
        monkeypatch.setenv(name, value)
    assert main(["users"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("NIGHTSHIFT_AUTH", "fab")
    assert main(["users"]) == 0
    assert "nightshift airflow users list" in capsys.readouterr().err


@pytest.fixture
def run_command() -> Callable[..., str]:
    def run(environment: Environment, *words: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", *words],
            env={**os.environ, **environment.variables()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def test_any_command_of_airflow_is_passed_on_with_the_platforms_settings(
    home: Environment, run_command: Callable[..., str]
) -> None:
    asked = ("airflow", "config", "get-value", "api", "port")
    assert run_command(home, *asked).splitlines()[-1] == str(home.airflow_port)
    # Options are Airflow's too, the first one as well.
    assert "--verbose" in run_command(home, "airflow", "config", "list", "--help")
    assert "GROUP_OR_COMMAND" in run_command(home, "airflow", "--help")


def test_a_command_of_airflow_leaves_the_passwords_of_a_platform_that_is_up(
    home: Environment, run_command: Callable[..., str]
) -> None:
    asked = ("airflow", "version")
    run_command(home, *asked)
    assert set(passwords(home)) == {"admin"}, "in a home that was never up they are made"
    shared = replace(home, users=ANN_AND_BOB)
    airflow.make_login(shared)
    before = passwords(shared)
    run_command(home, *asked)
    assert passwords(home) == before


def test_down_does_not_end_a_command_of_airflow(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execvpe", lambda *words: given.append(words[2]))
    pass_on(home, ["version"])
    (variables,) = given
    assert variables["NIGHTSHIFT_HOME"] == str(home.home)
    assert MARK not in variables


def test_the_exit_code_is_airflows(home: Environment) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", "airflow", "no-such-command"],
        env={**os.environ, **home.variables()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "no-such-command" in ended.stderr


def test_the_database_is_the_one_of_the_settings(home: Environment) -> None:
    url = f"postgresql://airflow:secret@127.0.0.1:{free_port()}/airflow"
    variables = airflow.variables(replace(home, airflow_database=url))
    assert variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == url


@pytest.mark.parametrize(
    ("where", "transport"),
    [
        ("http://lineage.example:5000", {"type": "http", "url": "http://lineage.example:5000"}),
        ("/tmp/events", {"type": "file", "log_file_path": "/tmp/events", "append": True}),
    ],
)
def test_lineage_goes_where_the_settings_say(
    home: Environment, where: str, transport: dict[str, object]
) -> None:
    variables = airflow.variables(replace(home, lineage=where))
    assert json.loads(variables["AIRFLOW__OPENLINEAGE__TRANSPORT"]) == transport
    assert "AIRFLOW__OPENLINEAGE__TRANSPORT" not in airflow.variables(home)
