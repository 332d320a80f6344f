"""A small client of Airflow's REST API: start a DAG run, follow it, and tell why it failed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request

from jobs.services import addresses
from jobs.services.airflow import NO_PROXY, USER
from jobs.services.secrets import secret
from pipelines.environment import Environment
from pipelines.errors import NightshiftError
from pipelines.resources import Pool

FINISHED = frozenset({"success", "failed"})
_TIMEOUT_SECONDS = 60
_LOOK_SECONDS = 1
_TRIES = 6
"""Of a request that may be made twice. On SQLite Airflow answers with an error when another process
has written for five seconds."""
_LOG_LINES = 25
_MOST_TASKS = 100
"""Airflow gives a page of 50 by default; a night has about ten stages."""
_STARTED_LAST = "~"
"""Sorts after every instant: the start of a task that has none yet."""

Content = Mapping[str, Any]
"""A JSON object that is sent."""
Answer = dict[str, Any]
"""A JSON object that came back."""
Reply = tuple[int, Answer]
"""An HTTP status and what came with it."""


class DagRunError(NightshiftError):
    """A DAG run ended badly; the message ends with the log of the task that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A task of a DAG run, as it stands."""

    name: str
    state: str
    seconds: float | None
    try_number: int


@dataclass(slots=True)
class Airflow:
    """One Airflow, spoken to as one user."""

    url: str
    user: str
    password: str
    _token: str = ""

    def trigger(self, dag: str, conf: Content, run_id: str | None = None) -> str:
        """Start a run of the DAG with these params; returns its run id."""
        # A DAG may have one run of each logical date, and any number of runs without one.
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf)}
        if run_id:
            body["dag_run_id"] = run_id
        run = self.call("POST", f"/dags/{quote(dag)}/dagRuns", body)
        return str(run["dag_run_id"])

    def wait(
        self,
        dag: str,
        run_id: str,
        timeout_seconds: float,
        progress: Callable[[Task], None] = lambda task: None,
    ) -> float:
        """Wait until the run has succeeded, telling `progress` each change of a task.

        Returns its seconds from start to end.

        Raises:
            DagRunError: it failed; the message holds the end of the failed task's log.
            NightshiftError: it is not finished in time.
        """
        states: dict[str, str] = {}
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            run = self.run(dag, run_id)
            for task in self.tasks(dag, run_id):
                if task.state != states.get(task.name):
                    states[task.name] = task.state
                    progress(task)
            if run["state"] == "failed":
                raise DagRunError(self._why(dag, run_id))
            if run["state"] in FINISHED:
                return _seconds(run)
            time.sleep(_LOOK_SECONDS)
        raise NightshiftError(
            f"Run {run_id} of '{dag}' is not finished after {timeout_seconds:.0f} s. "
            f"See {self.page(dag, run_id)}"
        )

    def run(self, dag: str, run_id: str) -> Answer:
        """The DAG run, as the API tells it."""
        return self.call("GET", _run_path(dag, run_id))

    def tasks(self, dag: str, run_id: str) -> list[Task]:
        """The tasks of the run that have a state, in the order in which they started."""
        path = f"{_run_path(dag, run_id)}/taskInstances?limit={_MOST_TASKS}"
        instances = self.call("GET", path)["task_instances"]
        instances.sort(key=lambda instance: instance["start_date"] or _STARTED_LAST)
        return [_task(instance) for instance in instances if instance["state"]]

    def log(self, dag: str, run_id: str, task: Task) -> list[str]:
        """The lines of the task's last attempt."""
        instance = f"{_run_path(dag, run_id)}/taskInstances/{quote(task.name)}"
        content = self.call("GET", f"{instance}/logs/{task.try_number}?full_content=true")
        lines: list[str] = []
        for event in content["content"]:
            lines += _lines(event)
        return lines

    def stop(self, dag: str, run_id: str) -> None:
        """Give the run up: its running task is ended, the others do not start."""
        self.call("PATCH", _run_path(dag, run_id), {"state": "failed"})

    def note(self, dag: str, run_id: str, text: str) -> None:
        """Make the text, Markdown of at most 1000 characters, the note of the run."""
        self.call("PATCH", _run_path(dag, run_id), {"note": text})

    def make_pools(self, pools: Iterable[Pool]) -> None:
        """Make the pools that are not there; one that is there stays as a person has made it.

        Raises:
            NightshiftError: Airflow does not answer, or refuses; the message names the request.
        """
        for pool in pools:
            # Asked first: one that is made twice fills a page of Airflow's log.
            if self._is_there(f"/pools/{quote(pool.name)}"):
                continue
            body = {"name": pool.name, "slots": pool.slots, "description": pool.doc}
            status, answer = self._send("POST", "/api/v2/pools", body, may_be_twice=True)
            if status != HTTPStatus.CONFLICT:  # another was faster
                _refuse_if_refused("POST", "/pools", status, answer)

    def page(self, dag: str, run_id: str) -> str:
        """Where a person sees the run."""
        return addresses.of_run(self.url, dag, run_id)

    def has_dag(self, dag: str) -> bool:
        """Whether Airflow has read the DAG's file by now."""
        return self._is_there(f"/dags/{quote(dag)}")

    def token(self) -> str:
        """What shows Airflow who asks, in the header `Authorization: Bearer`.

        Raises:
            NightshiftError: there is no answer, or the user is not let in.
        """
        if not self._token:
            self._token = self._log_in()
        return self._token

    def call(self, method: str, path: str, body: Content | None = None) -> Answer:
        """The answer of `/api/v2<path>`.

        Raises:
            NightshiftError: there is no answer, or it is a refusal; the message names the request
                and what Airflow said.
        """
        status, answer = self._send(method, f"/api/v2{path}", body)
        _refuse_if_refused(method, path, status, answer)
        return answer

    def _is_there(self, path: str) -> bool:
        status, _ = self._send("GET", f"/api/v2{path}", None)
        return status == HTTPStatus.OK

    def _send(
        self, method: str, path: str, body: Content | None, *, may_be_twice: bool = False
    ) -> Reply:
        """The reply; while Airflow has a fault, a request that may be made twice is made again."""
        status, answer = self._signed_in(method, path, body)
        tries_left = _TRIES - 1 if may_be_twice or method != "POST" else 0
        while tries_left and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            time.sleep(_LOOK_SECONDS)
            status, answer = self._signed_in(method, path, body)
            tries_left -= 1
        return status, answer

    def _signed_in(self, method: str, path: str, body: Content | None) -> Reply:
        self.token()
        status, answer = self._request(method, path, body)
        if status == HTTPStatus.UNAUTHORIZED:  # the token has run out
            self._token = self._log_in()
            status, answer = self._request(method, path, body)
        return status, answer

    def _log_in(self) -> str:
        self._token = ""
        credentials = {"username": self.user, "password": self.password}
        status, answer = self._request("POST", "/auth/token", credentials)
        if status >= HTTPStatus.BAD_REQUEST or "access_token" not in answer:
            raise NightshiftError(
                f"Airflow at {self.url} does not let '{self.user}' in ({status}): "
                "is another Nightshift on this port?"
            )
        return str(answer["access_token"])

    def _request(self, method: str, path: str, body: Content | None) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        content = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", content, headers, method=method)
        try:
            with NO_PROXY.open(request, timeout=_TIMEOUT_SECONDS) as response:
                return response.status, _object(response.read() or b"{}")
        except HTTPError as refusal:
            return refusal.code, _answer(refusal.read())
        except (URLError, TimeoutError, ConnectionError) as error:
            raise NightshiftError(
                f"No answer from Airflow at {self.url} ({error}). "
                "Is it up? See `nightshift status`."
            ) from error
        except (HTTPException, ValueError) as error:
            # Such as the page of a login that a proxy before it shows.
            raise NightshiftError(
                f"What answers at {self.url} is no Airflow ({type(error).__name__}). Which program "
                "is it? See `nightshift doctor`, and NIGHTSHIFT_AIRFLOW_API where it is set."
            ) from None

    def _why(self, dag: str, run_id: str) -> str:
        parts = [f"Run {run_id} of '{dag}' failed. See {self.page(dag, run_id)}"]
        for task in self.tasks(dag, run_id):
            if task.state == "failed":
                end = self.log(dag, run_id, task)[-_LOG_LINES:]
                parts.append(f"{task.name} failed, try {task.try_number}. The end of its log:")
                parts += [f"  {line}" for line in end]
        return "\n".join(parts)


