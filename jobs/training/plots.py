"""Pictures of a model, kept with its run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jobs.training.quality import Vector

_BINS = 10
_INK, _SOFT, _ACCENT = "#1b1f24", "#8a94a0", "#0b6bcb"
_COLOURS = {"candidate": _ACCENT, "champion": "#c2570c", "baseline": _SOFT}


def learning_curve(curves: Mapping[str, list[float]]) -> Figure:
    """Log loss by epoch, on the rows that were fitted and on the validation days."""
    figure, axes = _canvas("Learning curve", "epoch", "log loss")
    for (name, label), colour in zip(
        {"loss": "fitted rows", "val_loss": "validation days"}.items(),
        (_SOFT, _ACCENT),
        strict=True,
    ):
        values = curves.get(name, [])
        axes.plot(range(1, len(values) + 1), values, marker="o", color=colour, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def calibration(label: Vector, by_model: Mapping[str, Vector]) -> Figure:
    """How often it happened against how often it was foretold, in tenths of the rows."""
    figure, axes = _canvas(
        "Calibration on held-out days", "mean probability", "share that happened"
    )
    top = 0.0
    for name, probability in by_model.items():
        bins = [b for b in np.array_split(np.argsort(probability, kind="stable"), _BINS) if len(b)]
        foretold, happened = [probability[b].mean() for b in bins], [label[b].mean() for b in bins]
        axes.plot(foretold, happened, marker="o", color=_COLOURS[name], label=name)
        top = max(top, *foretold, *happened)
    axes.plot([0, top], [0, top], color=_INK, linewidth=0.8, linestyle=":", label="perfect")
    axes.legend(frameon=False)
    return figure


def roc(label: Vector, by_model: Mapping[str, Vector], auc: Mapping[str, float | None]) -> Figure:
    """Share of the positives found against share of false alarms."""
    from sklearn.metrics import roc_curve

    figure, axes = _canvas("ROC on held-out days", "false alarms", "found")
    for name, probability in by_model.items():
        if (area := auc.get(name)) is not None:
            false_alarms, found, _ = roc_curve(label, probability)
            axes.plot(false_alarms, found, color=_COLOURS[name], label=f"{name} (AUC {area:.3f})")
    axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.8, linestyle=":")
    axes.legend(frameon=False, loc="lower right")
    return figure


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
