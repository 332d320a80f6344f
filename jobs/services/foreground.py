"""`nightshift up --foreground`: the platform for as long as this process runs.

So a container wants it.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

from jobs.services import airflow, lifecycle, signals
from jobs.services.leftovers import Rule, clean
from jobs.services.replays import begin_all
from jobs.services.supervision import LOOKS, Process, Supervisor, log_of
from pipelines.environment import Environment
from pipelines.errors import NightshiftError

_LOOK_SECONDS = 1.0
_CLEAN_SECONDS = 24 * 60 * 60
_BEGIN_SECONDS = 60.0


def run(environment: Environment) -> int:
    """Start the platform, stay until it is asked to end, and stop it; returns the exit code 0.

    It is asked by SIGTERM, by Ctrl-C, or by the end of its terminal.

    What a service does by itself is told on stdout: that it ended, and was started anew.

    Raises:
        NightshiftError: the platform did not start, a service ended for good, or the supervisor
            was killed. Nothing is left behind, but for what was up before a start that was refused.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        numbers.append(signal.SIGHUP)
    # Asked to end while it starts, nothing may stay either; while it waits for another start, or
    # joins what is up, that platform stays.
    is_ours = False

    def begins() -> None:
        nonlocal is_ours
        is_ours = True

    with signals.interrupted_by(numbers):
        try:
            try:
                lifecycle.up(environment, begins)
            except Exception:
                # What it had started it has stopped; what was up before is not ours to stop.
                is_ours = False
                raise
            # Also what was up before: from now on it is for as long as this process runs.
            is_ours = True
            _stay(environment)
        except KeyboardInterrupt:
            print("Asked to stop.", flush=True)
        finally:
            if is_ours:
                # A stop is not stopped halfway.
                signals.ignore(numbers)
                lifecycle.down(environment)
    return 0


def _stay(environment: Environment) -> None:
    """Watch until the platform is stopped from elsewhere, and have replays begin meanwhile."""
    ended = Event()
    # Whoever asks a store that is away may wait for minutes.
    Thread(target=_begin_late, args=(environment, ended), daemon=True).start()
    try:
        _watch(environment)
    finally:
        ended.set()


def _watch(environment: Environment) -> None:
    # One that waits for its disk is no reason to end the nights that run.
    supervisor = Supervisor(environment, is_patient=True)
    ran: dict[str, int] = {}
    in_vain = 0
    # The DAG `maintenance` runs in one of the parts, and cleans the home of that one.
    clean_at = time.monotonic() if environment.is_part else math.inf
    while in_vain < LOOKS:
        now = supervisor.processes()
        for process in now.values():
            _tell(environment, process, ran)
        in_vain = 0 if now else in_vain + 1
        if time.monotonic() >= clean_at:
            _clean_logs(environment)
            clean_at = time.monotonic() + _CLEAN_SECONDS
        time.sleep(_LOOK_SECONDS)
    if supervisor.was_killed():
        raise NightshiftError(
            f"The supervisor was killed. Its log: {environment.logs / 'supervisord.log'}"
        )


def _begin_late(environment: Environment, ended: Event) -> None:
    """Let replays begin whose store has come later than the start, which has told of it."""
    while not _begin(environment) and not ended.wait(_BEGIN_SECONDS):
        pass


def _begin(environment: Environment) -> bool:
    """Let replays begin that could not when the platform started; whether none is left."""
    try:
        return begin_all(environment, warns=False)
    except Exception:  # of a store that is away each library tells in its own way
        return False


def _clean_logs(environment: Environment) -> None:
    """Delete old logs of Airflow's in this home; what cannot go is told, and ends nothing."""
    age = timedelta(days=environment.retention_days)
    try:
        rule = Rule(before=_now_as_logged(environment) - age, is_dry=False)
        fault = clean("Airflow's logs", airflow.own_logs(environment), rule).fault
    except OSError as error:
        fault = error
    if fault:
        print(f"Warning: old logs of Airflow's stay: {fault}", file=sys.stderr, flush=True)


def _now_as_logged(environment: Environment) -> datetime:
    """This instant, or that of the newest log of a run where that is before it.

    By a clock that is ahead, and after a pause of months, all would be old.
    """
    now = time.time()
    runs = [log.stat().st_mtime for log in airflow.own_logs_of_runs(environment)]
    return datetime.fromtimestamp(min(now, max(runs, default=now)), UTC)


def _tell(environment: Environment, now: Process, ran: dict[str, int]) -> None:
    """Tell of a service that is not what it was.

    Args:
        environment: Whose service it is.
        now: The service.
        ran: Process ids of services when they were last seen to run; brought up to now.
    """
    log = log_of(environment, now.name)
    if now.state == "FATAL":
        raise NightshiftError(f"The service '{now.name}' ended for good ({now.why}). See {log}")
    if now.state == "RUNNING":
        if ran.get(now.name, now.pid) != now.pid:
            print(f"The service '{now.name}' had ended and was started anew. See {log}", flush=True)
        ran[now.name] = now.pid
