"""Small charts as SVG, drawn here: no style but the classes of `pages.css`.

What has the class `point` says in its title what it is; `pages.js` tells it to touch and keys too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from jobs.pages.dictionary import Node
from jobs.pages.quality import Segment
from pipelines.days import Days

_WIDTH, _HEIGHT = 640, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 12, 10, 24
"""Around a chart. On its left stand numbers as long as -1.235e+05."""
_FLOOR = _HEIGHT - _BOTTOM
_MOST_DOTS = 60
"""Values that are marked each; more would run into each other."""


_LEAST_BOX_WIDTH, _BOX_HEIGHT = 116, 26
_LETTER_WIDTH = 8
"""Room for a letter of a table's name."""
_BETWEEN, _BELOW = 44, 12
"""From one layer of tables to the next, and from one table to that below it."""
_LINE_HEIGHT = 2
_BASELINE = 17
"""Of the text in a box, from its upper edge."""

Ends = tuple[str, str]
"""What stands below the left and the right end of a chart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A value at a place from left to right; of several values the least and the most."""

    place: float
    low: float
    high: float
    says: str

    @property
    def middle(self) -> float:
        """Where the line passes."""
        return (self.low + self.high) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """A line that values should not cross."""

    value: float
    says: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    """Values to places on the chart."""

    low: float
    high: float
    begin: float
    end: float

    def on(self, value: float) -> float:
        """Where a value lies; in the middle where all are alike."""
        if self.high == self.low:
            return (self.begin + self.end) / 2
        share = (value - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)


def mark(days: Days, low: float, high: float) -> Mark:
    """What was found on days, in the middle of them."""
    middle = (days.first.toordinal() + days.last.toordinal()) / 2
    found = f"{low:g}"
    if high > low:
        found = f"{low:g} to {high:g}"
    return Mark(place=middle, low=low, high=high, says=f"{days}: {found}")


def strip(segments: Sequence[Segment], label: str) -> Markup:
    """A line of nights in the colours of their states."""
    first = segments[0].days.first
    length = sum(len(one.days) for one in segments)
    title = Markup("<title>{}</title>")
    rect = Markup(
        '<rect x="{}" y="0" width="{}" height="1" class="{} point"><title>{}</title></rect>'
    )
    parts = [title.format(label)]
    for one in segments:
        if one.state:
            begin = (one.days.first - first).days
            says = f"{one.days}: {one.state}"
            parts.append(rect.format(begin, len(one.days), one.state, says))
    head = Markup(
        '<svg class="strip" viewBox="0 0 {} 1" preserveAspectRatio="none" role="img" tabindex="0">'
    )
    return head.format(length) + _joined(parts) + Markup("</svg>")


def line(
    marks: Sequence[Mark],
    bounds: Sequence[Bound],
    label: str,
    ends: Ends,
) -> Markup:
    """Values over time, and what they should not cross.

    Args:
        marks: From left to right; at least one.
        bounds: Drawn across the whole chart.
        label: What it shows, in words.
        ends: What stands below its left and its right end.
    """
    values = [bound.value for bound in bounds]
    values += [mark.low for mark in marks]
    values += [mark.high for mark in marks]
    low, high = _around(min(values), max(values))
    across = _across(marks[0].place, marks[-1].place)
    down = _Scale(low=low, high=high, begin=_FLOOR, end=_TOP)
    parts = [_axis(_FLOOR, low), _axis(_TOP, high)]
    for bound in bounds:
        parts += [_level("bound", down.on(bound.value), bound.says)]
    path = ""
    points = []
    for mark in marks:
        x, y = across.on(mark.place), down.on(mark.middle)
        path += f"{x},{y} "
        if mark.high > mark.low:
            low, high = down.on(mark.low), down.on(mark.high)
            parts.append(_span(x, low, high))
        if len(marks) <= _MOST_DOTS:
            parts.append(_dot(x, y))
        points.append((x, mark.says))
    parts.append(Markup('<polyline class="line" points="{}"/>').format(path))
    parts += _columns(points)
    crossed = ", ".join(bound.says for bound in bounds)
    return _chart(parts, f"{label} ({crossed})" if crossed else label, ends)


