"""A pipeline with all its places in an object store, beside the same on a disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.commands import warm_up
from jobs.commands.land import land
from jobs.lake import sql
from jobs.lake.publications import file_input
from jobs.pages.nights import below_reports
from jobs.services import processes
from jobs.services.leftovers import Rule, clean
from jobs.spark import server
from pipelines import places
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.landing import stamp
from pipelines.places import ENDPOINT
from plugins.report_pages import file_of
from tests.object_store.conftest import ObjectStore, in_bucket
from tests.weather import CONTENT, LOADED, PREDICTIONS, WEATHER


@pytest.fixture(scope="module")
def at_store(
    _spark_at_store: Environment, _store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """Some weeks of weather, all of it in a bucket."""
    registry = tmp_path_factory.mktemp("registry")
    environment = in_bucket(_spark_at_store, _store.new_bucket(), registry)
    land(WEATHER, environment, LOADED)
    loaded = run_weather(environment, LOADED)
    assert loaded.returncode == 0, loaded.stderr
    return environment


def run_weather(environment: Environment, days: Days) -> subprocess.CompletedProcess[str]:
    """A night of weather, in a process of its own: of two Spark servers Feast knows the first."""
    return command(environment, "run", "weather", f"--from={days.first}", f"--to={days.last}")


def command(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`nightshift` in that environment."""
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        env={**os.environ, **environment.variables()},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_a_disk_and_a_store_have_the_same_rows(
    at_store: Environment, weather_lake: Environment
) -> None:
    published = sql.query(at_store, CONTENT)[1]
    assert len(published) > len(LOADED)
    assert published == sql.query(weather_lake, CONTENT)[1]
    assert sql.query(at_store, PREDICTIONS) == sql.query(weather_lake, PREDICTIONS)


def test_what_up_does_first_needs_no_disk_that_executors_lack(at_store: Environment) -> None:
    before = set(places.place(at_store.lake).glob("*"))
    warm_up.main({"environment": at_store.variables()})
    assert set(places.place(at_store.lake).glob("*")) == before
    assert not (at_store.home / "spark" / "warm-up").exists()


def test_its_spark_shares_the_classes_that_set_up_wrote_down(at_store: Environment) -> None:
    java = processes.listener(at_store.spark_port)
    assert java is not None
    assert str(server.CLASS_ARCHIVE) in {part.path for part in java.memory_maps()}


def test_nothing_but_the_registry_is_in_the_home(at_store: Environment) -> None:
    assert not (at_store.home / "lake").exists()
    assert not (at_store.home / "landing").exists()
    assert not (at_store.home / "reports").exists()
    assert not (at_store.home / "mlartifacts").exists()


def test_a_file_that_is_dropped_again_is_seen(at_store: Environment) -> None:
    place = at_store.landing / WEATHER.name / "again.csv"
    assert stamp(place) is None
    place.write_bytes(b"one")
    first = stamp(place)
    # Of the same length, in the same second.
    place.write_bytes(b"two")
    second = stamp(place)
    assert first and second and first.size == second.size
    assert first.changed_ns != second.changed_ns
    assert first.changed_ns // 10**9 in range(
        int(time.time()) - 60,
        int(time.time()) + 2,
    )
    name = f"{WEATHER.name}/again.csv"
    assert file_input(name, LOADED.last, place).version == second.changed_ns


def test_a_report_is_shown_and_nothing_beside_the_reports(at_store: Environment) -> None:
    (told,) = sql.query(
        at_store,
        "SELECT json_extract_string(metrics, '$.report') FROM ops.stage_runs "
        "WHERE stage = 'check_raw' AND pipeline = 'weather' LIMIT 1",
    )[1]
    below = below_reports(at_store, str(told[0]))
    assert below and below.startswith("weather/")
    page = file_of(at_store.reports, "weather", below.removeprefix("weather/"))
    assert page is not None
    assert b"<html" in page.read_bytes()
    secret = at_store.reports / "flights" / "secret.html"
    secret.write_bytes(b"no")
    assert file_of(at_store.reports, "weather", "../flights/secret.html") is None
    (at_store.reports.parent / "x" / "page.html").write_bytes(b"no")
    assert file_of(at_store.reports, "..", "x/page.html") is None
    bucket = at_store.reports.parent
    assert file_of(bucket, "x", "page.html") is not None
    assert file_of(bucket, "..", "x/page.html") is None
    assert file_of(bucket, ".", "x/page.html") is None


def test_old_reports_go_and_new_ones_stay(at_store: Environment) -> None:
    folder = at_store.reports / "toy" / "2013-01-05..2013-01-05"
    (folder / "run1" / "index.html").write_bytes(b"12345")
    (folder / "run1" / "readings" / "index.html").write_bytes(b"678")
    now = datetime.now(UTC)
    kept = clean(
        "reports",
        folder.glob("*"),
        Rule(before=now - timedelta(days=1), is_dry=False),
    )
    assert (kept.kept, kept.deleted) == (2, 0)
    told = clean(
        "reports",
        folder.glob("*"),
        Rule(before=now + timedelta(days=1), is_dry=True),
    )
    assert (told.deleted, told.freed) == (2, 8)
    assert len(list(folder.glob("*"))) == 1
    clean(
        "reports",
        folder.glob("*"),
        Rule(before=now + timedelta(days=1), is_dry=False),
    )
    assert list(folder.glob("*")) == []


def test_a_store_that_is_away_ends_a_night_with_one_message_and_the_next_goes_on(
    at_store: Environment, store: ObjectStore
) -> None:
    night = Days.of(LOADED.last + timedelta(days=1))
    land(WEATHER, at_store, night)
    before = sql.query(at_store, CONTENT)[1]
    store.fail("away")
    ended = run_weather(at_store, night)
    assert store.mend()["away"] > 0
    assert ended.returncode == 3
    fault = f"Fault: The object store at {os.environ[ENDPOINT]} could not be read"
    assert fault in ended.stderr
    assert "Traceback" not in ended.stderr
    assert sql.query(at_store, CONTENT)[1] == before
    assert run_weather(at_store, night).returncode == 0
    assert len(sql.query(at_store, CONTENT)[1]) > len(before)


def test_doctor_tells_which_places_can_be_written(at_store: Environment, tmp_path: Path) -> None:
    elsewhere = replace(at_store, home=tmp_path, lake="s3://of-nobody-at-all/lake")
    told = json.loads(command(elsewhere, "doctor", "--format=json").stdout)
    rows = {row["what"]: row for row in told}
    for what in ("landing folder", "reports", "files of models"):
        assert rows[what]["state"] == "ok"
        assert rows[what]["found"][-14:] == "can be written"
    assert rows["lake"]["state"] == "problem"
    assert "bucket does not exist" in rows["lake"]["found"]
    assert "disk of the lake" not in rows


def test_no_credentials_are_in_what_is_kept_or_shown(at_store: Environment) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    kept = [path for path in at_store.home.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if secret.encode() in path.read_bytes()]
    assert secret not in " ".join(server.command(at_store))


def test_keys_in_a_file_do_as_well(
    at_store: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    lines = ["[default]", *(f"{name.lower()} = {value}" for name, value in keys.items())]
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("\n".join(lines))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in keys:
        monkeypatch.delenv(name)
    told = command(at_store, "sql", "--format=csv", "SELECT count(*) FROM weather.observations")
    assert told.returncode == 0, told.stderr
    assert command(at_store, "land", "weather", f"--date={LOADED.last}").returncode == 0
