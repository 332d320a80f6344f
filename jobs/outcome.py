"""What a run has to tell: its events, read from what it recorded in the `ops` tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any

from jobs.lake.store_faults import what_store_says
from jobs.services import addresses, promptly
from pipelines.days import Days
from pipelines.errors import AwaitsApproval, NotLanded, Refused, UsageError
from pipelines.events import Event, Notification
from pipelines.redaction import redacted
from pipelines.run import Run, is_of_airflow
from pipelines.spec import PREDICTIONS
from pipelines.stages import PLAN, STAGES

Row = dict[str, Any]

PROMOTING_STAGE = "evaluate"
_WATCHING_STAGE = "monitor"
EXPIRING_STAGES = (PROMOTING_STAGE, _WATCHING_STAGE)
"""Those that record, whatever becomes of them, that nobody approved a model in time."""
FOLLOWING_STAGES = (PROMOTING_STAGE, "predict")
"""Those that look whether somebody has moved MLflow's alias, and put it back."""
_VERDICTS = {"promoted": Event.MODEL_PROMOTED, "awaiting": Event.MODEL_AWAITING}
"""The event in the metrics of that stage, and in `ops.model_events` -> what people are told."""
CURRENT = "current"
"""Status in `ops.stage_runs` of a stage that had nothing to do."""
NO_REASON = (
    "It ended before it could record why: its process was killed, or the stage server ended. "
    "Its log says more."
)
UNRECORDED = (
    "It ended before it could record why, or nothing can be recorded: a disk is full, the lake is "
    "away, or its process was killed. Its log says more."
)
_EVENTS = {
    Refused.exit_code: Event.STAGE_REFUSED,
    NotLanded.exit_code: Event.FEED_MISSING,
}
_COLUMNS = (
    *("run_id", "stage", "first_day", "last_day", "status", "started_at", "seconds", "metrics"),
    "error",
)
"""Of `ops.stage_runs`: what is told of."""
_FIGURES = (
    ("ingest", "rows_staged", "rows"),
    ("predict", "predictions", "predictions"),
    ("evaluate", "event", "model"),
    ("evaluate", "serves", "serving model"),
)
"""Stage, metric and its name in the summary of a night; what a stage does not say is left out."""


def of_stage(run: Run, exit_code: int, since: datetime) -> Notification | None:
    """What people are told when the stage of the run has ended; None: nothing.

    Args:
        run: The run at the stage.
        exit_code: How it ended.
        since: When it began (UTC).
    """
    if exit_code == AwaitsApproval.exit_code:
        # Who is to approve was told when the model began to wait.
        return None
    if exit_code:
        # A loss is recorded before this, so that no record is news of the lake.
        return failure(run, failure_event(exit_code), since, UNRECORDED)
    if run.doing.name == _WATCHING_STAGE:
        return drift(run)
    return promotion(run) if run.doing.name == PROMOTING_STAGE else warehouse(run)


def to_tell(run: Run) -> list[Event]:
    """What a success of the run's stage has for people, who have not been told of it yet.

    Args:
        run: The run at the stage, which is on record.
    """
    stage = run.doing.name
    asked = []
    if stage == PROMOTING_STAGE:
        asked.append(Event.MODEL_PROMOTED)
    if stage in FOLLOWING_STAGES:
        asked.append(Event.ALIAS_MOVED)
    if stage in EXPIRING_STAGES and run.pipeline.promotion.approval_hours is not None:
        asked.append(Event.APPROVAL_EXPIRED)
    if stage == _WATCHING_STAGE:
        asked += [Event.DRIFT_FOUND, Event.NIGHT_DONE]
    asked.append(Event.WAREHOUSE_FAILED)
    return [event for event in asked if OF_RECORDS[event](run)]


def failure_event(exit_code: int) -> Event:
    """Refused, not landed, or failed in any other way."""
    return _EVENTS.get(exit_code, Event.STAGE_FAILED)


