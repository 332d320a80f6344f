"""Which version of a day a night sees, and from when a drop is known."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from jobs.lake import ops
from jobs.lake.commits import publish
from jobs.lake.knowledge import Knowledge, visible
from jobs.lake.publications import Input, Origin, every, next_attempt, told_of
from jobs.lake.sql import query
from pipelines.days import Days
from pipelines.run import Run
from pipelines.spec import SCORING
from tests.jobs.lake.test_commits import TABLE, run_at, staged
from tests.jobs.toy import TOY, drop

DAYS = [date(2013, 1, day) for day in range(1, 10)]


def publish_known(run: Run, day: date, known: date | None, *ids: int) -> None:
    """Publish ids of a day, known from its own night or from the one that is given."""
    of_day = replace(run, days=Days.of(day))
    origin = Origin(known={day: known} if known else {})
    publish(
        of_day,
        TABLE,
        staged(of_day, {day: list(ids)} if ids else {}, TABLE, origin),
    )


def score(run: Run, *days: date) -> None:
    """Publish a row to score of each of the days."""
    for day in days:
        of_day = replace(run, days=Days.of(day))
        publish(of_day, SCORING, staged(of_day, {day: [1]}, SCORING))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Of four days, the second corrected by the fourth, the third found by it."""
    made = run_at(tmp_path, Days(DAYS[0], DAYS[3]))
    publish_known(made, DAYS[0], None, 1)
    publish_known(made, DAYS[1], None, 2)
    publish_known(made, DAYS[3], None, 4)
    publish_known(made, DAYS[1], DAYS[3], 20)
    publish_known(made, DAYS[2], DAYS[3], 3)
    return made


def checksums(seen: object) -> dict[date, str]:
    assert isinstance(seen, dict)
    return {day: one.checksum for day, one in sorted(seen.items())}


def test_a_night_sees_of_each_day_the_last_version_known_by_then(run: Run) -> None:
    knowledge = Knowledge.of_now(run)
    before = knowledge.seen_by(TABLE, DAYS[2])
    assert list(checksums(before)) == DAYS[:2]
    after = knowledge.seen_by(TABLE, DAYS[3])
    assert after == knowledge.latest(TABLE)
    assert before[DAYS[1]] != after[DAYS[1]]
    # Its own night found nothing of the third day.
    assert sorted(knowledge.seen_then(TABLE)) == [
        DAYS[0],
        DAYS[1],
        DAYS[3],
    ]
    assert knowledge.seen_then(TABLE)[DAYS[1]] == before[DAYS[1]]


def test_what_was_looked_up_stays_as_it_was_whatever_is_published_before_it_is_asked_for(
    run: Run,
) -> None:
    before = every(run, TABLE)
    told = told_of(run, [TABLE])[TABLE]
    knowledge = Knowledge.of_now(run)
    publish_known(run, DAYS[4], None, 5)
    assert list(told) == before
    assert len(told) == 5
    assert told[-1] == before[-1]
    assert told[1:3] == before[1:3]
    assert sorted(knowledge.latest(TABLE)) == DAYS[:4]
    assert len(told_of(run, [TABLE])[TABLE]) == 6
    assert len(every(run, TABLE)) == 6


def test_what_is_recorded_of_a_publication_is_what_its_commit_tells(run: Run) -> None:
    file = Input(
        name="toy/readings/é.csv",
        first_day=DAYS[5],
        last_day=DAYS[5],
        digest="f",
        version=1 << 62,
    )
    nights = Days(DAYS[4], DAYS[5])
    days = Knowledge(run).table_input(
        "scoring",
        Days(DAYS[0], DAYS[4]),
        nights,
    )
    three = replace(run, days=Days(DAYS[5], DAYS[7]))
    origin = Origin(
        definition="of today",
        inputs={
            DAYS[5]: (file, days),
            DAYS[6]: (),
            DAYS[7]: (days,),
        },
        known={DAYS[7]: DAYS[8]},
    )
    publish(
        three,
        TABLE,
        staged(
            three,
            {day: [1] for day in DAYS[5:8]},
            TABLE,
            origin,
        ),
    )
    recorded = every(run, TABLE)
    seen = replace(days, version=0)
    assert [one.inputs for one in recorded[-3:]] == [
        (file, seen),
        (),
        (seen,),
    ]
    assert all(one.published_at.tzinfo is UTC for one in recorded)
    shutil.rmtree(run.environment.table_path("ops.publications"))
    assert every(run, TABLE) == recorded
    # Nothing is recorded, and all of it is told by the log.
    assert list(told_of(run, [TABLE])[TABLE]) == recorded
    assert next_attempt(run, [TABLE]) == max(one.attempt for one in recorded) + 1


