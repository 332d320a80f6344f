"""The evaluate stage: candidate, champion and baselines on the held-out days.

Lets the candidate serve or leaves the champion; a person's word about a model stands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.lake import approvals, model_events, snapshots
from jobs.lake.locations import exists
from jobs.training import (
    alarms,
    baselines,
    cards,
    comparison,
    dataset,
    metrics,
    promotion,
    scoring,
    serving,
    shadow,
)
from jobs.training.comparison import CANDIDATE, CHAMPION, HeldOut
from jobs.training.families.light import QUANTISED
from jobs.training.promotion import Decision, Watched
from jobs.training.shadow import Rivals
from jobs.training.tasks import task_of
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.model import WatchKind
from pipelines.run import Run
from pipelines.spec import SCORING, TRAINING

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.lake.model_events import Turn
    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.scoring import Scorer

_SHOWN = ("rows", "days", "candidate", "champion", "baselines", "challenge", QUANTISED)
"""Of the evidence, in the stage's result."""
_FINGERPRINT = "fingerprint"
"""In the evidence: of whom a word was said is known also when the version is deleted in MLflow."""


def evaluate(run: Run) -> dict[str, object]:
    """Decide over the candidate of the run's last day.

    The decision is recorded once for the same models and rows.

    Models that have awaited a person for too long are refused.

    Raises:
        Refused: the candidate may not serve, and no other model does.
        NightshiftError: there is no candidate.
    """
    from jobs.training.registry import Registry

    # First: what is late is late, whatever becomes of tonight's candidate.
    expired = approvals.expire(run)
    registry = Registry(run.environment, run.pipeline.name)
    put_back = serving.put_right(run.environment, registry)
    candidate = _candidate(run, registry)
    # Those that serve have learned from the held-out days: like the champion's of last night.
    judged = scoring.load_judged(registry, candidate)
    told = None
    # Once, unless a person decides meanwhile which other model serves.
    while told is None:
        turn = _turn_of_another(run, registry, candidate)
        champion, held, absent = _beside_the_champion(run, registry, turn, judged)
        decision, measured = _decided(run, registry, candidate, champion, turn, held)
        if absent:
            decision = replace(decision, reason=f"{absent} {decision.reason}")
        event = _event(run, candidate, champion, decision, measured)
        told = _word_of_a_person(run, registry, candidate)
        # A rerun over the same models and rows has nothing to add.
        if told is None and _is_known(run, event):
            told = event
        if told is None:
            if measured:
                _log(registry, candidate, held, measured)
            told = _settle(run, registry, candidate, turn, event)
    cards.keep(run.environment, run.pipeline, registry, candidate)
    # No word of a person is a refusal of the gate.
    if told["event"] == model_events.REFUSED and champion is None:
        raise Refused(
            f"Model {candidate.version} of '{run.pipeline.name}' was refused, and no other serves. "
            f"{told['reason']}"
        )
    serves = serving.turn_of(run.environment, registry, run.days.last)
    return {
        "event": told["event"],
        "reason": told["reason"],
        "model_version": candidate.version,
        "champion_before": champion and champion.version,
        "serves": serves and serves.version,
        "alias_was_moved_to": put_back,
        "expired": expired,
        **{name: measured and measured[name] for name in _SHOWN},
    }


def _decided(
    run: Run,
    registry: Registry,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    turn: Turn | None,
    held: HeldOut,
) -> tuple[Decision, dict[str, Any] | None]:
    """The decision, and what it rests on, JSON-able; None: nothing can be measured."""
    odd = metrics.impossible(held.task, held.models[CANDIDATE])
    if odd:
        reason = f"Of the held-out rows {odd}: look at what its family makes of odd values."
        return Decision(event="refused", reason=reason), None
    limits = promotion.thresholds(run.pipeline.promotion, held.task, held.label)
    challenge = None
    if turn and champion:
        rivals = Rivals(candidate=candidate, champion=champion, since=turn.night)
        told = shadow.told(run, registry, rivals, held)
        challenge = promotion.challenge(
            told.gains,
            _age(turn, run.days.last),
            limits,
            is_refresh=not turn.is_held and _is_newer_fit(candidate, champion),
            days_held_out=told.held_out,
        )
    slices = run.pipeline.training.slices
    evidence = comparison.measure(held, slices, limits.resamples, challenge)
    measured = comparison.to_json(evidence, held)
    measured[QUANTISED] = _quantised(run, registry, candidate, held)
    measured[_FINGERPRINT] = candidate.fingerprint
    decision = promotion.decide(evidence, limits, _watched(run, turn))
    if decision.event == "kept" and turn and champion and _is_newer_fit(candidate, champion):
        decision = replace(decision, reason=decision.reason + _held_back(run, turn))
    return decision, measured


