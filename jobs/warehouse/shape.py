"""What a table of PostgreSQL shall be, from the lake's table and the declarations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.lake import dictionary
from jobs.lake.contract import contract, not_as_promised
from pipelines.errors import Refused
from pipelines.spec import PREDICTIONS

if TYPE_CHECKING:
    from pipelines.spec import Pipeline, Table

TEXTS = (pa.string(), pa.large_string(), pa.string_view())
_PLAIN: Mapping[pa.DataType, str] = {
    pa.bool_(): "boolean",
    pa.int8(): "smallint",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    **dict.fromkeys(TEXTS, "text"),
    pa.date32(): "date",
}
"""As PostgreSQL itself writes the types: they are compared with those of a table that is there."""
_OF_CONTRACT: Mapping[str, str] = {
    "string": "text",
    "int": "integer",
    "long": "bigint",
    "double": "double precision",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp with time zone",
}
_LONGEST_NAME = 63
"""Bytes: PostgreSQL cuts off what a name has more, and does not find it by the whole one."""
_INDEX_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column with its type, as PostgreSQL writes it, and its meaning."""

    name: str
    type: str
    doc: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A table of PostgreSQL, and the view by which people query it."""

    schema: str
    """The pipeline."""
    view: str
    """The table's name in the lake."""
    columns: tuple[Column, ...]
    copied: tuple[str, ...]
    """Those that the lake's rows have; the others are null."""
    day: str
    """Column with the day that a row belongs to."""
    key: tuple[str, ...]
    """Columns that identify a row within its day."""
    doc: str

    @property
    def table(self) -> str:
        """The table behind the view: no table of the lake has such a name."""
        return f"_{self.view}"

    @property
    def indexes(self) -> dict[str, tuple[str, ...]]:
        """Columns of each index by its name, which tells another key apart; the first is unique."""
        rest = tuple(name for name in self.key if name != self.day)
        wanted = [(self.day, *rest)]
        if rest:
            wanted.append((*rest, self.day))
        return {f"{self.table}_{_digest(*columns)}": columns for columns in wanted}

    def is_index(self, name: str) -> bool:
        """Whether it is the name of an index of ours, of this key or of one of before."""
        return bool(re.fullmatch(f"{re.escape(self.table)}_[0-9a-f]{{{_INDEX_DIGITS}}}", name))

    def digest(self) -> str:
        """Differs when something of it has changed."""
        return _digest(repr(self))


def shape_of(pipeline: Pipeline, table: Table, rows: pa.Schema) -> Shape:
    """What PostgreSQL shall hold of a table of the lake.

    Args:
        pipeline: Whose table it is.
        table: Its declaration.
        rows: The columns of its rows.

    Raises:
        Refused: a column has a type for which PostgreSQL has no plain one, or another one than was
            promised, or too long a name.
        UsageError: the contract of the predictions makes no sense.
    """
    name = f"{pipeline.name}.{table.name}"
    found = {field.name: _type(name, field) for field in rows}
    docs = dict(dictionary.column_docs(name))
    if table.name == PREDICTIONS:
        if odd := not_as_promised(pipeline, rows):
            raise Refused(" ".join(odd))
        promised = contract(pipeline)
        docs |= {one.column: one.told for one in promised}
        wanted = {one.column: _of_contract(one.type) for one in promised}
        # First what was promised, also where nothing makes it any more.
        found = {**wanted, **found}
    columns: list[Column] = []
    for column, kind in found.items():
        doc = docs.get(column, "")
        columns.append(Column(name=column, type=kind, doc=doc))
    return Shape(
        schema=pipeline.name,
        view=table.name,
        columns=tuple(columns),
        copied=tuple(rows.names),
        day=table.partition,
        key=table.key,
        doc=dictionary.table_doc(name),
    )


def _of_contract(kind: str) -> str:
    return _OF_CONTRACT.get(kind) or kind.replace("decimal", "numeric")


def _type(name: str, field: pa.Field) -> str:
    if len(field.name.encode()) > _LONGEST_NAME:
        raise Refused(
            f"{name}: the name of column '{field.name}' is longer than {_LONGEST_NAME} bytes, all "
            "that PostgreSQL takes. Have its transform call it otherwise, or do not declare "
            "warehouse=True."
        )
    kind = field.type
    if kind in _PLAIN:
        return _PLAIN[kind]
    if pa.types.is_timestamp(kind):
        zone = "with" if kind.tz else "without"
        return f"timestamp {zone} time zone"
    if pa.types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    raise Refused(
        f"{name}: column '{field.name}' is a {kind}, for which PostgreSQL gets no column. Have its "
        "transform make plain columns of it, or do not declare warehouse=True."
    )


def _digest(*texts: str) -> str:
    joined = "\n".join(texts)
    return hashlib.sha256(joined.encode()).hexdigest()[:_INDEX_DIGITS]
