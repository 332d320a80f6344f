"""What a source drops: columns, feeds, and the format that their files have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Literal, get_args

from pipelines.errors import refuse_unless
from pipelines.kinds import refuse_odd_kinds

Type = Literal["string", "int", "long", "double", "boolean", "date", "timestamp"]
Format = Literal["csv", "csv_gzip", "json_lines", "parquet"]
NewColumns = Literal["refuse", "ignore", "add"]

PROVENANCE = ("landed_date", "source_file", "source_line")
"""Columns that every raw row gets: the day of its drop, its file, and its place in the file."""
# The last two are columns of the quarantine.
_RESERVED = frozenset(PROVENANCE) | {"record", "reason"}
_COMPRESSED = (".gz", ".bz2", ".deflate", ".lz4", ".snappy", ".zst")
"""Endings by which Spark decompresses a text file, whatever else it is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a feed, as the source writes it."""

    name: str
    type: Type = "string"
    """What its values must look like: of a whole number digits and a sign (not `230.0`), `true` or
    `false`, `2013-04-03`, an instant with its zone and at most 6 digits of a second. Decimals and
    local times are strings, which the transform casts."""
    required: bool = False
    """A row without a value here is quarantined. So is one whose text is nothing but white space,
    which stays as it is in a column that may be empty."""
    null_token: str | None = None
    """Text that the source writes here for a missing value; None: what the feed says. In a column
    of numbers the same number in any other form is no value either: with `-999`, `-999.0` too."""
    doc: str = ""
    """Meaning and unit."""

    def __post_init__(self) -> None:
        known = ", ".join(get_args(Type))
        refuse_unless(
            self.type in get_args(Type),
            f"Column '{self.name}': no type '{self.type}'. Known: {known}.",
        )
        refuse_odd_kinds(f"Column '{self.name}'", self)
        refuse_unless(
            self.name.lower() not in _RESERVED,
            f"A column must not be named '{self.name}': every raw row gets a column of that name, "
            "which tells where it came from.",
        )
        # Ingestion's own columns begin with '_', and Spark reads a '.' as a field of a struct.
        is_plain = bool(self.name) and not self.name.startswith("_")
        refuse_unless(
            is_plain and not set(self.name) & set(".`"),
            f"Column '{self.name}': a name must not be empty, begin with '_' or hold '.' or '`'.",
        )
        refuse_unless(
            self.name != "*",
            f"Column '{self.name}': in Spark that name stands for all columns.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """Files that a source drops, and the raw table that they become (same name)."""

    name: str
    path: str
    """Below `<landing>/<pipeline>/`. With `{date}`: one file a day, and no more. Without: a
    reference file, landed when it changes."""
    marker: str | None = None
    """A file below the same folder that the source drops once this one is whole, such as
    `{date}.done`; several feeds may share one. None: a file is whole when nobody writes it."""
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """Columns that identify a row within one drop."""
    format: Format = "csv"
    """`csv` and `csv_gzip`: UTF-8 with a header line, then a record a line, in quotes too.
    `json_lines`: one JSON object a line. `parquet`: flat columns."""
    first_day: date | None = None
    """First day with a drop; None: the pipeline's own first day."""
    last_day: date | None = None
    """Last day with a drop; None: the pipeline's own last day."""
    null_token: str = ""
    """Text that the source writes for a missing value, besides the empty field."""
    new_columns: NewColumns = "refuse"
    """What becomes of a column that a file has and `columns` does not declare. `refuse`: the file
    is refused; of JSON lines each row that has one. `ignore`: it is not read. `add`: its texts are
    kept, in a column of strings after the declared ones, which is null on other days."""
    is_optional: bool = False
    """A day may have no file: then it has no rows, and no night waits for it. One that comes later
    is read by the next night."""
    max_quarantine_share: float = 0.02
    """Share of a drop's rows, 0 to 1, that may be quarantined before the drop is refused, and with
    it the run. Days that were accepted stay when it is lowered, and the plan tells of them."""
    warehouse: bool = False
    """Its table is published to PostgreSQL too, when NIGHTSHIFT_WAREHOUSE_URL is set."""
    doc: str = ""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"Feed '{self.name}'", self)
        names = list(self.column_names)
        missing = [name for name in self.key if name not in names]
        # Spark and Delta take 'Id' and 'id' for the same column.
        distinct = {name.lower() for name in names}
        refuse_unless(
            len(names) == len(distinct), f"Feed '{self.name}' declares a column twice: {names}."
        )
        refuse_unless(
            bool(self.key) and not missing,
            f"Feed '{self.name}': key columns {missing or '()'} are not among its columns {names}.",
        )
        refuse_unless(
            0 <= self.max_quarantine_share <= 1,
            f"Feed '{self.name}': max_quarantine_share must be from 0 to 1.",
        )
        policies = get_args(NewColumns)
        refuse_unless(
            self.new_columns in policies,
            f"Feed '{self.name}': new_columns must be one of {', '.join(policies)}, "
            f"but is '{self.new_columns}'.",
        )
        self._refuse_odd_path("path", self.path)
        is_dated = self.is_optional or self.first_day is not None or self.last_day is not None
        refuse_unless(
            not (is_dated and self.is_reference),
            f"Feed '{self.name}': its path '{self.path}' holds no '{{date}}', so it is a reference "
            "feed, which has one file on every day: it cannot be optional, nor have a first or a "
            "last day.",
        )
        self._refuse_hidden_file()
        if self.marker is not None:
            self._refuse_odd_path("marker", self.marker)
            self._refuse_odd_marker(self.marker)
        self._refuse_odd_ending()

    @property
    def is_reference(self) -> bool:
        """True for a whole reference file, False for one drop a day."""
        return "{date}" not in self.path

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of its columns, as declared."""
        return tuple(column.name for column in self.columns)

    @property
    def required(self) -> frozenset[str]:
        """Columns that must hold a value: the key and those declared required."""
        return frozenset(self.key) | {column.name for column in self.columns if column.required}

    @property
    def share_allowed(self) -> str:
        """The share of bad rows that it allows, for people."""
        # Of a small share no power of ten.
        percent = f"{Decimal(f'{100 * self.max_quarantine_share:.6g}'):f}"
        return f"{percent}%" if "." in percent else f"{percent}.0%"

    def with_new(self, names: Iterable[str]) -> Feed:
        """The same feed with columns of strings after the declared ones."""
        added = [Column(name=name) for name in names]
        return replace(self, columns=(*self.columns, *added))

    def column(self, name: str) -> Column:
        """The declared column of that name."""
        return next(column for column in self.columns if column.name == name)

    def undeclared(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Those columns of its raw table that it does not declare."""
        known = {*self.column_names, *PROVENANCE}
        return tuple(name for name in columns if name not in known)

    def file(self, day: date | None) -> str:
        """Where the day's drop lies below the landing folder; a reference file has no day."""
        return self.path.format(date=day)

    def marker_file(self, day: date | None) -> str | None:
        """Where the marker of that file lies, below the landing folder too; None: it has none."""
        return self.marker and self.marker.format(date=day)

    def null_token_of(self, column: Column) -> str:
        """The text that stands for a missing value in that column."""
        return self.null_token if column.null_token is None else column.null_token

    def _refuse_odd_path(self, field: str, path: str) -> None:
        parts = path.split("/")
        refuse_unless(
            bool(path) and "" not in parts and not {".", ".."} & set(parts),
            f"Feed '{self.name}': {field} '{path}' must be relative, without '.', '..' or '//'.",
        )
        besides = path.replace("{date}", "", 1)
        refuse_unless(
            not set(besides) & set("{}"),
            f"Feed '{self.name}': {field} '{path}' may hold '{{date}}' once, and nothing else in "
            "braces: the day is written YYYY-MM-DD.",
        )

    def _refuse_hidden_file(self) -> None:
        file = self.path.rpartition("/")[-1]
        refuse_unless(
            not file.startswith(("_", ".")),
            f"Feed '{self.name}': '{file}' must not begin with '_' or '.': Spark takes such a "
            "file for a hidden one and reads nothing.",
        )

    def _refuse_odd_marker(self, marker: str) -> None:
        refuse_unless(
            ("{date}" in marker) == ("{date}" in self.path),
            f"Feed '{self.name}': marker '{marker}' and path '{self.path}' must both hold "
            "'{date}', or neither: a file of each day has a marker of its own.",
        )
        refuse_unless(
            marker != self.path,
            f"Feed '{self.name}': marker '{marker}' is the file itself.",
        )

    def _refuse_odd_ending(self) -> None:
        known = get_args(Format)
        refuse_unless(
            self.format in known,
            f"Feed '{self.name}': no format '{self.format}'. Known: {', '.join(known)}.",
        )
        if self.format == "csv_gzip":
            refuse_unless(
                self.path.endswith(".gz"),
                f"Feed '{self.name}': the path of a 'csv_gzip' feed must end with '.gz', "
                f"but is '{self.path}'.",
            )
        elif self.format != "parquet":
            refuse_unless(
                not self.path.lower().endswith(_COMPRESSED),
                f"Feed '{self.name}': '{self.path}' ends like a compressed file, but its format is "
                f"'{self.format}'. For gzipped CSV declare format='csv_gzip'.",
            )
