"""Has a whole command done by a child of the stage server, as it was given.

The child has imported what a new process would first import (Arrow, Delta, pandas), which takes
longer than most of what these commands then do. Importing this is cheap.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from jobs.services import stage_client
from jobs.services.for_ranks import for_ranks
from jobs.services.stage_client import Ended
from jobs.services.usage import Meter
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.run import Run

FUNCTION = "jobs.__main__:in_child"
"""The entry for the stage server, which allows it."""
_OF_TERMINAL = ("COLUMNS", "LINES", "TERM")
"""Variables by which a person says how wide a table may be."""
_NOT_TAKEN = Ended(code=UsageError.exit_code, said="No stage server is up.")


def forward(environment: Environment, words: Sequence[str]) -> int | None:
    """Have the command done by a child of the stage server, which writes to our output.

    Args:
        environment: Of this process: the stage server has the settings of `nightshift up`.
        words: The command's.

    Returns:
        Its exit code; None: no server takes it, and nothing was done.
    """
    ended = _ended(environment, words)
    return None if ended.is_refused else ended.code


def forward_stage(run: Run, words: Sequence[str], *, notify: bool) -> int | None:
    """As `forward`, of a run of one stage: a child that is lost is on record as its failure.

    Args:
        run: At its stage.
        words: The command's.
        notify: Have people told by the channels that the pipeline declares.

    Returns:
        Its exit code; None: no server takes it, and nothing was done.
    """
    began = datetime.now(UTC)
    meter = Meter(run.environment)
    ended = _ended(run.environment, words)
    if ended.is_lost:
        from jobs.night import record_loss

        record_loss(run, began, meter.read(), notify=notify)
    return None if ended.is_refused else ended.code


def _ended(environment: Environment, words: Sequence[str]) -> Ended:
    argument = {"words": list(words), "environment": environment.variables()}
    terminal = {name: os.environ[name] for name in _OF_TERMINAL if name in os.environ}
    variables = {**for_ranks(os.environ), **terminal}
    if not stage_client.available(environment):
        return _NOT_TAKEN
    ended = stage_client.called(environment, FUNCTION, argument, variables)
    if ended.is_lost:
        print(ended.said, file=sys.stderr, flush=True)
    return ended
