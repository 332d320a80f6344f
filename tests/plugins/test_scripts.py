"""What the pages' script does, in a real Chromium, with answers that a test gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from playwright.sync_api import Page, Route, expect, sync_playwright

from dags.nights import night_of
from dags.tasks import plan_command
from jobs.__main__ import parser
from jobs.lake import model_events
from jobs.pages.dictionary import Checked, dictionary_of
from pipelines import replay
from pipelines.environment import PAGES, Environment
from pipelines.flights import PIPELINE as FLIGHTS
from plugins.pages import app as pages
from tests.dags.conftest import context
from tests.e2e.test_ui import CHROMIUM, FLAGS
from tests.jobs.tiny_home import DAYS, TINY
from tests.plugins import test_dictionary_page, test_pages

pytestmark = test_dictionary_page.pytestmark
address = test_dictionary_page.address
Open = Callable[..., Page]
"""Shows a page to somebody: that of SQL, or another."""


@pytest.fixture
def browser_of(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """One browser, to which people sign in after each other."""
    monkeypatch.setattr(pages.catalog, "names", lambda: ["flights"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(has_touch=True)

        def opened(person: str, name: str = "sql") -> Page:
            cookie = {"name": "_token", "value": person, "url": address}
            page.context.add_cookies([cookie])
            page.goto(address.replace("/dictionary", f"/{name}"))
            return page

        yield opened
        browser.close()


def answers(
    page: Page,
    rows: list[list[Any]],
    status: int = 200,
    notes: str = "",
) -> None:
    """Statements are answered so from now on."""
    told = {
        "columns": [f"c{number}" for number in range(len(rows[0]))],
        "rows": rows,
        "is_cut": False,
        "notes": notes,
        "detail": "no such column",
    }

    def answer(route: Route) -> None:
        route.fulfill(status=status, content_type="application/json", body=json.dumps(told))

    page.unroute("**/pages/sql")
    page.route("**/pages/sql", answer)


def ask(page: Page, statement: str) -> None:
    page.fill("#statement", statement)
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".said")).not_to_have_text("Running …")


def listed(page: Page) -> list[str]:
    """The past statements that are offered."""
    return page.locator("#history option").all_inner_texts()[1:]


def test_a_file_has_no_formula_and_tells_null_from_an_empty_text(browser_of: Open) -> None:
    page = browser_of("viewer")
    answers(
        page,
        [
            ["=1+1", "+1 (2)", "-x", "@sum(a)", "\t=1", "\r=1"],
            [-5, "-1.5", "+1e-7", -0.25, "-", "a=b"],
            [None, "", 'a "b"', "a,b", "a;=b", "é"],
        ],
    )
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    kept = Path(download.value.path()).read_bytes().decode()
    assert kept.split("\n") == [
        "c0,c1,c2,c3,c4,c5",
        "'=1+1,'+1 (2),'-x,'@sum(a),\"'\t=1\",\"'\r=1\"",
        "-5,-1.5,+1e-7,-0.25,'-,a=b",
        ',"","a ""b""","a,b","a;=b",é',
        "",
    ]


def test_what_an_answer_leaves_out_is_told_beside_it(browser_of: Open) -> None:
    page = browser_of("viewer")
    answers(page, [[1]], notes="toy.<b>readings</b> is left out")
    ask(page, "SHOW ALL TABLES")
    said = re.compile(r"^1 row in [\d.]+ s\. toy\.<b>readings</b> is left out$")
    expect(page.locator(".said")).to_have_text(said)


def test_past_statements_are_those_of_the_person(browser_of: Open) -> None:
    page = browser_of("viewer")
    page.evaluate("localStorage.setItem('nightshift-sql-history', '[\"SELECT 0\"]')")
    answers(page, [[1]])
    ask(page, "SELECT 1")
    assert listed(page) == ["SELECT 1"]
    assert listed(browser_of("user")) == []
    ask(page, "SELECT 2")
    assert listed(browser_of("viewer")) == ["SELECT 1"]
    # What belonged to nobody is there no more.
    assert page.evaluate("localStorage.getItem('nightshift-sql-history')") is None


def test_a_statement_that_failed_is_listed_too(browser_of: Open) -> None:
    page = browser_of("viewer")
    answers(page, [[1]], status=400)
    ask(page, "SELECT late FROM flights")
    expect(page.locator(".said")).to_have_text("no such column")
    assert listed(page) == ["SELECT late FROM flights"]


def test_rows_are_shown_though_the_browser_keeps_nothing(browser_of: Open) -> None:
    page = browser_of("viewer")
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full') } }")
    answers(page, [[1]])
    ask(page, "SELECT 1")
    expect(page.locator("#result tbody tr")).to_have_text(["1"])
    expect(page.locator(".said")).to_contain_text("1 row in")


