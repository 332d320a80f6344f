"""The command `nightshift rescore`: what a model says today of nights that were published.

Importing this is cheap: the work is done in the stage server where one is up, which has imported
what it takes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from jobs.commands import in_server
from jobs.commands.in_server import in_server_or_here
from jobs.output import log_to_stderr, show, shown
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.run import Run
from pipelines.stages import STAGES

if TYPE_CHECKING:
    from datetime import date

    from jobs.training.rescoring import Change, Difference, Night, Rescorer
    from jobs.training.tasks import LearningTask
    from pipelines.spec import Pipeline

FUNCTION = "jobs.commands.rescore:in_child"
"""This module's entry for the stage server; it must be among those that it allows."""
DAYS, SLICES, CHANGES = "days", "slices", "changes"
PARTS = (DAYS, SLICES, CHANGES)
_LISTED = 5
"""Nights that a message names."""
_Row = tuple[object, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a person wants of it."""

    model: str | None = None
    """Version of the model that scores; None: the one that serves now."""
    form: str = "table"
    """How rows are printed."""
    part: str | None = None
    """One of `PARTS`; None: as a table all of them, else the days."""
    top: int = 10
    """Changes that are told, the largest first."""
    publish: bool = False
    """Publish new revisions of the nights afterwards."""


def rescore(environment: Environment, pipeline: Pipeline, days: Days, asked: Asked) -> int:
    """Tell the difference in the stage server, or without one here; returns the exit code.

    Args:
        environment: Whose lake and models they are.
        pipeline: Whose predictions.
        days: The nights that made them.
        asked: By which model, and how it is told.

    Raises:
        UsageError: no night has predictions, or one that shall be published; there is no such
            model; or the rows that were scored are gone or lack what it reads.
        Refused: it shall be published, and the model does not serve the nights.
        NightshiftError: files of the model are gone.
    """
    plain = {"asked": asdict(asked)}
    code = in_server_or_here(environment, pipeline, days, plain, FUNCTION, _tell_what_was_asked)
    if code or not asked.publish:
        return code
    return _publish(environment, pipeline, days, asked.form)


def in_child(argument: Mapping[str, Any]) -> int:
    """Tell what `rescore` was asked for, in a child of the stage server.

    Returns:
        The exit code; what went wrong is told as the command tells it.
    """
    return in_server.in_child(argument, _tell_what_was_asked)


def _tell_what_was_asked(
    environment: Environment, pipeline: Pipeline, days: Days, asked: Mapping[str, Any]
) -> None:
    tell(environment, pipeline, days, Asked(**asked["asked"]))


def tell(environment: Environment, pipeline: Pipeline, days: Days, asked: Asked) -> None:
    """Print how the nights differ by that model from what they have published; see `rescore`.

    As a table all of it goes to stdout; as csv and json the rows of one part do, and the rest to
    stderr.
    """
    from jobs.training import rescoring
    from jobs.training.explanations import served
    from jobs.training.registry import Registry

    pipeline.require_days(days)
    registry = Registry(environment, pipeline.name)
    model = rescoring.asked_for(environment, registry, asked.model)
    nights = served.nights_with_predictions(environment, pipeline, days)
    if asked.publish:
        _require_published(pipeline, days, nights)
        rescoring.require_in_turn(environment, model, nights)
    rescorer = rescoring.Rescorer.of(environment, pipeline, registry, model)
    compared = _Compared(most=asked.top)
    for night in _watched(nights):
        compared.add(rescorer.compare(night, asked.top))
    out = sys.stdout if asked.form == "table" else sys.stderr
    for line in _in_words(rescorer, days, compared):
        print(line, file=out)
    _show(rescorer, compared, asked)
    if not asked.publish:
        print("Nothing was published.", file=out)


@dataclass(kw_only=True, slots=True)
class _Compared:
    """The nights that were compared so far."""

    most: int
    """Changes that are kept."""
    nights: list[Night] = field(default_factory=list)
    slices: dict[tuple[str, str], Difference] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def add(self, night: Night) -> None:
        """Take in one more."""
        # Slices and changes are kept for all nights together, however many these are.
        self.nights.append(replace(night, slices={}, changes=()))
        for name, difference in night.slices.items():
            before = self.slices.get(name)
            self.slices[name] = before + difference if before else difference
        both = [*self.changes, *night.changes]
        self.changes = sorted(both, key=attrgetter("size"), reverse=True)[: self.most]

    @property
    def all(self) -> Difference:
        """That of all rows."""
        first, *others = [night.difference for night in self.nights]
        return sum(others, start=first)


def _publish(environment: Environment, pipeline: Pipeline, days: Days, form: str) -> int:
    """As `nightshift run --rescore`; returns the exit code."""
    from jobs.night import make_true

    run = Run(pipeline=pipeline, days=days, environment=environment, rescore=True)
    print(f"{pipeline.name} {days}  run {run.run_id}", file=sys.stderr)
    with ExitStack() as stack:
        if form != "table":
            # stdout holds the rows of the comparison alone.
            stack.enter_context(log_to_stderr())
        return make_true(run, STAGES)


def _watched(nights: Sequence[date]) -> Iterable[date]:
    """The nights, with a bar on a terminal while they are worked on."""
    from rich.console import Console
    from rich.progress import track

    return track(
        nights,
        "Scoring",
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _in_words(rescorer: Rescorer, days: Days, compared: _Compared) -> Iterable[str]:
    name, model = rescorer.pipeline.name, rescorer.model
    nights = [night.night for night in compared.nights]
    difference = compared.all
    served_by: set[str] = set()
    for night in compared.nights:
        served_by.update(night.served_by)
    versions = sorted(served_by, key=int)
    yield (
        f"{name} {days}: {difference.rows} predictions of {len(nights)} night(s), published by "
        f"version {', '.join(versions) or 'none'}, scored again by version {model.version} "
        f"({model.family}, trained as of {model.as_of})."
    )
    lacking = _lacking(days, nights)
    if lacking:
        yield f"{len(lacking)} night(s) have published none: {_listed(lacking)}."
    if difference.rows:
        yield _about(rescorer.task, difference)
    seen = [night for night in nights if rescorer.has_seen(night)]
    if seen and difference.labels:
        yield (
            f"Version {model.version} has learned from what became known after {len(seen)} of "
            "these nights (unseen=false): how good it is there tells what it remembers. How good "
            f"it would have been: nightshift backtest {name} --from D --to D"
        )


def _lacking(days: Days, nights: Sequence[date]) -> list[date]:
    return [night for night in days if night not in nights]


def _listed(nights: Sequence[date]) -> str:
    more = ", …" if len(nights) > _LISTED else ""
    return ", ".join(map(str, nights[:_LISTED])) + more


def _require_published(pipeline: Pipeline, days: Days, nights: Sequence[date]) -> None:
    """Refuse nights that were never run: publishing them would be running them.

    Raises:
        UsageError: one of the days is none of the nights, which have published predictions.
    """
    lacking = _lacking(days, nights)
    if lacking:
        name = pipeline.name
        raise UsageError(
            f"--publish scores published nights again, and {len(lacking)} night(s) of '{name}' "
            f"{days} have published no predictions: {_listed(lacking)}. Nothing was done. Ask for "
            f"others, such as --date {nights[-1]}, or run these first: "
            f"nightshift run {name} --date {lacking[0]}"
        )


def _about(task: LearningTask, difference: Difference) -> str:
    means = {name: shown(value) for name, value in difference.means.items()}
    told = (
        f"Mean {means['mean_published']} published, {means['mean_now']} now; mean absolute "
        f"difference {means['mean_absolute']}, largest {means['largest']}; "
        f"{difference.changed} predictions changed."
    )
    if not difference.labels:
        return f"{told} No label is known yet."
    published, now = map(shown, difference.losses)
    return (
        f"{told} Mean {task.loss_title} of {difference.labels} labels: {published} published, "
        f"{now} now."
    )


def _show(rescorer: Rescorer, compared: _Compared, asked: Asked) -> None:
    makers = {DAYS: _by_day, SLICES: _by_slice, CHANGES: _largest}
    default = PARTS if asked.form == "table" else (DAYS,)
    parts = (asked.part,) if asked.part else default
    for part in parts:
        header, rows = makers[part](rescorer, compared)
        if len(parts) > 1:
            print(f"\n{_title(part, rescorer, rows)}")
        show(header, rows, asked.form)


def _title(part: str, rescorer: Rescorer, rows: Sequence[_Row]) -> str:
    if part == SLICES:
        return f"By slice; loss is the {rescorer.task.loss_title} of a row:"
    if part == CHANGES:
        return f"The {len(rows)} largest changes:" if rows else "No prediction changes."
    return "By night:"


def _by_day(rescorer: Rescorer, compared: _Compared) -> tuple[list[str], list[_Row]]:
    from jobs.training.rescoring import Difference

    task = rescorer.task
    metrics = (task.headline, task.leak_score)
    header = ["night", "served_by", *Difference().means]
    for metric in metrics:
        header += [f"{metric}_published", f"{metric}_now"]
    rows: list[_Row] = []
    for night in compared.nights:
        quality: list[float | None] = []
        for metric in metrics:
            quality += night.quality.get(metric, (None, None))
        means = night.difference.means.values()
        unseen = not rescorer.has_seen(night.night)
        served_by = ", ".join(night.served_by)
        rows.append((night.night, served_by, *means, *quality, unseen))
    return [*header, "unseen"], rows


def _by_slice(_: Rescorer, compared: _Compared) -> tuple[list[str], list[_Row]]:
    from jobs.training.rescoring import Difference

    header = ["slice", "value", *Difference().means, "loss_published", "loss_now"]
    rows: list[_Row] = []
    for (column, value), difference in sorted(compared.slices.items()):
        means = difference.means.values()
        rows.append((column, value, *means, *difference.losses))
    return header, rows


def _largest(rescorer: Rescorer, compared: _Compared) -> tuple[list[str], list[_Row]]:
    about = ("served_by", "published", "now", "difference", "label")
    rows: list[_Row] = []
    for one in compared.changes:
        difference = one.now - one.published
        told = (one.served_by, one.published, one.now, difference, one.label)
        rows.append((*one.key, *told))
    return [*rescorer.pipeline.entity, *about], rows
