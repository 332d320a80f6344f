"""The embedded server on a real YARN, whose containers have code and Python from an archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import psutil
import pytest

from jobs.spark.server import running_server
from pipelines.days import Days
from pipelines.environment import Environment
from tests import weather
from tests.jobs.spark import test_archive as archive
from tests.jobs.spark import test_cluster
from tests.jobs.spark.yarn import yarn

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif("not os.environ.get('SOAK')", reason="minutes; `make soak` runs it"),
]
no_transforms = archive.no_transforms


@pytest.fixture(scope="module")
def containers(
    shared_environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """Two executors, each a container of YARN's."""
    folder = tmp_path_factory.mktemp("yarn")
    told = archive.settings(
        folder,
        "spark.yarn.dist.archives",
        "spark.yarn.am.memory 512m",
        f"spark.yarn.stagingDir file://{folder}/staging",
    )
    asked = replace(
        shared_environment,
        home=folder / "home",
        spark_master="yarn",
        spark_host=_own_address(),
        spark_cores=2,
        spark_memory="1g",
        spark_properties=told,
    )
    with yarn(folder) as settings, pytest.MonkeyPatch.context() as patched:
        patched.setenv("HADOOP_CONF_DIR", str(settings))
        with running_server(asked, 0) as environment:
            yield environment


def _own_address() -> str:
    """Of this machine on its network: a node of a cluster cannot call another one's loopback."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family.name == "AF_INET" and not one.address.startswith("127."):
                return str(one.address)
    pytest.skip("this machine has no address but loopback")


@pytest.fixture
def on_yarn(containers: Environment, tmp_path: Path) -> Environment:
    """With an empty lake and registry of the test's own."""
    return replace(
        containers,
        lake=str(tmp_path / "lake"),
        landing=tmp_path / "landing",
        mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )


@pytest.mark.usefixtures("no_transforms")
def test_containers_score_as_one_process_does(
    on_yarn: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.require_all_of_it_from_the_archive(on_yarn)
    test_cluster.require_same_scores(on_yarn, monkeypatch)


def test_nights_in_containers_publish_what_nights_on_one_machine_do(
    on_yarn: Environment, shared_environment: Environment, tmp_path: Path
) -> None:
    alone = weather.lake(shared_environment, tmp_path / "alone")
    spread = replace(on_yarn, lake=str(tmp_path / "spread"))
    weather.land(weather.WEATHER, spread, weather.LOADED)
    assert set(weather.perform_all_stages(spread, weather.LOADED, "load")) == {0}
    night = Days.of(date(2013, 2, 22))
    for each in (alone, spread):
        weather.land(weather.WEATHER, each, night)
        assert set(weather.perform_all_stages(each, night, "night")) == {0}
    for table in weather.WEATHER.tables:
        rows = test_cluster.rows_of(alone, table.name)
        assert len(rows) > 0
        assert rows == test_cluster.rows_of(spread, table.name), table.name
