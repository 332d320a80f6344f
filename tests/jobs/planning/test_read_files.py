"""Which files are read again, and which are known already."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from jobs.lake import publications, read_before
from pipelines.places import changed_ns
from pipelines.spec import PREDICTIONS
from tests.jobs.tiny_home import DAYS, Home, require_alike


def test_nights_in_any_order_make_what_one_pass_makes(home: Home, other: Home) -> None:
    for one in (home, other):
        one.promote(DAYS[0])
    assert other.night(DAYS[5], first=DAYS[0]) == 0
    served: dict[date, list[int]] = {}
    for number in (2, 0, 4, 1, 5):
        assert home.night(DAYS[number]) == 0
        served = home.published(PREDICTIONS) | served
    # What was served before there were the nights behind it stays, until a person says otherwise.
    assert home.published(PREDICTIONS) == served != other.published(PREDICTIONS)
    for day in DAYS[:6]:
        assert home.night(day, rescore=True) == 0
    require_alike(home, other, [DAYS[3]])


def test_a_file_that_was_only_touched_changes_nothing(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], *home.ids_in(DAYS[1]))
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_correction_that_keeps_the_time_and_the_size_of_its_file_is_seen(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    file = home._file(DAYS[1])
    before = file.stat()
    file.write_text("12\n13")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == [12, 13]
    file.chmod(0o600)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_file_that_was_recorded_by_its_time_alone_is_known_by_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before_marks:
        before_marks.setattr(publications, "mark", changed_ns)
        home.night(DAYS[2], first=DAYS[0])
    monkeypatch.delattr(publications, "digest_of_file")
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_files_that_were_marked_anew_are_read_once_more_and_no_more(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    days = DAYS[:3]
    for day in days:
        home.land(day, *home.ids_in(day))
    read: list[str] = []
    digest = publications.digest_of_file

    def counting(file: Path) -> str:
        read.append(file.name)
        return digest(file)

    monkeypatch.setattr(publications, "digest_of_file", counting)
    for _ in range(2):
        assert home.night(DAYS[2]) == 0
        assert home.performed == []
    assert sorted(read) == [f"{day}.csv" for day in days]
    # What is said since is read again: by its mark, though nobody reads the others.
    home.land(DAYS[1], 12, 13)
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == [12, 13]
    assert set(read[len(days) :]) == {f"{DAYS[1]}.csv"}


def test_files_that_were_marked_anew_are_read_once_for_all_homes_of_a_lake(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    for day in DAYS[:3]:
        home.land(day, *home.ids_in(day))
    # As each task in a Pod has one of its own.
    home.environment = replace(home.environment, home=tmp_path / "first")
    assert home.night(DAYS[2]) == 0
    home.environment = replace(home.environment, home=tmp_path / "second")
    monkeypatch.delattr(publications, "digest_of_file")
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_what_was_known_stays_known_where_a_store_fails_at_the_second_look(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        file.write_text(file.name)
    one, two = files
    digests = {file: publications.digest_of_file(file) for file in files}
    first = read_before.ReadBefore(home.environment, "tiny")
    first.digest(one, 1)
    first.keep()
    second = read_before.ReadBefore(home.environment, "tiny")
    second.digest(one, 1)
    with monkeypatch.context() as failing:
        failing.setattr(read_before.ReadBefore, "_kept", lambda _: {})
        second.digest(two, 1)
        second.keep()
    monkeypatch.delattr(publications, "digest_of_file")
    third = read_before.ReadBefore(home.environment, "tiny")
    assert {file: third.digest(file, 1) for file in files} == digests


def test_what_a_long_look_has_read_is_kept_before_it_ends(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_before, "_KEEP_SECONDS", 0)
    file = tmp_path / "file"
    file.write_text("rows")
    digest = read_before.ReadBefore(home.environment, "tiny").digest(file, 1)
    monkeypatch.delattr(publications, "digest_of_file")
    assert read_before.ReadBefore(home.environment, "tiny").digest(file, 1) == digest


def test_a_home_in_which_nothing_but_what_was_read_is_kept_is_private(
    home: Home, tmp_path: Path
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], *home.ids_in(DAYS[1]))
    fresh = tmp_path / "fresh"
    home.environment = replace(home.environment, home=fresh, jobs=fresh / "jobs")
    # The plan looks before the night makes anything.
    assert home.night(DAYS[2]) == 0
    assert fresh.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("is_folder", [False, True])
def test_where_what_was_read_cannot_be_kept_files_are_read_each_time(
    home: Home, *, is_folder: bool
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    kept = home.environment.jobs / "landed-files-tiny.json"
    kept.parent.mkdir(exist_ok=True)
    if is_folder:
        kept.mkdir()
    else:
        kept.write_text("no JSON")
    home.land(DAYS[1], *home.ids_in(DAYS[1]))
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    home.land(DAYS[1], 12, 13)
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == [12, 13]
