"""The evaluate stage: candidate, champion and baselines on the held-out days.

Moves the `champion` alias or leaves it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.lake import ops, snapshots
from jobs.training import baselines, comparison, dataset, promotion, scoring, serving
from jobs.training.comparison import CANDIDATE, CHAMPION, HeldOut
from jobs.training.tasks import task_of
from pipelines.errors import NightshiftError, Refused
from pipelines.run import Run
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.training.metrics import Vector
    from jobs.training.promotion import Decision
    from jobs.training.registry import ModelVersion, Registry

_SHOWN = ("rows", "days", "candidate", "champion", "baselines")
"""Of the evidence, in the stage's result."""


def evaluate(run: Run) -> dict[str, object]:
    """Decide over the candidate of the run's last day.

    The decision is recorded once for the same models and rows.

    Raises:
        Refused: the candidate may not serve, and no other model does.
        NightshiftError: there is no candidate.
    """
    from jobs.training.registry import Registry

    registry = Registry(run.environment, run.pipeline.name)
    candidate = _candidate(run, registry)
    champion = serving.serving_model(
        run.environment, registry, run.days.last, besides=candidate.version
    )
    held = _held_out(run, registry, candidate, champion)
    limits = promotion.thresholds(run.pipeline.promotion, held.task, held.label)
    evidence = comparison.measure(held, run.pipeline.training.slices, limits.resamples)
    decision = promotion.decide(evidence, limits)
    measured = comparison.to_json(evidence, held)
    event = _event(run, candidate, champion, decision, measured)
    # A rerun over the same models and rows has nothing to add.
    if not _is_known(run, event):
        _log(registry, candidate, held, measured)
        _settle(run, registry, candidate, event)
    if decision.event == "refused" and champion is None:
        raise Refused(
            f"Model {candidate.version} of '{run.pipeline.name}' was refused, and no other serves. "
            f"{decision.reason}"
        )
    serves = candidate if decision.event == "promoted" else champion
    return {
        "event": decision.event,
        "reason": decision.reason,
        "model_version": candidate.version,
        "champion_before": champion and champion.version,
        "serves": serves and serves.version,
        **{name: measured[name] for name in _SHOWN},
    }


def _candidate(run: Run, registry: Registry) -> ModelVersion:
    candidate = registry.candidate(run.days.last)
    if candidate is None:
        raise NightshiftError(
            f"No model of '{run.pipeline.name}' was trained as of {run.days.last}. "
            "Run stage train first: --stage train"
        )
    return candidate


def _held_out(
    run: Run, registry: Registry, candidate: ModelVersion, champion: ModelVersion | None
) -> HeldOut:
    training = run.pipeline.training
    past, rows = _rows(run)
    return HeldOut(
        task=task_of(training.task),
        rows=rows,
        day=rows[run.pipeline.table(TRAINING).partition].to_numpy(),
        label=rows[training.label].to_numpy().astype(np.float64),
        models=_scored(registry, candidate, champion, rows),
        # Fitted to the days that the candidate was trained on, and to no later one.
        baselines={
            baseline.name: baselines.fit(baseline, past, training.label).predict(rows)
            for baseline in training.baselines
        },
    )


def _scored(
    registry: Registry, candidate: ModelVersion, champion: ModelVersion | None, rows: pa.Table
) -> dict[str, Vector]:
    # Those that serve have learned from the held-out days: like the champion's of last night.
    scores = {CANDIDATE: scoring.load_judged(registry, candidate).score(rows)}
    if champion:
        # Whatever its family is: today's declaration may name another.
        scores[CHAMPION] = scoring.load_judged(registry, champion).score(rows)
    return scores


def _rows(run: Run) -> tuple[pa.Table, pa.Table]:
    """The rows that baselines learn from, and the held-out ones.

    Raises:
        Refused: no held-out row has a label.
    """
    days = dataset.window(run.pipeline, run.days.last)
    column = run.pipeline.table(TRAINING).partition
    rows = dataset.labelled(run, snapshots.newest(run, TRAINING), days.all)
    held_out = snapshots.between(rows, column, days.held_out)
    if not len(held_out):
        raise Refused(
            f"{run.pipeline.name}.{TRAINING} has no labelled row on the held-out days "
            f"{days.held_out}: nothing to compare models on."
        )
    return snapshots.between(rows, column, days.trained), held_out


def _event(
    run: Run,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    decision: Decision,
    measured: dict[str, Any],
) -> dict[str, Any]:
    return {
        "pipeline": run.pipeline.name,
        "as_of": candidate.as_of,
        "event": decision.event,
        "model_version": candidate.version,
        "rival_version": champion and champion.version,
        "metrics": json.dumps(measured),
        "reason": decision.reason,
    }


def _is_known(run: Run, event: dict[str, Any]) -> bool:
    """Whether the last word about this model was this one.

    Then the alias stays too: somebody may have rolled it back since.
    """
    about = serving.events(run.environment, run.pipeline.name, event["model_version"])
    if not about:
        return False
    last = about[-1]
    return all(last[name] == value for name, value in event.items())


def _settle(
    run: Run,
    registry: Registry,
    candidate: ModelVersion,
    event: dict[str, Any],
) -> None:
    """Move the alias, then record the event.

    Killed in between, the next run finds nothing recorded and does both.
    """
    if event["event"] == "promoted":
        _move_alias(registry, candidate)
    row = event | {"run_id": run.run_id, "created_at": ops.now()}
    ops.append(run.environment, serving.EVENTS, [row])


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
    curves = registry.curves(candidate, "loss", "val_loss")
    figures = {
        "learning_curve": plots.learning_curve(curves, held.task.loss_title),
        **held.task.plots(held.label, held.day, held.predictions),
    }
    registry.log_evaluation(candidate, values, figures)


def _move_alias(registry: Registry, candidate: ModelVersion) -> None:
    """Let the candidate serve, unless a model of a later night does.

    An old night run again must not take its place.
    """
    serving_now = registry.champion()
    if serving_now is None or serving_now.as_of <= candidate.as_of:
        registry.promote(candidate)
