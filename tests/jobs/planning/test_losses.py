"""Tables that are deleted, or restored from an older backup."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from jobs.commands.plan import plan
from jobs.lake import publications
from jobs.lake.locations import path
from jobs.lake.partitions import column_types
from jobs.lake.publications import Origin
from jobs.lake.staging import Staging
from pipelines.errors import NightshiftError, NotLanded, Refused
from pipelines.run import Run
from pipelines.spec import PREDICTIONS
from tests.jobs.tiny_home import (
    DAYS,
    LOST,
    MARKS,
    OUTCOMES,
    SUMS,
    TINY,
    Home,
    Ids,
    staged_as,
    stages_of,
    told_of,
)


@pytest.mark.parametrize("name", ["readings", "marks", "sums", "training", "scoring"])
def test_a_table_whose_folder_is_gone_is_made_again_by_the_next_night(
    name: str, home: Home
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[3], first=DAYS[0])
    tables = ("readings", "marks", "sums", "training", "scoring", PREDICTIONS)
    before = {name: home.published(name) for name in tables}
    shutil.rmtree(path(home.run(DAYS[0]), name))
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
    missing = [row[1:] for row in rows if row[:2] == (f"tiny.{name}", "missing")]
    why = "was published, and is not in the table any more"
    assert missing == [("missing", 4, f"{DAYS[0]}..{DAYS[3]}", why)]
    assert home.night(DAYS[3]) == 0
    assert {name: home.published(name) for name in tables} == before
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


@pytest.mark.parametrize("name", ["readings", "marks", "sums", "training", "scoring"])
def test_days_that_a_table_has_lost_come_again_though_a_run_makes_one_of_them_first(
    name: str, home: Home
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[3], first=DAYS[0])
    tables = ("readings", "marks", "sums", "training", "scoring", PREDICTIONS)
    before = {name: home.published(name) for name in tables}
    shutil.rmtree(path(home.run(DAYS[0]), name))
    assert home.restate(DAYS[3], DAYS[3]) == 0
    assert (f"tiny.{name}", 3, f"{DAYS[0]}..{DAYS[2]}", LOST) in told_of(home, "missing")
    assert home.night(DAYS[3]) == 0
    assert {name: home.published(name) for name in tables} == before
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    # Nothing that came again is told of twice.
    run = home.run(DAYS[3])
    assert publications.told(run, name).all_lost == []


@pytest.mark.parametrize("is_total", [False, True])
def test_a_late_drop_of_a_lost_table_is_known_again_from_when_it_was(
    is_total: bool, home: Home
) -> None:
    home.night(DAYS[0])
    file = home._file(DAYS[1])
    ids = home.ids_in(DAYS[1])
    file.unlink()
    home.night(DAYS[3], first=DAYS[2], allow_gap=True)
    home.land(DAYS[1], *ids)
    home.night(DAYS[4])
    tables = ("readings", "marks", "sums")
    before = _as_of_nights(home, tables)
    assert DAYS[1] not in home.as_of("readings", DAYS[3])
    for name in tables if is_total else ["readings"]:
        shutil.rmtree(path(home.run(DAYS[0]), name))
    assert home.night(DAYS[5]) == 0
    assert _as_of_nights(home, tables) == before
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def test_a_late_drop_that_nobody_has_read_is_late_though_the_table_was_lost_meanwhile(
    home: Home,
) -> None:
    home.night(DAYS[0])
    file = home._file(DAYS[1])
    ids = home.ids_in(DAYS[1])
    file.unlink()
    home.night(DAYS[2], allow_gap=True)
    home.land(DAYS[1], *ids)
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))
    assert home.night(DAYS[3]) == 0
    assert DAYS[1] not in home.as_of("readings", DAYS[2])
    assert home.as_of("readings", DAYS[3])[DAYS[1]] == ids


def test_a_correction_that_a_backup_has_lost_is_known_again_from_when_it_was(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.night(DAYS[3])
    before = [home.as_of("readings", day) for day in DAYS[:4]]
    log = Path(path(home.run(DAYS[0]), "readings")) / "_delta_log"
    for commit in sorted(log.glob("*.json"))[1:]:
        commit.unlink()
    assert list(home.published("readings")) == DAYS[:3]
    assert home.night(DAYS[5], first=DAYS[4]) == 0
    assert [home.as_of("readings", day) for day in DAYS[:4]] == before


def test_a_correction_that_a_backup_has_lost_is_so_though_other_rows_were_told_of_after_it(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.night(DAYS[3])
    # It says the same in other words: no commit, and on record alone.
    home.land(DAYS[2], *reversed(home.ids_in(DAYS[2])))
    home.night(DAYS[4])
    before = [home.as_of("readings", day) for day in DAYS[:5]]
    log = Path(path(home.run(DAYS[0]), "readings")) / "_delta_log"
    for commit in sorted(log.glob("*.json"))[1:]:
        commit.unlink()
    assert home.night(DAYS[5]) == 0
    assert [home.as_of("readings", day) for day in DAYS[:5]] == before


def test_a_file_that_comes_again_after_a_loss_rewrites_no_night_that_was_made_since(
    home: Home,
) -> None:
    ids = home.ids_in(DAYS[1])
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.night(DAYS[3])
    home.land(DAYS[1], *ids)
    home.night(DAYS[4])
    log = Path(path(home.run(DAYS[0]), "readings")) / "_delta_log"
    for commit in sorted(log.glob("*.json"))[1:]:
        commit.unlink()
    home.night(DAYS[5])
    home.land(DAYS[1], 7)
    home.night(DAYS[6])
    seen = [home.as_of("readings", day) for day in DAYS[4:7]]
    assert [of_day[DAYS[1]] for of_day in seen] == [ids, ids, [7]]


def test_a_file_that_comes_after_nights_were_made_without_its_lost_day_is_late(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))
    home._file(DAYS[1]).unlink()
    home.night(DAYS[3], allow_gap=True)
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    assert DAYS[1] not in home.as_of("readings", DAYS[3])
    assert home.as_of("readings", DAYS[4])[DAYS[1]] == [7]


def test_a_gap_that_was_allowed_is_not_asked_for_again_after_raw_tables_are_lost(
    home: Home,
) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    home.night(DAYS[3], allow_gap=True)
    for name in ("readings", "sensors"):
        shutil.rmtree(path(home.run(DAYS[0]), name))
    assert home.night(DAYS[4]) == 0
    assert list(home.published("readings")) == [DAYS[0], *DAYS[2:5]]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_a_night_that_was_made_and_has_lost_its_rows_and_its_file_is_no_gap_that_was_allowed(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))
    home._file(DAYS[1]).unlink()
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/readings/{DAYS[1]}.csv"):
        home.night(DAYS[4])


def test_a_kill_before_a_day_that_came_again_is_forgotten_leaves_nothing_on_record(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(publications, "forget_made_anew", killed)
        with pytest.raises(KeyboardInterrupt):
            home.night(DAYS[3])
    home._waiting.clear()
    run = home.run(DAYS[3])
    assert publications.told(run, "readings").all_lost
    assert home.night(DAYS[3]) == 0
    assert publications.told(run, "readings").all_lost == []


def _lose_sensors(home: Home, kept: int) -> None:
    """As if a backup was restored that has this many versions of the register."""
    place = Path(path(home.run(DAYS[0]), "sensors"))
    if not kept:
        shutil.rmtree(place)
        return
    for commit in sorted((place / "_delta_log").glob("*.json"))[kept:]:
        commit.unlink()


@pytest.mark.parametrize(
    ("kept", "changed", "again"),
    [
        # What it said before nobody knows: nights without it could not be made.
        (0, None, {0: 3}),
        (0, 4, {0: 4}),
        # Nights since the first snapshot see that until the file came that is there.
        (1, None, {0: 1, 3: 3}),
        (1, 4, {0: 1, 1: 4}),
        (1, 1, {0: 1, 1: 1}),
        (2, None, {0: 1, 1: 2, 3: 3}),
    ],
)
def test_a_register_that_lost_snapshots_is_known_from_when_these_were(
    kept: int, changed: int | None, again: dict[int, int], home: Home
) -> None:
    home.night(DAYS[0])
    home.land_register(2)
    home.night(DAYS[1])
    home.land_register(3)
    home.night(DAYS[4], first=DAYS[3])
    assert len(home.registered()) == 3
    _lose_sensors(home, kept)
    if changed:
        home.land_register(changed)
    assert home.night(DAYS[5]) == 0
    of_days = {}
    for number, said in again.items():
        of_days[DAYS[number]] = [said]
    assert home.registered() == of_days
    assert home.night(DAYS[5]) == 0
    assert home.performed == []
    # It is a changed file again that its night finds.
    home.land_register(5)
    assert home.night(DAYS[6]) == 0
    assert home.registered() == {**of_days, DAYS[6]: [5]}


def test_a_register_that_was_lost_is_known_from_no_day_before_a_first_day_that_was_moved(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    _lose_sensors(home, 0)
    home.pipeline = replace(TINY, first_day=DAYS[3])
    assert home.night(DAYS[4], first=DAYS[3]) == 0
    assert home.registered() == {DAYS[3]: [1]}
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


@pytest.mark.parametrize("by_correction", [False, True])
def test_a_register_whose_folder_is_gone_is_made_again_by_the_next_night(
    by_correction: bool, home: Home
) -> None:
    home.night(DAYS[0])
    home.night(DAYS[3], first=DAYS[1])
    _lose_sensors(home, 0)
    assert ("tiny.sensors", 1, str(DAYS[3]), LOST) in told_of(home, "missing")
    if by_correction:
        home.land(DAYS[2], 7)
    assert home.night(DAYS[4]) == 0
    assert home.registered() == {DAYS[0]: [1]}
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def _lacking_one(home: Home, monkeypatch: pytest.MonkeyPatch, retyped: str) -> None:
    """Four nights of which the third was left out, then a table gets numbers of another type."""
    home._file(DAYS[2]).unlink()
    home.night(DAYS[1], first=DAYS[0])
    home.night(DAYS[3], allow_gap=True)

    def of_longs(run: Run, name: str, ids: Ids, origin: Origin) -> Staging:
        found = staged_rows(run, name, ids, origin)
        if name != retyped:
            return found
        schema = json.loads(json.dumps(found.schema).replace("integer", "long"))
        return replace(found, schema=schema)

    staged_rows = staged_as
    monkeypatch.setattr("tests.jobs.tiny_home.staged_as", of_longs)


def _refuse(home: Home, making: Callable[[], int], told: str) -> None:
    with pytest.raises(NightshiftError, match=re.escape(told)):
        making()
    # The next run stages its own.
    home._waiting.clear()


def _type_of_ids(home: Home, name: str) -> str:
    return column_types(home.run(DAYS[0]), name)["id"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("marks", f"because night {DAYS[2]} was left out (1 in all): land what it lacks"),
        ("training", f"because night {DAYS[2]} was left out (1 in all): land what it lacks"),
        ("readings", "`nightshift migrate tiny` tells what can be done"),
    ],
)
def test_a_column_gets_another_type_once_the_night_that_was_left_out_has_landed(
    name: str, told: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacking_one(home, monkeypatch, name)
    _refuse(home, partial(home.night, DAYS[4]), told)
    # By itself no restating does it.
    restating = partial(home.restate, DAYS[0], DAYS[4])
    assert restating() == NotLanded.exit_code
    _refuse(home, partial(restating, allow_gap=True), told)
    home.land(DAYS[2], 20)
    assert restating() == 0
    assert _type_of_ids(home, name) == "long"
    assert list(home.published(name)) == DAYS[:5]


def test_a_derived_table_that_was_deleted_is_made_in_another_type_over_a_night_that_is_left_out(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacking_one(home, monkeypatch, "marks")
    place = path(home.run(DAYS[0]), "marks")
    way_out = f"; or delete {place}, which the next night makes anew, without older versions"
    _refuse(home, partial(home.night, DAYS[4]), way_out)
    shutil.rmtree(place)
    assert home.night(DAYS[4]) == 0
    assert _type_of_ids(home, "marks") == "long"
    made = [day for day in DAYS[:5] if day != DAYS[2]]
    assert list(home.published("marks")) == made


@pytest.mark.parametrize("name", ["marks", "outcomes"])
def test_a_table_whose_folder_is_gone_is_made_as_nights_saw_it_before_a_late_correction(
    name: str, home: Home
) -> None:
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OUTCOMES))
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    tables = ("marks", "sums", "outcomes", "training", "scoring")
    before = _as_of_nights(home, tables)
    shutil.rmtree(path(home.run(DAYS[0]), name))
    assert home.night_by_tasks(DAYS[5], 0, lambda: None) == 0
    assert _as_of_nights(home, tables) == before
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def _as_of_nights(home: Home, tables: Sequence[str]) -> list[Ids]:
    """What nights around a correction of the second that the fifth has found see of each."""
    found = []
    for one in tables:
        found += [home.as_of(one, DAYS[number]) for number in (1, 3, 4)]
    return found


def test_a_table_that_is_declared_later_is_made_as_it_was_before_a_late_correction(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OUTCOMES))
    with home._stages():
        rows = plan(home.run(DAYS[4])).rows
    states = {row[:3] for row in rows if row[1] != "current"}
    assert states == {("tiny.outcomes", "missing", 5)}
    assert home.night(DAYS[4]) == 0
    days = f"{DAYS[0]}..{DAYS[4]}"
    again = f"{DAYS[1]}..{DAYS[3]}"
    assert stages_of(home)["check_clean"] == [days, again]
    before, after = (home.as_of("outcomes", day) for day in DAYS[3:5])
    assert before[DAYS[1]] == [1 + 21]
    assert after[DAYS[1]] == [1 + 7]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def _lose_the_end(log: Path) -> None:
    for version in (2, 3):
        (log / f"{version:020}.json").unlink()


def _empty_the_last(log: Path) -> None:
    """As a failure of the power may leave it."""
    max(log.glob("*.json")).write_text("")


@pytest.mark.parametrize("lose", [_lose_the_end, _empty_the_last])
def test_a_table_that_lost_its_newest_versions_is_made_true_again(
    home: Home, lose: Callable[[Path], None]
) -> None:
    for day in DAYS[:4]:
        home.night(day)
    tables = ("readings", "marks", "sums", "training", "scoring")
    before = {name: home.published(name) for name in tables}
    for name in tables:
        lose(Path(path(home.run(DAYS[0]), name)) / "_delta_log")
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
        states = {row[:2] for row in rows}
    assert {(f"tiny.{name}", "missing") for name in tables} <= states
    assert home.night(DAYS[3]) == 0
    assert {name: home.published(name) for name in tables} == before
    assert "train" in stages_of(home)
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
