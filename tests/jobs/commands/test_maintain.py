"""The command that cleans up: what is old goes, what is young or needed stays."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from types import ModuleType

import pytest
from deltalake import DeltaTable

from jobs.__main__ import main
from jobs.commands.maintain import maintain
from jobs.lake import retention
from jobs.lake.locations import path
from jobs.night import one_run_at_a_time
from jobs.services import locks
from jobs.services.leftovers import Cleaned
from jobs.training.registry import ModelVersion, Registry
from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import AwaitsTurn, NightshiftError, UsageError
from pipelines.run import Run
from tests.jobs.lake.test_commits import FIRST, run_at, staged
from tests.jobs.lake.test_retention import age, ids_at, publish_ids
from tests.jobs.records import record, stage_row
from tests.jobs.toy import TOY


def at(instant: datetime) -> type[datetime]:
    """Of the standard library's, with another clock."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Ahead:
            return cls.fromtimestamp(instant.timestamp(), tz)

    return Ahead


LONG_AGO = timedelta(days=60)
Found = Mapping[object, tuple[object, ...]]
"""By what it is: kept, deleted, bytes, note."""


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})


def cleaned(environment: Environment, *, is_dry: bool = False, is_shared: bool = True) -> Found:
    code, rows = maintain(environment, [TOY], is_shared=is_shared, is_dry=is_dry)
    assert code == 0
    return {what: row for what, *row in rows}


def written(file: Path, *, is_old: bool, content: str = "four") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    if is_old:
        then = time.time() - LONG_AGO.total_seconds()
        for entry in (file, file.parent):
            os.utime(entry, (then, then))
    return file


def in_home(environment: Environment, *, is_old: bool) -> dict[str, Path]:
    """A file of each kind of things that go when they are old."""
    home = environment.home
    name = "old" if is_old else "young"
    places = {
        "toy: reports": environment.reports / "toy" / "days" / name / "index.html",
        "toy: training folders": home / "training" / "toy" / f"job-{name}" / "fit.npy",
        "jobs of trainings": environment.jobs / f"job-{name}" / "settings.json",
        "toy: rows laid out for training": (
            Path(environment.lake) / "_training" / "toy" / name / "shard-00000"
        ),
        "services' logs": environment.logs / f"{name}.log.1",
        "Airflow's logs": environment.logs / "airflow" / "dag_id=toy" / f"run_id={name}" / "1.log",
        "warm-ups": Path(environment.lake) / f"_warm_up-{name}" / "part.parquet",
        "toy: stagings": Path(environment.lake) / "_staging" / "toy" / "readings" / f"{name}.json",
    }
    return {what: written(file, is_old=is_old) for what, file in places.items()}


def test_what_is_old_goes_and_is_told_and_what_is_young_stays(environment: Environment) -> None:
    old = in_home(environment, is_old=True)
    young = in_home(environment, is_old=False)
    log = written(environment.logs / "spark.log", is_old=True)
    found = cleaned(environment)
    told = {what: found[what] for what in old}
    assert told == {what: [1, 1, 4, ""] for what in old}
    assert [file for file in old.values() if file.exists()] == []
    assert [file for file in young.values() if not file.exists()] == []
    assert log.exists(), "a service may have it open"


def test_a_dry_run_tells_the_same_and_deletes_nothing(environment: Environment) -> None:
    old = in_home(environment, is_old=True)
    run = run_at(environment.home, Days.of(FIRST))
    publish_ids(run, "readings", 1)
    staged(run, {FIRST: [2]})
    age(run, "readings")
    before = sorted(environment.home.rglob("*"))
    told = cleaned(environment, is_dry=True)
    left = sorted(environment.home.rglob("*"))
    # Whoever takes a lock makes its file.
    locks_made = [entry for entry in left if environment.runtime in (entry, *entry.parents)]
    assert [entry for entry in left if entry not in locks_made] == [
        entry for entry in before if entry not in locks_made
    ]
    assert told == cleaned(environment)
    assert told["toy.readings"][1] == 1
    assert [file for file in old.values() if file.exists()] == []


