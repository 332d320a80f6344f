"""A stage ends as an exit code and a row of ops.stage_runs, whatever happens inside it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from multiprocessing.synchronize import Event as Signal
from pathlib import Path
from typing import Any

import pytest
from pyspark.errors import PySparkException

from jobs import night, outcome
from jobs.lake import ops
from jobs.lake.commits import publish
from jobs.planning.passes import Pass
from jobs.services import child, in_turn
from jobs.services.stage_client import Ended
from pipelines.catalog import pipeline
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import (
    AwaitsApproval,
    AwaitsTurn,
    Failure,
    GateRefused,
    NightshiftError,
    NotLanded,
    Refused,
    UsageError,
)
from pipelines.model import Promotion
from pipelines.run import Run
from pipelines.stages import STAGES, Stage, select, stage
from tests.jobs.lake.test_commits import staged
from tests.jobs.records import move_alias, settle

Function = Callable[[Run], dict[str, object]]
FAILURE = Failure(
    table="flights.flights",
    expectation="expect_column_values_to_not_be_null",
    column="arr_delay",
    says="40 % null",
    count=4,
)
PROMOTED: dict[str, object] = {"event": "promoted", "model_version": "4", "reason": "Better."}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    return Run(
        pipeline=pipeline("flights"),
        days=Days.of(date(2013, 1, 5)),
        environment=environment,
        run_id="manual__r1",
    ).at(stage("ingest"))


def _giving(metrics: dict[str, object]) -> Function:
    return lambda run: metrics


def _raising(error: Exception) -> Function:
    def fail(run: Run) -> dict[str, object]:
        raise error

    return fail


def test_an_attempt_whose_quarantine_alone_was_published_does_not_lock_out_the_next(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[int] = []

    def refuse(attempt: Run) -> dict[str, object]:
        attempts.append(attempt.attempt)
        publish(attempt, "flights_quarantine", staged(attempt, {}, "flights_quarantine"))
        raise Refused("too many bad rows")

    monkeypatch.setattr(night, "_function", lambda stage: refuse)
    found = [night.perform(run.to_json()) for _ in range(2)]
    assert found == [1, 1]
    assert attempts == [1, 2]


@pytest.mark.parametrize(
    ("days", "size", "many"),
    [
        (1, 100, False),
        (4, 100, False),
        (5, 100, True),
        (1, 5_000_000, True),
    ],
)
def test_spark_plans_for_the_rows_that_a_run_has(
    run: Run, monkeypatch: pytest.MonkeyPatch, days: int, size: int, *, many: bool
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(night, "plan_for", lambda _, *, many_rows: told.append(many_rows))
    monkeypatch.setattr(night, "_function", lambda _: _giving({}))
    longer = replace(
        run,
        days=Days(
            run.days.first,
            run.days.first + timedelta(days=days - 1),
        ),
    )
    file = run.environment.landing / "flights" / "flights" / f"{run.days.first}.csv"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * size)
    assert night.perform(longer.to_json()) == 0
    assert told == [many]


def test_a_stage_that_is_done_is_recorded_with_its_metrics(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics: dict[str, object] = {"rows": 3, "tables": {"flights": 3}}
    monkeypatch.setattr(night, "_function", lambda stage: _giving(metrics))
    assert night.perform(run.to_json()) == 0
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    about = (row["run_id"], row["stage"], row["status"], row["first_day"])
    assert about == ("manual__r1", "ingest", "done", date(2013, 1, 5))
    assert row["metrics"] == '{"rows": 3, "tables": {"flights": 3}}'
    assert row["code_version"]


def test_a_stage_whose_end_cannot_be_recorded_ends_with_what_the_store_says(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append = ops.append

    def away_at_first(environment: Environment, name: str, rows: Any) -> None:
        if rows[0]["status"] == "done":
            raise OSError("Generic S3 error: 503 Slow Down")
        append(environment, name, rows)

    monkeypatch.setattr(night, "_function", lambda stage: _giving({}))
    monkeypatch.setattr(ops, "append", away_at_first)
    assert night.perform(run.to_json()) == 3
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    printed = capsys.readouterr().err
    assert row["status"] == "failed"
    assert row["error"].startswith("The object store could not be read or written: Generic S3")
    assert row["error"] in printed
    assert "Traceback" not in printed


def test_a_stage_is_looked_at_where_the_run_asks_for_it_and_only_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "_function", lambda stage: _giving({}))
    assert night.perform(run.to_json()) == 0
    assert not run.profiles.exists()
    assert night.perform(replace(run, profile=True).to_json()) == 0
    (file,) = run.profiles.iterdir()
    assert file.name == "ingest_2013-01-05..2013-01-05.json"
    assert json.loads(file.read_text())["stage"] == "ingest"


def test_what_was_seen_of_a_stage_is_kept_when_it_is_done_again_for_the_same_days(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night, "_function", lambda stage: _giving({}))
    looked_at = replace(run, profile=True)
    codes = [night.perform(looked_at.to_json()) for _ in range(3)]
    assert codes == [0, 0, 0]
    seen = [json.loads(file.read_text()) for file in run.profiles.iterdir()]
    about = {(one["stage"], one["days"]) for one in seen}
    assert about == {("ingest", "2013-01-05")}
    assert len({one["began"] for one in seen}) == 3


@pytest.mark.parametrize(
    ("error", "code", "status", "traceback"),
    [
        (
            GateRefused((FAILURE,), "report.html"),
            1,
            "refused",
            False,
        ),
        (UsageError("no such thing"), 2, "failed", False),
        (NotLanded("1 file(s) have not landed yet"), 4, "not landed", False),
        (AwaitsApproval("One awaits a person"), 5, "awaits approval", False),
        (NightshiftError("Spark is away"), 3, "failed", False),
        (
            PySparkException("[NO_ACTIVE_SESSION] No active Spark session found."),
            3,
            "failed",
            False,
        ),
        (ZeroDivisionError("a bug"), 3, "failed", True),
    ],
)
def test_a_stage_that_fails_ends_with_its_code_and_is_recorded(
    error: Exception,
    code: int,
    status: str,
    traceback: bool,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(night, "_function", lambda stage: _raising(error))
    assert night.perform(run.to_json()) == code
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    printed = capsys.readouterr().err
    assert row["status"] == status
    assert row["error"] in printed
    assert ("Traceback" in printed) is traceback
    details = {"report": "report.html", "failures": [asdict(FAILURE)]}
    assert json.loads(row["metrics"] or "null") == (details if status == "refused" else None)


def test_the_files_that_a_stage_waits_for_are_recorded(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = NotLanded("2 file(s) have not landed yet", "toy/a.csv", "toy/b.csv")
    monkeypatch.setattr(night, "_function", lambda stage: _raising(late))
    assert night.perform(run.to_json()) == NotLanded.exit_code
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    assert json.loads(row["metrics"]) == {"lacking": ["toy/a.csv", "toy/b.csv"]}


@pytest.mark.parametrize("of_our_own", [True, False])
def test_a_clusters_token_is_neither_printed_nor_recorded(
    of_our_own: bool,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = "sc://cluster:15002/;token=SECRET;use_ssl=true"
    remote = replace(run, environment=replace(run.environment, spark_remote=address))
    quoted = f"no answer from {address} with 'Bearer SECRET'"
    error = NightshiftError(quoted) if of_our_own else PySparkException(quoted)
    error.__cause__ = ValueError(f"the token SECRET of {remote} is bad")
    monkeypatch.setattr(night, "_function", lambda stage: _raising(error))
    assert night.perform(remote.to_json()) == 3
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    printed = capsys.readouterr()
    assert "sc://cluster:15002/;token=***;use_ssl=true with 'Bearer ***'" in row["error"]
    assert row["error"] in printed.err
    assert ("the token *** of" in printed.err) is not of_our_own
    assert "SECRET" not in row["error"] + printed.err + printed.out


def test_a_value_that_would_steer_a_terminal_is_printed_as_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steering = "carrier=\x1b[2J\r\u202eUA"
    refused = GateRefused((replace(FAILURE, says=f"unknown: {steering}"),), "report.html")
    for error in (refused, ValueError(steering)):
        _, message = night.explain(error)
        printed = capsys.readouterr().err
        assert r"carrier=\x1b[2J\r\u202eUA" in message
        assert printed.endswith(f"{message}\n")
        assert all(line.isprintable() for line in printed.split("\n"))


def test_a_home_that_its_owner_has_closed_is_told_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = tmp_path.stat().st_uid
    variables = {"NIGHTSHIFT_HOME": str(tmp_path)}
    refused = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "lake"))
    code, _ = night.explain(refused, variables)
    assert (code, "PermissionError" in capsys.readouterr().err) == (3, True), "it is our own"
    # To be somebody else, one would have to be root.
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, message = night.explain(refused, variables)
    assert code == 2
    assert message.startswith(f"NIGHTSHIFT_HOME={tmp_path} belongs to another user (id {owner})")
    assert "PermissionError" not in capsys.readouterr().err


def test_a_home_in_a_folder_that_is_closed_is_told_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    def refuse(path: Path) -> None:
        raise refused

    # To root no folder is closed.
    monkeypatch.setattr(Path, "stat", refuse)
    code, message = night.explain(refused, {"NIGHTSHIFT_HOME": str(tmp_path)})
    assert code == 2
    assert message.startswith(f"NIGHTSHIFT_HOME={tmp_path} cannot be a home (Permission denied).")


def test_a_night_stops_at_the_first_stage_that_does_not_succeed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def refuse_transform(run: Run) -> int:
        done.append(run.doing.name)
        return 1 if run.doing.name == "transform" else 0

    monkeypatch.setattr(night, "_perform_in_server_or_here", refuse_transform)
    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    assert night.run_night(run, STAGES) == 1
    assert done == ["ingest", "check_raw", "transform"]


def test_a_stage_that_is_killed_in_the_stage_server_is_on_record_too(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    monkeypatch.setattr("jobs.services.stage_client.call", lambda *_: 3)
    assert night.run_night(run, select(["train"])) == 3
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    assert (row["stage"], row["status"]) == ("train", "failed")
    assert "its process was killed" in row["error"]
    (message,) = _sent(run)
    assert message["message"] == row["error"]


def test_a_stage_that_has_recorded_why_is_on_record_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(environment: Environment, function: str, argument: Any, environ: object) -> int:
        return night.perform(argument)

    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    monkeypatch.setattr("jobs.services.stage_client.call", child)
    monkeypatch.setattr(night, "_function", lambda stage: _raising(Refused("too few labels")))
    assert night.run_night(run, select(["train"])) == 1
    (row,) = ops.read(run.environment, "stage_runs").to_pylist()
    assert (row["status"], row["error"]) == ("refused", "too few labels")


def test_a_stage_in_the_server_has_the_variables_that_this_shell_sets_for_ranks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}

    def child(
        _: Environment,
        function: str,
        argument: Any,
        environ: dict[str, str],
    ) -> int:
        given.update(environ)
        return 0

    monkeypatch.setenv("HOROVOD_CYCLE_TIME", "3")
    monkeypatch.setenv("HOROVOD_SECRET_KEY", "s3cret")
    monkeypatch.setenv("AWS_PROFILE", "of this shell")
    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    monkeypatch.setattr("jobs.services.stage_client.call", child)
    assert night.run_night(run, select(["train"])) == 0
    assert given["HOROVOD_CYCLE_TIME"] == "3"
    assert not {"HOROVOD_SECRET_KEY", "AWS_PROFILE"} & given.keys()


def test_the_stages_of_a_night_are_done_in_turn_by_one_child_and_its_end_is_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Turns:
        def __init__(self, function: str) -> None:
            asked.append(function)

        def called(self, _: Environment, argument: Any, environ: object) -> Ended:
            asked.append(argument["stage"])
            return Ended(code=0, said="")

        def end(self) -> None:
            asked.append("end")

    monkeypatch.setattr(in_turn, "_Turns", Turns)
    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    assert night.run_night(run, select(["train", "evaluate"]), notify=False) == 0
    assert asked == ["jobs.night:perform_in_turn", "train", "evaluate", "end"]
    assert night.PERFORM_IN_TURN in child.ALLOWED


@pytest.mark.parametrize("remote", [None, "sc://cluster:15002"])
def test_before_a_stage_in_turn_its_session_is_looked_at_and_of_a_cluster_it_has_its_own(
    remote: str | None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    environment = replace(run.environment, spark_remote=remote)
    argument = replace(run, environment=environment).at(stage("train")).to_json()
    monkeypatch.setattr(night, "serve", lambda do: done.append(str(do(argument))))
    monkeypatch.setattr(night, "forget_lost", lambda _: done.append("looked at"))
    monkeypatch.setattr(night, "disconnect", lambda: done.append("ended"))
    monkeypatch.setattr(night, "perform", lambda _: done.append("performed") or 7)
    night.perform_in_turn({})
    expected = ["performed", "ended", "7"] if remote else ["looked at", "performed", "7"]
    assert done == expected


AFTER_TRAINING = ["predict", "check_predictions", "monitor"]


@pytest.mark.parametrize(
    ("codes", "done", "code"),
    [
        ({"train": 1}, ["train", *AFTER_TRAINING], 1),
        ({"train": 3}, ["train", *AFTER_TRAINING], 3),
        ({"evaluate": 3}, ["train", "evaluate", *AFTER_TRAINING], 3),
        ({"train": 3, "predict": 1}, ["train", "predict"], 3),
        ({"train": 1, "monitor": 3}, ["train", *AFTER_TRAINING], 1),
        ({"predict": 1}, ["train", "evaluate", "predict"], 1),
    ],
)
@pytest.mark.parametrize("as_needed", [False, True])
def test_tomorrow_is_scored_without_a_good_training_and_the_night_ends_as_the_training_did(
    codes: dict[str, int],
    done: list[str],
    code: int,
    as_needed: bool,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    performed: list[str] = []

    def perform(run: Run) -> int:
        performed.append(run.doing.name)
        return codes.get(run.doing.name, 0)

    monkeypatch.setattr(night, "_perform_in_server_or_here", perform)
    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    whole = [Pass(days=run.days)]
    monkeypatch.setattr("jobs.planning.passes.of_stage", lambda run, stage, found: whole)
    monkeypatch.setattr("jobs.planning.required.require_made", lambda run, stage, found: None)
    make = night.make_true if as_needed else night.run_night
    # The data stages are not what this is about: they would need files.
    assert make(run, STAGES[5:], notify=False) == code
    assert performed == done
    went_on = "the night went on with the model that serves" in capsys.readouterr().err
    assert went_on is (done[-1] == "monitor" and "monitor" not in codes)


def test_some_stages_alone_end_with_their_own_message(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(night, "_perform_in_server_or_here", lambda run: 1)
    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    for names in (["train"], ["train", "evaluate"]):
        assert night.run_night(run, select(names), notify=False) == 1
    # Airflow shows the last line as the reason.
    assert capsys.readouterr().err == ""


def test_a_night_without_a_good_training_tells_that_alone(
    run: Run, perform_here: Callable[[Mapping[str, Function]], None]
) -> None:
    perform_here({"train": _raising(NightshiftError("rank 1 was killed"))})
    assert night.run_night(run, STAGES) == 3
    (message,) = _sent(run)
    assert (message["event"], message["stage"]) == ("stage_failed", "train")
    assert message["message"] == "rank 1 was killed"


def test_a_stage_that_cannot_be_recorded_ends_with_its_code_and_both_reasons(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse_to_write(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(ops, "append", refuse_to_write)
    monkeypatch.setattr(night, "_function", lambda stage: _raising(Refused("too few labels")))
    began = datetime.now(UTC)
    assert night.perform(run.to_json()) == 1
    told = capsys.readouterr().err
    assert "Refused: too few labels" in told
    assert told.count("No space left on device") == 1
    # That its process was killed is not all that may be.
    notification = outcome.of_stage(run, 1, began)
    assert notification is not None
    assert "a disk is full" in notification.message


def test_the_plan_names_the_tables_that_each_stage_makes_or_judges(run: Run) -> None:
    steps = {
        step.stage.name: step.tables
        for step in night.steps_of(run, select(["predict", "check_predictions", "train"]))
    }
    assert steps == {
        "train": (),
        "predict": ("flights.predictions",),
        "check_predictions": ("flights.predictions",),
    }


@pytest.fixture
def perform_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Function]], None]:
    """Has a night perform the given functions, and nothing at the other stages, without Spark."""

    def use(functions: Mapping[str, Function]) -> None:
        def function_of(stage: Stage) -> Function:
            return functions.get(stage.name, _giving({}))

        monkeypatch.setattr(night, "_function", function_of)

    # Nothing is published here.
    monkeypatch.setattr("jobs.planning.required.require_made", lambda run, stage, found: None)
    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    monkeypatch.setattr(
        night, "_perform_in_server_or_here", lambda run: night.perform(run.to_json())
    )
    return use


def _sent(run: Run) -> list[dict[str, str | None]]:
    """What the night has told, by the channel `log`."""
    file = run.environment.logs / "notifications.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def _promote(run: Run) -> dict[str, object]:
    settle(run, "4")
    return PROMOTED


def test_a_night_tells_that_it_is_done_and_that_a_model_was_promoted(
    run: Run, perform_here: Callable[[Mapping[str, Function]], None]
) -> None:
    perform_here({"ingest": _giving({"rows_staged": 3}), "evaluate": _promote})
    assert night.run_night(run, STAGES) == 0
    promoted, done = _sent(run)
    assert (promoted["event"], promoted["stage"]) == ("model_promoted", "evaluate")
    models = "http://127.0.0.1:8080/nightshift/pages/flights/models"
    said = "flights 2013-01-05: a new model serves. Model 4. Better."
    assert promoted["text"] == f"{said} {models}"
    assert (done["event"], done["stage"], done["run_id"]) == ("night_done", None, "manual__r1")
    summary = r"10 stages in \d+ s, rows 3, model promoted\."
    assert re.fullmatch(summary, str(done["message"]))


def test_a_night_that_awaits_a_person_tells_that_once_and_of_no_failure(
    run: Run,
    perform_here: Callable[[Mapping[str, Function]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def awaits(run: Run) -> dict[str, object]:
        settle(run, "4", "awaiting")
        return {"event": "awaiting", "model_version": "4"}

    none = _raising(AwaitsApproval("No model of 'flights' was in force. One awaits a person."))
    perform_here({"evaluate": awaits, "predict": none})
    assert night.run_night(run, STAGES) == AwaitsApproval.exit_code == 5
    # Run again, it finds the same model.
    perform_here({"predict": none})
    assert night.run_night(replace(run, run_id="r2"), STAGES) == 5
    (told,) = _sent(run)
    assert (told["event"], told["stage"]) == ("model_awaiting", "evaluate")
    recorded = ops.read(run.environment, "stage_runs").to_pylist()
    states = {row["stage"]: row["status"] for row in recorded}
    assert states.pop("predict") == "awaits approval"
    assert set(states.values()) == {"done"}
    assert {"check_predictions", "monitor"}.isdisjoint(states)
    assert "Awaits approval: No model of 'flights' was in force." in capsys.readouterr().err


def test_a_night_again_that_finds_the_verdict_given_tells_only_that_it_is_done(
    run: Run, perform_here: Callable[[Mapping[str, Function]], None]
) -> None:
    perform_here({"evaluate": _promote})
    night.run_night(run, STAGES)
    perform_here({"evaluate": _giving(PROMOTED)})
    for run_id in ("manual__r1", "r2"):
        night.run_night(replace(run, run_id=run_id), STAGES)
    events = [message["event"] for message in _sent(run)]
    assert events == ["model_promoted", "night_done", "night_done", "night_done"]


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (Refused("arr_delay: 40 % null"), "stage_refused"),
        (NotLanded("1 file(s) have not landed yet"), "feed_missing"),
        (UsageError("no such thing"), "stage_failed"),
        (NightshiftError("Spark is away"), "stage_failed"),
        (ZeroDivisionError("a bug"), "stage_failed"),
    ],
)
def test_a_night_tells_which_stage_ended_it_and_why(
    error: Exception,
    event: str,
    run: Run,
    perform_here: Callable[[Mapping[str, Function]], None],
) -> None:
    perform_here({"check_raw": _raising(error)})
    assert night.run_night(run, STAGES) != 0
    (message,) = _sent(run)
    assert (message["event"], message["stage"]) == (event, "check_raw")
    assert message["message"] == night.message_of(error)


def test_nights_that_one_bad_file_stops_tell_of_it_once(
    run: Run, perform_here: Callable[[Mapping[str, Function]], None]
) -> None:
    own: tuple[str, ...] = ()
    for number in range(5, 8):
        day = date(2013, 1, number)
        own = (*own, f"{day}.csv digest")
        perform_here({"check_raw": _raising(GateRefused((FAILURE,), "report.html", own))})
        of_night = replace(run, days=Days.of(day), run_id=f"manual__{day}")
        assert night.run_night(of_night, STAGES) == 1
    (message,) = _sent(run)
    assert message["days"] == "2013-01-05"


@pytest.mark.parametrize("stage", ["evaluate", "monitor"])
@pytest.mark.parametrize("error", [None, Refused("no model is fit to serve")])
def test_a_night_tells_that_nobody_approved_a_model_in_time_however_it_ends(
    stage: str,
    error: Exception | None,
    run: Run,
    perform_here: Callable[[Mapping[str, Function]], None],
) -> None:
    def expires(run: Run) -> dict[str, Any]:
        settle(run, "4", "expired")
        if error:
            raise error
        return {}

    promotion = Promotion(needs_approval=True, approval_hours=48)
    expiring = replace(run, pipeline=replace(run.pipeline, promotion=promotion))
    perform_here({stage: expires})
    assert night.run_night(expiring, STAGES) == (1 if error else 0)
    told = {message["event"]: message for message in _sent(run)}
    assert set(told) == {"approval_expired", "stage_refused" if error else "night_done"}
    expired = told["approval_expired"]
    assert "Model 4: nobody approved within 48 h." in str(expired["message"])


@pytest.mark.parametrize("stage", ["evaluate", "predict"])
@pytest.mark.parametrize("error", [None, Refused("no model is fit to serve")])
def test_a_night_tells_once_that_somebody_moved_the_alias_however_it_ends(
    stage: str,
    error: Exception | None,
    run: Run,
    perform_here: Callable[[Mapping[str, Function]], None],
) -> None:
    def follows(run: Run) -> dict[str, Any]:
        move_alias(run, "1")
        if error:
            raise error
        return {}

    perform_here({stage: follows})
    assert night.run_night(run, STAGES) == (1 if error else 0)
    told = {message["event"]: message for message in _sent(run)}
    assert set(told) == {"alias_moved", "stage_refused" if error else "night_done"}
    assert str(told["alias_moved"]["stage"]) == stage
    assert str(told["alias_moved"]["message"]).startswith("Somebody has moved the alias")


def test_a_night_that_goes_wrong_again_and_again_is_told_once_and_so_is_that_it_is_right_again(
    run: Run, perform_here: Callable[[Mapping[str, Function]], None]
) -> None:
    perform_here({"check_raw": _raising(Refused("arr_delay: 40 % null"))})
    for _ in range(3):
        assert night.run_night(run, STAGES) == 1
    perform_here({})
    for _ in range(2):
        assert night.run_night(run, STAGES) == 0
    events = [message["event"] for message in _sent(run)]
    assert events == ["stage_refused", "night_done", "recovered", "night_done"]


def test_a_stage_that_is_killed_is_told_of_without_a_reason_of_an_earlier_attempt(
    run: Run,
    perform_here: Callable[[Mapping[str, Function]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    perform_here({"ingest": _raising(NightshiftError("earlier"))})
    night.run_night(run, STAGES, notify=False)
    monkeypatch.setattr(night, "_perform_in_server_or_here", lambda run: 3)
    assert night.run_night(run, STAGES) == 3
    (message,) = _sent(run)
    assert message["event"] == "stage_failed"
    assert "its process was killed" in str(message["message"])


def test_a_night_that_cannot_begin_is_told_of_and_fails_as_before(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Run) -> int:
        raise NightshiftError("Spark did not start")

    monkeypatch.setattr("jobs.services.stage_client.available", lambda environment: True)
    monkeypatch.setattr(night, "_perform_in_server_or_here", fail)
    with pytest.raises(NightshiftError, match="did not start"):
        night.run_night(run, STAGES)
    (message,) = _sent(run)
    said = "flights 2013-01-05: the night failed. Spark did not start"
    assert message["text"] == f"{said} http://127.0.0.1:8080/dags/flights/runs/manual__r1"


def test_some_stages_are_no_night(
    run: Run, perform_here: Callable[[Mapping[str, Function]], None]
) -> None:
    perform_here({})
    assert night.run_night(run, STAGES[:3]) == 0
    assert _sent(run) == []
    assert night.run_night(run, STAGES) == 0
    assert night.run_night(run, STAGES[-1:]) == 0
    assert [message["event"] for message in _sent(run)] == ["night_done"]


def test_a_run_that_shall_not_notify_does_not(
    run: Run, perform_here: Callable[[Mapping[str, Function]], None]
) -> None:
    perform_here({"evaluate": _promote})
    assert night.run_night(run, STAGES, notify=False) == 0
    perform_here({"train": _raising(Refused("no"))})
    assert night.run_night(run, STAGES, notify=False) == 1
    assert _sent(run) == []


@pytest.mark.parametrize(
    "module", ["jobs.outcome.of_stage", "jobs.notifications.channels.send_all"]
)
def test_a_night_ends_as_it_would_when_nobody_can_be_told(
    module: str,
    run: Run,
    perform_here: Callable[[Mapping[str, Function]], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise OSError("nobody is there")

    monkeypatch.setattr(module, fail)
    perform_here({})
    assert night.run_night(run, STAGES) == 0
    warning = "Warning: nobody was notified: OSError: nobody is there"
    assert warning in capsys.readouterr().err


def _hold(run: Run, held: Signal, released: Signal) -> None:
    with night.one_run_at_a_time(run):
        held.set()
        time.sleep(0.5)
        released.set()


def test_two_runs_of_a_pipeline_take_turns(run: Run) -> None:
    # Not forked: this process has threads of gRPC, which a fork does not bear.
    spawn = multiprocessing.get_context("spawn")
    held = spawn.Event()
    released = spawn.Event()
    other = spawn.Process(target=_hold, args=(run, held, released))
    other.start()
    assert held.wait(120)
    with night.one_run_at_a_time(run):
        assert released.is_set()
    other.join()


def test_a_run_that_is_to_wait_for_a_while_ends_then_and_names_the_run_that_goes_on(
    run: Run,
    perform_here: Callable[[Mapping[str, Function]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    perform_here({})
    other = replace(run, run_id="the_other")
    held = "The lock is held by run the_other, which came at "
    named = f"'pipeline.flights' was not free within 0.1 s. {held}"
    for perform in (night.run_night, night.make_true):
        with night.one_run_at_a_time(other), pytest.raises(AwaitsTurn, match=named):
            perform(run, STAGES, wait_seconds=0.1)
    told = f"Waiting for another run of 'flights' to finish. {held}"
    printed = capsys.readouterr().err
    assert printed.count(told) == 2
    assert printed.count(f"(process {os.getpid()} on {socket.gethostname()})") == 2
    assert not (run.environment.logs / "notifications.log").exists(), "nobody is told"
