"""Stage -> operator: the only place where a pipeline becomes Airflow's."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn
from zoneinfo import ZoneInfo

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import (
    Asset,
    BaseOperator,
    Context,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    Param,
    TaskGroup,
    TriggerRule,
    chain,
)
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
)

from dags import callbacks, lineage
from dags.nights import Night, days_to_tell, night_of, require_known
from dags.process import Ended, Process
from dags.reports import ReportLink, url_of
from dags.waiting import LANDED, FilesLanded, Pause, RunEnded, absent
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import (
    AwaitsApproval,
    AwaitsTurn,
    NightshiftError,
    NotLanded,
    Refused,
    UsageError,
)
from pipelines.events import Event
from pipelines.landing import expected_files
from pipelines.model import NeuralNetwork
from pipelines.spec import Pipeline, Table
from pipelines.stages import FILE_READERS, GROUPS, PLAN, STAGES, Stage

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

# As in `jobs/outcome.py`, which a DAG file must not import.
_TRAINING_STAGE = "train"
_PROMOTING_STAGE = "evaluate"
_FOLLOWING_STAGES = (_PROMOTING_STAGE, "predict")
OUTCOME = "outcome"
"""The last task of a night."""
_MINUTES_PER_FURTHER_DAY = 2
"""What a range may take longer for each day after its first: a range is one pass, not so many
nights."""
_TURN_SECONDS = 30
"""How long a task waits for another run of the pipeline before it leaves its worker."""
_BETWEEN_TURNS_SECONDS = 60
_TELL_AGAIN = timedelta(hours=1)
_FILES_LISTED = 5
"""Files that a message about late ones names."""
_NOT_ACCEPTED = "not_accepted"
_FLAGS = {
    "allow_gap": "--allow-gap",
    "from_start": "--from-start",
    "retrain": "--retrain",
    "rescore": "--rescore",
}
"""Params of a DAG run that the command knows by the same name."""


def dag_arguments(pipeline: Pipeline) -> dict[str, Any]:
    """Everything that the DAGs of all pipelines have in common."""
    return {
        "dag_id": pipeline.name,
        "description": pipeline.title,
        # An interval is the day from one scheduled moment to the next, named by the day on which it
        # begins, which is the day that the run processes: so a backfill over some dates processes
        # exactly these dates.
        "schedule": CronDataIntervalTimetable(pipeline.schedule, timezone=pipeline.timezone),
        "start_date": datetime.combine(
            pipeline.first_day, datetime.min.time(), ZoneInfo(pipeline.timezone)
        ),
        "catchup": False,
        # Airflow leaves a run that the API triggers on a paused DAG queued for ever.
        "is_paused_upon_creation": False,
        # A night builds on the tables that the night before it published.
        "max_active_runs": 1,
        # By then the next night is due; a night that waits for its files may take as much longer.
        "dagrun_timeout": timedelta(days=1, hours=pipeline.feed_patience_hours),
        "on_failure_callback": callbacks.run_timed_out,
        "default_args": {
            "owner": pipeline.owner,
            # For faults that pass; a refusal is not tried again.
            "retries": 2,
            "retry_delay": timedelta(minutes=1),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=15),
        },
        "tags": ["nightshift", pipeline.name],
        "params": _params(pipeline),
    }


def maintenance_arguments() -> dict[str, Any]:
    """Everything about the DAG that cleans up after all pipelines."""
    # Far from every night, which it would only make wait.
    about = "What is old and what nobody needs any more goes."
    return _of_no_pipeline("maintenance", about, "0 12 * * 0")


def declarations_arguments() -> dict[str, Any]:
    """Everything about the DAG that looks whether all declarations can be read."""
    about = "Tells people of a pipeline whose declaration cannot be read."
    # In New York the hour at which predictions of the night are promised, or the one before.
    return _of_no_pipeline("declarations", about, "0 10 * * *")


def _of_no_pipeline(dag_id: str, description: str, cron: str) -> dict[str, Any]:
    return {
        "dag_id": dag_id,
        "description": description,
        # Without a start and with no time to make up for, a new home does not begin with the run
        # that would have been the last.
        "schedule": CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0)),
        "catchup": False,
        "is_paused_upon_creation": False,
        "max_active_runs": 1,
        "dagrun_timeout": timedelta(days=1),
        "default_args": {
            "owner": "nightshift",
            "retries": 2,
            "retry_delay": timedelta(minutes=15),
        },
        "tags": ["nightshift", dag_id],
    }


def night(pipeline: Pipeline) -> None:
    """The plan of a night and then its stages, one after another; called inside `with DAG(...)`.

    The stage after some that may fail goes on as long as the last that may not has succeeded.
    """
    plan = PlanOperator(pipeline=pipeline)
    tasks = _stages(pipeline)
    chain(plan, *tasks)
    needed = tasks[0]
    for before, task in pairwise(tasks):
        if task.stage.may_fail:
            continue
        if before.stage.may_fail:
            needed.set_downstream(task)
            # Of its two upstream tasks only `needed` may be the one: nothing succeeds after its
            # failure.
            task.trigger_rule = TriggerRule.ALL_DONE_MIN_ONE_SUCCESS
        needed = task
    _add_outcome([*(task for task in tasks if task.stage.may_fail), tasks[-1]])


def _stages(pipeline: Pipeline) -> list[StageOperator]:
    tasks: list[StageOperator] = []
    for name, stages in groupby(STAGES, key=attrgetter("group")):
        # A group is for the eye alone: a task is found by the name of its stage.
        with TaskGroup(group_id=name, prefix_group_id=False, tooltip=GROUPS[name]):
            tasks += [StageOperator(pipeline=pipeline, stage=stage) for stage in stages]
    return tasks


def _add_outcome(last: Sequence[StageOperator]) -> None:
    """A last task that fails with any stage: Airflow judges a run by its last tasks alone."""
    # It runs nothing: the scheduler itself sets its state, by those of the tasks before it.
    outcome = EmptyOperator(
        task_id=OUTCOME,
        doc_md="Succeeds when every stage has: a stage that failed makes the run fail by it.",
    )
    outcome.set_upstream(last)


class CommandOperator(BaseOperator):
    """Runs the `nightshift` command and passes its log on."""

    def on_kill(self) -> None:
        """End the command, which takes its own children with it.

        What it has not done yet, the next attempt will.
        """
        self._process.end()

    def _run_command(self, arguments: Sequence[str]) -> Ended:
        # Its output is to reach the task's log line by line.
        variables = {**os.environ, "PYTHONUNBUFFERED": "1"}
        return self._process.run([str(executable()), *arguments], variables)

    def _await_turn(
        self,
        since: datetime | None,
        why: str,
        own: Mapping[str, Any],
    ) -> NoReturn:
        """Leave the worker while another run goes on; Airflow soon calls `take_turn`.

        That takes none of the task's time limit, which Airflow counts from each return. The wait
        has one of its own, as long as that: a run that hangs is told to people.

        Args:
            since: When it found another run first; None: now.
            why: What the command has said.
            own: Arguments of `take_turn` beside `since`.
        """
        now = datetime.now(UTC)
        waits_since = since or now
        waited = now - waits_since
        if self.execution_timeout and waited > self.execution_timeout:
            what = f"{self.task_id} has waited {waited} for its turn"
            raise AirflowException(f"{what}, as long as it may take itself: {why}")
        self.log.info("Another run goes on: this one waits.")
        kept = {**own, "since": waits_since.isoformat()}
        pause = Pause(seconds=_BETWEEN_TURNS_SECONDS)
        self.defer(trigger=pause, method_name="take_turn", kwargs=kept)
        raise AssertionError("it is deferred")

    @cached_property
    def _process(self) -> Process:
        return Process(self.log)


class PlanOperator(CommandOperator):
    """Tells what the night will do and why, and ends it here when that is nothing.

    By the `nightshift plan` command, which judges as the stages do. The plan is in the task's log,
    in its XCom `plan`, and in the note of the DAG run.
    """

    ui_color = "#e6e0f2"

    def __init__(self, *, pipeline: Pipeline, **options: Any) -> None:
        super().__init__(
            task_id=PLAN,
            doc_md="Tell what the night will do and why; when that is nothing, skip the stages.",
            execution_timeout=timedelta(minutes=15),
            do_xcom_push=False,
            on_failure_callback=[callbacks.stage_failed],
            **options,
        )
        self.pipeline = pipeline

    def execute(self, context: Context) -> None:
        """Run the command for the days of the DAG run.

        Raises:
            DownstreamTasksSkipped: nothing is to be done.
            RunRefused: what the DAG run was asked for makes no sense.
            TaskDeferred: an earlier night of a backfill runs; Airflow calls `take_turn` when it has
                ended.
        """
        require_known(context["params"], self.dag.params)
        self._let_earlier_nights_end(context)
        try:
            planned = night_of(self.pipeline, context)
        except AirflowSkipException as nothing:
            self.log.info("%s", nothing)
            self._end_here()
        self.log.info("%s", planned)
        with TemporaryDirectory() as folder:
            result = Path(folder) / "plan.json"
            dag_run = context["dag_run"].run_id
            arguments = plan_command(self.pipeline, planned, dag_run, context["params"], result)
            ended = self._run_command(arguments)
            _raise_unless_done(PLAN, planned.days, ended.exit_code, ended.last_line)
            plan = json.loads(result.read_text())
        context["ti"].xcom_push(key="plan", value={"night": str(planned), **plan})
        self.log.info("%s: %s", planned, plan["summary"])
        if not plan["has_work"]:
            self._end_here()

    def notify_command(self, context: Context, event: Event) -> list[str]:
        """The command that has people told of an event of the plan of the DAG run."""
        # What has failed may be to make sense of the days that were asked for.
        days = days_to_tell(self.pipeline, context)
        run_id = safe_run_id(context["dag_run"].run_id)
        arguments = notification(self.pipeline, PLAN, days, run_id, event)
        return [str(executable()), *arguments]

    def night_command(self, context: Context, event: Event) -> list[str]:
        """The command that has people told of an event of the DAG run, and of none of its tasks."""
        days = days_to_tell(self.pipeline, context)
        run_id = safe_run_id(context["dag_run"].run_id)
        return [str(executable()), *of_night(self.pipeline, days, run_id, event)]

    def take_turn(self, context: Context, event: object) -> None:
        """Go on: the night before has ended."""
        self.execute(context)

    def _let_earlier_nights_end(self, context: Context) -> None:
        """Wait for the night before: however many runs a backfill has at once, they take turns.

        A night that began before those that it builds on would score without them.
        """
        if context["dag_run"].run_type != "backfill":
            return
        before = context["ti"].get_previous_dagrun(state="running")
        if before is None:
            return
        self.log.info("Waiting for the night before: run %s.", before.run_id)
        ended = RunEnded(dag_id=self.dag_id, run_id=before.run_id)
        self.defer(trigger=ended, method_name="take_turn")

    def _end_here(self) -> NoReturn:
        """Skip all stages, whatever their trigger rules; a stage that is cleared runs."""
        raise DownstreamTasksSkipped(tasks=sorted(self.get_flat_relative_ids(upstream=False)))


class StageOperator(CommandOperator):
    """Runs one stage by the `nightshift` command and passes its log on.

    Where files have not landed yet, or another run of the pipeline goes on, it waits in the
    triggerer and runs the stage again: all in one attempt. What became of the stage is in its XCom
    `result`. Where corrected files of days before are not accepted, the night goes on without them,
    and its last stage is refused for the reason that is then in the XCom `not_accepted` of the
    stage that read them. Where no model serves and one awaits a person, the rest of the night is
    skipped. A stage that its run was not asked for succeeds at once: a skipped one would take those
    after it along.
    """

    ui_color = "#dce6f2"
    operator_extra_links = (ReportLink(),)
    report_url = ""
    """Where the report is that the stage has written; '': it has written none."""
    changed: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    """What the stage has changed: rows, version and days by the SQL name of the table."""

    def __init__(self, *, pipeline: Pipeline, stage: Stage, **options: Any) -> None:
        if stage.may_fail:
            # The champion could score tomorrow at once, and waits for the last attempt.
            options = {"retries": 1, **options}
        super().__init__(
            task_id=stage.name,
            doc_md=stage.does,
            execution_timeout=_limit(pipeline, stage, nights=1),
            inlets=_inlets(pipeline, stage),
            outlets=_outlets(pipeline, stage),
            do_xcom_push=False,
            on_success_callback=_success_callbacks(pipeline, stage),
            on_failure_callback=_failure_callbacks(pipeline, stage),
            on_skipped_callback=_following_callbacks(stage),
            **_of_resources(pipeline, stage),
            **options,
        )
        self.pipeline = pipeline
        self.stage = stage

    def pre_execute(self, context: Context) -> None:
        """Say which night it is, and give a range, or nights to catch up, the time that they need.

        Airflow reads the limit between this and `execute`.
        """
        night = night_of(self.pipeline, context)
        self.log.info("%s", night)
        nights = max(len(night.days), _nights_planned(context))
        self.execution_timeout = _limit(self.pipeline, self.stage, nights)

    def execute(self, context: Context) -> None:
        """Run the stage for the days of the DAG run.

        Raises:
            TaskDeferred: files have not landed yet, and Airflow calls `go_on` when they have; or
                another run of the pipeline goes on, and it soon calls `take_turn`.
            AirflowSkipException: no model serves yet, and one that would awaits a person.
        """
        asked = _stages_asked(context["params"])
        if asked and self.stage.name not in asked:
            self.log.info("Nothing to do: this run is of %s alone.", ", ".join(asked))
            # Nothing has changed, and there is nothing to tell.
            self.outlets = list[Asset]()
            self.on_success_callback = list[Callable[[Context], None]]()
            self._require_all_accepted(context)
            return
        self._perform(context, began=datetime.now(UTC), is_told=False)

    def go_on(
        self,
        context: Context,
        event: str,
        began: str,
        is_told: bool,
        lacking: Sequence[str] = (),
    ) -> None:
        """Run the stage if its files are there by now; else wait on, or give up.

        Args:
            context: Airflow's.
            event: What ended the wait.
            began: When the stage first ran, in ISO 8601.
            is_told: Whether people have been told that the files are late.
            lacking: The files that it waits for, below the landing folder.
        """
        self.log.info("The wait for files has ended: %s", event)
        since = datetime.fromisoformat(began)
        last = night_of(self.pipeline, context).days.last
        # Where another path is declared by now, the stage says for what to wait.
        is_asked = event == LANDED or not _are_declared(self.pipeline, last, lacking)
        if is_asked or not absent(lacking):
            self._perform(context, since, is_told)
        else:
            self._wait(context, since, is_told, lacking)

    def _perform(
        self,
        context: Context,
        began: datetime,
        is_told: bool,
        waits_since: datetime | None = None,
    ) -> None:
        night = night_of(self.pipeline, context)
        run_id = safe_run_id(context["dag_run"].run_id)
        with TemporaryDirectory() as folder:
            file = Path(folder) / "result.json"
            arguments = command(self.pipeline, self.stage, night, run_id, context["params"], file)
            ended = self._run_command(arguments)
            # There is none where the command was killed.
            result = json.loads(file.read_text()) if file.exists() else {}
        if ended.exit_code == AwaitsTurn.exit_code:
            own = {"began": began.isoformat(), "is_told": is_told}
            self._await_turn(waits_since, ended.last_line, own)
        kept = result.get("kept")
        if ended.exit_code == NotLanded.exit_code and not kept:
            # There are none where the record cannot be read: then the stage soon looks again.
            self._wait(context, began, is_told, result.get("lacking", []))
            return
        why = self._take_in(context, result) or ended.last_line
        if kept:
            told = f"New files of {', '.join(kept)} were not accepted, and what was published of "
            told += f"these days stays in force: {why}"
            self.log.warning("%s", told)
            if not _not_accepted(context):
                # The check of a night judges again what ingesting it has judged with these days.
                callbacks.correction_refused(context, told)
            context["ti"].xcom_push(key=_NOT_ACCEPTED, value=told)
        elif ended.exit_code == AwaitsApproval.exit_code:
            self._await_person(context, why)
        else:
            _raise_unless_done(self.stage.name, night.days, ended.exit_code, why)
        self._require_all_accepted(context)

    def take_turn(
        self,
        context: Context,
        event: object,
        began: str,
        is_told: bool,
        since: str,
    ) -> None:
        """Run the stage if no other run of the pipeline goes on by now; else wait on, or give up.

        Args:
            context: Airflow's.
            event: What ended the pause.
            began: When the stage first ran, in ISO 8601.
            is_told: Whether people have been told that files are late.
            since: When it found another run first, in ISO 8601.
        """
        waits_since = datetime.fromisoformat(since)
        self._perform(context, datetime.fromisoformat(began), is_told, waits_since)

    def _await_person(self, context: Context, why: str) -> NoReturn:
        """Skip the rest of the night, which is no fault: a person was asked to let a model serve.

        Beside a correction that was not accepted it is refused for that, as its last stage is.
        """
        reasons = _not_accepted(context)
        if not reasons:
            raise AirflowSkipException(why)
        # People know of both.
        self.on_failure_callback = _following_callbacks(self.stage)
        raise callbacks.StageRefused(f"{why} {reasons[-1]}")

    def _require_all_accepted(self, context: Context) -> None:
        """The last stage of a night is refused for what none before it was: people know why."""
        if self.stage != STAGES[-1]:
            return
        reasons = _not_accepted(context)
        if reasons:
            expired = _expiry_callbacks(self.pipeline, self.stage)
            self.on_failure_callback = [callbacks.night_watched, *expired]
            raise callbacks.StageRefused(f"All else of the night is done. {reasons[-1]}")

    def _take_in(self, context: Context, result: dict[str, Any]) -> str:
        """Hand on what became of the stage; returns why it did not succeed, with its report."""
        if not result:
            return ""
        context["ti"].xcom_push(key="result", value=result)
        told = result.get("to_tell")
        if told is not None:
            asked = _success_callbacks(self.pipeline, self.stage)
            self.on_success_callback = callbacks.of_events(told, asked)
        self.changed = result["tables"]
        # Airflow makes an event of each outlet that a task has when it succeeds: of a table that
        # did not change there is none.
        tables = _outlets(self.pipeline, self.stage)
        self.outlets = [table for table in tables if table.name in self.changed]
        for table in self.outlets:
            context["outlet_events"][table].extra = self.changed[table.name]
        if not result["report"]:
            return result["message"] or ""
        self.report_url = url_of(result["report"])
        self.log.info("Report: %s", self.report_url)
        # It names the report by its file, which only this machine has.
        return (result["message"] or "").replace(result["report"], self.report_url)

    def _wait(
        self, context: Context, began: datetime, is_told: bool, lacking: Sequence[str]
    ) -> None:
        """Wait for files: until the deadline, and once people are told until patience ends.

        Where nobody could be told, it is tried again each hour.
        """
        pipeline = self.pipeline
        deadline = began + timedelta(hours=pipeline.feed_deadline_hours)
        end = began + timedelta(hours=pipeline.feed_patience_hours)
        now = datetime.now(UTC)
        if now >= end:
            late = _late(pipeline.feed_patience_hours, absent(lacking))
            raise callbacks.FilesMissing(f"{late} Clear the task once they are there.")
        if now >= deadline and not is_told:
            late = _late(pipeline.feed_deadline_hours, absent(lacking))
            message = f"{late} The night waits for them until {end:%Y-%m-%d %H:%M} UTC."
            self.log.warning("%s", message)
            is_told = callbacks.feed_late(context, message)
        until = end if is_told else deadline
        if until <= now:
            until = min(end, now + _TELL_AGAIN)
        # The stage alone knows which: of the days some may be made, or left out, or need none.
        trigger = FilesLanded(paths=lacking, until=until.isoformat())
        kept = {"began": began.isoformat(), "is_told": is_told, "lacking": list(lacking)}
        self.defer(trigger=trigger, method_name="go_on", kwargs=kept)

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> OperatorLineage:
        """What OpenLineage asks of an operator, when it is switched on."""
        # The run may have changed others too, in stages before.
        own = {table.name for table in self.outlets}
        changed = {name: what for name, what in self.changed.items() if name in own}
        return lineage.lineage(self.inlets, changed)

    get_openlineage_facets_on_failure = get_openlineage_facets_on_complete

    def notify_command(self, context: Context, event: Event) -> list[str]:
        """The command that has people told of an event of this stage in the DAG run."""
        days = night_of(self.pipeline, context).days
        run_id = safe_run_id(context["dag_run"].run_id)
        arguments = notification(self.pipeline, self.stage.name, days, run_id, event)
        return [str(executable()), *arguments]


class MaintenanceOperator(CommandOperator):
    """Cleans up after all pipelines by the `nightshift` command and passes its log on.

    For a pipeline of which a run goes on it waits in the triggerer, once the others are clean.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(
            task_id="maintain",
            doc_md="Deletes files, logs and rows that are old and that nobody needs any more.",
            # What a year has left may take long where nobody has cleaned before.
            execution_timeout=timedelta(hours=6),
            do_xcom_push=False,
            on_failure_callback=[callbacks.maintenance_lost],
            **options,
        )

    def execute(self, context: Context) -> None:
        """Run the command, which has people told of what it cannot clean: by the last attempt.

        Raises:
            TaskDeferred: runs of pipelines go on, and Airflow soon calls `take_turn`.
        """
        self._maintain(context, [], since=None)

    def take_turn(
        self,
        context: Context,
        event: object,
        pipelines: list[str],
        since: str,
    ) -> None:
        """Clean what is left; else wait on, or give up.

        Args:
            context: Airflow's.
            event: What ended the pause.
            pipelines: Those that are left; none: nothing is done yet.
            since: When it found a run first, in ISO 8601.
        """
        self._maintain(context, pipelines, datetime.fromisoformat(since))

    def _maintain(self, context: Context, pipelines: list[str], since: datetime | None) -> None:
        attempt = context["ti"]
        # Another one follows where this one fails.
        is_quiet = attempt.try_number <= attempt.max_tries
        with TemporaryDirectory() as folder:
            file = Path(folder) / "result.json"
            asked = maintenance_command(pipelines, file, is_quiet=is_quiet)
            ended = self._run_command(asked)
            # There is none where another `maintain` goes on.
            result = json.loads(file.read_text()) if file.exists() else {}
        if not ended.exit_code:
            return
        if ended.exit_code == AwaitsTurn.exit_code:
            left = result.get("awaited", pipelines)
            self._await_turn(since, ended.last_line, {"pipelines": left})
        is_told = ended.exit_code == NightshiftError.exit_code
        failure = callbacks.MaintenanceTold if is_told else AirflowException
        raise failure(f"maintain failed (exit code {ended.exit_code}): {ended.last_line}")

    def notify_command(self, _: Context, event: Event) -> list[str]:
        """The command that has the people of all pipelines told of an event of maintenance."""
        return [str(executable()), *announcement(event)]


