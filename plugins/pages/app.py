"""The pages over HTTP: for people who are signed in, and may see the pipeline's DAG.

What is shown is read anew for each page; nothing is kept between two requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Literal
from urllib.parse import quote

from airflow.api_fastapi.app import API_ROOT_PATH, get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from jobs.night import message_of
from jobs.output import decimals
from jobs.pages import dictionary, models, nights, predictions, quality, statements
from jobs.services import addresses
from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import PAGES, PAGES_ADDRESS, REPORTS_ADDRESS, Environment
from pipelines.errors import NightshiftError
from pipelines.run import is_of_airflow
from pipelines.spec import RESERVED_SUFFIXES, Pipeline
from plugins.pages import charts
from plugins.pages.decisions import of_our_own_page, said
from plugins.signed_in import PRIVATE, forbidden, policy, sign_in

_FOLDER = Path(__file__).parent
_STATIC = _FOLDER / "static"
_ROOT = API_ROOT_PATH.rstrip("/")
_HEADERS = {
    **PRIVATE,
    "Content-Security-Policy": policy(
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
    ),
}
_EVENTS = {
    "promoted": "done",
    "approved": "done",
    "restored": "done",
    "released": "done",
    "awaiting": "awaiting",
    "rolled_back": "refused",
    "rejected": "refused",
    "expired": "refused",
    "refused": "refused",
}
"""In which colour an event is shown; others are grey."""


def make_app() -> FastAPI:
    """The application, to be mounted below Airflow's own."""
    app = FastAPI(
        # No description of it, which anyone could read.
        openapi_url=None,
        exception_handlers={
            401: sign_in,
            403: forbidden(_refused),
            404: _refused,
            NightshiftError: _told,
            Exception: _fault,
            RequestValidationError: _not_understood,
        },
    )
    # No secret is in them, and a page in a frame without an origin of its own has no cookie.
    app.mount("/static", StaticFiles(directory=_STATIC))
    app.add_api_route("/{page}", _lead, methods=["GET"], response_class=HTMLResponse)
    for page, function in _PAGES.items():
        more = [Depends(_sees_all)] if page == "sql" else []
        # First: who may not see this page is led to others.
        may = [Depends(_remember), Depends(requires_access_dag("GET")), *more]
        app.add_api_route(
            f"/{{dag_id}}/{page}",
            function,
            methods=["GET"],
            # A DAG has the name of its pipeline.
            dependencies=may,
            response_class=HTMLResponse,
        )
    app.add_api_route(
        "/{dag_id}/models",
        _decide,
        methods=["POST"],
        dependencies=[Depends(of_our_own_page), Depends(requires_access_dag("PUT"))],
    )
    app.add_api_route(
        "/{dag_id}/explanation",
        _explanation,
        methods=["POST"],
        dependencies=[Depends(of_our_own_page), Depends(requires_access_dag("GET"))],
    )
    app.add_api_route(
        "/sql",
        _query,
        methods=["POST"],
        dependencies=[Depends(of_our_own_page), Depends(_sees_all)],
    )
    return app


def _lead(page: str, user: GetUserDep) -> Response:
    """To the page of the first pipeline that the person may see, and whose declaration is whole."""
    seen = _visible(user)
    if page not in PAGES or not seen:
        raise HTTPException(404, "No such page, or no pipeline that you may see.")
    # Somebody may be writing one: it takes no others along.
    written = catalog.unreadable()
    first = next((name for name in seen if name not in written), seen[0])
    return RedirectResponse(_address(first, page), status_code=303)


def _nights(dag_id: str, user: GetUserDep) -> Response:
    if dag_id not in catalog.names():
        # The tab stands on every DAG.
        return _from_another_dag(dag_id)
    pipeline = _pipeline(dag_id)
    found = nights.nights(Environment.read(), pipeline, datetime.now(UTC))
    may_run = _may(user, dag_id, "POST", DagAccessEntity.RUN)
    return _page("nights", pipeline, user, found=found, may_run=may_run, hole=nights.HOLE)


def _from_another_dag(dag_id: str) -> Response:
    """To the nights that a DAG works for, which is no pipeline's own; else to the first."""
    names = catalog.names()
    own = [name for name in names if dag_id in [name + suffix for suffix in RESERVED_SUFFIXES]]
    address = _address(own[0], "nights") if own else f"{_ROOT}{PAGES_ADDRESS}/nights"
    return RedirectResponse(address, status_code=303)


