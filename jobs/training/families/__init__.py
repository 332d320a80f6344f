"""How a model learns: each family gives fit, save, load and score.

A family is chosen in the declaration (`Training.family`). To add one: its settings in
`pipelines/model.py`, and a module here with an object of this protocol; for `nightshift explain` a
method in `jobs/training/explanations`, for `nightshift replay` its arrays in
`jobs/training/replay.py` (docs/how-to/extend.md shows one). A registered model remembers its
family, so that a champion still serves when the declaration has chosen another.

Saved files are never pickles: a reader of a pickle runs its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobs.training.families.light import LightFormat
from jobs.training.families.linear import LinearFamily
from jobs.training.families.neural_network import NeuralNetworkFamily
from pipelines.errors import NightshiftError, UsageError, no_such

if TYPE_CHECKING:
    from threading import Event

    from jobs.training.dataset import Dataset
    from jobs.training.encoding import Encoding
    from jobs.training.families.light import Model
    from jobs.training.metrics import Vector
    from pipelines.environment import Environment


TIMELINE = "timeline.json"
"""What a training may leave in its folder: what its processes did when, for `chrome://tracing`."""


class NeedsMore(NightshiftError):
    """A training wants more memory or time than it has: with other settings it may go well."""


class TooFewPlaces(UsageError):
    """More ranks were asked for than have a place.

    Attributes:
        ranks: How many.
        found: What there is, in words.
        more: How there would be more, in words.
    """

    def __init__(self, ranks: int, found: str, more: str) -> None:
        self.ranks = ranks
        self.found = found
        self.more = more
        super().__init__(
            f"{ranks} ranks were asked for, and {found}: {more}, or lower NIGHTSHIFT_RANKS."
        )


class Fit(Protocol):
    """What fitting gave."""

    @property
    def curves(self) -> Mapping[str, list[float]]:
        """`loss` of the fitted rows and, if there are any, `val_loss` of the validation days.

        By epoch, all of them finite.
        """

    @property
    def calibration_slope(self) -> float | None:
        """See `LearningTask.calibration_slope`; that of another training, where it was told."""

    @property
    def facts(self) -> Mapping[str, object]:
        """What else a person may want to know of it."""

    @property
    def sample_scores(self) -> Vector:
        """What the model said of `Examples.sample` of the fitted rows, before it was saved."""

    def save(self, folder: Path) -> None:
        """Write the family's `files` into the folder."""


class ModelFamily(Protocol):
    """A way to learn."""

    @property
    def name(self) -> str:
        """The name of its settings, and the tag of its models in the registry."""

    @property
    def files(self) -> tuple[str, ...]:
        """What a saved model is made of, beside its encoding."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """Our code that decides over its weights."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions that decide over its weights."""

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that the processes of a training import; none: it starts no process."""

    @property
    def streams(self) -> bool:
        """Whether it reads rows piece by piece, so that they may be `Shards`.

        Else all of them are in memory, however many.
        """

    @property
    def light(self) -> LightFormat | None:
        """How its models are scored without the libraries that trained them.

        None: the saved files need none of them.
        """

    def settings(self, declared: Any, environment: Environment) -> Any:
        """The declared settings with what the environment changes of them."""

    def processes(self, settings: Any) -> int:
        """How many a training starts, each of which keeps a core busy; 0: it works in this one.

        Those of two trainings may work at once.
        """

    def fit(
        self,
        data: Dataset,
        settings: Any,
        environment: Environment,
        folder: Path,
        called_off: Event | None = None,
    ) -> Fit:
        """Learn from the data.

        The same data and settings give the same weights, bit for bit.

        Args:
            folder: Private to this training, and gone after it. A `TIMELINE` that it leaves there
                is kept with the model.
            called_off: Set as soon as nobody wants the model any more: the processes of the
                training are to end.

        Raises:
            Refused: it came apart: its loss or weights are not finite.
            NeedsMore: it ran out of memory or time.
            NightshiftError: it failed.
        """

    def load(self, folder: Path, encoding: Encoding) -> Model:
        """The model whose files lie in the folder."""


FAMILIES: Mapping[str, ModelFamily] = {
    family.name: family for family in (NeuralNetworkFamily(), LinearFamily())
}


def family_of(name: str) -> ModelFamily:
    """The family of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in FAMILIES:
        raise no_such("model family", name, FAMILIES)
    return FAMILIES[name]
