"""A bucket that is not there is told: whatever is looked for in it would only be missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.lake import sql
from pipelines import places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.landing import marks, stamp
from tests.object_store.conftest import ObjectStore

_TOLD = r"no bucket 'misspelt', so nothing can be at s3://misspelt/"


def test_a_file_in_a_bucket_that_is_not_there_is_no_file_that_is_late(store: ObjectStore) -> None:
    bucket = store.new_bucket()
    assert stamp(places.place(f"s3://{bucket}/landing/weather/a.csv")) is None
    nowhere = places.place("s3://misspelt/landing/weather/a.csv")
    for look in (stamp, marks):
        with pytest.raises(NightshiftError, match=_TOLD):
            look(nowhere)


def test_a_lake_in_a_bucket_that_is_not_there_is_no_empty_one(
    store: ObjectStore, tmp_path: Path
) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    empty = replace(environment, lake=f"s3://{store.new_bucket()}/lake")
    assert sql.tables(empty) == []
    with pytest.raises(NightshiftError, match=_TOLD):
        sql.tables(replace(environment, lake="s3://misspelt/lake"))
