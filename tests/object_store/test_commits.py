"""Publishing to an object store: several writers, lost replies, a store that slows us down."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.lake.commits import publish
from jobs.lake.locations import path
from jobs.lake.publications import in_force
from jobs.lake.retention import clean_table
from jobs.lake.sql import query, tables
from jobs.services.leftovers import Rule
from pipelines import places
from tests.jobs.lake.test_commits import (
    FIRST,
    SECOND,
    TABLE,
    checksum_of,
    ids_of,
    publish_at_once,
    recorded,
    run_at,
    staged,
)
from tests.object_store.conftest import ObjectStore

_WRITERS = 4
_COMMITS = r".*/readings/_delta_log/\d+\.json"
"""Where a commit of the table is put."""


@pytest.fixture
def lake(store: ObjectStore) -> str:
    """A lake in a bucket of the test's own."""
    return f"s3://{store.new_bucket()}/lake"


def test_several_writers_at_once_lose_and_double_nothing(lake: str, tmp_path: Path) -> None:
    publish_at_once(tmp_path, _WRITERS, lake)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_commit_whose_reply_is_lost_is_there_once(
    is_first: bool, lake: str, store: ObjectStore, tmp_path: Path
) -> None:
    run = run_at(tmp_path, lake=lake)
    if not is_first:
        publish(run, TABLE, staged(run, {FIRST: [1], SECOND: [2]}))
    store.fail("lost", _COMMITS, "PUT", times=1)
    done = publish(
        run,
        TABLE,
        staged(run, {FIRST: [7, 8], SECOND: [2]}),
    )
    assert store.mend() == {"lost": 1}
    # It tells what it has changed, as if the reply had come.
    assert (done.changed, done.replaced) == (True, () if is_first else (FIRST,))
    assert ids_of(run) == {
        str(FIRST): [7, 8],
        str(SECOND): [2],
    }
    known = in_force(run, TABLE)
    assert known[FIRST].checksum == checksum_of([7, 8])
    told = [(row["day"], row["version"]) for row in recorded(run)]
    assert len(told) == len(set(told)) == (2 if is_first else 3)


def test_what_is_written_once_is_that_of_the_first_also_if_its_reply_is_lost(
    store: ObjectStore,
) -> None:
    file = places.place(f"s3://{store.new_bucket()}/new/began.json")
    store.fail("lost", ".*/began.json", "PUT", times=1)
    places.write_once(file, b"first")
    assert store.mend() == {"lost": 1}
    places.write_once(file, b"second")
    assert file.read_bytes() == b"first"


def test_a_store_that_slows_us_down_is_waited_for(
    lake: str, store: ObjectStore, tmp_path: Path
) -> None:
    run = run_at(tmp_path, lake=lake)
    waiting = staged(run, {FIRST: [1], SECOND: [2]})
    store.fail("throttled", ".*/_delta_log/.*", times=4)
    publish(run, TABLE, waiting)
    assert store.mend() == {"throttled": 4}
    assert ids_of(run) == {str(FIRST): [1], str(SECOND): [2]}


def test_what_was_published_is_queried_by_sql_and_what_is_in_use_stays(
    lake: str, tmp_path: Path
) -> None:
    run = run_at(tmp_path, lake=lake)
    publish(run, TABLE, staged(run, {FIRST: [1], SECOND: [2]}))
    publish(
        run,
        TABLE,
        staged(run, {FIRST: [3, 4], SECOND: [2]}),
    )
    assert "toy.readings" in tables(run.environment)
    statement = "SELECT count(*), sum(id) FROM toy.readings"
    assert query(run.environment, statement)[1] == [(3, 9)]
    rule = Rule(before=recorded(run)[-1]["published_at"], is_dry=False)
    cleaned = clean_table(path(run, TABLE), "toy.readings", rule, versions=[0])
    assert (cleaned.kept, cleaned.deleted) == (4, 0)
    assert ids_of(run) == {
        str(FIRST): [3, 4],
        str(SECOND): [2],
    }
