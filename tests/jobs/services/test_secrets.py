from __future__ import annotations

import base64
import errno
import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from jobs.services import airflow
from jobs.services.accounts import passwords_file
from jobs.services.secrets import (
    make_all,
    make_password,
    password_file,
    secret,
    write_private,
)
from pipelines.environment import Environment


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_their_owners_alone(home: Environment) -> None:
    make_all(home)
    airflow.make_login(home)
    modes = {path.name: mode_of(path) for path in home.secrets.iterdir()}
    assert set(modes) == {
        "spark_token",
        "admin_password",
        "fernet_key",
        "jwt_secret",
        "api_secret_key",
        "airflow_passwords.json",
    }
    assert set(modes.values()) == {0o600}
    assert mode_of(home.secrets) == 0o700


def test_a_secret_is_made_once(home: Environment) -> None:
    first = secret(home, "spark_token")
    make_all(home)
    assert secret(home, "spark_token") == first


def test_two_homes_have_different_secrets(make_home: Callable[[str], Environment]) -> None:
    one = make_home("one")
    other = make_home("other")
    assert secret(one, "jwt_secret") != secret(other, "jwt_secret")


def test_homes_that_share_a_secret_have_the_same_ones(
    make_home: Callable[[str], Environment],
) -> None:
    shared = "of all machines of this installation"
    homes = [replace(make_home(name), secret=shared) for name in ("one", "other")]
    other_platform = replace(make_home("third"), secret=shared[::-1])
    for home in (*homes, other_platform):
        make_all(home)
        make_password(home, "ann")
    names = ["spark_token", "admin_password", "fernet_key", "jwt_secret", "api_secret_key"]
    ones, others = ([secret(home, name) for name in names] for home in homes)
    assert ones == others
    # None of them tells another one, or that of another platform.
    assert len(set(ones)) == len(names)
    assert set(ones).isdisjoint(secret(other_platform, name) for name in names)
    anns = [password_file(home, "ann").read_text() for home in homes]
    assert anns[0] == anns[1] not in ones
    assert mode_of(password_file(homes[0], "ann")) == 0o600
    Fernet(secret(homes[0], "fernet_key"))
    assert len(secret(homes[0], "jwt_secret")) >= 64


def test_a_home_that_comes_to_share_a_secret_keeps_its_own_aside(home: Environment) -> None:
    own = secret(home, "jwt_secret")
    shared = replace(home, secret="of all machines of this installation")
    derived = secret(shared, "jwt_secret")
    assert derived != own
    assert secret(home, "jwt_secret") == derived
    before = home.secrets / "jwt_secret.before"
    assert before.read_text() == own
    assert {mode_of(before), mode_of(home.secrets / "jwt_secret")} == {0o600}


def test_what_is_derived_is_what_the_standard_says(home: Environment) -> None:
    shared = "of all machines of this installation"
    expand = HKDFExpand(algorithm=SHA512(), length=64, info=b"jwt_secret")
    derived = expand.derive(shared.encode())
    wanted = base64.urlsafe_b64encode(derived).decode().rstrip("=")
    assert secret(replace(home, secret=shared), "jwt_secret") == wanted


def test_of_several_first_readers_all_get_the_same(home: Environment) -> None:
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(secret, home, "fernet_key") for _ in range(32)]
        secrets = {reader.result() for reader in readers}
    assert len(secrets) == 1
    assert [path.name for path in home.secrets.iterdir()] == ["fernet_key"]


def test_a_full_disk_leaves_no_draft_of_a_secret(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.secrets.mkdir(parents=True)

    def open_full(descriptor: int, mode: str) -> NoReturn:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", open_full)
    with pytest.raises(OSError, match="No space"):
        write_private(home.secrets / "x", "first")
    assert list(home.secrets.iterdir()) == []


@pytest.mark.parametrize("name", ["admin_password", "spark_token", "passwords/ann"])
def test_what_a_lost_disk_has_emptied_is_made_anew(home: Environment, name: str) -> None:
    people = replace(home, users="ann:viewer")
    make_all(people)
    airflow.make_login(people)
    kept = (home.secrets / "jwt_secret").read_text()
    (home.secrets / name).write_text("")
    make_all(people)
    airflow.make_login(people)
    assert len((home.secrets / name).read_text()) >= 24
    assert mode_of(home.secrets / name) == 0o600
    assert "" not in json.loads(passwords_file(people).read_text()).values()
    assert (home.secrets / "jwt_secret").read_text() == kept


def test_a_secret_that_is_there_is_not_made_anew(home: Environment) -> None:
    assert secret(home, "jwt_secret") == secret(home, "jwt_secret")


def test_an_unknown_secret_offers_the_near_miss(home: Environment) -> None:
    with pytest.raises(ValueError, match="Did you mean 'admin_password'"):
        secret(home, "admin_pasword")
