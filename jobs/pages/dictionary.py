"""The page of the data dictionary: what each table and column means, from what, and how fresh."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from jobs.lake import dictionary, ops, publications, sql
from jobs.lake.locations import exists, sql_name
from jobs.lake.log import is_table
from jobs.lake.ops_docs import OPS_TABLES
from jobs.lake.ops_views import OPS_VIEWS
from jobs.pages.statements import Column, columns_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.spec import OPS, Pipeline, Table

if TYPE_CHECKING:
    from jobs.lake.publications import Publication

_Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Freshness:
    """The newest day that was published of a table."""

    day: date
    at: datetime
    """When it was published (UTC)."""
    rows: int
    """Of that day."""
    days: int
    """How many have been published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What was judged of a table when it was judged last."""

    at: datetime
    """UTC."""
    says: tuple[str, ...]
    """What must hold, in words."""
    failing: int
    """How many do not, of those that refuse the days."""
    warnings: int
    """How many do not, of those that only warn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A table of the dictionary."""

    name: str
    """SQL name."""
    doc: str
    columns: tuple[Column, ...]
    """Those of the table; of one that is not there yet those that are declared of it."""
    made_by: str = ""
    """The stage; empty: the platform itself."""
    reads: tuple[str, ...] = ()
    """SQL names of the tables, or paths of the files, that it is made of."""
    key: tuple[str, ...] = ()
    """Columns that identify a row within a day."""
    partition: str = ""
    """The column of the day."""
    freshness: Freshness | None = None
    """None: nothing has been published of it, or it has no days."""
    checked: Checked | None = None
    """None: it was never judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A table in the picture of the lineage."""

    name: str
    """SQL name."""
    layer: int
    """From left to right, from 0: one more than that of all that it is made of."""
    reads: tuple[str, ...]
    """SQL names of other nodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dictionary:
    """All that the page shows."""

    entries: tuple[Entry, ...]
    """Tables of the pipeline in the order in which a night makes them."""
    platform: tuple[Entry, ...]
    """Tables of the platform, and views."""
    lineage: tuple[Node, ...]


def dictionary_of(environment: Environment, pipeline: Pipeline) -> Dictionary:
    """What is declared of the pipeline's tables and the platform's, and what is on record."""
    checks = _checks(environment, pipeline)
    # Whatever its days are: all publications are asked for.
    run = Run(pipeline=pipeline, days=Days.of(pipeline.first_day), environment=environment)
    told = publications.all_told(run)
    entries = [_entry(run, table, told[table.name], checks) for table in pipeline.tables]
    reads = {one.name: one.reads for one in entries}
    return Dictionary(
        entries=tuple(entries),
        platform=tuple(_platform(environment)),
        lineage=tuple(_nodes(reads)),
    )


def _entry(
    run: Run,
    table: Table,
    told: Sequence[Publication],
    checks: Mapping[str, Checked],
) -> Entry:
    name = sql_name(run, table.name)
    return Entry(
        name=name,
        doc=dictionary.table_doc(name),
        columns=tuple(_columns(run, table)),
        made_by=table.made_by,
        reads=_reads(run.pipeline, table),
        key=table.key,
        partition=table.partition,
        freshness=_freshness(told),
        checked=checks.get(name),
    )


def _columns(run: Run, table: Table) -> list[Column]:
    """Those that the table has; of one that is not there yet those that are declared."""
    name = sql_name(run, table.name)
    if exists(run, table.name):
        return columns_of(run.environment, name)
    feeds = {feed.name: feed for feed in run.pipeline.feeds}
    typed = feeds[table.name].columns if table.name in feeds else ()
    kinds = {column.name: column.type for column in typed}
    docs = dictionary.column_docs(name)
    columns = []
    for column in dictionary.declared_columns(run.pipeline, table):
        kind = kinds.get(column, "")
        doc = docs.get(column, "")
        columns.append(Column(name=column, kind=kind, doc=doc))
    return columns


def _reads(pipeline: Pipeline, table: Table) -> tuple[str, ...]:
    """What a table is made of: SQL names of tables, or of a raw one the path of its files."""
    if table.made_by == "ingest":
        return (f"{pipeline.name}/{pipeline.feed(table.name).path}",)
    return tuple(f"{pipeline.name}.{name}" for name in pipeline.sources_of(table))


def _freshness(told: Sequence[Publication]) -> Freshness | None:
    of_day = publications.latest(told)
    if not of_day:
        return None
    newest = of_day[max(of_day)]
    return Freshness(
        day=newest.day,
        at=newest.published_at,
        rows=newest.rows,
        days=len(of_day),
    )


def _checks(environment: Environment, pipeline: Pipeline) -> dict[str, Checked]:
    """By SQL name what was judged last of a table."""
    if not ops.exists(environment, "check_results"):
        return {}
    statement = (
        "SELECT table_name, checked_at, success, severity, expectation, column_name, detail "
        f"FROM {OPS}.check_results WHERE pipeline = '{pipeline.name}' "
        "QUALIFY checked_at = max(checked_at) OVER (PARTITION BY table_name)"
    )
    columns, rows = sql.query(environment, statement)
    by_table: dict[str, list[_Row]] = {}
    for values in rows:
        row = dict(zip(columns, values, strict=True))
        by_table.setdefault(str(row["table_name"]), []).append(row)
    return {name: _checked(own) for name, own in by_table.items()}


def _checked(rows: Sequence[_Row]) -> Checked:
    says = [_says(row) for row in rows]
    # Whatever does not only warn refuses.
    not_held = [row["severity"] != "warning" for row in rows if not row["success"]]
    failing = sum(not_held)
    return Checked(
        at=rows[0]["checked_at"],
        says=tuple(sorted(dict.fromkeys(says))),
        failing=failing,
        warnings=len(not_held) - failing,
    )


def _says(row: _Row) -> str:
    said = json.loads(row["detail"] or "{}").get("says")
    return str(said or f"{row['column_name'] or 'table'}: {row['expectation']}")


def _platform(environment: Environment) -> Iterable[Entry]:
    names = [f"{OPS}.{table}" for table in OPS_TABLES] + list(OPS_VIEWS)
    for name in sorted(names):
        docs = dictionary.column_docs(name)
        columns = [Column(name=column, kind="", doc=docs[column]) for column in docs]
        if is_table(environment.table_path(name)):
            columns = columns_of(environment, name)
        yield Entry(
            name=name,
            doc=dictionary.table_doc(name),
            columns=tuple(columns),
            reads=OPS_VIEWS[name].reads if name in OPS_VIEWS else (),
        )


def _nodes(reads: Mapping[str, Sequence[str]]) -> Iterable[Node]:
    """The tables, each in a layer behind all that it is made of.

    Args:
        reads: By table, in the order in which they are made, what it is made of; files too.
    """
    layers: dict[str, int] = {}
    for name, of in reads.items():
        own = tuple(one for one in of if one in layers)
        before = [layers[one] for one in own]
        layers[name] = 1 + max(before, default=-1)
        yield Node(name=name, layer=layers[name], reads=own)