def failure(
    run: Run, event: Event, since: datetime | None, otherwise: str = NO_REASON
) -> Notification:
    """A stage that did not succeed, with the reason that it recorded.

    Args:
        run: The run at the stage.
        event: A stage refused or failed, or a feed late or missing.
        since: Only what was recorded by an attempt that began since then is its reason (UTC).
        otherwise: The message where it recorded none.
    """
    try:
        attempt = _last_of(promptly.read(lambda: _stage_rows(run)), run, since)
    except Exception as error:  # a lake that is away may be the very failure to tell of
        attempt = {}
        is_known = otherwise not in (NO_REASON, UNRECORDED)
        otherwise = otherwise if is_known else _unread(run, error)
    recorded = attempt.get("error")
    # Who called a stage that was killed may know more than that.
    knows_more = recorded == NO_REASON and otherwise != UNRECORDED
    message = otherwise if knows_more or not recorded else recorded
    told = notification(run, event, message, run.doing.name)
    return replace(told, report=_report(run, attempt))


def of_plan(run: Run, event: Event, message: str) -> Notification:
    """The plan of a run in Airflow, which comes before its stages, was refused or failed.

    A refused one is of no night: what the run was asked for makes no sense.
    """
    told = notification(run, event, message, PLAN)
    return replace(told, days="") if event is Event.STAGE_REFUSED else told


def reason(run: Run, since: datetime | None) -> str | None:
    """Why the stage of the run did not succeed, as its last attempt recorded it; None: it did not.

    Args:
        run: The run at the stage.
        since: Only what an attempt that began since then has recorded (UTC); None: any.
    """
    return _last_attempt(run, since).get("error")


def has_recorded(run: Run, since: datetime) -> bool:
    """Whether an attempt of the run at the stage that began since then (UTC) is on record."""
    return bool(_last_attempt(run, since))


def refusals(run: Run, stage: str) -> list[Row]:
    """What all runs of the pipeline have recorded of refusals of the stage, oldest first."""
    refused = [("pipeline", "=", run.pipeline.name), ("stage", "=", stage)]
    return _rows_of(run, [*refused, ("status", "=", "refused")])


def _last_attempt(run: Run, since: datetime | None) -> Row:
    """What the last attempt at the stage of the run recorded; {}: nothing."""
    return _last_of(_readable_rows(run), run, since)


def _last_of(rows: Sequence[Row], run: Run, since: datetime | None) -> Row:
    recorded = [row for row in rows if row["stage"] == run.doing.name]
    own = [row for row in recorded if since is None or row["started_at"] >= since]
    return own[-1] if own else {}


def _unread(run: Run, error: Exception) -> str:
    why = what_store_says(error) or f"{type(error).__name__}: {error}"
    told = f"The record, which may say why, cannot be read: {why}"
    return redacted(told, run.environment.variables())


def _report(run: Run, attempt: Row) -> str | None:
    """Where the report is that the attempt has written."""
    metrics = json.loads(attempt.get("metrics") or "{}")
    report = metrics.get("report")
    return addresses.of_report(run.environment, report) if report else None


def promotion(run: Run) -> Notification | None:
    """The model that the run's evaluate stage has promoted, or that awaits a person.

    None when there is none, or this run, or another that came upon the same verdict, has said so.
    """
    evaluations = _evaluations(run)
    if not evaluations:
        return None
    *earlier, last = evaluations
    verdict = json.loads(last["metrics"])
    event = _VERDICTS.get(verdict.get("event", ""))
    if event is None:
        return None
    expired_at = _last_expiry(run, verdict["model_version"])
    if expired_at is not None:
        # After that the model awaits a person anew.
        earlier = [row for row in earlier if _ended_at(row) > expired_at]
    is_known = any(_is_the_same(json.loads(row["metrics"]), verdict) for row in earlier)
    if is_known or not _is_news(run, verdict):
        return None
    message = f"Model {verdict['model_version']}. {verdict.get('reason', '')}".strip()
    told = notification(run, event, message, PROMOTING_STAGE)
    return replace(told, page=_models_page(run))


