"""Waits for files and for other runs in Airflow's triggerer, where a wait takes no worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from threading import Thread
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from pipelines.environment import Environment
from pipelines.landing import Stamp, stamp
from pipelines.places import is_url, place

LANDED = "they are there"
_TIME_IS_UP = "time is up"
"""What ends a wait for files, in words."""
LOOK_EVERY_SECONDS = 15.0
_ASK_EVERY_SECONDS = 5.0
_ANSWERS_WITHIN_SECONDS = 10.0
"""For so long a task waits for the landing folder to say which files are there."""
_NOT_ENDED = ["queued", "running"]
"""States of a run that goes on, or will."""
_log = logging.getLogger(__name__)


class FilesLanded(BaseTrigger):
    """Fires when files are there and nobody writes them, or when time is up.

    Nobody writes a file that two looks in a row find unchanged.
    """

    def __init__(
        self, *, paths: Sequence[str], until: str, every_seconds: float = LOOK_EVERY_SECONDS
    ) -> None:
        """Keep what the triggerer needs to make this trigger again.

        Args:
            paths: The files, below the landing folder.
            until: The instant when time is up, in ISO 8601.
            every_seconds: From one look to the next.
        """
        super().__init__()
        self.paths = list(paths)
        self.until = until
        self.every_seconds = every_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where this class is found, and its arguments."""
        arguments = {
            "paths": self.paths,
            "until": self.until,
            "every_seconds": self.every_seconds,
        }
        return "dags.waiting.FilesLanded", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again; gives one event, which says in words what ended the wait."""
        until = datetime.fromisoformat(self.until)
        first = next(iter(self.paths), "nobody can say which")
        self.log.info("Waiting for %s file(s) until %s: %s", len(self.paths), until, first)
        left = (until - datetime.now(UTC)).total_seconds()
        event = LANDED
        try:
            async with asyncio.timeout(left):
                await self._see_them()
        except TimeoutError:
            event = _TIME_IS_UP
        yield TriggerEvent(event)

    async def _see_them(self) -> None:
        """Look until two looks in a row find all files, and find them unchanged."""
        before: list[Stamp | None] | None = None
        while True:
            # In a thread: a network's file system may take its time, or never answer.
            seen = await asyncio.to_thread(self._look)
            if None not in seen and seen == before:
                return
            before = seen
            await asyncio.sleep(self.every_seconds)

    def _look(self) -> list[Stamp | None]:
        try:
            return _stamps(self.paths)
        except Exception as error:  # a store that is away for a while ends no wait of hours
            self.log.warning("Nobody can say now whether the files are there: %s", error)
            return [None]


def absent(names: Sequence[str]) -> list[str]:
    """Those files that are not there: all, where the landing folder does not answer, or refuses.

    Args:
        names: Below the landing folder.
    """
    answers: list[list[Stamp | None]] = []
    errors: list[Exception] = []

    def look() -> None:
        try:
            answers.append(_stamps(names))
        except Exception as error:  # refused: it ends no wait of hours
            errors.append(error)

    # A daemon, for which Python does not wait at its end: a file server that is away never answers.
    looking = Thread(target=look, daemon=True)
    looking.start()
    looking.join(_ANSWERS_WITHIN_SECONDS)
    if not answers:
        why = errors[0] if errors else "no answer"
        _log.warning("Nobody can say now whether the files are there: %s", why)
        return list(names)
    seen = answers[0]
    return [name for name, found in zip(names, seen, strict=True) if found is None]


def _stamps(names: Sequence[str]) -> list[Stamp | None]:
    # Read each time: somebody may have mended the setting since the wait began.
    landing = Environment.read().landing
    # A wait that was begun by the code of before has whole addresses.
    return [stamp(place(name) if is_url(name) else landing / name) for name in names]


class Pause(BaseTrigger):
    """Fires after a while, of which its task's log says nothing."""

    def __init__(self, *, seconds: float) -> None:
        """Keep what the triggerer needs to make this trigger again."""
        super().__init__()
        self.seconds = seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where this class is found, and its arguments."""
        return "dags.waiting.Pause", {"seconds": self.seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep; gives one event."""
        await asyncio.sleep(self.seconds)
        yield TriggerEvent("it is over")


class RunEnded(BaseTrigger):
    """Fires when a run of a DAG has ended, or is gone."""

    def __init__(
        self,
        *,
        dag_id: str,
        run_id: str,
        every_seconds: float = _ASK_EVERY_SECONDS,
    ) -> None:
        """Keep what the triggerer needs to make this trigger again.

        Args:
            dag_id: Whose run it is.
            run_id: The run.
            every_seconds: From one question to the next.
        """
        super().__init__()
        self.dag_id = dag_id
        self.run_id = run_id
        self.every_seconds = every_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where this class is found, and its arguments."""
        arguments = {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "every_seconds": self.every_seconds,
        }
        return "dags.waiting.RunEnded", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask again and again; gives one event."""
        # Not by `asyncio.to_thread`: the answer comes by the triggerer's own event loop.
        count = sync_to_async(RuntimeTaskInstance.get_dr_count)
        while await count(self.dag_id, run_ids=[self.run_id], states=_NOT_ENDED):
            await asyncio.sleep(self.every_seconds)
        yield TriggerEvent("it has ended")
