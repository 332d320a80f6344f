"""What was served on a night, with the rows that it was scored from and the models that did it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import dataset as arrow

from jobs.lake import as_left, commits, datasets, publications, snapshots
from jobs.lake.snapshots import Snapshot
from jobs.training import scoring, serving
from jobs.training.explanations import attribute
from jobs.training.explanations.attribution import Attribution
from jobs.training.families.light import EXACT, QUANTISED
from jobs.training.registry import ModelVersion, Registry
from jobs.training.scoring import Scorer
from jobs.training.tasks import LearningTask
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError, no_such, refuse_unless
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, SCORING, Pipeline

_LISTED = 5
"""Rows or nights that a message names."""
_SAME = 1e-5
"""By which a prediction that is made again may differ, for each unit of its size: the last digits
of a single-precision number depend on the processor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Predictions of a night by one model, and why they came out so; rows in one order."""

    night: date
    model: ModelVersion
    task: LearningTask
    """That the model has learned."""
    label: str
    """Column of it then."""
    scorer: Scorer
    predictions: pa.Table
    """As published: entity, carried columns, prediction, model and run."""
    rows: pa.Table
    """What the model was given, as the scoring table was then."""
    attribution: Attribution

    def run(self, pipeline: Pipeline, environment: Environment) -> Run:
        """A run of the night, to read what it saw."""
        return Run(pipeline=pipeline, days=Days.of(self.night), environment=environment)


@dataclass(frozen=True, kw_only=True, slots=True)
class Explainer:
    """Explains what a pipeline has served; each model is loaded once."""

    environment: Environment
    pipeline: Pipeline
    registry: Registry
    scorers: dict[str, Scorer]
    """By version the models as they were trained, those that were asked for."""
    speakers: dict[str, list[Scorer]]
    """By version what may have scored its predictions, one for each variant."""
    learned: dict[str, tuple[LearningTask, str]]
    """By version the task and the label of the model."""

    @classmethod
    def of(cls, environment: Environment, pipeline: Pipeline) -> Explainer:
        """With no model loaded yet."""
        registry = Registry(environment, pipeline.name)
        return cls(
            environment=environment,
            pipeline=pipeline,
            registry=registry,
            scorers={},
            speakers={},
            learned={},
        )

    def explain(self, night: date, predictions: pa.Table) -> list[Served]:
        """Predictions of a night with their attributions, by model.

        Args:
            night: That scored them.
            predictions: Some of `published`.

        Raises:
            Refused: there is no method for their model.
            NightshiftError: the model or files of it are gone or were changed, or it says something
                else of the rows by now.
            UsageError: the rows that were scored have been deleted.
        """
        found: list[Served] = []
        versions = pc.unique(predictions["model_version"]).to_pylist()
        for version in versions:
            of_model = predictions.filter(pc.equal(predictions["model_version"], version))
            found.append(self._explained(night, version, of_model))
        return found

    def _explained(self, night: date, version: str, predictions: pa.Table) -> Served:
        model = self._model(night, version)
        if version not in self.scorers:
            self.scorers[version] = scoring.load_trained(self.registry, model)
        scorer = self.scorers[version]
        rows = scored_rows(self._run(night), predictions)
        self._require_same(predictions, rows, model)
        task, label = self._learned(model)
        attribution = attribute(scorer, model.family, task, rows)
        return Served(
            night=night,
            model=model,
            task=task,
            label=label,
            scorer=scorer,
            predictions=predictions,
            rows=rows,
            attribution=attribution,
        )

    def _model(self, night: date, version: str) -> ModelVersion:
        name = self.pipeline.name
        try:
            return self.registry.version(version)
        except UsageError as error:
            # Nobody has asked for it: the predictions name it.
            raise NightshiftError(
                f"Version {version} of model '{name}' made these predictions of {night} and is not "
                "in MLflow, so nothing tells why they came out so. Restore MLflow from a backup"
                + self._or_rescored(night, version)
            ) from error

    def _or_rescored(self, night: date, version: str) -> str:
        """The way out where another model would score the night by now."""
        name = self.pipeline.name
        turn = serving.turn_of(self.environment, self.registry, night)
        # Scored again, the night gets the model of its turn: perhaps the very one that is gone.
        if turn is None or not self.registry.there([turn.version]):
            return "."
        return (
            f", or have the night scored again by version {turn.version}, and explain that: "
            f"nightshift run {name} --date {night} --rescore"
        )

    def _learned(self, model: ModelVersion) -> tuple[LearningTask, str]:
        """Task and label of the model, whatever is declared by now."""
        if model.version not in self.learned:
            self.learned[model.version] = serving.learned_by(self.pipeline, self.registry, model)
        return self.learned[model.version]

    def _run(self, night: date) -> Run:
        return Run(pipeline=self.pipeline, days=Days.of(night), environment=self.environment)

    def _require_same(self, predictions: pa.Table, rows: pa.Table, model: ModelVersion) -> None:
        """Refuse to explain another score than the one that was served, by whatever variant."""
        served = predictions[self.pipeline.prediction].to_numpy()
        allowed = _SAME * np.maximum(1.0, np.abs(served))
        first, *others = self._speakers(model)
        today = first.score(rows)
        wrong = np.flatnonzero(~(np.abs(today - served) <= allowed))
        if not len(wrong):
            return
        off = [np.abs(one.score(rows) - served) for one in others]
        if any((found <= allowed).all() for found in off):
            return
        place = int(wrong[0])
        raise NightshiftError(
            f"{len(wrong)} of {len(served)} published predictions are not what version "
            f"{model.version} says of the same rows today: {served[place]:.8g} was served, and it "
            f"says {today[place]:.8g}. Code or libraries have changed since: explain it with "
            f"those of then (code {predictions['code_version'][place]})."
        )

    def _speakers(self, model: ModelVersion) -> list[Scorer]:
        """Every variant of a model that may have served."""
        if model.version not in self.speakers:
            there = [EXACT]
            if scoring.has_variant(model, QUANTISED):
                there.append(QUANTISED)
            self.speakers[model.version] = [
                scoring.load(self.registry, model, variant) for variant in there
            ]
        return self.speakers[model.version]


def nights_with_predictions(
    environment: Environment, pipeline: Pipeline, nights: Days
) -> list[date]:
    """Those of the nights that have published some.

    Raises:
        UsageError: none has; the message names nights that have.
        NightshiftError: the column that tells their days was named anew.
    """
    run = Run(pipeline=pipeline, days=nights, environment=environment)
    commits.refuse_another_partition(run, PREDICTIONS)
    table = pipeline.table(PREDICTIONS)
    made = publications.in_force(run, PREDICTIONS)
    found = [night for night in nights if table.day_of(night) in made]
    if not found:
        days = [str(table.night_of(one)) for one in made][-_LISTED:]
        raise UsageError(
            f"'{pipeline.name}' has published no prediction on {nights}. "
            f"Its last nights: {', '.join(days) or 'none yet'}."
        )
    return found


def some_of(predictions: pa.Table, most: int) -> pa.Table:
    """All of them, or at most so many, evenly spaced."""
    if len(predictions) <= most:
        return predictions
    places = np.linspace(0, len(predictions) - 1, most).round()
    return predictions.take(pa.array(places.astype(np.int64)))


def published(environment: Environment, pipeline: Pipeline, night: date) -> pa.Table:
    """The predictions in force that a night has made, in the order of their key.

    Raises:
        UsageError: there are none, and the message names nights that have some; or the prediction
            had another name then, or another key.
    """
    nights_with_predictions(environment, pipeline, Days.of(night))
    stored = datasets.in_force(environment, f"{pipeline.name}.{PREDICTIONS}")
    return made_by(stored, pipeline, night)


def made_by(stored: arrow.Dataset, pipeline: Pipeline, night: date) -> pa.Table:
    """Those of the stored predictions that a night has made, in the order of their key.

    Raises:
        UsageError: the prediction had another name then, or another key.
    """
    table = pipeline.table(PREDICTIONS)
    wanted = pc.field(table.partition) == pa.scalar(table.day_of(night))
    rows = stored.to_table(filter=wanted)
    lack = f"The predictions of {night} have no"
    scored_anew = f"nightshift run {pipeline.name} --date {night} --rescore"
    for column in pipeline.entity:
        refuse_unless(
            _has(rows, column),
            f"{lack} {column}: they were made when another entity was declared. Have the night "
            f"made and scored anew: {scored_anew} --restate",
        )
    column = pipeline.prediction
    refuse_unless(
        _has(rows, column),
        f"{lack} {column}: they were made when another name of the prediction was declared. Have "
        f"the night scored anew: {scored_anew}",
    )
    return rows.sort_by([(column, "ascending") for column in table.key])


def _has(predictions: pa.Table, column: str) -> bool:
    """Whether they have the column, if there are any."""
    # One that the table has got since is null in the rows of before.
    is_there = column in predictions.column_names and not predictions[column].null_count
    return is_there or not len(predictions)


def revision(environment: Environment, pipeline: Pipeline, night: date) -> int:
    """Number of the revision of a night's predictions that is in force: 1, 2, …."""
    day = pipeline.table(PREDICTIONS).day_of(night)
    name = f"{pipeline.name}.{PREDICTIONS}"
    told = [one for one in publications.revisions(environment, name) if one.day == day]
    if not told:
        # A home of long ago has nights that no record tells of.
        return 1
    lost = publications.lost_revisions(environment, name)
    return len(told) + publications.lost_before(told[-1], lost)


