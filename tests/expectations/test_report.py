"""The report of a run: what it shows, where it lies, and that no row can make a page do anything.

What a stranger wrote into a row or a file is shown as text.
"""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from expectations import report
from expectations.gate import judge
from expectations.suite import Suite, absent, between, matches, one_of
from pipelines.days import Days
from tests.expectations.test_gate import FIRST, GOOD, SECOND, judge_things, rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ABOUT = report.About(
    title="Things.",
    pipeline="toy",
    days="2013-01-01",
    run_id="run_1",
    stage="check_raw",
    checked_at="2026-01-01T00:00:00",
    tables=("toy.things",),
)
LATER = "2026-01-01T01:00:00"
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

    def handle_starttag(
        self,
        tag: str,
        attrs: list[tuple[str, str | None]],
    ) -> None:
        names = [name for name, _ in attrs]
        self.elements.append((tag, tuple(names)))

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", (data,)))

    def handle_data(self, data: str) -> None:
        self.text += data


def pages(
    spark: SparkSession,
    folder: Path,
    values: tuple[str, ...],
) -> dict[str, Page]:
    """The report of rows that hold these values in every column, as a browser reads it."""
    data = [(FIRST, value, value, value, value) for value in values]
    columns = "landed_date date, id string, carrier string, origin string, dest string"
    verdict = judge(spark.createDataFrame(data, columns), SUITE, "toy.things")
    written = []
    for value in values:
        texts = dict.fromkeys(("file", "reason", "record"), value)
        written.append(report.BadRow(line=7, **texts))
    figures = report.FeedFigures(
        table="toy.things", files=1, in_files=9, staged=4, unchanged=0, quarantined=5
    )
    files = report.Files(
        feeds=(figures,),
        bad_rows=tuple(written),
        refusal=" ".join(values),
    )
    before = replace(ABOUT, run_id="before", checked_at=LATER)
    report.write_files(folder, before, report.Files())
    ways = {}
    for one in verdict.failures:
        ways[verdict.table, one.expectation, one.column] = values[0]
    index = report.write_verdicts(folder, ABOUT, [verdict], ways)
    # The verdict is a refusal: what comes after it is written beside it.
    refused = report.write_files(folder, replace(ABOUT, run_id="refused"), files)
    docs = index.parent / "things" / "index.html"
    found = {"index": index, "docs": docs, "files": refused}
    return {name: Page(path.read_text()) for name, path in found.items()}


@pytest.mark.parametrize("name", ["index", "docs", "files"])
def test_what_data_say_is_text_and_makes_no_element_of_a_page(
    spark: SparkSession, tmp_path: Path, name: str
) -> None:
    hostile = pages(spark, tmp_path / "hostile", HOSTILE)[name]
    harmless = pages(spark, tmp_path / "harmless", HARMLESS)[name]
    assert [value for value in HOSTILE if value not in hostile.text] == []
    assert name == "files" or "carrier is <b>known</b> & so on." in hostile.text
    assert hostile.elements == harmless.elements


@pytest.mark.parametrize("name", ["index", "docs", "files"])
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


def test_the_report_names_what_failed_its_way_out_and_asks_nothing_of_the_network(
    spark: SparkSession, tmp_path: Path
) -> None:
    verdict = judge_things(rows(spark, *GOOD, (SECOND, 2, 11.0)))
    (failure,) = verdict.failures
    key: tuple[str, str, str | None] = ("toy.things", failure.expectation, "doubled")
    ways = {key: "nightshift waive toy things"}
    index = report.write_verdicts(tmp_path, ABOUT, [verdict], ways)
    page = index.read_text()
    docs = (index.parent / "things" / "index.html").read_text()
    shown = (
        "Refused",
        "toy.things",
        "doubled is from 0 to 20.",
        "1 of 4 rows",
        "22.0",
        'href="things/index.html"',
        "<pre>nightshift waive toy things</pre>",
    )
    fetched = (
        'src="http',
        "googleapis",
        "@import",
        'rel="stylesheet" href="http',
    )
    assert [text for text in shown if text not in page] == []
    assert "doubled" in docs
    assert [text for text in fetched if text in page + docs] == []


def test_each_run_has_a_folder_and_the_latest_is_beside_them(
    spark: SparkSession, tmp_path: Path
) -> None:
    bad = judge_things(rows(spark, *GOOD, (SECOND, 2, 11.0)))
    good = judge_things(rows(spark, *GOOD))
    odd = replace(ABOUT, run_id="manual__2026-11-25T00:30:00+00:00")
    first = report.write_verdicts(tmp_path, odd, [bad], {})
    red = first.read_text()
    second = report.write_verdicts(tmp_path, replace(ABOUT, checked_at=LATER), [good], {})
    assert first.read_text() == red
    assert second == tmp_path / "run_1" / "index.html"
    page = second.read_text()
    assert "<title>Passed: toy 2013-01-01</title>" in page
    assert "What failed" not in page
    link = "../manual__2026-11-25T00%3A30%3A00%2B00%3A00/index.html"
    assert f'<a href="{link}">' in page
    assert (second.parent / unquote(link)).samefile(first)
    latest = (tmp_path / "index.html").read_text()
    assert '<meta http-equiv="refresh" content="0; url=./run_1/index.html">' in latest


def test_a_run_that_is_taken_up_after_a_refusal_goes_on_in_a_folder_of_its_own(
    spark: SparkSession, tmp_path: Path
) -> None:
    about = replace(ABOUT, tables=("toy.things", "toy.others"))
    files = report.Files(
        feeds=(
            report.FeedFigures(
                table="toy.things",
                files=1,
                in_files=7_001,
                staged=7_001,
                unchanged=0,
                quarantined=0,
            ),
        )
    )
    report.write_files(tmp_path, replace(about, stage="ingest"), files)
    bad = judge_things(rows(spark, *GOOD, (SECOND, 2, 11.0)))
    good = judge_things(rows(spark, *GOOD))
    others = replace(good, table="toy.others")
    red = report.write_verdicts(tmp_path, about, [bad, others], {})
    files = [path for path in red.parent.rglob("*") if path.is_file()]
    before = {path: path.read_text() for path in files}
    green = report.write_verdicts(tmp_path, replace(about, checked_at=LATER), [good], {})
    again = report.write_verdicts(tmp_path, replace(about, checked_at=LATER), [good], {})
    assert {path: path.read_text() for path in before} == before
    assert red.parent.name == "run_1"
    assert green.parent.name == again.parent.name == "run_1~2"
    page = green.read_text()
    assert "<title>Passed:" in page
    # What ingestion found is still so; what was judged beside what was refused is judged again.
    assert "7,001" in page
    assert "toy.others" not in page
    assert "run_1~2" in (tmp_path / "index.html").read_text()


def test_files_that_are_refused_have_a_report_with_file_line_value_and_way_out(
    tmp_path: Path,
) -> None:
    bad = report.BadRow(
        file="toy/things.csv", line=4_711, reason="temp: 'abc' is not a double", record="1,abc"
    )
    refusal = "1 file(s) have more bad rows\nHave the source drop good files, then run again."
    files = report.Files(bad_rows=(bad,), refusal=refusal)
    page = report.write_files(tmp_path, ABOUT, files).read_text()
    shown = ("Refused", "toy/things.csv", "4,711", "temp: &#x27;abc&#x27; is not a double", "1,abc")
    assert [text for text in (*shown, refusal) if text not in page] == []
