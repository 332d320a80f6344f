"""What a person sees: Airflow's own UI in a real Chromium."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from jobs.services.secrets import secret
from pipelines.stages import STAGES
from tests.e2e.conftest import LOADED, NIGHT, Installation

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests of a file, which takes seconds to start."""
    with sync_playwright() as playwright:
        # Beside other tests an answer that comes at once may take more than the usual five seconds.
        expect.set_options(timeout=30_000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, installation: Installation) -> Iterator[Page]:
    """A window in which nobody is signed in, whatever the test before did."""
    page = new_window(browser, installation)
    yield page
    page.context.close()


def new_window(browser: Browser, installation: Installation, **session: Any) -> Page:
    """A window that shares nothing with others; `storage_state` is what another one kept."""
    context = browser.new_context(
        viewport={"width": 1500, "height": 950},
        base_url=f"http://127.0.0.1:{installation.environment.airflow_port}",
        **session,
    )
    context.set_default_timeout(60_000)
    return context.new_page()


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


def test_a_range_is_triggered_by_its_form_and_costs_nothing_where_all_is_current(
    page: Page, installation: Installation, first_night: str
) -> None:
    log_in(page, installation)
    page.goto("/dags/flights")
    page.get_by_test_id("trigger-dag-button").click()
    first, last = LOADED.last - timedelta(days=2), LOADED.last
    page.fill("input[name=element_from]", str(first))
    page.fill("input[name=element_to]", str(last))
    page.get_by_role("dialog").get_by_role("button", name="Trigger").last.click()
    page.wait_for_url(re.compile(r"/dags/flights/runs/manual__"))
    run_id = unquote(page.url.rpartition("/")[2])
    installation.airflow.wait("flights", run_id, RUN_MILLISECONDS / 1000)
    run = installation.airflow.run("flights", run_id)
    assert run["conf"]["from"] == str(first)
    assert run["conf"]["to"] == str(last)
    assert run["note"] == f"**{first}..{last}**: nothing to do, all is current."


def test_both_pipelines_are_listed_side_by_side(
    page: Page, installation: Installation, screenshot: Callable[[Any, str], None]
) -> None:
    log_in(page, installation)
    page.goto("/dags")
    for pipeline in ("flights", "weather"):
        expect(page.get_by_role("link", name=pipeline, exact=True).first).to_be_visible()
    screenshot(page, "4-both")


RED_NIGHT = NIGHT + timedelta(days=1)


def test_a_late_file_is_waited_for_and_a_red_night_says_why_and_is_made_green_again(
    page: Page, installation: Installation, screenshot: Callable[[Any, str], None]
) -> None:
    airflow = installation.airflow
    installation.nightshift("land", "flights", "--date", str(RED_NIGHT))
    file = installation.environment.landing / "flights" / "weather" / f"{RED_NIGHT}.csv"
    good = file.read_text()
    late = file.rename(file.with_suffix(".late"))
    hours = with_temperature(late, "500")
    run_id = airflow.trigger("flights", {"date": str(RED_NIGHT)})
    await_state(installation, run_id, "ingest", "deferred")
    sees_that_it_waits(page, installation, run_id, screenshot)
    # Once the file is there the night goes on by itself.
    late.rename(file)
    await_state(installation, run_id, "check_raw", "failed")

    # The task says what happened, and its lines have their level.
    (failed,) = [one for one in airflow.tasks("flights", run_id) if one.name == "check_raw"]
    text = "\n".join(airflow.log("flights", run_id, failed))
    said = text[text.index("StageRefused: check_raw of") :]
    told = (
        "flights.weather temp (expect_column_values_to_be_between)",
        f"{hours} of ",
        "nightshift waive flights weather --",
        "/nightshift/reports/flights/",
    )
    assert [words for words in told if words not in said] == []
    found = [level for level, line in logged(installation, run_id) if line.startswith("Refused: ")]
    assert found == ["error"]
    result = result_of(installation, run_id)
    assert (result["outcome"], result["exit_code"]) == ("refused", 1)
    (failure,) = [one for one in result["failures"] if one["column"] == "temp"]
    assert (failure["table"], failure["count"]) == ("flights.weather", hours)
    red = report_of(installation, run_id, "check_raw")

    # Nobody sees its report who is not signed in.
    unsigned = page.request.get(red, max_redirects=0)
    assert unsigned.status == 303
    assert "/auth/login" in unsigned.headers["location"]
    lying = page.request.get(red, headers={"Authorization": "Bearer of nothing"})
    assert lying.status in (401, 403)
    assert "flights.weather" not in unsigned.text() + lying.text()

    log_in(page, installation)
    page.goto(f"/dags/flights/runs/{quote(run_id)}/tasks/check_raw/details")
    link = page.get_by_role("link", name="Data quality report")
    expect(link).to_have_attribute("href", red, timeout=60_000)
    screenshot(page, "5-red-task")
    page.goto(red)
    expect(page.get_by_text("temp is from -30 to 120.").first).to_be_visible()
    screenshot(page, "6-red-report")
    shown = page.request.get(red)
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    base = red.partition("flights/")[0]
    outside = "flights/..%2F..%2Fsecrets%2Fadmin_password"
    assert page.request.get(f"{base}{outside}").status == 404

    # A good file, and the run goes on; what it said when it was red is still there.
    write(file, good)
    cleared = {"dag_run_id": run_id, "task_ids": ["ingest"], "include_downstream": True}
    options = {"dry_run": False, "only_failed": False, "reset_dag_runs": True}
    airflow.call("POST", "/dags/flights/clearTaskInstances", {**cleared, **options})
    airflow.wait("flights", run_id, RUN_MILLISECONDS / 1000)
    green = report_of(installation, run_id, "check_raw")
    assert green != red
    page.goto(green)
    expect(page.get_by_text("Passed", exact=True).first).to_be_visible()
    screenshot(page, "7-green-report")
    page.goto(f"/dags/flights/runs/{quote(run_id)}")
    successes = page.get_by_text("Success", exact=True)
    # The run's own, its plan, its stages and its outcome.
    expect(successes).to_have_count(len(STAGES) + 3, timeout=60_000)
    screenshot(page, "8-night")
    page.goto(red)
    expect(page.get_by_text("temp is from -30 to 120.").first).to_be_visible()
    installation.nightshift("quality", "flights", "--date", str(RED_NIGHT))

    # Who waits for a table is told what has changed in it, and only then.
    made = airflow.call("GET", "/assets/events?source_dag_id=flights&limit=1000")["asset_events"]
    of_run = [event for event in made if event["source_run_id"] == run_id]
    (weather,) = [event for event in of_run if event["name"] == "flights.weather"]
    assert weather["extra"]["last_day"] == str(RED_NIGHT)
    assert weather["extra"]["rows"] >= hours
    assert not [event for event in of_run if event["name"] == "flights.planes"]


