"""What a person does on a page: the command that says it, in their name, and from where it came."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from fastapi import HTTPException, Request

from pipelines.environment import ROOT

_SECONDS = 60
"""That a decision may take."""


def of_our_own_page(request: Request) -> None:
    """Refuse what a page of another site could have sent with the person's cookie.

    Raises:
        HTTPException: it is no JSON, which no form can send, or the browser says where it is from.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    origin = request.headers.get("sec-fetch-site", "same-origin")
    if kind != "application/json" or origin != "same-origin":
        raise HTTPException(403, "Send JSON, from a page of this site.")


def said(arguments: Sequence[str]) -> str:
    """What the `nightshift` command says that has done it.

    Args:
        arguments: Each text of a person in one argument with its option: it may begin with a dash.

    Raises:
        HTTPException: the command refuses, with its own message; or no command can take a text.
    """
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise HTTPException(504, f"No answer within {_SECONDS} s: see the page again.") from None
    except ValueError:
        # A null byte, or half of a character.
        raise HTTPException(400, "A text has a character that no command can take.") from None
    if ended.returncode:
        raise HTTPException(400, ended.stderr.strip() or ended.stdout.strip())
    return ended.stdout.strip()
