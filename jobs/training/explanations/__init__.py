"""Why a model says what it says: the attributions of each feature, which add up to its score.

Beside the model families and not in them: what lies there decides over weights, and a change of it
has every home train anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.training.encoding import Encoding, Examples, encode
from jobs.training.explanations import linear, neural_network
from jobs.training.explanations.attribution import Attribution
from jobs.training.tasks import LearningTask
from pipelines.errors import NightshiftError, Refused
from pipelines.model import LinearModel, NeuralNetwork

if TYPE_CHECKING:
    import pyarrow as pa

    from jobs.training.metrics import Vector
    from jobs.training.scoring import Scorer

TOLERANCE = 1e-4
"""By which base and attributions together may miss a model's linear number, for each unit of its
size: a network computes in single precision, and of hundreds of inputs."""
_UNITS = {"binary_classification": "log-odds"}
Method = Callable[[Any, Encoding, LearningTask, Examples], Attribution]
"""Gives the attributions of a family's model."""
METHODS: Mapping[str, Method] = {
    NeuralNetwork.name: neural_network.attribute,
    LinearModel.name: linear.attribute,
}
"""By the name of the family."""


def unit_of(task: LearningTask, label: str) -> str:
    """The unit of attributions, for people."""
    return _UNITS.get(task.name, f"the unit of {label}")


def attribute(scorer: Scorer, family: str, task: LearningTask, rows: pa.Table) -> Attribution:
    """The attributions of some rows, proven to be those of what the model says.

    Raises:
        Refused: there is no method for models of this family, or of this age.
        NightshiftError: they do not add up to what the model says.
    """
    if family not in METHODS:
        raise Refused(
            f"A model of the family '{family}' is not explained. Families that are: "
            f"{', '.join(METHODS)}."
        )
    examples = encode(rows, scorer.encoding)
    found = METHODS[family](scorer.model, scorer.encoding, task, examples)
    scores = scorer.score(rows)
    _require_sum(found.totals, found.linear, "the model's linear number")
    _require_sum(task.inverse_link(found.totals), scores, "what the model says")
    return found


def _require_sum(added: Vector, wanted: Vector, what: str) -> None:
    allowed = TOLERANCE * np.maximum(1.0, np.abs(wanted))
    wrong = np.flatnonzero(~(np.abs(added - wanted) <= allowed))
    if len(wrong):
        first = wrong[0]
        raise NightshiftError(
            f"The attributions of {len(wrong)} of {len(wanted)} rows do not add up to {what}: "
            f"{added[first]:.8g} and not {wanted[first]:.8g} in row {first}. Nothing is told of "
            "them."
        )
