"""Executors on machines that have nothing of ours: code and Python come as an archive."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from bench.spark_cluster import cluster
from jobs import version
from jobs.spark.session import connect
from pipelines.environment import ROOT, Environment
from tests.jobs.spark import test_cluster
from tests.jobs.stages import test_predict as few

no_transforms = few.no_transforms


@pytest.mark.soak
@pytest.mark.skipif("not os.environ.get('SOAK')", reason="a minute; `make soak` runs it")
@pytest.mark.usefixtures("no_transforms")
def test_executors_score_by_the_code_and_the_python_of_an_archive(
    shared_environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = replace(
        shared_environment,
        lake=str(tmp_path / "lake"),
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
        spark_properties=settings(tmp_path, "spark.archives"),
    )
    with cluster(environment, tmp_path / "cluster") as made:
        require_all_of_it_from_the_archive(made.environment)
        test_cluster.require_same_scores(made.environment, monkeypatch)


def settings(folder: Path, setting: str, *others: str) -> Path:
    """A file of settings with an archive of our code and Python, as docs/how-to says.

    Args:
        folder: Where both are made.
        setting: By which the cluster is told of archives.
        others: Lines beside.
    """
    archive = folder / "nights.tar.gz"
    _pack(archive)
    file = folder / "spark.properties"
    lines = [
        f"{setting} {archive}#nights",
        "spark.pyspark.python ../nights/.venv/bin/python",
        "spark.executorEnv.PYTHONPATH ../nights",
        *others,
    ]
    file.write_text("\n".join(lines))
    return file


def _pack(archive: Path) -> None:
    """All but the libraries, of which there are gigabytes: the archive says where they lie."""
    own = Path(sys.prefix)
    libraries = Path("lib", f"python3.{sys.version_info.minor}", "site-packages")
    here = archive.parent / "libraries.pth"
    here.write_text(str(own / libraries))
    with tarfile.open(archive, "w:gz") as packed:
        for package in version._PACKAGES:
            packed.add(ROOT / package, package)
        for name in ("bin/python", "bin/python3", "pyvenv.cfg"):
            packed.add(own / name, f".venv/{name}")
        packed.add(here, f".venv/{libraries / here.name}")


def require_all_of_it_from_the_archive(environment: Environment) -> None:
    """Ask each executor where its Python and our code lie."""

    # Inside, because executors have no tests, from which it could be imported.
    def places(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from jobs import version

        for _ in batches:
            told = {"interpreter": [sys.executable], "code": [version.__file__]}
            yield pa.RecordBatch.from_pydict(told)

    asked = connect(environment).range(0, 4, numPartitions=4)
    answers = asked.mapInArrow(places, "interpreter string, code string").collect()
    assert len(answers) == 4
    for interpreter, code in answers:
        assert Path(interpreter).parts[-4:] == ("nights", ".venv", "bin", "python")
        assert Path(code).parts[-3:] == ("nights", "jobs", "version.py")
        assert not Path(code).is_relative_to(ROOT)
