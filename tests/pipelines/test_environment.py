"""What the environment variables mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.environment import Environment
from pipelines.errors import UsageError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lakes/mine", "{cwd}/lakes/mine"),
        ("~/mine", "{home}/mine"),
        ("s3a://bucket/lake", "s3a://bucket/lake"),
        ("", "{cwd}/var/lake"),
    ],
)
def test_a_lake_is_the_same_place_for_processes_in_other_folders(
    given: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of-tests")
    environment = Environment.read({"NIGHTSHIFT_HOME": "var", "NIGHTSHIFT_LAKE": given})
    assert environment.lake == meant.format(cwd=tmp_path.resolve(), home="/home/of-tests")


def test_its_variables_recreate_an_environment() -> None:
    variables = {
        "NIGHTSHIFT_HOME": "/a/b",
        "NIGHTSHIFT_LAKE": "s3a://bucket/lake",
        "SPARK_REMOTE": "sc://cluster",
        "NIGHTSHIFT_RANKS": "3",
    }
    environment = Environment.read(
        {**variables, "NIGHTSHIFT_AIRFLOW_PORT": "9000", "NIGHTSHIFT_SPARK_CORES": "7"}
    )
    assert Environment.read(environment.variables()) == environment


@pytest.mark.parametrize("given", ["80", "65536", "8080.0", "-1", "port"])
def test_a_port_out_of_range_is_wrong_usage(given: str) -> None:
    told = (
        f"NIGHTSHIFT_AIRFLOW_PORT='{given}' is not a whole number from 1024 to 65535. "
        "Unset it to use 8080"
    )
    with pytest.raises(UsageError, match=told):
        Environment.read({"NIGHTSHIFT_AIRFLOW_PORT": given})
