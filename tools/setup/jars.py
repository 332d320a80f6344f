"""The JARs that Spark's server has on its class path, so that no start resolves anything."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tools.setup.console import VENV, SetupError, run, say, step
from tools.setup.machine import java_program
from tools.setup.proxy import java_options


@dataclass(frozen=True, kw_only=True)
class Jars:
    """Some JARs with what they depend on, pinned in a lock of their own."""

    what: str
    """Whose they are, as a step of set-up says it."""
    lock: Path
    """Maven coordinates and SHA-256, one JAR a line."""
    folder: Path
    """Where they lie."""
    roots: tuple[str, ...]
    """How the coordinates begin from which all others follow."""
    excluded: str
    """What they also depend on, which is not wanted, or which Spark's own JARs already hold."""

    def pins(self) -> dict[str, tuple[str, str]]:
        """Per file name: Maven coordinates and SHA-256, as the lock has them."""
        pinned = {}
        for line in self.lock.read_text().splitlines():
            coordinates, _, sha256 = line.partition(" --hash=sha256:")
            group, artifact, version = coordinates.split(":")
            pinned[f"{group}_{artifact}-{version}.jar"] = (coordinates, sha256)
        return pinned

    def wrong(self, folder: Path) -> list[str]:
        """File names that are missing from the folder, or have another SHA-256."""
        expected = {name: sha256 for name, (_, sha256) in self.pins().items()}
        return [name for name, sha256 in expected.items() if _sha256(folder / name) != sha256]

    def make(self) -> None:
        """Fetch the JARs that are missing or not what the lock says.

        Raises:
            SetupError: they cannot be had, or have another SHA-256.
        """
        if self.wrong(self.folder):
            with step(f"fetching {self.what} JARs"):
                self._fetch()
        for path in self.folder.iterdir():
            if path.name not in self.pins():
                path.unlink()

    def _fetch(self) -> None:
        with tempfile.TemporaryDirectory(prefix="nightshift-ivy-") as scratch:
            fetched = self._resolve(Path(scratch))
            unexpected = ", ".join(self.wrong(fetched))
            if unexpected:
                raise SetupError(
                    f"Not fetched, or not with the SHA-256 that tools/setup/{self.lock.name} pins: "
                    f"{unexpected}."
                )
            self.folder.mkdir(exist_ok=True)
            for name in self.pins():
                # Under another name first: an interrupted copy is never taken for the JAR.
                part = self.folder / f"{name}.part"
                shutil.copyfile(str(fetched / name), str(part))
                part.replace(self.folder / name)

    def _resolve(self, scratch: Path) -> Path:
        """Let Spark's own Ivy fetch them; the folder that holds them.

        A half-filled Maven folder at home would make it fail: hence its own.
        """
        # A program to run is asked for; this one does nothing.
        nothing = scratch / "nothing.py"
        nothing.touch()
        spark = _spark()
        wanted = [coordinates for coordinates, _ in self.pins().values()]
        asked = [one for one in wanted if one.startswith(self.roots)]
        # What a person says stands last, where Java takes it.
        given = os.environ.get("SPARK_SUBMIT_OPTS", "")
        options = [f"-Duser.home={scratch}", *java_options(), given]
        fresh = {
            "SPARK_HOME": str(spark),
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_SUBMIT_OPTS": " ".join(options),
            # Otherwise it asks for the address of this machine's name, which not every name has.
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        command = [str(spark / "bin" / "spark-submit"), "--master", "local[1]"]
        command += ["--conf", f"spark.jars.ivy={scratch}/ivy"]
        command += ["--conf", "spark.ui.enabled=false"]
        command += ["--packages", ",".join(asked), "--exclude-packages", self.excluded]
        run([*command, str(nothing)], env=fresh)
        return scratch / "ivy" / "jars"


_HERE = Path(__file__).parent
DELTA = Jars(
    what="Delta's",
    lock=_HERE / "delta_jars.lock",
    folder=VENV / "jars" / "delta",
    roots=("io.delta:delta-spark_",),
    excluded="org.*:*,com.*:*,commons-*:*,javax.*:*,io.airlift:*",
)
S3 = Jars(
    what="S3's",
    lock=_HERE / "s3_jars.lock",
    folder=VENV / "jars" / "s3",
    roots=(
        "org.apache.hadoop:hadoop-aws:",
        # What Hadoop uses of Amazon's SDK, instead of all of it: 13 MB, and not 680.
        "software.amazon.awssdk:apache-client:",
        "software.amazon.awssdk:netty-nio-client:",
        "software.amazon.awssdk:s3:",
        "software.amazon.awssdk:s3-transfer-manager:",
        "software.amazon.awssdk:sts:",
    ),
    excluded=(
        "software.amazon.awssdk:bundle,io.netty:*,org.slf4j:*,commons-*:*,com.google.*:*,"
        "com.github.*:*,org.apache.httpcomponents:*"
    ),
)
ALL = (DELTA, S3)
YARN = Jars(
    what="YARN's",
    lock=_HERE / "yarn_jars.lock",
    folder=VENV / "jars" / "yarn",
    roots=("org.apache.hadoop:", "commons-logging:", "org.bouncycastle:"),
    excluded="org.apache.hadoop:hadoop-client-api,org.apache.hadoop:hadoop-client-runtime",
)
"""A cluster for the tests of `make soak`, which fetch it."""
OWN = VENV / "jars" / "own" / "local-files.jar"
"""Compiled here from `LocalFiles.java`."""
_OWN_SOURCE = _HERE / "LocalFiles.java"
_COMPILER = ("-m", "jdk.compiler/com.sun.tools.javac.Main")
"""Part of most Javas, also where there is no program `javac`."""
_OLDEST_JAVA = "17"
_ANY_TIME = (1980, 1, 1, 0, 0, 0)
"""The first that a ZIP file can tell."""


def make() -> None:
    """Fetch the JARs that are missing or not what their locks say.

    Raises:
        SetupError: they cannot be had, or have another SHA-256.
    """
    (VENV / "jars").mkdir(exist_ok=True)
    for jars in ALL:
        jars.make()
    _forget_others()
    try:
        _compile()
    except SetupError as error:
        say(f"setup: not compiled, so Spark runs `chmod` for each file that it writes: {error}")


def _forget_others() -> None:
    """Delete what lies beside them, such as JARs of an older version of this file."""
    known = [*(jars.folder for jars in (*ALL, YARN)), OWN.parent]
    for path in (VENV / "jars").iterdir():
        if path.is_dir() and path not in known:
            shutil.rmtree(path)
        elif path not in known:
            path.unlink()


def _compile() -> None:
    OWN.unlink(missing_ok=True)
    OWN.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nightshift-java-") as scratch:
        hadoop = sorted((_spark() / "jars").glob("hadoop-client-*.jar"))
        against = ("--release", _OLDEST_JAVA, "-cp", os.pathsep.join(map(str, hadoop)))
        run([java_program(), *_COMPILER, "-proc:none", *against, "-d", scratch, _OWN_SOURCE])
        unfinished = OWN.with_suffix(".part")
        with zipfile.ZipFile(unfinished, "w") as jar:
            for made in sorted(Path(scratch).rglob("*.class")):
                name = made.relative_to(scratch).as_posix()
                jar.writestr(zipfile.ZipInfo(name, _ANY_TIME), made.read_bytes())
        unfinished.replace(OWN)


def _spark() -> Path:
    return next(VENV.glob("lib/python*/site-packages/pyspark"))


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
