"""Pictures of a model, kept with its run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jobs.training import metrics
from jobs.training.metrics import Vector
from jobs.training.page_parts import shown
from jobs.training.paired import Difference

if TYPE_CHECKING:
    from jobs.training.tasks import LearningTask

_BINS = 10
_MOST_DAYS = 20
"""That an axis names, and that get a mark each: more would lie over one another."""
_INK, _SOFT, _ACCENT = "#1b1f24", "#8a94a0", "#0b6bcb"
_RAISES = "#c2570c"
_COLOURS = {"candidate": _ACCENT, "model": _ACCENT, "champion": _RAISES}
_BASELINE_STYLES = ("-", "--", "-.", ":")
"""Baselines are all grey; by these they are told apart."""
_STEPS = (0.0, 0.5, 1.0, 1.5, 2.0)
_HEAT = ("#eef1f4", "#c9d3de", "#f3c08f", "#e08336")
"""Colours of a measure between two steps: orange is over what is allowed."""
_HOT = "#8c3a05"
"""Over the last step."""
MOST_BARS = 15
"""Features that are drawn one by one."""
_MOST_IN_NAME, _MOST_IN_TITLE = 36, 60
"""Characters: beside longer ones nothing has room."""
_REFERENCE: dict[str, Any] = {"color": _INK, "linewidth": 0.8, "linestyle": ":"}
"""How the line that nobody can beat, or anybody can reach, is drawn."""


def learning_curve(curves: Mapping[str, list[float]], loss_title: str) -> Figure:
    """Loss by epoch, on the rows that were fitted and on the validation days."""
    figure, axes = _canvas("Learning curve", "epoch", loss_title)
    labels = {"loss": ("fitted rows", _SOFT), "val_loss": ("validation days", _ACCENT)}
    for name, (label, colour) in labels.items():
        values = curves.get(name, [])
        epochs = range(1, len(values) + 1)
        axes.plot(epochs, values, marker="o", color=colour, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def calibration(label: Vector, by_model: Mapping[str, Vector]) -> Figure:
    """How often it happened against how often it was foretold, in tenths of the rows."""
    title = "Calibration on held-out days"
    figure, axes = _canvas(title, "mean probability", "share that happened")
    ends = _tenths(axes, label, by_model)
    top = max(0.0, *ends)
    axes.plot([0, top], [0, top], label="perfect", **_REFERENCE)
    axes.legend(frameon=False)
    return figure


def roc(label: Vector, by_model: Mapping[str, Vector]) -> Figure:
    """Share of the positives found against share of false alarms."""
    from sklearn.metrics import roc_auc_score, roc_curve

    figure, axes = _canvas("ROC on held-out days", "false alarms", "found")
    styles = _styles(by_model)
    # Labels of one kind have no curve.
    drawn = by_model if label.min() < label.max() else {}
    for name, probability in drawn.items():
        false_alarms, hits, _ = roc_curve(label, probability)
        area = roc_auc_score(label, probability)
        axes.plot(false_alarms, hits, label=f"{name} (AUC {area:.3f})", **styles[name])
    axes.plot([0, 1], [0, 1], **_REFERENCE)
    if drawn:
        axes.legend(frameon=False, loc="lower right")
    return figure


def predicted_and_observed(label: Vector, by_model: Mapping[str, Vector]) -> Figure:
    """What was observed against what was predicted, in tenths of the rows."""
    title = "Predicted and observed on held-out days"
    figure, axes = _canvas(title, "mean prediction", "mean observation")
    ends = _tenths(axes, label, by_model)
    bounds = [min(ends), max(ends)]
    axes.plot(bounds, bounds, label="perfect", **_REFERENCE)
    axes.legend(frameon=False)
    return figure


def error_by_day(
    label: Vector,
    day: NDArray[Any],
    by_model: Mapping[str, Vector],
) -> Figure:
    """Mean error of each held-out day: a model that lags behind the season shows here."""
    figure, axes = _canvas("Error by day", "day", "mean of predicted minus observed")
    styles = _styles(by_model)
    for name, prediction in by_model.items():
        error = prediction - label
        days: list[str] = []
        means: list[float] = []
        for one, where in metrics.groups(day):
            days.append(str(one))
            means.append(float(error[where].mean()))
        # Of many days the marks would hide the lines.
        marker = "o" if len(days) <= _MOST_DAYS else None
        axes.plot(days, means, marker=marker, label=name, **styles[name])
    axes.axhline(0, **_REFERENCE)
    axes.xaxis.set_major_locator(MaxNLocator(_MOST_DAYS, integer=True))
    axes.tick_params(axis="x", rotation=90)
    axes.legend(frameon=False)
    return figure


def by_month(
    label: Vector, day: NDArray[Any], by_model: Mapping[str, Vector], task: LearningTask
) -> Figure:
    """The headline metric of each month."""
    title = task.metrics[task.headline]
    figure, axes = _canvas(f"{title} by month", "month", title)
    styles = _styles(by_model)
    month = day.astype("datetime64[M]")
    for name, prediction in by_model.items():
        months: list[str] = []
        values: list[float] = []
        for one, where in metrics.groups(month):
            months.append(str(one))
            # Of at least one row a headline metric can always be told.
            values.append(metrics.headline(task, label[where], prediction[where]))
        axes.plot(months, values, marker="o", label=name, **styles[name])
    axes.tick_params(axis="x", rotation=45)
    axes.legend(frameon=False)
    return figure


def difference_by_day(
    title: str, days: NDArray[Any], means: Vector, whole: Difference, loss_title: str
) -> Figure:
    """How much lower or higher a loss was on each day, and over all of them with its interval."""
    figure, axes = _canvas(title, "day", f"difference of {loss_title}")
    axes.bar(days, means, color=_SOFT, width=1.0)
    told = f"all rows {shown(whole.mean)}, of too few days for an interval"
    if whole.interval:
        low, high = whole.interval
        told = f"all rows {shown(whole.mean)}, 95 % interval {shown(low)} to {shown(high)}"
        axes.axhspan(low, high, color=_ACCENT, alpha=0.3)
    axes.axhline(whole.mean, color=_ACCENT, label=told)
    axes.axhline(0, **_REFERENCE)
    axes.tick_params(axis="x", rotation=45)
    axes.legend(frameon=False)
    return figure


def attributions(title: str, unit: str, by_feature: Mapping[str, float]) -> Figure:
    """How far each feature takes a prediction from its base; the smallest are one bar together.

    Args:
        title: Which prediction, and what it says.
        unit: Of an attribution.
        by_feature: Feature and value -> attribution, the largest first.
    """
    drawn = dict(list(by_feature.items())[:MOST_BARS])
    colours = [_RAISES if value > 0 else _ACCENT for value in drawn.values()]
    others = list(by_feature.values())[MOST_BARS:]
    if others:
        drawn[f"{len(others)} others"] = sum(others)
        colours.append(_SOFT)
    return _bars(title, f"attribution, {unit} (orange raises, blue lowers)", drawn, colours)


def weights(title: str, unit: str, by_feature: Mapping[str, float]) -> Figure:
    """How much features weigh in some predictions: means of attributions without their sign.

    Args:
        title: Which predictions.
        unit: Of an attribution.
        by_feature: Feature -> mean, the largest first; the smallest are not drawn.
    """
    drawn = dict(list(by_feature.items())[:MOST_BARS])
    axis = f"mean size of attributions, {unit}; {len(drawn)} of {len(by_feature)} features"
    return _bars(title, axis, drawn, [_ACCENT] * len(drawn))


def _bars(
    title: str,
    axis: str,
    named: Mapping[str, float],
    colours: Sequence[str],
) -> Figure:
    figure, axes = _canvas(_text(title, _MOST_IN_TITLE), axis, "")
    axes.set_axisbelow(True)
    places = _named_places(axes, named)
    axes.barh(places, list(named.values()), color=colours)
    axes.axvline(0, **_REFERENCE)
    axes.invert_yaxis()
    return figure


def nights_and_measures(
    title: str,
    nights: Sequence[str],
    by_measure: Mapping[str, Sequence[float]],
) -> Figure:
    """How large each measure was on each night, against what is allowed.

    Args:
        title: Whose nights they are.
        nights: In order.
        by_measure: Measure -> for each night its value in multiples of its threshold; NaN: none.
    """
    height = 1.8 + 0.22 * len(by_measure)
    figure = Figure(figsize=(9, height), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    # What is infinite would be left blank, as what was not measured.
    values = np.minimum(list(by_measure.values()), 2 * _STEPS[-1])
    colours = ListedColormap(_HEAT).with_extremes(over=_HOT, under=_HEAT[0])
    steps = BoundaryNorm(_STEPS, len(_HEAT))
    style: dict[str, Any] = {"edgecolors": "white", "linewidth": 0.5}
    drawn = axes.pcolormesh(values, cmap=colours, norm=steps, **style)
    shrunk = min(1.0, 3 / height)
    bar = figure.colorbar(drawn, ax=axes, extend="max", shrink=shrunk)
    bar.set_label("times what is allowed")
    axes.set_title(_text(title, _MOST_IN_TITLE), loc="left", color=_INK)
    # They are written smaller.
    names = [_text(name, 2 * _MOST_IN_NAME) for name in by_measure]
    axes.set_yticks(np.arange(len(values)) + 0.5, names, fontsize=7)
    every = max(1, len(nights) // _MOST_DAYS)
    places = np.arange(0, len(nights), every) + 0.5
    axes.set_xticks(places, nights[::every], fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceDifference:
    """Two models on the rows of one slice."""

    name: str
    rows: int
    difference: Difference


def difference_by_slice(title: str, slices: Sequence[SliceDifference], loss_title: str) -> Figure:
    """How much lower or higher a loss is on each slice, with its 95 % interval."""
    figure, axes = _canvas(title, f"difference of {loss_title}", "")
    places = _named_places(axes, [_slice_name(one) for one in slices])
    means = np.array([one.difference.mean for one in slices])
    below = means - [one.difference.low for one in slices]
    above = [one.difference.high for one in slices] - means
    style: dict[str, Any] = {"fmt": "o", "color": _ACCENT, "capsize": 3}
    axes.errorbar(means, places, xerr=[below, above], **style)
    axes.axvline(0, **_REFERENCE)
    axes.invert_yaxis()
    return figure


def _slice_name(one: SliceDifference) -> str:
    rows = f" ({one.rows})"
    return _cut(one.name, _MOST_IN_NAME - len(rows)) + rows


def _named_places(axes: Axes, names: Iterable[str]) -> NDArray[np.int64]:
    """A place for each name, from below to above, also where two read alike when they are cut."""
    texts = [_text(name, _MOST_IN_NAME) for name in names]
    places = np.arange(len(texts))
    axes.set_yticks(places, texts)
    return places


def _text(text: str, most: int) -> str:
    """What rows hold is text: between two of these signs matplotlib would read a formula."""
    return _cut(text, most).replace("$", r"\$")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _tenths(
    axes: Axes,
    label: Vector,
    by_model: Mapping[str, Vector],
) -> list[float]:
    """Draw mean label against mean prediction of each tenth; gives every value drawn."""
    styles = _styles(by_model)
    drawn: list[float] = []
    for name, prediction in by_model.items():
        # Stable: rows that are predicted alike stay in their order, and the picture the same.
        order = np.argsort(prediction, kind="stable")
        # With fewer rows than bins some are empty.
        bins = [rows for rows in np.array_split(order, _BINS) if len(rows)]
        predicted = [float(prediction[rows].mean()) for rows in bins]
        observed = [float(label[rows].mean()) for rows in bins]
        axes.plot(predicted, observed, marker="o", label=name, **styles[name])
        drawn += [*predicted, *observed]
    return drawn


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    baselines = [name for name in names if name not in _COLOURS]
    styles: dict[str, dict[str, Any]] = {}
    for name, colour in _COLOURS.items():
        styles[name] = {"color": colour}
    for number, name in enumerate(baselines):
        line = _BASELINE_STYLES[number % len(_BASELINE_STYLES)]
        styles[name] = {"color": _SOFT, "linestyle": line}
    return styles


def _canvas(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    # A Figure of its own, without pyplot: no backend is chosen and nothing is kept open.
    figure = Figure(figsize=(6, 4.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=_INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
