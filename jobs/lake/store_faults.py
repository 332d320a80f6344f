"""What others do not give us, in plain words: a store or MLflow, a disk, a log that is cut off.

Whichever library noticed. Of a store each has tried again for a while by then, and each tells it in
its own way.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.places import endpoint, is_url, nearest_existing, place

_OF_BOTO = "botocore"
"""Module of the errors of s3fs and of MLflow that are no `OSError`."""
_SIGNS = re.compile(r"Generic S3 error|\bAWS Error\b|software\.amazon\.awssdk|\bfs\.s3a\b|S3AFile")
"""What delta-rs, Arrow and Spark say."""
_DISK_SIGNS = re.compile(
    "No space left on device|Disk quota exceeded|Read-only file system|database or disk is full"
)
"""What the system says, and with it every library but SQLite's."""
_OF_MLFLOW = "mlflow.exceptions"
"""Module of MLflow's own errors."""
_MLFLOW_SIGNS = re.compile(
    "API request to|OperationalError|PERMISSION_DENIED"
    # Of PostgreSQL, which has a name for each: it ends or begins, gives us up, or takes no rows.
    "|AdminShutdown|CrashShutdown|CannotConnectNow|SessionTimeout|TooManyConnections"
    "|InsufficientPrivilege|ReadOnlySqlTransaction"
)
"""What MLflow says of a server that is away or refuses us, and of a database."""
_LOG_SIGNS = re.compile(
    r"\bJson error\b|JsonEOFException|JsonParseException|No table metadata or protocol found"
)
"""What delta-rs and Spark say of a commit that is cut off, or has lost all that it said."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_STACK = re.compile(r"\n\s*(at |JVM stacktrace)")
"""Where a message of Java's goes on for nobody."""
_ANSWER = re.compile(r"<\?xml.*?<Message>(?P<message>[^<]*)", re.DOTALL)
_LONGEST = 400
"""Characters of what a library says."""


def explain_store_fault(error: BaseException) -> NightshiftError | None:
    """The plain words for a fault of the object store; None for every other error."""
    found = what_store_says(error)
    if found is None:
        return None
    where = endpoint(os.environ)
    store = f"The object store at {where}" if where else "The object store"
    return NightshiftError(
        f"{store} could not be read or written: {found} Nothing was published by halves: run it "
        "again once the store answers, and takes our credentials."
    )


def explain_disk_fault(
    error: BaseException, variables: Mapping[str, str]
) -> NightshiftError | None:
    """The plain words for a disk that is full or may only be read; None for every other error.

    Args:
        error: What was raised. Not every library says where it could not write.
        variables: Environment variables that say where we do.
    """
    if isinstance(error, NightshiftError):
        return None
    for one in _with_causes(error):
        if _DISK_SIGNS.search(str(one)):
            return NightshiftError(
                f"A disk is full, or may only be read: {_in_a_line(str(one))} Nothing was "
                "published by halves: make room (`nightshift doctor` tells of the disks, "
                "`nightshift maintain` deletes what nobody needs any more), and run it again. "
                f"Free: {', '.join(_free(Environment.read(variables)))}."
            )
    return None


def _free(environment: Environment) -> Iterable[str]:
    """The room on each disk that we write to."""
    written = (
        place(environment.lake),
        environment.home,
        environment.reports,
        environment.models,
        environment.jobs,
        Path(tempfile.gettempdir()),
    )
    disks: dict[int, str] = {}
    for folder in written:
        if is_url(folder):
            continue
        # Of a disk that is away nothing can be told.
        with suppress(OSError):
            there = nearest_existing(folder)
            free = shutil.disk_usage(there).free >> 20
            disks.setdefault(there.stat().st_dev, f"{free} MB at {folder}")
    return disks.values()


