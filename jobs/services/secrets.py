"""Secrets of one home: made once, each a file that only its owner can read, and never logged."""

from __future__ import annotations

import base64
import fcntl
import hmac
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.services.home import private_home
from pipelines.environment import Environment
from pipelines.errors import no_such

_Encoder = Callable[[bytes], str]


def _plain(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


_PASSWORD: tuple[int, _Encoder] = (18, _plain)
_KINDS: dict[str, tuple[int, _Encoder]] = {
    "spark_token": (32, bytes.hex),
    "admin_password": _PASSWORD,
    # What Fernet takes for a key: 32 bytes, so encoded.
    "fernet_key": (32, lambda content: base64.urlsafe_b64encode(content).decode()),
    # Airflow signs with HS512, whose key must have at least 64 bytes.
    "jwt_secret": (64, _plain),
    "api_secret_key": (48, _plain),
}
"""How many bytes a secret has, and how they are written."""


def secret(environment: Environment, name: str) -> str:
    """The secret of that name, made now when the home has none yet."""
    if name not in _KINDS:
        raise no_such("secret", name, _KINDS)
    return _made(environment, environment.secrets / name, name, _KINDS[name])


def password_file(environment: Environment, user: str) -> Path:
    """Where the password of a user is, once it is made.

    Args:
        environment: Whose home it is.
        user: A name that the settings allow: it is a name of a file.
    """
    return environment.secrets / "passwords" / user


def make_password(environment: Environment, user: str) -> None:
    """Make the password of a user who has none."""
    path = password_file(environment, user)
    _made(environment, path, f"password of {user}", _PASSWORD)


def make_all(environment: Environment) -> None:
    """Make every secret that the home lacks."""
    for name in _KINDS:
        secret(environment, name)


def _made(
    environment: Environment,
    path: Path,
    name: str,
    kind: tuple[int, _Encoder],
) -> str:
    """The secret in that file, made when it is missing.

    Where machines share one, it is derived from that, and a file that says otherwise is mended.
    """
    size, encoded = kind
    shared = environment.secret
    derived = shared and encoded(_expanded(shared, name)[:size])
    found = _text(path)
    if not found or derived not in {None, found}:
        private_home(environment)
        private_folder(environment.secrets)
        with _alone_in(private_folder(path.parent)):
            # Another process may have made it meanwhile.
            found = _text(path)
            if found and derived not in {None, found}:
                # What it has encrypted, or let in, may still be there.
                write_private(path.with_name(f"{path.name}.before"), found)
            if not found or derived:
                write_private(path, derived or encoded(secrets.token_bytes(size)))
    return path.read_text().strip()


def _text(path: Path) -> str:
    """What a file says; nothing where there is none, or the power has failed before it was kept."""
    return path.read_text().strip() if path.exists() else ""


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let no other process make a secret in the folder: a reader has the first one already."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _expanded(secret: str, name: str) -> bytes:
    """64 bytes for that name: the first block of HKDF-Expand (RFC 5869) by HMAC-SHA-512.

    Its key must be long and random, as the secret is.
    """
    return hmac.digest(secret.encode(), name.encode() + b"\x01", "sha512")


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


def _draft(path: Path, text: str) -> Path:
    """The text in a file of its own beside the path."""
    # mkstemp makes it 0600.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            # Else its name could be on the disk before what it says.
            os.fsync(file.fileno())
    except BaseException:  # such as a full disk
        Path(draft).unlink()
        raise
    return Path(draft)
