"""Tables in a statement as they were: by version, by the time of day, or as a night saw them.

`flights.flights VERSION AS OF 12` and `flights.flights TIMESTAMP AS OF '2026-11-25 08:00'` are
Delta's own words. `flights.flights KNOWN AS OF '2013-02-04'` is ours: of each day the last version
that was known by that night.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import duckdb
from deltalake import DeltaTable

from jobs.lake import datasets, publications
from jobs.lake.ops_views import OPS_VIEWS
from pipelines.errors import UsageError
from pipelines.spec import HISTORY_SUFFIX, OPS

if TYPE_CHECKING:
    from pyarrow import dataset as arrow

    from pipelines.environment import Environment

VERSION, TIMESTAMP, KNOWN = "VERSION", "TIMESTAMP", "KNOWN"
_KINDS = (VERSION, TIMESTAMP, KNOWN)
_AS_OF = ["AS", "OF"]
_KIND_AS_OF = 3
"""Words before the value."""
_NAME_TOKENS = 3
"""Of a name with its pipeline: that, a dot, and the table."""
_NAMES = (duckdb.token_type.identifier, duckdb.token_type.keyword)
"""What the parts of a table's name are to DuckDB: `schedule` is a keyword."""
_VERSION_NUMBER = re.compile(r"[0-9]{1,15}")
"""More digits no version has."""
_VALUES = (duckdb.token_type.numeric_const, duckdb.token_type.string_const)


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """A table as it was."""

    table: str
    """SQL name."""
    kind: str
    """One of VERSION, TIMESTAMP and KNOWN."""
    value: str
    """As it stands in the statement, without quotes."""

    @property
    def view(self) -> str:
        """What it is called in the place of the table: without the pipeline."""
        _, _, name = self.table.partition(".")
        return f"{name} {self.kind} AS OF {self.value}"

    def open(
        self, environment: Environment, filtered: Collection[str] = ()
    ) -> arrow.FileSystemDataset:
        """Its rows.

        Args:
            environment: Whose lake it is.
            filtered: See `dataset_of`.

        Raises:
            UsageError: the value is none of that kind, or there was no such table then, or its
                files have been deleted.
        """
        if self.table in OPS_VIEWS:
            raise UsageError(
                f"{self.table} is a view, which has no versions. Ask for a moment of "
                f"{OPS_VIEWS[self.table].reads[0]}."
            )
        if self.table.endswith(HISTORY_SUFFIX):
            raise UsageError(
                f"{self.table} tells all versions already: filter by known_date, revision and "
                "is_in_force."
            )
        if self.kind == KNOWN:
            if self._is_ops:
                raise UsageError(
                    f"{self.table} is the platform's own: no night sees it. Filter by its columns, "
                    "or ask for a VERSION or a TIMESTAMP."
                )
            return datasets.known_by(environment, self.table, self._day(), filtered)
        return datasets.in_force(environment, self.table, self._version(environment), filtered)

    def _version(self, environment: Environment) -> int:
        if self.kind == VERSION:
            if not _VERSION_NUMBER.fullmatch(self.value):
                raise UsageError(
                    f"{self.table} {self.kind} AS OF needs a whole number, not '{self.value}'. "
                    "ops.publications has the versions of each day."
                )
            return int(self.value)
        instant = self._instant()
        commits = self._commits(environment)
        until = [version for version, made in commits if made <= instant]
        if not until:
            first = min((str(made) for _, made in commits), default="never")
            raise UsageError(
                f"{self.table} cannot be read as of {self.value}: its record begins {first}."
            )
        return max(until)

    @property
    def _is_ops(self) -> bool:
        return self.table.startswith(f"{OPS}.")

    def _commits(self, environment: Environment) -> list[tuple[int, datetime]]:
        """Versions, and when each was made: delta-rs takes the first for any time before it."""
        if self._is_ops:
            log = DeltaTable(environment.table_path(self.table)).history()
            return [(one["version"], _moment(one["timestamp"])) for one in log]
        published = publications.revisions(environment, self.table)
        return [(one.version, one.published_at) for one in published]

    def _instant(self) -> datetime:
        try:
            instant = datetime.fromisoformat(self.value)
        except ValueError:
            raise self._odd("a time such as '2026-11-25 08:00', in UTC") from None
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)

    def _day(self) -> date:
        try:
            return date.fromisoformat(self.value)
        except ValueError:
            raise self._odd("a night such as '2013-02-04'") from None

    def _odd(self, wanted: str) -> UsageError:
        return UsageError(f"{self.table} {self.kind} AS OF needs {wanted}, not '{self.value}'.")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Token:
    start: int
    """In bytes."""
    end: int
    """In bytes, without the space after it."""
    text: str
    kind: duckdb.token_type | None