def _age(turn: Turn, night: date) -> int:
    """Days that the champion has served; 0 in an old night that is run again."""
    return max(0, (night - turn.since).days)


def _is_newer_fit(candidate: ModelVersion, champion: ModelVersion) -> bool:
    """Whether the candidate differs from the champion by newer rows alone."""
    return candidate.recipe == champion.recipe != ""


def _held_back(run: Run, turn: Turn) -> str:
    """That a person has put the champion back, whose place newer fits take else; empty: not so."""
    limits = run.pipeline.promotion
    # It stays: what came after it may have been of its own recipe.
    if not turn.is_held or limits.refresh_days is None:
        return ""
    until = ""
    if limits.max_age_days is not None:
        until = f", or until {turn.since + timedelta(days=limits.max_age_days + 1)}"
    way_out = model_events.command_to_release(run.pipeline.name, turn.version)
    return (
        f" A person has put version {turn.version} back: newer fits of its recipe wait for such "
        f"evidence{until}. To have them take its place as ever: {way_out}"
    )


def _watched(run: Run, turn: Turn | None) -> Watched:
    """What was in alarm after the night before: this one is watched when it has predicted."""
    watch = run.pipeline.watch
    before = run.days.last - timedelta(days=1)

    def told(kinds: tuple[WatchKind, ...], after: date = date.min) -> str | None:
        measures = alarms.of_night(run.environment, run.pipeline, before, after)
        found = [measure for measure in measures if measure.kind in kinds]
        return alarms.in_words(found, watch) if found else None

    # The nights of the model that served before would ask for another one night after night.
    retrains = told(watch.retrains, turn.since) if turn else None
    return Watched(holds=told(watch.holds), retrains=retrains)


def _candidate(run: Run, registry: Registry) -> ModelVersion:
    candidate = registry.candidate(run.days.last)
    if candidate is None:
        raise NightshiftError(
            f"No model of '{run.pipeline.name}' was trained as of {run.days.last}. "
            "Run stage train first: --stage train"
        )
    if other := serving.other_label(run.pipeline, registry, candidate):
        raise NightshiftError(
            f"Version {candidate.version} of '{run.pipeline.name}' {other}. "
            "Run stage train first: --stage train"
        )
    return candidate


def _beside_the_champion(
    run: Run, registry: Registry, turn: Turn | None, judged: Scorer
) -> tuple[ModelVersion | None, HeldOut, str | None]:
    """The champion, what all say of the held-out rows, and why it can say nothing of them.

    One that cannot is left out. It can serve no night either, and before the first champion there
    is none to roll back to: the candidate is judged as if nothing served, by the stricter limits of
    a first champion.
    """
    if turn is None:
        return None, _held_out(run, [judged]), None
    try:
        champion, scorer = _champion(registry, turn)
    # No store that is away brings it here: that is another error, and says nothing of the model.
    except NightshiftError as error:
        return None, _held_out(run, [judged]), _without(turn, "cannot be loaded", str(error))
    if other := serving.other_label(run.pipeline, registry, champion):
        return None, _held_out(run, [judged]), _without(turn, other)
    held = _held_out(run, [judged, scorer])
    try:
        # Whatever its family and its features are: today's declaration may name others.
        says = scorer.score(held.rows)
        odd = metrics.impossible(held.task, says)
        if odd:
            raise NightshiftError(f"Of the held-out rows {odd}.")
    except NightshiftError as error:
        what = str(error).partition(". ")[0].removesuffix(".")
        return None, held, _without(turn, f"cannot score the rows ({what})", str(error))
    if lacking := _not_to_score(run, scorer):
        where = f"{run.pipeline.name}.{SCORING}"
        return None, held, _without(turn, f"reads {lacking}, which {where} does not have")
    return champion, replace(held, models={**held.models, CHAMPION: says}), None


