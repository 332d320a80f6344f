"""A run: one pipeline over a range of days in one environment. The command line only names it."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pipelines.catalog import pipeline
from pipelines.days import Days, parse_day
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.feeds import Feed
from pipelines.spec import Pipeline
from pipelines.stages import Stage, stage

# ':' and '+' are in Airflow's own ids, '~' in those that `dags/tasks.py` rewrites.
_RUN_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.:+~-]{1,200}")
"""It is the name of a folder, too: `..` is another's."""
_OF_AIRFLOW = re.compile(
    "(backfill|scheduled|manual|operator_triggered|asset_triggered|asset_materialization)__.*"
    # So ends an id that `dags/tasks.py` has rewritten.
    "(?<!~[0-9a-f]{12})"
)


def new_run_id() -> str:
    """A run id that sorts by the time of its making."""
    # Two runs may begin in one second.
    return f"run__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}_{secrets.token_hex(3)}"


def is_run_id(text: str) -> bool:
    """Whether a run may be named so."""
    return _RUN_ID.fullmatch(text) is not None


def is_of_airflow(run_id: str) -> bool:
    """Whether Airflow has made the id, so that its UI has a page of the run.

    An id that a person has thought of may be that of a DAG run or of a command: nothing tells.
    """
    return _OF_AIRFLOW.fullmatch(run_id) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a stage function is given."""

    pipeline: Pipeline
    days: Days
    environment: Environment
    run_id: str = field(default_factory=new_run_id)
    retrain: bool = False
    """Train again even when a model with the same pins is there."""
    allow_mixed: bool = False
    """Learn from days that were made by different definitions."""
    needs_approval: bool = False
    """A model that would be promoted awaits a person, also where the pipeline does not ask for
    that."""
    rescore: bool = False
    """Score the days again though their predictions were served: what differs becomes a new
    revision."""
    from_start: bool = False
    """Nights since the pipeline's first day count as missed, though nothing was published yet. For
    the survey alone: a stage is given its days."""
    is_exact: bool = False
    """It does exactly its days, current or not: what is made of them is known from their own
    nights."""
    stage: Stage | None = None
    """The stage being run."""
    as_of: date | None = None
    """The night that has this done, when the days are others before it: what a reference file says
    by now was not known on them. None: the last of the days."""
    named: date | None = None
    """The first day that the run was asked for by name; those before it are caught up, or made
    again because a file has changed. None: the first of the days."""
    tables: tuple[str, ...] = ()
    """Of those that the stage makes, or judges, the ones that this is about: what is published of
    the others stays. (): all."""
    attempt: int = 0
    """Number of this attempt at the stage, taken from the publications when it begins; 0: not yet.
    What an attempt with the same or a higher number has published, this one cannot replace."""

    profile: bool = False
    """Look at where the time of each stage goes."""

    def __post_init__(self) -> None:
        self.pipeline.require_days(self.days)
        if not is_run_id(self.run_id):
            raise UsageError(
                f"'{self.run_id}' is not a run id: letters, digits and _.:+~- only, at most 200, "
                "and not dots alone."
            )

    def at(self, stage: Stage) -> Run:
        """This run, about to do `stage`."""
        return replace(self, stage=stage, attempt=0)

    def makes(self, table: str) -> bool:
        """Whether its stage is to make a table of its own, or to judge it."""
        return not self.tables or table in self.tables

    @property
    def feeds(self) -> list[Feed]:
        """Those that it is about: what was read of the others stays."""
        return [feed for feed in self.pipeline.feeds if self.makes(feed.name)]

    @property
    def night(self) -> date:
        """The night that has these days made: their last, or a later one that catches them up."""
        return self.as_of or self.days.last

    @property
    def named_from(self) -> date:
        """The first day that the run was asked for by name."""
        return self.named or self.days.first

    @property
    def profiles(self) -> Path:
        """Folder of what was seen of its stages, where it is to be looked at."""
        return self.environment.home / "profiles" / self.pipeline.name / self.run_id

    @property
    def doing(self) -> Stage:
        """The stage being run; a stage function is only ever called with one."""
        assert self.stage is not None, "a Run without a stage was given to a stage function"
        return self.stage

    def to_json(self) -> dict[str, Any]:
        """What another process needs to make the same run."""
        return {
            "pipeline": self.pipeline.name,
            "first": str(self.days.first),
            "last": str(self.days.last),
            "environment": self.environment.variables(),
            "run_id": self.run_id,
            "retrain": self.retrain,
            "allow_mixed": self.allow_mixed,
            "needs_approval": self.needs_approval,
            "as_of": str(self.as_of) if self.as_of else None,
            "named": str(self.named) if self.named else None,
            "tables": self.tables,
            "rescore": self.rescore,
            "is_exact": self.is_exact,
            "profile": self.profile,
            "stage": self.doing.name,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Run:
        """The run that `to_json` described."""
        return cls(
            pipeline=pipeline(value["pipeline"]),
            days=Days(parse_day(value["first"]), parse_day(value["last"])),
            environment=Environment.read(value["environment"]),
            run_id=value["run_id"],
            retrain=value["retrain"],
            allow_mixed=value["allow_mixed"],
            needs_approval=value["needs_approval"],
            as_of=parse_day(value["as_of"]) if value["as_of"] else None,
            named=parse_day(value["named"]) if value["named"] else None,
            tables=tuple(value["tables"]),
            rescore=value["rescore"],
            is_exact=value["is_exact"],
            profile=value["profile"],
            stage=stage(value["stage"]),
        )
