"""The evaluate stage: candidate, champion and baseline on the held-out days.

Moves the `champion` alias or leaves it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.lake import ops
from jobs.training import baseline, dataset, gate, quality, serving
from jobs.training.quality import Vector
from pipelines.days import Days
from pipelines.errors import NightshiftError, Refused
from pipelines.run import Run

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.training.registry import ModelVersion, Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class _HeldOut:
    """The held-out rows and what each model says of them."""

    rows: pa.Table
    day: NDArray[Any]
    label: Vector
    predictions: Mapping[str, Vector]
    """Of `candidate`, `baseline`, and `champion` when there is one."""

    def loss(self, model: str) -> Vector:
        """Log loss of each row."""
        return quality.losses(self.label, self.predictions[model])


def evaluate(run: Run) -> dict[str, object]:
    """Judge the candidate of the run's last day.

    The verdict is told once for the same models and rows.

    Raises:
        Refused: the candidate may not serve, and no other model does.
        NightshiftError: there is no candidate.
    """
    from jobs.training.registry import Registry

    registry = Registry(run.environment, run.pipeline.name)
    candidate = registry.candidate(run.days.last)
    if candidate is None:
        raise NightshiftError(
            f"No model of '{run.pipeline.name}' was trained as of {run.days.last}. "
            "Run stage train first: --stage train"
        )
    champion = serving.in_force(run.environment, registry, run.days.last, besides=candidate.version)
    held = _held_out(run, registry, candidate, champion)
    evidence = _evidence(run, held)
    verdict = gate.judge(evidence, run.pipeline.gate)
    told = _told(evidence, held)
    event = _event(run, candidate, champion, verdict, told)
    if not _is_known(run, event):
        _log(registry, candidate, held, evidence)
        _settle(run, registry, candidate, event)
    if verdict.event == "refused" and champion is None:
        raise Refused(
            f"Model {candidate.version} of '{run.pipeline.name}' was refused, and no other serves. "
            f"{verdict.reason}"
        )
    serves = candidate if verdict.event == "promoted" else champion
    return {
        "event": verdict.event,
        "reason": verdict.reason,
        "model_version": candidate.version,
        "champion_before": champion and champion.version,
        "serves": serves and serves.version,
        **{name: told[name] for name in ("rows", "days", "candidate", "champion", "baseline")},
    }


def _held_out(
    run: Run, registry: Registry, candidate: ModelVersion, champion: ModelVersion | None
) -> _HeldOut:
    from jobs.training import scoring

    training, days = run.pipeline.training, dataset.window(run.pipeline, run.days.last)
    pinned, column = (
        dataset.snapshot(run, dataset.TABLE),
        run.pipeline.table(dataset.TABLE).partition,
    )
    both = dataset.labelled(run, pinned, Days(days.trained.first, days.held_out.last))
    known, rows = (
        dataset.between(both, column, days.trained),
        dataset.between(both, column, days.held_out),
    )
    if not len(rows):
        name = f"{run.pipeline.name}.{dataset.TABLE}"
        raise Refused(
            f"{name} has no labelled row on the held-out days {days.held_out}: "
            "nothing to compare models on."
        )
    rates = baseline.fit(known, training.baseline, training.label)
    models = {"candidate": candidate} | ({"champion": champion} if champion else {})
    scored = {name: scoring.load(registry, model).score(rows) for name, model in models.items()}
    label = rows[training.label].to_numpy().astype(np.float64)
    return _HeldOut(
        rows=rows,
        day=rows[column].to_numpy(),
        label=label,
        predictions=scored | {"baseline": rates.predict(rows)},
    )


def _evidence(run: Run, held: _HeldOut) -> gate.Evidence:
    measured = {name: quality.measure(held.label, p) for name, p in held.predictions.items()}
    resamples, own = run.pipeline.gate.resamples, held.loss("candidate")
    wins = {
        name: gate.win_rate(own, held.loss(name), held.day, resamples)
        for name in held.predictions
        if name != "candidate"
    }
    return gate.Evidence(
        candidate=measured["candidate"],
        baseline=measured["baseline"],
        champion=measured.get("champion"),
        wins_over_baseline=wins["baseline"],
        wins_over_champion=wins.get("champion"),
        slices=tuple(_slices(held, run.pipeline.training.slices)),
    )


def _slices(held: _HeldOut, columns: tuple[str, ...]) -> Iterator[gate.Slice]:
    own, rival = (
        held.loss("candidate"),
        held.loss("champion") if "champion" in held.predictions else None,
    )
    for column in columns:
        for value, where in quality.groups(
            held.rows[column].to_numpy(zero_copy_only=False).astype(str)
        ):
            yield gate.Slice(
                column=column,
                value=str(value),
                rows=int(where.sum()),
                candidate_log_loss=float(own[where].mean()),
                champion_log_loss=None if rival is None else float(rival[where].mean()),
            )


def _told(evidence: gate.Evidence, held: _HeldOut) -> dict[str, Any]:
    """The evidence as JSON. Equal for the same models on the same rows.

    By it a repeated verdict is recognized.
    """
    return {
        "rows": len(held.label),
        "days": len(np.unique(held.day)),
        "candidate": evidence.candidate.to_json(),
        "champion": evidence.champion and evidence.champion.to_json(),
        "baseline": evidence.baseline.to_json(),
        "wins_over_baseline": evidence.wins_over_baseline,
        "wins_over_champion": evidence.wins_over_champion,
        "slices": [asdict(s) for s in evidence.slices],
        "by_day": _by_day(held),
    }


def _by_day(held: _HeldOut) -> list[dict[str, Any]]:
    loss = {name: held.loss(name) for name in held.predictions}
    days = quality.groups(held.day)
    return [
        {
            "day": str(day),
            "rows": int(rows.sum()),
            **{n: round(float(v[rows].mean()), 6) for n, v in loss.items()},
        }
        for day, rows in days
    ]


def _event(
    run: Run,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    verdict: gate.Verdict,
    told: dict[str, Any],
) -> dict[str, Any]:
    return {
        "pipeline": run.pipeline.name,
        "as_of": candidate.as_of,
        "event": verdict.event,
        "model_version": candidate.version,
        "rival_version": champion and champion.version,
        "metrics": json.dumps(told),
        "reason": verdict.reason,
    }


def _is_known(run: Run, event: dict[str, Any]) -> bool:
    """Whether the last word about this model was this one.

    Then the alias stays too: somebody may have rolled it back since.
    """
    about = [
        e
        for e in serving.events(run.environment, run.pipeline.name)
        if e["model_version"] == event["model_version"]
    ]
    return bool(about) and all(about[-1][name] == value for name, value in event.items())


def _settle(run: Run, registry: Registry, candidate: ModelVersion, event: dict[str, Any]) -> None:
    """Move the alias, then tell.

    Killed in between, the next run finds nothing told and does both.
    """
    if event["event"] == "promoted":
        _move_alias(registry, candidate)
    ops.append(
        run.environment, serving.EVENTS, [event | {"run_id": run.run_id, "created_at": ops.now()}]
    )


def _log(
    registry: Registry, candidate: ModelVersion, held: _HeldOut, evidence: gate.Evidence
) -> None:
    from jobs.training import plots

    by_name = {
        "candidate": evidence.candidate,
        "champion": evidence.champion,
        "baseline": evidence.baseline,
    }
    measured = {name: found for name, found in by_name.items() if found}
    values = {
        f"held_out_{name}_{m}": getattr(found, m)
        for name, found in measured.items()
        for m in ("auc", "log_loss", "brier")
    }
    metrics = {name: value for name, value in values.items() if value is not None}
    figures = {
        "learning_curve": plots.learning_curve(registry.curves(candidate, "loss", "val_loss")),
        "calibration": plots.calibration(held.label, held.predictions),
        "roc": plots.roc(
            held.label, held.predictions, {name: q.auc for name, q in measured.items()}
        ),
    }
    registry.log_quality(candidate, metrics, figures)


def _move_alias(registry: Registry, candidate: ModelVersion) -> None:
    """Let the candidate serve, unless a model of a later night does.

    An old night run again must not take its place.
    """
    serving_now = registry.champion()
    if serving_now is None or serving_now.as_of <= candidate.as_of:
        registry.promote(candidate)
