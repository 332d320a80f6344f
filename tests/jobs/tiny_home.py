"""A home of a tiny pipeline, whose stages do in Python what the real ones do by Spark."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import date, timedelta
from functools import cache, partial
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from jobs import night
from jobs.commands.plan import plan
from jobs.lake import commits, model_events, ops, publications, served, unscored
from jobs.lake.knowledge import Knowledge, Seen
from jobs.lake.locations import partition, path
from jobs.lake.publications import Origin, file_input
from jobs.lake.staging import Staging
from jobs.planning import survey
from jobs.planning.seen import training_definition
from jobs.stages.check import in_order
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import AwaitsApproval, NotLanded, Refused
from pipelines.landing import ExpectedFile, expected_files
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, QUARANTINE_SUFFIX, Table
from pipelines.stages import STAGES, Stage, stage
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


Ids = dict[date, list[int]]
"""By day."""


_WhenRead = Callable[[Run, str, Ids], None]


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
            now = dict.fromkeys(no_definitions(None), self.definition)
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
        in_files: dict[str, Ids] = {name: {} for name in daily}
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
            self._publish(run, name, staged_as(run, name, refused, Origin(inputs=files)))

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
        in_files: Ids,
        knowledge: Knowledge,
    ) -> Staging:
        ids = {}
        for day, of_day in in_files.items():
            ids[day] = [one for one in of_day if not self.refuses(one)]
        files = {day: (self._input(day, name),) for day in in_files}
        known = {day: knowledge.day_of_drop(name, day) for day in run.days}
        return staged_as(run, name, ids, Origin(inputs=files, known=known))

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
        self._wait(run, "sensors", staged_as(of_night, "sensors", ids, origin))

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
        self._wait(run, "sums", staged_as(run, "sums", sums, origin))
        if OF_THE_MOMENT in self.pipeline.derived:
            self._wait(run, "outcomes", staged_as(run, "outcomes", sums, origin))
        if OUTCOMES in self.pipeline.derived:
            self._wait(run, "outcomes", self._staged_outcomes(run, fresh, knowledge))

    def _told_to(
        self,
        night: date | None,
        name: str,
        knowledge: Knowledge,
        staged_now: Ids,
    ) -> Ids:
        """The ids of each day that a night sees; None: those known last."""
        seen = knowledge.seen_by(name, night) if night else knowledge.latest(name)
        published = {day: one for day, one in seen.items() if one.delta_version is not None}
        rows = self.rows_of(name, published)
        return rows | {day: staged_now[day] for day in seen if day not in published}

    def _staged_outcomes(self, run: Run, marks: Ids, knowledge: Knowledge) -> Staging:
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
        return staged_as(run, "outcomes", sums, origin)

    def _staged_facts(
        self,
        run: Run,
        name: str,
        of: Sequence[str],
        rows: Ids,
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
        return staged_as(run, name, rows, origin)

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
            self._publish(run, "scoring", staged_as(run, "scoring", ids, origin))

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
        self._wait(run, "predictions", staged_as(ahead, "predictions", ids, origin))

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


def staged_as(
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


def no_definitions(_: object) -> dict[str, str]:
    return dict.fromkeys((table.name for table in TINY.tables), "")


def landed(folder: Path) -> Home:
    """A home with the files of every day."""
    made = Home(folder)
    for number, day in enumerate(DAYS):
        made.land(day, 10 * number, 10 * number + 1)
    return made


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


def quarantine(
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
    commits.publish(run, name, staged_as(run, name, {day: ids}, origin))


def told_of(
    home: Home,
    state: str,
    last: date = DAYS[3],
) -> list[tuple[object, ...]]:
    """What the plan tells of nights in that state, without the state."""
    with home._stages():
        rows = plan(home.run(last)).rows
    return [(what, *more) for what, told, *more in rows if told == state]


def recorded_publications(home: Home) -> pa.Table:
    return ops.read(home.environment, "publications")


def tables_on_record(home: Home) -> set[str]:
    """The tables that `ops.publications` tells of."""
    return set(recorded_publications(home)["table_name"].to_pylist())


def without_model(home: Home) -> None:
    """A night that was missed, and the night that has tried it: its model scores none."""
    for number in range(3):
        home.promote(DAYS[number], str(number + 1))
    home.other_label = {"2"}
    assert home.night(DAYS[0]) == 0
    assert home.night(DAYS[2]) == 0
    assert stages_of(home)["predict"] == [f"{DAYS[1]}..{DAYS[2]}"]
    assert list(home.published(PREDICTIONS)) == [DAYS[1], DAYS[3]]
