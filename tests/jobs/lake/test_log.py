from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyarrow import fs

from jobs.lake import log


def test_commits_are_told_to_be_there_or_not(tmp_path: Path) -> None:
    table = str(tmp_path / "table")
    for number in range(2):
        write_deltalake(table, pa.table({"number": [number]}), mode="append")
    assert log.are_there(table, 0, 1, 2) == [True, True, False]
    assert {kind for action in log.actions(table, 1) for kind in action} == {"add", "commitInfo"}
    with pytest.raises(FileNotFoundError):
        log.actions(table, 2)
    assert log.are_there(str(tmp_path / "nothing"), 0) == [False]


def test_a_commit_that_a_failure_of_the_power_has_emptied_is_not_there(tmp_path: Path) -> None:
    table = tmp_path / "table"
    write_deltalake(str(table), pa.table({"number": [1]}))
    first = table / "_delta_log" / f"{0:020}.json"
    size = first.stat().st_size
    assert log.sizes(str(table), 0, 1) == [size, None]
    first.write_text("")
    assert log.sizes(str(table), 0) == [0]
    assert log.are_there(str(table), 0) == [False]


def test_the_newest_version_is_found_from_one_that_is_there(tmp_path: Path) -> None:
    table = str(tmp_path / "table")
    for number in range(3):
        write_deltalake(table, pa.table({"number": [number]}), mode="append")
    found = [log.newest_from(table, version) for version in range(4)]
    assert found == [2, 2, 2, None]
    # A failure of the power has left the last one without a byte, and one came after it.
    (Path(table) / "_delta_log" / f"{3:020}.json").touch()
    write_deltalake(table, pa.table({"number": [4]}), mode="append")
    assert log.newest_from(table, 2) == DeltaTable(table).version() == 4


def test_a_commit_has_a_mark_which_no_other_of_its_number_has(tmp_path: Path) -> None:
    table = tmp_path / "table"
    assert log.marks(str(table), 0, 1) == [None, None]
    rows = pa.table({"number": [1]})
    write_deltalake(str(table), rows)
    first, following = log.marks(str(table), 0, 1)
    assert first is not None and following is None
    write_deltalake(str(table), rows, mode="append")
    own, second = log.marks(str(table), 0, 1)
    assert own == first and second not in (None, first)
    shutil.rmtree(table)
    write_deltalake(str(table), rows)
    assert log.marks(str(table), 0) not in ([None], [first])


def test_what_is_a_table_is_as_the_library_says(tmp_path: Path) -> None:
    def is_table(name: str) -> bool:
        place = str(tmp_path / name)
        assert log.is_table(place) == DeltaTable.is_deltatable(place)
        return log.is_table(place)

    write_deltalake(str(tmp_path / "whole"), pa.table({"number": [1]}))
    write_deltalake(str(tmp_path / "shortened"), pa.table({"number": [1]}))
    DeltaTable(str(tmp_path / "shortened")).create_checkpoint()
    (tmp_path / "shortened" / "_delta_log" / f"{0:020}.json").unlink()
    assert is_table("whole") and is_table("shortened")
    (tmp_path / "begun" / "_delta_log").mkdir(parents=True)
    assert not is_table("begun")
    (tmp_path / "begun" / "_delta_log" / f".{0:020}.json.tmp").touch()
    assert not is_table("begun")
    assert not is_table("nowhere")


def test_a_commit_that_is_cut_off_is_found_in_the_lake(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_deltalake(str(tmp_path / "toy" / name), pa.table({"number": [1]}))
    assert log.broken(str(tmp_path)) is None
    commit = tmp_path / "toy" / "two" / "_delta_log" / f"{0:020}.json"
    commit.write_text(commit.read_text()[:-20])
    assert log.broken(str(tmp_path)) == str(commit)


def test_a_commit_that_is_cut_off_is_found_beside_a_folder_that_is_closed_to_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_deltalake(str(tmp_path / "toy" / "one"), pa.table({"number": [1]}))
    commit = tmp_path / "toy" / "one" / "_delta_log" / f"{0:020}.json"
    commit.write_text("")
    (tmp_path / "lost+found").mkdir()
    below = log._below

    def listed(system: fs.FileSystem, folder: str, kind: fs.FileType) -> list[str]:
        if folder.endswith("lost+found"):
            raise PermissionError(errno.EACCES, f"Cannot list directory '{folder}'")
        return below(system, folder, kind)

    monkeypatch.setattr(log, "_below", listed)
    assert log.broken(str(tmp_path)) == str(commit)


def test_a_commit_that_a_checkpoint_stands_for_is_broken_for_nobody(tmp_path: Path) -> None:
    table = tmp_path / "toy" / "readings"
    for number in range(3):
        write_deltalake(str(table), pa.table({"number": [number]}), mode="append")
    DeltaTable(str(table)).create_checkpoint()
    first = table / "_delta_log" / f"{0:020}.json"
    first.write_text(first.read_text()[:-20])
    assert DeltaTable(str(table)).version() == 2
    assert log.broken(str(tmp_path)) is None
