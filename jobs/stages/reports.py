"""Where the data-quality report of a run lies, and which run it is about."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from expectations.report import About
from jobs.lake.locations import sql_name
from pipelines.run import Run


def folder(run: Run) -> Path:
    """The folder of the run's days; each run that works on them has its own in it."""
    return run.environment.reports / run.pipeline.name / f"{run.days.first}..{run.days.last}"


def about(run: Run, now: datetime) -> About:
    """What a report says of the run, which has come to this stage."""
    gated = [sql_name(run, table.name) for table in run.pipeline.tables]
    return About(
        title=run.pipeline.title,
        pipeline=run.pipeline.name,
        days=str(run.days),
        run_id=run.run_id,
        stage=run.doing.name,
        checked_at=now.isoformat(),
        tables=tuple(gated),
    )
