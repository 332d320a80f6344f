"""A statement may ask for a table as it was."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from jobs.lake import as_left
from jobs.lake.as_of import rewritten
from jobs.lake.commits import publish
from jobs.lake.publications import Origin
from jobs.lake.sql import Session, query
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from tests.jobs.lake.test_commits import run_at, staged

_FIRST = date(2013, 1, 5)
_SECOND = date(2013, 1, 6)
_LATER = date(2013, 1, 9)
_KNOWN = ["toy.readings", "toy.schedule", "other.schedule"]


@pytest.fixture
def lake(tmp_path: Path) -> Environment:
    """Two days, then a correction of the first one that is known from a later night."""
    run = run_at(tmp_path, Days(_FIRST, _SECOND))
    publish(run, "readings", staged(run, {_FIRST: [1], _SECOND: [2]}))
    again = run_at(tmp_path, Days.of(_FIRST))
    late = Origin(known={_FIRST: _LATER})
    publish(again, "readings", staged(again, {_FIRST: [9]}, origin=late))
    return run.environment


def _ids(environment: Environment, as_of: str) -> list[object]:
    _, rows = query(environment, f"SELECT id FROM toy.readings {as_of} ORDER BY id")
    return [row[0] for row in rows]


def test_a_version_is_that_of_the_table(lake: Environment) -> None:
    assert _ids(lake, "VERSION AS OF 0") == [1, 2]
    assert _ids(lake, "version as of 1") == [2, 9]


def test_a_moment_may_be_asked_for_in_the_longer_words_of_spark(lake: Environment) -> None:
    assert _ids(lake, "FOR VERSION AS OF 0") == [1, 2]
    assert _ids(lake, "for timestamp as of '2100-01-01'") == [2, 9]


@pytest.mark.parametrize(
    ("night", "ids"),
    [
        ("2013-01-04", []),
        ("2013-01-05", [1]),
        ("2013-01-08", [1, 2]),
        ("2013-01-09", [2, 9]),
        ("2014-01-01", [2, 9]),
    ],
)
def test_a_night_saw_the_last_version_known_by_then(
    lake: Environment, night: str, ids: list[int]
) -> None:
    assert _ids(lake, f"KNOWN AS OF '{night}'") == ids


@pytest.mark.parametrize("asked", ["FROM seen", "EXECUTE asked", "FROM deep"])
def test_what_a_person_has_made_of_a_past_reads_it_as_it_is(lake: Environment, asked: str) -> None:
    past = "SELECT count(*) FROM toy.readings KNOWN AS OF '2014-01-01'"
    made = (
        f"CREATE TEMP VIEW seen AS {past}; PREPARE asked AS {past}; CREATE VIEW deep AS FROM seen"
    )

    def rows(session: Session) -> list[tuple[object, ...]]:
        return [row for result in session.results(asked) for row in result.rows]

    with Session(lake) as session:
        list(session.results(made))
        assert rows(session) == [(2,)]
        run = run_at(lake.home, Days.of(_LATER))
        publish(run, "readings", staged(run, {_LATER: [3]}))
        assert rows(session) == [(3,)]


def test_a_time_is_that_of_publishing(lake: Environment) -> None:
    _, rows = query(
        lake, "SELECT published_at::VARCHAR FROM ops.publications ORDER BY published_at"
    )
    first, *_, last = [row[0] for row in rows]
    assert _ids(lake, f"TIMESTAMP AS OF '{first}'") == [1, 2]
    assert _ids(lake, f"TIMESTAMP AS OF '{last}'") == [2, 9]
    with pytest.raises(UsageError, match="cannot be read as of 2013-01-01: its record begins"):
        _ids(lake, "TIMESTAMP AS OF '2013-01-01'")


def test_the_platforms_own_tables_are_read_by_version_and_time_alone(lake: Environment) -> None:
    now = "SELECT count(*) FROM ops.publications"
    assert query(lake, f"{now} VERSION AS OF 0")[1] == [(2,)]
    assert query(lake, f"{now} TIMESTAMP AS OF '2100-01-01'")[1] == query(lake, now)[1]
    with pytest.raises(UsageError, match="cannot be read as of 2001-02-04: its record begins"):
        query(lake, f"{now} TIMESTAMP AS OF '2001-02-04'")
    with pytest.raises(UsageError, match="no night sees it"):
        query(lake, f"{now} KNOWN AS OF '2013-01-05'")


@pytest.mark.parametrize("moment", ["KNOWN AS OF '2013-01-05'", "VERSION AS OF 0"])
def test_a_history_tells_all_versions_already(lake: Environment, moment: str) -> None:
    run = run_at(lake.home, Days.of(_FIRST))
    publish(run, "predictions", staged(run, {_FIRST: [1]}, "predictions"))
    with pytest.raises(UsageError, match="tells all versions already: filter by known_date"):
        query(lake, f"SELECT * FROM toy.predictions_history {moment}")
    # Of other tables it is not listed, and is there.
    with pytest.raises(UsageError, match="toy.readings_history tells all versions already"):
        query(lake, f"SELECT * FROM toy.readings_history {moment}")


def test_several_moments_are_told_apart_in_one_statement(lake: Environment) -> None:
    changed = (
        "SELECT now.id, readings.id FROM toy.readings AS now JOIN toy.readings KNOWN AS OF "
        "'2013-01-08' USING (landed_date) WHERE now.id <> readings.id"
    )
    assert query(lake, changed)[1] == [(9, 1)]


@pytest.mark.parametrize("puts", ["USE toy", "SET search_path = 'main,toy,other'"])
def test_a_table_without_its_pipeline_is_that_of_the_one_in_use(
    lake: Environment, puts: str
) -> None:
    write_deltalake(lake.table_path("other.readings"), pa.table({"id": [7]}))
    with Session(lake) as session:
        assert [list(one.rows) for one in session.results("USE other")] == []
        assert [list(one.rows) for one in session.results(puts)] == []
        (found,) = session.results("SELECT count(*) FROM readings VERSION AS OF 0")
        assert list(found.rows) == [(2,)]


@pytest.mark.parametrize(
    "puts",
    [
        "USE other",
        'use memory."other"',
        "SET schema = 'other'",
        "SET search_path TO 'memory.other,toy'",
        "SET search_path TO 'temp,main,other,toy'",
        "SET SCHEMA 'other'",
        "PRAGMA schema='other'",
        """SET schema = 'memory."other"'""",
        "USE other; SET VARIABLE schema = 'toy'",
        "RESET schema; USE other -- and not toy;",
    ],
)
def test_a_pipeline_is_in_use_from_the_statement_on_that_says_so(
    lake: Environment, puts: str
) -> None:
    write_deltalake(lake.table_path("other.readings"), pa.table({"id": [7]}))
    before = "SELECT id FROM readings VERSION AS OF 0 ORDER BY id"
    with Session(lake) as session:
        asked = f"USE toy; {before};\n{puts}\n; {before}"
        found = [list(one.rows) for one in session.results(asked)]
        assert found == [[(1,), (2,)], [(7,)]]
        # And where another one was in use before.
        found = [list(one.rows) for one in session.results(f"USE toy; {before}")]
        assert found == [[(1,), (2,)]]


@pytest.mark.parametrize(
    ("as_of", "says"),
    [
        ("VERSION AS OF 'x'", "needs a whole number, not 'x'"),
        ("VERSION AS OF 99999999999999999999", "needs a whole number"),
        ("VERSION AS OF '²'", "needs a whole number"),
        ("VERSION AS OF 77", "toy.readings has no version 77: its newest is 1"),
        ("TIMESTAMP AS OF 'noon'", "needs a time such as"),
        ("KNOWN AS OF 3", "needs a night such as '2013-02-04', not '3'"),
        ("""KNOWN AS OF 'a"b'""", "needs a night"),
        ("VERSION AS OF now()", "needs a number or a text in quotes"),
        ("VERSION AS OF (1)", "needs a number or a text in quotes"),
        ("VERSION AS OF -1", "needs a number or a text in quotes"),
        ("VERSION AS OF 0+1", "needs a number or a text in quotes"),
        ("KNOWN AS OF CURRENT_DATE", "needs a number or a text in quotes"),
        ("TIMESTAMP AS OF '2013' || '-01-01'", "needs a number or a text in quotes"),
    ],
)
def test_an_odd_moment_is_refused_with_the_way_out(
    lake: Environment, as_of: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        _ids(lake, as_of)


@pytest.mark.parametrize("rows", ["toy.readings", "toy.readings AS", "(FROM toy.readings)"])
def test_a_moment_behind_another_name_of_the_table_is_refused_in_the_statements_own_words(
    lake: Environment, rows: str
) -> None:
    says = r"^VERSION AS OF .* own name, and r is one .* as in .* VERSION AS OF 0 AS r\.$"
    with pytest.raises(UsageError, match=says):
        query(lake, f"SELECT r.id FROM {rows} r VERSION AS OF 0")


@pytest.mark.parametrize("how", ["DESCRIBE", "DESC", "SUMMARIZE"])
def test_a_table_as_it_was_is_described(lake: Environment, how: str) -> None:
    described = query(lake, f"{how} toy.readings VERSION AS OF 0")[1]
    assert [row[0] for row in described] == ["id", "landed_date"]


def test_a_table_as_it_was_is_all_that_is_asked_for(lake: Environment) -> None:
    rows = query(lake, "FROM toy.readings VERSION AS OF 0")[1]
    assert query(lake, "TABLE toy.readings VERSION AS OF 0")[1] == rows


def test_a_moment_may_say_its_type(lake: Environment) -> None:
    assert _ids(lake, "KNOWN AS OF DATE '2013-01-08'") == [1, 2]
    assert _ids(lake, "TIMESTAMP AS OF TIMESTAMP '2100-01-01'") == [2, 9]


def test_a_column_is_named_with_its_table_and_its_pipeline(lake: Environment) -> None:
    where = 'FROM toy.readings VERSION AS OF 0 WHERE toy."readings".id > 1'
    assert query(lake, f"SELECT toy.readings.id, readings.id {where}")[1] == [(2, 2)]


def test_a_table_without_publications_has_no_times(lake: Environment) -> None:
    write_deltalake(lake.table_path("toy.bare"), pa.table({"id": [1]}))
    with pytest.raises(UsageError, match="2013-01-01: no publication of it is recorded"):
        query(lake, "FROM toy.bare TIMESTAMP AS OF '2013-01-01'")


def test_of_a_table_of_the_platform_whose_versions_are_gone_the_rows_are_offered(
    lake: Environment,
) -> None:
    told = "The platform's own tables keep their versions for a day, .* filter by their columns"
    with pytest.raises(UsageError, match=f"its record begins .*{told}"):
        query(lake, "FROM ops.publications TIMESTAMP AS OF '2013-01-01'")
    place = Path(lake.table_path("ops.publications"))
    (place / "_delta_log" / f"{0:020}.json").unlink()
    with pytest.raises(UsageError, match=told) as refused:
        as_left.open_at(lake, "ops.publications", 0)
    assert "maintain" not in str(refused.value)


@pytest.mark.parametrize("asked", ["toy.bare KNOWN AS OF '2013-01-05'", "toy.bare_history"])
@pytest.mark.parametrize("partitions", [[], ["id", "place"]])
def test_a_table_without_a_column_of_days_has_no_history(
    lake: Environment, partitions: list[str], asked: str
) -> None:
    columns = ("id", "place", "height")
    rows = pa.table({column: [1] for column in columns})
    write_deltalake(lake.table_path("toy.bare"), rows, partition_by=partitions)
    with pytest.raises(UsageError, match=r"toy\.bare is not partitioned by one column of days"):
        query(lake, f"FROM {asked}")


@pytest.mark.parametrize(
    "when", ["VERSION AS OF 0", "TIMESTAMP AS OF '2026-11-25'", "KNOWN AS OF '2013-01-05'"]
)
def test_an_unknown_table_has_its_near_miss(lake: Environment, when: str) -> None:
    with pytest.raises(UsageError, match=r"Did you mean toy\.readings") as refused:
        query(lake, f"SELECT * FROM toy.reading {when}")
    assert "AS OF" not in str(refused.value), "it is told by its own name"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'toy.readings VERSION AS OF 3'",
        "SELECT 1 -- toy.readings VERSION AS OF 3",
        "SELECT /* toy.readings VERSION AS OF 3 */ 1",
        "SELECT $$toy.readings VERSION AS OF 3$$",
        "SELECT version AS of FROM toy.readings",
        "VERSION AS OF",
        "SELECT * FROM toy.readings VERSION AS OF",
        "",
    ],
)
def test_what_asks_for_no_moment_stays_as_it_is(text: str) -> None:
    assert rewritten(text, _KNOWN, ["main"]) == (text, {})


def test_a_name_is_read_with_quotes_comments_and_an_alias() -> None:
    text = """SELECT 'é', r.id FROM "toy"."readings" -- now
      VERSION AS OF 3 r JOIN schedule KNOWN AS OF '2013-01-05' ON true"""
    written, pasts = rewritten(text, [*_KNOWN[:1], "toy.schedule"], ["main"])
    assert '"toy"."readings VERSION AS OF 3" r JOIN' in written
    assert '"toy"."schedule KNOWN AS OF 2013-01-05" AS "schedule" ON true' in written
    assert {past.table for past in pasts.values()} == {"toy.readings", "toy.schedule"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("old", "new"),
        ("before", "after"),
        ("a", "day"),
    ],
)
def test_a_word_that_sql_has_too_may_be_an_alias(
    lake: Environment, before: str, after: str
) -> None:
    statement = (
        f"SELECT {before}.id, {after}.id FROM toy.readings VERSION AS OF 0 {before} "
        f"JOIN toy.readings VERSION AS OF 1 {after} USING (landed_date) ORDER BY ALL"
    )
    assert query(lake, statement)[1] == [(1, 9), (2, 2)]


@pytest.mark.parametrize(
    "clause",
    [
        *("WHERE true", "GROUP BY ALL", "ORDER BY id", "LIMIT 9", "TABLESAMPLE 100%"),
        *("WINDOW w AS ()", "ANTI JOIN (SELECT 0 AS id) USING (id)", "POSITIONAL JOIN range(2)"),
    ],
)
def test_what_follows_a_table_as_it_was_is_no_alias(lake: Environment, clause: str) -> None:
    _, rows = query(lake, f"SELECT readings.id FROM toy.readings VERSION AS OF 0 {clause}")
    assert sorted(rows) == [(1,), (2,)]


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_text_makes_it_fail_or_is_lost(before: str, after: str) -> None:
    text = f"{before} {after}"
    written, pasts = rewritten(text, _KNOWN, ["main"])
    assert pasts or written == text
