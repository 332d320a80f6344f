"""Whatever order nights come in, a night that succeeds leaves every table true up to its day.

A tiny pipeline lives through any sequence of landed, corrected and late files, of nights that are
run, skipped, killed, restated and scored again. Its stages are plain Python; planning, publishing
and recording are the real ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from jobs import night
from jobs.commands import plan as plan_command
from jobs.commands.decide import Said, approve, rollback
from jobs.commands.plan import plan
from jobs.lake import (
    commits,
    datasets,
    knowledge,
    model_events,
    ops,
    publications,
    read_before,
    served,
    unscored,
)
from jobs.lake.knowledge import Knowledge, Seen
from jobs.lake.locations import partition, path
from jobs.lake.partitions import column_types
from jobs.lake.publications import Origin, file_input
from jobs.lake.staging import Staging
from jobs.planning import passes, required, survey
from jobs.planning.passes import Pass, of_stage
from jobs.planning.reasons import of_all, without_days
from jobs.planning.required import require_no_hole
from jobs.planning.seen import seen_by, training_definition
from jobs.stages.check import in_order
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import AwaitsApproval, NightshiftError, NotLanded, Refused
from pipelines.events import Event, Notification
from pipelines.landing import ExpectedFile, expected_files
from pipelines.places import changed_ns
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, QUARANTINE_SUFFIX, Table
from pipelines.stages import STAGES, Stage, select, stage
from tests.jobs.lake.test_commits import staged
from tests.jobs.toy import TOY

WINDOW = 3
MARKS = Table(
    name="marks",
    made_by="transform",
    reads=("readings",),
    key=("id",),
)
SUMS = Table(
    name="sums",
    made_by="transform",
    reads=("marks",),
    window_days=WINDOW,
    key=("id",),
)
OUTCOMES = replace(SUMS, name="outcomes", follows_corrections=True)
"""Sums too, of what is known by now."""
OF_THE_MOMENT = replace(OUTCOMES, follows_corrections=False)
"""As whoever declares outcomes may forget to say."""
TINY = replace(TOY, name="tiny", derived=(MARKS, SUMS))
DAYS = [date(2013, 1, day) for day in range(5, 12)]
BAD = 666
"""A file that holds it is refused."""
LOST = "was published, and is not in the table any more"
RESCORE = "--rescore publishes what is said now as a later revision"
"""What the plan says of a day."""


_Ids = dict[date, list[int]]
"""By day."""
_WhenRead = Callable[[Run, str, _Ids], None]


class Home:
    """A home of the tiny pipeline, and what its stages do in it."""

    def __init__(self, folder: Path) -> None:
        self.environment = Environment.read({"NIGHTSHIFT_HOME": str(folder)})
        self.performed: list[tuple[str, Days]] = []
        self._waiting: dict[Days, dict[str, Staging]] = {}
        """By the days of the run that has staged it, and by table."""
        self._clock = time.time_ns()
        self.publishes_until_kill: int | None = None
        self.publishes_until_overlap: int | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        """What goes on while a night is held up."""
        self.pipeline = TINY
        self.definition = ""
        self.awaits_model = False
        """No model serves, and one awaits a person."""
        self.when_read: _WhenRead = lambda run, feed, ids: None
        """Who is told what was in a feed's files of some days when a run read them."""
        self.refuses: Callable[[int], bool] = lambda _: False
        """Which ids of a file are put into quarantine."""
        self.predicted: Callable[[int], int] = lambda total: total
        """What the model makes of the features of a night."""
        self.other_label: set[str] = set()
        """Versions of models that have learned another label: they score no night."""
        self.after_publication: Callable[[], None] = lambda: None
        """Who looks at what was published, also by a run that is killed."""
        self.refused_stage = ""
        """One that does not accept what it is given."""
        self.judges_quarantines = False
        """Whether a check tells of whose days it has judged what was refused, as the stage does."""

    def run(self, last: date, first: date | None = None) -> Run:
        return Run(
            pipeline=self.pipeline, days=Days(first or last, last), environment=self.environment
        )

    def land(self, day: date, *ids: int) -> None:
        """Drop the day's file, or one in its place; and the register of sensors."""
        self._write(self._file(day), ids)
        if not self._register.exists():
            self.land_register(1)

    def land_of(self, feed: str, day: date, *ids: int) -> None:
        """Drop the day's file of another feed, or one in its place."""
        self._write(self._file(day, feed), ids)

    def land_register(self, *ids: int) -> None:
        """Drop the register of sensors, or one in its place."""
        self._write(self._register, ids)

    def mark(self, day: date) -> None:
        """Drop the marker of the day's file."""
        self._write(self._marker(day), ())

    def _marker(self, day: date) -> Path:
        return self.environment.landing / "tiny" / f"{day}.done"

    def _write(self, file: Path, ids: Iterable[int]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(map(str, ids)))
        # Two writes within one tick of the file system's clock would look like one.
        self._clock += 1_000_000_000
        os.utime(file, ns=(self._clock, self._clock))

    def promote(self, as_of: date, version: str = "1") -> None:
        """Let a model serve from that night on; of earlier ones only a run's last is scored."""
        event = {
            "pipeline": "tiny",
            "as_of": as_of,
            "event": "promoted",
            "model_version": version,
        }
        model_events.record(self.environment, [event])

    def await_person(self, as_of: date, version: str) -> None:
        """Have a model of that night await a person."""
        event = {"pipeline": "tiny", "as_of": as_of, "event": "awaiting", "model_version": version}
        model_events.record(self.environment, [event])

    def ids_in(self, day: date, feed: str = "readings") -> list[int]:
        return _ids(self._file(day, feed))

    def registered(self) -> dict[date, list[int]]:
        """The snapshots of the register, by the night that found each."""
        return self.published("sensors")

    def register_of(self, night: date) -> list[int]:
        """What a night sees of the register; nothing before the first that was published."""
        registered = sorted(self.registered().items())
        seen = [ids for day, ids in registered if day <= night]
        return seen[-1] if seen else []

    def ids_in_register(self) -> list[int]:
        return _ids(self._register)

    def has_landed(self, day: date) -> bool:
        """Whether the day's files are there, and their markers."""
        names = chain.from_iterable(file.names for file in self._drops(Days.of(day)))
        return all((self.environment.landing / name).exists() for name in names)

    def night(
        self,
        last: date,
        *,
        allow_gap: bool = False,
        first: date | None = None,
        rescore: bool = False,
    ) -> int:
        """Make everything true up to a day; returns the exit code."""
        self.performed.clear()
        run = replace(self.run(last, first), rescore=rescore)
        with self._stages():
            planned = plan(run, allow_gap=allow_gap)
            try:
                code = night.make_true(run, STAGES, allow_gap=allow_gap, notify=False)
            except Refused:
                assert planned.has_work
                raise
        # The plan judges as the stages do.
        assert planned.has_work == bool(self.performed)
        return code

    def night_by_tasks(
        self,
        last: date,
        between: int,
        meanwhile: Callable[[], None],
    ) -> int:
        """A task a stage, as a scheduler runs a night, and something else between two of them.

        A task that fails is tried once more. Returns the exit code of the last one.
        """
        run = replace(self.run(last), run_id=f"scheduled__{last}")
        for number, one in enumerate(STAGES):
            if number == between:
                # What its last task has staged is its own.
                staged, self._waiting = self._waiting, {}
                meanwhile()
                self._waiting = staged
            code = self._task(run, one) and self._task(run, one)
            if code:
                return code
        return 0

    def _task(self, run: Run, one: Stage) -> int:
        with self._stages():
            return night.make_true(run, (one,), allow_gap=True, notify=False)

    def restate(
        self,
        first: date,
        last: date,
        *,
        allow_gap: bool = False,
        stages: tuple[Stage, ...] = STAGES,
    ) -> int:
        with self._stages():
            run = self.run(last, first)
            return night.run_night(run, stages, allow_gap=allow_gap, notify=False)

    def published(self, name: str) -> dict[date, list[int]]:
        """The ids of each day that was published, as people see them."""
        known = Knowledge(self.run(DAYS[-1]))
        return self.rows_of(name, known.latest(name))

    def as_of(self, name: str, last: date) -> dict[date, list[int]]:
        """The ids of each day as a night saw them."""
        return self.rows_of(
            name,
            Knowledge(self.run(DAYS[-1])).seen_by(name, last),
        )

    def rows_of(self, name: str, seen: Seen) -> dict[date, list[int]]:
        """The ids of these versions of days, by day."""
        run = self.run(DAYS[-1])
        found: dict[date, list[int]] = {}
        place, column = path(run, name), partition(run, name)
        for day, one in sorted(seen.items()):
            # A version that was lost and made again has the same number.
            commit = Path(place) / "_delta_log" / f"{one.delta_version:020}.json"
            written = commit.stat().st_mtime_ns
            found[day] = _ids_in(place, one.delta_version, written, column, day)
        return found

    @contextmanager
    def _stages(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(night, "_perform_in_server_or_here", self._perform)
            patched.setattr("jobs.services.stage_client.available", lambda environment: True)
            now = dict.fromkeys(_definitions(None), self.definition)
            patched.setattr(survey, "definitions", lambda _: now)
            yield

    def _perform(self, run: Run) -> int:
        self.performed.append((run.doing.name, run.days))
        run = night._numbered(run)
        stages: dict[str, Callable[[Run], None]] = {
            "ingest": self._ingest,
            "transform": self._transform,
            "features": self._features,
            "predict": self._predict,
        }
        started = time.time()
        if not run.doing.audits:
            self._waiting[run.days] = {}
        try:
            if run.doing.name == self.refused_stage:
                raise Refused("bad")
            done = self._publish_waiting if run.doing.audits else lambda _: None
            stages.get(run.doing.name, done)(run)
        except (NotLanded, Refused, commits.Fenced) as error:
            self._waiting.clear()
            return error.exit_code
        metrics: dict[str, object] = {}
        if run.doing.name == "predict":
            metrics = unscored.facts(run.pipeline, self._without_model(run.days))
        if run.doing.name == "ingest":
            metrics = {"feeds": self._files_read(run), "tables": run.tables}
        if run.doing.name == "transform":
            metrics = {"tables": dict.fromkeys(self._waiting[run.days], 1)}
        if run.doing.name == "train":
            known = publications.in_force(run, "training").values()
            version = max((one.version for one in known), default=-1)
            definition = training_definition(run.pipeline)
            metrics = {"table_version": version, "definition": definition}
        night._record(run, started, 0.1, status="done", metrics=metrics)
        return 0

    def _publish_waiting(self, run: Run) -> None:
        waiting = dict(self._waiting.get(run.days, {}))
        if run.tables:
            may_be_none = {"sensors"}
            assert set(run.tables) - may_be_none <= set(waiting) <= set(run.tables)
        commits.refuse_stage(run, waiting)
        for name in in_order(self.pipeline, waiting):
            if self.judges_quarantines:
                judged = waiting[name].days
                publications.forget_made_anew(run, name + QUARANTINE_SUFFIX, judged)
            self._publish(run, name, waiting[name])
        self._waiting.pop(run.days, None)

    def _wait(self, run: Run, name: str, staging: Staging) -> None:
        """Have it wait for its check, if the run is about that table."""
        if run.makes(name):
            self._waiting.setdefault(run.days, {})[name] = staging

    def _publish(self, run: Run, name: str, staging: Staging) -> None:
        # As the check stage decides.
        keeps = name == PREDICTIONS and not run.rescore
        publish = partial(commits.publish, run, name, staging, keep_published=keeps)
        if self.publishes_until_kill is not None:
            self.publishes_until_kill -= 1
            if self.publishes_until_kill < 0:
                self._kill_in_mid_publication(publish)
        if self.publishes_until_overlap is not None:
            self.publishes_until_overlap -= 1
            if self.publishes_until_overlap < 0:
                self._hold_up()
        try:
            publish()
        finally:
            self.after_publication()

    def _hold_up(self) -> None:
        """As if the process slept: what it has staged is published after what goes on meanwhile."""
        self.publishes_until_overlap = None
        waiting, performed = self._waiting, list(self.performed)
        # What another run publishes is what it has staged itself.
        self._waiting = {}
        with pytest.MonkeyPatch.context() as patched:
            # Of a machine that was away for so long that its lock was taken.
            patched.setattr(night, "one_run_at_a_time", lambda *_: nullcontext())
            self.meanwhile()
        self._waiting, self.performed[:] = waiting, performed

    def _kill_in_mid_publication(self, publish: Callable[[], object]) -> None:
        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        self.publishes_until_kill = None
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(publications, "record", killed)
            publish()

    def _ingest(self, run: Run) -> None:
        # As `find_drops` tells.
        landing = self.environment.landing
        expected = self._drops(run.days)
        drops = [file for file in expected if run.makes(file.feed.name)]
        needed = [file for file in drops if not file.is_waived(landing)]
        if not all((landing / name).exists() for file in needed for name in file.names):
            raise NotLanded(str(run.days))
        knowledge = Knowledge.of_now(run)
        feeds = run.pipeline.feeds
        daily = [feed.name for feed in feeds if not feed.is_reference]
        daily = list(filter(run.makes, daily))
        in_files: dict[str, _Ids] = {name: {} for name in daily}
        for file in needed:
            in_files[file.feed.name][file.day] = _ids(landing / file.name)
        for name, ids in in_files.items():
            self.when_read(run, name, ids)
        readings = in_files.get("readings", {})
        if any(BAD in of_day for of_day in readings.values()):
            raise Refused("bad")
        for name, ids in in_files.items():
            self._wait(run, name, self._staged_drops(run, name, ids, knowledge))
        if run.makes("sensors") and "sensors" in {feed.name for feed in feeds}:
            self._ingest_register(run, knowledge)
        # As `ingest` does: before anything is judged, and where there is something to replace.
        refused = {}
        for day, of_day in readings.items():
            refused[day] = list(filter(self.refuses, of_day))
        name = "readings" + QUARANTINE_SUFFIX
        there = publications.in_force(run, name, run.days)
        if any(refused.values()) or (there and run.makes("readings")):
            files = self._waiting[run.days]["readings"].origin.inputs
            self._publish(run, name, _staged(run, name, refused, Origin(inputs=files)))

    def _files_read(self, run: Run) -> dict[str, dict[str, int]]:
        """As `ingest` tells of each feed."""
        read: Counter[str] = Counter()
        for file in self._drops(run.days):
            if self._file(file.day, file.feed.name).exists():
                read[file.feed.name] += 1
        names = filter(run.makes, [feed.name for feed in run.pipeline.feeds])
        return {name: {"files": read[name]} for name in names}

    def _drops(self, days: Days) -> list[ExpectedFile]:
        """The files of all feeds but the register."""
        expected = expected_files(self.pipeline, days)
        return [file for file in expected if not file.feed.is_reference]

    def _staged_drops(
        self,
        run: Run,
        name: str,
        in_files: _Ids,
        knowledge: Knowledge,
    ) -> Staging:
        ids = {}
        for day, of_day in in_files.items():
            ids[day] = [one for one in of_day if not self.refuses(one)]
        files = {day: (self._input(day, name),) for day in in_files}
        known = {day: knowledge.day_of_drop(name, day) for day in run.days}
        return _staged(run, name, ids, Origin(inputs=files, known=known))

    def _ingest_register(self, run: Run, knowledge: Knowledge) -> None:
        published = knowledge.latest("sensors")
        before = [day for day in published if day <= run.days.first]
        is_gone = not published and publications.lost(run, "sensors")
        if not (before or is_gone) and run.named_from > run.days.last:
            first, made = run.days.first, knowledge.latest("readings")
            end = min(published, default=run.named_from)
            if any(first <= day < end for day in made):
                return
        finds = max(knowledge.day_of_reference(), run.days.first) if before else run.days.first
        lost = knowledge.day_of_lost_snapshot("sensors", self._register)
        finds = lost or finds
        if finds > run.days.last:
            return
        if before and not lost and self.register_of(finds) == self.ids_in_register():
            return
        given = file_input("tiny/sensors.csv", finds, self._register)
        origin = Origin(inputs={finds: (given,)})
        of_night = replace(run, days=Days.of(finds))
        ids = {finds: self.ids_in_register()}
        self._wait(run, "sensors", _staged(of_night, "sensors", ids, origin))

    def _input(self, day: date, feed: str = "readings") -> publications.Input:
        return file_input(f"tiny/{feed}/{day}.csv", day, self._file(day, feed))

    def _transform(self, run: Run) -> None:
        """Marks are what feeds tell; sums add up those of a window, as each night knew them."""
        knowledge = Knowledge.of_now(run)
        table = run.pipeline.table("marks")
        asked = {day: knowledge.made_as_of(table, day) for day in run.days}
        fresh = {}
        for day, asking in asked.items():
            told = [self._told_to(asking, feed, knowledge, {}) for feed in table.reads]
            of_day = chain.from_iterable(of_feed.get(day, ()) for of_feed in told)
            fresh[day] = sorted(of_day)
        marks = self._staged_facts(run, "marks", table.reads, fresh, knowledge, asked)
        checksums = {day: marks.checksum(day) for day in marks.days}
        sums = {}
        inputs = {}
        if run.makes("marks"):
            knowledge.add_staged("marks", checksums, marks.origin.known)
        for evening in run.days:
            window = Days.of(evening).since(WINDOW - 1)
            rows = self._told_to(evening, "marks", knowledge, fresh)
            totals = [sum(rows.get(day, ())) for day in window]
            sums[evening] = [sum(totals)]
            inputs[evening] = (knowledge.table_input("marks", window, Days.of(evening)),)
        known = {day: knowledge.known_day_of_moment(SUMS, day) for day in run.days}
        origin = Origin(definition=self.definition, inputs=inputs, known=known)
        self._wait(run, "marks", marks)
        self._wait(run, "sums", _staged(run, "sums", sums, origin))
        if OF_THE_MOMENT in self.pipeline.derived:
            self._wait(run, "outcomes", _staged(run, "outcomes", sums, origin))
        if OUTCOMES in self.pipeline.derived:
            self._wait(run, "outcomes", self._staged_outcomes(run, fresh, knowledge))

    def _told_to(
        self,
        night: date | None,
        name: str,
        knowledge: Knowledge,
        staged_now: _Ids,
    ) -> _Ids:
        """The ids of each day that a night sees; None: those known last."""
        seen = knowledge.seen_by(name, night) if night else knowledge.latest(name)
        published = {day: one for day, one in seen.items() if one.delta_version is not None}
        rows = self.rows_of(name, published)
        return rows | {day: staged_now[day] for day in seen if day not in published}

    def _staged_outcomes(self, run: Run, marks: _Ids, knowledge: Knowledge) -> Staging:
        """Sums of a window, by the last version of each of its days; `marks` are staged now."""
        sums = {}
        inputs = {}
        known = {}
        for day in run.days:
            night = knowledge.made_as_of(OUTCOMES, day)
            rows = self._told_to(night, "marks", knowledge, marks)
            window = Days.of(day).since(WINDOW - 1)
            totals = [sum(rows.get(one, ())) for one in window]
            sums[day] = [sum(totals)]
            given = knowledge.table_input("marks", window, Days.of(night) if night else None)
            inputs[day] = (given,)
            known[day] = night or knowledge.known_day([given], day)
        origin = Origin(definition=self.definition, inputs=inputs, known=known)
        return _staged(run, "outcomes", sums, origin)

    def _staged_facts(
        self,
        run: Run,
        name: str,
        of: Sequence[str],
        rows: _Ids,
        knowledge: Knowledge,
        asked: Mapping[date, date | None],
    ) -> Staging:
        """Rows about each day of the run, made from the last versions of other tables' day.

        Or from those that the nights saw which are asked.
        """
        inputs = {}
        known = {}
        for day in run.days:
            night = asked.get(day)
            nights = Days.of(night) if night else None
            given = [knowledge.table_input(one, Days.of(day), nights) for one in of]
            inputs[day] = tuple(given)
            known[day] = night or knowledge.known_day(given, day)
        origin = Origin(definition=self.definition, inputs=inputs, known=known)
        return _staged(run, name, rows, origin)

    def _features(self, run: Run) -> None:
        """To learn: a day's marks beside the sum of the evening before; to score: the sums."""
        knowledge = Knowledge.of_now(run)
        marks = self.published("marks")
        sums = self.published("sums")
        rows = {day: _learned(marks, sums, day) for day in run.days}
        training = self._staged_facts(run, "training", ("marks",), rows, knowledge, {})
        inputs = {}
        known = {}
        for day, given in training.origin.inputs.items():
            evening = Days.of(day).shifted(-1)
            inputs[day] = (*given, knowledge.table_input("sums", evening, evening))
            of_labels = training.origin.known[day]
            known[day] = max(of_labels, knowledge.known_to_others(["sums"], evening))
        origin = replace(training.origin, inputs=inputs, known=known)
        if run.makes("training"):
            self._publish(run, "training", replace(training, origin=origin))
        scored = {}
        for day in run.days:
            of_day = Days.of(day)
            scored[day] = (knowledge.table_input("sums", of_day, of_day),)
        origin = Origin(definition=self.definition, inputs=scored)
        ids = {day: sums.get(day, []) for day in run.days}
        if run.makes("scoring"):
            self._publish(run, "scoring", _staged(run, "scoring", ids, origin))

    def _predict(self, run: Run) -> None:
        served.require_not_lost(run)
        if self.awaits_model:
            raise AwaitsApproval("One awaits a person.")
        without = self._without_model(run.days)
        if run.night in without:
            raise Refused("Its model can score none.")
        if set(run.days) == set(without):
            return
        days = self._with_model(run.days)
        knowledge = Knowledge.of_now(run)
        scoring = self.published("scoring")
        lead = timedelta(days=1)
        ids = {}
        for day in days:
            totals = scoring.get(day, [])
            ids[day + lead] = list(map(self.predicted, totals))
        given = {day: knowledge.table_input("scoring", Days.of(day)) for day in days}
        inputs = {day + lead: (one,) for day, one in given.items()}
        ahead = replace(run, days=days.shifted(1))
        origin = Origin(definition=self.definition, inputs=inputs)
        self._wait(run, "predictions", _staged(ahead, "predictions", ids, origin))

    def _with_model(self, days: Days) -> Days:
        """Of these days the last alone, where an earlier one has a model of another label."""
        return Days.of(days.last) if self._without_model(days) else days

    def _without_model(self, days: Days) -> dict[date, str]:
        """Those of the days whose model has learned another label, and what is said of it."""
        turns = model_events.turns(self.environment, "tiny")
        serving = {day: model_events.in_turn(turns, day) for day in days}
        found = {}
        for day, turn in serving.items():
            if turn and turn.version in self.other_label:
                found[day] = f"version {turn.version} is odd"
        return found

    def _file(self, day: date, feed: str = "readings") -> Path:
        return self.environment.landing / "tiny" / feed / f"{day}.csv"

    @property
    def _register(self) -> Path:
        return self.environment.landing / "tiny" / "sensors.csv"


@cache
def _ids_in(
    place: str,
    version: int,
    written: int,
    column: str,
    day: date,
) -> list[int]:
    """Those of a day in a version of a table, whose commit was written at an instant (ns)."""
    table = DeltaTable(place, version=version)
    rows = table.to_pyarrow_table(filters=[(column, "=", day)])
    return sorted(rows["id"].to_pylist())


def _ids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()]


