"""What all our pages in the Airflow UI share: who is signed in, and what a browser may do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.app import API_ROOT_PATH
from fastapi import Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse

PRIVATE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Of this person alone, and asked for again.
    "Cache-Control": "private, no-cache",
}
"""Headers of every page."""
_OF_NOBODY = "Invalid JWT token"
"""What Airflow says of a token that is none of its own, or whose person is named no more; it
answers 403, as to a person who may not."""
_Handler = Callable[[Request, Exception], Coroutine[Any, Any, Response]]


def policy(*more: str) -> str:
    """A content security policy: nothing from elsewhere, in no page but Airflow's own.

    Args:
        more: What else the page may do.
    """
    least = ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'self'")
    return "; ".join((*least, *more))


async def sign_in(request: Request, error: Exception) -> Response:
    """A browser is led to the login and from there back; a program is told."""
    if _is_program(request):
        return JSONResponse({"detail": str(getattr(error, "detail", error))}, status_code=401)
    # Behind a proxy we do not know by which scheme and host the browser has asked.
    page = str(request.url.replace(scheme="", netloc=""))
    login = f"{API_ROOT_PATH}api/v2/auth/login?next={quote(page, safe='')}"
    return RedirectResponse(login, status_code=303)


def forbidden(otherwise: _Handler) -> _Handler:
    """What answers a 403: a browser whose cookie is nobody's is led to the login, too.

    Its cookie may be of another home: browsers keep one for a host, whatever the port.

    Args:
        otherwise: What answers everybody else.
    """

    async def answer(request: Request, error: Exception) -> Response:
        is_of_nobody = getattr(error, "detail", "") == _OF_NOBODY
        if is_of_nobody and not _is_program(request):
            return await sign_in(request, error)
        return await otherwise(request, error)

    return answer


async def told(request: Request, error: Exception) -> Response:
    """Why something is not shown: a browser would show a person the braces of JSON."""
    status = getattr(error, "status_code", 500)
    return PlainTextResponse(str(getattr(error, "detail", error)), status, headers=PRIVATE)


def _is_program(request: Request) -> bool:
    return "authorization" in request.headers or request.method != "GET"
