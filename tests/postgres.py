"""A PostgreSQL of the tests' own: made anew, on loopback, with a password of its own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from tests.conftest import free_port
from tools.setup.machine import postgres_programs

_SECONDS = 60
_USERS = ("postgres", "nobody")
"""Who runs the server when the tests run as root, which PostgreSQL refuses to be run by."""
_AS_USER = """
import os, sys
user, group, *program = sys.argv[1:]
os.setgroups([])
os.setgid(int(group))
os.setuid(int(user))
os.execv(program[0], program)
"""
"""Becomes a program of another user, and keeps the process id.

Not `user=` of `subprocess`: with that it takes `fork` instead of `vfork`. In a process with a live
channel of gRPC, such as that of a Spark session, gRPC then polls on in the child, whose descriptors
`subprocess` closes, and which dies of it now and then before it is the program:
https://github.com/grpc/grpc/issues/43055. To be deleted when that is closed.
"""
ADMIN = "admin"
_SETTINGS = {
    # Only a machine whose power goes would lose something. Killed processes do not.
    "fsync": "off",
    "max_connections": "100",
    "log_min_messages": "warning",
}


class Postgres:
    """A server with its data in a folder of its own."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        """Make one.

        Args:
            address: At which it listens; others than loopback let all in that reach it, with its
                password.
        """
        programs = postgres_programs()
        assert programs is not None, "who makes one looks first whether PostgreSQL is there"
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="nightshift-postgres-"))
        self._password = secrets.token_hex(16)
        self.port = free_port()
        self._address = address
        self._user = _user()
        self._process: subprocess.Popen[bytes] | None = None
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        self._give(self._folder, password_file)
        self._run(
            *("initdb", "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync"),
            *(f"--username={ADMIN}", "--encoding=UTF8", "--locale=C.UTF-8"),
            *("--wal-segsize=1", f"--pgdata={self._data}"),
        )
        if address != "127.0.0.1":
            with (self._data / "pg_hba.conf").open("a") as who_may:
                who_may.write(f"host all all {address}/24 scram-sha-256\n")

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self._folder / "log").read_text(errors="replace")

    @property
    def is_up(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None and self._process.poll() is None

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start the server, and wait until it answers; after a kill it recovers first."""
        settings = {
            **_SETTINGS,
            "listen_addresses": self._address,
            "port": str(self.port),
            "unix_socket_directories": "",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(self._data), *options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """End it in order, whoever is connected."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the server and each of its processes."""
        self._end(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing, for the time of the block."""
        own = self._processes()
        _signal(own, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(own, signal.SIGCONT)

    def url(
        self,
        database: str = "postgres",
        user: str = ADMIN,
        password: str = "",
    ) -> str:
        """The address of a database."""
        secret = password or self._password
        return f"postgresql://{user}:{secret}@{self._address}:{self.port}/{database}"

    def database(self, name: str) -> str:
        """Make an empty database, and drop the databases and roles that tests before have made.

        Returns:
            Its address.
        """
        others = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
        roles = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> %s"
        with psycopg.connect(self.url(), autocommit=True) as admin:
            for (other,) in admin.execute(others).fetchall():
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(other))
                admin.execute(drop)
            for (role,) in admin.execute(roles, [ADMIN]).fetchall():
                admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
        return self.create(name)

    def create(self, name: str) -> str:
        """Make an empty database beside the others.

        Returns:
            Its address.
        """
        with psycopg.connect(self.url(), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def remove(self) -> None:
        """End it, and delete all of it."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None, "it was not started"
        own = self._processes()
        # The first is the server itself; of those that it starts, it ends what it can.
        _signal(own if how == signal.SIGKILL else own[:1], how)
        self._process.wait(_SECONDS)
        self._process = None
        until = time.monotonic() + _SECONDS
        while any(map(_runs, own)):
            assert time.monotonic() < until, "a process of the server does not end"
            time.sleep(0.01)

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None, "it was not started"
        server = psutil.Process(self._process.pid)
        return [server, *server.children(recursive=True)]

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until and process.poll() is None:
            with suppress(psycopg.OperationalError), psycopg.connect(self.url()):
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL does not answer:\n{self.log}")

    def _run(self, program: str, *arguments: str) -> None:
        command = self._command(program, *arguments)
        ended = subprocess.run(command, capture_output=True, text=True, cwd=self._folder)
        if ended.returncode:
            raise RuntimeError(f"{program} failed:\n{ended.stdout}{ended.stderr}")

    def _command(self, program: str, *arguments: str) -> list[str]:
        """One of PostgreSQL's programs, as the user who runs it."""
        command = [str(self._programs / program), *arguments]
        if self._user is None:
            return command
        ids = [str(self._user.pw_uid), str(self._user.pw_gid)]
        return [sys.executable, "-I", "-S", "-c", _AS_USER, *ids, *command]

    def _give(self, *places: Path) -> None:
        if self._user is not None:
            for place in places:
                os.chown(place, self._user.pw_uid, self._user.pw_gid)


def _signal(processes: list[psutil.Process], how: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)


def _runs(process: psutil.Process) -> bool:
    # One that has ended, and that nobody has asked about yet, holds nothing any more.
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _user() -> pwd.struct_passwd | None:
    """Who runs the server; None: who runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"PostgreSQL cannot be run by root, and there is no user of {_USERS}.")
