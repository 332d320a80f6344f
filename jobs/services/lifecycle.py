"""Starts and stops the services of the platform, and shows how they are."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

import psutil

from jobs.services import addresses, airflow, executors, locks, processes, shared_locks, signals
from jobs.services.airflow_api import own_airflow
from jobs.services.definitions import Health, Service, as_started, has_airflow, services
from jobs.services.replays import begin_all
from jobs.services.secrets import make_all
from jobs.services.startup import start_services, state
from jobs.services.supervision import Process, Supervisor
from jobs.services.text import duration
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError

# Enough for the supervisor to kill what has not ended within its `stopwaitsecs`.
_DOWN_SECONDS = 30
_HOSTNAME = "AIRFLOW__CORE__HOSTNAME_CALLABLE"
"""Variable of Airflow's: how it finds out by which name or address others reach this machine."""
_COLUMNS = ("service", "state", "pid", "port", "uptime", "memory")


def up(environment: Environment, begins: Callable[[], object] = lambda: None) -> int:
    """Start what does not run yet and wait until all of it is healthy.

    What fails to start leaves nothing behind; what was up before goes on, whatever fails.

    Args:
        environment: Whose platform it is.
        begins: Called when it is our turn, and nothing is up: what is started from now on is ours.

    Raises:
        UsageError: a variable of Airflow's is set that Nightshift sets by one of its own, or this
            machine runs a part of the platform and does not share what the parts share, or
            Airflow's executor lacks what it needs, or its configuration is missing.
        NoAnswerError: a supervisor is up and answers nothing; what it runs is left alone.
    """
    executors.require_worker_has_tasks(environment)
    wanted = services(environment)
    _require_some(environment, wanted)
    if has_airflow(wanted):
        airflow.require_configuration()
        airflow.require_own_settings(environment)
        executors.require_all(environment)
    require_shared(environment)
    if why := shared_locks.why_no_turns(environment):
        print(f"Warning: {why}.", file=sys.stderr, flush=True)
    _require_own_ports(wanted)
    with _one_at_a_time(environment):
        _require_ports_of_nobody_else(environment, wanted)
        supervisor = Supervisor(environment)
        settings = variables(environment)
        is_up = supervisor.is_running() and supervisor.has_settings(wanted, settings)
        if not is_up:
            begins()
        begin_all(environment)
        with _stopped_on_failure(environment, is_up=is_up):
            if not is_up:
                _start_anew(environment, supervisor, wanted, settings)
            # Also where nothing starts anew: a file that was changed or lost is right again.
            airflow.make_login(environment)
            start_services(environment, supervisor, wanted)
            _make_pools(environment, wanted)
    print(_where(environment, wanted), flush=True)
    return 0


def down(environment: Environment) -> int:
    """Stop everything that `up` started.

    Also when its supervisor is gone, or its disk may only be read.
    """
    if not environment.home.exists() and not processes.marked(environment.home):
        # Even the lock would make a folder in a home that nobody ever used.
        print("Nothing was up.", flush=True)
        return 0
    with ExitStack() as held:
        try:
            held.enter_context(_one_at_a_time(environment))
        except OSError as error:
            # Such as of a disk that a fault has made one to be read: what runs is to end anyway.
            print(f"Warning: no other start or stop is waited for: {error}", file=sys.stderr)
        started = time.monotonic()
        ended = _stop(environment)
        seconds = time.monotonic() - started
    print(f"Stopped in {seconds:.1f} s." if ended else "Nothing was up.", flush=True)
    return 0


def status(environment: Environment) -> int:
    """Print how each service is; returns 0 only when all are healthy."""
    from jobs.output import show

    known = Supervisor(environment).processes()
    environment = as_started(environment, known)
    health = Health.ask(environment)
    rows = []
    is_healthy = True
    for service in services(environment):
        process = known.get(service.name)
        word = state(service, process, health)
        rows.append(_row(service, process, word))
        is_healthy = is_healthy and word == "healthy"
    show(_COLUMNS, rows)
    for name, process in known.items():
        if processes.is_stopped(process.pid):
            told = processes.how_to_go_on(process.pid)
            _tell(f"The process of '{name}' is stopped (SIGSTOP): {told}.")
    if not known:
        _tell_of_left_processes(environment)
    return 0 if is_healthy else NightshiftError.exit_code


