"""`make compose-test`: the nights of docker/compose.yaml, beside the same on this machine.

It starts the stack under a name of its own, runs a quarter in it by command and a night through its
Airflow, and compares what they published with what a home on this machine publishes from the same
files. It needs `docker compose` or `podman-compose`, and an image (`make image`).
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.services import processes
from pipelines.environment import ROOT

_PROJECT = "nightshift-test"
_PASSWORDS = ("POSTGRES_PASSWORD", "NIGHTSHIFT_PASSWORD", "STORE_PASSWORD", "NIGHTSHIFT_SECRET")
"""Variables that compose.yaml insists on."""
_PARTS = ("pages", "control", "platform")
"""Services that are parts of the platform."""
_OF_OUR_IMAGE = (*_PARTS, "spark-master", "spark-worker-1", "spark-worker-2")
_HISTORY = (date(2012, 12, 31), date(2013, 3, 31))
_NIGHT = date(2013, 4, 1)
_PREDICTIONS = "flights.predictions"
_AIRFLOW_RUN = "compose-test"
_UP_SECONDS = 400
_NIGHT_SECONDS = 900
_LOOK_SECONDS = 2.0
_STOP_SECONDS = 60
_PUBLISHED = (
    "SELECT table_name, day, rows, checksum FROM ops.publications "
    "WHERE pipeline = 'flights' ORDER BY ALL"
)
_QUALITY = (
    f"SELECT round(avg(late_probability), 3) AS mean, count(*) AS predictions FROM {_PREDICTIONS}"
)


class TestFailedError(Exception):
    """Something is not as it has to be."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The services of compose.yaml, under a name of the test's own."""

    compose: Sequence[str]
    """The program."""
    variables: Mapping[str, str]

    def ask(self, *arguments: str) -> str:
        """What a command of the program prints.

        Raises:
            TestFailedError: it failed.
        """
        command = [*self.compose, "--project-name", _PROJECT, *arguments]
        return _ran(command, self.variables, ROOT / "docker")

    def run(self, service: str, *command: str) -> str:
        """What a command prints in the container of a service."""
        return self.ask("exec", "-T", service, *command)

    def succeeds(self, service: str, *command: str) -> bool:
        """Whether a command ends with 0 in the container of a service."""
        try:
            self.run(service, *command)
        except TestFailedError:
            return False
        return True


def main() -> int:
    """Run it; returns 0 when all was as it has to be."""
    compose = _compose()
    if compose is None:
        print("Neither `docker compose` nor `podman-compose` is here.", file=sys.stderr)
        return 3
    try:
        with TemporaryDirectory(prefix="nightshift-") as folder, _stack(compose) as stack:
            _test(stack, Path(folder))
    except TestFailedError as error:
        print(f"Failed: {error}", file=sys.stderr)
        return 1
    print("All was as it has to be.")
    return 0


def _test(stack: Stack, folder: Path) -> None:
    _await_platform(stack)
    _require_hardened(stack)
    own = {**os.environ, "NIGHTSHIFT_HOME": str(folder / "home")}
    for name in ("NIGHTSHIFT_SPARK_PORT", "NIGHTSHIFT_AIRFLOW_PORT", "NIGHTSHIFT_MLFLOW_PORT"):
        own[name] = str(processes.free_port())
    first, last = map(str, _HISTORY)
    history = (
        ["land", "flights", "--from", first, "--to", str(_NIGHT)],
        ["run", "flights", "--from", first, "--to", last],
    )
    for words in history:
        with _timed(f"in containers: nightshift {' '.join(words)}"):
            stack.run("platform", "nightshift", *words)
        with _timed(f"on this machine: nightshift {' '.join(words)}"):
            _ran([_nightshift(), *words], own)
    with _timed(f"through the containers' Airflow: {_NIGHT}"):
        _night_through_airflow(stack)
    with _timed(f"on this machine: nightshift run flights --date {_NIGHT}"):
        _ran([_nightshift(), "run", "flights", "--date", str(_NIGHT)], own)
    _require_same(stack, own)
    _require_in_postgres(stack)
    _require_clean_stop(stack)


def _night_through_airflow(stack: Stack) -> None:
    given = json.dumps({"date": str(_NIGHT)})
    asked = ["trigger", "flights", "--run-id", _AIRFLOW_RUN, "--conf", given]
    stack.run("platform", "nightshift", "airflow", "dags", *asked)
    began = time.monotonic()
    while (state := _state_of_run(stack)) in ("queued", "running"):
        _require(time.monotonic() - began < _NIGHT_SECONDS, f"the night is still {state}")
        time.sleep(_LOOK_SECONDS)
    _require(state == "success", f"the night through Airflow ended as {state}")
    # Where the UI looks first.
    folder = f"/var/lib/nightshift/logs/airflow/dag_id=flights/run_id={_AIRFLOW_RUN}"
    logged = stack.run("pages", "ls", folder).split()
    _require("task_id=predict" in logged, f"pages have logs of {logged}")


def _state_of_run(stack: Stack) -> str:
    found = f"SELECT state FROM dag_run WHERE dag_id = 'flights' AND run_id = '{_AIRFLOW_RUN}'"
    return _in_postgres(stack, "airflow", found)


