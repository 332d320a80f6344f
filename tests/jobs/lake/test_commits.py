"""Publishing: any number of processes at once, killed or stopped anywhere, and nothing is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import AddAction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.lake import commits, ops, publications
from jobs.lake.arrow_files import arrow_files
from jobs.lake.commits import Fenced, publish
from jobs.lake.data_files import DataFile, found_in
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import partition, path
from jobs.lake.publications import Origin, in_force, next_attempt
from jobs.lake.staging import Staging
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, Table
from pipelines.stages import stage
from tests.jobs.toy import TOY

TABLE = "readings"
FIRST = date(2013, 1, 5)
SECOND = date(2013, 1, 6)
BOTH = Days(FIRST, SECOND)
DERIVED = Table(
    name="copies",
    made_by="transform",
    reads=("readings",),
    key=("id",),
)
WITH_DERIVED = replace(TOY, derived=(DERIVED,))
_MOMENT = datetime.fromisoformat("2013-01-06T12:30")
"""Of a clock on the wall."""
_TURNS = 3
"""How often each of several processes publishes."""
_SPAWN = multiprocessing.get_context("spawn")
"""A forked child would share the threads' locks of its parent's libraries."""


def schema(partition: str = "landed_date", column: str = "id") -> dict[str, Any]:
    """Of rows with an id, as Spark and Delta write it."""
    types = {column: "integer", partition: "date"}
    fields = [
        {"name": name, "type": kind, "nullable": True, "metadata": {}}
        for name, kind in types.items()
    ]
    return {"type": "struct", "fields": fields}


def run_at(
    home: Path,
    days: Days = BOTH,
    attempt: int = 0,
    lake: str = "",
) -> Run:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(home), "NIGHTSHIFT_LAKE": lake})
    run = Run(pipeline=TOY, days=days, environment=environment)
    return replace(run.at(stage("check_raw")), attempt=attempt)


def staged(
    run: Run,
    ids: Mapping[date, list[int]],
    name: str = TABLE,
    origin: Origin | None = None,
    column: str = "id",
) -> Staging:
    """Rows as Spark would have staged them: a file a day, and a checksum that tells ids apart."""
    folder = f"runs/{uuid4().hex}"
    system = arrow_files(path(run, name))
    for day, values in ids.items():
        where = f"{folder}/{partition(run, name)}={day}"
        system.create_dir(where)
        rows = pa.table({column: pa.array(values, pa.int32())})
        pq.write_table(rows, f"{where}/part-0.parquet", filesystem=system)
    return Staging(
        folder=folder,
        attempt=run.attempt or next_attempt(run, [name]),
        schema=schema(partition(run, name), column),
        days=tuple(run.days),
        files=tuple(found_in(path(run, name), folder)),
        checksums={day: checksum_of(values) for day, values in ids.items()},
        origin=origin or Origin(),
    )


def staged_by(run: Run, definition: str) -> Staging:
    """One row of the first day, made by that definition."""
    return staged(run, {FIRST: [1]}, origin=Origin(definition=definition))


def checksum_of(ids: list[int]) -> str:
    """Tells ids apart that have the same sum."""
    return str(sum(one**3 + 1 for one in ids))


def ids_of(run: Run, name: str = TABLE) -> dict[str, list[int]]:
    """What a reader of the table sees, by day."""
    found: dict[str, list[int]] = {}
    for row in DeltaTable(path(run, name)).to_pyarrow_table().to_pylist():
        found.setdefault(str(row["landed_date"]), []).append(row["id"])
    return {day: sorted(values) for day, values in sorted(found.items())}


def recorded(run: Run, name: str = TABLE) -> list[dict[str, Any]]:
    rows = ops.read(run.environment, "publications", [("table_name", "=", f"toy.{name}")])
    return sorted(
        rows.to_pylist(),
        key=lambda row: (row["published_at"], row["day"]),
    )


def test_only_the_days_that_differ_are_replaced(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    publish(run, TABLE, staged(run, {FIRST: [1], SECOND: [2]}))
    published = publish(
        run,
        TABLE,
        staged(run, {FIRST: [1], SECOND: [3, 4]}),
    )
    assert published.changed
    assert ids_of(run) == {"2013-01-05": [1], "2013-01-06": [3, 4]}
    known = in_force(run, TABLE)
    assert [known[day].version for day in BOTH] == [0, 1]
    assert [known[day].rows for day in BOTH] == [1, 2]


def test_the_same_rows_are_published_again_where_a_file_of_their_day_was_deleted(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path)
    rows = {FIRST: [1], SECOND: [2]}
    publish(run, TABLE, staged(run, rows))
    (file,) = Path(path(run, TABLE)).rglob(f"*={FIRST}/*.parquet")
    file.unlink()
    published = publish(run, TABLE, staged(run, rows))
    assert published.changed
    assert published.replaced == ()
    assert ids_of(run) == {str(FIRST): [1], str(SECOND): [2]}
    assert [row["changed"] for row in recorded(run)] == [True] * 3
    # What was served is made anew by name alone.
    file = next(Path(path(run, TABLE)).rglob(f"*={SECOND}/*.parquet"))
    file.unlink()
    assert not publish(run, TABLE, staged(run, rows), keep_published=True).changed


def test_a_file_that_was_deleted_comes_back_by_another_definition_too(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    rows = {FIRST: [1], SECOND: [2]}
    publish(run, TABLE, staged(run, rows, origin=Origin(definition="before")))
    (file,) = Path(path(run, TABLE)).rglob(f"*={FIRST}/*.parquet")
    file.unlink()
    after = Origin(definition="after")
    # What was served stays, and is told: of a file that is gone nobody knows the columns.
    served = publish(run, TABLE, staged(run, rows, origin=after), keep_published=True)
    assert [one.day for one in served.kept] == [FIRST]
    published = publish(run, TABLE, staged(run, rows, origin=after))
    assert published.changed
    assert published.replaced == ()
    assert ids_of(run) == {str(FIRST): [1], str(SECOND): [2]}
    known = in_force(run, TABLE)
    assert [known[day].definition for day in BOTH] == ["after", "after"]


def test_a_file_of_another_table_is_replaced_by_another_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    add = commits._add

    def by_whole_path(column: str, file: DataFile) -> AddAction:
        return add(column, replace(file, path=f"{path(run, TABLE)}/{file.path}"))

    with monkeypatch.context() as copied:
        # As the log of a copy names it.
        copied.setattr(commits, "_add", by_whole_path)
        publish(run, TABLE, staged_by(run, "before"))
    assert publish(run, TABLE, staged_by(run, "after")).changed
    assert ids_of(run) == {str(FIRST): [1]}
    assert not publish(run, TABLE, staged_by(run, "again")).changed


def test_a_day_without_rows_is_published_too(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    publish(run, TABLE, staged(run, {SECOND: [2]}))
    assert in_force(run, TABLE)[FIRST].rows == 0
    publish(run, TABLE, staged(run, {}))
    assert ids_of(run) == {}
    assert [one.rows for one in in_force(run, TABLE).values()] == [0, 0]


def test_the_same_rows_from_other_inputs_make_no_version_and_are_recorded(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged_by(run, "before"))
    again = publish(run, TABLE, staged_by(run, "after"))
    assert (again.changed, again.version) == (False, 0)
    assert DeltaTable(path(run, TABLE)).version() == 0
    assert in_force(run, TABLE)[FIRST].definition == "after"
    once_more = publish(run, TABLE, staged_by(run, "after"))
    assert not once_more.changed
    assert [row["changed"] for row in recorded(run)] == [True, False]


def test_a_day_that_is_kept_stays_and_the_others_are_published(tmp_path: Path) -> None:
    served = run_at(tmp_path)
    publish(served, TABLE, staged(served, {FIRST: [1], SECOND: [2]}))
    third = SECOND + timedelta(days=1)
    run = run_at(tmp_path, Days(FIRST, third))
    other = staged(
        run,
        {FIRST: [1], SECOND: [3, 4], third: [5]},
    )
    published = publish(run, TABLE, other, keep_published=True)
    assert ids_of(run) == {"2013-01-05": [1], "2013-01-06": [2], "2013-01-07": [5]}
    assert (published.rows, published.changed, published.version) == (3, True, 1)
    (kept,) = published.kept
    assert (kept.day, kept.rows, kept.run_id) == (SECOND, 1, served.run_id)
    assert [row["day"] for row in recorded(run)] == [FIRST, SECOND, third]


def test_where_all_days_are_kept_nothing_is_written(tmp_path: Path) -> None:
    served = run_at(tmp_path)
    publish(served, TABLE, staged(served, {FIRST: [1], SECOND: [2]}))
    before = recorded(served)
    run = run_at(tmp_path)
    published = publish(run, TABLE, staged(run, {FIRST: [7]}), keep_published=True)
    assert (published.rows, published.changed, published.version) == (2, False, 0)
    assert [one.day for one in published.kept] == list(BOTH)
    assert DeltaTable(path(run, TABLE)).version() == 0
    assert recorded(run) == before


def test_what_is_kept_is_told_with_the_run_whose_rows_they_are(tmp_path: Path) -> None:
    day = Days.of(FIRST)
    served, confirming, late = (run_at(tmp_path, day) for _ in range(3))
    publish(served, TABLE, staged_by(served, "before"))
    publish(confirming, TABLE, staged_by(served, "after"))
    assert in_force(late, TABLE)[FIRST].run_id == confirming.run_id
    published = publish(late, TABLE, staged(late, {FIRST: [2]}), keep_published=True)
    (kept,) = published.kept
    assert kept.run_id == served.run_id


def of_long_ago(run: Run, ids: Mapping[date, list[int]]) -> DeltaTable:
    """A table that was published before there was a record of it."""
    for day, values in ids.items():
        rows = pa.table(
            {
                "id": pa.array(values, pa.int32()),
                "landed_date": [day] * len(values),
            }
        )
        write_deltalake(path(run, TABLE), rows, mode="append", partition_by=["landed_date"])
    return DeltaTable(path(run, TABLE))


def test_what_was_published_before_there_was_a_record_is_kept_too_and_recorded_once(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path)
    old = of_long_ago(run, {FIRST: [1, 2]})
    began = datetime.now(UTC)
    for turn in range(2):
        other = staged(run, {FIRST: [7], SECOND: [3]})
        published = publish(run, TABLE, other, keep_published=True)
        assert ids_of(run) == {"2013-01-05": [1, 2], "2013-01-06": [3]}
        assert published.changed == (turn == 0)
        (kept,) = published.kept
        assert kept.day == FIRST
        assert kept.rows == 2
        assert kept.version == old.version()
    names = itemgetter("day", "rows", "run_id")
    told = [names(row) for row in recorded(run)]
    assert told == [(FIRST, 2, ""), (SECOND, 1, run.run_id)]
    assert began - timedelta(hours=1) < recorded(run)[0]["published_at"] < began


def test_what_was_replaced_without_a_record_is_a_revision_that_stays(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    old = of_long_ago(run, {FIRST: [1, 2]})
    publish(run, TABLE, staged(run, {FIRST: [7]}))
    assert ids_of(run) == {"2013-01-05": [7]}
    versions = [one.version for one in publications.revisions(run.environment, f"toy.{TABLE}")]
    assert versions == [old.version(), old.version() + 1]


def test_a_day_is_kept_whatever_its_rows_were_made_from(tmp_path: Path) -> None:
    day = Days.of(FIRST)
    run = run_at(tmp_path, day)
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    before = Knowledge(run).table_input(TABLE, day)
    publish(run, "scoring", staged(run, {FIRST: [10]}, "scoring"))
    late = staged(
        run,
        {FIRST: [11]},
        "scoring",
        Origin(inputs={FIRST: (before,)}),
    )
    publish(run, TABLE, staged(run, {FIRST: [2]}))
    assert len(publish(run, "scoring", late, keep_published=True).kept) == 1


def test_a_kill_between_commit_and_record_is_repaired_by_reading_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    with monkeypatch.context() as killed:
        killed.setattr(publications, "record", _killed)
        with pytest.raises(KeyboardInterrupt):
            publish(run, TABLE, staged(run, {FIRST: [1, 2]}))
    assert [row["version"] for row in recorded(run)] == [0]
    assert in_force(run, TABLE)[FIRST].rows == 2
    # The number of the attempt that was killed is not given again.
    assert next_attempt(run, [TABLE]) == 3
    publish(run, TABLE, staged(run, {FIRST: [7]}))
    assert [(row["version"], row["rows"]) for row in recorded(run)] == [
        (0, 1),
        (1, 2),
        (2, 1),
    ]
    assert ids_of(run) == {"2013-01-05": [7]}


def test_what_a_kill_left_unrecorded_is_recorded_by_who_publishes_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    with monkeypatch.context() as killed:
        killed.setattr(publications, "record", _killed)
        with pytest.raises(KeyboardInterrupt):
            publish(run, TABLE, staged(run, {FIRST: [1, 2]}))
    assert recorded(run) == []
    again = publish(run, TABLE, staged(run, {FIRST: [1, 2]}))
    assert not again.changed
    (row,) = recorded(run)
    assert (row["version"], row["rows"]) == (0, 2)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_commits_of_other_programs_are_no_publications(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    DeltaTable(path(run, TABLE)).optimize.compact()
    DeltaTable(path(run, TABLE)).delete("id = 99")
    assert in_force(run, TABLE)[FIRST].version == 0
    publish(run, TABLE, staged(run, {FIRST: [2]}))
    assert ids_of(run) == {"2013-01-05": [2]}


def test_rows_made_from_what_has_been_replaced_since_are_not_published(tmp_path: Path) -> None:
    day = Days.of(FIRST)
    run = run_at(tmp_path, day)
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    before = Knowledge(run).table_input(TABLE, day)
    derived = staged(
        run,
        {FIRST: [10]},
        "scoring",
        Origin(inputs={FIRST: (before,)}),
    )
    publish(run, TABLE, staged(run, {FIRST: [2]}))
    with pytest.raises(Fenced, match=r"toy.readings for 2013-01-05 that have been replaced"):
        publish(run, "scoring", derived)
    after = Knowledge(run).table_input(TABLE, day)
    publish(
        run,
        "scoring",
        staged(
            run,
            {FIRST: [20]},
            "scoring",
            Origin(inputs={FIRST: (after,)}),
        ),
    )
    assert ids_of(run, "scoring") == {"2013-01-05": [20]}
    assert in_force(run, "scoring")[FIRST].inputs[0].version == 1


def test_rows_made_without_those_that_their_own_night_has_lost_are_not_published(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, Days.of(SECOND))
    for day in BOTH:
        of_day = run_at(tmp_path, Days.of(day))
        publish(of_day, TABLE, staged(of_day, {day: [1]}))

    def made() -> Staging:
        window = Knowledge(run).table_input(TABLE, BOTH)
        origin = Origin(inputs={SECOND: (window,)})
        return staged(run, {SECOND: [10]}, "scoring", origin)

    truncate_log(run, after=0)
    with pytest.raises(Fenced) as refused:
        publish(run, "scoring", made())
    assert str(refused.value) == (
        f"toy.scoring for {SECOND} was made without toy.readings of that day, which "
        f"{path(run, TABLE)} had and has lost: nothing of it was published. Have that folder back "
        "from a backup, or have the night make its rows anew: "
        f"nightshift run toy --date {SECOND}"
    )
    publish(run, TABLE, staged(run, {SECOND: [1]}))
    publish(run, "scoring", made())
    assert ids_of(run, "scoring") == {str(SECOND): [10]}


def test_lost_rows_of_a_feed_that_has_none_due_any_more_keep_no_night_from_being_made(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, Days.of(SECOND))
    for day in BOTH:
        of_day = run_at(tmp_path, Days.of(day))
        publish(of_day, TABLE, staged(of_day, {day: [1]}))
    truncate_log(run, after=0)
    readings, sensors = run.pipeline.feeds
    ended = replace(readings, last_day=FIRST)
    run = replace(run, pipeline=replace(run.pipeline, feeds=(ended, sensors)))
    own = Knowledge(run).table_input(TABLE, Days.of(SECOND))
    origin = Origin(inputs={SECOND: (own,)})
    publish(run, "scoring", staged(run, {SECOND: [10]}, "scoring", origin))
    assert ids_of(run, "scoring") == {str(SECOND): [10]}


def test_a_day_that_was_not_there_is_another_input_than_one_without_rows(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    with_hole = Knowledge(run).table_input(TABLE, BOTH)
    later = run_at(tmp_path, Days.of(SECOND))
    publish(later, TABLE, staged(later, {}))
    filled = Knowledge(run).table_input(TABLE, BOTH)
    assert with_hole.digest != filled.digest


def test_a_new_column_is_null_on_days_of_before(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    note = {"name": "note", "type": "string", "nullable": True, "metadata": {}}
    later = run_at(tmp_path, Days.of(SECOND))
    wider = replace(
        staged(
            later,
            {SECOND: [2]},
        ),
        schema={**schema(), "fields": [*schema()["fields"], note]},
    )
    publish(later, TABLE, wider)
    rows = DeltaTable(path(run, TABLE)).to_pyarrow_table()
    assert rows["note"].to_pylist() == [None, None]
    narrower = publish(later, TABLE, staged(later, {SECOND: [3]}))
    assert narrower.changed
    assert "note" in DeltaTable(path(run, TABLE)).to_pyarrow_table().column_names


def test_a_column_that_is_called_otherwise_is_published_whatever_it_holds(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    before, after = Origin(definition="before"), Origin(definition="after")
    publish(
        run,
        TABLE,
        staged(run, {FIRST: [1], SECOND: [2]}, origin=before),
    )
    # A night after the other: the table has the column from the first one on.
    for day, value in ((FIRST, 1), (SECOND, 2)):
        of_day = run_at(tmp_path, Days.of(day))
        renamed = staged(of_day, {day: [value]}, origin=after, column="number")
        assert publish(of_day, TABLE, renamed).changed
        again = staged(of_day, {day: [value]}, origin=after, column="number")
        assert not publish(of_day, TABLE, again).changed
    rows = DeltaTable(path(run, TABLE)).to_pyarrow_table()
    assert sorted(rows["number"].to_pylist()) == [1, 2]
    assert rows["id"].to_pylist() == [None, None]


def test_another_definition_that_gives_the_same_columns_changes_nothing(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    for definition in ("before", "after"):
        origin = Origin(definition=definition)
        published = publish(
            run,
            TABLE,
            staged(run, {FIRST: [1], SECOND: []}, origin=origin),
        )
    assert not published.changed
    assert publications.in_force(run, TABLE)[FIRST].definition == "after"


def test_a_column_of_another_type_is_refused_by_its_name(tmp_path: Path) -> None:
    both = run_at(tmp_path)
    publish(both, TABLE, staged(both, {FIRST: [1], SECOND: [2]}))
    run = run_at(tmp_path, Days.of(FIRST))
    other = json.loads(json.dumps(schema()).replace("integer", "string"))
    with pytest.raises(NightshiftError, match="column 'id' is integer in the table, and string"):
        publish(
            run,
            TABLE,
            replace(staged(run, {FIRST: [2]}), schema=other),
        )
    assert ids_of(run) == {"2013-01-05": [1], "2013-01-06": [2]}


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        (TABLE, "`nightshift migrate toy` tells what can be done"),
        # Made by code: it has no file to be read anew.
        ("scoring", "`nightshift run toy --restate --from 2013-01-05 --to 2013-01-06` makes all"),
        (PREDICTIONS, "`nightshift run toy --restate --rescore --from 2013-01-04 --to 2013-01-05`"),
    ],
)
def test_a_column_of_another_type_is_refused_with_what_its_table_takes(
    tmp_path: Path, name: str, way_out: str
) -> None:
    both = run_at(tmp_path)
    publish(
        both,
        name,
        staged(both, {FIRST: [1], SECOND: [2]}, name),
    )
    run = run_at(tmp_path, Days.of(FIRST))
    waiting = staged(run, {FIRST: [2]}, name)
    other = json.loads(json.dumps(waiting.schema).replace("integer", "string"))
    with pytest.raises(NightshiftError, match=re.escape(way_out)):
        publish(run, name, replace(waiting, schema=other))


@pytest.mark.parametrize(
    ("table", "also"),
    [
        (DERIVED, "; or delete .*/toy.copies, which the next night makes anew, without older"),
        # Models pin what they have learned from.
        (TOY.table("training"), "; or give the column its old type"),
    ],
    ids=["derived", "training"],
)
def test_a_column_of_another_type_over_a_night_that_was_left_out_is_told_what_mends_it(
    table: Table, also: str, tmp_path: Path
) -> None:
    last = SECOND + timedelta(days=2)
    # Of the second day no row was there, and after it is the gap.
    parts: dict[Days, dict[date, list[int]]] = {
        BOTH: {FIRST: [1]},
        Days.of(last): {last: [4]},
    }
    for days, ids in parts.items():
        run = replace(run_at(tmp_path, days), pipeline=WITH_DERIVED)
        publish(run, table.name, staged(run, ids, table.name))
    waiting = staged(run, {last: [5]}, table.name)
    other = json.loads(json.dumps(waiting.schema).replace("integer", "string"))
    told = (
        r"No run makes all of its days anew in one go, because night 2013-01-07 was left out \(1 "
        r"in all\): land what it lacks, and `nightshift run toy --restate --from 2013-01-05 --to "
        rf"2013-01-08` does{also}"
    )
    with pytest.raises(NightshiftError, match=told):
        publish(run, table.name, replace(waiting, schema=other))


def test_a_column_gets_another_type_when_all_days_of_the_table_are_replaced(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path)
    publish(run, TABLE, staged(run, {FIRST: [1], SECOND: [2]}))
    wider = staged(run, {FIRST: [1], SECOND: [3]})
    for file in wider.files:
        place = Path(path(run, TABLE)) / file.path
        rows = pq.read_table(place, partitioning=None)
        pq.write_table(
            rows.cast(pa.schema({"id": pa.int64()})),
            place,
        )
    other = json.loads(json.dumps(schema()).replace("integer", "long"))
    # Read anew: the files have other sizes.
    files = tuple(found_in(path(run, TABLE), wider.folder))
    publish(run, TABLE, replace(wider, schema=other, files=files))
    now = DeltaTable(path(run, TABLE)).to_pyarrow_table()
    assert now.schema.field("id").type == pa.int64()
    # The first day too, whose rows say the same.
    assert ids_of(run) == {"2013-01-05": [1], "2013-01-06": [3]}
    before = DeltaTable(path(run, TABLE), version=0).to_pyarrow_table()
    assert before.schema.field("id").type == pa.int32()


def test_lists_of_which_one_may_lack_a_value_are_of_the_type_of_those_that_do_not(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))

    def staged_lists(run: Run, may_lack: bool, values: list[int | None]) -> Staging:
        waiting = staged(run, {run.days.first: [1]})
        (file,) = waiting.files
        rows = pa.table({"id": [1], "listed": [values]})
        pq.write_table(rows, Path(path(run, TABLE)) / file.path)
        kind = {"type": "array", "elementType": "long", "containsNull": may_lack}
        listed = {"name": "listed", "type": kind, "nullable": True, "metadata": {}}
        fields = [*schema()["fields"], listed]
        files = tuple(found_in(path(run, TABLE), waiting.folder))
        return replace(waiting, files=files, schema={"type": "struct", "fields": fields})

    # As a home of before has them.
    publish(run, TABLE, staged_lists(run, may_lack=False, values=[1]))
    later = run_at(tmp_path, Days.of(SECOND))
    publish(later, TABLE, staged_lists(later, may_lack=True, values=[1, None]))
    publish(run, TABLE, staged_lists(run, may_lack=False, values=[1]))
    table = DeltaTable(path(run, TABLE))
    rows_ = table.to_pyarrow_table().sort_by("landed_date")
    assert rows_["listed"].to_pylist() == [[1], [1, None]]
    (listed,) = [field for field in table.schema().fields if field.name == "listed"]
    assert json.loads(listed.type.to_json())["containsNull"] is True


_WITHOUT_ZONE = "timestamp_ntz"
_LIST = {"type": "array", "elementType": _WITHOUT_ZONE, "containsNull": True}
_AT = {"name": "at", "type": _WITHOUT_ZONE, "nullable": True}


def staged_with(run: Run, kind: Any, value: object) -> Staging:
    """A row with an id and a local time, as a column of that type of Delta."""
    waiting = staged(run, {run.days.first: [1]})
    (file,) = waiting.files
    ids = pa.array([1], pa.int32())
    rows = pa.table({"id": ids, "local": [value]})
    pq.write_table(rows, Path(path(run, TABLE)) / file.path)
    local = {"name": "local", "type": kind, "nullable": True, "metadata": {}}
    fields = [*schema()["fields"], local]
    files = tuple(found_in(path(run, TABLE), waiting.folder))
    return replace(waiting, files=files, schema={"type": "struct", "fields": fields})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (_WITHOUT_ZONE, _MOMENT),
        (_LIST, [_MOMENT]),
        ({"type": "struct", "fields": [_AT]}, {"at": _MOMENT}),
    ],
    ids=["column", "list", "part"],
)
def test_moments_without_a_zone_are_refused_where_a_table_began_without_any(
    kind: Any, value: object, tmp_path: Path
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    later = run_at(tmp_path, Days.of(SECOND))
    message = (
        r"toy.readings: column 'local' has moments without a zone \(timestamp_ntz\), and .* "
        r"Give `CAST\(local AS TIMESTAMP\)` in its place"
    )
    with pytest.raises(NightshiftError, match=message):
        publish(later, TABLE, staged_with(later, kind, value))
    assert DeltaTable(path(run, TABLE)).version() == 0
    assert ids_of(run) == {str(FIRST): [1]}


def test_a_table_may_begin_with_moments_without_a_zone_and_get_more_of_them(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged_with(run, _WITHOUT_ZONE, _MOMENT))
    later = run_at(tmp_path, Days.of(SECOND))
    wider = staged_with(later, _WITHOUT_ZONE, _MOMENT)
    more = {"name": "more", "type": _WITHOUT_ZONE, "nullable": True, "metadata": {}}
    fields = [*wider.schema["fields"], more]
    publish(later, TABLE, replace(wider, schema={"type": "struct", "fields": fields}))
    rows = DeltaTable(path(run, TABLE)).to_pyarrow_table()
    assert rows["local"].to_pylist() == [_MOMENT, _MOMENT]
    assert rows["more"].to_pylist() == [None, None]


def test_a_column_that_differs_from_another_only_in_case_is_refused(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    twin = {"name": "ID", "type": "string", "nullable": True, "metadata": {}}
    fields = [*schema()["fields"], twin]
    wider = replace(
        staged(run, {FIRST: [2]}),
        schema={"type": "struct", "fields": fields},
    )
    with pytest.raises(NightshiftError, match="column 'ID' differs only in case from 'id'"):
        publish(run, TABLE, wider)
    assert ids_of(run) == {"2013-01-05": [1]}


def test_days_that_are_told_by_another_column_are_refused_with_the_way_out(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, PREDICTIONS, staged(run, {FIRST: [1]}, PREDICTIONS))
    event = TOY.event_date
    entity = ("about", *(name for name in TOY.entity if name != event))
    renamed = replace(run, pipeline=replace(TOY, entity=entity, event_date="about"))
    way_out = f"as 'about', and is '{event}' in the table.* Name the column '{event}' again"
    with pytest.raises(NightshiftError, match=way_out):
        publish(renamed, PREDICTIONS, staged(renamed, {FIRST: [2]}, PREDICTIONS))
    # Before anything is made of what could never be published.
    with pytest.raises(NightshiftError, match=way_out):
        commits.refuse_another_partition(renamed, PREDICTIONS)
    publish(run, PREDICTIONS, staged(run, {FIRST: [3]}, PREDICTIONS))


def _publish_days(
    home: Path,
    lake: str,
    number: int,
    own: date,
    shared: date,
) -> None:
    """Publish a day of its own many times, and one that all processes publish."""
    for turn in range(_TURNS):
        run = run_at(home, Days.of(own), lake=lake)
        publish(run, TABLE, staged(run, {own: [number, turn]}))
        run = run_at(home, Days.of(shared), lake=lake)
        try:
            publish(run, TABLE, staged(run, {shared: [1000 + number, turn]}))
        except Fenced:
            # Another was first: a later attempt would be the next to try.
            continue


def publish_at_once(home: Path, processes: int, lake: str = "") -> None:
    """Have processes publish days of their own and a shared one; nothing is lost or doubled."""
    days = [FIRST + timedelta(days=n) for n in range(processes)]
    shared = FIRST + timedelta(days=20)
    workers = [
        _SPAWN.Process(target=_publish_days, args=(home, lake, number, day, shared))
        for number, day in enumerate(days)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * processes
    run = run_at(home, lake=lake)
    seen = ids_of(run)
    for number, day in enumerate(days):
        assert seen[str(day)] == sorted([number, _TURNS - 1])
    # One of them published it last, whole.
    assert len(seen[str(shared)]) == 2
    known = in_force(run, TABLE)
    assert checksum_of(seen[str(shared)]) == known[shared].checksum
    # What is recorded is what the log tells, each once.
    told = [(row["day"], row["version"]) for row in recorded(run)]
    versions = DeltaTable(path(run, TABLE)).version() + 1
    assert len(told) == len(set(told)) == versions


def test_eight_processes_publish_at_once_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    publish_at_once(tmp_path, 8)


def _stop_then_publish(home: Path, function: str) -> None:
    """Publish, and be stopped as soon as a function of `commits` is called."""
    run = run_at(home, Days.of(FIRST), attempt=1)
    late = staged(run, {FIRST: [1]})
    whole = getattr(commits, function)

    def stopped(*given: Any) -> Any:
        setattr(commits, function, whole)
        os.kill(os.getpid(), signal.SIGSTOP)
        return whole(*given)

    setattr(commits, function, stopped)
    try:
        publish(run, TABLE, late)
    except Fenced:
        os._exit(42)


@pytest.mark.parametrize(
    ("function", "is_there"),
    [
        ("_open", False),
        # Between what it has read and its commit.
        ("_commit", False),
        ("_commit", True),
    ],
)
def test_a_process_that_was_stopped_while_its_successor_published_is_refused(
    tmp_path: Path, function: str, is_there: bool
) -> None:
    if is_there:
        before = run_at(tmp_path, Days.of(SECOND))
        publish(before, TABLE, staged(before, {SECOND: [7]}))
    late = _SPAWN.Process(target=_stop_then_publish, args=(tmp_path, function))
    late.start()
    assert late.pid is not None
    _, status = os.waitpid(late.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    # It began before the other had published: both have the first number.
    successor = run_at(tmp_path, Days.of(FIRST), attempt=1)
    publish(successor, TABLE, staged(successor, {FIRST: [2]}))
    os.kill(late.pid, signal.SIGCONT)
    late.join()
    assert late.exitcode == 42
    other = {"2013-01-06": [7]} if is_there else {}
    assert ids_of(successor) == {"2013-01-05": [2], **other}


def test_a_late_attempt_says_nothing_of_rows_that_its_successor_has_published(
    tmp_path: Path,
) -> None:
    def waiting(run: Run, known: date) -> Staging:
        origin = Origin(definition=f"of {run.attempt}", known={FIRST: known})
        return staged(run, {FIRST: [1]}, origin=origin)

    first = Days.of(FIRST)
    late = run_at(tmp_path, first, attempt=1)
    successor = run_at(tmp_path, first, attempt=2)
    third = run_at(tmp_path, first, attempt=3)
    held = waiting(late, known=FIRST)
    publish(successor, TABLE, waiting(successor, known=SECOND))
    before = recorded(late)
    assert not publish(late, TABLE, held).changed
    assert recorded(late) == before
    # Of a person who restates the day it is heard.
    publish(third, TABLE, waiting(third, known=FIRST))
    restated = in_force(late, TABLE)[FIRST]
    assert (restated.known_day, restated.definition) == (FIRST, "of 3")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_commit_is_not_written_after_another_that_came_while_it_was_made(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = SECOND + timedelta(days=1)
    if is_there:
        before = run_at(tmp_path, Days.of(third))
        publish(before, TABLE, staged(before, {third: [7]}))
    commit = commits._commit

    def overtaken(*given: Any) -> None:
        monkeypatch.setattr(commits, "_commit", commit)
        # By delta-rs's rules the two do not conflict: both add a day that was not there.
        successor = run_at(tmp_path, Days.of(FIRST), attempt=1)
        publish(successor, TABLE, staged(successor, {FIRST: [2]}))
        commit(*given)

    monkeypatch.setattr(commits, "_commit", overtaken)
    late = run_at(tmp_path, attempt=1)
    with pytest.raises(Fenced):
        publish(late, TABLE, staged(late, {FIRST: [1], SECOND: [1]}))
    other = {"2013-01-07": [7]} if is_there else {}
    assert ids_of(late) == {"2013-01-05": [2], **other}
    # Of what another has not published nothing is lost: the loser looks again, and publishes.
    monkeypatch.setattr(commits, "_commit", overtaken)
    last = run_at(tmp_path, Days.of(SECOND))
    assert publish(last, TABLE, staged(last, {SECOND: [3]})).changed
    assert ids_of(late) == {"2013-01-05": [2], "2013-01-06": [3], **other}


def _rewrite(place: Path) -> None:
    """Other rows, as many as there were."""
    rows = pa.table({"id": pa.array([5], pa.int32())})
    pq.write_table(rows, place)


@pytest.mark.parametrize("alter", [_rewrite, Path.unlink])
def test_a_staged_file_that_is_not_the_one_that_was_judged_is_not_published(
    alter: Callable[[Path], None], tmp_path: Path
) -> None:
    run = run_at(tmp_path)
    publish(run, TABLE, staged(run, {FIRST: [1], SECOND: [2]}))
    waiting = staged(run, {FIRST: [3], SECOND: [4]})
    file = waiting.files[1]
    alter(Path(path(run, TABLE)) / file.path)
    message = rf"1 staged file\(s\) were changed or removed since, such as {file.path}\."
    with pytest.raises(NightshiftError, match=message):
        publish(run, TABLE, waiting)
    assert ids_of(run) == {"2013-01-05": [1], "2013-01-06": [2]}
    # Of a day that says what is in force already no file is published.
    unchanged = {**waiting.checksums, SECOND: checksum_of([2])}
    same = replace(waiting, checksums=unchanged)
    publish(run, TABLE, same)
    assert ids_of(run) == {"2013-01-05": [3], "2013-01-06": [2]}


def test_the_log_of_a_table_stays_however_old_it_is(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    first = Path(path(run, TABLE)) / "_delta_log" / f"{0:020}.json"
    long_ago = datetime(2013, 1, 1, tzinfo=UTC).timestamp()
    os.utime(first, (long_ago, long_ago))
    # Programs that tidy up do so when they write a checkpoint.
    for number in range(2, 13):
        publish(run, TABLE, staged(run, {FIRST: [number]}))
    table = DeltaTable(path(run, TABLE))
    assert list(first.parent.glob("*.checkpoint.parquet"))
    table.cleanup_metadata()
    assert first.exists()
    before = DeltaTable(path(run, TABLE), version=0).to_pyarrow_table()
    assert before["id"].to_pylist() == [1]
    assert table.metadata().configuration["delta.enableExpiredLogCleanup"] == "false"


def test_a_file_that_was_added_to_a_staging_is_not_published(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    waiting = staged(run, {FIRST: [1]})
    place = Path(path(run, TABLE)) / waiting.files[0].path
    _rewrite(place.with_name("part-1.parquet"))
    publish(run, TABLE, waiting)
    assert ids_of(run) == {"2013-01-05": [1]}


def test_a_commit_that_always_loses_gives_up_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    monkeypatch.setattr(commits, "_MOST_TRIES", 3)
    monkeypatch.setattr(commits, "_commit", _losing)
    with pytest.raises(NightshiftError, match="3 commits in a row lost"):
        publish(run, TABLE, staged(run, {FIRST: [1]}))


def _losing(*_: object) -> None:
    raise commits.CommitFailedError("version exists")


def test_a_commit_whose_reply_is_lost_is_told_and_recorded_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path)
    publish(run, TABLE, staged(run, {FIRST: [1], SECOND: [2]}))
    commit = commits._commit

    def without_reply(*given: Any) -> None:
        commit(*given)
        monkeypatch.setattr(commits, "_commit", commit)
        _losing()

    monkeypatch.setattr(commits, "_commit", without_reply)
    again = staged(run, {FIRST: [7, 8], SECOND: [2]})
    done = publish(run, TABLE, again)
    assert (done.rows, done.version) == (3, 1)
    assert done.changed
    assert done.replaced == (FIRST,)
    told = [(row["day"], row["version"]) for row in recorded(run)]
    days, versions = [FIRST, SECOND, FIRST], [0, 0, 1]
    assert told == list(zip(days, versions, strict=True))


_OLDEST = datetime(1900, 1, 1)  # noqa: DTZ001, because Hypothesis adds the zone
_LONGS = st.integers(-(2**63), 2**63 - 1)
_DATES = st.dates(date(1900, 1, 1), date(2100, 1, 1))
_VALUES = st.fixed_dictionaries(
    {
        "number": st.none() | _LONGS,
        "real": st.none() | st.floats(width=64),
        "text": st.none() | st.text(max_size=70),
        "day": st.none() | _DATES,
        "at": st.none() | st.datetimes(_OLDEST, timezones=st.just(UTC)),
    }
)
_ROWS = st.lists(_VALUES, min_size=1, max_size=4)
_ARROW = pa.schema(
    {
        "number": pa.int64(),
        "real": pa.float64(),
        "text": pa.string(),
        "day": pa.date32(),
        "at": pa.timestamp("us", tz="UTC"),
    }
)
_TYPES = {"number": "long", "real": "double", "text": "string", "day": "date", "at": "timestamp"}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=st.lists(_ROWS, min_size=1, max_size=3))
def test_a_reader_that_skips_files_by_their_bounds_misses_no_row(
    files: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    run = run_at(tmp_path / uuid4().hex)
    folder = Path(path(run, TABLE)) / "runs" / "x"
    days = [FIRST + timedelta(days=n) for n in range(len(files))]
    for day, rows in zip(days, files, strict=True):
        (folder / f"landed_date={day}").mkdir(parents=True)
        table = pa.Table.from_pylist(rows, schema=_ARROW)
        pq.write_table(table, folder / f"landed_date={day}" / "a.parquet", row_group_size=2)
    fields = [
        {"name": name, "type": kind, "nullable": True, "metadata": {}}
        for name, kind in {**_TYPES, "landed_date": "date"}.items()
    ]
    whole = Staging(
        folder="runs/x",
        attempt=1,
        schema={"type": "struct", "fields": fields},
        days=tuple(days),
        files=tuple(found_in(path(run, TABLE), "runs/x")),
        checksums=dict.fromkeys(days, "1"),
        origin=Origin(),
    )
    publish(
        replace(run, days=Days(days[0], days[-1])),
        TABLE,
        whole,
    )
    delta = DeltaTable(path(run, TABLE))
    for row in chain.from_iterable(files):
        for name, value in row.items():
            condition = pc.field(name).is_null()
            if value is not None:
                condition = pc.field(name) == pa.scalar(value, _ARROW.field(name).type)
            skipping = delta.to_pyarrow_dataset().scanner(filter=condition).to_table()
            reading_all = delta.to_pyarrow_table().filter(condition)
            assert len(skipping) == len(reading_all)


@pytest.mark.parametrize(
    ("kind", "far"),
    [
        (pa.timestamp("us", "UTC"), 253_402_318_799_000_000),
        (pa.timestamp("us", "UTC"), 253_402_300_799_999_999),
        (pa.timestamp("us", "UTC"), -70_000_000_000_000_000),
        (pa.date32(), 2_932_897),
        (pa.date32(), -1_000_000),
    ],
)
def test_a_file_with_a_day_that_python_has_not_is_published(
    tmp_path: Path, kind: pa.DataType, far: int
) -> None:
    folder = tmp_path / "runs" / "x" / f"landed_date={FIRST}"
    folder.mkdir(parents=True)
    until = pa.array([0, far], kind)
    rows = pa.table({"id": [1, 2], "until": until})
    pq.write_table(rows, folder / "a.parquet")
    (file,) = found_in(str(tmp_path), "runs/x")
    assert (file.rows, json.loads(file.stats)) == (2, {"numRecords": 2})


def truncate_log(run: Run, after: int) -> None:
    """Lose the newest commits of the table, as a restored backup does."""
    log = Path(path(run, TABLE)) / "_delta_log"
    for file in log.glob("*.json"):
        if file.stem.isdigit() and int(file.stem) > after:
            file.unlink()


def test_what_was_left_out_of_the_record_brings_back_nothing_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path)
    for number, day in enumerate((FIRST, SECOND, SECOND)):
        of_day = run_at(tmp_path, Days.of(day))
        publish(of_day, TABLE, staged(of_day, {day: [number]}))
    truncate_log(run, after=0)
    of_first = run_at(tmp_path, Days.of(FIRST))
    # The record is from a backup, too, or the commit from a home of before.
    with monkeypatch.context() as patched:
        patched.setattr(publications, "forget_lost", lambda *_: None)
        patched.setattr(publications, "record", lambda *_: None)
        publish(of_first, TABLE, staged(of_first, {FIRST: [7]}))
    assert in_force(run, TABLE).keys() == {FIRST}
    publications.record_left_out(run, publications.all_told(run))
    assert in_force(run, TABLE).keys() == {FIRST}
    # What is lost is there by numbers of its own, until its day comes again.
    versions = [row["version"] for row in recorded(run)]
    assert versions == [0, -2, -3, 1]
    of_second = run_at(tmp_path, Days.of(SECOND))
    publish(of_second, TABLE, staged(of_second, {SECOND: [2]}))
    assert [row["version"] for row in recorded(run)] == [0, 1, 2]


def test_a_table_whose_folder_is_gone_is_published_whole_again(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    ids = {FIRST: [1], SECOND: [2, 3]}
    publish(run, TABLE, staged(run, {FIRST: [7], SECOND: [8]}))
    publish(run, TABLE, staged(run, ids))
    shutil.rmtree(path(run, TABLE))
    assert in_force(run, TABLE) == {}
    published = publish(run, TABLE, staged(run, ids))
    assert (published.rows, published.changed, published.version) == (3, True, 0)
    assert ids_of(run) == {"2013-01-05": [1], "2013-01-06": [2, 3]}
    assert [row["version"] for row in recorded(run)] == [0, 0]


def test_what_is_recorded_of_versions_that_the_table_lost_is_in_force_no_more(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    for ids in ([1], [2], [3], [4]):
        publish(run, TABLE, staged(run, {FIRST: ids}))
    truncate_log(run, after=1)
    assert in_force(run, TABLE)[FIRST].version == 1
    # Not unchanged: readers see the rows of version 1.
    published = publish(run, TABLE, staged(run, {FIRST: [4]}))
    assert (published.changed, published.version) == (True, 2)
    assert ids_of(run) == {"2013-01-05": [4]}
    assert in_force(run, TABLE)[FIRST].version == 2
    assert [row["version"] for row in recorded(run)] == [0, 1, 2]


def test_a_commit_that_took_the_number_of_a_lost_one_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    for ids in ([1], [2], [3], [4]):
        publish(run, TABLE, staged(run, {FIRST: ids}))
    truncate_log(run, after=0)
    for ids in ([5], [6], [7]):
        # Killed before it could record.
        with monkeypatch.context() as patched:
            patched.setattr(publications, "record", _killed)
            with pytest.raises(KeyboardInterrupt):
                publish(run, TABLE, staged(run, {FIRST: ids}))
        known = in_force(run, TABLE)[FIRST]
        assert known.checksum == checksum_of(ids)
        assert known.version == DeltaTable(path(run, TABLE)).version()
    publish(run, TABLE, staged(run, {FIRST: [8]}))
    made = [checksum_of([number]) for number in (1, 5, 6, 7, 8)]
    assert [row["checksum"] for row in recorded(run)] == made


def test_an_empty_table_in_the_place_of_a_lost_one_is_not_taken_for_it(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged(run, {FIRST: [1]}))
    publish(run, TABLE, staged(run, {FIRST: [2]}))
    columns = DeltaTable(path(run, TABLE)).schema()
    shutil.rmtree(path(run, TABLE))
    DeltaTable.create(path(run, TABLE), columns, partition_by=["landed_date"])
    assert in_force(run, TABLE) == {}
    publish(run, TABLE, staged(run, {FIRST: [2]}))
    assert ids_of(run) == {"2013-01-05": [2]}
    found = [(row["version"], row["changed"]) for row in recorded(run)]
    assert found == [(1, True)]


def test_the_last_confirmation_counts_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path, Days.of(FIRST))
    publish(run, TABLE, staged_by(run, "a"))
    publish(run, TABLE, staged_by(run, "b"))
    monkeypatch.setattr(publications, "datetime", AnHourAgo)
    publish(run, TABLE, staged_by(run, "c"))
    assert in_force(run, TABLE)[FIRST].definition == "c"
    file = publications.Input(name="toy/file", first_day=FIRST, last_day=FIRST, digest="d")
    commits.confirm(run, TABLE, FIRST, (file,), "c")
    assert in_force(run, TABLE)[FIRST].inputs == (file,)
    commits.confirm(run, TABLE, FIRST, (file,), "d")
    assert in_force(run, TABLE)[FIRST].definition == "d"
    rows = len(recorded(run))
    commits.confirm(run, TABLE, FIRST, (file,), "d")
    assert len(recorded(run)) == rows


class AnHourAgo(datetime):
    """What a clock says that was set back."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) - timedelta(hours=1)
