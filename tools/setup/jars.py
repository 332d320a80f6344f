"""Delta's JARs, which Spark's server has on its class path so that no start resolves anything."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from tools.setup.console import VENV, SetupError, run, step

FOLDER = VENV / "jars"
_LOCK = Path(__file__).with_name("jars.lock")
_ROOT_ARTIFACT = "io.delta:delta-spark_"
_SPARK_HAS = "org.*:*,com.*:*,commons-*:*,javax.*:*,io.airlift:*"
"""What Delta also depends on, which Spark's own JARs already hold."""


def pins() -> dict[str, tuple[str, str]]:
    """Per file name: Maven coordinates and SHA-256, as jars.lock has them."""
    found = {}
    for line in _LOCK.read_text().splitlines():
        coordinates, _, sha256 = line.partition(" --hash=sha256:")
        group, artifact, version = coordinates.split(":")
        found[f"{group}_{artifact}-{version}.jar"] = (coordinates, sha256)
    return found


def make() -> None:
    """Fetch the JARs that are missing or not what jars.lock says.

    Raises:
        SetupError: they cannot be had, or have another SHA-256.
    """
    if wrong(FOLDER):
        with step("fetching Delta's JARs"):
            _fetch()
    for path in FOLDER.iterdir():
        if path.name not in pins():
            path.unlink()


def wrong(folder: Path) -> list[str]:
    """File names that are missing from the folder, or have another SHA-256."""
    return [
        name
        for name, (_, sha256) in pins().items()
        if not (folder / name).exists() or _sha256(folder / name) != sha256
    ]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fetch() -> None:
    with tempfile.TemporaryDirectory(prefix="nightshift-ivy-") as scratch:
        fetched = _resolve(Path(scratch))
        unexpected = ", ".join(wrong(fetched))
        if unexpected:
            raise SetupError(
                "Not fetched, or not with the SHA-256 that tools/setup/jars.lock pins: "
                f"{unexpected}."
            )
        FOLDER.mkdir(exist_ok=True)
        for name in pins():
            part = FOLDER / f"{name}.part"
            shutil.copyfile(str(fetched / name), str(part))
            part.replace(FOLDER / name)


def _resolve(scratch: Path) -> Path:
    """Let Spark's own Ivy fetch them; the folder that holds them.

    A half-filled Maven folder at home would make it fail: hence its own.
    """
    nothing = scratch / "nothing.py"
    nothing.touch()
    spark = next(VENV.glob("lib/python*/site-packages/pyspark"))
    delta = next(
        coordinates for coordinates, _ in pins().values() if coordinates.startswith(_ROOT_ARTIFACT)
    )
    fresh = {
        "SPARK_HOME": str(spark),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_SUBMIT_OPTS": f"-Duser.home={scratch}",
    }
    conf = [
        "--master",
        "local[1]",
        "--conf",
        f"spark.jars.ivy={scratch}/ivy",
        "--conf",
        "spark.ui.enabled=false",
    ]
    run(
        [
            str(spark / "bin" / "spark-submit"),
            *conf,
            "--packages",
            delta,
            "--exclude-packages",
            _SPARK_HAS,
            str(nothing),
        ],
        env=fresh,
    )
    return scratch / "ivy" / "jars"
