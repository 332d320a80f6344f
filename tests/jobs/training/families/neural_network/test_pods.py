"""Ranks as Pods of a Job, before what stands for Kubernetes; `make chart-test` has a real one."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from jobs.training.families.neural_network import job, on_host, on_pod, pods, wanted
from jobs.training.families.neural_network.kubernetes import Declined
from jobs.training.families.neural_network.launch import RankKilled, launch
from jobs.training.families.neural_network.pods import OnPods
from jobs.training.families.neural_network.rendezvous import ADDRESS, LOOPBACK
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError
from tests.jobs.training.families.neural_network.cluster import (
    OWNER,
    RUNNING,
    Cluster,
    cluster,
    ended,
)

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app.kubernetes.io/component": "rank"}},
    "spec": {
        "subdomain": "night-ranks",
        "containers": [
            {
                "name": "rank",
                "image": "registry.example.org/nightshift",
                "command": ["/usr/bin/tini", "--", "python"],
                "env": [
                    {"name": "TF_CPP_MIN_LOG_LEVEL", "value": "0"},
                    {"name": "X", "value": "1"},
                ],
                "resources": {"limits": {"nvidia.com/gpu": 1}},
            }
        ],
    },
}


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as found:
        yield found


@pytest.fixture
def environment(
    kubernetes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Environment:
    monkeypatch.setattr(pods, "_LOOK_SECONDS", 0.05)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    template = tmp_path / "pod.json"
    template.write_text(json.dumps(TEMPLATE))
    return Environment.read(
        {
            "NIGHTSHIFT_HOME": str(tmp_path / "home"),
            "NIGHTSHIFT_RANK_POD": str(template),
            "NIGHTSHIFT_KUBERNETES_API": kubernetes.address,
            "NIGHTSHIFT_KUBERNETES_ACCOUNT": str(kubernetes.account),
            "NIGHTSHIFT_RENDEZVOUS_ADDRESS": LOOPBACK,
            "NIGHTSHIFT_JOBS": "s3://bucket/jobs",
            "AWS_ENDPOINT_URL": "http://store.example:9000",
        }
    )


def test_a_training_is_one_job_with_a_pod_for_each_rank(
    environment: Environment,
    kubernetes: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOROVOD_CYCLE_TIME", "7.5")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    kubernetes.becomes = [{0: ended(0), 1: ended(0)}]
    launch(environment, tmp_path, 2, timeout_seconds=60)
    (job,) = kubernetes.made
    spec = job["spec"]
    name = job["metadata"]["name"]
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": socket.gethostname(), "uid": OWNER}
    ]
    assert {key: value for key, value in spec.items() if key != "template"} == {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "backoffLimitPerIndex": 0,
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": spec["activeDeadlineSeconds"],
        "ttlSecondsAfterFinished": 3600,
    }
    assert 110 <= spec["activeDeadlineSeconds"] <= 120
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert pod["subdomain"] == "night-ranks"
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    module, folder, port = container["args"][1:]
    assert module == "jobs.training.families.neural_network.on_pod"
    assert (folder, int(port) > 0) == (str(tmp_path), True)
    told = {one["name"]: one["value"] for one in container["env"]}
    assert len(told) == len(container["env"])
    assert told["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert (told["X"], told["HOROVOD_CYCLE_TIME"], told["HOROVOD_SIZE"]) == ("1", "7.5", "2")
    assert told["AWS_ENDPOINT_URL"] == "http://store.example:9000"
    # Which of them it is, Kubernetes tells each Pod.
    assert "HOROVOD_RANK" not in told
    assert "s3cret" not in json.dumps(job)
    assert kubernetes.removed == [name]


def test_a_lost_pod_is_a_lost_rank_and_all_are_made_anew(
    environment: Environment,
    kubernetes: Cluster,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    kubernetes.becomes = [
        {0: RUNNING, 1: RUNNING},
        {0: ended(0), 1: ended(0)},
    ]

    def lose() -> None:
        if len(kubernetes.made) == 1 and pods_of(kubernetes) == 2:
            # As soon as it was seen.
            Thread(target=_remove_later, args=(kubernetes,)).start()

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("jobs.training.families.neural_network.launch._SETTLE_SECONDS", 0.2)
        launch(environment, tmp_path, 2, timeout_seconds=60, meanwhile=lose, restarts=1)
    first, second = (one["metadata"]["name"] for one in kubernetes.made)
    assert first != second
    assert kubernetes.removed == [first, second]
    told = capfd.readouterr().err
    assert "Rank 1 of the training was gone" in told
    assert "its Pod was removed" in told
    assert "They are started again, on pod-0, pod-1." in told


def pods_of(kubernetes: Cluster) -> int:
    return len(kubernetes.pods)


def _remove_later(kubernetes: Cluster) -> None:
    time.sleep(0.5)
    kubernetes.pods.pop(f"{kubernetes.made[0]['metadata']['name']}-1", None)


def test_pods_that_kubernetes_removed_after_the_training_was_done_are_no_lost_ones(
    environment: Environment, kubernetes: Cluster, tmp_path: Path
) -> None:
    kubernetes.becomes = [{0: RUNNING}]

    def end_unseen() -> None:
        if kubernetes.pods and kubernetes.seen:
            outcome = job.Outcome(
                history={},
                slope=None,
                ranks=1,
                steps_per_epoch=1,
                scores=[],
            )
            job.write_outcome(tmp_path, outcome)
            kubernetes.pods.clear()

    launch(environment, tmp_path, 1, timeout_seconds=60, meanwhile=end_unseen)
    assert len(kubernetes.made) == 1


def test_a_rank_beside_a_sidecar_is_seen_to_end_and_its_own_log_is_read(
    environment: Environment, kubernetes: Cluster, tmp_path: Path
) -> None:
    # Kubernetes tells them by their names' order, and the other one runs on.
    beside = {"name": "istio-proxy", "state": {"running": {}}}
    own = ended(1)["containerStatuses"]
    kubernetes.becomes = [{0: {"phase": "Running", "containerStatuses": [beside, *own]}}]
    kubernetes.log = "No module named 'jobs'\n"
    with pytest.raises(NightshiftError, match=r"Rank 0 .* exit code 1, .* last: No module named"):
        launch(environment, tmp_path, 1, timeout_seconds=10)
    assert set(kubernetes.asked_logs) == {"rank"}


def test_gpus_are_those_of_the_template_and_not_numbered_as_here(
    environment: Environment,
    kubernetes: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "void")
    template = deepcopy(TEMPLATE)
    given = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
    template["spec"]["containers"][0]["env"].append(given)
    (tmp_path / "pod.json").write_text(json.dumps(template))
    kubernetes.becomes = [{0: ended(0)}]
    launch(environment, tmp_path, 1, timeout_seconds=60)
    (container,) = kubernetes.made[0]["spec"]["template"]["spec"]["containers"]
    told = [one for one in container["env"] if one["name"].endswith("_VISIBLE_DEVICES")]
    assert told == [given]


def test_what_a_rank_has_said_is_read_from_its_log(
    environment: Environment, kubernetes: Cluster, tmp_path: Path
) -> None:
    kubernetes.log = "No module named 'jobs'\n"
    kubernetes.becomes = [{0: RUNNING, 1: ended(1)}]
    with pytest.raises(NightshiftError, match=r"Rank 1 .* exit code 1, .* last: No module named"):
        launch(environment, tmp_path, 2, timeout_seconds=60)
    assert len(kubernetes.removed) == 1


def test_a_pod_that_was_killed_for_its_memory_is_told_as_such(
    environment: Environment, kubernetes: Cluster, tmp_path: Path
) -> None:
    kubernetes.becomes = [{0: ended(137)}]
    with pytest.raises(RankKilled, match=r"Rank 0 of the training was killed by SIGKILL"):
        launch(environment, tmp_path, 1, timeout_seconds=60)


def test_a_pod_that_finds_no_node_is_told_and_given_up(
    environment: Environment,
    kubernetes: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pods, "_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(pods, "_START_SECONDS", 0.3)
    why = "0/3 nodes are available: 3 Insufficient memory."
    scheduled = {"type": "PodScheduled", "status": "False", "message": why}
    kubernetes.becomes = [{0: {"phase": "Pending", "conditions": [scheduled]}}]
    with pytest.raises(NightshiftError, match=r"It said last: 0/3 nodes are available"):
        launch(environment, tmp_path, 1, timeout_seconds=60)
    assert capfd.readouterr().err.count(f"Rank 0 waits: {why}") == 1


def test_a_kubernetes_that_is_away_for_a_moment_does_not_end_a_training(
    environment: Environment,
    kubernetes: Cluster,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    kubernetes.becomes = [{0: ended(0)}]
    # The owner, the Job, its Pods, its removal.
    kubernetes.refuses = [
        ("GET", 503),
        ("POST", 500),
        ("GET", 503),
        ("DELETE", 429),
    ]
    launch(environment, tmp_path, 1, timeout_seconds=60)
    assert len(kubernetes.made) == len(kubernetes.removed) == 1
    assert "The ranks are not seen meanwhile." in capfd.readouterr().err


def test_a_job_that_kubernetes_refuses_ends_the_training_with_its_words(
    environment: Environment, kubernetes: Cluster, tmp_path: Path
) -> None:
    kubernetes.refuses = [("POST", 403)]
    with pytest.raises(Declined, match=r"refuses POST /apis/batch/v1/.*jobs \(403\): not by you"):
        launch(environment, tmp_path, 1, timeout_seconds=60)
    assert not kubernetes.made


def test_a_stage_that_is_no_pod_has_a_job_without_an_owner(
    environment: Environment, kubernetes: Cluster, tmp_path: Path
) -> None:
    kubernetes.has_owner = False
    kubernetes.becomes = [{0: ended(0)}]
    launch(environment, tmp_path, 1, timeout_seconds=60)
    assert "ownerReferences" not in kubernetes.made[0]["metadata"]


def test_what_is_tried_out_is_judged_and_not_made(
    environment: Environment, kubernetes: Cluster
) -> None:
    assert OnPods(environment).try_out(2) == "nights"
    assert kubernetes.dry_runs == 1
    assert not kubernetes.made


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("rendezvous_address", None, "needs NIGHTSHIFT_RENDEZVOUS_ADDRESS"),
        ("jobs", Path("/srv/jobs"), "in an object store, .* Pods do not see /srv/jobs"),
        ("rank_pod", Path("/none.json"), "NIGHTSHIFT_RANK_POD=/none.json cannot be read"),
    ],
)
def test_what_pods_cannot_reach_is_refused(
    environment: Environment, field: str, value: Any, told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        OnPods(replace(environment, **{field: value}))


def test_a_store_that_only_this_machine_reaches_is_refused(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    with pytest.raises(UsageError, match=r"AWS_ENDPOINT_URL=http://127\.0\.0\.1:9000 leads each"):
        OnPods(environment)


def test_a_template_without_a_command_is_refused(environment: Environment, tmp_path: Path) -> None:
    bare = tmp_path / "bare.json"
    bare.write_text('{"spec": {"containers": [{"image": "nightshift"}]}}')
    with pytest.raises(UsageError, match=r"bare\.json is no template of a Pod"):
        OnPods(replace(environment, rank_pod=bare))


def test_a_machine_without_an_account_of_kubernetes_is_told_where_one_is_looked_for(
    environment: Environment, tmp_path: Path
) -> None:
    nowhere = replace(environment, kubernetes_account=tmp_path / "nobody")
    with pytest.raises(NightshiftError, match=r"nobody/namespace: No such .* service account"):
        launch(nowhere, tmp_path, 1, timeout_seconds=60)


def test_a_pod_that_does_not_reach_its_stage_says_so_and_not_that_it_has_ended(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_host, "_REACHED_SECONDS", 0)
    monkeypatch.setenv(on_pod.INDEX, "1")
    monkeypatch.setenv(ADDRESS, "10.0.0.7")

    def dropped(*_: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", dropped)
    assert on_pod.main("s3://bucket/jobs/job-1", 4711) == on_host.LEFT_ALONE
    told = capfd.readouterr().err
    assert "This host does not reach 10.0.0.7:4711, where ranks find each other: timed" in told
    assert "its stage has ended" not in told


def test_ranks_begin_when_all_are_there_and_hear_when_nobody_wants_them() -> None:
    line = wanted.Line(LOOPBACK, ranks=2)
    found: dict[int, socket.socket | None] = {}

    def reach(number: int) -> None:
        found[number] = wanted.reach(LOOPBACK, line.port, number)

    first = Thread(target=reach, args=(0,))
    first.start()
    first.join(timeout=0.3)
    assert not found
    # A stranger is none of them.
    assert wanted.reach(LOOPBACK, line.port, 7) is None
    reach(1)
    first.join(timeout=5)
    held = [one for one in found.values() if one]
    assert len(held) == 2
    line.close()
    assert [one.recv(1) for one in held] == [b"", b""]
    assert wanted.reach(LOOPBACK, line.port, 0) is None
