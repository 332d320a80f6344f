"""A raw table follows its declaration, and its old days stay readable by everyone."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from jobs.__main__ import main
from jobs.commands.migrate import migrate
from jobs.lake.commits import publish
from jobs.lake.definition import digest
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import path, version
from jobs.lake.publications import Origin, in_force
from jobs.night import one_run_at_a_time
from jobs.services import locks
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import AwaitsTurn, NightshiftError, UsageError
from pipelines.feeds import Column, Feed, Type
from pipelines.run import Run
from pipelines.stages import stage
from tests.jobs.ingestion.test_new_columns import (
    FIRST,
    SECOND,
    THIRD,
    feed_with,
    night,
    read_by_all,
    write,
)
from tests.jobs.lake.test_commits import checksum_of, staged
from tests.jobs.toy import run_of_feeds, write_rows

_OLD = [("1", FIRST, "0.5", "a")]
_LATER = [
    ("2", FIRST, "1.5", "b", "7"),
    ("3", FIRST, "2.5", "c", " 08 "),
]


def run_of(environment: Environment, feed: Feed) -> Run:
    return run_of_feeds(environment, [feed], FIRST).at(stage("check_raw"))


def declared(feed: Feed, name: str, kind: Type) -> Feed:
    """The feed with that column declared, in place of the one of its name or after all."""
    column = Column(name=name, type=kind)
    if name not in feed.column_names:
        return replace(feed, columns=(*feed.columns, column))
    columns = [column if one.name == name else one for one in feed.columns]
    return replace(feed, columns=tuple(columns))


@pytest.fixture
def added(spark: SparkSession, environment: Environment) -> Feed:
    """A feed of which the second day has a column of texts that nobody declared."""
    feed = feed_with("add")
    write_rows(environment, feed, FIRST, _OLD)
    write(environment, feed, SECOND, _LATER)
    for day in (FIRST, SECOND):
        night(environment, feed, day)
    return feed


def types(run: Run, feed: Feed) -> dict[str, str]:
    schema = DeltaTable(path(run, feed.name)).schema()
    fields = json.loads(schema.to_json())["fields"]
    return {field["name"]: field["type"] for field in fields}


def test_a_table_that_is_as_declared_needs_nothing(environment: Environment, added: Feed) -> None:
    run = run_of(environment, added)
    text = ("toy.readings", "extra", "string", "", "added by files; declare it to give it a type")
    assert migrate(run, None, is_dry=False) == (0, [text])
    assert migrate(run, None, is_dry=False) == (0, [text])
    # Declared as what it is.
    assert migrate(run_of(environment, declared(added, "extra", "string")), None, is_dry=False) == (
        0,
        [],
    )


def test_a_new_column_is_null_on_the_days_that_are_there_and_copies_no_row(
    environment: Environment, added: Feed
) -> None:
    feed = declared(added, "weight", "double")
    run = run_of(environment, feed)
    before = version(run, feed.name)
    files = DeltaTable(path(run, feed.name)).file_uris()
    told = "would be added: null on the 2 days that are there"
    row = ("toy.readings", "weight", "", "double")
    code, rows = migrate(run, "readings", is_dry=True)
    assert (code, rows[0]) == (0, (*row, told))
    assert version(run, feed.name) == before
    _, rows = migrate(run, "toy.readings", is_dry=False)
    assert rows[0] == (*row, "added: null on the 2 days that are there")
    assert version(run, feed.name) == before + 1
    assert sorted(DeltaTable(path(run, feed.name)).file_uris()) == sorted(files)
    assert read_by_all(run, feed, "weight") == [
        (1, None),
        (2, None),
        (3, None),
    ]
    # The next day has it.
    write_rows(
        environment,
        feed.with_new(["extra"]),
        THIRD,
        [("4", FIRST, "1", "d", "1.25", "x")],
    )
    run, _ = night(environment, feed, THIRD)
    assert read_by_all(run, feed, "weight")[-1] == (4, 1.25)
    assert migrate(run.at(stage("check_raw")), None, is_dry=False)[1] == [
        ("toy.readings", "extra", "string", "", "added by files; declare it to give it a type")
    ]


def test_a_text_that_is_declared_with_a_type_is_read_as_its_file_would_be(
    environment: Environment, added: Feed
) -> None:
    old = run_of(environment, added)
    known = in_force(old, added.name)
    feed = declared(added, "extra", "int")
    run = run_of(environment, feed)
    # Until then nothing of the new type can be published beside the old days.
    write(environment, added, THIRD, [("4", FIRST, "1", "d", "9")])
    with pytest.raises(NightshiftError, match="nightshift migrate toy"):
        night(environment, feed, THIRD)
    told = "2 days rewritten; what is made of them is made anew by the next night"
    assert migrate(run, None, is_dry=True)[1][0][-1] == (
        "2 days would be rewritten, if all values fit"
    )
    assert migrate(run, None, is_dry=False) == (
        0,
        [("toy.readings", "extra", "string", "integer", told)],
    )
    assert read_by_all(run, feed, "extra") == [
        (1, None),
        (2, 7),
        (3, 8),
    ]
    now = in_force(run, feed.name)
    for day, one in known.items():
        assert now[day].inputs == one.inputs
        assert now[day].rows == one.rows
        assert now[day].attempt > one.attempt
    # The same rows as from the file: nothing is new in it.
    night(environment, feed, SECOND)
    second = date.fromisoformat(SECOND)
    assert in_force(run, feed.name)[second].version == now[second].version
    run, _ = night(environment, feed, THIRD)
    assert read_by_all(run, feed, "extra")[-1] == (4, 9)


def test_a_wider_number_is_rewritten_and_a_narrower_one_is_refused_with_the_ways_out(
    environment: Environment, added: Feed
) -> None:
    wider = declared(added, "id", "long")
    run = run_of(environment, wider)
    assert migrate(run, None, is_dry=False)[0] == 0
    assert types(run, wider)["id"] == "long"
    assert read_by_all(run, wider, "note") == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
    ]
    before = version(run, wider.name)
    code, rows = migrate(run_of(environment, added), None, is_dry=False)
    assert code == 1
    assert rows[0][:4] == ("toy.readings", "id", "long", "integer")
    assert "refused: not every long is read as integer without loss" in str(rows[0][4])
    assert version(run, wider.name) == before
    # The first of the ways out: all days in one run.
    night(environment, added, FIRST, SECOND)
    assert types(run, added)["id"] == "integer"
    assert read_by_all(run_of(environment, added), added, "extra") == [
        (1, None),
        (2, "7"),
        (3, " 08 "),
    ]


def test_days_that_were_migrated_are_outdated_until_their_files_are_read_by_the_declaration(
    spark: SparkSession, environment: Environment
) -> None:
    counted = declared(feed_with("refuse"), "note", "int")
    rows = [
        ("0", FIRST, "1", "3"),
        ("1", FIRST, "1", "4"),
        ("2", FIRST, "1", "0.5"),
    ]
    write_rows(environment, counted, FIRST, rows)
    night(environment, counted, FIRST)
    feed = declared(counted, "note", "double")
    run = run_of(environment, feed)
    assert migrate(run, None, is_dry=False)[0] == 0
    # What was no int is refused still.
    assert read_by_all(run, feed, "note") == [(0, 3.0), (1, 4.0)]
    day = date.fromisoformat(FIRST)
    assert in_force(run, feed.name)[day].definition != digest(feed)
    night(environment, feed, FIRST)
    assert read_by_all(run, feed, "note") == [
        (0, 3.0),
        (1, 4.0),
        (2, 0.5),
    ]
    assert in_force(run, feed.name)[day].definition == digest(feed)


def test_a_table_over_a_night_that_was_left_out_is_told_to_land_it_first(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    run = run_of(environment, declared(feed_with("ignore"), "id", "date"))
    for day in (date(2013, 1, 1), date(2013, 1, 3)):
        publish_known(replace(run, days=Days.of(day)), [1], day)
    code, rows = migrate(run, None, is_dry=False)
    assert code == 1
    (told,) = [row[4] for row in rows if row[1] == "id"]
    assert told == (
        "refused: not every integer is read as date without loss. Land the files of night "
        "2013-01-02, which was left out (1 in all). Make all days of the table anew from their "
        "files in one run (nightshift run toy --restate --from F --to L), or declare it under "
        "another name"
    )


@pytest.mark.parametrize("is_dry", [True, False])
def test_a_table_without_days_gets_another_type_with_the_first(
    environment: Environment, added: Feed, is_dry: bool
) -> None:
    empty = replace(added, name="others", path="others/{date}.csv")
    write_rows(environment, empty, FIRST, [])
    night(environment, empty, FIRST)
    # Also one as which not every other is read: there is none.
    feed = declared(declared(empty, "id", "string"), "note", "int")
    run = run_of_feeds(environment, [feed, added], FIRST).at(stage("check_raw"))
    told = "no day is there: the first that is published brings the type"
    code, rows = migrate(run, None, is_dry=is_dry)
    assert (code, rows[:2]) == (
        0,
        [
            ("toy.others", "id", "integer", "string", told),
            ("toy.others", "note", "string", "integer", told),
        ],
    )
    # The feeds after it are looked at too.
    assert [row[:2] for row in rows[2:]] == [("toy.readings", "extra")]
    write_rows(environment, feed, SECOND, [("one", FIRST, "0.5", "7")])
    night(environment, feed, SECOND)
    found = types(run, feed)
    assert (found["id"], found["note"]) == ("string", "integer")


def test_texts_that_are_no_such_value_are_told_with_the_first_and_stay(
    environment: Environment, added: Feed
) -> None:
    write(
        environment,
        added,
        THIRD,
        [
            ("4", FIRST, "1", "d", "seven"),
            ("5", FIRST, "1", "e", "x"),
        ],
    )
    night(environment, added, THIRD)
    run = run_of(environment, declared(added, "extra", "int"))
    before = version(run, added.name)
    code, rows = migrate(run, None, is_dry=False)
    assert code == 1
    assert rows[0][4] == (
        "refused, because not all is integer: 2 value(s), the first in "
        f"toy/readings/{THIRD}.csv, line 2: extra: 'seven' is not an int"
    )
    assert version(run, added.name) == before


def test_a_type_in_which_rows_would_share_a_key_or_lack_what_is_required_is_refused(
    spark: SparkSession, environment: Environment
) -> None:
    numbered = (Column(name="code"), Column(name="size", required=True, null_token="-9"))
    feed = replace(feed_with("refuse"), columns=numbered, key=("code",))
    rows = [("1", "3"), ("01", "-9.0"), ("2", "5")]
    write_rows(environment, feed, FIRST, rows)
    write_rows(environment, feed, SECOND, [("1", "4")])
    night(environment, feed, FIRST, SECOND)
    run = run_of(environment, declared(feed, "code", "int"))
    before = version(run, feed.name)
    clash = (
        "refused, because rows would share a key: 1 row(s), the first in "
        f"toy/readings/{FIRST}.csv, line 3: key: code 1 comes twice, first on line 2. Make all "
        "days of the table anew from their files in one run (nightshift run toy --restate --from F "
        "--to L), or declare it under another name"
    )
    assert migrate(run, None, is_dry=False) == (
        1,
        [("toy.readings", "code", "string", "integer", clash)],
    )
    required = Column(name="size", type="double", required=True, null_token="-9")
    run = run_of(environment, replace(feed, columns=(numbered[0], required)))
    assert migrate(run, None, is_dry=False)[1][0][4] == (
        "refused, because not all is double: 1 value(s), the first in "
        f"toy/readings/{FIRST}.csv, line 3: size: no value, but it is required"
    )
    assert version(run, feed.name) == before


def publish_known(run: Run, ids: list[int], known: date) -> None:
    rows = staged(
        run,
        {run.night: ids},
        "readings",
        Origin(known={run.night: known}),
    )
    publish(run, "readings", rows)


def test_a_day_that_nights_see_in_two_versions_gets_another_type_only_when_it_is_said(
    tmp_path: Path,
) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    run = run_of(environment, declared(feed_with("ignore"), "id", "long"))
    for ids, known in (([1], 1), ([2], 6)):
        publish_known(run, ids, date(2013, 1, known))
    before = Knowledge(run).seen_by("readings", date(2013, 1, 2))
    for is_dry in (True, False):
        code, rows = migrate(run, None, is_dry=is_dry)
        assert code == 1
        (told,) = [row[4] for row in rows if row[1] == "id"]
        assert "refused: 1 day(s), the first is 2013-01-01, were corrected later" in str(told)
        assert "`nightshift migrate toy --restate`" in str(told)
    assert Knowledge(run).seen_by("readings", date(2013, 1, 2)) == before
    code, rows = migrate(run, None, is_dry=True, is_restating=True)
    assert "1 days would be rewritten, if all values fit" in [row[4] for row in rows]


def test_a_day_that_was_corrected_to_no_rows_is_seen_so_by_the_nights_before(
    environment: Environment, added: Feed
) -> None:
    day, before = date(2013, 1, 3), date(2013, 1, 4)
    corrected = Origin(known={day: date(2013, 1, 6)})
    third = replace(run_of(environment, added), days=Days.of(day))
    publish_known(third, [9], day)
    none = staged(third, {}, added.name, corrected)
    publish(third, added.name, none)
    seen = Knowledge(third).seen_by(added.name, before)[day]
    assert seen.checksum == checksum_of([9])
    run = run_of(environment, declared(added, "id", "long"))
    assert migrate(run, None, is_dry=False)[0] == 1
    assert migrate(run, None, is_dry=False, is_restating=True)[0] == 0
    seen = Knowledge(third).seen_by(added.name, before)[day]
    assert seen.checksum != checksum_of([9])
    assert seen.delta_version == version(third, added.name)


def test_what_came_late_is_known_no_earlier_in_another_type(
    environment: Environment, added: Feed
) -> None:
    run = run_of(environment, added)
    third = replace(
        run,
        days=Days.of(date(2013, 1, 3)),
        attempt=9,
    )
    publish_known(third, [9], date(2013, 1, 6))
    feed = declared(added, "id", "long")
    assert migrate(run_of(environment, feed), None, is_dry=False)[0] == 0
    assert types(run, feed)["id"] == "long"
    knowledge = Knowledge(run)
    assert third.night not in knowledge.seen_by(feed.name, date(2013, 1, 5))
    assert third.night in knowledge.seen_by(feed.name, date(2013, 1, 6))


def test_a_column_that_is_no_longer_declared_stays_for_its_days(
    environment: Environment, added: Feed
) -> None:
    columns = tuple(one for one in added.columns if one.name != "amount")
    feed = replace(added, columns=columns, new_columns="ignore")
    run = run_of(environment, feed)
    _, rows = migrate(run, None, is_dry=False)
    stays = "no longer declared: stays for the days that have it, null on later ones"
    assert rows[0] == ("toy.readings", "amount", "double", "", stays)
    write_rows(environment, added, THIRD, [("4", FIRST, "9", "d")])
    run, _ = night(environment, feed, THIRD)
    assert read_by_all(run, feed, "amount") == [
        (1, 0.5),
        (2, 1.5),
        (3, 2.5),
        (4, None),
    ]


def test_a_name_in_another_case_is_refused(environment: Environment, added: Feed) -> None:
    run = run_of(environment, declared(added, "Extra", "string"))
    code, rows = migrate(run, None, is_dry=False)
    assert code == 1
    assert rows[0][:2] == ("toy.readings", "Extra")
    assert "the names differ only in case" in str(rows[0][4])


def test_it_waits_for_a_run_of_the_pipeline(environment: Environment, added: Feed) -> None:
    run = run_of(environment, declared(added, "weight", "double"))
    before = version(run, added.name)
    migrating = threading.Thread(
        target=migrate,
        args=(run, None),
        kwargs={"is_dry": False},
    )
    with locks.hold(environment, "pipeline.toy"):
        migrating.start()
        migrating.join(timeout=1)
        assert migrating.is_alive()
        assert version(run, added.name) == before
    migrating.join()
    assert version(run, added.name) == before + 1


def test_a_run_that_waits_for_it_is_told_that_no_run_goes_on(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def meanwhile(run: Run, *_: object) -> list[object]:
        with pytest.raises(AwaitsTurn) as late, one_run_at_a_time(run, 0):
            pass
        told.append(str(late.value))
        return []

    monkeypatch.setattr("jobs.commands.migrate._of_feed", meanwhile)
    migrate(run_of(environment, feed_with("add")), None, is_dry=True)
    (why,) = told
    assert "The lock is held by `nightshift migrate`, which came at " in why


def test_a_table_that_is_no_feeds_is_refused_at_once_whatever_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("jobs.commands.migrate.one_run_at_a_time")
    run = run_of(Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)}), feed_with("add"))
    with pytest.raises(UsageError, match=r"toy\.training has the columns that its code makes"):
        migrate(run, "training", is_dry=False)
    with pytest.raises(UsageError, match="No table named 'reading'. Did you mean 'readings'?"):
        migrate(run, "reading", is_dry=False)


def test_the_command_says_that_nothing_is_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    assert main(["migrate", "flights", "--dry-run", "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == []
    assert "Every raw table has the columns that its feed declares." in printed.err
