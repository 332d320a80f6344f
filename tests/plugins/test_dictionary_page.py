"""The page of the dictionary in a real Chromium: read, searched, and followed from the picture."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
import uvicorn
from airflow.api_fastapi.core_api import security
from deltalake import write_deltalake
from fastapi import FastAPI
from playwright.sync_api import Page, expect, sync_playwright

from bench import recorded_year
from bench.recorded_year import YEAR
from jobs.lake import ops
from pipelines.environment import PAGES_ADDRESS, ROOT, Environment
from pipelines.flights import PIPELINE as FLIGHTS
from plugins.pages import app as pages
from tests.conftest import free_port
from tests.e2e.test_ui import CHROMIUM, FLAGS
from tests.plugins.test_pages import Manager

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="no 'chromium' on PATH")
SCREENSHOTS = ROOT / "artifacts" / "pages"
_WIDE = {"width": 1300, "height": 900}
_PHONE = {"width": 390, "height": 800}


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the page, of a home with five nights on record."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    monkeypatch.setattr(security, "get_auth_manager", Manager)
    monkeypatch.setattr(pages, "get_auth_manager", Manager)
    monkeypatch.setattr(security.DagModel, "get_team_name", lambda dag_id: None)
    environment = Environment.read()
    rows = pa.table(
        {
            "landed_date": pa.array([date(2013, 1, 5)]),
            "temp": [39.0],
        }
    )
    place = environment.table_path("flights.weather")
    write_deltalake(place, rows, partition_by=["landed_date"])
    recorded_year.write(environment, FLIGHTS, replace(YEAR, last=date(2013, 1, 5)))
    ops.append(environment, "costs", [])
    whole = FastAPI()
    # As Airflow has one.
    whole.add_api_route("/favicon.ico", lambda: None)
    whole.mount(PAGES_ADDRESS, pages.make_app())
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(whole, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}{PAGES_ADDRESS}/flights/dictionary"
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """The page, to somebody who is signed in, with no fault of a script or of the policy."""
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport=_WIDE)
        page.context.add_cookies([{"name": "_token", "value": "viewer", "url": address}])
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text))
        page.goto(address)
        expect(page.get_by_role("heading", name="Data dictionary", exact=True)).to_be_visible()
        yield page
        browser.close()
    assert faults == []


def _shot(page: Page, name: str, *, whole: bool = True) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)


def test_a_search_leaves_the_columns_that_have_the_words(page: Page) -> None:
    page.fill("#find", "weather fahrenheit")
    weather = page.locator('details[id="flights.weather"]')
    expect(weather.locator("tbody.columns tr:visible")).to_have_count(1)
    expect(weather.locator("tbody.columns tr:visible")).to_contain_text("temp")
    expect(page.locator('details[id="flights.planes"]')).to_be_hidden()
    expect(page.locator("details.described tbody.columns tr:visible")).to_have_count(1)
    expect(page.locator("#found")).to_have_text("1 column")
    _shot(page, "dictionary-search")
    page.fill("#find", "")
    expect(page.locator('details[id="flights.planes"]')).to_be_visible()
    expect(page.locator("tbody.columns tr:visible")).to_have_count(0)
    expect(page.locator("#found")).to_be_empty()


def test_a_search_asks_no_server(page: Page) -> None:
    page.context.set_offline(True)
    page.fill("#find", "late_probability")
    expect(page.locator('details[id="flights.predictions"] tbody tr:visible')).to_have_count(1)


def test_a_table_of_the_picture_leads_to_what_is_told_of_it(page: Page) -> None:
    _shot(page, "dictionary")
    page.locator(".lineage a", has_text="predictions").click()
    told = page.locator('details[id="flights.predictions"]')
    expect(told.locator("tbody.columns")).to_be_visible()
    expect(told).to_contain_text("2013-01-06: 900 rows, published 2013-01-06 09:00 UTC")
    told.get_by_role("link", name="flights.scoring").click()
    expect(page.locator('details[id="flights.scoring"] tbody.columns')).to_be_visible()
    _shot(page, "dictionary-open")


def test_it_is_readable_on_a_phone_in_the_dark(page: Page) -> None:
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.set_viewport_size(_PHONE)
    page.goto(f"{page.url.partition('#')[0]}#flights.predictions")
    page.reload()
    expect(page.locator('details[id="flights.predictions"] tbody.columns')).to_be_visible()
    _shot(page, "dictionary-phone-dark", whole=False)
    # Only tables and the picture are wider than the screen, and scroll by themselves.
    assert page.evaluate("document.documentElement.scrollWidth") <= _PHONE["width"]
