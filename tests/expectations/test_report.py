"""What a stranger wrote into a row is shown as text, on every page of the report."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from expectations import report
from expectations.gate import judge
from expectations.suite import Suite, absent, between, matches, one_of
from pipelines.days import Days
from tests.expectations.test_gate import ABOUT, FIRST

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "\"><svg onload='alert(3)'>",
    "</td></table><iframe srcdoc='<b>'>",
    "<!-- &lt;b&gt; {{ 7 * 7 }} $column ${x} <![CDATA[",
)
HARMLESS = ("one", "two", "three", "four", "five")
SUITE = Suite(
    days=Days.of(FIRST),
    key=("id",),
    has=("carrier", "origin", "dest"),
    derived={"odd": "concat(carrier, dest)"},
    each_row=(
        one_of("carrier", ["UA"], says="carrier is <b>known</b> & so on."),
        matches("origin", "^[A-Z]{3}$"),
        absent("dest", says="There is none."),
        absent("odd", severity="warning", says="There is none."),
        matches("id", "(?<![A-Z])[0-9]+$"),
        between("<u>gone</u>", 0, 1),
    ),
)


class Page(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.elements.append((tag, tuple(names)))

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", (data,)))

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(spark: SparkSession, folder: Path, values: tuple[str, ...]) -> dict[str, Page]:
    """The report of rows that hold these values in every column, as a browser reads it."""
    rows = [(FIRST, value, value, value, value) for value in values]
    columns = "landed_date date, id string, carrier string, origin string, dest string"
    verdict = judge(spark.createDataFrame(rows, columns), SUITE, "toy.things")
    index = report.write(folder, ABOUT, [verdict])
    docs = folder / "things" / "index.html"
    return {name: Page(path.read_text()) for name, path in (("index", index), ("docs", docs))}


@pytest.mark.parametrize("name", ["index", "docs"])
def test_what_data_say_is_text_and_makes_no_element_of_a_page(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    hostile = pages(spark, tmp_path, HOSTILE)[name]
    harmless = pages(spark, tmp_path, HARMLESS)[name]
    assert [value for value in HOSTILE if value not in hostile.text] == []
    assert "carrier is <b>known</b> & so on." in hostile.text
    assert hostile.elements == harmless.elements


@pytest.mark.parametrize("name", ["index", "docs"])
def test_a_page_runs_no_script_and_asks_nothing_of_anyone(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    page = pages(spark, tmp_path, HOSTILE)[name]
    policy = ("meta", ("http-equiv", "content"))
    first_of_head = [element for element in page.elements if element[0] not in ("html", "head")]
    # A browser holds to a policy from where it reads it; the encoding may come before.
    assert policy in first_of_head[:2]
    tags = {tag for tag, _ in page.elements}
    assert tags.isdisjoint({"script", "iframe", "svg", "object", "base"})
