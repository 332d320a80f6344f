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
from itertools import takewhile
from typing import TYPE_CHECKING

import duckdb
from deltalake import DeltaTable

from jobs.lake import as_left, datasets, publications
from jobs.lake.ops_views import OPS_VIEWS
from jobs.lake.tokens import Token, encoded, is_alias, quoted, tokens
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
_TEXT = duckdb.token_type.string_const
_VALUES = (duckdb.token_type.numeric_const, _TEXT)
_SIGN = duckdb.token_type.operator
_END = ";"
_AFTER = (",", ")", _END)
"""Signs that may come after a value."""
_TYPES = ("date", "timestamp", "timestamptz")
_BARE = ("describe", "desc", "summarize", "show", "table")
"""Words after which a table stands by itself, without a name that it could be given."""
_MAIN = "main"
"""What is in use where no pipeline is."""
_LONGEST_USE = 8
"""Words, and signs, of what puts a pipeline in use, at the most."""
_COLUMN_TOKENS = 5
"""Of a column with its pipeline and its table."""


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
        version = self._version(environment)
        try:
            return datasets.in_force(environment, self.table, version, filtered)
        except UsageError:
            newest = DeltaTable(environment.table_path(self.table)).version()
            if version <= newest:
                raise
            raise UsageError(
                f"{self.table} has no version {version}: its newest is {newest}. ops.publications "
                "has the versions of each day."
            ) from None

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
            first = min((f"its record begins {made}" for _, made in commits), default="")
            why = first or "no publication of it is recorded"
            way_out = f" {as_left.OF_OPS}" if self._is_ops else ""
            raise UsageError(f"{self.table} cannot be read as of {self.value}: {why}.{way_out}")
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


def rewritten(
    statements: str,
    known: Sequence[str],
    schemas: Sequence[str],
) -> tuple[str, Mapping[str, Past]]:
    """The statements with a name of its own for each table as it was, and these by name.

    Args:
        statements: SQL, of which DuckDB knows no `AS OF`.
        known: SQL names of the tables.
        schemas: The pipelines in use, one at least, the first before the others: of a table that
            is named without one, until a statement puts others in use.
    """
    text = encoded(statements)
    said = tokens(statements)
    changes: dict[tuple[int, int], str] = {}
    pasts = {}
    plain = set()
    cased = {one.lower(): one for one in known}
    for place in range(len(said)):
        schemas = _put_in_use(said, place) or schemas
        kind = _kind_at(said, place)
        value = _value_at(said, place)
        # Spark takes `FOR VERSION AS OF` too.
        end = place - 1 if place and said[place - 1].word == "for" else place
        first = _name_before(said, end) if kind else end
        if first == end:
            continue
        written = "".join(token.text for token in said[first:end])
        if not _is_value(said, value):
            if _ends_there(said, value):
                continue
            raise UsageError(
                f"{written} {kind} AS OF needs a number or a text in quotes, such as 12 or "
                "'2013-02-04': nothing is worked out there."
            )
        if _is_given(said, first):
            raise UsageError(
                f"{kind} AS OF stands right behind a table's own name, and {written} is one that "
                f"it is given here: say that last, as in flights.flights {kind} AS OF "
                f"{said[value].text} AS {written}."
            )
        name = written.replace('"', "").lower()
        name = cased.get(name, name)
        past = Past(
            table=name if "." in name else _with_pipeline(name, known, schemas),
            kind=kind,
            value=said[value].text.strip("'"),
        )
        pipeline, _, bare = past.table.partition(".")
        view = f"{quoted(pipeline)}.{quoted(past.view)}"
        if not _has_alias(said, value + 1) and not _is_described(said, first):
            # So that its columns can be named by the table, as without AS OF.
            view += f" AS {quoted(bare)}"
            plain.add((pipeline.lower(), bare.lower()))
        changes[said[first].start, said[value].end] = view
        pasts[f"{pipeline}.{past.view}"] = past
    changes |= _columns_with_pipeline(said, plain)
    return _changed(text, changes).decode(), pasts


def _columns_with_pipeline(
    said: Sequence[Token], plain: Collection[tuple[str, str]]
) -> Mapping[tuple[int, int], str]:
    """`flights.flights.carrier` without the pipeline, which the name in its place has not."""
    changes = {}
    for place in range(len(said)):
        name = [token.word or token.text for token in said[place : place + _COLUMN_TOKENS]]
        is_inside = place > 0 and said[place - 1].text == "."
        match name:
            case [pipeline, ".", bare, ".", _] if (pipeline, bare) in plain and not is_inside:
                changes[said[place].start, said[place + 2].start] = ""
    return changes


