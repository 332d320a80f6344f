from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.training import machine
from pipelines.environment import Environment


@pytest.fixture(autouse=True)
def eight_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine, "_DEVICES", tmp_path)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("250000 100000", 2),
        ("50000 100000", 0),
        ("900000 100000", 8),
    ],
)
def test_a_container_has_the_cores_of_its_quota(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert machine.free_cores(Environment.read({})) == cores


def test_where_there_is_no_quota_it_is_the_cores_that_the_system_allows() -> None:
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
