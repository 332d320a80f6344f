"""Publishing to an object store: several writers, lost replies, a store that slows us down."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from jobs.lake.commits import Fenced, publish
from jobs.lake.locations import path
from jobs.lake.publications import in_force
from jobs.lake.retention import clean_table
from jobs.lake.sql import query, tables
from jobs.services.leftovers import Rule
from pipelines.days import Days
from pipelines.run import Run
from tests.jobs.lake.test_commits import (
    BOTH,
    FIRST,
    SECOND,
    TABLE,
    checksum_of,
    ids_of,
    recorded,
    run_at,
    staged,
)
from tests.object_store.conftest import ObjectStore

_SPAWN = multiprocessing.get_context("spawn")
_WRITERS = 4
_TURNS = 3
_COMMITS = r".*/readings/_delta_log/\d+\.json"
"""Where a commit of the table is put."""


def run_in(lake: str, home: Path, days: Days = BOTH, attempt: int = 0) -> Run:
    run = run_at(home, days, attempt)
    return replace(run, environment=replace(run.environment, lake=lake))


@pytest.fixture
def lake(store: ObjectStore) -> str:
    """A lake in a bucket of the test's own."""
    return f"s3://{store.new_bucket()}/lake"


def _publish_days(lake: str, home: Path, number: int) -> None:
    """Publish a day of its own many times, and one that all processes publish."""
    own, shared = FIRST + timedelta(days=number), FIRST + timedelta(days=20)
    for turn in range(_TURNS):
        run = run_in(lake, home, Days.of(own))
        publish(run, TABLE, staged(run, {own: [number, turn]}))
        run = run_in(lake, home, Days.of(shared))
        try:
            publish(run, TABLE, staged(run, {shared: [1000 + number, turn]}))
        except Fenced:
            # Another was first: a later attempt would be the next to try.
            continue


def test_several_writers_at_once_lose_and_double_nothing(lake: str, tmp_path: Path) -> None:
    workers = [
        _SPAWN.Process(target=_publish_days, args=(lake, tmp_path, number))
        for number in range(_WRITERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * _WRITERS
    run = run_in(lake, tmp_path)
    seen = ids_of(run)
    for number in range(_WRITERS):
        assert seen[str(FIRST + timedelta(days=number))] == sorted([number, _TURNS - 1])
    shared = FIRST + timedelta(days=20)
    assert len(seen[str(shared)]) == 2
    assert checksum_of(seen[str(shared)]) == in_force(run, TABLE)[shared].checksum
    told = [(row["day"], row["version"]) for row in recorded(run)]
    assert len(told) == len(set(told)) == DeltaTable(path(run, TABLE)).version() + 1


@pytest.mark.parametrize("is_first", [True, False])
def test_a_commit_whose_reply_is_lost_is_there_once(
    is_first: bool, lake: str, store: ObjectStore, tmp_path: Path
) -> None:
    run = run_in(lake, tmp_path)
    if not is_first:
        publish(run, TABLE, staged(run, {FIRST: [1], SECOND: [2]}))
    store.fail("lost", _COMMITS, "PUT", times=1)
    publish(run, TABLE, staged(run, {FIRST: [7, 8], SECOND: [2]}))
    assert store.mend() == {"lost": 1}
    assert ids_of(run) == {str(FIRST): [7, 8], str(SECOND): [2]}
    known = in_force(run, TABLE)
    assert known[FIRST].checksum == checksum_of([7, 8])
    told = [(row["day"], row["version"]) for row in recorded(run)]
    assert len(told) == len(set(told))


def test_a_store_that_slows_us_down_is_waited_for(
    lake: str, store: ObjectStore, tmp_path: Path
) -> None:
    run = run_in(lake, tmp_path)
    waiting = staged(run, {FIRST: [1], SECOND: [2]})
    store.fail("throttled", ".*/_delta_log/.*", times=4)
    publish(run, TABLE, waiting)
    assert store.mend() == {"throttled": 4}
    assert ids_of(run) == {str(FIRST): [1], str(SECOND): [2]}


def test_what_was_published_is_queried_by_sql_and_what_is_in_use_stays(
    lake: str, tmp_path: Path
) -> None:
    run = run_in(lake, tmp_path)
    publish(run, TABLE, staged(run, {FIRST: [1], SECOND: [2]}))
    publish(run, TABLE, staged(run, {FIRST: [3, 4], SECOND: [2]}))
    assert "toy.readings" in tables(run.environment)
    statement = "SELECT count(*), sum(id) FROM toy.readings"
    assert query(run.environment, statement)[1] == [(3, 9)]
    rule = Rule(before=recorded(run)[-1]["published_at"], is_dry=False)
    cleaned = clean_table(path(run, TABLE), "toy.readings", rule, versions=[0])
    assert (cleaned.kept, cleaned.deleted) == (4, 0)
    assert ids_of(run) == {str(FIRST): [3, 4], str(SECOND): [2]}
