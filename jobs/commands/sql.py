"""The command `nightshift sql`: one or several statements, a file of them, or a shell."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from jobs.commands import in_server
from jobs.output import refuse_one_name_twice, show, show_lines
from jobs.services import stage_client
from pipelines import wire
from pipelines.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jobs.lake.sql import Result, Session
    from pipelines.environment import Environment

FUNCTION = "jobs.commands.sql:in_child"
"""This module's entry for the stage server; it must be among those that it allows."""
PARQUET = "parquet"
_INTERRUPTED = 3
"""The exit code, as after a fault: what was asked for is not done."""
_STANDARD_INPUT = "-"
_OPEN_FILES = Path("/dev/fd")
"""The folder whose files are those that this process has open."""
_ROWS_OF_GROUP = 100_000
_BYTES_OF_GROUP = 32 * 1024**2
"""Of a group of rows in a Parquet file, whichever comes first."""
_LONGEST_SENT = wire.MOST_BYTES // 8
"""Characters of statements that the stage server is asked: longer ones may be too long a message,
whose JSON has up to six bytes for a character."""


def text_of(statement: str | None, file: str | None) -> str | None:
    """The statements that are meant: those given, of a file, or of standard input.

    Args:
        statement: As given; None: not given.
        file: A file of statements, `-` for standard input.

    Returns:
        None: none are given, and a person sits at the terminal.

    Raises:
        UsageError: there are both, or the file cannot be read.
    """
    if statement is not None and file is not None:
        raise UsageError("Say either a statement or --file, not both.")
    if statement is None and file is None and sys.stdin.isatty():
        return None
    try:
        text = _read(statement, file)
        # A terminal's bytes of another encoding are in the text as what no encoding can say.
        text.encode()
    except (OSError, UnicodeError) as error:
        told = "The statement" if statement is not None else file or "Standard input"
        raise UsageError(f"{told} cannot be read: {error}") from None
    return text


def _read(statement: str | None, file: str | None) -> str:
    if statement is not None:
        return statement
    if file in (None, _STANDARD_INPUT):
        return sys.stdin.read()
    return Path(str(file)).read_text(encoding="utf-8")


def run(
    environment: Environment, statements: str, form: str, output: Path | None, run_id: str | None
) -> int:
    """Print the results of the statements, or write them into a file; returns the exit code.

    The stage server, where one is up, has imported what it takes: a statement then needs a third
    of the time (docs/performance.md).

    Args:
        environment: Whose lake is read.
        statements: Separated by semicolons.
        form: One of `jobs.output.FORMATS`, or parquet, which needs a file.
        output: The file, see `whole_file`; None: standard output.
        run_id: See `jobs.lake.sql.results`.

    Raises:
        UsageError: see `answer`, which then has run here.
    """
    if form == PARQUET and output is None:
        raise UsageError("Parquet needs a file: --format parquet --output FILE")
    try:
        return _answered(environment, statements, form, output, run_id)
    except KeyboardInterrupt:
        is_kept = output is not None and not _is_special(output)
        left = f"{output} is as it was" if is_kept else "rows are missing"
        print(f"\nInterrupted: {left}.", file=sys.stderr)
        return _INTERRUPTED


def _answered(
    environment: Environment, statements: str, form: str, output: Path | None, run_id: str | None
) -> int:
    """Have the stage server answer, or this process; returns the exit code."""
    is_sent = len(statements) <= _LONGEST_SENT and not _is_of_this_process(output)
    if not (is_sent and stage_client.available(environment)):
        answer(environment, statements, form, output, run_id)
        return 0
    asked = {
        "statements": statements,
        "form": form,
        "output": output and str(output),
        "run": run_id,
    }
    return in_server.call(environment, FUNCTION, asked)


def _is_of_this_process(output: Path | None) -> bool:
    """Whether it is an open file of ours, as `/dev/fd/63`, which to another process is another."""
    if output is None or not output.is_absolute():
        return False
    # `/dev/fd` leads to a folder of the process.
    return os.path.realpath(output.parent).startswith("/proc/")


def in_child(asked: Mapping[str, Any]) -> int:
    """Do what `run` has sent, in a child of the stage server.

    Returns:
        The exit code; what went wrong is told as the command tells it.
    """
    output = asked["output"] and Path(asked["output"])

    def do(environment: Environment) -> None:
        answer(environment, asked["statements"], asked["form"], output, asked["run"])

    return in_server.ended(asked, do)


def answer(
    environment: Environment, statements: str, form: str, output: Path | None, run_id: str | None
) -> None:
    """What `run` does, in this process.

    Raises:
        UsageError: see `jobs.lake.sql.results`; or a file that cannot be written.
    """
    from jobs.commands.sql_memory import bounded
    from jobs.lake.sql import Session

    most = None if form == "table" else 1
    with Session(environment, run_id) as session, bounded(session):
        if form == PARQUET and output is not None:
            _write_parquet(session, statements, output)
            return
        results = session.results(statements, most)
        if output is None:
            _print(results, form, sys.stdout)
        else:
            _write(results, form, output)


