"""What a model says of the rows that published predictions were made from.

Nothing of it is published or recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.lake import datasets, model_events, snapshots
from jobs.lake.locations import exists
from jobs.training import dataset, metrics, scoring, serving
from jobs.training.explanations import served
from jobs.training.metrics import Vector
from jobs.training.tasks import LearningTask, task_of
from pipelines.days import Days
from pipelines.errors import NightshiftError, Refused, UsageError, refuse_unless
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, SCORING, TRAINING

if TYPE_CHECKING:
    from pyarrow import dataset as arrow

    from jobs.lake.snapshots import Snapshot
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.scoring import Scorer
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

CHANGED = 1e-6
"""By more than this, for each unit of the night's largest, a prediction must differ to count as
changed: less is the last digits of a number."""
_Slice = tuple[str, str]
"""Column and value."""
Both = tuple[float | None, float | None]
"""What holds of the published predictions, and of those that the model says now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """What was published beside what the model says, row by row."""

    published: Vector
    now: Vector
    label: Vector
    """NaN where it is not known."""
    largest: float = 1.0
    """Size of the night's largest prediction."""

    def where(self, chosen: NDArray[Any]) -> Pairs:
        """Some of the rows, by their places or by whether each is wanted."""
        return Pairs(
            published=self.published[chosen],
            now=self.now[chosen],
            label=self.label[chosen],
            largest=self.largest,
        )

    @property
    def sizes(self) -> Vector:
        """Of the differences."""
        return np.abs(self.now - self.published)

    @property
    def is_changed(self) -> NDArray[np.bool_]:
        """Whether each prediction is another one: see `CHANGED`."""
        return np.asarray(self.sizes > CHANGED * self.largest)

    @property
    def labelled(self) -> Pairs:
        """The rows whose label is known."""
        return self.where(~np.isnan(self.label))


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Sums over rows, so that those of days add up."""

    rows: int = 0
    published: float = 0.0
    """Of the predictions that were published."""
    now: float = 0.0
    """Of those that the model says."""
    absolute: float = 0.0
    """Of the sizes of their differences."""
    largest: float = 0.0
    """The largest of these sizes."""
    changed: int = 0
    """Rows whose predictions are others: see `CHANGED`."""
    labels: int = 0
    """Rows whose label is known; losses are over them."""
    loss_published: float = 0.0
    loss_now: float = 0.0

    @classmethod
    def of(cls, task: LearningTask, pairs: Pairs) -> Difference:
        """That of some rows."""
        sizes = pairs.sizes
        known = pairs.labelled
        return cls(
            rows=len(sizes),
            published=float(pairs.published.sum()),
            now=float(pairs.now.sum()),
            absolute=float(sizes.sum()),
            largest=float(sizes.max(initial=0.0)),
            changed=int(pairs.is_changed.sum()),
            labels=len(known.label),
            loss_published=float(task.losses(known.label, known.published).sum()),
            loss_now=float(task.losses(known.label, known.now).sum()),
        )

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            rows=self.rows + other.rows,
            published=self.published + other.published,
            now=self.now + other.now,
            absolute=self.absolute + other.absolute,
            largest=max(self.largest, other.largest),
            changed=self.changed + other.changed,
            labels=self.labels + other.labels,
            loss_published=self.loss_published + other.loss_published,
            loss_now=self.loss_now + other.loss_now,
        )

    @property
    def means(self) -> dict[str, float | None]:
        """What people read of it; None where there are no rows."""
        return {
            "rows": self.rows,
            "mean_published": _mean(self.published, self.rows),
            "mean_now": _mean(self.now, self.rows),
            "mean_absolute": _mean(self.absolute, self.rows),
            "largest": self.largest if self.rows else None,
            "share_changed": _mean(self.changed, self.rows),
            "labels": self.labels,
        }

    @property
    def losses(self) -> Both:
        """The mean losses; None where no label is known."""
        published = _mean(self.loss_published, self.labels)
        return published, _mean(self.loss_now, self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One prediction that would be another."""

    key: tuple[Any, ...]
    """Values of the entity's columns."""
    served_by: str
    """The version that published it."""
    published: float
    now: float
    label: float | None

    @property
    def size(self) -> float:
        """By how much they differ."""
        return abs(self.now - self.published)


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """What a night has published, beside what the model says."""

    night: date
    served_by: tuple[str, ...]
    """The versions that published it."""
    difference: Difference
    quality: Mapping[str, Both]
    """By metric: that by which models are told apart, and the score. None where it cannot be
    told."""
    slices: Mapping[_Slice, Difference]
    changes: tuple[Change, ...]
    """The largest, the largest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rescorer:
    """A model, and what it is compared with, all of it as it was when this was made."""

    environment: Environment
    pipeline: Pipeline
    registry: Registry
    model: ModelVersion
    scorer: Scorer
    published: arrow.Dataset
    """The predictions in force."""
    labels: Snapshot | None
    """The training table; None: it was never published."""
    foretold: dict[str, str]
    """By version what the model foretells, of those that were asked for."""

    @classmethod
    def of(
        cls, environment: Environment, pipeline: Pipeline, registry: Registry, model: ModelVersion
    ) -> Rescorer:
        """With the model loaded.

        Raises:
            NightshiftError: its files are gone, or not those that were registered.
            UsageError: it foretells something else than is declared.
        """
        first = Days.of(pipeline.first_day)
        run = Run(pipeline=pipeline, days=first, environment=environment)
        labels = snapshots.newest(run, TRAINING) if exists(run, TRAINING) else None
        made = cls(
            environment=environment,
            pipeline=pipeline,
            registry=registry,
            model=model,
            scorer=scoring.load(registry, model, serving.variant_of(environment, pipeline, model)),
            published=datasets.in_force(environment, f"{pipeline.name}.{PREDICTIONS}"),
            labels=labels,
            foretold={},
        )
        made._require_declared(
            model.version,
            f"ask for a model that was trained since: nightshift models {pipeline.name}",
        )
        return made

    @property
    def task(self) -> LearningTask:
        """What the pipeline's models learn."""
        return task_of(self.pipeline.training.task)

    def has_seen(self, night: date) -> bool:
        """Whether the model has learned from what became known after that night."""
        return self.model.as_of > night

    def compare(self, night: date, most: int) -> Night:
        """A night that has published predictions, rescored; only its rows are in memory.

        Args:
            night: That made the predictions.
            most: So many changes are told.

        Raises:
            UsageError: the rows that were scored have been deleted, or lack what the model reads;
                or the prediction had another name then, or foretold something else.
            NightshiftError: nobody knows which rows were scored.
        """
        predictions = served.made_by(self.published, self.pipeline, night)
        if not len(predictions):
            # Such as the last night before the feeds end.
            return Night(
                night=night,
                served_by=(),
                difference=Difference(),
                quality={},
                slices={},
                changes=(),
            )
        versions = predictions["model_version"].unique().to_pylist()
        for version in versions:
            self._require_declared(
                version,
                "ask for later nights, or have this one scored anew: "
                f"nightshift run {self.pipeline.name} --date {night} --rescore",
                made=f", which made the predictions of {night},",
            )
        run = Run(pipeline=self.pipeline, days=Days.of(night), environment=self.environment)
        rows = served.scored_rows(run, predictions)
        self._require_columns(night, predictions, rows)
        published = predictions[self.pipeline.prediction].to_numpy()
        pairs = Pairs(
            published=published,
            now=self.scorer.score(rows),
            label=self._labels(run, predictions),
            largest=float(np.abs(published).max()),
        )
        return Night(
            night=night,
            served_by=tuple(versions),
            difference=Difference.of(self.task, pairs),
            quality=_quality(self.task, pairs.labelled),
            slices=self._slices(rows, pairs),
            changes=self._changes(predictions, pairs, most),
        )

    def _require_declared(self, version: str, way_out: str, made: str = "") -> None:
        """Refuse a model that foretells something else than is declared, by task or label.

        Args:
            version: Of the model.
            way_out: What can be asked for instead.
            made: What it has made, for people.
        """
        declared = _thing(self.task, self.pipeline.training.label)
        if version not in self.foretold:
            self.foretold[version] = self._foretold_by(version) or declared
        found = self.foretold[version]
        refuse_unless(
            found == declared,
            f"Version {version} of model '{self.pipeline.name}'{made} foretells {found}, and "
            f"{declared} is declared by now. They cannot be compared: {way_out}",
        )

    def _foretold_by(self, version: str) -> str:
        """Empty: nobody knows, as of a version that is gone."""
        with suppress(NightshiftError):
            model = self.registry.version(version)
            return _thing(*serving.learned_by(self.pipeline, self.registry, model))
        return ""

    def _require_columns(self, night: date, predictions: pa.Table, rows: pa.Table) -> None:
        read = self.scorer.encoding.columns
        lacking = [name for name in read if name not in rows.column_names]
        if lacking:
            name = self.pipeline.name
            version = predictions["scoring_version"][0]
            raise UsageError(
                f"Version {self.model.version} of model '{name}' reads {', '.join(lacking)}, and "
                f"{name}.{SCORING} has no such column in version {version}, from which the "
                f"predictions of {night} were made. Ask for later nights, or for a model that was "
                f"trained before: nightshift models {name}"
            )

    def _labels(self, run: Run, predictions: pa.Table) -> Vector:
        """Of each prediction; NaN where none is known."""
        found = np.full(len(predictions), np.nan)
        if self.labels is None:
            return found
        events = Days.of(self.pipeline.table(PREDICTIONS).day_of(run.night))
        known = dataset.labelled_events(run, self.labels, events, columns=())
        places = served.places_of(predictions, known, self.pipeline.entity)
        is_known = places >= 0
        values = known[self.pipeline.training.label].to_numpy()
        found[is_known] = values[places[is_known]]
        return found

    def _slices(self, rows: pa.Table, pairs: Pairs) -> dict[_Slice, Difference]:
        found: dict[_Slice, Difference] = {}
        for column in self.pipeline.training.slices:
            if column not in rows.column_names:
                # Declared since these rows were made.
                continue
            values = metrics.slice_values(rows[column])
            for value, where in metrics.groups(values):
                found[column, str(value)] = Difference.of(self.task, pairs.where(where))
        return found

    def _changes(
        self,
        predictions: pa.Table,
        pairs: Pairs,
        most: int,
    ) -> tuple[Change, ...]:
        # Of equal ones the first: in the order of their key.
        largest = np.argsort(-pairs.sizes, kind="stable")[:most]
        chosen = largest[pairs.is_changed[largest]]
        rows = predictions.take(pa.array(chosen))
        entity = [rows[name].to_pylist() for name in self.pipeline.entity]
        keys = zip(*entity, strict=True)
        versions = rows["model_version"].to_pylist()
        of_rows = pairs.where(chosen)
        found: list[Change] = []
        for place, key in enumerate(keys):
            label = float(of_rows.label[place])
            change = Change(
                key=key,
                served_by=versions[place],
                published=float(of_rows.published[place]),
                now=float(of_rows.now[place]),
                label=None if np.isnan(label) else label,
            )
            found.append(change)
        return tuple(found)