def against(points: Sequence[tuple[float, float, str]], label: str) -> Markup:
    """Pairs of values that should be the same, with the line on which they would be.

    Args:
        points: From left to right, from below to above, and what each means; at least one.
        label: What it shows, in words.
    """
    values = [value for across, up, _ in points for value in (across, up)]
    low, high = _around(min(values), max(values))
    across = _across(low, high)
    down = _Scale(low=low, high=high, begin=_FLOOR, end=_TOP)
    parts = [_axis(_FLOOR, low), _axis(_TOP, high)]
    ideal = Markup('<polyline class="ideal" points="{},{} {},{}"/>')
    first = (across.on(low), down.on(low))
    last = (across.on(high), down.on(high))
    ends = (*first, *last)
    parts.append(ideal.format(*ends))
    place = Markup('<circle class="point" cx="{}" cy="{}" r="10"><title>{}</title></circle>')
    for x, y, says in points:
        parts.append(_dot(across.on(x), down.on(y)))
        parts.append(place.format(across.on(x), down.on(y), says))
    return _chart(parts, label, (f"{low:.3g}", f"{high:.3g}"))


def bars(
    counts: Sequence[int],
    says: Sequence[str],
    label: str,
    ends: Ends,
) -> Markup:
    """How often each of some values is there.

    Args:
        counts: From left to right.
        says: What each bar means, in words.
        label: What it shows, in words.
        ends: What stands below its left and its right end.
    """
    most = max([*counts, 1])
    down = _Scale(low=0, high=most, begin=_FLOOR, end=_TOP)
    across = _across(0, len(counts))
    parts = [_axis(_FLOOR, 0), _axis(_TOP, most)]
    for place, count in enumerate(counts):
        left, right = across.on(place), across.on(place + 1)
        parts.append(_bar(left, right, down.on(count)))
    middles = [across.on(place + 0.5) for place in range(len(counts))]
    parts += _columns(list(zip(middles, says, strict=True)))
    return _chart(parts, label, ends)


def lineage(nodes: Sequence[Node]) -> Markup:
    """Tables from left to right, with a line from each to all that are made of it.

    A line that passes a layer has a place of its own there, so that it runs behind no box.
    """
    stops = _stops(nodes)
    placed = _placed(stops)
    parts = []
    for stop, reads in stops.items():
        parts += [_edge(placed[one], placed[stop]) for one in reads]
        if _is_passing(stop, stops):
            parts.append(_passing(placed[stop]))
    parts += [_box(node.name, placed[node.layer, node.name]) for node in nodes]
    right = max((place.right for place in placed.values()), default=0)
    bottom = max((place.y for place in placed.values()), default=0)
    width, height = right + 1, bottom + _BOX_HEIGHT + 1
    title = "From the landed files to the predictions: which table is made of which"
    head = Markup(
        '<svg class="lineage" viewBox="0 0 {} {}" width="{}" height="{}" role="img">'
        "<title>{}</title>"
    )
    return head.format(width, height, width, height, title) + _joined(parts) + Markup("</svg>")