def _quality(
    dag_id: str,
    user: GetUserDep,
    check: str = "",
    quarantine: str = "",
    day: date | None = None,
    all: bool = False,  # noqa: A002  as the address names it
) -> HTMLResponse:
    pipeline = _pipeline(dag_id)
    environment = Environment.read()
    found = quality.quality(environment, pipeline, check)
    return _page(
        "quality",
        pipeline,
        user,
        found=found,
        trend=_trend(found),
        refused=quality.quarantine(environment, pipeline, quarantine, day),
        most_nights=quality.NIGHTS_SHOWN,
        show_all=all,
    )


def _trend(found: quality.Quality) -> Markup | None:
    """What a check found over time, with its bounds of last."""
    points = found.trend
    if not points or found.shown is None:
        return None
    marks = [charts.mark(point.days, point.low, point.high) for point in points]
    last = points[-1]
    bounds = _bound("at least", last.least) + _bound("at most", last.most)
    ends = (str(points[0].days.first), str(last.days.last))
    return charts.line(marks, bounds, f"{found.shown.table}: {found.shown.label}", ends)


def _predictions(
    dag_id: str,
    user: GetUserDep,
    day: date | None = None,
    words: str = "",
    sort: str = "",
    ascending: bool = False,
) -> HTMLResponse:
    pipeline = _pipeline(dag_id)
    asked = predictions.Asked(day=day, words=words, sort=sort, is_ascending=ascending)
    found = predictions.predictions(Environment.read(), pipeline, asked)
    measured = [measure for measure in found.measures if measure.by_day]
    return _page(
        "predictions",
        pipeline,
        user,
        found=found,
        asked=asked,
        sort=sort or pipeline.prediction,
        key=[name for name in pipeline.entity if name != pipeline.event_date],
        spread=_spread(pipeline, found),
        charts=[(measure.name, _measured(measure)) for measure in measured],
        calibration=_calibration(found),
    )


def _calibration(found: predictions.Predictions) -> Markup:
    points = [
        (
            one.foretold,
            one.came,
            f"{one.rows} rows: foretold {one.foretold:.3g}, came {one.came:.3g}",
        )
        for one in found.calibration
    ]
    return charts.against(points, "What was foretold, and what came") if points else Markup("")


class Question(BaseModel):
    """Which prediction a person wants explained."""

    night: date
    key: dict[str, str] = Field(min_length=1, max_length=20)


_EXPLAINED_AT_ONCE = BoundedSemaphore(2)
"""Predictions that are explained at one time; each loads a model in a process of its own."""
_ASKED_AT_ONCE = BoundedSemaphore(2)
"""Statements that run at one time; each may take a core and its memory."""


@contextmanager
def _one_of(at_once: BoundedSemaphore, others: str) -> Iterator[None]:
    """One of those that run at one time.

    Who comes then does not wait: that would hold a thread, and Airflow answers its tasks with them.

    Raises:
        HTTPException: as many run as may.
    """
    if not at_once.acquire(blocking=False):
        raise HTTPException(503, f"{others}: ask again in some seconds.")
    try:
        yield
    finally:
        at_once.release()


def _explanation(dag_id: str, question: Question) -> Response:
    """Every feature of one prediction with its pull, as `nightshift explain` tells it."""
    pipeline = _pipeline(dag_id)
    unknown = set(question.key) - set(pipeline.entity)
    if unknown:
        raise HTTPException(400, f"{', '.join(sorted(unknown))} names no prediction.")
    words = [f"{name}={value}" for name, value in question.key.items()]
    night = str(question.night)
    asked = ["explain", pipeline.name, "--date", night, "--format", "json", "--key", *words]
    with _one_of(_EXPLAINED_AT_ONCE, "Other predictions are being explained"):
        told = said(asked)
    return Response(told, media_type="application/json", headers=PRIVATE)


def _spread(pipeline: Pipeline, found: predictions.Predictions) -> Markup:
    if not found.spread:
        return Markup("")
    counts = [one.rows for one in found.spread]
    says = [f"{one.low:.3g} to {one.high:.3g}: {one.rows}" for one in found.spread]
    ends = (f"{found.spread[0].low:.3g}", f"{found.spread[-1].high:.3g}")
    return charts.bars(counts, says, f"How {pipeline.prediction} is distributed", ends)