def one_of(
    pipeline: Pipeline,
    predictions: pa.Table,
    key: Mapping[str, str],
) -> pa.Table:
    """The one prediction that has these values.

    Args:
        pipeline: Whose predictions they are.
        predictions: Of a night.
        key: Values, as texts, of columns of the entity or of carried ones; an instant in ISO 8601,
            without an offset in UTC.

    Raises:
        UsageError: there is no such column, no such row, or there are several.
    """
    columns = tuple(dict.fromkeys((*pipeline.entity, *pipeline.carried)))
    found = predictions
    said: dict[str, str] = {}
    for name, value in key.items():
        if name not in columns:
            raise no_such(f"column of a key of '{pipeline.name}'", name, columns)
        fitting = found.filter(_equal(found[name], value))
        if not len(fitting):
            texts = found[name].cast(pa.string())
            raise UsageError(_no_row(said, name, value, texts))
        said[name] = value
        found = fitting
    if len(found) > 1:
        shown = _keys_of(found.slice(0, _LISTED), columns)
        raise UsageError(
            f"{len(found)} predictions have {_told(key)}. Say more of the key: "
            f"{'; '.join(shown)}{'; …' if len(found) > _LISTED else ''}."
        )
    return found


def _equal(values: pa.ChunkedArray, text: str) -> pa.ChunkedArray:
    """Which values are the one that the text says; some may be written in any way."""
    kind = values.type
    read = _read_by(kind)
    if read is None:
        return pc.equal(values.cast(pa.string()), text)
    try:
        meant = read(text, kind)
    # Of an instant that no column of that type can hold, too: in UTC it may have no year.
    except (ValueError, OverflowError):
        # No value is equal to null.
        meant = pa.scalar(None, kind)
    return pc.equal(values, meant)


