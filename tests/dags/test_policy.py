"""What holds for every DAG, whatever its pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TriggerRule
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import DagRunInfo

from dags import callbacks
from dags.deadlines import DeadlineOperator
from dags.drops import SourceOperator, land_command
from dags.nights import Night, night_of
from dags.tasks import (
    OUTCOME,
    DeclarationsOperator,
    MaintenanceOperator,
    PlanOperator,
    StageOperator,
    announcement,
    command,
    late_command,
    maintenance_command,
    notification,
    plan_command,
    safe_run_id,
)
from jobs import __main__ as command_line
from jobs import outcome
from jobs.__main__ import parser
from jobs.lake.transforms import tables_joined
from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import ROOT
from pipelines.events import OF_NO_RUN, Event
from pipelines.model import Promotion
from pipelines.resources import Pool, Resources
from pipelines.stages import STAGES, select, stage
from tests.dags.conftest import context

pytestmark = pytest.mark.policy
FOLDER = ROOT / "dags"
SHARED = set((FOLDER / ".airflowignore").read_text().splitlines())
"""Modules that the DAG files share."""
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name not in SHARED)
PROMISED = [name for name in catalog.names() if catalog.pipeline(name).predictions_by]
PLAYED = [name for name in catalog.names() if catalog.pipeline(name).replay]
DAGS = (
    *catalog.names(),
    *(f"{name}_source" for name in PLAYED),
    *(f"{name}_deadline" for name in PROMISED),
    "declarations",
    "maintenance",
)
HEAVY = (
    "pyspark",
    "tensorflow",
    "keras",
    "horovod",
    "mlflow",
    "great_expectations",
    "feast",
    "pandas",
    "numpy",
    "pyarrow",
    "duckdb",
    "deltalake",
)


@cache
def bag() -> DagBag:
    """The DAG files, read: not at import, which each worker of the tests does."""
    return DagBag(dag_folder=str(FOLDER))


def stages_of(name: str) -> list[StageOperator]:
    """The tasks of a pipeline's DAG that are stages."""
    plan, *stages, last = bag().dags[name].tasks
    assert isinstance(plan, PlanOperator)
    assert last.task_id == OUTCOME
    found = [task for task in stages if isinstance(task, StageOperator)]
    assert found == stages
    return found


PARSE = """
import json, os, runpy, sys, time
import airflow.sdk
for file in sys.argv[2:] * 3:
    if os.fork() == 0:
        started = time.process_time()
        runpy.run_path(file)
        seconds = time.process_time() - started
        heavy = set(sys.argv[1].split(",")) & set(sys.modules)
        print(json.dumps([file, seconds, sorted(heavy)]), flush=True)
        os._exit(0)
    _, status = os.wait()
    assert status == 0, file
"""
"""Parses each file in a child, in which Airflow is imported, and nothing of ours.

Three times: a machine that shares its processors may charge one with what another took.
"""


def test_every_dag_file_is_read_without_an_error() -> None:
    assert bag().import_errors == {}
    shared = {"deadline", "declarations", "maintenance", "sources"}
    assert {path.stem for path in FILES} == {*catalog.names(), *shared}


def test_there_is_a_dag_for_each_pipeline_its_source_and_deadline_and_two_for_all() -> None:
    assert sorted(bag().dags) == sorted(DAGS)


@pytest.mark.parametrize("name", PROMISED)
def test_a_deadline_is_looked_at_after_the_night_is_due_and_before_the_next(name: str) -> None:
    looks, nights = (moments(dag_id) for dag_id in (f"{name}_deadline", name))
    by = catalog.pipeline(name).predictions_by
    zone = ZoneInfo(catalog.pipeline(name).timezone)
    for look, due in zip(looks, nights, strict=True):
        assert look.run_after.astimezone(zone).time() == by
        assert timedelta() < look.run_after - due.run_after < timedelta(hours=12)
        days = [days_of(name, one) for one in (look, due)]
        assert days[0] == days[1], "both are about the same night"


