"""What a card says, from the record: `ops` tables, the model's pins and its run in MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jobs.lake import lineage, model_events, ops
from jobs.training import paired
from jobs.training.cards.card import Card, Section, Table
from jobs.training.comparison import CANDIDATE, CHAMPION
from jobs.training.families.light import QUANTISED
from jobs.training.pins import taken_at
from jobs.training.tasks import task_of
from pipelines.days import Days, parse_day
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    from datetime import date

    from jobs.training.registry import ModelVersion, Registry
    from jobs.training.tasks import LearningTask
    from pipelines.environment import Environment
    from pipelines.spec import Pipeline

_Record = Mapping[str, Any]
_RECIPE = ("family", "training")
"""Of pins: how rows become a model."""
_LAST_DAYS = 14
"""Of live quality, shown one by one."""
_PICTURES = ("learning_curve", "calibration", "roc", "predicted_and_observed", "error_by_day")
"""Of those that `evaluate` keeps, in the order of the card."""
_OF_ALL = (
    "A category that is rare in the rows it has learned from, or not there, is read as unknown.",
    "A number beyond what these rows have counts as the last that they have.",
    "It tells what is likely, not what would come of doing otherwise.",
)
"""Limits of every model."""
_NOUNS: Mapping[str, str] = {"linear": "linear model"}
"""What people call a model of a family whose name is no noun."""
_STATES: Mapping[str, tuple[str, Literal["passed", "warned", "failed"]]] = {
    model_events.PROMOTED: ("served before", "warned"),
    model_events.APPROVED: ("served before", "warned"),
    model_events.RESTORED: ("served before", "warned"),
    model_events.RELEASED: ("served before", "warned"),
    model_events.AWAITING: ("awaits a person", "warned"),
    model_events.EXPIRED: ("approved by nobody in time", "warned"),
    model_events.REJECTED: ("rejected", "failed"),
    model_events.ROLLED_BACK: ("rolled back", "failed"),
    "kept": ("kept back", "warned"),
    "refused": ("refused", "failed"),
}
"""Last event -> what has become of a model that does not serve."""


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """What is known of a version."""

    environment: Environment
    pipeline: Pipeline
    model: ModelVersion
    pins: _Record
    params: Mapping[str, str]
    pictures: Mapping[str, bytes]
    recorded: list[model_events.Row]
    """Events of all versions, oldest first."""

    @cached_property
    def events(self) -> list[model_events.Row]:
        """Its own, oldest first."""
        return [one for one in self.recorded if one["model_version"] == self.model.version]

    @cached_property
    def judged(self) -> model_events.Row | None:
        """The last event with evidence."""
        return model_events.last_judged(self.events)

    @cached_property
    def evidence(self) -> _Record:
        """What was measured on the held-out days; empty: nothing."""
        return dict(json.loads(self.judged["metrics"])) if self.judged else {}

    @cached_property
    def task(self) -> LearningTask:
        """What it learned, whatever is declared by now."""
        learned = self.pins.get("training") or {}
        known = learned.get("task") or self.pipeline.training.task
        return task_of(self.evidence.get("task") or known)

    @cached_property
    def by_model(self) -> dict[str, _Record]:
        """What was measured of it, of the champion of then and of the baselines, by name."""
        found = {CANDIDATE: self.evidence.get(CANDIDATE), CHAMPION: self.evidence.get(CHAMPION)}
        named = {**found, **(self.evidence.get("baselines") or {})}
        return {name: measured for name, measured in named.items() if measured}

    def title_of(self, name: str) -> str:
        """A model as the card calls it."""
        if name == CANDIDATE:
            return "this model"
        if name != CHAMPION:
            return f"baseline {name}"
        rival = self.judged and self.judged["rival_version"]
        return f"champion of then (version {rival})"


def card_of(
    environment: Environment,
    pipeline: Pipeline,
    registry: Registry,
    model: ModelVersion,
) -> Card:
    """The card of a version.

    Raises:
        NightshiftError: what the model pins cannot be read.
    """
    known = _Sources(
        environment=environment,
        pipeline=pipeline,
        model=model,
        pins=registry.pins(model),
        params=registry.params(model),
        pictures=registry.pictures(model, _PICTURES),
        recorded=model_events.events(environment, pipeline.name),
    )
    state, mood = _state(known)
    sections = (
        _purpose(known),
        _history(known),
        _quality(known),
        _slices(known),
        _calibration(known),
        _live(known),
        _backtests(known),
        _limits(known),
        _data(known),
        _lineage(known),
        _making(known),
        _use(known),
    )
    kind = _NOUNS.get(model.family, _words(model.family))
    return Card(
        pipeline=pipeline.name,
        version=model.version,
        summary=f"{pipeline.title} A {kind}, trained as of {model.as_of}.",
        state=state,
        mood=mood,
        sections=tuple(section for section in sections if not section.is_empty),
        pictures=known.pictures,
    )


def _state(known: _Sources) -> tuple[str, Literal["passed", "warned", "failed"]]:
    turns = model_events.turns_of(known.recorded)
    if turns and turns[-1].version == known.model.version:
        return f"serves since the night {turns[-1].night}", "passed"
    if not known.events:
        return "not evaluated", "warned"
    last = known.events[-1]["event"]
    return _STATES.get(last, (_words(last), "warned"))


def _purpose(known: _Sources) -> Section:
    pipeline = known.pipeline
    entity = ", ".join(pipeline.entity)
    does = (
        f"{pipeline.title} Each night it gives {pipeline.prediction} for every row of "
        f"{pipeline.name}.{pipeline.entity_table} that is about the day after, one for each "
        f"{entity}. It has learned {pipeline.training.label} by {_words(known.task.name)}."
    )
    texts = (does, pipeline.doc, f"Owner: {pipeline.owner}.")
    return Section(title="Purpose", text=tuple(filter(None, texts)))


def _history(known: _Sources) -> Section:
    rows = []
    for event in known.events:
        at = f"{event['created_at']:%Y-%m-%d %H:%M}"
        said = (_words(event["event"]), event.get("who"), event.get("rival_version"))
        rows.append((at, event["as_of"], *said, event["reason"]))
    header = ("at (UTC)", "for the night", "event", "who", "other version", "why")
    return Section(title="Who let it serve, and why", tables=_tables(header, rows))


def _quality(known: _Sources) -> Section:
    if not known.by_model:
        return Section(title="Quality on held-out days")
    titles = known.task.metrics
    rows = []
    for name, measured in known.by_model.items():
        rows.append((known.title_of(name), *_values(measured, titles)))
    text = (
        f"On {known.evidence.get('rows', 0):,} labelled rows of {known.evidence.get('days')} days"
        f"{_held_out(known)}. All are judged by what they learned from the days before: of each "
        "model the twin that is judged, while the one that serves has learned from these days too."
    )
    tables = _tables(("model", *titles.values()), rows)
    tables += _intervals(known) + _quantised(known) + _challenge(known)
    pictures = _kept(known, "learning_curve", "roc", "error_by_day")
    return Section(title="Quality on held-out days", text=(text,), tables=tables, pictures=pictures)


def _held_out(known: _Sources) -> str:
    days = known.evidence.get("by_day") or []
    return f", {days[0]['day']} to {days[-1]['day']}" if days else ""


def _intervals(known: _Sources) -> tuple[Table, ...]:
    """The mean loss, and by how much it is lower than the others', with 95 % intervals."""
    rows = []
    for name, difference in _differences(known).items():
        what = "of this model" if name == CANDIDATE else f"less that of {known.title_of(name)}"
        rows.append((what, difference.mean, *(difference.interval or (None, None))))
    title = f"{known.task.loss_title} of a row"
    return _tables((title, "mean", "95 % from", "to"), rows)


