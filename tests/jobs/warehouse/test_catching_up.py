"""PostgreSQL follows the lake: each day once and whole, whatever dies, hangs or comes twice."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pyarrow as pa
import pytest

from jobs.lake import publications, sql
from jobs.lake.publications import Origin
from jobs.warehouse import catching_up, days, tables
from jobs.warehouse.catching_up import (
    _source,
    _Table,
    after_publication,
    catch_up,
    published_tables,
)
from jobs.warehouse.connection import Limits, WarehouseAway, in_words, opened, transaction
from jobs.warehouse.shape import TEXTS, Shape, shape_of
from pipelines.environment import ROOT
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.spec import PREDICTIONS
from tests.conftest import STEP
from tests.jobs.toy import READINGS, SENSORS
from tests.jobs.warehouse.lake import (
    FEW_DAYS,
    FIRST,
    PIPELINE,
    QUICK,
    SUMS,
    Lake,
    comparable,
    predictions,
)
from tests.postgres import Postgres

NOTHING = "DROP SCHEMA toy CASCADE; DROP SCHEMA nightshift CASCADE"
_DROP_INDEXES = """
DO $$ DECLARE one text; BEGIN
  FOR one IN SELECT indexname FROM pg_indexes WHERE schemaname = 'toy' LOOP
    EXECUTE 'DROP INDEX toy.' || one;
  END LOOP;
