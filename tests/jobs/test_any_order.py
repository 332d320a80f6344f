"""Whatever order nights come in, each table holds what a model of it says, row for row.

The model knows what was landed, what was read and which publications there were, and works out by
itself what each of them had to hold, and from when it had to be known. It looks after every single
publication, also of a night that is killed or was overtaken. Rules of the code are then broken one
by one: each time the machine must fail.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from jobs import night
from jobs.lake import commits, publications
from jobs.lake.knowledge import Knowledge, Version
from jobs.lake.locations import partition, path
from jobs.lake.log import actions, is_table
from jobs.lake.publications import Publication
from jobs.lake.staging import Staging
from jobs.planning import survey
from jobs.planning.landed_files import LandedFiles
from jobs.planning.quarantines import Quarantines
from pipelines.days import Days
from pipelines.errors import NightshiftError, NotLanded, Refused
from pipelines.landing import ExpectedFile, expected_files
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, QUARANTINE_SUFFIX, SCORING, TRAINING, Pipeline, Table
from pipelines.stages import STAGES
from tests.conftest import SOAK, SWEEP_EXAMPLES
from tests.jobs.lake.test_commits import staged
from tests.jobs.tiny_home import DAYS, MARKS, SUMS, TINY, WINDOW, Home

_READINGS, _SENSORS = TINY.feeds
_NOTES = replace(
    _READINGS,
    name="notes",
    path="notes/{date}.csv",
    marker="{date}.done",
)
FEEDS = ("readings", "notes")
"""Those with a file a day. Of notes a marker tells that it is whole."""
TWO_FEEDS = replace(
    TINY,
    feeds=(_READINGS, _NOTES, _SENSORS),
    derived=(replace(MARKS, reads=FEEDS), SUMS),
)
QUARANTINE = "readings" + QUARANTINE_SUFFIX
MADE = ("marks", "sums", TRAINING, SCORING, PREDICTIONS)
TABLES = (QUARANTINE, *FEEDS, *MADE)
"""In the order in which a night publishes them."""
MADE_FROM = {
    "marks": FEEDS,
    "sums": ("marks",),
    TRAINING: ("marks",),
    SCORING: ("sums",),
    PREDICTIONS: (SCORING,),
}
"""Tables without whose own day a night's rows say nothing."""
REGISTER = "sensors"
LOSABLE = (QUARANTINE, *FEEDS, "marks", "sums", TRAINING, SCORING)
"""Those that the next nights make anew; what was served comes back from a backup alone."""
REFUSED_FROM = 80
"""Greater ids in a file of readings are refused."""
NOTED = 7
"""In notes of which a test says nothing else."""
LEAD = timedelta(days=1)
"""Of what is predicted, and of the evening that is learned from."""
DIES = KeyboardInterrupt
"""No `Exception`: nothing in the code may catch it and go on, as nothing survives a kill."""


def predicted(total: int) -> int:
    """What the model that serves makes of a night's features."""
    return 2 * total + 1


