"""A picture of the shell of `nightshift sql`, as a person sees it.

`python -m tools.terminal` types statements into a real shell in a terminal of its own, and draws
what is on the screen as docs/pictures/sql-shell.png. The home that NIGHTSHIFT_HOME names must have
the nights of `make demo`. Look at the picture before it is committed.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from html import escape
from pathlib import Path

import pyte
from playwright.sync_api import sync_playwright

from tools.pictures import ROOT, SHOWN

PICTURE = SHOWN / "sql-shell.png"
COLUMNS, LINES = 108, 44
_QUIET_SECONDS = 1.5
"""So long nothing is written when the shell has answered."""
_MOST_SECONDS = 60
_TYPED = (
    "\\timing\r",
    "SELECT carrier, count(*) AS flights, round(avg(late_probability), 3) AS risk\r",
    "FROM flights.predictions WHERE flight_date = '2013-04-03'\r",
    "GROUP BY carrier ORDER BY risk DESC LIMIT 5;\r",
    "SELECT risk FROM flights.prediction;\r",
    "COPY (SELECT 1) TO '/tmp/out.csv';\r",
    "SELECT count(*) FROM flights.pre\t",
)
"""Each is answered before the next; the last one is left with what it may be completed to."""
COLOURS = {
    "default": "#d8dee9",
    "black": "#8a93a3",
    "red": "#e06c75",
    "green": "#98c379",
    "brown": "#e5c07b",
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": "#eceff4",
}
_STYLE = """
body { margin: 0; background: #1e222a; padding: 18px 22px; display: inline-block; }
pre { margin: 0; font: 15px/1.35 'DejaVu Sans Mono', monospace; color: #d8dee9; }
"""


class Terminal:
    """A shell in a terminal of its own."""

    def __init__(self, descriptor: int, lines: int) -> None:
        self._descriptor = descriptor
        self.screen = pyte.Screen(COLUMNS, lines)
        self._stream = pyte.ByteStream(self.screen)

    def type(self, text: str, quiet_seconds: float = _QUIET_SECONDS) -> None:
        """Type, and wait until the shell has answered."""
        os.write(self._descriptor, text.encode())
        self.wait(quiet_seconds)

    def wait(self, quiet_seconds: float = _QUIET_SECONDS) -> None:
        """Read until nothing more is written for so long."""
        deadline = time.monotonic() + _MOST_SECONDS
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._descriptor], [], [], quiet_seconds)
            if not ready:
                return
            written = os.read(self._descriptor, 65_536)
            self._stream.feed(written)
            # prompt_toolkit asks where the cursor stands, as terminals can tell.
            if b"\x1b[6n" in written:
                cursor = self.screen.cursor
                os.write(self._descriptor, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())


def main() -> int:
    """Make the picture."""
    with shell(LINES) as terminal:
        terminal.wait()
        for text in _TYPED:
            terminal.type(text)
        _draw(terminal.screen)
    print(f"{PICTURE.relative_to(ROOT)}: look at it.")
    return 0


@contextmanager
def shell(lines: int) -> Iterator[Terminal]:
    """A shell in a terminal of so many lines, for the time of the block."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, COLUMNS, 0, 0))
    program = [str(Path(sys.executable).with_name("nightshift")), "sql"]
    kind = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_COLOR_DEPTH": "DEPTH_4_BIT"}
    variables = {**os.environ, **kind}
    process = subprocess.Popen(
        program, stdin=theirs, stdout=theirs, stderr=theirs, env=variables, start_new_session=True
    )
    os.close(theirs)
    try:
        yield Terminal(ours, lines)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _draw(screen: pyte.Screen) -> None:
    page = f"<meta charset='utf-8'><style>{_STYLE}</style><body><pre>{_html(screen)}</pre>"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        sheet = browser.new_page(device_scale_factor=1.5)
        sheet.set_content(page)
        sheet.locator("body").screenshot(path=PICTURE)
        browser.close()


def _html(screen: pyte.Screen) -> str:
    lines = [_line(screen, number) for number in range(screen.lines)]
    return "\n".join(lines).rstrip()


def _line(screen: pyte.Screen, number: int) -> str:
    cells = screen.buffer[number]
    shown = [_cell(cells[column]) for column in range(screen.columns)]
    return "".join(shown).rstrip()


def _cell(cell: pyte.screens.Char) -> str:
    front, back = colour(cell.fg), colour(cell.bg)
    styles = []
    if cell.reverse:
        front, back = back or "#1e222a", front or COLOURS["default"]
    if front:
        styles.append(f"color:{front}")
    if back:
        styles.append(f"background:{back}")
    if cell.bold:
        styles.append("font-weight:bold")
    text = escape(cell.data)
    return f'<span style="{";".join(styles)}">{text}</span>' if styles else text


def colour(name: str) -> str:
    """In CSS; '' for the terminal's own."""
    if name == "default":
        return ""
    plain = name.removeprefix("bright")
    return COLOURS.get(plain, f"#{name}")


if __name__ == "__main__":
    sys.exit(main())
