"""The quality gate: the suites of flights over what has been staged of so many days.

All tables from raw ones to features, without predictions, for which a model would have to be
trained. Each way judges them on a Spark server of its own, which is configured as the platform's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bench.command import named
from bench.harness import Answer, Case, Peer, Work
from bench.home import Home, words_of_stages
from expectations.lookup import suite_of
from expectations.row_rules import broken
from expectations.suite import LACKING, OF_THE_RUN, ROWS, ROWS_OF_KEY, SURPLUS, Suite
from jobs.lake import staging, tables
from jobs.lake.staging import Staging
from jobs.spark.server import running_server
from jobs.spark.session import connect, plan_for
from pipelines.days import Days
from pipelines.flights import PIPELINE
from pipelines.run import Run

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation
    from pyspark.sql import DataFrame

_BEFORE = PIPELINE.first_day
"""Has the schedule of the first day, and nothing else."""
_HISTORY_DAYS = 28
"""Of the longest window of a feature."""
_UNTIL = "features"
"""The last stage whose tables are judged."""
_TABLES_AT_ONCE = 3
"""As the check stages judge them."""
_ANSWER = ("table", "expectation", "column", "success", "unexpected")
_STAGED, _BESIDE = "staged_{}", "beside_{}"
"""Views of a table's rows, and of those of the table that its suite compares it with."""
_Told = tuple[str, str, str, bool, int | None]
"""Of an expectation: the columns of the answer."""


def _same(ours: pa.Table, theirs: pa.Table) -> bool:
    """Whether every expectation was met or not, by as many rows or days that do not meet it."""
    return len(ours) > 0 and ours.equals(theirs)


CASE = Case(
    name="gate",
    what="our gate, on staged rows as the check stages call it: three tables at once",
    peers=(
        Peer(
            name="aggregation",
            what="one aggregation of Spark SQL a table, of the same measures and counts; three "
            "tables at once",
            goal=1.5,
        ),
        Peer(
            name="great_expectations",
            what="a validation definition of Great Expectations a table, and one of its measures "
            "by day, on its Spark engine as it is by default; one after another",
            goal=0.33,
        ),
    ),
    # Days.
    sizes=(1, 90),
    quick_size=1,
    repeats=3,
    same=_same,
)


def prepare(folder: Path, size: int) -> None:
    """The days as stages have staged them, after those that their windows reach back to."""
    home = Home(folder)
    days = _days(size)
    before = Days(_BEFORE, days.first - timedelta(days=1))
    home("land", PIPELINE.name, *named(Days(before.first, days.last)))
    for each in (before, days):
        home("run", PIPELINE.name, *named(each), *words_of_stages(_UNTIL))
    (folder / "days").write_text(str(size))


def ours(folder: Path) -> Work:
    """Only what it finds is kept: nothing is published."""
    from jobs.stages.check import judge

    def judged(one: _Staged) -> list[_Told]:
        checks = judge(one.run, one.name, one.staging, one.suite).verdict.checks
        return [
            _told(one.name, check.expectation, check.column, check.success, check.unexpected)
            for check in checks
        ]

    with _staged(folder, "ours") as staged:
        yield lambda: _answer(_some_at_once(judged, staged))


def aggregation(folder: Path) -> Work:
    """As one would write it by hand; its text is made from the suite, so that both say the same."""

    def judged(one: _Staged) -> list[_Told]:
        asked = _by_day(one.name, one.suite, _counts(one.suite))
        found = one.asked(asked).collect()
        return list(_told_by(one, [row.asDict() for row in found]))

    with _staged(folder, "aggregation") as staged:
        yield lambda: _answer(_some_at_once(judged, staged))


