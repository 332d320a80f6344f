"""A bucket that is not there is told: whatever is looked for in it would only be missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.commands import doctor
from jobs.lake import sql
from pipelines import catalog, places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.landing import marks, stamp
from tests.object_store.conftest import ObjectStore, in_bucket

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


def _landing(environment: Environment) -> doctor.Finding:
    """What `doctor` tells of the landing folder."""
    found = {one.what: one for one in doctor._object_store(environment)}
    return found["landing folder"]


def test_doctor_only_warns_of_a_landing_folder_that_may_only_be_read(
    store: ObjectStore, tmp_path: Path
) -> None:
    home = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    environment = in_bucket(home, store.new_bucket(), tmp_path)
    assert _landing(environment).found[-14:] == "can be written"
    store.fail("refused", path=".*/landing/.*", method="PUT")
    landing = _landing(environment)
    assert landing.state == "warning"
    assert "can be read, and not written: " in landing.found
    assert landing.found.endswith("Access Denied.")
    assert landing.way_out.startswith("Where flights, weather shall be replayed")


def test_doctor_tells_of_a_bucket_that_refuses_us(store: ObjectStore, tmp_path: Path) -> None:
    home = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    environment = in_bucket(home, store.new_bucket(), tmp_path)
    bucket = places.place(f"s3://{store.new_bucket()}")
    assert _landing(replace(environment, landing=bucket)).state == "ok"
    store.fail("refused", path=f"/{bucket.name}.*")
    assert _landing(replace(environment, landing=bucket)).state == "problem"


def test_doctor_puts_nothing_into_a_landing_folder_of_others(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    environment = in_bucket(home, store.new_bucket(), tmp_path)
    # No pipeline is replayed.
    monkeypatch.setattr(catalog, "readable", list)
    store.fail("noted", path=".*/landing/.*", method="PUT")
    landing = _landing(environment)
    assert store.mend() == {}
    assert (landing.state, landing.found[-11:]) == ("ok", "can be read")
    lost = _landing(replace(environment, landing=places.place("s3://misspelt/landing")))
    assert lost.state == "problem"
    assert "has no bucket 'misspelt'" in lost.found
