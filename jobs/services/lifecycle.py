"""Starts and stops the services of the platform, and shows how they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress

import psutil

from jobs.services import airflow, locks, processes, stage_client
from jobs.services.definitions import Health, Service, services
from jobs.services.progress import Progress
from jobs.services.secrets import make_all
from jobs.services.supervision import Process, Supervisor, log_of
from jobs.services.text import duration, tail
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

UP_SECONDS = 480
"""A service that is not healthy by then is given up."""
_DOWN_SECONDS = 30
_LOOK_SECONDS = 0.25
_WARM_UP = "warm-up"


class ServiceDiedError(NightshiftError):
    """A service ended while the platform was starting."""

    def __init__(self, environment: Environment, name: str, why: str) -> None:
        self.name = name
        log = log_of(environment, name)
        super().__init__(f"The service '{name}' died ({why}). The end of {log}:\n{tail(log)}")


def up(environment: Environment) -> int:
    """Start what does not run yet and wait until all of it is healthy.

    What fails to start leaves nothing behind.
    """
    with _one_at_a_time(environment):
        supervisor, wanted, settings = (
            Supervisor(environment),
            services(environment),
            variables(environment),
        )
        try:
            if not (supervisor.is_running() and supervisor.has_settings(wanted, settings)):
                _start_anew(environment, supervisor, wanted, settings)
            _start_services(environment, supervisor, wanted)
        except BaseException:
            print("Stopping what was started.", file=sys.stderr, flush=True)
            _stop(environment)
            raise
    print(
        f"The platform is up. Airflow: http://{processes.LOOPBACK}:{environment.airflow_port}",
        end="",
    )
    print(
        f" (user {airflow.USER}, password in {environment.secrets / 'admin_password'}). "
        "Stop it with: nightshift down",
        flush=True,
    )
    return 0


def down(environment: Environment) -> int:
    """Stop everything that `up` started, also when its supervisor is gone."""
    with _one_at_a_time(environment):
        started = time.monotonic()
        ended = _stop(environment)
    print(
        f"Stopped in {time.monotonic() - started:.1f} s." if ended else "Nothing was up.",
        flush=True,
    )
    return 0


def status(environment: Environment) -> int:
    """Print how each service is; returns 0 only when all are healthy."""
    from jobs.output import show

    known, health = Supervisor(environment).processes(), Health.ask(environment)
    states = {one.name: state(one, known.get(one.name), health) for one in services(environment)}
    rows = [_row(one, known.get(one.name), states[one.name]) for one in services(environment)]
    show(["service", "state", "pid", "port", "uptime", "memory"], rows)
    return 0 if set(states.values()) == {"healthy"} else NightshiftError.exit_code


def state(service: Service, process: Process | None, health: Health) -> str:
    """A service's state in one word: stopped, starting, healthy, unhealthy or died."""
    if process is None or process.state == "STOPPED":
        return "stopped"
    if process.has_died:
        return "died"
    if service.is_well(health, process.started_at):
        return "healthy"
    return "starting" if time.time() - process.started_at < UP_SECONDS else "unhealthy"


def variables(environment: Environment) -> dict[str, str]:
    """The variables of all processes of the platform."""
    marks = {
        processes.MARK: str(environment.home),
        "SPT_NOENV": "1",
    }  # else setproctitle writes its title over the mark
    return {
        **environment.variables(),
        **airflow.variables(environment),
        **marks,
        "PYTHONUNBUFFERED": "1",
    }


def _start_anew(
    environment: Environment,
    supervisor: Supervisor,
    wanted: tuple[Service, ...],
    settings: Mapping[str, str],
) -> None:
    environment.logs.mkdir(parents=True, exist_ok=True)
    if _stop(environment):
        print(
            "Stopped what an earlier start with other settings, "
            "or one that was cut short, had left.",
            flush=True,
        )
    for service in wanted:
        if service.port:
            processes.require_free(
                service.port, f"the service '{service.name}'", service.port_variable
            )
    make_all(environment)
    airflow.prepare(environment)
    supervisor.start(wanted, settings)


