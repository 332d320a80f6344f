"""The command `nightshift airflow`: any command of Airflow's, with this platform's settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from jobs.services import accounts, airflow
from jobs.services.processes import MARK
from jobs.services.secrets import make_all
from pipelines.environment import Environment


def pass_on(environment: Environment, words: Sequence[str]) -> NoReturn:
    """Become Airflow's own command.

    Args:
        environment: Whose Airflow it is: its database, its secrets, its DAGs.
        words: What Airflow's command takes.

    Raises:
        UsageError: there is no configuration for it.
    """
    airflow.require_configuration()
    # Airflow reads its secrets from their files, also in a home that was never up.
    make_all(environment)
    if not accounts.passwords_file(environment).exists():
        # One that is there is that of a platform which may be up, with settings of its own.
        airflow.make_login(environment)
    program = airflow.program(*words)
    variables = airflow.every_variable(environment)
    # By it `down` would end what a person runs.
    del variables[MARK]
    os.execvpe(program[0], program, variables)
