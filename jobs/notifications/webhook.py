"""The channel `webhook`: the message as JSON, posted to `NIGHTSHIFT_WEBHOOK_URL`.

The address is a secret, because whoever knows it may post there. No error of the standard library
is printed or passed on here: some of them quote the address.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from functools import cache
from http.client import HTTPException
from urllib.parse import urlsplit

from jobs.notifications.lines import say
from jobs.notifications.message import Message, without_places
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, UsageError

VARIABLE = "NIGHTSHIFT_WEBHOOK_URL"
# Two that nobody answers, and the pause, take 9 seconds: they fit into what all channels have.
_TRIES = 2
_PAUSE_SECONDS = 1.0
_ANSWER_SECONDS = 4.0
"""For each step of an answer: to connect, and then to send its head."""
_TOO_MANY_REQUESTS = 429
_LETTERS = frozenset(map(chr, range(0x21, 0x7F)))
"""That an address may hold."""
# The first one first: the others have it in their names.
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class _NotDelivered(NightshiftError):
    """One attempt failed; the words hold no secret."""

    def __init__(self, why: str, *, may_help_again: bool) -> None:
        super().__init__(why)
        self.may_help_again = may_help_again


def deliver(environment: Environment, message: Message) -> None:
    """Post the message; without an address say once that none is set.

    Raises:
        UsageError: the address is not one of http or https.
        NightshiftError: nobody took the message, after two attempts.
    """
    if not environment.webhook_url:
        _say_that_it_is_not_set()
        return
    request = _request(environment.webhook_url, message)
    _post_with_retry(request)


@cache  # once in a process is enough
def _say_that_it_is_not_set() -> None:
    say(f"No webhook is told: {VARIABLE} is not set.")


def require_address(url: str) -> None:
    """Refuse what nothing can be posted to.

    Args:
        url: As `NIGHTSHIFT_WEBHOOK_URL`.

    Raises:
        UsageError: it is not an address of http or https, has a login, or letters that no request
            can hold.
    """
    if not _is_web_address(url):
        raise UsageError(
            f"{VARIABLE} is not an address that begins with http:// or https://, then a host, "
            "and no user or password before it."
        )
    if not all(letter in _LETTERS for letter in url):
        raise UsageError(
            f"{VARIABLE} has a blank, or a letter beyond ASCII: write a host as xn--… and others "
            "as %C3%BC."
        )


def _request(url: str, message: Message) -> urllib.request.Request:
    require_address(url)
    body = json.dumps({**message, "text": _escaped(message)}).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "nightshift"}
    return urllib.request.Request(url, data=body, headers=headers, method="POST")


def _escaped(message: Message) -> str:
    """The line for people, of which a chat tool such as Slack makes no link and no mention.

    Its own addresses at its end stay. Other values may be ones of the data, which a stranger wrote.
    """
    words = without_places(message)
    places = str(message["text"]).removeprefix(words)
    for letter, name in _ESCAPES.items():
        words = words.replace(letter, name)
    return words + places


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port  # reading it is what finds a wrong one
    except ValueError:
        return False
    has_user = "@" in parts.netloc
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and not has_user


def _post_with_retry(request: urllib.request.Request) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            _post(request)
        except _NotDelivered as failure:
            if attempt == _TRIES or not failure.may_help_again:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _post(request: urllib.request.Request) -> None:
    try:
        _OPENER.open(request, timeout=_ANSWER_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        may_help = error.code >= 500 or error.code == _TOO_MANY_REQUESTS
        raise _NotDelivered(f"it answered HTTP {error.code}.", may_help_again=may_help) from None
    except urllib.error.URLError as error:
        raise _NotDelivered(_reason(error.reason), may_help_again=True) from None
    except (OSError, HTTPException) as error:
        raise _NotDelivered(_reason(error), may_help_again=True) from None
    except Exception as error:  # its traceback would quote the address
        raise _NotDelivered(_reason(error), may_help_again=False) from None


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_SECONDS:.0f} s."
    number = getattr(error, "errno", None)
    if isinstance(error, ConnectionError) and number:
        return f"{os.strerror(number)}."
    return f"{type(error).__name__}."


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https alone, through the proxy of the environment, and follows no redirect.

    A redirect would carry the message to somebody who was not declared.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()
