"""Stage `predict`: each night's champion scores tomorrow's rows, which are staged for the gate."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql.pandas.types import from_arrow_schema

from jobs.lake import (
    amounts,
    approvals,
    model_events,
    ops,
    served,
    snapshots,
    tables,
    unscored,
)
from jobs.lake.contract import not_as_promised
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import path
from jobs.lake.publications import Input, Origin
from jobs.lake.snapshots import Snapshot
from jobs.lake.transforms import definitions
from jobs.spark.server import cores_at_once
from jobs.spark.session import connect
from jobs.training import file_scoring, odd_inputs, scoring, serving
from jobs.training.file_scoring import Asked
from jobs.version import code_version
from pipelines.days import Days
from pipelines.errors import AwaitsApproval, NightshiftError, Refused, UsageError
from pipelines.run import Run
from pipelines.spec import PREDICTIONS, SCORING

if TYPE_CHECKING:
    from jobs.lake.data_files import DayFile
    from jobs.training.families.light import Variant
    from jobs.training.file_scoring import Shipped
    from jobs.training.odd_inputs import Odd
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.scoring import Scorer
    from jobs.training.serving import Gone
    from pipelines.environment import Environment

_Champions = Mapping[date, "ModelVersion"]
"""By night the model that scores it."""
_Without = Mapping[date, str]
"""By night why the model whose turn it is scores it not."""
_LEFT_OUT = (
    "This run leaves them out and scores the others. Once MLflow is restored from a backup: "
)
"""Of nights whose model was deleted; the commands follow."""
_UNREADABLE = (
    "This run leaves out the nights of its turn, and scores the others. Once its files are as they "
    "were: "
)
"""Of nights whose model cannot be loaded; the commands follow."""
ROWS_IN_PROCESS = 200_000
"""More are scored by Spark's workers, where they lie. Up to some hundred thousand one process is
the faster way (docs/performance.md). Either has few of them in memory."""


def predict(run: Run) -> dict[str, object]:
    """Stage a prediction for every scoring row of the nights that have a champion.

    Where none of the nights has one and a later night goes on from them, nothing is staged.

    Raises:
        AwaitsApproval: no night of the run has one, and one that would serve awaits a person.
        Refused: no night of the run has one, nor will have; or what was served of one is lost.
    """
    from jobs.training.registry import Registry

    registry = Registry(run.environment, run.pipeline.name)
    served.require_not_lost(run, partial(_without_their_model, run, registry))
    put_back = serving.put_right(run.environment, registry)
    champions, without = _champions(run, registry)
    of_those_without = unscored.facts(run.pipeline, without)
    if not champions:
        if run.days.last < run.night:
            # Such as those before a gap: whether the run ends without a model its last part tells.
            tables.unstage(run, PREDICTIONS)
            return {
                "predictions": 0,
                "models": [],
                "nights_without_model": list(map(str, run.days)),
                **of_those_without,
                "alias_was_moved_to": put_back,
            }
        raise _without_model(run, without)
    knowledge = Knowledge.of_now(run)
    # Only the nights that have a champion: what others hold from runs of their own stays.
    nights = Days(min(champions), max(champions))
    snapshot = snapshots.newest(run, SCORING)
    work = _Work(
        run=run,
        registry=registry,
        champions=champions,
        snapshot=snapshot,
        nights=nights,
    )
    # A cluster that others run need not have our code.
    is_own = not run.environment.spark_remote
    is_large = is_own and snapshots.count(run, snapshot, nights) > ROWS_IN_PROCESS
    origin = _origin(run, champions, knowledge)
    staged, odd = work.on_spark(origin) if is_large else work.in_process(origin)
    return {
        "predictions": staged,
        "scoring_version": snapshot.version,
        # By number: as a text, '10' comes before '9'.
        "models": sorted({model.version for model in champions.values()}, key=int),
        "scored_by": "Spark" if is_large else "this process",
        "variants": work.variants,
        "odd_inputs": odd_inputs.in_words(odd),
        "nights_without_model": [str(day) for day in run.days if day not in champions],
        **of_those_without,
        "alias_was_moved_to": put_back,
    }


def _champions(run: Run, registry: Registry) -> tuple[_Champions, _Without]:
    """The model of each night that has one; one of another label is none, and people are told.

    So they are of one that was deleted after its turn, or whose files are gone: the nights that
    others score go on.

    Returns:
        The models, and of nights that fall into a turn without one why.

    Raises:
        NightshiftError: that of the run's last night was deleted, or its files are gone.
    """
    found, gone = serving.models_there(run.environment, registry, run.days)
    without: dict[date, str] = {}
    others = serving.other_labels(run.pipeline, registry, found.values())
    for version, other in others.items():
        why = f"version {version} {other}"
        print(f"Warning: {why}: it scores no night.", file=sys.stderr, flush=True)
        without |= dict.fromkeys(_scored_by(found, version), why)
    own = {night: model for night, model in found.items() if night not in without}
    of_night = [one for one in gone if one.covers(run.night)]
    serving.require_none_gone(of_night, _to_train_another(run, _covered(run.days, of_night)))
    for one in gone:
        nights = _covered(run.days, [one])
        ways = unscored.ways_out(run.pipeline, nights, rescore=run.rescore)
        print(f"Warning: {one} {_LEFT_OUT}{ways}", file=sys.stderr, flush=True)
        why = f"version {one.turn.version} is not in MLflow"
        without |= dict.fromkeys(nights, why)
    unreadable = _unreadable(run, registry, own.values())
    turn = serving.turn_of(run.environment, registry, run.night)
    for version, error in unreadable.items():
        nights = _scored_by(own, version)
        if turn and version == turn.version:
            way = _to_train_another(run, nights)
            raise NightshiftError(f"{error} Or have another model trained: {way}") from error
        ways = unscored.ways_out(run.pipeline, nights, rescore=run.rescore)
        print(f"Warning: {error} {_UNREADABLE}{ways}", file=sys.stderr, flush=True)
        without |= dict.fromkeys(nights, f"the files of version {version} cannot be read")
    return {night: model for night, model in own.items() if night not in without}, without


def _unreadable(
    run: Run,
    registry: Registry,
    models: Iterable[ModelVersion],
) -> Mapping[str, NightshiftError]:
    """Of models that serve no more those whose files are gone, or others; by version, and why.

    Of the one that serves now its scoring tells.
    """
    turns = model_events.turns(run.environment, registry.name)
    found: dict[str, NightshiftError] = {}
    for model in {model.version: model for model in models}.values():
        if model.version == turns[-1].version:
            continue
        variant = serving.variant_of(run.environment, run.pipeline, model)
        try:
            scoring.prove(registry, model, variant)
        # No store that is away brings it here: that is another error.
        except NightshiftError as error:
            found[model.version] = error
    return found


def _to_train_another(run: Run, nights: Sequence[date]) -> str:
    """The command by which another model serves these nights of the run; empty: there are none.

    It serves from the night on that it is trained for: the first of them.
    """
    if not nights:
        return ""
    again = " --rescore" if run.rescore else ""
    return f"nightshift run {run.pipeline.name} --date {nights[0]} --retrain{again}"


def _without_their_model(run: Run, registry: Registry, nights: Days) -> list[date]:
    """Of the nights those whose model can score none.

    It was deleted in MLflow after its turn, or its files, or it has learned another label.
    """
    models, gone = serving.models_there(run.environment, registry, nights)
    found = _covered(nights, gone)
    unfit = {
        *serving.other_labels(run.pipeline, registry, models.values()),
        *_unreadable(run, registry, models.values()),
    }
    for version in unfit:
        found += _scored_by(models, version)
    return found


def _covered(nights: Days, gone: Sequence[Gone]) -> list[date]:
    """Those of the nights that fall into these turns."""
    return [night for night in nights if any(one.covers(night) for one in gone)]


def _scored_by(models: _Champions, version: str) -> list[date]:
    """The nights that a version scores."""
    return [night for night, model in models.items() if model.version == version]


def _without_model(run: Run, without: _Without) -> Refused:
    """Why nothing can be scored, and the way out.

    Args:
        run: Of the nights.
        without: Why the models whose turn they are score none.
    """
    name = run.pipeline.name
    none = model_events.NONE_IN_FORCE.format(name=name, days=run.days)
    recorded = model_events.events(run.environment, name)
    waiting = approvals.undecided(recorded, run.pipeline, ops.now())
    awaited = approvals.awaited_on(waiting, run.days.last)
    if awaited is None:
        why = [f"{one[0].upper()}{one[1:]}." for one in dict.fromkeys(without.values())]
        command = _to_train_another(run, sorted(without))
        way = "Run stages train and evaluate until one is promoted"
        way += f": {command}" if command else "."
        return Refused(" ".join([none, *why, way]))
    way = approvals.command(run.pipeline, awaited["model_version"])
    return AwaitsApproval(
        f"{none} One awaits a person: {way}. Then the next night scores this one too, or this one "
        "does when it is run again."
    )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is to be scored, and by which models."""

    run: Run
    registry: Registry
    champions: Mapping[date, ModelVersion]
    snapshot: Snapshot
    nights: Days

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """Of each version that serves, how it does."""
        found: dict[str, Variant] = {}
        for model in self.champions.values():
            found[model.version] = serving.variant_of(self._environment, self.run.pipeline, model)
        return found

    def in_process(self, origin: Origin) -> tuple[int, Counter[Odd]]:
        """Make the predictions here; returns how many were staged, and the odd inputs."""
        models: dict[str, Shipped] = {}
        scorers: dict[Shipped, Scorer] = {}
        for model in self._models:
            variant = self.variants[model.version]
            known = file_scoring.by_files(model, variant, _made_by(model))
            models[model.version] = known
            scorers[known] = scoring.load(self.registry, model, variant)
        return self._staged(partial(file_scoring.write, scorers), models, origin)

    def on_spark(self, origin: Origin) -> tuple[int, Counter[Odd]]:
        """The same by Spark's workers."""
        session = connect(self._environment)
        models: dict[str, Shipped] = {}
        for model in self._models:
            variant = self.variants[model.version]
            models[model.version] = file_scoring.ship(
                session, self.registry, model, variant, _made_by(model)
            )
        return self._staged(partial(file_scoring.write_on_spark, session), models, origin)

    def _staged(
        self,
        write: Callable[[Asked, list[DayFile], str], Counter[Odd]],
        models: Mapping[str, Shipped],
        origin: Origin,
    ) -> tuple[int, Counter[Odd]]:
        """Have the predictions written.

        Args:
            write: Into a new folder, of those files.
            models: By their version.
            origin: How the predictions are made.
        """
        asked = Asked(
            table=path(self.run, SCORING),
            schema=snapshots.schema(self.run, self.snapshot),
            partition=self._partition,
            by_day={day: models[model.version] for day, model in self.champions.items()},
            shown=self._shown,
            task=self.run.pipeline.training.task,
            prediction=self.run.pipeline.prediction,
            stamps={name: pa.scalar(value) for name, value in self._stamps.items()},
            told_by=self.run.pipeline.table(PREDICTIONS).partition,
            cores=cores_at_once(self._environment),
        )
        files = snapshots.files(self.run, self.snapshot, self.nights)
        own = [file for file in files if file.day in asked.by_day]
        rows = sum(file.rows for file in own)
        amounts.add_read(rows, sum(file.size for file in own))
        odd: Counter[Odd] = Counter()

        def writing(place: str) -> None:
            odd.update(write(asked, own, place))
            # Before anything is staged.
            odd_inputs.require_none(self.run, odd)

        self._tell_of_other_types(asked.told)
        schema = from_arrow_schema(asked.told)
        staged = tables.stage_files(self.run, PREDICTIONS, writing, schema, origin.inputs, origin)
        return staged, odd

    def _tell_of_other_types(self, told: pa.Schema) -> None:
        """Warn of predictions that are not what the contract promises."""
        # A contract that makes no sense is the matter of the project's own tests.
        with suppress(UsageError):
            for odd in not_as_promised(self.run.pipeline, told):
                print(f"Warning: {odd}", file=sys.stderr, flush=True)

    @cached_property
    def _stamps(self) -> dict[str, object]:
        """What every row tells of its making."""
        return {
            "run_id": self.run.run_id,
            "predicted_at": ops.now(),
            "scoring_version": self.snapshot.version,
            "code_version": code_version(),
        }

    @property
    def _environment(self) -> Environment:
        return self.run.environment

    @property
    def _models(self) -> list[ModelVersion]:
        """Each version once."""
        return list({model.version: model for model in self.champions.values()}.values())

    @property
    def _partition(self) -> str:
        return self.run.pipeline.table(SCORING).partition

    @property
    def _shown(self) -> tuple[str, ...]:
        # A pipeline may carry a column that is part of its entity.
        pipeline = self.run.pipeline
        return tuple(dict.fromkeys((*pipeline.entity, *pipeline.carried)))


def _made_by(model: ModelVersion) -> dict[str, str]:
    return {
        "model_name": model.name,
        "model_version": model.version,
        "model_run_id": model.run_id,
    }


def _origin(run: Run, champions: Mapping[date, ModelVersion], knowledge: Knowledge) -> Origin:
    table = run.pipeline.table(PREDICTIONS)
    inputs = {}
    for night, model in champions.items():
        inputs[table.day_of(night)] = _inputs(night, model, knowledge)
    return Origin(definition=definitions(run.pipeline)[PREDICTIONS], inputs=inputs)


def _inputs(night: date, model: ModelVersion, knowledge: Knowledge) -> tuple[Input, ...]:
    rows = knowledge.table_input(SCORING, Days.of(night))
    scored_by = Input(
        # With a slash, as every name that is no table's.
        name=f"models/{model.name}",
        first_day=model.as_of,
        last_day=model.as_of,
        digest=model.run_id,
        version=int(model.version),
    )
    return rows, scored_by
