"""Ranks in Pods: one Indexed Job of Kubernetes an attempt, made from a template of the site's."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from jobs.services.stage_client import Work
from jobs.training.families.neural_network import job
from jobs.training.families.neural_network.kubernetes import (
    Declined,
    Found,
    Kubernetes,
    Unanswered,
)
from jobs.training.families.neural_network.numbered import NumberedRank
from jobs.training.families.neural_network.rendezvous import OF_A_RANK, Place
from jobs.training.families.neural_network.told import told_by_variables
from jobs.training.families.neural_network.wanted import LOST, Line
from pipelines import places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError

_MODULE = "jobs.training.families.neural_network.on_pod"
_LABEL = "batch.kubernetes.io/job-name"
_INDEX = "batch.kubernetes.io/job-completion-index"
_NOT_THERE, _THERE_ALREADY = 404, 409
_LOOK_SECONDS = 1
_PATIENCE_SECONDS = 30
"""Until it is told what a Pod waits for."""
_START_SECONDS = 600
"""For a Pod to find a node and its image."""
_GONE_SECONDS = 30
_ATTEMPTS = 5
_AFTERWARDS_SECONDS = 60
"""That a Job has beyond the time of its training."""
_KEPT_SECONDS = 3600
"""For a stage that Kubernetes does not answer, to see how its ranks have ended. A Job that nobody
removes, because its stage was killed, is gone after that."""
_TOLD_BYTES = 2000
_TOLD_LINES = 40
_Answer = TypeVar("_Answer")


class OnPods:
    """An Indexed Job, each Pod of which is one rank."""

    def __init__(self, environment: Environment) -> None:
        """Those of the environment.

        Raises:
            UsageError: Pods could not reach this machine or the job, or have no good template.
        """
        assert environment.rank_pod is not None
        _require_reachable(environment)
        assert environment.rendezvous_address is not None
        self._environment = environment
        self._address = environment.rendezvous_address
        self._template = _template(environment.rank_pod)
        self._api = Kubernetes(environment.kubernetes_api, environment.kubernetes_account)
        self._pods: _Pods | None = None

    @property
    def address(self) -> str:
        """See `Launcher`."""
        return self._address

    def hosts(self, ranks: int) -> Mapping[str, int]:
        """See `Launcher`: Kubernetes finds nodes for as many as are wanted."""
        return {f"pod-{number}": 1 for number in range(ranks)}

    def left(self, ranks: int) -> Mapping[str, int]:
        """See `Launcher`: a Pod that was lost is made anew, on a node that is left."""
        return self.hosts(ranks)

    def prepare(self, folder: Path, places: Sequence[Place], timeout_seconds: float) -> None:
        """See `Launcher`: the Job, with all its Pods."""
        name = f"nightshift-ranks-{uuid4().hex[:10]}"
        line = Line(self._address, len(places))
        container = self._template["spec"]["containers"][0].get("name", "")
        self._pods = _Pods(self._api, name, line, folder, container)
        body = self._job(name, folder, places, timeout_seconds, line.port)
        _in_spite_of_silence(lambda: self._make(body))

    def start(self, folder: Path, place: Place) -> Work:
        """See `Launcher`."""
        assert self._pods is not None, "they are prepared before one is started"
        return NumberedRank(self._pods, int(place.variables["HOROVOD_RANK"]))

    def last_words(self, rank: Work) -> str:
        """See `Launcher`."""
        assert isinstance(rank, NumberedRank)
        return rank.last_words()

    def await_end(self, folder: Path, ranks: int) -> None:
        """See `Launcher`."""
        if self._pods:
            self._pods.end()
            self._pods.await_gone()

    def try_out(self, ranks: int) -> str:
        """Have Kubernetes judge such a Job, and make none; gives the account's namespace.

        Raises:
            NightshiftError: it would not be made, or nobody says.
        """
        places = [Place("", {"HOROVOD_RANK": "0"})] * ranks
        body = self._job("nightshift-ranks", Path("job"), places, 1, 1)
        self._api.post(f"{self._jobs_path()}?dryRun=All", body)
        return self._api.namespace

    def _make(self, body: Found) -> None:
        try:
            self._api.post(self._jobs_path(), body)
        except Declined as declined:
            # It was made by an attempt whose answer was lost.
            if declined.status != _THERE_ALREADY:
                raise

    def _jobs_path(self) -> str:
        return f"/apis/batch/v1/namespaces/{self._api.namespace}/jobs"

    def _job(
        self, name: str, folder: Path, ranks: Sequence[Place], timeout_seconds: float, port: int
    ) -> Found:
        told = told_by_variables(self._environment, folder, ranks[0])
        told = {**places.address_of_store(os.environ), **told}
        variables = {one: value for one, value in told.items() if one not in OF_A_RANK}
        template = deepcopy(self._template)
        template["spec"]["restartPolicy"] = "Never"
        container = template["spec"]["containers"][0]
        container["args"] = ["-m", _MODULE, str(folder), str(port)]
        own = [one for one in container.get("env") or [] if one["name"] not in variables]
        given = [{"name": one, "value": value} for one, value in variables.items()]
        container["env"] = [*own, *given]
        metadata: Found = {
            "name": name,
            "labels": template.get("metadata", {}).get("labels", {}),
        }
        if owner := self._owner():
            metadata["ownerReferences"] = [owner]
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {
                "completionMode": "Indexed",
                "completions": len(ranks),
                "parallelism": len(ranks),
                # A rank that has died is not made anew behind our back, nor are the others ended
                # before it is known what they died of.
                "backoffLimitPerIndex": 0,
                "podReplacementPolicy": "Failed",
                "activeDeadlineSeconds": int(timeout_seconds) + _AFTERWARDS_SECONDS,
                "ttlSecondsAfterFinished": _KEPT_SECONDS,
                "template": template,
            },
        }

    def _owner(self) -> Found | None:
        """This Pod, with which the Job goes; None: this machine is no Pod."""
        name = socket.gethostname()
        path = f"/api/v1/namespaces/{self._api.namespace}/pods/{name}"
        try:
            found = _in_spite_of_silence(lambda: self._api.get(path))
        except Declined as declined:
            if declined.status != _NOT_THERE:
                raise
            return None
        uid = found["metadata"]["uid"]
        return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}


class _Pods:
    """Those of a Job, as they were a moment ago."""

    def __init__(
        self,
        api: Kubernetes,
        name: str,
        line: Line,
        folder: Path,
        container: str,
    ) -> None:
        self._api = api
        self._job = name
        self._line = line
        self._folder = folder
        self._container = container
        self._found: dict[int, Found] = {}
        self._lost: set[int] = set()
        self._began = time.monotonic()
        self._next_look = 0.0
        self._is_ended = False
        self._told: set[str] = set()

    def code(self, number: int) -> int | None:
        """Exit code of a rank; None: it has not ended, or nobody can tell now."""
        code = self._code(number)
        # Whatever became of its Pod afterwards: the training was done.
        return 0 if code == LOST and job.has_outcome(self._folder) else code

    def _code(self, number: int) -> int | None:
        self._look_if_due()
        if number in self._lost:
            return LOST
        pod = self._found.get(number, {})
        ended = self._state(pod).get("terminated")
        if ended:
            return int(ended["exitCode"])
        if pod.get("status", {}).get("phase") == "Failed":
            # Such as one that its node has evicted.
            return LOST
        if pod.get("status", {}).get("phase") != "Running":
            return self._patience(number, pod)
        return None

    def last_words(self, number: int) -> str:
        """The end of a rank's log; of one that is lost, what Kubernetes says of it."""
        if number in self._lost:
            return "its Pod was removed, as when its node is lost or emptied"
        pod = self._found.get(number)
        if pod is None or not self._state(pod).get("terminated"):
            return self._what_lacks(pod)
        name = pod["metadata"]["name"]
        query = f"container={self._container}&tailLines={_TOLD_LINES}&limitBytes={_TOLD_BYTES}"
        with suppress(NightshiftError):
            return self._api.text(f"{self._pods_path()}/{name}/log?{query}").strip()
        return ""

    def end(self) -> None:
        """Remove the Job with its Pods, once."""
        if self._is_ended:
            return
        self._is_ended = True
        self._line.close()
        path = f"/apis/batch/v1/namespaces/{self._api.namespace}/jobs/{self._job}"
        try:
            _in_spite_of_silence(
                lambda: self._api.delete(path, {"propagationPolicy": "Background"})
            )
        except NightshiftError as error:
            if not (isinstance(error, Declined) and error.status == _NOT_THERE):
                _tell(f"Warning: the Job {self._job} is left for Kubernetes to remove: {error}")

    def await_gone(self) -> None:
        """Return when none of its Pods is there, or nobody can tell."""
        deadline = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < deadline:
            with suppress(Unanswered):
                if not self._listed():
                    return
            time.sleep(_LOOK_SECONDS)

    def _look_if_due(self) -> None:
        if time.monotonic() < self._next_look:
            return
        try:
            found = self._listed()
        except Unanswered as error:
            # The ranks do not need it: they train on.
            self._tell_once(f"Warning: {error} The ranks are not seen meanwhile.")
        else:
            for number, known in self._found.items():
                # One of the same number would be another rank.
                now = found.get(number)
                if now is None or now["metadata"]["uid"] != known["metadata"]["uid"]:
                    self._lost.add(number)
            self._found |= found
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def _listed(self) -> dict[int, Found]:
        found = self._api.get(f"{self._pods_path()}?labelSelector={_LABEL}%3D{self._job}")
        return {int(one["metadata"]["annotations"][_INDEX]): one for one in found["items"]}

    def _pods_path(self) -> str:
        return f"/api/v1/namespaces/{self._api.namespace}/pods"

    def _patience(self, number: int, pod: Found) -> int | None:
        waited = time.monotonic() - self._began
        if waited > _PATIENCE_SECONDS:
            self._tell_once(f"Rank {number} waits: {self._what_lacks(pod)}.")
        return LOST if waited > _START_SECONDS else None

    def _state(self, pod: Found) -> Found:
        """Of the container of the rank: a Pod may have others beside it."""
        statuses = pod.get("status", {}).get("containerStatuses") or []
        states = [one.get("state") for one in statuses if one.get("name") == self._container]
        return dict(next(iter(states), None) or {})

    def _what_lacks(self, pod: Found | None) -> str:
        """Why a Pod does not run, in Kubernetes' words."""
        if not pod:
            return "no Pod was made for it; `kubectl get events` tells why"
        status = pod.get("status", {})
        waiting = self._state(pod).get("waiting", {})
        conditions = status.get("conditions") or []
        unmet = [one for one in conditions if one.get("status") == "False"]
        found = [status, waiting, *unmet]
        words = [one.get("message") or one.get("reason") for one in found]
        return next(filter(None, words), f"its Pod is {status.get('phase', 'not begun')}")

    def _tell_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            _tell(line)


