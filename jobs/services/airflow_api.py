"""A small client of Airflow's REST API: start a DAG run, follow it, and tell why it failed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from pipelines.errors import NightshiftError

FINISHED = frozenset({"success", "failed"})
_TIMEOUT_SECONDS = 60
_LOG_LINES = 25


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

    def trigger(self, dag: str, conf: Mapping[str, Any], run_id: str | None = None) -> str:
        """Start a run of the DAG with these params; returns its run id."""
        body = {
            "logical_date": None,
            "conf": dict(conf),
            **({"dag_run_id": run_id} if run_id else {}),
        }
        return str(self.call("POST", f"/dags/{quote(dag)}/dagRuns", body)["dag_run_id"])

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
        seen: dict[str, str] = {}
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            run = self.run(dag, run_id)
            for task in self.tasks(dag, run_id):
                if task.state != seen.get(task.name):
                    seen[task.name] = task.state
                    progress(task)
            if run["state"] == "failed":
                raise DagRunError(self._why(dag, run_id))
            if run["state"] in FINISHED:
                return (
                    datetime.fromisoformat(run["end_date"])
                    - datetime.fromisoformat(run["start_date"])
                ).total_seconds()
            time.sleep(1)
        raise NightshiftError(
            f"Run {run_id} of '{dag}' is not finished after {timeout_seconds:.0f} s. "
            f"See {self.page(dag, run_id)}"
        )

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        """The DAG run, as the API tells it."""
        return self.call("GET", f"/dags/{quote(dag)}/dagRuns/{quote(run_id)}")

    def tasks(self, dag: str, run_id: str) -> list[Task]:
        """The tasks of the run that have a state, in the order in which they started."""
        found = self.call(
            "GET", f"/dags/{quote(dag)}/dagRuns/{quote(run_id)}/taskInstances?limit=100"
        )["task_instances"]
        return [
            Task(
                name=one["task_id"],
                state=one["state"],
                seconds=one["duration"],
                try_number=one["try_number"],
            )
            for one in sorted(found, key=lambda one: one["start_date"] or "~")
            if one["state"]
        ]

    def log(self, dag: str, run_id: str, task: Task) -> list[str]:
        """The lines of the task's last attempt."""
        tasks = f"/dags/{quote(dag)}/dagRuns/{quote(run_id)}/taskInstances"
        path = f"{tasks}/{quote(task.name)}/logs/{task.try_number}?full_content=true"
        return [line for event in self.call("GET", path)["content"] for line in _lines(event)]

    def stop(self, dag: str, run_id: str) -> None:
        """Give the run up: its running task is ended, the others do not start."""
        self.call("PATCH", f"/dags/{quote(dag)}/dagRuns/{quote(run_id)}", {"state": "failed"})

    def page(self, dag: str, run_id: str) -> str:
        """Where a person sees the run."""
        return f"{self.url}/dags/{quote(dag)}/runs/{quote(run_id)}"

    def has_dag(self, dag: str) -> bool:
        """Whether Airflow has read the DAG's file by now."""
        return self._send("GET", f"/api/v2/dags/{quote(dag)}", None)[0] == HTTPStatus.OK

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of `/api/v2<path>`.

        Raises:
            NightshiftError: there is no answer, or it is a refusal; the message names the request
                and what Airflow said.
        """
        status, answer = self._send(method, f"/api/v2{path}", body)
        if status >= HTTPStatus.BAD_REQUEST:
            raise NightshiftError(
                f"Airflow answered {method} {path} with {status}: "
                f"{json.dumps(answer.get('detail', answer))}"
            )
        return answer

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, dict[str, Any]]:
        self._token = self._token or self._log_in()
        status, answer = self._request(
            method, path, body, {"Authorization": f"Bearer {self._token}"}
        )
        if status == HTTPStatus.UNAUTHORIZED:  # the token has run out
            self._token = self._log_in()
            status, answer = self._request(
                method, path, body, {"Authorization": f"Bearer {self._token}"}
            )
        return status, answer

    def _log_in(self) -> str:
        status, answer = self._request(
            "POST", "/auth/token", {"username": self.user, "password": self.password}, {}
        )
        if status >= HTTPStatus.BAD_REQUEST:
            raise NightshiftError(
                f"Airflow at {self.url} does not let '{self.user}' in ({status}): "
                "is another Nightshift on this port?"
            )
        return str(answer["access_token"])

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, Any]]:
        content = None if body is None else json.dumps(body).encode()
        sent = Request(
            f"{self.url}{path}",
            content,
            {"Content-Type": "application/json", "Accept": "application/json", **headers},
        )
        sent.method = method
        try:
            # No proxy, whatever the environment says: the platform is on loopback.
            with build_opener(ProxyHandler({})).open(sent, timeout=_TIMEOUT_SECONDS) as response:
                return response.status, json.loads(response.read() or b"{}")
        except HTTPError as refusal:
            return refusal.code, _answer(refusal.read())
        except (URLError, TimeoutError, ConnectionError) as error:
            raise NightshiftError(
                f"No answer from Airflow at {self.url} ({error}). "
                "Is it up? See `nightshift status`."
            ) from error

    def _why(self, dag: str, run_id: str) -> str:
        failed = [task for task in self.tasks(dag, run_id) if task.state == "failed"]
        logs = [
            f"{task.name} failed, try {task.try_number}. The end of its log:\n"
            + _tail(self.log(dag, run_id, task))
            for task in failed
        ]
        return "\n".join([f"Run {run_id} of '{dag}' failed. See {self.page(dag, run_id)}", *logs])


def _answer(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = content.decode(errors="replace")
    return answer if isinstance(answer, dict) else {"detail": answer}


def _lines(event: dict[str, Any] | str) -> list[str]:
    """A log event as lines of text.

    An exception's own words are in a field of their own, group marks are for the UI.
    """
    if isinstance(event, str):
        return event.splitlines()
    errors = [
        f"{error['exc_type']}: {error['exc_value']}" for error in event.get("error_detail") or []
    ]
    texts = [event["event"], *([event["reason"]] if "reason" in event else []), *errors]
    return [line for text in texts for line in str(text).splitlines() if not line.startswith("::")]


def _tail(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])
