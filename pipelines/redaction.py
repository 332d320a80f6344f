"""Texts for people, without the passwords and tokens that addresses and settings hold.

Libraries quote an address in their errors, whole or in part. What is printed, logged or recorded of
an error goes through `redacted`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from pipelines.environment import Environment

HIDDEN = "***"
# Each pattern looks at a sign a few times at most, whatever a text of megabytes holds.
_ADDRESS = re.compile(r"\w[\w+.-]{0,30}://[^\s'\"<>]+")
_PASSWORD = re.compile(r"(?<=://)([^/:]*):(.*)@")
"""Of `scheme://user:password@host`; a password may hold an @, a slash or a blank itself."""
_TOKEN = re.compile(r"^(https?://)[^/?#@:]+@", re.IGNORECASE)
"""Of `https://token@host`: who signs in without a password may do so by a token."""
_PARAMETER = re.compile(
    r"([;?&](?=[^=;?&]*(?:token|pass|pwd|secret|key|sig|auth|credential))[^=;?&]*)=([^;&]*)",
    re.IGNORECASE,
)
"""Such as Spark Connect's `sc://host/;token=…`."""


def redacted(text: str, variables: Mapping[str, str] = os.environ) -> str:
    """The text without the secrets of the settings, and of any address that it quotes.

    Args:
        text: What a person may read.
        variables: The environment variables that give the settings.
    """
    # The longest first: one secret may be a part of another.
    for secret in sorted(_secrets(variables), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _ADDRESS.sub(lambda address: without_secrets(address[0]), text)


def without_secrets(address: str) -> str:
    """The address without its password and without what its parameters hide."""
    # Up to the last @ alone: beyond it no password ends.
    until = address.rfind("@") + 1
    without_password = _PASSWORD.sub(rf"\1:{HIDDEN}@", address[:until]) + address[until:]
    without_token = _TOKEN.sub(rf"\1{HIDDEN}@", without_password)
    return _PARAMETER.sub(rf"\1={HIDDEN}", without_token)


def _secrets(variables: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for setting in Environment.settings().values():
        value = variables.get(setting.variable, "")
        secrets = list(_secrets_in(value))
        if setting.is_secret:
            secrets.append(value)
        found.update(secrets)
        # In an address a sign may be written %3D, and an error may say it plainly.
        found.update(unquote(secret) for secret in secrets)
    return found - {""}


def _secrets_in(address: str) -> Iterator[str]:
    for pattern in (_PASSWORD, _PARAMETER):
        for found in pattern.finditer(address):
            yield found[2]