END $$
"""
Wait = Callable[..., Any]


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


@contextmanager
def after_step(
    step: int,
    do: Callable[[psycopg.Connection[Any]], None],
) -> Iterator[list[int]]:
    """Something happens when the client has been answered that many times.

    A step is one exchange with the server: the start of a transaction, a statement, a part of a
    COPY, a commit.

    Gives:
        The steps that were done, one by one.
    """
    done: list[int] = []
    wait: Wait = psycopg.Connection.wait

    def counting(self: psycopg.Connection[Any], *given: Any, **more: Any) -> Any:
        answer = wait(self, *given, **more)
        done.append(len(done))
        if len(done) == step:
            do(self)
        return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(psycopg.Connection, "wait", counting)
        yield done


def sums_of(day: date, number: int, **more: list[Any]) -> pa.Table:
    """The one row of a day of `SUMS`, with what further columns hold."""
    return pa.table({"landed_date": [day], "n": [number], **more})


def steps_of(lake: Lake) -> int:
    """How many steps it takes to catch up from nothing, with the roles that are left by then."""
    lake.catch_up()
    lake.do(NOTHING)
    with after_step(0, lambda _: None) as done:
        lake.catch_up()
    lake.do(NOTHING)
    return len(done)


def require_rows_of_what_is_recorded(lake: Lake) -> None:
    """Whatever is there: the days on record are there in full, and no rows of another day."""
    if lake.ask("SELECT to_regclass('toy.predictions')") == [(None,)]:
        return
    told = "SELECT day, rows FROM nightshift.publications WHERE version IS NOT NULL ORDER BY day"
    there = "SELECT reading_date, count(*) FROM toy.predictions GROUP BY 1 ORDER BY 1"
    assert lake.ask(there) == lake.ask(told)


def test_every_day_is_there_as_the_lake_has_it(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    caught = lake.catch_up()
    assert caught.written == tuple(FEW_DAYS)
    assert caught.faults == ()
    assert caught.rows == 12
    lake.require_same(dict.fromkeys(FEW_DAYS, ""))
    statement = "SELECT * FROM toy.predictions ORDER BY reading_date, id"
    of_lake = sql.query(lake.environment, statement)[1]
    found = [comparable(row) for row in lake.ask(statement)]
    assert found == [comparable(row) for row in of_lake]


def test_what_is_there_already_is_not_written_again(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.catch_up()
    before = lake.ask("SELECT xmin::text, * FROM nightshift.publications ORDER BY day")
    shape_of_before = lake.ask("SELECT xmin::text FROM pg_class WHERE relname = 'predictions'")
    again = lake.catch_up()
    assert (again.current, again.behind) == (tuple(FEW_DAYS), ())
    assert lake.ask("SELECT xmin::text, * FROM nightshift.publications ORDER BY day") == before
    assert lake.ask("SELECT xmin::text FROM pg_class WHERE relname = 'predictions'") == (
        shape_of_before
    )


def test_a_new_revision_takes_the_place_of_its_day_alone(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.catch_up()
    lake.publish_predictions(FEW_DAYS[1], salt="corrected")
    caught = lake.catch_up()
    assert caught.written == (FEW_DAYS[1],)
    lake.require_same(
        {
            FEW_DAYS[0]: "",
            FEW_DAYS[1]: "corrected",
            FEW_DAYS[2]: "",
        }
    )
    told = lake.ask("SELECT day, version, rows, run_id FROM nightshift.publications ORDER BY day")
    assert told == [
        (FEW_DAYS[0], 0, 4, "night"),
        (FEW_DAYS[1], 1, 4, "night"),
        (FEW_DAYS[2], 0, 4, "night"),
    ]


@pytest.mark.parametrize(
    "by_hand",
    [
        "DROP TABLE toy._predictions CASCADE",
        "DROP SCHEMA toy CASCADE",
        "DROP VIEW toy.predictions",
        "TRUNCATE toy._predictions",
        "DELETE FROM toy._predictions WHERE id = 1 AND reading_date = '2013-01-06'",
        "INSERT INTO toy._predictions SELECT reading_date, 77 FROM toy._predictions WHERE id = 1",
        "ALTER TABLE toy._predictions DROP COLUMN note CASCADE",
        "ALTER TABLE toy._predictions DROP COLUMN reading_date CASCADE",
        _DROP_INDEXES,
        "REVOKE ALL ON toy.predictions FROM nightshift_reader",
        "REVOKE ALL ON SCHEMA toy FROM nightshift_reader",
    ],
)
def test_what_was_changed_by_hand_is_set_right(by_hand: str, lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.catch_up()
    indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'toy'"
    (made,) = lake.ask(indexes)
    lake.do(by_hand)
    told = lake.catch_up(is_dry=True)
    caught = lake.catch_up()
    assert caught.faults == ()
    assert caught.written == told.left
    # By name: a column that was dropped has come back as the last one.
    columns = ", ".join(predictions(FIRST).column_names)
    statement = f"SELECT {columns} FROM toy.predictions ORDER BY reading_date, id"
    of_lake = sql.query(lake.environment, statement)[1]
    found = [comparable(row) for row in lake.ask(statement)]
    assert found == [comparable(row) for row in of_lake]
    assert lake.ask(indexes) == [made]
    may_read = "SELECT has_table_privilege('nightshift_reader', 'toy.predictions', 'SELECT')"
    assert lake.ask(may_read) == [(True,)]
    again = lake.catch_up()
    assert (again.current, again.notes) == (tuple(FEW_DAYS), ())


def test_a_column_that_was_renamed_by_hand_is_there_again(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.catch_up()
    lake.do("ALTER TABLE toy._predictions RENAME COLUMN note TO remark")
    assert lake.catch_up().written == tuple(FEW_DAYS)
    statement = "SELECT note FROM toy.predictions ORDER BY reading_date, id"
    of_lake = sql.query(lake.environment, statement)[1]
    assert lake.ask(statement) == of_lake
    assert lake.ask("SELECT count(remark) FROM toy.predictions") == [(0,)]


def test_a_view_that_keeps_ours_from_being_made_again_is_told_with_the_way_out(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("CREATE VIEW public.own AS SELECT id FROM toy.predictions")
    lake.do("ALTER VIEW toy.predictions RENAME COLUMN note TO remark")
    (fault,) = lake.catch_up().faults
    assert "view public.own depends on view toy.predictions. Drop what depends on it" in fault
    lake.do("DROP VIEW public.own")
    assert lake.catch_up().faults == ()


def test_what_may_not_be_used_is_told_with_the_way_out(lake: Lake) -> None:
    lake.do("CREATE SCHEMA toy")
    lake.publish_predictions(FIRST)
    (fault,) = lake.catch_up().faults
    told = "PostgreSQL: permission denied for schema toy. docs/how-to/postgresql.md says what to"
    assert fault.startswith(told)


def test_rows_that_were_deleted_by_hand_are_told(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.catch_up()
    lake.do(f"DELETE FROM toy._predictions WHERE id = 1 AND reading_date = '{FEW_DAYS[1]}'")
    told = lake.catch_up(is_dry=True)
    assert told.behind == (FEW_DAYS[1],)
    (note,) = told.notes
    assert f"rows of 1 days were changed by hand, the first is {FEW_DAYS[1]} with 3 rows" in note
    caught = lake.catch_up()
    assert (caught.written, caught.notes) == ((FEW_DAYS[1],), (note,))


def test_a_newer_publication_that_comes_while_a_changed_day_is_set_right_stays(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("DELETE FROM toy._predictions WHERE id = 1")
    provide = tables.provide

    def slowly(*given: Any) -> tables.Provided:
        # The first has compared by now, and another run overtakes it.
        monkeypatch.setattr(tables, "provide", provide)
        lake.publish_predictions(FIRST, salt="newer")
        assert lake.catch_up().written == (FIRST,)
        return provide(*given)

    monkeypatch.setattr(tables, "provide", slowly)
    assert lake.catch_up().written == ()
    lake.require_same({FIRST: "newer"})


def test_a_day_without_rows_is_there_too(lake: Lake) -> None:
    lake.publish({FIRST: predictions(FIRST, rows=0)})
    assert lake.catch_up().written == (FIRST,)
    assert lake.ask("SELECT day, rows FROM nightshift.publications") == [(FIRST, 0)]
    assert lake.catch_up().behind == ()


def test_an_older_publication_never_replaces_a_newer_one(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    (old,) = publications.of_table(lake.environment, "toy.predictions")
    lake.publish_predictions(FIRST, salt="newer")
    lake.catch_up()
    rows = predictions(FIRST)
    shape = shape_of(PIPELINE, PIPELINE.table(PREDICTIONS), rows.schema)
    ((lake_id,),) = lake.ask("SELECT lake FROM nightshift.publications")
    known = days.Known(lake=lake_id)
    with opened(lake.environment, QUICK) as connection:
        assert not days.write(connection, shape, known, old, rows.to_batches(), QUICK)
    lake.require_same({FIRST: "newer"})


def test_a_day_of_which_rows_are_lacking_stays_as_it_was(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    (old,) = publications.of_table(lake.environment, "toy.predictions")
    ((lake_id,),) = lake.ask("SELECT lake FROM nightshift.publications")
    known = days.Known(lake=lake_id)
    rows = predictions(FIRST, "newer")
    shape = shape_of(PIPELINE, PIPELINE.table(PREDICTIONS), rows.schema)
    newer = replace(old, version=1)
    three = rows.slice(0, 3).to_batches()
    says = pytest.raises(NightshiftError, match="4 rows were published, and 3 were read")
    with opened(lake.environment, QUICK) as connection, says:
        days.write(connection, shape, known, newer, three, QUICK)
    lake.require_same({FIRST: ""})


def test_one_that_waits_for_a_newer_one_to_be_written_does_not_replace_it(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    (old,) = publications.of_table(lake.environment, "toy.predictions")
    lake.catch_up()
    rows = predictions(FIRST)
    shape = shape_of(PIPELINE, PIPELINE.table(PREDICTIONS), rows.schema)
    ((lake_id,),) = lake.ask("SELECT lake FROM nightshift.publications")
    known = days.Known(lake=lake_id)
    newer, newest = (replace(old, version=number) for number in (1, 2))
    patient = replace(QUICK, lock=60, statement=90, transaction=120)
    results: dict[str, bool] = {}

    def write_newer() -> None:
        with opened(lake.environment, patient) as other:
            batches = predictions(FIRST, "newer").to_batches()
            results["newer"] = days.write(other, shape, known, newer, batches, patient)

    waiting = threading.Thread(target=write_newer)

    def slowly() -> Iterator[pa.RecordBatch]:
        waiting.start()
        until = time.monotonic() + 30
        blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not lake.ask(blocked) and time.monotonic() < until:
            time.sleep(0.02)
        assert lake.ask(blocked), "the other one waits"
        yield from predictions(FIRST, "newest").to_batches()

    with opened(lake.environment, patient) as connection:
        assert days.write(connection, shape, known, newest, slowly(), patient)
    waiting.join()
    assert results == {"newer": False}
    lake.require_same({FIRST: "newest"})


@pytest.mark.soak
def test_a_client_that_dies_at_any_step_leaves_each_day_whole(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS[:2])
    steps = steps_of(lake)
    assert steps > 40

    def die(connection: psycopg.Connection[Any]) -> None:
        # As the system closes the connections of a process that was killed.
        connection.pgconn.finish()
        raise Killed

    for step in range(1, steps + 1, STEP):
        with after_step(step, die), pytest.raises(Killed):
            lake.catch_up()
        require_rows_of_what_is_recorded(lake)
        lake.catch_up()
        lake.require_same(dict.fromkeys(FEW_DAYS[:2], ""))
        lake.do(NOTHING)


@pytest.mark.soak
def test_a_server_that_is_killed_at_any_step_has_each_day_whole_after_its_recovery(
    lake: Lake, postgres: Postgres
) -> None:
    lake.publish_predictions(*FEW_DAYS[:2])
    lake.catch_up()
    with after_step(0, lambda _: None) as done:
        lake.publish_predictions(FEW_DAYS[0], salt="new")
        lake.catch_up()
    steps = len(done)
    assert steps > 15
    before = "new"
    for step in range(1, steps + 1, STEP):
        salt = f"step {step}"
        lake.publish_predictions(FEW_DAYS[0], salt=salt)
        with after_step(step, lambda _: postgres.kill()):
            told = after_publication(lake.environment, PIPELINE, [PREDICTIONS], QUICK)
        postgres.start()
        ((held,),) = lake.ask(
            "SELECT min(model_version) FROM toy.predictions WHERE reading_date = %s", FIRST
        )
        assert held in (before, salt), "the old day or the new one, and nothing between"
        assert ("warehouse_failed" in told) or held == salt
        lake.require_same({FEW_DAYS[0]: held, FEW_DAYS[1]: ""})
        lake.catch_up()
        lake.require_same({FEW_DAYS[0]: salt, FEW_DAYS[1]: ""})
        before = salt


def test_a_server_that_is_killed_in_the_middle_of_a_copy_keeps_what_it_had(
    lake: Lake, postgres: Postgres
) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    (old,) = publications.of_table(lake.environment, "toy.predictions")
    many = predictions(FIRST, "many", rows=200_000)
    shape = shape_of(PIPELINE, PIPELINE.table(PREDICTIONS), many.schema)
    ((lake_id,),) = lake.ask("SELECT lake FROM nightshift.publications")
    known = days.Known(lake=lake_id)
    newer = replace(old, version=1, rows=len(many))

    def killed_halfway() -> Iterator[pa.RecordBatch]:
        batches = many.to_batches(max_chunksize=20_000)
        yield from batches[:5]
        postgres.kill()
        yield from batches[5:]

    patient = replace(QUICK, statement=60, transaction=90)
    says = pytest.raises(WarehouseAway, match="server closed the connection|connection is lost")
    with says, opened(lake.environment, patient) as connection:
        days.write(connection, shape, known, newer, killed_halfway(), patient)
    postgres.start()
    lake.require_same({FIRST: ""})
    assert lake.ask("SELECT version FROM nightshift.publications") == [(0,)]
    with opened(lake.environment, patient) as connection:
        assert days.write(connection, shape, known, newer, many.to_batches(), patient)
    assert lake.ask("SELECT count(*), count(DISTINCT id) FROM toy.predictions") == [
        (200_000, 200_000)
    ]


def test_several_that_publish_at_once_publish_each_day_once(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    patient = replace(QUICK, lock=60, statement=60)
    found: list[Any] = []

    def publish() -> None:
        found.append(lake.catch_up(patient))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.faults for one in found] == [()] * 4
    assert [one.left for one in found] == [()] * 4
    assert sum(len(one.written) for one in found) == len(FEW_DAYS)
    assert all(one.written + one.current != () for one in found)
    lake.require_same(dict.fromkeys(FEW_DAYS, ""))
    assert len(lake.ask("SELECT * FROM nightshift.publications")) == len(FEW_DAYS)


@pytest.mark.parametrize("keeps_from", ["reading", "writing"])
def test_a_lock_that_somebody_holds_is_told_in_time_and_caught_up_later(
    lake: Lake, postgres: Postgres, capsys: pytest.CaptureFixture[str], keeps_from: str
) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.publish_predictions(*FEW_DAYS, salt="new")
    given_up = "due to lock timeout"
    before = postgres.log.count(given_up)
    with lake.connect() as somebody:
        how = "SHARE" if keeps_from == "writing" else "ACCESS EXCLUSIVE"
        somebody.execute(f"LOCK TABLE toy._predictions IN {how} MODE")
        told = after_publication(lake.environment, PIPELINE, [PREDICTIONS], QUICK)
    waits = postgres.log.count(given_up) - before
    assert waits == 1, "it waits once, and not for each of three days"
    assert "canceling statement due to lock timeout" in str(told["warehouse_failed"])
    assert "Somebody holds a lock" in capsys.readouterr().err
    lake.require_same({FIRST: ""})
    count = "SELECT count(DISTINCT reading_date) FROM toy.predictions"
    assert sql.query(lake.environment, count)[1] == [(3,)]
    told = after_publication(lake.environment, PIPELINE, [PREDICTIONS], QUICK)
    assert told == {"warehouse_days": 3, "warehouse_rows": 12}
    lake.require_same(dict.fromkeys(FEW_DAYS, "new"))


def test_who_reads_keeps_nothing_from_being_published(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.publish_predictions(*FEW_DAYS, salt="new")
    with lake.connect() as reader:
        reader.execute("SELECT * FROM toy.predictions")
        assert lake.catch_up().written == tuple(FEW_DAYS)


HASTY = replace(QUICK, statement=2)
"""For tests that wait until it is over with each of three days."""
TRIGGER = """
CREATE FUNCTION public.bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$;
CREATE TRIGGER bad BEFORE INSERT ON toy._predictions FOR EACH ROW EXECUTE FUNCTION public.bad()
"""
FULL = "RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100';"


@pytest.mark.parametrize(
    ("body", "limits", "says"),
    [
        (FULL, QUICK, "No space left on device. Give it space."),
        ("PERFORM pg_sleep(60);", HASTY, "canceling statement due to statement timeout"),
    ],
    ids=["full", "slow"],
)
def test_a_server_that_is_full_or_slow_is_told_and_caught_up_later(
    lake: Lake, body: str, limits: Limits, says: str
) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.publish_predictions(*FEW_DAYS, salt="new")
    lake.do(TRIGGER.format(body))
    told = after_publication(lake.environment, PIPELINE, [PREDICTIONS], limits)
    assert says in str(told["warehouse_failed"])
    assert told["warehouse_days"] == 0
    lake.require_same({FIRST: ""})
    lake.do("DROP TRIGGER bad ON toy._predictions")
    assert lake.catch_up().written == tuple(FEW_DAYS)
    lake.require_same(dict.fromkeys(FEW_DAYS, "new"))


OF_ONE_DAY = """
CREATE FUNCTION public.bad() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.reading_date = '{day}' THEN {body} END IF; RETURN NEW; END $$;
CREATE TRIGGER bad BEFORE INSERT ON toy._predictions FOR EACH ROW EXECUTE FUNCTION public.bad()
"""


@pytest.mark.parametrize(
    ("body", "limits", "says"),
    [
        (
            "PERFORM pg_sleep(60);",
            # The other days have to be done with in time.
            replace(QUICK, statement=8),
            "canceling statement due to statement timeout",
        ),
        ("RAISE 'row is too big' USING ERRCODE = '54000';", QUICK, "row is too big"),
    ],
    ids=["slow", "too big"],
)
def test_a_day_that_postgresql_cannot_take_keeps_no_other_one_out(
    lake: Lake, body: str, limits: Limits, says: str
) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.publish_predictions(*FEW_DAYS, salt="new")
    # The first that is written.
    lake.do(OF_ONE_DAY.format(day=FEW_DAYS[2], body=body))
    caught = lake.catch_up(limits)
    assert caught.written == tuple(FEW_DAYS[:2])
    (fault,) = caught.faults
    assert fault.startswith(f"{FEW_DAYS[2]}: PostgreSQL: {says}")


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "no parquet"])
def test_a_day_whose_file_cannot_be_read_keeps_no_other_one_out(lake: Lake, is_gone: bool) -> None:
    lake.publish_predictions(*FEW_DAYS)
    table = Path(lake.environment.table_path("toy.predictions"))
    (file,) = table.rglob(f"*={FEW_DAYS[1]}/*.parquet")
    file.unlink()
    if not is_gone:
        file.write_bytes(b"PAR1 it was, and is no more. PAR1")
    caught = lake.catch_up()
    assert caught.written == (FEW_DAYS[0], FEW_DAYS[2])
    (fault,) = caught.faults
    assert fault.startswith(f"{FEW_DAYS[1]}: ") and file.name in fault


def test_a_table_that_cannot_be_opened_keeps_no_other_one_out(lake: Lake) -> None:
    lake.pipeline = replace(PIPELINE, derived=(SUMS,))
    lake.publish({FIRST: sums_of(FIRST, 1)}, "sums")
    lake.publish_predictions(FIRST)
    log = Path(lake.environment.table_path("toy.sums")) / "_delta_log"
    (log / f"{0:020}.json").write_text('{"commitInfo":')
    broken, shown = lake.catch_up_all()
    assert (broken.table, broken.written) == ("toy.sums", ())
    (fault,) = broken.faults
    assert fault.startswith("The log of a table is broken: ") and "toy/sums/_delta_log" in fault
    assert (shown.table, shown.written) == ("toy.predictions", (FIRST,))
    assert shown.faults == ()


def test_a_feed_and_the_features_are_there_where_they_declare_it(lake: Lake) -> None:
    raw = replace(READINGS, warehouse=True)
    lake.pipeline = replace(PIPELINE, feeds=(raw, SENSORS), features_in_warehouse=True)
    found = [table.name for table in published_tables(lake.pipeline)]
    assert found == ["readings", "training", "scoring", "predictions"]
    day = pa.array([FIRST], pa.date32())
    number = pa.array([7], pa.int32())
    key = {"reading_date": day, "id": number}
    rows = pa.table({"landed_date": day, **key, "note": ["Zoë"]})
    for name in ("readings", "training", "scoring"):
        lake.publish({FIRST: rows}, name)
        own = lake.pipeline.table(name)
        (caught,) = catch_up(lake.environment, lake.pipeline, [own], QUICK)
        assert caught.written == (FIRST,)
        asked = f"SELECT landed_date, id, note FROM toy.{name}"
        assert lake.ask(asked) == [(FIRST, 7, "Zoë")]
    (always,) = published_tables(PIPELINE)
    assert always.name == "predictions"


def test_the_name_of_a_feed_that_postgresql_gets_is_no_longer_than_it_may_be() -> None:
    long = replace(SENSORS, name="s" * 51)
    assert replace(PIPELINE, feeds=(READINGS, long)).feeds[1] == long
    with pytest.raises(UsageError, match="may have at most 50 letters"):
        replace(PIPELINE, feeds=(READINGS, replace(long, warehouse=True)))


def test_a_day_is_never_in_memory_as_a_whole(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    many = predictions(FIRST, rows=200_000)
    size, lake_rows = many.nbytes, {FIRST: many}
    lake.publish(lake_rows)
    del many, lake_rows
    as_csv = days._as_csv
    most = 0

    def measuring(batch: pa.RecordBatch) -> memoryview:
        nonlocal most
        # PostgreSQL is slower than who reads the files.
        time.sleep(0.02)
        most = max(most, pa.total_allocated_bytes() - before)
        return as_csv(batch)

    monkeypatch.setattr(days, "_as_csv", measuring)
    before = pa.total_allocated_bytes()
    patient = replace(QUICK, statement=60, transaction=90)
    assert lake.catch_up(patient).rows == 200_000
    assert 0 < most < size / 4


def test_the_newest_day_is_written_first_and_each_table_has_its_share_of_the_time(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.catch_up()
    stamps = "SELECT day FROM nightshift.publications ORDER BY written_at"
    assert lake.ask(stamps) == [(day,) for day in FEW_DAYS[::-1]]
    lake.do(NOTHING)
    lake.pipeline = replace(PIPELINE, derived=(SUMS,))
    lake.publish({day: sums_of(day, 1) for day in FEW_DAYS}, "sums")
    lake.catch_up_all()
    now = 0.0
    write = days.write

    def slowly(connection: Any, shape: Shape, *given: Any) -> bool:
        nonlocal now
        # By a clock of its own: the real one also counts what a machine pauses.
        now += 3.5 if shape.table == "_sums" else 0.1
        return write(connection, shape, *given)

    monkeypatch.setattr(days, "write", slowly)
    monkeypatch.setattr(catching_up, "time", SimpleNamespace(monotonic=lambda: now))
    lake.publish_predictions(*FEW_DAYS, salt="new")
    lake.publish({day: sums_of(day, 2) for day in FEW_DAYS}, "sums")
    sums, shown = lake.catch_up_all(seconds=6)
    assert (sums.table, sums.written) == ("toy.sums", (FEW_DAYS[2],))
    assert (shown.table, shown.left) == ("toy.predictions", ())


def test_what_postgresql_says_holds_no_value_and_steers_no_terminal(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("ALTER TABLE toy._predictions ALTER reading_date SET NOT NULL")
    wrong = {
        "INSERT INTO toy._predictions VALUES (NULL, 77123)": '"reading_date"',
        "INSERT INTO toy._predictions SELECT * FROM toy._predictions": '"_predictions_',
        "SELECT '77123x'::int": 'syntax for type integer: "…".',
    }
    for statement, keeps in wrong.items():
        with pytest.raises(psycopg.Error) as refused:
            lake.do(statement)
        words = in_words(refused.value)
        assert keeps in words
        assert "77123" not in words and str(FIRST) not in words
    with pytest.raises(psycopg.Error) as refused:
        copy_one(lake, b'"77123\x1b[2J"\n')
    words = in_words(refused.value)
    assert words == 'PostgreSQL: invalid input syntax for type integer: "…" (column id).'
    with pytest.raises(psycopg.Error) as refused:
        lake.do("DO $$ BEGIN RAISE E'red \x1b[31m' USING DETAIL = 'more'; END $$")
    assert in_words(refused.value) == "PostgreSQL: red \\x1b[31m more."


def copy_one(lake: Lake, value: bytes) -> None:
    """Have PostgreSQL take a value for the id of a prediction."""
    statement = "COPY toy._predictions (id) FROM STDIN (FORMAT csv)"
    with lake.connect() as somebody, somebody.cursor().copy(statement) as copy:
        copy.write(value)


@pytest.mark.timeout(120)  # who waits for ever does not come back at all
def test_a_server_that_freezes_cannot_hang_a_night(lake: Lake, postgres: Postgres) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.publish_predictions(FIRST, salt="new")
    with postgres.frozen():
        hasty = replace(QUICK, connect=2)
        told = after_publication(lake.environment, PIPELINE, [PREDICTIONS], hasty)
        assert "warehouse_failed" in told
    # It answers no more once the connection is there.
    frozen: list[Any] = []

    def freeze(_: object) -> None:
        frozen.append(postgres.frozen())
        frozen[0].__enter__()

    with after_step(6, freeze):
        # It has to come to that step.
        hasty = replace(QUICK, transaction=8)
        told = after_publication(lake.environment, PIPELINE, [PREDICTIONS], hasty)
    assert "warehouse_failed" in told
    frozen[0].__exit__(None, None, None)
    assert lake.catch_up().left == ()
    lake.require_same({FIRST: "new"})


def test_a_client_that_stops_in_the_middle_keeps_nobody_waiting(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is stopped itself, and hangs up on nobody.
    monkeypatch.setattr("jobs.warehouse.connection._ended_after", lambda *_: nullcontext())
    lake.publish_predictions(FIRST)
    lake.catch_up()
    hasty = replace(QUICK, transaction=6)
    with opened(lake.environment, hasty) as connection:
        stopped = transaction(connection, hasty)
        cursor = stopped.__enter__()
        cursor.execute("LOCK TABLE toy._predictions")
        # Who reads waits for the lock until then, and 20 s at most.
        lake.require_same({FIRST: ""})
        with pytest.raises(psycopg.Error, match="idle-in-transaction timeout"):
            cursor.execute("SELECT 1")


def test_a_server_that_is_down_is_told_without_the_password(
    lake: Lake, postgres: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.publish_predictions(FIRST)
    postgres.stop()
    told = after_publication(lake.environment, PIPELINE, [PREDICTIONS], QUICK)
    said = capsys.readouterr().err
    assert "PostgreSQL is behind the lake" in said and "Connection refused" in said
    url = str(lake.environment.warehouse_url)
    secret = url.split(":")[2].split("@")[0]
    assert secret not in said + str(told)
    postgres.start()
    assert lake.catch_up().written == (FIRST,)


@pytest.mark.parametrize("name", ["password", "unknown setting", "escape"])
def test_an_address_that_makes_no_sense_is_refused_without_its_password(
    lake: Lake, name: str
) -> None:
    url = str(lake.environment.warehouse_url)
    broken = {
        "password": (url.replace("admin:", "admin:wrong-s3cret"), WarehouseAway),
        "unknown setting": (f"{url}?s3cret=1", UsageError),
        "escape": (url.replace("admin:", "admin:s3cret%zz"), UsageError),
    }
    address, kind = broken[name]
    environment = replace(lake.environment, warehouse_url=address)
    with pytest.raises(kind) as refused, opened(environment, QUICK):
        pass
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("asked", ["client_encoding=latin1", "options=-cclient_encoding%3Dlatin1"])
def test_texts_are_what_they_were_whatever_encoding_the_address_asks_for(
    lake: Lake, asked: str
) -> None:
    plain = lake.environment
    lake.environment = replace(plain, warehouse_url=f"{plain.warehouse_url}?{asked}")
    lake.publish_predictions(FIRST)
    assert lake.catch_up().written == (FIRST,)
    lake.environment = plain
    lake.require_same({FIRST: ""})


@pytest.mark.parametrize("setting", ["quote_all_identifiers = on", "DateStyle = 'SQL, DMY'"])
def test_what_a_database_sets_for_all_keeps_nothing_out(lake: Lake, setting: str) -> None:
    lake.do(f"ALTER DATABASE warehouse SET {setting}")
    lake.publish_predictions(FIRST)
    lake.catch_up()
    again = lake.catch_up()
    assert (again.current, again.faults) == ((FIRST,), ())


def test_a_database_that_lacks_a_character_is_told_with_the_way_out(
    lake: Lake, postgres: Postgres
) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE narrow ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    lake.environment = replace(lake.environment, warehouse_url=postgres.url("narrow"))
    lake.publish_predictions(FIRST)
    (fault,) = lake.catch_up().faults
    assert 'has no equivalent in encoding "LATIN1". Publish to a database made' in fault


def test_time_that_is_up_leaves_the_rest_to_the_next_night(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    caught = lake.catch_up(seconds=-1)
    assert (caught.written, caught.left) == ((), tuple(FEW_DAYS))
    assert caught.faults == ("Time is up with 3 days left: the next night goes on.",)


def test_a_dry_run_tells_what_is_behind_and_changes_nothing(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    assert lake.catch_up(is_dry=True).left == tuple(FEW_DAYS)
    assert lake.ask("SELECT to_regnamespace('toy'), to_regnamespace('nightshift')") == [
        (None, None)
    ]


def test_a_day_that_postgresql_refuses_keeps_no_other_one_out(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    bad = predictions(FEW_DAYS[1])
    notes = pa.array(["a", "b\0c", "d", "e"])
    lake.publish({FEW_DAYS[1]: bad.set_column(2, "note", notes)})
    caught = lake.catch_up()
    assert caught.written == (FEW_DAYS[0], FEW_DAYS[2])
    (fault,) = caught.faults
    assert fault.startswith(f"{FEW_DAYS[1]}: column 'note' holds a text with the character NUL")


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_a_text_of_any_kind_is_looked_through_for_nul(lake: Lake, kind: pa.DataType) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    (old,) = publications.of_table(lake.environment, "toy.predictions")
    ((lake_id,),) = lake.ask("SELECT lake FROM nightshift.publications")
    known = days.Known(lake=lake_id)
    notes = pa.array(["a", "b\0c", None, ""]).cast(kind)
    rows = predictions(FIRST).set_column(2, "note", notes)
    shape = shape_of(PIPELINE, PIPELINE.table(PREDICTIONS), rows.schema)
    newer = replace(old, version=1)
    says = pytest.raises(Refused, match="column 'note' holds a text with the character NUL")
    with says, opened(lake.environment, QUICK) as connection:
        days.write(connection, shape, known, newer, rows.to_batches(), QUICK)
    right = rows.set_column(
        2,
        "note",
        pa.array(["a", "b", None, ""]).cast(kind),
    )
    with opened(lake.environment, QUICK) as connection:
        assert days.write(connection, shape, known, newer, right.to_batches(), QUICK)
    found = lake.ask("SELECT note FROM toy.predictions ORDER BY id")
    assert found == [("a",), ("b",), (None,), ("",)]


def test_days_of_another_lake_are_not_taken_for_older_or_newer_ones(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("UPDATE nightshift.publications SET lake = 'elsewhere'")
    (fault,) = lake.catch_up().faults
    assert "of a table of another lake (id elsewhere" in fault
    assert "have all days published anew" in fault
    for statement in statements_to_publish_anew():
        lake.do(statement)
    assert lake.ask("SELECT count(*) FROM toy.predictions") == [(0,)]
    assert lake.catch_up().written == (FIRST,)
    lake.require_same({FIRST: ""})


def test_predictions_that_were_deleted_and_made_again_take_the_place_of_those(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.catch_up()
    shutil.rmtree(lake.environment.table_path("toy.predictions"))
    lake.publish_predictions(FEW_DAYS[1], salt="again")
    caught = lake.catch_up()
    assert (caught.written, caught.faults) == ((FEW_DAYS[1],), ())
    ids = "SELECT count(DISTINCT lake) FROM nightshift.publications"
    assert lake.ask(ids) == [(2,)]
    lake.publish_predictions(FIRST, salt="again")
    assert lake.catch_up().written == (FIRST,)
    again = lake.catch_up()
    assert (again.written, again.faults) == ((), ())


def statements_to_publish_anew() -> list[str]:
    """What the document says to run."""
    text = (ROOT / "docs" / "how-to" / "postgresql.md").read_text()
    (block,) = re.findall(r"^BEGIN; .* COMMIT;$", text, re.MULTILINE)
    return [block.replace("flights", "toy")]


def test_days_that_the_lake_does_not_have_are_told(lake: Lake) -> None:
    lake.publish_predictions(*FEW_DAYS)
    lake.catch_up()
    lake.do(f"UPDATE nightshift.publications SET day = '2012-12-31' WHERE day = '{FIRST}'")
    caught = lake.catch_up(is_dry=True)
    (note,) = caught.notes
    assert "PostgreSQL has 1 days that the lake has not, the first is 2012-12-31" in note
    assert caught.left == (FIRST,)


def test_a_lake_that_was_restored_is_not_taken_for_an_older_one(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    home = lake.environment.home
    backup = home.with_name("backup")
    shutil.copytree(home, backup)
    lake.publish_predictions(FIRST, salt="lost")
    lake.catch_up()
    shutil.rmtree(home)
    shutil.copytree(backup, home)
    (fault,) = lake.catch_up().faults
    assert f"PostgreSQL holds {FIRST} of version 1, of which the lake has no record" in fault
    # Another day has the later version by now.
    lake.publish_predictions(*FEW_DAYS[1:])
    lake.publish_predictions(FEW_DAYS[1], salt="again")
    (fault,) = lake.catch_up().faults
    assert f"{FIRST} of version 1, of which the lake has no record" in fault
    shutil.rmtree(home)
    shutil.copytree(backup, home)
    # The same version a second time.
    lake.publish_predictions(FIRST, salt="found")
    assert lake.catch_up().written == (FIRST,)
    lake.require_same({FIRST: "found"})


def test_the_same_rows_that_a_restored_lake_gave_again_are_those_of_the_later_run(
    lake: Lake,
) -> None:
    lake.publish_predictions(FEW_DAYS[1])
    home = lake.environment.home
    backup = home.with_name("before")
    shutil.copytree(home, backup)
    lake.publish_predictions(FIRST)
    lake.catch_up()
    shutil.rmtree(home)
    shutil.copytree(backup, home)
    lake.run_id = "again"
    lake.publish_predictions(FIRST)
    assert lake.catch_up().written == (FIRST,)
    run_ids = lake.ask("SELECT run_id FROM nightshift.publications ORDER BY day")
    assert run_ids == [("again",), ("night",)]
    assert lake.catch_up().written == ()


def test_an_instant_of_the_hour_that_comes_twice_is_known_in_any_zone(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    (one,) = publications.of_table(lake.environment, "toy.predictions")
    instant = datetime(2013, 10, 27, 0, 30, tzinfo=UTC)
    known = days.Known(lake="ours", there={(FIRST, one.version, instant)})
    local = instant.astimezone(ZoneInfo("Europe/Berlin"))
    held = days.Held("ours", one.version, one.checksum, local)
    assert not held.is_older(known, one)


def test_a_confirmed_day_is_not_written_again(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.origin = Origin(definition="another")
    lake.publish_predictions(FIRST)
    told = publications.of_table(lake.environment, "toy.predictions")
    assert [one.changed for one in told] == [True, False]
    assert lake.catch_up().current == (FIRST,)


def test_who_looked_before_another_one_published_takes_it_for_no_restored_lake(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    looked = _source(lake.environment, "toy.predictions")
    assert looked is not None
    lake.publish_predictions(FIRST, salt="newer")
    lake.catch_up()
    with opened(lake.environment, QUICK) as connection:
        table = PIPELINE.table(PREDICTIONS)
        late = _Table(lake.environment, connection, PIPELINE, table, looked, QUICK)
        caught = late.follow(None, is_dry=False)
    assert caught.current == (FIRST,)
    assert caught.behind == ()
    assert caught.faults == ()
    lake.require_same({FIRST: "newer"})


def test_without_a_url_nothing_is_published_and_the_command_says_so(lake: Lake) -> None:
    environment = replace(lake.environment, warehouse_url=None)
    assert after_publication(environment, PIPELINE, [PREDICTIONS], QUICK) == {}
    with pytest.raises(UsageError, match="NIGHTSHIFT_WAREHOUSE_URL is not set"):
        catch_up(environment, PIPELINE, PIPELINE.tables, QUICK)


EVIL = 'x"; DROP SCHEMA toy CASCADE; --'
EVERY_TYPE = {
    "n": pa.array([1, 2, 3], pa.int64()),
    "small": pa.array(
        [-(2**15), None, 2**15 - 1],
        pa.int16(),
    ),
    "is_it": pa.array([True, False, None]),
    "money": pa.array(
        [Decimal("-12345.67"), None, Decimal("0.01")],
        pa.decimal128(9, 2),
    ),
    "big": pa.array(
        [Decimal("1e20") + 1, None, Decimal(-1)],
        pa.decimal128(38, 0),
    ),
    "tiny": pa.array(
        [0.25, float("nan"), float("inf")],
        pa.float32(),
    ),
    "real": pa.array([5e-324, 1.7976931348623157e308, 0.1 + 0.2]),
    "day": pa.array(
        [
            date(1, 1, 1),
            date(9999, 12, 31),
            None,
        ]
    ),
    "moment": pa.array(
        [
            datetime(1883, 11, 18, 17, 0, 0, 1, tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
            None,
        ],
        pa.timestamp("us", tz="UTC"),
    ),
    "local": pa.array(["2013-03-10T02:30:00", None, None]).cast(pa.timestamp("us")),
    "text": pa.array(["\u202eáß日本🛫\r\n\t\\N", 'NULL,"";\'', ""]),
    EVIL: pa.array(["'; DROP SCHEMA toy CASCADE; --", "%s", "{}"]),
    "%s{0}%": pa.array(["\\.", "\n\\.\n", "--"]),
    "SELECT": pa.array([None, "null", "NaN"]),
}
"""Values that programs stumble over, in columns with names that do."""


def test_every_type_and_text_and_name_is_what_it_was(lake: Lake) -> None:
    lake.pipeline = replace(PIPELINE, derived=(SUMS,))
    rows = pa.table({"landed_date": pa.array([FIRST] * 3), **EVERY_TYPE})
    lake.publish({FIRST: rows}, "sums")
    (caught,) = lake.catch_up_all()
    assert (caught.table, caught.faults, caught.rows) == ("toy.sums", (), 3)
    found = lake.ask("SELECT * FROM toy.sums ORDER BY n")
    expected = [comparable(row.values()) for row in rows.to_pylist()]
    assert [comparable(row) for row in found] == expected
    types = lake.ask(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'toy' AND table_name = 'sums' ORDER BY ordinal_position"
    )
    assert dict(types) | {"money": "", "big": ""} == {
        "landed_date": "date",
        "n": "bigint",
        "small": "smallint",
        "is_it": "boolean",
        "money": "",
        "big": "",
        "tiny": "real",
        "real": "double precision",
        "day": "date",
        "moment": "timestamp with time zone",
        "local": "timestamp without time zone",
        **dict.fromkeys(("text", EVIL, "%s{0}%", "SELECT"), "text"),
    }


def test_a_column_without_a_plain_type_is_refused_by_its_name(lake: Lake) -> None:
    lake.pipeline = replace(PIPELINE, derived=(SUMS,))
    rows = sums_of(FIRST, 1, parts=[[1, 2]])
    lake.publish({FIRST: rows}, "sums")
    (caught,) = lake.catch_up_all()
    assert caught.left == () and caught.faults[0].startswith("toy.sums: column 'parts' is a list")


@pytest.mark.parametrize(
    ("column", "is_taken"),
    [("ä" * 31 + "x", True), ("ä" * 32, False)],
)
def test_a_name_that_postgresql_would_cut_off_is_refused(
    lake: Lake, column: str, is_taken: bool
) -> None:
    for day in FEW_DAYS[:2]:
        rows = predictions(day)
        ones = pa.array([1] * rows.num_rows)
        lake.publish({day: rows.append_column(column, ones)})
        found = lake.catch_up()
        assert (found.written == (day,)) == is_taken
        told = [f"toy.predictions: the name of column '{column}' is longer than 63 bytes"]
        made = [fault.partition(",")[0] for fault in found.faults]
        assert made == ([] if is_taken else told)


def test_a_column_that_is_new_is_null_on_days_before(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("CREATE VIEW public.mine AS SELECT reading_date, prediction FROM toy.predictions")
    later = FEW_DAYS[1]
    wider = predictions(later).append_column(
        "extra",
        pa.array([1, 2, 3, 4]),
    )
    lake.publish({later: wider})
    assert lake.catch_up().written == (later,)
    found = lake.ask("SELECT reading_date, extra FROM toy.predictions ORDER BY reading_date, id")
    told = [(later, number) for number in (1, 2, 3, 4)]
    assert found == [(FIRST, None)] * 4 + told
    assert lake.ask("SELECT count(*) FROM public.mine") == [(8,)]


def test_a_column_that_the_lake_has_lost_stays(lake: Lake) -> None:
    lake.pipeline = replace(PIPELINE, derived=(SUMS,))
    lake.publish({FIRST: sums_of(FIRST, 1, old=["kept"])}, "sums")
    lake.catch_up_all()
    lake.do("ALTER TABLE toy._sums ADD COLUMN somebodys text")
    lake.do("DELETE FROM nightshift.shapes")
    later = FEW_DAYS[1]
    narrower = pa.table({"landed_date": [later], "n": [2]})
    lake.publish({later: narrower}, "sums")
    lake.catch_up_all()
    assert lake.ask("SELECT n, old, somebodys FROM toy.sums ORDER BY n") == [
        (1, "kept", None),
        (2, None, None),
    ]


def test_a_type_is_never_changed(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("ALTER TABLE toy._predictions ADD COLUMN extra text")
    wider = predictions(FIRST, "new").append_column(
        "extra",
        pa.array([1, 2, 3, 4]),
    )
    lake.publish({FIRST: wider})
    (fault,) = lake.catch_up().faults
    assert "column 'extra' is text in PostgreSQL and would become bigint" in fault
    assert lake.ask("SELECT DISTINCT model_version FROM toy.predictions") == [("1",)]


def test_row_level_security_that_keeps_rows_out_is_named(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("ALTER TABLE toy._predictions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    lake.publish_predictions(FIRST, salt="new")
    (fault,) = lake.catch_up().faults
    assert "ALTER TABLE … NO FORCE ROW LEVEL SECURITY" in fault
    lake.do("ALTER TABLE toy._predictions NO FORCE ROW LEVEL SECURITY")
    assert lake.catch_up().written == (FIRST,)


def test_another_key_gets_another_index(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    names = "SELECT indexdef FROM pg_indexes WHERE tablename = '_predictions' ORDER BY indexname"
    (defined,) = [one for (one,) in lake.ask(names) if "UNIQUE" in one]
    assert defined.endswith("(reading_date, id)")
    lake.pipeline = replace(PIPELINE, entity=("reading_date", "note"), carried=("id", "amount"))
    lake.publish_predictions(FEW_DAYS[1])
    assert lake.catch_up().faults == ()
    (defined,) = [one for (one,) in lake.ask(names) if "UNIQUE" in one]
    assert defined.endswith("(reading_date, note)")
    assert len(lake.ask(names)) == 2


def test_an_index_of_somebody_else_stays(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("CREATE INDEX _predictions_note_idx ON toy._predictions (note)")
    lake.do("ALTER TABLE toy._predictions ADD PRIMARY KEY (reading_date, id)")
    lake.do("DELETE FROM nightshift.shapes")
    lake.publish_predictions(FEW_DAYS[1])
    assert lake.catch_up().faults == ()
    indexes = lake.ask("SELECT indexname FROM pg_indexes WHERE tablename = '_predictions'")
    assert {("_predictions_note_idx",), ("_predictions_pkey",)} <= set(indexes)


def test_a_narrower_key_that_old_rows_break_keeps_nothing_out(lake: Lake) -> None:
    twice = predictions(FIRST).set_column(2, "note", pa.array(["same"] * 4))
    lake.publish({FIRST: twice})
    lake.catch_up()
    lake.pipeline = replace(PIPELINE, entity=("reading_date", "note"), carried=("id", "amount"))
    lake.publish_predictions(FEW_DAYS[1])
    caught = lake.catch_up()
    assert (caught.written, caught.faults) == ((FEW_DAYS[1],), ())
    names = "SELECT indexdef FROM pg_indexes WHERE tablename = '_predictions'"
    assert any(one.endswith("(reading_date, note)") for (one,) in lake.ask(names))


def test_a_narrower_key_that_old_rows_break_keeps_no_day_out_of_a_new_database(lake: Lake) -> None:
    twice = predictions(FIRST).set_column(2, "note", pa.array(["same"] * 4))
    lake.publish({FIRST: twice})
    lake.pipeline = replace(PIPELINE, entity=("reading_date", "note"), carried=("id", "amount"))
    lake.publish_predictions(FEW_DAYS[1])
    caught = lake.catch_up()
    assert sorted(caught.written) == [FIRST, FEW_DAYS[1]]
    assert caught.faults == ()
    (note,) = caught.notes
    assert f"rows of {FIRST} are not told apart by its key (reading_date, note)" in note
    names = "SELECT indexdef FROM pg_indexes WHERE tablename = '_predictions'"
    defined = [one for (one,) in lake.ask(names)]
    assert any(one.endswith("(reading_date, note)") for one in defined)
    assert not any("UNIQUE" in one for one in defined)
    again = lake.catch_up()
    assert (again.written, again.notes) == ((), ())


def test_a_view_that_somebody_has_dropped_is_made_again(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    lake.catch_up()
    lake.do("DROP VIEW toy.predictions")
    lake.catch_up()
    lake.require_same({FIRST: ""})


def test_readers_may_read_the_view_and_nothing_else(lake: Lake, postgres: Postgres) -> None:
    lake.publish_predictions(FIRST)
    assert lake.catch_up().notes == ()
    lake.do("CREATE ROLE analyst LOGIN PASSWORD 'pw' IN ROLE nightshift_reader")
    own = replace(lake.environment, warehouse_url=postgres.url("warehouse", "analyst", "pw"))
    analyst = Lake(own)
    assert analyst.ask("SELECT count(*) FROM toy.predictions") == [(4,)]
    assert analyst.ask("SELECT day, rows FROM nightshift.publications") == [(FIRST, 4)]
    for statement in (
        "SELECT * FROM toy._predictions",
        "DELETE FROM toy.predictions",
        "UPDATE nightshift.publications SET version = 99",
        "CREATE TABLE toy.mine (n int)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            analyst.do(statement)
    owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class JOIN pg_namespace n ON "
    owners += "n.oid = relnamespace WHERE nspname IN ('toy', 'nightshift')"
    assert lake.ask(owners) == [("nightshift_owner",)]


def test_a_user_who_may_make_no_roles_publishes_and_is_told_how_others_can_read(
    lake: Lake, postgres: Postgres
) -> None:
    lake.publish_predictions(FIRST)
    lake.do("CREATE ROLE loader LOGIN PASSWORD 'pw'; GRANT CREATE ON DATABASE warehouse TO loader")
    own = replace(lake.environment, warehouse_url=postgres.url("warehouse", "loader", "pw"))
    loader = Lake(own)
    (note,) = loader.catch_up().notes
    assert "CREATE ROLE nightshift_reader NOLOGIN" in note
    loader.require_same({FIRST: ""})
    lake.do("CREATE ROLE nightshift_reader NOLOGIN")
    assert loader.catch_up().notes == ()
    lake.do("CREATE ROLE analyst LOGIN PASSWORD 'pw' IN ROLE nightshift_reader")
    url = postgres.url("warehouse", "analyst", "pw")
    analyst = Lake(replace(own, warehouse_url=url))
    assert analyst.ask("SELECT count(*) FROM toy.predictions") == [(4,)]
    assert analyst.ask("SELECT count(*) FROM nightshift.publications") == [(1,)]


def test_a_user_who_may_make_roles_makes_them(lake: Lake, postgres: Postgres) -> None:
    lake.do("CREATE ROLE loader LOGIN CREATEROLE PASSWORD 'pw'")
    lake.do("GRANT CREATE ON DATABASE warehouse TO loader")
    own = replace(lake.environment, warehouse_url=postgres.url("warehouse", "loader", "pw"))
    lake.publish_predictions(FIRST)
    loader = Lake(own)
    caught = loader.catch_up()
    assert caught.written == (FIRST,)
    assert caught.faults == ()
    assert caught.notes == ()
    owner = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('toy', 'nightshift')"
    assert lake.ask(owner) == [("nightshift_owner",)]
    readable = "SELECT has_table_privilege('nightshift_reader', 'toy.predictions', 'SELECT')"
    assert lake.ask(readable) == [(True,)]


def test_what_was_made_before_there_was_an_owner_role_stays_in_use(
    lake: Lake, postgres: Postgres
) -> None:
    lake.do("CREATE ROLE loader LOGIN PASSWORD 'pw'; GRANT CREATE ON DATABASE warehouse TO loader")
    own = replace(lake.environment, warehouse_url=postgres.url("warehouse", "loader", "pw"))
    loader = Lake(own)
    loader.publish_predictions(FIRST)
    loader.catch_up()
    lake.do("CREATE ROLE nightshift_owner NOLOGIN; GRANT nightshift_owner TO loader")
    wider = predictions(FEW_DAYS[1]).append_column(
        "extra",
        pa.array([1, 2, 3, 4]),
    )
    loader.publish({FEW_DAYS[1]: wider})
    caught = loader.catch_up()
    assert (caught.written, caught.faults) == ((FEW_DAYS[1],), ())


def test_a_user_who_does_not_inherit_acts_as_the_owner(lake: Lake, postgres: Postgres) -> None:
    lake.do("CREATE ROLE nightshift_owner NOLOGIN; CREATE ROLE nightshift_reader NOLOGIN")
    lake.do("CREATE ROLE loader LOGIN NOINHERIT PASSWORD 'pw' IN ROLE nightshift_owner")
    lake.do("GRANT CREATE ON DATABASE warehouse TO loader")
    own = replace(lake.environment, warehouse_url=postgres.url("warehouse", "loader", "pw"))
    loader = Lake(own)
    for day in FEW_DAYS:
        loader.publish_predictions(day)
        caught = loader.catch_up()
        assert caught.written == (day,)
        assert caught.faults == ()
        assert caught.notes == ()


def test_objects_of_other_users_are_not_taken_for_those_of_postgresql(lake: Lake) -> None:
    lake.publish_predictions(FIRST)
    trap = "CREATE FUNCTION public.to_regclass(text) RETURNS regclass LANGUAGE sql AS "
    lake.do(trap + "$$ SELECT NULL::regclass $$")
    lake.do("ALTER DATABASE warehouse SET search_path = public, pg_catalog")
    lake.catch_up()
    assert lake.catch_up().behind == ()
    lake.require_same({FIRST: ""})


def test_a_lake_of_many_days_is_caught_up_in_little_time(lake: Lake) -> None:
    many = [FIRST + timedelta(days=number) for number in range(60)]
    lake.publish_predictions(*many)
    began = time.monotonic()
    assert len(lake.catch_up().written) == 60
    assert time.monotonic() - began < 20
