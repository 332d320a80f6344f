"""What all our pages in the Airflow UI share: who is signed in, and what a browser may do."""

from __future__ import annotations

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


def policy(*more: str) -> str:
    """A content security policy: nothing from elsewhere, in no page but Airflow's own.

    Args:
        more: What else the page may do.
    """
    least = ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'self'")
    return "; ".join((*least, *more))


async def sign_in(request: Request, error: Exception) -> Response:
    """A browser is led to the login and from there back; a program is told."""
    is_program = "authorization" in request.headers or request.method != "GET"
    if is_program:
        return JSONResponse({"detail": str(getattr(error, "detail", error))}, status_code=401)
    # Behind a proxy we do not know by which scheme and host the browser has asked.
    page = str(request.url.replace(scheme="", netloc=""))
    login = f"{API_ROOT_PATH}api/v2/auth/login?next={quote(page, safe='')}"
    return RedirectResponse(login, status_code=303)


async def told(request: Request, error: Exception) -> Response:
    """Why something is not shown: a browser would show a person the braces of JSON."""
    status = getattr(error, "status_code", 500)
    return PlainTextResponse(str(getattr(error, "detail", error)), status, headers=PRIVATE)
