"""What each day of the event says of the newest model of a recipe and of the champion.

A candidate is scored in the shadow: on the very rows that its night had to score, and that the
champion scored. When the labels have arrived, the two losses of the day are one row of
`ops.shadow_losses`, which is never measured anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from jobs.lake import model_events, ops, snapshots
from jobs.lake.locations import exists
from jobs.training import metrics, scoring
from jobs.training.comparison import CANDIDATE, CHAMPION
from pipelines.days import Days
from pipelines.errors import NightshiftError
from pipelines.spec import SCORING

if TYPE_CHECKING:
    from jobs.training.comparison import HeldOut
    from jobs.training.metrics import Vector
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.scoring import Scorer
    from pipelines.run import Run

_TABLE = "shadow_losses"
_OUT = (model_events.REFUSED, *model_events.AGAINST)
"""What was said last of a candidate that casts no shadow: it could not have served."""
_ONE_DAY = timedelta(days=1)
Row = dict[str, Any]
"""Of `ops.shadow_losses`."""
How = Literal["shadow", "held_out"]
"""By the models that would have served the day, or by tonight's judged ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rivals:
    """Tonight's candidate, and the champion."""

    candidate: ModelVersion
    champion: ModelVersion
    since: date
    """The night from which the champion serves: evidence is of later days."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What the days say since the champion's turn began."""

    gains: Vector
    """By how much the champion's loss of a row lay above the challenger's, for each in order."""
    held_out: int
    """How many of them the judged models tell: each stopped learning `holdout_days`, and
    `label_lag_days`, before its own night, so that it is as old beside the days as the one that
    would have served."""


def told(run: Run, registry: Registry, rivals: Rivals, held: HeldOut) -> Told:
    """What the days say of the challenger and the champion.

    Days whose labels have become known since the last evaluation are measured and recorded.

    Args:
        run: Of the night.
        registry: With the candidates of the nights before.
        rivals: Of tonight.
        held: What their judged models say of the held-out rows.
    """
    recorded = _recorded(run, rivals)
    settled = run.days.last - timedelta(days=run.pipeline.promotion.label_lag_days)
    days = Days.of(run.days.last).since(run.pipeline.training.holdout_days - 1)
    open_days = days.within(rivals.since + _ONE_DAY, settled) or ()
    known = {row["event_date"] for row in recorded}
    measured = _Measuring(run, registry, rivals, held)
    added = [*measured.rows(day for day in open_days if day not in known)]
    if added:
        ops.append(run.environment, _TABLE, added)
    # A night that is run again knows no more than it did.
    before = [row for row in recorded if row["as_of"] <= run.days.last]
    ordered = sorted([*before, *added], key=itemgetter("event_date"))
    return Told(
        gains=np.array([row["champion_loss"] - row["candidate_loss"] for row in ordered]),
        held_out=sum(row["how"] == "held_out" for row in ordered),
    )


def _recorded(run: Run, rivals: Rivals) -> list[Row]:
    about: list[ops.Condition] = [
        ("pipeline", "=", run.pipeline.name),
        ("recipe", "=", rivals.candidate.recipe),
        ("champion_version", "=", rivals.champion.version),
        ("event_date", ">", rivals.since),
    ]
    rows: list[Row] = ops.read(run.environment, _TABLE, about).to_pylist()
    # Two homes on one lake, or a twin of a run, may have measured a day twice: it counts once.
    first: dict[date, Row] = {}
    for row in sorted(rows, key=itemgetter("measured_at", "run_id")):
        first.setdefault(row["event_date"], row)
    return list(first.values())


def _tell_without(day: date, why: str) -> None:
    print(f"Warning: {day} has no shadow: {why}", file=sys.stderr, flush=True)


