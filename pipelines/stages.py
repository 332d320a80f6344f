"""The stages of a night, in order. A stage is one function of a `Run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pipelines.errors import UsageError, no_such
from pipelines.resources import TRAINING, Resources

if TYPE_CHECKING:
    from pipelines.spec import Maker

Group = Literal["land", "shape", "learn", "serve"]
GROUPS: Mapping[Group, str] = {
    "land": "The files of the day become proven raw tables.",
    "shape": "Raw tables become clean ones, and those become features.",
    "learn": "A candidate is trained, and serves if it is better.",
    "serve": "Tomorrow is scored, and what has come true is measured.",
}
"""The parts of a night, in order, and what each is for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One step of the night."""

    name: str
    function: str
    """`module:function`, called with the Run; returns its metrics."""
    does: str
    group: Group
    audits: Maker | None = None
    """For a check: it judges and publishes the tables that this stage staged."""
    reads: tuple[str, ...] = ()
    """Tables that it reads beside those that the tables it makes are made from. One that makes no
    table is due again when they were published since it last succeeded, and for each night before
    of which they were."""
    may_fail: bool = False
    """The night goes on after it has failed or was refused, with the next stage that may not fail,
    and still ends as failed: what served before serves on."""
    timeout_minutes: int = 60
    """On one night. Many days, and nights that are caught up, get more, and a training as long as
    its family may take."""
    resources: Resources = field(default_factory=Resources)
    """What a pipeline may give it otherwise: `Pipeline.resources`."""

    def __post_init__(self) -> None:
        module, _, function = self.function.partition(":")
        if not (module.startswith("jobs.") and function.isidentifier()):
            raise UsageError(
                f"Stage '{self.name}': "
                f"function '{self.function}' is not 'jobs.<module>:<function>'."
            )


STAGES: tuple[Stage, ...] = (
    Stage(
        name="ingest",
        group="land",
        function="jobs.stages.ingest:ingest",
        does=(
            "Read the landed files against the declared schema; "
            "stage the good rows, quarantine the rest."
        ),
    ),
    Stage(
        name="check_raw",
        group="land",
        function="jobs.stages.check:check",
        audits="ingest",
        does="Judge the staged raw tables; publish their days or refuse them.",
    ),
    Stage(
        name="transform",
        group="shape",
        function="jobs.stages.transform:transform",
        does="Make clean tables and feature tiles for the days and the windows that touch them.",
    ),
    Stage(
        name="check_clean",
        group="shape",
        function="jobs.stages.check:check",
        audits="transform",
        does="Judge the clean tables and tiles; publish or refuse.",
    ),
    Stage(
        name="features",
        group="shape",
        function="jobs.stages.features:features",
        does="Join features as of each scoring moment; publish training and scoring rows.",
    ),
    Stage(
        name="train",
        group="learn",
        function="jobs.stages.train:train",
        reads=("training",),
        may_fail=True,
        resources=Resources(pool=TRAINING),
        does="Train a candidate on the window of labels by the declared family; keep it.",
    ),
    Stage(
        name="evaluate",
        group="learn",
        function="jobs.stages.evaluate:evaluate",
        reads=("training",),
        may_fail=True,
        does="Compare candidate, champion and baseline on held-out days; promote or refuse.",
    ),
    Stage(
        name="predict",
        group="serve",
        function="jobs.stages.predict:predict",
        does="Score tomorrow with the champion in force; stage the predictions.",
    ),
    Stage(
        name="check_predictions",
        group="serve",
        function="jobs.stages.check:check",
        audits="predict",
        does="Judge the staged predictions; publish the days or refuse them.",
    ),
    Stage(
        name="monitor",
        group="serve",
        function="jobs.stages.monitor:monitor",
        reads=("training", "predictions"),
        does="Measure live quality where labels have arrived; watch coverage, drift and skew.",
    ),
)


_READS_FILES = STAGES[0].name
FILE_READERS = [one.name for one in STAGES if _READS_FILES in (one.name, one.audits)]
"""The stages that read files, and judge what they hold: none of them may fail."""
PLAN = "plan"
"""The task that comes before the stages in Airflow, and tells what they will do."""


def stage(name: str) -> Stage:
    """The stage of that name.

    Raises:
        UsageError: there is none; the message offers the near miss.
    """
    for one in STAGES:
        if one.name == name:
            return one
    raise no_such("stage", name, [s.name for s in STAGES])


def select(names: list[str]) -> tuple[Stage, ...]:
    """The named stages in the order of the night; all of them when no name is given."""
    wanted = {stage(name).name for name in names}
    return tuple(s for s in STAGES if not wanted or s.name in wanted)
