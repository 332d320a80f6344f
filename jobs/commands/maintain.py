"""The command `nightshift maintain`: deletes what nobody needs any more."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

from jobs.night import explain, one_run_at_a_time
from jobs.services import airflow, shared_locks
from jobs.services.leftovers import Cleaned, Rule, clean
from pipelines.days import Days
from pipelines.errors import AwaitsTurn, NightshiftError
from pipelines.events import Event
from pipelines.places import is_url, place
from pipelines.run import Run

if TYPE_CHECKING:
    from jobs.lake.snapshots import Snapshot
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

HEADER = ("what", "kept", "deleted", "freed_bytes", "note")
"""Files, where the note does not say otherwise."""
_WAITING = "Waiting for another `maintain` to end."
_AWAITS = "a run goes on"
_ROTATED = "*.log.[0-9]*"
"""Logs that a service has ended and begun anew; it has none of them open."""
_Row = tuple[object, ...]
_Step = tuple[str, Callable[[], Iterable[Cleaned]]]
"""What is looked at, and its cleaning."""


def maintain(
    environment: Environment,
    pipelines: Sequence[Pipeline],
    lacking: Mapping[str, Exception] = MappingProxyType({}),
    *,
    is_shared: bool,
    is_dry: bool,
    notify: bool = True,
    wait_seconds: float | None = None,
    awaited: list[str] | None = None,
) -> tuple[int, list[_Row]]:
    """Delete what is older than the retention and what nobody needs, or only tell what would go.

    Nothing that runs is disturbed: each pipeline's lock is held while its part is cleaned. A kill
    leaves everything readable; the next time does the rest.

    Args:
        environment: Whose home and lake they are.
        pipelines: Whose tables, reports, trainings and runs are cleaned.
        lacking: Why others are not cleaned, by name.
        is_shared: Clean also what the pipelines share: ops tables, logs, Airflow's database.
        is_dry: Delete nothing.
        notify: Have people told of what cannot be cleaned.
        wait_seconds: How long to wait for a run of each pipeline; None: until it has ended.
        awaited: Gets the names of pipelines that were left as they are because a run goes on.

    Returns:
        The exit code, and a row for each kind of things. What cannot be cleaned is told on stderr
        and, unless it was a dry run, by the channels of each pipeline; the rest goes on.

    Raises:
        AwaitsTurn: another `maintain` has not ended in that time. Nothing was done.
    """
    age = timedelta(days=environment.retention_days)
    rule = Rule(before=_now_as_recorded(environment, age) - age, is_dry=is_dry)
    steps: list[_Step] = [
        (pipeline.name, partial(_of_pipeline, environment, pipeline, rule, wait_seconds))
        for pipeline in pipelines
    ]
    cleaned = [Cleaned.failed(name, why) for name, why in lacking.items()]
    try:
        if is_shared:
            declared = {*lacking, *(one.name for one in pipelines)}
            steps += _shared(environment, rule, declared)
        with shared_locks.hold(
            environment, "maintenance", waiting=_WAITING, most_seconds=wait_seconds
        ):
            cleaned.extend(_cleaned(steps))
    except AwaitsTurn:
        raise
    except Exception as error:
        # Such as a library that cannot be imported, or a PostgreSQL that is away: who calls this
        # takes exit code 3 for told.
        cleaned.append(Cleaned.failed("maintenance", error))
    told: dict[str, str] = {}
    waits: list[str] = []
    for one in cleaned:
        if one.fault:
            _, message = explain(one.fault, environment.variables())
            if isinstance(one.fault, AwaitsTurn):
                waits.append(one.what)
            else:
                told[one.what] = message
    if notify and not rule.is_dry:
        _notify(environment, pipelines, lacking, told)
    if awaited is not None:
        awaited += waits
    code = NightshiftError.exit_code if told else 0
    if waits:
        code = code or AwaitsTurn.exit_code
    return code, [_row(one) for one in cleaned]


def _cleaned(steps: Sequence[_Step]) -> Iterable[Cleaned]:
    for what, step in _with_progress(steps):
        try:
            # What came before a fault is told too.
            yield from step()
        except AwaitsTurn as error:
            yield replace(Cleaned.failed(what, error), note=_AWAITS)
        except Exception as error:
            # What cannot be read is no reason to let other pipelines grow.
            yield Cleaned.failed(what, error)


def _now_as_recorded(environment: Environment, age: timedelta) -> datetime:
    """This instant, or the last that is on record of a night where that is before it.

    What is old is counted from it: by a clock that is a year ahead all would be.

    Args:
        environment: Whose nights count.
        age: By which a clock that is ahead would make a difference.
    """
    now = datetime.now(UTC)
    last = None
    # What cannot be read is told where it is cleaned.
    with suppress(Exception):
        last = _last_on_record(environment)
    if last is None or last >= now:
        return now
    if now - last > age:
        print(
            f"No night is on record since {last:%Y-%m-%d}, and this machine's clock says "
            f"{now:%Y-%m-%d}: what is old is counted from the former.",
            file=sys.stderr,
            flush=True,
        )
    return last


def _last_on_record(environment: Environment) -> datetime | None:
    """When the last stage began; None: none ever did."""
    import pyarrow.compute as pc

    from jobs.lake import ops

    began = ops.read(environment, "stage_runs", columns=("started_at",))["started_at"]
    last: datetime | None = pc.max(began).as_py()
    return last


def _notify(
    environment: Environment,
    pipelines: Sequence[Pipeline],
    lacking: Iterable[str],
    told: Mapping[str, str],
) -> None:
    """Have the people of each pipeline told what failed of it.

    What is shared concerns them all, and that a pipeline cannot be imported, which then names none.
    Where none can be, people are told by all channels that are set.
    """
    from jobs.commands.announce import of_today
    from jobs.notifications.channels import send

    names = [pipeline.name for pipeline in pipelines]
    for pipeline in pipelines:
        others = [name for name in names if name != pipeline.name]
        concerns = [why for what, why in told.items() if not _is_of(others, what)]
        if not concerns:
            continue
        text = "\n".join(concerns)
        send(environment, pipeline, of_today(Event.MAINTENANCE_FAILED, pipeline.name, text))
    if not pipelines and told:
        text = "\n".join(told.values())
        for name in lacking:
            send(environment, None, of_today(Event.MAINTENANCE_FAILED, name, text))


def _is_of(pipelines: Iterable[str], what: str) -> bool:
    """Whether what was cleaned is one of these pipelines' own: it, a table or a folder of it."""
    return re.split("[.:]", what)[0] in pipelines


