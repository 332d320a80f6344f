"""The ways a run can end badly, each with the exit code that the `nightshift` command returns."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

_Arguments = tuple[str, tuple[str, ...], str, tuple[str, ...]]


class NightshiftError(Exception):
    """A fault of the platform: something that should work did not. Worth a retry."""

    exit_code: ClassVar[int] = 3


class Refused(NightshiftError):
    """The data or the model was judged and refused. A retry would be refused again."""

    exit_code: ClassVar[int] = 1


class NotLanded(NightshiftError):
    """Files of a feed are not there yet, or not whole: nothing was judged. Worth waiting for."""

    exit_code: ClassVar[int] = 4


class UsageError(NightshiftError, ValueError):
    """The caller asked for something that does not exist or makes no sense."""

    exit_code: ClassVar[int] = 2


class GateRefused(Refused):
    """A suite failed on a staged table, so none of its days were published.

    Attributes:
        table: SQL name of the table, `<pipeline>.<table>`.
        failures: one line per failed expectation, with its observed value.
        ways: commands, each of which lets one of the failures through.
    """

    def __init__(
        self,
        table: str,
        failures: tuple[str, ...],
        report: str,
        ways: tuple[str, ...] = (),
    ) -> None:
        self.table = table
        self.failures = failures
        self.report = report
        self.ways = ways
        listed = "\n".join(f"  - {failure}" for failure in failures)
        lines = [
            f"{table} was refused: {len(failures)} expectation(s) failed.",
            listed,
            f"Report: {report}",
        ]
        if ways:
            lines.append("Have the source drop good files, or let it through, and run again:")
            lines += [f"  {way}" for way in ways]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[type[GateRefused], _Arguments]:
        # By itself an exception is unpickled from its message alone.
        return type(self), (self.table, self.failures, self.report, self.ways)


def no_such(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for an unknown name that offers the near miss and lists what is known."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UsageError(f"No {kind} named '{name}'.{hint} Known: {', '.join(names) or 'none'}.")


def refuse_unless(holds: bool, what: str) -> None:
    """Refuse a declaration that makes no sense.

    Raises:
        UsageError: it does not hold; the message is `what`.
    """
    if not holds:
        raise UsageError(what)


def refuse_text(kind: str, **names: object) -> None:
    """Refuse a text where names are declared: `("zone")` lacks the comma of `("zone",)`.

    Raises:
        UsageError: one of them is a text.
    """
    for field, value in names.items():
        refuse_unless(
            not isinstance(value, str),
            f"{kind}: {field} must be a tuple of names, but is the text '{value}'. "
            f"Of one name: ('{value}',).",
        )
