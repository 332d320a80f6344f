"""Trains a registered model again from its pins, and compares the weights bit for bit.

Nothing of it touches the registry or what serves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.lake import as_left
from jobs.lake.definition import AS_BEFORE
from jobs.training import candidate, pins, scoring
from jobs.training.candidate import JUDGED, Candidate, Recipe
from jobs.training.dataset import Window
from jobs.training.encoding import ENCODING
from jobs.training.families import TooFewPlaces, family_of
from jobs.training.families.linear import Linear
from jobs.training.families.neural_network import Network
from jobs.training.registry import ModelVersion, Registry
from pipelines.days import Days, parse_day
from pipelines.environment import Environment
from pipelines.errors import Refused, UsageError
from pipelines.model import (
    FAMILIES,
    GroupMean,
    LinearModel,
    Logarithm,
    NeuralNetwork,
    Training,
)
from pipelines.run import Run
from pipelines.spec import Pipeline

SERVING = "serving"
"""The model that serves, beside the judged one."""
_ENCODING = "encoding"
"""Part of a model beside its weights: the bytes of its file."""
_DAYS_CHOSEN = "window_days"
"""A pin that decides over the recipe, and not over the rows of one training."""
_UNSAID = "not pinned"
_RANGE = ".."
"""Between the first and the last day of a range, as `str(Days)` writes it."""
Arrays = Mapping[str, NDArray[Any]]
_Pinned = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One array of the weights, then and now."""

    model: str
    """`serving` or `judged`."""
    name: str
    numbers: int
    same: bool
    """Bit for bit."""
    largest_difference: float | None
    """None: it has another shape."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """A pin that is not as it was."""

    name: str
    then: object
    now: object


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What a replay has shown."""

    parts: list[Part]
    digests: Mapping[str, str]
    """SHA-256 of the weights of each model, as it was registered."""
    changed: list[Pin]
    """What is not as it was: the likely cause of a difference."""

    @property
    def same(self) -> bool:
        """Whether every weight is the same, bit for bit."""
        return all(part.same for part in self.parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A registered model, and how to train it again."""

    model: ModelVersion
    pinned: _Pinned
    run: Run
    """Of its night, with the pipeline as it was declared then, as far as it decides."""
    recipe: Recipe


def original(
    registry: Registry, environment: Environment, pipeline: Pipeline, version: str
) -> Original:
    """What the pins of a version say.

    Raises:
        UsageError: there is no such version, or the rows that it was trained on have been deleted.
        Refused: its pins lack something, or do not fit what is declared today.
        NightshiftError: its pins cannot be read.
    """
    model = registry.version(version)
    pinned = registry.pins(model)
    try:
        run, recipe = _as_pinned(environment, pipeline, pinned)
    # An odd number is a ValueError, as a UsageError is.
    except (KeyError, TypeError, ValueError) as error:
        told = f"its pins have no {error}" if isinstance(error, KeyError) else str(error)
        raise Refused(
            f"Version {version} of '{pipeline.name}' cannot be trained again by this code: {told}. "
            f"It was trained by code {pinned.get('code_version', _UNSAID)}: replay it there."
        ) from error
    if recipe.on_spark and environment.spark_remote:
        raise Refused(
            f"Spark has laid out the rows of version {version} of '{pipeline.name}', and the Spark "
            "of SPARK_REMOTE need not have our code: replay it with a Spark of this home."
        )
    table = f"{pipeline.name}.{recipe.snapshot.table}"
    # First, because it says in words what is gone.
    way_out = f"Train anew: nightshift run {pipeline.name} --date {model.as_of} --retrain"
    as_left.open_at(environment, table, recipe.snapshot.version, way_out)
    return Original(model=model, pinned=pinned, run=run, recipe=recipe)


def replay(registry: Registry, first: Original, ranks_in: Environment) -> Replayed:
    """Train it again, and compare.

    Args:
        registry: Where it is kept; it is only read.
        first: What to train again.
        ranks_in: Where the processes of a training are started.

    Raises:
        Refused: too few labels are there.
        UsageError: its ranks have no places.
        NightshiftError: the training failed, or the registered files are gone or were changed.
    """
    with TemporaryDirectory() as path:
        then, now, work = (Path(path) / name for name in ("then", "now", "work"))
        for folder in (then, now, work):
            folder.mkdir()
        _made_again(first, work, ranks_in).save(now)
        registry.fetch(first.model, first.model.sha256, then)
        parts: list[Part] = []
        digests: dict[str, str] = {}
        for name, below in ((SERVING, Path()), (JUDGED, Path(JUDGED))):
            before = _arrays(then / below, first.recipe)
            parts += _compared(name, before, _arrays(now / below, first.recipe))
            digests[name] = digest(before)
    changed = list(_changed(first.pinned, pins.pins(first.run, first.recipe)))
    return Replayed(parts=parts, digests=digests, changed=changed)


def _made_again(first: Original, work: Path, ranks_in: Environment) -> Candidate:
    try:
        return candidate.make(first.run, first.recipe, work, ranks_in=ranks_in)
    except TooFewPlaces as few:
        raise UsageError(
            f"Version {first.model.version} of '{first.run.pipeline.name}' was trained by "
            f"{few.ranks} ranks, and is trained again by as many, whatever NIGHTSHIFT_RANKS says; "
            f"{few.found}: {few.more}, or unset {ranks_in.place_of_ranks}, so that they are on "
            "this machine."
        ) from few


def digest(arrays: Arrays) -> str:
    """SHA-256 of arrays: their names, types, shapes and bytes.

    Not of a model's file, which holds the time at which it was written.
    """
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        about = json.dumps([name, str(array.dtype), array.shape])
        # With an end that no JSON has, so that it cannot pass for the bytes that follow.
        whole.update(about.encode() + b"\0" + array.tobytes())
    return whole.hexdigest()


def _as_pinned(environment: Environment, pipeline: Pipeline, pinned: _Pinned) -> tuple[Run, Recipe]:
    night = parse_day(pinned["as_of"])
    declared = _family(pinned)
    # What is not said is as it was before it could be.
    learned = {"max_categories": AS_BEFORE["max_categories"], **pinned["training"]}
    bends = learned.pop("bends")
    curves: list[Logarithm] = []
    for name, bend in bends.items():
        curves.append(Logarithm(features=(name,), bend=bend))
    training = _training(pipeline.training, declared, tuple(curves), _with_tuples(learned))
    # What `tune` may try is said of what is declared today.
    then = replace(pipeline, training=training, search={})
    run = Run(pipeline=then, days=Days.of(night), environment=environment)
    # As they are: the environment may name another number of ranks today.
    recipe = Recipe(
        family=family_of(declared.name),
        settings=declared,
        days=_window(pinned, night),
        snapshot=pins.snapshot_of(pinned),
        # Whatever the declaration holds for large today.
        on_spark=pins.LAID_OUT in pinned,
    )
    return run, recipe


def _training(
    today: Training, family: Any, curves: tuple[Logarithm, ...], learned: Mapping[str, Any]
) -> Training:
    """What is pinned, and of today's declaration nothing by which a training could be refused."""
    read = (*learned["numeric"], *learned["categorical"])
    given = dict.fromkeys((*today.features, *today.unread))
    return replace(
        today,
        family=family,
        logarithms=curves,
        **learned,
        unread=tuple(name for name in given if name not in read),
        # No model is judged here: only what it read itself need be in the rows of then.
        baselines=(GroupMean(columns=read[:1]),),
        slices=(),
        # Its rows were enough.
        min_rows=1,
    )


def _family(pinned: _Pinned) -> Any:
    decisive = dict(pinned["family"])
    name = decisive.pop("name")
    settings = {**decisive, **pinned["decides_nothing"]}
    return FAMILIES[name](**_with_tuples(settings))


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    # JSON has no tuples.
    found: dict[str, Any] = {}
    for name, value in values.items():
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


def _window(pinned: _Pinned, night: date) -> Window:
    validation = _days(pinned["validation_days"])
    return Window(
        fit=_days(pinned["fit_days"]),
        validation=validation,
        # With the days of labels that come late, which are not pinned: nothing is compared here.
        held_out=Days(validation.last + timedelta(days=1), night),
        fresh=_days(pinned["fresh_days"]),
    )


def _days(text: str) -> Days:
    first, _, last = text.partition(_RANGE)
    return Days(parse_day(first), parse_day(last or first))


def _arrays(folder: Path, recipe: Recipe) -> Arrays:
    """Everything of a saved model that decides over what it says, by name."""
    model = scoring.load_trained_from(folder, recipe.family).model
    encoding = np.frombuffer((folder / ENCODING).read_bytes(), np.uint8)
    return {_ENCODING: encoding, **_WEIGHTS[recipe.family.name](model)}


def _of_linear(model: Linear) -> Arrays:
    intercept = np.array([model.intercept], np.float64)
    return {"coefficients": model.coefficients, "intercept": intercept}


def _of_network(model: Network) -> Arrays:
    return {variable.path: np.asarray(variable) for variable in model.keras_model.weights}


_WEIGHTS: Mapping[str, Callable[[Any], Arrays]] = {
    LinearModel.name: _of_linear,
    NeuralNetwork.name: _of_network,
}
"""By the name of the family, what gives the arrays of a loaded model."""


def _compared(model: str, then: Arrays, now: Arrays) -> Iterator[Part]:
    for name in dict.fromkeys([*then, *now]):
        before = then.get(name, np.empty(0))
        after = now.get(name, np.empty(0))
        is_alike = before.shape == after.shape
        furthest = None
        if is_alike and name != _ENCODING:
            furthest = float(np.abs(before - after).max(initial=0.0))
        yield Part(
            model=model,
            name=name,
            numbers=before.size,
            same=is_alike and before.tobytes() == after.tobytes(),
            largest_difference=furthest,
        )


def _changed(then: _Pinned, now: _Pinned) -> Iterator[Pin]:
    # As it is read back: JSON has no tuples.
    today = _flat(json.loads(json.dumps(now)))
    before = _flat(then)
    for name in dict.fromkeys([*before, *today]):
        # The days that it chose are pinned themselves, and were learned from again.
        if name == _DAYS_CHOSEN:
            continue
        old = before.get(name, _UNSAID)
        new = today.get(name, _UNSAID)
        if old != new:
            yield Pin(name=name, then=old, now=new)


def _flat(pinned: _Pinned, above: str = "") -> dict[str, object]:
    """The pins with a name each, such as `libraries.numpy`."""
    found: dict[str, object] = {}
    for name, value in pinned.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[above + name] = value
    return found