class DeclarationsOperator(CommandOperator):
    """Has people told of declarations that cannot be read, by the `nightshift` command."""

    ui_color = "#f2e6dc"

    def __init__(self, **options: Any) -> None:
        super().__init__(
            task_id="look",
            doc_md="Look whether each pipeline's declaration can be read; have people told if not.",
            execution_timeout=timedelta(minutes=5),
            do_xcom_push=False,
            **options,
        )

    def execute(self, _: Context) -> None:
        """Run the command, which reads the declarations as they are now."""
        ended = self._run_command(announcement(Event.DECLARATION_UNREADABLE))
        if ended.exit_code:
            raise AirflowException(
                f"Nobody was told (exit code {ended.exit_code}): {ended.last_line}"
            )


def maintenance_command(
    pipelines: Sequence[str],
    result: Path,
    *,
    is_quiet: bool,
) -> list[str]:
    """Arguments of `nightshift` that clean up after these pipelines.

    Args:
        pipelines: Their names; none: all, and what they share.
        result: Gets the pipelines of which a run goes on.
        is_quiet: Nobody is told of what cannot be cleaned.
    """
    how = [f"--result={result}", f"--wait-seconds={_TURN_SECONDS}"]
    quiet = ["--no-notify"] if is_quiet else []
    return ["maintain", *pipelines, *how, *quiet]