@pytest.mark.parametrize("name", PROMISED)
def test_a_deadline_is_one_task_with_a_command_that_the_command_line_accepts(name: str) -> None:
    (task,) = bag().dags[f"{name}_deadline"].tasks
    assert isinstance(task, DeadlineOperator)
    days = Days.of(date(2013, 3, 1))
    argv = late_command(task.pipeline, days, safe_run_id("-odd id"))
    arguments = parser().parse_args(argv)
    assert arguments.pipeline == name
    assert arguments.first == str(days)
    assert arguments.last == str(days)
    assert Event(arguments.event) is Event.PREDICTIONS_LATE
    assert arguments.run_id == safe_run_id("-odd id")


def moments(dag_id: str) -> list[DagRunInfo]:
    """When a DAG runs on four days, across the change of the clocks on 2026-03-08."""
    dag = DagSerialization.from_dict(DagSerialization.to_dict(bag().dags[dag_id]))
    first = datetime(2026, 3, 6, tzinfo=UTC)
    found = list(dag.iter_dagrun_infos_between(first, first + timedelta(days=4)))
    assert len(found) == 4
    return found


def days_of(name: str, info: DagRunInfo) -> Days:
    """The days that a run of that moment is about, were the feed live."""
    live = replace(catalog.pipeline(name), last_day=None, replay=None)
    assert info.data_interval is not None
    begins = info.data_interval.start
    return night_of(live, context(run_type="scheduled", interval_start=begins)).days


@pytest.mark.parametrize("name", PLAYED)
@pytest.mark.parametrize("late", [None, "weather", "observations"])
def test_a_source_is_one_task_with_a_command_that_the_command_line_accepts(
    name: str, late: str | None
) -> None:
    (task,) = bag().dags[f"{name}_source"].tasks
    assert isinstance(task, SourceOperator)
    command = land_command(task.pipeline, date(2013, 4, 3), late)
    arguments = parser().parse_args(command)
    assert (arguments.pipeline, arguments.until) == (name, "2013-04-03")
    assert arguments.withhold == ([late] if late else [])


@pytest.mark.parametrize("name", PLAYED)
def test_a_source_drops_the_files_of_a_day_before_the_night_that_reads_them(name: str) -> None:
    drops, nights = (moments(dag_id) for dag_id in (f"{name}_source", name))
    for drop, night in zip(drops, nights, strict=True):
        assert timedelta() < night.run_after - drop.run_after <= timedelta(hours=1)


def test_the_form_of_a_source_offers_daily_feeds_and_bounded_minutes() -> None:
    params = bag().dags["flights_source"].params
    assert list(params) == ["date", "late", "late_minutes"]
    for feed in (None, "flights", "schedule", "weather"):
        params.get_param("late").resolve(feed)
    with pytest.raises(Exception, match="is not one of"):
        params.get_param("late").resolve("planes")
    with pytest.raises(Exception, match="less than the minimum"):
        params.get_param("late_minutes").resolve(0)


def test_maintenance_is_one_task_with_a_command_that_the_command_line_accepts() -> None:
    (task,) = bag().dags["maintenance"].tasks
    assert isinstance(task, MaintenanceOperator)
    for is_quiet in (False, True):
        asked = maintenance_command([], Path("result.json"), is_quiet=is_quiet)
        arguments = parser().parse_args(asked)
        assert arguments.pipeline == [], "of all pipelines, and what they share"
        assert not arguments.dry_run
        assert arguments.no_notify == is_quiet


@pytest.mark.parametrize("name", ["maintenance", "declarations"])
def test_a_new_home_begins_with_no_dag_that_is_for_all(name: str) -> None:
    dag = DagSerialization.from_dict(DagSerialization.to_dict(bag().dags[name]))
    first = dag.next_dagrun_info(last_automated_run_info=None)
    assert first is not None
    assert first.run_after > datetime.now(UTC)
    assert name != "maintenance" or first.run_after.isoweekday() == 7


def test_declarations_are_looked_at_by_one_task_whose_command_is_accepted() -> None:
    (task,) = bag().dags["declarations"].tasks
    assert isinstance(task, DeclarationsOperator)
    for event in OF_NO_RUN:
        arguments = parser().parse_args([*announcement(event), "--message=-odd\nmessage"])
        assert arguments.event == event
        assert arguments.message == "-odd\nmessage"