def sees_that_it_waits(
    page: Page,
    installation: Installation,
    run_id: str,
    screenshot: Callable[[Any, str], None],
) -> None:
    """In a window of its own, so that nobody is signed in in the other."""
    assert page.context.browser is not None
    window = new_window(page.context.browser, installation)
    log_in(window, installation)
    window.goto(f"/dags/flights/runs/{quote(run_id)}")
    expect(window.get_by_text("Deferred", exact=True).first).to_be_visible(timeout=60_000)
    screenshot(window, "5-late-file")
    window.context.close()


def with_temperature(file: Path, degrees: str) -> int:
    """Have all hours of a weather file be as warm as that; returns their number."""
    header, *hours = csv.reader(io.StringIO(file.read_text()))
    for hour in hours:
        hour[header.index("temp")] = degrees
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *hours])
    write(file, text.getvalue())
    return len(hours)


def write(file: Path, text: str) -> None:
    """Drop the file as if it had been dropped a minute ago: nobody writes it any more."""
    file.write_text(text)
    then = time.time() - 60
    os.utime(file, (then, then))


def await_state(installation: Installation, run_id: str, name: str, state: str) -> None:
    deadline = time.monotonic() + RUN_MILLISECONDS / 1000
    seen: dict[str, str] = {}
    while seen.get(name) != state:
        assert time.monotonic() < deadline, seen
        time.sleep(1)
        seen = {task.name: task.state for task in installation.airflow.tasks("flights", run_id)}


def logged(installation: Installation, run_id: str) -> list[tuple[str, str]]:
    """Level and text of each line in the log of the check's first attempt."""
    path = f"/dags/flights/dagRuns/{quote(run_id)}/taskInstances/check_raw/logs/1?full_content=true"
    lines = installation.airflow.call("GET", path)["content"]
    told = [(line.get("level"), line["event"]) for line in lines]
    return [(str(level), str(event)) for level, event in told]


def result_of(installation: Installation, run_id: str) -> dict[str, Any]:
    """The XCom in which the check says what became of it."""
    path = f"/dags/flights/dagRuns/{quote(run_id)}/taskInstances/check_raw/xcomEntries/result"
    value = installation.airflow.call("GET", path)["value"]
    return dict(json.loads(value) if isinstance(value, str) else value)


def report_of(installation: Installation, run_id: str, name: str) -> str:
    """The address behind the link of a task."""
    path = f"/dags/flights/dagRuns/{quote(run_id)}/taskInstances/{name}/links"
    return str(installation.airflow.call("GET", path)["extra_links"]["Data quality report"])
