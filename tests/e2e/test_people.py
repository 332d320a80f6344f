"""Who may do what, by Airflow's simple auth manager; and nobody without a name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from jobs.services.accounts import accounts
from tests.e2e import people, test_ui
from tests.e2e.conftest import Installation

pytestmark = pytest.mark.timeout(2400)
browser, page = test_ui.browser, test_ui.page


def test_a_viewer_sees_a_user_triggers_and_decides_and_an_admin_sets_up(
    installation: Installation, first_night: str
) -> None:
    somebody = people.signed_in(installation.environment)
    assert {name: one.may() for name, one in somebody.items()} == people.ABLE


def test_nobody_who_is_not_signed_in_sees_anything(
    installation: Installation, first_night: str
) -> None:
    nobody = people.Person(url=installation.airflow.url)
    assert nobody.may() == []
    wrong = people.Person(url=installation.airflow.url, token="eyJhbGciOiJub25lIn0.e30.")
    assert wrong.may() == []


@pytest.mark.skipif(not test_ui.CHROMIUM, reason="no 'chromium' on PATH")
def test_a_viewer_is_offered_no_decision(
    page: Page,
    installation: Installation,
    first_night: str,
    screenshot: Callable[[Any, str], None],
) -> None:
    ann = next(one for one in accounts(installation.environment) if one.user == "ann")
    page.goto("/")
    page.fill("input[name=username]", ann.user)
    page.fill("input[name=password]", ann.password)
    page.click("button[type=submit]")
    expect(page.get_by_role("link", name="Dags").first).to_be_visible()
    page.goto("/nightshift/pages/flights/models")
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    expect(page.get_by_role("button", name="Roll back")).to_have_count(0)
    expect(page.get_by_text("Who may edit the DAG can roll back and approve.")).to_be_visible()
    screenshot(page, "viewer-models")


def test_lineage_leads_from_the_files_tables_to_the_predictions(
    installation: Installation, first_night: str
) -> None:
    file = Path(str(installation.environment.lineage))
    events = [json.loads(line) for line in file.read_text().splitlines()]
    ended = [event for event in events if event["eventType"] == "COMPLETE"]
    made: dict[str, set[str]] = {}
    for event in ended:
        read = {_sql_name(one) for one in event.get("inputs", [])}
        for one in event.get("outputs", []):
            made.setdefault(_sql_name(one), set()).update(read)
    assert "flights.scoring" in made["flights.predictions"]
    ways = {"flights.predictions"}
    for _ in made:
        ways |= {read for name in ways for read in made.get(name, set())}
    assert {"flights.schedule", "flights.weather", "flights.planes"} <= ways


def _sql_name(dataset: dict[str, Any]) -> str:
    (identifier,) = dataset["facets"]["symlinks"]["identifiers"]
    return str(identifier["name"])