class _Measuring:
    """Of days that have not been measured; each model is loaded once, when it is needed."""

    def __init__(self, run: Run, registry: Registry, rivals: Rivals, held: HeldOut) -> None:
        self._run = run
        self._registry = registry
        self._rivals = rivals
        self._held = held
        self._loaded: dict[str, Scorer] = {}

    def rows(self, days: Iterator[date]) -> Iterator[Row]:
        """Of `ops.shadow_losses`, one for each of the days that has labels."""
        event = self._run.pipeline.event_date
        for day in days:
            labelled = self._held.rows[event].to_numpy() == np.datetime64(day)
            if labelled.any():
                yield self._in_the_shadow(day) or self._held_out(day, labelled)

    def _in_the_shadow(self, day: date) -> Row | None:
        """By the models of the night before.

        None: its candidate could not have served the day, or one of the two cannot be loaded, or
        gives what is no prediction.
        """
        challenger = self._challenger(day - _ONE_DAY)
        if challenger is None or not exists(self._run, SCORING):
            return None
        night = Days.of(day - _ONE_DAY)
        rows = snapshots.read(self._run, snapshots.newest(self._run, SCORING), night)
        if not len(rows):
            return None
        rivals = {CANDIDATE: challenger, CHAMPION: self._rivals.champion}
        try:
            scorers = {name: self._scorer(model) for name, model in rivals.items()}
        except NightshiftError as error:
            # Files of an old candidate that are gone or changed cost a shadow, and no night.
            _tell_without(day, str(error))
            return None
        keys = list(self._run.pipeline.entity)
        scored = rows.select(keys)
        for name, scorer in scorers.items():
            scores = pa.array(scorer.score(rows), pa.float64())
            scored = scored.append_column(name, scores)
            odd = metrics.impossible(self._held.task, scores.to_numpy())
            if odd:
                _tell_without(day, f"Of version {rivals[name].version} {odd}.")
                return None
        label = self._run.pipeline.training.label
        labels = self._held.rows.select([*keys, label])
        # Without threads: the order of the rows decides the last bits of a mean.
        both = labels.join(scored, keys=keys, join_type="inner", use_threads=False)
        if not len(both):
            return None
        truth = both[label].to_numpy().astype(np.float64)
        losses = {
            name: self._held.task.losses(truth, both[name].to_numpy())
            for name in (CANDIDATE, CHAMPION)
        }
        return self._row(day, "shadow", challenger, losses)

    def _held_out(self, day: date, labelled: np.ndarray) -> Row:
        """By the judged models of tonight, which have learned nothing of the day."""
        losses = {name: self._held.loss(name)[labelled] for name in (CANDIDATE, CHAMPION)}
        return self._row(day, "held_out", self._rivals.candidate, losses)

    def _challenger(self, night: date) -> ModelVersion | None:
        model = self._registry.candidate(night)
        if model is None or model.version == self._rivals.champion.version:
            return None
        name = self._run.pipeline.name
        said = model_events.events(self._run.environment, name, model.version)
        is_out = bool(said) and said[-1]["event"] in _OUT
        return None if is_out or model.recipe != self._rivals.candidate.recipe else model

    def _scorer(self, model: ModelVersion) -> Scorer:
        if model.version not in self._loaded:
            self._loaded[model.version] = scoring.load(self._registry, model)
        return self._loaded[model.version]

    def _row(
        self,
        day: date,
        how: How,
        challenger: ModelVersion,
        losses: dict[str, Vector],
    ) -> Row:
        return {
            "run_id": self._run.run_id,
            "pipeline": self._run.pipeline.name,
            "recipe": self._rivals.candidate.recipe,
            "champion_version": self._rivals.champion.version,
            "event_date": day,
            "as_of": self._run.days.last,
            "how": how,
            "candidate_version": challenger.version,
            "rows": len(losses[CANDIDATE]),
            "candidate_loss": float(losses[CANDIDATE].mean()),
            "champion_loss": float(losses[CHAMPION].mean()),
            "measured_at": ops.now(),
        }