def _staged(
    run: Run,
    name: str,
    ids: Mapping[date, list[int]],
    origin: Origin,
) -> Staging:
    # A day without rows has no file.
    return staged(
        run,
        {day: values for day, values in ids.items() if values},
        name,
        origin,
    )


def _learned(
    marks: dict[date, list[int]],
    sums: dict[date, list[int]],
    day: date,
) -> list[int]:
    (evening,) = sums.get(day - timedelta(days=1), [0])
    return sorted(10_000 * mark + evening for mark in marks.get(day, ()))


def _definitions(_: object) -> dict[str, str]:
    return dict.fromkeys((table.name for table in TINY.tables), "")


def landed(folder: Path) -> Home:
    """A home with the files of every day."""
    made = Home(folder)
    for number, day in enumerate(DAYS):
        made.land(day, 10 * number, 10 * number + 1)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return landed(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """One with the same files, in which nights are made in another way."""
    return landed(tmp_path / "other")


def require_alike(home: Home, other: Home, days: Sequence[date]) -> None:
    """Both have published the same, also as each of these nights sees it."""
    for name in ("readings", "marks", "sums", "training", "scoring", PREDICTIONS):
        assert home.published(name), name
        assert home.published(name) == other.published(name), name
        for day in days:
            assert home.as_of(name, day) == other.as_of(name, day), (name, day)
    # A snapshot of the register is of the night that found it: nights in another order find it on
    # other days, and each sees the same of it.
    for day in DAYS:
        assert home.register_of(day) == other.register_of(day), day


def stages_of(home: Home) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, days in home.performed:
        found.setdefault(name, []).append(str(days))
    return found


def test_nights_from_before_a_first_day_that_was_moved_stay_as_they_are(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for day in DAYS[:4]:
        home.land(day, 1)
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    # A table that is declared by now is made for no night before it, either.
    derived = (*TINY.derived, OUTCOMES)
    home.pipeline = replace(TINY, first_day=DAYS[2], derived=derived)
    home.land(DAYS[0], 1, 2)
    home.land(DAYS[2], 1, 3)
    assert home.night(DAYS[3]) == 0
    made = {day for _, days in home.performed for day in days}
    assert made == {DAYS[2], DAYS[3]}
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    ids = {day: [1] for day in DAYS[:4]}
    assert home.published("readings") == {**ids, DAYS[2]: [1, 3]}


def test_a_missed_night_is_caught_up_by_the_next_one_in_one_pass(home: Home) -> None:
    assert home.night(DAYS[0]) == 0
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["ingest"] == ["2013-01-06..2013-01-08"]
    assert stages_of(home)["monitor"] == ["2013-01-06..2013-01-08"]
    assert list(home.published("sums")) == DAYS[:4]


def test_a_night_with_nothing_to_do_does_nothing_and_says_so(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.night(DAYS[2])
    capsys.readouterr()
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    lines = capsys.readouterr().out.splitlines()
    found = [line.split() for line in lines]
    assert found == [[one.name, "current"] for one in STAGES]
    recorded = ops.read(home.environment, "stage_runs", [("status", "=", "current")])
    assert sorted(recorded["stage"].to_pylist()) == sorted(one.name for one in STAGES)


def test_a_correction_changes_the_night_that_finds_it_and_no_moment_that_has_passed(
    home: Home,
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    before = {name: home.published(name) for name in ("sums", "scoring", "training")}
    home.land(DAYS[3], 7)
    assert home.night(DAYS[5]) == 0
    made = stages_of(home)
    assert made["ingest"] == [str(DAYS[3]), str(DAYS[5])]
    assert made["transform"] == [str(DAYS[3]), str(DAYS[5])]
    assert home.published("marks")[DAYS[3]] == [7]
    assert home.as_of("marks", DAYS[4])[DAYS[3]] == [30, 31]
    # What the moments were told stays, and what was learned has the label that is known now.
    for name in ("sums", "scoring"):
        found = {day: home.published(name)[day] for day in before[name]}
        assert found == before[name]
    assert home.published("sums")[DAYS[5]] == [7 + 81 + 101]
    evening = before["sums"][DAYS[2]][0]
    assert home.published("training")[DAYS[3]] == [70_000 + evening]
    # As of a night that has passed, it is learned from what was known then.
    as_of = home.as_of("training", DAYS[4])
    assert as_of[DAYS[3]] == before["training"][DAYS[3]]
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def _published_outcomes(home: Home) -> dict[date, list[int]]:
    """By day; each is the sum of the marks of its window, as these are by now."""
    marks = home.published("marks")
    found = home.published("outcomes")
    for day, of_day in found.items():
        window = Days.of(day).since(WINDOW - 1)
        totals = [sum(marks.get(one, ())) for one in window]
        assert of_day == [sum(totals)]
    return found


def test_a_table_that_follows_corrections_is_made_anew_for_every_window_over_a_changed_day(
    home: Home,
) -> None:
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OUTCOMES))
    home.night(DAYS[4], first=DAYS[0])
    before = {name: home.published(name) for name in ("sums", "outcomes")}
    assert before["outcomes"] == before["sums"]
    home.land(DAYS[1], 7)
    assert home.night(DAYS[5]) == 0
    assert stages_of(home)["transform"] == [f"{DAYS[1]}..{DAYS[3]}", str(DAYS[5])]
    found = _published_outcomes(home)
    told_before = before["outcomes"]
    changed = [day for day in told_before if found[day] != told_before[day]]
    assert changed == DAYS[1:4]
    # Moments that have passed are what they were, and so is what they saw of it.
    sums = home.published("sums")
    assert {day: sums[day] for day in before["sums"]} == before["sums"]
    assert home.as_of("outcomes", DAYS[4]) == before["outcomes"]
    assert home.as_of("outcomes", DAYS[5]) == found
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


@pytest.mark.parametrize("is_found_before", [False, True])
def test_days_that_are_made_follow_corrections_once_their_table_says_so(
    home: Home, is_found_before: bool
) -> None:
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OF_THE_MOMENT))
    home.night(DAYS[4], first=DAYS[0])
    before = home.published("outcomes")
    home.land(DAYS[1], 7)
    if is_found_before:
        assert home.night(DAYS[5]) == 0
        assert {day: home.published("outcomes")[day] for day in before} == before
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OUTCOMES))
    assert home.night(DAYS[5]) == 0
    found = _published_outcomes(home)
    assert [day for day in before if found[day] != before[day]] == DAYS[1:4]
    assert home.as_of("outcomes", DAYS[4]) == before
    # Tables of the moment go on saying what their night knew.
    assert home.published("sums")[DAYS[1]] == before[DAYS[1]]
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def test_what_is_made_late_for_a_night_is_seen_by_it_and_by_those_since_it_was_made(
    home: Home,
) -> None:
    home._file(DAYS[1]).unlink()
    home.night(DAYS[0])
    for day in DAYS[2:4]:
        home.night(day, allow_gap=True)
    nights = [Days.of(day) for day in DAYS[2:4]]
    asked = [*nights, Days(*DAYS[2:4])]
    seen = {night: _input_of_sums(home, night).digest for night in asked}
    made = {name: home.published(name) for name in ("sums", "scoring")}
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    days = {night: list(home.as_of("sums", night)) for night in DAYS[:5]}
    assert days == {
        DAYS[0]: DAYS[:1],
        # As it was: with a window that lacks its own day, which is known since the last night.
        DAYS[1]: DAYS[:2],
        DAYS[2]: [DAYS[0], DAYS[2]],
        DAYS[3]: [DAYS[0], *DAYS[2:4]],
        DAYS[4]: DAYS[:5],
    }
    assert home.published("sums")[DAYS[1]] == [1]
    told = datasets.known_by(home.environment, "tiny.sums", DAYS[3]).to_table()
    assert sorted(told["landed_date"].to_pylist()) == days[DAYS[3]]
    # So what those nights looked up in it is what they would find again.
    assert {night: _input_of_sums(home, night).digest for night in seen} == seen
    for name, before in made.items():
        assert {day: home.published(name)[day] for day in before} == before
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
    # On purpose: then it was known from its own day on.
    assert home.restate(DAYS[1], DAYS[1]) == 0
    assert list(home.as_of("sums", DAYS[3])) == DAYS[:4]


def _input_of_sums(home: Home, nights: Days) -> publications.Input:
    """What a view that looks back over all days reads of the sums in these nights."""
    until = Days(DAYS[0], nights.last)
    return Knowledge(home.run(nights.last)).table_input("sums", until, nights)


@pytest.mark.parametrize("lacks", ["other/{}.csv", "{}.done"])
def test_a_drop_that_could_not_be_read_in_time_changes_no_moment_that_has_passed(
    home: Home, lacks: str
) -> None:
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv", marker="{date}.done")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    for day in DAYS:
        home.land_of("other", day, 5)
        home.mark(day)
    late = home.environment.landing / "tiny" / lacks.format(DAYS[1])
    told = late.read_text()
    late.unlink()
    assert home.night(DAYS[0]) == 0
    assert home.night(DAYS[2], allow_gap=True) == 0
    tables = ("readings", "marks", "sums")
    before = {name: home.as_of(name, DAYS[2]) for name in tables}
    late.write_text(told)
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
    assert not [row for row in rows if row[:2] == ("tiny.sums", "stale")]
    assert home.night(DAYS[3]) == 0
    assert {name: home.as_of(name, DAYS[2]) for name in before} == before
    for name in ("readings", "other"):
        known = publications.in_force(home.run(DAYS[3]), name)
        assert known[DAYS[1]].known_day == DAYS[3], name


