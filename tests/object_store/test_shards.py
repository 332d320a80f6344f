"""Rows that Spark lays out in a bucket are those that it lays out on a disk."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from jobs.lake.locations import laid_out_rows
from jobs.services.leftovers import Rule, clean
from jobs.training import shards
from jobs.training.encoding import Examples
from jobs.training.families.neural_network import NeuralNetworkFamily, launchers
from pipelines import places
from pipelines.environment import Environment
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


def test_what_a_killed_training_left_there_is_found_by_its_age(at_store: Environment) -> None:
    folder = places.place(laid_out_rows(at_store.lake, "small"))
    (folder / "killed" / "judged" / "shard-00000").write_bytes(b"123")
    now = datetime.now(UTC)
    young = clean("rows", folder.glob("*"), Rule(before=now - timedelta(days=1), is_dry=False))
    assert (young.kept, young.deleted) == (1, 0)
    old = clean("rows", folder.glob("*"), Rule(before=now + timedelta(days=1), is_dry=False))
    assert (old.kept, old.deleted) == (0, 1)