def _read_by(kind: pa.DataType) -> Callable[[str, Any], pa.Scalar] | None:
    """What reads a value of a type that has several texts; None: it has one."""
    if pa.types.is_timestamp(kind):
        return _instant
    # A page writes `True` and `1.0`, Arrow `true` and `1`.
    has_several = pa.types.is_boolean(kind) or pa.types.is_floating(kind)
    return _cast if has_several else None


def _cast(text: str, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(text).cast(kind)


def _instant(text: str, kind: pa.TimestampType) -> pa.Scalar:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    plain = instant.astimezone(UTC).replace(tzinfo=None)
    return pa.scalar(plain if kind.tz is None else instant, kind)


def _no_row(
    said: Mapping[str, str],
    name: str,
    value: str,
    texts: pa.ChunkedArray,
) -> str:
    """That no row of those with the rest of the key has the value, and which are like it."""
    known = sorted(pc.unique(texts.drop_null()).to_pylist())
    if not known:
        return f"No prediction of the night has a value of {name}: there is none to be explained."
    near = get_close_matches(value, known, n=_LISTED) or known[:_LISTED]
    of_those = f" with {_told(said)}" if said else ""
    return (
        f"No prediction of the night{of_those} has {name}={value}. "
        f"There are: {', '.join(near)}{', …' if len(known) > len(near) else ''}."
    )


def _told(key: Mapping[str, str | None]) -> str:
    return " ".join(f"{name}={value}" for name, value in key.items())


def _keys_of(rows: pa.Table, columns: Sequence[str]) -> list[str]:
    """Each row's key as a person may write it."""
    texts = [rows[name].cast(pa.string()).to_pylist() for name in columns]
    told: list[str] = []
    for values in zip(*texts, strict=True):
        key = dict(zip(columns, values, strict=True))
        told.append(_told(key))
    return told


def scored_rows(run: Run, predictions: pa.Table) -> pa.Table:
    """The rows from which predictions of the run's night were made, in their order.

    Raises:
        UsageError: they have been deleted.
        NightshiftError: some are not where the predictions say.
    """
    versions = pc.unique(predictions["scoring_version"]).to_pylist()
    parts: list[pa.Table] = []
    name = run.pipeline.name
    way_out = f"Score anew: nightshift run {name} --date {run.night} --rescore"
    for version in versions:
        # First, because it says in words what is gone.
        as_left.open_at(run.environment, f"{name}.{SCORING}", version, way_out)
        snapshot = Snapshot(table=SCORING, version=version, night=run.night)
        parts.append(snapshots.read(run, snapshot, run.days))
    rows = pa.concat_tables(parts, promote_options="default")
    entity = run.pipeline.entity
    places = places_of(predictions, rows, entity)
    lacking = np.flatnonzero(places < 0)
    if len(lacking):
        (first,) = _keys_of(predictions.slice(int(lacking[0]), 1), entity)
        raise NightshiftError(
            f"{name}.{SCORING} version {versions[0]} has no row for "
            f"{len(lacking)} predictions of {run.days}, such as {first}: nobody knows what "
            "they were scored from."
        )
    return rows.take(pa.array(places))


def places_of(
    wanted: pa.Table,
    rows: pa.Table,
    keys: Sequence[str],
) -> NDArray[np.int64]:
    """For each wanted row the place of the last row that has its key; -1: none has."""
    names = list(keys)
    asked = wanted.select(names)
    there = rows.select(names).cast(asked.schema)
    # Names with a space, which no column has.
    asked = asked.append_column("place asked", pa.array(np.arange(len(asked))))
    there = there.append_column("place there", pa.array(np.arange(len(there))))
    pairs = asked.join(there, keys=names, join_type="inner").sort_by("place there")
    found = np.full(len(wanted), -1)
    found[pairs["place asked"].to_numpy()] = pairs["place there"].to_numpy()
    return found
