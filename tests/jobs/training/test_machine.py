from __future__ import annotations

from pathlib import Path

import pytest

from jobs.training import machine
from pipelines.environment import Environment


@pytest.fixture(autouse=True)
def eight_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "_DEVICES", tmp_path)


def test_without_a_gpu_trainings_may_keep_all_cores_busy() -> None:
    assert machine.free_cores(Environment.read({})) == 8


def test_a_gpu_is_for_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    assert machine.free_cores(Environment.read({})) == 8
    (tmp_path / "nvidia0").touch()
    assert machine.free_cores(Environment.read({})) == 0


def test_hosts_are_for_one_training_at_a_time() -> None:
    hosts = Environment.read({"NIGHTSHIFT_RANK_HOSTS": "trainer-1:2,trainer-2:2"})
    assert machine.free_cores(hosts) == 0


def test_so_are_pods() -> None:
    pods = Environment.read({"NIGHTSHIFT_RANK_POD": "/pod.json"})
    assert machine.free_cores(pods) == 0