def _require_reachable(environment: Environment) -> None:
    if environment.rendezvous_address is None:
        raise UsageError(
            "NIGHTSHIFT_RANK_POD needs NIGHTSHIFT_RENDEZVOUS_ADDRESS: the address of this Pod, at "
            "which the ranks find each other."
        )
    if not places.is_url(environment.jobs):
        raise UsageError(
            "NIGHTSHIFT_RANK_POD needs NIGHTSHIFT_JOBS in an object store, such as "
            f"s3://bucket/jobs: Pods do not see {environment.jobs} of this one."
        )
    store = places.endpoint(os.environ)
    if store and _is_loopback(store):
        raise UsageError(
            f"NIGHTSHIFT_RANK_POD needs an object store that Pods reach: AWS_ENDPOINT_URL={store} "
            "leads each of them to itself."
        )


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _template(file: Path) -> Found:
    told = f"NIGHTSHIFT_RANK_POD={file}"
    try:
        template = json.loads(file.read_text())
        container = template["spec"]["containers"][0]
        has_command = bool(container["command"] and container["image"])
    except (OSError, ValueError) as error:
        raise UsageError(f"{told} cannot be read: {error}.") from error
    except (KeyError, IndexError, TypeError):
        has_command = False
    if not has_command:
        raise UsageError(
            f"{told} is no template of a Pod: it needs spec.containers, the first of which has an "
            "image and a command that starts Python."
        )
    return dict(template)


def _in_spite_of_silence(ask: Callable[[], _Answer]) -> _Answer:
    for attempt in range(1, _ATTEMPTS):
        with suppress(Unanswered):
            return ask()
        time.sleep(attempt * _LOOK_SECONDS)
    return ask()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
