"""The picture of who imports whom in docs/architecture.md, drawn from the code.

`python -m tools.import_graph` tells what the picture lacks and what it has too much;
`python -m tools.import_graph --write` draws it anew. A node is a package of this project; of `jobs`
a node is each package and module inside it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grimp

from tools import PACKAGES

DOCUMENT = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN = "<!-- import graph: drawn by `python -m tools.import_graph --write` -->"
END = "<!-- end of the import graph -->"
SPINE = "pipelines"
"""Every package may import it, so the arrows to it are left out of the picture."""
OPENED = "jobs"
"""The package whose insides are drawn."""

_NODE = re.compile(r"^ *([\w.]+)\[")
_EDGE = re.compile(r"^ *([\w.]+) --> ([\w.]+)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """Packages, and who of them imports whom."""

    nodes: frozenset[str]
    edges: frozenset[tuple[str, str]]
    """Importer and imported."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the picture with the code, or draw it anew."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.import_graph",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--write", action="store_true", help="draw the picture anew")
    asked = parser.parse_args(arguments)
    if asked.write:
        write(DOCUMENT, of_code())
        return 0
    wrong = differences(drawn=of_document(DOCUMENT), real=of_code())
    print("\n".join(wrong) or "The picture is what the code imports.")
    return 1 if wrong else 0


def of_code() -> Picture:
    """Who imports whom in the code, apart from imports for type checkers alone."""
    # No cache: it would lie in the folder in which this is run.
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    inside = graph.find_children(OPENED)
    nodes = {package for package in PACKAGES if package not in (OPENED, SPINE)} | inside
    for package in nodes | {SPINE}:
        graph.squash_module(package)
    edges = set()
    for importer in nodes:
        for imported in graph.find_modules_directly_imported_by(importer):
            if imported in nodes and imported != importer:
                edges.add((importer, imported))
    return Picture(nodes=frozenset(nodes), edges=frozenset(edges))


def of_document(document: Path) -> Picture:
    """What the document's picture shows.

    Raises:
        ValueError: the document lacks the marks between which the picture stands.
    """
    nodes = set()
    edges = set()
    _, drawn, _ = _parts(document)
    for line in drawn.splitlines():
        node = _NODE.match(line)
        edge = _EDGE.match(line)
        if node:
            nodes.add(node.group(1))
        if edge:
            edges.add((edge.group(1), edge.group(2)))
    return Picture(nodes=frozenset(nodes), edges=frozenset(edges))


def differences(*, drawn: Picture, real: Picture) -> list[str]:
    """A sentence for each package or arrow that only one of the two has."""
    lacks = [f"The picture lacks {node}." for node in real.nodes - drawn.nodes]
    lacks += [f"The picture lacks {a} --> {b}." for a, b in real.edges - drawn.edges]
    has = [f"The picture has {node}, which is not there." for node in drawn.nodes - real.nodes]
    has += [
        f"The picture has {a} --> {b}, which the code does not import."
        for a, b in drawn.edges - real.edges
    ]
    return sorted(lacks) + sorted(has)


def write(document: Path, picture: Picture) -> None:
    """Draw the document's picture anew.

    Raises:
        ValueError: the document lacks the marks between which the picture stands.
    """
    before, _, after = _parts(document)
    text = f"{before}\n{mermaid(picture)}\n{after}"
    document.write_text(text, encoding="utf-8")


def mermaid(picture: Picture) -> str:
    """The picture as a Mermaid block: a box around the inside of `jobs`, an arrow an import."""
    opened = sorted(node for node in picture.nodes if _is_inside(node))
    others = sorted(picture.nodes - set(opened))
    return "\n".join(
        [
            "```mermaid",
            "graph TD",
            *(f'  {node}["{node}"]' for node in others),
            f"  subgraph inside [{OPENED}]",
            *(f'    {node}["{_name(node)}"]' for node in opened),
            "  end",
            *(f"  {importer} --> {imported}" for importer, imported in sorted(picture.edges)),
            "```",
        ]
    )


def _is_inside(node: str) -> bool:
    return node.startswith(f"{OPENED}.")


def _name(node: str) -> str:
    return node.removeprefix(f"{OPENED}.")


def _parts(document: Path) -> tuple[str, str, str]:
    """What stands up to the first mark, between the marks, and from the second on."""
    text = document.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    drawn, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{document} must hold the lines '{BEGIN}' and '{END}', in this order.")
    return before + begin, drawn, end + after


if __name__ == "__main__":
    sys.exit(main())