@dataclass(frozen=True, kw_only=True)
class Known:
    """A version of one day of a table."""

    since: date
    """The night from which it is known."""
    ids: list[int]
    in_file: list[int] = field(default_factory=list)
    """Of a feed's: what its file said, refused ids too, in the file's order."""
    version: int = 0
    """Of the Delta table, in which it is visible."""
    definition: str = ""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a run has read of a day."""

    number: int
    """How many were read before."""
    known: Known
    refused: list[int]


_Versions = dict[date, list[Known]]
_Ids = dict[date, list[int]]
"""By day."""
_Drop = tuple[str, date]
"""A feed, and the day of its file."""


class Model:
    """What each table must hold, from what was landed and which nights were run, in order."""

    def __init__(self, home: Home) -> None:
        self.home = home
        home.pipeline = TWO_FEEDS
        home.when_read = self._read
        home.after_publication = self.follow
        home.refuses = lambda one: one >= REFUSED_FROM
        home.judges_quarantines = True
        home.predicted = predicted
        self.versions: dict[str, _Versions] = {name: {} for name in TABLES}
        """By table and day its versions, in the order in which they were published."""
        self.scored_again: set[date] = set()
        """Nights whose predictions may get a revision now."""
        self.is_restating = False
        """Whether days are read by their names, whatever their markers say."""
        self.lost: dict[str, _Versions] = {name: {} for name in TABLES}
        """What each table had, and has no more, until it has got the day again."""
        self.has_lost_register = False
        """Whether its folder was deleted, and no night has read the file of today since."""
        self._gone_on: dict[str, set[date]] = {name: set() for name in FEEDS}
        """Days that a feed has lost, and since when it has got a later one."""
        self._landed: dict[date, int] = {}
        """When the last of each day's files was landed."""
        self._first_told: dict[tuple[str, date], int] = {}
        """When each day of a table was published first, as far as is known after a loss."""
        self._unannounced: set[date] = set()
        """Days whose notes were landed since their marker."""
        self._readings: dict[tuple[str, _Drop], Reading] = {}
        """By run, and by what it has read."""
        self._numbers = count()
        """A clock too."""
        self._newest: dict[_Drop, int] = {}
        """The number of the reading that is in force."""
        self._told: set[tuple[str, date, int, datetime]] = set()

    def land(self, day: date, *ids: int) -> None:
        """Drop the day's readings, or others in their place; and notes where it has none."""
        self.land_readings(day, *ids)
        if not self.home._file(day, "notes").exists():
            self.land_notes(day, NOTED)

    def land_readings(self, day: date, *ids: int) -> None:
        """Drop the day's readings alone, or others in their place."""
        self.home.land(day, *ids)
        self._landed[day] = next(self._numbers)

    def land_notes(self, day: date, *ids: int, is_announced: bool = True) -> None:
        """Drop the day's notes, or others in their place, and their marker or none."""
        # By their ids it is known whether two files say the same.
        self.home.land_of("notes", day, *sorted(ids))
        self._landed[day] = next(self._numbers)
        self._unannounced.add(day)
        if is_announced:
            self.announce(day)

    def announce(self, day: date) -> None:
        """Drop the marker of the day's notes, also before there are any."""
        self.home.mark(day)
        self._landed[day] = next(self._numbers)
        self._unannounced.discard(day)

    def is_to_lose(self, name: str) -> bool:
        """Whether it is known what is lost with the folder of a table."""
        if not is_table(path(self.home.run(DAYS[0]), name)):
            return False
        # What a kill has left out of the record, and what has still to be forgotten, the next night
        # puts right. And of what is lost twice not all is known of what came between.
        told = publications.told(self.home.run(DAYS[0]), name)
        there = self.versions.get(name, {})
        is_left = told.unrecorded or told.lost.keys() & there.keys()
        return not (is_left or self._gone_on.get(name))

    def lose(self, name: str, newest: int | None = None) -> None:
        """Have a table lose its newest versions, so many as a backup lacks.

        Args:
            name: The table.
            newest: How many versions; None: all, as its folder is deleted.
        """
        place = Path(path(self.home.run(DAYS[0]), name))
        kept = -1 if newest is None else DeltaTable(place).version() - newest
        lost = self.later_than(name, kept)
        for day in lost:
            early = [one for one in self.versions[name].pop(day) if one.version <= kept]
            if early:
                self.versions[name][day] = early
        self.lost[name] |= lost
        _put_back(place, kept)

    def later_than(self, name: str, kept: int) -> _Versions:
        """What a table has of versions after that one."""
        found = {}
        for day, of_day in self.versions[name].items():
            late = [one for one in of_day if one.version > kept]
            if late:
                found[day] = late
        return found

    def lose_register(self) -> None:
        """Delete its folder too, and with it what its file said before today."""
        shutil.rmtree(path(self.home.run(DAYS[0]), REGISTER))
        self.has_lost_register = True

    @property
    def made(self) -> list[date]:
        """The nights whose files are published."""
        readings, notes = (self.versions[name] for name in FEEDS)
        return sorted(readings.keys() & notes.keys())

    @property
    def begun(self) -> list[date]:
        """Those of which some file was published, lost or not: a kill may have kept the others."""
        days: set[date] = set()
        for name in FEEDS:
            days.update(self.versions[name], self.lost[name])
        return sorted(days)

    @property
    def last_scored(self) -> date:
        """The last night that has rows to score, or had; before all days where there is none."""
        scored = [*self.versions[SCORING], *self.lost[SCORING]]
        return max(scored, default=date.min)

    def awaits_marker(self, day: date) -> bool:
        """Whether published notes were replaced, and the marker has not come again."""
        notes = self.in_force("notes").get(day)
        has_changed = notes is not None and notes != self.home.ids_in(day, "notes")
        # A night that has lost its readings is read as one that was never made.
        is_made = day in self.versions["readings"]
        return has_changed and is_made and day in self._unannounced

    def holes(self, night: date) -> list[date]:
        """The nights that keep one from being made, unless gaps are allowed."""
        made = [day for day in self.made if day < night]
        begun = [day for day in self.begun if day < night]
        since = [*made[-1:], *begun[:1]]
        missed = Days(since[0], night) if since else ()
        holes = [day for day in missed if day != night and not self.home.has_landed(day)]
        # Those that were never read, and that a night went over which has lost its rows since.
        told = [{*self.versions[name], *self.lost[name]} for name in FEEDS]
        whole = set.intersection(*told)
        last = max((day for day in whole if day < night), default=date.min)
        return [day for day in holes if day > last or day in self.begun]

    def in_force(self, name: str) -> dict[date, list[int]]:
        """What people see of a table."""
        in_order = sorted(self.versions[name].items())
        return {day: of_day[-1].ids for day, of_day in in_order}

    def seen_by(self, name: str, night: date) -> dict[date, list[int]]:
        """What a night sees of a table."""
        seen = {}
        for day, of_day in self.versions[name].items():
            known = [one.ids for one in of_day if one.since <= night]
            if known:
                seen[day] = known[-1]
        return seen

    def follow(self) -> None:
        """Compare what was published since the last time with what it had to be."""
        assert _is_locked(self.home)
        told = publications.told_of(self.home.run(DAYS[0]), TABLES)
        for name in TABLES:
            for one in sorted(told[name], key=lambda one: one.published_at):
                identity = (name, one.day, one.version, one.published_at)
                if identity not in self._told:
                    self._told.add(identity)
                    self._take(name, one)

    def _read(self, run: Run, feed: str, in_files: _Ids) -> None:
        for day, ids in in_files.items():
            # All files of the night that puts the register back are read together.
            is_read = self.is_restating or self.has_lost_register
            assert is_read or not self.awaits_marker(day), day
            good = sorted(one for one in ids if one < REFUSED_FROM)
            drop = (feed, day)
            self._readings[run.run_id, drop] = Reading(
                number=next(self._numbers),
                known=Known(
                    since=self._found_by(drop, ids, run.named_from),
                    ids=good,
                    in_file=ids,
                ),
                refused=sorted(one for one in ids if one >= REFUSED_FROM),
            )

    def _found_by(self, drop: _Drop, in_file: list[int], first: date) -> date:
        """From when a drop is known that a run reads which was asked for nights from `first` on."""
        feed, day = drop
        if day >= first:
            return day
        lost = self.lost[feed].get(day)
        before = self.versions[feed].get(day)
        if lost and day not in self._gone_on[feed]:
            if not before:
                # What the first one said nobody knows, but that nights since had one.
                return min(one.since for one in lost)
            if lost[-1].in_file == in_file:
                return lost[-1].since
        if not (before or self._is_passed(day)):
            return day
        if before and before[-1].since > self.last_scored:
            return before[-1].since
        last_begun = max(self.begun)
        return first if last_begun <= first else last_begun + LEAD

    def _is_passed(self, day: date) -> bool:
        """Whether a later night was made, and scored, before the last of its files was landed."""
        landed = self._landed[day]
        passed = Days(day, max(day, self.last_scored))
        told = self._first_told.items()
        return any(later in passed and later != day and made < landed for (_, later), made in told)

    def _come(self, name: str, day: date, is_other: bool) -> None:
        """Note that a table has got a day, for the first time or again."""
        came = next(self._numbers)
        self.lost[name].pop(day, None)
        if len(self.versions[name][day]) == 1 and name in (*FEEDS, SCORING):
            # Of a night that has lost all of these nothing tells when it was made first.
            self._first_told[name, day] = came
        if is_other and name in FEEDS:
            gone_on = self._gone_on[name]
            gone_on.discard(day)
            gone_on.update(one for one in self.lost[name] if one < day)

    def _take(self, name: str, one: Publication) -> None:
        version = Version(day=one.day, known_day=None, checksum="", delta_version=one.version)
        (ids,) = self.home.rows_of(name, {one.day: version}).values()
        must_be = self.must_be(name, one)
        assert ids == must_be.ids, (name, one.day)
        before = self.versions[name].setdefault(one.day, [])
        is_other = not before or before[-1].ids != ids
        assert one.changed == is_other, (name, one.day)
        since = must_be.since
        if not one.changed:
            since = min(since, before[-1].since)
        if name in (*FEEDS, "marks", "sums", TRAINING):
            assert one.known_day == since, (name, one.day)
        if name in FEEDS:
            # Also where it says the same: a late one has nothing to say.
            drop = (name, one.day)
            number = self._readings[one.run_id, drop].number
            assert number > self._newest.get(drop, -1), drop
            self._newest[drop] = number
        if name == PREDICTIONS and one.changed:
            assert not before or one.day - LEAD in self.scored_again, one.day
        came = replace(
            must_be,
            since=since,
            version=one.version,
            definition=one.definition,
        )
        before.append(came)
        self._come(name, one.day, is_other)
        if name in MADE:
            assert one.definition == self.home.definition

    def must_be(self, name: str, one: Publication) -> Known:
        """What a publication must hold, from what the tables before it hold."""
        night = one.day - LEAD if name == PREDICTIONS else one.day
        for other in MADE_FROM.get(name, ()):
            assert night in self.versions[other], (name, one.day, other)
        if name in FEEDS:
            return self._readings[one.run_id, (name, one.day)].known
        if name == QUARANTINE:
            refused = self._readings[one.run_id, ("readings", one.day)].refused
            return Known(since=one.day, ids=refused)
        if name == "marks":
            return self._marks_of(one.day)
        since = self._since(name, one.day)
        return Known(since=since, ids=self._made_of(name, one.day))

    def _marks_of(self, day: date) -> Known:
        """What both feeds tell; of a day never made before, as before its corrections first."""
        told = [self.versions[feed][day] for feed in FEEDS]
        since = max(day, *(of_feed[-1].since for of_feed in told))
        first = max(day, *(self._first_known(feed, day) for feed in FEEDS))
        is_made = day in self.versions["marks"]
        if first < since and not is_made and not self.is_restating:
            since = first
        ids: list[int] = []
        for of_feed in told:
            seen = [one for one in of_feed if one.since <= since]
            ids += seen[-1].ids
        return Known(since=since, ids=sorted(ids))

    def _since(self, name: str, day: date) -> date:
        """From when others know what is made of a day, also one that was found late."""
        if name == "sums":
            marks = max(day, self._first_known("marks", day))
            # Nights that had them in time keep them.
            own = [one.since for one in self.versions["sums"].get(day, ())]
            return max(day, min([marks, *own]))
        if name == TRAINING:
            labels = self.versions["marks"][day][-1].since
            return max(day, labels, self._first_known("sums", day - LEAD))
        return day

    def _first_known(self, name: str, day: date) -> date:
        versions = self.versions[name].get(day, ())
        return min((one.since for one in versions), default=day)

    def _made_of(self, name: str, day: date) -> list[int]:
        if name == "sums":
            seen = self.seen_by("marks", day)
            window = Days.of(day).since(WINDOW - 1)
            totals = [sum(seen.get(one, ())) for one in window]
            return [sum(totals)]
        sums = self.in_force("sums")
        if name == SCORING:
            return sums[day]
        if name == PREDICTIONS:
            return list(map(predicted, self.in_force(SCORING)[day - LEAD]))
        (evening,) = sums.get(day - LEAD, [0])
        return sorted(10_000 * mark + evening for mark in self.in_force("marks")[day])


