"""Whatever the umask, nobody but its owner gets into a home."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from jobs.commands.land import land
from jobs.commands.models import models
from jobs.commands.notify import notify
from jobs.night import one_run_at_a_time
from jobs.services.airflow import make_login
from jobs.services.home import private_home
from jobs.services.secrets import make_all
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.events import Event
from pipelines.run import Run
from pipelines.stages import stage

DAYS = Days.of(date(2013, 2, 9))


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run_in(home: Environment) -> Run:
    run = Run(pipeline=pipeline("flights"), days=DAYS, environment=home, run_id="r1")
    return run.at(stage("ingest"))


def take_turns(home: Environment) -> None:
    with one_run_at_a_time(run_in(home)):
        pass


def tell(home: Environment) -> None:
    notify(run_in(home), Event.STAGE_FAILED, None, "a reason")


def drop(home: Environment) -> None:
    land(pipeline("flights"), home, DAYS)


def list_models(home: Environment) -> None:
    models(pipeline("flights"), home)


@pytest.mark.parametrize("begin", [make_all, make_login, take_turns, tell, drop, list_models])
def test_a_home_is_private_from_its_first_folder_on(
    umask: None,
    home: Environment,
    begin: Callable[[Environment], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin(home)
    assert mode_of(home.home) == 0o700
    assert "was open" not in capsys.readouterr().err


def test_secrets_are_private_under_any_umask(umask: None, home: Environment) -> None:
    make_all(home)
    assert mode_of(home.secrets) == 0o700
    assert {mode_of(secret) for secret in home.secrets.iterdir()} == {0o600}


def test_a_home_that_others_could_enter_is_closed_and_its_owner_told_once(
    home: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    home.home.mkdir()
    home.home.chmod(0o755)
    take_turns(home)
    take_turns(home)
    assert mode_of(home.home) == 0o700
    assert capsys.readouterr().err == (
        f"{home.home} was open to other users (mode 0755); now it is its owner's alone (0700).\n"
    )


def refuse_to_close(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Have no folder's mode be changed from here on."""

    def refuse(path: Path, mode: int) -> None:
        raise error

    monkeypatch.setattr(Path, "chmod", refuse)


def test_an_open_home_of_another_user_is_refused_with_the_way_out(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.home.mkdir()
    home.home.chmod(0o777)
    # A folder of another user cannot be made without being root.
    refuse_to_close(monkeypatch, PermissionError(errno.EPERM, "Operation not permitted"))
    with pytest.raises(UsageError) as refused:
        private_home(home)
    assert str(home.home / "nightshift") in str(refused.value)
    assert "(mode 0777)" in str(refused.value)


def test_a_closed_home_of_another_user_is_refused_with_the_way_out(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.home.mkdir(mode=0o700)
    owner = os.getuid()
    # To be somebody else, one would have to be root.
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    refusal = (
        rf"belongs to another user \(id {owner}\), and is closed to you: run this as that user"
    )
    with pytest.raises(UsageError, match=refusal):
        private_home(home)


@pytest.mark.parametrize("beyond", ["", "below"])
def test_a_home_that_is_a_file_or_in_one_is_refused_with_the_way_out(
    home: Environment, beyond: str
) -> None:
    home.home.write_text("a file")
    told = replace(home, home=home.home / beyond)
    with pytest.raises(UsageError, match=r"cannot be a home \(.+\)\. Set it to a folder in which"):
        private_home(told)


def test_a_home_on_a_file_system_to_be_read_is_refused_with_the_way_out(
    home: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.home.mkdir()
    home.home.chmod(0o755)
    # To mount one, one would have to be root.
    refuse_to_close(monkeypatch, OSError(errno.EROFS, "Read-only file system"))
    with pytest.raises(UsageError, match="Read-only file system"):
        private_home(home)


def test_a_folder_of_other_things_is_not_closed(home: Environment) -> None:
    home.home.mkdir()
    home.home.chmod(0o1777)
    (home.home / "of somebody").touch()
    with pytest.raises(UsageError) as refused:
        private_home(home)
    assert mode_of(home.home) == 0o1777
    assert str(home.home / "nightshift") in str(refused.value)
    home.home.chmod(0o700)
    assert private_home(home) == home.home


def test_a_new_disk_and_files_that_came_before_a_home_are_closed(home: Environment) -> None:
    (home.home / "lost+found").mkdir(parents=True)
    home.home.chmod(0o755)
    private_home(home)
    assert mode_of(home.home) == 0o700
    (home.landing / "flights").mkdir(parents=True)
    home.home.chmod(0o755)
    private_home(home)
    assert mode_of(home.home) == 0o700