_Stop = tuple[int, str]
"""A layer, and the table that stands there or whose lines pass it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a stop lies: its upper left corner, and how high it is."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """Where lines leave it."""
        return self.x + self.width

    @property
    def middle(self) -> float:
        """Where lines reach it."""
        return self.y + self.height / 2


def _stops(nodes: Sequence[Node]) -> dict[_Stop, list[_Stop]]:
    """By stop those in the layer before it that lead to it."""
    layers = {node.name: node.layer for node in nodes}
    stops: dict[_Stop, list[_Stop]] = {}
    for node in nodes:
        for name in node.reads:
            for layer in range(layers[name] + 1, node.layer):
                stops[layer, name] = [(layer - 1, name)]
        before = node.layer - 1
        stops[node.layer, node.name] = [(before, name) for name in node.reads]
    return stops


def _placed(stops: Mapping[_Stop, Sequence[_Stop]]) -> dict[_Stop, _Place]:
    """The place of each stop; in a layer those stand high that are led to from high places."""
    placed: dict[_Stop, _Place] = {}
    width = _box_width(stops)
    for layer in sorted({layer for layer, _ in stops}):
        own = [stop for stop in stops if stop[0] == layer]
        own.sort(key=lambda stop: _mean(map(placed.__getitem__, stops[stop])))
        y = 0
        for stop in own:
            height = _LINE_HEIGHT if _is_passing(stop, stops) else _BOX_HEIGHT
            x = layer * (width + _BETWEEN)
            placed[stop] = _Place(x=x, y=y, width=width, height=height)
            y += height + _BELOW
    return placed


def _box_width(stops: Iterable[_Stop]) -> int:
    """Of each box: the longest name has room."""
    letters = max((len(_bare(name)) for _, name in stops), default=0)
    return max(_LEAST_BOX_WIDTH, (letters + 1) * _LETTER_WIDTH)


def _bare(name: str) -> str:
    """The name of a table without that of its pipeline."""
    return name.partition(".")[2]


def _is_passing(stop: _Stop, stops: Mapping[_Stop, Sequence[_Stop]]) -> bool:
    layer, name = stop
    return list(stops[stop]) == [(layer - 1, name)]


def _mean(places: Iterable[_Place]) -> float:
    """Where they lie on average; on top: there are none."""
    middles = [place.middle for place in places]
    return sum(middles) / len(middles) if middles else 0.0


def _edge(begin: _Place, end: _Place) -> Markup:
    x, y = begin.right, begin.middle
    to_x, to_y = end.x, end.middle
    middle = (x + to_x) / 2
    line = Markup('<path class="edge" d="M{} {}C{} {} {} {} {} {}"/>')
    return line.format(x, y, middle, y, middle, to_y, to_x, to_y)


def _passing(place: _Place) -> Markup:
    line = Markup('<path class="edge" d="M{} {}h{}"/>')
    return line.format(place.x, place.middle, place.width)


def _box(name: str, place: _Place) -> Markup:
    box = Markup(
        '<a href="#{}"><rect x="{}" y="{}" width="{}" height="{}" rx="5"/>'
        '<text x="{}" y="{}" text-anchor="middle">{}</text></a>'
    )
    middle = place.x + place.width // 2
    baseline = place.y + _BASELINE
    size = (place.width, _BOX_HEIGHT)
    text = (middle, baseline, _bare(name))
    return box.format(name, place.x, place.y, *size, *text)


def _across(first: float, last: float) -> _Scale:
    return _Scale(low=first, high=last, begin=_LEFT, end=_WIDTH - _RIGHT)


def _chart(parts: Sequence[Markup], label: str, ends: Ends) -> Markup:
    head = Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" tabindex="0"><title>{}</title>'
    )
    below = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
    baseline = _HEIGHT - 6
    first = below.format(_LEFT, baseline, "start", ends[0])
    last = below.format(_WIDTH - _RIGHT, baseline, "end", ends[1])
    drawn = _joined([*parts, first, last])
    return head.format(_WIDTH, _HEIGHT, label) + drawn + Markup("</svg>")


def _axis(y: float, value: float) -> Markup:
    text = Markup('<text x="{}" y="{}" text-anchor="end">{}</text>')
    number = text.format(_LEFT - 4, y + 4, f"{value:.4g}")
    return _level("axis", y, "") + number


def _level(kind: str, y: float, says: str) -> Markup:
    text = Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"><title>{}</title></line>')
    return text.format(kind, _LEFT, _WIDTH - _RIGHT, y, y, says)


def _span(x: float, low: float, high: float) -> Markup:
    text = Markup('<line class="span" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    return text.format(x, x, low, high)


def _columns(points: Sequence[tuple[float, str]]) -> list[Markup]:
    """For each point all the room up to its neighbours: a dot is hard to meet, a value of 0 more.

    Args:
        points: From left to right where each lies, and what it means.
    """
    across = [one for one, _ in points]
    between = [round((one + other) / 2, 2) for one, other in pairwise(across)]
    edges = pairwise([_LEFT, *between, _WIDTH - _RIGHT])
    text = Markup(
        '<rect class="point" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
    )
    height = _FLOOR - _TOP
    return [
        text.format(left, _TOP, round(right - left, 2), height, says)
        for (left, right), (_, says) in zip(edges, points, strict=True)
    ]


def _dot(x: float, y: float) -> Markup:
    return Markup('<circle class="dot" cx="{}" cy="{}" r="3"/>').format(x, y)


def _bar(left: float, right: float, top: float) -> Markup:
    text = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"/>')
    width = round(right - left - 1, 1)
    return text.format(left, top, width, round(_FLOOR - top, 1))


def _joined(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)


def _around(low: float, high: float) -> tuple[float, float]:
    """A little more than the values, so that none lies on the edge."""
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1
    return low - room, high + room
