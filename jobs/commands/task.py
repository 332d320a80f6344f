"""The command `nightshift task`: what Airflow has the Pod of a task do, by our settings.

Airflow gives a Pod its command line, and nothing of what a machine of the platform has: folders,
secrets, and where its parts are. All of it follows from the variables of the Pod.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from jobs.services import airflow, executors, lifecycle
from jobs.services.secrets import make_all
from pipelines.environment import Environment
from pipelines.errors import UsageError


def become(environment: Environment, words: Sequence[str]) -> NoReturn:
    """Become the program that runs the task.

    Args:
        environment: That of the Pod.
        words: The command line of Airflow's KubernetesExecutor.

    Raises:
        UsageError: there are none, or the Pod is told too little of what all machines share; the
            message names all of it.
    """
    airflow.require_configuration()
    if not words:
        raise UsageError(
            "`nightshift task` is for Airflow's KubernetesExecutor, which says in a Pod what to "
            "do; docs/how-to/machines.md tells how it is set up."
        )
    # None of Airflow's parts is here: the pages are where the Pod's variables say.
    environment = replace(environment, services="stages")
    if missing := lifecycle.not_shared(environment):
        raise UsageError(
            "The Pod of a task keeps nothing on its disk, and what it shares with the machines of "
            f"the platform is not set by its template, to the same as on each: {missing}"
        )
    make_all(environment)
    airflow.make_login(environment)
    # Else nobody cleans the database: it is there, as it knows of this task.
    airflow.migrated(environment, 0)
    # It is in a Pod whatever executor its template tells of.
    variables = executors.logs_of_pods() | airflow.every_variable(environment)
    os.execvpe(words[0], list(words), variables)
