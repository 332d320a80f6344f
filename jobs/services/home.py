"""The home, which its owner alone can enter."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.environment import Environment
from pipelines.errors import UsageError

_OF_ITS_OWNER = 0o700
_OTHERS = 0o077
"""The bits of a mode that let in a group and everybody."""


def private_home(environment: Environment) -> Path:
    """The home, made when missing, closed to everyone else.

    Whoever makes the first folder or file in a home asks here. So all of it is private whatever the
    umask, although Airflow, Spark and the databases choose the modes of their own files: nobody
    gets as far as those. A umask for our processes would do less, as some of these set modes
    outright, and it would do more than is asked: a lake or a landing folder that lies elsewhere may
    be meant for others, and follows the umask of its owner.

    Raises:
        UsageError: others may enter it, and it is not ours to close.
    """
    home = environment.home
    home.mkdir(mode=_OF_ITS_OWNER, parents=True, exist_ok=True)
    mode = home.stat().st_mode & 0o777
    if mode & _OTHERS:
        _close(home, mode)
    return home


def _close(home: Path, mode: int) -> None:
    try:
        home.chmod(_OF_ITS_OWNER)
    except PermissionError:
        raise UsageError(
            f"NIGHTSHIFT_HOME={home} is another user's folder, and others may enter it (mode "
            f"{mode:04o}). Secrets would not be safe there: set it to a folder in it that does not "
            f"exist yet, such as {home / 'nightshift'}."
        ) from None
    print(
        f"{home} was open to other users (mode {mode:04o}); now it is its owner's alone (0700).",
        file=sys.stderr,
        flush=True,
    )