def great_expectations(folder: Path) -> Work:
    """As its manual has it: suites and validation definitions are declared once, and then run."""
    with _staged(folder, "great_expectations") as staged:
        project = _Project()
        of_rows = [project.definition(one.name, one.suite.every_row) for one in staged]
        of_days = [project.definition(f"{one.name} by day", one.suite.every_day) for one in staged]

        def work() -> Answer:
            told: list[_Told] = []
            for one, rows, days in zip(staged, of_rows, of_days, strict=True):
                derived = one.rows().selectExpr("*", *_derived(one.suite))
                told += _validated(one.name, rows, derived)
                by_day = one.asked(_by_day(one.name, one.suite))
                told += _validated(one.name, days, by_day)
            return _answer(told)

        yield work


class _Project:
    """A context of Great Expectations with one data source."""

    def __init__(self) -> None:
        import great_expectations as gx

        self._context = gx.get_context(mode="ephemeral")
        # Its bars would hide what the harness tells.
        self._context.variables.progress_bars = {"globally": False}
        self._source = self._context.data_sources.add_spark("spark")

    def definition(self, name: str, expectations: Iterable[Expectation]) -> Any:
        """What validates rows of that name."""
        import great_expectations as gx

        batch = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        # Some are in several suites, of which each wants its own.
        own = [one.copy() for one in expectations]
        suite = self._context.suites.add(gx.ExpectationSuite(name=name, expectations=own))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        return self._context.validation_definitions.add(definition)


def _validated(table: str, definition: Any, rows: DataFrame) -> Iterator[_Told]:
    outcome = definition.run(batch_parameters={"dataframe": rows})
    # It keeps what it judges in Spark's memory, where the next round would find it.
    rows.unpersist()
    for result in outcome.results:
        declared = result.expectation_config
        count = (result.result or {}).get("unexpected_count")
        yield _told(table, declared.type, declared.kwargs.get("column"), result.success, count)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Staged:
    """A table that waits to be judged."""

    run: Run
    name: str
    staging: Staging
    suite: Suite

    def rows(self) -> DataFrame:
        """They are read anew by whoever asks them."""
        return staging.frame(self.run, self.name, self.staging)

    def asked(self, statement: str) -> DataFrame:
        """The answer to a statement about the views of the table."""
        session = connect(self.run.environment)
        self.rows().createOrReplaceTempView(_STAGED.format(self.name))
        if other := self.suite.same_rows_as:
            rows = tables.read(self.run, other, self.run.days)
            rows.createOrReplaceTempView(_BESIDE.format(self.name))
        return session.sql(statement)


@contextmanager
def _staged(folder: Path, way: str) -> Iterator[list[_Staged]]:
    """All tables, and a Spark server that reads them."""
    days = _days(int((folder / "days").read_text()))
    home = Home(folder).environment
    with running_server(replace(home, home=folder / f"home of {way}"), 0) as environment:
        # As a stage has it: a night is planned otherwise than many.
        plan_for(environment, many_rows=len(days) > 1)
        # Great Expectations looks for a session that is there.
        connect(environment)
        run = Run(pipeline=PIPELINE, days=days, environment=environment)
        yield list(_tables(run))


def _tables(run: Run) -> Iterator[_Staged]:
    for table in run.pipeline.tables:
        found = staging.find(run, table.name)
        # Predictions are not staged, nor is a reference file that brought nothing new.
        if found is not None:
            suite = suite_of(run.pipeline, table.name)(run.days)
            yield _Staged(run=run, name=table.name, staging=found, suite=suite)


def _derived(suite: Suite) -> list[str]:
    """The columns that only the suite needs, as SQL."""
    key = ", ".join(dict.fromkeys([suite.day, *suite.key]))
    derived = {ROWS_OF_KEY: f"count(1) OVER (PARTITION BY {key})", **suite.derived}
    return [f"{sql} AS `{name}`" for name, sql in derived.items()]


def _counts(suite: Suite) -> dict[str, str]:
    """Aggregates: rows that do not meet each expectation, by its position."""
    # The first is about columns, which a frame tells without its rows.
    return {
        f"broken_{number}": f"count_if({broken(one)})"
        for number, one in enumerate(suite.every_row)
        if number
    }


