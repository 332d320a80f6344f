"""The chart in a cluster, for the tests here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.nights import Nights, installed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is here where there is no cluster for it."""
    if os.environ.get("CHART_TEST") and os.environ.get("KUBECONFIG"):
        return
    reason = "`make chart-test` runs it, where KUBECONFIG names a Kubernetes without nodes"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="package")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    """A namespace with the chart in it, and a node that runs its Pods."""
    with installed(tmp_path_factory.mktemp("node")) as made:
        yield made