def _is_locked(home: Home) -> bool:
    """Whether somebody holds the pipeline's lock."""
    with (home.environment.runtime / "locks" / "pipeline.tiny").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _put_back(place: Path, version: int) -> None:
    """Have a table's folder as a backup has it that was made of that version; -1: have none."""
    if version < 0:
        shutil.rmtree(place)
        return
    log = place / "_delta_log"
    # It names a checkpoint that may be younger.
    (log / "_last_checkpoint").unlink(missing_ok=True)
    # Data files first, which the commits name.
    later = [file for file in log.glob("[0-9]*") if _version_of(file) > version]
    told = [file for file in later if file.suffix == ".json"]
    for commit in told:
        for action in actions(str(place), _version_of(commit)):
            if "add" in action:
                (place / action["add"]["path"]).unlink()
    for file in later:
        file.unlink()


def _version_of(file: Path) -> int:
    """That of which a file of a table's log tells."""
    return int(file.name.partition(".")[0])


def _is_younger(file: Path, marker: Path) -> bool:
    return marker.stat().st_mtime_ns > file.stat().st_mtime_ns


def _good(home: Home, day: date) -> list[int]:
    return sorted(one for one in home.ids_in(day) if one < REFUSED_FROM)


def _check(model: Model, last: date) -> None:
    """Every table is true up to `last`, and a night has nothing to do."""
    _check_made(model, last)
    # Of all nights since there is a model: what each of them holds was looked at then.
    made = [day for day in model.made if day <= last]
    assert {day + LEAD for day in made} <= model.in_force(PREDICTIONS).keys()
    assert model.home.night(last, allow_gap=True) == 0
    assert model.home.performed == []


def _check_made(model: Model, last: date) -> None:
    """Every table but predictions is true up to `last`."""
    home = model.home
    made = {name: model.in_force(name) for name in TABLES}
    days = [day for day in model.made if day <= last]
    assert home.registered()
    for day in days:
        if not model.awaits_marker(day):
            _check_files(model, day)
        both = made["readings"][day] + made["notes"][day]
        assert made["marks"][day] == sorted(both)
        for name in ("sums", SCORING, TRAINING):
            assert made[name][day] == model._made_of(name, day), (name, day)
    # Those that were lost too.
    first = min(model.begun)
    landed = [day for day in DAYS if first <= day <= last and home.has_landed(day)]
    assert days == landed
    if last == max(model.begun) and not model.awaits_marker(last):
        assert home.register_of(last) == home.ids_in_register()
    _check_outdated(model, last)


def _check_files(model: Model, day: date) -> None:
    """Raw tables hold what the day's files say now."""
    home = model.home
    assert model.in_force("readings")[day] == _good(home, day)
    assert model.in_force("notes")[day] == home.ids_in(day, "notes")
    refused = [one for one in home.ids_in(day) if one >= REFUSED_FROM]
    assert model.in_force(QUARANTINE).get(day, []) == sorted(refused)


def _check_outdated(model: Model, last: date) -> None:
    """The plan tells of exactly the nights that another definition made."""
    with model.home._stages():
        foreseen = survey.Survey(model.home.run(last)).foreseen()
    told = set()
    for findings in foreseen:
        told |= {(one.table.name, one.night) for one in findings if one.state == "outdated"}
    outdated = set()
    for name in set(MADE) - {PREDICTIONS}:
        for day, of_day in model.versions[name].items():
            if of_day[-1].definition != model.home.definition and day <= last:
                outdated.add((name, day))
    assert told == outdated


def _check_restated(model: Model, named: Sequence[date]) -> None:
    """The days that were made anew are as their files say now; others may have become stale."""
    for day in named:
        _check_files(model, day)
        both = _good(model.home, day) + model.home.ids_in(day, "notes")
        assert model.in_force("marks")[day] == sorted(both)
        for name in ("sums", TRAINING, SCORING):
            assert model.versions[name][day][-1].definition == model.home.definition, name


@cache
def _rows_in(place: str, version: int, written: int, column: str) -> _Ids:
    """The ids of each day that a version of a table has."""
    rows = DeltaTable(place, version=version).to_pyarrow_table()
    found: _Ids = {}
    for row in rows.to_pylist():
        found.setdefault(row[column], []).append(row["id"])
    return {day: sorted(ids) for day, ids in found.items()}


def _rows_now(home: Home, name: str) -> dict[date, list[int]]:
    """The ids of each day that has rows, as a reader who knows no record finds them."""
    run = home.run(DAYS[0])
    place = path(run, name)
    if not is_table(place):
        return {}
    version = DeltaTable(place).version()
    written = (Path(place) / "_delta_log" / f"{version:020}.json").stat().st_mtime_ns
    return _rows_in(place, version, written, partition(run, name))


def _dies_in(
    function: str,
    part: Callable[..., object] | None = None,
) -> Callable[..., None]:
    """A kill in a function, once it was called some times, after a part of its work."""

    def patch(patched: pytest.MonkeyPatch, calls: int) -> None:
        module, _, name = function.rpartition(".")
        whole = getattr(pytest.importorskip(module), name)
        called = count()

        def dying(*given: Any, **named: Any) -> Any:
            if next(called) < calls:
                return whole(*given, **named)
            if part:
                part(*given, **named)
            raise DIES

        patched.setattr(function, dying)

    return patch


def _stage_one_day(
    run: Run, ids: Mapping[date, list[int]], name: str, origin: publications.Origin
) -> None:
    staged(run, dict(list(ids.items())[:1]), name, origin)


