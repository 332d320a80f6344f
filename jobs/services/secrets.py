"""Secrets of one home: made once, each a file that only its owner can read, and never logged."""

from __future__ import annotations

import base64
import hmac
import os
import secrets
import tempfile
from collections.abc import Callable
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


def _made(environment: Environment, path: Path, name: str, kind: tuple[int, _Encoder]) -> str:
    """The secret in that file, made when it is missing.

    Where machines share one, it is derived from that, and a file that says otherwise is mended.
    """
    size, encoded = kind
    shared = environment.secret
    derived = shared and encoded(_expanded(shared, name)[:size])
    # An empty file is what is left of one where the power failed: it would let everybody in.
    found = (path.read_text().strip() if path.exists() else "") or None
    if found is None or derived not in {None, found}:
        private_home(environment)
        private_folder(environment.secrets)
        private_folder(path.parent)
        if derived is None and path.exists():
            write_private(path, encoded(secrets.token_bytes(size)))
        elif derived is None:
            write_once(path, encoded(secrets.token_bytes(size)))
        else:
            if found is not None:
                # What it has encrypted, or let in, may still be there.
                write_private(path.with_name(f"{path.name}.before"), found)
            write_private(path, derived)
    return path.read_text().strip()


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
