from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from jobs.training.families import FAMILIES, ModelFamily, family_of
from pipelines.errors import UsageError
from pipelines.model import Family
from tests.jobs.training.small import LINEAR, NETWORK, environment_at


def test_every_family_that_can_be_declared_is_there() -> None:
    assert set(FAMILIES) == {family.name for family in get_args(Family)}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_the_sources_of_a_family_are_files(family: ModelFamily) -> None:
    assert all(source.is_file() for source in family.sources)


def test_an_unknown_family_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match="Did you mean 'linear'"):
        family_of("linaer")


def test_the_environment_decides_over_the_ranks_of_a_network_alone(tmp_path: Path) -> None:
    environment = replace(environment_at(tmp_path), ranks=5)
    assert family_of("neural_network").settings(NETWORK, environment) == replace(NETWORK, ranks=5)
    assert family_of("linear").settings(LINEAR, environment) == LINEAR
    unchanged = replace(environment, ranks=None)
    assert family_of("neural_network").settings(NETWORK, unchanged) == NETWORK