def announcement(event: Event) -> list[str]:
    """Arguments of `nightshift` that have people told of an event of no run."""
    return ["announce", "--event", str(event)]


def command(
    pipeline: Pipeline,
    stage: Stage,
    night: Night,
    run_id: str,
    params: Mapping[str, Any],
    result: Path,
) -> list[str]:
    """Arguments of `nightshift` that perform the stage; never seen by a shell.

    An attempt has nobody told, because another may follow: the callbacks do, after the last.
    """
    where = _where(pipeline, stage.name, night.days, run_id)
    arguments = ["run", *where, "--no-notify", f"--result={result}"]
    arguments.append(f"--wait-seconds={_TURN_SECONDS}")
    if not params.get("restate"):
        arguments.append("--as-needed")
    if params.get("allow_mixed"):
        # Nothing that a plan tells depends on it.
        arguments.append("--allow-mixed")
    if params.get("approval"):
        arguments.append("--approval")
    return [*arguments, *_extent(night, params)]


def plan_command(
    pipeline: Pipeline, night: Night, dag_run: str, params: Mapping[str, Any], result: Path
) -> list[str]:
    """Arguments of `nightshift` that tell what the stages would do; never seen by a shell."""
    # One argument with '=': an id may begin with a dash.
    told = [f"--note-run={dag_run}", f"--result={result}"]
    asked = _extent(night, params)
    stages = _stages_asked(params)
    for name in stages:
        asked += ["--stage", name]
    is_exact = bool(params.get("restate"))
    if stages and not is_exact:
        asked.append("--as-needed")
    if is_exact and not stages:
        # Stages that are named are done on exactly these days as it is.
        asked.append("--restate")
    return ["plan", *_span(pipeline, night.days), *told, *asked]


