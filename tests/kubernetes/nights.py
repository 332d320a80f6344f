"""A namespace with the chart in it, and what stands for a node.

The control plane is a real one, which KUBECONFIG names: admission, accounts and their rights, Jobs,
owners and logs are its own. `node.py` stands for a node.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import yaml

from jobs.services import processes
from pipelines.environment import ROOT
from tests.conftest import free_port
from tests.hosts import Network, two_hosts
from tests.kubernetes.node import NODE, Api, Node, api, node
from tests.object_store.conftest import ObjectStore

_SECONDS = 300
_NIGHT_SECONDS = 1200
KEYS = {"AWS_ACCESS_KEY_ID": "of-the-tests", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests"}
Found = dict[str, Any]


@dataclass
class Nights:
    """A namespace with the chart in it, and a node that runs its Pods."""

    cluster: Api
    node: Node
    namespace: str
    template: Found
    """Of the Pod of the stages."""
    variables: dict[str, str]
    store: ObjectStore
    bucket: str

    def has_checkpoint(self) -> bool:
        """Whether a training is in its midst."""
        with urllib.request.urlopen(f"{self.store.address}/{self.bucket}?prefix=jobs/") as told:
            return b"<Key>jobs/checkpoint-" in told.read()

    def train(self, weights: Path, epochs: int, **others: str) -> str:
        """Start a stage that trains; the name of its Pod."""
        module = ["python", "-m", "tests.kubernetes.stage"]
        return self.begin([*module, str(weights), str(epochs)], **others)

    def begin(self, command: Sequence[str], **others: str) -> str:
        """Start a stage, with other variables than those of the chart; the name of its Pod."""
        pod = deepcopy(self.template)
        name = f"stage-{uuid4().hex[:6]}"
        spec = pod["spec"]
        (container,) = spec["containers"]
        container["command"] = list(command)
        container["env"] = _with(container["env"], {**self.variables, **others})
        for probe in ("startupProbe", "readinessProbe"):
            container.pop(probe)
        spec |= {"restartPolicy": "Never", "nodeSelector": {NODE: "yes"}}
        spec["tolerations"] = [{"key": NODE, "operator": "Exists"}]
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.cluster.ask("POST", f"/api/v1/namespaces/{self.namespace}/pods", body)
        return name

    def jobs(self) -> list[Found]:
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        return list(self.cluster.ask("GET", path)["items"])

    def pods(self, job: str) -> list[Found]:
        return self._pods("batch.kubernetes.io/job-name", job)

    def executors(self) -> list[Found]:
        """Pods of Spark's that run."""
        return [one for one in self.of_part("spark-executor") if phase_of(one) == "Running"]

    def of_part(self, part: str) -> list[Found]:
        """Pods of a part of the platform."""
        return self._pods("app.kubernetes.io/component", part)

    def _pods(self, label: str, value: str) -> list[Found]:
        query = f"labelSelector={label}%3D{value}"
        path = f"/api/v1/namespaces/{self.namespace}/pods?{query}"
        return list(self.cluster.ask("GET", path)["items"])

    def end_of(self, pod: str) -> str:
        """How a stage ends, once it has."""
        over = ("Succeeded", "Failed")
        return str(wait_until(lambda: (phase := self.phase(pod)) in over and phase, _NIGHT_SECONDS))

    def remove(self, pod: str) -> None:
        """Have Kubernetes remove a Pod."""
        kubectl("delete", "pod", pod, "--namespace", self.namespace, "--wait=false")

    def phase(self, pod: str) -> str:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}"
        return str(self.cluster.ask("GET", path)["status"]["phase"])

    def log(self, pod: str) -> str:
        command = ["kubectl", "logs", "--namespace", self.namespace, pod]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def host(self, pod: str) -> str:
        """The network namespace in which its processes are."""
        containers = self.node.containers.values()
        (found,) = [one for one in containers if one.pod["metadata"]["name"] == pod]
        return found.host


def _with(given: list[Found], variables: dict[str, str]) -> list[Found]:
    own = [{"name": name, "value": value} for name, value in variables.items()]
    return [one for one in given if one["name"] not in variables] + own


@contextmanager
def installed(folder: Path) -> Iterator[Nights]:
    """The chart in a namespace of its own, with ranks and executors in Pods."""
    values = [
        *("apart.ranks.where=pods", "apart.sparkExecutors.where=pods"),
        *("apart.stages.sparkCores=2", "environment.NIGHTSHIFT_SPARK_MEMORY=1g"),
        *on_the_stand_in("ranks"),
        *on_the_stand_in("sparkExecutors"),
    ]
    with ExitStack() as held:
        network = held.enter_context(two_hosts())
        store = held.enter_context(store_at(network))
        yield held.enter_context(chart(network, folder, store, values))


