"""Labels that are 1 or 0; a prediction is the probability of a 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.training.metrics import Vector
from jobs.training.tasks.head import Head

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EPSILON = 1e-7
"""Probabilities are kept this far off 0 and 1, where one wrong row would cost infinitely much."""
_TRUST = 0.2
"""Weight of the validation rows against the expected slope, from 0 to 1. Rows of one day share
their fate, so a few days with thousands of rows tell far less than as many independent rows."""
# Six sufficed in every trial; once there, a step changes nothing.
_NEWTON_STEPS = 25
_SLOPES = (0.5, 2.0)
_TINY = 1e-12
"""Keeps a curvature off 0, by which is divided."""
_METRICS = {"auc": "AUC", "log_loss": "log loss", "brier": "Brier score"}


@dataclass(frozen=True, kw_only=True, slots=True)
class BinaryClassification:
    """See `jobs.training.tasks.LearningTask` for what each part is."""

    name: str = "binary_classification"
    metrics: Mapping[str, str] = field(default_factory=lambda: _METRICS)
    headline: str = "log_loss"
    leak_score: str = "auc"
    loss_title: str = "log loss"
    keras_loss: str = "binary_crossentropy"
    prior_rows: int = 1
    """Of few rows all may be alike: a rate of 0 or 1 that is wrong once has an endless loss."""
    unit: str = "probability"
    max_leak_score: float = 0.90
    foretells: str = "probability from 0 to 1"

    def can_be(self, prediction: Vector) -> NDArray[np.bool_]:
        """No other number, and none that is missing."""
        return np.asarray((prediction >= 0) & (prediction <= 1))

    def publishable(self, prediction: Vector) -> Vector:
        """Never 0 nor 1, which a network says from log-odds of about 17 on, in single precision."""
        clipped = np.clip(prediction, _EPSILON, 1 - _EPSILON)
        return np.where(self.can_be(prediction), clipped, prediction)

    def max_slice_loss(self, label: Vector) -> float:
        """Log losses of any problem are of one size: that of a coin is 0.69."""
        return 0.02

    def losses(self, label: Vector, prediction: Vector) -> Vector:
        """Log loss of each row."""
        p = np.clip(prediction, _EPSILON, 1 - _EPSILON)
        return -np.log(np.where(label > 0, p, 1 - p))

    def measure(self, label: Vector, prediction: Vector) -> dict[str, float | None]:
        """AUC (None when all rows have one label), log loss and Brier score."""
        from sklearn.metrics import roc_auc_score

        one_class = label.min() == label.max()
        return {
            "auc": None if one_class else float(roc_auc_score(label, prediction)),
            "log_loss": float(self.losses(label, prediction).mean()),
            "brier": float(np.mean((prediction - label) ** 2)),
        }

    def mean_loss(self, measured: Mapping[str, Any]) -> float:
        """The log loss."""
        return float(measured["log_loss"])

    def label_variance(self, measured: Mapping[str, Any]) -> float:
        """That of ones and zeros, by their mean."""
        mean: float = measured["label_mean"]
        return mean * (1 - mean)

    def constant_loss(self, mean: Any, variance: Any) -> Any:
        """The entropy of the mean."""
        p = np.clip(mean, _EPSILON, 1 - _EPSILON)
        of_ones = p * np.log(p)
        return -of_ones - (1 - p) * np.log(1 - p)

    def plots(
        self, label: Vector, day: NDArray[Any], by_model: Mapping[str, Vector]
    ) -> dict[str, Figure]:
        """Calibration and ROC."""
        from jobs.training import plots

        return {
            "calibration": plots.calibration(label, by_model),
            "roc": plots.roc(label, by_model),
        }

    def head(self, label_mean: float, label_scale: float) -> Head:
        """A sigmoid that starts at the log-odds of the base rate."""
        return Head(activation="sigmoid", start_bias=self.link(label_mean))

    def link(self, prediction: Any) -> Any:
        """Log-odds."""
        clipped = np.clip(prediction, _EPSILON, 1 - _EPSILON)
        return np.log(clipped / (1 - clipped))

    def inverse_link(self, linear: Vector) -> Vector:
        """The probability of log-odds, never 0 nor 1: the suite of predictions refuses both."""
        return _probability(np.clip(linear, self.link(0.0), self.link(1.0)))

    def calibration_slope(
        self, distance: Vector, label: Vector, base: float, expected: float
    ) -> float | None:
        """Below 1 the model was overconfident.

        Only a slope is fitted: a few days tell how far to trust a model, and not which rate the
        next weeks will have.
        """
        return fit_slope(distance, label, base, expected)


def fit_slope(
    distance: Vector,
    label: Vector,
    base: float,
    expected: float = 1.0,
    trust: float = _TRUST,
) -> float:
    """The slope from 0.5 to 2 that gives `base + slope * distance` a low log loss.

    The problem is convex; this is Newton's method.

    Args:
        distance: Of each row's log-odds from the base.
        label: Of the rows.
        base: Log-odds around which is stretched.
        expected: The slope without these rows.
        trust: Weight of these rows against the expected slope, from 0 to 1.
    """
    prior = (1 - trust) / trust * _curvature(distance, base, expected)
    slope = expected
    for _ in range(_NEWTON_STEPS):
        error = _probability(base + slope * distance) - label
        excess = np.mean(error * distance) + prior * (slope - expected)
        step = excess / (_curvature(distance, base, slope) + prior)
        slope = float(np.clip(slope - step, *_SLOPES))
    return slope


def _probability(log_odds: Vector) -> Vector:
    return 1 / (1 + np.exp(-log_odds))


def _curvature(distance: Vector, base: float, slope: float) -> float:
    p = _probability(base + slope * distance)
    return float(np.mean(p * (1 - p) * distance**2)) + _TINY