def _differences(known: _Sources) -> dict[str, paired.Difference]:
    """By the rival's name the difference of losses; by its own name its loss itself."""
    by_day = known.evidence.get("by_day") or []
    if len(by_day) < 2:
        return {}
    rows = [day["rows"] for day in by_day]
    # The bootstrap draws days: the mean of each, as often as it has rows, is all that it sees.
    days = np.repeat(np.arange(len(by_day)), rows)
    found: dict[str, paired.Difference] = {}
    own = np.repeat([day["loss"][CANDIDATE] for day in by_day], rows)
    for name in known.by_model:
        other = np.zeros_like(own)
        if name != CANDIDATE:
            other = np.repeat([day["loss"][name] for day in by_day], rows)
        found[name] = paired.difference(own, other, days)
    return found


def _quantised(known: _Sources) -> tuple[Table, ...]:
    """What the variant with weights of 8 bits costs in quality."""
    measured = known.evidence.get(QUANTISED)
    if not measured:
        return ()
    more = tuple(measured[name] for name in ("more_loss", "more_loss_low", "more_loss_high"))
    outcome = "passed" if measured["passed"] else "failed"
    title = f"quantised variant: more {known.task.loss_title}"
    return _tables((title, "95 % from", "to", "outcome"), [(*more, outcome)])