def _dies_after_quarantine(patched: pytest.MonkeyPatch, calls: int) -> None:
    whole = commits.publish

    def publish(run: Run, name: str, *given: Any, **named: Any) -> Any:
        done = whole(run, name, *given, **named)
        if name == QUARANTINE:
            raise DIES
        return done

    patched.setattr(commits, "publish", publish)


def _dies_before_it_forgets(patched: pytest.MonkeyPatch, calls: int) -> None:
    """Where days are there again, and on record, and still told of as lost."""
    whole = commits._comes_again

    def comes_again(*given: Any) -> bool:
        if whole(*given):
            raise DIES
        return False

    patched.setattr(commits, "_comes_again", comes_again)


KILLS = {
    "in the middle of a staging": _dies_in("tests.jobs.tiny_home.staged", _stage_one_day),
    "before a commit": _dies_in("jobs.lake.commits._commit"),
    "between a commit and its record": _dies_in("jobs.lake.publications.record"),
    "between quarantine and table": _dies_after_quarantine,
    "before a stage is recorded": _dies_in("jobs.night._record"),
    "before what is lost is put aside": _dies_in("jobs.lake.publications.forget_lost"),
    "before what came again is forgotten": _dies_before_it_forgets,
}
"""Where a process may be gone."""
_IDS = st.lists(st.integers(0, 99), max_size=3, unique=True)
_NOTED = st.lists(st.integers(0, REFUSED_FROM - 1), max_size=2, unique=True)
_BACK = st.integers(0, 2)
_CORRECTION = st.one_of(
    st.tuples(_BACK, st.just("readings"), _IDS),
    st.tuples(_BACK, st.just("notes"), _NOTED),
)
"""How many days before a night's own, and what lands there."""
_REGISTERED = st.lists(
    st.integers(0, 9),
    min_size=1,
    max_size=2,
    unique=True,
)


def _earlier(day: date, nights: int) -> date:
    """A day before another, or after it, of those that there are."""
    place = DAYS.index(day) - nights
    return DAYS[min(max(place, 0), len(DAYS) - 1)]


_LOSABLES = st.lists(
    st.sampled_from(LOSABLE),
    min_size=1,
    max_size=3,
    unique=True,
)
_NEWEST = st.none() | st.integers(1, 4)
"""How many versions a backup lacks; none: there is no backup."""


