"""The picture of the lineage: a box for each table, and no line behind a box."""

from __future__ import annotations

import re
from collections import defaultdict
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.pages.dictionary import Node, dictionary_of
from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import Environment
from plugins.pages import charts

ODD = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("name", catalog.names())
def test_a_line_that_passes_a_layer_runs_behind_no_box(name: str, tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    nodes = dictionary_of(environment, catalog.pipeline(name)).lineage
    placed = charts._placed(charts._stops(nodes))
    by_layer = defaultdict(list)
    for place in placed.values():
        by_layer[place.x].append(place)
    for own in by_layer.values():
        own.sort(key=lambda place: place.y)
        assert all(one.y + one.height < other.y for one, other in pairwise(own))
    drawn = charts.lineage(nodes)
    assert drawn.count("<rect") == len(nodes)
    for node in nodes:
        assert f'<a href="#{node.name}">' in drawn


def test_lines_lead_from_each_table_to_what_is_made_of_it() -> None:
    nodes = [
        Node(name="p.a", layer=0, reads=()),
        Node(name="p.b", layer=1, reads=("p.a",)),
        Node(name="p.c", layer=2, reads=("p.b", "p.a")),
    ]
    # a to b, b to c, and from a to c one to the layer between, one through it, and one from it.
    assert len(re.findall('<path class="edge"', charts.lineage(nodes))) == 5


def test_a_name_is_text() -> None:
    drawn = charts.lineage([Node(name=f"p.{ODD}", layer=0, reads=())])
    assert "&lt;img" in drawn
    assert "<img" not in drawn


def test_each_night_of_a_year_can_be_read() -> None:
    first = date(2013, 1, 1)
    nights = [first + timedelta(days=number) for number in range(365)]
    marks = []
    for number, night in enumerate(nights):
        of_night = Days.of(night)
        marks.append(charts.mark(of_night, number, number))
    bounds = [charts.Bound(value=5, says="at least 5")]
    drawn = charts.line(marks, bounds, "rows", ("", ""))
    points = re.findall(
        '<rect class="point" x="([^"]+)" y="10" width="([^"]+)" height="146"><title>([^<]+)<', drawn
    )
    assert [says for *_, says in points] == [f"{night}: {n}" for n, night in enumerate(nights)]
    # Side by side: wherever one points, one of them is told.
    for (left, width, _), (right, *_) in pairwise(points):
        assert float(left) + float(width) == pytest.approx(float(right))
    assert "<title>rows (at least 5)</title>" in drawn


def test_a_value_of_nothing_can_be_read_too() -> None:
    drawn = charts.bars(
        [0, 3],
        ["0 to 1: 0", "1 to 2: 3"],
        "spread",
        ("0", "2"),
    )
    points = re.findall('<rect class="point"[^>]*height="146"><title>([^<]+)<', drawn)
    assert points == ["0 to 1: 0", "1 to 2: 3"]


def test_nothing_is_drawn_of_nothing() -> None:
    assert "<rect" not in charts.lineage([])


def test_a_long_name_stands_within_its_box() -> None:
    first = Node(name=f"p.{'x' * 63}", layer=0, reads=())
    second = Node(name="p.b", layer=1, reads=(first.name,))
    drawn = charts.lineage([first, second])
    (left, width), (right, _) = re.findall('<rect x="([^"]+)" y="0" width="([^"]+)"', drawn)
    # An x of 12 pixels is that wide.
    assert float(width) > 63 * 7.2
    assert float(left) + float(width) < float(right)


@pytest.mark.parametrize("value", [-123456.0, -0.00012345, 1e-300, -1.7976931348623157e308])
def test_a_number_beside_a_chart_is_seen_with_its_sign(value: float) -> None:
    marks = [charts.Mark(place=0, low=value, high=value, says="")]
    drawn = charts.line(marks, [], "", ("", ""))
    for end, text in re.findall('<text x="([^"]+)" y="[^"]+" text-anchor="end">([^<]+)<', drawn):
        # In the widest of common fonts a digit is 7 of the 11 pixels of a letter's height.
        assert float(end) - 7 * len(text) >= 0, text
