"""Pictures of a model, kept with its run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from jobs.training import metrics
from jobs.training.metrics import Vector

_BINS = 10
_INK, _SOFT, _ACCENT = "#1b1f24", "#8a94a0", "#0b6bcb"
_COLOURS = {"candidate": _ACCENT, "champion": "#c2570c"}
_BASELINE_STYLES = ("-", "--", "-.", ":")
"""Baselines are all grey; by these they are told apart."""
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
        axes.plot(days, means, marker="o", label=name, **styles[name])
    axes.axhline(0, **_REFERENCE)
    axes.tick_params(axis="x", rotation=90)
    axes.legend(frameon=False)
    return figure


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
