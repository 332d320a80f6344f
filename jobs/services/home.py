"""The home, which its owner alone can enter."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipelines.environment import Environment
from pipelines.errors import UsageError

_OF_ITS_OWNER = 0o700
_OTHERS = 0o077
"""The bits of a mode that let in a group and everybody."""
_SIGNS = ("landing", "lake", "secrets", "logs", "run/locks", "replay", "mlflow.db")
"""One of these is in every home that was used, and in none of the folders of a system."""
_OF_A_DISK = "lost+found"
"""What a new file system holds."""


def private_home(environment: Environment) -> Path:
    """The home, made when missing, closed to everyone else.

    Whoever makes the first folder or file in a home asks here. So all of it is private whatever the
    umask, although Airflow, Spark and the databases choose the modes of their own files: nobody
    gets as far as those. A umask for our processes would do less, as some of these set modes
    outright, and it would do more than is asked: a lake or a landing folder that lies elsewhere may
    be meant for others, and follows the umask of its owner.

    Raises:
        UsageError: it cannot be made, is closed to us, or others may enter it, and it is not ours
            to close.
    """
    home = environment.home
    try:
        home.mkdir(mode=_OF_ITS_OWNER, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(home, error) from None
    if refusal := closed_to_us(home):
        raise refusal
    mode = home.stat().st_mode & 0o777
    if mode & _OTHERS:
        _close(home, mode)
    return home


def closed_to_us(home: Path) -> UsageError | None:
    """Of a home that its owner has closed, as one that was begun by `sudo`; None: of no such one.

    Args:
        home: The folder, which may be in one that is closed to us, or not be there.
    """
    try:
        owner = home.stat().st_uid
    except PermissionError as error:
        return _unusable(home, error)
    except OSError:
        return None
    # Whether it can be written is no matter of who owns it: its disk may be one to be read.
    if owner == os.getuid() or os.access(home, os.R_OK | os.X_OK):
        return None
    return UsageError(
        f"NIGHTSHIFT_HOME={home} belongs to another user (id {owner}), and is closed to you: "
        "run this as that user, or set it to a folder of your own."
    )


def _close(home: Path, mode: int) -> None:
    if not _is_a_home(home):
        raise UsageError(
            f"NIGHTSHIFT_HOME={home} holds other things than a home's, and others may enter it "
            f"(mode {mode:04o}): it is not closed, as they may need them. Set it to a folder in it "
            f"that does not exist yet, such as {home / 'nightshift'}, or close it: chmod 700 {home}"
        )
    try:
        home.chmod(_OF_ITS_OWNER)
    except PermissionError:
        raise UsageError(
            f"NIGHTSHIFT_HOME={home} is another user's folder, and others may enter it (mode "
            f"{mode:04o}). Secrets would not be safe there: set it to a folder in it that does not "
            f"exist yet, such as {home / 'nightshift'}."
        ) from None
    except OSError as error:
        # Such as of a file system that is mounted to be read.
        raise _unusable(home, error) from None
    print(
        f"{home} was open to other users (mode {mode:04o}); now it is its owner's alone (0700).",
        file=sys.stderr,
        flush=True,
    )


def _is_a_home(folder: Path) -> bool:
    """Whether the folder is there for us alone: root could close /tmp, and with it a machine."""
    is_new = {entry.name for entry in folder.iterdir()} <= {_OF_A_DISK}
    return is_new or any((folder / sign).exists() for sign in _SIGNS)


def _unusable(home: Path, error: OSError) -> UsageError:
    return UsageError(
        f"NIGHTSHIFT_HOME={home} cannot be a home ({error.strerror}). Set it to a folder in which "
        "you may write."
    )
