"""The commands that our documents show, as a person would type them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.environment import ROOT

_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_EXIT_CODE = re.compile(r"# exit code (\d)")
_PROMPT = "$ "


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One command of a document."""

    document: str
    text: str

    @property
    def words(self) -> list[str]:
        """What the shell makes of it."""
        return shlex.split(self.text.replace("\\\n", " "), comments=True)

    @property
    def exit_code(self) -> int:
        """With which it ends, by the comment beside it."""
        told = _EXIT_CODE.search(self.text)
        return int(told[1]) if told else 0


def documents() -> list[Path]:
    """README and everything below docs, but decisions: they tell of their day."""
    below = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", *(path for path in below if path.parent.name != "decisions")]


def commands(document: Path) -> Iterator[Command]:
    """Each command of the console blocks, in order; of what is printed nothing."""
    name = str(document.relative_to(ROOT))
    for block in _CONSOLE.findall(document.read_text()):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith(_PROMPT):
                continue
            text = line.removeprefix(_PROMPT)
            while _goes_on(text):
                text += "\n" + next(lines)
            yield Command(document=name, text=text)


def _goes_on(text: str) -> bool:
    """Whether the shell would wait for another line."""
    if text.endswith("\\"):
        return True
    try:
        shlex.split(text, comments=True)
    except ValueError:  # a quote that is open
        return True
    return False
