"""Has a whole command done by a child of the stage server, as it was given.

The child has imported what a new process would first import (Arrow, Delta, pandas), which takes
longer than most of what these commands then do. Importing this is cheap.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from jobs.commands import in_server
from jobs.services import stage_client
from jobs.services.for_ranks import for_ranks, store_credentials
from pipelines.environment import Environment
from pipelines.places import address_of_store

FUNCTION = "jobs.__main__:in_child"
"""The entry for the stage server, which allows it."""
FORWARDED = ("run", "plan", "notify")
"""Commands that are done so."""
LOST = 70
"""How a child ends that could tell nobody: it was asked to end, or a library came apart."""
_OF_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables by which a channel reaches its address. In small letters too."""


def forward(environment: Environment, words: Sequence[str]) -> int | None:
    """Have the command done by a child of the stage server, which writes to our output.

    Args:
        environment: Of this process: the stage server has the settings of `nightshift up`.
        words: The command's.

    Returns:
        Its exit code; `LOST` when the child was killed, alone or with its server. None: no server
        takes it, and nothing was done.
    """
    argument = {"words": list(words), "environment": environment.variables()}
    variables = _variables(is_run=words[0] == "run")
    if not stage_client.available(environment):
        return None
    try:
        ended = stage_client.called(environment, FUNCTION, argument, variables)
    except OSError:
        # The server has gone since.
        return None
    if ended.is_refused:
        return None
    if ended.is_lost:
        print(ended.said, file=sys.stderr, flush=True)
        return LOST
    return ended.code


def _variables(*, is_run: bool) -> dict[str, str]:
    """Those of this process that the command would read here: the server has those of `up`.

    A stage has always been done with the server's own credentials of a store, as Spark is.
    """
    names = (*_OF_NETWORK, *map(str.lower, _OF_NETWORK))
    given = {name: os.environ[name] for name in names if name in os.environ}
    if not is_run:
        given |= address_of_store(os.environ) | store_credentials(os.environ)
    return {**for_ranks(os.environ), **in_server.of_terminal(), **given}
