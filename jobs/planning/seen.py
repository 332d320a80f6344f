"""What stages that make no table have seen of the tables, and what was published since."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from jobs.lake import ops, publications
from jobs.lake.definition import digest
from jobs.lake.knowledge import newest_version
from jobs.lake.locations import path
from jobs.lake.log import are_there
from pipelines.days import Days
from pipelines.spec import PREDICTIONS, TRAINING

if TYPE_CHECKING:
    from jobs.lake.knowledge import Knowledge
    from jobs.lake.publications import Publication, Told
    from pipelines.run import Run
    from pipelines.spec import Pipeline
    from pipelines.stages import Stage


class Seen:
    """What the stages of a run's pipeline that make no table have seen."""

    def __init__(
        self,
        run: Run,
        told: Mapping[str, Told],
        known: Callable[[str], Mapping[date, Publication]],
        knowledge: Knowledge,
    ) -> None:
        """Ask nothing yet.

        Args:
            run: Up to whose last night.
            told: By table all its publications.
            known: Gives of a table the publications that are in force, by day.
            knowledge: Which version of a day each night sees.
        """
        self._run = run
        self._told = told
        self._known = known
        self._knowledge = knowledge

    @cached_property
    def last_done(self) -> dict[str, dict[str, Any]]:
        """For each stage its last success as of the run's last night."""
        return _last_done(self._run)

    def has_learned_since(self, trained: dict[str, Any]) -> bool:
        """Whether rows to learn from, or what is learned, have changed since that training."""
        told = json.loads(trained["metrics"])
        if told.get("definition") != training_definition(self._run.pipeline):
            return True
        until = self._run.days.last
        seen: int = told["table_version"]
        if seen > newest_version(self._knowledge.latest(TRAINING)) and not self._has_version(seen):
            return True
        seen_by = self._knowledge.seen_by(TRAINING, until)
        rows = {day: one for day, one in seen_by.items() if day <= until}
        if newest_version(rows) > seen:
            return True
        # Versions of a table that was deleted begin anew, and may come to the one that was seen.
        versions = {(day, one.delta_version) for day, one in rows.items()}
        made = [one for one in self._known(TRAINING).values() if one.changed]
        own = [one for one in made if (one.day, one.version) in versions]
        return any(one.published_at > trained["started_at"] for one in own)

    def _has_version(self, version: int) -> bool:
        """Whether the rows to learn from have that one: a table that was deleted begins anew."""
        return are_there(path(self._run, TRAINING), version) == [True]

    def learned_since(self, measured: Mapping[date, datetime]) -> set[date]:
        """The nights up to the last whose labels have been published since they were measured.

        Args:
            measured: When each night was; one that is not there never was.
        """
        covered = Days(self._run.pipeline.first_day, self._run.days.last)
        found: set[date] = set()
        for one in self._last_changes(TRAINING):
            is_measured = one.day in measured and one.published_at <= measured[one.day]
            if one.day in covered and not is_measured:
                found.add(one.day)
        return found

    def foretold_since(self, measured: Mapping[date, datetime]) -> set[date]:
        """The nights up to the last that measured predictions which were published since.

        The one that foretold a day, and those on which labels of it were measured. Of a day of
        which none were, as nothing was foretold by then, those on which they land.

        Args:
            measured: When each night was.
        """
        came: dict[date, set[date]] = {}
        for row in self._measured_labels:
            came.setdefault(row["event_date"], set()).add(row["landed_date"])
        covered = Days(self._run.pipeline.first_day, self._run.days.last)
        predictions = self._run.pipeline.table(PREDICTIONS)
        found: set[date] = set()
        for one in self._last_changes(PREDICTIONS):
            may_land = self._run.pipeline.labels_land(Days.of(one.day))
            landed = came.get(one.day) or may_land
            for night in (predictions.night_of(one.day), *landed):
                is_older = night in measured and measured[night] < one.published_at
                if night in covered and is_older:
                    found.add(night)
        return found

    @property
    def _measured_labels(self) -> list[dict[str, Any]]:
        """Of each day that was foretold the days on which labels of it came and were measured."""
        about = [("pipeline", "=", self._run.pipeline.name)]
        columns = ["event_date", "landed_date"]
        rows = ops.read(self._run.environment, "live_quality", about, columns)
        found: list[dict[str, Any]] = rows.to_pylist()
        return found

    def published_since(self, names: Iterable[str], moment: datetime) -> list[str]:
        """Those tables of which nights of the run were published with other rows since then."""
        found: list[str] = []
        for table in map(self._run.pipeline.table, names):
            changes = self._last_changes(table.name)
            of_run = [one for one in changes if table.night_of(one.day) in self._run.days]
            if any(one.published_at > moment for one in of_run):
                found.append(f"{self._run.pipeline.name}.{table.name}")
        return found

    def _last_changes(self, name: str) -> Collection[Publication]:
        """Of each day of a table the publication that brought the rows which are in force.

        Later ones may have told of the same rows, and hide it from `_known`.
        """
        changes = [one for one in self._told[name] if one.changed]
        return publications.latest(changes).values()

    def missed_by(self, stage: Stage) -> set[date]:
        """Nights before the run's first that a stage which makes no table has yet to see.

        From the first that it was ever done for on: those of which a table that it `reads` was
        published and it was never done, or was published with other rows since.
        """
        seen = seen_by(self._run, stage)
        if not seen:
            return set()
        first = max(min(seen), self._run.pipeline.first_day)
        found: set[date] = set()
        for table in map(self._run.pipeline.table, stage.reads):
            for one in self._last_changes(table.name):
                night = table.night_of(one.day)
                is_seen = night in seen and one.published_at <= seen[night]
                if first <= night < self._run.days.first and not is_seen:
                    found.add(night)
        return found


def seen_by(run: Run, stage: Stage) -> dict[date, datetime]:
    """Each night that the stage has succeeded for, and when it last began to."""
    of_stage = [
        ("pipeline", "=", run.pipeline.name),
        ("stage", "=", stage.name),
        ("status", "=", "done"),
    ]
    columns = ["first_day", "last_day", "started_at"]
    rows = ops.read(run.environment, "stage_runs", of_stage, columns).to_pylist()
    seen: dict[date, datetime] = {}
    for row in sorted(rows, key=itemgetter("started_at")):
        days = Days(row["first_day"], row["last_day"])
        seen.update(dict.fromkeys(days, row["started_at"]))
    return seen


def _last_done(run: Run) -> dict[str, dict[str, Any]]:
    """For each stage its last success as of the run's last night."""
    of_night = [
        ("pipeline", "=", run.pipeline.name),
        ("last_day", "=", run.days.last),
        ("status", "=", "done"),
    ]
    rows = ops.read(run.environment, "stage_runs", of_night).to_pylist()
    return {row["stage"]: row for row in sorted(rows, key=itemgetter("started_at"))}


def training_definition(pipeline: Pipeline) -> str:
    """What a model of today's declaration is, besides the rows that it learns from."""
    # Of labels that come late the judged model leaves out as many days more.
    return digest(pipeline.training, pipeline.promotion.label_lag_days)
