from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pipelines.environment import Environment


@dataclass(kw_only=True, slots=True)
class StageServer:
    """What a command asks of the stage server, in whose place it is."""

    codes: list[int] = field(default_factory=list)
    """How what is asked ends, in its order."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Each function with its argument."""

    def call(
        self,
        _: Environment,
        function: str,
        argument: dict[str, Any],
        __: object,
    ) -> int:
        self.asked.append((function, argument))
        return self.codes[len(self.asked) - 1]


@pytest.fixture
def stage_server(monkeypatch: pytest.MonkeyPatch) -> StageServer:
    """One that is up."""
    server = StageServer()
    monkeypatch.setattr("jobs.services.stage_client.available", lambda _: True)
    monkeypatch.setattr("jobs.services.stage_client.call", server.call)
    return server
