"""Pages over HTTP: who is signed in sees them, and only who may can do something."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote, urlencode

import jwt
import pyarrow as pa
import pytest
from airflow.api_fastapi.core_api import security
from deltalake import write_deltalake
from fastapi import FastAPI
from fastapi.testclient import TestClient

from bench import recorded_year
from bench.recorded_year import YEAR, write_predictions
from expectations import report_page
from jobs.lake import model_events, ops
from jobs.pages import nights, predictions, quality, statements
from pipelines import catalog
from pipelines.environment import PAGES, PAGES_ADDRESS, REPORTS_ADDRESS, ROOT, Environment
from pipelines.errors import UsageError
from pipelines.flights import PIPELINE as FLIGHTS
from pipelines.spec import RESERVED_PIPELINES
from plugins.pages import app as pages
from tests.jobs.tiny_home import DAYS, TINY, Home

CARRIER = "<img src=x onerror=alert(1)>"
MAY = {
    "viewer": {("GET", None)},
    "user": {("GET", None), ("POST", "RUN")},
    "editor": {("GET", None), ("POST", "RUN"), ("PUT", None)},
}
"""What each may do with the DAGs that are there; nobody may see another."""
DAGS = ("tiny", "flights", "tiny_source", "tiny_deadline", "maintenance")


class Person:
    """Who is signed in."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_id(self) -> str:
        return self.name

    def get_name(self) -> str:
        return self.name


class Manager:
    """Knows a token for each of the people."""

    async def get_user_from_token(self, token: str) -> Person:
        if token not in MAY:
            raise jwt.InvalidTokenError
        return Person(token)

    def is_authorized_dag(
        self, *, method: str, user: Person, details: Any, access_entity: Any = None
    ) -> bool:
        entity = access_entity.name if access_entity else None
        return details.id in DAGS and (method, entity) in MAY[user.name]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    made = Home(tmp_path)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    # Its last day is over, so that its nights end there.
    pipeline = replace(TINY, last_day=DAYS[3])
    monkeypatch.setattr(pages.catalog, "names", lambda: ["tiny"])
    monkeypatch.setattr(pages.catalog, "pipeline", lambda name: pipeline)
    # Its stages write nothing but ids.
    foretold = (("id", "prediction", "model_version"), [(1, 0.25, "1")])
    monkeypatch.setattr(predictions, "_of_day", lambda *_: foretold)
    for number, day in enumerate(DAYS):
        made.land(day, 10 * number, 10 * number + 1)
    return made