def test_a_point_is_told_to_a_mouse_a_finger_and_a_key(browser_of: Open) -> None:
    page = browser_of("viewer", "quality")
    chart = page.locator("svg.chart")
    names = [one.text_content() for one in chart.locator(".point title").all()]
    readout = page.locator("#readout")
    assert len(names) == 6
    chart.locator(".point").nth(1).hover()
    expect(readout).to_have_text(f"{chart.locator('> title').text_content()}: {names[1]}")
    page.mouse.move(1, 1)
    expect(readout).to_be_empty()
    chart.locator(".point").nth(3).tap()
    expect(readout).to_contain_text(f": {names[3]}")
    # No further than the last.
    for _ in range(3):
        chart.press("ArrowRight")
    expect(readout).to_contain_text(f": {names[5]}")
    chart.press("ArrowLeft")
    expect(readout).to_contain_text(f": {names[4]}")
    strip = page.locator("summary svg.strip").first
    strip.focus()
    expect(readout).to_contain_text(f"{strip.locator('> title').text_content()}: ")
    expect(page.locator(".point.told")).to_have_count(1)


def test_a_decision_that_is_clicked_twice_is_asked_once(browser_of: Open) -> None:
    page = browser_of("editor", "models")
    asked: list[Route] = []
    # A method of a list cannot be a handler.
    page.route("**/pages/flights/models", lambda route: asked.append(route))
    form = page.locator("form[data-decide=rollback]")
    form.get_by_label("Why").fill("worse on Mondays")
    back = form.get_by_role("button", name="Roll back")
    back.dblclick()
    expect(back).to_be_disabled()
    (only,) = asked
    only.fulfill(status=400, content_type="application/json", body='{"detail": "Not by you."}')
    expect(page.locator(".said")).to_have_text("Not done: Not by you.")
    back.click()
    page.wait_for_function("document.querySelector('.said').textContent == '…'")
    asked[-1].fulfill(content_type="application/json", body='{"says": "Done."}')
    expect(page.locator(".said")).to_have_text("Done.")
    expect(back).to_be_disabled()


@pytest.mark.parametrize(
    ("is_replayed", "more"),
    [
        (True, {"from_start": True}),
        (False, {}),
    ],
)
def test_a_night_is_triggered_as_the_page_was_asked(
    browser_of: Open, monkeypatch: pytest.MonkeyPatch, is_replayed: bool, more: dict[str, bool]
) -> None:
    pipeline = FLIGHTS if is_replayed else replace(FLIGHTS, replay=None)
    monkeypatch.setattr(pages.catalog, "pipeline", lambda name: pipeline)
    begun = replay.file_of(FLIGHTS, Environment.read())
    begun.parent.mkdir(parents=True)
    begun.write_text(replay.beginning(FLIGHTS, datetime.now(UTC)).to_json())
    page = browser_of("user", "nights")
    page.route("**/dags/flights/dagRuns", lambda route: None)
    # Of all that is missing, and of the last night.
    buttons = page.locator("button[data-trigger]").all()[:2]
    assert len(buttons) == 2
    for button in buttons:
        day = button.get_attribute("data-trigger")
        with page.expect_request("**/dags/flights/dagRuns") as request:
            button.click()
        asked = request.value.post_data_json
        assert asked == {"logical_date": None, "conf": {"date": day, **more}}
        night = night_of(pipeline, context(**asked["conf"]))
        argv = plan_command(pipeline, night, "an_id", asked["conf"], Path("result.json"))
        assert parser().parse_args(argv).from_start == is_replayed


def test_no_long_word_of_the_data_makes_a_page_wider_than_its_screen(
    browser_of: Open, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = replace(TINY, name="n" * 63, title="t" * 200, last_day=DAYS[0])
    monkeypatch.setattr(pages.catalog, "names", lambda: [named.name])
    monkeypatch.setattr(pages.catalog, "pipeline", lambda name: named)
    monkeypatch.setattr(test_pages, "DAGS", (named.name,))
    long = {"reason": "r" * 300, "who": "w" * 300}
    about = {"pipeline": named.name, "as_of": DAYS[0], "event": "awaiting", "model_version": "1"}
    model_events.record(Environment.read(), [{**about, **long}])
    page = browser_of("viewer")
    of_pipeline = address.replace("/flights/dictionary", f"/{named.name}/")
    page.context.add_cookies([{"name": "_token", "value": "viewer", "url": of_pipeline}])
    for width in (390, 1300):
        page.set_viewport_size({"width": width, "height": 800})
        for name in PAGES:
            page.goto(f"{of_pipeline}{name}")
            expect(page.get_by_role("heading", name=PAGES[name], exact=True)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.goto(f"{of_pipeline}models")
    cell = page.locator("td", has_text=long["who"]).bounding_box()
    assert cell is not None
    assert cell["width"] < 600, "the columns after it are in sight"


def test_no_long_word_of_a_declaration_makes_a_page_wider_than_its_screen(
    browser_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Environment.read().table_path("flights.weather")
    day = pa.array([DAYS[0]])
    rows = pa.table({"landed_date": day, "c" * 100: [39.0]})
    write_deltalake(place, rows, mode="append", schema_mode="merge")
    known = dictionary_of(Environment.read(), FLIGHTS)
    checked = Checked(
        at=datetime.now(UTC),
        says=("s" * 300,),
        failing=0,
        warnings=0,
    )
    entries = tuple(replace(one, checked=checked) for one in known.entries)
    found = replace(known, entries=entries)
    monkeypatch.setattr(pages.dictionary, "dictionary_of", lambda *_: found)
    for name, text in {"sql": "c" * 100, "dictionary": "s" * 300}.items():
        page = browser_of("viewer", name)
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
        for width in (390, 1300):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
