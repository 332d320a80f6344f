"""What each stage costs: measured by the system, priced by `pipelines/prices.py`; `ops.costs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from jobs.lake import amounts, ops
from pipelines.prices import PRICES, Prices

if TYPE_CHECKING:
    from jobs.services.usage import Usage
    from pipelines.environment import Environment
    from pipelines.run import Run

TABLE = "costs"
_SECONDS_OF_AN_HOUR = 3600
_GIGABYTE = 1e9
_MODELS_OF = ("train", "evaluate")
"""Stages that work on one model, which their metrics name."""
_PREDICTING = "predict"


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What stages of a run cost together."""

    cost: float
    currency: str
    cpu_seconds: float
    peak_bytes: int
    """Of the stage that needed most."""
    bytes_written: int
    predictions: int

    def __str__(self) -> str:
        figures = [
            f"{self.cost:.4g} {self.currency}: {self.cpu_seconds:.0f} CPU seconds",
            f"at most {self.peak_bytes / _GIGABYTE:.1f} GB of memory",
            f"{self.bytes_written / 1e6:.1f} MB written",
        ]
        if self.predictions:
            each = 1000 * self.cost / self.predictions
            figures.append(f"{each:.3g} {self.currency} per 1,000 predictions")
        return ", ".join(figures)


def record(
    run: Run,
    started: datetime,
    status: str,
    taken: Usage,
    metrics: Mapping[str, Any] | None,
) -> None:
    """Add what a stage took to `ops.costs`.

    Args:
        run: The run at the stage.
        started: When the stage began (UTC).
        status: As in `ops.stage_runs`.
        taken: What it took of the machine.
        metrics: What it counted; None: it did not succeed.
    """
    counted = amounts.counted()
    model = (metrics or {}).get("model_version") if run.doing.name in _MODELS_OF else None
    row = {
        **ops.of_stage(run, started, status),
        **asdict(taken),
        **asdict(counted),
        "model_version": model,
        "cost": price(taken, counted.bytes_written, PRICES),
        "currency": PRICES.currency,
    }
    ops.append(run.environment, TABLE, [row])


def price(taken: Usage, bytes_written: int, prices: Prices) -> float:
    """What it costs: processor, also Spark's, memory at its peak all the time, what is stored."""
    cpu_hours = (taken.cpu_seconds + (taken.spark_cpu_seconds or 0)) / _SECONDS_OF_AN_HOUR
    gigabyte_hours = taken.peak_bytes / _GIGABYTE * taken.seconds / _SECONDS_OF_AN_HOUR
    return (
        cpu_hours * prices.cpu_hour
        + gigabyte_hours * prices.memory_gb_hour
        + bytes_written / _GIGABYTE * prices.storage_gb
    )


def of_run(environment: Environment, pipeline: str, run_id: str, since: datetime) -> Summary | None:
    """What the stages of a run cost that began since an instant (UTC); None: none was measured."""
    about = [
        ("run_id", "=", run_id),
        ("pipeline", "=", pipeline),
        ("started_at", ">=", since),
    ]
    rows = ops.read(environment, TABLE, about)
    if not len(rows):
        return None
    predicting = rows.filter(pc.equal(rows["stage"], _PREDICTING))
    scored = predicting.filter(pc.equal(predicting["status"], "done"))
    spark = pc.sum(rows["spark_cpu_seconds"]).as_py() or 0
    return Summary(
        cost=pc.sum(rows["cost"]).as_py(),
        currency=rows["currency"][0].as_py(),
        cpu_seconds=pc.sum(rows["cpu_seconds"]).as_py() + spark,
        peak_bytes=pc.max(rows["peak_bytes"]).as_py(),
        bytes_written=pc.sum(rows["bytes_written"]).as_py(),
        predictions=pc.sum(scored["rows_written"]).as_py() or 0,
    )