def expiry(run: Run) -> Notification | None:
    """The models of the pipeline that were refused, because nobody approved them in time.

    Whichever run has recorded it. None when there is none, or people know of all of them.
    """
    from jobs.lake import alerts, model_events

    recorded = model_events.events(run.environment, run.pipeline.name)
    expired = [one for one in recorded if one["event"] == model_events.EXPIRED]
    told_at = alerts.told_last(run.environment, run.pipeline.name, Event.APPROVAL_EXPIRED)
    unknown = [one for one in expired if told_at is None or one["created_at"] > told_at]
    new = [one["model_version"] for one in unknown]
    if not new:
        return None
    hours = run.pipeline.promotion.approval_hours
    which = f"Model {new[0]}" if len(new) == 1 else f"Models {', '.join(new)}"
    within = f" within {hours:g} h" if hours is not None else " in time"
    message = f"{which}: nobody approved{within}. What serves serves on."
    refused = notification(run, Event.APPROVAL_EXPIRED, message, PROMOTING_STAGE)
    return replace(refused, page=_models_page(run))


def alias_moved(run: Run) -> Notification | None:
    """That somebody has moved MLflow's alias by hand, and what was done.

    Whichever run, or command, has put it back. None when nobody has, or people know of each time.
    """
    from jobs.lake import alerts, model_events

    moves = model_events.alias_moves(run.environment, run.pipeline.name)
    told_at = alerts.told_last(run.environment, run.pipeline.name, Event.ALIAS_MOVED)
    new = [one["reason"] for one in moves if told_at is None or one["created_at"] > told_at]
    if not new:
        return None
    way = f"nightshift rollback {run.pipeline.name} --to VERSION --why TEXT"
    message = "\n".join([*new, f"The alias changes nothing. To change what serves: {way}"])
    told = notification(run, Event.ALIAS_MOVED, message, run.doing.name)
    return replace(told, page=_models_page(run))


def _models_page(run: Run) -> str:
    return addresses.of_page(run.environment, "models", run.pipeline.name)


def drift(run: Run) -> Notification | None:
    """What the run's monitor stage has found to drift, or to have ended.

    None when nothing is new, or another attempt or run has said so of the same night.
    """
    attempts = attempts_of_night(run, _WATCHING_STAGE)
    recorded = [row for row in attempts if row["status"] == "done"]
    if not recorded or recorded[-1]["run_id"] != run.run_id:
        return None
    *earlier, found = map(_change, recorded)
    began, ended = found
    if found in earlier or not (began or ended):
        return None
    event = Event.DRIFT_FOUND if began else Event.DRIFT_ENDED
    what = [f"Began: {', '.join(began)}."] if began else []
    what += [f"Ended: {', '.join(ended)}."] if ended else []
    name = run.pipeline.name
    what.append(f"See nightshift drift {name} --date {run.days.last}")
    return notification(run, event, " ".join(what), _WATCHING_STAGE)


def attempts_of_night(run: Run, stage: str) -> list[Row]:
    """What all runs have recorded of the stage for the run's last night, oldest first."""
    of_night = [
        ("pipeline", "=", run.pipeline.name),
        ("stage", "=", stage),
        ("last_day", "=", run.days.last),
    ]
    return _rows_of(run, of_night)


def warehouse(run: Run) -> Notification | None:
    """What of the days that the run's stage has published PostgreSQL could not get; None: all."""
    if run.environment.warehouse_url is None:
        return None
    own = [row for row in _stage_rows(run) if row["stage"] == run.doing.name]
    metrics = json.loads(own[-1]["metrics"] or "{}") if own else {}
    failed = metrics.get("warehouse_failed")
    if failed is None:
        return None
    message = (
        f"{failed} The lake has every day; the next night publishes what is left, or by hand: "
        f"nightshift warehouse {run.pipeline.name}"
    )
    return notification(run, Event.WAREHOUSE_FAILED, message, run.doing.name)


def _change(row: Row) -> tuple[list[str], list[str]]:
    """The alarms that began and the kinds that ended, as the monitor stage recorded them."""
    metrics = json.loads(row["metrics"] or "{}")
    return metrics.get("drift_began", []), metrics.get("drift_ended", [])


