"""A card as Markdown and as a page.

The record holds what people have written: every text of it is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING

from expectations import page
from jobs.output import harmless
from jobs.training import page_parts
from jobs.training.page_parts import shown

if TYPE_CHECKING:
    from jobs.training.cards.card import Card, Section, Table

_MARKS = re.compile(r"([\\`*\[\]<>|])")
"""What Markdown would take for more than a character."""
_Parts = Iterator[str]


def file_of(picture: str) -> str:
    """The name of a picture's file beside the card."""
    return f"{picture}.png"


def markdown(card: Card) -> str:
    """The card as Markdown; its pictures are files beside it."""
    parts = [f"# {_md(card.pipeline)}, version {_md(card.version)}: {_md(card.state)}"]
    parts.append(_md(card.summary))
    for section in card.sections:
        parts.append(f"## {_md(section.title)}")
        parts += _section_md(section)
    return "\n\n".join(parts) + "\n"


def html(card: Card) -> str:
    """The card as a page that needs nothing beside it."""
    title = f"{card.pipeline}, version {card.version}"
    badge = f'<span class="badge {card.mood}">{escape(card.state)}</span>'
    parts = [
        f'<header><p class="eyebrow">Model card · {escape(card.pipeline)}</p>',
        f"<h1>Version {escape(card.version)} {badge}</h1>",
        f'<p class="muted">{escape(card.summary)}</p></header>',
    ]
    for section in card.sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        parts += _section_html(card, section)
    return page.page(f"{title}: {card.state}", "\n".join(parts))


def _section_md(section: Section) -> _Parts:
    yield from map(_md, section.text)
    if section.points:
        yield "\n".join(f"- {_md(point)}" for point in section.points)
    for table in section.tables:
        yield "\n".join(_table_md(table))
    if section.commands:
        # Four spaces make code of a line.
        yield "\n".join(f"    {harmless(command)}" for command in section.commands)
    for picture in section.pictures:
        yield f"![{_title(picture)}]({file_of(picture)})"


def _table_md(table: Table) -> _Parts:
    yield _row_md(map(_md, table.header))
    yield _row_md("---" for _ in table.header)
    for row in table.rows:
        yield _row_md(_md(shown(value)) for value in row)


def _row_md(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _section_html(card: Card, section: Section) -> _Parts:
    for text in section.text:
        yield f"<p>{escape(text)}</p>"
    if section.points:
        points = "".join(f"<li>{escape(point)}</li>" for point in section.points)
        yield f"<ul>{points}</ul>"
    for table in section.tables:
        yield page_parts.table(table.header, table.rows)
    for command in section.commands:
        yield f'<div class="scroll"><code>{escape(command)}</code></div>'
    for picture in section.pictures:
        yield page_parts.picture(_title(picture), card.pictures[picture])


def _title(picture: str) -> str:
    return picture.replace("_", " ").capitalize()


def _md(text: str) -> str:
    # A line break would end a row of a table.
    return _MARKS.sub(r"\\\1", harmless(text))