def test_what_becomes_known_later_changes_no_digest_of_an_earlier_night(run: Run) -> None:
    window = Days(DAYS[0], DAYS[2])
    nights = (
        Days.of(DAYS[2]),
        Days(DAYS[1], DAYS[2]),
        Days(DAYS[2], DAYS[3]),
        None,
    )
    before = [Knowledge(run).table_input(TABLE, window, seen_by).digest for seen_by in nights]
    assert before[0] == before[1]
    assert len(set(before)) == 3
    publish_known(run, DAYS[0], DAYS[4], 10)
    after = [Knowledge(run).table_input(TABLE, window, seen_by).digest for seen_by in nights]
    assert after[:3] == before[:3]
    assert after[3] != before[3]
    publish_known(run, DAYS[0], DAYS[3], 100)
    again = [Knowledge(run).table_input(TABLE, window, seen_by).digest for seen_by in nights]
    assert again[:2] == before[:2]
    assert again[2] != before[2]


def test_nights_are_cut_where_a_late_version_became_known(run: Run) -> None:
    knowledge = Knowledge(run)
    nights = Days(DAYS[0], DAYS[5])
    assert knowledge.pieces([TABLE], nights) == [
        Days(DAYS[0], DAYS[2]),
        Days(DAYS[3], DAYS[5]),
    ]
    whole = Days(DAYS[3], DAYS[5])
    assert knowledge.pieces([TABLE], whole) == [whole]
    assert knowledge.pieces(["sensors"], nights) == [nights]


def test_the_history_tells_every_version_that_a_night_sees(run: Run) -> None:
    columns = "landed_date, id, known_date, revision, is_in_force"
    statement = f"SELECT {columns} FROM toy.{TABLE}_history ORDER BY ALL"
    assert query(run.environment, statement)[1] == [
        (DAYS[0], 1, DAYS[0], 1, True),
        (DAYS[1], 2, DAYS[1], 1, False),
        (DAYS[1], 20, DAYS[3], 2, True),
        (DAYS[2], 3, DAYS[3], 1, True),
        (DAYS[3], 4, DAYS[3], 1, True),
    ]
    # Restated: no night sees what was known before.
    publish_known(run, DAYS[1], None, 7)
    of_second = f"SELECT id FROM toy.{TABLE}_history WHERE landed_date = '{DAYS[1]}'"
    assert query(run.environment, of_second)[1] == [(7,)]
    assert len(visible(every(run, TABLE))) == len(DAYS[:4])


def test_rows_that_were_there_already_are_not_known_later_than_before(run: Run) -> None:
    publish_known(run, DAYS[0], DAYS[3], 1)
    assert Knowledge(run).latest(TABLE)[DAYS[0]].known_day == DAYS[0]
    publish_known(run, DAYS[1], None, 20)
    # Restated by name, although the rows are those of the correction.
    seen = Knowledge(run).seen_by(TABLE, DAYS[1])
    assert seen[DAYS[1]].known_day == DAYS[1]