def own_airflow(environment: Environment) -> Airflow:
    """The platform's own Airflow, as its own user."""
    return Airflow(
        url=addresses.of_api(environment),
        user=USER,
        password=secret(environment, "admin_password"),
    )


def _refuse_if_refused(
    method: str,
    path: str,
    status: int,
    answer: Answer,
) -> None:
    if status >= HTTPStatus.BAD_REQUEST:
        reason = json.dumps(answer.get("detail", answer))
        raise NightshiftError(f"Airflow answered {method} {path} with {status}: {reason}")


def _run_path(dag: str, run_id: str) -> str:
    return f"/dags/{quote(dag)}/dagRuns/{quote(run_id)}"


def _task(instance: Answer) -> Task:
    return Task(
        name=instance["task_id"],
        state=instance["state"],
        seconds=instance["duration"],
        try_number=instance["try_number"],
    )


def _seconds(run: Answer) -> float:
    start = datetime.fromisoformat(run["start_date"])
    end = datetime.fromisoformat(run["end_date"])
    return (end - start).total_seconds()


def _object(content: bytes) -> Answer:
    answer = json.loads(content)
    if not isinstance(answer, dict):
        raise ValueError("no JSON object")
    return answer


def _answer(content: bytes) -> Answer:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = content.decode(errors="replace")
    return answer if isinstance(answer, dict) else {"detail": answer}


def _lines(event: Answer | str) -> list[str]:
    """A log event as lines of text.

    An exception's own words are in a field of their own, group marks are for the UI.
    """
    if isinstance(event, str):
        return event.splitlines()
    texts = [str(event["event"])]
    if "reason" in event:
        texts.append(str(event["reason"]))
    errors = event.get("error_detail") or []
    texts += [f"{error['exc_type']}: {error['exc_value']}" for error in errors]
    lines = "\n".join(texts).splitlines()
    return [line for line in lines if not line.startswith("::")]
