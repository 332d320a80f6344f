"""The data-quality reports over HTTP: for people who are signed in and may see the pipeline's DAG.

A report is shown as it lies in the home; nothing else of the home is.
"""

from __future__ import annotations

from pathlib import Path

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse

from jobs.night import message_of
from pipelines.environment import Environment
from pipelines.places import is_url
from plugins.signed_in import PRIVATE, forbidden, policy, sign_in, told

_INDEX = "index.html"
_GONE = (
    "This report is gone, or there never was one: `nightshift maintain` deletes those that are "
    "older than {days} days (NIGHTSHIFT_RETENTION_DAYS). Its verdicts are in ops.check_results, "
    "and on the page of data quality."
)
_HEADERS = {
    **PRIVATE,
    # No script.
    "Content-Security-Policy": policy(
        "style-src 'unsafe-inline'", "img-src data:", "form-action 'none'"
    ),
}


def make_app() -> FastAPI:
    """The application, to be mounted below Airflow's own."""
    app = FastAPI(
        # No description of it, which anyone could read.
        openapi_url=None,
        exception_handlers={401: sign_in, 403: forbidden(told), 404: told, 503: told},
    )
    app.add_api_route(
        "/{dag_id}/{path:path}",
        _page,
        methods=["GET"],
        # A DAG has the name of its pipeline.
        dependencies=[Depends(requires_access_dag("GET"))],
        response_class=HTMLResponse,
    )
    return app


def file_of(reports: Path, pipeline: str, path: str) -> Path | None:
    """The page that is asked for; None: there is none in the folder of the pipeline's reports.

    In a store nobody looks: one that is away would say the same as of a page that is gone.

    Args:
        reports: The folder of all reports.
        pipeline: Its name, as the address has it.
        path: What follows in the address.
    """
    below = f"{path}{_INDEX}" if path.endswith("/") else path
    try:
        # Of links and '..' is known by now where they lead; an object store has neither.
        whole = reports.resolve()
        folder = (whole / pipeline).resolve()
        file = (folder / below).resolve()
        # A bucket's root is its own parent.
        is_own = folder != whole and folder.parent == whole and file.is_relative_to(folder)
        is_page = file.suffix == ".html" and not file.name.startswith(".")
        is_there = is_url(file) or file.is_file()
        return file if is_own and is_page and is_there else None
    except (OSError, ValueError):
        # A name that is too long, or has a null byte.
        return None


def _page(dag_id: str, path: str) -> HTMLResponse:
    environment = Environment.read()
    file = file_of(environment.reports, dag_id, path)
    try:
        if file is not None:
            return HTMLResponse(file.read_bytes(), headers=_HEADERS)
    except FileNotFoundError:
        # It was deleted a moment ago, or is not in the store.
        pass
    except Exception as error:  # whichever library of a store says that it is away
        raise HTTPException(503, message_of(error)) from error
    raise HTTPException(404, _GONE.format(days=environment.retention_days))
