"""The ways a run can end badly, each with the exit code that the `nightshift` command returns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import ClassVar

_WRITTEN = re.compile(
    r"\[(AMBIGUOUS_|COLUMN_ALREADY_EXISTS|DATATYPE_MISMATCH|INCOMPATIBLE_COLUMN_TYPE"
    r"|INVALID_IDENTIFIER|MISSING_AGGREGATION|MISSING_GROUP_BY|NESTED_AGGREGATE_FUNCTION"
    r"|PARSE_SYNTAX_ERROR|UNRESOLVED_|WRONG_NUM_ARGS"
    # Of values that only some days have.
    r"|ARITHMETIC_OVERFLOW|CANNOT_PARSE_TIMESTAMP|CAST_INVALID_INPUT|CAST_OVERFLOW"
    r"|DATETIME_FIELD_OUT_OF_BOUNDS|DIVIDE_BY_ZERO|INVALID_ARRAY_INDEX|INVALID_PARAMETER_VALUE"
    r"|NUMERIC_VALUE_OUT_OF_RANGE|REMAINDER_BY_ZERO|USER_RAISED_EXCEPTION)"
)
"""How Spark's errors begin that a fault of its own, or a table that went away, never gives."""
_RAISED = "[USER_RAISED_EXCEPTION] "
"""Begins what `raise_error` was given: it needs no name of an error."""
_PLACE = re.compile(r" SQLSTATE: \w+(; line \d+ pos \d+| \(line \d+, pos \d+\))?;?$")
_SETTING = re.compile(r' If necessary set "[\w.]+" to "\w+" to bypass this error\.')
"""An advice of Spark's that nobody here can follow: its settings decide what rows say."""


def without_stack(said: str) -> str:
    """What Spark says, without the stack of its server."""
    return said.partition("JVM stacktrace:")[0]


class NightshiftError(Exception):
    """A fault of the platform: something that should work did not. Worth a retry."""

    exit_code: ClassVar[int] = 3
    kind: ClassVar[str] = "Fault"
    """The word before its message, where it is printed."""

    def details(self) -> dict[str, object]:
        """What a program may want to know, as JSON can say it; {}: the message says all."""
        return {}


class Refused(NightshiftError):
    """The data or the model was judged and refused. A retry would be refused again."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "Refused"


class AwaitsApproval(Refused):
    """No model serves yet, and one that would awaits a person: nothing is wrong."""

    exit_code: ClassVar[int] = 5
    kind: ClassVar[str] = "Awaits approval"


class AwaitsTurn(NightshiftError):
    """Another process holds the lock for longer than was to be waited: nothing was begun."""

    exit_code: ClassVar[int] = 6
    kind: ClassVar[str] = "Awaits its turn"


class NotLanded(NightshiftError):
    """Files of a feed are not there yet, or not whole: nothing was judged. Worth waiting for.

    Attributes:
        files: Their names and those of their markers, below the landing folder.
    """

    exit_code: ClassVar[int] = 4
    kind: ClassVar[str] = "Not landed"

    def __init__(self, message: str, *files: str) -> None:
        self.files = files
        super().__init__(message)

    def details(self) -> dict[str, object]:
        """What is to be waited for."""
        return {"lacking": list(self.files)} if self.files else {}


class UsageError(NightshiftError, ValueError):
    """The caller asked for something that does not exist or makes no sense."""

    exit_code: ClassVar[int] = 2
    kind: ClassVar[str] = "Usage"


class UnknownTable(UsageError):
    """No table of the lake has that name; the message offers the near miss."""


class UnknownColumn(UsageError):
    """A table has no column of that name; the message offers the near miss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """What was expected of a table and does not hold."""

    table: str
    """SQL name, `<pipeline>.<table>`."""
    expectation: str
    column: str | None
    says: str
    """What must hold and what was found, for people."""
    count: int | None = None
    """Rows (or days) that break it; None: unknown."""
    way_out: str | None = None
    """The command that lets it through; None: nothing does."""

    def __str__(self) -> str:
        where = f"{self.table} {self.column}" if self.column else self.table
        return f"{where} ({self.expectation}): {self.says}"


class DataRefused(Refused):
    """Landed files or staged tables were refused, and a report tells why.

    Attributes:
        failures: What does not hold; none where a file could not even be read.
        report: Where the index of the report is.
        found_in: The refused files; or all files, or days of tables, that refused tables were made
            from. Each with its digest, so that another night knows that it met the same.
    """

    def __init__(
        self,
        message: str,
        failures: tuple[Failure, ...],
        report: str,
        found_in: tuple[str, ...] = (),
    ) -> None:
        self.failures = failures
        self.report = report
        self.found_in = found_in
        super().__init__(message)

    def __reduce__(self) -> tuple[type[DataRefused], tuple[object, ...]]:
        # By itself an exception is unpickled from its message alone.
        return DataRefused, (str(self), self.failures, self.report, self.found_in)

    def details(self) -> dict[str, object]:
        """What a program may want to know, as JSON can say it."""
        failures = [asdict(one) for one in self.failures]
        told: dict[str, object] = {"report": self.report, "failures": failures}
        return {**told, "found_in": list(self.found_in)} if self.found_in else told


class GateRefused(DataRefused):
    """Suites failed on staged tables, so none of their days were published."""

    def __init__(
        self,
        failures: tuple[Failure, ...],
        report: str,
        found_in: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        tables = ", ".join(dict.fromkeys(failure.table for failure in failures))
        listed = [f"  - {failure}" for failure in failures]
        lines = [
            f"{tables} was refused: {len(failures)} expectation(s) failed.",
            *listed,
            f"Report: {report}",
            *notes,
        ]
        ways = [failure.way_out for failure in failures if failure.way_out]
        if ways:
            lines.append("Have the source drop good files, or let it through, and run again:")
            lines += [f"  {way}" for way in ways]
        else:
            lines.append("Have the source drop good files, and run again: this cannot be waived.")
        super().__init__("\n".join(lines), failures, report, found_in)


def no_such(
    kind: str, name: str, known: Iterable[str], error: type[UsageError] = UsageError
) -> UsageError:
    """An error for an unknown name that offers the near miss and lists what is known."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return error(f"No {kind} named '{name}'.{hint} Known: {', '.join(names) or 'none'}.")


@contextmanager
def explaining(kind: type[Exception], whose: str) -> Iterator[None]:
    """Tell what Spark says of names, types or SQL that people wrote as a mistake of theirs.

    Args:
        kind: Spark's type of such errors, which only those know who import Spark.
        whose: Begins the message: where it was written.

    Raises:
        UsageError: the block has raised one. A fault of that kind is raised as it is.
    """
    try:
        yield
    except kind as error:
        # What its parser says begins with an empty line.
        said = str(error).strip().partition("\n")[0]
        if not _WRITTEN.match(said):
            raise
        said = said.removeprefix(_RAISED)
        # Without the place in a query that nobody has seen.
        raise UsageError(f"{whose}: {_SETTING.sub('', _PLACE.sub('', said))}") from error


def refuse_unless(holds: bool, what: str) -> None:
    """Refuse a declaration that makes no sense.

    Raises:
        UsageError: it does not hold; the message is `what`.
    """
    if not holds:
        raise UsageError(what)
