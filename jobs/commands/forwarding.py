"""Has a whole command done by a child of the stage server, as it was given.

The child has imported what a new process would first import (Arrow, Delta, pandas), which takes
longer than most of what these commands then do. Importing this is cheap.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from jobs.services import stage_client
from pipelines import forwarding
from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.forwarding import FUNCTION, LOST


def forward(
    environment: Environment, words: Sequence[str], most_seconds: float | None = None
) -> int | None:
    """Have the command done by a child of the stage server, which writes to our output.

    Args:
        environment: Of this process: the stage server has the settings of `nightshift up`.
        words: The command's.
        most_seconds: Wait no longer for a server that answers; None: as long as a busy one may
            take.

    Returns:
        Its exit code; `LOST` when the child was killed, alone or with its server. None: no server
        takes it, and nothing was done.
    """
    argument = forwarding.argument(environment, words, os.environ)
    variables = forwarding.variables(os.environ, words)
    if not stage_client.available(environment, most_seconds):
        return None
    try:
        ended = stage_client.called(environment, FUNCTION, argument, variables)
    except (OSError, UsageError):
        # The server has gone since, or our working folder.
        return None
    if ended.is_refused:
        return None
    if ended.is_lost:
        print(ended.said, file=sys.stderr, flush=True)
        return LOST
    return ended.code
