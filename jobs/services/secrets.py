"""Secrets of one home: made once, each a file that only its owner can read, and never logged."""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from jobs.services.home import private_home
from pipelines.environment import Environment
from pipelines.errors import no_such


def _new_password() -> str:
    return secrets.token_urlsafe(18)


_MAKERS: dict[str, Callable[[], str]] = {
    "spark_token": lambda: secrets.token_hex(32),
    "admin_password": _new_password,
    # What Fernet takes for a key: 32 bytes, so encoded.
    "fernet_key": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    # Airflow signs with HS512, whose key must have at least 64 bytes.
    "jwt_secret": lambda: secrets.token_urlsafe(64),
    "api_secret_key": lambda: secrets.token_urlsafe(48),
}


def secret(environment: Environment, name: str) -> str:
    """The secret of that name, made now when the home has none yet."""
    if name not in _MAKERS:
        raise no_such("secret", name, _MAKERS)
    path = environment.secrets / name
    if not path.exists():
        private_home(environment)
        private_folder(environment.secrets)
        write_once(path, _MAKERS[name]())
    return path.read_text().strip()


def password_file(environment: Environment, user: str) -> Path:
    """Where the password of a user is, once it is made.

    Args:
        environment: Whose home it is.
        user: A name that the settings allow: it is a name of a file.
    """
    return environment.secrets / "passwords" / user


def make_password(environment: Environment, user: str) -> None:
    """Make the password of a user who has none."""
    private_home(environment)
    private_folder(environment.secrets)
    path = password_file(environment, user)
    private_folder(path.parent)
    if not path.exists():
        write_once(path, _new_password())


def make_all(environment: Environment) -> None:
    """Make every secret that the home lacks."""
    for name in _MAKERS:
        secret(environment, name)


def private_folder(path: Path) -> Path:
    """The folder, made when missing, closed to everyone else."""
    path.mkdir(parents=True, exist_ok=True)
    # Also one that was there already, or was made under a lax umask.
    path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file (0600) anew: a reader finds the old text or the new one, whole."""
    draft = _draft(path, text)
    draft.replace(path)


def write_once(path: Path, text: str) -> None:
    """Write a file (0600) that appears whole or not at all; of two writers the first wins."""
    draft = _draft(path, text)
    try:
        os.link(draft, path)  # unlike a rename, it fails when the file is there
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _draft(path: Path, text: str) -> Path:
    """The text in a file of its own beside the path."""
    # mkstemp makes it 0600.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return Path(draft)
