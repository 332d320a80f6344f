"""What a table keeps and what goes: nothing that anyone may still ask for."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from jobs.lake import ops, publications, retention, snapshots
from jobs.lake.commits import publish
from jobs.lake.knowledge import Knowledge
from jobs.lake.locations import manifests, path, sql_name
from jobs.lake.publications import Origin
from jobs.lake.snapshots import Snapshot
from jobs.lake.staging import Staging
from jobs.services.leftovers import Cleaned, Rule
from pipelines.days import Days
from pipelines.run import Run
from pipelines.spec import Table
from tests.jobs.lake.test_commits import FIRST, SECOND, TABLE, ids_of, run_at, staged

LONG_AGO = timedelta(days=60)
DAY = Days.of(FIRST)


def rule(*, is_dry: bool = False) -> Rule:
    return Rule(before=datetime.now(UTC) - timedelta(days=30), is_dry=is_dry)


def publish_ids(run: Run, name: str, *ids: int) -> int:
    """Publish these rows for the first day; gives their version."""
    return publish(run, name, staged(run, {FIRST: list(ids)}, name)).version


def age(run: Run, name: str) -> None:
    """Make all that the table holds by now as old as if it had been written long ago."""
    then = time.time() - LONG_AGO.total_seconds()
    for entry in Path(path(run, name)).rglob("*"):
        if entry.suffix == ".json" and entry.parent.name == "_delta_log":
            lines = entry.read_text().splitlines(keepends=True)
            entry.write_text("".join(map(aged, lines)))
        os.utime(entry, (then, then))


def aged(line: str) -> str:
    """An action of the log as it would have been written then."""
    action = json.loads(line)
    if removed := action.get("remove"):
        removed["deletionTimestamp"] -= int(LONG_AGO.total_seconds() * 1000)
    return json.dumps(action) + "\n"


def clean(run: Run, name: str, **pinned: int) -> Cleaned:
    """Clean the pipeline's tables; what became of one of them."""
    made_from = [
        Snapshot(table=table, version=version, night=SECOND) for table, version in pinned.items()
    ]
    rows = retention.clean_tables(run, made_from, rule())
    return {row.what: row for row in rows}[sql_name(run, name)]


def is_there(run: Run, name: str, staging: Staging) -> bool:
    table = Path(path(run, name))
    return all((table / file.path).exists() for file in staging.files)


def ids_at(run: Run, name: str, version: int) -> list[int]:
    rows = DeltaTable(path(run, name), version=version).to_pyarrow_table()
    return sorted(rows["id"].to_pylist())


def test_what_was_staged_long_ago_and_never_published_goes_with_all_that_spark_left(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, DAY)
    publish_ids(run, TABLE, 1)
    abandoned = staged(run, {FIRST: [2]})
    folder = Path(path(run, TABLE)) / abandoned.folder
    (folder / "_SUCCESS").touch()
    killed = Path(path(run, TABLE)) / "runs" / "killed" / "_temporary" / "0"
    killed.mkdir(parents=True)
    (killed / "part-0.parquet").write_bytes(b"half")
    size = sum(file.size for file in abandoned.files) + len(b"half")
    age(run, TABLE)
    cleaned = clean(run, TABLE)
    assert (cleaned.kept, cleaned.deleted, cleaned.freed) == (1, 3, size)
    assert not folder.exists()
    assert not killed.parents[1].exists()
    assert ids_of(run) == {"2013-01-05": [1]}
    assert DeltaTable(path(run, TABLE)).version() == 0


