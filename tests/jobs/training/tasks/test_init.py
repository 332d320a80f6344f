from __future__ import annotations

from typing import get_args

import pytest

from expectations import predictions
from jobs.training.families import linear
from jobs.training.tasks import TASKS, LearningTask, task_of
from pipelines.errors import UsageError
from pipelines.model import Task


@pytest.mark.parametrize("name", get_args(Task))
def test_a_task_that_can_be_declared_has_all_its_parts(name: Task) -> None:
    assert name in TASKS
    assert name in linear._SOLVERS
    assert name in predictions._TASKS


def test_no_task_is_there_that_cannot_be_declared() -> None:
    assert set(TASKS) == set(get_args(Task))


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_headline_and_leak_score_are_metrics(task: LearningTask) -> None:
    assert {task.headline, task.leak_score} <= set(task.metrics)


def test_an_unknown_task_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match="Did you mean 'regression'"):
        task_of("regresion")
