"""What a rank is told by variables, wherever it is started."""

from __future__ import annotations

import os
from pathlib import Path

from jobs.training.families import TIMELINE
from jobs.training.families.neural_network.rendezvous import Place
from pipelines.environment import Environment
from pipelines.for_ranks import for_ranks


def told_by_variables(environment: Environment, folder: Path, place: Place) -> dict[str, str]:
    """The variables of the rank of that place: switches of libraries, and its place."""
    timeline = {"HOROVOD_TIMELINE": str(folder / TIMELINE)} if environment.timeline == "on" else {}
    return {
        "TF_CPP_MIN_LOG_LEVEL": "3",  # quiet, unless a person wants it otherwise
        **for_ranks(os.environ),
        **timeline,
        **place.variables,
    }
