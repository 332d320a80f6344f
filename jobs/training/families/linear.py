"""Ridge or logistic regression over scaled numbers and one-hot categories.

scikit-learn fits it; its JSON file is loaded and scored with numpy alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.services import usage
from jobs.training.encoding import Encoding, Examples
from jobs.training.metrics import Vector, require_finite
from jobs.training.tasks import LearningTask, task_of
from pipelines.errors import NightshiftError, Refused
from pipelines.model import LinearModel

if TYPE_CHECKING:
    from threading import Event

    from jobs.training.dataset import Dataset
    from pipelines.environment import Environment

MODEL = "linear.json"
_CELLS = 4_000_000
"""Of a design that is scored: 32 MB, however many rows and categories there are."""
_CELL_BYTES = 8
_GIGABYTE = 1 << 30
_MOST_MEMORY = 0.5
"""Share of the machine's memory that the design of a training may take: its solver may copy it."""
_TOLERANCE = 1e-6
"""Of the solver of logistic regression: far below what a loss is told apart by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """A linear number for each row, and the prediction that it stands for."""

    task: LearningTask
    encoding: Encoding
    intercept: float
    coefficients: Vector

    def score(self, examples: Examples) -> Vector:
        """The prediction of each example."""
        sums = np.empty(len(examples))
        at_once = max(1, _CELLS // width(self.encoding))
        for first in range(0, len(examples), at_once):
            rows = design(examples.read(first, at_once), self.encoding)
            rows *= self.coefficients
            # Not a matrix product: BLAS may add in another order on a machine with other cores.
            sums[first : first + at_once] = rows.sum(axis=1)
        return self.task.inverse_link(self.intercept + sums)


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearFit:
    """A fitted model, and how it went."""

    model: Linear
    curves: Mapping[str, list[float]]
    calibration_slope: float | None
    facts: Mapping[str, object]
    sample_scores: Vector

    def save(self, folder: Path) -> None:
        """Write the coefficients, each beside what it is of."""
        content = {
            "task": self.model.task.name,
            "intercept": self.model.intercept,
            "columns": design_columns(self.model.encoding),
            "coefficients": self.model.coefficients.tolist(),
        }
        (folder / MODEL).write_text(json.dumps(content, indent=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearFamily:
    """See `jobs.training.families.ModelFamily` for what each part is."""

    name: str = LinearModel.name
    files: tuple[str, ...] = (MODEL,)
    sources: tuple[Path, ...] = (Path(__file__),)
    libraries: tuple[str, ...] = ("scikit-learn", "scipy", "numpy")
    preload: tuple[str, ...] = ()
    streams: bool = False
    light: None = None

    def settings(self, declared: LinearModel, environment: Environment) -> LinearModel:
        """As declared."""
        return declared

    def processes(self, settings: LinearModel) -> int:
        """It works in this one."""
        return 0

    def fit(
        self,
        data: Dataset,
        settings: LinearModel,
        environment: Environment,
        folder: Path,
        called_off: Event | None = None,
    ) -> LinearFit:
        """Solve it in this process, on one thread."""
        _require_memory(len(data.fit), data.encoding)
        task = task_of(data.training.task)
        rows = data.fit.read(0, len(data.fit))
        label = rows.label.astype(np.float64)
        solver = _solve(task, settings, design(rows, data.encoding), label)
        solved = Linear(
            task=task,
            encoding=data.encoding,
            intercept=float(np.ravel(solver.intercept_)[0]),
            coefficients=np.ravel(solver.coef_).astype(np.float64),
        )
        validation = None
        if data.validation is not None:
            validation = data.validation.read(0, len(data.validation))
        slope = _slope(solved, data, validation)
        model = solved if slope is None else _stretched(solved, slope)
        curves = {"loss": [_mean_loss(model, rows)]}
        if validation is not None:
            curves["val_loss"] = [_mean_loss(model, validation)]
        require_finite(loss=curves["loss"], coefficients=model.coefficients)
        return LinearFit(
            model=model,
            curves=curves,
            calibration_slope=slope,
            facts={"coefficients": len(model.coefficients), "iterations": _iterations(solver)},
            sample_scores=model.score(rows.sample()),
        )

    def load(self, folder: Path, encoding: Encoding) -> Linear:
        """The model of a file that `save` wrote.

        Raises:
            NightshiftError: its coefficients are not those of the encoding's columns.
        """
        content = json.loads((folder / MODEL).read_text())
        if content["columns"] != design_columns(encoding):
            raise NightshiftError(
                f"{MODEL} and the encoding beside it belong to different models: "
                "their columns differ."
            )
        return Linear(
            task=task_of(content["task"]),
            encoding=encoding,
            intercept=content["intercept"],
            coefficients=np.array(content["coefficients"], np.float64),
        )


def design(examples: Examples, encoding: Encoding) -> NDArray[np.float64]:
    """One row for each example: scaled numbers, missing-value indicators, one-hot categories."""
    numeric = examples.numeric.astype(np.float64)
    missing = np.isnan(numeric)
    deviations = np.sqrt(np.array(encoding.variances))
    scaled = (numeric - np.array(encoding.means)) / deviations
    bounded = np.clip(scaled, encoding.lows, encoding.highs)
    gaps = [encoding.numeric.index(name) for name in encoding.indicators]
    # Made once and filled, as it may be most of the memory.
    rows = np.zeros((len(examples), width(encoding)))
    numbers, indicators, categories = np.split(rows, _ends_of_numbers(encoding), axis=1)
    # A missing number counts as the mean, which is 0 after scaling.
    numbers[:] = np.where(missing, 0.0, bounded)
    indicators[:] = missing[:, gaps]
    np.put_along_axis(categories, examples.categorical.astype(np.int64), 1.0, axis=1)
    return rows


def width(encoding: Encoding) -> int:
    """How many columns a design has."""
    *_, numbers = _ends_of_numbers(encoding)
    return numbers + encoding.embedding_rows


def _ends_of_numbers(encoding: Encoding) -> tuple[int, int]:
    """The columns at which the numbers of a design end, and their indicators."""
    numbers = len(encoding.numeric)
    return numbers, numbers + len(encoding.indicators)


def design_columns(encoding: Encoding) -> list[str]:
    """What each column of a design is, for people."""
    names = [*encoding.numeric]
    names += [f"{name} is missing" for name in encoding.indicators]
    for name, values in encoding.vocabularies.items():
        names.append(f"{name} is unknown")
        names += [f"{name} = {value}" for value in values]
    return names


def _require_memory(rows: int, encoding: Encoding) -> None:
    """Refuse a design that this machine has no room for, before the system ends the process."""
    columns = width(encoding)
    size = rows * columns * _CELL_BYTES
    memory = usage.memory()
    if size <= memory * _MOST_MEMORY:
        return
    learned = {name: len(values) for name, values in encoding.vocabularies.items()}
    largest = max(learned, key=learned.__getitem__, default="")
    of_which = f"; '{largest}' alone has {learned[largest]:,} categories" if largest else ""
    raise Refused(
        f"LinearModel lays its rows out side by side, which would take {size / _GIGABYTE:.1f} GB "
        f"({rows:,} rows by {columns:,} columns{of_which}): more than half of the "
        f"{memory / _GIGABYTE:.1f} GB of memory. Lower max_categories or window_days, leave out a "
        "category, or take the NeuralNetwork, which embeds them."
    )


def _solve(
    task: LearningTask, settings: LinearModel, rows: NDArray[np.float64], label: Vector
) -> Any:
    if task.name == "binary_classification" and label.min() == label.max():
        raise Refused(
            f"All {len(label)} rows to fit on have the label {label[0]:g}: nothing tells the two "
            "apart. Publish more days first."
        )
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # The number of threads decides the order in which floats are added, and so the last bits of the
    # coefficients.
    with threadpool_limits(1), warnings.catch_warnings():
        # A solver that `max_iterations` ended shows in `iterations`; the evaluation judges it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _SOLVERS[task.name](settings).fit(rows, label)


def _logistic(settings: LinearModel) -> Any:
    from sklearn.linear_model import LogisticRegression

    # scikit-learn weighs the losses by C against half of the squared coefficients.
    weight = 1 / (2 * settings.l2)
    return LogisticRegression(C=weight, tol=_TOLERANCE, max_iter=settings.max_iterations)


def _ridge(settings: LinearModel) -> Any:
    from sklearn.linear_model import Ridge

    # Named, because 'auto' would choose by the type of the data.
    return Ridge(alpha=settings.l2, solver="cholesky")


_SOLVERS = {"binary_classification": _logistic, "regression": _ridge}
"""Learning task -> what solves it."""


def _slope(model: Linear, data: Dataset, validation: Examples | None) -> float | None:
    """By how much to stretch the linear numbers around their base, to fit days not trained on."""
    if validation is None:
        return data.calibration.result() if data.calibration else None
    base = model.task.link(model.encoding.label_mean)
    distance = model.task.link(model.score(validation)) - base
    label = validation.label.astype(np.float64)
    expected = data.training.expected_slope
    return model.task.calibration_slope(distance, label, base, expected)


def _stretched(model: Linear, slope: float) -> Linear:
    base = model.task.link(model.encoding.label_mean)
    return Linear(
        task=model.task,
        encoding=model.encoding,
        intercept=float(base + slope * (model.intercept - base)),
        coefficients=model.coefficients * slope,
    )


def _mean_loss(model: Linear, examples: Examples) -> float:
    label = examples.label.astype(np.float64)
    losses = model.task.losses(label, model.score(examples))
    return float(losses.mean())


def _iterations(solver: Any) -> int:
    """Of logistic regression; a ridge regression is solved in one step."""
    counted = getattr(solver, "n_iter_", None)
    return 1 if counted is None else int(np.max(counted))
