"""The pages of a report in a real Chromium: what is read fits, has contrast, and does something."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from expectations import page as parts
from tests.e2e.test_ui import CHROMIUM, FLAGS
from tests.expectations.test_report import pages

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="no 'chromium' on PATH")
LONG = "w" * 250
# A colour of the page may be a mixture: the browser says of a pixel what came out.
FAINT = """() => {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const drawn = (colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((one) => one / 255).map(
      (one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const one of document.querySelectorAll("body *")) {
    const text = [...one.childNodes].filter((node) => node.nodeType === 3)
      .map((node) => node.textContent.trim()).join("");
    if (!text || !one.getClientRects().length) continue;
    const under = [];
    for (let node = one; node; node = node.parentElement) {
      under.unshift(getComputedStyle(node).backgroundColor);
    }
    const [back, front] = [under, [...under, getComputedStyle(one).color]].map(drawn).map(light);
    const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)}`);
  }
  return found;
}"""
"""Texts that WCAG AA finds too faint."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def written(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A refused report, its Data Docs, one of files, and a page with what a model's card has."""
    folder = tmp_path_factory.mktemp("report")
    pages(spark, folder, (LONG, "two"))
    card = folder / "card.html"
    card.write_text(parts.page("Card", f"<p>{LONG}</p><ul><li>{LONG}</li></ul>"))
    # The one beside the runs leads to the latest of them by itself.
    return [file for file in sorted(folder.rglob("*.html")) if file != folder / "index.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
def test_each_text_has_contrast_and_no_word_makes_a_page_wider_than_its_screen(
    browser: Browser, written: list[Path], scheme: Literal["light", "dark"], width: int
) -> None:
    shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    found = {}
    for file in written:
        shown.goto(file.as_uri())
        wide = shown.evaluate("document.documentElement.scrollWidth") - width
        found[str(file)] = (shown.evaluate(FAINT), max(wide, 0))
    shown.close()
    assert len(found) >= 4
    assert found == dict.fromkeys(found, ([], 0))


def test_what_can_be_clicked_leads_somewhere(browser: Browser, written: list[Path]) -> None:
    shown = browser.new_page()
    for file in written:
        shown.goto(file.as_uri())
        for link in shown.locator("a:visible").all():
            place, _, part = str(link.get_attribute("href")).partition("#")
            assert not place or (file.parent / place).is_file(), f"{file}: {place}"
            assert not part or shown.locator(f'[id="{part}"]').count() == 1, f"{file}: {part}"
        assert shown.locator("label:visible, button:visible, input:visible").count() == 0
    (docs,) = [file for file in written if file.parent.name == "things"]
    shown.goto(docs.as_uri())
    expect(shown.get_by_text("Great Expectations Version")).to_be_hidden()
    shown.get_by_text("Show more info").click()
    expect(shown.get_by_text("Great Expectations Version")).to_be_visible()
    shown.close()
