"""LightGBM and a logistic regression on the rows of a backtest: how good what one would pick is.

`python -m bench.quality flights --from 2013-04-08 --to 2013-12-15` fits both as of the nights as of
which `nightshift backtest` trains, on the rows that the model that serves would learn from, and
scores the days that follow; `--quick`: of the last two weeks that the home's lake knows. It prints
the metrics of each and of the mean of both, and by how much the loss is more than ours where a
backtest of ours has scored the same rows. Nothing is kept.

LightGBM is in no environment of ours: it is installed into build/ when it is asked for.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from bench.harness import OURS
from jobs.lake import snapshots
from jobs.output import show
from jobs.training import backtest as backtests
from jobs.training import candidate, dataset, paired
from jobs.training.backtest import MODEL, Backtest, Results
from jobs.training.metrics import Vector
from jobs.training.tasks import task_of
from pipelines.catalog import pipeline
from pipelines.days import Days, parse_day
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.model import Training
from pipelines.run import Run, new_run_id
from pipelines.spec import TRAINING, Pipeline
from pipelines.stages import stage
from tools.setup.uv import uv, variables

if TYPE_CHECKING:
    import pandas as pd

Peer = Callable[[pa.Table, pa.Table, Training], Vector]
"""Learns from rows with a label, and says of others, which are told without, how likely it is 1."""
_TASK = "binary_classification"
_QUICK_DAYS = 14
_LOCK = Path(__file__).with_name("lightgbm.lock")
_MEAN = "mean of these"
_SEED = 1


def main() -> int:
    """Walk forward, and print a row for each."""
    try:
        _main()
    except NightshiftError as error:
        print(f"{error.kind}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _main() -> None:
    parser = argparse.ArgumentParser(prog="bench.quality", description=__doc__)
    parser.add_argument("pipeline", nargs="?", default="flights")
    parser.add_argument("--from", dest="first", type=parse_day, help="first day that is scored")
    parser.add_argument("--to", dest="last", type=parse_day, help="last day that is scored")
    parser.add_argument("--every", type=int, default=7, help="days from one training to the next")
    parser.add_argument("--quick", action="store_true", help="two weeks, without --from and --to")
    parser.add_argument("--against", help="a backtest of ours; without: the one as declared")
    asked = parser.parse_args()
    if asked.quick == bool(asked.first and asked.last) or asked.every < 1:
        parser.error("say --from and --to, or --quick; --every is 1 or more")
    declared, environment = pipeline(asked.pipeline), Environment.read()
    if declared.training.task != _TASK:
        parser.error(f"'{declared.name}' learns by {declared.training.task}, and not by {_TASK}")
    walked = Backtest(
        pipeline=declared,
        days=_last_days(declared, environment) if asked.quick else Days(asked.first, asked.last),
        every=asked.every,
        environment=environment,
        run_id=new_run_id(),
    )
    if asked.against:
        # Before anything is fitted.
        backtests.files_of_other(walked, asked.against)
    add_lightgbm()
    said = list(walk(walked, PEERS))
    if not said:
        parser.error(f"no row about {walked.days} has a label: ask for other days")
    results = backtests.gathered(said)
    results = with_ours(walked, results, asked.against)
    print(
        f"{walked.days}, trained {len(walked.parts)} times; LightGBM {version('lightgbm')}, "
        f"scikit-learn {version('scikit-learn')}",
        file=sys.stderr,
    )
    show(*told(declared, results))


def walk(backtest: Backtest, peers: Mapping[str, Peer]) -> Iterator[pa.Table]:
    """What the peers, and the mean of all, say of the days after each night.

    Args:
        backtest: Its nights, and their rows.
        peers: By name.

    Raises:
        Refused: too few labels are known to learn from.
    """
    training = backtest.pipeline.training
    for part in backtest.parts:
        started = time.monotonic()
        run = backtest.night(part)
        recipe = candidate.recipe_of(run)
        rows = dataset.labelled_events(run, recipe.snapshot, part)
        # As a backtest, which trains for nobody where no label is known yet.
        if not len(rows):
            continue
        known = dataset.labelled(run, recipe.snapshot, recipe.days.fresh, training.features)
        # No peer sees a label of what it scores.
        asked = rows.select(training.features)
        said = {name: peer(known, asked, training) for name, peer in peers.items()}
        said[_MEAN] = np.mean(list(said.values()), axis=0)
        yield backtests.kept_rows(run, rows, said)
        seconds = time.monotonic() - started
        print(
            f"{run.days.last}  {len(known)} rows learned, {len(rows)} scored, {seconds:.1f} s",
            file=sys.stderr,
            flush=True,
        )


def with_ours(backtest: Backtest, results: Results, digest: str | None) -> Results:
    """The results, with what a backtest of ours says of the same rows where there is one.

    Why there is none is told: what took an hour to be fitted is not lost by it.

    Args:
        backtest: Its days, and what is declared.
        results: Of the peers.
        digest: Of a backtest; None: the one as declared.
    """
    name = digest or backtest.digest
    try:
        ours = backtests.read_other(backtest, name, results.keys)
        if not np.array_equal(ours.label, results.label):
            raise UsageError(f"Labels have changed since backtest {name}: run it again.")
    except UsageError as error:
        command = f"nightshift backtest {backtest.pipeline.name} --every {backtest.every}"
        days = f"--from {backtest.days.first} --to {backtest.days.last}"
        print(f"Not compared with ours: {error} As declared: {command} {days}", file=sys.stderr)
        return results
    return replace(results, predictions={OURS: ours.predictions[MODEL], **results.predictions})


def told(
    declared: Pipeline,
    results: Results,
) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Header and rows of what is printed."""
    task = task_of(declared.training.task)
    ours = results.predictions.get(OURS)
    header = ("model", "rows", *task.metrics.values(), "loss less ours", "low", "high")
    rows = []
    for name, prediction in results.predictions.items():
        measured = task.measure(results.label, prediction)
        compared: tuple[object, ...] = (None, None, None)
        if ours is not None and name != OURS:
            own, other = (task.losses(results.label, one) for one in (prediction, ours))
            more = paired.difference(own, other, results.day)
            compared = (more.mean, *(more.interval or (None, None)))
        figures = [measured[metric] for metric in task.metrics]
        rows.append((name, len(results.label), *figures, *compared))
    return header, rows