def _measured(measure: predictions.Measure) -> Markup:
    values = dict(measure.by_day)
    marks = []
    for day, value in measure.by_day:
        marks.append(charts.mark(Days.of(day), value, value))
    ends = (str(min(values)), str(max(values)))
    return charts.line(marks, (), f"{measure.name} by day", ends)


class Decision(BaseModel):
    """What a person says about a model."""

    what: Literal["rollback", "approve", "reject"]
    version: str = Field(pattern=r"^[0-9]{1,10}$")
    why: str = Field(min_length=1, max_length=2000)
    serves: str | None = Field(default=None, pattern=r"^[0-9]{1,10}$")
    """The version that the page showed as the one that serves."""


def _models(dag_id: str, user: GetUserDep) -> HTMLResponse:
    pipeline = _pipeline(dag_id)
    found = models.models(Environment.read(), pipeline, datetime.now(UTC))
    may_edit = _may(user, dag_id, "PUT")
    return _page("models", pipeline, user, found=found, may_edit=may_edit, states=_EVENTS)


def _decide(dag_id: str, decision: Decision, user: GetUserDep) -> dict[str, str]:
    pipeline = _pipeline(dag_id)
    words = [f"--why={decision.why}", f"--by={user.get_name()}"]
    if decision.what == "rollback":
        seen = [f"--expected={decision.serves}"] if decision.serves else []
        told = ["rollback", pipeline.name, f"--to={decision.version}", *seen, *words]
    else:
        rejected = ["--reject"] if decision.what == "reject" else []
        told = ["approve", pipeline.name, decision.version, *rejected, *words]
    return {"says": said(told)}


def _dictionary(dag_id: str, user: GetUserDep) -> HTMLResponse:
    pipeline = _pipeline(dag_id)
    found = dictionary.dictionary_of(Environment.read(), pipeline)
    picture = charts.lineage(found.lineage)
    return _page("dictionary", pipeline, user, found=found, picture=picture)


class Statement(BaseModel):
    """What a person asks of the lake."""

    statement: str = Field(max_length=100_000)
    is_for_file: bool = False
    """Whether the rows are to be kept, and not only shown."""


def _sees_all(user: GetUserDep) -> None:
    """Refuse who may not see every pipeline: a statement can read any table.

    Raises:
        HTTPException: there is one that they may not see.
    """
    if _visible(user) != catalog.names():
        raise HTTPException(403, "SQL reads the tables of all pipelines: you may not see them all.")


def _sql(dag_id: str, user: GetUserDep, statement: str = "") -> HTMLResponse:
    """With a statement of the address, which runs when the person says so."""
    tables = statements.described(Environment.read())
    return _page(
        "sql",
        _pipeline(dag_id),
        user,
        tables=tables,
        statement=statement,
        person=user.get_id(),
    )


def _query(asked: Statement) -> Response:
    rows = statements.ROWS_OF_A_FILE if asked.is_for_file else statements.ROWS_SHOWN
    with _one_of(_ASKED_AT_ONCE, "Other statements are running"):
        told = statements.answer(Environment.read(), asked.statement, rows)
    return Response(told, media_type="application/json", headers=PRIVATE)


def _bound(name: str, value: float | None) -> list[charts.Bound]:
    return [] if value is None else [charts.Bound(value=value, says=f"{name} {value:g}")]


def _page(page: str, pipeline: Pipeline, user: Any, **values: Any) -> HTMLResponse:
    text = _TEMPLATES.get_template(f"{page}.html").render(
        title=PAGES[page],
        pipeline=pipeline,
        **_header(page, pipeline.name, _visible(user)),
        **values,
    )
    return HTMLResponse(text, headers=_HEADERS)


def _header(
    page: str,
    of: str,
    seen: list[str],
) -> dict[str, Any]:
    """What `header.html` leads to: the pages of the pipeline, and this one of others."""
    names = PAGES if of in seen else ()
    return {
        "page": page,
        "of": of,
        "tabs": [(PAGES[name], name, _address(of, name)) for name in names],
        "others": [(name, _address(name, page)) for name in seen],
    }


def _remember(request: Request, user: GetUserDep) -> None:
    """Keep who asks for the page of an error, which is to lead to what they may see."""
    request.state.user = user