def rewritten(statements: str, known: Sequence[str], schema: str) -> tuple[str, Mapping[str, Past]]:
    """The statements with a name of its own for each table as it was, and these by name.

    Args:
        statements: SQL, of which DuckDB knows no `AS OF`.
        known: SQL names of the tables.
        schema: The pipeline in use, of a table that is named without one.
    """
    # DuckDB counts bytes.
    text = statements.encode()
    tokens = _tokens(statements, text)
    written = b""
    done = 0
    pasts = {}
    for place in range(len(tokens)):
        kind = _kind_at(tokens, place)
        first = _name_before(tokens, place) if kind else place
        if first == place:
            continue
        name = "".join(token.text for token in tokens[first:place]).replace('"', "").lower()
        value = tokens[place + _KIND_AS_OF]
        past = Past(
            table=name if "." in name else _with_pipeline(name, known, schema),
            kind=kind,
            value=value.text.strip("'"),
        )
        pipeline, _, bare = past.table.partition(".")
        view = f'"{pipeline}".{_quoted(past.view)}'
        if not _has_alias(tokens, place + _KIND_AS_OF + 1):
            # So that its columns can be named by the table, as without AS OF.
            view += f" AS {_quoted(bare)}"
        written += text[done : tokens[first].start] + view.encode()
        done = value.end
        pasts[f"{pipeline}.{past.view}"] = past
    return (written + text[done:]).decode(), pasts


def _tokens(statements: str, text: bytes) -> list[_Token]:
    """All but comments."""
    found = [*duckdb.tokenize(statements), (len(text), None)]
    tokens = []
    for (start, kind), (end, _) in pairwise(found):
        if kind != duckdb.token_type.comment:
            part = text[start:end].rstrip()
            token = _Token(start=start, end=start + len(part), text=part.decode(), kind=kind)
            tokens.append(token)
    return tokens


def _kind_at(tokens: Sequence[_Token], place: int) -> str:
    """The kind whose `… AS OF value` begins there; empty: none does."""
    kind, *as_of = [token.text.upper() for token in tokens[place : place + _KIND_AS_OF]]
    values = tokens[place + _KIND_AS_OF : place + _KIND_AS_OF + 1]
    has_value = any(token.kind in _VALUES for token in values)
    return kind if has_value and kind in _KINDS and as_of == _AS_OF else ""


def _name_before(tokens: Sequence[_Token], place: int) -> int:
    """Where the name begins that ends before that place: `name`, or `pipeline.name`."""
    kinds = [token.kind for token in tokens[max(0, place - _NAME_TOKENS) : place]]
    if not kinds or kinds[-1] not in _NAMES:
        return place
    has_pipeline = len(kinds) == _NAME_TOKENS and tokens[place - 2].text == "."
    return place - _NAME_TOKENS if has_pipeline and kinds[0] in _NAMES else place - 1


def _with_pipeline(name: str, known: Sequence[str], schema: str) -> str:
    in_use = f"{schema}.{name}"
    of_any = [one for one in known if one.partition(".")[2] == name]
    # A statement before it may say USE: then the only table of that name is meant.
    return of_any[0] if in_use not in known and len(of_any) == 1 else in_use


def _has_alias(tokens: Sequence[_Token], after: int) -> bool:
    if after >= len(tokens):
        return False
    token = tokens[after]
    return token.text.upper() == "AS" or token.kind == duckdb.token_type.identifier


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