def _not_to_score(run: Run, scorer: Scorer) -> str:
    """What the model reads and the table of what is to be scored has no more, as made anew."""
    if not exists(run, SCORING):
        return ""
    there = snapshots.schema(run, snapshots.newest(run, SCORING)).names
    return ", ".join(f"'{name}'" for name in scorer.encoding.columns if name not in there)


def _held_out(run: Run, scorers: Sequence[Scorer]) -> HeldOut:
    """What the first, which is the candidate, and the baselines say of the held-out rows.

    Args:
        run: Of the night.
        scorers: With what they read.
    """
    training = run.pipeline.training
    task = task_of(training.task)
    past, rows = _rows(run, scorers)
    # To the days that the candidate was trained on, and to no later one.
    fit = partial(baselines.fit, rows=past, label=training.label, prior_rows=task.prior_rows)
    return HeldOut(
        task=task,
        rows=rows,
        day=rows[run.pipeline.event_date].to_numpy(),
        label=rows[training.label].to_numpy().astype(np.float64),
        models={CANDIDATE: scorers[0].score(rows)},
        baselines={one.name: fit(one).predict(rows) for one in training.baselines},
    )


def _quantised(
    run: Run, registry: Registry, candidate: ModelVersion, held: HeldOut
) -> dict[str, Any] | None:
    """How the candidate's quantised variant compares with itself; None: it has none that is fit."""
    if not scoring.has_variant(candidate, QUANTISED):
        return None
    says = scoring.load_judged(registry, candidate, QUANTISED).score(held.rows)
    odd = metrics.impossible(held.task, says)
    if odd:
        print(f"Warning: of the quantised variant {odd}: it does not serve.", file=sys.stderr)
        return None
    return comparison.quantised(held, says, run.pipeline.serving.max_quantised_loss)


def _champion(registry: Registry, turn: Turn) -> tuple[ModelVersion, Scorer]:
    """The champion, and the scorer by which it is judged.

    Raises:
        NightshiftError: it cannot be loaded.
    """
    champion = registry.in_service(turn.version)
    # What is judged may be there without what serves.
    scoring.load(registry, champion)
    return champion, scoring.load_judged(registry, champion)


def _without(turn: Turn, how: str, why: str = "") -> str:
    """Tell that the champion is left out; returns it as the beginning of a reason."""
    told = f"Version {turn.version} {how}. {why}".rstrip()
    print(
        f"Warning: the candidate is judged as if nothing served. {told}",
        file=sys.stderr,
        flush=True,
    )
    return f"Version {turn.version} {how} and so cannot serve: judged without it."


def _rows(
    run: Run,
    scorers: Sequence[Scorer],
) -> tuple[pa.Table, pa.Table]:
    """The rows that baselines learn from, and the held-out ones, with what the models read.

    Raises:
        Refused: no held-out row has a label.
    """
    training = run.pipeline.training
    days = dataset.window(run.pipeline, run.days.last)
    column = run.pipeline.table(TRAINING).partition
    snapshot = snapshots.newest(run, TRAINING)
    # A model of another declaration reads others: what the table has of them, as when it serves.
    there = set(snapshots.schema(run, snapshot).names)
    of_models = {name for scorer in scorers for name in scorer.encoding.columns}
    columns = (*dataset.columns_read(training), *sorted(of_models & there))
    # Of the many days before only what baselines learn from. With the held-out ones, because an
    # outcome that these tell anew is none of the past.
    to_learn = dataset.labelled(run, snapshot, days.all, training.baseline_columns)
    held_out = dataset.labelled(run, snapshot, days.held_out, columns)
    if not len(held_out):
        raise Refused(
            f"{run.pipeline.name}.{TRAINING} has no labelled row on the held-out days "
            f"{days.held_out}: nothing to compare models on."
        )
    return snapshots.between(to_learn, column, days.trained), held_out


def _event(
    run: Run,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    decision: Decision,
    measured: dict[str, Any] | None,
) -> dict[str, Any]:
    name = run.pipeline.name
    what: str = decision.event
    reason = decision.reason
    needs_approval = run.needs_approval or run.pipeline.promotion.needs_approval
    if what == model_events.PROMOTED and needs_approval:
        what = model_events.AWAITING
        reason += f" {_awaits(run)}: {approvals.command(run.pipeline, candidate.version)}"
    return {
        "pipeline": name,
        "as_of": candidate.as_of,
        "event": what,
        "model_version": candidate.version,
        "rival_version": champion and champion.version,
        "metrics": json.dumps(measured) if measured else None,
        "reason": reason,
    }


