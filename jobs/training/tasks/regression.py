"""Labels that are numbers; a prediction is the mean of what may come."""

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

_METRICS = {
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "bias": "bias (predicted minus observed)",
}
_SLICE_SHARE = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Regression:
    """See `jobs.training.tasks.LearningTask` for what each part is."""

    name: str = "regression"
    metrics: Mapping[str, str] = field(default_factory=lambda: _METRICS)
    headline: str = "rmse"
    leak_score: str = "r2"
    loss_title: str = "squared error"
    keras_loss: str = "mean_squared_error"
    prior_rows: int = 0
    """Where groups differ in level, as stations do, another mean would make a good baseline bad."""
    unit: str = "deviation"
    max_leak_score: float = 0.99
    """Nothing in nature is foretold so well a day ahead; a copied label is."""
    foretells: str = "finite number"

    def can_be(self, prediction: Vector) -> NDArray[np.bool_]:
        """Any finite one."""
        return np.asarray(np.isfinite(prediction))

    def publishable(self, prediction: Vector) -> Vector:
        """The predictions themselves."""
        return prediction

    def max_slice_loss(self, label: Vector) -> float:
        """A fiftieth of the labels' variance: squared errors have the label's unit, squared.

        It is what costs a slice 0.02 of R², in the variance of all held-out rows.
        """
        return _SLICE_SHARE * float(np.var(label))

    def losses(self, label: Vector, prediction: Vector) -> Vector:
        """Squared error of each row."""
        return np.square(prediction - label)

    def measure(self, label: Vector, prediction: Vector) -> dict[str, float | None]:
        """R² (None when all rows have one label), RMSE, MAE and bias, in the label's unit."""
        error = prediction - label
        mean_square = float(np.mean(error**2))
        # The mean of equal numbers may be off by their last digit: they would vary by next to none.
        varies = label.min() < label.max()
        variance = float(np.var(label)) if varies else 0.0
        return {
            "r2": 1 - mean_square / variance if variance > 0 else None,
            "rmse": float(np.sqrt(mean_square)),
            "mae": float(np.mean(np.abs(error))),
            "bias": float(np.mean(error)),
        }

    def mean_loss(self, measured: Mapping[str, Any]) -> float:
        """The squared error."""
        return float(measured["rmse"] ** 2)

    def label_variance(self, measured: Mapping[str, Any]) -> float:
        """What is left of it is 1 - R²."""
        score: float | None = measured["r2"]
        # Labels that are all alike have no R²; of exact predictions it tells nothing either.
        if score is None or score >= 1:
            return 0.0
        return float(measured["rmse"] ** 2 / (1 - score))

    def constant_loss(self, mean: Any, variance: Any) -> Any:
        """The variance."""
        return variance

    def plots(
        self, label: Vector, day: NDArray[Any], by_model: Mapping[str, Vector]
    ) -> dict[str, Figure]:
        """Predicted against observed, and the error by day."""
        from jobs.training import plots

        return {
            "predicted_and_observed": plots.predicted_and_observed(label, by_model),
            "error_by_day": plots.error_by_day(label, day, by_model),
        }

    def head(self, label_mean: float, label_scale: float) -> Head:
        """A linear unit in standard deviations from the mean label.

        So small first steps of training reach labels of any unit.
        """
        return Head(activation=None, start_bias=0.0, scale=label_scale, offset=label_mean)

    def link(self, prediction: Any) -> Any:
        """The prediction itself."""
        return prediction

    def inverse_link(self, linear: Vector) -> Vector:
        """The number itself."""
        return linear

    def calibration_slope(
        self, distance: Vector, label: Vector, base: float, expected: float
    ) -> float | None:
        """None: a mean that minimizes squared errors needs no stretching.

        A few days of validation would fit their own weather, season or price into a slope.
        """
        return None
