"""`make chart-test`: what the Helm chart says, in several ways of setting it.

It renders the chart with `helm`, which must be on PATH, and judges each Pod by what Kubernetes'
PodSecurity standard "restricted" demands
(https://kubernetes.io/docs/concepts/security/pod-security-standards/). Where KUBECONFIG names a
cluster, it is installed there too, in a namespace of its own that enforces this, and removed again.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from pipelines.environment import ROOT, Environment
from pipelines.places import ENDPOINT, address_of_store

_CHART = ROOT / "chart"
_IMAGE = ("--set", "image.repository=registry.example.org/nightshift")
_WAYS: Mapping[str, Sequence[str]] = {
    "as it is": _IMAGE,
    "with databases elsewhere": (
        *_IMAGE,
        *("--set", "environmentSecret=nightshift"),
        *("--set", "environment.NIGHTSHIFT_SPARK_MEMORY=4g"),
        *("--set-string", "environment.NIGHTSHIFT_RANKS=4"),
        *("--set", "storage.className=fast"),
        *("--set", "image.pullSecrets[0]=registry"),
        *("--set", "networkPolicy.egress[0].ports[0].port=5432"),
        *("--set", "networkPolicy.from[0].podSelector.matchLabels.app=proxy"),
    ),
    "in an object store": (
        *_IMAGE,
        *("--set", "environmentSecret=nightshift"),
        *("--set", "environment.NIGHTSHIFT_LAKE=s3://nights/lake"),
        *("--set", "environment.AWS_ENDPOINT_URL=https://store.example.org"),
        *("--set", "networkPolicy.egress[0].ports[0].port=443"),
    ),
    "without a network policy": (*_IMAGE, "--set", "networkPolicy.enabled=false"),
}
_KINDS = {"StatefulSet", "Service", "NetworkPolicy"}
_POD_SECONDS = 60
Found = dict[str, Any]
_Ended = subprocess.CompletedProcess[str]


class ClusterError(Exception):
    """The cluster of KUBECONFIG does not do what the test needs."""


def main() -> int:
    """Render and judge; returns 0 when nothing was found."""
    if shutil.which("helm") is None:
        print("No 'helm' is on PATH: https://helm.sh/docs/intro/install/", file=sys.stderr)
        return 3
    faults = [*_faults(), *_faults_in_a_cluster()]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(_WAYS)} ways rendered, {len(faults)} faults found.")
    return 1 if faults else 0


def _faults() -> Iterator[str]:
    linted = _helm("lint", "--strict", str(_CHART), *_IMAGE)
    if linted.returncode:
        yield linted.stdout
    without_image = _helm("template", "night", str(_CHART))
    if "image.repository: say where your image is" not in without_image.stderr:
        yield "without an image it does not say that one is needed"
    for name, settings in _WAYS.items():
        rendered = _helm("template", "night", str(_CHART), *settings)
        if rendered.returncode:
            yield f"{name}: {rendered.stderr}"
            continue
        found = {one["kind"]: one for one in yaml.safe_load_all(rendered.stdout) if one}
        wanted = _KINDS - ({"NetworkPolicy"} if "without" in name else set())
        if set(found) != wanted:
            yield f"{name}: it makes {sorted(found)}, and not {sorted(wanted)}"
        for fault in _faults_of(found):
            yield f"{name}: {fault}"


def _faults_of(found: Mapping[str, Found]) -> Iterator[str]:
    pod = found["StatefulSet"]["spec"]["template"]["spec"]
    yield from _against_restricted(pod)
    (container,) = pod["containers"]
    known = {one.variable for one in Environment.settings().values()}
    # How Amazon's own programs call where a store is.
    known |= address_of_store({ENDPOINT: "https://store.example.org"}).keys()
    for variable in container.get("env", ()):
        if variable["name"] not in known:
            yield f"{variable['name']} is no variable of ours"
    port = container["ports"][0]["name"]
    if found["Service"]["spec"]["ports"][0]["targetPort"] != port:
        yield "the Service leads to another port"
    policy = found.get("NetworkPolicy")
    if policy and set(policy["spec"]["policyTypes"]) != {"Ingress", "Egress"}:
        yield "what is not named is not refused by the NetworkPolicy"


def _against_restricted(pod: Found) -> Iterator[str]:
    whole = pod["securityContext"]
    if not whole.get("runAsNonRoot") or not whole.get("runAsUser"):
        yield "the Pod may run as root"
    if whole["seccompProfile"]["type"] != "RuntimeDefault":
        yield "it has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "it holds a token of Kubernetes"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield f"it asks for {name}"
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    if not kinds <= {"emptyDir", "persistentVolumeClaim", "configMap", "secret", "projected"}:
        yield f"its volumes are of {sorted(kinds)}"
    for container in pod["containers"]:
        yield from _against_restricted_container(container)


def _against_restricted_container(container: Found) -> Iterator[str]:
    own = container["securityContext"]
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{container['name']} may get more rights"
    if own["capabilities"].get("drop") != ["ALL"] or own["capabilities"].get("add"):
        yield f"{container['name']} has capabilities"
    if own.get("readOnlyRootFilesystem") is not True:
        yield f"{container['name']} may write to its root"


def _faults_in_a_cluster() -> Iterator[str]:
    if not os.environ.get("KUBECONFIG"):
        print("Not installed anywhere: KUBECONFIG is not set.")
        return
    namespace = f"nightshift-test-{secrets.token_hex(4)}"
    try:
        _require(_kubectl("create", "namespace", namespace))
        enforced = "pod-security.kubernetes.io/enforce=restricted"
        _require(_kubectl("label", "namespace", namespace, enforced))
        for name, settings in _WAYS.items():
            words = ("upgrade", "--install", "night", str(_CHART), "--namespace", namespace)
            # What a claim asks for cannot be changed: each way is a release of its own.
            installed = _helm(*words, *settings)
            if installed.returncode:
                yield f"{name}: {installed.stderr}"
                continue
            if not _has_pod(namespace):
                yield f"{name}: no Pod was made of the StatefulSet"
            _require(_helm("uninstall", "night", "--namespace", namespace, "--wait"))
            _require(_kubectl("delete", "pvc", "--all", "--wait=false", "--namespace", namespace))
        print(f"{len(_WAYS)} ways installed, in a namespace that enforces 'restricted'.")
    except ClusterError as error:
        yield str(error)
    finally:
        _kubectl("delete", "namespace", namespace, "--wait=false")


def _has_pod(namespace: str) -> bool:
    deadline = time.monotonic() + _POD_SECONDS
    while time.monotonic() < deadline:
        if not _kubectl("get", "pod", "night-0", "--namespace", namespace).returncode:
            return True
        time.sleep(1)
    return False


def _require(ended: _Ended) -> None:
    if ended.returncode:
        raise ClusterError(f"{' '.join(ended.args)}: {ended.stderr.strip()}")


def _kubectl(*arguments: str) -> _Ended:
    return subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False)


def _helm(*arguments: str) -> _Ended:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
