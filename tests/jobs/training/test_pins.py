from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.lake import publications
from jobs.lake.definition import digest
from jobs.lake.locations import path
from jobs.lake.publications import Publication
from jobs.lake.snapshots import Snapshot
from jobs.training import dataset, pins
from jobs.training.candidate import Recipe
from jobs.training.families import family_of
from pipelines.model import LinearModel
from pipelines.spec import Pipeline
from tests.jobs.training.small import (
    LAST,
    LINEAR,
    NETWORK,
    SMALL,
    TRAINING,
    TWIN,
    environment_at,
    learned_by,
    publication,
    run_of,
)

SEEDED = replace(SMALL, training=replace(TRAINING, seed=1))
RANKED = replace(NETWORK, ranks=3, timeout_seconds=7)


def _pins(
    folder: Path, pipeline: Pipeline = SMALL, settings: Any = NETWORK, version: int = 3
) -> dict[str, Any]:
    recipe = Recipe(
        family=family_of(settings.name),
        settings=settings,
        days=dataset.window(pipeline, LAST),
        snapshot=Snapshot(table="training", version=version, night=LAST),
    )
    run = run_of(environment_at(folder), "train", pipeline=pipeline)
    return pins.pins(run, recipe)


@pytest.mark.parametrize(
    ("pipeline", "settings"),
    [
        (SMALL, LINEAR),
        (SMALL, replace(NETWORK, epochs=3)),
        (SEEDED, NETWORK),
        (TWIN, NETWORK),
    ],
    ids=["family", "epochs", "seed", "task"],
)
def test_what_decides_over_the_weights_changes_the_fingerprint(
    tmp_path: Path, pipeline: Pipeline, settings: Any
) -> None:
    first = pins.fingerprint(_pins(tmp_path))
    assert pins.fingerprint(_pins(tmp_path, pipeline, settings)) != first


def test_a_setting_that_came_later_counts_only_when_it_is_used(tmp_path: Path) -> None:
    # As the code before there were such settings pinned it: no home trains again for them.
    before = {"dropout", "embedding_size", "epochs", "hidden", "input_dropout", "shared_weight"}
    told = _pins(tmp_path)["family"]
    assert set(told) == before | {"name", "batch_size", "learning_rate"}
    assert digest(TRAINING) == "714b671a9f85ee2b"
    first = pins.fingerprint(_pins(tmp_path))
    for used in (
        replace(NETWORK, compression="fp16"),
        replace(NETWORK, accumulated_batches=2),
        replace(NETWORK, precision="mixed_float16"),
    ):
        assert pins.fingerprint(_pins(tmp_path, settings=used)) != first
        assert digest(replace(TRAINING, family=used)) != digest(TRAINING)


def test_fewer_categories_count_only_when_they_are_asked_for(tmp_path: Path) -> None:
    assert "max_categories" not in _pins(tmp_path)["training"]
    fewer = replace(SMALL, training=replace(TRAINING, max_categories=2))
    assert _pins(tmp_path, fewer)["training"]["max_categories"] == 2
    assert pins.fingerprint(_pins(tmp_path, fewer)) != pins.fingerprint(_pins(tmp_path))


def test_ranks_are_pinned_and_change_no_fingerprint(tmp_path: Path) -> None:
    ranked = _pins(tmp_path, settings=RANKED)
    idle = {"ranks": 3, "timeout_seconds": 7, "restarts": 1, "checkpoint_seconds": 60}
    assert ranked["decides_nothing"] == idle
    assert pins.fingerprint(ranked) == pins.fingerprint(_pins(tmp_path))


def test_rows_are_told_apart_by_what_was_published_of_the_days_that_are_used(
    tmp_path: Path,
) -> None:
    run = run_of(environment_at(tmp_path), "train")
    # What is recorded counts only of a table that is there.
    write_deltalake(
        path(run, "training"),
        pa.table({"landed_date": pa.array([], pa.date32())}),
    )
    publications.record(run, "training", [_published(LAST, "one")])
    first = pins.fingerprint(_pins(tmp_path))
    assert pins.fingerprint(_pins(tmp_path, version=4)) == first
    before = dataset.window(SMALL, LAST).all.first - timedelta(days=1)
    publications.record(run, "training", [_published(before, "another")])
    assert pins.fingerprint(_pins(tmp_path)) == first
    publications.record(run, "training", [_published(LAST, "another", attempt=2)])
    assert pins.fingerprint(_pins(tmp_path)) != first


def test_rows_that_no_record_tells_of_are_told_apart_by_the_version(tmp_path: Path) -> None:
    first = pins.fingerprint(_pins(tmp_path, version=3))
    assert pins.fingerprint(_pins(tmp_path, version=4)) != first


def test_the_pins_of_a_family_are_its_own(tmp_path: Path) -> None:
    network = _pins(tmp_path)
    linear = _pins(tmp_path, settings=LINEAR)
    assert network["libraries"].keys() == {"tensorflow", "keras", "horovod", "numpy"}
    assert linear["libraries"].keys() == {"scikit-learn", "scipy", "numpy"}
    assert network["sources"] != linear["sources"]
    assert linear["family"] == {"name": "linear", "l2": 1.0, "max_iterations": 500}


def test_a_setting_of_another_family_decides_nothing(tmp_path: Path) -> None:
    other = learned_by(SMALL, LinearModel(l2=7))
    first = pins.fingerprint(_pins(tmp_path))
    assert pins.fingerprint(_pins(tmp_path, other)) == first


def _published(day: date, checksum: str, attempt: int = 1) -> Publication:
    return publication(day, checksum=checksum, attempt=attempt)
