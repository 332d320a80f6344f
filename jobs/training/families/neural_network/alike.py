"""What ranks must have alike wherever they run, or they train a model that nobody has declared.

Ranks average their gradients, so that the weights of ranks with unlike code are the same in the
end, and wrong.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from jobs.version import source_hash
from pipelines.errors import Refused

LIBRARIES = ("tensorflow", "keras", "horovod", "numpy")
_CODE = "code"
_NOTHING = "nothing"


def of_here() -> dict[str, str]:
    """The digest of the code here, and the version of each library."""
    found = {_CODE: source_hash()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = _NOTHING
    return found


def require_alike(wanted: Mapping[str, str]) -> None:
    """Refuse to train with other code or libraries than those of the stage.

    Args:
        wanted: `of_here`, where the stage runs.

    Raises:
        Refused: something is another here.
    """
    here = of_here()
    unlike: list[str] = []
    for name, value in wanted.items():
        own = here.get(name, _NOTHING)
        if own != value:
            unlike.append(f"{name} {own}, where the stage has {value}")
    if unlike:
        raise Refused(
            f"The host {socket.gethostname()} has {'; '.join(unlike)}: its ranks would train "
            "another model. Install there what is here, as from one image: `nightshift doctor` "
            "compares the code of hosts."
        )
