"""Which model serves a night: what `ops.model_events` says, which the alias in MLflow follows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from jobs.lake import model_events
from jobs.lake.model_events import Turn
from jobs.lake.store_faults import explain_away
from jobs.training import comparison, scoring
from jobs.training.families.light import EXACT, QUANTISED, Variant
from jobs.training.registry import CHAMPION, NOWHERE, ModelVersion, Registry
from jobs.training.tasks import LearningTask, task_of
from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError

if TYPE_CHECKING:
    from pipelines.spec import Pipeline


def models_there(
    environment: Environment,
    registry: Registry,
    nights: Days,
) -> tuple[dict[date, ModelVersion], list[Gone]]:
    """The champion for each night that has one, never trained on what became known later.

    Returns:
        The models, and the turns of these nights whose model is not there any more.

    Raises:
        NightshiftError: the one that serves now was deleted in MLflow.
    """
    known = model_events.turns(environment, registry.name)
    model_of = cache(partial(_model_of, registry, known))
    models: dict[date, ModelVersion] = {}
    gone: dict[Gone, None] = {}
    for night in nights:
        turn = model_events.in_turn(known, night)
        found = model_of(turn) if turn else None
        if isinstance(found, Gone):
            gone[found] = None
        elif found:
            models[night] = found
    return models, list(gone)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """A turn that is over, and whose model was deleted in MLflow."""

    name: str
    """Of the model."""
    turn: Turn
    until: date
    """Night with which the next turn begins."""

    def covers(self, night: date) -> bool:
        """Whether the night falls into the turn."""
        return self.turn.night <= night < self.until

    def __str__(self) -> str:
        last = self.until - timedelta(days=1)
        return (
            f"Version {self.turn.version} of model '{self.name}' scored the nights from "
            f"{self.turn.night} to {last}, serves no more, and is not in MLflow, so they cannot be "
            "scored again."
        )


def require_none_gone(gone: Sequence[Gone], command: str = "") -> None:
    """Refuse nights that no model can score any more.

    Args:
        gone: The turns that they fall into, in order.
        command: That trains another model for them; empty: the nights are not known.

    Raises:
        NightshiftError: there are such; the message tells the way out.
    """
    # A rollback would withdraw what serves now, and leave these nights as they are.
    if gone:
        told = " ".join(map(str, gone))
        another = f" Or have another model trained for them: {command}" if command else ""
        raise NightshiftError(
            f"{told} Restore MLflow from a backup, or leave these nights out: ask for nights "
            f"from {gone[-1].until} on.{another}"
        )


def _model_of(registry: Registry, known: list[Turn], turn: Turn) -> ModelVersion | Gone:
    """The model of a turn.

    Raises:
        NightshiftError: it serves now, and was deleted in MLflow.
    """
    if turn.version == known[-1].version:
        return registry.in_service(turn.version)
    try:
        return registry.version(turn.version)
    except UsageError:
        later = [one.night for one in known if one.night > turn.night]
        return Gone(name=registry.name, turn=turn, until=later[0])


def turn_of(
    environment: Environment,
    registry: Registry,
    night: date,
    besides: str | None = None,
) -> Turn | None:
    """The turn that the night falls into.

    Args:
        environment: Whose record it is.
        registry: Of the pipeline's models.
        night: The night.
        besides: A version to leave out: the candidate, which may have been promoted by an earlier
            run of this night.
    """
    known = model_events.turns(environment, registry.name)
    others = [turn for turn in known if turn.version != besides]
    return model_events.in_turn(others, night)


def learned_by(
    pipeline: Pipeline, registry: Registry, model: ModelVersion
) -> tuple[LearningTask, str]:
    """Task and label of a version; of one that was kept before they were told those declared."""
    task, label = _told_by(pipeline, registry, model)
    return task_of(task), label


def other_label(pipeline: Pipeline, registry: Registry, model: ModelVersion) -> str | None:
    """In words that a version has learned another label, or to tell it otherwise; None: it has not.

    What it says is not what the pipeline declares to foretell: it serves no night.
    """
    training = pipeline.training
    # As texts: a task may be known no more.
    task, label = _told_by(pipeline, registry, model)
    if (label, task) == (training.label, training.task):
        return None
    return (
        f"has learned '{label}' ({_spaced(task)}) and not '{training.label}' "
        f"({_spaced(training.task)}), which '{pipeline.name}' declares"
    )


def other_labels(
    pipeline: Pipeline,
    registry: Registry,
    models: Iterable[ModelVersion],
) -> dict[str, str]:
    """By version what `other_label` tells of models, of which some may be the same."""
    found: dict[str, str] = {}
    for model in {model.version: model for model in models}.values():
        if other := other_label(pipeline, registry, model):
            found[model.version] = other
    return found


def _told_by(pipeline: Pipeline, registry: Registry, model: ModelVersion) -> tuple[str, str]:
    training = pipeline.training
    told = registry.params(model)
    return told.get("task", training.task), told.get("label", training.label)


def _spaced(task: str) -> str:
    return task.replace("_", " ")


def follow(environment: Environment, registry: Registry) -> str | None:
    """Have the alias `champion` point to the model that serves now.

    That somebody has moved it is recorded first: killed in between, the next who looks sees it too.

    Returns:
        The version to which somebody has moved it by hand, or NOWHERE if it was deleted; None: it
        was where this platform left it, right or behind the record, or went with its version.
    """
    known = model_events.turns(environment, registry.name)
    serves = known[-1].version if known else None
    pointed_to = registry.champion()
    if pointed_to == serves:
        return None
    left_at = registry.champion_left_at()
    # One that was deleted in MLflow can have no alias: who loads it tells the way out.
    there = registry.there({*left_at, serves or NOWHERE})
    is_there = serves in there
    moved_to = pointed_to if pointed_to not in left_at else None
    if pointed_to is None and NOWHERE not in left_at and there.intersection(left_at):
        moved_to = NOWHERE
    if moved_to is not None:
        _record_move(environment, registry, moved_to, known[-1] if known else None, is_there)
    if serves is not None and is_there:
        registry.set_champion(serves)
    elif pointed_to is not None:
        registry.remove_champion()
    return moved_to


def put_right(environment: Environment, registry: Registry) -> str | None:
    """Have the alias follow, and say so if somebody has moved it by hand.

    Returns:
        The version that it was moved to, or NOWHERE; None: nobody has moved it.
    """
    moved_to = follow(environment, registry)
    if moved_to is not None:
        name = registry.name
        found = f"pointed to version {moved_to}, which does not serve by ops.model_events"
        if moved_to == NOWHERE:
            found = "was deleted by hand"
        done = "It was put back" if registry.champion() else "No version that is there can have it"
        print(
            f"Warning: the alias '{CHAMPION}' of '{name}' in MLflow {found}. {done}. To change "
            f"what serves: nightshift rollback {name} --to VERSION --why TEXT",
            file=sys.stderr,
            flush=True,
        )
    return moved_to


def _record_move(
    environment: Environment, registry: Registry, to: str, turn: Turn | None, is_there: bool
) -> None:
    name = registry.name
    *_, left_at = registry.champion_left_at()
    alias = f"the alias '{CHAMPION}' of '{name}' in MLflow"
    begun = "" if left_at == NOWHERE else f" from version {left_at}"
    what = f"moved {alias}{begun} to version {to}"
    if to == NOWHERE:
        what = f"deleted {alias}, which pointed to version {left_at}"
    row = {
        "pipeline": name,
        "as_of": turn and turn.night,
        "event": model_events.ALIAS_MOVED,
        "model_version": left_at if to == NOWHERE else to,
        "rival_version": turn and turn.version,
        "reason": f"Somebody has {what}; MLflow does not keep who. "
        f"{_what_was_done(turn, is_there)}",
        "who": model_events.SOMEBODY,
    }
    model_events.record(environment, [row])


def _what_was_done(turn: Turn | None, is_there: bool) -> str:
    if turn is None:
        return "By ops.model_events no model serves: the alias was taken away."
    serves = f"By ops.model_events version {turn.version} serves"
    if is_there:
        return f"{serves}: the alias was put back to it."
    return f"{serves}, which was deleted in MLflow: the alias was taken away."


def variant_of(environment: Environment, pipeline: Pipeline, model: ModelVersion) -> Variant:
    """By which variant a version serves: the quantised one where it is asked for and has passed."""
    if not pipeline.serving.quantised:
        return EXACT
    told = model_events.events(environment, pipeline.name, model.version)
    judged = model_events.last_judged(told)
    last = json.loads(judged["metrics"]).get(QUANTISED) if judged else None
    if not last:
        return EXACT
    # By the limit of today, which may be another than when it was judged.
    most = pipeline.serving.max_quantised_loss
    may_serve = comparison.passes(last["exact_loss"], last["more_loss_high"], most)
    return QUANTISED if may_serve else EXACT


def find_in_child(argument: Mapping[str, Any]) -> int:
    """Look for a version in MLflow, and prove the files by which it serves.

    In a child of the stage server.

    Returns:
        0: they are there; the exit code of `Refused`: they are not, and it could not serve; that of
        a fault: MLflow or its store did not answer. The last line of the output tells why.
    """
    environment = Environment.read(argument["environment"])
    pipeline = catalog.pipeline(argument["pipeline"])
    try:
        registry = Registry(environment, pipeline.name)
        try:
            model = registry.version(argument["version"])
        except UsageError:
            print("was deleted in MLflow, so it cannot serve")
            return Refused.exit_code
        if other := other_label(pipeline, registry, model):
            print(f"{other}, so it cannot serve")
            return Refused.exit_code
        scoring.prove(registry, model, variant_of(environment, pipeline, model))
    except Exception as error:  # of MLflow, or of whatever it keeps its records and files in
        away = _is_away(error, argument["environment"])
        print(away or f"cannot serve: {_first_sentence(error)}")
        return NightshiftError.exit_code if away else Refused.exit_code
    return 0


def _is_away(error: Exception, variables: Mapping[str, str]) -> str | None:
    """What keeps MLflow or its store from telling, in a sentence; None: it has told."""
    # What a file could not be read for is the cause of ours.
    told = error.__cause__ if isinstance(error, NightshiftError) else error
    if told is None:
        return None
    known = explain_away(told, variables)
    if known or told is error:
        return _first_sentence(known or error)
    return None


def _first_sentence(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words.partition(". ")[0].removesuffix(".")


def follow_in_child(argument: Mapping[str, Any]) -> int:
    """Have the alias follow, and the cards of the versions that a person has decided about.

    In a child of the stage server.

    Returns:
        0: they have followed; the exit code of a fault: they have not, and what is wrong is told.
    """
    from jobs.training import cards

    environment = Environment.read(argument["environment"])
    pipeline = catalog.pipeline(argument["pipeline"])
    try:
        registry = Registry(environment, pipeline.name)
        follow(environment, registry)
        for version in argument["versions"]:
            # One that was deleted in MLflow has no card there.
            with suppress(UsageError):
                cards.keep(environment, pipeline, registry, registry.version(version))
    except Exception as error:  # as in `find_in_child`: what was decided stands all the same
        why = _is_away(error, argument["environment"]) or _first_sentence(error)
        print(f"Warning: the alias and the cards have not followed. {why}.", file=sys.stderr)
        return NightshiftError.exit_code
    return 0
