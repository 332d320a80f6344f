"""Parts of the pages about models: tables and pictures, as HTML."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from jobs.output import decimals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Sequence[object]
_LONG = 48
"""Characters of a text above which it is broken into lines."""


def shown(value: object) -> str:
    """A value as people read it; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return decimals(value)
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def table(header: Sequence[str], rows: Iterable[Row]) -> str:
    """A table that is scrolled where the window is too narrow for it."""
    body = list(rows)
    head = "".join(_head(name, place, body) for place, name in enumerate(header))
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in body)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def picture(name: str, png: bytes) -> str:
    """A picture that is part of the page."""
    data = b64encode(png).decode()
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def png_of(figure: Figure) -> bytes:
    """The figure as a picture."""
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _head(name: str, place: int, body: Sequence[Row]) -> str:
    # As the first cell below it stands that is not empty.
    first = next((row[place] for row in body if row[place] is not None), None)
    return f"<th{_style(first)}>{escape(name)}</th>"


def _cell(value: object) -> str:
    return f"<td{_style(value)}>{escape(shown(value))}</td>"


def _style(value: object) -> str:
    if isinstance(value, int | float):
        return ' class="number"'
    return ' class="text"' if len(shown(value)) > _LONG else ""
