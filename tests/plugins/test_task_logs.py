"""Logs of tasks in Pods: kept in one place, which is not the Pod's disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins import task_logs

_LOG = "dag_id=weather/run_id=manual__2013-02-22T00:00:00+00:00/task_id=train/attempt=1.log"


@pytest.fixture
def of_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a Pod writes."""
    monkeypatch.setenv("NIGHTSHIFT_JOBS", str(tmp_path / "jobs"))
    folder = tmp_path / "pod"
    told = SimpleNamespace(get_mandatory_value=lambda *_: str(folder))
    monkeypatch.setattr(task_logs, "conf", told)
    return folder


def write(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def read(name: str) -> tuple[list[str], list[str] | None]:
    of_nobody: Any = None
    return task_logs.KeptLogs().read(name, of_nobody)


def lines(name: str) -> list[str] | None:
    return read(name)[1]


def test_a_log_outlives_the_pod(of_pod: Path, tmp_path: Path) -> None:
    write(of_pod, _LOG, "done\n")
    task_logs.KeptLogs().upload(_LOG)
    (of_pod / _LOG).unlink()
    sources, found = read(_LOG)
    assert sources == [str(tmp_path / "jobs" / "logs" / _LOG)]
    assert found == ["done\n"]


def test_a_task_that_waited_in_between_has_one_log_of_both_its_pods(of_pod: Path) -> None:
    for said in ("waits\n", "goes on\n"):
        write(of_pod, _LOG, said)
        task_logs.KeptLogs().upload(_LOG)
    assert lines(_LOG) == ["waits\ngoes on\n"]


def test_a_file_that_outlives_its_task_is_kept_with_each_line_once(of_pod: Path) -> None:
    for said in ("waits\n", "waits\ngoes on\n", "waits\ngoes on\n"):
        write(of_pod, _LOG, said)
        task_logs.KeptLogs().upload(_LOG)
    assert lines(_LOG) == ["waits\ngoes on\n"]


def test_what_its_trigger_said_is_part_of_it(of_pod: Path) -> None:
    for name in (_LOG, f"{_LOG}.trigger.7.log"):
        write(of_pod, name, f"{name[-5:]}\n")
        task_logs.KeptLogs().upload(name)
    assert len(lines(_LOG) or ()) == 2


def test_a_log_that_nobody_kept_is_none(of_pod: Path) -> None:
    assert lines(_LOG) is None


def test_a_store_that_is_away_is_told_in_the_place_of_the_log(
    of_pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise PermissionError("who are you?")

    monkeypatch.setattr(Path, "iterdir", fail)
    sources, found = read(_LOG)
    assert sources[0].endswith("cannot be read now: who are you?")
    assert found is None


def test_so_is_one_that_goes_away_once_it_has_told_what_it_has(
    of_pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError("who are you?")

    write(of_pod, _LOG, "done\n")
    task_logs.KeptLogs().upload(_LOG)
    monkeypatch.setattr(Path, "read_text", fail)
    sources, found = read(_LOG)
    assert sources[0].endswith("cannot be read now: who are you?")
    assert found is None


def test_a_byte_that_is_no_text_takes_no_line_with_it(of_pod: Path) -> None:
    write(of_pod, _LOG, "")
    (of_pod / _LOG).write_bytes(b"M\xfcnchen\ndone\n")
    task_logs.KeptLogs().upload(_LOG)
    assert lines(_LOG) == ["M\ufffdnchen\ndone\n"]


def test_a_store_that_has_no_such_folder_keeps_no_log(
    of_pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise NotADirectoryError(folder)

    # As of an object store.
    monkeypatch.setattr(Path, "iterdir", fail)
    assert read(_LOG) == ([], None)


def test_airflow_looks_for_plugins_in_no_module_that_has_none() -> None:
    folder = Path(task_logs.__file__).parent
    ignored = set((folder / ".airflowignore").read_text().splitlines())
    others = {one for one in folder.glob("*.py") if "AirflowPlugin" not in one.read_text()}
    assert {one.name for one in others} <= ignored


def test_airflow_finds_them_by_the_setting_that_up_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow._shared.logging.remote import discover_remote_log_handler
    from airflow._shared.module_loading import import_string

    from jobs.services import executors

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")
    path = executors.settings()["AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"]
    found, _ = discover_remote_log_handler(path, "nowhere", import_string)
    assert found is task_logs.REMOTE_TASK_LOG