def _changed(text: bytes, changes: Mapping[tuple[int, int], str]) -> bytes:
    """The text with other words from one place to another."""
    written = b""
    done = 0
    for (start, end), words in sorted(changes.items()):
        written += text[done:start] + words.encode()
        done = end
    return written + text[done:]


def _kind_at(said: Sequence[Token], place: int) -> str:
    """The kind whose `… AS OF` begins there; empty: none does."""
    kind, *as_of = [token.text.upper() for token in said[place : place + _KIND_AS_OF]]
    return kind if kind in _KINDS and as_of == _AS_OF else ""


def _is_value(said: Sequence[Token], place: int) -> bool:
    """Whether a number or a text stands there, and not the beginning of what is worked out."""
    after = said[place + 1 : place + 2]
    goes_on = any(one.kind == _SIGN and one.text not in _AFTER for one in after)
    return not goes_on and any(one.kind in _VALUES for one in said[place : place + 1])


def _ends_there(said: Sequence[Token], place: int) -> bool:
    """Whether nothing is asked for: `SELECT version AS of FROM …` names a column."""
    after = said[place : place + 1]
    return all(token.word == "from" or token.text in _AFTER for token in after)


def _value_at(said: Sequence[Token], place: int) -> int:
    """Where the value is of what begins there; `DATE '2013-02-04'` may say its type."""
    value = place + _KIND_AS_OF
    typed = [token.word for token in said[value : value + 1]]
    is_text = [token.kind for token in said[value + 1 : value + 2]] == [_TEXT]
    return value + 1 if is_text and typed and typed[0] in _TYPES else value


def _is_given(said: Sequence[Token], first: int) -> bool:
    """Whether the name that begins there is another one of the table, or rows, before it."""
    begins = first < 2 or said[first - 2].text == _END
    if begins or said[first - 1].word in _BARE:
        # Behind one word a statement names a table, such as UPDATE.
        return False
    before = said[first - 1]
    return before.word == "as" or before.text == ")" or is_alias(before)


def _is_described(said: Sequence[Token], first: int) -> bool:
    """Whether the name that begins there is all that DESCRIBE, SUMMARIZE or TABLE is asked for."""
    return first > 0 and said[first - 1].word in _BARE


def _name_before(tokens: Sequence[Token], place: int) -> int:
    """Where the name begins that ends before that place: `name`, or `pipeline.name`."""
    kinds = [token.kind for token in tokens[max(0, place - _NAME_TOKENS) : place]]
    if not kinds or kinds[-1] not in _NAMES:
        return place
    has_pipeline = len(kinds) == _NAME_TOKENS and tokens[place - 2].text == "."
    return place - _NAME_TOKENS if has_pipeline and kinds[0] in _NAMES else place - 1


def _put_in_use(said: Sequence[Token], place: int) -> Sequence[str]:
    """The pipelines in use after the statement that begins there; empty: those before it."""
    if place > 0 and said[place - 1].text != _END:
        return ()
    begins = said[place : place + _LONGEST_USE]
    statement = takewhile(lambda token: token.text != _END, begins)
    words = [token.text.strip("'\"").lower() for token in statement]
    match words:
        case ["use", *_, name]:
            return (name,)
        case ["set", "variable", *_]:
            return ()
        case ["set" | "pragma", *_, "schema" | "search_path", "=" | "to", names]:
            return [_without_database(name) for name in names.split(",")]
        case ["set", "schema", name]:
            return (name,)
        case ["reset", *_, "schema" | "search_path"]:
            return (_MAIN,)
    return ()


def _without_database(schema: str) -> str:
    _, _, name = schema.strip().rpartition(".")
    return name.strip('"')


def _with_pipeline(name: str, known: Sequence[str], schemas: Sequence[str]) -> str:
    in_use = [f"{schema}.{name}" for schema in schemas]
    found = [one for one in in_use if one in known]
    if found:
        return found[0]
    of_any = [one for one in known if one.partition(".")[2] == name]
    # Where no pipeline in use has such a table, the only one of that name is meant.
    return of_any[0] if len(of_any) == 1 else in_use[0]


def _has_alias(tokens: Sequence[Token], after: int) -> bool:
    if after >= len(tokens):
        return False
    token = tokens[after]
    return token.text.upper() == "AS" or is_alias(token)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
