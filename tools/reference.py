"""The reference in docs/reference, drawn from the code: commands, settings, tables.

`python -m tools.reference` tells which pages are not what the code says, and
`python -m tools.reference --write` writes them anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from jobs.__main__ import EXIT_CODES, parser
from jobs.lake.dictionary import column_docs, table_doc
from jobs.lake.ops_docs import OPS_TABLES
from jobs.lake.ops_views import OPS_VIEWS
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.spec import HISTORY_SUFFIX, OPS, PREDICTIONS, QUARANTINE_SUFFIX, Pipeline

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
_HELP = "`--help` tells the same of any command, but of `airflow`, which is Airflow itself."
_DRAWN = "<!-- drawn by `python -m tools.reference --write` -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the pages with the code, or write them anew."""
    asked = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    asked.add_argument("--write", action="store_true", help="write the pages anew")
    is_written = asked.parse_args(arguments).write
    if is_written:
        write()
        return 0
    wrong = differences()
    print("\n".join(wrong) or "The reference is what the code says.")
    return 1 if wrong else 0


def pages() -> dict[str, str]:
    """The text of each page by its path below docs/reference."""
    of_pipelines = {
        f"tables/{name}.md": _tables(_of(catalog.pipeline(name)), name) for name in catalog.names()
    }
    return {
        "commands.md": _commands(),
        "settings.md": _settings(),
        "tables/ops.md": _tables([*(f"{OPS}.{name}" for name in OPS_TABLES), *OPS_VIEWS], OPS),
        **of_pipelines,
    }


def write() -> None:
    """Write every page, and delete those of what is there no more."""
    for path in FOLDER.glob("tables/*.md"):
        path.unlink()
    for name, text in pages().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def differences() -> list[str]:
    """What a person has to mend, a line a page."""
    wanted = pages()
    drawn = [path for path in FOLDER.rglob("*.md") if _is_drawn(path)]
    there = {str(path.relative_to(FOLDER)) for path in drawn}
    of_nothing = there - set(wanted)
    wrong = [f"docs/reference/{name} is of nothing that is there" for name in of_nothing]
    for name, text in wanted.items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            wrong.append(f"docs/reference/{name} is not what the code says")
    return [f"{one}: python -m tools.reference --write" for one in sorted(wrong)]


def _is_drawn(path: Path) -> bool:
    return _DRAWN in path.read_text()


def _commands() -> str:
    lines = [
        "# Commands",
        _DRAWN,
        f"{EXIT_CODES} {_HELP}",
    ]
    (commands,) = (
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    for name, one in commands.choices.items():
        lines += ["", f"## nightshift {name}", "", _text(one.description)]
        rows = [_argument(action) for action in one._actions if action.dest != "help"]
        if rows:
            lines += ["", *_table(("argument", "what"), rows)]
    return "\n".join(lines) + "\n"


def _argument(action: argparse.Action) -> tuple[str, str]:
    value = _value(action)
    words = [f"{word} {value}".rstrip() for word in action.option_strings or [""]]
    spelled = ", ".join(f"`{word.strip()}`" for word in words)
    # Of words without a dash brackets tell it.
    is_asked_for = action.required and action.option_strings
    return _text(spelled), _help(action) + ("; required" if is_asked_for else "")


def _value(action: argparse.Action) -> str:
    """What stands for the value, with its dots and brackets; '': it takes none."""
    if action.nargs == 0:
        return ""
    word = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    if action.choices:
        word = "|".join(map(str, action.choices))
    shapes = {"*": "[{0} …]", "+": "{0} …", "?": "[{0}]", argparse.REMAINDER: "[{0} …]"}
    return shapes.get(str(action.nargs), "{0}").format(word)


def _help(action: argparse.Action) -> str:
    told = (action.help or "") % {**vars(action), "prog": "nightshift"}
    # A new pipeline is new files only.
    return _text(told.replace(", ".join(catalog.names()), "the pipelines"))


def _settings() -> str:
    rows = [
        (f"`{one.variable}`", _default(name, one.default), _text(one.does))
        for name, one in Environment.settings().items()
    ]
    about = (
        "Environment variables, read once by each command. `nightshift config` shows the values in "
        "force and where they come from; `nightshift up` notices that one has changed, and starts "
        "anew. `{home}` is `NIGHTSHIFT_HOME`. A variable `AIRFLOW__SECTION__KEY` sets anything of "
        "Airflow's own but what Nightshift sets by one of these: `up` refuses such a variable, and "
        "names the one to set in its place."
    )
    lines = [
        "# Settings",
        _DRAWN,
        about,
        "",
        *_table(("variable", "default", "decides"), rows),
    ]
    return "\n".join(lines) + "\n"


def _default(name: str, text: str | None) -> str:
    # What depends on the machine is told in words.
    words = {
        "home": "`var` in the project's folder",
        "spark_cores": "all that the process may use, by its affinity and a container's quota",
    }
    return words.get(name, f"`{text}`" if text else "none")


def _of(pipeline: Pipeline) -> Iterator[str]:
    for table in pipeline.tables:
        yield f"{pipeline.name}.{table.name}"
    for feed in pipeline.feeds:
        yield f"{pipeline.name}.{feed.name}{QUARANTINE_SUFFIX}"
    yield f"{pipeline.name}.{PREDICTIONS}{HISTORY_SUFFIX}"


def _tables(names: Iterator[str] | Sequence[str], schema: str) -> str:
    lines = [
        f"# Tables of `{schema}`",
        _DRAWN,
        "As `nightshift describe TABLE` tells them, with the types of what is there.",
    ]
    return "\n".join(chain(lines, *map(_of_table, names))) + "\n"


def _of_table(name: str) -> list[str]:
    rows = [(f"`{column}`", _text(doc)) for column, doc in column_docs(name).items()]
    head = ["", f"## {name}", "", _text(table_doc(name)), ""]
    return [*head, *_table(("column", "meaning"), rows)]


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> list[str]:
    ruler = ["---"] * len(header)
    return [f"| {' | '.join(cells)} |" for cells in (header, ruler, *rows)]


def _text(words: str | None) -> str:
    """On one line, with nothing that Markdown takes for the end of a cell."""
    return " ".join((words or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
