"""A whole command that a child of the stage server does, as its client asks for it.

The client is the light `nightshift` command, or a task of Airflow, which needs no Python of its own
for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.environment import Environment
from pipelines.errors import UsageError
from pipelines.for_ranks import OF_STORE, for_ranks, store_credentials
from pipelines.places import THIS_MACHINE, address_of_store, hosts_without_proxy

FUNCTION = "jobs.__main__:in_child"
"""The entry for the stage server, which allows it."""
FORWARDED = ("run", "plan", "notify", "rollback", "approve")
"""Commands that are done so."""
LOST = 70
"""How a child ends that could tell nobody: it was asked to end, or a library came apart."""
_OF_PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_IN_CAPITALS = (*_OF_PROXY, "SSL_CERT_FILE", "SSL_CERT_DIR")
OF_NETWORK = (*_IN_CAPITALS, *map(str.lower, _IN_CAPITALS))
"""Variables by which a channel reaches its address."""
_WITHOUT_PROXY = ("NO_PROXY", "no_proxy")
_AWS_SETTINGS = "AWS_CONFIG_FILE"
_OF_TERMINAL = ("COLUMNS", "LINES", "NO_COLOR", "TERM")
"""Variables by which a person says how wide a table may be, and whether a bar has colours."""


def argument(
    environment: Environment, words: Sequence[str], given: Mapping[str, str]
) -> dict[str, Any]:
    """What the function is called with.

    Args:
        environment: Of the client: the stage server has the settings of `nightshift up`.
        words: The command's; none: of a command that has a function of its own.
        given: Variables of the client.
    """
    own = {} if _is_stage(words) else store_credentials(given)
    # The server has those of the terminal in which `nightshift up` was said.
    not_set = {*_OF_TERMINAL} - given.keys()
    # A file of settings, such as the region, is no login by itself.
    if own.keys() - {_AWS_SETTINGS}:
        # Of two logins a store takes no part: keys go before a profile, and a token before none.
        not_set |= OF_STORE - own.keys()
    return {
        "words": list(words),
        "environment": environment.variables(),
        "not_set": sorted(not_set),
    }


def variables(
    given: Mapping[str, str],
    words: Sequence[str],
) -> dict[str, str]:
    """Those of the client that the command would read there: the server has those of `up`.

    A stage has always been done with the server's own credentials of a store, as Spark is.

    Args:
        given: The client's.
        words: The command's; none: of a command that has a function of its own.
    """
    found = {name: given[name] for name in OF_NETWORK if name in given}
    for name in _OF_PROXY:
        if name in found:
            # Small letters go first, and the server has some of its own.
            found.setdefault(name.lower(), found[name])
    for name in _WITHOUT_PROXY:
        if name in found:
            found[name] = hosts_without_proxy(found[name], THIS_MACHINE)
    if not _is_stage(words):
        found |= address_of_store(given) | store_credentials(given)
    of_terminal = {name: given[name] for name in _OF_TERMINAL if name in given}
    return {**for_ranks(given), **of_terminal, **found}


def _is_stage(words: Sequence[str]) -> bool:
    return "run" in words[:1]


def is_refused(code: int, said: str) -> bool:
    """Whether the server does not run such a thing, as one of older code: nothing was done.

    Args:
        code: Its reply's exit code.
        said: What it says of the child: why it was killed, or not begun; nothing: it ended by
            itself.
    """
    return bool(said) and code == UsageError.exit_code
