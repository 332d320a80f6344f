"""A store that only a proxy reaches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs.lake.file_systems import file_system
from pipelines import places
from pipelines.environment import ROOT
from tests import proxy
from tests.object_store.conftest import ObjectStore

_NOWHERE = "nobodys-store:9000"
"""No name service knows it: who reaches it has asked the proxy."""
_BY_PYTHON = """
import sys

from pipelines import places
from pipelines.environment import Environment

# First, as in every command: Arrow looks at variables when it is imported.
Environment.read()

import boto3
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from jobs.lake.file_systems import file_system

bucket = sys.argv[1]
file = places.place(f"s3://{bucket}/file")
file.write_bytes(b"by s3fs")
assert file.read_bytes() == b"by s3fs"
write_deltalake(f"s3://{bucket}/table", pa.table({"a": [1]}))
assert DeltaTable(f"s3://{bucket}/table").version() == 0
store, path = file_system(f"s3://{bucket}/file")
assert store.open_input_file(path).read() == b"by s3fs"
assert boto3.client("s3").list_buckets()["Buckets"]
"""
_BY_SPARK = """
import sys

from jobs.spark.server import running_server
from jobs.spark.session import connect, disconnect
from pipelines.environment import Environment
from pipelines.places import place

bucket = sys.argv[1]
place(f"s3://{bucket}/file").write_bytes(b"by s3fs")
with running_server(Environment.read(), port=0) as environment:
    spark = connect(environment)
    assert [row.value for row in spark.read.text(f"s3://{bucket}/file").collect()] == ["by s3fs"]
    spark.range(3).write.parquet(f"s3://{bucket}/written")
    disconnect(environment)
"""
_BY_SPARK_ALONE = """
from contextlib import suppress

from pyspark.errors import PySparkException

from jobs.spark.server import running_server
from jobs.spark.session import connect, disconnect
from pipelines.environment import Environment

with running_server(Environment.read(), port=0) as environment:
    with suppress(PySparkException):
        connect(environment).read.text("s3://nights/file").collect()
    disconnect(environment)
"""


@pytest.fixture
def variables(store: ObjectStore, tmp_path: Path) -> dict[str, str]:
    """Of a process that has a proxy: the store of the tests, which serves the name of another."""
    return {
        **proxy.without_proxy(dict(os.environ)),
        "http_proxy": store.address,
        places.ENDPOINT: f"http://{_NOWHERE}",
        "NIGHTSHIFT_HOME": str(tmp_path / "home"),
        "NIGHTSHIFT_LAKE": "s3://nobody/lake",
        "NIGHTSHIFT_SPARK_MEMORY": "1g",
    }


def _run(program: str, variables: Mapping[str, str], *words: str) -> None:
    command = [sys.executable, "-c", program, *words]
    subprocess.run(command, cwd=ROOT, env=variables, check=True)


@pytest.mark.parametrize("program", [_BY_PYTHON, _BY_SPARK], ids=["Python", "Spark"])
def test_every_library_goes_through_it(
    program: str, variables: dict[str, str], store: ObjectStore
) -> None:
    _run(program, variables, store.new_bucket())


def test_arrow_asks_it_for_a_tunnel_to_a_store_by_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_proxy(monkeypatch)
    monkeypatch.setenv(places.ENDPOINT, "https://store.invalid")
    with proxy.dead_end() as world:
        monkeypatch.setenv("HTTPS_PROXY", world.address)
        system, path = file_system("s3://nights/file")
        with pytest.raises(OSError, match="CONNECT tunnel failed"):
            system.get_file_info(path)
    assert set(world.asked) == {"CONNECT store.invalid:443 HTTP/1.1"}


def test_spark_asks_it_for_a_tunnel_too(variables: dict[str, str], tmp_path: Path) -> None:
    once = tmp_path / "spark.properties"
    once.write_text("spark.hadoop.fs.s3a.attempts.maximum=1\nspark.hadoop.fs.s3a.retry.limit=0\n")
    with proxy.dead_end() as world:
        told = {
            **proxy.without_proxy(variables),
            "https_proxy": world.address,
            places.ENDPOINT: "https://store.invalid",
            "NIGHTSHIFT_SPARK_PROPERTIES": str(once),
        }
        _run(_BY_SPARK_ALONE, told)
    assert set(world.asked) == {"CONNECT store.invalid:443 HTTP/1.1"}


def test_arrow_asks_none_for_a_store_to_which_none_leads(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = store.new_bucket()
    _without_proxy(monkeypatch)
    with proxy.dead_end() as world:
        monkeypatch.setenv("http_proxy", world.address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        system, path = file_system(f"s3://{bucket}/file")
        system.get_file_info(path)
    assert world.asked == []


def _without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = proxy.without_proxy(dict(os.environ))
    for name in os.environ.keys() - kept.keys():
        monkeypatch.delenv(name)
