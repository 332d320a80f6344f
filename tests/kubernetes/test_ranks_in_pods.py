"""Ranks as Pods, started by the Pod of a stage with the account and the volumes of the chart.

The control plane is a real one, which KUBECONFIG names: admission, accounts and their rights, Jobs,
owners and logs are its own. `node.py` stands for a node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psutil
import pytest
import yaml

from jobs.services import processes
from pipelines.environment import ROOT
from tests.conftest import free_port
from tests.hosts import kill_all_in, two_hosts
from tests.jobs.training.small import environment_at
from tests.kubernetes import stage
from tests.kubernetes.node import NODE, Api, Node, api, node
from tests.object_store.conftest import ObjectStore

pytestmark = pytest.mark.skipif(
    not os.environ.get("CHART_TEST") or not os.environ.get("KUBECONFIG"),
    reason="`make chart-test` runs it, where KUBECONFIG names a Kubernetes without nodes",
)
_SECONDS = 300
_FEW, _MANY, _ENDLESS = 4, 150, 100_000
_KEYS = {"AWS_ACCESS_KEY_ID": "of-the-tests", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests"}
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

    def begin(self, weights: Path, epochs: int, **others: str) -> str:
        """Start a stage, with other variables than those of the chart; the name of its Pod."""
        pod = deepcopy(self.template)
        name = f"stage-{uuid4().hex[:6]}"
        spec = pod["spec"]
        (container,) = spec["containers"]
        module = ["python", "-m", "tests.kubernetes.stage"]
        container["command"] = [*module, str(weights), str(epochs)]
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
        query = f"labelSelector=batch.kubernetes.io/job-name%3D{job}"
        path = f"/api/v1/namespaces/{self.namespace}/pods?{query}"
        return list(self.cluster.ask("GET", path)["items"])

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


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    folder = tmp_path_factory.mktemp("node")
    namespace = f"nightshift-test-{uuid4().hex[:8]}"
    with two_hosts() as network, api() as cluster:
        store, process = _store(network.address)
        bucket = store.new_bucket()
        settings = [
            *("--set", "image.repository=localhost/nightshift", "--set", "layout=apart"),
            *("--set", "environmentSecret=nightshift", "--set", "apart.ranks.where=pods"),
            *("--set", f"environment.AWS_ENDPOINT_URL={store.address}"),
            *("--set", f"apart.ranks.nodeSelector.{NODE}=yes"),
            *("--set", f"apart.ranks.tolerations[0].key={NODE}"),
            *("--set", "apart.ranks.tolerations[0].operator=Exists"),
            *(
                word
                for name in ("LAKE", "LANDING", "REPORTS", "MODELS", "JOBS")
                for word in ("--set", f"environment.NIGHTSHIFT_{name}=s3://{bucket}/{name.lower()}")
            ),
        ]
        _kubectl("create", "namespace", namespace)
        _kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        literals = [f"--from-literal={name}={value}" for name, value in _KEYS.items()]
        _kubectl("create", "secret", "generic", "nightshift", *literals, "--namespace", namespace)
        chart = ["night", str(ROOT / "chart"), "--namespace", namespace, *settings]
        _run("helm", "install", *chart)
        try:
            with node(cluster, folder, network.bridge, network.address) as ours:
                rendered = _run("helm", "template", *chart)
                (template,) = [
                    one["spec"]["template"]
                    for one in yaml.safe_load_all(rendered)
                    if one and one["kind"] == "Deployment"
                    if one["metadata"]["name"] == "night-stages"
                ]
                server = _run("kubectl", "config", "view", "--minify", "-o", "json")
                address = json.loads(server)["clusters"][0]["cluster"]["server"]
                home = folder / "home"
                variables = {
                    "NIGHTSHIFT_HOME": str(home),
                    # Nobody resolves names of Services here.
                    "NIGHTSHIFT_KUBERNETES_API": address,
                }
                yield Nights(cluster, ours, namespace, template, variables, store, bucket)
        finally:
            _kubectl("delete", "namespace", namespace, "--wait=false")
            process.terminate()
            process.wait()


def _store(address: str) -> tuple[ObjectStore, subprocess.Popen[bytes]]:
    port = free_port()
    command = [sys.executable, "-m", "tests.object_store.server", str(port), address]
    process = subprocess.Popen(command, cwd=ROOT)
    _wait_until(lambda: processes.answers(port, address))
    return ObjectStore(f"http://{address}:{port}"), process


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _kubectl(*arguments: str) -> str:
    return _run("kubectl", *arguments)


def _wait_until(happens: Callable[[], Any], seconds: float = _SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := happens():
            return found
        time.sleep(0.3)
    raise AssertionError("it did not happen in time")


def _ended(nights: Nights, pod: str) -> str:
    """How a stage ends."""
    over = ("Succeeded", "Failed")
    return str(_wait_until(lambda: (phase := nights.phase(pod)) in over and phase))


def _running_ranks(nights: Nights) -> list[str]:
    found = nights.jobs()
    pods = nights.pods(found[0]["metadata"]["name"]) if found else []
    running = [one for one in pods if _phase(one) == "Running"]
    if len(running) != stage.RANKS:
        return []
    return [one["metadata"]["name"] for one in running]


def test_ranks_in_pods_train_the_model_of_ranks_on_this_machine(
    nights: Nights, tmp_path: Path
) -> None:
    there = tmp_path / "there.npz"
    pod = nights.begin(there, _FEW)
    (job,) = _wait_until(nights.jobs)
    assert job["metadata"]["ownerReferences"][0]["name"] == pod
    assert _ended(nights, pod) == "Succeeded", nights.log(pod)
    _require_alike(there, tmp_path, _FEW)
    assert not nights.jobs()


def _require_alike(there: Path, folder: Path, epochs: int) -> None:
    """Weights and losses are those of ranks on this machine, bit for bit."""
    here = folder / "here.npz"
    stage.train(environment_at(folder), here, epochs)
    with np.load(here) as ours, np.load(there) as theirs:
        assert list(ours) == list(theirs)
        assert len(ours["loss"]) == epochs
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_rank_that_is_killed_is_replaced_and_the_training_goes_on(
    nights: Nights, tmp_path: Path
) -> None:
    there = tmp_path / "there.npz"
    pod = nights.begin(there, _MANY)
    ranks = _wait_until(lambda: _running_ranks(nights))
    killed = nights.host(ranks[1])
    _wait_until(nights.has_checkpoint)
    first = nights.jobs()[0]["metadata"]["name"]
    kill_all_in(killed)
    assert _ended(nights, pod) == "Succeeded", nights.log(pod)
    told = nights.log(pod)
    assert "Rank 1 of the training was killed by SIGKILL" in told
    assert "They are started again, on pod-0, pod-1." in told
    _require_alike(there, tmp_path, _MANY)
    assert first not in [one["metadata"]["name"] for one in nights.jobs()]


def test_what_a_rank_says_last_is_read_from_its_pod(nights: Nights, tmp_path: Path) -> None:
    namespace = ("--namespace", nights.namespace)
    config = json.loads(_kubectl("get", "configmap", "night-rank", *namespace, "-o", "json"))
    template = json.loads(config["data"]["pod.json"])
    words = "import sys; sys.exit('There is no place for me.')"
    template["spec"]["containers"][0]["command"] = ["python", "-c", words]
    file = tmp_path / "pod.json"
    file.write_text(json.dumps(template))
    pod = nights.begin(tmp_path / "never.npz", _FEW, NIGHTSHIFT_RANK_POD=str(file))
    assert _ended(nights, pod) == "Failed"
    said = nights.log(pod)
    assert (
        "of the training was gone with exit code 1, so all ranks were ended. It said last" in said
    )
    assert "It said last: There is no place for me." in said
    assert not nights.jobs()


def test_ranks_end_with_the_process_of_their_stage_and_their_job_with_its_pod(
    nights: Nights, tmp_path: Path
) -> None:
    pod = nights.begin(tmp_path / "never.npz", _ENDLESS)
    ranks = _wait_until(lambda: _running_ranks(nights))
    hosts = [nights.host(one) for one in ranks]
    _wait_until(nights.has_checkpoint)
    job = nights.jobs()[0]["metadata"]["name"]
    kill_all_in(nights.host(pod))
    killed = time.monotonic()
    _wait_until(lambda: not any(map(_processes, hosts)), seconds=20)
    print(f"ranks ended after {time.monotonic() - killed:.1f} s")
    # The Pod of the stage is there yet, as that of schedulers is when a stage of theirs is killed.
    _wait_until(lambda: set(map(_phase, nights.pods(job))) <= {"Failed"})
    _kubectl("delete", "pod", pod, "--namespace", nights.namespace, "--wait=false")
    _wait_until(lambda: not nights.jobs() and not nights.pods(job), seconds=50)


def _phase(pod: Found) -> str:
    return str(pod["status"]["phase"])


def _processes(host: str) -> list[psutil.Process]:
    command = ["ip", "netns", "pids", host]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    there = filter(psutil.pid_exists, map(int, found.split()))
    return [psutil.Process(number) for number in there]
