"""How dense code is: the figures by which a reader's effort is compared between projects.

`python -m tools.density` measures the packages of this project, `python -m tools.density FOLDER …`
any folders of Python code. What the figures mean:

- A line is a line of a file, blank or not; it is over 100 columns when it has more characters.
- A token is what Python's own tokenizer finds, apart from comments, line ends and indents; an
  f-string is one token. It counts for the line on which it begins. Docstrings, and docs under
  fields, don't count.
- A line of code is a line on which a token begins.
- A comment is a line that holds a `#` comment, alone or after code. The lines of docs under fields
  (a string that follows an assignment) are told separately.
- A nested comprehension is one with a comprehension inside it, or with a second `for`.
- The length of a function reaches from its `def` to its last line, docstring included.
- A parameter is that of a `def`, without `self` and `cls`.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from tools import PACKAGES

WIDEST = 100
"""Columns of a line that is not too wide."""
DENSEST = 25
"""Tokens of a line that is not too dense."""
DOCUMENT = Path(__file__).parents[1] / "docs" / "architecture.md"
OWN_ROW = re.compile(r"^\| Nightshift on \d{4}-\d{2}-\d{2} \|.*$", re.MULTILINE)
"""The row of the document that `--write` measures anew."""

_NO_CODE = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
)
# Since Python 3.12 the tokenizer takes an f-string apart; before, it is one token.
_FSTRING_START = getattr(tokenize, "FSTRING_START", None)
_FSTRING_END = getattr(tokenize, "FSTRING_END", None)
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_TokensAndComments = tuple[dict[int, int], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What is counted in one file."""

    path: Path
    lines: int
    wide: dict[int, int]
    """Columns of the lines over 100 columns, by line number."""
    tokens: dict[int, int]
    """Tokens by line number, of every line of code."""
    comments: int
    field_docs: int
    """Lines of docs under fields."""
    nested: tuple[int, ...]
    """Line numbers of nested comprehensions."""
    functions: tuple[int, ...]
    """Length of each function, in lines."""
    parameters: int
    annotated: int
    """Parameters with an annotation."""

    @property
    def dense(self) -> dict[int, int]:
        """Tokens of the lines with more than 25, by line number."""
        return {line: count for line, count in self.tokens.items() if count > DENSEST}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write the project's own row into docs/architecture.md."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.density",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="FOLDER",
        help="folders to measure, a row each; without any: the packages of this project",
    )
    parser.add_argument("--tests", action="store_true", help="measure tests too")
    parser.add_argument(
        "--list",
        action="store_true",
        help="print file:line of what is dense, the densest first, instead of the table",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the figures of this project into docs/architecture.md, instead of the table",
    )
    asked = parser.parse_args(arguments)
    if asked.write and (asked.folders or asked.tests):
        parser.error("--write is for the packages of this project: no FOLDER, no --tests.")
    try:
        return _answer(asked)
    except (OSError, ValueError) as error:
        print(f"density: {error}", file=sys.stderr)
        return 2


def _answer(asked: argparse.Namespace) -> int:
    folders = asked.folders or PACKAGES
    measured = {}
    everything = []
    for folder in folders:
        measured[folder] = measure(Path(folder), with_tests=asked.tests)
        everything += measured[folder]
    if asked.list:
        print("\n".join(listed(everything)))
        return 0
    if asked.write:
        write(DOCUMENT, everything, datetime.now(UTC).date())
        return 0
    if len(measured) > 1:
        measured["together"] = everything
    print(table(measured))
    return 0


def measure(folder: Path, *, with_tests: bool = False) -> list[Source]:
    """Count every Python file below the folder, apart from those in hidden folders.

    Args:
        folder: Where to look; or one file.
        with_tests: Whether to measure tests too: folders named `tests`, files named `test_*.py` or
            `conftest.py`.

    Raises:
        ValueError: the folder holds no such file, or one of them is no Python.
    """
    sources = []
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
    for path in paths:
        inside = path.relative_to(folder)
        if not _is_hidden(inside) and (with_tests or not _is_test(inside)):
            sources.append(read(path))
    if not sources:
        raise ValueError(f"'{folder}' holds no Python file to measure. Name a folder that does.")
    return sources


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_test(path: Path) -> bool:
    return "tests" in path.parts or path.name.startswith("test_") or path.name == "conftest.py"


