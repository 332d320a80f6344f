"""What somebody may do: asked of Airflow's API and of our pages by name and password."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from urllib.error import HTTPError
from urllib.request import Request

from jobs.services.accounts import accounts
from jobs.services.airflow import NO_PROXY
from pipelines.environment import PAGES, Environment

DECIDE = "/nightshift/pages/flights/models"
DECISION = {"what": "rollback", "version": "999", "why": "a test"}
"""Of a version that nobody has: who may decide is told so, and nothing changes."""
RUNS = "/api/v2/dags/flights/dagRuns"
RUN = {"logical_date": "no date"}
"""Airflow refuses its form: who may trigger learns that, and nothing runs."""
_SEEN = ("/api/v2/dags/flights", *(f"/nightshift/pages/flights/{page}" for page in PAGES))
_SETTINGS = "/api/v2/connections"
EXPLAIN = "/nightshift/pages/flights/explanation"
WHY = {"night": "2013-01-01", "key": {"no such column": "1"}}
"""Of no prediction: who may ask is told so, and no model is loaded."""
SQL = "/nightshift/pages/sql"
STATEMENT = {"statement": "SELECT 1"}
_VIEWS = ["see", "explain", "ask"]
ABLE = {
    "ann": _VIEWS,
    "bob": [*_VIEWS, "trigger", "decide"],
    "admin": [*_VIEWS, "trigger", "decide", "set up"],
}
"""What the users of the tests may do: a viewer, a user, an admin."""
USERS = "ann:viewer,bob:user"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who speaks to the API server; without a token nobody in particular."""

    url: str
    token: str = ""

    def status(self, path: str, body: object = None) -> int:
        """The HTTP status of a GET, or of a POST of the body."""
        try:
            with NO_PROXY.open(self._request(path, body), timeout=60) as answer:
                return int(answer.status)
        except HTTPError as refusal:
            return refusal.code

    def may(self) -> list[str]:
        """What this person may do, of: see, explain, ask, trigger, decide, set up."""
        able = []
        if all(self.status(path) == HTTPStatus.OK for path in _SEEN):
            able.append("see")
        if self.status(EXPLAIN, WHY) == HTTPStatus.BAD_REQUEST:
            able.append("explain")
        if self.status(SQL, STATEMENT) == HTTPStatus.OK:
            able.append("ask")
        if self.status(RUNS, RUN) == HTTPStatus.UNPROCESSABLE_ENTITY:
            able.append("trigger")
        if self.status(DECIDE, DECISION) == HTTPStatus.BAD_REQUEST:
            able.append("decide")
        if self.status(_SETTINGS) == HTTPStatus.OK:
            able.append("set up")
        return able

    def _request(self, path: str, body: object) -> Request:
        headers = {"Content-Type": "application/json", "X-Nightshift": "1"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        content = None if body is None else json.dumps(body).encode()
        return Request(f"{self.url}{path}", content, headers)


def signed_in(environment: Environment) -> dict[str, Person]:
    """Everyone whom the settings name, by name, with a token of the API."""
    url = f"http://127.0.0.1:{environment.airflow_port}"
    people = {}
    for one in accounts(environment):
        people[one.user] = _sign_in(url, one.user, one.password)
    return people


def _sign_in(url: str, user: str, password: str) -> Person:
    body = json.dumps({"username": user, "password": password}).encode()
    asked = Request(f"{url}/auth/token", body, {"Content-Type": "application/json"})
    with NO_PROXY.open(asked, timeout=60) as answer:
        return Person(url=url, token=json.load(answer)["access_token"])