@contextmanager
def whole_file(output: Path) -> Iterator[BinaryIO]:
    """A file beside it to write to, which takes its place when all went well.

    What is no regular file, such as a pipe or a device, is itself written to, and so is an open
    file of this process: rows follow what was written to it before.

    Raises:
        UsageError: nothing can be written there.
    """
    from jobs.services import signals

    if not output.name:
        raise UsageError(f"{output} is no file: say --output FILE.")
    try:
        if _is_special(output):
            with _opened(output) as written:
                yield written
            return
        # A link stays one.
        file = output.resolve()
        if not file.parent.is_dir():
            raise UsageError(
                f"{output} cannot be written: the folder {file.parent} is not there. Make it, or "
                "name another file."
            )
        place = file.with_name(f".{file.name}.{os.getpid()}")
        # Else a terminal that is closed, or a `kill`, would leave what is written so far.
        with signals.interrupted_by(signals.endings()):
            try:
                if file.exists():
                    # What few may read stays so, from the first row on.
                    place.touch(mode=0o600)
                    place.chmod(stat.S_IMODE(file.stat().st_mode))
                with place.open("wb") as written:
                    yield written
                place.replace(file)
            finally:
                place.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error}") from None


def _is_special(output: Path) -> bool:
    """Whether it is itself written to."""
    return output.exists() and (not output.is_file() or _descriptor(output) is not None)


def _opened(output: Path) -> BinaryIO:
    descriptor = _descriptor(output)
    if descriptor is None:
        return output.open("wb")
    # By its name it would be emptied, and written from its beginning.
    return os.fdopen(os.dup(descriptor), "wb")


def _descriptor(output: Path) -> int | None:
    """Of an open file of this process, as `/dev/fd/63` and `/dev/stdout` name it; None: of none."""
    place = output
    if output.parent == _OPEN_FILES.parent and output.is_symlink():
        place = output.parent / output.readlink()
    is_ours = os.path.realpath(place.parent) == os.path.realpath(_OPEN_FILES)
    return int(place.name) if is_ours and place.name.isdecimal() else None


def _print(results: Iterable[Result], form: str, to: TextIO) -> None:
    for number, result in enumerate(results):
        if number:
            print(file=to)
        if result.is_plan and form == "table":
            show_lines(result.rows, to)
        else:
            show(result.columns, result.rows, form, to)


class _Unread(Exception):
    """The lake cannot be read, which is no fault of the file that was to get rows."""

    def __init__(self, fault: OSError) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _write(results: Iterable[Result], form: str, output: Path) -> None:
    try:
        with whole_file(output) as file, io.TextIOWrapper(file, encoding="utf-8") as text:
            _print(_read_apart(results), form, text)
    except _Unread as unread:
        raise unread.fault from None


def _read_apart(results: Iterable[Result]) -> Iterator[Result]:
    """The results; what keeps them from being read is told apart from faults of writing."""
    try:
        yield from results
    except OSError as error:
        raise _Unread(error) from None


def _write_parquet(session: Session, statements: str, output: Path) -> None:
    batches = session.batches(statements)
    if batches is None:
        raise UsageError("No statement gives rows: there is nothing to write.")
    # Readers of Parquet find a column by its name.
    refuse_one_name_twice(batches.schema.names)
    with (
        # Arrow itself opens no pipe.
        whole_file(output) as file,
        _writer(file, batches.schema) as writer,
    ):
        for rows in _groups(batches):
            writer.write_table(rows)


def _groups(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Rows that are held and written at once, however many there are and however wide."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in _readable(batches):
        held.append(batch)
        rows = sum(one.num_rows for one in held)
        if rows >= _ROWS_OF_GROUP or sum(one.nbytes for one in held) >= _BYTES_OF_GROUP:
            yield pa.Table.from_batches(held)
            held.clear()
    if held:
        yield pa.Table.from_batches(held)


def _writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetWriter(file, schema)
    except pa.ArrowNotImplementedError:
        for field in schema:
            _refuse_unless_held(field)
        raise


def _refuse_unless_held(field: pa.Field) -> None:
    """Refuse a column for which Parquet has no type.

    Raises:
        UsageError: it is one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    alone = pa.schema([field])
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), alone).close()
    except pa.ArrowNotImplementedError as error:
        raise UsageError(
            f"Parquet cannot hold column '{field.name}': {error}. Cast it to VARCHAR."
        ) from None


def _readable(batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches; what is wrong with a row is told as a fault of the statement, not of a file.

    Raises:
        UsageError: a row gives an error.
        NightshiftError: rows of a table cannot be read.
    """
    from jobs.lake.sql import as_ours

    while True:
        try:
            batch = batches.read_next_batch()
        except StopIteration:
            return
        except OSError as error:
            raise as_ours(error) from None
        yield batch
