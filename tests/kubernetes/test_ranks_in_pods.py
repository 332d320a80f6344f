"""Ranks as Pods, started by the Pod of a stage with the account and the volumes of the chart."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from tests.hosts import kill_all_in
from tests.jobs.training.small import environment_at
from tests.kubernetes import stage
from tests.kubernetes.nights import Nights, kubectl, phase_of, processes_on, wait_until

_FEW, _MANY, _ENDLESS = 4, 150, 100_000


def _running_ranks(nights: Nights) -> list[str]:
    found = nights.jobs()
    pods = nights.pods(found[0]["metadata"]["name"]) if found else []
    running = [one for one in pods if phase_of(one) == "Running"]
    if len(running) != stage.RANKS:
        return []
    return [one["metadata"]["name"] for one in running]


def test_ranks_in_pods_train_the_model_of_ranks_on_this_machine(
    nights: Nights, tmp_path: Path
) -> None:
    there = tmp_path / "there.npz"
    pod = nights.train(there, _FEW)
    (job,) = wait_until(nights.jobs)
    assert job["metadata"]["ownerReferences"][0]["name"] == pod
    assert nights.end_of(pod) == "Succeeded", nights.log(pod)
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
    pod = nights.train(there, _MANY)
    ranks = wait_until(lambda: _running_ranks(nights))
    killed = nights.host(ranks[1])
    wait_until(nights.has_checkpoint)
    first = nights.jobs()[0]["metadata"]["name"]
    kill_all_in(killed)
    assert nights.end_of(pod) == "Succeeded", nights.log(pod)
    told = nights.log(pod)
    assert "Rank 1 of the training was killed by SIGKILL" in told
    assert "They are started again, on pod-0, pod-1." in told
    _require_alike(there, tmp_path, _MANY)
    assert first not in [one["metadata"]["name"] for one in nights.jobs()]


def test_what_a_rank_says_last_is_read_from_its_pod(nights: Nights, tmp_path: Path) -> None:
    namespace = ("--namespace", nights.namespace)
    config = json.loads(kubectl("get", "configmap", "night-rank", *namespace, "-o", "json"))
    template = json.loads(config["data"]["pod.json"])
    words = "import sys; sys.exit('There is no place for me.')"
    template["spec"]["containers"][0]["command"] = ["python", "-c", words]
    file = tmp_path / "pod.json"
    file.write_text(json.dumps(template))
    pod = nights.train(tmp_path / "never.npz", _FEW, NIGHTSHIFT_RANK_POD=str(file))
    assert nights.end_of(pod) == "Failed"
    said = nights.log(pod)
    assert (
        "of the training was gone with exit code 1, so all ranks were ended. It said last" in said
    )
    assert "It said last: There is no place for me." in said
    assert not nights.jobs()


def test_ranks_end_with_the_process_of_their_stage_and_their_job_with_its_pod(
    nights: Nights, tmp_path: Path
) -> None:
    pod = nights.train(tmp_path / "never.npz", _ENDLESS)
    ranks = wait_until(lambda: _running_ranks(nights))
    hosts = [nights.host(one) for one in ranks]
    wait_until(nights.has_checkpoint)
    job = nights.jobs()[0]["metadata"]["name"]
    kill_all_in(nights.host(pod))
    killed = time.monotonic()
    wait_until(lambda: not any(map(processes_on, hosts)), seconds=20)
    print(f"ranks ended after {time.monotonic() - killed:.1f} s")
    # The Pod of the stage is there yet, as that of schedulers is when a stage of theirs is killed.
    wait_until(lambda: set(map(phase_of, nights.pods(job))) <= {"Failed"})
    nights.remove(pod)
    wait_until(lambda: not nights.jobs() and not nights.pods(job), seconds=50)