def test_a_feed_that_is_declared_later_is_known_to_no_night_that_was_scored(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    for day in DAYS[:5]:
        home.land_of("late", day, 5)
    assert home.night(DAYS[4]) == 0
    known = publications.in_force(home.run(DAYS[4]), "late")
    assert set(known) == set(DAYS[:5])
    # Of the last one too, which had no night after it.
    assert {one.known_day for one in known.values()} == {DAYS[4]}


def test_a_night_that_is_asked_for_again_sees_what_was_corrected_before_it(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[3], 7)
    assert home.night(DAYS[4]) == 0
    assert home.published("sums")[DAYS[4]] == [41 + 7 + 81]
    assert home.published("sums")[DAYS[3]] == [21 + 41 + 61]


def test_a_correction_found_by_an_old_night_changes_none_that_was_made_since(home: Home) -> None:
    home.night(DAYS[5], first=DAYS[0])
    sums = home.published("sums")
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == [7]
    assert home.published("sums") == sums
    assert home.night(DAYS[5]) == 0
    assert home.published("sums") == sums
    home.land(DAYS[5], 1)
    home.land(DAYS[6], 2)
    assert home.night(DAYS[6], first=DAYS[5]) == 0
    assert home.published("sums")[DAYS[6]] == [81 + 1 + 2]


def test_a_late_twin_dates_no_correction_back_that_its_successor_has_found(home: Home) -> None:
    home.night(DAYS[0])
    home.land(DAYS[0], 7)

    def overtake() -> None:
        assert home.night(DAYS[2]) == 0

    home.meanwhile = overtake
    home.publishes_until_overlap = 0
    home.night(DAYS[1])
    assert home.published("readings")[DAYS[0]] == [7]
    known = publications.in_force(home.run(DAYS[2]), "readings")
    assert known[DAYS[0]].known_day == DAYS[2]
    assert home.as_of("readings", DAYS[1])[DAYS[0]] == [0, 1]


@pytest.mark.parametrize("refused", ["check_clean", "features"])
def test_a_night_of_which_nothing_was_scored_is_made_with_its_own_file_that_was_mended(
    home: Home, refused: str
) -> None:
    home.night(DAYS[0])
    home.refused_stage = refused
    for bad in ((10, 11), (5,)):
        home.land(DAYS[1], *bad)
        assert home.night(DAYS[1]) == Refused.exit_code
        assert home.published("readings")[DAYS[1]] == list(bad)
    home.refused_stage = ""
    home.land(DAYS[1], 7)
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    stale = [row for row in rows if row[:2] == ("tiny.readings", "stale")]
    assert [row[4] for row in stale] == [f"tiny/readings/{DAYS[1]}.csv has changed"]
    assert home.night(DAYS[2]) == 0
    assert home.as_of("marks", DAYS[1])[DAYS[1]] == [7]
    assert home.published("sums")[DAYS[1]] == [1 + 7]
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_correction_that_its_night_did_not_survive_is_known_as_it_was_when_it_comes_anew(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.refused_stage = "check_clean"
    assert home.night(DAYS[4]) == Refused.exit_code
    home.refused_stage = ""
    home.land(DAYS[1], 8)
    assert home.night(DAYS[5]) == 0
    assert home.as_of("marks", DAYS[3])[DAYS[1]] == [10, 11]
    assert home.as_of("marks", DAYS[4])[DAYS[1]] == [8]


def test_what_was_scored_stays_as_it_was_also_where_it_is_lost(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    tables = ("marks", "sums", "scoring")
    before = {name: home.as_of(name, DAYS[2]) for name in tables}
    shutil.rmtree(path(home.run(DAYS[0]), "scoring"))
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3]) == 0
    assert {name: home.as_of(name, DAYS[2]) for name in before} == before


def test_a_range_dates_a_correction_before_it_as_its_nights_in_order_do(
    home: Home, other: Home
) -> None:
    for one in (home, other):
        one.promote(DAYS[0])
        one.night(DAYS[4], first=DAYS[0])
        one.land(DAYS[1], 7)
        one.land_register(1, 2)
    sums = home.published("sums")
    assert home.night(DAYS[4], first=DAYS[2]) == 0
    for day in DAYS[2:5]:
        assert other.night(day) == 0
    # All of its nights have passed.
    assert home.published("sums") == sums
    for last in (DAYS[4], DAYS[5]):
        assert home.night(last) == other.night(last) == 0
        require_alike(home, other, DAYS[:7])


def test_a_range_that_goes_on_past_what_was_made_sees_a_correction_from_there(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    sums = home.published("sums")
    home.land(DAYS[3], 7)
    assert home.night(DAYS[5], first=DAYS[4]) == 0
    # Asked for again by name, and last of all.
    assert home.published("sums") == {
        **sums,
        DAYS[4]: [41 + 7 + 81],
        DAYS[5]: [7 + 81 + 101],
    }
    home.land(DAYS[2], 5)
    before = home.published("sums")
    assert home.night(DAYS[6], first=DAYS[3]) == 0
    assert home.published("sums") == {**before, DAYS[6]: [81 + 101 + 121]}
    assert home.as_of("marks", DAYS[5])[DAYS[2]] == [20, 21]
    assert home.as_of("marks", DAYS[6])[DAYS[2]] == [5]


def test_a_range_finds_a_changed_register_as_its_nights_in_order_do(
    home: Home, other: Home
) -> None:
    for one in (home, other):
        one.night(DAYS[3], first=DAYS[0])
    for number, first in enumerate((1, 2, 3, 5)):
        last = first + 1
        for one in (home, other):
            one.land_register(2 + number)
        assert home.night(DAYS[last], first=DAYS[first]) == 0
        for day in DAYS[first : last + 1]:
            assert other.night(day) == 0
        assert home.registered() == other.registered()
    # Nights that had passed saw the file of their own time.
    assert home.registered() == {
        DAYS[0]: [1],
        DAYS[3]: [4],
        DAYS[5]: [5],
    }


def test_a_changed_register_needs_no_file_of_a_made_night_that_is_gone(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home._file(DAYS[3]).unlink()
    home.land_register(2)
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    assert home.night(DAYS[5], first=DAYS[3]) == 0
    assert home.registered() == {
        DAYS[0]: [1],
        DAYS[4]: [2],
    }


def test_a_changed_register_is_found_by_the_first_night_of_a_range_that_has_its_file(
    home: Home,
) -> None:
    home.night(DAYS[0])
    home.land_register(2)
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[3], first=DAYS[1], allow_gap=True) == 0
    assert home.registered() == {
        DAYS[0]: [1],
        DAYS[2]: [2],
    }


def test_a_register_that_is_declared_later_is_unknown_to_nights_that_have_passed(
    home: Home,
) -> None:
    home.pipeline = replace(TINY, feeds=TINY.feeds[:1])
    home.night(DAYS[2], first=DAYS[0])
    home.pipeline = TINY
    assert home.night(DAYS[3]) == 0
    home.land(DAYS[1], 7)
    home.land_register(5)
    assert home.night(DAYS[4]) == 0
    of_nights = {
        DAYS[3]: [1],
        DAYS[4]: [5],
    }
    assert home.registered() == of_nights
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
    # Whoever asks for those nights by name has them see the file of today.
    assert home.restate(DAYS[0], DAYS[2]) == 0
    assert home.registered() == {DAYS[0]: [5], **of_nights}


@pytest.mark.parametrize("is_missed", [False, True])
def test_a_register_that_is_declared_later_is_unknown_to_a_passed_night_that_is_made_anew_with_it(
    is_missed: bool, home: Home
) -> None:
    home.pipeline = replace(TINY, feeds=TINY.feeds[:1])
    home.night(DAYS[0])
    if not is_missed:
        home.night(DAYS[1])
    home.night(DAYS[2], allow_gap=True)
    home.land(DAYS[1], 7)
    home.pipeline = TINY
    assert home.night(DAYS[3], allow_gap=True) == 0
    assert home.published("readings")[DAYS[1]] == [7]
    assert home.registered() == {DAYS[3]: [1]}


def test_a_correction_is_read_where_its_feed_drops_files_by_now(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    readings, sensors = TINY.feeds
    moved = replace(readings, path="moved/{date}.csv")
    home.pipeline = replace(TINY, feeds=(moved, sensors))
    folder = home.environment.landing / "tiny"
    run = home.run(DAYS[2])

    def told() -> dict[date, tuple[str, str]]:
        found = survey.Survey(run).findings(run.pipeline.table("readings"))
        return {one.night: (one.state, one.reason) for one in found}

    # No file of before need be moved.
    assert set(told().values()) == {("current", "")}
    (folder / "readings").rename(folder / "moved")
    assert set(told().values()) == {("current", "")}
    home._write(folder / "moved" / f"{DAYS[1]}.csv", [7])
    (folder / "moved" / f"{DAYS[0]}.csv").unlink()
    found = told()
    assert found[DAYS[0]] == ("current", survey._GONE)
    state, reason = found[DAYS[1]]
    assert state == "stale"
    assert reason.startswith(f"tiny/moved/{DAYS[1]}.csv has landed")
    assert found[DAYS[2]] == ("current", "")


def test_a_correction_where_its_feed_dropped_files_before_is_told(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    readings, sensors = TINY.feeds
    moved = replace(readings, path="moved/{date}.csv")
    home.pipeline = replace(TINY, feeds=(moved, sensors))
    # The source has not heard of it.
    home.land(DAYS[1], 7)
    (told,) = [row for row in _told_of(home, "current") if row[3]]
    old, new = f"tiny/readings/{DAYS[1]}.csv", f"tiny/moved/{DAYS[1]}.csv"
    assert told[3] == f"{old} has changed; its feed drops it as {new} by now"


def test_a_correction_of_a_feed_that_moved_its_files_awaits_their_marker(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, sensors = TINY.feeds
    folder = home.environment.landing / "tiny"
    home.pipeline = replace(TINY, feeds=(replace(readings, marker="{date}.done"), sensors))
    home.mark(DAYS[0])
    assert home.night(DAYS[0]) == 0
    moved = replace(readings, path="moved/{date}.csv", marker="moved/{date}.done")
    home.pipeline = replace(TINY, feeds=(moved, sensors))
    (folder / "readings").rename(folder / "moved")
    file, marker = (folder / "moved" / f"{DAYS[0]}.{end}" for end in ("csv", "done"))
    home._write(marker, ())
    arrivals: dict[Path, int] = {}

    def arrived(path: Path) -> datetime:
        return datetime.fromtimestamp(arrivals.get(path, 1), UTC)

    def told() -> tuple[str, str]:
        run = home.run(DAYS[0])
        (found,) = survey.Survey(run).findings(run.pipeline.table("readings"))
        return found.state, found.reason

    # The file system's clock cannot be set.
    monkeypatch.setattr(knowledge, "arrival", arrived)
    assert told() == ("current", "")
    home._write(file, [7])
    arrivals[file] = 3
    state, reason = told()
    assert state == "current"
    assert reason.endswith(f"tiny/moved/{marker.name} is older than its file")
    arrivals[marker] = 4
    assert told() == ("stale", f"tiny/moved/{file.name} has landed")


def test_a_register_is_looked_for_where_its_feed_drops_it_by_now(home: Home) -> None:
    home.night(DAYS[0])
    readings, sensors = TINY.feeds
    moved = replace(sensors, path="moved.csv")
    home.pipeline = replace(TINY, feeds=(readings, moved))
    folder = home.environment.landing / "tiny"
    home._register.rename(folder / "moved.csv")
    run = home.run(DAYS[1])

    def told() -> tuple[date, str, str]:
        (found,) = survey.Survey(run).findings(run.pipeline.table("sensors"))
        return found.night, found.state, found.reason

    assert told() == (DAYS[1], "current", "")
    home._write(folder / "moved.csv", [2])
    assert told() == (DAYS[1], "stale", "tiny/moved.csv has changed")


def test_nights_before_the_first_that_was_made_see_the_register_when_they_are_loaded(
    home: Home,
) -> None:
    home.pipeline = replace(TINY, first_day=DAYS[0])
    home.night(DAYS[2])
    home.land_register(2)
    with home._stages():
        run = replace(home.run(DAYS[3]), from_start=True)
        assert night.make_true(run, STAGES, notify=False) == 0
    assert home.registered() == {
        DAYS[0]: [2],
        DAYS[2]: [1],
        DAYS[3]: [2],
    }


@pytest.mark.parametrize("publishes_until_kill", [0, 1])
def test_a_first_load_that_is_killed_between_its_raw_tables_sees_the_register_from_its_first_night(
    publishes_until_kill: int, home: Home, other: Home
) -> None:
    home.publishes_until_kill = publishes_until_kill
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[2], first=DAYS[0])
    for one in (home, other):
        assert one.night(DAYS[2], first=DAYS[0]) == 0
    assert home.registered() == other.registered() == {DAYS[0]: [1]}
    require_alike(home, other, DAYS[:3])


def test_a_changed_register_is_found_by_a_range_that_begins_before_its_first_snapshot(
    home: Home,
) -> None:
    home.night(DAYS[2])
    home.land_register(2)
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    assert home.registered() == {
        DAYS[0]: [2],
        DAYS[2]: [2],
    }
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    assert home.performed == []


def test_a_day_that_is_asked_for_by_name_is_made_as_its_file_says_now(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[1]) == 0
    assert home.published("sums")[DAYS[1]] == [1 + 7]
    # What follows is stale, all of it, and the next night makes it.
    assert home.night(DAYS[4]) == 0
    assert stages_of(home)["transform"] == [f"{DAYS[2]}..{DAYS[3]}"]
    assert stages_of(home)["features"] == [f"{DAYS[2]}..{DAYS[4]}"]
    assert home.published("sums")[DAYS[3]] == [7 + 41 + 61]


def test_restating_makes_what_was_corrected_late_known_from_its_own_day(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    assert home.published("sums")[DAYS[1]] == [1 + 21]
    assert home.restate(DAYS[0], DAYS[4]) == 0
    assert home.published("sums")[DAYS[1]] == [1 + 7]
    assert home.as_of("marks", DAYS[1])[DAYS[1]] == [7]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_the_plan_tells_of_a_file_that_is_gone_and_how_its_rows_are_withdrawn(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    for day in DAYS[1:3]:
        home._file(day).unlink()
    (told,) = [row for row in _told_of(home, "current") if row[3]]
    why = "its file is gone; its rows stay. To withdraw them, land a file without rows"
    assert told == ("tiny.readings", 2, f"{DAYS[1]}..{DAYS[2]}", why)
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    home.land(DAYS[1])
    home.land(DAYS[2])
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == []
    assert not [row for row in _told_of(home, "current") if row[3]]


def test_the_plan_tells_of_a_register_that_is_gone(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home.land_register(2)
    register = home.environment.landing / "tiny" / "sensors.csv"
    register.rename(register.with_suffix(".kept"))
    (told,) = [row for row in _told_of(home, "current") if row[3]]
    why = "its file is gone; nights that are made keep its last rows, and a new one waits"
    assert told == ("tiny.sensors", 1, str(DAYS[3]), why)
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    register.with_suffix(".kept").rename(register)
    assert home.night(DAYS[3]) == 0
    assert home.registered() == {
        DAYS[0]: [1],
        DAYS[3]: [2],
    }


def test_the_plan_to_restate_names_the_files_that_are_not_there(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home._file(DAYS[1]).unlink()
    home._file(DAYS[2]).unlink()
    with home._stages():
        run = home.run(DAYS[2], DAYS[0])
        rows = plan(run, is_exact=True).rows
        learning = plan(run, (stage("train"),), is_exact=True).rows
    names = [f"tiny/readings/{day}.csv is not there" for day in DAYS[1:3]]
    holes = [row[3:] for row in rows if row[1] == "hole"]
    assert holes == [
        (str(DAYS[1]), f"{names[0]}; --allow-gap keeps its raw rows"),
        (str(DAYS[2]), names[1]),
    ]
    assert not [row for row in learning if row[1] == "hole"]
    assert home.restate(DAYS[0], DAYS[2]) == NotLanded.exit_code


def test_a_range_is_restated_over_a_gap_where_that_is_allowed(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], 7)
    # Of one night the file is gone that it was made from, and the other never had any.
    home._file(DAYS[2]).unlink()
    home._file(DAYS[5]).unlink()
    assert home.restate(DAYS[0], DAYS[6]) == NotLanded.exit_code
    home.definition = "another"
    home.performed.clear()
    kept = f"{DAYS[2]} keeps its raw rows: tiny/readings/{DAYS[2]}.csv is not there"
    left_out = f"{DAYS[5]} is left out: tiny/readings/{DAYS[5]}.csv is not there"
    made = [f"{DAYS[0]}..{DAYS[4]}", str(DAYS[6])]
    with home._stages():
        run = home.run(DAYS[6], DAYS[0])
        rows = plan(run, allow_gap=True, is_exact=True).rows
    of_pipeline = [row for row in rows if row[0] == "tiny"][-4:]
    told = [(row[1], row[3], row[4]) for row in of_pipeline]
    why = "--restate does all stages on these days"
    gaps = [
        ("hole", str(DAYS[2]), kept),
        ("hole", str(DAYS[5]), left_out),
    ]
    assert told == [*gaps, *(("due", days, why) for days in made)]
    assert home.restate(DAYS[0], DAYS[6], allow_gap=True) == 0
    read = [f"{DAYS[0]}..{DAYS[1]}", f"{DAYS[3]}..{DAYS[4]}", str(DAYS[6])]
    assert stages_of(home)["ingest"] == read
    for name in ("check_clean", "features", "monitor"):
        assert stages_of(home)[name] == made
    assert stages_of(home)["train"] == made[-1:]
    said = capsys.readouterr().out
    assert f"{kept}.\n{left_out}.\n" in said
    # Windows over a gap are as they truly are.
    assert home.published("sums")[DAYS[3]] == [7 + 41 + 61]
    assert home.published("sums")[DAYS[6]] == [81 + 121]
    assert DAYS[5] not in home.published("readings")
    known = publications.in_force(home.run(DAYS[6]), "sums")
    assert {one.definition for one in known.values()} == {"another"}


def test_a_range_is_restated_without_its_reference_file_where_a_gap_is_allowed(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home._register.unlink()
    home._file(DAYS[1]).unlink()
    home.definition = "another"
    run = home.run(DAYS[2], DAYS[0])
    with home._stages():
        rows = plan(run, allow_gap=True, is_exact=True).rows
    kept = [str(row[4]) for row in rows if row[1] == "hole"]
    assert len(kept) == 3
    assert all("keeps its raw rows: " in one for one in kept)
    assert all("sensors.csv" in one for one in kept)
    assert home.restate(DAYS[0], DAYS[2], allow_gap=True) == 0
    known = publications.in_force(home.run(DAYS[2]), "sums")
    assert {one.definition for one in known.values()} == {"another"}


def test_a_scheduler_restates_a_range_over_a_gap_as_a_command_does(home: Home) -> None:
    home._file(DAYS[3]).unlink()
    home.night(DAYS[2], first=DAYS[0])
    home.night(DAYS[6], first=DAYS[4], allow_gap=True)
    home.land(DAYS[2], 7)
    run = replace(home.run(DAYS[6], DAYS[0]), run_id="manual__1")
    home.performed.clear()
    with home._stages():
        for one in STAGES:
            assert night.run_night(run, (one,), allow_gap=True, notify=False) == 0
    # What windows over the gap read of before it is published by then.
    assert home.published("marks")[DAYS[2]] == [7]
    assert home.published("sums")[DAYS[4]] == [7 + 81]
    beside = [f"{DAYS[0]}..{DAYS[2]}", f"{DAYS[4]}..{DAYS[6]}"]
    for name, days in stages_of(home).items():
        assert days == (beside[-1:] if name in ("train", "evaluate") else beside), name


def test_a_check_over_a_gap_judges_what_its_run_has_staged(home: Home) -> None:
    file = home._file(DAYS[3])
    landed = file.read_text()
    file.unlink()
    home.night(DAYS[2], first=DAYS[0])
    home.night(DAYS[6], first=DAYS[4], allow_gap=True)
    home.land(DAYS[5], 7)
    run = replace(home.run(DAYS[6], DAYS[0]), run_id="manual__1")
    home.performed.clear()
    with home._stages():
        assert night.run_night(run, STAGES[:1], allow_gap=True, notify=False) == 0
        # Between two tasks: staged by none, so judged by none.
        file.write_text(landed)
        assert night.run_night(run, STAGES[1:2], allow_gap=True, notify=False) == 0
    beside = [f"{DAYS[0]}..{DAYS[2]}", f"{DAYS[4]}..{DAYS[6]}"]
    assert stages_of(home)["check_raw"] == beside
    assert home.published("readings")[DAYS[5]] == [7]
    assert DAYS[3] not in home.published("readings")


def test_a_range_whose_files_are_all_gone_is_made_anew_from_its_raw_tables(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    for day in DAYS:
        home._file(day).unlink()
    home.definition = "another"
    home.performed.clear()
    assert home.restate(DAYS[0], DAYS[4], allow_gap=True) == 0
    assert "ingest" not in stages_of(home)
    assert stages_of(home)["check_clean"] == [f"{DAYS[0]}..{DAYS[4]}"]
    # A stage without anything to do is on record as that: the night is whole.
    recorded = ops.read(home.environment, "stage_runs", [("status", "=", "current")])
    assert set(recorded["stage"].to_pylist()) == {"ingest", "check_raw"}
    # A last night that was never made is what the run is about: its file is waited for.
    assert home.restate(DAYS[3], DAYS[5], allow_gap=True) == NotLanded.exit_code


@pytest.mark.parametrize("stages", [STAGES, select(["transform", "check_clean", "features"])])
def test_raw_rows_that_were_corrected_late_are_made_anew_for_every_night_that_sees_them(
    home: Home, stages: tuple[Stage, ...]
) -> None:
    home.definition = "first"
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    for day in DAYS:
        home._file(day).unlink()
    home.definition = "another"
    assert home.restate(DAYS[0], DAYS[4], allow_gap=True, stages=stages) == 0
    for name in ("marks", "sums", "training", "scoring"):
        seen = knowledge.visible(publications.every(home.run(DAYS[4]), name))
        assert {one.definition for one in seen} == {"another"}, name
    # As `--restate` with files does.
    assert home.as_of("marks", DAYS[1])[DAYS[1]] == [7]
    assert home.published("sums")[DAYS[2]] == [1 + 7 + 41]
    assert home.as_of("readings", DAYS[3])[DAYS[1]] == [10, 11]
    assert home.night(DAYS[4]) == 0
    assert not {"transform", "features"} & stages_of(home).keys()


def test_stages_after_ingest_make_no_night_that_was_never_read(home: Home) -> None:
    shape = select(["transform", "check_clean", "features"])
    hole = DAYS[2]
    file = home._file(hole)
    landed = file.read_text()
    file.unlink()
    assert home.night(DAYS[1], first=DAYS[0]) == 0
    assert home.night(DAYS[3], allow_gap=True) == 0

    def made() -> set[date]:
        names = ("marks", "sums", "training", "scoring")
        return set().union(*(home.published(name) for name in names))

    home.performed.clear()
    why = f"tiny/readings/{hole}.csv is not there"
    with pytest.raises(Refused, match=rf"\n  - {hole}: {why}\nStage 'ingest' reads them"):
        home.restate(DAYS[1], DAYS[3], stages=shape)
    assert not home.performed
    recorded = ops.read(home.environment, "stage_runs", [("status", "=", "refused")])
    assert recorded["stage"].to_pylist() == ["transform"]
    with home._stages():
        run = home.run(DAYS[3], DAYS[1])
        rows = plan(run, shape, is_exact=True).rows
    holes = [row[3:] for row in rows if row[1] == "hole"]
    assert holes == [(str(hole), why)]
    # Where gaps are allowed it is left out, but for a last night, which the run is about.
    assert home.restate(DAYS[1], DAYS[3], allow_gap=True, stages=shape) == 0
    beside = [str(DAYS[1]), str(DAYS[3])]
    assert stages_of(home)["features"] == beside
    with pytest.raises(Refused, match=why):
        home.restate(DAYS[1], hole, allow_gap=True, stages=shape)
    file.write_text(landed)
    with pytest.raises(Refused, match=f"  - {hole}: 'ingest' has not read its files"):
        home.restate(DAYS[1], DAYS[3], allow_gap=True, stages=shape)
    assert hole not in made()
    assert home.restate(DAYS[1], DAYS[3]) == 0
    assert home.restate(DAYS[1], DAYS[3], stages=shape) == 0
    assert hole in made()


def test_nights_in_any_order_make_what_one_pass_makes(home: Home, other: Home) -> None:
    for one in (home, other):
        one.promote(DAYS[0])
    assert other.night(DAYS[5], first=DAYS[0]) == 0
    served: dict[date, list[int]] = {}
    for number in (2, 0, 4, 1, 5):
        assert home.night(DAYS[number]) == 0
        served = home.published(PREDICTIONS) | served
    # What was served before there were the nights behind it stays, until a person says otherwise.
    assert home.published(PREDICTIONS) == served != other.published(PREDICTIONS)
    for day in DAYS[:6]:
        assert home.night(day, rescore=True) == 0
    require_alike(home, other, [DAYS[3]])


def test_a_file_that_was_only_touched_changes_nothing(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], *home.ids_in(DAYS[1]))
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_correction_that_keeps_the_time_and_the_size_of_its_file_is_seen(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    file = home._file(DAYS[1])
    before = file.stat()
    file.write_text("12\n13")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == [12, 13]
    file.chmod(0o600)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_file_that_was_recorded_by_its_time_alone_is_known_by_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before_marks:
        before_marks.setattr(publications, "mark", changed_ns)
        home.night(DAYS[2], first=DAYS[0])
    monkeypatch.delattr(publications, "digest_of_file")
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_files_that_were_marked_anew_are_read_once_more_and_no_more(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    days = DAYS[:3]
    for day in days:
        home.land(day, *home.ids_in(day))
    read: list[str] = []
    digest = publications.digest_of_file

    def counting(file: Path) -> str:
        read.append(file.name)
        return digest(file)

    monkeypatch.setattr(publications, "digest_of_file", counting)
    for _ in range(2):
        assert home.night(DAYS[2]) == 0
        assert home.performed == []
    assert sorted(read) == [f"{day}.csv" for day in days]
    # What is said since is read again: by its mark, though nobody reads the others.
    home.land(DAYS[1], 12, 13)
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == [12, 13]
    assert set(read[len(days) :]) == {f"{DAYS[1]}.csv"}


def test_files_that_were_marked_anew_are_read_once_for_all_homes_of_a_lake(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    for day in DAYS[:3]:
        home.land(day, *home.ids_in(day))
    # As each task in a Pod has one of its own.
    home.environment = replace(home.environment, home=tmp_path / "first")
    assert home.night(DAYS[2]) == 0
    home.environment = replace(home.environment, home=tmp_path / "second")
    monkeypatch.delattr(publications, "digest_of_file")
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_what_was_known_stays_known_where_a_store_fails_at_the_second_look(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        file.write_text(file.name)
    one, two = files
    digests = {file: publications.digest_of_file(file) for file in files}
    first = read_before.ReadBefore(home.environment, "tiny")
    first.digest(one, 1)
    first.keep()
    second = read_before.ReadBefore(home.environment, "tiny")
    second.digest(one, 1)
    with monkeypatch.context() as failing:
        failing.setattr(read_before.ReadBefore, "_kept", lambda _: {})
        second.digest(two, 1)
        second.keep()
    monkeypatch.delattr(publications, "digest_of_file")
    third = read_before.ReadBefore(home.environment, "tiny")
    assert {file: third.digest(file, 1) for file in files} == digests


def test_what_a_long_look_has_read_is_kept_before_it_ends(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_before, "_KEEP_SECONDS", 0)
    file = tmp_path / "file"
    file.write_text("rows")
    digest = read_before.ReadBefore(home.environment, "tiny").digest(file, 1)
    monkeypatch.delattr(publications, "digest_of_file")
    assert read_before.ReadBefore(home.environment, "tiny").digest(file, 1) == digest


def test_a_home_in_which_nothing_but_what_was_read_is_kept_is_private(
    home: Home, tmp_path: Path
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], *home.ids_in(DAYS[1]))
    fresh = tmp_path / "fresh"
    home.environment = replace(home.environment, home=fresh, jobs=fresh / "jobs")
    # The plan looks before the night makes anything.
    assert home.night(DAYS[2]) == 0
    assert fresh.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("is_folder", [False, True])
def test_where_what_was_read_cannot_be_kept_files_are_read_each_time(
    home: Home, *, is_folder: bool
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    kept = home.environment.jobs / "landed-files-tiny.json"
    kept.parent.mkdir(exist_ok=True)
    if is_folder:
        kept.mkdir()
    else:
        kept.write_text("no JSON")
    home.land(DAYS[1], *home.ids_in(DAYS[1]))
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    home.land(DAYS[1], 12, 13)
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == [12, 13]


def _quarantine(
    home: Home,
    day: date,
    ids: list[int],
    given: publications.Input,
    feed: str = "readings",
) -> None:
    """Have the quarantine of a feed hold these rows of a day, read from that file."""
    run = night._numbered(home.run(day).at(stage("ingest")))
    name = f"{feed}{QUARANTINE_SUFFIX}"
    origin = Origin(inputs={day: (given,)})
    commits.publish(run, name, _staged(run, name, {day: ids}, origin))


@pytest.mark.parametrize(
    ("own", "of_refused"),
    [
        ([], [1, 2]),
        ([1], [1, 2]),
        ([1], []),
    ],
)
def test_rows_in_quarantine_of_a_correction_that_was_taken_back_are_made_anew(
    home: Home, own: list[int], of_refused: list[int]
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    file = home._input(DAYS[1])
    if own:
        _quarantine(home, DAYS[1], own, file)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    # The refused file has gone, and that of before is there again: no input has changed.
    _quarantine(home, DAYS[1], of_refused, replace(file, digest="of the refused one"))
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    to_do = [row for row in rows if row[1] in ("stale", "due")]
    stale = [(row[0], *row[2:]) for row in to_do]
    why = "tiny.readings_quarantine is of another file"
    # What is published stays, and so does all that is made of it.
    assert stale == [("tiny.readings", 1, str(DAYS[1]), why)]
    assert home.night(DAYS[2]) == 0
    assert stages_of(home) == {
        "ingest": [str(DAYS[1])],
        "check_raw": [str(DAYS[1])],
    }
    _quarantine(home, DAYS[1], own, file)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_rows_in_quarantine_of_an_optional_file_that_was_withdrawn_go_with_it(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True)
    home.pipeline = replace(TINY, feeds=(optional, *TINY.feeds[1:]))
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    home.land(DAYS[1], 7)
    _quarantine(home, DAYS[1], [7], home._input(DAYS[1]))
    home._file(DAYS[1]).unlink()
    why = "tiny.readings_quarantine is of another file"
    stale = _told_of(home, "stale", DAYS[2])
    assert stale == [("tiny.readings", 1, str(DAYS[1]), why)]
    assert home.night(DAYS[2]) == 0
    assert set(stages_of(home)) == {"ingest", "check_raw"}
    run = home.run(DAYS[2])
    refused = publications.in_force(run, "readings" + QUARANTINE_SUFFIX)
    assert refused[DAYS[1]].rows == 0
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_published_file_that_nobody_may_read_any_more_is_told_as_a_changed_one(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    # As root may read every file, it is a folder here.
    home._file(DAYS[1]).unlink()
    home._file(DAYS[1]).mkdir()
    changed = f"tiny/readings/{DAYS[1]}.csv has changed; known from {DAYS[3]}"
    stale = _told_of(home, "stale")
    assert stale[0] == ("tiny.readings", 1, str(DAYS[1]), changed)


def test_the_plan_tells_of_a_file_that_nobody_may_look_at(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    # As root may look at every file, its name is longer than any can be here.
    home._file(DAYS[3]).unlink()
    home._file(DAYS[3]).symlink_to("x" * 300)
    missing = _told_of(home, "missing")
    assert missing[0] == ("tiny.readings", 1, str(DAYS[3]), "never published")


def test_the_plan_tells_no_night_of_a_gap_as_one_of_those_around_it(home: Home) -> None:
    home._file(DAYS[1]).unlink()
    run = home.run(DAYS[3], DAYS[0])

    def planned(state: str) -> list[tuple[object, ...]]:
        rows = plan(run, allow_gap=True).rows
        return [row[2:4] for row in rows if row[:2] == ("tiny.readings", state)]

    around = [(1, str(DAYS[0])), (2, f"{DAYS[2]}..{DAYS[3]}")]
    with home._stages():
        assert planned("missing") == around
        assert home.night(DAYS[3], first=DAYS[0], allow_gap=True) == 0
        assert planned("current") == around


def test_rows_in_quarantine_of_a_register_that_was_taken_back_are_made_anew(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    file = file_input("tiny/sensors.csv", DAYS[0], home._register)
    # Those of the snapshot are its own, as long as no other is known.
    _quarantine(home, DAYS[0], [1], file, "sensors")
    assert home.night(DAYS[3]) == 0
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    _quarantine(
        home,
        DAYS[2],
        [1, 2],
        replace(file, digest="of a refused one"),
        "sensors",
    )
    assert home.night(DAYS[3]) == 0
    assert stages_of(home) == {
        "ingest": [str(DAYS[2])],
        "check_raw": [str(DAYS[2])],
    }
    _quarantine(home, DAYS[2], [], file, "sensors")
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_the_plan_tells_of_days_with_more_bad_rows_than_are_allowed_by_now(home: Home) -> None:
    # One of the two rows of each of these days.
    home.refuses = lambda one: one in (11, 21)
    home.night(DAYS[3], first=DAYS[0])
    file = file_input("tiny/sensors.csv", DAYS[0], home._register)
    _quarantine(home, DAYS[0], [2], file, "sensors")
    assert not [row for row in _told_of(home, "current") if row[3]]
    lowered = [replace(feed, max_quarantine_share=0.4) for feed in TINY.feeds]
    home.pipeline = replace(TINY, feeds=tuple(lowered))
    why = (
        "more of its rows are bad than the 40.0% that it allows by now (max_quarantine_share); "
        "they were accepted and stay, and --restate refuses them"
    )
    told = [row for row in _told_of(home, "current") if row[3]]
    assert told == [
        ("tiny.readings", 2, f"{DAYS[1]}..{DAYS[2]}", why),
        ("tiny.sensors", 1, str(DAYS[3]), why),
    ]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_a_quarantine_of_a_register_whose_folder_is_gone_is_made_again_from_its_file(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    file = file_input("tiny/sensors.csv", DAYS[0], home._register)
    _quarantine(home, DAYS[0], [1], file, "sensors")
    run = home.run(DAYS[3])
    name = f"sensors{QUARANTINE_SUFFIX}"
    shutil.rmtree(path(run, name))
    why = f"tiny.{name} {LOST}"
    assert _told_of(home, "stale") == [("tiny.sensors", 1, str(DAYS[3]), why)]
    assert home.night(DAYS[3]) == 0
    assert stages_of(home) == {
        "ingest": [str(DAYS[3])],
        "check_raw": [str(DAYS[3])],
    }
    _quarantine(home, DAYS[0], [1], file, "sensors")
    publications.forget_made_anew(run, name, [DAYS[0]])
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_a_quarantine_whose_folder_is_gone_is_made_again_from_the_files(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    refused = DAYS[1:4]
    for day in refused:
        _quarantine(home, day, [1, 2], home._input(day))
    run = home.run(DAYS[3])
    name = f"readings{QUARANTINE_SUFFIX}"
    shutil.rmtree(path(run, name))
    why = f"tiny.{name} {LOST}"
    assert _told_of(home, "stale") == [("tiny.readings", 3, f"{DAYS[1]}..{DAYS[3]}", why)]
    assert home.night(DAYS[3]) == 0
    assert stages_of(home) == {
        "ingest": [f"{DAYS[1]}..{DAYS[2]}", str(DAYS[3])],
        "check_raw": [f"{DAYS[1]}..{DAYS[2]}", str(DAYS[3])],
    }
    # Killed after ingestion has put the rows of one day there, and before the check.
    _quarantine(home, DAYS[1], [1, 2], home._input(DAYS[1]))
    assert _told_of(home, "stale") == [("tiny.readings", 3, f"{DAYS[1]}..{DAYS[3]}", why)]
    publications.forget_made_anew(run, name, [DAYS[1]])
    assert _told_of(home, "stale") == [("tiny.readings", 2, f"{DAYS[2]}..{DAYS[3]}", why)]
    # A file that is gone cannot be read again; and another one has other rows to be refused.
    home._file(DAYS[2]).unlink()
    home.land(DAYS[3], 7)
    assert home.night(DAYS[3]) == 0
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    gone = f"{why}, and cannot be read: tiny/readings/{DAYS[2]}.csv is not there"
    assert ("tiny.readings", 1, str(DAYS[2]), gone) in _told_of(home, "current")


def _told_of(
    home: Home,
    state: str,
    last: date = DAYS[3],
) -> list[tuple[object, ...]]:
    """What the plan tells of nights in that state, without the state."""
    with home._stages():
        rows = plan(home.run(last)).rows
    return [(what, *more) for what, told, *more in rows if told == state]


def test_rows_of_a_made_table_that_were_refused_and_lost_are_refused_again(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    run = night._numbered(home.run(DAYS[1]).at(stage("transform")))
    name = f"marks{QUARANTINE_SUFFIX}"
    made = publications.in_force(run, "marks")[DAYS[1]]
    origin = Origin(definition=made.definition, inputs={DAYS[1]: made.inputs})
    waiting = _staged(run, name, {DAYS[1]: [1]}, origin)
    commits.publish(run, name, waiting)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    shutil.rmtree(path(run, name))
    assert home.night(DAYS[2]) == 0
    made_again = [str(DAYS[1])]
    assert stages_of(home) == {"transform": made_again, "check_clean": made_again}
    publications.forget_made_anew(run, name, [DAYS[1]])
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_file_without_bad_rows_needs_no_quarantine(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    _quarantine(home, DAYS[1], [1], home._input(DAYS[1]))
    home.land(DAYS[1], 7)
    _quarantine(home, DAYS[1], [], home._input(DAYS[1]))
    home.land(DAYS[1], 8)
    assert home.night(DAYS[2]) == 0
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_file_that_says_the_same_in_other_words_ends_at_its_own_table(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], *reversed(home.ids_in(DAYS[1])))
    assert home.night(DAYS[2]) == 0
    assert set(stages_of(home)) == {"ingest", "check_raw"}
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_hole_is_refused_by_name_until_it_is_filled_or_allowed(home: Home) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    with pytest.raises(Refused, match=r"1 night\(s\) before 2013-01-07 .*\n.*2013-01-06: tiny/rea"):
        home.night(DAYS[2])
    assert home.performed == []
    assert home.night(DAYS[2], allow_gap=True) == 0
    assert home.published("sums")[DAYS[2]] == [1 + 41]
    # Accepted once: no later night asks again.
    assert home.night(DAYS[3]) == 0
    home.land(DAYS[1], 5)
    assert home.night(DAYS[4]) == 0
    # It came late: as nights truly were that went on without it.
    assert home.published("sums")[DAYS[2]] == [1 + 41]
    assert home.published("sums")[DAYS[1]] == [1]
    assert home.published("marks")[DAYS[1]] == [5]
    assert list(home.published("readings")) == DAYS[:5]


def test_a_gap_in_a_range_is_allowed_as_it_is_to_its_nights_in_order(
    home: Home, other: Home
) -> None:
    for one in (home, other):
        one.promote(DAYS[0])
        one._file(DAYS[2]).unlink()
    for number in range(5):
        code = other.night(DAYS[number], allow_gap=True)
        assert code == (NotLanded.exit_code if number == 2 else 0)
    # Not allowed: the range waits for its file.
    assert home.night(DAYS[4], first=DAYS[0]) == NotLanded.exit_code
    assert home.published("readings") == {}
    assert home.night(DAYS[4], first=DAYS[0], allow_gap=True) == 0
    for one in (home, other):
        one.land(DAYS[2], 5)
    for last in (DAYS[4], DAYS[5]):
        assert home.night(last) == other.night(last) == 0
        require_alike(home, other, DAYS[:6])


def test_the_file_of_a_ranges_last_night_is_waited_for_also_where_gaps_are_allowed(
    home: Home,
) -> None:
    home._file(DAYS[2]).unlink()
    assert home.night(DAYS[2], first=DAYS[0], allow_gap=True) == NotLanded.exit_code


def test_a_hole_is_recorded_and_told_as_a_refusal_of_the_first_stage(home: Home) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    run = home.run(DAYS[2])
    with pytest.raises(Refused) as refused:
        night.make_true(run, STAGES)
    of_run = [("run_id", "=", run.run_id)]
    (row,) = ops.read(home.environment, "stage_runs", of_run).to_pylist()
    recorded = (row["stage"], row["status"], row["first_day"], row["last_day"])
    assert recorded == ("ingest", "refused", DAYS[2], DAYS[2])
    assert row["error"] == str(refused.value)
    log = home.environment.logs / "notifications.log"
    (told,) = map(json.loads, log.read_text().splitlines())
    about = (told["event"], told["stage"], told["message"])
    assert about == ("stage_refused", "ingest", str(refused.value))


def test_a_night_of_an_optional_feed_is_no_hole_and_its_late_file_is_read(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True)
    home.pipeline = replace(TINY, feeds=(optional, *TINY.feeds[1:]))
    home.night(DAYS[0])
    ids = home.ids_in(DAYS[1])
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == []
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    home.land(DAYS[1], *ids)
    assert home.night(DAYS[2]) == 0
    assert home.published("readings")[DAYS[1]] == ids


def test_an_old_day_of_an_optional_feed_is_read_when_its_marker_is_there_too(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True, marker="{date}.done")
    home.pipeline = replace(TINY, feeds=(optional, *TINY.feeds[1:]))
    for day in DAYS:
        home.mark(day)
    ids = home.ids_in(DAYS[1])
    home._file(DAYS[1]).unlink()
    home._marker(DAYS[1]).unlink()
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    assert home.published("readings")[DAYS[1]] == []
    home.land(DAYS[1], *ids)
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == []
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
    of_readings = [row[4] for row in rows if row[0] == "tiny.readings"]
    (told,) = filter(None, of_readings)
    assert told == (
        "tiny/readings/2013-01-06.csv has landed, and cannot be read: tiny/2013-01-06.done "
        "is not there"
    )
    home.mark(DAYS[1])
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == ids


def test_a_corrected_file_is_read_when_its_marker_has_come_again(home: Home) -> None:
    marked = replace(TINY.feeds[0], marker="{date}.done")
    home.pipeline = replace(TINY, feeds=(marked, *TINY.feeds[1:]))
    for day in DAYS:
        # In any order, as where files are copied: of a first delivery both only have to be there.
        home.mark(day)
    arrivals: dict[Path, int] = {}

    def arrived(path: Path) -> datetime:
        return datetime.fromtimestamp(arrivals.get(path, 1), UTC)

    with pytest.MonkeyPatch.context() as patched:
        # The file system's clock cannot be set.
        patched.setattr(knowledge, "arrival", arrived)
        assert home.night(DAYS[2], first=DAYS[0]) == 0
        home.land(DAYS[1], 7)
        arrivals[home._file(DAYS[1])] = 3
        assert home.night(DAYS[3]) == 0
        assert home.published("readings")[DAYS[1]] == [10, 11]
        with home._stages():
            rows = plan(home.run(DAYS[3])).rows
        of_readings = [row[4] for row in rows if row[0] == "tiny.readings"]
        (told,) = filter(None, of_readings)
        assert str(told).endswith("cannot be read: tiny/2013-01-06.done is older than its file")
        home.mark(DAYS[1])
        arrivals[home._marker(DAYS[1])] = 3
        assert home.night(DAYS[3]) == 0
        assert home.published("readings")[DAYS[1]] == [7]


def test_a_missed_night_whose_optional_file_is_announced_is_a_hole(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True, marker="{date}.done")
    home.pipeline = replace(TINY, feeds=(optional, *TINY.feeds[1:]))
    for day in DAYS:
        home.mark(day)
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    with pytest.raises(Refused, match=r"2013-01-06: tiny/readings/2013-01-06.csv"):
        home.night(DAYS[2])
    assert home.night(DAYS[2], allow_gap=True) == 0


@pytest.mark.parametrize(
    "more",
    [{"first_day": DAYS[3]}, {"is_optional": True}],
)
@pytest.mark.parametrize("are_gone", [False, True])
def test_a_feed_that_is_declared_later_asks_for_no_file_of_nights_that_were_made(
    home: Home, more: dict[str, Any], are_gone: bool
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    before = {name: home.published(name) for name in ("marks", "sums", "training")}
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv", **more)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home._write(home.environment.landing / "tiny" / late.file(DAYS[3]), ())
    if are_gone:
        # Whoever lands files may tidy up what was read long ago.
        for day in DAYS[:3]:
            home._file(day).unlink()
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
    missing = [row[2] for row in rows if row[:2] == ("tiny.late", "missing")]
    assert missing == [1]
    current = [row for row in rows if row[:2] == ("tiny.late", "current")]
    without = [row[2:4] for row in current]
    assert without == [(3, f"{DAYS[0]}..{DAYS[2]}")]
    assert home.night(DAYS[3]) == 0
    # An old night is neither read nor judged once more.
    assert stages_of(home)["ingest"] == [str(DAYS[3])]
    made = {name: home.published(name) for name in before}
    found = {name: list(days)[:3] for name, days in made.items()}
    assert found == dict.fromkeys(before, DAYS[:3])
    assert made["sums"][DAYS[3]] == [21 + 41 + 61]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    if are_gone:
        # So it is where such a night is named.
        assert home.night(DAYS[2], first=DAYS[0]) == 0
        assert home.performed == []
        assert home.night(DAYS[2], rescore=True) == 0
        assert stages_of(home)["predict"] == [str(DAYS[2])]


def test_a_correction_has_the_files_of_its_own_feed_read_alone(home: Home) -> None:
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    for day in DAYS[:5]:
        home.land_of("other", day, 5)
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    of_other = publications.in_force(home.run(DAYS[3]), "other")
    home.land(DAYS[0], 7)
    home.land_of("other", DAYS[1], 8)
    home.land(DAYS[2], 7)
    home.land_of("other", DAYS[2], 8)
    run = home.run(DAYS[4])
    found = survey.Survey(run)
    planned = of_stage(run, STAGES[0], found)
    asked = {one.days.first: one.tables for one in planned}
    assert asked == {
        DAYS[0]: ("readings",),
        DAYS[1]: ("other",),
        DAYS[2]: ("readings", "other"),
        DAYS[4]: (),
    }
    assert home.night(DAYS[4]) == 0
    rows = home.published("other")
    corrected = [day for day, ids in rows.items() if ids == [8]]
    assert corrected == DAYS[1:3]
    now = publications.in_force(home.run(DAYS[4]), "other")
    stay = [day for day, before in of_other.items() if now[day] == before]
    assert stay == [DAYS[0], DAYS[3]]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_a_raw_table_that_is_lost_has_the_files_of_its_own_feed_read_alone(home: Home) -> None:
    _with_another_feed(home)
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    of_other = publications.in_force(home.run(DAYS[3]), "other")
    shutil.rmtree(path(home.run(DAYS[3]), "readings"))
    run = home.run(DAYS[4])
    planned = of_stage(run, STAGES[0], survey.Survey(run))
    assert [(one.days, one.tables) for one in planned] == [
        (Days(DAYS[0], DAYS[3]), ("readings",)),
        (Days.of(DAYS[4]), ()),
    ]
    assert home.night(DAYS[4]) == 0
    now = publications.in_force(home.run(DAYS[4]), "other")
    assert {day: one for day, one in now.items() if day < DAYS[4]} == of_other
    assert set(home.published("readings")) == set(DAYS[:5])


def test_a_day_that_is_asked_for_by_name_has_what_changed_read_alone(home: Home) -> None:
    _with_another_feed(home)
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.land_of("other", DAYS[1], 8)
    run = home.run(DAYS[2], DAYS[0])
    (planned,) = of_stage(run, STAGES[0], survey.Survey(run))
    assert (planned.days, planned.tables) == (Days.of(DAYS[1]), ("other",))
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    assert home.as_of("other", DAYS[1])[DAYS[1]] == [8]


def test_a_feed_that_is_named_anew_is_read_for_every_night_that_was_made(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    anew = replace(TINY.feeds[0], name="anew")
    marks = replace(MARKS, reads=("anew",))
    home.pipeline = replace(
        TINY,
        feeds=(anew, *TINY.feeds[1:]),
        derived=(marks, SUMS),
        entity_table="anew",
    )
    assert _told_of(home, "missing", DAYS[3])[0][:3] == (
        "tiny.anew",
        4,
        f"{DAYS[0]}..{DAYS[3]}",
    )
    # What nobody can read any more is told as ever.
    home._file(DAYS[1]).unlink()
    run = home.run(DAYS[3])
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/readings/{DAYS[1]}.csv"):
        require_no_hole(run, survey.Survey(run))


def test_stages_after_ingest_make_nights_anew_that_lack_a_feed_that_was_declared_later(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    shape = select(["transform", "check_clean", "features"])
    home.performed.clear()
    assert home.restate(DAYS[0], DAYS[2], stages=shape) == 0
    assert stages_of(home)["features"] == [f"{DAYS[0]}..{DAYS[2]}"]


def test_a_changed_file_of_before_the_first_day_of_its_feed_is_told_and_not_read(
    home: Home,
) -> None:
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    folder = home.environment.landing / "tiny"
    files = [folder / other.file(day) for day in DAYS[:3]]
    for file in files:
        home._write(file, (1,))
    home.night(DAYS[2], first=DAYS[0])
    before = home.published("other")
    later = replace(other, first_day=DAYS[1])
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, later))
    home._write(files[0], (2,))
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    reasons = [row[4] for row in rows if row[:2] == ("tiny.other", "current")]
    assert "its feed is declared to have no drop of that day; its rows stay" in reasons
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    assert home.published("other") == before


@pytest.mark.parametrize("is_gone", [False, True])
def test_what_was_refused_of_a_day_that_a_feed_has_no_more_keeps_no_night_busy(
    home: Home, is_gone: bool
) -> None:
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    file = home.environment.landing / "tiny" / other.file(DAYS[0])
    for day in DAYS[:3]:
        home._write(file.with_name(f"{day}.csv"), (1,))
    home.night(DAYS[2], first=DAYS[0])
    own = file_input(f"tiny/{other.file(DAYS[0])}", DAYS[0], file)
    refused = replace(own, digest="of one that was refused")
    _quarantine(home, DAYS[0], [1, 2], refused, "other")
    later = replace(other, first_day=DAYS[1])
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, later))
    if is_gone:
        file.unlink()
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    told = [row[4] for row in rows if row[:2] == ("tiny.other", "current")]
    assert "its feed is declared to have no drop of that day; its rows stay" in told
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_feed_that_is_declared_without_its_first_day_is_refused_with_the_way_out(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home._write(home.environment.landing / "tiny" / late.file(DAYS[3]), ())
    way_out = r"Of a feed that is new \(late\) declare the first_day"
    with pytest.raises(Refused, match=way_out):
        home.night(DAYS[3])
    began = replace(late, first_day=DAYS[3])
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, began))
    assert home.night(DAYS[3]) == 0
    home._file(DAYS[4]).unlink()
    with pytest.raises(Refused, match="lack files") as refused:
        home.night(DAYS[5])
    assert "first_day" not in str(refused.value)


def test_a_late_drop_is_read_though_the_nights_other_files_are_gone(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home.land_of("late", DAYS[1], 7)
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["ingest"] == [str(DAYS[1]), str(DAYS[3])]
    assert home.published("late")[DAYS[1]] == [7]
    assert home.published("readings")[DAYS[1]] == [10, 11]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_a_late_drop_of_the_runs_own_night_is_told_where_other_files_are_gone(home: Home) -> None:
    """The files of a night that is named, and not whole, are read together."""
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home.land_of("late", DAYS[1], 7)
    home._file(DAYS[1]).unlink()
    with home._stages():
        rows = plan(home.run(DAYS[1])).rows
    told = [row[4] for row in rows if row[:2] == ("tiny.late", "current")]
    why = "has landed, and cannot be read: tiny/readings/2013-01-06.csv is not there"
    assert f"tiny/late/2013-01-06.csv {why}" in told
    assert home.night(DAYS[1]) == 0


def test_a_correction_is_read_though_the_file_of_another_feed_is_gone(home: Home) -> None:
    optional = replace(TINY.feeds[0], is_optional=True)
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(optional, other, *TINY.feeds[1:]))
    for day in DAYS:
        home.land_of("other", day)
    home.night(DAYS[2], first=DAYS[0])
    home._file(DAYS[1]).unlink()
    home.land_of("other", DAYS[1], 7)
    home.land_of("other", DAYS[2], 8)
    assert home.night(DAYS[3]) == 0
    assert home.published("other")[DAYS[1]] == [7]
    assert home.published("readings")[DAYS[1]] == [10, 11]
    # So it is where its day is asked for by name, which reads nothing else either.
    home.land_of("other", DAYS[1], 9)
    assert home.night(DAYS[1]) == 0
    assert home.as_of("other", DAYS[1])[DAYS[1]] == [9]
    assert home.published("readings")[DAYS[1]] == [10, 11]
    assert home.restate(DAYS[0], DAYS[2], allow_gap=True) == 0
    assert home.published("readings")[DAYS[1]] == [10, 11]
    # Once it is there again, or one without rows in its place, it is read.
    home.land(DAYS[1])
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == []


def test_a_feed_that_has_lost_its_table_is_not_taken_for_one_that_was_declared_later(
    home: Home,
) -> None:
    optional = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, optional))
    home.night(DAYS[2], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "late"))
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[2]) == 0
    # Of nights before its own it is read alone, so that no other file is asked for.
    assert stages_of(home)["ingest"] == [f"{DAYS[0]}..{DAYS[1]}", str(DAYS[2])]
    assert set(home.published("late")) == set(DAYS[:3])


def test_rows_of_an_optional_file_that_are_lost_together_with_it_are_a_hole(home: Home) -> None:
    optional = replace(TINY.feeds[0], name="late", path="late/{date}.csv", is_optional=True)
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, optional))
    home.land_of("late", DAYS[1], 7)
    home.night(DAYS[2], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "late"))
    home._file(DAYS[1], "late").unlink()
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/late/{DAYS[1]}.csv"):
        home.night(DAYS[3])
    # Once a person says that it has none, the night has none.
    home.land_of("late", DAYS[1])
    assert home.night(DAYS[3]) == 0
    assert home.published("late")[DAYS[1]] == []
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_of_an_old_night_the_file_of_a_feed_declared_since_is_asked_for_alone(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    new = replace(TINY.feeds[0], name="new", path="new/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, new))
    for day in DAYS[:4]:
        home._write(home.environment.landing / f"tiny/new/{day}.csv", ())
    file = home._file(DAYS[1], "new")
    file.rename(file.with_suffix(".away"))
    home._file(DAYS[1]).unlink()
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/new/{DAYS[1]}.csv\n(?s:.*)declare"):
        home.night(DAYS[3])
    file.with_suffix(".away").rename(file)
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["ingest"] == [f"{DAYS[0]}..{DAYS[2]}", str(DAYS[3])]
    assert home.published("readings")[DAYS[1]] == [10, 11]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def _with_another_feed(home: Home) -> None:
    """A second daily feed, whose files of all days have landed."""
    other = replace(TINY.feeds[0], name="other", path="other/{date}.csv")
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, other))
    for day in DAYS:
        home._write(home.environment.landing / f"tiny/other/{day}.csv", ())


def test_a_night_killed_between_its_raw_tables_is_a_hole_once_a_file_that_it_lacks_is_gone(
    home: Home,
) -> None:
    _with_another_feed(home)
    home.night(DAYS[0])
    home.publishes_until_kill = 0
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[1])
    home._waiting.clear()
    home._file(DAYS[1]).unlink()
    home._file(DAYS[1], "other").unlink()
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/other/{DAYS[1]}.csv\n"):
        home.night(DAYS[2])
    assert home.night(DAYS[2], allow_gap=True) == 0
    assert home.night(DAYS[2], allow_gap=True) == 0
    assert home.performed == []
    # What it has of the other feed needs no file any more.
    home.land_of("other", DAYS[1], 5)
    assert home.night(DAYS[2]) == 0
    assert home.published("other")[DAYS[1]] == [5]


@pytest.mark.parametrize("is_gone", [False, True])
def test_stages_after_ingest_make_no_night_that_was_killed_between_its_raw_tables(
    home: Home, is_gone: bool
) -> None:
    _with_another_feed(home)
    home.night(DAYS[0])
    home.publishes_until_kill = 0
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[1])
    home._waiting.clear()
    assert DAYS[1] in home.published("readings")
    assert DAYS[1] not in home.published("other")
    why = "'ingest' has not read its files"
    if is_gone:
        (home.environment.landing / f"tiny/other/{DAYS[1]}.csv").unlink()
        why = f"tiny/other/{DAYS[1]}.csv is not there"
    home.performed.clear()
    shape = select(["transform", "check_clean", "features"])
    with pytest.raises(Refused, match=f"  - {DAYS[1]}: {why}"):
        home.restate(DAYS[1], DAYS[1], stages=shape)
    assert not home.performed


def test_stages_after_ingest_make_no_night_of_a_first_load_that_was_killed_between_raw_tables(
    home: Home,
) -> None:
    _with_another_feed(home)
    # The register is the first that is published.
    home.publishes_until_kill = 1
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[1], first=DAYS[0])
    home._waiting.clear()
    assert list(home.published("readings")) == DAYS[:2]
    assert not home.published("other")
    home.performed.clear()
    shape = select(["transform", "check_clean", "features"])
    for day in DAYS[:2]:
        with pytest.raises(Refused, match=f"  - {day}: 'ingest' has not read its files"):
            home.restate(day, day, stages=shape)
    assert not home.performed
    # The next night makes them whole, each as it would have been.
    assert home.night(DAYS[2]) == 0
    for day in DAYS[:3]:
        assert day in home.as_of("other", day)
    assert home.restate(DAYS[1], DAYS[1], stages=shape) == 0


def test_stages_after_ingest_make_no_night_that_has_lost_a_raw_table(home: Home) -> None:
    _with_another_feed(home)
    home.night(DAYS[1], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "other"))
    shape = select(["transform", "check_clean", "features"])
    with pytest.raises(Refused, match=f"  - {DAYS[1]}: 'ingest' has not read its files"):
        home.restate(DAYS[1], DAYS[1], stages=shape)


def test_a_night_whose_own_file_is_late_says_so_and_makes_nothing(home: Home) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[1]) == NotLanded.exit_code
    assert list(home.published("readings")) == DAYS[:1]


def test_the_plan_tells_of_a_changed_register_whose_marker_has_not_come_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings, sensors = TINY.feeds
    home.pipeline = replace(TINY, feeds=(readings, replace(sensors, marker="sensors.done")))
    marker = home.environment.landing / "tiny/sensors.done"
    home._write(marker, ())
    home.night(DAYS[1], first=DAYS[0])
    home.land_register(2)
    arrivals = {home._register: 3, marker: 2}

    def arrived(path: Path) -> datetime:
        return datetime.fromtimestamp(arrivals.get(path, 1), UTC)

    monkeypatch.setattr(knowledge, "arrival", arrived)
    reasons = [row[3] for row in _told_of(home, "current", DAYS[1])]
    (told,) = filter(None, reasons)
    assert told == (
        "tiny/sensors.csv has changed: its rows of before stay until tiny/sensors.done comes again"
    )
    # A correction is read in spite of it.
    home.land(DAYS[0], 7)
    assert home.night(DAYS[1]) == 0
    assert home.published("readings")[DAYS[0]] == [7]
    arrivals[marker] = 3
    assert home.night(DAYS[2]) == 0
    assert home.register_of(DAYS[2]) == [2]


def test_a_reference_file_that_a_kill_left_unrecorded_is_recorded_though_it_never_changes(
    home: Home,
) -> None:
    home.land(DAYS[0], 1)
    home.publishes_until_kill = 0
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[0])
    # What it had staged is gone with the run.
    home._waiting.clear()
    assert _on_record(home) == set()
    assert home.registered() == {DAYS[0]: [1]}
    assert home.night(DAYS[0]) == 0
    assert home.registered() == {DAYS[0]: [1]}
    assert {"tiny.readings", "tiny.sensors"} <= _on_record(home)


def test_what_was_never_recorded_is_recorded_by_a_night_that_has_nothing_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.land(DAYS[0], 1)
    home.promote(DAYS[0])
    with monkeypatch.context() as failing:
        failing.setattr(publications, "record", lambda *_: None)
        assert home.night(DAYS[0]) == 0
    assert _on_record(home) == set()
    assert home.night(DAYS[0]) == 0
    assert home.performed == []
    tables = {table.name for table in TINY.tables}
    assert _on_record(home) == {f"tiny.{name}" for name in tables}
    rows = _publications(home).num_rows
    assert home.night(DAYS[0]) == 0
    assert _publications(home).num_rows == rows


def _publications(home: Home) -> pa.Table:
    return ops.read(home.environment, "publications")


def _on_record(home: Home) -> set[str]:
    """The tables that `ops.publications` tells of."""
    return set(_publications(home)["table_name"].to_pylist())


def test_a_killed_night_goes_on_where_it_stopped(home: Home) -> None:
    home.night(DAYS[0])
    home.publishes_until_kill = 1
    with pytest.raises(KeyboardInterrupt):
        home.night(DAYS[1])
    assert home.night(DAYS[1]) == 0
    assert "ingest" not in stages_of(home)
    assert home.published("sums")[DAYS[1]] == [1 + 21]


def test_what_was_served_stays_though_all_that_it_was_made_from_has_changed(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[3], first=DAYS[0])
    served = home.published(PREDICTIONS)
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3]) == 0
    made = stages_of(home)
    assert made["transform"] == [str(DAYS[1]), str(DAYS[3])]
    assert "predict" not in made
    assert home.published(PREDICTIONS) == served
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_what_was_served_stays_when_its_model_is_rolled_back(home: Home) -> None:
    home.promote(DAYS[0], "1")
    home.promote(DAYS[1], "2")
    home.night(DAYS[3], first=DAYS[0])
    served = home.published(PREDICTIONS)
    rollback(home.environment, TINY, None, Said(who="alice", why="odd"))
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    assert home.published(PREDICTIONS) == served


def test_nights_that_await_the_first_model_are_scored_when_a_person_lets_it_serve(
    home: Home,
) -> None:
    home.awaits_model = True
    home.await_person(DAYS[1], "7")
    assert home.night(DAYS[2], first=DAYS[0]) == AwaitsApproval.exit_code
    # Each time, as long as nobody has decided.
    assert home.night(DAYS[2]) == AwaitsApproval.exit_code
    waiting = str(Days(DAYS[1], DAYS[2]))
    assert stages_of(home) == {"predict": [waiting]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(survey, "definitions", _definitions)
        planned = plan(home.run(DAYS[2]))
    (row,) = [row for row in planned.rows if row[0] == "tiny.predictions"]
    why = "no model serves yet: nightshift approve tiny 7 --why TEXT"
    assert row[1:] == ("awaits approval", 2, waiting, why)
    assert f"- awaits approval {row[3]}: predictions ({why})" in planned.summary
    approve(home.environment, TINY, "7", Said(who="alice", why="seen"))
    home.awaits_model = False
    assert home.night(DAYS[3]) == 0
    assert list(home.published(PREDICTIONS)) == DAYS[2:5]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_nights_of_before_the_model_that_a_person_chose_await_nothing(home: Home) -> None:
    for number in range(3):
        home.await_person(DAYS[number], str(number))
    approve(home.environment, TINY, "2", Said(who="alice", why="the best"))
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    assert list(home.published(PREDICTIONS)) == DAYS[3:5]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_the_runs_own_nights_are_scored_again_when_a_person_says_so(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[3], first=DAYS[0])
    served = home.published(PREDICTIONS)
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3], rescore=True) == 0
    assert stages_of(home)["predict"] == [str(DAYS[3])]
    revised = home.published(PREDICTIONS)
    of_tomorrow = DAYS[4]
    assert revised[of_tomorrow] == home.published("sums")[DAYS[3]] != served[of_tomorrow]
    assert {**revised, of_tomorrow: served[of_tomorrow]} == served
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_what_was_measured_of_predictions_that_are_scored_again_is_measured_again(
    home: Home,
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[4], first=DAYS[0])
    # Labels of what the second night foretold came, and some of them two days late.
    for landed in (DAYS[2], DAYS[4]):
        row = {"pipeline": "tiny", "event_date": DAYS[2], "landed_date": landed}
        ops.append(home.environment, "live_quality", [row])
    home.predicted = lambda total: total + 1
    assert home.night(DAYS[1], rescore=True) == 0
    # What the night foretold is watched anew; it knows no label yet.
    assert stages_of(home)["monitor"] == [str(DAYS[1])]
    with home._stages():
        rows = plan(home.run(DAYS[4])).rows
    why = "not measured since its labels or predictions were published"
    of_monitor = [row for row in rows if row[0] == "monitor"]
    told = [row[3:] for row in of_monitor]
    # Not the night between them, which was compared with it and stays what people were told by.
    days = (str(DAYS[2]), str(DAYS[4]))
    assert told == [(day, why) for day in days]
    assert home.night(DAYS[4]) == 0
    assert stages_of(home) == {"monitor": [*days]}
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
    # Scored again by a model that says the same, they are those that were measured.
    assert home.night(DAYS[1], rescore=True) == 0
    assert "monitor" not in stages_of(home)
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_labels_that_came_before_their_predictions_are_measured_by_the_next_night(
    home: Home,
) -> None:
    # Of the day that this leaves out labels have come, and nothing was there to be measured.
    without_model(home)
    assert home.night(DAYS[4], first=DAYS[3]) == 0
    home.other_label = set()
    assert home.night(DAYS[1]) == 0
    assert home.published(PREDICTIONS)[DAYS[2]]
    assert stages_of(home)["monitor"] == [str(DAYS[1])]
    # Nobody knows on which of these nights labels of the day landed.
    assert home.night(DAYS[5]) == 0
    assert stages_of(home)["monitor"] == [f"{DAYS[2]}..{DAYS[5]}"]
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def test_predictions_that_were_served_and_are_lost_are_scored_again_by_a_persons_word_alone(
    home: Home,
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.night(DAYS[2], first=DAYS[1], rescore=True)
    place = path(home.run(DAYS[0]), PREDICTIONS)
    shutil.rmtree(place)
    lost = [(f"tiny.{PREDICTIONS}", 3, f"{DAYS[0]}..{DAYS[2]}", f"{LOST}; {RESCORE}")]
    assert _told_of(home, "missing", DAYS[2]) == lost
    # Tomorrow is not scored either: a folder from a backup would not hold that.
    for _ in range(2):
        assert home.night(DAYS[3]) == Refused.exit_code
    assert home.restate(DAYS[0], DAYS[3]) == Refused.exit_code
    assert home.published(PREDICTIONS) == {}
    with pytest.raises(Refused) as refused:
        served.require_not_lost(home.run(DAYS[3], DAYS[0]))
    assert str(refused.value) == (
        f"tiny.predictions has lost what was served for 3 day(s), the first is {DAYS[1]}: "
        f"ops.publications tells of it, and {place} does not hold it any more. What models say of "
        "these days now would pass as what was served. Nothing was published. Restore that folder "
        "from a backup, and run again. Or publish what is said now, as a later revision: "
        f"nightshift run tiny --from {DAYS[0]} --to {DAYS[2]} --rescore"
    )
    # Days of which a person says nothing stay lost, and are told.
    assert home.night(DAYS[2], first=DAYS[1], rescore=True) == Refused.exit_code
    assert list(home.published(PREDICTIONS)) == DAYS[2:4]
    assert home.night(DAYS[3]) == Refused.exit_code
    assert home.night(DAYS[0], rescore=True) == 0
    assert home.night(DAYS[3]) == 0
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    # What took the place of a first and a second revision is none of the two.
    told = datasets.history(home.environment, f"tiny.{PREDICTIONS}").to_table().to_pylist()
    column = partition(home.run(DAYS[0]), PREDICTIONS)
    assert {row[column]: row["revision"] for row in told} == {
        DAYS[1]: 2,
        DAYS[2]: 3,
        DAYS[3]: 3,
        DAYS[4]: 1,
    }


def test_predictions_that_are_lost_of_before_a_first_day_that_was_moved_refuse_no_night(
    home: Home,
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    # A pipeline that begins anew by the same name: what it had is gone.
    for name in ("readings", "marks", "sums", "training", "scoring", PREDICTIONS):
        shutil.rmtree(path(home.run(DAYS[0]), name))
    for day in DAYS[:3]:
        home._file(day).unlink()
    home.pipeline = replace(TINY, first_day=DAYS[3])
    assert home.night(DAYS[4], first=DAYS[3]) == 0
    assert list(home.published(PREDICTIONS)) == DAYS[4:6]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []
    # With them it had lost these nights again.
    home.pipeline = replace(TINY, first_day=DAYS[2])
    home.land(DAYS[2], 7)
    assert home.night(DAYS[4]) == Refused.exit_code


def test_predictions_that_come_back_from_a_backup_are_those_that_were_served(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    before = home.published(PREDICTIONS)
    place = path(home.run(DAYS[0]), PREDICTIONS)
    backup = shutil.move(place, f"{home.environment.home}/backup")
    assert home.night(DAYS[2]) == Refused.exit_code
    shutil.move(backup, place)
    assert home.published(PREDICTIONS) == before
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_revision_that_a_backup_does_not_have_is_scored_again_by_a_persons_word_alone(
    home: Home,
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    place = path(home.run(DAYS[0]), PREDICTIONS)
    backup = shutil.copytree(place, f"{home.environment.home}/backup")
    home.land(DAYS[2], 7)
    assert home.night(DAYS[2], rescore=True) == 0
    revised = home.published(PREDICTIONS)
    shutil.rmtree(place)
    shutil.move(backup, place)
    assert home.published(PREDICTIONS)[DAYS[3]] != revised[DAYS[3]]
    # What the first revision says is not what was served last.
    lost = [(f"tiny.{PREDICTIONS}", 1, str(DAYS[2]), f"{LOST}; {RESCORE}")]
    assert _told_of(home, "missing", DAYS[2]) == lost
    assert home.night(DAYS[3]) == Refused.exit_code
    assert list(home.published(PREDICTIONS)) == DAYS[1:4]
    assert home.night(DAYS[2], rescore=True) == 0
    assert home.published(PREDICTIONS) == revised
    assert home.night(DAYS[3]) == 0
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    told = datasets.history(home.environment, f"tiny.{PREDICTIONS}").to_table().to_pylist()
    column = partition(home.run(DAYS[0]), PREDICTIONS)
    of_day = [row for row in told if row[column] == DAYS[3]]
    assert {row["revision"] for row in of_day} == {1, 3}


def test_a_backup_without_a_publication_of_the_same_rows_has_lost_nothing(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    place = path(home.run(DAYS[0]), PREDICTIONS)
    backup = shutil.copytree(place, f"{home.environment.home}/backup")
    assert home.night(DAYS[2], rescore=True) == 0
    shutil.rmtree(place)
    shutil.move(backup, place)
    assert home.night(DAYS[3]) == 0
    assert list(home.published(PREDICTIONS)) == DAYS[1:5]


def test_a_restated_night_keeps_what_it_served_and_makes_what_it_had_not(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[1], first=DAYS[0])
    served = home.published(PREDICTIONS)
    assert list(served) == DAYS[1:3]
    home.land(DAYS[1], 7)
    assert home.restate(DAYS[0], DAYS[2]) == 0
    assert home.published("sums")[DAYS[1]] == [1 + 7]
    restated = home.published(PREDICTIONS)
    assert {day: restated[day] for day in served} == served
    assert restated[DAYS[3]] == home.published("sums")[DAYS[2]]


def test_the_plan_tells_which_served_predictions_would_be_others_today(home: Home) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[2], 3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(survey, "definitions", _definitions)
        before = plan(home.run(DAYS[2])).rows
        home.night(DAYS[2])
        after = plan(home.run(DAYS[2])).rows
        home.night(DAYS[2], rescore=True)
        again = plan(home.run(DAYS[2])).rows
    stays = "stays as it was served, --rescore makes a new revision"
    for rows, why in ((before, "will change"), (after, "has changed")):
        served = [row for row in rows if row[0] == "tiny.predictions"][-1]
        assert served[1:4] == ("served", 1, "2013-01-07")
        assert served[4] == f"tiny.scoring of 2013-01-07 {why}; {stays}"
    assert [row[1] for row in again if row[0] == "tiny.predictions"] == ["current"]


def test_the_plan_is_one_line_where_nights_differ_in_the_days_of_what_has_changed(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))
    told = _told_of(home, "stale")
    of_marks = [row for row in told if row[0] == "tiny.marks"]
    days = f"{DAYS[0]}..{DAYS[3]}"
    why = f"tiny.readings of {DAYS[0]} to {DAYS[3]} has changed"
    assert of_marks == [("tiny.marks", 4, days, why)]
    # Of its window a night's sum has several days.
    (of_sums,) = [row for row in told if row[0] == "tiny.sums"]
    assert of_sums[3] == f"tiny.marks of {DAYS[0]} to {DAYS[3]} will change"


def test_other_words_of_the_same_days_stay_apart() -> None:
    lost, late = "a of 2013-01-05 will change", "a of 2013-01-05 has changed"
    assert without_days(lost) != without_days(late)
    both = [
        "a of 2013-01-06..2013-01-07 is; b of 2013-01-05 was",
        "a of 2013-01-08 is; b of 2013-01-05 was",
    ]
    said = of_all(both)
    assert said == "a of 2013-01-06 to 2013-01-08 is; b of 2013-01-05 was"


def test_a_retraining_asked_for_is_done_though_all_is_current(home: Home) -> None:
    home.night(DAYS[0])
    home.performed.clear()
    run = replace(home.run(DAYS[0]), retrain=True)
    with home._stages():
        assert night.make_true(run, STAGES, notify=False) == 0
    assert [name for name, _ in home.performed][:2] == ["train", "evaluate"]


def test_labels_that_are_declared_to_come_later_have_the_night_trained_anew(home: Home) -> None:
    home.night(DAYS[0])
    assert home.night(DAYS[0]) == 0
    assert home.performed == []
    late = replace(TINY.promotion, label_lag_days=1)
    home.pipeline = replace(TINY, promotion=late)
    assert home.night(DAYS[0]) == 0
    assert [name for name, _ in home.performed][:2] == ["train", "evaluate"]


def test_rows_to_learn_from_that_are_made_anew_after_a_loss_are_learned_from(home: Home) -> None:
    home.night(DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "training"))
    home.land(DAYS[0], 77)
    assert home.night(DAYS[0]) == 0
    # Of the version that was learned from, by chance.
    made = Knowledge(home.run(DAYS[0])).latest("training")
    assert {one.delta_version for one in made.values()} == {0}
    assert "train" in stages_of(home)
    assert home.night(DAYS[0]) == 0
    assert home.performed == []


def test_a_check_by_itself_judges_what_its_run_has_staged(home: Home) -> None:
    home.night(DAYS[0])
    home.performed.clear()
    run = replace(home.run(DAYS[2]), run_id="scheduled__1")
    ingest, check = (STAGES[0],), (STAGES[1],)
    with home._stages():
        assert night.make_true(run, ingest, notify=False) == 0
        # Dropped between two tasks of Airflow: staged by none, so judged by none.
        home.land(DAYS[0], 77)
        assert night.make_true(run, check, notify=False) == 0
    assert stages_of(home)["check_raw"] == [f"{DAYS[1]}..{DAYS[2]}"]
    assert list(home.published("readings")) == DAYS[:3]
    # Cleared later: all of it is published, and an old staging is not judged again.
    home.performed.clear()
    with home._stages():
        assert night.make_true(run, check, notify=False) == 0
    assert home.performed == []
    other = replace(run, run_id="manual__2")
    home.performed.clear()
    with home._stages():
        assert night.make_true(other, check, notify=False) == 0
    assert home.performed == []


@pytest.mark.parametrize("corrected", [DAYS[1], DAYS[4]])
def test_a_bad_correction_of_an_old_day_stops_no_night(
    home: Home, corrected: date, capsys: pytest.CaptureFixture[str]
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    before = home.ids_in(corrected)
    home.land(corrected, BAD)
    for last in DAYS[5:7]:
        assert home.night(last) == Refused.exit_code
        assert home.published("readings")[corrected] == before
        marks = home.published("marks")[last]
        assert home.published("sums")[last] == [sum(marks) + _before(last)]
        assert {"train", "evaluate", "predict", "monitor"} <= set(stages_of(home))
        told = f"New files of {corrected} were not accepted (see above)"
        assert told in capsys.readouterr().err
    home.land(corrected, 7)
    assert home.night(DAYS[6]) == 0
    assert home.published("readings")[corrected] == [7]


def test_a_correction_of_which_only_clean_tables_are_refused_ends_nights_until_it_is_taken_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    before = home.ids_in(DAYS[1])
    publish = home._publish_waiting

    def judge(run: Run) -> None:
        if run.doing.name == "check_clean" and home.published("readings")[DAYS[1]] != before:
            raise Refused("bad")
        publish(run)

    monkeypatch.setattr(home, "_publish_waiting", judge)
    home.land(DAYS[1], 7)
    for last in DAYS[5:7]:
        assert home.night(last) == Refused.exit_code
        assert home.published("readings")[DAYS[1]] == [7]
        assert home.performed[-1][0] == "check_clean"
        assert last not in home.published("marks")
    home.land(DAYS[1], *before)
    assert home.night(DAYS[6]) == 0
    assert set(DAYS[5:7]) <= set(home.published("marks"))


def test_a_good_correction_does_not_wait_for_a_bad_one_of_a_day_beside_it(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.night(DAYS[5], first=DAYS[0])
    for number in range(5):
        home.land(DAYS[number], 100 + number)
    home.land(DAYS[3], BAD)
    assert home.night(DAYS[6]) == Refused.exit_code
    readings = home.published("readings")
    assert [readings[day] for day in DAYS[:5]] == [
        [100],
        [101],
        [102],
        [30, 31],
        [104],
    ]
    assert f"New files of {DAYS[3]} were not accepted" in capsys.readouterr().err
    halves = ["05..09", "05..06", "07..09", "07", "08..09", "08", "09", "11"]
    tried = [days.replace("2013-01-", "") for days in stages_of(home)["ingest"]]
    assert tried == halves
    # Only what is bad is tried again.
    assert home.night(DAYS[6]) == Refused.exit_code
    assert stages_of(home)["ingest"] == [str(DAYS[3])]


@pytest.mark.parametrize("corrected", [DAYS[1], DAYS[4]])
@pytest.mark.parametrize("is_due", [True, False])
def test_a_bad_correction_stops_no_task_of_airflow(
    home: Home, corrected: date, is_due: bool
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    before = home.ids_in(corrected)
    home.land(corrected, BAD)
    last = DAYS[5] if is_due else DAYS[4]
    run = replace(home.run(last), run_id="scheduled__1")
    codes: dict[str, int] = {}
    kept: list[Days] = []
    with home._stages():
        for one in STAGES:
            codes[one.name] = night.make_true(
                run,
                (one,),
                notify=False,
                kept=kept,
            )
    assert codes == dict.fromkeys(codes, 0) | {"ingest": Refused.exit_code}
    # A file of the run's own night is none of a day before.
    assert kept == ([] if corrected == last else [Days.of(corrected)])
    assert home.published("readings")[corrected] == before
    if is_due:
        marks = home.published("marks")[last]
        assert home.published("sums")[last] == [sum(marks) + _before(last)]


def _ingested(home: Home) -> tuple[int, list[Days]]:
    """The exit code of the night of `DAYS[5]` by its first stage, and the days that are kept."""
    kept: list[Days] = []
    with home._stages():
        code = night.make_true(
            home.run(DAYS[5]),
            STAGES[:1],
            notify=False,
            kept=kept,
        )
    return code, kept


def test_days_are_not_said_to_be_kept_where_the_night_itself_is_refused(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], BAD)
    home.land(DAYS[5], BAD)
    assert _ingested(home) == (Refused.exit_code, [])


@pytest.mark.parametrize("own", [NotLanded, Refused, commits.Fenced])
@pytest.mark.parametrize("corrected", [NotLanded, Refused])
def test_a_night_ends_by_what_is_wrong_with_itself_whatever_a_correction_said(
    home: Home,
    corrected: type[NightshiftError],
    own: type[NightshiftError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], 7)

    def fail(run: Run) -> None:
        raise (corrected if run.days.last == DAYS[1] else own)("bad")

    monkeypatch.setattr(home, "_ingest", fail)
    assert _ingested(home) == (own.exit_code, [])


def test_a_night_waits_for_its_late_file_though_a_correction_is_bad(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], BAD)
    home._file(DAYS[5]).unlink()
    assert home.night(DAYS[5]) == NotLanded.exit_code
    home.land(DAYS[5], 7)
    assert home.night(DAYS[5]) == Refused.exit_code
    assert home.published("readings")[DAYS[5]] == [7]


def test_a_check_that_refuses_the_night_itself_keeps_no_days_though_another_run_has_made_some(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a backfill that are cleared together take no turns."""

    def refuse(_: Run) -> None:
        raise Refused("bad")

    home.night(DAYS[0])
    run = replace(home.run(DAYS[2]), run_id="backfill__1")
    with home._stages():
        assert night.make_true(run, STAGES[:1], notify=False) == 0
    assert stages_of(home)["ingest"][-1] == f"{DAYS[1]}..{DAYS[2]}"
    assert home.night(DAYS[1]) == 0
    monkeypatch.setattr(home, "_publish_waiting", refuse)
    kept: list[Days] = []
    with home._stages():
        code = night.make_true(run, STAGES[1:2], notify=False, kept=kept)
    assert (code, kept) == (Refused.exit_code, [])


def _before(night: date) -> int:
    """The sum of the window of a night without its own day, as the files first were."""
    number = DAYS.index(night)
    return sum(20 * one + 1 for one in range(number - WINDOW + 1, number))


def test_a_bad_file_of_the_nights_own_or_of_a_missed_one_ends_it(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home.land(DAYS[2], BAD)
    assert home.night(DAYS[3]) == Refused.exit_code
    assert [name for name, _ in home.performed] == ["ingest"]
    home.land(DAYS[1], BAD)
    assert home.night(DAYS[1]) == Refused.exit_code
    assert [name for name, _ in home.performed] == ["ingest"]


def one_by_one(
    home: Home,
    day: date,
    leaving_out: Sequence[str] = (),
) -> dict[str, int]:
    """The exit codes of a night's tasks in Airflow, some of them marked as a success by hand."""
    run = replace(home.run(day), run_id="scheduled__1")
    codes: dict[str, int] = {}
    with home._stages():
        for one in STAGES:
            if one.name in leaving_out:
                continue
            try:
                codes[one.name] = night.make_true(run, (one,))
            except Refused:
                codes[one.name] = 1
    return codes


@pytest.mark.parametrize(
    ("marked", "refused", "table", "maker"),
    [
        ("check_raw", "predict", "tiny.readings", "ingest"),
        ("ingest", "predict", "tiny.readings", "ingest"),
        ("check_clean", "predict", "tiny.marks", "transform"),
        ("features", "predict", "tiny.training", "features"),
        ("check_predictions", "monitor", "tiny.predictions", "predict"),
    ],
)
def test_a_night_that_a_stage_marked_as_a_success_has_not_published_ends_refused(
    marked: str, refused: str, table: str, maker: str, home: Home
) -> None:
    home.night(DAYS[0])
    codes = one_by_one(home, DAYS[1], leaving_out=[marked])
    assert [name for name, code in codes.items() if code] == (
        ["predict", "monitor"] if refused == "predict" else ["monitor"]
    )
    about = [("status", "=", "refused"), ("stage", "=", refused)]
    (row,) = ops.read(home.environment, "stage_runs", about).to_pylist()
    assert row["error"].startswith(f"{table} lacks the night of 2013-01-06, and so does what is ")
    assert f"clear '{maker}' with what follows it, or: nightshift run tiny --date 2" in row["error"]
    log = home.environment.logs / "notifications.log"
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert (told[0]["event"], told[0]["stage"]) == ("stage_refused", refused)


@pytest.mark.parametrize("allow_gap", [False, True])
@pytest.mark.parametrize(
    ("done", "asked", "table"),
    [
        (STAGES[:4], "predict", "tiny.training"),
        (STAGES[:1], "predict", "tiny.readings"),
        (STAGES[:5], "monitor", "tiny.predictions"),
    ],
)
def test_stages_by_name_are_refused_where_the_night_lacks_what_they_work_on(
    done: tuple[Stage, ...], asked: str, table: str, allow_gap: bool, home: Home
) -> None:
    home.night(DAYS[0])
    assert home.restate(DAYS[1], DAYS[1], stages=done) == 0
    home.performed.clear()
    asked_on = STAGES[STAGES.index(stage(asked)) :]
    with pytest.raises(Refused, match=rf"^{table} lacks the night of 2013-01-06"):
        home.restate(DAYS[1], DAYS[1], stages=asked_on, allow_gap=allow_gap)
    assert home.performed == []
    about = [("status", "=", "refused"), ("stage", "=", asked)]
    assert ops.read(home.environment, "stage_runs", about).num_rows == 1


def test_old_nights_are_scored_by_name_also_where_a_feed_was_declared_later(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    late = replace(TINY.feeds[0], name="late", path="late/{date}.csv")
    late = replace(late, first_day=DAYS[3])
    home.pipeline = replace(TINY, feeds=(*TINY.feeds, late))
    home.performed.clear()
    after_models = select(["predict", "check_predictions", "monitor"])
    assert home.restate(DAYS[1], DAYS[2], stages=after_models) == 0
    assert stages_of(home)["predict"] == [f"{DAYS[1]}..{DAYS[2]}"]


def test_a_range_over_a_change_of_the_label_is_measured(home: Home) -> None:
    home.night(DAYS[0])
    home.promote(DAYS[0])
    home.promote(DAYS[3], "2")
    home.other_label = {"1"}
    assert home.night(DAYS[3], first=DAYS[1]) == 0
    assert stages_of(home)["monitor"] == [f"{DAYS[1]}..{DAYS[3]}"]
    # Of the days after them: what is scored is tomorrow.
    assert list(home.published("predictions")) == [DAYS[1], DAYS[4]]


def without_model(home: Home) -> None:
    """A night that was missed, and the night that has tried it: its model scores none."""
    for number in range(3):
        home.promote(DAYS[number], str(number + 1))
    home.other_label = {"2"}
    assert home.night(DAYS[0]) == 0
    assert home.night(DAYS[2]) == 0
    assert stages_of(home)["predict"] == [f"{DAYS[1]}..{DAYS[2]}"]
    assert list(home.published(PREDICTIONS)) == [DAYS[1], DAYS[3]]


def test_a_missed_night_without_a_model_is_tried_once_and_the_plan_says_so(home: Home) -> None:
    without_model(home)
    assert home.night(DAYS[2]) == 0
    assert home.performed == []
    why = (
        f"version 2 is odd; left out. Once that is mended: nightshift run tiny --date {DAYS[1]}; "
        f"or by another model: nightshift run tiny --date {DAYS[1]} --retrain"
    )
    told = ("tiny.predictions", 1, str(DAYS[1]), why)
    assert _told_of(home, "unscored", DAYS[2]) == [told]
    # A night that has other work, and a model that has come for others, leave it as it is.
    home.promote(DAYS[3], "4")
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["predict"] == [str(DAYS[3])]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_nights_of_one_turn_without_a_model_are_told_together(home: Home) -> None:
    home.promote(DAYS[0])
    home.promote(DAYS[3], "2")
    home.other_label = {"1"}
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    ((_, nights, days, why),) = _told_of(home, "unscored", DAYS[4])
    assert (nights, days) == (3, f"{DAYS[0]}..{DAYS[2]}")
    named = f"--from {DAYS[0]} --to {DAYS[2]}; or"
    assert named in str(why)
    assert str(why).endswith(f"nightshift run tiny --date {DAYS[0]} --retrain")


def _another_has_its_turn(home: Home) -> None:
    home.promote(DAYS[1], "4")


def _its_model_is_rolled_back(home: Home) -> None:
    home.promote(DAYS[0], "4")
    # All whose turns are later are withdrawn.
    rollback(home.environment, TINY, "4", Said(who="alice", why="odd"))


def _another_label_is_declared(home: Home) -> None:
    training = replace(TINY.training, label="other")
    home.pipeline = replace(TINY, training=training)


@pytest.mark.parametrize(
    "changes",
    [_another_has_its_turn, _its_model_is_rolled_back, _another_label_is_declared],
)
def test_a_night_without_a_model_is_tried_again_once_that_may_help(
    home: Home, changes: Callable[[Home], None]
) -> None:
    without_model(home)
    changes(home)
    assert home.night(DAYS[2]) == 0
    assert stages_of(home)["predict"] == [str(DAYS[1])]
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_person_has_a_night_without_a_model_tried_again(home: Home) -> None:
    without_model(home)
    # As `predict` ends for a night that is asked for.
    assert home.night(DAYS[1]) == Refused.exit_code
    assert stages_of(home)["predict"] == [str(DAYS[1])]
    assert home.night(DAYS[3], rescore=True) == 0
    tried = [str(DAYS[1]), str(DAYS[3])]
    assert stages_of(home)["predict"] == tried
    with home._stages():
        retrained = plan(replace(home.run(DAYS[3]), retrain=True))
    states = [row[:4] for row in retrained.rows]
    assert ("tiny.predictions", "missing", 1, str(DAYS[1])) in states
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_a_night_whose_predictions_are_lost_is_not_left_out_for_its_model(home: Home) -> None:
    for number in range(3):
        home.promote(DAYS[number], str(number + 1))
    assert home.night(DAYS[2], first=DAYS[0]) == 0
    shutil.rmtree(path(home.run(DAYS[0]), PREDICTIONS))
    home.other_label = {"2"}
    assert home.night(DAYS[2], first=DAYS[0], rescore=True) == 0
    missing = _told_of(home, "missing", DAYS[2])
    told = [row[2:] for row in missing if row[0] == "tiny.predictions"]
    # Of a range over one without a model this home scores the last alone.
    assert told == [(str(Days(DAYS[0], DAYS[1])), f"{LOST}; {RESCORE}")]
    assert home.night(DAYS[3]) == Refused.exit_code


def test_why_a_night_was_not_published_is_said_where_it_is_missed(home: Home) -> None:
    home.night(DAYS[0])
    run = replace(home.run(DAYS[1]), run_id="scheduled__1")
    why = "tiny.readings was refused: 1 expectation(s) failed.\n  - tiny.readings id: 1 of 2 rows."
    night._record(
        run.at(stage("check_raw")),
        time.time(),
        0.1,
        status="refused",
        error=why,
    )
    one_by_one(home, DAYS[1], leaving_out=["ingest", "check_raw"])
    about = [("status", "=", "refused"), ("stage", "=", "predict")]
    (row,) = ops.read(home.environment, "stage_runs", about).to_pylist()
    last = "the last attempt at 'check_raw' was refused: tiny.readings was refused: 1 expectation"
    assert last in row["error"]


@pytest.mark.parametrize("is_exact", [False, True])
def test_a_refusal_between_two_stages_is_told_of_the_one_that_was_about_to_begin(
    is_exact: bool, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Notification] = []
    monkeypatch.setattr("jobs.telling.tell", lambda run, one: told.append(one))
    home.night(DAYS[0])
    perform = night.run_night if is_exact else night.make_true
    home.performed.clear()
    with home._stages(), pytest.raises(Refused, match="'predict' has nothing to work on"):
        perform(home.run(DAYS[1]), select(["train", "evaluate", "predict"]))
    assert [name for name, _ in home.performed] == ["train", "evaluate"]
    (refused,) = told
    assert (refused.event, refused.stage) == (Event.STAGE_REFUSED, "predict")
    about = [("status", "=", "refused")]
    recorded = ops.read(home.environment, "stage_runs", about).to_pylist()
    assert [row["stage"] for row in recorded] == ["predict"]


def test_a_night_whose_tasks_have_all_done_their_work_misses_nothing(home: Home) -> None:
    home.night(DAYS[0])
    assert set(one_by_one(home, DAYS[1]).values()) == {0}
    assert set(one_by_one(home, DAYS[1]).values()) == {0}, "and when all is current"


def test_the_plan_tells_what_is_missing_and_stale_and_what_follows(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[0], 3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(survey, "definitions", _definitions)
        rows = plan(home.run(DAYS[3])).rows
    readings = [row[1:4] for row in rows if row[0] == "tiny.readings"]
    assert readings == [
        ("stale", 1, "2013-01-05"),
        ("current", 2, "2013-01-06..2013-01-07"),
        ("missing", 1, "2013-01-08"),
    ]
    (changed,) = [row for row in rows if row[:2] == ("tiny.readings", "stale")]
    assert changed[4].endswith("2013-01-05.csv has changed; known from 2013-01-08")
    (marks, *_) = [row for row in rows if row[0] == "tiny.marks"]
    assert marks[1:] == ("stale", 1, "2013-01-05", "tiny.readings of 2013-01-05 will change")
    (followed, coming) = [row for row in rows if row[0] == "tiny.sums"]
    assert followed[1:4] == ("current", 3, "2013-01-05..2013-01-07")
    assert coming[1:4] == ("missing", 1, "2013-01-08")
    stages = {row[0]: row[1:] for row in rows[-3:]}
    assert stages["train"] == ("due", 1, "2013-01-08", "not done yet as of 2013-01-08")
    assert stages["evaluate"][0] == stages["monitor"][0] == "due"
    assert home.night(DAYS[3]) == 0


EXPORT = Stage(
    name="export",
    group="serve",
    function="jobs.stages.export:export",
    reads=("sums",),
    does="Hand the sums on.",
)
"""A stage of one's own, which makes no table."""


def test_a_stage_of_ones_own_is_due_again_when_what_it_reads_was_published_since(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_export = (*STAGES, EXPORT)
    for module in (passes, required, night, plan_command, sys.modules[__name__]):
        monkeypatch.setattr(module, "STAGES", with_export)

    def planned() -> tuple[object, ...]:
        with home._stages():
            return plan(home.run(DAYS[1]), with_export).rows[-1]

    home.night(DAYS[1], first=DAYS[0])
    assert home.performed[-1] == ("export", Days(DAYS[0], DAYS[1]))
    assert planned() == ("export", "current", 1, str(DAYS[1]), "")
    assert home.night(DAYS[1]) == 0
    assert home.performed == []
    home.land(DAYS[1], 7, 8, 9)
    assert planned() == ("export", "due", 1, str(DAYS[1]), "tiny.sums will change")
    assert home.night(DAYS[1]) == 0
    assert home.performed[-1] == ("export", Days.of(DAYS[1]))
    # Made anew and not handed on, as where the stage was left out.
    home.land(DAYS[1], 7, 8)
    with home._stages():
        run = home.run(DAYS[1])
        assert night.make_true(run, with_export[:-1], notify=False) == 0
    since = ("export", "due", 1, str(DAYS[1]), "tiny.sums was published since")
    assert planned() == since
    # That the same rows follow from something else hands nothing on.
    known = publications.in_force(run, "sums")[DAYS[1]]
    making = run.at(stage("transform"))
    commits.confirm(making, "sums", DAYS[1], known.inputs, "another")
    assert planned() == since


def test_labels_that_were_never_measured_are_to_be_though_they_were_confirmed_since(
    home: Home,
) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home.land(DAYS[1], 7)
    monitor = stage("monitor")
    run = home.run(DAYS[1])
    with home._stages():
        without = STAGES[: STAGES.index(monitor)]
        assert night.make_true(run, without, notify=False) == 0

    def to_measure() -> set[date]:
        later = survey.Survey(home.run(DAYS[2]))
        return later.seen.learned_since(seen_by(run, monitor))

    found = to_measure()
    assert DAYS[1] in found
    known = publications.in_force(run, "training")
    making = run.at(stage("features"))
    for day in found:
        commits.confirm(making, "training", day, known[day].inputs, "another")
    assert to_measure() == found


def test_a_stage_of_ones_own_is_given_the_nights_that_were_missed_or_corrected(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (passes, required, night, plan_command, sys.modules[__name__]):
        monkeypatch.setattr(module, "STAGES", (*STAGES, EXPORT))

    def exported() -> list[Days]:
        return [days for name, days in home.performed if name == "export"]

    # What was published before the stage was there is not asked for.
    with home._stages():
        run = home.run(DAYS[0])
        assert night.make_true(run, STAGES[:-1], notify=False) == 0
    home.night(DAYS[1])
    assert exported() == [Days.of(DAYS[1])]
    # The night after was missed.
    home.night(DAYS[3])
    assert exported() == [Days(DAYS[2], DAYS[3])]
    home.night(DAYS[3])
    assert exported() == []
    # Made anew by a run without it, such as one of some stages.
    home.land(DAYS[1], 7, 8, 9)
    with home._stages():
        run = home.run(DAYS[1])
        assert night.run_night(run, STAGES[:-1], notify=False) == 0
        rows = plan(home.run(DAYS[3]), STAGES).rows
        told = [row for row in rows if row[0] == "export"]
    assert told[0][:2] == ("export", "due")
    assert str(told[0][3]).startswith(str(DAYS[1]))
    assert home.night(DAYS[3]) == 0
    assert exported()[0].first == DAYS[1]


def test_the_plan_tells_of_stages_that_are_due_though_all_tables_are_current(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    with home._stages():
        nothing = plan(home.run(DAYS[1]))
        retrained = plan(replace(home.run(DAYS[1]), retrain=True))
        restated = plan(home.run(DAYS[1]), is_exact=True)
    assert not nothing.has_work
    assert {row[1] for row in nothing.rows} == {"current"}
    assert nothing.summary == "nothing to do, all is current."
    assert retrained.has_work
    assert retrained.summary.splitlines()[1:] == [
        "- due 2013-01-06: train (--retrain trains again)",
        "- due 2013-01-06: evaluate (a model will be trained)",
    ]
    assert restated.has_work
    assert "--restate does all stages" in restated.summary


def test_the_plan_tells_how_many_nights_are_made_in_one_go(home: Home, tmp_path: Path) -> None:
    home.night(DAYS[0])
    with home._stages():
        missed = plan(home.run(DAYS[3]))
        exact = plan(home.run(DAYS[2], DAYS[1]), is_exact=True)
    assert (missed.nights, exact.nights) == (3, 2)
    plan_command.write_result(missed, tmp_path / "plan")
    assert json.loads((tmp_path / "plan").read_text())["nights"] == 3
    home.night(DAYS[3])
    with home._stages():
        assert plan(home.run(DAYS[3])).nights == 0
    # A gap that a night went over is told, and nobody waits for its files.
    home._file(DAYS[4]).unlink()
    assert home.night(DAYS[5], allow_gap=True) == 0
    with home._stages():
        beyond = plan(home.run(DAYS[6]))
    assert beyond.accepted_gaps == 1
    assert beyond.nights == 1


def test_the_plan_of_some_stages_tells_of_these_alone(home: Home) -> None:
    home.night(DAYS[0])
    home.land(DAYS[1], 2)
    home._file(DAYS[2]).unlink()
    learning = (stage("train"), stage("evaluate"))
    with home._stages():
        current = plan(home.run(DAYS[0]), learning)
        due = plan(home.run(DAYS[3]), learning)
        read = plan(home.run(DAYS[3]), (stage("check_raw"),))
        whole = plan(home.run(DAYS[3]))
    assert [row[:2] for row in current.rows] == [
        ("train", "current"),
        ("evaluate", "current"),
    ]
    assert not current.has_work
    assert [row[:2] for row in due.rows] == [
        ("train", "due"),
        ("evaluate", "due"),
    ]
    assert due.has_work
    assert {row[0] for row in read.rows} == {"tiny.readings", "tiny.sensors"}
    assert whole.rows[0][:2] == ("tiny", "hole")
    assert set(due.rows) | set(read.rows) < set(whole.rows)


def test_a_night_is_measured_though_another_was_before_it_could_be(home: Home) -> None:
    # Else the restated night would foretell for the first time.
    home.promote(DAYS[0])
    home.night(DAYS[1], first=DAYS[0])
    stops = stage("monitor")
    with home._stages():
        # As if the check of the predictions had refused.
        before = [one for one in STAGES if one != stops]
        assert night.make_true(home.run(DAYS[2]), before, notify=False) == 0
    assert home.restate(DAYS[0], DAYS[0]) == 0
    assert home.night(DAYS[3]) == 0
    assert stages_of(home)["monitor"] == [f"{DAYS[2]}..{DAYS[3]}"]
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def test_nights_that_a_kill_left_unmeasured_are_measured_by_the_next(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.land(DAYS[3], 8)
    whole = home._perform

    def perform(run: Run) -> int:
        if run.doing.name == "monitor" and ("monitor", run.days) != home.performed[-1]:
            measured = [days for name, days in home.performed if name == "monitor"]
            if measured:
                raise KeyboardInterrupt
        return whole(run)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(home, "_perform", perform)
        with pytest.raises(KeyboardInterrupt):
            home.night(DAYS[5])
    assert stages_of(home)["monitor"] == [str(DAYS[1])]
    assert home.night(DAYS[5]) == 0
    measured = stages_of(home)["monitor"]
    assert measured == [str(DAYS[3]), str(DAYS[5])]


def test_the_plan_of_a_correction_foresees_that_a_model_is_trained_and_measured(
    home: Home,
) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home.land(DAYS[1], 7)
    with home._stages():
        found = plan(home.run(DAYS[1]))
    reasons = {row[0]: row[1:] for row in found.rows[-3:]}
    assert reasons["train"] == ("due", 1, "2013-01-06", "tiny.training will change")
    assert reasons["evaluate"][0] == reasons["monitor"][0] == "due"
    assert home.night(DAYS[1]) == 0
    assert {"train", "evaluate", "monitor"} <= set(stages_of(home))


def test_rows_learned_from_an_evening_that_was_found_late_are_known_when_it_was(
    home: Home,
) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    assert home.night(DAYS[2], allow_gap=True) == 0
    then = home.as_of("training", DAYS[2])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[3]) == 0
    assert home.as_of("training", DAYS[2]) == then
    later = home.as_of("training", DAYS[3])
    assert later[DAYS[2]] != then[DAYS[2]]
    # Nor does what that night learned from ask for another model of it.
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def test_a_night_that_is_to_begin_at_the_start_loads_the_history_that_has_landed(
    home: Home,
) -> None:
    home.pipeline = replace(TINY, first_day=DAYS[0])
    run = replace(home.run(DAYS[3]), from_start=True)
    with home._stages():
        planned = plan(run)
        assert planned.rows[0][1:4] == ("missing", 4, f"{DAYS[0]}..{DAYS[3]}")
        _, first_line, *_ = planned.summary.splitlines()
        assert first_line == (
            f"- missing {DAYS[0]}..{DAYS[3]}: readings, marks, sums, training, scoring "
            "(never published)"
        )
        assert night.make_true(run, STAGES, notify=False) == 0
    assert stages_of(home)["ingest"] == [f"{DAYS[0]}..{DAYS[3]}"]
    assert stages_of(home)["train"] == [str(DAYS[3])]
    assert list(home.published("sums")) == DAYS[:4]
    once = Home(home.environment.home / "once")
    for number, day in enumerate(DAYS):
        once.land(day, 10 * number, 10 * number + 1)
    once.night(DAYS[3], first=DAYS[0])
    for name in ("readings", "marks", "sums", "training", "scoring"):
        assert home.published(name) == once.published(name), name


def test_the_plan_has_work_where_a_run_would_be_refused_for_a_hole(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home._file(DAYS[2]).unlink()
    with home._stages():
        found = plan(home.run(DAYS[3]))
        assert found.rows[0][:2] == ("tiny", "hole")
        assert found.has_work
    with pytest.raises(Refused, match="are not made, or not whole, and lack files"):
        home.night(DAYS[3])


def test_the_plan_tells_of_another_definition_and_a_night_spreads_none(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    with pytest.MonkeyPatch.context() as patched:
        changed = {**_definitions(None), "sums": "another"}
        patched.setattr(survey, "definitions", lambda _: changed)
        rows = plan(home.run(DAYS[1])).rows
    # These publications were made without any definition.
    assert {row[1] for row in rows} == {"current"}
    home.definition = "before"
    home.restate(DAYS[2], DAYS[2])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(survey, "definitions", _definitions)
        rows = plan(home.run(DAYS[2])).rows
    told = {row[0]: (row[1], row[4]) for row in rows}
    another = "made by another definition"
    assert told["tiny.scoring"] == ("outdated", f"{another}; --restate makes these days anew")
    stays = "stays as it was served, --rescore makes a new revision"
    assert told["tiny.predictions"] == ("served", f"{another}; {stays}")
    assert home.night(DAYS[2]) == 0
    assert home.performed == []


def _published_on_record(home: Home) -> set[tuple[str, date, datetime]]:
    """Every publication: its table, the night that it is of, and when it was made."""
    tables = home.pipeline.tables
    names = [table.name for table in tables]
    told = publications.told_of(home.run(DAYS[-1]), names)
    found = set()
    for table in tables:
        for one in told[table.name]:
            found.add((table.name, table.night_of(one.day), one.published_at))
    return found


def _definitions_of(home: Home, night: date) -> dict[str, str]:
    """By which definition each made table has that night."""
    run = home.run(DAYS[-1])
    names = ("marks", "sums", "training", "scoring")
    return {name: publications.in_force(run, name)[night].definition for name in names}


@pytest.mark.parametrize("corrected", [DAYS[1], DAYS[3]])
@pytest.mark.parametrize("by_tasks", [False, True])
def test_a_correction_spreads_no_definition_over_tables_that_do_not_follow_from_it(
    home: Home, corrected: date, by_tasks: bool
) -> None:
    home.definition = "before"
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.definition = "another"
    home.land(corrected, 7)
    with home._stages():
        foreseen = chain.from_iterable(survey.Survey(home.run(DAYS[4])).foreseen())
        to_do = [one for one in foreseen if one.state in ("missing", "stale")]
    before = _published_on_record(home)
    home.performed.clear()
    if by_tasks:
        assert home.night_by_tasks(DAYS[4], len(STAGES), lambda: None) == 0
    else:
        assert home.night(DAYS[4]) == 0
    made = {(name, night) for name, night, _ in _published_on_record(home) - before}
    assert made == {(one.table.name, one.night) for one in to_do}
    # Marks follow from the file. The sums of that night, and what it scored, saw none of it.
    assert _definitions_of(home, corrected) == {
        "marks": "another",
        "sums": "before",
        "training": "another",
        "scoring": "before",
    }
    assert set(_definitions_of(home, DAYS[4]).values()) == {"another"}
    for name in ("transform", "features"):
        assert stages_of(home)[name] == [str(corrected), str(DAYS[4])]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_a_table_that_is_new_spreads_no_definition_over_the_others(home: Home) -> None:
    home.definition = "before"
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.definition = "another"
    home.pipeline = replace(TINY, derived=(*TINY.derived, OUTCOMES))
    assert home.night(DAYS[4]) == 0
    assert list(home.published("outcomes")) == DAYS[:5]
    for before in DAYS[:4]:
        assert set(_definitions_of(home, before).values()) == {"before"}
    assert set(_definitions_of(home, DAYS[4]).values()) == {"another"}


def test_nights_that_need_other_tables_are_one_pass_where_no_definition_has_changed(
    home: Home,
) -> None:
    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.land(DAYS[3], 7)
    assert home.night(DAYS[4]) == 0
    for name in ("transform", "features"):
        assert stages_of(home)[name] == [f"{DAYS[3]}..{DAYS[4]}"]


def test_transforms_that_cannot_be_read_are_left_to_the_stage_that_tells_it(home: Home) -> None:
    def definitions(_: object) -> dict[str, str]:
        raise SyntaxError("invalid syntax")

    assert home.night(DAYS[3], first=DAYS[0]) == 0
    home.land(DAYS[3], 7)
    run = home.run(DAYS[4])
    with home._stages(), pytest.MonkeyPatch.context() as patched:
        assert night.make_true(run, STAGES[:2], notify=False) == 0
        patched.setattr(survey, "definitions", definitions)
        planned = of_stage(run, stage("transform"), survey.Survey(run))
    both = Days(DAYS[3], DAYS[4])
    assert planned == [Pass(days=both, tables=("marks", "sums"))]


@pytest.mark.parametrize(
    "derived",
    [
        (MARKS, replace(SUMS, name="totals")),
        (MARKS,),
    ],
)
def test_a_table_that_is_declared_no_more_keeps_nothing_from_being_planned(
    derived: tuple[Table, ...], home: Home
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[2], first=DAYS[0])
    # What is scored was made from the sums of these nights.
    home.pipeline = replace(TINY, derived=derived)
    with home._stages():
        rows = plan(home.run(DAYS[2])).rows
    told = {row[0]: row[1] for row in rows}
    assert told["tiny.scoring"] == told["tiny.training"] == "current"
    assert told.get("tiny.totals", "missing") == "missing"
    assert "tiny.sums" not in told
    if "tiny.totals" not in told:
        assert home.night(DAYS[2]) == 0
        assert home.performed == []


@pytest.mark.parametrize("name", ["readings", "marks", "sums", "training", "scoring"])
def test_a_table_whose_folder_is_gone_is_made_again_by_the_next_night(
    name: str, home: Home
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[3], first=DAYS[0])
    tables = ("readings", "marks", "sums", "training", "scoring", PREDICTIONS)
    before = {name: home.published(name) for name in tables}
    shutil.rmtree(path(home.run(DAYS[0]), name))
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
    missing = [row[1:] for row in rows if row[:2] == (f"tiny.{name}", "missing")]
    why = "was published, and is not in the table any more"
    assert missing == [("missing", 4, f"{DAYS[0]}..{DAYS[3]}", why)]
    assert home.night(DAYS[3]) == 0
    assert {name: home.published(name) for name in tables} == before
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


@pytest.mark.parametrize("name", ["readings", "marks", "sums", "training", "scoring"])
def test_days_that_a_table_has_lost_come_again_though_a_run_makes_one_of_them_first(
    name: str, home: Home
) -> None:
    home.promote(DAYS[0])
    home.night(DAYS[3], first=DAYS[0])
    tables = ("readings", "marks", "sums", "training", "scoring", PREDICTIONS)
    before = {name: home.published(name) for name in tables}
    shutil.rmtree(path(home.run(DAYS[0]), name))
    assert home.restate(DAYS[3], DAYS[3]) == 0
    assert (f"tiny.{name}", 3, f"{DAYS[0]}..{DAYS[2]}", LOST) in _told_of(home, "missing")
    assert home.night(DAYS[3]) == 0
    assert {name: home.published(name) for name in tables} == before
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    # Nothing that came again is told of twice.
    run = home.run(DAYS[3])
    assert publications.told(run, name).all_lost == []


@pytest.mark.parametrize("is_total", [False, True])
def test_a_late_drop_of_a_lost_table_is_known_again_from_when_it_was(
    is_total: bool, home: Home
) -> None:
    home.night(DAYS[0])
    file = home._file(DAYS[1])
    ids = home.ids_in(DAYS[1])
    file.unlink()
    home.night(DAYS[3], first=DAYS[2], allow_gap=True)
    home.land(DAYS[1], *ids)
    home.night(DAYS[4])
    tables = ("readings", "marks", "sums")
    before = _as_of_nights(home, tables)
    assert DAYS[1] not in home.as_of("readings", DAYS[3])
    for name in tables if is_total else ["readings"]:
        shutil.rmtree(path(home.run(DAYS[0]), name))
    assert home.night(DAYS[5]) == 0
    assert _as_of_nights(home, tables) == before
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def test_a_late_drop_that_nobody_has_read_is_late_though_the_table_was_lost_meanwhile(
    home: Home,
) -> None:
    home.night(DAYS[0])
    file = home._file(DAYS[1])
    ids = home.ids_in(DAYS[1])
    file.unlink()
    home.night(DAYS[2], allow_gap=True)
    home.land(DAYS[1], *ids)
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))
    assert home.night(DAYS[3]) == 0
    assert DAYS[1] not in home.as_of("readings", DAYS[2])
    assert home.as_of("readings", DAYS[3])[DAYS[1]] == ids


def test_a_correction_that_a_backup_has_lost_is_known_again_from_when_it_was(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.night(DAYS[3])
    before = [home.as_of("readings", day) for day in DAYS[:4]]
    log = Path(path(home.run(DAYS[0]), "readings")) / "_delta_log"
    for commit in sorted(log.glob("*.json"))[1:]:
        commit.unlink()
    assert list(home.published("readings")) == DAYS[:3]
    assert home.night(DAYS[5], first=DAYS[4]) == 0
    assert [home.as_of("readings", day) for day in DAYS[:4]] == before


def test_a_correction_that_a_backup_has_lost_is_so_though_other_rows_were_told_of_after_it(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.night(DAYS[3])
    # It says the same in other words: no commit, and on record alone.
    home.land(DAYS[2], *reversed(home.ids_in(DAYS[2])))
    home.night(DAYS[4])
    before = [home.as_of("readings", day) for day in DAYS[:5]]
    log = Path(path(home.run(DAYS[0]), "readings")) / "_delta_log"
    for commit in sorted(log.glob("*.json"))[1:]:
        commit.unlink()
    assert home.night(DAYS[5]) == 0
    assert [home.as_of("readings", day) for day in DAYS[:5]] == before


def test_a_file_that_comes_again_after_a_loss_rewrites_no_night_that_was_made_since(
    home: Home,
) -> None:
    ids = home.ids_in(DAYS[1])
    home.night(DAYS[2], first=DAYS[0])
    home.land(DAYS[1], 7)
    home.night(DAYS[3])
    home.land(DAYS[1], *ids)
    home.night(DAYS[4])
    log = Path(path(home.run(DAYS[0]), "readings")) / "_delta_log"
    for commit in sorted(log.glob("*.json"))[1:]:
        commit.unlink()
    home.night(DAYS[5])
    home.land(DAYS[1], 7)
    home.night(DAYS[6])
    seen = [home.as_of("readings", day) for day in DAYS[4:7]]
    assert [of_day[DAYS[1]] for of_day in seen] == [ids, ids, [7]]


def test_a_file_that_comes_after_nights_were_made_without_its_lost_day_is_late(home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))
    home._file(DAYS[1]).unlink()
    home.night(DAYS[3], allow_gap=True)
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    assert DAYS[1] not in home.as_of("readings", DAYS[3])
    assert home.as_of("readings", DAYS[4])[DAYS[1]] == [7]


def test_a_gap_that_was_allowed_is_not_asked_for_again_after_raw_tables_are_lost(
    home: Home,
) -> None:
    home.night(DAYS[0])
    home._file(DAYS[1]).unlink()
    home.night(DAYS[3], allow_gap=True)
    for name in ("readings", "sensors"):
        shutil.rmtree(path(home.run(DAYS[0]), name))
    assert home.night(DAYS[4]) == 0
    assert list(home.published("readings")) == [DAYS[0], *DAYS[2:5]]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def test_a_night_that_was_made_and_has_lost_its_rows_and_its_file_is_no_gap_that_was_allowed(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))
    home._file(DAYS[1]).unlink()
    with pytest.raises(Refused, match=rf"- {DAYS[1]}: tiny/readings/{DAYS[1]}.csv"):
        home.night(DAYS[4])


def test_a_kill_before_a_day_that_came_again_is_forgotten_leaves_nothing_on_record(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    shutil.rmtree(path(home.run(DAYS[0]), "readings"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(publications, "forget_made_anew", killed)
        with pytest.raises(KeyboardInterrupt):
            home.night(DAYS[3])
    home._waiting.clear()
    run = home.run(DAYS[3])
    assert publications.told(run, "readings").all_lost
    assert home.night(DAYS[3]) == 0
    assert publications.told(run, "readings").all_lost == []


def _lose_sensors(home: Home, kept: int) -> None:
    """As if a backup was restored that has this many versions of the register."""
    place = Path(path(home.run(DAYS[0]), "sensors"))
    if not kept:
        shutil.rmtree(place)
        return
    for commit in sorted((place / "_delta_log").glob("*.json"))[kept:]:
        commit.unlink()


@pytest.mark.parametrize(
    ("kept", "changed", "again"),
    [
        # What it said before nobody knows: nights without it could not be made.
        (0, None, {0: 3}),
        (0, 4, {0: 4}),
        # Nights since the first snapshot see that until the file came that is there.
        (1, None, {0: 1, 3: 3}),
        (1, 4, {0: 1, 1: 4}),
        (1, 1, {0: 1, 1: 1}),
        (2, None, {0: 1, 1: 2, 3: 3}),
    ],
)
def test_a_register_that_lost_snapshots_is_known_from_when_these_were(
    kept: int, changed: int | None, again: dict[int, int], home: Home
) -> None:
    home.night(DAYS[0])
    home.land_register(2)
    home.night(DAYS[1])
    home.land_register(3)
    home.night(DAYS[4], first=DAYS[3])
    assert len(home.registered()) == 3
    _lose_sensors(home, kept)
    if changed:
        home.land_register(changed)
    assert home.night(DAYS[5]) == 0
    of_days = {}
    for number, said in again.items():
        of_days[DAYS[number]] = [said]
    assert home.registered() == of_days
    assert home.night(DAYS[5]) == 0
    assert home.performed == []
    # It is a changed file again that its night finds.
    home.land_register(5)
    assert home.night(DAYS[6]) == 0
    assert home.registered() == {**of_days, DAYS[6]: [5]}


def test_a_register_that_was_lost_is_known_from_no_day_before_a_first_day_that_was_moved(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    _lose_sensors(home, 0)
    home.pipeline = replace(TINY, first_day=DAYS[3])
    assert home.night(DAYS[4], first=DAYS[3]) == 0
    assert home.registered() == {DAYS[3]: [1]}
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


@pytest.mark.parametrize("by_correction", [False, True])
def test_a_register_whose_folder_is_gone_is_made_again_by_the_next_night(
    by_correction: bool, home: Home
) -> None:
    home.night(DAYS[0])
    home.night(DAYS[3], first=DAYS[1])
    _lose_sensors(home, 0)
    assert ("tiny.sensors", 1, str(DAYS[3]), LOST) in _told_of(home, "missing")
    if by_correction:
        home.land(DAYS[2], 7)
    assert home.night(DAYS[4]) == 0
    assert home.registered() == {DAYS[0]: [1]}
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def _lacking_one(home: Home, monkeypatch: pytest.MonkeyPatch, retyped: str) -> None:
    """Four nights of which the third was left out, then a table gets numbers of another type."""
    home._file(DAYS[2]).unlink()
    home.night(DAYS[1], first=DAYS[0])
    home.night(DAYS[3], allow_gap=True)

    def of_longs(run: Run, name: str, ids: _Ids, origin: Origin) -> Staging:
        found = staged_rows(run, name, ids, origin)
        if name != retyped:
            return found
        schema = json.loads(json.dumps(found.schema).replace("integer", "long"))
        return replace(found, schema=schema)

    staged_rows = _staged
    monkeypatch.setattr("tests.jobs.test_survey._staged", of_longs)


def _refuse(home: Home, making: Callable[[], int], told: str) -> None:
    with pytest.raises(NightshiftError, match=re.escape(told)):
        making()
    # The next run stages its own.
    home._waiting.clear()


def _type_of_ids(home: Home, name: str) -> str:
    return column_types(home.run(DAYS[0]), name)["id"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("marks", f"because night {DAYS[2]} was left out (1 in all): land what it lacks"),
        ("training", f"because night {DAYS[2]} was left out (1 in all): land what it lacks"),
        ("readings", "`nightshift migrate tiny` tells what can be done"),
    ],
)
def test_a_column_gets_another_type_once_the_night_that_was_left_out_has_landed(
    name: str, told: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacking_one(home, monkeypatch, name)
    _refuse(home, partial(home.night, DAYS[4]), told)
    # By itself no restating does it.
    restating = partial(home.restate, DAYS[0], DAYS[4])
    assert restating() == NotLanded.exit_code
    _refuse(home, partial(restating, allow_gap=True), told)
    home.land(DAYS[2], 20)
    assert restating() == 0
    assert _type_of_ids(home, name) == "long"
    assert list(home.published(name)) == DAYS[:5]


def test_a_derived_table_that_was_deleted_is_made_in_another_type_over_a_night_that_is_left_out(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lacking_one(home, monkeypatch, "marks")
    place = path(home.run(DAYS[0]), "marks")
    way_out = f"; or delete {place}, which the next night makes anew, without older versions"
    _refuse(home, partial(home.night, DAYS[4]), way_out)
    shutil.rmtree(place)
    assert home.night(DAYS[4]) == 0
    assert _type_of_ids(home, "marks") == "long"
    made = [day for day in DAYS[:5] if day != DAYS[2]]
    assert list(home.published("marks")) == made


@pytest.mark.parametrize("name", ["marks", "outcomes"])
def test_a_table_whose_folder_is_gone_is_made_as_nights_saw_it_before_a_late_correction(
    name: str, home: Home
) -> None:
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OUTCOMES))
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    tables = ("marks", "sums", "outcomes", "training", "scoring")
    before = _as_of_nights(home, tables)
    shutil.rmtree(path(home.run(DAYS[0]), name))
    assert home.night_by_tasks(DAYS[5], 0, lambda: None) == 0
    assert _as_of_nights(home, tables) == before
    assert home.night(DAYS[5]) == 0
    assert home.performed == []


def _as_of_nights(home: Home, tables: Sequence[str]) -> list[_Ids]:
    """What nights around a correction of the second that the fifth has found see of each."""
    found = []
    for one in tables:
        found += [home.as_of(one, DAYS[number]) for number in (1, 3, 4)]
    return found


def test_a_table_that_is_declared_later_is_made_as_it_was_before_a_late_correction(
    home: Home,
) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    home.pipeline = replace(TINY, derived=(MARKS, SUMS, OUTCOMES))
    with home._stages():
        rows = plan(home.run(DAYS[4])).rows
    states = {row[:3] for row in rows if row[1] != "current"}
    assert states == {("tiny.outcomes", "missing", 5)}
    assert home.night(DAYS[4]) == 0
    days = f"{DAYS[0]}..{DAYS[4]}"
    again = f"{DAYS[1]}..{DAYS[3]}"
    assert stages_of(home)["check_clean"] == [days, again]
    before, after = (home.as_of("outcomes", day) for day in DAYS[3:5])
    assert before[DAYS[1]] == [1 + 21]
    assert after[DAYS[1]] == [1 + 7]
    assert home.night(DAYS[4]) == 0
    assert home.performed == []


def _lose_the_end(log: Path) -> None:
    for version in (2, 3):
        (log / f"{version:020}.json").unlink()


def _empty_the_last(log: Path) -> None:
    """As a failure of the power may leave it."""
    max(log.glob("*.json")).write_text("")


@pytest.mark.parametrize("lose", [_lose_the_end, _empty_the_last])
def test_a_table_that_lost_its_newest_versions_is_made_true_again(
    home: Home, lose: Callable[[Path], None]
) -> None:
    for day in DAYS[:4]:
        home.night(day)
    tables = ("readings", "marks", "sums", "training", "scoring")
    before = {name: home.published(name) for name in tables}
    for name in tables:
        lose(Path(path(home.run(DAYS[0]), name)) / "_delta_log")
    with home._stages():
        rows = plan(home.run(DAYS[3])).rows
        states = {row[:2] for row in rows}
    assert {(f"tiny.{name}", "missing") for name in tables} <= states
    assert home.night(DAYS[3]) == 0
    assert {name: home.published(name) for name in tables} == before
    assert "train" in stages_of(home)
    assert home.night(DAYS[3]) == 0
    assert home.performed == []


def _count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ops tables that are read from now on, by a process that has read none so far."""
    read: list[str] = []
    whole = ops._rows

    def counted(table: DeltaTable, name: str, *more: Any) -> Any:
        read.append(name)
        return whole(table, name, *more)

    monkeypatch.setattr(ops, "_rows", counted)
    monkeypatch.setattr(ops, "_KEPT", {})
    return read


def test_what_was_done_is_read_once_for_all_stages(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[0])
    run = home.run(DAYS[0])
    found = survey.Survey(run)
    read = _count_reads(monkeypatch)
    for name in ("train", "evaluate"):
        of_stage(run, stage(name), found)
    assert read == ["stage_runs"]
    made = [table.name for table in run.pipeline.tables]
    assert len(made) > 1
    read.clear()
    assert publications.next_attempt(run, made) > 1
    assert read == ["publications"]


def test_a_process_makes_each_publication_on_record_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[0])
    home.night(DAYS[1])
    made: list[tuple[object, ...]] = []
    from_rows = publications._from_rows

    def told(recorded: Any) -> Any:
        columns = (recorded[name] for name in ("table_name", "day", "version", "published_at"))
        made.extend(zip(*(column.to_pylist() for column in columns), strict=True))
        return from_rows(recorded)

    monkeypatch.setattr(publications, "_from_rows", told)
    monkeypatch.setattr(publications, "_MADE", {})
    read = _count_reads(monkeypatch)
    home.night(DAYS[2])
    survey.Survey(home.run(DAYS[2])).foreseen_by_record()
    assert len(made) > 10
    assert len(set(made)) == len(made)
    # Whole once, though each stage of the night has added to it.
    assert read.count("publications") == 1


def test_a_stage_alone_reads_the_record_once_and_makes_only_what_it_asks_about(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[1])
    made: set[str] = set()
    from_rows = publications._from_rows

    def told(recorded: Any) -> Any:
        made.update(recorded["table_name"].to_pylist())
        return from_rows(recorded)

    monkeypatch.setattr(publications, "_from_rows", told)
    monkeypatch.setattr(publications, "_MADE", {})
    read = _count_reads(monkeypatch)
    with home._stages():
        run = home.run(DAYS[1])
        assert night.make_true(run, (stage("transform"),), notify=False) == 0
    assert read == ["publications"]
    # What it makes, what that is made from, and which nights have landed.
    assert made == {"tiny.readings", "tiny.marks", "tiny.sums"}


@pytest.mark.parametrize(
    ("names", "looks"),
    [
        (("ingest",), 1),
        (("ingest", "check_raw"), 1),
        (("ingest", "check_raw", "train"), 2),
        (("ingest", "check_raw", "transform", "check_clean"), 2),
    ],
)
def test_how_things_stand_is_looked_at_again_only_where_a_stage_follows(
    names: tuple[str, ...], looks: int, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[0])
    looked: list[date] = []
    nights = survey.Survey._nights

    def counted(found: survey.Survey) -> Days:
        looked.append(DAYS[1])
        return nights(found)

    monkeypatch.setattr(survey.Survey, "_nights", counted)
    home.performed.clear()
    with home._stages():
        stages = tuple(map(stage, names))
        assert night.make_true(home.run(DAYS[1]), stages, notify=False) == 0
    assert len(looked) == looks
    # What one stage makes the next one finds.
    assert [name for name, _ in home.performed] == list(names)