def test_days_of_which_no_report_is_left_go_too(environment: Environment) -> None:
    old = in_home(environment, is_old=True)["toy: reports"]
    leading = written(environment.reports / "toy" / "days" / "index.html", is_old=True)
    cleaned(environment, is_dry=True)
    assert leading.exists()
    cleaned(environment)
    assert not old.parent.parent.exists()


def test_a_report_of_which_a_page_is_young_stays_whole(environment: Environment) -> None:
    old = in_home(environment, is_old=True)["toy: reports"]
    written(old.parent / "readings" / "index.html", is_old=False)
    assert cleaned(environment)["toy: reports"] == [2, 0, 0, ""]
    assert old.exists()


def test_the_card_of_a_model_stays_however_old_it_is(environment: Environment) -> None:
    card = environment.reports / "toy" / "models" / "1" / "index.html"
    written(card, is_old=True)
    cleaned(environment)
    assert card.exists()


def test_of_one_pipeline_only_what_is_its_own_is_cleaned(environment: Environment) -> None:
    old = in_home(environment, is_old=True)
    found = cleaned(environment, is_shared=False)
    assert all(str(what).startswith("toy") for what in found)
    assert old["services' logs"].exists()
    assert not old["toy: reports"].exists()


def test_a_table_that_is_declared_no_more_is_told_and_stays(environment: Environment) -> None:
    run = run_at(environment.home, Days.of(FIRST))
    publish_ids(run, "readings", 1)
    place = Path(path(run, "readings"))
    former = [place.with_name(name) for name in ("former", "former_quarantine")]
    for one in former:
        shutil.copytree(place, one)
    place.with_name("notes").mkdir()
    place.with_name(".DS_Store").touch()
    before = sorted(place.parent.rglob("*"))
    found = cleaned(environment)
    for name in ("toy.former", "toy.former_quarantine"):
        kept, deleted, _, note = found[name]
        assert (kept, deleted) == (1, 0)
        assert str(note).startswith("declared no more: it stays")
    assert found["toy.readings"][3] == ""
    assert not {"toy.notes", "toy.readings_quarantine"} & found.keys()
    assert sorted(place.parent.rglob("*")) == before


def test_a_pipeline_that_is_declared_no_more_is_told_and_stays(environment: Environment) -> None:
    run = run_at(environment.home, Days.of(FIRST))
    publish_ids(run, "readings", 1)
    lake = Path(environment.lake)
    shutil.copytree(lake / "toy", lake / "former")
    (lake / "notes").mkdir()
    before = sorted(lake.glob("former/**/*"))
    kept, deleted, _, note = cleaned(environment)["former.readings"]
    assert (kept, deleted) == (1, 0)
    assert str(note).startswith("declared no more: it stays")
    assert sorted(lake.glob("former/**/*")) == before
    told = cleaned(environment, is_shared=False)
    assert not [what for what in told if str(what).startswith(("former", "ops"))]


def test_the_retention_is_a_setting(environment: Environment) -> None:
    old = in_home(environment, is_old=True)
    settings = {"NIGHTSHIFT_HOME": str(environment.home), "NIGHTSHIFT_RETENTION_DAYS": "61"}
    cleaned(Environment.read(settings))
    assert [file for file in old.values() if not file.exists()] == []


