"""A token is of a person as the settings name them now, whatever it said when it was made."""

from __future__ import annotations

import asyncio
from configparser import ConfigParser

import jwt
import pytest
from airflow.api_fastapi.auth.managers import base_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.configuration import conf

from pipelines.environment import ROOT
from plugins.people import People

USERS = "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"
BOB = SimpleAuthManagerUser(username="bob", role="admin")


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """Of Bob, as long as he was an admin."""
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "s3cret" * 12)
    monkeypatch.setattr(base_auth_manager.RevokedToken, "is_revoked", lambda _: False)
    monkeypatch.setenv(USERS, "admin:admin,bob:admin")
    return People().generate_jwt(BOB)


def role(token: str) -> str | None:
    """With a server of its own, as after `up`."""
    person = asyncio.run(People().get_user_from_token(token))
    assert isinstance(person, SimpleAuthManagerUser)
    return person.role


def test_a_token_has_the_role_that_its_person_has_now(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert role(token) == "admin"
    monkeypatch.setenv(USERS, "admin:admin,bob:viewer")
    assert role(token) == "viewer"


def test_who_is_named_no_more_is_out(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USERS, "admin:admin,bobby:admin")
    with pytest.raises(jwt.InvalidTokenError, match="may sign in no more"):
        role(token)


def test_where_airflow_takes_everyone_for_an_admin_so_do_we(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
    # As Airflow signs in whoever asks.
    anyone = SimpleAuthManagerUser(username="Anonymous", role="ADMIN")
    assert role(People().generate_jwt(anyone)) == "ADMIN"


def test_it_is_the_one_that_the_platform_configures(monkeypatch: pytest.MonkeyPatch) -> None:
    configured = ConfigParser(interpolation=None)
    configured.read(ROOT / "airflow.cfg")
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", configured["core"]["auth_manager"])
    assert conf.getimport("core", "auth_manager") is People
