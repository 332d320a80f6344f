"""Which stage a run is at, kept in the home for whoever finds its process killed."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.services.secrets import private_folder
from jobs.services.usage import Usage
from pipelines.days import Days, parse_day
from pipelines.errors import NightshiftError
from pipelines.places import write_whole
from pipelines.stages import stage

if TYPE_CHECKING:
    from pipelines.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Doing:
    """A stage that a run had begun, and nobody knows how it ended."""

    run: Run
    """At the stage."""
    began: datetime
    """UTC."""
    cpu_seconds: float
    """That its process had used by then, with children of it that had ended."""

    def taken(self, of_process: Usage) -> Usage:
        """What the stage took.

        Args:
            of_process: What was seen of all that its process did.
        """
        return Usage(
            seconds=(datetime.now(UTC) - self.began).total_seconds(),
            cpu_seconds=max(0.0, of_process.cpu_seconds - self.cpu_seconds),
            # Seen was what Spark used for the stages before, too.
            spark_cpu_seconds=None,
            peak_bytes=of_process.peak_bytes,
        )


def note(run: Run) -> None:
    """Keep that the run begins its stage; the next one takes the place of it."""
    told = {
        "run_id": run.run_id,
        "stage": run.doing.name,
        "first": str(run.days.first),
        "last": str(run.days.last),
        "as_of": str(run.as_of or ""),
        "named": str(run.named or ""),
        "began": datetime.now(UTC).isoformat(),
        "cpu_seconds": sum(os.times()[:4]),
    }
    # Such as a full disk, which the stage itself may do without.
    with suppress(OSError):
        private_folder(run.environment.runtime)
        write_whole(_file(run), json.dumps(told).encode())


def noted(run: Run, since: datetime) -> Doing | None:
    """The stage that the run has begun last; None: none since then, as far as is known."""
    try:
        told = json.loads(_file(run).read_bytes())
        began = datetime.fromisoformat(told["began"])
        if told["run_id"] != run.run_id or began < since:
            return None
        part = replace(
            run,
            days=Days(parse_day(told["first"]), parse_day(told["last"])),
            as_of=_day(told["as_of"]),
            named=_day(told["named"]),
        )
        return Doing(
            run=part.at(stage(told["stage"])),
            began=began,
            cpu_seconds=float(told["cpu_seconds"]),
        )
    except (OSError, ValueError, TypeError, KeyError, NightshiftError):
        return None


def _file(run: Run) -> Path:
    # One run of a pipeline at a time.
    return run.environment.runtime / f"doing_{run.pipeline.name}.json"


def _day(told: Any) -> date | None:
    return parse_day(told) if told else None