def _by_day(
    table: str,
    suite: Suite,
    others: Mapping[str, str] | None = None,
) -> str:
    """SQL of the measures, a row for each day of the run, and for any other that has rows."""
    figures = {ROWS: "count(1)", **suite.measures, **(others or {})}
    told = ", ".join(f"CAST({sql} AS DOUBLE) AS `{name}`" for name, sql in figures.items())
    rows = f"SELECT *, {', '.join(_derived(suite))} FROM {_STAGED.format(table)}"
    measured = f"SELECT {suite.day} AS day, {told} FROM ({rows}) GROUP BY 1"
    listed = ", ".join(f"DATE '{day}'" for day in suite.days or ())
    return f"""
        SELECT * EXCEPT ({ROWS}), coalesce({ROWS}, 0) AS {ROWS},
            coalesce({OF_THE_RUN}_or_null, 0) AS {OF_THE_RUN}
        FROM ({measured}) {_comparison(table, suite)}
        FULL JOIN (
            SELECT explode(CAST(array({listed}) AS ARRAY<DATE>)) AS day,
                1 AS {OF_THE_RUN}_or_null
        ) USING (day)
    """


def _comparison(table: str, suite: Suite) -> str:
    """SQL that joins the keys that one of two tables has and the other lacks, if any is named."""
    if not suite.same_rows_as:
        return ""
    key = ", ".join(dict.fromkeys([suite.day, *suite.key]))
    return f"""
        FULL JOIN (
            SELECT {suite.day} AS day,
                CAST(count_if(here IS NULL) AS DOUBLE) AS {LACKING},
                CAST(count_if(there IS NULL) AS DOUBLE) AS {SURPLUS}
            FROM (SELECT {key}, 1 AS here FROM {_STAGED.format(table)})
            FULL JOIN (SELECT {key}, 1 AS there FROM {_BESIDE.format(table)}) USING ({key})
            GROUP BY 1
        ) USING (day)
    """


def _told_by(one: _Staged, figures: Sequence[Mapping[str, Any]]) -> Iterator[_Told]:
    """The verdicts that follow from the figures of all days."""
    columns, *of_rows = one.suite.every_row
    names = one.rows().columns
    lacking = [name for name in one.suite.declared_columns if name not in names]
    yield _told(one.name, columns.expectation_type, None, not lacking, None)
    for name, expectation in zip(_counts(one.suite), of_rows, strict=True):
        count = int(sum(row[name] or 0 for row in figures))
        yield _told(one.name, expectation.expectation_type, expectation.column, not count, count)
    days = [row for row in figures if row["day"] is not None]
    for expectation in one.suite.every_day:
        # A day of the run that has no rows has a count of them all the same.
        of_days = [row[expectation.column] for row in days]
        count = sum(not _holds(expectation, value) for value in of_days)
        yield _told(one.name, expectation.expectation_type, expectation.column, not count, count)


def _holds(expectation: Any, value: float | None) -> bool:
    """Whether a measure of a day meets an expectation; null passes."""
    if value is None:
        return True
    if hasattr(expectation, "value_set"):
        return value in expectation.value_set
    least, most = expectation.min_value, expectation.max_value
    return (least is None or value >= least) and (most is None or value <= most)


def _told(
    table: str, expectation: str, column: str | None, success: bool, count: int | None
) -> _Told:
    # Of what is met nothing need have been counted.
    return (table, expectation, column or "", success, 0 if success else count)


def _answer(told: Iterable[_Told]) -> Answer:
    rows = sorted(told, key=repr)
    columns = map(list, zip(*rows, strict=True))
    named = dict(zip(_ANSWER, columns, strict=True))
    return lambda: pa.table(named)


def _some_at_once(
    judged: Callable[[_Staged], Iterable[_Told]], staged: Sequence[_Staged]
) -> list[_Told]:
    with ThreadPoolExecutor(_TABLES_AT_ONCE) as pool:
        return list(chain.from_iterable(pool.map(judged, staged)))


def _days(size: int) -> Days:
    first = _BEFORE + timedelta(days=1 + _HISTORY_DAYS)
    return Days(first, first + timedelta(days=size - 1))
