"""A recording of the shell of `nightshift sql`: what a person types, and what comes.

`python -m tools.recording` types into a real shell in a terminal of its own, and draws its screens
one after another as docs/pictures/sql-recorded.svg, which moves in any browser. The home that
NIGHTSHIFT_HOME names must have two nights of weather up to 2013-02-12. All that is seen is what the
shell has written; only the pauses are ours, so that it can be read. Look at it before it is
committed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, groupby

import pyte

from tools.pictures import ROOT, SHOWN
from tools.terminal import COLOURS, COLUMNS, Terminal, colour, shell

PICTURE = SHOWN / "sql-recorded.svg"
LINES = 30
_WIDTH, _HEIGHT, _SIZE = 8, 18, 13
"""Pixels of a character and of its font."""
_MARGIN = 12
_TYPED = (
    "\\timing\r",
    "SELECT station, round(avg(temperature), 1) AS mean, max(forecast_at) AS until\r",
    "FROM weather.pred\t",
    " WHERE forecast_date = '2013-02-13' GROUP BY station ORDER BY mean;\r",
    "SELECT count(*) FROM weather.predictions VERSION AS OF 0;\r",
    "SELECT temperatur FROM weather.predictions;\r",
    "COPY (SELECT 1) TO '/tmp/out.csv';\r",
    "\\d weather.predictions\r",
    "FROM weather.observations ORDER BY observed_at;\r",
    " ",
    "q",
    "\x1b[A",
    "\x03",
)
"""Each is answered before the next."""
_LETTERS = 4
"""That are typed from one screen to the next."""
_KEY_SECONDS, _ANSWER_SECONDS = 0.15, 2.5
_QUIET_SECONDS = 0.3
"""So long nothing is written when what was typed is seen."""
_PROMPT = "=>"
_GROUND = "#1e222a"
Line = tuple[tuple[str, str, str, bool], ...]
"""Runs of text, each with its colour, that behind it, and whether it is bold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A screen, and how long it is seen."""

    lines: tuple[Line, ...]
    seconds: float


def main() -> int:
    """Make the recording."""
    with shell(LINES) as terminal:
        while _PROMPT not in "".join(terminal.screen.display):
            terminal.wait()
        frames = list(_frames(terminal))
    PICTURE.write_text(drawn(frames), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: look at it.")
    return 0


def _frames(terminal: Terminal) -> Iterator[Frame]:
    yield _frame(terminal, _ANSWER_SECONDS)
    for text in _TYPED:
        *typed, last = _keys(text)
        for keys in typed:
            terminal.type(keys, _QUIET_SECONDS)
            yield _frame(terminal, _KEY_SECONDS)
        terminal.type(last)
        yield _frame(terminal, _ANSWER_SECONDS)


def _keys(text: str) -> list[str]:
    """What is typed at once: some letters, and then the key that has it answered."""
    if not text[0].isprintable():
        return [text]
    letters, last = text[:-1], text[-1]
    places = range(0, len(letters), _LETTERS)
    parts = [letters[place : place + _LETTERS] for place in places]
    return [*parts, last]


def _frame(terminal: Terminal, seconds: float) -> Frame:
    screen = terminal.screen
    lines = tuple(_line(screen, row) for row in range(LINES))
    return Frame(lines=lines, seconds=seconds)


def _line(screen: pyte.Screen, row: int) -> Line:
    cells = [screen.buffer[row][column] for column in range(COLUMNS)]
    is_there = not screen.cursor.hidden and row == screen.cursor.y
    runs = []
    styles = groupby(enumerate(cells), lambda one: _style(screen, is_there, *one))
    for style, found in styles:
        runs.append(("".join(cell.data for _, cell in found), *style))
    return tuple(runs)


def _style(
    screen: pyte.Screen, is_there: bool, column: int, cell: pyte.screens.Char
) -> tuple[str, str, bool]:
    front, back = colour(cell.fg) or COLOURS["default"], colour(cell.bg)
    is_turned = cell.reverse != (is_there and column == screen.cursor.x)
    if is_turned:
        front, back = back or _GROUND, front
    return front, back, bool(cell.bold)


def drawn(frames: Sequence[Frame]) -> str:
    """The frames as a film that goes on from the beginning, in SVG."""
    width = COLUMNS * _WIDTH + 2 * _MARGIN
    height = LINES * _HEIGHT + 2 * _MARGIN
    names: dict[Line, str] = {}
    strips = []
    for number, frame in enumerate(frames):
        used = []
        for row, line in enumerate(frame.lines):
            if any(text.strip() or back for text, _, back, _ in line):
                name = names.setdefault(line, f"l{len(names)}")
                used.append(f'<use href="#{name}" y="{row * _HEIGHT}"/>')
        strips.append(f'<g transform="translate(0 {number * height})">{"".join(used)}</g>')
    known = "\n".join(f'<g id="{name}">{_in_svg(line)}</g>' for line, name in names.items())
    film = "\n".join(strips)
    box = f'viewBox="0 0 {width} {height}" width="{width}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {box}>
<style>
text {{ font: {_SIZE}px 'DejaVu Sans Mono', monospace; white-space: pre; }}
#film {{ animation: film {sum(frame.seconds for frame in frames):.2f}s infinite step-end; }}
{_keyframes(frames, height)}
</style>
<rect width="100%" height="100%" rx="6" fill="{_GROUND}"/>
<defs>
{known}
</defs>
<svg x="{_MARGIN}" y="{_MARGIN}" width="{width - 2 * _MARGIN}" height="{height - 2 * _MARGIN}">
<g id="film">
{film}
</g>
</svg>
</svg>
"""


def _keyframes(frames: Sequence[Frame], height: int) -> str:
    """From when on each frame is seen, in percent of the whole."""
    until = list(accumulate(frame.seconds for frame in frames))
    begins = [0.0, *until[:-1]]
    steps = [
        f"{100 * begin / until[-1]:.3f}% {{ transform: translateY(-{number * height}px); }}"
        for number, begin in enumerate(begins)
    ]
    return "@keyframes film { " + " ".join(steps) + " }"


def _in_svg(line: Line) -> str:
    return "".join(_runs_in_svg(line))


def _runs_in_svg(line: Line) -> Iterable[str]:
    column = 0
    for text, front, back, is_bold in line:
        # Whatever the font, letters stand below letters.
        place = f'x="{column * _WIDTH}" textLength="{len(text) * _WIDTH}"'
        if back:
            size = f'width="{len(text) * _WIDTH}" height="{_HEIGHT}"'
            yield f'<rect x="{column * _WIDTH}" {size} fill="{back}"/>'
        if text.strip():
            weight = ' font-weight="bold"' if is_bold else ""
            yield f'<text {place} y="{_SIZE}" fill="{front}"{weight}>{escape(text)}</text>'
        column += len(text)


if __name__ == "__main__":
    sys.exit(main())