def _awaits(run: Run) -> str:
    # No moment: the same words again are the same event, which is recorded once.
    hours = run.pipeline.promotion.approval_hours
    return f"It awaits a person, for {hours:g} h" if hours else "It awaits a person"


def _is_known(run: Run, event: dict[str, Any]) -> bool:
    """Whether the last word about this model was this one."""
    about = model_events.events(run.environment, run.pipeline.name, event["model_version"])
    if not about:
        return False
    last = about[-1]
    return all(last[name] == value for name, value in event.items())


def _word_of_a_person(
    run: Run, registry: Registry, candidate: ModelVersion
) -> model_events.Row | None:
    """What a person has said last of the candidate, or against one trained from the same pins.

    None: nothing, and the gate decides.
    """
    recorded = model_events.events(run.environment, run.pipeline.name)
    words: dict[str, model_events.Row] = {}
    for event in recorded:
        if event["event"] in model_events.OF_PEOPLE:
            words[event["model_version"]] = event
    if candidate.version in words:
        return words[candidate.version]
    for version, word in words.items():
        is_against = word["event"] in model_events.AGAINST
        # Only of models of one night the pins can be the same.
        if not is_against or word["as_of"] != candidate.as_of:
            continue
        # Of one that nobody knows any more the word stands: the gate never overrules a person.
        if _fingerprint(registry, recorded, version) in (candidate.fingerprint, None):
            return word
    return None


def _fingerprint(registry: Registry, recorded: list[model_events.Row], version: str) -> str | None:
    """That of a version; None: it was deleted in MLflow, and the record does not tell it."""
    own = [event for event in recorded if event["model_version"] == version]
    judged = model_events.last_judged(own)
    known = json.loads(judged["metrics"]).get(_FINGERPRINT) if judged else None
    if known:
        return str(known)
    try:
        return registry.version(version).fingerprint
    except UsageError:
        return None


def _turn_of_another(run: Run, registry: Registry, candidate: ModelVersion) -> Turn | None:
    """The turn of the champion that the candidate is judged against; None: there is none."""
    return serving.turn_of(
        run.environment,
        registry,
        run.days.last,
        besides=candidate.version,
    )


def _settle(
    run: Run,
    registry: Registry,
    candidate: ModelVersion,
    turn: Turn | None,
    event: dict[str, Any],
) -> model_events.Row | None:
    """Record the event, then have the alias follow.

    Killed in between, the next stage that looks puts the alias right.

    Returns:
        The event, or what a person has said of the candidate meanwhile, and which stands instead.
        None: nothing was recorded, as by now the champion's turn is another than it was judged by.
    """
    # Whoever decides about a model waits: pictures of the evaluation take seconds to draw.
    with approvals.one_at_a_time(run.environment, run.pipeline):
        word = _word_of_a_person(run, registry, candidate)
        if word is None:
            # A person may have put another model back, or let newer fits take its place.
            if _turn_of_another(run, registry, candidate) != turn:
                return None
            told = {**event, "run_id": run.run_id, "who": model_events.GATE}
            model_events.record(run.environment, [told])
    serving.follow(run.environment, registry)
    return word or event


def _log(
    registry: Registry, candidate: ModelVersion, held: HeldOut, measured: dict[str, Any]
) -> None:
    from jobs.training import plots

    by_model = {CANDIDATE: measured["candidate"], **measured["baselines"]}
    if measured["champion"]:
        by_model[CHAMPION] = measured["champion"]
    values: dict[str, float] = {}
    for model, summary in by_model.items():
        for metric in held.task.metrics:
            # MLflow keeps numbers alone.
            if summary[metric] is not None:
                values[f"held_out_{model}_{metric}"] = summary[metric]
    for name, value in (measured["challenge"] or {}).items():
        values[f"challenge_{name}"] = value
    curves = registry.curves(candidate, "loss", "val_loss")
    figures = {
        "learning_curve": plots.learning_curve(curves, held.task.loss_title),
        **held.task.plots(held.label, held.day, held.predictions),
    }
    registry.log_evaluation(candidate, values, figures)
