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
    pinned = {}
    for line in _LOCK.read_text().splitlines():
        coordinates, _, sha256 = line.partition(" --hash=sha256:")
        group, artifact, version = coordinates.split(":")
        pinned[f"{group}_{artifact}-{version}.jar"] = (coordinates, sha256)
    return pinned


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
    expected = {name: sha256 for name, (_, sha256) in pins().items()}
    return [name for name, sha256 in expected.items() if _sha256(folder / name) != sha256]


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


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
            # Under another name first: an interrupted copy is never taken for the JAR.
            part = FOLDER / f"{name}.part"
            shutil.copyfile(str(fetched / name), str(part))
            part.replace(FOLDER / name)


def _resolve(scratch: Path) -> Path:
    """Let Spark's own Ivy fetch them; the folder that holds them.

    A half-filled Maven folder at home would make it fail: hence its own.
    """
    # A program to run is asked for; this one does nothing.
    nothing = scratch / "nothing.py"
    nothing.touch()
    spark = next(VENV.glob("lib/python*/site-packages/pyspark"))
    wanted = [coordinates for coordinates, _ in pins().values()]
    delta = next(one for one in wanted if one.startswith(_ROOT_ARTIFACT))
    fresh = {
        "SPARK_HOME": str(spark),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_SUBMIT_OPTS": f"-Duser.home={scratch}",
    }
    command = [str(spark / "bin" / "spark-submit"), "--master", "local[1]"]
    command += ["--conf", f"spark.jars.ivy={scratch}/ivy"]
    command += ["--conf", "spark.ui.enabled=false"]
    command += ["--packages", delta, "--exclude-packages", _SPARK_HAS]
    run([*command, str(nothing)], env=fresh)
    return scratch / "ivy" / "jars"
