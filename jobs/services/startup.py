"""Starts the services in their order, and watches until all of them are healthy."""

from __future__ import annotations

import time
from collections.abc import Mapping

from jobs.services import airflow, stage_client
from jobs.services.definitions import Health, Service, has_airflow
from jobs.services.processes import is_stopped
from jobs.services.progress import Progress
from jobs.services.supervision import (
    LOOKS,
    NoAnswerError,
    Process,
    StoppedServiceError,
    Supervisor,
    log_of,
)
from jobs.services.text import tail
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

UP_SECONDS = 480
"""A service that is not healthy by then is given up. The first start of a home also makes Airflow's
database in this time."""
_LOOK_SECONDS = 0.25
_WARM_UP = "warm-up"


class ServiceFailedError(NightshiftError):
    """A service ended, or did not get well, while the platform was starting."""

    def __init__(self, environment: Environment, name: str, why: str) -> None:
        self.name = name
        log = log_of(environment, name)
        super().__init__(f"The service '{name}' {why}. The end of {log}:\n{tail(log)}")


def start_services(
    environment: Environment, supervisor: Supervisor, wanted: tuple[Service, ...]
) -> None:
    """Start what does not run yet, and wait until all of it is healthy.

    Raises:
        ServiceFailedError: one did not get well; the message holds the end of its log.
        NoAnswerError: the supervisor answers nothing.
        StoppedServiceError: the process of one is stopped.
    """
    _Start(environment, supervisor, wanted).wait_until_healthy()


def state(service: Service, process: Process | None, health: Health) -> str:
    """A service's state in one word: stopped, starting, healthy, unhealthy or died."""
    if process is None or process.state == "STOPPED":
        return "stopped"
    if process.has_died:
        return "died"
    if is_stopped(process.pid):
        # Its port would seem to answer.
        return "unhealthy"
    if service.is_well(health, process.started_at):
        return "healthy"
    return "starting" if time.time() - process.started_at < UP_SECONDS else "unhealthy"


class _Start:
    """One start: Airflow when its database is prepared, all others at once.

    When Spark and the stage server are there, they are warmed up.
    """

    def __init__(
        self, environment: Environment, supervisor: Supervisor, wanted: tuple[Service, ...]
    ) -> None:
        self._environment = environment
        self._supervisor = supervisor
        self._wanted = wanted
        self._warmed_up = {one.name for one in wanted if one.is_warmed_up}
        self._is_cold = self._must_warm_up()
        self._warming: stage_client.Work | None = None
        self._warm_by = 0.0
        self._migration = airflow.migration(environment) if has_airflow(wanted) else None
        self._watch = _Watch(environment, supervisor, wanted)

    def wait_until_healthy(self) -> None:
        names = [service.name for service in self._wanted]
        if self._is_cold:
            names.append(_WARM_UP)
        for service in self._wanted:
            if self._migration is None or not service.needs_database:
                self._supervisor.start_service(service.name)
        with Progress(names) as progress:
            while progress.waiting:
                self._take_next_step(progress)
                progress.tick()
                time.sleep(_LOOK_SECONDS)
        if self._environment.runs("airflow-api"):
            airflow.prepare_for_tasks(self._environment)

    def _take_next_step(self, progress: Progress) -> None:
        if self._migration is not None:
            self._end_migration(self._migration.poll())
        for name in self._watch.healthy():
            progress.done(name)
        if self._is_cold and self._warmed_up.isdisjoint(progress.waiting):
            self._warm_up(progress)

    def _must_warm_up(self) -> bool:
        # A cluster's Spark is not ours to warm up, and what already runs is warm.
        if self._environment.spark_remote is not None:
            return False
        known = self._supervisor.processes()
        if not known:
            raise NoAnswerError(self._environment)
        return any(known[name].state != "RUNNING" for name in self._warmed_up)

    def _end_migration(self, code: int | None) -> None:
        if code is None:
            return
        airflow.migrated(self._environment, code)
        self._migration = None
        for service in self._wanted:
            self._supervisor.start_service(service.name)

    def _warm_up(self, progress: Progress) -> None:
        if self._warming is None:
            self._warming = warm_up(self._environment)
            self._warm_by = time.monotonic() + UP_SECONDS
        # Only a look: services are watched meanwhile.
        code = self._warming.wait(0)
        if code:
            raise ServiceFailedError(self._environment, _WARM_UP, f"ended with exit code {code}")
        if code is not None:
            progress.done(_WARM_UP)
        elif time.monotonic() > self._warm_by:
            self._warming.kill()
            why = f"is not done after {UP_SECONDS} s"
            late = ServiceFailedError(self._environment, _WARM_UP, why)
            # It only saves the first night some seconds, and all services are well.
            progress.give_up(_WARM_UP, f"Warning: {late}")


class _Watch:
    """Sees which services are healthy, and that none has died meanwhile."""

    def __init__(
        self, environment: Environment, supervisor: Supervisor, wanted: tuple[Service, ...]
    ) -> None:
        self._environment = environment
        self._supervisor = supervisor
        self._wanted = wanted
        self._deadline = time.monotonic() + UP_SECONDS
        self._pids: dict[str, int] = {}
        self._in_vain = 0

    def healthy(self) -> list[str]:
        known = self._supervisor.processes()
        self._in_vain = 0 if known else self._in_vain + 1
        if self._in_vain >= LOOKS:
            raise NoAnswerError(self._environment)
        if not known:
            return []
        health = Health.ask(self._environment)
        self._require_alive(known)
        healthy: list[str] = []
        others: list[str] = []
        for service in self._wanted:
            word = state(service, known.get(service.name), health)
            names = healthy if word == "healthy" else others
            names.append(service.name)
        if others and time.monotonic() > self._deadline:
            why = f"is not healthy after {UP_SECONDS} s"
            raise ServiceFailedError(self._environment, others[0], why)
        return healthy

    def _require_alive(self, known: Mapping[str, Process]) -> None:
        for process in known.values():
            if is_stopped(process.pid):
                raise StoppedServiceError(process.name, process.pid)
            if process.has_died:
                why = f"died ({process.why})"
                raise ServiceFailedError(self._environment, process.name, why)
            if self._has_new_pid(process):
                why = "died and had to be restarted"
                raise ServiceFailedError(self._environment, process.name, why)

    def _has_new_pid(self, process: Process) -> bool:
        if not process.pid:
            return False
        first_seen = self._pids.setdefault(process.name, process.pid)
        return process.pid != first_seen


def warm_up(environment: Environment) -> stage_client.Work:
    """Have the stage server and Spark do once what every stage does."""
    argument = {"environment": environment.variables()}
    with log_of(environment, _WARM_UP).open("w") as log:
        return stage_client.spawn(environment, "jobs.commands.warm_up:main", argument, {}, log)