def notification(
    pipeline: Pipeline, where: str, days: Days, run_id: str, event: Event
) -> list[str]:
    """Arguments of `nightshift` that have people told of an event of a stage, or of the plan."""
    return ["notify", *_where(pipeline, where, days, run_id), "--event", str(event)]


def of_night(pipeline: Pipeline, days: Days, run_id: str, event: Event) -> list[str]:
    """Arguments of `nightshift` that have people told of an event of a night, and of no stage."""
    about = [*_span(pipeline, days), f"--run-id={run_id}"]
    return ["notify", *about, "--event", str(event)]


def late_command(pipeline: Pipeline, days: Days, run_id: str) -> list[str]:
    """Arguments of `nightshift` that have people told if the night's predictions are not there."""
    return of_night(pipeline, days, run_id, Event.PREDICTIONS_LATE)


def executable() -> Path:
    """The `nightshift` command.

    That of the environment in which Airflow runs, else the first on PATH.
    """
    own = Path(sys.executable).with_name("nightshift")
    if own.exists():
        return own
    on_path = shutil.which("nightshift")
    if not on_path:
        raise AirflowFailException(
            f"No 'nightshift' command at {own} nor on PATH={os.environ.get('PATH')}. "
            "`make setup` installs it."
        )
    return Path(on_path)