def _header_of_error(request: Request) -> dict[str, Any]:
    *_, of, page = request.url.path.split("/")
    seen: list[str] = []
    # Whatever keeps a page from being shown may keep this from being known, too.
    with suppress(Exception):
        seen = _visible(request.state.user)
    return _header(page if page in PAGES else "nights", of, seen)


async def _refused(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    return await _error(request, str(getattr(error, "detail", error)), status)


async def _told(request: Request, error: Exception) -> Response:
    """What Nightshift's own errors say is written for people."""
    return await _error(request, str(error), 400)


async def _fault(request: Request, error: Exception) -> Response:
    """Whatever else keeps a page from being shown, with the way out where one is known."""
    # It may look for it in the lake, which takes its time.
    return await _error(request, await run_in_threadpool(message_of, error), 500)


async def _not_understood(request: Request, error: Exception) -> Response:
    """What of the address, or of what was sent, is no value that it may have."""
    assert isinstance(error, RequestValidationError)
    wrong = []
    for one in error.errors():
        _, *names = one["loc"]
        wrong.append(f"{'.'.join(map(str, names))}: {one['msg']}")
    return await _error(request, "\n".join(wrong), 422)


async def _error(request: Request, text: str, status: int) -> Response:
    if request.method != "GET":
        return Response(text, status, headers=_HEADERS, media_type="text/plain")
    # Airflow may look for what the person may see in its database.
    header = await run_in_threadpool(_header_of_error, request)
    page = _TEMPLATES.get_template("error.html").render(text=text, **header)
    return HTMLResponse(page, status, headers=_HEADERS)


def _pipeline(dag_id: str) -> Pipeline:
    if dag_id not in catalog.names():
        raise HTTPException(404, f"There is no pipeline '{dag_id}'.")
    return catalog.pipeline(dag_id)


def _visible(user: Any) -> list[str]:
    return [name for name in catalog.names() if _may(user, name, "GET")]


def _may(user: Any, dag_id: str, method: Any, entity: Any = None) -> bool:
    """Whether the person may do that with a DAG, or with that part of it."""
    details = DagDetails(id=dag_id)
    manager = get_auth_manager()
    return bool(
        manager.is_authorized_dag(method=method, access_entity=entity, details=details, user=user)
    )


def _address(dag_id: str, page: str) -> str:
    return f"{_ROOT}{PAGES_ADDRESS}/{quote(dag_id)}/{page}"


def _static_address(name: str) -> str:
    """Of a script or a style: another once the file is.

    A browser uses one that it has for days before it asks whether there is a newer one.
    """
    digest = sha256((_STATIC / name).read_bytes()).hexdigest()
    return f"{_ROOT}{PAGES_ADDRESS}/static/{name}?{digest[:16]}"


def _sql_address(dag_id: str, statement: str) -> str:
    return f"{_address(dag_id, 'sql')}?statement={quote(statement, safe='')}"


def _report_address(report: str) -> str:
    return f"{_ROOT}{REPORTS_ADDRESS}/{quote(report)}"


def _mlflow_address(dag_id: str, version: str) -> str | None:
    return addresses.of_model(Environment.read(), dag_id, version)


def _card_address(dag_id: str, version: str) -> str:
    environment = Environment.read()
    card = environment.cards(dag_id) / version / "index.html"
    return _report_address(str(card.relative_to(environment.reports)))


def _run_address(dag_id: str, run_id: str) -> str:
    """Where Airflow shows a run; '' for a run that it knows nothing of."""
    if not is_of_airflow(run_id):
        return ""
    return f"{_ROOT}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}"


def _templates() -> Templates:
    made = Templates(
        loader=FileSystemLoader(_FOLDER / "templates"),
        # What data says is text, whatever it looks like.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "root": _ROOT,
        "static_address": _static_address,
        "report_address": _report_address,
        "sql_address": _sql_address,
        "run_address": _run_address,
        "card_address": _card_address,
        "mlflow_address": _mlflow_address,
        "strip": charts.strip,
    }
    made.filters["decimals"] = decimals
    return made


_TEMPLATES = _templates()
_PAGES = {
    "nights": _nights,
    "quality": _quality,
    "predictions": _predictions,
    "models": _models,
    "dictionary": _dictionary,
    "sql": _sql,
}