class AnyOrder(RuleBasedStateMachine):
    """Files and nights in any order."""

    @initialize(
        made=st.sampled_from((0, 1, 2, 2)),
        lost=st.lists(st.sampled_from(LOSABLE), max_size=3, unique=True),
        newest=_NEWEST,
    )
    def begin(
        self,
        made: int = 0,
        lost: Sequence[str] = (),
        newest: int | None = None,
    ) -> None:
        """Begin with some nights, and with a loss: by chance there is seldom much to be lost."""
        self.folder = Path(tempfile.mkdtemp())
        self.home = Home(self.folder)
        # One without a name would never be told as another.
        self.home.definition = "first"
        self.model = Model(self.home)
        self.home.promote(DAYS[0])
        self.patched = pytest.MonkeyPatch()
        # By the clock of the home: by that of the disk all comes within a second.
        self.patched.setattr("jobs.planning.landed_files.is_announced", _is_younger)
        self.served: dict[date, list[int]] = {}
        self.register_seen: dict[date, list[int]] = {}
        for day in DAYS[:made]:
            # The first one is corrected by the second.
            self.model.land(DAYS[0], day.day)
            self.model.land(day, day.day)
            self.night(day, allow_gap=False)
        self._lose(lost, newest)

    @rule(ids=_REGISTERED)
    def change_register(self, ids: list[int]) -> None:
        self.home.land_register(*sorted(ids))

    @rule(day=st.sampled_from(DAYS), ids=_IDS)
    def land_or_correct(self, day: date, ids: list[int]) -> None:
        self.model.land(day, *ids)

    @rule(day=st.sampled_from(DAYS), ids=_IDS)
    def land_readings_alone(self, day: date, ids: list[int]) -> None:
        """Of a night without notes one file of two."""
        self.model.land_readings(day, *ids)

    @rule(day=st.sampled_from(DAYS), ids=_NOTED, is_announced=st.booleans())
    def land_or_correct_notes(self, day: date, ids: list[int], is_announced: bool) -> None:
        self.model.land_notes(day, *ids, is_announced=is_announced)

    @rule(day=st.sampled_from(DAYS))
    def announce_notes(self, day: date) -> None:
        self.model.announce(day)

    @rule(day=st.sampled_from(DAYS), allow_gap=st.booleans())
    def night(self, day: date, allow_gap: bool) -> None:
        holes = self.model.holes(day)
        try:
            code = self.home.night(day, allow_gap=allow_gap)
        except Refused:
            assert holes
            assert not allow_gap
            return
        assert allow_gap or not holes
        self._look(day, code)

    @rule(
        day=st.sampled_from(DAYS),
        where=st.sampled_from(list(KILLS)),
        calls=st.integers(0, 7),
        goes_on=st.booleans(),
    )
    def killed_night(self, day: date, where: str, calls: int, goes_on: bool) -> None:
        with pytest.MonkeyPatch.context() as patched:
            KILLS[where](patched, calls)
            try:
                self.home.night(day, allow_gap=True)
            except DIES:
                self.home._waiting.clear()
        if goes_on:
            self.night(day, allow_gap=True)

    @rule(
        names=_LOSABLES,
        newest=_NEWEST,
        day=st.sampled_from((*DAYS, None)),
        following=st.sampled_from((*DAYS, None)),
    )
    def lose(
        self,
        names: list[str],
        newest: int | None,
        day: date | None,
        following: date | None,
    ) -> None:
        """Folders are deleted, or put back as some nights ago: later nights make it good."""
        if day:
            # By chance there is seldom much to be lost.
            self._make(day)
        self._lose(names, newest)
        if following:
            self.night(following, allow_gap=True)

    def _lose(self, names: Sequence[str], newest: int | None) -> None:
        for name in filter(self.model.is_to_lose, names):
            self.model.lose(name, newest)

    @rule(
        day=st.sampled_from(DAYS),
        names=_LOSABLES,
        newest=_NEWEST,
        stages=st.integers(1, 9),
    )
    def night_that_loses(
        self,
        day: date,
        names: list[str],
        newest: int | None,
        stages: int,
    ) -> None:
        """So it is after some of a night's stages: it makes nothing of what is gone."""
        done = count(1)
        record = night._record

        def recorded(*given: Any, **named: Any) -> None:
            record(*given, **named)
            if next(done) == stages:
                self._lose(names, newest)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(night, "_record", recorded)
            # Whatever becomes of it, the next night makes everything true.
            with suppress(NightshiftError):
                self.home.night(day, allow_gap=True)
        self.home._waiting.clear()
        self.night(day, allow_gap=True)

    def _make(self, day: date) -> None:
        if not self.home.has_landed(day):
            self.model.land(day, day.day)
            self.model.announce(day)
        self.night(day, allow_gap=True)

    @rule(day=st.sampled_from(DAYS))
    def lose_register(self, day: date) -> None:
        self._make(day)
        if self.model.is_to_lose(REGISTER):
            self.model.lose_register()

    @rule(day=st.sampled_from(DAYS), newest=_NEWEST)
    def night_without_what_was_served(self, day: date, newest: int | None) -> None:
        """The folder of the predictions is away, or an older one; then the own one comes back."""
        model = self.model
        if not model.is_to_lose(PREDICTIONS):
            return
        place = Path(path(self.home.run(day), PREDICTIONS))
        backup = shutil.copytree(place, self.folder / "backup")
        served = dict(model.versions[PREDICTIONS])
        model.lose(PREDICTIONS, newest)
        lost = self._served_and_lost()
        if lost:
            night = max(day, *lost)
            code = self.home.night(night, allow_gap=True)
            has_landed = self.home.has_landed(night)
            assert code == (Refused.exit_code if has_landed else NotLanded.exit_code)
            if has_landed:
                _check_made(model, night)
            # Neither those of before, nor a new night's.
            assert self.home.published(PREDICTIONS) == model.in_force(PREDICTIONS)
        shutil.rmtree(place, ignore_errors=True)
        shutil.move(backup, place)
        model.versions[PREDICTIONS] = served
        model.lost[PREDICTIONS] = {}

    def _served_and_lost(self) -> list[date]:
        """The nights whose predictions are gone, or others than those that were served last."""
        there = self.model.in_force(PREDICTIONS)
        found = []
        for day, lost in self.model.lost[PREDICTIONS].items():
            if there.get(day, []) != lost[-1].ids:
                found.append(day - LEAD)
        return found

    @rule(day=st.sampled_from(DAYS), by=st.sampled_from(("check_clean", "features")))
    def refused_night(self, day: date, by: str) -> None:
        """Of what is made of it nothing is accepted: its raw rows alone are in force."""
        self.home.refused_stage = by
        self.home.night(day, allow_gap=True)
        self.home.refused_stage = ""

    @rule(days=st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)))
    def range(self, days: tuple[date, date]) -> None:
        named = Days(min(days), max(days))
        self._look(
            named.last,
            self.home.night(named.last, first=named.first, allow_gap=True),
        )

    @rule(
        days=st.tuples(st.sampled_from(DAYS), st.sampled_from(DAYS)),
        allow_gap=st.booleans(),
    )
    def restate(self, days: tuple[date, date], allow_gap: bool) -> None:
        named = Days(min(days), max(days))
        self.model.is_restating = True
        code = self.home.restate(named.first, named.last, allow_gap=allow_gap)
        self.model.is_restating = False
        there = [day for day in named if self.home.has_landed(day)]
        asked = [named.last] if allow_gap else list(named)
        assert (code == 0) == (set(asked) <= set(there))
        if code == 0:
            _check_restated(self.model, there)

    @rule(
        day=st.sampled_from(DAYS),
        ids=_IDS,
        publishes=st.integers(0, 7),
        back=st.integers(-1, 2),
        correction=st.none() | _CORRECTION,
    )
    def overtaken_night(
        self,
        day: date,
        ids: list[int],
        publishes: int,
        back: int,
        correction: tuple[int, str, list[int]] | None,
    ) -> None:
        """A night sleeps before it publishes; another one is made, and then it goes on."""
        self.model.land(day, *ids)
        other = _earlier(day, back)
        self.home.meanwhile = partial(self._overtake, day, other, correction)
        self.home.publishes_until_overlap = publishes
        self.home.night(day, allow_gap=True)
        self.home.publishes_until_overlap = None
        # Whatever became of both, the next night makes everything true.
        self.night(max(day, other), allow_gap=True)

    def _overtake(
        self,
        night: date,
        other: date,
        correction: tuple[int, str, list[int]] | None,
    ) -> None:
        if correction:
            back, feed, ids = correction
            land = self.model.land if feed == "readings" else self.model.land_notes
            land(_earlier(night, back), *ids)
        self.home.night(other, allow_gap=True)

    @rule(day=st.none() | st.sampled_from(DAYS))
    def change_definition(self, day: date | None) -> None:
        """Another transform: no day is made anew by itself."""
        if day:
            self.night(day, allow_gap=True)
        self.home.definition += "'"
        if day and self.home.has_landed(day):
            _check(self.model, day)

    @rule(day=st.sampled_from(DAYS))
    def rescore(self, day: date) -> None:
        self.model.scored_again = {day}
        code = self.home.night(day, allow_gap=True, rescore=True)
        self.model.scored_again = set()
        self.served.pop(day + LEAD, None)
        if code == 0:
            scored = self.model.in_force(SCORING)[day]
            assert self.home.published(PREDICTIONS)[day + LEAD] == list(map(predicted, scored))
        self._look(day, code)

    def _look(self, last: date, code: int) -> None:
        assert code == (0 if self.home.has_landed(last) else NotLanded.exit_code)
        if code == 0:
            _check(self.model, last)

    @invariant()
    def every_table_holds_what_the_model_says(self) -> None:
        for name in TABLES:
            must_be = self.model.in_force(name)
            assert self.home.published(name) == must_be, name
            with_rows = {day: ids for day, ids in must_be.items() if ids}
            assert _rows_now(self.home, name) == with_rows, name

    @invariant()
    def what_was_served_stays(self) -> None:
        published = self.home.published(PREDICTIONS)
        assert {day: published[day] for day in self.served} == self.served
        self.served = published

    @invariant()
    def nights_that_have_passed_saw_the_register_of_their_time(self) -> None:
        by_day = (self.model.versions["readings"], self.model.lost["readings"])
        read = sorted(set().union(*by_day))
        if self.model.has_lost_register:
            registered = self.home.registered()
            if not registered:
                return
            # Nobody knows any more what it said before, but that there was one.
            today = self.home.ids_in_register()
            assert [self.home.register_of(night) for night in read] == [today] * len(read)
            self.register_seen = {}
            self.model.has_lost_register = False
        seen = {night: self.home.register_of(night) for night in read[:-1]}
        assert {night: seen[night] for night in self.register_seen} == self.register_seen
        # Also where a run was killed between its raw tables: the register is published first.
        assert all(seen.values())
        self.register_seen = seen

    def teardown(self) -> None:
        self.patched.undo()
        shutil.rmtree(self.folder)


