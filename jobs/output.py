"""Prints rows the way the caller asked for: a table for people, csv or json for programs.

Importing this is cheap: `rich` is imported when a table is printed.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import date, time
from decimal import Decimal
from itertools import chain, islice
from typing import Any, TextIO
from unicodedata import category

from pipelines.errors import NightshiftError, UsageError

FORMATS = ("table", "csv", "json")
Row = Sequence[object]

_NULL = "null"
_DECIMALS = 6
"""A table is read by people: it rounds a fraction to so many digits. CSV and JSON are exact,
but for NaN and infinity, which JSON does not know."""
_SMALL = 0.001
MOST_ON_TERMINAL = 1000
"""Rows: nobody reads on, and rich needs a second for a few thousand cells."""
_NARROWEST = 8
"""Characters of a column on a terminal; narrower ones cannot be read, and the last have none."""
_ROWS_MEASURED = 1_000
"""Rows of a table to a file or a pipe that say how wide its columns are; they are held."""
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that steer a terminal, or turn the order of the text around."""
_LINE_BREAKS = "\r\n"
"""To readers of CSV, each by itself too."""
_BOX = "+-++\n| ||\n|-+|\n| ||\n|-+|\n|-+|\n| ||\n+-++\n"
"""Lines of a table in plain ASCII, as psql draws them; `rich.box.Box` says what each line is."""


class OutputLost(NightshiftError, OSError):
    """Standard output could not be written, such as to a disk that is full."""

    def __init__(self, why: object) -> None:
        self.why = str(why)
        super().__init__(
            f"Standard output could not be written: {why}. What was done stays done, and some of "
            "what was to be told is lost: make room where it is written, or have it written "
            "elsewhere, and run it again."
        )


def show(
    columns: Sequence[str],
    rows: Iterable[Row],
    form: str = "table",
    to: TextIO | None = None,
    *,
    is_seen: bool = False,
) -> None:
    """Print rows under their column names in one of `FORMATS`.

    Args:
        columns: Their names.
        rows: Printed as they come.
        form: As a program wants it, or a person.
        to: Where they are printed; None: standard output.
        is_seen: A terminal shows it in the end, though the stream is none.

    Raises:
        UsageError: two columns have one name, and the form is JSON.
    """
    out = to or sys.stdout
    if form == "csv":
        _show_csv(columns, rows, out, is_seen=is_seen or out.isatty())
    elif form == "json":
        _show_json(columns, rows, out)
    elif out.isatty():
        _show_on_terminal(columns, rows, out)
    else:
        _show_in_full(columns, rows, out)


def show_lines(rows: Iterable[Row], to: TextIO) -> None:
    """Print the last value of each row as the lines that it has: a table would make one of them."""
    for *_, text in rows:
        to.writelines(f"{harmless(line)}\n" for line in str(text).splitlines())


def prepare_streams() -> None:
    """See to it that whatever is printed can be written, also to streams that are closed.

    Of those, as `>&-` leaves them, a file that is opened would take the place, and get what a
    library prints. And where a stream has another encoding than UTF-8, a character that this lacks
    is written as an escape.
    """
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # It gets the number of the closed one, the lowest that is free.
            number = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "r+"))
        elif name != "stdin" and (stream.encoding or "utf-8").lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")
    watch("stdout")