def _require_same(stack: Stack, own: Mapping[str, str]) -> None:
    there, here = _asked_of_both(stack, own, _PUBLISHED)
    # Of those a model has made the rows are compared, not the bits.
    facts = [row for row in there if row[0] != _PREDICTIONS]
    other_rows = set(map(tuple, there)) ^ set(map(tuple, here))
    others = Counter(row[0] for row in other_rows)
    del others[_PREDICTIONS]
    _require(len(facts) > 100, f"only {len(facts)} publications")
    _require(not others, f"other rows were published than on this machine: {dict(others)}")
    said_there, said_here = _asked_of_both(stack, own, _QUALITY)
    said = f"other predictions: {said_there}, and on this machine {said_here}"
    _require(said_there == said_here, said)
    print(f"{len(facts)} publications with the same rows and checksums; predictions {said_there}")


def _asked_of_both(
    stack: Stack,
    own: Mapping[str, str],
    statement: str,
) -> list[list[list[str]]]:
    """The rows of a statement, in the containers and on this machine."""
    words = ["sql", "--format", "csv", statement]
    there = stack.run("platform", "nightshift", *words)
    here = _ran([_nightshift(), *words], own)
    return [_rows(there), _rows(here)]


def _require_in_postgres(stack: Stack) -> None:
    count = f"SELECT count(*) FROM {_PREDICTIONS}"
    said = stack.run("platform", "nightshift", "sql", "--format", "csv", count)
    in_lake = said.split()[-1]
    in_postgres = _in_postgres(stack, "warehouse", count)
    _require(in_lake == in_postgres, f"{in_lake} predictions, and {in_postgres} in PostgreSQL")
    print(f"{in_postgres} predictions in PostgreSQL too")


def _in_postgres(stack: Stack, database: str, statement: str) -> str:
    ask = ("psql", "--username", "postgres", "--tuples-only", "--no-align", database)
    return stack.run("postgres", *ask, "--command", statement).strip()


def _require_hardened(stack: Stack) -> None:
    for service in _OF_OUR_IMAGE:
        users = set(stack.run(service, "ps", "-eo", "uid=").split())
        _require(users == {"10001"}, f"{service} runs something as user {users}")
        _require(
            not stack.succeeds(service, "touch", "/opt/nightshift/x"),
            f"the root of {service} can be written",
        )
        _require(
            not stack.succeeds(service, "sh", "-c", "command -v gcc cc pip make"),
            f"{service} has a compiler or pip",
        )
    print("All processes of ours run as user 10001 on a root that they cannot write")
    _require(stack.run("postgres", "id", "-u").strip() != "0", "PostgreSQL runs as root")
    for service in ("postgres", "store"):
        _require(
            not stack.succeeds(service, "touch", "/x"),
            f"the root of {service} can be written",
        )
        rights = stack.run(service, "grep", "CapEff", "/proc/1/status").split()[-1]
        _require(int(rights, 16) == 0, f"the first process of {service} has rights: {rights}")
    print("PostgreSQL and the store have no rights, and cannot write their roots")


def _require_clean_stop(stack: Stack) -> None:
    with _timed("stop") as taken:
        stack.ask("stop", *_PARTS)
    _require(taken() < _STOP_SECONDS, "the platform did not stop by itself")
    with _timed("start again"):
        stack.ask("start", *_PARTS)
        _await_platform(stack)
    plan = stack.run(
        "platform", "nightshift", "plan", "flights", "--date", str(_NIGHT), "--format", "csv"
    )
    states = {row[1] for row in _rows(plan)}
    _require(states == {"current"}, f"after a start anew the plan was:\n{plan}")


def _await_platform(stack: Stack) -> None:
    with _timed("until the platform is healthy") as taken:
        for part in _PARTS:
            while not stack.succeeds(part, "nightshift", "status"):
                _require(taken() < _UP_SECONDS, f"{part} does not get healthy")
                time.sleep(_LOOK_SECONDS)


@contextmanager
def _stack(compose: Sequence[str]) -> Iterator[Stack]:
    variables = {
        **os.environ,
        **{name: secrets.token_hex(16) for name in _PASSWORDS},
        "NIGHTSHIFT_AIRFLOW_PORT": str(processes.free_port()),
    }
    stack = Stack(compose=compose, variables=variables)
    try:
        with _timed("up"):
            stack.ask("up", "--detach")
        yield stack
    except TestFailedError:
        for part in _PARTS:
            print(stack.ask("logs", "--tail", "20", part), file=sys.stderr)
        raise
    finally:
        stack.ask("down", "--volumes")


@contextmanager
def _timed(what: str) -> Iterator[_Taken]:
    taken = _Taken()
    yield taken
    print(f"{taken():7.1f} s  {what}", flush=True)


class _Taken:
    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._began


def _compose() -> list[str] | None:
    for words in (["docker", "compose"], ["podman-compose"]):
        if shutil.which(words[0]) is None:
            continue
        # Docker may be there without its engine, or without compose.
        asked = subprocess.run(
            [*words, "ps"], cwd=ROOT / "docker", env=_with_any_passwords(), capture_output=True
        )
        if asked.returncode == 0:
            return words
    return None


def _with_any_passwords() -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(_PASSWORDS, "any")}


def _nightshift() -> str:
    return str(Path(sys.executable).with_name("nightshift"))


def _ran(
    command: Sequence[str],
    variables: Mapping[str, str],
    folder: Path = ROOT,
) -> str:
    ended = subprocess.run(
        command, cwd=folder, env=dict(variables), capture_output=True, text=True, check=False
    )
    if ended.returncode:
        said = f"{ended.stdout}\n{ended.stderr}".strip()[-4000:]
        raise TestFailedError(f"{' '.join(command)} ended with {ended.returncode}:\n{said}")
    return ended.stdout


def _rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))[1:]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise TestFailedError(otherwise)


if __name__ == "__main__":
    sys.exit(main())
