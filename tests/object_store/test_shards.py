"""Rows that Spark lays out in a bucket are those that it lays out on a disk."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from s3fs import S3FileSystem

from jobs.lake.locations import laid_out_rows
from jobs.services.leftovers import Rule, clean
from jobs.training import shards
from jobs.training.encoding import Examples
from jobs.training.families.neural_network import NeuralNetworkFamily, launchers
from pipelines import places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from tests.jobs.training import small
from tests.jobs.training import test_shards_on_spark as on_disk
from tests.jobs.training.families.neural_network import faulty_rank
from tests.object_store.conftest import ObjectStore, in_bucket


@pytest.fixture
def at_store(_spark_at_store: Environment, store: ObjectStore, tmp_path: Path) -> Environment:
    return in_bucket(_spark_at_store, store.new_bucket(), tmp_path)


def test_a_bucket_holds_the_rows_of_a_disk_for_as_long_as_the_training(
    at_store: Environment, tmp_path: Path
) -> None:
    run = on_disk.published(small.run_of(at_store, "train"))
    beside = on_disk.published(
        replace(run, environment=replace(at_store, lake=str(tmp_path / "lake")))
    )
    with on_disk.on_spark(run) as laid_out:
        fit = laid_out.judged().fit
        folder = places.place(laid_out_rows(at_store.lake, "small"))
        assert len(list(folder.glob("*"))) == 1
        np.testing.assert_array_equal(on_disk.words(fit), on_disk.judged_words(beside))
    assert list(folder.glob("*")) == []


def test_a_rank_of_this_machine_reads_rows_and_writes_checkpoints_there(
    at_store: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = f"{faulty_rank.__name__}:{faulty_rank.killed_once.__name__}"
    monkeypatch.setattr(launchers, "FUNCTION", function)
    data = small.data_of()
    assert isinstance(data.fit, Examples)
    fit = shards.write(places.place(f"{at_store.lake}/_training/small/fit"), data.fit)
    steady = replace(small.NETWORK, ranks=1, checkpoint_seconds=0)
    # No stage server is up there: the rank is a process of its own.
    alone = replace(at_store, home=tmp_path)
    found = NeuralNetworkFamily().fit(replace(data, fit=fit), steady, alone, tmp_path)
    assert (tmp_path / "was killed").exists()
    assert len(found.curves["loss"]) == steady.epochs
    assert list(at_store.jobs.glob("*")) == []


def test_a_slice_of_rows_is_all_that_is_fetched_of_a_shard(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = np.random.default_rng(1)
    rows = 20_000
    examples = Examples(
        numeric=drawn.normal(size=(rows, 20)).astype(np.float32),
        categorical=drawn.integers(0, 9, (rows, 2), np.int32),
        label=drawn.random(rows).astype(np.float32),
    )
    laid_out = shards.write(places.place(f"s3://{store.new_bucket()}/fit"), examples)
    asked: list[str] = []
    call = S3FileSystem._call_s3

    async def seen(system: S3FileSystem, method: str, *arguments: Any, **more: Any) -> Any:
        asked.append(f"{method} {more.get('Range')}")
        return await call(system, method, *arguments, **more)

    monkeypatch.setattr(S3FileSystem, "_call_s3", seen)
    read = laid_out.read(1000, 500)
    np.testing.assert_array_equal(read.numeric, examples.numeric[1000:1500])
    first, last = 1000 * laid_out.row_bytes, 1500 * laid_out.row_bytes - 1
    assert asked == [f"get_object bytes={first}-{last}"]


def test_a_shard_that_was_cut_short_in_a_bucket_is_told(store: ObjectStore) -> None:
    folder = places.place(f"s3://{store.new_bucket()}/fit")
    examples = Examples(
        numeric=np.ones((10, 1), np.float32),
        categorical=np.ones((10, 1), np.int32),
        label=np.ones(10, np.float32),
    )
    laid_out = shards.write(folder, examples)
    (folder / "shard-00000").write_bytes(bytes(4 * laid_out.row_bytes))
    for first in (3, 4, 8):
        with pytest.raises(NightshiftError, match=f"from row {first} on .* was cut short"):
            laid_out.read(first, 2)


def test_what_a_killed_training_left_there_is_found_by_its_age(at_store: Environment) -> None:
    folder = places.place(laid_out_rows(at_store.lake, "small"))
    (folder / "killed" / "judged" / "shard-00000").write_bytes(b"123")
    now = datetime.now(UTC)
    young = clean(
        "rows",
        folder.glob("*"),
        Rule(before=now - timedelta(days=1), is_dry=False),
    )
    assert (young.kept, young.deleted) == (1, 0)
    old = clean(
        "rows",
        folder.glob("*"),
        Rule(before=now + timedelta(days=1), is_dry=False),
    )
    assert (old.kept, old.deleted) == (0, 1)
