"""Small charts as SVG, drawn here: no script, no style but the classes of `pages.css`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from jobs.pages.quality import Segment
from pipelines.days import Days

_WIDTH, _HEIGHT = 640, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 10, 24
_FLOOR = _HEIGHT - _BOTTOM
_MOST_DOTS = 60
"""Values that are marked each; more would run into each other."""


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
    rect = Markup('<rect x="{}" y="0" width="{}" height="1" class="{}"><title>{}</title></rect>')
    parts = [title.format(label)]
    for one in segments:
        if one.state:
            begin = (one.days.first - first).days
            says = f"{one.days}: {one.state}"
            parts.append(rect.format(begin, len(one.days), one.state, says))
    head = Markup('<svg class="strip" viewBox="0 0 {} 1" preserveAspectRatio="none" role="img">')
    return head.format(length) + _joined(parts) + Markup("</svg>")


def line(marks: Sequence[Mark], bounds: Sequence[Bound], label: str, ends: Ends) -> Markup:
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
    for mark in marks:
        x, y = across.on(mark.place), down.on(mark.middle)
        path += f"{x},{y} "
        if mark.high > mark.low:
            low, high = down.on(mark.low), down.on(mark.high)
            parts.append(_span(x, low, high))
        if len(marks) <= _MOST_DOTS:
            parts.append(_dot(x, y, mark.says))
    parts.append(Markup('<polyline class="line" points="{}"/>').format(path))
    return _chart(parts, label, ends)


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
    ends = (across.on(low), down.on(low), across.on(high), down.on(high))
    parts.append(ideal.format(*ends))
    parts += [_dot(across.on(x), down.on(y), says) for x, y, says in points]
    return _chart(parts, label, (f"{low:.3g}", f"{high:.3g}"))


def bars(counts: Sequence[int], says: Sequence[str], label: str, ends: Ends) -> Markup:
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
    for place, (count, text) in enumerate(zip(counts, says, strict=True)):
        left, right = across.on(place), across.on(place + 1)
        parts.append(_bar(left, right, down.on(count), text))
    return _chart(parts, label, ends)


def _across(first: float, last: float) -> _Scale:
    return _Scale(low=first, high=last, begin=_LEFT, end=_WIDTH - _RIGHT)


def _chart(parts: Sequence[Markup], label: str, ends: Ends) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{}</title>')
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


def _dot(x: float, y: float, says: str) -> Markup:
    text = Markup('<circle class="dot" cx="{}" cy="{}" r="3"><title>{}</title></circle>')
    return text.format(x, y, says)


def _bar(left: float, right: float, top: float, says: str) -> Markup:
    text = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
    width = round(right - left - 1, 1)
    return text.format(left, top, width, round(_FLOOR - top, 1), says)


def _joined(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)


def _around(low: float, high: float) -> tuple[float, float]:
    """A little more than the values, so that none lies on the edge."""
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1
    return low - room, high + room
