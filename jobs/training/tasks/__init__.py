"""What follows from the kind of label that a model learns: loss, metrics, plots, thresholds.

A task is chosen in the declaration (`Training.task`). To add one: a module here with an object of
this protocol, its name in `pipelines.model.Task`, its columns in `ops.live_quality`, and what must
hold of its labels and predictions in `expectations/predictions.py`. Tests name what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.training.metrics import Vector
from jobs.training.tasks.binary_classification import BinaryClassification
from jobs.training.tasks.head import Head
from jobs.training.tasks.regression import Regression
from pipelines.errors import no_such

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LearningTask(Protocol):
    """A kind of label."""

    @property
    def name(self) -> str:
        """The name in `Training.task`."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """Metric -> its title for people, in the order in which they are shown."""

    @property
    def headline(self) -> str:
        """The metric by which models are told apart; the lower, the better."""

    @property
    def leak_score(self) -> str:
        """The metric that is too good to be true when the future leaked in; at most 1."""

    @property
    def loss_title(self) -> str:
        """What the loss of a row is called."""

    @property
    def max_leak_score(self) -> float:
        """Of a `Promotion` that sets no `max_score`."""

    @property
    def keras_loss(self) -> str:
        """Keras's name of the loss."""

    @property
    def prior_rows(self) -> int:
        """Rows of the overall mean that the mean label of a group counts beside its own."""

    @property
    def unit(self) -> str:
        """Name of the layer with a network's last, linear unit."""

    @property
    def foretells(self) -> str:
        """What a prediction is, for people."""

    def can_be(self, prediction: Vector) -> NDArray[np.bool_]:
        """Which of the predictions are that."""

    def publishable(self, prediction: Vector) -> Vector:
        """The predictions as the suite of predictions takes them; what cannot be stays as it is."""

    def max_slice_loss(self, label: Vector) -> float:
        """Of a `Promotion` that sets none, on held-out rows with these labels."""

    def losses(self, label: Vector, prediction: Vector) -> Vector:
        """The loss of each row."""

    def measure(self, label: Vector, prediction: Vector) -> dict[str, float | None]:
        """Every metric over these rows, of which there is at least one."""

    def mean_loss(self, measured: Mapping[str, Any]) -> float:
        """The mean loss of the rows of which these metrics were measured."""

    def label_variance(self, measured: Mapping[str, Any]) -> float:
        """The variance of their labels."""

    def constant_loss(self, mean: Any, variance: Any) -> Any:
        """The mean loss of the best constant, by mean and variance of the labels, or by arrays."""

    def plots(
        self, label: Vector, day: NDArray[Any], by_model: Mapping[str, Vector]
    ) -> dict[str, Figure]:
        """Plots of the predictions of several models for the same rows, by file name."""

    def head(self, label_mean: float, label_scale: float) -> Head:
        """The end of a network that learns labels with that mean and standard deviation."""

    def link(self, prediction: Any) -> Any:
        """The linear number behind a prediction (or an array of them)."""

    def inverse_link(self, linear: Vector) -> Vector:
        """The prediction that a linear number stands for."""

    def calibration_slope(
        self, distance: Vector, label: Vector, base: float, expected: float
    ) -> float | None:
        """By how much to stretch linear numbers around their base.

        Args:
            distance: Of each row's linear number from the base.
            label: Of rows that were not trained on.
            base: Linear number of the mean label of the rows that were trained on.
            expected: See `Training.expected_slope`.

        Returns:
            The factor; None: predictions of this task are taken as they are.
        """


TASKS: Mapping[str, LearningTask] = {
    task.name: task for task in (BinaryClassification(), Regression())
}


def task_of(name: str) -> LearningTask:
    """The learning task of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in TASKS:
        raise no_such("learning task", name, TASKS)
    return TASKS[name]