def explain_mlflow_fault(
    error: BaseException, variables: Mapping[str, str]
) -> NightshiftError | None:
    """The plain words for an MLflow that is away or refuses us; None for every other error.

    Args:
        error: What was raised.
        variables: Environment variables that say where it is.
    """
    if isinstance(error, NightshiftError):
        return None
    for one in _with_causes(error):
        if type(one).__module__ == _OF_MLFLOW and _MLFLOW_SIGNS.search(str(one)):
            where = Environment.read(variables).mlflow_uri
            return NightshiftError(
                f"MLflow at {where} is away, or refuses: {_in_a_line(str(one))} Nothing was "
                "published by halves: start it, or correct MLFLOW_TRACKING_URI and the credentials "
                "beside it, and run it again."
            )
    return None


def explain_away(error: BaseException, variables: Mapping[str, str]) -> NightshiftError | None:
    """The plain words for a store, a disk or MLflow that is away; None for every other error.

    Args:
        error: What was raised.
        variables: Environment variables that say where they are.
    """
    of_store = explain_store_fault(error) or explain_disk_fault(error, variables)
    return of_store or explain_mlflow_fault(error, variables)


def explain_log_fault(error: BaseException, variables: Mapping[str, str]) -> NightshiftError | None:
    """The plain words for a table whose log cannot be read; None for every other error.

    Args:
        error: What was raised.
        variables: Environment variables that say where the lake is.
    """
    if isinstance(error, NightshiftError) or not _LOG_SIGNS.search(str(error)):
        return None
    # Here, because it takes Arrow, and commands that touch no table begin without it.
    from jobs.lake import log

    try:
        file = log.broken(Environment.read(variables).lake)
    except OSError:  # of a store that is away: the error itself is told as it is
        return None
    if file is None:
        return None
    return NightshiftError(
        f"The log of a table is broken: {file} is cut off, as a failure of the power leaves it. "
        f"{_way_out_of_broken_log(file)}"
    )


def _way_out_of_broken_log(file: str) -> str:
    """What to do about a commit that is cut off, by what its table holds."""
    # Here, because commands that know no pipeline begin without it.
    from pipelines.spec import OPS, PREDICTIONS

    *_, pipeline, table, _, _ = file.split("/")
    if pipeline == OPS or table == PREDICTIONS:
        return (
            f"Have the folder of {pipeline}.{table} back from a backup: nothing makes anew what it "
            "holds, so do not delete it. Without a backup, and where the file is the last one of "
            "its folder, delete the file alone, and what that commit told of is lost."
        )
    return (
        "Where it is the last one of its folder, delete it: the next night makes anew what it told "
        "of. Else have the table's folder back from a backup; without one delete the folder, and "
        "the next night makes all of it anew."
    )


def in_place_of_doc(name: str, error: BaseException) -> str:
    """What a list of tables tells of one that cannot be opened: it keeps no other from being told.

    Args:
        name: SQL name of the table.
        error: What opening it has raised; raised again where the store says it, for all tables.
    """
    refuse_store_fault(error)
    # Below its first line stands what a developer of the library would look for.
    why = str(error).partition("\n")[0]
    return f"Cannot be opened: {why} (the way out: nightshift describe {name})"


def refuse_store_fault(error: BaseException) -> None:
    """Raise the error again where the object store says it: of a table it tells nothing."""
    if what_store_says(error):
        raise error


def what_store_says(error: BaseException) -> str | None:
    """What a library says of the object store, on one line; None for every other error."""
    if isinstance(error, NightshiftError):
        return None
    found = next(filter(_is_of_store, _with_causes(error)), None)
    return None if found is None else _in_a_line(str(found))


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _is_of_store(error: BaseException) -> bool:
    modules = [kind.__module__.partition(".")[0] for kind in type(error).__mro__]
    return _OF_BOTO in modules or bool(_SIGNS.search(str(error)))


def _in_a_line(text: str) -> str:
    shown = _STACK.split(_COLOURS.sub("", text))[0]
    # Of a store's own answer, what is meant for people.
    if answer := _ANSWER.search(shown):
        shown = f"{shown[: answer.start()]} {answer['message']}"
    words = " ".join(shown.replace("↳", " ").split())
    shortened = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} …"
    return shortened if shortened.endswith((".", "…")) else f"{shortened}."
