"""What scores, and how a family makes files of its models that need little to do it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from jobs.training.encoding import Examples
    from jobs.training.metrics import Vector

Variant = Literal["exact", "quantised"]
"""Of a model that serves: without any rounding, or with numbers of 8 bits where they are many."""
EXACT: Variant = "exact"
QUANTISED: Variant = "quantised"


class Model(Protocol):
    """A model that can score."""

    def score(self, examples: Examples) -> Vector:
        """The prediction of each example, in order."""


class LightFormat(Protocol):
    """Files by which a model scores without the libraries that trained it."""

    @property
    def files(self) -> Mapping[Variant, str]:
        """Of each variant the file, beside those of the model."""

    def make(self, model: Any, folder: Path, variant: Variant) -> None:
        """Write the variant's file of a loaded model into the folder."""

    def load(self, folder: Path, variant: Variant) -> Model:
        """The variant of the model whose file lies in the folder."""