def test_what_a_stage_that_runs_has_staged_stays(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    publish_ids(run, TABLE, 1)
    age(run, TABLE)
    waiting = staged(run, {FIRST: [2, 3]})
    written = Path(path(run, TABLE)) / "runs" / "goes on" / "_temporary" / "part-0.parquet"
    written.parent.mkdir(parents=True)
    written.write_bytes(b"half")
    assert clean(run, TABLE).deleted == 0
    assert written.exists()
    publish(run, TABLE, waiting)
    assert ids_of(run) == {"2013-01-05": [2, 3]}


def test_versions_that_a_model_pins_can_be_read_and_others_go(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    versions = [publish_ids(run, "training", number) for number in range(4)]
    age(run, "training")
    cleaned = clean(run, "training", training=1)
    assert (cleaned.kept, cleaned.deleted) == (2, 2)
    assert ids_at(run, "training", 1) == [1]
    assert ids_at(run, "training", versions[-1]) == [3]
    with pytest.raises(FileNotFoundError):
        ids_at(run, "training", 2)


def test_what_a_model_saw_of_a_day_that_was_corrected_after_its_night_stays(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, DAY)
    for number, known in enumerate((FIRST, FIRST + timedelta(days=2), FIRST)):
        rows = staged(
            run,
            {FIRST: [number]},
            TABLE,
            Origin(known={FIRST: known}),
        )
        publish(run, TABLE, rows)
    model = Snapshot(table=TABLE, version=1, night=SECOND)
    assert snapshots.read(run, model, DAY)["id"].to_pylist() == [0]
    age(run, TABLE)
    clean(run, TABLE, **{TABLE: model.version})
    assert snapshots.read(run, model, DAY)["id"].to_pylist() == [0]


def test_what_a_model_saw_stays_when_a_correction_is_restated_as_it_is(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    night = run_at(tmp_path, Days.of(SECOND))
    made_of(run, TABLE, 1, None)
    made_of(run, TABLE, 2, None, SECOND + timedelta(days=1))
    model = snapshots.newest(night, TABLE)
    files = snapshots.files(night, model, DAY)
    made_of(run, TABLE, 2, None)
    age(run, TABLE)
    (cleaned,) = retention.clean_tables(run, [model], rule())
    # What was staged to say the same once more.
    assert cleaned.deleted == 1
    assert snapshots.read(night, model, DAY)["id"].to_pylist() == [1]
    assert snapshots.files(night, model, DAY) == files
    now = snapshots.newest(night, TABLE)
    assert snapshots.read(night, now, DAY)["id"].to_pylist() == [2]


def test_predictions_that_were_served_stay_and_what_they_were_made_from(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    for number in (1, 2, 3):
        publish_ids(run, "scoring", number)
        inputs = (Knowledge(run).table_input("scoring", DAY),)
        origin = Origin(inputs={FIRST: inputs})
        ahead = replace(staged_predictions(run, number), origin=origin)
        publish(run, "predictions", ahead)
    publish_ids(run, "scoring", 4)
    for name in ("scoring", "predictions"):
        age(run, name)
    assert clean(run, "predictions").deleted == 0
    assert clean(run, "scoring").deleted == 0
    assert [ids_at(run, "predictions", version) for version in range(3)] == [
        [1],
        [2],
        [3],
    ]
    assert [ids_at(run, "scoring", version) for version in range(3)] == [
        [1],
        [2],
        [3],
    ]


def staged_predictions(run: Run, number: int) -> Staging:
    return staged(run, {FIRST: [number]}, "predictions")


def made_of(
    run: Run,
    name: str,
    number: int,
    source: str | None,
    known: date = FIRST,
) -> int:
    """Publish a row of the first day, made from what that night sees of another table."""
    inputs = ()
    if source:
        inputs = (Knowledge(run).table_input(source, DAY, DAY),)
    origin = Origin(inputs={FIRST: inputs}, known={FIRST: known})
    waiting = staged(run, {FIRST: [number]}, name, origin)
    return publish(run, name, waiting).version


def run_that_served_beside_a_correction(tmp_path: Path) -> Run:
    """A run whose predictions stand on rows that a correction has replaced before."""
    run = run_at(tmp_path, DAY)
    made_of(run, TABLE, 1, None)
    # The night does not see it yet.
    made_of(run, TABLE, 2, None, SECOND)
    made_of(run, "scoring", 1, TABLE)
    made_of(run, "predictions", 1, "scoring")
    return run


def test_what_stands_behind_predictions_that_were_served_stays_through_every_table(
    tmp_path: Path,
) -> None:
    run = run_that_served_beside_a_correction(tmp_path)
    # The day is restated: no night sees its rows of before any more, and what was served stays.
    made_of(run, TABLE, 3, None)
    made_of(run, "scoring", 3, TABLE)
    # Nothing was made from these.
    made_of(run, TABLE, 4, None)
    made_of(run, TABLE, 5, None)
    for name in (TABLE, "scoring", "predictions"):
        age(run, name)
    assert clean(run, TABLE).deleted == 1
    for version, number in enumerate([1, 2, 3]):
        assert ids_at(run, TABLE, version) == [number]
    assert ids_at(run, TABLE, 4) == [5]
    assert ids_at(run, "scoring", 0) == [1]
    assert ids_at(run, "scoring", 1) == [3]


def test_what_was_served_keeps_what_is_behind_it_while_its_folder_is_away(tmp_path: Path) -> None:
    run = run_that_served_beside_a_correction(tmp_path)
    made_of(run, TABLE, 3, None)
    made_of(run, "scoring", 3, TABLE)
    for name in (TABLE, "scoring"):
        age(run, name)
    served = Path(path(run, "predictions"))
    served.rename(tmp_path / "away")
    assert clean(run, TABLE).deleted == 0
    # It comes back from a backup.
    (tmp_path / "away").rename(served)
    assert ids_at(run, TABLE, 0) == [1]
    assert ids_at(run, TABLE, 1) == [2]


def test_what_was_served_keeps_what_is_behind_it_when_a_correction_is_restated_as_it_is(
    tmp_path: Path,
) -> None:
    run = run_that_served_beside_a_correction(tmp_path)
    # No row of the day changes: it is known earlier from now on.
    assert made_of(run, TABLE, 2, None) == 1
    made_of(run, "scoring", 2, TABLE)
    made_of(run, TABLE, 3, None)
    made_of(run, TABLE, 4, None)
    age(run, TABLE)
    # What was staged to say the same once more, and the rows that nothing was made from.
    assert clean(run, TABLE).deleted == 2
    assert ids_at(run, TABLE, 0) == [1]
    assert ids_at(run, TABLE, 1) == [2]
    assert ids_at(run, TABLE, 3) == [4]


def with_sums(run: Run) -> Run:
    """Its pipeline has a derived table."""
    sums = Table(
        name="sums",
        made_by="transform",
        reads=(TABLE,),
        key=("id",),
    )
    return replace(run, pipeline=replace(run.pipeline, derived=(sums,)))


def test_what_stands_behind_predictions_stays_through_a_table_that_is_declared_no_more(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, DAY)
    before = with_sums(run)
    made_of(before, TABLE, 1, None)
    made_of(before, "sums", 1, TABLE)
    made_of(before, "scoring", 1, "sums")
    made_of(before, "predictions", 1, "scoring")
    for number in (2, 3):
        made_of(before, TABLE, number, None)
    age(run, TABLE)
    assert clean(run, TABLE).deleted == 1
    assert ids_at(run, TABLE, 0) == [1]
    assert ids_of(run) == {"2013-01-05": [3]}


def test_what_stands_behind_the_rows_that_a_model_learned_from_stays(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    for number in (1, 2, 3):
        made_of(run, TABLE, number, None)
        made_of(run, "training", number, TABLE)
    for name in (TABLE, "training"):
        age(run, name)
    assert clean(run, TABLE, training=0).deleted == 1
    assert ids_at(run, TABLE, 0) == [1]
    assert ids_at(run, TABLE, 2) == [3]


def test_what_stands_behind_rows_that_one_night_alone_saw_and_a_model_learned_from_stays(
    tmp_path: Path,
) -> None:
    run = with_sums(run_at(tmp_path, DAY))
    late = SECOND + timedelta(days=2)
    made_of(run, TABLE, 1, None)
    # Made late, of what its night knew.
    made_of(run, "sums", 1, TABLE, late)
    evenings = Days(FIRST - timedelta(days=1), SECOND)
    learned = (Knowledge(run).table_input("sums", DAY, evenings),)
    origin = Origin(inputs={FIRST: learned}, known={FIRST: FIRST})
    publish(run, "training", staged(run, {FIRST: [1]}, "training", origin))
    made_of(run, TABLE, 2, None)
    made_of(run, "sums", 2, TABLE, late)
    age(run, TABLE)
    assert clean(run, TABLE).deleted == 0
    assert ids_at(run, TABLE, 0) == [1]


def test_the_version_that_a_prediction_carries_stays(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    for number in range(3):
        publish_ids(run, "scoring", number)
    row = {"pipeline": "toy", "stage": "predict", "status": "done"}
    ops.append(run.environment, "stage_runs", [{**row, "metrics": '{"scoring_version": 1}'}])
    age(run, "scoring")
    assert clean(run, "scoring").deleted == 1
    assert ids_at(run, "scoring", 1) == [1]


def test_what_was_replaced_lately_stays_however_old_it_is(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    before = publish_ids(run, TABLE, 1)
    age(run, TABLE)
    publish_ids(run, TABLE, 2)
    # By then the table itself has forgotten that the file was dropped.
    DeltaTable(path(run, TABLE)).alter.set_table_properties(
        {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    )
    DeltaTable(path(run, TABLE)).create_checkpoint()
    assert clean(run, TABLE).deleted == 0
    assert ids_at(run, TABLE, before) == [1]


def test_a_dry_run_tells_the_same_and_deletes_nothing(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    publish_ids(run, TABLE, 1)
    abandoned = staged(run, {FIRST: [2]})
    age(run, TABLE)
    told = list(retention.clean_tables(run, (), rule(is_dry=True)))
    assert is_there(run, TABLE, abandoned)
    assert told == list(retention.clean_tables(run, (), rule()))
    assert not is_there(run, TABLE, abandoned)


def test_rows_that_were_refused_and_their_table_are_cleaned_too(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    name = f"{TABLE}_quarantine"
    publish_ids(run, name, 1)
    staged(run, {FIRST: [2]}, name)
    age(run, name)
    assert clean(run, name).deleted == 1


def test_a_long_log_gets_a_checkpoint_once(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    publish_ids(run, TABLE, 0)
    # As of tables that were made before checkpoints came every ten commits.
    before = {"delta.checkpointInterval": "50"}
    DeltaTable(path(run, TABLE)).alter.set_table_properties(before)
    for number in range(1, 12):
        publish_ids(run, TABLE, number)
    assert clean(run, TABLE).note == "checkpoint"
    assert (Path(path(run, TABLE)) / "_delta_log" / "_last_checkpoint").exists()
    assert clean(run, TABLE).note == ""
    assert ids_of(run) == {"2013-01-05": [11]}


@pytest.mark.parametrize("left", ["", '{"version":', "[]", "{}"])
def test_a_note_of_the_last_checkpoint_that_is_cut_off_keeps_nothing_from_being_cleaned(
    left: str, tmp_path: Path
) -> None:
    run = run_at(tmp_path, DAY)
    publish_ids(run, TABLE, 1)
    staged(run, {FIRST: [2]})
    DeltaTable(path(run, TABLE)).create_checkpoint()
    age(run, TABLE)
    note = Path(path(run, TABLE)) / "_delta_log" / "_last_checkpoint"
    # As a failure of the power may leave it; readers look for the checkpoint then.
    note.write_text(left)
    assert clean(run, TABLE).deleted == 1
    assert ids_of(run) == {"2013-01-05": [1]}
    # A log that has grown gets one anew.
    for number in range(2, 12):
        publish_ids(run, TABLE, number)
    note.write_text(left)
    assert clean(run, TABLE).note == "checkpoint"
    assert json.loads(note.read_text())["version"] == 10


def test_nothing_is_deleted_where_the_log_does_not_tell_what_a_version_names(
    tmp_path: Path,
) -> None:
    run = run_at(tmp_path, DAY)
    for number in range(3):
        publish_ids(run, TABLE, number)
    age(run, TABLE)
    DeltaTable(path(run, TABLE)).create_checkpoint()
    (Path(path(run, TABLE)) / "_delta_log" / f"{0:020}.json").unlink()
    # Another table has its own log.
    publish_ids(run, "training", 1)
    staged(run, {FIRST: [2]}, "training")
    age(run, "training")
    rows = {row.what: row for row in retention.clean_tables(run, (), rule())}
    failed = rows["toy.readings"]
    assert (failed.kept, failed.deleted, failed.note) == (None, 0, "failed")
    assert "toy.readings: the commit of version 0 is not in" in str(failed.fault)
    assert rows["toy.training"].deleted == 1
    assert len(list(Path(path(run, TABLE)).rglob("part-0.parquet"))) == 3


def test_a_kill_in_the_middle_leaves_what_is_needed_and_the_next_time_does_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_at(tmp_path, DAY)
    publish_ids(run, TABLE, 1)
    stagings = [staged(run, {FIRST: [number]}) for number in (2, 3)]
    age(run, TABLE)
    deletions: list[object] = []

    def killed_at_the_second(*errors: type[BaseException]) -> suppress:
        if deletions:
            raise KeyboardInterrupt
        deletions.append(errors)
        return suppress(*errors)

    with monkeypatch.context() as killed:
        # It is around each deletion.
        killed.setattr(retention, "suppress", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            clean(run, TABLE)
    assert sum(is_there(run, TABLE, staging) for staging in stagings) == 1
    assert ids_of(run) == {"2013-01-05": [1]}
    assert clean(run, TABLE).deleted == 1


def test_ops_tables_keep_the_rows_of_now(tmp_path: Path) -> None:
    run = run_at(tmp_path, DAY)
    publish_ids(run, TABLE, 1)
    place = Path(run.environment.table_path("ops.publications"))
    stray = place / "part-stray.parquet"
    stray.write_bytes(b"of a writer that was killed")
    then = time.time() - LONG_AGO.total_seconds()
    for file in place.glob("*.parquet"):
        os.utime(file, (then, then))
    told = list(retention.clean_ops(run.environment, rule()))
    found = [(row.what, row.kept, row.deleted) for row in told]
    assert found == [("ops.publications", 1, 1)]
    assert not stray.exists()
    assert publications.in_force(run, TABLE)[FIRST].rows == 1


def test_a_manifest_goes_before_the_files_that_it_names(tmp_path: Path) -> None:
    run = run_at(tmp_path, Days.of(SECOND))
    folder = Path(manifests(run)) / TABLE
    folder.mkdir(parents=True)
    old, young = folder / "old.json", folder / "young.json"
    for manifest, days in ((old, 30.5), (young, 29.5)):
        manifest.write_text("{}")
        then = time.time() - days * 24 * 3600
        os.utime(manifest, (then, then))
    abandoned = staged(run, {SECOND: [2]})
    publish_ids(run_at(tmp_path, DAY), TABLE, 1)
    file = Path(path(run, TABLE)) / abandoned.files[0].path
    os.utime(file, (then - 24 * 3600, then - 24 * 3600))
    assert retention.clean_stagings(run, rule()).deleted == 1
    assert (old.exists(), young.exists()) == (False, True)
    assert clean(run, TABLE).deleted == 0
    assert file.exists()