def time_limit(stage: Stage, days: int) -> timedelta:
    """How long one attempt of the stage may take on so many days."""
    return timedelta(minutes=stage.timeout_minutes + _MINUTES_PER_FURTHER_DAY * (days - 1))


def _limit(pipeline: Pipeline, stage: Stage, nights: int) -> timedelta:
    """The same of a pipeline's stage: what its training may take comes to it."""
    limit = time_limit(stage, nights)
    family = pipeline.training.family
    if stage.name == _TRAINING_STAGE and isinstance(family, NeuralNetwork):
        # The model that is judged, and after it the one that serves.
        limit += 2 * timedelta(seconds=family.timeout_seconds)
    return limit


def safe_run_id(dag_run_id: str) -> str:
    """The DAG run's id in the letters that a run id may have; ids that differ stay different."""
    plain = re.sub(r"[^A-Za-z0-9_.:+~-]", "-", dag_run_id)
    # `pipelines/run.py` refuses an id of more than 200, and dots; what follows has at most 193.
    if plain == dag_run_id and len(plain) <= 200 and plain.strip("."):
        return plain
    return f"{plain[:180]}~{sha256(dag_run_id.encode()).hexdigest()[:12]}"


def _are_declared(pipeline: Pipeline, until: date, names: Sequence[str]) -> bool:
    """Whether files and markers of days up to that one still have these names."""
    # A night may read those of days before it, too.
    files = expected_files(pipeline, Days(pipeline.first_day, until))
    declared = set[str]().union(*(file.names for file in files))
    return declared.issuperset(names)


