"""`make chart-test`: what the Helm chart says, in several ways of setting it.

It renders the chart with `helm`, which must be on PATH, and judges each Pod by what Kubernetes'
PodSecurity standard "restricted" demands
(https://kubernetes.io/docs/concepts/security/pod-security-standards/). Where KUBECONFIG names a
cluster, it is installed there too, in a namespace of its own that enforces this, and removed again.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import product
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pipelines.environment import ROOT, Environment
from pipelines.for_ranks import PREFIXES
from pipelines.places import ENDPOINT, address_of_store

Found = dict[str, Any]
Flow = tuple[str, str, int | None]
Right = tuple[str, str, str]
"""A group of Kubernetes' API, a kind in it, and what may be done with one."""
_CHART = ROOT / "chart"
_AUTHORITY, _PROXY = "AWS_CA_BUNDLE", "https_proxy"
"""Variables without which a site's store may not be reached."""
_IMAGE = ("--set", "image.repository=registry.example.org/nightshift")
_PLACES = ("LAKE", "LANDING", "REPORTS", "MODELS", "JOBS")
_APART = (
    *_IMAGE,
    *("--set", "layout=apart"),
    *("--set", "environmentSecret=nightshift"),
    *("--set", "environment.AWS_ENDPOINT_URL=https://store.example.org"),
    *(
        word
        for name in _PLACES
        for word in ("--set", f"environment.NIGHTSHIFT_{name}=s3://nights/{name.lower()}")
    ),
)
_MEETING = "NIGHTSHIFT_RENDEZVOUS_ADDRESS"
_ON_EXECUTORS = "environment.NIGHTSHIFT_RANK_EXECUTORS=on"
"""How a way has ranks train on the executors of Spark."""
_WITH_FILES = "postgresql://night@db:5432/w?sslkey=/key.pem&passfile=/pass&require_auth=gss"
"""An address of PostgreSQL that only names files with secrets."""
_WAYS: Mapping[str, Sequence[str]] = {
    "as it is": _IMAGE,
    "with databases elsewhere": (
        *_IMAGE,
        *("--set", "environmentSecret=nightshift"),
        *("--set", "environment.NIGHTSHIFT_SPARK_MEMORY=4g"),
        *("--set-json", "environment.NIGHTSHIFT_RANKS=4"),
        # As a file of values has it: of such a number Helm makes 1.048576e+06.
        *("--set-json", "environment.HOROVOD_FUSION_THRESHOLD=1048576"),
        *("--set-json", "environment.NIGHTSHIFT_USERS=null"),
        # Named like a secret, and none.
        *("--set", "environment.NCCL_IB_PKEY=0x8001"),
        *("--set", f"environment.NIGHTSHIFT_WAREHOUSE_URL={_WITH_FILES}"),
        *("--set", "storage.className=fast"),
        *("--set-json", "image.pullSecrets=[2026]"),
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
    "without a network policy": (
        *_IMAGE,
        *("--set", "networkPolicy.enabled=false"),
        # As a file of values has it in which all of them are commented out.
        *("--set-json", "environment=null"),
        *("--set-json", "resources=null"),
    ),
    "with GPUs": (*_IMAGE, "--set", "gpus=2"),
    "apart": _APART,
    "apart, with more of some": (
        *_APART,
        *("--set", "apart.pages.most=null"),
        *("--set", "apart.pages.replicas=2"),
        *("--set", "apart.homeLimit=3Gi"),
        *("--set", "apart.stages.replicas=3"),
        *("--set", "apart.sparkWorkers.replicas=3"),
        *("--set", "networkPolicy.egress[0].ports[0].port=5432"),
    ),
    "apart, with two cores a worker": (
        *_APART,
        *("--set", "apart.sparkWorkers.cores=2"),
        *("--set", "apart.stages.sparkCores=2"),
        # Each driver has an executor on each.
        *("--set", "apart.sparkWorkers.memory=6g"),
    ),
    "apart, with ranks in Pods": (
        *_APART,
        *("--set", "apart.ranks.where=pods"),
        *("--set-json", 'apart.ranks.resources.limits={"memory": "4Gi", "nvidia.com/gpu": 1}'),
        *("--set", "apart.ranks.nodeSelector.disk=fast"),
        *("--set", "apart.ranks.tolerations[0].operator=Exists"),
        *("--set", "apart.kubernetesApi.to[0].ipBlock.cidr=10.0.0.1/32"),
    ),
    "apart, with executors in Pods": (
        *_APART,
        *("--set", "apart.sparkExecutors.where=pods"),
        # More than the workers' that there are not.
        *("--set", "apart.stages.sparkCores=8"),
        *("--set", "apart.sparkExecutors.cores=4"),
        *("--set", "environment.NIGHTSHIFT_SPARK_MEMORY=16g"),
        *("--set", "apart.stages.accountAnnotations.role=nights"),
        *("--set", "image.tag=20261129"),
        *("--set", "apart.sparkExecutors.nodeSelector.disk=fast"),
        *("--set", "apart.sparkExecutors.tolerations[0].operator=Exists"),
    ),
    "apart, with ranks in Pods and executors in Pods": (
        *_APART,
        *("--set", "apart.ranks.where=pods"),
        *("--set", "apart.sparkExecutors.where=pods"),
        *("--set", f"environment.{_AUTHORITY}=/etc/ssl/own.pem"),
        *("--set", f"environment.{_PROXY}=http://proxy.example.org:3128"),
    ),
    "apart, with tasks in Pods": (
        *_APART,
        *("--set", "apart.tasks.where=pods"),
        # More than there are cores for: those of tasks that have ended are free for others.
        *("--set", "apart.tasks.most=32"),
        *("--set", "apart.tasks.nodeSelector.disk=fast"),
        *("--set", "apart.tasks.tolerations[0].operator=Exists"),
        *("--set", "environment.SPARK_REMOTE=sc://spark.example.org:15002"),
        # Too little for one executor, and no task computes there.
        *("--set", "apart.sparkWorkers.memory=1g"),
        *("--set", "apart.pages.accountAnnotations.role=pages"),
    ),
    "apart, with tasks in Pods and no workers": (
        *_APART,
        *("--set", "apart.tasks.where=pods"),
        *("--set", "apart.sparkWorkers.replicas=0"),
    ),
    "apart, with tasks in Pods and GPUs": (
        *_APART,
        *("--set", "apart.tasks.where=pods"),
        *("--set", "gpus=2"),
    ),
    "apart, with ranks on workers": (*_APART, "--set", _ON_EXECUTORS),
    "apart, with tasks in Pods and ranks on workers": (
        *_APART,
        *("--set", "apart.tasks.where=pods"),
        *("--set", _ON_EXECUTORS),
    ),
    "apart, with GPUs": (*_APART, "--set", "gpus=2", "--set", "apart.homeLimit=null"),
}
_KINDS = {
    "one": {"StatefulSet", "Service", "NetworkPolicy"},
    "apart": {
        *("StatefulSet", "Deployment", "Service", "NetworkPolicy"),
        *("PodDisruptionBudget", "HorizontalPodAutoscaler"),
    },
}
_OF_PODS_THAT_ARE_ASKED_FOR = {"ConfigMap", "ServiceAccount", "Role", "RoleBinding"}
_RIGHTS = {
    "tasks in Pods": {
        ("", "pods", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")
    },
    "ranks in Pods": {
        ("batch", "jobs", "create"),
        ("batch", "jobs", "delete"),
        ("", "pods", "get"),
        ("", "pods", "list"),
        ("", "pods/log", "get"),
    },
    "executors in Pods": {
        ("", "pods", verb)
        for verb in ("create", "get", "list", "watch", "delete", "deletecollection")
    },
}
"""All that the account of the stages may do, where they ask for such."""
_RIGHTS_OF_PAGES = {
    ("", "pods", "get"),
    ("", "pods", "list"),
    ("", "pods/log", "get"),
}
"""Where tasks have Pods: to show what one says that runs."""
_NONE: Set[Right] = frozenset()
_PARTS = {"pages", "control", "stages"}
"""Those that have a home, which goes with their Pod."""
_LIMIT, _USUAL_LIMIT = "apart.homeLimit=", "20Gi"
"""How a way says what one may take of a disk, and what it is where none does."""
_ROLE = re.compile(r"apart\.(?P<part>\w+)\.accountAnnotations\.role=(?P<name>\w+)")
"""How a way gives one to an account."""
_REFUSED: Mapping[str, Sequence[str]] = {
    "image.repository: say where your image is": (),
    "environmentSecret: name a Secret with": (*_IMAGE, "--set", "layout=apart"),
    "environment.NIGHTSHIFT_LAKE: Pods share no disk": (
        *_IMAGE,
        *("--set", "layout=apart"),
        *("--set", "environmentSecret=nightshift"),
        *("--set", "environment.NIGHTSHIFT_LAKE=/lake"),
    ),
    "gpus: ranks in Pods ask for theirs by": (
        *_APART,
        *("--set", "apart.ranks.where=pods"),
        *("--set", "gpus=1"),
    ),
    "some would wait for ever": (*_APART, "--set", "apart.stages.replicas=3"),
    "holds 2 executors of NIGHTSHIFT_SPARK_MEMORY=3g, and 2 apart.stages want 2 each": (
        *_APART,
        *("--set", "apart.sparkWorkers.cores=2"),
        *("--set", "apart.stages.sparkCores=2"),
    ),
    "holds 0 executors of NIGHTSHIFT_SPARK_MEMORY=4g": (
        *_APART,
        *("--set", "environment.NIGHTSHIFT_SPARK_MEMORY=4g"),
    ),
    "holds 1 executors of NIGHTSHIFT_SPARK_MEMORY=2048m": (
        *_APART,
        *("--set", "environment.NIGHTSHIFT_SPARK_MEMORY=2048m"),
        *("--set", "apart.sparkWorkers.replicas=1"),
        *("--set", "apart.sparkWorkers.cores=2"),
    ),
    "apart.tasks.where: it is 'stages' or 'pods', and not 'Pods'": (
        *_APART,
        *("--set", "apart.tasks.where=Pods"),
    ),
    "apart.tasks: tasks in Pods have no account that may make Pods": (
        *_APART,
        *("--set", "apart.tasks.where=pods"),
        *("--set", "apart.ranks.where=pods"),
    ),
    "environment.AIRFLOW__CORE__EXECUTOR: the chart itself tells it": (
        *_APART,
        *("--set", "apart.tasks.where=pods"),
        *("--set", "environment.AIRFLOW__CORE__EXECUTOR=CeleryExecutor"),
    ),
    "holds 0 executors of NIGHTSHIFT_SPARK_MEMORY=3g, and a task in a Pod wants one": (
        *_APART,
        *("--set", "apart.tasks.where=pods"),
        *("--set", "apart.sparkWorkers.memory=1g"),
    ),
    "apart.tasks.most: 0 is no number of tasks": (*_APART, "--set", "apart.tasks.most=0"),
    "apart.tasks.most: null is no number of tasks": (*_APART, "--set", "apart.tasks.most=null"),
    "apart.tasks.most: 1.5 is no number of tasks": (
        *_APART,
        *("--set-json", "apart.tasks.most=1.5"),
    ),
    "environment.AIRFLOW__CORE__EXECUTOR: for tasks in Pods set apart.tasks.where=pods": (
        *_APART,
        *("--set-json", 'environment.AIRFLOW__CORE__EXECUTOR="LocalExecutor,KubernetesExecutor"'),
    ),
    "environment.AIRFLOW__CORE__EXECUTOR: for tasks in Pods set layout=apart": (
        *_IMAGE,
        *("--set", "environment.AIRFLOW__CORE__EXECUTOR=KubernetesExecutor"),
    ),
    "layout: it is 'one' or 'apart', and not 'Apart'": (*_IMAGE, "--set", "layout=Apart"),
    "apart.ranks.where: it is 'stages' or 'pods', and not 'Pods'": (
        *_APART,
        *("--set", "apart.ranks.where=Pods"),
    ),
    "environment.NIGHTSHIFT_RANK_POD: the chart itself tells it": (
        *_APART,
        *("--set", "apart.ranks.where=pods"),
        *("--set", "environment.NIGHTSHIFT_RANK_POD=/pod.json"),
    ),
    "environment.NIGHTSHIFT_RANK_EXECUTORS: the chart itself tells it": (
        *_APART,
        *("--set", "apart.ranks.where=pods"),
        *("--set", _ON_EXECUTORS),
    ),
    "environment.NIGHTSHIFT_RANK_HOSTS: the chart itself tells it": (
        *_APART,
        *("--set", "apart.ranks.where=pods"),
        *("--set", "environment.NIGHTSHIFT_RANK_HOSTS=10.0.0.5"),
    ),
    "environment.NIGHTSHIFT_RENDEZVOUS_ADDRESS: the chart itself tells it": (
        *_APART,
        *("--set", _ON_EXECUTORS),
        *("--set", "environment.NIGHTSHIFT_RENDEZVOUS_ADDRESS=10.0.0.5"),
    ),
    "5 replicas are wanted, and 3 at most": (*_APART, "--set", "apart.pages.replicas=5"),
    "apart.sparkExecutors.where: it is 'workers' or 'pods', and not 'Pods'": (
        *_APART,
        *("--set", "apart.sparkExecutors.where=Pods"),
    ),
    "apart.sparkExecutors.cores: '500m' is no number of cores": (
        *_APART,
        *("--set", "apart.sparkExecutors.cores=500m"),
    ),
    "apart.sparkExecutors.memoryOverhead: 'nothing' is no size as Java writes it": (
        *_APART,
        *("--set", "apart.sparkExecutors.memoryOverhead=null"),
    ),
    "apart.stages.sparkCores: 1 are fewer than those of one executor": (
        *_APART,
        *("--set", "apart.sparkExecutors.where=pods"),
        *("--set", "apart.sparkExecutors.cores=2"),
    ),
    "apart.sparkExecutors.memoryOverhead: '1Gi' is no size as Java writes it": (
        *_APART,
        *("--set", "apart.sparkExecutors.memoryOverhead=1Gi"),
    ),
    "environment.NIGHTSHIFT_SPARK_PROPERTIES: the chart itself tells it": (
        *_APART,
        *("--set", "apart.sparkExecutors.where=pods"),
        *("--set", "environment.NIGHTSHIFT_SPARK_PROPERTIES=/spark.properties"),
    ),
    "environment.NIGHTSHIFT_HOME: the chart itself tells it": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_HOME=/data"),
    ),
    "environment.NIGHTSHIFT_AIRFLOW_PORT: the chart itself tells it": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_AIRFLOW_PORT=9090"),
    ),
    "apart.sparkWorkers.memory: '3Gi' is no size as Java writes it": (
        *_APART,
        *("--set", "apart.sparkWorkers.memory=3Gi"),
    ),
    "environment.NIGHTSHIFT_SPARK_MEMORY: '3Gi' is no size as Java writes it": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_SPARK_MEMORY=3Gi"),
    ),
    "environment.NIGHTSHIFT_SECRET: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_SECRET=0123456789abcdef0123456789abcdef"),
    ),
    "environment.AWS_SECRET_ACCESS_KEY: a secret belongs into the Secret": (
        *_APART,
        *("--set", "environment.AWS_SECRET_ACCESS_KEY=hunter2"),
    ),
    "environment.MLFLOW_TRACKING_URI: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.MLFLOW_TRACKING_URI=postgresql://night:hunter2@db/mlflow"),
    ),
    "environment.NIGHTSHIFT_WEBHOOK_URL: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_WEBHOOK_URL=https://hooks.example.org/T0/B0/x"),
    ),
    "environment.NIGHTSHIFT_SMTP_URL: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_SMTP_URL=smtp://night:hunter2@mail:587"),
    ),
    "environment.NIGHTSHIFT_WAREHOUSE_URL: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_WAREHOUSE_URL=postgresql://db/w?password=hunter2"),
    ),
    "environment.NIGHTSHIFT_AIRFLOW_DATABASE: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_AIRFLOW_DATABASE=postgresql://night:hun/ter?2@db/x"),
    ),
    "environment.AIRFLOW__DATABASE__SQL_ALCHEMY_CONN: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=mysql://a@b.org:hunter2@db/x"),
    ),
    "environment.AIRFLOW__CELERY__BROKER_URL: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.AIRFLOW__CELERY__BROKER_URL=redis://night:hun ter2@queue/0"),
    ),
    "environment.HTTPS_PROXY: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.HTTPS_PROXY=http://hunter2@proxy.example.org:3128"),
    ),
    "environment.NIGHTSHIFT_LINEAGE: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_LINEAGE=https://marquez/api?api_key=hunter2"),
    ),
    "environment.NIGHTSHIFT_AIRFLOW_URL: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_AIRFLOW_URL=https://nights?a=b&Access_Token=hunter2"),
    ),
    "environment.AIRFLOW_CONN_STORE: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set-json", r'environment.AIRFLOW_CONN_STORE="{\"password\": \"hunter2\"}"'),
    ),
    "environment.AIRFLOW__CORE__FERNET_KEY: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.AIRFLOW__CORE__FERNET_KEY=hunter2"),
    ),
    "environment.AIRFLOW__SMTP__SMTP_PASSWORD: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.AIRFLOW__SMTP__SMTP_PASSWORD=hunter2"),
    ),
    "environment.NIGHTSHIFT_TIMELINE: YAML reads true as a truth value": (
        *_IMAGE,
        *("--set-json", "environment.NIGHTSHIFT_TIMELINE=true"),
    ),
    "image.tag: YAML reads it as the number 1.1,": (*_IMAGE, "--set-json", "image.tag=1.10"),
    "image.tag: '' is no tag": (*_IMAGE, "--set", "image.tag="),
    "image.tag: 'sha256:00' is no tag": (*_IMAGE, "--set", "image.tag=sha256:00"),
    "NIGHTSHIFT_SPARK_MEMORY: '512k' is less than 450m": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_SPARK_MEMORY=512k"),
    ),
    "NIGHTSHIFT_JDBC_MEMORY: '512k' is less than 450m": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_JDBC_MEMORY=512k"),
    ),
    "environment.NIGHTSHIFT_JDBC_MEMORY: '1Gi' is no size as Java writes it": (
        *_IMAGE,
        *("--set", "environment.NIGHTSHIFT_JDBC_MEMORY=1Gi"),
    ),
    "environment.SPARK_REMOTE: a secret belongs into the Secret": (
        *_IMAGE,
        *("--set", "environment.SPARK_REMOTE=sc://spark:15002/;token=hunter2"),
    ),
    "environment.NIGHTSHIFT_SPARK_CORES: the chart itself tells it": (
        *_APART,
        *("--set", "environment.NIGHTSHIFT_SPARK_CORES=4"),
    ),
}
"""What the chart says of settings with which it makes nothing."""
_NOTES = 'notes: {{ include (print .Template.BasePath "/NOTES.txt") . | quote }}'
_REFUSED_NAMES = ("1night", "my.night", "n" * 40)
"""Of a release `apart`."""
_HOME = Environment.settings()["home"]
_SERVICES = Environment.settings()["services"]
_OF_OTHERS = {
    *("AIRFLOW__CORE__HOSTNAME_CALLABLE", "POD_ADDRESS", "SPARK_LOCAL_DIRS"),
    *("AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CORE__PARALLELISM"),
    *("AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE", "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE"),
    *("SPARK_MASTER_OPTS", "SPARK_WORKER_OPTS"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *(_AUTHORITY, _PROXY),
}
"""Variables that Airflow, Spark or the chart itself read."""
_FLOWS = {
    ("control", "pages", 8080),
    ("stages", "pages", 8080),
    ("task", "pages", 8080),
    # Where Airflow's schedulers and triggerers serve their logs.
    ("pages", "stages", 8793),
    ("pages", "control", 8794),
    ("stages", "spark-master", 7077),
    ("spark-worker", "spark-master", 7077),
    # Spark chooses the ports of drivers and executors, and the address at which a master answers.
    ("spark-master", "stages", None),
    ("spark-master", "spark-worker", None),
    ("stages", "spark-worker", None),
    ("spark-worker", "stages", None),
    ("spark-worker", "spark-worker", None),
    ("stages", "spark-executor", None),
    ("spark-executor", "stages", None),
    ("spark-executor", "spark-executor", None),
    # So do Horovod's ranks, and the rendezvous at which they find each other.
    ("rank", "rank", None),
    ("rank", "stages", None),
}
"""Which part begins connections to which, and its port; None: any. Nothing else may."""
_STAGES, _TASK = "stages", "task"
_OF_DRIVERS = {
    flow for flow in _FLOWS if _STAGES in flow and any("spark" in str(part) for part in flow)
}
"""Of these the part that computes."""
_TRAINING = {"platform", "stages"}
"""Containers in which ranks run."""
_TRAINING_IN_PODS = {"train.json"}
"""Where tasks have Pods of their own: templates of those in which ranks run."""
_OF_TASKS = {"task.json", *_TRAINING_IN_PODS}
"""All templates of tasks."""
_EXECUTOR, _TRAIN_POD = "AIRFLOW__CORE__EXECUTOR", "NIGHTSHIFT_TRAIN_POD"
_PART = "app.kubernetes.io/component"
_BOTH_WAYS = {"Ingress", "Egress"}
_POD_SECONDS = 60
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
    yield from _taken()
    yield from _faults_of_notes()
    for name, settings in _WAYS.items():
        rendered = _helm("template", "night", str(_CHART), *settings)
        if rendered.returncode:
            yield f"{name}: {rendered.stderr}"
            continue
        found = [one for one in yaml.safe_load_all(rendered.stdout) if one]
        wanted = set(_KINDS["apart" if name.startswith("apart") else "one"])
        if "without" in name:
            wanted.remove("NetworkPolicy")
        if "apart.pages.most=null" in settings:
            wanted.remove("HorizontalPodAutoscaler")
        if "executors in Pods" in name:
            # The StatefulSet is that of Spark's master.
            wanted.remove("StatefulSet")
        if "in Pods" in name:
            wanted |= _OF_PODS_THAT_ARE_ASKED_FOR
        if {one["kind"] for one in found} != wanted:
            yield f"{name}: it makes other kinds than {sorted(wanted)}"
        of_stages = {right for what, some in _RIGHTS.items() if what in name for right in some}
        rights = {_STAGES: of_stages} if of_stages else {}
        if "tasks in Pods" in name:
            rights["pages"] = _RIGHTS_OF_PAGES
        faults = [
            *_faults_of(found, rights),
            *_faults_of_gpus(found, "gpus=2" in settings),
            *_faults_of_roles(found, settings),
            *_faults_of_network(found, settings),
            *_faults_of_disks(found, settings),
            *_faults_of_meeting(found, settings),
        ]
        yield from (f"{name}: {fault}" for fault in faults)


def _faults_of_roles(found: Sequence[Found], settings: Sequence[str]) -> Iterator[str]:
    """A cloud's role of an account, which stands in its annotations."""
    for one in (one for one in found if one["kind"] == "ServiceAccount"):
        part = _name_of(one)
        told = filter(None, map(_ROLE.fullmatch, settings))
        wanted = [role["name"] for role in told if role["part"] == part]
        annotations = one["metadata"].get("annotations", {})
        if list(annotations.values()) != wanted:
            yield f"the account of {part} has the roles {annotations}, and not {wanted}"


def _faults_of_network(found: Sequence[Found], settings: Sequence[str]) -> Iterator[str]:
    """Every Pod that a stage asks for reaches the store by what leads the stage there."""
    said = " ".join(settings)
    wanted = {name for name in (_AUTHORITY, _PROXY) if f"environment.{name}=" in said}
    for template in _asked_for(found):
        (container,) = template["spec"]["containers"]
        lacking = wanted - {one["name"] for one in container.get("env") or ()}
        if lacking:
            yield f"{container['name']} is not told {sorted(lacking)}"


def _faults_of_meeting(found: Sequence[Found], settings: Sequence[str]) -> Iterator[str]:
    """Ranks elsewhere than in the Pod of their stage are told where that is, and no others are."""
    are_elsewhere = _ON_EXECUTORS in settings or "apart.ranks.where=pods" in settings
    for template in [*_made(found), *_asked_for(found)]:
        (container,) = template["spec"]["containers"]
        variables = {one["name"] for one in container.get("env") or ()}
        # Stages run where the driver is told of its cluster.
        is_meant = are_elsewhere and "NIGHTSHIFT_SPARK_MASTER" in variables
        if (_MEETING in variables) != is_meant:
            yield f"{container['name']} {'lacks' if is_meant else 'is told'} {_MEETING}"


def _faults_of_disks(found: Sequence[Found], settings: Sequence[str]) -> Iterator[str]:
    """Homes that go with their Pod take no more of the node's disk than the values say."""
    told = [word.removeprefix(_LIMIT) for word in settings if word.startswith(_LIMIT)]
    limit = told[0] if told else _USUAL_LIMIT
    wanted = {} if limit == "null" else {"sizeLimit": limit}
    for one in (one for one in found if one["kind"] == "Deployment"):
        template = one["spec"]["template"]
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        home = volumes.get("state", {}).get("emptyDir")
        if _part_of(template) in _PARTS and home != wanted:
            yield f"the home of {_part_of(template)} is {home}, and not {wanted}"


def _faults_of_gpus(found: Sequence[Found], are_wanted: bool) -> Iterator[str]:
    """They are for Pods that train, and these share memory for NCCL."""
    asked = _asked_for_by_file(found)
    tasks = {file: one for file, one in asked.items() if _part_of(one) == _TASK}
    if tasks and tasks.keys() != _OF_TASKS:
        yield f"templates of tasks are {sorted(tasks)}, and not {sorted(_OF_TASKS)}"
    # Where tasks have Pods of their own, no other trains.
    training = _TRAINING_IN_PODS if tasks else _TRAINING
    named: list[tuple[str, Found]] = [*tasks.items()]
    for template in _made(found):
        (container,) = template["spec"]["containers"]
        named.append((container["name"], template))
    for name, template in named:
        (container,) = template["spec"]["containers"]
        gpus = 2 if are_wanted and name in training else None
        if container["resources"]["limits"].get("nvidia.com/gpu") != gpus:
            yield f"{name} has other GPUs than {gpus}"
        variables = container.get("env") or ()
        told = {one["name"]: one.get("value") for one in variables}
        is_meant = are_wanted and told.get(_EXECUTOR) == "KubernetesExecutor"
        if (_TRAIN_POD in told) != is_meant:
            yield f"{name} {'lacks' if is_meant else 'is told'} {_TRAIN_POD}"
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        if ("/dev/shm" in mounts) != (gpus is not None):
            yield f"{name} has {gpus} GPUs, and mounts {mounts}"


def _taken() -> Iterator[str]:
    """What the chart should refuse, and does not."""
    for reason, settings in _REFUSED.items():
        if reason not in _helm("template", "night", str(_CHART), *settings).stderr:
            yield f"it does not say: {reason}"
    for name in _REFUSED_NAMES:
        if "its name begins" not in _helm("template", name, str(_CHART), *_APART).stderr:
            yield f"it takes the name {name}"


def _faults_of_notes() -> Iterator[str]:
    """What is said after an installation whose databases are elsewhere, and not reached."""
    with TemporaryDirectory() as folder:
        chart = Path(folder) / "chart"
        shutil.copytree(_CHART, chart)
        # `helm template` shows no notes, but what includes them.
        (chart / "templates" / "notes.yaml").write_text(_NOTES)
        for name, settings in _WAYS.items():
            told = _helm("template", "night", str(chart), *settings)
            reaches_all = "networkPolicy.enabled=false" in settings
            names_some = any(word.startswith("networkPolicy.egress") for word in settings)
            needs_some = "environmentSecret=nightshift" in settings
            is_meant = needs_some and not names_some and not reaches_all
            if ("in networkPolicy.egress" in told.stdout) != is_meant:
                word = "do not tell" if is_meant else "tell"
                yield f"{name}: its notes {word} to name the databases in networkPolicy.egress"


def _faults_of(
    found: Sequence[Found],
    rights: Mapping[str, Set[Right]],
) -> Iterator[str]:
    templates = [*_made(found), *_asked_for(found)]
    yield from _faults_of_rights(found, templates, rights)
    for template in templates:
        yield from _against_restricted(template["spec"])
        (container,) = template["spec"]["containers"]
        if re.search(r"e\+\d+$", container["image"]):
            yield f"{container['name']}: {container['image']} is no image"
        yield from _faults_of_variables(container)
        yield from _faults_of_home(container)
    for one in (one for one in found if one["kind"] == "StatefulSet"):
        # In order, Kubernetes waits for a Pod that never gets ready before it makes it anew.
        if one["spec"].get("podManagementPolicy") != "Parallel":
            yield f"an upgrade does not mend a Pod of {_name_of(one)} that never got ready"
    for service in (one for one in found if one["kind"] == "Service"):
        yield from _faults_of_service(service, templates)
    policies = [one for one in found if one["kind"] == "NetworkPolicy"]
    for policy in policies:
        if not _selected(policy["spec"]["podSelector"], templates):
            yield f"no Pod is meant by the NetworkPolicy {policy['metadata']['name']}"
    if policies:
        whole = [one["spec"] for one in policies if set(one["spec"]["policyTypes"]) == _BOTH_WAYS]
        meant = [_selected(one["podSelector"], templates) for one in whole]
        if templates not in meant:
            yield "what is not named is not refused to every Pod by a NetworkPolicy"
        yield from _faults_of_flows(policies, templates)


def _made(found: Sequence[Found]) -> list[Found]:
    """Templates of the Pods that Kubernetes makes by itself."""
    specs = [one.get("spec", {}) for one in found]
    return [spec["template"] for spec in specs if "template" in spec]


def _asked_for(found: Sequence[Found]) -> list[Found]:
    """Templates of Pods for which a stage, or its driver of Spark, asks Kubernetes."""
    return list(_asked_for_by_file(found).values())


def _asked_for_by_file(found: Sequence[Found]) -> dict[str, Found]:
    """These by the name of the file that holds each."""
    return {
        name: json.loads(content)
        for one in found
        if one["kind"] == "ConfigMap"
        for name, content in one["data"].items()
        if name.endswith(".json")
    }


def _faults_of_rights(
    found: Sequence[Found],
    templates: Sequence[Found],
    wanted: Mapping[str, Set[Right]],
) -> Iterator[str]:
    """Who asks Kubernetes may ask for what it needs, and nobody else asks it for anything."""
    rights = {_name_of(role): _rights_of(role) for role in found if role["kind"] == "Role"}
    for part in sorted({*rights, *wanted}):
        others = rights.get(part, _NONE) ^ wanted.get(part, _NONE)
        if others:
            yield f"the account of {part} may do other things than it needs: {sorted(others)}"
    accounts = {_name_of(one) for one in found if one["kind"] == "ServiceAccount"}
    if accounts != set(wanted):
        yield f"there are accounts of {sorted(accounts)}, and not of {sorted(wanted)}"
    for template in templates:
        part = _part_of(template)
        sources = [
            source
            for volume in template["spec"]["volumes"]
            for source in volume.get("projected", {}).get("sources", ())
        ]
        has_token = any("serviceAccountToken" in source for source in sources)
        may_ask = part in wanted
        if has_token != may_ask:
            yield f"{part}: {'lacks' if may_ask else 'holds'} a token of Kubernetes"
        if template["spec"].get("serviceAccountName") != (f"night-{part}" if may_ask else None):
            yield f"{part}: its account is another"


def _name_of(one: Found) -> str:
    """That of the part that it is of."""
    return str(one["metadata"]["name"]).removeprefix("night-")


def _rights_of(role: Found) -> Set[Right]:
    return {
        right
        for rule in role["rules"]
        for right in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


def _faults_of_variables(container: Found) -> Iterator[str]:
    known = {one.variable for one in Environment.settings().values()}
    # How Amazon's own programs call where a store is.
    known |= address_of_store({ENDPOINT: "https://store.example.org"}).keys()
    known |= _OF_OTHERS
    given = container.get("env") or []
    names = [variable["name"] for variable in given]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{container['name']} is told {name} twice"
    for variable in given:
        if re.fullmatch(r"[\d.]+e\+\d+", str(variable.get("value"))):
            yield f"{variable['name']}={variable['value']} is no number to a program"
        if variable.get("value") == "<nil>":
            yield f"{variable['name']} is told though nothing is said of it"
        if variable["name"] not in known and not variable["name"].startswith(PREFIXES):
            yield f"{variable['name']} is no variable of ours"
        if variable["name"] == _SERVICES.variable:
            try:
                _SERVICES.parse(variable["value"])
            except ValueError as error:
                yield f"{variable['name']} is not {error}"


def _faults_of_home(container: Found) -> Iterator[str]:
    """Of a volume itself root is the owner, and others may enter it: no home can be that."""
    variables = container.get("env") or ()
    told = [one["value"] for one in variables if one["name"] == _HOME.variable]
    mounted = [PurePosixPath(one["mountPath"]) for one in container["volumeMounts"]]
    for home in map(PurePosixPath, told):
        if not any(mount in home.parents for mount in mounted):
            yield f"{container['name']}: the home {home} is no folder in a volume"
    if "command" not in container and not told:
        yield f"{container['name']}: its home is not told"


def _faults_of_service(service: Found, templates: Sequence[Found]) -> Iterator[str]:
    name = service["metadata"]["name"]
    selected = _selected({"matchLabels": service["spec"]["selector"]}, templates)
    if not selected:
        yield f"the Service {name} leads to no Pod"
    # One without an address of its own is for names alone.
    wanted = {port["targetPort"] for port in service["spec"].get("ports") or ()}
    for template in selected:
        (container,) = template["spec"]["containers"]
        if not wanted <= {port["name"] for port in container.get("ports") or ()}:
            yield f"the Service {name} leads to another port"


def _faults_of_flows(policies: Sequence[Found], templates: Sequence[Found]) -> Iterator[str]:
    """A connection needs two policies: who begins it may, and who answers it may."""
    parts = set(map(_part_of, templates))
    # Where tasks have Pods of their own, these compute in the stages' place.
    wanted = {flow for flow in _FLOWS if {*flow[:2]} <= parts}
    if _TASK in parts:
        wanted -= _OF_DRIVERS
    wanted |= {flow for flow in map(_of_tasks, _OF_DRIVERS) if {*flow[:2]} <= parts}
    leaving = {flow for one in policies for flow in _flows(one, "egress", "to")}
    entering = {
        (there, here, port)
        for one in policies
        for here, there, port in _flows(one, "ingress", "from")
    }
    for side, allowed in (("who begins it", leaving), ("who answers it", entering)):
        for flow in sorted(wanted ^ allowed, key=str):
            word = "lacks" if flow in wanted else "has too much"
            yield f"{side} {word}: {flow}"


def _of_tasks(flow: Flow) -> Flow:
    """The same connection where tasks compute."""
    here, there, port = flow
    return (_TASK if here == _STAGES else here, _TASK if there == _STAGES else there, port)


def _part_of(template: Found) -> str:
    return str(template["metadata"]["labels"][_PART])


def _flows(
    policy: Found,
    way: str,
    peer: str,
) -> set[tuple[str, str, int | None]]:
    """Which part may reach, or be reached by, which other, by which port; rules of people aside."""
    here = policy["spec"]["podSelector"]["matchLabels"].get(_PART)
    return {
        (here, other["podSelector"]["matchLabels"][_PART], port["port"])
        for rule in policy["spec"].get(way) or ()
        for other in rule.get(peer) or ()
        for port in rule.get("ports") or ({"port": None},)
        if here and _PART in other.get("podSelector", {}).get("matchLabels", {})
    }


def _selected(selector: Found, templates: Sequence[Found]) -> list[Found]:
    wanted = selector["matchLabels"].items()
    return [one for one in templates if wanted <= one["metadata"]["labels"].items()]


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
            for part in _lacking(namespace):
                yield f"{name}: Pods are lacking: {part}"
            _require(_helm("uninstall", "night", "--namespace", namespace, "--wait"))
            _require(_kubectl("delete", "pvc", "--all", "--wait=false", "--namespace", namespace))
        print(f"{len(_WAYS)} ways installed, in a namespace that enforces 'restricted'.")
    except ClusterError as error:
        yield str(error)
    finally:
        _kubectl("delete", "namespace", namespace, "--wait=false")


def _lacking(namespace: str) -> list[str]:
    """What has fewer Pods than it wants, in words, after time was given to make them."""
    deadline = time.monotonic() + _POD_SECONDS
    while True:
        told = _kubectl("get", "deployment,statefulset", "--namespace", namespace, "-o", "json")
        _require(told)
        lacking = [
            f"{one['kind']} {one['metadata']['name']} has {one['status'].get('replicas', 0)}"
            for one in json.loads(told.stdout)["items"]
            if one["status"].get("replicas", 0) < one["spec"]["replicas"]
        ]
        if not lacking or time.monotonic() > deadline:
            return lacking
        time.sleep(1)


def _require(ended: _Ended) -> None:
    if ended.returncode:
        raise ClusterError(f"{' '.join(ended.args)}: {ended.stderr.strip()}")


def _kubectl(*arguments: str) -> _Ended:
    return subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False)


def _helm(*arguments: str) -> _Ended:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