def asked_for(environment: Environment, registry: Registry, version: str | None) -> ModelVersion:
    """The registered model of that version; of None the one that serves now.

    Raises:
        UsageError: there is no such version, or none serves.
        NightshiftError: the one that serves was deleted in MLflow.
    """
    if version is not None:
        return registry.version(version)
    known = model_events.turns(environment, registry.name)
    if not known:
        raise UsageError(
            f"No model of '{registry.name}' serves: say which shall score, with --model VERSION. "
            f"They are listed by: nightshift models {registry.name}"
        )
    return registry.in_service(known[-1].version)


def require_in_turn(environment: Environment, model: ModelVersion, nights: Iterable[date]) -> None:
    """Refuse a model by which scoring these nights again would not score them.

    Raises:
        Refused: it does not serve, or one of the nights is another's turn.
    """
    name, version = model.name, model.version
    recorded = model_events.events(environment, name)
    known = model_events.turns_of(recorded)
    if not known or known[-1].version != version:
        was_let_in = version in model_events.first_turns(recorded)
        way_out = f"To have it serve: nightshift rollback {name} --to {version} --why TEXT"
        never = "It was never let into service, or was found unfit since, so only the gate can."
        raise Refused(
            f"Version {version} of '{name}' does not serve, so nothing of it is published. "
            + (way_out if was_let_in else never)
        )
    for night in nights:
        turn = model_events.in_turn(known, night)
        if turn is None or turn.version != version:
            whose = f"version {turn.version}'s turn" if turn else "no model's turn"
            raise Refused(
                f"Night {night} is {whose}: scoring it again would not publish what version "
                f"{version} says. Ask for nights from {known[-1].night} on, or have it scored by "
                f"its own model: nightshift run {name} --date {night} --rescore"
            )


def _thing(task: LearningTask, label: str) -> str:
    """What a model foretells, in words."""
    return f"'{label}' ({task.name})"


def _quality(task: LearningTask, pairs: Pairs) -> dict[str, Both]:
    """Of rows that all have a label."""
    if not len(pairs.label):
        return {}
    published = task.measure(pairs.label, pairs.published)
    now = task.measure(pairs.label, pairs.now)
    told = (task.headline, task.leak_score)
    return {name: (published[name], now[name]) for name in told}


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