def night_done(run: Run) -> Notification | None:
    """The whole night, with a summary; None while a stage's last attempt was not a success."""
    rows = _stage_rows(run)
    last = {row["stage"]: row for row in rows}
    last_of_stages = [last.get(stage.name) for stage in STAGES]
    done = [row for row in last_of_stages if row and row["status"] == "done"]
    current = [row for row in last_of_stages if row and row["status"] == CURRENT]
    # A night in which nothing was to do is no news.
    if not done or len(done) + len(current) < len(STAGES):
        return None
    passes = list(chain.from_iterable(_passes(rows, row["stage"]) for row in done))
    seconds = sum(row["seconds"] for row in passes)
    figures = "".join(f", {figure}" for figure in _figures(passes))
    message = f"{len(done)} stages in {seconds:.0f} s{figures}."
    return notification(run, Event.NIGHT_DONE, message)


def predictions_late(run: Run, due: datetime | None = None) -> Notification | None:
    """That the predictions of the run's night are not there; None: they are.

    Args:
        run: Whose night it is.
        due: When they were, of a deadline that was made up for: nothing is late of a pipeline that
            no run had begun by then, as it was set up later. None: it is looked at in time.

    Raises:
        UsageError: the pipeline declares no time by which they must be.
    """
    pipeline = run.pipeline
    by = pipeline.predictions_by
    if by is None:
        raise UsageError(f"'{pipeline.name}' declares no predictions_by: nothing can be late.")
    night = run.days.last
    day = pipeline.table(PREDICTIONS).day_of(night)
    deadline = f"by {by:%H:%M} ({pipeline.timezone})"
    page = addresses.of_page(run.environment, "nights", pipeline.name)
    try:
        if _is_predicted(run, day) or (due and not _had_begun(run, due)):
            return None
        seen = _last_of_night(run, night)
    except Exception as error:  # a lake that is away may be why there are none
        unknown = f"Nobody can say whether there are predictions for {day} {deadline}."
        told = notification(run, Event.PREDICTIONS_LATE, f"{unknown} {_unread(run, error)}")
        return replace(told, page=page)
    missing = f"No predictions for {day} {deadline}."
    told = notification(run, Event.PREDICTIONS_LATE, f"{missing} {_how_far(seen)}")
    if not seen:
        return replace(told, page=page)
    return replace(
        told,
        stage=seen["stage"],
        run_id=seen["run_id"],
        page=_page_of_run(run, seen["run_id"]) or page,
        report=_report(run, seen),
    )


def _is_predicted(run: Run, day: date) -> bool:
    """Whether readers see predictions for that day, whatever the record alone says."""
    from jobs.lake import publications

    return day in publications.in_force(run, PREDICTIONS, Days.of(day))


def _had_begun(run: Run, moment: datetime) -> bool:
    """Whether any run of the pipeline had begun a stage by then."""
    until = [("pipeline", "=", run.pipeline.name), ("started_at", "<=", moment)]
    return bool(_rows_of(run, until))


def _last_of_night(run: Run, night: date) -> Row:
    """The last stage that any run has done, or tried, for the night; {}: none."""
    of_night = [("pipeline", "=", run.pipeline.name), ("last_day", "=", night)]
    recorded = _rows_of(run, of_night)
    return recorded[-1] if recorded else {}


def _how_far(seen: Row) -> str:
    if not seen:
        return "Its night has not begun, or its first stage has not ended."
    so_far = f"The last stage that ended is {seen['stage']}: {seen['status']}."
    return f"{so_far} {seen['error']}" if seen["error"] else so_far


def notification(
    run: Run,
    event: Event,
    message: str,
    stage: str | None = None,
) -> Notification:
    """An event of the run; without a stage it is one of the whole night."""
    return Notification(
        event=event,
        pipeline=run.pipeline.name,
        days=str(run.days),
        run_id=run.run_id,
        stage=stage,
        message=message,
        page=_page_of_run(run, run.run_id),
    )


def _page_of_run(run: Run, run_id: str) -> str | None:
    """Where Airflow shows a run of the pipeline's DAG; None: it knows nothing of the run."""
    if not is_of_airflow(run_id):
        return None
    airflow = addresses.of_airflow(run.environment)
    return addresses.of_run(airflow, run.pipeline.name, run_id)


