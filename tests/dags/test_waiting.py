"""A stage whose files have not landed waits in the triggerer, and goes on by itself."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import serde
from airflow.sdk.exceptions import AirflowException, TaskDeferred

from dags import callbacks, tasks, waiting
from dags.tasks import MaintenanceOperator, StageOperator
from dags.waiting import FilesLanded, Pause, RunEnded
from jobs.__main__ import parser
from pipelines.environment import ROOT
from pipelines.flights import PIPELINE
from pipelines.landing import Stamp, stamp
from pipelines.spec import Pipeline
from pipelines.stages import stage
from tests.dags.conftest import Instance, context
from tests.dags.test_policy import HEAVY

NIGHT: dict[str, Any] = {"date": "2013-03-01"}
RANGE: dict[str, Any] = {"from": "2013-03-01", "to": "2013-03-03", "allow_gap": True}
FILES = (
    "flights/flights/2013-03-01.csv",
    "flights/schedule/2013-03-01.csv",
    "flights/weather/2013-03-01.csv",
    "flights/planes.csv",
    "flights/airports.csv",
)
SOON = timedelta(seconds=30)
NOT_WAITED_SECONDS = 60
"""For what waits for nobody: a busy machine may pause for seconds."""


@pytest.fixture
def landing(stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A landing folder with the files of the night, and a `nightshift` that says: not landed."""
    folder = tmp_path / "landing"
    monkeypatch.setenv("NIGHTSHIFT_LANDING", str(folder))
    monkeypatch.setenv("STUB_EXIT", "4")
    monkeypatch.setenv("STUB_NOTIFY_EXIT", "0")
    for name in FILES:
        write(folder / name)
    return folder