@contextmanager
def chart(
    network: Network,
    folder: Path,
    store: ObjectStore,
    values: Sequence[str],
    secret: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Nights]:
    """The chart in a namespace of its own.

    Args:
        network: In which Pods get addresses.
        folder: For what its Pods leave.
        store: Where all its places are.
        values: Of the chart, as `--set` has them.
        secret: Further variables of the Secret.
    """
    namespace = f"nightshift-test-{uuid4().hex[:8]}"
    bucket = store.new_bucket()
    with api() as cluster:
        told = [
            *("image.repository=localhost/nightshift", "layout=apart"),
            *("environmentSecret=nightshift", f"environment.AWS_ENDPOINT_URL={store.address}"),
            *(
                f"environment.NIGHTSHIFT_{name}=s3://{bucket}/{name.lower()}"
                for name in ("LAKE", "LANDING", "REPORTS", "MODELS", "JOBS")
            ),
            *values,
        ]
        settings = [word for value in told for word in ("--set", value)]
        kubectl("create", "namespace", namespace)
        kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        variables = {**KEYS, **secret}
        literals = [f"--from-literal={name}={value}" for name, value in variables.items()]
        kubectl("create", "secret", "generic", "nightshift", *literals, "--namespace", namespace)
        words = ["night", str(ROOT / "chart"), "--namespace", namespace, *settings]
        run("helm", "install", *words)
        # Nobody resolves names of Services here.
        names = {"night": network.address}
        try:
            with node(cluster, folder, network.bridge, network.address, names) as ours:
                rendered = run("helm", "template", *words)
                (template,) = [
                    one["spec"]["template"]
                    for one in yaml.safe_load_all(rendered)
                    if one and one["kind"] == "Deployment"
                    if one["metadata"]["name"] == "night-stages"
                ]
                server = run("kubectl", "config", "view", "--minify", "-o", "json")
                address = json.loads(server)["clusters"][0]["cluster"]["server"]
                place = urlsplit(address)
                home = folder / "home"
                variables = {
                    "NIGHTSHIFT_HOME": str(home),
                    "NIGHTSHIFT_KUBERNETES_API": address,
                    "NIGHTSHIFT_SPARK_MASTER": f"k8s://{address}",
                    # As a kubelet tells each Pod.
                    "KUBERNETES_SERVICE_HOST": str(place.hostname),
                    "KUBERNETES_SERVICE_PORT": str(place.port or 443),
                }
                yield Nights(cluster, ours, namespace, template, variables, store, bucket)
        finally:
            kubectl("delete", "namespace", namespace, "--wait=false")


def on_the_stand_in(part: str) -> list[str]:
    """Values by which Pods of a part run there."""
    return [
        f"apart.{part}.nodeSelector.{NODE}=yes",
        f"apart.{part}.tolerations[0].key={NODE}",
        f"apart.{part}.tolerations[0].operator=Exists",
    ]


@contextmanager
def store_at(network: Network) -> Iterator[ObjectStore]:
    """A store that Pods reach."""
    store, process = _store(network.address)
    try:
        yield store
    finally:
        process.terminate()
        process.wait()


def _store(address: str) -> tuple[ObjectStore, subprocess.Popen[bytes]]:
    port = free_port()
    command = [sys.executable, "-m", "tests.object_store.server", str(port), address]
    process = subprocess.Popen(command, cwd=ROOT)
    wait_until(lambda: processes.answers(port, address))
    return ObjectStore(f"http://{address}:{port}"), process


def run(*command: str) -> str:
    """What it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def kubectl(*arguments: str) -> str:
    """What Kubernetes answers."""
    return run("kubectl", *arguments)


def wait_until(happens: Callable[[], Any], seconds: float = _SECONDS) -> Any:
    """What happens at last."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := happens():
            return found
        time.sleep(0.3)
    raise AssertionError("it did not happen in time")


def phase_of(pod: Found) -> str:
    """Such as 'Running'."""
    return str(pod["status"]["phase"])


def processes_on(host: str) -> list[psutil.Process]:
    """Those of a Pod."""
    command = ["ip", "netns", "pids", host]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    there = []
    for number in found.split():
        # Some end meanwhile.
        with suppress(psutil.NoSuchProcess):
            there.append(psutil.Process(int(number)))
    return there
