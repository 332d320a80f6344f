"""Executors of Spark as Pods, which the driver in the Pod of a stage asks for as the chart says."""

from __future__ import annotations

import os

import pytest

from jobs.lake import sql
from pipelines import places
from pipelines.days import Days
from pipelines.environment import Environment
from tests import weather
from tests.hosts import kill_all_in
from tests.kubernetes.nights import KEYS, Nights, processes_on, wait_until
from tests.object_store.conftest import in_bucket

_EXECUTORS = 2


def _night(days: Days) -> list[str]:
    extent = f"weather --from {days.first} --to {days.last}"
    return ["sh", "-c", f"nightshift land {extent} && nightshift run {extent}"]


@pytest.fixture
def at_store(
    nights: Nights,
    weather_lake: Environment,
    monkeypatch: pytest.MonkeyPatch,
) -> Environment:
    """What the Pods have written, as this machine reads it."""
    for name, value in {**KEYS, places.ENDPOINT: nights.store.address}.items():
        monkeypatch.setenv(name, value)
    for name, value in places.agreed(os.environ).items():
        monkeypatch.setenv(name, value)
    return in_bucket(weather_lake, nights.bucket, weather_lake.home)


def test_nights_on_executors_in_pods_publish_the_rows_of_one_machine(
    nights: Nights, weather_lake: Environment, at_store: Environment
) -> None:
    pod = nights.begin(_night(weather.LOADED))
    executors = wait_until(lambda: len(found := nights.executors()) == _EXECUTORS and found)
    for one in executors:
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("Pod", pod)
        assert one["spec"]["containers"][0]["resources"]["limits"]["memory"] == "2Gi"
    assert nights.end_of(pod) == "Succeeded", nights.log(pod)
    wait_until(lambda: not nights.of_part("spark-executor"))
    for question in (weather.CONTENT, weather.PREDICTIONS):
        here, there = (sql.query(one, question)[1] for one in (weather_lake, at_store))
        assert len(here) > len(weather.LOADED)
        assert there == here


def test_an_executor_that_is_killed_in_mid_night_is_replaced(
    nights: Nights, weather_lake: Environment, at_store: Environment
) -> None:
    night = Days.of(weather.TOMORROW)
    pod = nights.begin(_night(night))
    wait_until(lambda: len(nights.executors()) == _EXECUTORS)
    wait_until(lambda: "check_raw" in nights.log(pod))
    killed = min(_names(nights))
    kill_all_in(nights.host(killed))
    wait_until(lambda: len(found := _names(nights)) == _EXECUTORS and killed not in found)
    assert nights.end_of(pod) == "Succeeded", nights.log(pod)
    weather.land(weather.WEATHER, weather_lake, night)
    assert set(weather.perform_all_stages(weather_lake, night, "night")) == {0}
    for question in (weather.CONTENT, weather.PREDICTIONS):
        assert sql.query(at_store, question)[1] == sql.query(weather_lake, question)[1]


def _names(nights: Nights) -> set[str]:
    return {one["metadata"]["name"] for one in nights.executors()}


def test_executors_end_with_their_driver_and_their_pods_with_its_pod(nights: Nights) -> None:
    # As `nightshift up` leaves the home before it starts the driver.
    script = 'mkdir -p -m 700 "$NIGHTSHIFT_HOME" && exec python -m jobs.spark.server'
    pod = nights.begin(["sh", "-c", script])
    executors = wait_until(lambda: len(found := nights.executors()) == _EXECUTORS and found)
    hosts = [nights.host(one["metadata"]["name"]) for one in executors]
    assert all(map(processes_on, hosts))
    kill_all_in(nights.host(pod))
    wait_until(lambda: not any(map(processes_on, hosts)))
    assert nights.end_of(pod) == "Failed"
    assert len(nights.of_part("spark-executor")) == _EXECUTORS
    nights.remove(pod)
    wait_until(lambda: not nights.of_part("spark-executor"))
