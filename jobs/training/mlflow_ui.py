"""The service `mlflow`: MLflow's own pages and API on loopback, for whoever signs in.

One process, not the five of `mlflow server`. MLflow's own sign-in needs a library that it does not
bring, has a database of users, and guards only a part of the paths; this guards every one.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64encode
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from jobs.services.airflow import USER
from jobs.services.processes import LOOPBACK
from jobs.services.secrets import secret

# Before mlflow is imported: it keeps mlflow from reporting its use.
from jobs.training.registry import making_tables
from pipelines.environment import Environment

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]
"""As ASGI has them."""

_REFUSED = (
    (b"www-authenticate", b'Basic realm="MLflow of Nightshift", charset="UTF-8"'),
    (b"content-type", b"text/plain; charset=utf-8"),
)
_NICENESS = 5
"""It gets a third of the processor time that others ask for."""
_POLICY_VIOLATION = 1008
"""How a websocket is closed that may not be opened."""


class SignedIn:
    """An application that answers nobody without the login."""

    def __init__(self, app: _App, user: str, password: str) -> None:
        self._app = app
        self._wanted = b"Basic " + b64encode(f"{user}:{password}".encode())

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one connection, as ASGI has it."""
        kind = scope["type"]
        # Its own start and end, of which no client knows.
        if kind == "lifespan" or self._has_login(scope):
            await self._app(scope, receive, send)
        elif kind == "http":
            await send({"type": "http.response.start", "status": 401, "headers": _REFUSED})
            await send({"type": "http.response.body", "body": b"Sign in.\n"})
        else:
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

    def _has_login(self, scope: _Message) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        # Takes as long for a login that is nearly right.
        return hmac.compare_digest(given, self._wanted)


def main() -> None:
    """Serve until a signal ends it."""
    # A start of the platform, and a night, come first: this one is read by a person now and then.
    os.nice(_NICENESS)
    environment = Environment.read()
    app = SignedIn(_pages(environment), USER, secret(environment, "admin_password"))
    uvicorn.run(
        app,
        host=LOOPBACK,
        port=environment.mlflow_port,
        log_level="warning",
        access_log=False,
    )


def _pages(environment: Environment) -> _App:
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    store = environment.mlflow_uri
    artifacts = environment.models.as_uri()
    with making_tables(environment):
        initialize_backend_stores(store, store, artifacts)
    pages: _App = app
    return pages


if __name__ == "__main__":
    main()