def _late(hours: float, missing: Sequence[str]) -> str:
    listed = ", ".join(missing[:_FILES_LISTED])
    hidden = len(missing) - _FILES_LISTED
    more = f" and {hidden} more" if hidden > 0 else ""
    return f"Not landed after {hours:g} h: {listed or 'files that keep changing'}{more}."


def _where(pipeline: Pipeline, stage: str, days: Days, run_id: str) -> list[str]:
    # One argument with '=': a run id may begin with a dash.
    return [*_span(pipeline, days), "--stage", stage, f"--run-id={run_id}"]


def _span(pipeline: Pipeline, days: Days) -> list[str]:
    return [pipeline.name, "--from", str(days.first), "--to", str(days.last)]


def _extent(night: Night, params: Mapping[str, Any]) -> list[str]:
    """How much is to be done: what was asked for; and a replay loads its history first."""
    asked = {name for name in _FLAGS if params.get(name)}
    if night.stands_for:
        asked.add("from_start")
    return [flag for name, flag in _FLAGS.items() if name in asked]


def _not_accepted(context: Context) -> list[str]:
    """Why stages of the run have not accepted files of days before."""
    told = context["ti"].xcom_pull(task_ids=FILE_READERS, key=_NOT_ACCEPTED)
    return [reason for reason in told if reason]


