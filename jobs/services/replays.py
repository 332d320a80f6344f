"""Begins the replay of each example: once, so that its calendar never jumps."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime

from jobs.services.home import private_home
from pipelines import catalog, replay
from pipelines.environment import Environment
from pipelines.places import write_once
from pipelines.redaction import redacted
from pipelines.spec import Pipeline

_BEFORE = "replay"
"""Folder of the home in which versions before 2026-11-27 kept it."""


def begin(environment: Environment, pipeline: Pipeline, first: date | None = None) -> bool:
    """Let the replay begin now, unless it has begun.

    Args:
        environment: Which platform it is.
        pipeline: One that declares a replay.
        first: Recorded day that yesterday stands for; None: the declared one.

    Returns:
        Whether it begins now, and has not begun in the home of an earlier version.
    """
    path = replay.file_of(pipeline, environment)
    if path.exists():
        return False
    private_home(environment)
    before = environment.home / _BEFORE / path.name
    begun = before.read_text() if before.exists() else None
    begins = begun or replay.beginning(pipeline, datetime.now(UTC), first).to_json()
    write_once(path, begins.encode())
    return begun is None


def begin_all(environment: Environment, *, warns: bool = True) -> bool:
    """Let every replay begin that has not, and say which day yesterday stands for.

    Args:
        environment: Which platform it is.
        warns: Whether to say what cannot begin.

    Returns:
        Whether none is left that could not, as where its store is away.
    """
    have_begun = True
    for name in catalog.names():
        try:
            pipeline = catalog.pipeline(name)
        except Exception as error:  # somebody is writing it, and the platform is to start anyway
            _warn(f"pipeline '{name}' cannot be read: {error}", warns=warns)
            continue
        if pipeline.replay is None:
            continue
        try:
            is_new = begin(environment, pipeline)
        except Exception as error:  # of a store that is away each library tells in its own way
            _warn(f"the replay of '{name}' cannot begin: {redacted(str(error))}", warns=warns)
            have_begun = False
            continue
        if is_new:
            print(in_words(environment, pipeline), flush=True)
    return have_begun


def _warn(what: str, *, warns: bool) -> None:
    if warns:
        print(f"Warning: {what}", file=sys.stderr)


def in_words(environment: Environment, pipeline: Pipeline) -> str:
    """What becomes of the pipeline's recorded days."""
    calendar = replay.calendar(pipeline, environment)
    return (
        f"The recorded days of '{pipeline.name}' are replayed: {calendar.first_today} stands for "
        f"{calendar.first}, and so on, day by day."
    )
