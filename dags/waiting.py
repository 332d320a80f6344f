"""Waits for files and for other runs in Airflow's triggerer, where a wait takes no worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from pipelines.environment import Environment
from pipelines.landing import Stamp, stamp

LOOK_EVERY_SECONDS = 15.0
_ASK_EVERY_SECONDS = 5.0
_NOT_ENDED = ["queued", "running"]
"""States of a run that goes on, or will."""


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
        before: list[Stamp | None] | None = None
        while True:
            # In a thread: a network's file system may take its time.
            seen = await asyncio.to_thread(self._look)
            if None not in seen and seen == before:
                yield TriggerEvent("they are there")
                return
            left = (until - datetime.now(UTC)).total_seconds()
            if left <= 0:
                yield TriggerEvent("time is up")
                return
            before = seen
            await asyncio.sleep(min(left, self.every_seconds))

    def _look(self) -> list[Stamp | None]:
        try:
            # Read each time: somebody may have mended the setting since the wait began.
            landing = Environment.read().landing
            return [stamp(landing / path) for path in self.paths]
        except Exception as error:  # a store that is away for a while ends no wait of hours
            self.log.warning("Nobody can say now whether the files are there: %s", error)
            return [None]


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
