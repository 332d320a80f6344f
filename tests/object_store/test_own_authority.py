"""A store whose certificate is of an authority of the site's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from ssl import create_default_context

import pytest

from jobs.services import processes
from jobs.spark import trust
from jobs.spark.java import java_home
from pipelines import places
from pipelines.environment import ROOT
from pipelines.errors import NightshiftError
from tests import certificates
from tests.conftest import free_port

_SECONDS = 60
_USE = """
from pipelines import places
from pipelines.environment import Environment

# First, as in every command: Arrow looks at the variable when it is imported.
Environment.read()

import boto3
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from pyarrow.fs import FileSystem

file = places.place("s3://nights/file")
file.write_bytes(b"by s3fs")
assert file.read_bytes() == b"by s3fs"
write_deltalake("s3://nights/table", pa.table({"a": [1]}))
assert DeltaTable("s3://nights/table").version() == 0
store, path = FileSystem.from_uri("s3://nights/file")
assert store.open_input_file(path).read() == b"by s3fs"
assert boto3.client("s3").list_buckets()["Buckets"]
"""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return certificates.write(tmp_path)


@pytest.fixture
def address(certificate: Path) -> Iterator[str]:
    """Of a store that shows it, with the bucket 'nights'."""
    port = free_port()
    words = ["-m", "tests.object_store.server", str(port), "127.0.0.1", str(certificate)]
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT)
    try:
        deadline = time.monotonic() + _SECONDS
        while not processes.answers(port):
            assert process.poll() is None and time.monotonic() < deadline, "moto did not start"
            time.sleep(0.05)
        made = urllib.request.Request(f"https://127.0.0.1:{port}/nights", method="PUT")
        context = create_default_context(cafile=certificate)
        urllib.request.urlopen(made, timeout=_SECONDS, context=context).close()
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=_SECONDS)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_either_variable_has_every_library_trust_it(
    variable: str, address: str, certificate: Path, tmp_path: Path
) -> None:
    names = ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
    others = {name: value for name, value in os.environ.items() if name not in names}
    variables = {
        **others,
        variable: str(certificate),
        places.ENDPOINT: address,
        "AWS_ACCESS_KEY_ID": "of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
        "NIGHTSHIFT_HOME": str(tmp_path / "home"),
        "NIGHTSHIFT_LAKE": "s3://nights/lake",
    }
    subprocess.run(
        [sys.executable, "-c", _USE],
        cwd=ROOT,
        env=variables,
        check=True,
    )


def test_java_reads_the_authorities_too(certificate: Path, tmp_path: Path) -> None:
    file = tmp_path / "trusted.p12"
    variables = {"SSL_CERT_FILE": str(certificate)}
    trust.write(file, variables)
    told = dict(one.split("=") for one in trust.options(file, variables))
    listed = subprocess.run(
        [
            str(java_home() / "bin" / "keytool"),
            *("-list", "-keystore", told["-Djavax.net.ssl.trustStore"]),
            *("-storetype", told["-Djavax.net.ssl.trustStoreType"]),
            *("-storepass", told["-Djavax.net.ssl.trustStorePassword"]),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "contains 2 entries" in listed.stdout
    assert "trustedCertEntry" in listed.stdout


def test_a_file_without_certificates_is_named(tmp_path: Path) -> None:
    file = tmp_path / "empty.pem"
    file.touch()
    with pytest.raises(NightshiftError, match=r"empty\.pem .*holds no certificates"):
        trust.write(tmp_path / "trusted.p12", {"AWS_CA_BUNDLE": str(file)})


def test_without_such_a_file_java_is_told_nothing(tmp_path: Path) -> None:
    file = tmp_path / "trusted.p12"
    trust.write(file, {})
    assert not file.exists()
    assert trust.options(file, {}) == []
