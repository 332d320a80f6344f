"""The view of the files behind publications tells what `jobs/lake/lineage.py` follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.lake import lineage, ops
from jobs.lake.sql import query
from pipelines.days import Days
from pipelines.environment import ROOT, Environment

FIRST, SECOND = date(2013, 1, 1), date(2013, 1, 2)
THIRD, FOURTH = date(2013, 1, 3), date(2013, 1, 4)
RAW, SUMS, SCORING = "small.batches", "small.sums", "small.scoring"
TRAINING = "small.training"
LAST_VERSION = 99
DAYS = 4
MORNING = datetime(2013, 1, 1, 5, tzinfo=UTC)
Row = dict[str, Any]
Told = tuple[object, ...]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def _published(
    table: str,
    day: date,
    version: int,
    known: date | None,
    *inputs: Mapping[str, Any],
) -> Row:
    return {
        "pipeline": "small",
        "table_name": table,
        "day": day,
        "version": version,
        "attempt": version + 1,
        "run_id": f"run of {version}",
        "changed": True,
        "published_at": MORNING + timedelta(minutes=version),
        "known_day": known,
        "inputs": list(inputs),
    }


def _confirmed(
    row: Row,
    at: int,
    known: date | None,
    *inputs: Mapping[str, Any],
) -> Row:
    """What a run tells of rows that were in force already, at a minute of that morning."""
    told = {"known_day": known, "inputs": list(inputs), "run_id": f"run at {at}"}
    return {**row, **told, "changed": False, "published_at": MORNING + timedelta(minutes=at)}


def _file(day: date, digest: str) -> Row:
    name = f"small/batches/{day}.csv"
    return {"name": name, "first_day": day, "last_day": day, "digest": digest}


def _rows(
    table: str,
    days: Days,
    version: int | None,
    known_by: date | None,
    known_from: date | None = None,
) -> Row:
    return {
        "name": table,
        "first_day": days.first,
        "last_day": days.last,
        "version": version,
        "known_from": known_from or known_by,
        "known_by": known_by,
    }


def _behind(environment: Environment, table: str, day: date) -> list[Told]:
    of = f"WHERE table_name = '{table}' AND day = '{day}'"
    asked = f"SELECT version, digest FROM ops.files_behind {of} ORDER BY ALL"
    return query(environment, asked)[1]


def test_a_correction_is_behind_what_was_published_after_it(environment: Environment) -> None:
    first, both = Days.of(FIRST), Days(FIRST, SECOND)
    model = {"name": "models/small", "first_day": FIRST, "last_day": FIRST, "digest": "m"}
    rows = [
        _published(RAW, FIRST, 1, FIRST, _file(FIRST, "old")),
        _published(SCORING, FIRST, 1, FIRST, _rows(RAW, first, 1, FIRST)),
        # Found by the second night.
        _published(RAW, FIRST, 2, SECOND, _file(FIRST, "new")),
        _published(RAW, SECOND, 2, SECOND, _file(SECOND, "second")),
        _published(SCORING, SECOND, 2, SECOND, _rows(RAW, both, 2, SECOND)),
        # The first night once more: it sees what it saw, though the correction is there.
        _published(SCORING, FIRST, 3, FIRST, _rows(RAW, first, 2, FIRST)),
        _published("small.predictions", SECOND, 3, None, _rows(SCORING, first, 1, None), model),
    ]
    ops.append(environment, "publications", rows)
    assert _behind(environment, SCORING, FIRST) == [(1, "old"), (3, "old")]
    assert _behind(environment, SCORING, SECOND) == [(2, "new"), (2, "second")]
    assert _behind(environment, RAW, FIRST) == [(1, "old"), (2, "new")]
    assert _behind(environment, "small.predictions", SECOND) == [(3, "old")]


def test_what_is_told_of_a_file_later_is_not_behind_what_was_served_before(
    environment: Environment,
) -> None:
    first = Days.of(FIRST)
    landed = _published(RAW, FIRST, 1, FIRST, _file(FIRST, "as landed"))
    rows = [
        landed,
        _published(SCORING, FIRST, 2, FIRST, _rows(RAW, first, 1, FIRST)),
        # The file has landed again, with the same rows in other bytes.
        _confirmed(landed, 3, FIRST, _file(FIRST, "landed again")),
        _published(SCORING, SECOND, 4, SECOND, _rows(RAW, first, 1, SECOND)),
    ]
    ops.append(environment, "publications", rows)
    assert _behind(environment, RAW, FIRST) == [(1, "as landed"), (1, "landed again")]
    assert _behind(environment, SCORING, FIRST) == [(2, "as landed")]
    assert _behind(environment, SCORING, SECOND) == [(4, "landed again")]


def test_a_correction_that_is_restated_as_it_is_was_not_behind_what_was_served_before(
    environment: Environment,
) -> None:
    first = Days.of(FIRST)
    correction = _published(RAW, FIRST, 2, SECOND, _file(FIRST, "new"))
    of_first = [_rows(RAW, first, 2, FIRST)]
    rows = [
        _published(RAW, FIRST, 1, FIRST, _file(FIRST, "old")),
        correction,
        _published(SCORING, FIRST, 3, FIRST, *of_first),
        _confirmed(correction, 4, FIRST, _file(FIRST, "new")),
        _published(SCORING, FIRST, 5, FIRST, *of_first),
    ]
    ops.append(environment, "publications", rows)
    assert _behind(environment, SCORING, FIRST) == [(3, "old"), (5, "new")]


def test_rows_that_are_learned_from_on_two_evenings_have_behind_them_what_each_saw(
    environment: Environment,
) -> None:
    first = Days.of(FIRST)
    rows = [
        _published(RAW, FIRST, 1, FIRST, _file(FIRST, "old")),
        # Found by the second evening.
        _published(RAW, FIRST, 2, SECOND, _file(FIRST, "new")),
        _published(TRAINING, THIRD, 3, THIRD, _rows(RAW, first, 2, SECOND, FIRST)),
        # The evenings of a day later both knew the correction.
        _published(TRAINING, FOURTH, 4, FOURTH, _rows(RAW, first, 2, THIRD, SECOND)),
    ]
    ops.append(environment, "publications", rows)
    assert _behind(environment, TRAINING, THIRD) == [(3, "new"), (3, "old")]
    assert _digests(environment, TRAINING, THIRD) == {"new", "old"}
    assert _behind(environment, TRAINING, FOURTH) == [(4, "new")]
    assert _digests(environment, TRAINING, FOURTH) == {"new"}


def test_what_only_its_own_night_saw_is_behind_what_was_learned_over_that_night(
    environment: Environment,
) -> None:
    known_then = _rows(RAW, Days.of(SECOND), 1, SECOND)
    evenings = _rows(SUMS, Days(FIRST, THIRD), 2, THIRD, FIRST)
    rows = [
        _published(RAW, SECOND, 1, SECOND, _file(SECOND, "own")),
        # Made late, of what the night of its day knew.
        _published(SUMS, SECOND, 2, FOURTH, known_then),
        _published(TRAINING, FOURTH, 3, FOURTH, evenings),
    ]
    ops.append(environment, "publications", rows)
    assert _behind(environment, TRAINING, FOURTH) == [(3, "own")]
    assert _digests(environment, TRAINING, FOURTH) == {"own"}


def _digests(environment: Environment, table: str, day: date) -> set[str]:
    """Of the files that lineage tells."""
    found = lineage.behind(environment, "small", table, Days.of(day), LAST_VERSION)
    return set().union(*(one.digests for one in found))


def test_a_clock_that_was_set_back_hides_no_rows_from_what_was_made_of_them(
    environment: Environment,
) -> None:
    landed = _published(RAW, FIRST, 1, FIRST, _file(FIRST, "landed"))
    of_landed = _rows(RAW, Days.of(FIRST), 1, FIRST)
    made = _published(SCORING, FIRST, 0, FIRST, of_landed)
    ops.append(environment, "publications", [landed, made])
    assert _behind(environment, SCORING, FIRST) == [(0, "landed")]
    found = lineage.behind(environment, "small", SCORING, Days.of(FIRST), 0)
    assert [one.name for one in found] == [RAW, SCORING, "small/batches"]


def test_the_files_of_another_pipeline_are_its_own(environment: Environment) -> None:
    row = _published(RAW, FIRST, 1, FIRST, _file(FIRST, "own"))
    inputs = [_rows(RAW, Days.of(FIRST), 1, None)]
    other = {**row, "pipeline": "other", "inputs": inputs}
    ops.append(environment, "publications", [row, {**other, "table_name": "other.batches"}])
    assert query(environment, "SELECT pipeline, digest FROM ops.files_behind")[1] == [
        ("small", "own")
    ]


_NUMBERS = st.integers(0, DAYS - 1)
_KNOWN = st.one_of(st.none(), _NUMBERS)
_PUBLICATIONS = st.lists(
    st.tuples(
        st.sampled_from([RAW, SUMS, SCORING]),
        _NUMBERS,
        _KNOWN,
        st.integers(0, 2),
        st.one_of(st.none(), st.integers(0, 5)),
        _KNOWN,
        st.integers(0, 2),
        st.booleans(),
    ),
    min_size=1,
    max_size=14,
)
"""Each of a table: its day, from when it is known, and of what it was made: of how many days more,
in which version, and known by when, to the last of how many nights more. And whether it brings
rows, if its day has some already."""


@given(drawn=_PUBLICATIONS)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_view_tells_what_lineage_follows(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]
) -> None:
    lake = replace(environment, lake=str(tmp_path_factory.mktemp("lake")))
    rows = list(_distinct(drawn))
    ops.append(lake, "publications", rows)
    told: dict[Told, set[object]] = {}
    asked = "SELECT table_name, day, run_id, digest FROM ops.files_behind"
    for *of, digest in query(lake, asked)[1]:
        told.setdefault(tuple(of), set()).add(digest)
    for row in rows:
        table, day = row["table_name"], row["day"]
        version, at = row["version"], row["published_at"]
        found = lineage.behind(lake, "small", table, Days.of(day), version, at)
        digests = set().union(*(one.digests for one in found))
        assert told.get((table, day, row["run_id"]), set()) == digests


def _distinct(drawn: Sequence[Any]) -> list[Row]:
    """The publications, one a minute; each that brings rows in the next version of its table."""
    below = {SUMS: RAW, SCORING: SUMS}
    rows: list[Row] = []
    for number, one in enumerate(drawn):
        table, place, known, more, version, known_by, nights, brings = one
        day = FIRST + timedelta(days=place)
        last = _day(known_by)
        first = last and last - timedelta(days=nights)
        made_of = _file(day, f"file {number}")
        if table in below:
            days = Days(day - timedelta(days=more), day)
            made_of = _rows(below[table], days, version, last, first)
        own = [row for row in rows if row["table_name"] == table]
        of_day = [row for row in own if row["day"] == day]
        if of_day and not brings:
            rows.append(_confirmed(of_day[-1], number, _day(known), made_of))
            continue
        published = sum(row["changed"] for row in own)
        row = _published(table, day, published, _day(known), made_of)
        at = MORNING + timedelta(minutes=number)
        rows.append({**row, "run_id": f"run at {number}", "published_at": at})
    return rows


def _day(place: int | None) -> date | None:
    return None if place is None else FIRST + timedelta(days=place)


def test_the_statement_of_the_document_is_one_of_the_view(environment: Environment) -> None:
    text = (ROOT / "docs" / "how-to" / "sql.md").read_text()
    (statement,) = [one for one in text.split('"') if "FROM ops.files_behind" in one]
    file = {**_file(date(2013, 4, 3), "sha"), "name": "flights/flights/2013-04-03.csv"}
    row = _published("flights.scoring", date(2013, 4, 3), 1, None, file)
    ops.append(environment, "publications", [{**row, "pipeline": "flights"}])
    assert query(environment, statement)[1] == [(file["name"], "sha")]