def _challenge(known: _Sources) -> tuple[Table, ...]:
    """What the gate found in the days since the champion of then began to serve."""
    challenge = known.evidence.get("challenge") or {}
    rows = [(_words(name), f"{value:.6g}") for name, value in challenge.items()]
    return _tables(("evidence against the champion of then", "value"), rows)


def _slices(known: _Sources) -> Section:
    rows = []
    for one in known.evidence.get("slices") or []:
        own = (one["candidate_loss"], one.get("candidate_low"), one.get("candidate_high"))
        worse = (one.get("surely_worse_by"), one.get("worse_by_at_most"))
        losses = (*own, one.get("champion_loss"), *worse)
        rows.append((f"{one['column']} {one['value']}", one["rows"], *losses))
    rows.sort(key=itemgetter(0))
    title = known.task.loss_title
    others = ("of the champion of then", "difference, 95 % from", "to")
    header = ("slice", "rows", f"{title} of this model", "95 % from", "to", *others)
    return Section(title="Slices of the held-out days", tables=_tables(header, rows))


def _calibration(known: _Sources) -> Section:
    rows = []
    for name, measured in known.by_model.items():
        means = (measured.get("mean_prediction"), measured.get("label_mean"))
        if None not in means:
            rows.append((known.title_of(name), *map(_real, means)))
    slope = known.params.get("calibration_slope")
    text = []
    # As MLflow writes down that there is none.
    if slope not in (None, "None"):
        text.append(f"Its log-odds were stretched by {float(slope):.4g} on the validation days.")
    return Section(
        title="Calibration",
        text=tuple(text),
        tables=_tables(("model", "mean prediction", "mean of what came"), rows),
        pictures=_kept(known, "calibration", "predicted_and_observed"),
    )


def _live(known: _Sources) -> Section:
    about = [
        ("pipeline", "=", known.pipeline.name),
        ("model_version", "=", known.model.version),
    ]
    measured = ops.read(known.environment, "live_quality", about).to_pylist()
    measured.sort(key=itemgetter("event_date", "landed_date"))
    if not measured:
        return Section(title="Quality of its published predictions")
    text = (
        f"{sum(one['rows'] for one in measured):,} predictions of "
        f"{measured[0]['event_date']} to {measured[-1]['event_date']} have met their labels: "
        f"foretold {_mean(measured, 'mean_prediction'):.4g}, came "
        f"{_mean(measured, 'label_mean'):.4g}. The last {_LAST_DAYS} measures:"
    )
    titles = known.task.metrics
    last = measured[-_LAST_DAYS:]
    rows = [_measure(one, titles) for one in last]
    header = ("day", "labels of the night", "rows", *titles.values())
    return Section(
        title="Quality of its published predictions", text=(text,), tables=_tables(header, rows)
    )