def _of_pipeline(
    environment: Environment,
    pipeline: Pipeline,
    rule: Rule,
    wait_seconds: float | None,
) -> Iterable[Cleaned]:
    # Its days do not matter: what is asked of it is where things lie.
    run = Run(pipeline=pipeline, days=Days.of(pipeline.first_day), environment=environment)
    name = pipeline.name
    with one_run_at_a_time(run, wait_seconds, command="maintain"):
        from jobs.lake import retention
        from jobs.lake.locations import laid_out_rows

        # Before the files that they name.
        yield retention.clean_stagings(run, rule)
        yield from _tables(run, rule)
        yield _old_reports(environment, name, rule)
        # Of trainings that were killed.
        scratch = (environment.home / "training" / name).glob("job-*")
        yield clean(f"{name}: training folders", scratch, rule)
        laid_out = place(laid_out_rows(environment.lake, name)).glob("*")
        yield clean(f"{name}: rows laid out for training", laid_out, rule)
        yield from _runs_without_model(environment, name, rule)


def _tables(run: Run, rule: Rule) -> Iterable[Cleaned]:
    from jobs.lake import retention

    name = run.pipeline.name
    try:
        yield from retention.clean_tables(run, _pinned(run.environment, name), rule)
    except Exception as error:
        # Such as pins that cannot be read: what else the pipeline has must not grow for them.
        yield Cleaned.failed(f"{name}: tables", error)


