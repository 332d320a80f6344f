"""What each night is watched for, as rows of `ops.drift`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.lake import model_events, ops, snapshots
from jobs.lake.locations import exists
from jobs.training import drift, paired
from jobs.training.drift import Summaries
from jobs.training.metrics import Vector
from jobs.training.tasks import LearningTask, task_of
from pipelines.days import Days
from pipelines.model import WatchKind
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, SCORING, TRAINING

Row = dict[str, Any]
_What = tuple[WatchKind, str, str]
"""Kind, feature and statistic."""
_COVERAGE = {"labels": "share_unpredicted", "predictions": "share_unlabelled"}
_PART_NIGHTS = 28
"""Nights that are looked at together, with those that they are compared with."""
_ROWS_AT_ONCE = 500_000
"""Of several nights that are in memory together; one that has more is there alone."""
_ONE_DAY = timedelta(days=1)
_FEWEST_DAYS = 7
"""Of labels, for an interval of live quality."""


def rows(run: Run) -> Iterator[Row]:
    """What the nights of the run say; live quality of them must have been recorded before."""
    first = run.days.first
    while first <= run.days.last:
        last = min(run.days.last, first + timedelta(days=_PART_NIGHTS - 1))
        yield from _Part(run, Days(first, last)).told()
        first = last + timedelta(days=1)


class _Nights:
    """What a table says of some nights, few of which are in memory at once."""

    def __init__(
        self,
        run: Run,
        table: str,
        nights: Days,
        columns: tuple[str, ...],
    ) -> None:
        """Begin without rows.

        Args:
            run: Whose pipeline's table it is.
            table: Which may never have been published.
            nights: That may be asked for.
            columns: Those to read, beside partition and key.
        """
        self._run = run
        self._declared = run.pipeline.table(table)
        self._columns = columns
        self._held: tuple[Days, pa.Table] | None = None
        self.parts = tuple(self._together(nights)) if exists(run, table) else ()
        """Of the nights, in order: those of each are read together. None: nothing was published."""

    def read(self, part: Days) -> pa.Table:
        """The rows of one of the parts, in the order of their days."""
        if self._held is None or self._held[0] != part:
            self._held = None
            table = self._declared.name
            days = part.shifted(self._declared.partition_lead_days)
            newest = snapshots.newest(self._run, table)
            found = snapshots.read(self._run, newest, days, self._columns)
            self._held = part, found.combine_chunks()
        return self._held[1]

    def of(self, night: date) -> pa.Table | None:
        """The rows of a night; None: it is none of these nights."""
        for part in self.parts:
            if night in part:
                day = self._declared.day_of(night)
                return snapshots.between(self.read(part), self._declared.partition, Days.of(day))
        return None

    def cuts(self, part: Days) -> list[slice]:
        """Of a part the rows of each night."""
        made = self.read(part)[self._declared.partition].to_numpy().astype("datetime64[D]")
        return [cut(made, self._declared.day_of(night)) for night in part]

    def _together(self, nights: Days) -> Iterator[Days]:
        rows_: Counter[date] = Counter()
        newest = snapshots.newest(self._run, self._declared.name)
        days = nights.shifted(self._declared.partition_lead_days)
        for file in snapshots.files(self._run, newest, days):
            rows_[file.day] += file.rows
        first, together = nights.first, 0
        for night in nights:
            own = rows_[self._declared.day_of(night)]
            if together and together + own > _ROWS_AT_ONCE:
                yield Days(first, night - _ONE_DAY)
                first, together = night, 0
            together += own
        yield Days(first, nights.last)


class _Part:
    """Some nights, and the rows that tell of them."""

    def __init__(self, run: Run, nights: Days) -> None:
        self._run = run
        self._pipeline = run.pipeline
        self._watch = run.pipeline.watch
        self._nights = nights
        # With those that they are compared with.
        compared = self._watch.nights - 1 + self._watch.reference_nights
        lag = run.pipeline.promotion.label_lag_days
        self._span = nights.since(compared)
        # A day whose labels come so late was scored and foretold in the night before it.
        asked = nights.since(max(compared, lag + 1))
        training = run.pipeline.training
        self._scored = _Nights(run, SCORING, asked, training.features)
        self._outcomes = _Nights(run, TRAINING, nights, training.features)
        due = nights.since(max(self._watch.nights, lag) + 1)
        self._foretold = self._read(PREDICTIONS, due, ())
        # The labels of a day come on that day or later.
        self._learned = self._read(TRAINING, nights.since(lag), (training.label,))

    def told(self) -> Iterator[Row]:
        """Every row of these nights."""
        training = self._pipeline.training
        watched = [name for name in training.features if name not in self._watch.unwatched]
        yield from self._drift("feature", self._scored, watched, training.bends)
        prediction = self._pipeline.prediction
        foretold = _Nights(self._run, PREDICTIONS, self._span, (prediction,))
        yield from self._drift("prediction", foretold, [prediction], {})
        for night in self._nights:
            yield from self._skew(night)
            yield from self._coverage(night)
        yield from _quality(self._run, self._nights)

    def _read(
        self,
        name: str,
        nights: Days,
        columns: tuple[str, ...],
    ) -> pa.Table | None:
        """What those nights made, in the order of its days; None: nothing was ever published."""
        if not exists(self._run, name):
            return None
        days = nights.shifted(self._pipeline.table(name).partition_lead_days)
        found = snapshots.read(self._run, snapshots.newest(self._run, name), days, columns)
        return found.combine_chunks()

    def _drift(
        self,
        kind: WatchKind,
        made: _Nights,
        names: Sequence[str],
        bends: Mapping[str, float],
    ) -> Iterator[Row]:
        """A row for each night and statistic of the columns that can be told."""
        nights = [night for part in made.parts for night in part]
        for name, summaries in _summaries(made, names, bends).items():
            for one in summaries:
                for night in self._nights:
                    judged = drift.judge(one, nights.index(night), self._watch)
                    # Most features never lack a value: rows that say so would be half of the
                    # table.
                    is_news = judged and (judged.value or one.statistic != drift.NULL_SHARE)
                    if judged and is_news:
                        what = (kind, name, one.statistic)
                        yield _row(self._run, night, what, judged.value, judged.threshold)

    def _skew(self, night: date) -> Iterator[Row]:
        """Labelled rows beside the rows that were scored for the same event, by feature."""
        own = self._outcomes.of(night)
        if own is None:
            return
        learned: list[pa.Table] = []
        scored: list[pa.Table] = []
        events = pc.unique(own[self._pipeline.event_date]).drop_null()
        for event in sorted(events.to_pylist()):
            # What is about a day was scored in the night before it.
            there = self._scored.of(event - _ONE_DAY)
            if there is None:
                continue
            pairs = _numbered(own, self._keys, "own").join(
                _numbered(there, self._keys, "scored"), keys=self._keys, join_type="inner"
            )
            learned.append(own.take(pairs["own"]))
            scored.append(there.take(pairs["scored"]))
        if not any(map(len, learned)):
            return
        left, right = pa.concat_tables(learned), pa.concat_tables(scored)
        known = {*left.column_names} & {*right.column_names}
        for name in self._pipeline.training.features:
            if name in known:
                share = drift.differing(left[name], right[name])
                what: _What = ("skew", name, "share_differing")
                yield _row(self._run, night, what, share, self._watch.max_skew)

    def _coverage(self, night: date) -> Iterator[Row]:
        """Labels that nothing was foretold for, and predictions whose label is still not known."""
        served = self._first_served_day
        if served is None or self._learned is None or self._foretold is None:
            return
        event = self._pipeline.event_date
        landed = self._pipeline.table(TRAINING).partition
        label = self._learned[self._pipeline.training.label]
        known = self._learned.filter(pc.is_valid(label))
        arrived = snapshots.between(known, landed, Days.of(night))
        # Before the first model nothing was foretold, and predictions of long ago are not read.
        lag = timedelta(days=self._pipeline.promotion.label_lag_days)
        first = max(served, night - max(timedelta(days=self._watch.nights), lag))
        due = snapshots.between(arrived, event, Days(first, date.max))
        settled = snapshots.between(self._foretold, event, Days.of(night - lag))
        by_then = snapshots.between(known, landed, Days(night - lag, night))
        most = (self._watch.max_unpredicted, self._watch.max_unlabelled)
        yield from self._lacking(night, "labels", due, self._foretold, most[0])
        yield from self._lacking(night, "predictions", settled, by_then, most[1])

    def _lacking(
        self,
        night: date,
        name: str,
        wanting: pa.Table,
        others: pa.Table,
        most: float,
    ) -> Iterator[Row]:
        if len(wanting):
            keys = self._keys
            alone = wanting.join(others.select(keys), keys=keys, join_type="left anti")
            what: _What = ("coverage", name, _COVERAGE[name])
            yield _row(self._run, night, what, len(alone) / len(wanting), most)

    @property
    def _keys(self) -> list[str]:
        return list(self._pipeline.entity)

    @cached_property
    def _first_served_day(self) -> date | None:
        """The first day of events that a model was there to foretell."""
        turns = model_events.turns(self._run.environment, self._pipeline.name)
        predictions = self._pipeline.table(PREDICTIONS)
        return predictions.day_of(turns[0].night) if turns else None


def _summaries(
    made: _Nights, names: Sequence[str], bends: Mapping[str, float]
) -> dict[str, list[Summaries]]:
    """Of each column that the table has what is kept of all nights."""
    of_parts: dict[str, list[list[Summaries]]] = {}
    for part in made.parts:
        found, cuts = made.read(part), made.cuts(part)
        for name in names:
            # Not of a column that was declared since no row has one yet.
            if name in found.column_names:
                summed = drift.summaries_of(found[name], cuts, bends.get(name))
                of_parts.setdefault(name, []).append(summed)
    of_all: dict[str, list[Summaries]] = {}
    for name, own in of_parts.items():
        of_all[name] = [drift.joined(of_one) for of_one in zip(*own, strict=True)]
    return of_all


def _quality(run: Run, nights: Days) -> Iterator[Row]:
    """By how much live quality of each night's champion falls short of what the gate promised.

    Of the last days those since its recipe began to serve, whichever of its fits did: what another
    recipe has lost says nothing of it. Quality is the share of the loss of the best constant that
    is saved, so that a stormy month is no bad model.
    """
    watch = run.pipeline.watch
    task = task_of(run.pipeline.training.task)
    about: list[ops.Condition] = [
        ("pipeline", "=", run.pipeline.name),
        ("landed_date", ">", nights.first - timedelta(days=watch.quality_days)),
        ("landed_date", "<=", nights.last),
    ]
    judged = _judged(run, task)
    turns = model_events.turns(run.environment, run.pipeline.name)
    told: list[Row] = ops.read(run.environment, "live_quality", about).to_pylist()
    # A sum of floats depends on its order.
    told.sort(key=itemgetter("landed_date", "event_date"))
    for night in nights:
        turn = model_events.in_turn(turns, night)
        if turn is None:
            continue
        days = Days.of(night).since(watch.quality_days - 1)
        served = _of_recipe(turns[: turns.index(turn) + 1], judged)
        recent = [row for row in told if row["landed_date"] in days and _is_of(run, row, served)]
        if len({row["landed_date"] for row in recent}) < _FEWEST_DAYS:
            continue
        if _are_alike(task, recent):
            continue
        promised = _promised(recent, judged)
        live, ends = _saved(task, recent)
        low, high = promised - ends[::-1]
        shortfall = promised - live
        most = watch.max_quality_loss * promised
        what: _What = ("quality", "loss_saved", "shortfall")
        row = _row(run, night, what, shortfall, most)
        row |= {"low": float(low), "high": float(high)}
        yield row | {"is_over": bool(low > most)}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judged:
    """What the gate has said of a model."""

    promise: float
    """Share of the loss that it saved on the held-out days, above 0."""
    is_refresh: bool
    """Whether it is of the recipe of the champion that it was compared with."""


def _of_recipe(
    turns: Sequence[model_events.Turn], judged: Mapping[str, _Judged]
) -> dict[str, date]:
    """The fits of the last turn's recipe that served one after another, each with its night.

    Args:
        turns: In their order, up to the one that is asked about.
        judged: What the gate has said of each version; others are left out.
    """
    served: dict[str, date] = {}
    for turn in reversed(turns):
        if turn.version not in judged:
            break
        served[turn.version] = turn.night
        if not judged[turn.version].is_refresh:
            break
    return served


def _is_of(run: Run, row: Row, served: Mapping[str, date]) -> bool:
    """Whether the row of live quality is of an event that one of them foretold in its turn."""
    night = served.get(row["model_version"])
    predictions = run.pipeline.table(PREDICTIONS)
    return night is not None and bool(row["event_date"] >= predictions.day_of(night))


def _promised(rows_: Sequence[Row], judged: Mapping[str, _Judged]) -> float:
    """What the gate promised of these rows of live quality, a mean of their events."""
    promises = [judged[row["model_version"]].promise for row in rows_]
    return float(np.average(promises, weights=[row["rows"] for row in rows_]))


def _judged(run: Run, task: LearningTask) -> dict[str, _Judged]:
    """What the gate has said of each model that saved something on held-out days."""
    found: dict[str, _Judged] = {}
    for event in model_events.events(run.environment, run.pipeline.name):
        evidence = json.loads(event["metrics"] or "{}")
        measured = evidence.get("candidate")
        # Evidence of long ago lacks some.
        if not measured or not {task.headline, "label_mean"} <= set(measured):
            continue
        variance = task.label_variance(measured)
        constant = task.constant_loss(measured["label_mean"], variance)
        loss = task.mean_loss(measured)
        # What saves nothing promises nothing.
        if loss < constant:
            is_refresh = bool((evidence.get("challenge") or {}).get("is_refresh"))
            found[event["model_version"]] = _Judged(
                promise=1 - loss / constant, is_refresh=is_refresh
            )
    return found


def _saved(task: LearningTask, measured: Sequence[Row]) -> tuple[float, Vector]:
    """The share of the loss of the best constant that was saved, with its 95 % interval by days."""
    sums = np.array([_sums(task, row) for row in measured])
    _, day = np.unique([row["landed_date"] for row in measured], return_inverse=True)
    by_day = np.zeros((day.max() + 1, sums.shape[1]))
    np.add.at(by_day, day, sums)
    drawn = by_day[paired.draws(len(by_day))].sum(axis=1)
    # Of labels that are all alike nothing can be saved: such a draw says nothing.
    vary = _labels_vary(drawn)
    resampled = _share_saved(task, drawn[vary] if vary.any() else drawn)
    saved = float(_share_saved(task, by_day.sum(axis=0)))
    return saved, np.percentile(resampled, paired.ENDS)


def _sums(task: LearningTask, row: Row) -> tuple[float, ...]:
    """Rows, and over them the sums of loss, label and squared label."""
    rows_, mean = row["rows"], row["label_mean"]
    square = task.label_variance(row) + mean**2
    return (rows_, rows_ * task.mean_loss(row), rows_ * mean, rows_ * square)


def _are_alike(task: LearningTask, measured: Sequence[Row]) -> bool:
    """Whether all labels are one: then the best constant is right, and nothing can be saved."""
    means = {row["label_mean"] for row in measured}
    return len(means) == 1 and not any(task.label_variance(row) for row in measured)


def _labels_vary(sums: Vector) -> NDArray[np.bool_]:
    rows_, _, label, square = np.moveaxis(sums, -1, 0)
    return np.asarray(square / rows_ > (label / rows_) ** 2)


def _share_saved(task: LearningTask, sums: Vector) -> Vector:
    rows_, loss, label, square = np.moveaxis(sums, -1, 0)
    mean = label / rows_
    constant = task.constant_loss(mean, square / rows_ - mean**2)
    # Of labels that are all alike it is 0.
    possible = np.maximum(constant, np.finfo(float).tiny)
    return np.asarray(1 - loss / rows_ / possible)


def _numbered(rows_: pa.Table, keys: list[str], name: str) -> pa.Table:
    """The keys of the rows, each with its place."""
    places = pa.array(np.arange(len(rows_)))
    return rows_.select(keys).append_column(name, places)


def cut(days: Any, day: date) -> slice:
    """The rows of a day, where the days of all rows are in order."""
    wanted = np.datetime64(day)
    first = np.searchsorted(days, wanted, "left")
    end = np.searchsorted(days, wanted, "right")
    return slice(int(first), int(end))


def _row(
    run: Run,
    night: date,
    what: _What,
    value: float,
    threshold: float,
) -> Row:
    kind, feature, statistic = what
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline.name,
        "night": night,
        "kind": kind,
        "feature": feature,
        "statistic": statistic,
        "value": value,
        "threshold": threshold,
        "is_over": value > threshold,
        "measured_at": ops.now(),
    }