def _backtests(known: _Sources) -> Section:
    about = [("pipeline", "=", known.pipeline.name)]
    recorded = ops.read(known.environment, "backtests", about).to_pylist()
    # Each day has the settings of its backtest: read once, and not once a day.
    settings = {one["settings_digest"]: one["settings"] for one in recorded}
    of_recipe = {digest for digest, text in settings.items() if _is_of_recipe(known, text)}
    groups: dict[tuple[str, str], dict[date, _Record]] = {}
    # Of a day that was scored as of several nights the last one counts.
    for one in sorted(recorded, key=itemgetter("as_of")):
        if one["settings_digest"] in of_recipe:
            of_model = groups.setdefault((one["settings_digest"], one["model"]), {})
            of_model[one["event_date"]] = one
    rows = []
    for (digest, model), by_day in groups.items():
        days, measured = sorted(by_day), by_day.values()
        metric = known.task.headline
        values = [one for one in measured if one[metric] is not None]
        period = f"{days[0]} to {days[-1]}"
        total = sum(one["rows"] for one in measured)
        rows.append((digest, period, model, total, _mean(values, metric) if values else None))
    title = f"{known.task.metrics[known.task.headline]}, mean of days"
    header = ("backtest", "days", "model", "rows", title)
    text = ("Models of the same recipe, trained as of many nights.",) if rows else ()
    return Section(title="Backtests of its recipe", text=text, tables=_tables(header, rows))


def _is_of_recipe(known: _Sources, settings: str) -> bool:
    """Whether a backtest is of the model's recipe: of others it would tell nothing about it."""
    told = json.loads(settings)
    return all(told.get(part) == known.pins.get(part) for part in _RECIPE)


def _limits(known: _Sources) -> Section:
    points = []
    if days := known.pins.get("fresh_days"):
        points.append(
            f"It has learned from {days} alone: of seasons, schedules and rules that these days "
            "have not seen it knows nothing."
        )
    for name, difference in _differences(known).items():
        if name != CANDIDATE and (told := _no_better(known.title_of(name), difference)):
            points.append(told)
    points += _weak_slices(known)
    points += _OF_ALL
    return Section(title="Limits", points=tuple(points))


def _no_better(rival: str, difference: paired.Difference) -> str | None:
    """That it was not surely better than a rival; None: it was."""
    if difference.interval is None:
        return (
            f"It was not surely better than the {rival}: {difference.days} days are too few for an "
            "interval of the difference."
        )
    low, high = difference.interval
    if low > 0:
        return f"It was surely worse than the {rival}: the interval of the difference is above 0."
    if high >= 0:
        return f"It was not surely better than the {rival}: the interval of the difference holds 0."
    return None


def _weak_slices(known: _Sources) -> Iterable[str]:
    slices = known.evidence.get("slices") or []
    fewest = known.pipeline.promotion.min_slice_rows
    small = [one for one in slices if one["rows"] < fewest]
    if small:
        yield f"Slices with fewer than {fewest} rows were not judged: {_listed(small)}."
    worse = [
        one
        for one in slices
        if one["rows"] >= fewest
        and one.get("champion_loss") is not None
        and one["candidate_loss"] > one["champion_loss"]
    ]
    if worse:
        yield f"Its loss was above that of the champion of then on {_listed(worse)}."


def _listed(slices: Iterable[_Record]) -> str:
    return ", ".join(f"{one['column']} {one['value']}" for one in slices)


