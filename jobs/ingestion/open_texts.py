"""Lines of CSV that lie within a text of several lines, and may look like records.

A record is one line, so that a file can be read in splits. The line in which a text in quotes is
opened, and that in which it is closed, are no records by their odd number of quotes. Nothing of a
line between them tells what it is: it is found from these two, while the lines are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

_QUOTE, _NEWLINE = ord('"'), ord("\n")
_MOST_LINES = 1000
"""Of a text. Two lines further apart are taken for two that have a quote too many or too few: what
lies between them shall not be lost for that."""
MOST_FOUND = 1_000_000
"""Lines within texts of a file: each is held in memory, here and by each of Spark's executors."""
_LONGEST_LINE = 64_000_000
"""Bytes; behind a longer one nothing is looked for."""
_WHOLE_FIELDS = rb'(?>(?:"(?:[^"]|"")*+"|[^",]*+),)*+'
_OPENED = re.compile(_WHOLE_FIELDS + rb'"(?:[^"]|"")*+')
"""A line that ends within quotes which a field begins with."""
_CLOSED = re.compile(rb'(?:[^"]|"")*+"(?:,|$)')
"""How a line begins that begins within quotes, which end a field of it."""


@dataclass(frozen=True, slots=True)
class Within:
    """Lines of a text, without those in which it is opened and closed."""

    first: int
    last: int


@dataclass(slots=True)
class OpenTexts:
    """Looks for them in the bytes of a file, piece by piece, from a line's beginning on."""

    line: int
    """Number of the line that begins with the next piece, or in which that goes on."""
    found: list[Within] = field(default_factory=list)
    _opened: int | None = None
    """The line in which a text was opened that may go on."""
    _rest: bytes = b""
    """Of the line in which the next piece goes on."""
    _is_over: bool = False
    _lines: int = 0
    """Within those that were found."""

    @property
    def are_too_many(self) -> bool:
        """Whether more lines lie within texts than are told: what is left out is no record."""
        return self._lines > MOST_FOUND

    def see(self, piece: bytes) -> None:
        """Look at the next piece."""
        if self._is_over or self.are_too_many:
            return
        text = self._rest + piece
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        self._is_over = len(self._rest) > _LONGEST_LINE
        self._see_lines(text[:end])

    def end(self) -> tuple[Within, ...]:
        """What was found, at the end of the file, whose last line need not end."""
        if not self._is_over:
            self._see_lines(self._rest + b"\n")
        return tuple(self.found)

    def _see_lines(self, lines: bytes) -> None:
        if b'"' in lines:
            for place, line in _odd(lines):
                self._judge(self.line + place, line)
                if self.are_too_many:
                    return
        self.line += lines.count(b"\n")

    def _judge(self, number: int, line: bytes) -> None:
        """A line with an odd number of quotes."""
        opened, self._opened = self._opened, None
        may_close = opened is not None and number - opened <= _MOST_LINES
        if opened is not None and may_close and _CLOSED.match(line):
            if number - opened > 1:
                self.found.append(Within(opened + 1, number - 1))
                self._lines += number - opened - 1
        elif _OPENED.fullmatch(line):
            self._opened = number


def _odd(lines: bytes) -> Iterator[tuple[int, bytes]]:
    """Those with an odd number of quotes, each with its place among the lines."""
    characters = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(characters == _NEWLINE)
    quotes = np.flatnonzero(characters == _QUOTE)
    before = np.searchsorted(quotes, ends)
    begins = np.concatenate(([0], ends[:-1] + 1))
    for place in np.flatnonzero(np.diff(before, prepend=0) % 2):
        line = lines[begins[place] : ends[place]]
        yield int(place), line.removesuffix(b"\r")