@pytest.fixture
def lacks(landing: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Takes files away, and has the stage say that it lacks these."""

    def remove(*names: str) -> None:
        for name in names:
            (landing / name).unlink(missing_ok=True)
        monkeypatch.setenv("STUB_RESULT", json.dumps({"lacking": names}))

    return remove


def write(path: Path, content: str = "a file\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def operator(pipeline: Pipeline = PIPELINE) -> StageOperator:
    return StageOperator(pipeline=pipeline, stage=stage("ingest"))


def deferred(
    task: StageOperator,
    params: Mapping[str, Any] = NIGHT,
    **kept: Any,
) -> TaskDeferred:
    """How the task asks Airflow to wait, at its first run or once a wait has ended.

    Args:
        task: The task.
        params: Those of its DAG's run.
        kept: What the wait has kept for the task; nothing: it is the first run.
    """
    where = in_airflow(task, params)
    with pytest.raises(TaskDeferred) as asked:
        task.go_on(where, event="time is up", **kept) if kept else task.execute(where)
    return asked.value


def in_airflow(task: StageOperator, params: Mapping[str, Any] = NIGHT) -> Any:
    return context(**params) | {"task": task}


def ago(**span: float) -> str:
    """An instant in the past, as the task keeps when it began."""
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def began_before(asked: TaskDeferred, **span: float) -> dict[str, Any]:
    """What a wait has kept, as if the stage had first run so long ago."""
    return {**asked.kwargs, "began": ago(**span)}


def until(asked: TaskDeferred) -> timedelta:
    """How long the trigger is to look."""
    return datetime.fromisoformat(asked.trigger.until) - datetime.now(UTC)


def commands(tmp_path: Path) -> list[str]:
    """The commands that were run: `run`, and `notify` with its event."""
    lines = (tmp_path / "calls").read_text().splitlines()
    called = [vars(parser().parse_args(json.loads(line))) for line in lines]
    return [one.get("event") or "run" for one in called]


def message(tmp_path: Path) -> str:
    """What the last notification said."""
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    return str(parser().parse_args(json.loads(last)).message)


def event_of(trigger: FilesLanded | RunEnded) -> str:
    """What ends the wait of a trigger."""

    async def first() -> str:
        async for event in trigger.run():
            return str(event.payload)
        raise AssertionError("a trigger ends with an event")

    return asyncio.run(first())


def trigger_for(*paths: Path, seconds: float = 30) -> FilesLanded:
    """A trigger that looks often."""
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    names = [str(path) for path in paths]
    return FilesLanded(paths=names, until=end.isoformat(), every_seconds=0.05)


def test_a_night_whose_file_is_missing_waits_for_it_and_then_runs(
    landing: Path,
    lacks: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = landing / FILES[1]
    lacks(FILES[1])
    asked = deferred(operator())
    assert asked.trigger.paths == [FILES[1]]
    # What Airflow keeps in its database, and makes again of it in another process.
    classpath, arguments = asked.trigger.serialize()
    kept = json.dumps([serde.serialize(arguments), serde.serialize(asked.kwargs)])
    arguments, resumed = (serde.deserialize(one) for one in json.loads(kept))
    module, _, name = classpath.rpartition(".")
    trigger = getattr(import_module(module), name)(**{**arguments, "every_seconds": 0.05})
    threading.Timer(0.2, write, [missing]).start()
    assert event_of(trigger) == "they are there"
    monkeypatch.setenv("STUB_EXIT", "0")
    monkeypatch.delenv("STUB_RESULT")
    task = operator()
    where = in_airflow(task)
    task.resume_execution(asked.method_name, {**resumed, "event": "they are there"}, where)
    assert commands(tmp_path) == ["run", "run"], "nobody was told"


def test_a_stage_waits_for_another_run_of_the_pipeline_outside_of_its_time_limit(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_EXIT", "6")
    task = operator()
    with pytest.raises(TaskDeferred) as asked:
        task.execute(in_airflow(task))
    (argv,) = map(json.loads, stub.read_text().splitlines())
    assert parser().parse_args(argv).wait_seconds == 30
    assert asked.value.trigger.seconds == 60
    event = {**asked.value.kwargs, "event": "time is up"}
    with pytest.raises(TaskDeferred):
        task.resume_execution(asked.value.method_name, event, in_airflow(task))
    monkeypatch.setenv("STUB_EXIT", "0")
    task.resume_execution(asked.value.method_name, event, in_airflow(task))
    assert commands(tmp_path) == ["run", "run", "run"], "nobody was told"


def test_a_wait_for_another_run_that_does_not_end_is_told_to_people(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_EXIT", "6")
    task = operator()
    with pytest.raises(TaskDeferred) as asked:
        task.execute(in_airflow(task))
    where = in_airflow(task)
    assert task.execution_timeout
    long_ago = datetime.now(UTC) - task.execution_timeout - SOON
    waits = {**asked.value.kwargs, "event": "it is over"}
    with pytest.raises(AirflowException, match="^ingest has waited .* for its turn, as long as"):
        task.resume_execution("take_turn", {**waits, "since": long_ago.isoformat()}, where)
    # Its files had landed late: only the wait for the other run counts.
    with pytest.raises(TaskDeferred):
        task.resume_execution("take_turn", {**waits, "began": long_ago.isoformat()}, where)
    assert commands(tmp_path) == ["run", "run", "run"]


def asked_to_wait(event: Mapping[str, Any] | None = None) -> TaskDeferred:
    """How maintenance asks Airflow to wait, at first or once a pause has ended."""
    task = MaintenanceOperator()
    where = in_airflow(task) | {"ti": Instance()}
    method, kept = ("take_turn", dict(event)) if event else ("execute", None)
    with pytest.raises(TaskDeferred) as asked:
        task.resume_execution(method, kept, where)
    return asked.value


def test_maintenance_waits_for_runs_of_the_pipelines_that_are_left_outside_of_its_time_limit(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_EXIT", "6")
    # Another `maintain` goes on: nothing is done yet.
    first = asked_to_wait()
    assert (first.trigger.seconds, first.kwargs["pipelines"]) == (60, [])
    monkeypatch.setenv("STUB_RESULT", json.dumps({"awaited": ["weather"]}))
    second = asked_to_wait({**first.kwargs, "event": "it is over"})
    assert second.kwargs == {**first.kwargs, "pipelines": ["weather"]}
    monkeypatch.setenv("STUB_EXIT", "0")
    task = MaintenanceOperator()
    where = in_airflow(task) | {"ti": Instance()}
    event = {**second.kwargs, "event": "it is over"}
    task.resume_execution(second.method_name, event, where)
    lines = map(json.loads, stub.read_text().splitlines())
    called = [parser().parse_args(argv) for argv in lines]
    assert [one.pipeline for one in called] == [[], [], ["weather"]]
    assert [one.wait_seconds for one in called] == [30] * 3


def test_a_maintenance_that_has_waited_too_long_fails(
    stub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_EXIT", "6")
    task = MaintenanceOperator()
    where = in_airflow(task) | {"ti": Instance()}
    assert task.execution_timeout
    long_ago = datetime.now(UTC) - task.execution_timeout - SOON
    event = {"pipelines": ["weather"], "since": long_ago.isoformat(), "event": "it is over"}
    with pytest.raises(AirflowException, match="^maintain has waited .* for its turn, as long as"):
        task.resume_execution("take_turn", event, where)


def test_a_pause_is_made_again_from_what_airflow_keeps_and_ends() -> None:
    classpath, arguments = Pause(seconds=0.05).serialize()
    module, _, name = classpath.rpartition(".")
    assert event_of(getattr(import_module(module), name)(**arguments)) == "it is over"


def test_a_file_that_is_there_and_still_being_written_is_watched(
    landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_RESULT", json.dumps({"lacking": [FILES[0]]}))
    asked = deferred(operator())
    assert asked.trigger.paths == [FILES[0]]


def test_a_marker_is_waited_for_like_a_file(landing: Path, lacks: Callable[..., None]) -> None:
    feed = replace(PIPELINE.feeds[0], marker="{date}.done")
    marked = replace(PIPELINE, feeds=(feed, *PIPELINE.feeds[1:]))
    marker = "flights/2013-03-01.done"
    lacks(marker)
    asked = deferred(operator(marked))
    assert asked.trigger.paths == [marker]
    waiting_on = deferred(operator(marked), **asked.kwargs)
    assert waiting_on.trigger.paths == asked.trigger.paths


def test_a_range_waits_for_the_files_that_its_stage_lacks_and_for_no_others(
    landing: Path, lacks: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the day between nothing ever came, and the night goes on without it.
    late = "flights/weather/2013-03-03.csv"
    lacks(late)
    asked = deferred(operator(), RANGE)
    assert asked.trigger.paths == [late]
    waiting_on = deferred(operator(), RANGE, **asked.kwargs)
    assert waiting_on.trigger.paths == asked.trigger.paths
    assert commands(tmp_path) == ["run"]
    write(landing / late)
    monkeypatch.setenv("STUB_EXIT", "0")
    monkeypatch.delenv("STUB_RESULT")
    task = operator()
    task.go_on(in_airflow(task, RANGE), "they are there", **waiting_on.kwargs)
    assert commands(tmp_path) == ["run", "run"]


def test_an_optional_file_that_was_published_and_is_gone_is_waited_for(
    landing: Path, lacks: Callable[..., None]
) -> None:
    optional = replace(PIPELINE.feeds[0], is_optional=True)
    task = operator(replace(PIPELINE, feeds=(optional, *PIPELINE.feeds[1:])))
    gone = f"flights/{optional.file(date(2013, 3, 1))}"
    lacks(gone)
    asked = deferred(task)
    assert asked.trigger.paths == [gone]
    waiting_on = deferred(task, **asked.kwargs)
    assert waiting_on.trigger.paths == asked.trigger.paths


def test_where_nobody_can_say_which_files_are_late_the_stage_looks_again_after_a_while(
    landing: Path,
) -> None:
    asked = deferred(operator())
    assert asked.trigger.paths == []
    asked.trigger.every_seconds = 0.5
    began = time.monotonic()
    assert event_of(asked.trigger) == "they are there"
    assert time.monotonic() - began > 0.4


def test_a_landing_folder_that_is_set_anew_is_looked_at_by_a_wait_that_goes_on(
    landing: Path, lacks: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks(FILES[1])
    trigger = deferred(operator()).trigger
    trigger.every_seconds = 0.05
    mended = tmp_path / "mended"
    write(mended / FILES[1])
    threading.Timer(0.2, monkeypatch.setenv, ["NIGHTSHIFT_LANDING", str(mended)]).start()
    assert event_of(trigger) == "they are there"


def test_where_another_path_is_declared_by_now_the_stage_says_for_what_to_wait(
    lacks: Callable[..., None], tmp_path: Path
) -> None:
    lacks(FILES[1])
    kept = deferred(operator()).kwargs
    feed = next(one for one in PIPELINE.feeds if one.name == "schedule")
    others = [one for one in PIPELINE.feeds if one != feed]
    mended = replace(PIPELINE, feeds=(replace(feed, path="timetable/{date}.csv"), *others))
    deferred(operator(mended), **kept)
    assert commands(tmp_path) == ["run", "run"]


def test_people_are_told_at_the_deadline_once_and_the_night_waits_on(
    lacks: Callable[..., None], tmp_path: Path
) -> None:
    lacks(FILES[2])
    task = operator()
    first = deferred(task)
    assert timedelta(hours=2) - SOON < until(first) <= timedelta(hours=2)
    assert first.kwargs["is_told"] is False

    assert first.kwargs["lacking"] == [FILES[2]]

    late = deferred(task, **began_before(first, hours=2, seconds=1))
    assert timedelta(hours=10) - SOON < until(late) <= timedelta(hours=10)
    assert late.kwargs["is_told"] is True
    assert commands(tmp_path) == ["run", "feed_late"]
    assert message(tmp_path).startswith(f"Not landed after 2 h: {FILES[2]}. The night waits for")

    deferred(task, **began_before(late, hours=3))
    assert commands(tmp_path) == ["run", "feed_late"]


def test_where_nobody_could_be_told_it_is_tried_again_each_hour_of_the_wait(
    lacks: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks(FILES[2])
    task = operator()
    first = deferred(task)
    monkeypatch.setenv("STUB_NOTIFY_EXIT", "3")
    late = deferred(task, **began_before(first, hours=2, seconds=1))
    assert timedelta(hours=1) - SOON < until(late) <= timedelta(hours=1)
    last = deferred(task, **began_before(late, hours=11, minutes=30))
    assert timedelta(minutes=30) - SOON < until(last) <= timedelta(minutes=30)
    monkeypatch.setenv("STUB_NOTIFY_EXIT", "0")
    told = deferred(task, **began_before(late, hours=3))
    assert timedelta(hours=9) - SOON < until(told) <= timedelta(hours=9)
    assert commands(tmp_path) == ["run", *["feed_late"] * 3]


def test_a_night_that_has_waited_in_vain_ends_without_a_retry_and_people_are_told(
    lacks: Callable[..., None], tmp_path: Path
) -> None:
    lacks(FILES[2])
    task = operator()
    where = in_airflow(task)
    with pytest.raises(callbacks.FilesMissing) as ended:
        task.go_on(
            where,
            "time is up",
            began=ago(hours=12),
            is_told=True,
            lacking=[FILES[2]],
        )
    assert f"Not landed after 12 h: {FILES[2]}. Clear the task" in str(ended.value)
    callbacks.stage_failed(where | {"exception": ended.value})
    assert commands(tmp_path) == ["feed_missing"], "the stage was not run for nothing"
    assert message(tmp_path) == str(ended.value)


def test_a_night_without_patience_does_not_wait(landing: Path) -> None:
    hasty = replace(PIPELINE, feed_deadline_hours=0, feed_patience_hours=0)
    task = operator(hasty)
    with pytest.raises(callbacks.FilesMissing, match="files that keep changing"):
        task.execute(in_airflow(task))


def test_a_wait_that_ends_unseen_by_the_triggerer_runs_the_stage(
    landing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_EXIT", "0")
    task = operator()
    kept = {"began": ago(hours=12), "is_told": True, "lacking": [FILES[2]]}
    task.go_on(in_airflow(task), "time is up", **kept)
    assert commands(tmp_path) == ["run"]


def test_a_file_that_is_being_written_ends_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    looks: list[Path] = []

    def written_before_each_look(looked_at: Path) -> Stamp | None:
        looks.append(looked_at)
        if len(looks) <= 20:
            with path.open("a") as file:
                file.write("more\n")
        return stamp(looked_at)

    monkeypatch.setattr(waiting, "stamp", written_before_each_look)
    assert event_of(trigger_for(path)) == "they are there"
    # The last of those, and one more that finds nothing new.
    assert len(looks) == 21


def test_a_wait_of_the_code_of_before_looks_at_its_whole_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_LANDING", str(tmp_path))
    looked: list[str] = []
    monkeypatch.setattr(waiting, "stamp", lambda path: looked.append(str(path)))
    names = ["flights/a.csv", f"{tmp_path}/flights/b.csv", "s3://bucket/landing/c.csv"]
    waiting._stamps(names)
    assert looked == [f"{tmp_path}/flights/a.csv", *names[1:]]


def test_a_wait_ends_when_time_is_up(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    began = time.monotonic()
    trigger = trigger_for(there, tmp_path / "missing", seconds=0.3)
    trigger.every_seconds = 2 * NOT_WAITED_SECONDS
    assert event_of(trigger) == "time is up"
    assert time.monotonic() - began < NOT_WAITED_SECONDS


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Has no look at a file end, as where a file server is away, before the event is set."""
    answers = threading.Event()

    def wait(_: Path) -> Stamp | None:
        # Twice what a test lets pass: who waits for it is seen, and one that pauses is not.
        answers.wait(2 * NOT_WAITED_SECONDS)
        return None

    monkeypatch.setattr(waiting, "stamp", wait)
    yield answers
    answers.set()


def test_a_folder_that_does_not_answer_keeps_no_deadline_from_coming(
    tmp_path: Path, silent: threading.Event
) -> None:
    trigger = trigger_for(tmp_path / "a.csv", seconds=0.2)

    async def first() -> tuple[str, float]:
        began = time.monotonic()
        async for event in trigger.run():
            took = time.monotonic() - began
            # The loop would wait for its threads.
            silent.set()
            return str(event.payload), took
        raise AssertionError("a trigger ends with an event")

    event, took = asyncio.run(first())
    assert event == "time is up"
    assert took < NOT_WAITED_SECONDS


def test_people_are_told_where_the_folder_does_not_answer(
    lacks: Callable[..., None],
    silent: threading.Event,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacks(FILES[2])
    monkeypatch.setattr(waiting, "_ANSWERS_WITHIN_SECONDS", 0.1)
    task = operator()
    first = deferred(task)
    began = time.monotonic()
    late = deferred(task, **began_before(first, hours=2, seconds=1))
    assert late.kwargs["is_told"] is True
    assert message(tmp_path).startswith(f"Not landed after 2 h: {FILES[2]}.")
    with pytest.raises(callbacks.FilesMissing, match=FILES[2]):
        task.go_on(in_airflow(task), "time is up", **began_before(late, hours=12))
    assert time.monotonic() - began < NOT_WAITED_SECONDS
    assert commands(tmp_path) == ["run", "feed_late"]


def test_a_folder_that_never_answers_keeps_no_process_from_its_end() -> None:
    program = (
        "import sys, time; from dags import waiting; waiting._ANSWERS_WITHIN_SECONDS = 0.1; "
        "waiting.stamp = lambda _: time.sleep(600); print(waiting.absent(sys.argv[1:]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, FILES[2]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert ended.stdout.splitlines()[-1] == str([FILES[2]])


def test_people_are_told_and_the_wait_goes_on_where_the_folder_refuses(
    lacks: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError("the token has expired")

    lacks(FILES[2])
    task = operator()
    first = deferred(task)
    monkeypatch.setattr(waiting, "stamp", refuse)
    late = deferred(task, **began_before(first, hours=2, seconds=1))
    assert late.kwargs["is_told"] is True
    assert message(tmp_path).startswith(f"Not landed after 2 h: {FILES[2]}.")


def test_the_triggerer_imports_nothing_heavy_for_it() -> None:
    program = (
        "import sys; import airflow.triggers.base; before = set(sys.modules); import dags.waiting; "
        "new = set(sys.modules) - before; "
        "print(set(sys.argv[1].split(',')) & new, 'dags.tasks' in new)"
    )
    started = subprocess.run(
        [sys.executable, "-c", program, ",".join(HEAVY)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert started.stdout.split()[-2:] == ["set()", "False"]


def test_messages_name_a_handful_of_files() -> None:
    assert tasks._late(2, ["a", "b"]) == "Not landed after 2 h: a, b."
    assert tasks._late(0.5, list("abcdefg")) == "Not landed after 0.5 h: a, b, c, d, e and 2 more."


def test_the_wait_for_a_run_ends_when_it_neither_runs_nor_is_queued(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, list[str], list[str]]] = []

    def count(
        dag_id: str,
        *,
        run_ids: list[str],
        states: list[str],
    ) -> int:
        asked.append((dag_id, run_ids, states))
        return 1 if len(asked) < 3 else 0

    monkeypatch.setattr("dags.waiting.RuntimeTaskInstance.get_dr_count", count)
    classpath, arguments = RunEnded(dag_id="flights", run_id="r1").serialize()
    module, _, name = classpath.rpartition(".")
    trigger = getattr(import_module(module), name)(**{**arguments, "every_seconds": 0})
    assert event_of(trigger) == "it has ended"
    assert asked == [("flights", ["r1"], ["queued", "running"])] * 3


def test_a_store_that_is_away_for_a_while_ends_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "a.csv"
    write(there)
    looks = iter([PermissionError("not now"), ConnectionError("away")])

    def refused(path: Path) -> Stamp | None:
        if (error := next(looks, None)) is not None:
            raise error
        return stamp(path)

    monkeypatch.setattr(waiting, "stamp", refused)
    until = (datetime.now(UTC) + SOON).isoformat()
    trigger = FilesLanded(paths=[str(there)], until=until, every_seconds=0.05)
    assert event_of(trigger) == "they are there"