def read(path: Path) -> Source:
    """Count one file.

    Raises:
        ValueError: it is no Python that this Python can read.
    """
    text = path.read_text(encoding="utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"{path}:{error.lineno}: {error.msg}: not measured.") from error
    lines = text.splitlines()
    columns = {number: len(line) for number, line in enumerate(lines, start=1)}
    docs = list(_docs(tree))
    tokens, comments = _tokens(text, docs)
    functions = [node for node in ast.walk(tree) if isinstance(node, _Function)]
    parameters = []
    for function in functions:
        parameters += _parameters(function.args)
    return Source(
        path=path,
        lines=len(lines),
        wide={line: count for line, count in columns.items() if count > WIDEST},
        tokens=tokens,
        comments=comments,
        field_docs=sum(len(doc.lines) for doc in docs if doc.is_of_field),
        nested=tuple(_nested_comprehensions(tree)),
        functions=tuple(len(_span(function)) for function in functions),
        parameters=len(parameters),
        annotated=sum(parameter.annotation is not None for parameter in parameters),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Doc:
    """A string that stands alone: a docstring, or the doc under a field."""

    lines: range
    is_of_field: bool


def _docs(tree: ast.Module) -> Iterator[_Doc]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):  # that of a lambda is an expression
            continue
        before = None
        for statement in body:
            if _is_string(statement):
                is_of_field = isinstance(before, ast.Assign | ast.AnnAssign)
                yield _Doc(lines=_span(statement), is_of_field=is_of_field)
            before = statement


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _tokens(text: str, docs: Iterable[_Doc]) -> _TokensAndComments:
    """Tokens by line of code, and how many lines hold a comment."""
    doc_lines: set[int] = set()
    for doc in docs:
        doc_lines.update(doc.lines)
    counted: Counter[int] = Counter()
    comments = 0
    for token in _with_whole_fstrings(text):
        line = token.start[0]
        is_doc = token.type == tokenize.STRING and line in doc_lines
        if token.type == tokenize.COMMENT:
            comments += 1
        elif token.type not in _NO_CODE and not is_doc:
            counted[line] += 1
    return dict(counted), comments


def _with_whole_fstrings(text: str) -> Iterator[tokenize.TokenInfo]:
    """The tokens; of an f-string that the tokenizer takes apart, only the first part."""
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == _FSTRING_END:
            depth -= 1
            continue
        if depth == 0:
            yield token
        if token.type == _FSTRING_START:
            depth += 1


def _nested_comprehensions(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, _Comprehension):
            continue
        itself_and_inner = [one for one in ast.walk(node) if isinstance(one, _Comprehension)]
        if len(itself_and_inner) > 1 or len(node.generators) > 1:
            yield node.lineno


def _span(statement: ast.stmt) -> range:
    assert statement.end_lineno is not None, "what was parsed knows where it ends"
    return range(statement.lineno, statement.end_lineno + 1)


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return [one for one in named + starred if one.arg not in ("self", "cls")]


def _files(sources: Sequence[Source]) -> str:
    return f"{len(sources):,}"


def _lines(sources: Sequence[Source]) -> str:
    return f"{_total_lines(sources):,}"


def _functions(sources: Sequence[Source]) -> str:
    lengths: list[int] = []
    for source in sources:
        lengths += source.functions
    if not lengths:
        return ""
    nine_in_ten = int(0.9 * len(lengths))
    return f"{statistics.median(lengths):g} / {sorted(lengths)[nine_in_ten]}"


def _annotated(sources: Sequence[Source]) -> str:
    parameters = sum(source.parameters for source in sources)
    annotated = sum(source.annotated for source in sources)
    return f"{100 * annotated / parameters:.0f} %" if parameters else ""


def _comments(sources: Sequence[Source]) -> str:
    return _per_lines(100, sum(source.comments for source in sources), sources)


def _field_docs(sources: Sequence[Source]) -> str:
    return _per_lines(100, sum(source.field_docs for source in sources), sources)


def _wide(sources: Sequence[Source]) -> str:
    return _per_lines(100, sum(len(source.wide) for source in sources), sources) + " %"


def _tokens_a_line(sources: Sequence[Source]) -> str:
    tokens = sum(sum(source.tokens.values()) for source in sources)
    lines_of_code = sum(len(source.tokens) for source in sources)
    return f"{tokens / lines_of_code:.1f}" if lines_of_code else ""


def _dense(sources: Sequence[Source]) -> str:
    return _per_lines(1000, sum(len(source.dense) for source in sources), sources)


def _nested(sources: Sequence[Source]) -> str:
    return _per_lines(1000, sum(len(source.nested) for source in sources), sources)


def _per_lines(unit: int, count: int, sources: Sequence[Source]) -> str:
    return f"{unit * count / max(_total_lines(sources), 1):.1f}"


def _total_lines(sources: Sequence[Source]) -> int:
    return sum(source.lines for source in sources)


FIGURES: dict[str, Callable[[Sequence[Source]], str]] = {
    "files": _files,
    "lines": _lines,
    "function median / p90": _functions,
    "annotated": _annotated,
    "comments per 100 lines": _comments,
    "docs under fields per 100 lines": _field_docs,
    "lines over 100 columns": _wide,
    "tokens a code line": _tokens_a_line,
    "lines over 25 tokens per 1,000 lines": _dense,
    "nested comprehensions per 1,000 lines": _nested,
}
"""What is told of sources, by the heading of its column."""


def table(measured: dict[str, list[Source]]) -> str:
    """The figures as Markdown, one row for each name."""
    head = ["", *FIGURES]
    rule = ["---"] * len(head)
    rows = [row(name, sources) for name, sources in measured.items()]
    return "\n".join([_row(head), _row(rule), *rows])


def row(name: str, sources: Sequence[Source]) -> str:
    """One row of the table."""
    return _row([name, *(figure(sources) for figure in FIGURES.values())])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def listed(sources: Sequence[Source]) -> list[str]:
    """Lines with more than 25 tokens, densest first, then nested comprehensions and wide lines."""
    nested = []
    wide = []
    for source in sources:
        nested += [f"{source.path}:{line}: nested comprehension" for line in source.nested]
        wide += [f"{source.path}:{line}: {count} columns" for line, count in source.wide.items()]
    return dense_lines(sources) + nested + wide


def dense_lines(sources: Iterable[Source]) -> list[str]:
    """Lines with more than 25 tokens, densest first."""
    dense = []
    for source in sources:
        dense += [(count, source.path, line) for line, count in source.dense.items()]
    dense.sort(key=lambda one: -one[0])
    return [f"{path}:{line}: {count} tokens" for count, path, line in dense]


def write(document: Path, sources: Sequence[Source], today: date) -> None:
    """Replace the document's row about this project.

    Raises:
        ValueError: the document has no such row, or several.
    """
    text = document.read_text(encoding="utf-8")
    own = row(f"Nightshift on {today}", sources)
    replaced, count = OWN_ROW.subn(lambda _: own, text)
    if count != 1:
        raise ValueError(
            f"{document} must hold one row that begins with '| Nightshift on YYYY-MM-DD |', "
            f"but holds {count}. Write one into its table of density."
        )
    document.write_text(replaced, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
