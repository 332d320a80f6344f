"""The supervisor of a home's services.

Supervisord: a file says what it runs, XML-RPC over a Unix socket asks it how that goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from xmlrpc.client import Error as RpcError
from xmlrpc.client import Fault, ServerProxy, Transport

from supervisor.xmlrpc import Faults

from jobs.services import processes
from jobs.services.definitions import Service
from jobs.services.secrets import private_folder
from jobs.services.text import tail
from pipelines import wire
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError

_GROUP = "platform"
_START_SECONDS = 20
_ANSWER_SECONDS = 20
"""One that is stopped (SIGSTOP) takes questions and never answers."""
_SILENCE = (TimeoutError, BlockingIOError)
"""What such a question ends in; the second where many wait for an answer already."""
LOOKS = 3
"""In vain, after which the supervisor is taken for gone: it may be slow to answer once."""
_LOOK_SECONDS = 0.05
_LOG_BYTES = "20MB"  # each of three files, so a home's logs stay below half a gigabyte
_OWN_LOGS = ("supervisor", "supervisord")
"""What it says before it can log, or as it breaks; and its log."""
_OF_A_SHELL = "PATH"
"""No setting: a shell in which a virtual environment is active has another one."""
# Not errors of ours: what came of the start is in the process's state.
_SEEN_IN_STATE = (Faults.ALREADY_STARTED, Faults.SPAWN_ERROR, Faults.ABNORMAL_TERMINATION)


class NoAnswerError(NightshiftError):
    """The supervisor answers nothing, which is no reason to end what it runs."""

    def __init__(self, environment: Environment) -> None:
        log = environment.logs / "supervisord.log"
        super().__init__(
            "The supervisor answers nothing: it is stopped (SIGSTOP), waits for its disk, or has "
            "died. `nightshift down` ends it and all that it runs; then `nightshift up` starts "
            f"anew. The end of {log}:\n{tail(log)}"
        )


class StoppedServiceError(NightshiftError):
    """The process of a service is stopped, which is no reason to end what else runs."""

    def __init__(self, name: str, pid: int) -> None:
        super().__init__(
            f"The process of '{name}' is stopped (SIGSTOP): {processes.how_to_go_on(pid)}. Then "
            "say `nightshift up` again."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """What the supervisor knows of a service."""

    name: str
    state: str
    """RUNNING, STARTING, BACKOFF, STOPPED, FATAL, EXITED …"""
    pid: int
    started_at: float
    """Seconds since 1970; 0 when it never was."""
    why: str
    """How it ended, in the supervisor's words."""

    @property
    def has_died(self) -> bool:
        """Whether it ended by itself and is not running again."""
        return self.state in {"BACKOFF", "FATAL", "EXITED", "UNKNOWN"}


class Supervisor:
    """A home's supervisor, running or not."""

    def __init__(self, environment: Environment, *, is_patient: bool = False) -> None:
        """Ask nothing yet.

        Args:
            environment: Whose it is.
            is_patient: Wait for an answer however long it takes.
        """
        self._environment = environment
        self._patience_seconds = None if is_patient else _ANSWER_SECONDS
        self._socket = wire.socket_path(environment, "supervisor")
        self._configuration = environment.runtime / "supervisord.conf"
        self._pid_file = environment.runtime / "supervisord.pid"

    def is_running(self) -> bool:
        """Whether it answers.

        Raises:
            NoAnswerError: it is there, and does not answer in time.
        """
        try:
            return bool(self._ask("getState")["statename"] == "RUNNING")
        except _SILENCE:
            raise NoAnswerError(self._environment) from None
        except (OSError, RpcError):
            return False

    def was_killed(self) -> bool:
        """Whether one that no longer runs had no time to clean up after itself."""
        return self._pid_file.exists()

    def stopped_pid(self) -> int:
        """Its process id where that is stopped (SIGSTOP); 0: it goes on, or is not there."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return 0
        # After a kill the id may be that of another program by now.
        is_ours = pid in {one.pid for one in processes.marked(self._environment.home)}
        return pid if is_ours and processes.is_stopped(pid) else 0

    def has_settings(self, services: Sequence[Service], variables: Mapping[str, str]) -> bool:
        """Whether it was started with these services and variables."""
        if not self._configuration.exists():
            return False
        wanted = self.configuration(services, variables)
        return self._configuration.read_text() == wanted

    def start(self, services: Sequence[Service], variables: Mapping[str, str]) -> None:
        """Start the supervisor, detached from this process; no service yet.

        Raises:
            NightshiftError: it does not answer.
        """
        private_folder(self._configuration.parent)
        # Private before anything is in it.
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(self.configuration(services, variables))
        program = [
            sys.executable,
            "-m",
            "jobs.services.supervisord",
            # It stays our child, so that we see when it ends before it answers.
            "--nodaemon",
            "--configuration",
            str(self._configuration),
        ]
        # Begun anew: it holds only what it says where it does not start.
        with (self._environment.logs / "supervisor.log").open("wb") as log:
            process = subprocess.Popen(
                program,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Neither Ctrl-C nor the end of this terminal reaches it.
                start_new_session=True,
                cwd=ROOT,
            )
        self._wait_until_it_answers(process)

    def start_service(self, name: str) -> None:
        """Start a service, unless it runs.

        One that dies at once is seen in `processes`, not here.

        Raises:
            NoAnswerError: nobody answers.
        """
        try:
            # False: without waiting, so that services start side by side.
            self._ask("startProcess", f"{_GROUP}:{name}", False)
        except Fault as fault:
            if fault.faultCode not in _SEEN_IN_STATE:
                raise
        except OSError:
            raise NoAnswerError(self._environment) from None

    def processes(self) -> dict[str, Process]:
        """What it knows of each service; nothing when it does not answer."""
        try:
            answer = self._ask("getAllProcessInfo")
        except (OSError, RpcError):
            return {}
        return {info["name"]: _process(info) for info in answer}

    def shut_down(self, patience_seconds: float) -> None:
        """Have it stop all services and itself; returns when it is gone or time is up."""
        try:
            self._ask("shutdown")
        except TimeoutError:
            # It takes longer to ask again than to end it.
            return
        except (OSError, RpcError):
            pass
        deadline = time.monotonic() + patience_seconds
        while self._answers() and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)

    def configuration(self, services: Sequence[Service], variables: Mapping[str, str]) -> str:
        """The text of its configuration file."""
        programs = "\n".join(self._program(service) for service in services)
        # The variables themselves are inherited: they may hold secrets, and characters that this
        # format cannot.
        return f"""; variables: {_digest(variables)}
