"""Airflow's tasks in Pods, which a scheduler with the account of the chart asks Kubernetes for.

Pages and a server of Spark's are here; a Pod sees the store, PostgreSQL, Spark's address and the
pages. Minutes: `make chart-test`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.services.secrets import make_all
from jobs.spark import server
from pipelines import places
from pipelines.environment import Environment
from tests.conftest import free_port
from tests.e2e.conftest import ARTIFACTS, Installation, inherited_variables, keep_logs, processes_of
from tests.e2e.machines import (
    await_answer,
    let_nothing_be_due,
    log_of_task,
    places_in,
    predictions_once,
    shared_by_all,
)
from tests.hosts import two_hosts
from tests.kubernetes.nights import (
    KEYS,
    Nights,
    chart,
    on_the_stand_in,
    phase_of,
    store_at,
    wait_until,
)
from tests.weather import LOADED

pytestmark = pytest.mark.timeout(3600)
pytest.importorskip("airflow.providers.cncf.kubernetes")
_NIGHT_SECONDS = 1800
_OF_PAGES = "airflow-api,dag-processor,triggerer,stages"


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Pages here, a scheduler and the tasks in Pods."""

    pages: Installation
    nights: Nights

    def trigger(self, night: date) -> str:
        """Have Airflow do a night; the id of its run."""
        return str(self.pages.airflow.trigger("weather", {"date": str(night)}))

    def tasks(self, run_id: str) -> dict[str, dict[str, Any]]:
        """The tasks of a night by name, as Airflow's API tells of them."""
        path = f"/dags/weather/dagRuns/{run_id}/taskInstances"
        found = self.pages.airflow.call("GET", path)["task_instances"]
        return {task["task_id"]: task for task in found}

    def pod_of(self, task_id: str) -> str | None:
        """The Pod that runs a task."""
        for one in self.nights.of_part("task"):
            is_its = one["metadata"]["annotations"]["task_id"] == task_id
            if is_its and phase_of(one) == "Running":
                return str(one["metadata"]["name"])
        return None


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """All of it, up, with some weeks of weather."""
    folder = tmp_path_factory.mktemp("tasks")
    with ExitStack() as held:
        network = held.enter_context(two_hosts())
        shared = held.enter_context(shared_by_all(network))
        store = held.enter_context(store_at(network))
        spark, port = (str(free_port()) for _ in range(2))
        secret_names = ("NIGHTSHIFT_AIRFLOW_DATABASE", "MLFLOW_TRACKING_URI", "NIGHTSHIFT_SECRET")
        remote = f"sc://{network.address}:{spark}"
        values = [
            *("apart.tasks.where=pods", f"service.port={port}"),
            f"environment.SPARK_REMOTE={remote}",
            *on_the_stand_in("tasks"),
        ]
        secret = {name: shared[name] for name in secret_names}
        of_node = folder / "node"
        of_node.mkdir()
        nights = held.enter_context(chart(network, of_node, store, values, secret))
        variables = {
            **inherited_variables(),
            **shared,
            **KEYS,
            places.ENDPOINT: store.address,
            **places_in(f"s3://{nights.bucket}"),
            "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor",
            "NIGHTSHIFT_HOME": str(folder / "pages"),
            "NIGHTSHIFT_SERVICES": _OF_PAGES,
            "NIGHTSHIFT_AIRFLOW_HOST": "0.0.0.0",  # Pods reach it by the bridge
            "NIGHTSHIFT_AIRFLOW_PORT": port,
            "SPARK_REMOTE": remote,
            # The pages of the chart have an account for it.
            "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": nights.namespace,
            "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
            "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": os.environ["KUBECONFIG"],
        }
        pages = Installation(environment=Environment.read(variables), variables=variables)
        held.enter_context(_spark(folder / "spark", variables, network.address, spark))
        let_nothing_be_due(variables, folder)
        held.enter_context(_up(pages))
        span = (f"--from={LOADED.first}", f"--to={LOADED.last}")
        pages.nightshift("land", "weather", span[0], f"--to={_night(2)}")
        pages.nightshift("run", "weather", *span, timeout=_NIGHT_SECONDS)
        scheduler = nights.begin(["nightshift", "up", "--foreground"])
        try:
            yield Platform(pages=pages, nights=nights)
        finally:
            ARTIFACTS.mkdir(parents=True, exist_ok=True)
            (ARTIFACTS / "scheduler-in-pod.log").write_text(nights.log(scheduler))
            nights.remove(scheduler)
            wait_until(lambda: not processes_of(Path(nights.variables["NIGHTSHIFT_HOME"])))


@contextmanager
def _up(pages: Installation) -> Iterator[None]:
    pages.nightshift("up")
    try:
        yield
    finally:
        keep_logs(pages.environment)
        pages.nightshift("down")
        assert processes_of(pages.environment.home) == []


@contextmanager
def _spark(
    home: Path,
    variables: Mapping[str, str],
    address: str,
    port: str,
) -> Iterator[None]:
    """A server of Spark's of somebody else: it has no password, and is reached by its address."""
    told = {**variables, "NIGHTSHIFT_HOME": str(home), "NIGHTSHIFT_SPARK_PORT": port}
    del told["SPARK_REMOTE"]
    environment = Environment.read({**told, "NIGHTSHIFT_SPARK_MEMORY": "2g"})
    make_all(environment)
    binding = "--conf=spark.connect.grpc.binding.address"
    with pytest.MonkeyPatch.context() as patched:
        for name in (*KEYS, places.ENDPOINT):
            patched.setenv(name, told[name])
        for name, value in places.agreed(told).items():
            patched.setenv(name, value)
        own = server.server_variables(environment)
        command = server.command(environment)
        folder = server.fresh_folder(environment)
    del own["SPARK_CONNECT_AUTHENTICATE_TOKEN"]
    command[command.index(f"{binding}=127.0.0.1")] = f"{binding}={address}"
    with subprocess.Popen(command, env={**told, **own}, cwd=folder) as process:
        try:
            await_answer(int(port), address)
            yield
        finally:
            process.terminate()


def test_each_task_of_a_night_is_a_pod_of_its_own_and_its_log_stays(platform: Platform) -> None:
    night = _night(1)
    run_id = platform.trigger(night)
    seconds = platform.pages.airflow.wait("weather", run_id, _NIGHT_SECONDS)
    tasks = platform.tasks(run_id)
    where = {name: task["hostname"] for name, task in tasks.items() if task["hostname"]}
    print(f"\n{run_id}: {seconds:.1f} s, {where}")
    assert len(set(where.values())) == len(where) > 9
    for task_id in where:
        assert night.isoformat() in log_of_task(platform.pages.airflow, run_id, task_id)
    assert predictions_once(platform.pages, night) > 0
    # Of what went well Airflow removes the Pods.
    wait_until(lambda: not platform.nights.of_part("task"))


def test_a_task_whose_pod_is_deleted_in_mid_stage_is_tried_again(platform: Platform) -> None:
    night = _night(2)
    run_id = platform.trigger(night)
    pod = wait_until(lambda: platform.pod_of("features"), _NIGHT_SECONDS)
    # As the pages show it, to which the store can tell nothing of it yet.
    airflow = platform.pages.airflow
    wait_until(lambda: "Running command" in log_of_task(airflow, run_id, "features"))
    platform.nights.remove(pod)
    airflow.wait("weather", run_id, _NIGHT_SECONDS)
    assert platform.tasks(run_id)["features"]["try_number"] > 1
    assert predictions_once(platform.pages, night) > 0


def _night(number: int) -> date:
    return LOADED.last + timedelta(days=number)