def _data(known: _Sources) -> Section:
    learned = known.pins.get("training") or {}
    uses = {
        "fit_days": "the judged twin learned from",
        "validation_days": "its calibration was learned from",
        "fresh_days": "the model that serves learned from",
    }
    rows = []
    for name, said in uses.items():
        if name in known.pins:
            rows.append((said, known.pins[name]))
    text = []
    for kind, name in (("numbers", "numeric"), ("categories", "categorical")):
        if features := learned.get(name):
            text.append(f"{len(features)} {kind}: {', '.join(features)}.")
    if "table" in known.pins:
        table = f"{known.pipeline.name}.{known.pins['table']}"
        rows.append(("rows", f"{table}, version {known.pins.get('table_version')}"))
    return Section(
        title="Data and period", tables=_tables(("use", "which"), rows), text=tuple(text)
    )


def _lineage(known: _Sources) -> Section:
    first, _, last = str(known.pins.get("fresh_days", "")).partition("..")
    if not first or "table_version" not in known.pins:
        return Section(title="Lineage")
    days = Days(parse_day(first), parse_day(last or first))
    table = f"{known.pipeline.name}.{known.pins.get('table', TRAINING)}"
    version = int(known.pins["table_version"])
    at = taken_at(known.pins)
    found = lineage.behind(known.environment, known.pipeline.name, table, days, version, at)
    rows = []
    for source in found:
        period = f"{min(source.days)} to {max(source.days)}"
        is_table = bool(source.runs)
        counts = (source.rows if is_table else None, len(source.digests) or None)
        rows.append((source.name, period, *counts, _told(source.codes)))
    header = ("made from", "days", "rows", "files", "by code")
    text = ("Every published table and file behind the rows it learned from.",) if rows else ()
    return Section(title="Lineage", text=text, tables=_tables(header, rows))


def _told(codes: Iterable[str | None]) -> str:
    return ", ".join(sorted(code for code in codes if code))


def _making(known: _Sources) -> Section:
    family = known.pins.get("family") or {}
    libraries = known.pins.get("libraries") or {}
    machine = known.pins.get("machine") or {}
    versions = [f"{name} {version}" for name, version in libraries.items()]
    facts: dict[str, object] = {
        "family": _words(known.model.family),
        **{_words(name): value for name, value in family.items() if name != "name"},
        "libraries": ", ".join(versions),
        "code": known.pins.get("code_version"),
        "processor": machine.get("cpu"),
        "fingerprint": known.model.fingerprint,
        "run in MLflow": known.model.run_id,
    }
    rows = []
    for name, value in facts.items():
        if value not in (None, ""):
            rows.append((name, str(value)))
    digests = sorted(known.model.sha256.items())
    files = _tables(("file", "SHA-256"), digests)
    tables = _tables(("what", "value"), rows) + files
    return Section(title="How it was made", tables=tables)


def _use(known: _Sources) -> Section:
    name, version = known.pipeline.name, known.model.version
    return Section(
        title="To look further",
        commands=(
            f"mlflow models serve -m models:/{name}/{version} --env-manager local",
            f"nightshift replay {name} {version}",
            f"nightshift explain {name} --date {known.model.as_of}",
        ),
    )


def _measure(measured: _Record, metrics: Iterable[str]) -> tuple[object, ...]:
    about = (measured["event_date"], measured["landed_date"], measured["rows"])
    return (*about, *_values(measured, metrics))


def _values(measured: _Record, metrics: Iterable[str]) -> list[float | None]:
    return [_real(measured.get(metric)) for metric in metrics]


def _mean(measured: Iterable[_Record], name: str) -> float:
    weighted = [(one[name], one["rows"]) for one in measured]
    values, weights = zip(*weighted, strict=True)
    return float(np.average(values, weights=weights))


def _kept(known: _Sources, *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if name in known.pictures)


def _tables(
    header: tuple[str, ...],
    rows: Iterable[tuple[object, ...]],
) -> tuple[Table, ...]:
    """The table; none where it would be empty."""
    found = list(rows)
    return (Table(header=header, rows=found),) if found else ()


def _real(value: Any) -> float | None:
    return None if value is None else float(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
