"""How often a pipeline's watch raises an alarm, and which planted drifts it finds.

`python -m bench.drift flights` watches every night of the home's lake as the monitor stage does,
without Spark and without writing anything: how many measures, which alarms on which nights, and how
many a year that makes. Then it plants a shift of known size in each feature of the last night: in
how many of the features one night tells it from what nights do by themselves.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from jobs.lake import snapshots
from jobs.lake.locations import path
from jobs.output import show
from jobs.training import alarms, drift, watch
from jobs.training.alarms import Row
from jobs.training.bends import bent
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.run import Run
from pipelines.spec import SCORING
from pipelines.stages import stage

_SHIFTS = (0.25, 0.5, 1.0, 2.0)
"""In standard deviations of the feature over all nights."""
_DAYS_OF_YEAR = 365


def main() -> int:
    """Watch, and print a row for each alarm and each planted shift."""
    parser = argparse.ArgumentParser(prog="bench.drift", description=__doc__)
    parser.add_argument("pipeline", nargs="?", default="flights")
    declared = pipeline(parser.parse_args().pipeline)
    environment = Environment.read()
    until = declared.last_day or datetime.now(UTC).date()
    everything = Days(declared.first_day, until)
    run = Run(pipeline=declared, days=everything, environment=environment).at(stage("monitor"))
    nights = _scored(run)
    run = replace(run, days=nights)
    started = time.monotonic()
    rows = list(watch.rows(run))
    seconds = time.monotonic() - started
    told = sorted({row["night"] for row in rows if row["kind"] == "feature"})
    print(
        f"{len(nights)} nights of {path(run, SCORING)}, {nights}; drift is told of {len(told)}, "
        f"from {told[0]} on. {len(rows)} rows in {seconds:.1f} s.",
        file=sys.stderr,
    )
    begun = list(_begun(run, rows))
    show(("night", "kind", "feature", "statistic"), begun, "table")
    show(("kind", "rows", "over", "share over"), list(_shares(rows)), "table")
    # Those of a kind and a night are one message.
    causes = len({(night, kind) for night, kind, *_ in begun})
    a_year = causes * _DAYS_OF_YEAR / len(told)
    print(f"Told: {causes} in {len(told)} nights, {a_year:.1f} a year.", file=sys.stderr)
    show(("shift, sd", "features", "found", "not found"), list(_planted(run)), "table")
    return 0


def _scored(run: Run) -> Days:
    """From the first night with rows to be scored to the last."""
    partition = run.pipeline.table(SCORING).partition
    found = snapshots.read(run, snapshots.newest(run, SCORING), run.days, ())
    made = found[partition].unique().to_pylist()
    return Days(min(made), max(made))


def _begun(run: Run, rows: Sequence[Row]) -> Iterator[tuple[object, ...]]:
    """What is told on which night."""
    for night in run.days:
        for measure in alarms.change_by(rows, Days.of(night), run.pipeline.watch).began:
            yield night, measure.kind, measure.feature, measure.statistic


def _shares(rows: Sequence[Row]) -> Iterator[tuple[object, ...]]:
    every = Counter(row["kind"] for row in rows)
    over = Counter(row["kind"] for row in rows if row["is_over"])
    for kind, count in every.items():
        yield kind, count, over[kind], round(over[kind] / count, 4)


def _planted(run: Run) -> Iterator[tuple[object, ...]]:
    """How many numeric features are told when all rows of the last night are shifted."""
    declared = run.pipeline
    night = Days.of(run.days.last)
    span = night.since(declared.watch.nights - 1 + declared.watch.reference_nights)
    snapshot = snapshots.newest(run, SCORING)
    found = snapshots.read(run, snapshot, span, declared.training.features)
    made = found[declared.table(SCORING).partition].to_numpy().astype("datetime64[D]")
    cuts = [watch.cut(made, day) for day in span]
    for shift in _SHIFTS:
        features = declared.training.numeric
        lost = [name for name in features if not _is_found(run, found, cuts, name, shift)]
        count = len(features)
        yield shift, count, count - len(lost), ", ".join(lost)


def _is_found(
    run: Run,
    rows: pa.Table,
    cuts: Sequence[slice],
    name: str,
    shift: float,
) -> bool:
    bend = run.pipeline.training.bends.get(name)
    # A copy: the next shift begins with what was there.
    values = bent(rows[name].to_numpy().astype(float), bend)
    values[cuts[-1]] += shift * np.nanstd(values)
    planted = pa.chunked_array([pa.array(values, from_pandas=True)])
    (summaries, _) = drift.summaries_of(planted, cuts)
    judged = drift.judge(summaries, len(cuts) - 1, run.pipeline.watch)
    return judged is not None and judged.value > judged.threshold


if __name__ == "__main__":
    sys.exit(main())