class _Watched(io.FileIO):
    """The file of a stream, which knows what became of what was written to it."""

    outlives: bool = False
    """What cannot be written is lost, and whoever writes goes on."""
    lost: OutputLost | None = None
    """Why something is lost; None: nothing is, or nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        # Else it would be closed, and with it the file.
        self._stream = stream

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            if not self.outlives:
                raise
        except OSError as error:
            self.lost = OutputLost(error)
            if not self.outlives:
                raise self.lost from None
        # Also for libraries and children, which write by the number.
        _lead_to_nothing(self.fileno())
        return super().write(data)


def _lead_to_nothing(number: int) -> None:
    """Lose what is written to that file from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def lose_what_cannot_be_written() -> None:
    """Lose what was printed and is held for a reader that has gone, or a disk that is full.

    Python would try again when it ends, and fail with words and an exit code of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _lead_to_nothing(stream.fileno())


def outlive_readers() -> None:
    """See to it that work goes on where what it prints cannot be written any more.

    Nobody reads it, such as `head`, or its disk is full, which `require_written` tells in the end.
    """
    for name in ("stdout", "stderr"):
        if watched := watch(name):
            watched.outlives = True


def watch(name: str) -> _Watched | None:
    """The file of a standard stream, watched from now on; None: it has none of the system's.

    As an object that a test or a notebook has put in its place.
    """
    stream = getattr(sys, name)
    file = _file(stream)
    if isinstance(file, _Watched):
        return file
    if type(file) is not io.FileIO:
        return None
    stream.flush()
    watched = _Watched(stream)
    raw: Any = watched
    watching = io.TextIOWrapper(
        # As `python -u` has it, without a buffer.
        raw if file is stream.buffer else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, watching)
    return watched


def require_written() -> None:
    """Write what was printed to standard output and is held.

    Raises:
        OutputLost: some of what was printed could not be written.
        BrokenPipeError: nobody reads it any more, and the command does not outlive that.
    """
    if lost := _lost():
        raise lost


def why_lost() -> str:
    """Why some of what was printed to standard output is lost; empty: nothing is."""
    lost = _lost()
    return lost.why if lost else ""


def note_lost(why: str) -> None:
    """Have `require_written` tell that a child could not write to our standard output.

    Args:
        why: As `why_lost` told it there; empty: it could.
    """
    watched = watch("stdout") if why else None
    if watched and not watched.lost:
        watched.lost = OutputLost(why)


def _lost() -> OutputLost | None:
    """Why some of standard output is lost, once what is held is written; None: nothing is."""
    sys.stdout.flush()
    file = _file(sys.stdout)
    return file.lost if isinstance(file, _Watched) else None


def _file(stream: TextIO) -> object:
    """What the stream writes to, below its buffer."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def shown(value: object) -> str:
    """A value as a table shows it: on one line, and harmless to a terminal."""
    if value is None:
        return _NULL
    if isinstance(value, float):
        return _rounded(value)
    return harmless(_text(value))


def decimals(value: float, digits: int = 4) -> str:
    """A fraction with so many decimals; a small one, of which these leave little, with digits."""
    is_small = 0 < abs(value) < _SMALL
    return f"{value:.{digits}g}" if is_small else f"{value:.{digits}f}"