@pytest.fixture
def client(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(security, "get_auth_manager", Manager)
    monkeypatch.setattr(pages, "get_auth_manager", Manager)
    monkeypatch.setattr(security.DagModel, "get_team_name", lambda dag_id: None)
    whole = FastAPI()
    whole.mount(PAGES_ADDRESS, pages.make_app())
    with TestClient(whole, follow_redirects=False) as client:
        yield client


def get(client: TestClient, path: str, who: str = "viewer") -> Any:
    return client.get(f"{PAGES_ADDRESS}/{path}", headers={"Authorization": f"Bearer {who}"})


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_shown_that_may_run_only_our_own_scripts(
    client: TestClient, home: Home, page: str
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    answer = get(client, f"tiny/{page}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"].startswith("private")
    # What the policy forbids would not work.
    for part in ("style=", "<style", "<script>", " onclick", "http://", "https://"):
        assert part not in answer.text, part


@pytest.mark.parametrize("page", PAGES)
def test_nobody_sees_a_page_who_is_not_signed_in(client: TestClient, page: str) -> None:
    answer = client.get(f"{PAGES_ADDRESS}/tiny/{page}")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/api/v2/auth/login?next=")
    assert "<table" not in answer.text
    assert get(client, f"tiny/{page}", "stranger").status_code == 403


def test_a_browser_whose_cookie_is_of_nobody_is_led_to_the_login(client: TestClient) -> None:
    client.cookies.set("_token", "stranger")
    answer = client.get(f"{PAGES_ADDRESS}/tiny/nights")
    assert answer.status_code == 303
    assert unquote(answer.headers["location"]) == (
        f"/api/v2/auth/login?next={PAGES_ADDRESS}/tiny/nights"
    )
    asked = client.post(f"{PAGES_ADDRESS}/sql", json={"statement": "SELECT 1"})
    assert asked.status_code == 403
    client.cookies.set("_token", "viewer")
    assert client.get(f"{PAGES_ADDRESS}/other/nights").status_code == 403


@pytest.mark.parametrize("page", PAGES)
def test_nobody_sees_a_page_of_a_dag_that_they_may_not_see(client: TestClient, page: str) -> None:
    assert get(client, f"other/{page}").status_code == 403


def test_a_page_without_a_pipeline_leads_to_the_first_that_the_person_may_see(
    client: TestClient,
) -> None:
    answer = get(client, "nights")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{PAGES_ADDRESS}/tiny/nights"
    assert client.get(f"{PAGES_ADDRESS}/nights").headers["location"].startswith("/api/v2/auth")
    assert get(client, "nothing").status_code == 404


def test_a_pipeline_that_somebody_is_writing_takes_no_pages_of_others_along(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "names", lambda: ["begun", "tiny"])
    monkeypatch.setattr(catalog, "unreadable", lambda: {"begun": UsageError("line 1")})
    monkeypatch.setattr(pages, "_may", lambda *_: True)
    answer = get(client, "nights")
    assert answer.headers["location"] == f"{PAGES_ADDRESS}/tiny/nights"
    # Where it is the only one, its own page says what is wrong with it.
    monkeypatch.setattr(catalog, "names", lambda: ["begun"])
    assert get(client, "nights").headers["location"] == f"{PAGES_ADDRESS}/begun/nights"


def test_the_page_of_an_error_leads_to_all_that_the_person_may_see(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = catalog.pipeline("tiny")

    def read(name: str) -> Any:
        if name == "flights":
            raise UsageError("flights.py, line 1")
        return whole

    monkeypatch.setattr(catalog, "names", lambda: ["flights", "tiny", "hidden"])
    monkeypatch.setattr(catalog, "pipeline", read)
    answer = get(client, "flights/quality")
    assert answer.status_code == 400
    assert "flights.py, line 1" in answer.text
    assert f'<a href="{PAGES_ADDRESS}/tiny/quality">tiny</a>' in answer.text
    current = f'<a href="{PAGES_ADDRESS}/flights/quality" aria-current="true">flights</a>'
    assert current in answer.text
    assert f'<a href="{PAGES_ADDRESS}/flights/nights">Nights</a>' in answer.text
    assert "hidden" not in answer.text
    # Of a pipeline that is not there, or not for them, there are no pages.
    for path, status in (("hidden/quality", 403), ("tiny/predictions?day=soon", 422)):
        answer = get(client, path)
        assert answer.status_code == status
        assert ">tiny</a>" in answer.text
        assert f"{PAGES_ADDRESS}/hidden" not in answer.text
    stranger = get(client, "flights/quality", "stranger")
    assert stranger.status_code == 403
    assert "<header>" not in stranger.text


@pytest.mark.parametrize(
    ("dag", "leads"),
    [
        ("tiny_source", "tiny/nights"),
        ("tiny_deadline", "tiny/nights"),
        # It is no pipeline's.
        ("maintenance", "nights"),
    ],
)
def test_the_tab_of_a_dag_that_is_no_pipeline_leads_to_nights_all_the_same(
    client: TestClient, dag: str, leads: str
) -> None:
    answer = get(client, f"{dag}/nights")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{PAGES_ADDRESS}/{leads}"
    assert get(client, f"{dag}/quality").status_code == 404


def test_a_night_leads_to_a_run_only_where_airflow_has_it(
    client: TestClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    real = nights.nights

    def run_by(run_id: str) -> str:
        def shown(*arguments: Any) -> nights.Nights:
            page = real(*arguments)
            night = replace(page.nights[0], run_id=run_id, outcome="done")
            return replace(page, nights=(night,))

        monkeypatch.setattr(nights, "nights", shown)
        text: str = get(client, "tiny/nights").text
        return text

    assert 'href="/dags/tiny/runs/scheduled__2013"' in run_by("scheduled__2013")
    for run_id in ("demo_tiny_2013-01-01", "manual__my-run~0123456789ab", "run__2013"):
        text = run_by(run_id)
        assert f'title="{run_id}">done' in text
        assert "/runs/" not in text


def test_each_reason_of_a_night_is_text_and_no_title_alone(
    client: TestClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    real = nights.nights
    reasons = [f"reason {one}" for one in range(40)]
    undone = [nights.Cell(table="t", state="missing", reason=one) for one in reasons]
    stays = nights.Cell(table="t", state="served", reason="stays as it was served")
    cells = (*undone, stays)

    def shown(*arguments: Any) -> nights.Nights:
        page = real(*arguments)
        return replace(page, nights=(replace(page.nights[0], cells=cells),))

    monkeypatch.setattr(nights, "nights", shown)
    text = get(client, "tiny/nights").text
    told = re.findall('<td class="reason">([^<]*)</td>', text)
    assert told == [cell.reason for cell in cells]
    assert "10 more</summary>" in text


@pytest.mark.parametrize(
    "path", ["static/../app.py", "static/%2e%2e/app.py", "static/", "openapi.json", "docs"]
)
def test_nothing_but_our_own_files_is_served(client: TestClient, path: str) -> None:
    answer = get(client, path)
    assert answer.status_code in (404, 405)
    assert "import" not in answer.text


def test_scripts_and_styles_are_served(client: TestClient) -> None:
    for name in ("pages.js", "pages.css", "theme.js"):
        assert client.get(f"{PAGES_ADDRESS}/static/{name}").status_code == 200


def linked(page: str) -> dict[str, str]:
    """The scripts and styles of a page: of each its whole name in the address."""
    found = re.findall(r'(?:src|href)="[^"]*/static/(([a-z.]+)[^"]*)"', page)
    return {name: address for address, name in found}


def test_a_script_or_style_that_is_another_has_another_address(
    client: TestClient, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = shutil.copytree(pages._STATIC, tmp_path / "static") / "theme.js"
    for path in ("tiny/nights", "tiny/quality?day="):
        before = linked(get(client, path).text)
        assert before == linked(get(client, path).text)
        with monkeypatch.context() as upgraded:
            upgraded.setattr(pages, "_STATIC", changed.parent)
            changed.write_text(changed.read_text() + " ")
            after = linked(get(client, path).text)
        assert {name for name in before if before[name] != after[name]} == {"theme.js"}
        for address in before.values():
            assert client.get(f"{PAGES_ADDRESS}/static/{address}").status_code == 200


def test_a_search_keeps_the_order(
    client: TestClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.promote(DAYS[1])
    home.night(DAYS[1])
    real, asked = predictions.predictions, list[predictions.Asked]()

    def noted(*arguments: Any) -> predictions.Predictions:
        asked.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(predictions, "predictions", noted)
    for order in ("", "&ascending=1"):
        page = get(client, f"tiny/predictions?sort=id{order}").text
        form = re.search(r'<form method="get".*?</form>', page, re.DOTALL)
        assert form
        fields = dict(re.findall(r'<input[^>]* name="(\w+)" value="([^"]*)"', form[0]))
        get(client, f"tiny/predictions?{urlencode({**fields, 'words': 'UA'})}")
        clicked, searched = asked[-2:]
        assert searched == replace(clicked, words="UA")
    assert [one.is_ascending for one in asked] == [False, False, True, True]


def test_only_who_may_trigger_gets_the_buttons(client: TestClient, home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    seen = get(client, "tiny/nights", "viewer").text
    assert "data-trigger" not in seen
    assert "you may not trigger" in seen
    offered = get(client, "tiny/nights", "user").text
    # One for all, and one in the row of the night.
    assert offered.count(f'data-trigger="{DAYS[3]}"') == 2


def test_what_data_say_is_text(
    client: TestClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    real = nights.nights

    def with_carrier(*arguments: Any) -> nights.Nights:
        page = real(*arguments)
        first = page.nights[0]
        cells = [replace(cell, state="stale", reason=CARRIER) for cell in first.cells]
        night = replace(
            first,
            cells=tuple(cells),
            run_id=CARRIER,
            outcome=CARRIER,
        )
        return replace(page, nights=(night,))

    monkeypatch.setattr(nights, "nights", with_carrier)
    text = get(client, "tiny/nights").text
    assert "onerror=alert" in text
    assert "<img" not in text


def test_refused_rows_are_text_too(client: TestClient, home: Home) -> None:
    rows = pa.table(
        {
            "landed_date": [DAYS[0]],
            "source_file": [CARRIER],
            "source_line": [1],
            "reason": [CARRIER],
            "record": [CARRIER],
        }
    )
    write_deltalake(home.environment.table_path("tiny.readings_quarantine"), rows)
    text = get(client, "tiny/quality").text
    assert text.count("onerror=alert") == 3
    assert "<img" not in text


def test_a_home_without_a_night_has_no_empty_tables_and_one_night_is_no_nights(
    client: TestClient, home: Home
) -> None:
    assert "<h2>Coverage</h2>" not in get(client, "tiny/predictions").text
    assert "None has been written yet." in get(client, "tiny/sql").text
    assert "<h2>1 night</h2>" in get(client, "tiny/nights").text
    home.night(DAYS[2], first=DAYS[0])
    assert "<h2>4 nights</h2>" in get(client, "tiny/nights").text


def write_page(report: Path) -> None:
    report.parent.mkdir(parents=True)
    report.touch()


def test_files_that_were_refused_are_told_before_anything_was_judged(
    client: TestClient, home: Home
) -> None:
    report = home.environment.reports / "tiny" / "a" / "index.html"
    write_page(report)
    failure = {"table": "tiny.readings", "says": f"{CARRIER} is not a double"}
    row = {
        "run_id": "manual__1",
        "pipeline": "tiny",
        "stage": "ingest",
        "first_day": DAYS[0],
        "last_day": DAYS[0],
        "status": "refused",
        "started_at": datetime(2013, 1, 9, 1, 30, tzinfo=UTC),
        "metrics": json.dumps({"failures": [failure], "report": str(report)}),
    }
    ops.append(home.environment, "stage_runs", [row])
    text = get(client, "tiny/quality").text
    assert "Files that were refused (1)" in text
    assert f"tiny.readings: {html.escape(CARRIER)} is not a double" in text
    assert "2013-01-09 01:30" in text
    assert f'href="{REPORTS_ADDRESS}/tiny/a/index.html"' in text


def test_rows_that_are_not_shown_are_a_statement_away(client: TestClient, home: Home) -> None:
    rows = pa.table(
        {
            "landed_date": [DAYS[0]] * 250,
            "source_file": ["a.csv"] * 250,
            "source_line": list(range(250)),
            "reason": ["a"] * 250,
            "record": ["b"] * 250,
        }
    )
    write_deltalake(home.environment.table_path("tiny.readings_quarantine"), rows)
    text = get(client, f"tiny/quality?quarantine=tiny.readings_quarantine&day={DAYS[0]}").text
    assert "250 rows, the newest 200." in text
    link = re.search(rf'href="{PAGES_ADDRESS}/(tiny/sql[^"]*)">The others', text)
    assert link
    offered = get(client, html.unescape(link[1])).text
    statement = re.search(r"<textarea[^>]*>(.*)</textarea>", offered, re.DOTALL)
    assert statement
    found = ask(client, html.unescape(statement[1])).json()["rows"]
    assert [row[2] for row in found] == list(range(200, 250))
    # Whatever stands in an address.
    assert "<img" not in get(client, f"tiny/sql?statement={quote('</textarea>' + CARRIER)}").text


def test_days_of_a_quarantine_that_are_not_shown_are_counted(
    client: TestClient, home: Home
) -> None:
    days = [DAYS[0] + timedelta(days=number) for number in range(23)]
    rows = pa.table(
        {
            "landed_date": days,
            "source_file": ["a.csv"] * len(days),
            "source_line": [1] * len(days),
            "reason": ["a"] * len(days),
            "record": ["b"] * len(days),
        }
    )
    write_deltalake(home.environment.table_path("tiny.readings_quarantine"), rows)
    text = get(client, "tiny/quality").text
    assert f"day={days[3]}#" in text
    assert f"day={days[2]}#" not in text
    assert "and 3 days before" in text


def test_all_checks_that_do_not_hold_are_a_statement_away(client: TestClient, home: Home) -> None:
    row = {
        "pipeline": "tiny",
        "table_name": "tiny.readings",
        "first_day": DAYS[0],
        "last_day": DAYS[0],
        "expectation": "expect_between",
        "success": False,
        "severity": "critical",
        "detail": "{}",
        "checked_at": datetime.now(UTC),
    }
    columns = map(str, range(quality.FAILURES_SHOWN + 1))
    of_tiny = [{**row, "column_name": column} for column in columns]
    other = {**row, "pipeline": "flights", "table_name": "flights.flights"}
    ops.append(home.environment, "check_results", [*of_tiny, other])
    text = get(client, "tiny/quality").text
    assert f"Checks that do not hold ({len(of_tiny)})" in text
    link = re.search(rf'href="{PAGES_ADDRESS}/(tiny/sql[^"]*)">All of them', text)
    assert link
    offered = get(client, html.unescape(link[1])).text
    statement = re.search(r"<textarea[^>]*>(.*)</textarea>", offered, re.DOTALL)
    assert statement
    found = ask(client, html.unescape(statement[1])).json()["rows"]
    assert len(found) == len(of_tiny)


def test_a_check_that_does_not_hold_leads_to_what_its_report_says(
    client: TestClient, home: Home
) -> None:
    about = {"expectation": "expect_between", "success": False, "severity": "critical"}
    report = home.environment.reports / "tiny" / "a" / "r" / "index.html"
    write_page(report)
    row = {
        **about,
        "pipeline": "tiny",
        "table_name": "tiny.readings",
        "first_day": DAYS[0],
        "last_day": DAYS[0],
        "column_name": CARRIER,
        "observed": "5",
        "detail": "{}",
        "report": str(report),
        "checked_at": datetime.now(UTC),
    }
    ops.append(home.environment, "check_results", [row])
    text = get(client, "tiny/quality").text
    link = re.search(r'href="([^"#]*)#([^"]*)" data-outside>report', text)
    assert link
    assert link[1] == f"{REPORTS_ADDRESS}/tiny/a/r/index.html"
    told = {"says": "", "observed": "5", "error": None, "examples": [], "way_out": None}
    check = {**about, **told, "column": CARRIER}
    found = report_page._finding({"table": "tiny.readings"}, check)
    anchor = re.search(r'id="([^"]*)"', found)
    assert anchor
    assert html.unescape(anchor[1]) == unquote(html.unescape(link[2]))


def test_a_year_of_nights_is_on_each_page(client: TestClient, flights: Environment) -> None:
    recorded_year.write(flights, FLIGHTS, YEAR)
    write_predictions(flights, FLIGHTS, YEAR, 900)
    for page in PAGES:
        # SQL reads the tables of all pipelines, of which one may not be seen.
        if page == "sql":
            continue
        answer = get(client, f"flights/{page}")
        assert answer.status_code == 200, answer.text
        assert str(YEAR.last) in answer.text, page


def test_what_was_judged_is_drawn_as_text(client: TestClient, home: Home) -> None:
    row = {
        "pipeline": "tiny",
        "table_name": "tiny.readings",
        "first_day": DAYS[0],
        "last_day": DAYS[0],
        "expectation": CARRIER,
        "column_name": CARRIER,
        "severity": "critical",
        "success": False,
        "observed": "5",
        "detail": json.dumps(
            {
                "says": CARRIER,
                "least": 1,
                "examples": [{"a": CARRIER}],
            }
        ),
        "checked_at": datetime.now(UTC),
    }
    ops.append(home.environment, "check_results", [row])
    text = get(client, "tiny/quality").text
    assert '<circle class="dot"' in text
    assert "at least 1" in text
    assert "<img" not in text


def test_predictions_and_what_was_asked_are_text(
    client: TestClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.promote(DAYS[1])
    home.night(DAYS[1])
    columns = ("id", "prediction", "model_version")
    rows = [(CARRIER, 0.25, CARRIER), (CARRIER, 0.000012345, CARRIER)]
    monkeypatch.setattr(predictions, "_of_day", lambda *_: (columns, rows))
    text = get(client, f"tiny/predictions?words={CARRIER}").text
    assert "0.2500" in text
    # Of a label in a small unit four decimals would leave nothing.
    assert ">1.234e-05<" in text
    assert text.count("onerror=alert") > 2
    assert "<img" not in text
    assert get(client, "tiny/predictions?day=2012-01-01").status_code == 400
    assert get(client, "tiny/predictions?day=yesterday").status_code == 422


@pytest.mark.parametrize(
    "values",
    [[], [None], [float("nan"), None]],
)
def test_a_day_without_a_value_is_told(
    client: TestClient, home: Home, monkeypatch: pytest.MonkeyPatch, values: list[float | None]
) -> None:
    home.promote(DAYS[1])
    home.night(DAYS[1])
    rows = [(number, value, "1") for number, value in enumerate(values)]
    columns = ("id", "prediction", "model_version")
    monkeypatch.setattr(predictions, "_of_day", lambda *_: (columns, rows))
    answer = get(client, "tiny/predictions")
    assert answer.status_code == 200
    assert f"{len(values)} predictions" in answer.text
    assert "no prediction has a value" in answer.text


def test_why_a_prediction_came_out_so_is_asked_of_the_command(
    client: TestClient, flights: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def said(words: Sequence[str]) -> str:
        asked.append(words)
        return json.dumps([{"feature": "x", "attribution": 0.5}])

    monkeypatch.setattr(pages, "said", said)
    question = {"night": "2013-01-02", "key": {"carrier": "--format=table"}}
    answer = post(client, "explanation", question, "viewer")
    assert answer.json() == [{"feature": "x", "attribution": 0.5}]
    # A value is text, whatever it looks like: it is part of one word with its column.
    words = ["--date", "2013-01-02", "--format", "json", "--key", "carrier=--format=table"]
    assert asked == [["explain", "flights", *words]]


def test_only_some_are_explained_at_one_time_and_who_asks_then_is_told(
    client: TestClient, flights: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    asked: list[Sequence[str]] = []
    question = {"night": "2013-01-02", "key": {"carrier": "UA"}}

    def said(words: Sequence[str]) -> str:
        """Ask once more while this one is being made, as somebody else would."""
        asked.append(words)
        answers.append(post(client, "explanation", question, "viewer"))
        return "[]"

    monkeypatch.setattr(pages, "said", said)
    answers.append(post(client, "explanation", question, "viewer"))
    assert [answer.status_code for answer in answers] == [503, 200, 200]
    assert len(asked) == 2
    assert "ask again" in answers[0].json()["detail"]
    # Whatever happened, there is room again.
    monkeypatch.setattr(pages, "said", lambda words: 1 / 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            post(client, "explanation", question, "viewer")


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ({"night": "2013-01-02", "key": {"--by": "x"}}, 400),
        ({"night": "2013-01-02", "key": {}}, 422),
        ({"night": "yesterday", "key": {"carrier": "UA"}}, 422),
    ],
)
def test_what_names_no_prediction_is_not_asked(
    client: TestClient,
    flights: Environment,
    monkeypatch: pytest.MonkeyPatch,
    question: Any,
    status: int,
) -> None:
    monkeypatch.setattr(pages, "said", lambda words: pytest.fail(f"asked: {words}"))
    assert post(client, "explanation", question, "viewer").status_code == status


def test_the_key_of_a_row_is_text_in_its_button(
    client: TestClient, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.promote(DAYS[1])
    home.night(DAYS[1])
    odd = "a\"'<b>"
    monkeypatch.setattr(
        predictions,
        "_of_day",
        lambda *_: (("id", "prediction"), [(odd, 0.5)]),
    )
    text = get(client, "tiny/predictions").text
    found = re.search(r'data-why="([^"]*)"', text)
    assert found
    assert json.loads(html.unescape(found[1]))[0] == odd


def test_a_model_that_has_a_card_leads_to_it(client: TestClient, flights: Environment) -> None:
    assert "Its card" not in get(client, "flights/models").text
    version = serving(flights)
    card = flights.cards("flights") / version / "index.html"
    card.parent.mkdir(parents=True)
    card.write_text("a card")
    text = get(client, "flights/models").text
    assert f'href="{REPORTS_ADDRESS}/flights/models/{version}/index.html">Its card</a>' in text


def test_a_version_leads_to_mlflow_where_its_address_is_known(
    client: TestClient, flights: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def links() -> set[str]:
        return set(re.findall(r'<a [^>]*href="([^"]*)"[^>]*>MLflow</a>', get(client, page).text))

    monkeypatch.delenv("NIGHTSHIFT_MLFLOW_PORT", raising=False)
    page = "flights/models"
    own = f"http://127.0.0.1:{flights.mlflow_port}/#/models/flights/versions/"
    assert links() == {f"{own}{version}" for version in "123"}
    assert 'target="_blank" rel="noopener noreferrer">MLflow</a>' in get(client, page).text
    # Of people elsewhere the address of this machine is another's.
    monkeypatch.setenv("NIGHTSHIFT_AIRFLOW_URL", "https://nights.example.org")
    assert links() == set()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://eve:secret@models.example.org/a&quot;b/")
    assert "secret" not in get(client, page).text
    server = "https://models.example.org/a&amp;quot;b/#/models/flights/versions/"
    assert links() == {f"{server}{version}" for version in "123"}


def event(
    what: str,
    version: str,
    night: int,
    **more: Any,
) -> dict[str, Any]:
    """A row of `ops.model_events` about the flights."""
    return {
        "pipeline": "flights",
        "as_of": date(2013, 2, night),
        "event": what,
        "model_version": version,
        "created_at": datetime(2013, 3, night, tzinfo=UTC),
        "who": "the gate",
        **more,
    }


@pytest.fixture
def flights(client: TestClient, home: Home, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Two models of the flights have served, and a third one waits."""
    monkeypatch.undo()
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(home.environment.home))
    monkeypatch.setattr(security, "get_auth_manager", Manager)
    monkeypatch.setattr(pages, "get_auth_manager", Manager)
    monkeypatch.setattr(security.DagModel, "get_team_name", lambda dag_id: None)
    rows = [
        event("promoted", "1", 1, reason=CARRIER),
        event(
            "promoted",
            "2",
            2,
            metrics=json.dumps({"candidate": {"auc": 0.75}}),
        ),
        event("awaiting", "3", 3),
    ]
    ops.append(home.environment, "model_events", rows)
    return home.environment


def post(
    client: TestClient,
    path: str,
    body: Any,
    who: str,
    **headers: str,
) -> Any:
    sent = {"Authorization": f"Bearer {who}", **headers}
    return client.post(f"{PAGES_ADDRESS}/flights/{path}", json=body, headers=sent)


def serving(environment: Environment) -> str:
    return model_events.turns(environment, "flights")[-1].version


def test_no_pipeline_has_the_name_of_a_fixed_part_of_an_address() -> None:
    routes = pages.make_app().routes
    first = [str(route.path).split("/")[1] for route in routes]  # type: ignore[attr-defined]
    fixed = {part for part in first if part and not part.startswith("{")}
    assert fixed == {"static", "sql"}
    assert fixed | set(PAGES) <= RESERVED_PIPELINES


BACK = {"what": "rollback", "version": "1", "why": "--to=2 is worse"}


def test_models_are_shown_with_who_and_why(client: TestClient, flights: Environment) -> None:
    text = get(client, "flights/models", "editor").text
    assert 'Version <b class="state done">2</b> serves' in text
    assert '<option value="1">' in text
    assert "Version 3 awaits a person" in text
    assert "0.7500" in text
    assert "onerror=alert" in text
    assert "<img" not in text
    assert "<button" not in get(client, "flights/models", "user").text


def test_who_lets_a_model_serve_has_the_evidence_before_them(
    client: TestClient, flights: Environment
) -> None:
    measured = {
        "metrics": ["auc"],
        "candidate": {"auc": 0.7123},
        "champion": {"auc": 0.7012},
        "baselines": {"rate": {"auc": 0.6543}, "usual": {"auc": 0.000012345}},
    }
    said = {"reason": f"Better {CARRIER}", "rival_version": "2", "metrics": json.dumps(measured)}
    ops.append(flights, "model_events", [event("awaiting", "4", 4, **said)])
    card = flights.cards("flights") / "4" / "index.html"
    card.parent.mkdir(parents=True)
    card.write_text("a card")
    text = get(client, "flights/models", "editor").text
    waits = re.search(
        r'<section class="waits">(?:(?!</section>).)*Version 4.*?</section>', text, re.DOTALL
    )
    assert waits
    for told in ("0.7123", "champion 2", "0.7012", "rate", "0.6543", "Better &lt;img", "<form"):
        assert told in waits[0]
    assert "1.234e-05" in waits[0]
    assert f'href="{REPORTS_ADDRESS}/flights/models/4/index.html">Its card</a>' in waits[0]
    assert "<img" not in text
    # Who may not decide reads the same.
    assert "0.6543" in get(client, "flights/models", "viewer").text.partition("History")[0]


def test_the_deadline_of_an_approval_is_shown_and_after_it_nobody_is_offered_to_approve(
    client: TestClient, flights: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def declare(hours: float) -> None:
        declared = replace(FLIGHTS.promotion, needs_approval=True, approval_hours=hours)
        pipeline = replace(FLIGHTS, promotion=declared)
        monkeypatch.setattr(pages.catalog, "pipeline", lambda name: pipeline)

    declare(1_000_000)
    text = get(client, "flights/models", "editor").text
    assert re.search(r"until 2\d\d\d-\d\d-\d\d \d\d:\d\d UTC<", text)
    assert '<button value="approve">' in text
    declare(1)
    text = get(client, "flights/models", "editor").text
    assert "UTC: that is over, and the next night says so" in text
    assert '<button value="approve">' not in text
    assert '<button value="reject">' in text


def test_who_may_edit_the_dag_rolls_back_in_their_own_name(
    client: TestClient, flights: Environment
) -> None:
    answer = post(client, "models", BACK, "editor")
    assert answer.status_code == 200, answer.text
    assert "Version 1 of 'flights' serves from now on" in answer.json()["says"]
    assert serving(flights) == "1"
    last = model_events.events(flights, "flights")[-1]
    assert (last["who"], last["reason"]) == ("editor", "--to=2 is worse")


def test_a_page_that_shows_another_champion_rolls_nothing_back(
    client: TestClient, flights: Environment
) -> None:
    seen = re.search(r'data-serves="(\d+)"', get(client, "flights/models", "editor").text)
    assert seen is not None
    ops.append(flights, "model_events", [event("promoted", "5", 5)])
    shown = {**BACK, "serves": seen.group(1)}
    answer = post(client, "models", shown, "editor")
    assert answer.status_code == 400
    assert "Version 5 of 'flights' serves by now, and no more version 2" in answer.json()["detail"]
    assert serving(flights) == "5"
    again = post(client, "models", {**BACK, "serves": "5"}, "editor")
    assert (again.status_code, serving(flights)) == (200, "1")


def test_who_may_edit_the_dag_approves(client: TestClient, flights: Environment) -> None:
    answer = post(client, "models", {"what": "approve", "version": "3", "why": "good"}, "editor")
    assert (answer.status_code, serving(flights)) == (200, "3")
    again = post(client, "models", {"what": "reject", "version": "3", "why": "bad"}, "editor")
    assert again.status_code == 400
    assert "awaits nobody" in again.json()["detail"]


@pytest.mark.parametrize("who", ["viewer", "user", "stranger"])
def test_nobody_else_decides(client: TestClient, flights: Environment, who: str) -> None:
    assert post(client, "models", BACK, who).status_code == 403
    assert serving(flights) == "2"


def test_nobody_decides_who_is_not_signed_in(client: TestClient, flights: Environment) -> None:
    answer = client.post(f"{PAGES_ADDRESS}/flights/models", json=BACK)
    assert (answer.status_code, serving(flights)) == (401, "2")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_decides_nothing_with_the_cookie_of_a_person(
    client: TestClient, flights: Environment, headers: dict[str, str]
) -> None:
    client.cookies.set("_token", "editor")
    sent = {"Content-Type": "application/json", **headers}
    place = f"{PAGES_ADDRESS}/flights/models"
    answer = client.post(place, content=json.dumps(BACK), headers=sent)
    assert (answer.status_code, serving(flights)) == (403, "2")


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": "--to=1"},
        {"version": ""},
        {"why": ""},
        {"what": "promote"},
    ],
)
def test_what_is_no_decision_is_refused(
    client: TestClient, flights: Environment, wrong: dict[str, str]
) -> None:
    answer = post(client, "models", {**BACK, **wrong}, "editor")
    assert answer.status_code == 422
    (name,) = wrong
    assert answer.text.startswith(f"{name}: ")
    assert serving(flights) == "2"


@pytest.mark.parametrize(
    ("why", "says"),
    [
        (r"a\u0000b", "A text has a character that no command can take."),
        (r"a\ud800b", "why: Input should be a valid string"),
    ],
)
def test_words_that_no_command_can_take_are_refused(
    client: TestClient, flights: Environment, why: str, says: str
) -> None:
    sent = {"Authorization": "Bearer editor", "Content-Type": "application/json"}
    words = json.dumps({**BACK, "why": "WORDS"}).replace("WORDS", why)
    answer = client.post(f"{PAGES_ADDRESS}/flights/models", content=words, headers=sent)
    assert answer.status_code in (400, 422)
    assert says in answer.text
    assert serving(flights) == "2"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("predictions?day=yesterday", "day"),
        ("predictions?ascending=<b>", "ascending"),
        ("quality?day=", "day"),
    ],
)
def test_what_of_an_address_is_no_value_is_told_on_a_page(
    client: TestClient, address: str, name: str
) -> None:
    answer = get(client, f"tiny/{address}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert f"<pre>{name}: " in answer.text
    assert "<b>" not in answer.text


def ask(client: TestClient, statement: str, who: str = "viewer", **more: Any) -> Any:
    sent = {"Authorization": f"Bearer {who}"}
    body = {"statement": statement, **more}
    return client.post(f"{PAGES_ADDRESS}/sql", json=body, headers=sent)


def test_who_sees_all_pipelines_asks_with_sql(client: TestClient, home: Home) -> None:
    home.night(DAYS[2], first=DAYS[0])
    answer = ask(client, "SELECT id FROM tiny.readings ORDER BY id LIMIT 2")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "columns": ["id"],
        "rows": [[0], [1]],
        "is_cut": False,
        "notes": "",
    }
    assert "tiny.readings" in get(client, "tiny/sql").text
    wrong = ask(client, "SELECT 1 FROM nothing")
    assert (wrong.status_code, "nothing does not exist" in wrong.text) == (400, True)


def test_a_file_may_have_more_rows_than_a_page(client: TestClient) -> None:
    many = "SELECT range FROM range(1500)"
    assert len(ask(client, many).json()["rows"]) == 1000
    assert len(ask(client, many, is_for_file=True).json()["rows"]) == 1500


def test_only_some_statements_run_at_one_time_and_who_asks_then_is_told_at_once(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    begun = []

    def run(*_: Any, **__: Any) -> Any:
        """Ask once more while this one runs, as somebody else would."""
        begun.append(1)
        answers.append(ask(client, "SELECT 1"))
        return SimpleNamespace(returncode=0, stdout=b"{}")

    monkeypatch.setattr(statements.subprocess, "run", run)
    began = time.monotonic()
    answers.append(ask(client, "SELECT 1"))
    assert [answer.status_code for answer in answers] == [503, 200, 200]
    assert len(begun) == 2
    assert time.monotonic() - began < statements.SECONDS / 2
    assert answers[0].json()["detail"] == (
        "Other statements are running: ask again in some seconds."
    )
    # Whatever happened, there is room again.
    monkeypatch.setattr(statements.subprocess, "run", lambda *_, **__: 1 / 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            ask(client, "SELECT 1")


def test_who_may_not_see_a_pipeline_asks_nothing_with_sql(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.catalog, "names", lambda: ["other", "tiny"])
    assert ask(client, "SELECT 1").status_code == 403
    assert get(client, "tiny/sql").status_code == 403
    assert get(client, "tiny/nights").status_code == 200


def test_nobody_asks_with_sql_who_is_not_signed_in(client: TestClient) -> None:
    body = {"statement": "SELECT 1"}
    assert client.post(f"{PAGES_ADDRESS}/sql", json=body).status_code == 401
    client.cookies.set("_token", "viewer")
    place = f"{PAGES_ADDRESS}/sql"
    assert (
        client.post(place, json=body, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    )
    assert client.post(place, content=json.dumps(body)).status_code == 403
    assert client.post(place, json=body).status_code == 200


def test_a_fault_of_the_home_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_AIRFLOW_PORT", "seven")
    answer = get(client, "tiny/nights")
    assert answer.status_code == 400
    assert "NIGHTSHIFT_AIRFLOW_PORT=" in answer.text


def test_what_else_keeps_a_page_from_being_shown_is_told_with_the_way_out(
    client: TestClient, home: Home
) -> None:
    rows = pa.table(
        {
            "landed_date": [DAYS[0]],
            "source_file": ["a.csv"],
            "source_line": [1],
            "reason": ["b"],
            "record": ["c"],
        }
    )
    name = "tiny.readings_quarantine"
    table = Path(home.environment.table_path(name))
    write_deltalake(str(table), rows)
    one_day = f"tiny/quality?quarantine={name}&day="
    assert f"No row of {name} was refused on {DAYS[1]}." in get(client, one_day + str(DAYS[1])).text
    (table / "_delta_log" / f"{0:020}.json").write_bytes(b"")
    assert "None of them can be opened." in get(client, "tiny/quality").text
    # As a server, which goes on after a fault.
    server = TestClient(client.app, raise_server_exceptions=False)
    answer = get(server, one_day + str(DAYS[0]))
    assert answer.status_code == 500
    assert "The log of a table is broken: " in answer.text
    assert "delete it: the next night makes anew" in answer.text
    assert answer.headers["content-security-policy"]
    assert get(server, "tiny/sql").status_code == 200


def test_the_pages_need_no_heavy_library() -> None:
    script = (
        "import sys; from plugins.pages import app; app.make_app(); "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"pyspark", "tensorflow", "keras", "mlflow", "feast", "great_expectations", "horovod"}
    assert heavy.isdisjoint(ended.stdout.split())
    assert "deltalake" in ended.stdout.split()