def lightgbm(known: pa.Table, asked: pa.Table, training: Training) -> Vector:
    """More and slower trees than by default, which did worse on six weeks of flights."""
    from lightgbm import LGBMClassifier

    frames = [_frame(rows, training) for rows in (known, asked)]
    for name in training.categorical:
        values = frames[0][name].astype("category")
        frames[0][name] = values
        frames[1][name] = frames[1][name].astype(values.dtype)
    model = LGBMClassifier(
        n_estimators=300,
        learning_rate=0.03,
        min_child_samples=200,
        colsample_bytree=0.5,
        random_state=_SEED,
        # Threads that wait for each other take many times as long beside other work.
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )
    model.fit(frames[0], known[training.label].to_numpy())
    return _likely(model.predict_proba(frames[1]))


def logistic_regression(known: pa.Table, asked: pa.Table, training: Training) -> Vector:
    """Scaled numbers, one-hot categories; a `C` of 0.02 did better than the default of 1."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(
        SimpleImputer(add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    categories = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10)
    columns = make_column_transformer(
        (numbers, list(training.numeric)), (categories, list(training.categorical))
    )
    model = make_pipeline(columns, LogisticRegression(C=0.02, max_iter=1000))
    model.fit(_frame(known, training), known[training.label].to_numpy())
    return _likely(model.predict_proba(_frame(asked, training)))


PEERS: Mapping[str, Peer] = {"LightGBM": lightgbm, "logistic regression": logistic_regression}


def add_lightgbm() -> None:
    """Have LightGBM found by imports; numpy and the like are those that we have."""
    own = ROOT / "build" / f"lightgbm-{sha256(_LOCK.read_bytes()).hexdigest()[:12]}"
    if not own.exists():
        half = own.with_name(f"{own.name}.part")
        shutil.rmtree(half, ignore_errors=True)
        print("Installing LightGBM into build/.", file=sys.stderr, flush=True)
        locked = ["--quiet", "--require-hashes", "--no-deps", "-r", str(_LOCK)]
        command = [uv(), "pip", "install", "--python", sys.executable, *locked]
        subprocess.run(
            [*command, "--target", str(half)],
            env={**os.environ, **variables()},
            check=True,
        )
        # At once: a folder that is there is whole.
        half.replace(own)
    sys.path.append(str(own))


def _frame(rows: pa.Table, training: Training) -> pd.DataFrame:
    frame = rows.select(training.features).to_pandas()
    # Whole numbers with gaps, and without: one kind.
    return frame.astype(dict.fromkeys(training.numeric, float))


def _likely(of_both: Vector) -> Vector:
    return np.asarray(of_both[:, 1], np.float64)


def _last_days(declared: Pipeline, environment: Environment) -> Days:
    """The last ones on which a label has landed."""
    everything = Days(declared.first_day, declared.last_day or datetime.now(UTC).date())
    run = Run(pipeline=declared, days=everything, environment=environment).at(stage("train"))
    rows = snapshots.read(run, snapshots.newest(run, TRAINING), everything, ())
    last = max(rows[declared.table(TRAINING).partition].unique().to_pylist())
    return Days(last - timedelta(days=_QUICK_DAYS - 1), last)


if __name__ == "__main__":
    sys.exit(main())