def harmless(text: str) -> str:
    """The text with what would steer a terminal, line breaks too, written as an escape."""
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def is_text(given: str) -> bool:
    """Whether UTF-8 can say it: a terminal's bytes of another encoding are in it as they are."""
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """What anyone prints meanwhile goes to stderr, so that stdout holds rows alone.

    Also what child processes and libraries write to file descriptor 1.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def refuse_one_name_twice(columns: Sequence[str]) -> None:
    """Of rows that tell columns by their names.

    Raises:
        UsageError: two columns have one name.
    """
    for name in columns:
        if list(columns).count(name) > 1:
            raise UsageError(f"Two columns are named '{name}': give one another name with AS.")


def _show_csv(
    columns: Sequence[str],
    rows: Iterable[Row],
    out: TextIO,
    *,
    is_seen: bool,
) -> None:
    import csv

    # A program gets what the data has; a terminal would obey it.
    written = _text_for_terminal if is_seen else _text
    writer = csv.writer(out, lineterminator="\n")
    for row in chain([columns], rows):
        texts = [None if value is None else written(value) for value in row]
        if "" in texts or "\r" in "".join(filter(None, texts)):
            out.write(_cell_by_cell(texts))
        else:
            writer.writerow(texts)


def _text_for_terminal(value: object) -> str:
    """A value as CSV on a terminal says it: lines and tabs stay, what else steers one does not."""
    lines = []
    for line in _text(value).split("\n"):
        parts = line.split("\t")
        lines.append("\t".join(map(harmless, parts)))
    return "\n".join(lines)


def _cell_by_cell(texts: Sequence[str | None]) -> str:
    """A line of CSV whose empty texts are in quotes, which tells them from what is absent.

    In quotes, too, is whatever some reader takes for the end of a line.
    """
    import csv

    cells = []
    for text in texts:
        cell = io.StringIO()
        # A writer quotes what is empty where it is all there is, and of line breaks only its own.
        csv.writer(cell, lineterminator=_LINE_BREAKS).writerow([text])
        cells.append("" if text is None else cell.getvalue().removesuffix(_LINE_BREAKS))
    return f"{','.join(cells)}\n"


def _show_json(columns: Sequence[str], rows: Iterable[Row], out: TextIO) -> None:
    # An object would keep only one of them.
    refuse_one_name_twice(columns)
    before = "[\n "
    for row in rows:
        named = dict(zip(columns, map(jsonable, row), strict=True))
        out.write(before + json.dumps(named, allow_nan=False))
        before = ",\n "
    out.write("[]\n" if before.startswith("[") else "\n]\n")


def _show_on_terminal(columns: Sequence[str], rows: Iterable[Row], out: TextIO) -> None:
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table

    remaining = iter(rows)
    first = list(islice(remaining, MOST_ON_TERMINAL))
    # [brackets] and :words: in data are data.
    console = Console(file=out, emoji=False, markup=False)
    table = Table(box=Box(_BOX, ascii=True), header_style="")
    for name, is_number in zip(columns, _numeric(columns, first), strict=True):
        table.add_column(harmless(name), justify="right" if is_number else "left", overflow="fold")
    lines = [list(map(shown, row)) for row in first]
    for line in lines:
        table.add_row(*line)
    if _least_width(columns, lines) <= console.width:
        console.print(table)
    else:
        # The terminal folds the lines; rich would leave columns out.
        _show_in_full(columns, first, out)
    if next(remaining, None) is not None:
        print(
            f"Only the first {MOST_ON_TERMINAL} rows. All of them: --format csv, or write to a "
            "file.",
            file=sys.stderr,
        )


def _least_width(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> int:
    """How wide a table is at the least, with its borders, whose columns can all be read."""
    return sum(min(width, _NARROWEST) + 3 for width in _widths(columns, lines)) + 1


def _widths(
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
) -> list[int]:
    """Of each column, with its name."""
    from rich.cells import cell_len

    widths = [cell_len(harmless(name)) for name in columns]
    for line in lines:
        widths = list(map(max, widths, map(cell_len, line)))
    return widths


def _show_in_full(columns: Sequence[str], rows: Iterable[Row], out: TextIO) -> None:
    """Every row on one line, whatever its width; the first ones say how wide a column is.

    Not by rich's own table, which needs minutes for as many rows as a year of flights has.
    """
    from rich.cells import cell_len

    remaining = iter(rows)
    values = list(islice(remaining, _ROWS_MEASURED))
    numeric = _numeric(columns, values)
    header = [harmless(name) for name in columns]
    lines = [list(map(shown, row)) for row in values]
    widths = _widths(columns, lines)

    def written(line: Sequence[str]) -> str:
        padded = []
        for cell, width, is_number in zip(line, widths, numeric, strict=True):
            # Of a later row that is wider there is none.
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if is_number else cell + space)
        return f"| {' | '.join(padded)} |\n"

    rule = "+".join("-" * (width + 2) for width in widths)
    out.write(f"+{rule}+\n{written(header)}|{rule}|\n")
    out.writelines(written(line) for line in lines)
    out.writelines(written(list(map(shown, row))) for row in remaining)
    out.write(f"+{rule}+\n")


def _numeric(columns: Sequence[str], rows: Sequence[Row]) -> list[bool]:
    """Which columns hold numbers; what is absent, null or empty, does not count."""
    verdicts = []
    for position in range(len(columns)):
        present = [row[position] for row in rows if row[position] not in (None, "")]
        verdicts.append(bool(present) and all(map(_is_number, present)))
    return verdicts


def _is_number(value: object) -> bool:
    # To Python True is an int.
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _rounded(value: float) -> str:
    if abs(value) >= 1:
        # One of numpy says of itself that it is one.
        return repr(round(float(value), _DECIMALS))
    # Digits that count: of so many behind the point, a small share would leave none.
    return repr(float(f"{value:.{_DECIMALS}g}"))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Decimal):
        # Of nothing, to ten places, Python itself says 0E-10.
        return f"{value:f}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(_plain(value, float), ensure_ascii=False)
    return str(value)


def _escaped(character: str) -> str:
    if category(character) in _UNSAFE:
        return character.encode("unicode_escape").decode()
    return character


def _unknown(_: float) -> None:
    """What JSON can say of NaN and infinity: nothing."""


def jsonable(value: object, odd: Callable[[float], object] = _unknown) -> Any:
    """The value as JSON can say it.

    Args:
        value: Of any type.
        odd: What stands in the place of numbers that JSON does not know; null by default.
    """
    return _plain(value, odd)


def _plain(value: object, odd: Callable[[float], object]) -> Any:
    """The value as JSON can say it, but for what `odd` makes of NaN and infinity."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else odd(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {_text(key): _plain(item, odd) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, odd) for item in value]
    # A decimal too is text: a JSON number is read as a float and loses digits.
    return _text(value)
