"""`nightshift executor`: what Spark tells the image of an executor becomes Java's command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.spark import executor
from jobs.spark.java import java_home
from jobs.spark.server import spark_home
from pipelines.environment import ROOT
from pipelines.errors import UsageError

_TOLD = {
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@10.0.0.7:41000",
    "SPARK_EXECUTOR_ID": "3",
    "SPARK_EXECUTOR_CORES": "2",
    "SPARK_EXECUTOR_MEMORY": "3072m",
    "SPARK_APPLICATION_ID": "spark-1",
    "SPARK_EXECUTOR_POD_IP": "10.0.0.9",
    "SPARK_RESOURCE_PROFILE_ID": "0",
    "SPARK_EXECUTOR_POD_NAME": "nightshift-exec-3",
}


def test_what_spark_tells_is_said_to_java() -> None:
    of_java = [f"-Done.{number}=a b" for number in range(12)]
    numbered = {f"SPARK_JAVA_OPT_{place}": one for place, one in enumerate(of_java)}
    home = {"JAVA_HOME": str(java_home())}
    java, *said = executor.command({**_TOLD, **numbered, **home})
    assert java == str(java_home() / "bin" / "java")
    # By their numbers: of two of one name the later one counts.
    assert said[:12] == of_java
    assert said[12:16] == ["-Xms3072m", "-Xmx3072m", "-cp", f"{spark_home()}/jars/*"]
    assert said[16].endswith("KubernetesExecutorBackend")
    options, values = said[17::2], said[18::2]
    assert dict(zip(options, values, strict=True)) == {
        "--driver-url": "spark://CoarseGrainedScheduler@10.0.0.7:41000",
        "--executor-id": "3",
        "--cores": "2",
        "--app-id": "spark-1",
        "--hostname": "10.0.0.9",
        "--resourceProfileId": "0",
        "--podName": "nightshift-exec-3",
    }


def test_classes_that_a_site_names_come_first_and_those_beside_spark_last() -> None:
    places = {
        "SPARK_CONF_DIR": "/conf",
        "HADOOP_CONF_DIR": "/hadoop",
        "SPARK_CLASSPATH": "/own.jar",
        "SPARK_DIST_CLASSPATH": "/dist.jar",
    }
    said = executor.command({**os.environ, **_TOLD, **places})
    path = said[said.index("-cp") + 1]
    assert path == f"/conf:/hadoop:/own.jar:{spark_home()}/jars/*:/dist.jar"


@pytest.mark.parametrize("lacking", _TOLD)
def test_who_starts_it_by_hand_is_told_whom_it_is_for(lacking: str) -> None:
    told = {name: value for name, value in _TOLD.items() if name != lacking}
    with pytest.raises(UsageError, match=f"is for Spark.* {lacking} is not set"):
        executor.command({**os.environ, **told})


def test_it_works_in_a_folder_of_its_own(tmp_path: Path) -> None:
    # The image's may be read-only, and Spark puts JARs there: Java here only says where it is.
    home = tmp_path / "java"
    (home / "bin").mkdir(parents=True)
    java = home / "bin" / "java"
    java.write_text('#!/bin/sh\n[ "$1" = -version ] && echo \'version "17.0.1"\' >&2 || pwd\n')
    java.chmod(0o755)
    own = {"JAVA_HOME": str(home), "TMPDIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", "executor"],
        env={**os.environ, **_TOLD, **own},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert Path(ended.stdout.strip()).parent == tmp_path