def _start_services(
    environment: Environment, supervisor: Supervisor, wanted: tuple[Service, ...]
) -> None:
    """Start Spark and the stage server while Airflow's database is prepared, then Airflow.

    Warm up when the two are there.
    """
    before = supervisor.processes()
    is_cold = environment.spark_remote is None and any(
        before[one.name].state != "RUNNING" for one in wanted if not one.needs_database
    )
    migration = airflow.migration(environment)
    for service in wanted:
        if migration is None or not service.needs_database:
            supervisor.start_service(service.name)
    with Progress([one.name for one in wanted] + ([_WARM_UP] if is_cold else [])) as progress:
        warming: stage_client.Work | None = None
        watch = _Watch(environment, supervisor, wanted)
        while progress.waiting:
            if migration is not None and (code := migration.poll()) is not None:
                airflow.migrated(environment, code)
                migration = None
                for service in wanted:
                    supervisor.start_service(service.name)
            for name in watch.healthy():
                progress.done(name)
            if (
                is_cold
                and warming is None
                and not progress.waiting & {one.name for one in wanted if not one.needs_database}
            ):
                warming = _warm_up(environment)
            if warming is not None and (code := warming.wait(0)) is not None:
                _require_warm(environment, code)
                progress.done(_WARM_UP)
            progress.tick()
            time.sleep(_LOOK_SECONDS)


class _Watch:
    """Sees which services are healthy, and that none has died meanwhile."""

    def __init__(
        self, environment: Environment, supervisor: Supervisor, wanted: tuple[Service, ...]
    ) -> None:
        self._environment, self._supervisor, self._wanted = environment, supervisor, wanted
        self._deadline = time.monotonic() + UP_SECONDS
        self._pids: dict[str, int] = {}

    def healthy(self) -> list[str]:
        known = self._supervisor.processes()
        health = Health.ask(self._environment)
        self._require_alive(known)
        found = [
            one.name for one in self._wanted if state(one, known.get(one.name), health) == "healthy"
        ]
        if time.monotonic() > self._deadline:
            late = next(one.name for one in self._wanted if one.name not in found)
            raise ServiceDiedError(self._environment, late, f"not healthy after {UP_SECONDS} s")
        return found

    def _require_alive(self, known: Mapping[str, Process]) -> None:
        if not known:
            raise NightshiftError(
                "The supervisor died. The end of its log:\n"
                f"{tail(self._environment.logs / 'supervisord.log')}"
            )
        for process in known.values():
            restarted = (
                process.pid and self._pids.setdefault(process.name, process.pid) != process.pid
            )
            if process.has_died or restarted:
                raise ServiceDiedError(
                    self._environment,
                    process.name,
                    process.why if process.has_died else "it had to be restarted",
                )


def _warm_up(environment: Environment) -> stage_client.Work:
    with log_of(environment, _WARM_UP).open("w") as log:
        return stage_client.spawn(
            environment,
            "jobs.commands.warm_up:main",
            {"environment": environment.variables()},
            {},
            log,
        )


def _require_warm(environment: Environment, code: int) -> None:
    if code:
        raise ServiceDiedError(environment, _WARM_UP, f"exit code {code}")


def _stop(environment: Environment) -> int:
    """Stop the supervisor and sweep; returns how many processes there were."""
    there = len(processes.marked(environment.home))
    if there:
        Supervisor(environment).shut_down(_DOWN_SECONDS)
        processes.sweep(environment.home)
    return there


def _row(service: Service, process: Process | None, state_of_it: str) -> tuple[object, ...]:
    port = service.port or ""
    if process is None or not process.pid:
        return (service.name, state_of_it, "", port, "", "")
    uptime = duration(time.time() - process.started_at)
    return (
        service.name,
        state_of_it,
        process.pid,
        port,
        uptime,
        f"{_memory(process.pid) >> 20} MB",
    )


def _memory(pid: int) -> int:
    """Bytes of a process and all below it; what forks share counts once where the system tells."""
    total = 0
    with suppress(psutil.Error):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with suppress(psutil.Error):
                sizes = process.memory_full_info()
                total += getattr(sizes, "pss", sizes.rss)
    return total


def _one_at_a_time(environment: Environment) -> AbstractContextManager[None]:
    """Two starts or stops of one home take turns."""
    return locks.hold(
        environment,
        "services",
        waiting="Waiting for another `nightshift up` or `nightshift down` of this home to end.",
    )