def _nights_planned(context: Context) -> int:
    """How many nights the run has to do by its plan, with those that were missed before its own."""
    told = context["ti"].xcom_pull(task_ids=[PLAN], key="plan")
    # A plan of an earlier version does not tell it.
    return max((plan.get("nights", 0) for plan in told if plan), default=0)


def _stages_asked(params: Mapping[str, Any]) -> list[str]:
    """Names of the stages that a run is of, in their order; none: of all."""
    chosen = params.get("stages") or ()
    return [stage.name for stage in STAGES if stage.name in chosen]


def _raise_unless_done(what: str, days: Days, exit_code: int, why: str) -> None:
    how = f"(exit code {exit_code}): {why}"
    # Another attempt would only repeat the first two.
    if exit_code == Refused.exit_code:
        raise callbacks.StageRefused(f"{what} of {days} was refused {how}")
    if exit_code == UsageError.exit_code:
        raise AirflowFailException(f"{what} of {days} was called wrongly {how}")
    if exit_code:
        raise AirflowException(f"{what} of {days} failed {how}")


def _success_callbacks(pipeline: Pipeline, stage: Stage) -> list[Callable[[Context], None]]:
    expired = _expiry_callbacks(pipeline, stage)
    followed = _following_callbacks(stage)
    if stage.name == _PROMOTING_STAGE:
        return [callbacks.model_evaluated, *followed, *expired]
    if any(table.warehouse for table in _published(pipeline, stage)):
        return [*followed, callbacks.tables_published]
    # Should the first take so long that Airflow ends the second, the night is done all the same.
    watched = [callbacks.night_watched, callbacks.last_stage_done]
    return [*watched, *expired] if stage == STAGES[-1] else followed


def _failure_callbacks(pipeline: Pipeline, stage: Stage) -> list[Callable[[Context], None]]:
    followed = _following_callbacks(stage)
    return [callbacks.stage_failed, *followed, *_expiry_callbacks(pipeline, stage)]


def _following_callbacks(stage: Stage) -> list[Callable[[Context], None]]:
    """Of the stages that put MLflow's alias back where somebody has moved it."""
    return [callbacks.alias_followed] if stage.name in _FOLLOWING_STAGES else []


def _expiry_callbacks(pipeline: Pipeline, stage: Stage) -> list[Callable[[Context], None]]:
    """Of the stages that record that nobody approved a model in time, however they end."""
    has_deadline = pipeline.promotion.approval_hours is not None
    expires = stage.name == _PROMOTING_STAGE or stage == STAGES[-1]
    return [callbacks.approvals_expired] if has_deadline and expires else []