def test_by_a_clock_that_is_a_year_ahead_nothing_is_older(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_at(environment.home)
    now = datetime.now(UTC)
    record(run, stage_row(run, "ingest", started_at=now))
    old = in_home(environment, is_old=True)
    young = in_home(environment, is_old=False)
    ahead = now + timedelta(days=365)
    monkeypatch.setattr("jobs.commands.maintain.datetime", at(ahead))
    cleaned(environment)
    assert [file for file in young.values() if not file.exists()] == []
    assert [file for file in old.values() if file.exists()] == []
    told = capsys.readouterr().err
    assert f"No night is on record since {now:%Y-%m-%d}" in told
    assert f"clock says {ahead:%Y-%m-%d}" in told


def test_it_waits_for_a_run_of_the_pipeline(environment: Environment) -> None:
    old = in_home(environment, is_old=True)["toy: reports"]
    cleaning = threading.Thread(target=cleaned, args=(environment,))
    with locks.hold(environment, "pipeline.toy"):
        cleaning.start()
        cleaning.join(timeout=1)
        assert cleaning.is_alive()
        assert old.exists()
    cleaning.join()
    assert not old.exists()


def test_where_it_is_to_wait_for_a_while_the_others_are_cleaned_and_what_is_left_is_told(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    old = in_home(environment, is_old=True)
    days = environment.reports / "other" / "days"
    of_other = written(days / "old" / "index.html", is_old=True)
    other = replace(TOY, name="other")
    monkeypatch.setattr(catalog, "readable", lambda: [TOY, other])
    monkeypatch.setattr(catalog, "unreadable", dict)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(environment.home))
    result = tmp_path / "result.json"
    asked = ["maintain", f"--result={result}", "--wait-seconds=0"]
    with locks.hold(environment, "pipeline.toy"):
        assert main([*asked, "--format=json"]) == 6
    assert json.loads(result.read_text()) == {"awaited": ["toy"]}
    assert old["toy: reports"].exists()
    assert not of_other.exists()
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    (row,) = [row for row in rows if row["what"] == "toy"]
    assert row["note"] == "a run goes on"
    assert "Awaits its turn: The lock 'pipeline.toy' was not free within 0 s." in printed.err
    assert not (environment.logs / "notifications.log").exists(), "nobody is told"
    with locks.hold(environment, "maintenance"):
        assert main(asked) == 6
    monkeypatch.setattr(catalog, "pipeline", lambda _: TOY)
    assert main([*asked, "toy"]) == 0
    assert json.loads(result.read_text()) == {"awaited": []}
    assert not old["toy: reports"].exists()


def test_a_run_that_waits_for_it_is_told_that_no_run_goes_on(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def meanwhile(run: Run, *_: object) -> list[Cleaned]:
        with pytest.raises(AwaitsTurn) as late, one_run_at_a_time(run, 0):
            pass
        told.append(str(late.value))
        return []

    monkeypatch.setattr(retention, "clean_tables", meanwhile)
    cleaned(environment)
    (why,) = told
    assert "The lock is held by `nightshift maintain`, which came at " in why


def test_a_table_that_cannot_be_cleaned_is_told_and_all_else_goes_on(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    old = in_home(environment, is_old=True)
    run = run_at(environment.home, Days.of(FIRST))
    for name in ("readings", "training"):
        for number in range(2):
            publish_ids(run, name, number)
        age(run, name)
    DeltaTable(path(run, "readings")).create_checkpoint()
    (Path(path(run, "readings")) / "_delta_log" / f"{0:020}.json").unlink()
    assert maintain(environment, [TOY], is_shared=True, is_dry=True)[0] == 3
    told = environment.logs / "notifications.log"
    assert not told.exists(), "nobody waits for a dry run"
    other = replace(TOY, name="other")
    code, rows = maintain(environment, [TOY, other], is_shared=True, is_dry=False)
    assert code == 3
    found = {what: row for what, *row in rows}
    assert found["toy.readings"] == [None, 0, None, "failed"]
    assert found["toy.training"][1] == 1
    # Of the same pipeline, after its tables.
    assert not old["toy: reports"].exists()
    why = "toy.readings: the commit of version 0 is not in"
    assert why in capsys.readouterr().err
    (message,) = map(json.loads, told.read_text().splitlines())
    assert (message["event"], message["pipeline"]) == ("maintenance_failed", "toy")
    assert why in message["message"]
    again = maintain(environment, [TOY], is_shared=False, is_dry=False, notify=False)
    assert again[0] == 3
    assert len(told.read_text().splitlines()) == 1, "who is to try again tells nobody"


@pytest.mark.parametrize(
    "what", ["jobs.services.shared_locks.hold", "jobs.commands.maintain._shared"]
)
def test_a_maintenance_that_cannot_begin_is_told_too(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NightshiftError("The PostgreSQL of the lock does not answer.")

    monkeypatch.setattr(what, fail)
    code, (row,) = maintain(environment, [TOY], is_shared=True, is_dry=False)
    assert code == 3
    assert row == ("maintenance", None, 0, None, "failed")
    told = environment.logs / "notifications.log"
    (message,) = map(json.loads, told.read_text().splitlines())
    assert (message["event"], message["pipeline"]) == ("maintenance_failed", "toy")
    assert message["message"] == "The PostgreSQL of the lock does not answer."


def test_a_maintenance_of_pipelines_none_of_which_can_be_read_is_told_too(
    environment: Environment,
) -> None:
    lacking = {"toy": UsageError("pipelines/toy.py, line 7: NameError")}
    code, _ = maintain(environment, [], lacking, is_shared=True, is_dry=False)
    assert code == 3
    told = environment.logs / "notifications.log"
    (message,) = map(json.loads, told.read_text().splitlines())
    assert (message["event"], message["pipeline"]) == ("maintenance_failed", "toy")
    assert message["message"] == "pipelines/toy.py, line 7: NameError"


def keep(environment: Environment, folder: Path, version: int) -> ModelVersion:
    """Register a model that pins this version of the training table."""
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    (files / "model.json").write_text("{}")
    return Registry(environment, "toy").keep(
        files,
        as_of=date(2013, 1, 5),
        fingerprint=str(version),
        family="linear",
        recipe="as ever",
        params={},
        curves={},
        pins={"table": "training", "table_version": version, "as_of": str(FIRST)},
    )


def test_a_pipeline_that_cannot_be_imported_keeps_no_other_from_being_cleaned(
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    declared = catalog._declaration

    def declaration(name: str) -> ModuleType:
        if name == "flights":
            raise UsageError("pipelines/flights.py, line 7: NameError: name 'Fed' is not defined")
        return declared(name)

    monkeypatch.setattr(catalog, "_declaration", declaration)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(environment.home))
    reports = environment.reports / "weather" / "days"
    old = written(reports / "old" / "index.html", is_old=True)
    assert main(["maintain", "--format", "json"]) == 3
    printed = capsys.readouterr()
    told = {row["what"]: row for row in json.loads(printed.out)}
    assert told["flights"]["note"] == "failed"
    assert told["weather: reports"]["deleted"] == 1
    # What they share, too.
    assert "Airflow's logs" in told
    assert not old.exists()
    assert "pipelines/flights.py, line 7" in printed.err
    # By name it is refused.
    assert main(["maintain", "flights"]) == 2


def test_rows_that_a_registered_model_was_made_from_stay_and_lost_trainings_go(
    environment: Environment, tmp_path: Path
) -> None:
    run = run_at(environment.home, Days.of(FIRST))
    for number in range(4):
        publish_ids(run, "training", number)
    age(run, "training")
    model = keep(environment, tmp_path, version=1)
    lost = lost_training(environment)
    own = somebodys_run(environment)
    found = cleaned(environment)
    assert found["toy.training"][:2] == [2, 2]
    assert ids_at(run, "training", 1) == [1]
    assert DeltaTable(path(run, "training")).version() == 3
    assert found["toy: runs without a model"] == [1, 1, None, "runs"]
    artifacts = environment.home / "mlartifacts" / "toy"
    assert {folder.name for folder in artifacts.iterdir()} == {model.run_id, own.name}
    assert not lost.exists()
    assert cleaned(environment)["toy: runs without a model"] == [1, 0, None, "runs"]


@pytest.mark.parametrize("somebody", ["renames", "deletes", "deletes the run of"])
def test_files_of_others_runs_stay_whatever_became_of_their_experiment(
    environment: Environment, tmp_path: Path, somebody: str
) -> None:
    model = keep(environment, tmp_path, version=1)
    lost = lost_training(environment)
    own = somebodys_run(environment)
    unknown = own.with_name("0" * 32)
    written(unknown / "notes.txt", is_old=True)
    client = Registry(environment, "toy")._client
    experiment = client.get_experiment_by_name("toy").experiment_id
    if somebody == "renames":
        client.rename_experiment(experiment, "toy-before")
    elif somebody == "deletes":
        client.delete_experiment(experiment)
    else:
        client.delete_run(own.name)
    found = cleaned(environment)
    assert (own / "notes.txt").exists()
    left = {folder.name for folder in own.parent.iterdir()}
    assert left == {model.run_id, own.name}
    assert not lost.exists()
    assert found["toy: files of runs without a model"][1] == 2


def test_homes_that_share_the_folder_of_models_spare_one_anothers_files(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("models")
    own = replace(environment, models=folder)
    theirs = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path_factory.mktemp("theirs"))})
    theirs = replace(theirs, models=folder)
    keep(own, tmp_path_factory.mktemp("one"), version=1)
    model = keep(theirs, tmp_path_factory.mktemp("two"), version=1)
    files = folder / "toy" / model.run_id
    then = time.time() - LONG_AGO.total_seconds()
    for entry in (*files.rglob("*"), files):
        os.utime(entry, (then, then))
    lost = lost_training(own)
    cleaned(own)
    assert not lost.exists()
    # The files by which it serves.
    Registry(theirs, "toy").fetch(model, ["model.json"], tmp_path_factory.mktemp("fetched"))


def lost_training(environment: Environment) -> Path:
    """A training that was killed long ago; gives the folder of its files."""
    client = Registry(environment, "toy")._client
    experiment = client.get_experiment_by_name("toy").experiment_id
    began = int((time.time() - LONG_AGO.total_seconds()) * 1000)
    tags = {"fingerprint": "lost"}
    run_id = client.create_run(experiment, start_time=began, tags=tags).info.run_id
    client.create_run(experiment, tags=tags)
    folder = environment.models / "toy" / run_id
    written(folder / "pins.json", is_old=True)
    return folder


def somebodys_run(environment: Environment) -> Path:
    """A run of long ago that is no training of ours; gives the folder of its files."""
    client = Registry(environment, "toy")._client
    experiment = client.get_experiment_by_name("toy").experiment_id
    began = int((time.time() - LONG_AGO.total_seconds()) * 1000)
    run_id = client.create_run(experiment, start_time=began).info.run_id
    folder = environment.home / "mlartifacts" / "toy" / run_id
    written(folder / "notes.txt", is_old=True)
    return folder


def test_pins_that_cannot_be_read_let_no_row_of_the_pipeline_go_and_are_told(
    environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_at(environment.home, Days.of(FIRST))
    for number in range(3):
        publish_ids(run, "training", number)
    age(run, "training")
    model = keep(environment, tmp_path, version=1)
    artifacts = environment.home / "mlartifacts" / "toy" / model.run_id
    next(artifacts.rglob("pins.json")).unlink()
    lost = lost_training(environment)
    old = in_home(environment, is_old=True)
    code, rows = maintain(environment, [TOY], is_shared=True, is_dry=False)
    assert code == 3
    assert [row for row in rows if row[-1] == "failed"] == [
        ("toy: tables", None, 0, None, "failed")
    ]
    assert "pins.json of model 'toy' version 1 cannot be read" in capsys.readouterr().err
    assert ids_at(run, "training", 0) == [0]
    left = [what for what, file in old.items() if file.exists()]
    assert (left, lost.exists()) == ([], False), "the rest goes on"