AnyOrder.TestCase.settings = settings(
    # Four would come to little, and twenty take a minute.
    max_examples=SWEEP_EXAMPLES * (5 if os.environ.get("SOAK") else 3),
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_tables_are_true_whatever_order_nights_come_in = pytest.mark.soak(AnyOrder.TestCase)


def test_a_stage_by_itself_publishes_each_range_before_it_makes_the_next(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.definition = "first"
    home.promote(DAYS[0])
    model = Model(home)
    for number, day in enumerate(DAYS):
        model.land(day, number, 10 + number)
    home.night(DAYS[4], first=DAYS[0])
    model.land(DAYS[3], 7)
    run = replace(home.run(DAYS[5]), run_id="scheduled__1")
    with home._stages():
        for one in STAGES:
            assert night.make_true(run, (one,), notify=False) == 0
    _check(model, DAYS[5])


@pytest.mark.parametrize("between", [1, 2, 5, 8])
def test_a_night_by_hand_between_two_tasks_of_a_scheduler_leaves_everything_true(
    tmp_path: Path, between: int
) -> None:
    model = _made_in_order(tmp_path, DAYS[:2])
    model.land(DAYS[2], 3, 13)

    def correct() -> None:
        model.land(DAYS[1], 6, 7)
        model.land(DAYS[2], 8)
        assert model.home.night(DAYS[2]) == 0

    assert model.home.night_by_tasks(DAYS[2], between, correct) == 0
    _check(model, DAYS[2])


def test_a_correction_before_a_hole_flows_on_as_far_as_nights_were_made(tmp_path: Path) -> None:
    model = _made_in_order(tmp_path, DAYS[:2])
    home = model.home
    # The files of the third have not landed, and the nights after it were made with the gap.
    for number, day in enumerate(DAYS[3:], 3):
        model.land(day, number)
    assert home.night(DAYS[4], allow_gap=True) == 0
    model.land(DAYS[0], 7)
    model.land(DAYS[1])
    assert home.night(DAYS[5]) == 0
    _check(model, DAYS[5])
    # By name too.
    model.land(DAYS[1], 8)
    assert home.night(DAYS[1]) == 0
    _check(model, DAYS[1])
    model.land(DAYS[2], 9)
    assert home.night(DAYS[6]) == 0
    _check(model, DAYS[6])


@pytest.mark.parametrize(
    "publishes",
    [
        # Before readings, and before sums; then before each of the others.
        0,
        3,
        pytest.param(1, marks=SOAK),
        pytest.param(2, marks=SOAK),
        pytest.param(4, marks=SOAK),
        pytest.param(5, marks=SOAK),
        pytest.param(6, marks=SOAK),
    ],
)
def test_a_backfill_that_a_corrected_night_overtakes_leaves_nothing_of_what_was_replaced(
    publishes: int, tmp_path: Path
) -> None:
    model = _made_in_order(tmp_path, DAYS[:1])
    home = model.home
    for number, day in enumerate(DAYS[1:5], 1):
        model.land(day, number)

    def correct() -> None:
        model.land(DAYS[1], 70)
        assert home.night(DAYS[2], allow_gap=True) == 0
        _check(model, DAYS[2])

    home.meanwhile = correct
    home.publishes_until_overlap = publishes
    code = home.night(DAYS[4], first=DAYS[1])
    # Rows of a table that is made of what was published meanwhile are as good as any.
    assert code in (0, commits.Fenced.exit_code)
    assert home.publishes_until_overlap is None
    assert model.in_force("readings")[DAYS[1]] == [70]
    assert home.night(DAYS[4]) == 0
    _check(model, DAYS[4])


def test_a_night_overtaken_by_its_correction_is_made_as_it_was_and_then_anew() -> None:
    # Of the other night, a later one, no file is there: it is not made.
    overtaken = {
        "day": DAYS[1],
        "ids": [],
        "publishes": 3,
        "back": -1,
        "correction": (0, "readings", [0]),
    }
    made = ("range", {"days": (DAYS[0], DAYS[1])})
    _go((_land(5, 1), _night(5), ("overtaken_night", overtaken), made))


def test_a_quarantine_of_a_file_that_was_taken_back_has_lost_that_of_the_one_in_force() -> None:
    # Of the other file rows were refused last, and nothing else was published.
    taken_back = (
        *(_land(0, 1, 90), _night(0)),
        *(_land(0, 1, 95), _kill(0, "between quarantine and table")),
        _land(0, 1, 90),
    )
    _go((*taken_back, _lose(QUARANTINE), _night(0)))


def test_a_drop_that_no_night_has_read_is_late_though_later_drops_are_lost_and_came_again() -> None:
    late = (
        *(*_FIRST, _land(2, 4), _night(2, allow_gap=True)),
        _land(1, 3),
    )
    _go((*late, _lose(*FEEDS), _restate(2, 2), _night(2)))


def test_nights_that_have_lost_their_drops_keep_the_register_of_their_time() -> None:
    changed = (*_THREE, ("change_register", {"ids": [2]}))
    _go((*changed, _lose(*FEEDS), _night(0)))


def _made_in_order(folder: Path, days: Sequence[date]) -> Model:
    """Of a home in which these nights were made, each with a file of one id."""
    home = Home(folder)
    home.definition = "first"
    home.promote(DAYS[0])
    model = Model(home)
    for number, day in enumerate(days):
        model.land(day, number)
        assert home.night(day) == 0
    return model


Breaks = Callable[[pytest.MonkeyPatch], None]
"""Has the code keep one of its rules no more."""


def _always(function: str, answer: object) -> Breaks:
    """The function says the same whatever it is asked."""
    return lambda patched: patched.setattr(function, lambda *_, **__: answer)


def _appends_only(patched: pytest.MonkeyPatch) -> None:
    """The files of a day that is replaced stay in the table."""
    whole = DeltaTable.create_write_transaction

    def appended(*given: Any, **named: Any) -> None:
        whole(*given, **{**named, "mode": "append", "partition_filters": None})

    patched.setattr(DeltaTable, "create_write_transaction", appended)


def _publishes_each_day_once(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(commits, "_holds", lambda known, staging, day: day in known)


def _fences_no_inputs(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(commits._Inputs, "now", lambda _, given, __: given)


def _hears_late_attempts(patched: pytest.MonkeyPatch) -> None:
    """Where they say the same rows."""

    def says_more(one: Publication, known: Publication) -> bool:
        return commits._origin(one) != commits._origin(known)

    patched.setattr(commits, "_says_more", says_more)


def _knows_from_its_own_day(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Knowledge, "day_of_drop", lambda _, name, day: day)


def _dates_as_if_all_were_scored(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Knowledge, "_last_scored", date.max)


def _asks_when_readings_came(patched: pytest.MonkeyPatch) -> None:
    """Of the files of a night that are read together one alone."""

    def expected(pipeline: Pipeline, days: Days) -> list[ExpectedFile]:
        return [file for file in expected_files(pipeline, days) if file.feed == _READINGS]

    patched.setattr("jobs.lake.knowledge.expected_files", expected)


def _learns_from_an_evening_before_it_was_found(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Knowledge, "known_to_others", lambda _, names, nights: nights.last)


def _sees_the_latest(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Knowledge, "seen_by", lambda self, name, night: self.latest(name))


def _spreads_definitions(patched: pytest.MonkeyPatch) -> None:
    whole = survey.Survey._finding

    def found(asked: survey.Survey, table: Table, night: date) -> survey.Finding:
        one = whole(asked, table, night)
        told = asked._if_outdated(one, survey.definitions(asked.pipeline).get(table.name))
        return replace(told, state="stale") if told.state == "outdated" else one

    patched.setattr(survey.Survey, "_finding", found)


def _tells_no_definition(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(survey.Survey, "_if_outdated", lambda _, one, definition: one)


def _replaces_what_was_served(patched: pytest.MonkeyPatch) -> None:
    whole = commits._try_to_publish

    def publish(run: Run, name: str, staging: Staging, keep_published: bool) -> commits.Published:
        return whole(run, name, staging, False)

    patched.setattr(commits, "_try_to_publish", publish)


def _scores_again_what_has_changed(patched: pytest.MonkeyPatch) -> None:
    """As of any other table."""

    def overtaken(table: Table, night: date, reason: str, **more: bool) -> survey.Finding:
        return survey.Finding(table=table, night=night, state="stale", reason=reason, **more)

    patched.setattr(survey, "_overtaken", overtaken)
    _replaces_what_was_served(patched)


def _follows_no_input(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(survey.Survey, "_has_changed", lambda *_: False)
    patched.setattr(LandedFiles, "has_changed", lambda *_: False)


def _finds_the_register_at_once(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Knowledge, "day_of_reference", lambda self: self._run.named_from)


def _locks_nothing(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(night, "one_run_at_a_time", lambda *_: nullcontext())


def _takes_numbers_from_what_is_recorded(patched: pytest.MonkeyPatch) -> None:
    """Not from what a killed run has committed."""
    patched.setattr(publications.Told, "last_attempt", property(_last_recorded))


def _last_recorded(told: publications.Told) -> int:
    return max((one.attempt for one in told if one not in told.unrecorded), default=0)


def _looks_at_no_quarantine(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(Quarantines, "refused_with", lambda *_: "")


def _takes_any_revision_for_the_last(patched: pytest.MonkeyPatch) -> None:
    patched.setattr("jobs.lake.served._is_lost", lambda one, there: there is None)


def _takes_what_was_told_for_a_night_since(patched: pytest.MonkeyPatch) -> None:
    def has_gone_on(knowledge: Knowledge, name: str, lost: Publication) -> bool:
        own = [one for one in knowledge._told(name) if one.day >= lost.day]
        return any(one.published_at > lost.published_at for one in own)

    patched.setattr(Knowledge, "_has_gone_on_since", has_gone_on)


def _forgets_what_is_lost(patched: pytest.MonkeyPatch) -> None:
    """All of it, once the table gets a commit."""
    patched.setattr(publications, "_staying", lambda *_: [])


Step = tuple[str, dict[str, Any]]
"""A rule of the machine, and what it is given."""


def _land(day: int, *ids: int) -> Step:
    return "land_or_correct", {"day": DAYS[day], "ids": list(ids)}


def _land_readings(day: int, *ids: int) -> Step:
    return "land_readings_alone", {"day": DAYS[day], "ids": list(ids)}


def _land_notes(day: int, *ids: int, is_announced: bool = True) -> Step:
    given = {"day": DAYS[day], "ids": list(ids), "is_announced": is_announced}
    return "land_or_correct_notes", given


def _announce(day: int) -> Step:
    return "announce_notes", {"day": DAYS[day]}


def _night(day: int, *, allow_gap: bool = False) -> Step:
    return "night", {"day": DAYS[day], "allow_gap": allow_gap}


def _range(first: int, last: int) -> Step:
    return "range", {"days": (DAYS[first], DAYS[last])}


def _restate(first: int, last: int) -> Step:
    return "restate", {"days": (DAYS[first], DAYS[last]), "allow_gap": False}


def _kill(day: int, where: str) -> Step:
    return "killed_night", {"day": DAYS[day], "where": where, "calls": 0, "goes_on": False}


def _lose(*names: str, newest: int | None = None) -> Step:
    given = {"names": list(names), "newest": newest, "day": None, "following": None}
    return "lose", given


def _lose_newest_after(stages: int, day: int, name: str) -> Step:
    """In the middle of a night, after so many of its stages."""
    given = {"day": DAYS[day], "names": [name], "newest": 1, "stages": stages}
    return "night_that_loses", given


def _rescore(day: int) -> Step:
    return "rescore", {"day": DAYS[day]}


def _without_what_was_served(day: int, newest: int | None = None) -> Step:
    return "night_without_what_was_served", {"day": DAYS[day], "newest": newest}


_LOSE_REGISTER: Step = ("lose_register", {"day": DAYS[1]})


def _refuse(day: int) -> Step:
    return "refused_night", {"day": DAYS[day], "by": "check_clean"}


def _overtake(day: int, publishes: int, back: int, *ids: int) -> Step:
    """Another night is made, of corrected readings of its day where there are some."""
    given = {
        "day": DAYS[day],
        "ids": [5],
        "publishes": publishes,
        "back": back,
        "correction": (back, "readings", list(ids)) if ids else None,
    }
    return "overtaken_night", given


_FIRST = (_land(0, 1), _night(0))
_CORRECTED = (*_FIRST, _land(0, 2), _night(0))
_LATER = (*_FIRST, _land(1, 3), _night(1))
_LATE = (*_LATER, _land(0, 2), _land(2, 4), _night(2))
_THREE = (*_LATER, _land(2, 4), _night(2))
_COMMITTED = (*_FIRST, _land(0, 2), _kill(0, "between a commit and its record"))
_DEFINED = (*_FIRST, ("change_definition", {"day": DAYS[0]}))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What the code keeps to."""

    broken_by: Breaks
    steps: Sequence[Step]
    """A way to where it counts."""


RULES = {
    "a late attempt is refused": Rule(
        broken_by=_always("jobs.lake.commits._refuse_late", None),
        steps=(*_FIRST, _overtake(1, 0, 0, 6)),
    ),
    "rows made from what was replaced are refused": Rule(
        broken_by=_fences_no_inputs,
        steps=(*_FIRST, _overtake(1, 3, 1, 9)),
    ),
    "a late drop is known from the night that found it": Rule(
        broken_by=_knows_from_its_own_day,
        steps=_LATE,
    ),
    "what no night has scored is replaced as it was known": Rule(
        broken_by=_dates_as_if_all_were_scored,
        steps=(
            *(*_FIRST, _land(1, 3), _refuse(1)),
            *(_land(1, 5), _land(2, 4), _night(2)),
        ),
    ),
    "what comes before any night was scored has come in time": Rule(
        broken_by=_dates_as_if_all_were_scored,
        steps=(
            *(_land(0, 1), _refuse(0)),
            *(_land(2, 4), _refuse(2)),
            *(_land(1, 3), _night(2)),
        ),
    ),
    "a drop is known since its night could be read": Rule(
        broken_by=_asks_when_readings_came,
        steps=(
            *(*_FIRST, _land_readings(1, 3)),
            *(_land(2, 4), _night(2, allow_gap=True)),
            *(_land_notes(1, 5), _land(3, 6), _night(3)),
        ),
    ),
    "a drop is known since its marker is there": Rule(
        broken_by=_asks_when_readings_came,
        steps=(
            *(*_FIRST, _land_notes(1, 5, is_announced=False), _land(1, 3)),
            *(_land(2, 4), _night(2, allow_gap=True)),
            *(_announce(1), _land(3, 6), _night(3)),
        ),
    ),
    "a late attempt says nothing of what is in force": Rule(
        broken_by=_hears_late_attempts,
        steps=(
            *(*_FIRST, _land(0, 2)),
            *(_land(2, 4), _overtake(1, 0, -1)),
        ),
    ),
    "notes that have changed wait for their marker": Rule(
        broken_by=_always("jobs.planning.landed_files.LandedFiles._awaits_marker", False),
        steps=(*_FIRST, _land_notes(0, 5, is_announced=False), _night(0)),
    ),
    "a night sees what was known by then": Rule(
        broken_by=_sees_the_latest,
        steps=(*_LATE, _restate(1, 1)),
    ),
    "holes are refused": Rule(
        broken_by=_always("jobs.planning.required.require_no_hole", None),
        steps=(*_FIRST, _land(2, 4), _night(2)),
    ),
    "the same rows are not published again": Rule(
        broken_by=_always("jobs.lake.commits._holds", False),
        steps=(*_FIRST, _restate(0, 0)),
    ),
    "other rows are published": Rule(
        broken_by=_publishes_each_day_once,
        steps=_CORRECTED,
    ),
    "a day's files go when it is replaced": Rule(
        broken_by=_appends_only,
        steps=_CORRECTED,
    ),
    "a pipeline has one run at a time": Rule(
        broken_by=_locks_nothing,
        steps=_FIRST,
    ),
    "each attempt has its number": Rule(
        broken_by=_always("jobs.lake.publications.next_attempt", 1),
        steps=_CORRECTED,
    ),
    "a number is above that of a killed run": Rule(
        broken_by=_takes_numbers_from_what_is_recorded,
        # A night records first what that run has left out, and days that are made by name do not.
        steps=(*_COMMITTED, _land(0, 3), _restate(0, 0)),
    ),
    "the record is repaired from the log": Rule(
        broken_by=_always("jobs.lake.publications._of_commit", ()),
        steps=_COMMITTED,
    ),
    "what it was made from has changed: stale": Rule(
        broken_by=_follows_no_input,
        steps=_CORRECTED,
    ),
    "a definition is not spread": Rule(
        broken_by=_spreads_definitions,
        steps=_DEFINED,
    ),
    "another definition is told": Rule(
        broken_by=_tells_no_definition,
        steps=_DEFINED,
    ),
    "what was served is not replaced": Rule(
        broken_by=_replaces_what_was_served,
        steps=(*_FIRST, _land(0, 2), _restate(0, 0)),
    ),
    "what was served is not scored again": Rule(
        broken_by=_scores_again_what_has_changed,
        steps=_CORRECTED,
    ),
    "a register is known from the night that found it": Rule(
        broken_by=_finds_the_register_at_once,
        steps=(*_LATER, ("change_register", {"ids": [2]}), _night(0)),
    ),
    "what is learned from an evening that was found late is known since": Rule(
        broken_by=_learns_from_an_evening_before_it_was_found,
        steps=(
            *(_land(0, 1), _night(0)),
            *(_land(2, 3), _night(2, allow_gap=True)),
            *(_land(1, 2), _land(3, 4), _night(3)),
        ),
    ),
    "a quarantine of another file is made anew": Rule(
        broken_by=_looks_at_no_quarantine,
        steps=(
            *(_land(0, 1, 90), _night(0)),
            *(_land(0, 1, 95), _kill(0, "between quarantine and table")),
            *(_land(0, 1, 90), _night(0)),
        ),
    ),
    "what a table has lost is on record until it comes again": Rule(
        broken_by=_forgets_what_is_lost,
        steps=(
            *(*_FIRST, _land(2, 4), _night(2, allow_gap=True)),
            *(_land(1, 3), _land(3, 6), _night(3)),
            *(_lose("readings"), _restate(0, 0)),
            *(_land(4, 7), _night(4)),
        ),
    ),
    "a lost drop is known again from when it was": Rule(
        broken_by=_always("jobs.lake.knowledge.Knowledge._day_of_lost_drop", None),
        steps=(*_LATE, _lose("readings"), _night(2)),
    ),
    "nights since a loss were made without what was lost": Rule(
        broken_by=_always("jobs.lake.knowledge.Knowledge._has_gone_on_since", False),
        steps=(
            *(*_THREE, _lose("readings"), _restate(2, 2)),
            *(_land(0, 5), _land(3, 6), _night(3)),
        ),
    ),
    "a lost table is made as it was before a late correction": Rule(
        broken_by=_always("jobs.lake.knowledge.Knowledge.made_as_of", None),
        steps=(*_LATE, _lose("marks"), _night(2)),
    ),
    "a lost quarantine is judged again": Rule(
        broken_by=_always("jobs.planning.quarantines.Quarantines.has_lost", False),
        steps=(
            *(_land(0, 1, 90), _night(0)),
            *(_lose(QUARANTINE), _night(0)),
        ),
    ),
    "a lost register is known again from the first night on": Rule(
        broken_by=_always("jobs.lake.knowledge.Knowledge.day_of_lost_snapshot", None),
        steps=(
            *(*_LATER, _LOSE_REGISTER),
            *(_land(2, 4), _night(2)),
        ),
    ),
    "nothing is scored while what was served is lost": Rule(
        broken_by=_always("jobs.lake.served.require_not_lost", None),
        steps=(*_LATER, _without_what_was_served(1)),
    ),
    "an older revision is not what was served": Rule(
        broken_by=_takes_any_revision_for_the_last,
        steps=(*_CORRECTED, _rescore(0), _without_what_was_served(0, newest=1)),
    ),
    "a correction that a backup lacks is known again from when it was": Rule(
        broken_by=_always("jobs.lake.knowledge.Knowledge._digest_of_drop", ""),
        steps=(*_LATE, _lose("readings", newest=2), _night(3, allow_gap=True)),
    ),
    "what told of rows that were there is no sign of nights since a loss": Rule(
        broken_by=_takes_what_was_told_for_a_night_since,
        steps=(
            *(_land(0, 1), _land(1, 2, 3)),
            _range(0, 1),
            *(_land(0, 4), _land(2, 5), _night(2)),
            # Says the same in other words.
            *(_land(1, 3, 2), _land(3, 6), _night(3)),
            *(_lose("readings", newest=3), _land(4, 7), _night(4)),
        ),
    ),
    "what is lost is put aside before its numbers come again": Rule(
        broken_by=_always("jobs.lake.publications.forget_lost", None),
        steps=(*_THREE, _lose("marks", newest=2), _restate(2, 2)),
    ),
    "nothing is made of a night's rows that are lost meanwhile": Rule(
        broken_by=_always("jobs.lake.knowledge.Knowledge.has_lost", False),
        steps=(*_LATER, _land(2, 4), _lose_newest_after(4, 2, "marks")),
    ),
}
"""By what each says."""
SOONEST = (
    "a late attempt is refused",
    "a drop is known since its night could be read",
    "a day's files go when it is replaced",
    "the record is repaired from the log",
)
"""Those that `make test` breaks too."""
FOUND_BY_ITSELF = (
    "a pipeline has one run at a time",
    "a day's files go when it is replaced",
    "each attempt has its number",
)
"""Those to which no way need be told: the machine comes there within a few examples."""


def _go(steps: Sequence[Step]) -> None:
    """Let the machine take these steps, and look around after each as it does by itself."""
    machine = AnyOrder()
    machine.begin()
    try:
        for name, given in steps:
            getattr(machine, name)(**given)
            machine.every_table_holds_what_the_model_says()
            machine.what_was_served_stays()
            machine.nights_that_have_passed_saw_the_register_of_their_time()
    finally:
        machine.teardown()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SOONEST else SOAK) for name in RULES]
)
def test_the_machine_fails_where_a_rule_is_broken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = RULES[name]
    _go(broken.steps)
    broken.broken_by(monkeypatch)
    with pytest.raises(AssertionError):
        _go(broken.steps)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=SOAK) for name in FOUND_BY_ITSELF],
)
def test_the_machine_finds_its_own_way_to_a_rule_that_is_broken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    RULES[name].broken_by(monkeypatch)
    bounded = settings(
        AnyOrder.TestCase.settings,
        max_examples=60,
        derandomize=True,
        database=None,
        # What fails first will do: nobody reads it.
        phases=[Phase.generate],
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(AnyOrder, settings=bounded)
