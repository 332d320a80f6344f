"""Our pages in Airflow's own UI, in a real Chromium: found, right, readable, and of use."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any
from urllib.parse import unquote

import pytest
from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect

from jobs.lake import model_events
from pipelines.environment import PAGES, PAGES_ADDRESS
from tests.e2e import test_ui
from tests.e2e.conftest import NIGHT, Installation
from tests.e2e.test_ui import log_in, new_window, write

pytestmark = test_ui.pytestmark
browser = test_ui.browser
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def session(browser: Browser, installation: Installation, first_night: str) -> Any:
    """What a browser keeps of somebody who has signed in once."""
    window = new_window(browser, installation)
    log_in(window, installation)
    kept = window.context.storage_state()
    window.context.close()
    return kept


@pytest.fixture
def signed_in(browser: Browser, installation: Installation, session: Any) -> Iterator[Page]:
    """A window of somebody who is signed in, with no fault of a script or of the policy."""
    faults: list[str] = []
    page = new_window(browser, installation, storage_state=session)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda said: faults.append(said.text) if _is_refusal(said.text) else None,
    )
    page.goto("/")
    expect(page.get_by_role("link", name="Dags").first).to_be_visible(timeout=60_000)
    yield page
    page.context.close()
    assert faults == []


def _is_refusal(text: str) -> bool:
    return "Content Security Policy" in text


def opened(page: Page, name: str) -> FrameLocator:
    """One of our pages, as the navigation opens it."""
    if name == "nights":
        page.get_by_role("link", name=PAGES[name], exact=True).first.click()
    else:
        page.get_by_role("button", name="Plugins").click()
        page.get_by_role("menuitem", name=PAGES[name], exact=True).click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_role("heading", name=PAGES[name], exact=True)).to_be_visible()
    return frame


def test_each_page_opens_from_the_navigation(
    signed_in: Page, screenshot: Callable[[Any, str], None]
) -> None:
    for name in PAGES:
        opened(signed_in, name)
        screenshot(signed_in, f"page-{name}")


@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_readable_on_a_phone_in_the_dark(
    signed_in: Page, name: str, screenshot: Callable[[Any, str], None]
) -> None:
    signed_in.evaluate("localStorage.setItem('theme', 'dark')")
    signed_in.set_viewport_size(PHONE)
    signed_in.goto(f"{PAGES_ADDRESS}/flights/{name}")
    screenshot(signed_in, f"phone-{name}")
    # Only tables are wider than the screen, and scroll by themselves.
    width = signed_in.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    texts = "all => all.map(one => one.getBoundingClientRect()).map(box => [box.height, box.left])"
    for height, left in signed_in.eval_on_selector_all(".chart text", texts):
        assert height >= 10, "nobody reads that"
        assert left >= 0, "it begins on the screen"
    colour = signed_in.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", colour))) < 120


def test_the_night_is_told_as_current_and_leads_to_its_run(
    signed_in: Page, installation: Installation
) -> None:
    about = f"pipeline = 'flights' AND DATE '{NIGHT}' BETWEEN first_day AND last_day"
    (last,) = installation.sql(
        f"SELECT arg_max(run_id, started_at) AS run_id FROM ops.stage_runs WHERE {about}"
    )
    row = row_of(opened(signed_in, "nights"), NIGHT)
    expect(row.locator("td.current")).not_to_have_count(0)
    expect(row.locator("td.missing, td.stale, td.refused")).to_have_count(0)
    row.locator(f'a[title="{last["run_id"]}"]').click()
    signed_in.wait_for_url(re.compile(r"/dags/flights/runs/"))
    assert unquote(signed_in.url).endswith(last["run_id"])


def row_of(frame: FrameLocator, night: date) -> Locator:
    """The row of a night."""
    header = frame.get_by_role("rowheader", name=str(night), exact=True)
    return frame.get_by_role("row").filter(has=header)


def test_figures_are_those_of_sql(signed_in: Page, installation: Installation) -> None:
    frame = opened(signed_in, "predictions")
    statement = "SELECT max(flight_date)::text AS day FROM flights.predictions"
    (newest,) = installation.sql(statement)
    where = f"WHERE flight_date = '{newest['day']}'"
    counted = f"SELECT count(*) AS n, max(late_probability) AS top FROM flights.predictions {where}"
    (of_day,) = installation.sql(counted)
    heading = f"{newest['day']}: {of_day['n']} predictions"
    expect(frame.get_by_role("heading", name=heading)).to_be_visible()
    expect(frame.locator("tbody tr").first).to_contain_text(f"{of_day['top']:.4f}")

    frame = opened(signed_in, "quality")
    unmet = (
        "SELECT count(*) FILTER (NOT success) AS n FROM (FROM ops.check_results "
        "WHERE pipeline = 'flights' QUALIFY checked_at = "
        "max(checked_at) OVER (PARTITION BY table_name, first_day, last_day))"
    )
    (failing,) = installation.sql(unmet)
    expect(frame.get_by_text(f"Checks that do not hold ({failing['n']})")).to_be_visible()

    frame = opened(signed_in, "models")
    latest = "SELECT count(*) AS n FROM ops.model_events WHERE pipeline = 'flights'"
    (events,) = installation.sql(latest)
    expect(frame.locator("main > div > table > tbody > tr")).to_have_count(events["n"])


def test_a_prediction_is_explained_where_it_stands(
    signed_in: Page, installation: Installation, screenshot: Callable[[Any, str], None]
) -> None:
    frame = opened(signed_in, "predictions")
    frame.get_by_title("Why?").first.click()
    pulls = frame.locator("tr.explained tbody tr")
    # The model is loaded for it.
    answer = frame.locator("tr.explained")
    expect(answer).not_to_contain_text("Asking the model", timeout=90_000)
    assert pulls.count() > 0, answer.inner_text()
    screenshot(signed_in, "page-predictions-why")
    cells = frame.locator("tr:has(+ tr.explained) td").all_inner_texts()
    names = frame.locator("#predictions > thead th").all_inner_texts()
    row = dict(zip(names, cells, strict=True))
    key = [f"{name}={row[name]}" for name in ("carrier", "flight", "origin", "sched_dep_time")]
    told = installation.nightshift(
        *("explain", "flights", "--date", str(NIGHT), "--format", "json", "--key", *key)
    )
    by_command = json.loads(told)
    assert pulls.count() == len(by_command)
    assert pulls.first.locator("td").first.inner_text() == by_command[0]["feature"]


def test_a_model_that_awaits_a_person_serves_when_one_lets_it_and_is_rolled_back(
    signed_in: Page, installation: Installation, screenshot: Callable[[Any, str], None]
) -> None:
    # Each night's fit takes the place of the last one's.
    installation.nightshift("rollback", "flights", "--why", "of a test")
    champion, candidate = serving(installation), newest(installation)
    assert champion != candidate
    waits = {
        "pipeline": "flights",
        "as_of": NIGHT,
        "event": model_events.AWAITING,
        "model_version": candidate,
        "who": "the gate",
        "reason": "of a test",
    }
    model_events.record(installation.environment, [waits])
    frame = opened(signed_in, "models")
    expect(frame.get_by_text(f"Version {candidate} awaits a person")).to_be_visible()
    form = frame.locator("form[data-decide=approve]")
    form.get_by_label("Why").fill("seen <b>with</b> the shift managers")
    form.get_by_role("button", name="Let it serve").click()
    expect(frame.locator(".said")).to_contain_text("serves")
    assert serving(installation) == candidate
    [told] = installation.sql(
        f"SELECT who, reason FROM ops.model_events WHERE event = 'approved' "
        f"AND model_version = '{candidate}'"
    )
    assert told == {"who": "admin", "reason": "seen <b>with</b> the shift managers"}

    # A page that is open shows what was when it was opened.
    signed_in.reload()
    expect(frame.get_by_text("seen <b>with</b> the shift managers").first).to_be_visible()
    screenshot(signed_in, "page-models-decided")
    back = frame.locator("form[data-decide=rollback]")
    back.get_by_label("Roll back to").select_option(champion)
    back.get_by_label("Why").fill("it was a test")
    back.get_by_role("button", name="Roll back").click()
    expect(frame.locator(".said")).to_contain_text(f"Version {champion}")
    assert serving(installation) == champion


def serving(installation: Installation) -> str:
    """The version that serves, as the command tells it."""
    rows = json.loads(installation.nightshift("models", "flights", "--format", "json"))
    serving = [row for row in rows if "champion" in (row["alias"] or "")]
    (version,) = [row["version"] for row in serving]
    return str(version)


def newest(installation: Installation) -> str:
    rows = json.loads(installation.nightshift("models", "flights", "--format", "json"))
    return str(rows[0]["version"])


def test_sql_is_asked_and_kept_as_a_file(signed_in: Page, installation: Installation) -> None:
    frame = opened(signed_in, "sql")
    statement = "SELECT origin, count(*) AS n FROM flights.flights GROUP BY origin ORDER BY origin"
    frame.locator("#statement").fill(f"{statement} -- <img src=x onerror=alert(1)>")
    frame.get_by_role("button", name="Run").click()
    expect(frame.get_by_text("3 rows in")).to_be_visible()
    rows = [f"{row['origin']}{row['n']}" for row in installation.sql(statement)]
    expect(frame.locator("#result tbody tr")).to_have_text(rows)
    with signed_in.expect_download() as download:
        frame.get_by_role("button", name="CSV").click()
    kept = download.value.path().read_text().splitlines()
    assert [line.replace(",", "") for line in kept[1:]] == rows


def test_what_is_stale_is_triggered_from_the_page(
    signed_in: Page, installation: Installation
) -> None:
    file = installation.environment.landing / "flights" / "weather" / f"{NIGHT}.csv"
    good = file.read_text()
    # Without its last hour.
    write(file, good[: good.rstrip().rindex("\n") + 1])
    try:
        row = row_of(opened(signed_in, "nights"), NIGHT)
        expect(row.locator("td.stale")).not_to_have_count(0)
        row.get_by_role("button", name="Run").click()
        signed_in.wait_for_url(re.compile(r"/dags/flights/runs/manual__"))
        run_id = signed_in.url.rpartition("/")[2]
        run = installation.airflow.run("flights", unquote(run_id))
        assert run["conf"]["date"] == str(NIGHT)
        assert run["triggering_user_name"] == "admin"
        # What a run does is tested elsewhere.
        path = f"/dags/flights/dagRuns/{run_id}"
        installation.airflow.call("PATCH", path, {"state": "failed"})
    finally:
        write(file, good)