[supervisord]
pidfile = {_escaped(str(self._pid_file))}
logfile = {self._environment.logs}/supervisord.log
logfile_maxbytes = 1MB
logfile_backups = 1
; Else all of it would be in supervisor.log too, which is begun anew at starts alone.
silent = true

[unix_http_server]
file = {_escaped(str(self._socket))}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[group:{_GROUP}]
programs = {",".join(service.name for service in services)}

{programs}"""

    def _program(self, service: Service) -> str:
        words = [_escaped(_quoted(word)) for word in service.command]
        log = log_of(self._environment, service.name)
        return f"""[program:{service.name}]
command = {" ".join(words)}
directory = {_escaped(str(ROOT))}
autostart = false
autorestart = true
startsecs = 1
startretries = 1
stopwaitsecs = 8
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = {_escaped(str(log))}
stdout_logfile_maxbytes = {_LOG_BYTES}
stdout_logfile_backups = 2
"""

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._has_started():
            if process.poll() is not None or time.monotonic() > deadline:
                logs = [self._environment.logs / f"{name}.log" for name in _OWN_LOGS]
                ends = "\n".join(f"The end of {log}:\n{tail(log)}" for log in logs)
                raise NightshiftError(f"The supervisor did not start. {ends}")
            time.sleep(_LOOK_SECONDS)

    def _has_started(self) -> bool:
        with suppress(NoAnswerError):
            return self.is_running()
        return False

    def _answers(self) -> bool:
        try:
            self._ask("getState")
        except Fault:
            # So it answers while it waits for its services to end.
            return True
        except (OSError, RpcError):
            return False
        return True

    def _ask(self, method: str, *arguments: Any) -> Any:
        transport = _ToSocket(self._socket, self._patience_seconds)
        # The address must be there and is not used: the transport goes to the socket.
        with ServerProxy("http://127.0.0.1", transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)


class _ToSocket(Transport):
    """Asks at a socket of this machine; the supervisor's own transport would wait without end."""

    def __init__(self, path: Path, patience_seconds: float | None) -> None:
        super().__init__()
        self._path = path
        self._patience_seconds = patience_seconds

    def make_connection(self, host: Any) -> HTTPConnection:
        connection = HTTPConnection(host)
        connection.sock = socket.socket(socket.AF_UNIX)
        # It is closed also where nobody listens.
        self._connection = host, connection
        connection.sock.settimeout(self._patience_seconds)
        connection.sock.connect(str(self._path))
        return connection


def log_of(environment: Environment, service: str) -> Path:
    """The log file of a service."""
    return environment.logs / f"{service}.log"


def _process(info: dict[str, Any]) -> Process:
    return Process(
        name=info["name"],
        state=info["statename"],
        pid=info["pid"],
        started_at=float(info["start"]),
        why=info["spawnerr"] or info["description"],
    )


def _digest(variables: Mapping[str, str]) -> str:
    settings = {name: value for name, value in variables.items() if name != _OF_A_SHELL}
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _escaped(text: str) -> str:
    # The file's format would expand what follows a percent sign.
    return text.replace("%", "%%")
