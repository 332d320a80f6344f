"""What a card holds, whatever it is rendered as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Figures; of each column the values are of one kind."""

    header: tuple[str, ...]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a card under one title."""

    title: str
    text: tuple[str, ...] = ()
    """Paragraphs."""
    points: tuple[str, ...] = ()
    """A list."""
    tables: tuple[Table, ...] = ()
    pictures: tuple[str, ...] = ()
    """Names in `Card.pictures`."""
    commands: tuple[str, ...] = ()
    """For a shell."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is told in it."""
        return not (self.text or self.points or self.tables or self.pictures or self.commands)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A version of a model, for people."""

    pipeline: str
    version: str
    summary: str
    """One sentence."""
    state: str
    """What has become of it, in a few words."""
    mood: Literal["passed", "warned", "failed"]
    """How the state is marked."""
    sections: tuple[Section, ...]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """Name -> PNG."""
