"""The data-quality reports over HTTP: for people who are signed in and may see the pipeline's DAG.

A report is shown as it lies in the home; nothing else of the home is.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from airflow.api_fastapi.app import API_ROOT_PATH
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse

from pipelines.environment import Environment

_INDEX = "index.html"
_HEADERS = {
    # No script, nothing from elsewhere, in no page but Airflow's own.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Of this person alone, and asked for again: a later stage of the run writes the page anew.
    "Cache-Control": "private, no-cache",
}


def make_app() -> FastAPI:
    """The application, to be mounted below Airflow's own."""
    app = FastAPI(
        # No description of it, which anyone could read.
        openapi_url=None,
        exception_handlers={401: _sign_in},
    )
    app.add_api_route(
        "/{dag_id}/{path:path}",
        _page,
        methods=["GET"],
        # A DAG has the name of its pipeline.
        dependencies=[Depends(requires_access_dag("GET"))],
        response_class=FileResponse,
    )
    return app


def file_of(reports: Path, pipeline: str, path: str) -> Path | None:
    """The page that is asked for; None: there is none in the folder of the pipeline's reports.

    Args:
        reports: The folder of all reports.
        pipeline: Its name, as the address has it.
        path: What follows in the address.
    """
    below = f"{path}{_INDEX}" if path.endswith("/") else path
    try:
        folder = (reports / pipeline).resolve()
        file = (folder / below).resolve()
        # Of links and '..' is known by now where they lead.
        is_own = folder.parent == reports.resolve() and file.is_relative_to(folder)
        is_page = file.suffix == ".html" and not file.name.startswith(".")
        return file if is_own and is_page and file.is_file() else None
    except (OSError, ValueError):
        # A name that is too long, or has a null byte.
        return None


async def _page(dag_id: str, path: str) -> FileResponse:
    file = file_of(Environment.read().reports, dag_id, path)
    if file is None:
        raise HTTPException(
            404, "No such report. `nightshift maintain` deletes those that are old."
        )
    return FileResponse(file, media_type="text/html; charset=utf-8", headers=_HEADERS)


async def _sign_in(request: Request, error: Exception) -> Response:
    """A browser is led to the login and from there back; a program is told."""
    if "authorization" in request.headers:
        return JSONResponse({"detail": str(getattr(error, "detail", error))}, status_code=401)
    login = f"{API_ROOT_PATH}api/v2/auth/login?next={quote(str(request.url), safe='')}"
    return RedirectResponse(login, status_code=303)
