"""What consumers of a pipeline's predictions may rely on: columns, types, nulls and meanings.

The contract follows from the declaration: entity, carried columns, the prediction, what made it,
and what is deprecated. Features and models are no part of it, so they change nothing. What was
promised is kept in `pipelines/contracts/<pipeline>.json`, and a test holds the declaration to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.lake import dictionary
from pipelines.environment import ROOT
from pipelines.errors import UsageError
from pipelines.spec import PREDICTIONS, Deprecation, Pipeline

_MADE_BY: Mapping[str, str] = {
    "model_name": "string",
    "model_version": "string",
    "model_run_id": "string",
    "run_id": "string",
    "predicted_at": "timestamp",
    "scoring_version": "long",
    "code_version": "string",
}
"""Columns of every pipeline's predictions, with their types."""
_TYPES: Mapping[pa.DataType, str] = {
    pa.bool_(): "boolean",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.string(): "string",
    pa.large_string(): "string",
    pa.string_view(): "string",
    pa.date32(): "date",
}
"""What a column of these is promised as; decimals and instants have more than one each."""
_NOT_JUDGED = frozenset({"model_name", "code_version"})
"""Those of which the gate does not demand a value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promised:
    """A column of the predictions."""

    column: str
    type: str
    nullable: bool
    meaning: str
    deprecated_since: str | None = None
    """A day, as ISO 8601 writes it; None: it is not deprecated."""
    deprecated_until: str | None = None
    deprecated_why: str | None = None

    @property
    def told(self) -> str:
        """Its meaning, after the deprecation."""
        if self.deprecated_since is None:
            return self.meaning
        span = f"since {self.deprecated_since}, until {self.deprecated_until}"
        return f"Deprecated {span}: {self.deprecated_why} {self.meaning}".strip()

    def may_go(self, today: date) -> bool:
        """Whether its deprecation allows by now that it vanishes or changes."""
        until = self.deprecated_until
        return until is not None and date.fromisoformat(until) <= today


HEADER = tuple(one.name for one in fields(Promised))
Contract = tuple[Promised, ...]


def contract(pipeline: Pipeline) -> Contract:
    """What the declaration promises, in the order of the table's columns.

    Raises:
        UsageError: the declaration tells no type of a column, or deprecates a column wrongly.
    """
    deprecated = {one.column: one for one in pipeline.deprecated}
    docs = dictionary.column_docs(f"{pipeline.name}.{PREDICTIONS}")
    may_lack = _NOT_JUDGED | set(pipeline.carried) - set(pipeline.entity)
    found: list[Promised] = []
    for column, kind in _made(pipeline).items():
        one = Promised(
            column=column,
            type=kind,
            nullable=column in may_lack,
            meaning=docs.get(column, ""),
        )
        found.append(_deprecated(one, deprecated.pop(column, None)))
    for column, deprecation in deprecated.items():
        if deprecation.type is None:
            raise UsageError(
                f"Pipeline '{pipeline.name}' deprecates '{column}', which its predictions do not "
                "have. Correct the name; of a column that nothing makes any more give its type too."
            )
        gone = Promised(
            column=column,
            type=deprecation.type,
            nullable=True,
            meaning="Nothing makes it any more: null.",
        )
        found.append(_deprecated(gone, deprecation))
    return tuple(found)


def not_as_promised(pipeline: Pipeline, rows: pa.Schema) -> list[str]:
    """Of each column of predictions that is of another type than is promised, the way out.

    Args:
        pipeline: Whose predictions they are.
        rows: Their columns.

    Raises:
        UsageError: the contract makes no sense.
    """
    found: list[str] = []
    for one in contract(pipeline):
        if one.column in rows.names:
            kind = rows.field(one.column).type
            if _type_of(kind) != one.type:
                found.append(_told_of_type(pipeline.name, one, kind))
    return found


def _told_of_type(pipeline: str, one: Promised, kind: pa.DataType) -> str:
    own = _type_of(kind)
    said = (
        f"{pipeline}.{PREDICTIONS}: column '{one.column}' is {own or kind} in the lake, and is "
        f"promised as {one.type} (`nightshift contract {pipeline}`). Have the transform that makes "
        f"it CAST({one.column} AS {one.type.upper()})"
    )
    if own is None:
        return f"{said}: nothing can be promised as {kind}."
    return (
        f"{said}; or promise what is there: declare types={{'{one.column}': '{own}'}} of the table "
        f"that makes it, take the column out of pipelines/contracts/{pipeline}.json, where it was "
        "never true, and run `python -m tools.contracts --write`."
    )


def _type_of(kind: pa.DataType) -> str | None:
    """As what a column of that type is promised; None: there is no word for it."""
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind) and kind.tz:
        return "timestamp"
    return _TYPES.get(kind)


def values(one: Promised) -> tuple[object, ...]:
    """The column as a row, by `HEADER`."""
    return tuple(getattr(one, name) for name in HEADER)


def file_of(pipeline: str, root: Path = ROOT) -> Path:
    """Where what was promised is kept."""
    return root / "pipelines" / "contracts" / f"{pipeline}.json"


def promised(file: Path) -> Contract:
    """The contract of that file, as `written` wrote it; empty when there is none."""
    if not file.exists():
        return ()
    return tuple(Promised(**given) for given in json.loads(file.read_text(encoding="utf-8")))


def written(columns: Contract) -> str:
    """The contract as its file holds it: JSON with a column a line."""
    lines: list[str] = []
    for one in columns:
        said = {name: value for name, value in _named(one).items() if value is not None}
        lines.append(json.dumps(said, ensure_ascii=False))
    return "[\n" + ",\n".join(f" {line}" for line in lines) + "\n]\n"


def breaches(
    pipeline: str, before: Sequence[Promised], now: Sequence[Promised], today: date
) -> list[str]:
    """What the new contract takes away that the old one promised, with the way out.

    A column whose deprecation has run out may vanish or change, but not by a deprecation that was
    never seen before it ran out. Nor does the day come sooner that was promised.
    """
    table = f"{pipeline}.{PREDICTIONS}"
    known = {one.column: one for one in now}
    found: list[str] = []
    for one in before:
        if one.may_go(today):
            continue
        way_out = _way_out(one)
        broken = _broken(one, known.get(one.column), today)
        found += [f"{table}: {what} {way_out}" for what in broken]
    return found


def _broken(one: Promised, found: Promised | None, today: date) -> Iterator[str]:
    if found is None:
        yield f"column '{one.column}' ({one.type}) would vanish."
        return
    if found.type != one.type:
        yield f"column '{one.column}' would become {found.type}, and was promised as {one.type}."
    if found.nullable and not one.nullable and one.deprecated_since is None:
        yield f"column '{one.column}' could be null, and was promised never to be."
    until = found.deprecated_until
    if found.may_go(today):
        yield f"column '{one.column}' would be deprecated until {until}, which is over already."
    elif until and one.deprecated_until and until < one.deprecated_until:
        yield f"column '{one.column}' would be deprecated until {until} alone."


def _way_out(one: Promised) -> str:
    if one.deprecated_until:
        return f"It was promised until {one.deprecated_until}: keep it until then."
    return (
        "Others read it. Keep it, or first declare of the pipeline deprecated=(Deprecation(column="
        f"'{one.column}', type='{one.type}', since=…, until=…, why=…),), and let that day come."
    )


def _made(pipeline: Pipeline) -> dict[str, str]:
    """The columns that the stage `predict` gives, with their types."""
    known = _declared_types(pipeline)
    shown = dict.fromkeys((*pipeline.entity, *pipeline.carried))
    lacking = [name for name in shown if name not in known]
    if lacking:
        raise UsageError(
            f"Pipeline '{pipeline.name}': no feed tells the type of {', '.join(lacking)}, which "
            f"its predictions show. Declare types={{'{lacking[0]}': …}} of the table that makes it."
        )
    found = {name: known[name] for name in shown}
    found[pipeline.prediction] = "double"
    return {**found, **_MADE_BY}


def _declared_types(pipeline: Pipeline) -> dict[str, str]:
    found: dict[str, str] = {pipeline.event_date: "date"}
    for feed in pipeline.feeds:
        for column in feed.columns:
            found.setdefault(column.name, column.type)
    for table in pipeline.derived:
        found |= table.types
    return found


def _deprecated(one: Promised, deprecation: Deprecation | None) -> Promised:
    if deprecation is None:
        return one
    named = {
        **_named(one),
        "deprecated_since": str(deprecation.since),
        "deprecated_until": str(deprecation.until),
        "deprecated_why": deprecation.why,
    }
    return Promised(**named)


def _named(one: Promised) -> dict[str, Any]:
    return {name: getattr(one, name) for name in HEADER}
