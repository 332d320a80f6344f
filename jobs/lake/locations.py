"""Where the tables of a pipeline lie and what they are called: no Spark, no data read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.lake import opened
from jobs.lake.log import is_table
from pipelines.errors import NightshiftError
from pipelines.spec import QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from pipelines.run import Run

STAGED_BELOW = "runs"
"""Folder of a table in which each staging has its own. Vacuum forgets what no commit names; it
would spare a name with '_' in front."""


def sql_name(run: Run, name: str) -> str:
    """The name by which people query the table: `<pipeline>.<table>`."""
    return f"{run.pipeline.name}.{name}"


def path(run: Run, name: str) -> str:
    """Where the published table is stored."""
    return run.environment.table_path(sql_name(run, name))


def manifests(run: Run) -> str:
    """Where the manifests of the pipeline's stagings are kept, a folder a table."""
    return f"{run.environment.lake}/_staging/{run.pipeline.name}"


def laid_out_rows(lake: str, pipeline: str) -> str:
    """Where trainings keep rows that do not fit into memory, each in a folder of its own.

    In the lake, which Spark's workers and the processes of a training see wherever they are; no
    table's name begins so.
    """
    return f"{lake}/_training/{pipeline}"


def exists(run: Run, name: str) -> bool:
    """Whether the table has ever been published."""
    return is_table(path(run, name))


def version(run: Run, name: str) -> int:
    """The newest Delta version of a published table.

    Raises:
        NightshiftError: the table has never been published.
    """
    require(run, name)
    return opened.newest(path(run, name)).version()


def require(run: Run, name: str) -> None:
    """Refuse to read a table that is not there.

    Raises:
        NightshiftError: the table has never been published; the message says who makes it.
    """
    if not exists(run, name):
        raise NightshiftError(
            f"{sql_name(run, name)} does not exist yet. Run the stages from '{maker(run, name)}' "
            f"on first: nightshift run {run.pipeline.name} --date {run.days.last}"
        )


def maker(run: Run, name: str) -> str:
    """The stage that makes the table."""
    return run.pipeline.table(name.removesuffix(QUARANTINE_SUFFIX)).made_by


def partition(run: Run, name: str) -> str:
    """The date column by which the table is partitioned."""
    return run.pipeline.table(name.removesuffix(QUARANTINE_SUFFIX)).partition
