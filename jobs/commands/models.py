"""Rows for `nightshift models PIPELINE`."""

from __future__ import annotations

import json
from typing import Any

from pipelines.environment import Environment
from pipelines.spec import Pipeline

COLUMNS = (
    "version",
    "as_of",
    "alias",
    "event",
    "auc",
    "log_loss",
    "champion_log_loss",
    "baseline_log_loss",
    "reason",
    "mlflow_run_id",
)


def models(
    pipeline: Pipeline, environment: Environment
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Column names and rows: every model of the pipeline, newest first."""
    from jobs.training import serving
    from jobs.training.registry import Registry

    last = {e["model_version"]: e for e in serving.events(environment, pipeline.name)}
    return COLUMNS, [
        (v.version, v.as_of, " ".join(v.aliases) or None, *_verdict(last.get(v.version)), v.run_id)
        for v in Registry(environment, pipeline.name).versions()
    ]


def _verdict(event: dict[str, Any] | None) -> tuple[object, ...]:
    if event is None:
        return ("not evaluated", None, None, None, None, None)
    told = json.loads(event["metrics"])
    rival = told["champion"] or {}
    return (
        event["event"],
        told["candidate"]["auc"],
        told["candidate"]["log_loss"],
        rival.get("log_loss"),
        told["baseline"]["log_loss"],
        event["reason"],
    )