def _tell_of_left_processes(environment: Environment) -> None:
    """Say what still runs without a supervisor, as after a kill of it."""
    left = processes.marked(environment.home)
    if not left:
        return
    if stopped := Supervisor(environment).stopped_pid():
        _tell(
            f"The supervisor is stopped (SIGSTOP), and nothing watches {len(left) - 1} other "
            f"processes that run: {processes.how_to_go_on(stopped)}; `nightshift down` ends all "
            "of them."
        )
        return
    _tell(
        f"{len(left)} of its processes still run, and nothing watches them, such as "
        f"{processes.describe(min(left, key=lambda one: one.pid))}: `nightshift down` ends "
        "them, and `nightshift up` starts anew."
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def variables(environment: Environment) -> dict[str, str]:
    """The variables of all processes of the platform."""
    return {
        **environment.variables(),
        **airflow.variables(environment),
        processes.MARK: str(environment.home),
        # Else setproctitle, which Airflow uses, writes its title over the mark.
        "SPT_NOENV": "1",
        # A log shows a line when it is written, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
    }


def needs_others(environment: Environment) -> bool:
    """Whether other machines run services, or tasks, of this one's Airflow."""
    # Its tasks run on other machines, though all of Airflow's own services are here.
    has_scheduler = environment.runs("scheduler")
    hands_tasks_out = executors.has_workers() and not environment.runs(executors.WORKER)
    has_tasks_elsewhere = hands_tasks_out or executors.has_pods()
    return environment.is_part or (has_scheduler and has_tasks_elsewhere)


def require_shared(environment: Environment) -> None:
    """Refuse to run a part of the platform that the other parts would know nothing of.

    Raises:
        UsageError: what the parts share is not set; the message names the variables.
    """
    if not needs_others(environment):
        return
    if told := not_shared(environment):
        what = f"{environment.settings()['services'].variable}={environment.services}"
        if environment.services is None:
            what = executors.as_told()
        raise UsageError(
            f"{what} is a part of an Airflow, whose other parts are on other machines, and what "
            f"they share is not set, to the same on each: {told}"
        )
    _require_address(environment)


def not_shared(environment: Environment) -> str:
    """Variables of what all machines of a platform share that are not set here; '': all are."""
    names = environment.settings()
    wanted = {
        "airflow_database": environment.airflow_database.startswith("postgresql"),
        "mlflow_uri": not environment.mlflow_uri.startswith("sqlite"),
        "secret": environment.secret is not None,
        "airflow_api": environment.runs("airflow-api") or environment.airflow_api is not None,
    }
    missing = [names[name] for name, is_shared in wanted.items() if not is_shared]
    own = set(environment.own_places())
    missing += [one for one in names.values() if one.variable in own]
    return "; ".join(f"{one.variable} ({one.does})" for one in missing)


def _require_address(environment: Environment) -> None:
    """Refuse to tell the pages an address at which they would look for logs on themselves."""
    told = os.environ.get(_HOSTNAME, "")
    if environment.runs("airflow-api") or not told.endswith("get_host_ip_address"):
        return
    name = socket.getfqdn()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        leads = "nowhere"
    else:
        leads = f"at {address}" if address.startswith("127.") else ""
    if leads:
        raise UsageError(
            f"Airflow's other machines would look for the logs of this one {leads}: that is "
            f"where its name {name} leads here. Let a line of /etc/hosts lead it to its address in "
            f"your network, or set {_HOSTNAME} to a function that finds it."
        )


def _require_some(environment: Environment, wanted: tuple[Service, ...]) -> None:
    if not wanted:
        raise UsageError(
            f"Of NIGHTSHIFT_SERVICES={environment.services} nothing is needed here, such as a JDBC "
            "server without NIGHTSHIFT_JDBC_PORT, or a Spark server beside SPARK_REMOTE."
        )


def _require_own_ports(wanted: tuple[Service, ...]) -> None:
    """Refuse one port for two services: the second would die at its start."""
    first: dict[int, Service] = {}
    for service in wanted:
        if service.port and first.setdefault(service.port, service) is not service:
            names = f"{first[service.port].port_variable} and {service.port_variable}"
            raise UsageError(f"{names} are both {service.port}: give each a port of its own.")


def _require_ports_of_nobody_else(environment: Environment, wanted: tuple[Service, ...]) -> None:
    """Refuse a port of another program while what is up of this home still runs."""
    for service in wanted:
        if service.port and processes.answers(service.port):
            holder = processes.listener(service.port)
            # Of a program that cannot be seen it turns out when all of ours is stopped.
            if holder is not None and not processes.belongs(holder, environment.home):
                _require_free(service, service.port)


def _require_free(service: Service, port: int) -> None:
    processes.require_free(port, f"the service '{service.name}'", service.port_variable)


def _where(environment: Environment, wanted: tuple[Service, ...]) -> str:
    """What is up, and how to get in."""
    if environment.services is not None:
        names = ", ".join(service.name for service in wanted)
        return f"Up: {names}. Stop it with: nightshift down"
    host = f"http://{processes.LOOPBACK}"
    pages = [f"Airflow: {addresses.of_airflow(environment)}"]
    if environment.keeps_models:
        pages.append(f"MLflow: {host}:{environment.mlflow_port}")
    if environment.jdbc_port:
        pages.append(f"JDBC: jdbc:hive2://{processes.LOOPBACK}:{environment.jdbc_port}")
    password = environment.secrets / "admin_password"
    return (
        f"The platform is up. {', '.join(pages)} (user {airflow.USER}, password in {password}). "
        "Stop it with: nightshift down"
    )


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
            _require_free(service, service.port)
    make_all(environment)
    supervisor.start(wanted, settings)


def _make_pools(environment: Environment, wanted: tuple[Service, ...]) -> None:
    """Make the pools in which tasks wait: in a pool that is not there they would wait for ever.

    Where it cannot be done, a warning is printed: pools may be there, and a night's plan makes them
    too.
    """
    if not (has_airflow(wanted) and environment.runs("airflow-api")):
        return
    which = ""
    try:
        pools = catalog.pools()
        which = f" ({', '.join(pool.name for pool in pools)})"
        own_airflow(environment).make_pools(pools)
    except Exception as error:  # people may have changed how one signs in, and with it any answer
        print(
            f"Warning: the pools are not made: {error} A task whose pool is not there waits for "
            f"ever. Look whether they are, and make those that are not{which}: "
            "nightshift airflow pools list; nightshift airflow pools set NAME SLOTS WHY",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def _stopped_on_failure(environment: Environment, *, is_up: bool) -> Iterator[None]:
    """Stop what the block has started when it fails: half a platform would stay, unseen.

    Also when it is ended, by Ctrl-C, by `kill`, or with its terminal.

    Args:
        environment: Whose platform it is.
        is_up: Whether it was up before, so that nights may run: they are left alone.
    """
    numbers = signals.endings()
    with signals.interrupted_by(numbers):
        try:
            yield
        except BaseException:
            if is_up:
                raise
            # A stop is not stopped halfway: of the end of a terminal a process may be told twice.
            signals.ignore(numbers)
            with suppress(OSError):  # where nobody is left to read it
                print("Stopping what was started.", file=sys.stderr, flush=True)
            _stop(environment)
            raise


def _stop(environment: Environment) -> int:
    """Stop the supervisor and sweep; returns how many processes there were."""
    count = len(processes.marked(environment.home))
    if count:
        Supervisor(environment).shut_down(_DOWN_SECONDS)
        processes.sweep(environment.home)
    return count


def _row(service: Service, process: Process | None, word: str) -> tuple[object, ...]:
    port = service.port or ""
    if process is None or not process.pid:
        return (service.name, word, "", port, "", "")
    uptime = duration(time.time() - process.started_at)
    megabytes = _memory(process.pid) >> 20
    return (service.name, word, process.pid, port, uptime, f"{megabytes} MB")


def _memory(pid: int) -> int:
    """Bytes of a process and all below it; what forks share counts once where the system tells."""
    total = 0
    with suppress(psutil.Error):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with suppress(psutil.Error):
                sizes = process.memory_full_info()
                total += getattr(sizes, "pss", sizes.rss)  # only Linux has the first
    return total


def _one_at_a_time(environment: Environment) -> AbstractContextManager[None]:
    """Two starts or stops of one home take turns."""
    return locks.hold(
        environment,
        "services",
        waiting="Waiting for another `nightshift up` or `nightshift down` of this home to end.",
    )