@pytest.fixture(scope="module")
def parsed() -> dict[str, tuple[float, list[str]]]:
    """File -> the seconds that it takes to parse at best, and what it imports of what is heavy."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, ",".join(HEAVY), *map(str, FILES)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith('["')]
    found: dict[str, tuple[float, list[str]]] = {}
    for file, seconds, heavy in map(json.loads, told):
        best, _ = found.get(file, (seconds, heavy))
        found[file] = min(best, seconds), heavy
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_file_parses_in_under_a_second_and_imports_nothing_heavy(
    path: Path, parsed: dict[str, tuple[float, list[str]]]
) -> None:
    seconds, heavy = parsed[str(path)]
    assert heavy == []
    assert seconds < 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_file_holds_a_literal_dag_and_its_own_docs(path: Path) -> None:
    text = path.read_text()
    assert "with DAG(" in text, (
        "Airflow only looks into files with the words 'airflow' and 'dag'; ours say it the same way"
    )
    assert "doc_md=__doc__" in text


@pytest.mark.parametrize("dag_id", DAGS)
def test_a_dag_says_who_owns_it_and_what_it_does_and_is_bounded(dag_id: str) -> None:
    dag = bag().dags[dag_id]
    assert dag.doc_md
    assert len(dag.doc_md.splitlines()) > 5
    assert dag.description
    assert {"nightshift", dag.dag_id} <= dag.tags
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    assert dag.dagrun_timeout
    assert dag.is_paused_upon_creation is False
    for task in dag.tasks:
        assert task.doc_md
        if isinstance(task, EmptyOperator):
            continue  # nothing runs
        assert task.owner not in ("", "airflow")
        assert task.retries
        # What goes on without a stage waits for all of its attempts.
        if isinstance(task, StageOperator):
            assert task.retries == (1 if task.stage.may_fail else 2)
        assert task.retry_delay >= timedelta(seconds=30)
        assert task.execution_timeout
        assert task.execution_timeout < dag.dagrun_timeout


@pytest.mark.parametrize("name", catalog.names())
def test_the_plan_and_the_stages_of_a_night_form_a_chain_in_their_order(name: str) -> None:
    dag = bag().dags[name]
    assert dag.task_ids == ["plan", *(stage.name for stage in STAGES), OUTCOME]
    assert dag.get_task("plan").downstream_task_ids == {STAGES[0].name}
    for one, other in pairwise(STAGES):
        assert other.name in dag.get_task(one.name).downstream_task_ids
    beside = {
        (task.task_id, other)
        for task in dag.tasks
        for other in task.downstream_task_ids - {_after(task.task_id)}
    }
    assert beside == {("features", "predict"), ("train", OUTCOME), ("evaluate", OUTCOME)}
    rules = {task.task_id: task.trigger_rule for task in dag.tasks}
    assert rules.pop("predict") == TriggerRule.ALL_DONE_MIN_ONE_SUCCESS
    assert set(rules.values()) == {TriggerRule.ALL_SUCCESS}


def _after(task_id: str) -> str:
    names = ["plan", *(stage.name for stage in STAGES), OUTCOME, ""]
    return names[names.index(task_id) + 1]


@pytest.mark.parametrize("name", catalog.names())
def test_people_are_told_of_every_failure_of_a_promotion_and_of_the_end(name: str) -> None:
    tasks = stages_of(name)
    for task in tasks:
        followed = [callbacks.alias_followed] * (task.task_id in outcome.FOLLOWING_STAGES)
        assert task.on_failure_callback == [callbacks.stage_failed, *followed]
    on_success = {task.task_id: task.on_success_callback for task in tasks}
    assert {name: what for name, what in on_success.items() if what} == {
        outcome.PROMOTING_STAGE: [callbacks.model_evaluated, callbacks.alias_followed],
        "predict": [callbacks.alias_followed],
        "check_predictions": [callbacks.tables_published],
        STAGES[-1].name: [callbacks.night_watched, callbacks.last_stage_done],
    }


def test_where_approvals_have_a_deadline_people_are_told_when_it_has_passed() -> None:
    promotion = Promotion(needs_approval=True, approval_hours=48)
    pipeline = replace(catalog.pipeline("weather"), promotion=promotion)
    with DAG(dag_id="expiring"):
        evaluating = StageOperator(pipeline=pipeline, stage=stage(outcome.PROMOTING_STAGE))
        watching = StageOperator(pipeline=pipeline, stage=STAGES[-1])
        other = StageOperator(pipeline=pipeline, stage=stage("predict"))
    expired = callbacks.approvals_expired
    followed = callbacks.alias_followed
    assert evaluating.on_success_callback == [callbacks.model_evaluated, followed, expired]
    end = [callbacks.night_watched, callbacks.last_stage_done]
    assert watching.on_success_callback == [*end, expired]
    assert evaluating.on_failure_callback == [callbacks.stage_failed, followed, expired]
    assert watching.on_failure_callback == [callbacks.stage_failed, expired]
    assert other.on_failure_callback == [callbacks.stage_failed, followed]


@pytest.mark.parametrize("name", catalog.names())
@pytest.mark.parametrize("event", Event)
def test_every_notification_of_a_dag_is_one_that_the_command_line_accepts(
    name: str, event: Event
) -> None:
    days = Days(date(2013, 1, 1), date(2013, 3, 31))
    for task in stages_of(name):
        argv = notification(task.pipeline, task.stage.name, days, safe_run_id("-odd id"), event)
        more = ["--since=2013-04-01T08:30:00+00:00", "--message=-odd\nmessage"]
        arguments = parser().parse_args([*argv, *more])
        assert (arguments.pipeline, arguments.stage) == (name, task.stage.name)
        assert (arguments.first, arguments.last) == ("2013-01-01", "2013-03-31")
        assert Event(arguments.event) is event
        assert arguments.run_id == safe_run_id("-odd id")
        assert arguments.message == "-odd\nmessage"


_SWITCHES: list[set[str]] = [
    set(),
    {"retrain"},
    {"restate"},
    {"rescore"},
    {"allow_gap", "retrain"},
    {"restate", "rescore"},
    {"allow_mixed"},
    {"approval"},
    {"from_start"},
]


@pytest.mark.parametrize("name", catalog.names())
@pytest.mark.parametrize("switches", _SWITCHES)
@pytest.mark.parametrize("stands_for", [None, date(2026, 11, 25)])
def test_every_command_of_a_dag_is_one_that_the_command_line_accepts(
    name: str, switches: set[str], stands_for: date | None
) -> None:
    night = Night(
        days=Days(date(2013, 1, 1), date(2013, 3, 31)),
        stands_for=stands_for,
    )
    for task in stages_of(name):
        params = dict.fromkeys(switches, True)
        run_id = safe_run_id("-odd id")
        result = Path("result.json")
        argv = command(task.pipeline, task.stage, night, run_id, params, result)
        arguments = parser().parse_args(argv)
        assert arguments.from_start == bool(stands_for or "from_start" in switches)
        assert arguments.pipeline == name
        assert arguments.retrain == ("retrain" in switches)
        assert arguments.rescore == ("rescore" in switches)
        assert arguments.approval == ("approval" in switches)
        assert arguments.allow_gap == ("allow_gap" in switches)
        assert arguments.allow_mixed == ("allow_mixed" in switches)
        assert arguments.as_needed == ("restate" not in switches)
        assert (arguments.first, arguments.last) == ("2013-01-01", "2013-03-31")
        assert arguments.no_notify, "the callbacks notify, once all attempts are over"
        assert select(arguments.stage) == (task.stage,)
        assert arguments.run_id == safe_run_id("-odd id")
        assert arguments.result == Path("result.json")


@pytest.mark.parametrize("name", catalog.names())
@pytest.mark.parametrize("switches", _SWITCHES)
@pytest.mark.parametrize("stands_for", [None, date(2026, 11, 25)])
def test_the_command_of_the_plan_asks_for_as_much_as_those_of_the_stages(
    name: str, switches: set[str], stands_for: date | None
) -> None:
    days = Days(date(2013, 1, 1), date(2013, 3, 31))
    night = Night(days=days, stands_for=stands_for)
    pipeline = catalog.pipeline(name)
    params = dict.fromkeys(switches, True)
    argv = plan_command(pipeline, night, "-odd id", params, Path("result.json"))
    planned = parser().parse_args(argv)
    argv = command(pipeline, STAGES[0], night, "an_id", params, Path("result.json"))
    run = parser().parse_args(argv)
    for name_of in ("pipeline", "first", "last", "retrain", "rescore", "allow_gap", "from_start"):
        assert getattr(planned, name_of) == getattr(run, name_of)
    assert planned.restate == (not run.as_needed)
    assert select(planned.stage) == STAGES
    assert planned.note_run == "-odd id"
    assert planned.result == Path("result.json")


def test_the_command_of_the_plan_asks_for_the_stages_that_were_chosen() -> None:
    night = Night(days=Days.of(date(2013, 1, 1)))
    params = {"stages": ["evaluate", "train"]}
    pipeline = catalog.pipeline("flights")
    argv = plan_command(pipeline, night, "an_id", params, Path("result.json"))
    assert parser().parse_args(argv).stage == ["train", "evaluate"]


@pytest.mark.parametrize("restate", [False, True])
@pytest.mark.parametrize("stages", [[], ["train"]])
def test_a_plan_does_its_days_whether_they_are_current_or_not_as_the_stages_do(
    restate: bool, stages: list[str]
) -> None:
    night = Night(days=Days.of(date(2013, 1, 1)))
    params = {"stages": stages, "restate": restate}
    pipeline = catalog.pipeline("flights")
    planned = plan_command(pipeline, night, "an_id", params, Path("result.json"))
    done = command(pipeline, stage("train"), night, "an_id", params, Path("result.json"))
    asked = map(parser().parse_args, (planned, done))
    assert [command_line._is_exact(one) for one in asked] == [restate, restate]


@pytest.mark.parametrize("name", catalog.names())
def test_every_table_is_announced_as_an_asset_by_the_stage_that_publishes_it(name: str) -> None:
    announced = []
    for task in stages_of(name):
        announced += [asset.name for asset in task.outlets]
    assert announced == [f"{name}.{table.name}" for table in catalog.pipeline(name).tables]


@pytest.mark.parametrize("name", catalog.names())
def test_groups_show_the_parts_of_a_night_and_change_the_name_of_no_task(name: str) -> None:
    groups = bag().dags[name].task_group.get_task_group_dict()
    named = [group for group in groups.values() if group.group_id]
    found = {group.group_id: list(group.children) for group in named}
    assert found == {
        "land": ["ingest", "check_raw"],
        "shape": ["transform", "check_clean", "features"],
        "learn": ["train", "evaluate"],
        "serve": ["predict", "check_predictions", "monitor"],
    }
    assert all(group.tooltip for group in groups.values() if group.group_id)


@pytest.mark.parametrize("name", catalog.names())
def test_trainings_of_all_pipelines_take_turns_in_a_pool_that_is_made(name: str) -> None:
    in_pools = {task.task_id: task.pool for task in bag().dags[name].tasks}
    assert in_pools.pop("train") == "training"
    assert set(in_pools.values()) == {"default_pool"}
    (pool,) = catalog.pools()
    assert (pool.name, pool.slots) == ("training", 1)


@pytest.mark.parametrize("name", catalog.names())
def test_the_inlets_of_a_stage_are_the_tables_that_it_reads(name: str) -> None:
    pipeline = catalog.pipeline(name)
    read = {}
    for task in stages_of(name):
        read[task.stage.name] = {asset.name for asset in task.inlets}
    raw = {f"{name}.{feed.name}" for feed in pipeline.feeds}
    assert read["ingest"] == read["check_raw"] == set(), "files are no tables"
    assert read["transform"] == read["check_clean"]
    assert read["transform"] <= raw
    # As the code of the stage asks for them.
    assert read["features"] == {f"{name}.{table}" for table in tables_joined(pipeline)}
    assert read["train"] == read["evaluate"] == {f"{name}.training"}
    assert read["predict"] == read["check_predictions"] == {f"{name}.scoring"}
    assert read["monitor"] == {f"{name}.training", f"{name}.predictions"}


def test_a_stage_has_the_resources_of_its_pipeline_where_that_declares_others() -> None:
    accelerated = Pool(name="accelerators", slots=4)
    resources = Resources(
        pool=accelerated,
        pool_slots=2,
        queue="big",
        executor_config={"pod_override": "more memory"},
    )
    pipeline = replace(catalog.pipeline("weather"), resources={"train": resources})
    with DAG(dag_id="other"):
        trained = StageOperator(pipeline=pipeline, stage=stage("train"))
        scored = StageOperator(pipeline=pipeline, stage=stage("predict"))
    assert (trained.pool, trained.pool_slots, trained.queue) == ("accelerators", 2, "big")
    assert trained.executor_config == {"pod_override": "more memory"}
    assert (scored.pool, scored.queue) == ("default_pool", "default")


def test_a_training_has_a_pod_of_its_own_where_the_platform_names_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_TRAIN_POD", "/etc/nightshift/train.json")
    # DAGs are read whatever else is set; the plan of a night tells it.
    monkeypatch.setenv("NIGHTSHIFT_RANKS", "many")
    own = Resources(executor_config={"pod_template_file": "/own.json"})
    plain = catalog.pipeline("weather")
    with DAG(dag_id="other"):
        trained = StageOperator(pipeline=plain, stage=stage("train"))
        scored = StageOperator(pipeline=plain, stage=stage("predict"))
    with DAG(dag_id="declared"):
        declared = replace(plain, resources={"train": own})
        itself = StageOperator(pipeline=declared, stage=stage("train"))
    elsewhere = Resources(executor_config={"pod_override": "another node"})
    with DAG(dag_id="overridden"):
        declared = replace(plain, resources={"train": elsewhere})
        overridden = StageOperator(pipeline=declared, stage=stage("train"))
    assert trained.executor_config == {"pod_template_file": "/etc/nightshift/train.json"}
    assert scored.executor_config == {}
    assert itself.executor_config == {"pod_template_file": "/own.json"}
    # Airflow lays it over that Pod.
    assert overridden.executor_config == {
        "pod_template_file": "/etc/nightshift/train.json",
        "pod_override": "another node",
    }


@pytest.mark.parametrize("name", catalog.names())
def test_a_backfill_over_some_dates_processes_exactly_these_days(name: str) -> None:
    dag = DagSerialization.from_dict(DagSerialization.to_dict(bag().dags[name]))
    first = datetime(2013, 3, 8, tzinfo=UTC)
    last = datetime(2013, 3, 12, 23, 59, tzinfo=UTC)
    asked = dag.iter_dagrun_infos_between(first, last)
    starts = [info.data_interval.start for info in asked if info.data_interval]
    days = [
        night_of(catalog.pipeline(name), context(run_type="backfill", interval_start=start)).days
        for start in starts
    ]
    wanted = Days(first.date(), last.date())
    assert days == list(map(Days.of, wanted)), "also across the change of the clocks on 2013-03-10"


def test_the_form_offers_a_day_a_range_and_switches() -> None:
    params = bag().dags["flights"].params
    extent = ["restate", "allow_gap", "from_start", "retrain"]
    switches = [*extent, "allow_mixed", "rescore", "approval"]
    assert list(params) == ["date", "from", "to", "stages", *switches]
    for name in switches:
        assert params[name] is False
        with pytest.raises(Exception, match="is not of type 'boolean'"):
            params.get_param(name).resolve("no")
    for name in ("date", "from", "to"):
        params.get_param(name).resolve("2013-03-01")
        with pytest.raises(Exception, match="is not a 'date'"):
            params.get_param(name).resolve("yesterday")
    offered = params.get_param("stages")
    assert offered.schema["examples"] == [stage.name for stage in STAGES]
    offered.resolve(["train", "evaluate"])
    with pytest.raises(Exception, match="'trian' is not one of"):
        offered.resolve(["trian"])
