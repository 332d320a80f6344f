"""What a rank is told by variables, wherever it is started."""

from __future__ import annotations

import os
from pathlib import Path

from jobs.training.families import TIMELINE
from jobs.training.families.neural_network.rendezvous import DEFAULTS, Place
from pipelines.environment import Environment
from pipelines.for_ranks import for_ranks

_OF_A_MACHINE = "_VISIBLE_DEVICES"
"""How variables end that number the GPUs of a machine: those of others are numbered otherwise."""


def told_by_variables(environment: Environment, folder: Path, place: Place) -> dict[str, str]:
    """The variables of the rank of that place: switches of libraries, and its place."""
    own = for_ranks(os.environ)
    if environment.place_of_ranks:
        own = {name: value for name, value in own.items() if not name.endswith(_OF_A_MACHINE)}
    timeline = {"HOROVOD_TIMELINE": str(folder / TIMELINE)} if environment.timeline == "on" else {}
    return {
        "TF_CPP_MIN_LOG_LEVEL": "3",  # quiet, unless a person wants it otherwise
        **own,
        **timeline,
        **place.variables,
        **{name: own[name] for name in DEFAULTS if name in own},
    }
