"""The project installed as a package: beside an Airflow and a Spark that others run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs.services.secrets import secret
from pipelines.environment import ROOT, Environment

_PACKAGES = ("pipelines", "jobs", "expectations", "features", "dags", "plugins", "nightshift")
_NOT_INSTALLED = {".py", ".pyc", ".md"}
_DAG_FILES = (
    *("flights.py", "weather.py"),
    *("declarations.py", "maintenance.py", "sources.py", "deadline.py"),
)
_READ_DAGS = """
import json, sys
import dags
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1], bundle_path=sys.argv[1])
print(json.dumps([dags.__file__, sorted(bag.dags), {k: v for k, v in bag.import_errors.items()}]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    for name in _PACKAGES:
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    options = ["--quiet", "--no-index", f"--wheel-dir={folder}", str(source)]
    subprocess.run([*build, *options], check=True, cwd=folder)
    [wheel] = folder.glob("*.whl")
    site = folder / "site"
    zipfile.ZipFile(wheel).extractall(site)
    return site


def _run(
    installed: Path, folder: Path, variables: Mapping[str, str], *words: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the installed package before this checkout."""
    home = folder / "home"
    return subprocess.run(
        [sys.executable, *words],
        env={
            **os.environ,
            "PYTHONPATH": str(installed),
            "NIGHTSHIFT_HOME": str(home),
            "AIRFLOW_HOME": str(home / "airflow"),
            **variables,
        },
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_every_file_that_the_code_reads_is_installed(installed: Path) -> None:
    wanted = {
        path.relative_to(ROOT)
        for name in _PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and path.suffix not in _NOT_INSTALLED
    }
    assert wanted
    lost = [path for path in sorted(wanted) if not (installed / path).exists()]
    assert list(map(str, lost)) == []


def test_dag_files_of_a_bundle_are_read_where_the_project_is_a_package(
    installed: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in _DAG_FILES:
        shutil.copy(installed / "dags" / name, bundle / name)
    ended = _run(installed, tmp_path, {}, "-c", _READ_DAGS, str(bundle))
    assert ended.returncode == 0, ended.stderr
    module, names, errors = json.loads(ended.stdout.splitlines()[-1])
    assert Path(module).is_relative_to(installed)
    assert errors == {}
    assert {"flights", "weather", "maintenance", "flights_source"} <= set(names)


@pytest.mark.parametrize("words", [["up"], ["airflow", "version"]])
def test_a_package_is_no_airflow_and_writes_no_settings_for_one(
    words: list[str], installed: Path, tmp_path: Path
) -> None:
    ended = _run(installed, tmp_path, {}, "-m", "jobs", *words)
    assert ended.returncode == 2, ended.stdout
    assert "an installed package has none. Run this in a checkout." in ended.stderr
    assert not (installed / "airflow.cfg").exists()
    assert not (tmp_path / "home").exists()


def test_a_stage_of_an_installed_package_computes_on_the_spark_of_others(
    installed: Path, tmp_path: Path, shared_environment: Environment
) -> None:
    token = secret(shared_environment, "spark_token")
    variables = {
        "SPARK_REMOTE": f"sc://localhost:{shared_environment.spark_port}/;token={token}",
        "NIGHTSHIFT_LAKE": str(tmp_path / "lake"),
    }
    day = "--date=2012-12-31"
    landed = _run(installed, tmp_path, variables, "-m", "jobs", "land", "weather", day)
    assert landed.returncode == 0, landed.stderr
    ingest = ("-m", "jobs", "run", "weather", day, "--stage=ingest")
    ended = _run(installed, tmp_path, variables, *ingest)
    assert ended.returncode == 0, ended.stderr
    [report, *_] = (tmp_path / "home" / "reports").rglob("index.html")
    # It has its style in it: that is a file of the package.
    assert "<style" in report.read_text()
    told = _run(installed, tmp_path, variables, "-m", "jobs", "contract", "weather")
    assert told.returncode == 0, told.stderr