def _of_resources(pipeline: Pipeline, stage: Stage) -> dict[str, Any]:
    """Where Airflow runs a task, and beside what; what is not said is Airflow's default."""
    given = pipeline.resources_of(stage)
    platforms = _of_training() if stage.name == _TRAINING_STAGE else {}
    # What a pipeline declares goes before. A `pod_override` alone Airflow lays over the template,
    # which is still to be the one with GPUs.
    options: dict[str, Any] = {"executor_config": {**platforms, **given.executor_config}}
    if given.queue:
        options["queue"] = given.queue
    if given.pool:
        options["pool"] = given.pool.name
        options["pool_slots"] = given.pool_slots
    return options


def _of_training() -> dict[str, Any]:
    """What the executor is told of a training: the Pod, where it is another than that of tasks."""
    # By itself: another setting that makes no sense would keep every DAG from being read.
    pod = os.environ.get(Environment.settings()["train_pod"].variable)
    return {"pod_template_file": pod} if pod else {}


def _inlets(pipeline: Pipeline, stage: Stage) -> list[Asset]:
    """The tables that the stage reads, each once; of those that it makes itself none."""
    made = [table for table in pipeline.tables if table.made_by in (stage.name, stage.audits)]
    read = list(stage.reads)
    for table in made:
        read += pipeline.sources_of(table)
    own = {table.name for table in made}
    others = [name for name in dict.fromkeys(read) if name not in own]
    return [_asset(pipeline, pipeline.table(name)) for name in others]


def _published(pipeline: Pipeline, stage: Stage) -> list[Table]:
    """The tables that the stage publishes.

    A check those that it audits, another stage those that no check audits.
    """
    audited = {other.audits for other in STAGES}
    makers = {stage.audits} if stage.audits else {stage.name} - audited
    return [table for table in pipeline.tables if table.made_by in makers]


def _outlets(pipeline: Pipeline, stage: Stage) -> list[Asset]:
    return [_asset(pipeline, table) for table in _published(pipeline, stage)]


def _asset(pipeline: Pipeline, table: Table) -> Asset:
    return Asset(
        name=f"{pipeline.name}.{table.name}",
        uri=f"nightshift://lake/{pipeline.name}/{table.name}",
        group="nightshift",
    )


def _params(pipeline: Pipeline) -> dict[str, Param]:
    covers = (
        f"{pipeline.first_day} to {pipeline.last_day}"
        if pipeline.last_day
        else f"from {pipeline.first_day} on"
    )
    due = "the recorded day that yesterday stands for" if pipeline.replay else "yesterday"
    day: dict[str, Any] = {"type": ["null", "string"], "format": "date"}
    names = [stage.name for stage in STAGES]
    return {
        "date": Param(
            None,
            title="Night",
            description=(
                "The day to process, whatever the logical date is. Leave empty for the night that "
                f"was due last at the logical date: {due}, unless you change it. "
                f"The feeds cover {covers}."
            ),
            **day,
        ),
        "from": Param(
            None,
            title="From",
            description="First day of a range, processed in one pass. Needs 'To', and no 'Night'.",
            **day,
        ),
        "to": Param(None, title="To", description="Last day of the range.", **day),
        "stages": Param(
            None,
            title="Stages",
            description="Only these, in their order; leave empty for all. One that others must "
            "come before is refused where they have not.",
            type=["null", "array"],
            items={"type": "string", "enum": names},
            # Of these the form lets people choose.
            examples=names,
        ),
        "restate": Param(
            False,
            title="Restate",
            description="Make exactly these days anew, current or not. Otherwise a run makes what "
            "is missing or stale up to its last day, and nothing else.",
            type="boolean",
        ),
        "allow_gap": Param(
            False,
            title="Allow gap",
            description="Go on over nights before the last that were never made and lack files; "
            "with Restate nights that were made keep their raw rows where files are gone.",
            type="boolean",
        ),
        "from_start": Param(
            False,
            title="From start",
            description="Catch up all nights since the pipeline's first day, though none was ever "
            "run; otherwise those since the first that was. A replay does so by itself where no "
            "night is chosen.",
            type="boolean",
        ),
        "retrain": Param(
            False,
            title="Retrain",
            description="Train again even when a model with the same pins is there.",
            type="boolean",
        ),
        "allow_mixed": Param(
            False,
            title="Allow mixed",
            description="Train though the declaration or a transform changed within the days to "
            "learn from. Otherwise such a training is refused.",
            type="boolean",
        ),
        "rescore": Param(
            False,
            title="Rescore",
            description="Score these days again; predictions that differ from those served become "
            "a new revision. Otherwise served predictions stay.",
            type="boolean",
        ),
        "approval": Param(
            False,
            title="Approval",
            description="Have a model that would be promoted await a person, on the page Models, "
            "also where the pipeline does not ask for that. The champion serves on.",
            type="boolean",
        ),
    }
