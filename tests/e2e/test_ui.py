"""What a person sees: Airflow's own UI in a real Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from jobs.services.secrets import secret
from pipelines.stages import STAGES
from tests.e2e.conftest import NIGHT, Installation

pytestmark = [
    pytest.mark.timeout(2400),  # the first test waits for the start and the load
    pytest.mark.skipif(not shutil.which("chromium"), reason="no 'chromium' on PATH"),
]
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
RUN_MILLISECONDS = 600_000


@pytest.fixture
def page(installation: Installation) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(
            viewport={"width": 1500, "height": 950},
            base_url=f"http://127.0.0.1:{installation.environment.airflow_port}",
        )
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def log_in(page: Page, installation: Installation) -> None:
    page.goto("/")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", secret(installation.environment, "admin_password"))
    page.click("button[type=submit]")
    expect(page.get_by_role("link", name="Dags").first).to_be_visible(timeout=60_000)


def test_a_person_logs_in_triggers_a_night_by_its_date_and_sees_it_succeed(
    page: Page, installation: Installation, first_night: str, screenshot: Callable[[Any, str], None]
) -> None:
    log_in(page, installation)
    page.goto("/dags/flights")
    page.get_by_test_id("trigger-dag-button").click()
    page.fill("input[name=element_date]", str(NIGHT))
    screenshot(page, "1-form")
    page.get_by_role("dialog").get_by_role("button", name="Trigger").last.click()

    page.wait_for_url(re.compile(r"/dags/flights/runs/manual__"))
    run_id = unquote(page.url.rpartition("/")[2])
    assert run_id != first_night
    screenshot(page, "2-running")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=60_000)
    installation.airflow.wait("flights", run_id, RUN_MILLISECONDS / 1000)
    # The run's own and that of its plan: the night was run before, and all is current.
    successes = page.get_by_text("Success", exact=True)
    expect(successes).to_have_count(2, timeout=60_000)
    # The stages and the outcome.
    skipped = page.get_by_text("Skipped", exact=True)
    expect(skipped).to_have_count(len(STAGES) + 1, timeout=60_000)
    # In the note of the run, which an open page does not fetch again.
    page.reload()
    expect(page.get_by_text(str(NIGHT)).first).to_be_visible(timeout=60_000)
    screenshot(page, "3-success")

    run = installation.airflow.run("flights", run_id)
    assert run["state"] == "success"
    assert run["conf"]["date"] == str(NIGHT)
    assert run["triggering_user_name"] == "admin"


def test_both_pipelines_are_listed_side_by_side(
    page: Page, installation: Installation, screenshot: Callable[[Any, str], None]
) -> None:
    log_in(page, installation)
    page.goto("/dags")
    for pipeline in ("flights", "weather"):
        expect(page.get_by_role("link", name=pipeline, exact=True).first).to_be_visible()
    screenshot(page, "4-both")
