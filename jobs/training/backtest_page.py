"""A page that shows a backtest: one HTML file, its pictures inside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from expectations import page as layout
from jobs.training import metrics, paired, plots
from jobs.training.backtest import MODEL
from jobs.training.page_parts import picture, png_of, table
from jobs.training.plots import SliceDifference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jobs.training.backtest import Results
    from jobs.training.tasks import LearningTask

_FEWEST_ROWS = 500
"""Of a slice that is drawn: of fewer the interval is too wide to tell anything."""


def pictures(task: LearningTask, results: Results) -> dict[str, Figure]:
    """The figures of a backtest, by title."""
    label, day = results.label, results.day
    rivals = [name for name in results.predictions if name != MODEL]
    losses: dict[str, metrics.Vector] = {}
    for name, prediction in results.predictions.items():
        losses[name] = task.losses(label, prediction)
    own = losses[MODEL]
    made = {"By month": plots.by_month(label, day, results.predictions, task)}
    for rival in rivals:
        days, means = paired.by_day(own, losses[rival], day)
        whole = paired.difference(own, losses[rival], day)
        title = f"Model against {rival}, by day"
        made[title] = plots.difference_by_day(title, days, means, whole, task.loss_title)
    for rival in rivals:
        compared = list(_slices(results, own, losses[rival]))
        if compared:
            title = f"Model against {rival}, by slice"
            made[title] = plots.difference_by_slice(title, compared, task.loss_title)
    for name, figure in task.plots(label, day, results.predictions).items():
        made[name.replace("_", " ").capitalize()] = figure
    return made


def page(
    title: str,
    facts: str,
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    figures: Mapping[str, Figure],
    settings: Mapping[str, object],
) -> str:
    """The page's HTML.

    Args:
        title: What was backtested.
        facts: What a reader must know of it first, in sentences.
        header: Of the table of figures.
        rows: The table.
        figures: By title, in order.
        settings: How each model was trained, for those who look for it.
    """
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(facts)}</p>", table(header, rows)]
    for name, figure in figures.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        parts.append(picture(name, png_of(figure)))
    told = table(("setting", "value"), _by_line(settings))
    parts.append(f"<details><summary>How each model was trained</summary>{told}</details>")
    return layout.page(title, "\n".join(parts))


def _by_line(settings: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            for inner, of_inner in value.items():
                yield f"{name}.{inner}", _in_words(of_inner)
        else:
            yield name, _in_words(value)


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    return str(value)


def _slices(
    results: Results, own: metrics.Vector, other: metrics.Vector
) -> Iterable[SliceDifference]:
    for column, values in results.slices.items():
        for value, where in metrics.groups(values):
            rows = int(where.sum())
            if rows >= _FEWEST_ROWS:
                compared = paired.difference(own[where], other[where], results.day[where])
                if compared.interval:
                    name = f"{column} {value}"
                    yield SliceDifference(name=name, rows=rows, difference=compared)
