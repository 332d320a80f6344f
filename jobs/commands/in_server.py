"""A command about nights of a pipeline, done in the stage server, which has imported what it takes.

Importing this is cheap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jobs.output import require_written, watch
from jobs.services import stage_client
from pipelines import catalog, forwarding
from pipelines.days import Days, parse_day
from pipelines.environment import Environment

if TYPE_CHECKING:
    from pipelines.spec import Pipeline

Tell = Callable[[Environment, "Pipeline", Days, Mapping[str, Any]], None]
"""What the command does; the mapping holds what else was asked of it, plain enough for JSON."""


def in_server_or_here(
    environment: Environment,
    pipeline: Pipeline,
    days: Days,
    asked: Mapping[str, Any],
    function: str,
    tell: Tell,
) -> int:
    """Do it in the stage server, or here where none is up; returns the exit code.

    Args:
        environment: Whose lake and models they are.
        pipeline: The pipeline.
        days: The nights.
        asked: What else was asked, by names of its own.
        function: The module's entry for the server, which calls `in_child`; the server allows it.
        tell: Does it.

    Raises:
        NightshiftError: what `tell` raises, where it is done here.
    """
    if not stage_client.available(environment):
        tell(environment, pipeline, days, asked)
        return 0
    nights = {
        "pipeline": pipeline.name,
        "first": str(days.first),
        "last": str(days.last),
    }
    return call(environment, function, {**nights, **asked})


def call(environment: Environment, function: str, asked: Mapping[str, Any]) -> int:
    """Have a command's function called in the stage server, as if it were done here.

    Args:
        environment: Of this process: the stage server has the settings of `nightshift up`.
        function: The command's entry for the server, which calls `ended`; the server allows it.
        asked: What was asked, by names of its own.

    Returns:
        Its exit code.
    """
    argument = forwarding.argument(environment, (), os.environ)
    variables = forwarding.variables(os.environ, ())
    return stage_client.call(environment, function, {**argument, **asked}, variables)


def in_child(argument: Mapping[str, Any], tell: Tell) -> int:
    """Do what `in_server_or_here` has sent, in a child of the stage server.

    Returns:
        The exit code; what went wrong is told as the command tells it.
    """

    def tell_of_nights(environment: Environment) -> None:
        days = Days(parse_day(argument["first"]), parse_day(argument["last"]))
        tell(environment, catalog.pipeline(argument["pipeline"]), days, argument)

    return ended(argument, tell_of_nights)


def ended(
    argument: Mapping[str, Any],
    do: Callable[[Environment], int | None],
) -> int:
    """Do a client's work in this child of the stage server.

    Args:
        argument: As `pipelines.forwarding.argument` tells of the client: this process has the
            settings of `nightshift up`.
        do: The work; what it returns is the exit code, None is 0.

    Returns:
        The exit code; what went wrong is told as the command tells it.
    """
    variables = argument["environment"]
    for name in argument.get("not_set", ()):
        os.environ.pop(name, None)
    watch("stdout")
    try:
        code = do(Environment.read(variables))
        require_written()
    except BrokenPipeError:
        # Who reads has seen enough, such as `head`.
        return 0
    except Exception as error:  # the last border before the client
        from jobs.night import explain

        return explain(error, variables)[0]
    return code or 0
