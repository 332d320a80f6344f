"""What each library says of an object store, in plain words."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from mlflow.exceptions import MlflowException

from jobs.lake.store_faults import explain_store_fault, what_store_says
from jobs.night import explain
from pipelines.errors import NightshiftError, Refused
from pipelines.places import ENDPOINT

_OF_DELTA = (
    "Kernel error -> Generic S3 error\n \x1b[31m↳\x1b[0m Error performing GET http://s/b/k in 1ms "
    "- Server returned non-2xx status code\n \x1b[31m↳\x1b[0m 403 Forbidden\n"
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Not for you'
    "</Message><StringToSign>AWS4-HMAC</StringToSign></Error>"
)
_OF_SPARK = (
    "[CONNECT] software.amazon.awssdk.core.exception.SdkClientException: Unable to load\n"
    "JVM stacktrace:\n at org.apache.Thing"
)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(_OF_DELTA), "403 Forbidden Not for you."),
        (OSError("When listing: AWS Error NETWORK_CONNECTION: refused"), "refused."),
        (RuntimeError(_OF_SPARK), "Unable to load."),
        (EndpointConnectionError(endpoint_url="http://s"), 'endpoint URL: "http://s".'),
        (ClientError({"Error": {"Code": "SlowDown", "Message": "slow"}}, "PutObject"), "slow."),
    ],
)
def test_every_library_is_understood(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://store:9000")
    told = what_store_says(error)
    assert told is not None and told.endswith(says)
    assert "\n" not in told and "\x1b" not in told and "AWS4" not in told and "Thing" not in told
    fault = explain_store_fault(error)
    assert str(fault).startswith("The object store at http://store:9000 could not be read")
    assert "run it again" in str(fault)


def test_a_cause_below_another_error_counts() -> None:
    error = RuntimeError("the table cannot be opened")
    error.__cause__ = OSError("Generic S3 error: away")
    assert what_store_says(error) == "Generic S3 error: away."


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/home/x"), "device: '/home/x'."),
        (OSError(errno.EROFS, "Read-only file system", "/home/x"), "system: '/home/x'."),
        (RuntimeError("External: Unable to copy data: No space left on device"), "on device."),
        (RuntimeError("(sqlite3.Error) database or disk is full\n[SQL: X]"), "[SQL: X]."),
    ],
)
def test_a_full_disk_is_told_with_the_way_out_and_no_traceback(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = explain(error)
    assert code == NightshiftError.exit_code
    assert message.startswith("A disk is full, or may only be read: ")
    assert f"{says} Nothing was published by halves: make room" in message
    assert capsys.readouterr().err == f"Fault: {message}\n"


def test_a_full_disk_is_told_with_the_room_on_each(tmp_path: Path) -> None:
    # As delta-rs says it: of no place.
    error = RuntimeError("Unable to copy data to file: No space left on device (os error 28)")
    other = Path("/dev/shm")
    variables = {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_LAKE": str(other / "no" / "lake")}
    _, message = explain(error, variables)
    *_, last = message.partition(" Free: ")
    assert re.match(rf"\d+ MB at {other}/no/lake, \d+ MB at {tmp_path}\b", last)
    stored = {**variables, "NIGHTSHIFT_LAKE": "s3://bucket/lake"}
    _, message = explain(error, stored)
    assert "s3://" not in message


@pytest.mark.parametrize(
    "error",
    [OSError("No space left on device"), Refused("Generic S3 error"), NightshiftError("AWS Error")],
)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert explain_store_fault(error) is None


def test_a_commit_that_is_cut_off_is_named_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "lake" / "toy" / "readings"
    write_deltalake(str(table), pa.table({"number": [1]}))
    commit = table / "_delta_log" / f"{0:020}.json"
    commit.write_text(commit.read_text()[:-20])
    with pytest.raises(DeltaError) as error:
        DeltaTable(str(table))
    code, message = explain(error.value, {"NIGHTSHIFT_LAKE": str(tmp_path / "lake")})
    assert code == NightshiftError.exit_code
    assert f"The log of a table is broken: {commit} is cut off" in message
    assert "delete it" in message
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "is_made_anew"),
    [
        ("toy/readings", True),
        ("toy/predictions", False),
        ("ops/model_events", False),
    ],
)
def test_a_folder_that_nothing_makes_anew_is_not_to_be_deleted(
    tmp_path: Path, table: str, *, is_made_anew: bool
) -> None:
    place = tmp_path / "lake" / table
    write_deltalake(str(place), pa.table({"number": [1]}))
    (place / "_delta_log" / f"{0:020}.json").write_text("{")
    error = DeltaError("Kernel error: Json error: Truncated record")
    _, message = explain(error, {"NIGHTSHIFT_LAKE": str(tmp_path / "lake")})
    assert ("without one delete the folder" in message) == is_made_anew
    assert ("so do not delete it" in message) != is_made_anew


def test_an_error_is_told_as_it_is_where_the_lake_cannot_be_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(lake: str) -> str:
        raise OSError("the store is away")

    monkeypatch.setattr("jobs.lake.log.broken", away)
    error = DeltaError("Kernel error: Json error: Truncated record")
    code, message = explain(error, {"NIGHTSHIFT_LAKE": str(tmp_path)})
    assert code == NightshiftError.exit_code
    assert message == "DeltaError: Kernel error: Json error: Truncated record"


_DATABASE_AWAY = '(psycopg.OperationalError) connection to server at "db" failed\n[SQL: X]'


_DATABASE_ENDS = (
    "(psycopg.errors.AdminShutdown) terminating connection due to administrator command"
)
_STANDBY = (
    "(raised as a result of Query-invoked autoflush)\n(psycopg.errors.ReadOnlySqlTransaction) "
    "cannot execute INSERT in a read-only transaction"
)


@pytest.mark.parametrize(
    "said",
    [
        "API request to endpoint /x failed: 401 != 200",
        _DATABASE_AWAY,
        _DATABASE_ENDS,
        _STANDBY,
    ],
)
def test_an_mlflow_that_is_away_or_refuses_is_told_with_the_way_out_and_no_traceback(
    said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RuntimeError("the night failed")
    error.__cause__ = MlflowException(said)
    variables = {"MLFLOW_TRACKING_URI": "http://kim:hidden@models:5000"}
    code, message = explain(error, variables)
    assert code == NightshiftError.exit_code
    assert message.startswith("MLflow at http://")
    assert "models:5000 is away, or refuses: " in message
    assert " ".join(said.split()) in message
    assert "run it again" in message
    assert "hidden" not in message
    assert capsys.readouterr().err == f"Fault: {message}\n"


def test_what_else_mlflow_says_is_told_as_a_fault_of_ours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, message = explain(MlflowException("Invalid parameter value"))
    assert message == "MlflowException: Invalid parameter value"
    assert "MlflowException" in capsys.readouterr().err