@pytest.mark.parametrize(
    ("day", "first", "last", "arrived_late", "expected"),
    [
        # Asked for by name, whatever was made since.
        (0, 0, 0, True, 0),
        (2, 1, 4, True, 2),
        # Caught up: nothing later was made.
        (4, 5, 5, True, 4),
        # It was there before the fourth night was made, and nobody asked for it.
        (2, 4, 4, False, 2),
        # It came when the fourth night had been made: the night that found it.
        (2, 4, 4, True, 4),
        # An old night found a correction: known after the last that was made.
        (0, 1, 1, True, 4),
        (1, 4, 5, False, 4),
    ],
)
def test_a_drop_is_known_from_its_own_day_or_from_the_night_that_found_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    day: int,
    first: int,
    last: int,
    arrived_late: bool,
    expected: int,
) -> None:
    made = run_at(tmp_path, Days(DAYS[0], DAYS[3]))
    for published in (0, 1, 3):
        publish_known(made, DAYS[published], None, published)
    score(made, DAYS[0], DAYS[1], DAYS[3])
    named = replace(
        made,
        days=Days.of(DAYS[day]),
        as_of=DAYS[last],
        named=DAYS[first],
    )
    hour = timedelta(hours=1 if arrived_late else -1)
    arrived = datetime.now(UTC) + hour
    monkeypatch.setattr("jobs.lake.knowledge.arrival", lambda _: arrived)
    found = Knowledge(named).day_of_drop(TABLE, DAYS[day])
    assert found == DAYS[expected]


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ("readings/{date}.csv", 4),
        ("notes/{date}.csv", 4),
        ("{date}.done", 4),
        # One that is new says nothing of when the night could be read.
        ("sensors.csv", 2),
        # An optional one that is there is read with the others.
        ("remarks/{date}.csv", 4),
        (None, 2),
    ],
)
def test_a_drop_is_known_since_the_last_of_its_nights_files_and_markers_is_there(
    tmp_path: Path, late: str | None, expected: int
) -> None:
    readings, sensors = TOY.feeds
    notes = replace(readings, name="notes", path="notes/{date}.csv", marker="{date}.done")
    remarks = replace(readings, name="remarks", path="remarks/{date}.csv", is_optional=True)
    pipeline = replace(TOY, feeds=(readings, notes, remarks, sensors))
    of_toy = run_at(tmp_path, Days(DAYS[0], DAYS[3]))
    made = replace(of_toy, pipeline=pipeline)
    in_time = {readings.path, notes.path, "{date}.done", sensors.path} - {late}
    for path in in_time:
        drop(made.environment, path.format(date=DAYS[2]), b"")
    publish_known(made, DAYS[3], None, 4)
    score(made, DAYS[3])
    if late:
        drop(made.environment, late.format(date=DAYS[2]), b"")
    named = replace(
        made,
        days=Days.of(DAYS[2]),
        as_of=DAYS[4],
        named=DAYS[4],
    )
    knowledge = Knowledge(named)
    daily = (readings, notes, remarks)
    found = {feed.name: knowledge.day_of_drop(feed.name, DAYS[2]) for feed in daily}
    assert found == dict.fromkeys(found, DAYS[expected])


@pytest.mark.parametrize(
    ("day", "scored", "expected"),
    [
        # Nobody has seen what it replaces.
        (1, (), 1),
        (1, (0,), 1),
        (1, (0, 1), 4),
        # Found by the fourth night, which nothing was made of.
        (2, (0, 1), 3),
        (2, (0, 1, 3), 4),
        # A later night has seen it, though its own has not.
        (1, (0, 2), 4),
    ],
)
def test_a_drop_is_known_as_what_it_replaces_where_nothing_was_scored_since(
    run: Run, day: int, scored: tuple[int, ...], expected: int
) -> None:
    if day == 1:
        publish_known(run, DAYS[1], None, 2)
    score(run, *(DAYS[one] for one in scored))
    of_day = Days.of(DAYS[day])
    finds = replace(run, days=of_day, as_of=DAYS[4], named=DAYS[4])
    assert Knowledge(finds).day_of_drop(TABLE, DAYS[day]) == DAYS[expected]


def test_publications_of_before_there_was_a_known_day_are_always_known(run: Run) -> None:
    rows = ops.read(run.environment, "publications").to_pylist()
    older = [{**row, "known_day": None} for row in rows]
    ops.replace(run.environment, "publications", older, "true")
    knowledge = Knowledge(run)
    assert knowledge.seen_by(TABLE, DAYS[0]) == knowledge.latest(TABLE)
    whole = Days(DAYS[0], DAYS[5])
    assert knowledge.pieces([TABLE], whole) == [whole]