def _old_reports(environment: Environment, name: str, rule: Rule) -> Cleaned:
    folder = environment.reports / name
    # Of each run that worked on the days, and what leads to the latest of them.
    # Cards of models stay as the models do.
    of_days = [one for one in folder.glob("*") if one != environment.cards(name)]
    runs = chain.from_iterable(days.glob("*") for days in of_days)
    cleaned = clean(f"{name}: reports", runs, rule)
    # In an object store a folder is gone with the last of its files.
    if not rule.is_dry and not is_url(folder):
        for days in of_days:
            # Not where a report is left.
            with suppress(OSError):
                days.rmdir()
    return cleaned


def _pinned(environment: Environment, name: str) -> Iterable[Snapshot]:
    from jobs.training import registry

    if not registry.is_there(environment):
        return ()
    return registry.Registry(environment, name).pinned()


def _runs_without_model(environment: Environment, name: str, rule: Rule) -> Iterable[Cleaned]:
    from jobs.training import registry

    if not registry.is_there(environment):
        return
    models = registry.Registry(environment, name)
    registered = models.runs()
    lost = models.without_model(rule.before)
    if not rule.is_dry:
        models.forget(lost)
    yield Cleaned(
        what=f"{name}: runs without a model",
        kept=len(registered),
        deleted=len(lost),
        note="runs",
    )
    kept = registered | models.others()
    folders = registry.artifact_folders(environment, name)
    unlisted = [folder for folder in folders if folder.name not in kept]
    # Somebody may have deleted such a run, or deleted the experiment or named it anew.
    without = [folder for folder in unlisted if not models.is_of_others(folder.name)]
    yield clean(f"{name}: files of runs without a model", without, rule)


def _shared(environment: Environment, rule: Rule, declared: Collection[str]) -> list[_Step]:
    from jobs.commands.warm_up import WARM_UP
    from jobs.lake import retention

    rotated = environment.logs.glob(_ROTATED)
    task_logs = airflow.task_logs(environment)
    # Of starts that were killed.
    warm_ups = place(environment.lake).glob(f"{WARM_UP}*")
    # Jobs of trainings that were killed, and checkpoints that no later attempt went on from.
    ours = ("job-*", "checkpoint-*", ".checkpoint-*.part")
    trainings = chain.from_iterable(map(environment.jobs.glob, ours))
    undeclared = partial(retention.tables_of_undeclared, environment, declared)
    return [
        ("pipelines that are declared no more", undeclared),
        ("ops", partial(retention.clean_ops, environment, rule)),
        ("warm-ups", lambda: [clean("warm-ups", warm_ups, rule)]),
        ("jobs of trainings", lambda: [clean("jobs of trainings", trainings, rule)]),
        ("services' logs", lambda: [clean("services' logs", rotated, rule)]),
        ("Airflow's logs", lambda: [clean("Airflow's logs", task_logs, rule)]),
        ("Airflow's database", lambda: _airflow_database(environment, rule)),
    ]


def _airflow_database(environment: Environment, rule: Rule) -> Iterable[Cleaned]:
    cleaned = airflow.clean_database(environment, rule)
    return [cleaned] if cleaned else []


def _row(one: Cleaned) -> _Row:
    return one.what, one.kept, one.deleted, one.freed, one.note


def _with_progress(steps: Sequence[_Step]) -> Iterable[_Step]:
    """The steps, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    # Elsewhere a bar would be a line in a log for every step of it.
    is_watched = sys.stderr.isatty()
    bar = Console(stderr=True)
    return track(steps, "Cleaning", console=bar, transient=True, disable=not is_watched)