def _evaluations(run: Run) -> list[Row]:
    """Every success of the run's evaluate stage, oldest first."""
    return [
        row
        for row in _stage_rows(run)
        if row["stage"] == PROMOTING_STAGE and row["status"] == "done"
    ]


def _ended_at(row: Row) -> datetime:
    began: datetime = row["started_at"]
    return began + timedelta(seconds=row["seconds"])


def _last_expiry(run: Run, version: str) -> datetime | None:
    """When the time ran out last in which a person might have approved the model."""
    from jobs.lake import model_events

    of_model = model_events.events(run.environment, run.pipeline.name, version)
    expired = [one for one in of_model if one["event"] == model_events.EXPIRED]
    return expired[-1]["created_at"] if expired else None


def _is_the_same(verdict: Row, other: Row) -> bool:
    return all(verdict.get(name) == other.get(name) for name in ("event", "model_version"))


def _passes(rows: Sequence[Row], stage: str) -> list[Row]:
    """The successes of a stage of a run, oldest first: of nights done twice the last alone."""
    found: list[Row] = []
    for row in reversed(rows):
        is_success = row["stage"] == stage and row["status"] == "done"
        if is_success and not any(_share_a_night(row, later) for later in found):
            found.append(row)
    return found[::-1]


def _share_a_night(row: Row, other: Row) -> bool:
    days = Days(row["first_day"], row["last_day"])
    return days.within(other["first_day"], other["last_day"]) is not None


def _figures(done: Iterable[Row]) -> list[str]:
    """What the stages tell: of all passes together what can be added up, else the last word."""
    told: dict[str, Any] = {}
    for row in done:
        metrics = json.loads(row["metrics"])
        for stage, metric, name in _FIGURES:
            value = metrics.get(metric) if stage == row["stage"] else None
            # A stage that had nothing to do says nothing.
            if value is not None:
                told[name] = told.get(name, 0) + value if isinstance(value, int) else value
    return [f"{name} {told[name]}" for _, _, name in _FIGURES if name in told]


def _is_news(run: Run, verdict: Row) -> bool:
    """Whether no other run has told the verdict; one that was killed when it gave it has not."""
    from jobs.lake import model_events

    of_model = model_events.events(run.environment, run.pipeline.name, verdict["model_version"])
    given = [one for one in of_model if one["event"] == verdict["event"]]
    if not given or run.run_id in [one["run_id"] for one in given]:
        return bool(given)
    *_, last = given
    attempts = attempts_of_night(run, PROMOTING_STAGE)
    others = [row for row in attempts if row["status"] == "done" and row["run_id"] != run.run_id]
    same = [row for row in others if _is_the_same(json.loads(row["metrics"]), verdict)]
    # Known by its id too: the clock by which the verdict was given may be ahead.
    return not any(
        row["run_id"] == last["run_id"] or _ended_at(row) > last["created_at"] for row in same
    )


def _stage_rows(run: Run) -> list[Row]:
    """What the stages of the run recorded, oldest first."""
    of_run = [
        ("pipeline", "=", run.pipeline.name),
        ("run_id", "=", run.run_id),
    ]
    return _rows_of(run, of_run)


def _rows_of(
    run: Run,
    about: Sequence[tuple[str, str, object]],
) -> list[Row]:
    from jobs.lake import ops  # Arrow takes longer to import than everything else here

    found = ops.read(run.environment, "stage_runs", about, _COLUMNS)
    rows: list[Row] = found.to_pylist()
    return sorted(rows, key=lambda row: row["started_at"])


def _readable_rows(run: Run) -> list[Row]:
    try:
        return _stage_rows(run)
    except Exception:  # a lake that is away may be the very failure that people must hear of
        return []


OF_RECORDS: Mapping[Event, Callable[[Run], Notification | None]] = {
    Event.NIGHT_DONE: night_done,
    Event.MODEL_PROMOTED: promotion,
    Event.MODEL_AWAITING: promotion,
    Event.APPROVAL_EXPIRED: expiry,
    Event.ALIAS_MOVED: alias_moved,
    Event.DRIFT_FOUND: drift,
    Event.DRIFT_ENDED: drift,
    Event.WAREHOUSE_FAILED: warehouse,
}
"""What the records tell whether it happened."""
