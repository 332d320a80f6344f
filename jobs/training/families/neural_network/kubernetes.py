"""The Kubernetes API, as far as ranks in Pods need it: a few requests, by a Pod's own account."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.errors import NightshiftError

_ANSWER_SECONDS = 15
_PORT = 443
_FIRST_REFUSAL = 400
_NOT_NOW = (429, 500, 502, 503, 504)
"""Status codes after which the same request may go well."""
Found = dict[str, Any]


class Unanswered(NightshiftError):
    """Kubernetes has not answered, or not now. What it was asked for may have been done."""


class Declined(NightshiftError):
    """Kubernetes refuses what it was asked for."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Kubernetes:
    """Asks by HTTPS, as the account whose token Kubernetes puts into a Pod."""

    def __init__(self, address: str, account: Path) -> None:
        """Of a cluster.

        Args:
            address: Such as https://kubernetes.default.svc.
            account: Folder with `token`, `ca.crt` and `namespace`.
        """
        self._address = address
        self._account = account

    @property
    def namespace(self) -> str:
        """That of the account: it may do nothing in another.

        Raises:
            NightshiftError: there is no account.
        """
        return self._told("namespace")

    def get(self, path: str) -> Found:
        """What is there.

        Raises:
            Unanswered: nobody says.
            Declined: it is not there, or not for us.
        """
        return self._object(self._ask("GET", path, None))

    def text(self, path: str) -> str:
        """The same of what is no object, as a log."""
        return self._ask("GET", path, None).decode(errors="replace")

    def post(self, path: str, body: Mapping[str, object]) -> Found:
        """Have an object made."""
        return self._object(self._ask("POST", path, body))

    def delete(self, path: str, body: Mapping[str, object]) -> None:
        """Have one removed."""
        self._ask("DELETE", path, body)

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
    ) -> bytes:
        # Each time: Kubernetes renews a token long before it ends.
        headers = {"Authorization": f"Bearer {self._told('token')}"}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body)
        parts = urlsplit(self._address)
        connection: HTTPSConnection | None = None
        try:
            # No proxy: the token is for the cluster alone.
            connection = HTTPSConnection(
                str(parts.hostname),
                parts.port or _PORT,
                timeout=_ANSWER_SECONDS,
                context=ssl.create_default_context(cafile=self._account / "ca.crt"),
            )
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, HTTPException) as error:
            raise Unanswered(f"Kubernetes at {self._address} does not answer: {error}.") from error
        finally:
            if connection is not None:
                connection.close()
        if answer.status in _NOT_NOW:
            raise Unanswered(f"Kubernetes answers {answer.status}: {_message(said)}")
        if answer.status >= _FIRST_REFUSAL:
            message = f"Kubernetes refuses {method} {path} ({answer.status}): {_message(said)}"
            raise Declined(message, answer.status)
        return said

    def _object(self, said: bytes) -> Found:
        found: Found = json.loads(said)
        return found

    def _told(self, name: str) -> str:
        try:
            return (self._account / name).read_text().strip()
        except OSError as error:
            raise NightshiftError(
                f"There is no account of Kubernetes here: {self._account / name}: "
                f"{error.strerror}. NIGHTSHIFT_KUBERNETES_ACCOUNT says where it is; in a Pod it is "
                "there when the Pod has a service account whose token is mounted."
            ) from error


def _message(said: bytes) -> str:
    """What Kubernetes says of an error, in its own words."""
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return said[:200].decode(errors="replace").strip()
