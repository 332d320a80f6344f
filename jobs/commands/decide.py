"""The commands `nightshift rollback` and `nightshift approve`: what a person says about models.

What it does is cheap: the record is all that decides, and MLflow is asked only in the stage server,
where it has been imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from tempfile import TemporaryFile

from jobs.commands.who import user
from jobs.lake import approvals, model_events, ops
from jobs.output import harmless, is_text
from jobs.services import stage_client
from pipelines.environment import Environment
from pipelines.errors import Refused, UsageError, refuse_unless
from pipelines.spec import Pipeline

_Row = dict[str, object]
_FOLLOW = "jobs.training.serving:follow_in_child"
_FIND = "jobs.training.serving:find_in_child"
_BRIEFLY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Environment variables of MLflow's: a person waits, and the record decides without it."""
_PATIENCE_SECONDS = 20.0
"""For its answer, where its database or its store is away too; it comes within one as a rule."""
_FOLLOWS = (
    "The alias 'champion' in MLflow, by which nothing here decides, follows with the next "
    "evaluate or predict."
)
_NOT_ASKED = (
    "MLflow was not asked whether it still has version {version} and the files by which it serves: "
    "if not, predict says so."
)
_LISTED = 10
"""Versions that a message offers."""
_LONGEST = 2000
"""Characters of a text that a person gives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """Who says it, and why."""

    who: str
    why: str

    @classmethod
    def by(cls, who: str | None, why: str) -> Said:
        """The words of a person.

        Args:
            who: Their name; None: that of the user of the operating system.
            why: For those who read the record.

        Raises:
            UsageError: a text is empty or endless, or no table can hold it.
        """
        name = user() if who is None else who
        for option, text in (("--by", name), ("--why", why)):
            if not text.strip():
                raise UsageError(f"{option} is empty: say it in words for those who come after.")
            if len(text) > _LONGEST:
                raise UsageError(f"{option} is longer than {_LONGEST} characters.")
            if not is_text(text):
                raise UsageError(f"{option} is not UTF-8: '{harmless(text)}'")
        return cls(who=name.strip(), why=why.strip())

    def event(self, what: str, pipeline: Pipeline, **more: object) -> _Row:
        """A row of `ops.model_events`."""
        said = {"who": self.who, "reason": self.why}
        return {"pipeline": pipeline.name, "event": what, **said, **more}


def rollback(
    environment: Environment,
    pipeline: Pipeline,
    to: str | None,
    said: Said,
    expected: str | None = None,
    *,
    may_refresh: bool = False,
) -> None:
    """Have a model serve again that served before, in place of those that were let in since.

    Args:
        to: Its version; None: the one that would serve without the one that serves now.
        expected: The version that served as far as the person knows; None: whichever does.
        may_refresh: Newer fits of its recipe may take its place, as of any other model; of the
            version that serves already nothing else is said.

    Raises:
        UsageError: there is no such model, it or its files are gone from MLflow, or another serves
            than the person has seen.
    """
    if may_refresh and to is not None and to == _serving(environment, pipeline):
        _release(environment, pipeline, to, said, expected)
        return
    found: dict[str, bool] = {}
    while True:
        with approvals.one_at_a_time(environment, pipeline):
            recorded = model_events.events(environment, pipeline.name)
            _require_serving(pipeline, recorded, expected)
            *withdrawn, restored = rows_of_rollback(recorded, pipeline, to, said)
            target = str(restored["model_version"])
            if target in found:
                released = [_released(pipeline, restored, said)] if may_refresh else []
                model_events.record(environment, [*withdrawn, restored, *released])
                break
        # Nobody waits for MLflow; somebody may decide meanwhile, and another come back.
        began = model_events.first_turns(recorded)
        others = _others(pipeline, began, target, str(restored["rival_version"]))
        found[target] = _is_found(environment, pipeline, target, others)
    gone = " and ".join(str(row["model_version"]) for row in withdrawn)
    no_more = f", and version {gone} no more" if gone else ""
    print(
        f"Version {target} of '{pipeline.name}' serves from now on{no_more}. "
        f"Recorded: {harmless(said.who)}: {harmless(said.why)}"
    )
    print(
        "Published predictions stay. To score a night again: "
        f"nightshift run {pipeline.name} --date D --rescore"
    )
    if not may_refresh:
        _tell_that_it_is_held(pipeline, target)
    concerned = [str(row["model_version"]) for row in [*withdrawn, restored]]
    _follow(environment, pipeline, concerned, target, is_found=found[target])


def _serving(environment: Environment, pipeline: Pipeline) -> str | None:
    known = model_events.turns(environment, pipeline.name)
    return known[-1].version if known else None


def _released(pipeline: Pipeline, restored: Mapping[str, object], said: Said) -> _Row:
    version, night = restored["model_version"], restored["as_of"]
    return said.event(
        model_events.RELEASED,
        pipeline,
        as_of=night,
        model_version=version,
    )


def _release(
    environment: Environment,
    pipeline: Pipeline,
    version: str,
    said: Said,
    expected: str | None,
) -> None:
    """Let newer fits take the place of the version that serves.

    Raises:
        UsageError: no person has put it back, or another serves by now.
    """
    with approvals.one_at_a_time(environment, pipeline):
        recorded = model_events.events(environment, pipeline.name)
        _require_serving(pipeline, recorded, expected or version)
        turn = model_events.turns_of(recorded)[-1]
        refuse_unless(
            turn.is_held,
            f"Version {version} of '{pipeline.name}' serves, and newer fits of its recipe may take "
            "its place already: nothing was done.",
        )
        place = {"model_version": version, "as_of": turn.night}
        model_events.record(environment, [_released(pipeline, place, said)])
    print(
        f"Newer fits of the recipe of version {version} of '{pipeline.name}' take its place from "
        f"now on, as of any other model. Recorded: {harmless(said.who)}: {harmless(said.why)}"
    )
    _followed(environment, pipeline, [version])


def _tell_that_it_is_held(pipeline: Pipeline, version: str) -> None:
    """Where newer fits take a champion's place, that they do not take this one's."""
    limits = pipeline.promotion
    if limits.refresh_days is None:
        return
    until = ""
    if limits.max_age_days is not None:
        until = f", or it has served for {limits.max_age_days} days"
    print(
        f"Newer fits of its recipe do not take its place until days have shown them to be better"
        f"{until}. To have them do so as ever: "
        + model_events.command_to_release(pipeline.name, version)
    )


def _require_serving(
    pipeline: Pipeline, recorded: Sequence[model_events.Row], expected: str | None
) -> None:
    known = model_events.turns_of(recorded)
    if expected is None or not known or known[-1].version == expected:
        return
    raise UsageError(
        f"Version {known[-1].version} of '{pipeline.name}' serves by now, and no more version "
        f"{expected}: nothing was done. Look at it, and decide again."
    )


def rows_of_rollback(
    recorded: Sequence[model_events.Row],
    pipeline: Pipeline,
    to: str | None,
    said: Said,
) -> list[_Row]:
    """What a rollback adds to the record: each model that goes, and last the one that comes back.

    Raises:
        UsageError: see `rollback`.
    """
    known = model_events.turns_of(recorded)
    if not known:
        raise UsageError(f"No model of '{pipeline.name}' serves: there is nothing to roll back.")
    now = known[-1]
    began = model_events.first_turns(recorded)
    if to is None:
        target = _before(pipeline, known, began)
        withdrawn = _let_in_since(target, known, began) | {now.version}
    else:
        target = _named(pipeline, to, now.version, began)
        withdrawn = _let_in_since(target, known, began)
    rows = [
        said.event(
            model_events.ROLLED_BACK,
            pipeline,
            as_of=began[version].night,
            model_version=version,
            rival_version=target,
        )
        for version in began
        if version in withdrawn
    ]
    restored = said.event(
        model_events.RESTORED,
        pipeline,
        # From this night on: an old night that is run again does not take its place.
        as_of=now.night,
        model_version=target,
        rival_version=now.version,
    )
    return [*rows, restored]


def approve(
    environment: Environment,
    pipeline: Pipeline,
    version: str,
    said: Said,
) -> None:
    """Let a model serve that awaits it.

    Raises:
        UsageError: it does not, or has for too long, or it or its files are gone from MLflow.
    """
    before = model_events.turns(environment, pipeline.name)
    # Before anybody is kept waiting for MLflow.
    recorded = model_events.events(environment, pipeline.name)
    _require_in_time(pipeline, _candidate(pipeline, recorded, version))
    reject_it = (
        f" To keep it away: nightshift approve {pipeline.name} {version} --reject --why TEXT"
    )
    is_found = _is_found(environment, pipeline, version, reject_it)
    _decide(environment, pipeline, version, said, model_events.APPROVED)
    serves = model_events.turns(environment, pipeline.name)[-1].version
    if serves == version:
        print(f"Version {version} of '{pipeline.name}' serves from now on.")
        if not before:
            print(
                "Nights that have awaited it are scored by the next night, or at once: "
                f"nightshift run {pipeline.name} --date D"
            )
    else:
        print(
            f"Version {version} of '{pipeline.name}' is approved for its night; "
            f"version {serves}, of a later one, serves on."
        )
    concerned = {version, *(turn.version for turn in before[-1:])}
    _follow(environment, pipeline, concerned, version, is_found=is_found)


def reject(
    environment: Environment,
    pipeline: Pipeline,
    version: str,
    said: Said,
) -> None:
    """Keep a model that awaits a person from ever serving.

    Raises:
        UsageError: it does not await one.
    """
    _decide(environment, pipeline, version, said, model_events.REJECTED)
    print(f"Version {version} of '{pipeline.name}' will not serve.")
    _followed(environment, pipeline, [version])


def _decide(
    environment: Environment,
    pipeline: Pipeline,
    version: str,
    said: Said,
    what: str,
) -> None:
    with approvals.one_at_a_time(environment, pipeline):
        recorded = model_events.events(environment, pipeline.name)
        candidate = _candidate(pipeline, recorded, version)
        if what == model_events.APPROVED:
            _require_in_time(pipeline, candidate)
        event = said.event(
            what,
            pipeline,
            as_of=candidate["as_of"],
            model_version=version,
            rival_version=candidate["rival_version"],
        )
        model_events.record(environment, [event])


def _candidate(
    pipeline: Pipeline, recorded: Sequence[model_events.Row], version: str
) -> model_events.Row:
    """The event by which the model awaits a person."""
    last = {event["model_version"]: event for event in recorded}
    event = last.get(version)
    if event and event["event"] == model_events.AWAITING:
        return event
    if event and event["event"] == model_events.EXPIRED:
        raise _too_late(pipeline, event)
    awaiting = [one["model_version"] for one in approvals.awaiting(recorded)]
    found = f"is {event['event']}" if event else "was never evaluated"
    raise UsageError(
        f"Version {version} of '{pipeline.name}' awaits nobody: it {found}. "
        f"Awaiting a person: {', '.join(awaiting) or 'none'}."
    )


def _require_in_time(pipeline: Pipeline, candidate: model_events.Row) -> None:
    if approvals.is_over(candidate, pipeline, ops.now()):
        raise _too_late(pipeline, candidate)


def _too_late(pipeline: Pipeline, event: model_events.Row) -> UsageError:
    name, night = pipeline.name, event["as_of"]
    return UsageError(
        f"Version {event['model_version']} of '{name}' has awaited a person for longer than it "
        "may (Promotion.approval_hours): nobody can approve it any more. Candidates of later "
        "nights will await one; to have this one evaluated, and await a person, again: "
        f"nightshift run {name} --date {night} --stage evaluate"
    )


def _before(
    pipeline: Pipeline,
    known: list[model_events.Turn],
    began: Iterable[str],
) -> str:
    """The model that would serve without the one that serves now."""
    now = known[-1].version
    others = [turn.version for turn in known if turn.version != now]
    if not others:
        raise UsageError(
            f"No model of '{pipeline.name}' served before version {now}: there is none to go back "
            f"to.{_others(pipeline, began, now)}"
        )
    return others[-1]


def _others(pipeline: Pipeline, began: Iterable[str], *besides: str) -> str:
    """The way back to other models that were let into service; empty: there is none."""
    others = [version for version in began if version not in besides][-_LISTED:]
    if not others:
        return ""
    way = f"nightshift rollback {pipeline.name} --to VERSION --why TEXT"
    return f" Others that may come back ({', '.join(others)}): {way}"


def _named(pipeline: Pipeline, version: str, now: str, began: Iterable[str]) -> str:
    if version == now:
        raise UsageError(
            f"Version {version} of '{pipeline.name}' serves already. Where a person has put it "
            "back, --refresh lets newer fits of its recipe take its place again."
        )
    if version not in began:
        last = list(began)[-_LISTED:]
        raise UsageError(
            f"Version {version} of '{pipeline.name}' was never let into service, or was found "
            f"unfit since: there is no way back to it. The last that were: {', '.join(last)}."
        )
    return version


def _let_in_since(
    target: str,
    known: Iterable[model_events.Turn],
    began: Mapping[str, model_events.Turn],
) -> set[str]:
    """The models all of whose turns come after the last one of the target."""
    own = [turn for turn in known if turn.version == target]
    # One that was rolled back has none, and goes back to where it began.
    last = own[-1] if own else began[target]
    before = {turn.version for turn in known if _place(turn) <= _place(last)}
    return {turn.version for turn in known} - before


def _place(turn: model_events.Turn) -> tuple[date, datetime]:
    return turn.night, turn.said_at


def _is_found(environment: Environment, pipeline: Pipeline, version: str, way_out: str) -> bool:
    """Whether MLflow has a version and the files by which it serves, where asking is quick.

    Returns False where it was not asked, or is away.

    Raises:
        UsageError: it was deleted there, or a file is gone or another.
    """
    if not stage_client.available(environment):
        return False
    variables = environment.variables()
    argument = {"environment": variables, "pipeline": pipeline.name, "version": version}
    with TemporaryFile("w+") as output:
        work = stage_client.Forked(environment, _FIND, argument, _BRIEFLY, output)
        try:
            code = work.wait(_PATIENCE_SECONDS)
        finally:
            work.kill()
        output.seek(0)
        told = output.read().splitlines() or [work.message]
    # What a library says comes before.
    why = harmless(told[-1])
    if code is None:
        why = f"MLflow has not answered within {_PATIENCE_SECONDS:g} s"
    if code == Refused.exit_code:
        raise UsageError(
            f"Version {version} of '{pipeline.name}' {why}. Nothing was recorded.{way_out}"
        )
    if code != 0:
        print(f"Warning: {why}.", file=sys.stderr)
    return code == 0


def _follow(
    environment: Environment,
    pipeline: Pipeline,
    versions: Iterable[str],
    serves: str,
    *,
    is_found: bool,
) -> None:
    """Have MLflow's alias and the versions' cards follow at once, where it has answered."""
    if not is_found or not _followed(environment, pipeline, versions):
        print(_FOLLOWS)
    if not is_found:
        print(_NOT_ASKED.format(version=serves))


def _followed(environment: Environment, pipeline: Pipeline, versions: Iterable[str]) -> bool:
    """Have MLflow's alias and the versions' cards follow at once where that takes no seconds.

    Returns whether they have.
    """
    variables = environment.variables()
    argument = {"environment": variables, "pipeline": pipeline.name, "versions": [*versions]}
    is_up = stage_client.available(environment)
    return is_up and stage_client.call(environment, _FOLLOW, argument, _BRIEFLY) == 0
