"""The words of SQL as DuckDB reads them: what is a comment, a text or a name is its verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import duckdb

from pipelines.errors import UsageError

_END = ";"
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*")
_BLANKS = re.compile("[\u00a0\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff]")
"""Blanks to DuckDB where it runs a statement, and letters of a name where it tells its words: such
as those of a page that one copies from, and the byte-order mark of a file."""
_QUOTE = '"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """One word, text, number or sign of a statement."""

    start: int
    """In bytes."""
    end: int
    """In bytes, without the space after it."""
    text: str
    kind: duckdb.token_type | None

    @property
    def word(self) -> str:
        """In small letters if it is a name or a word of SQL, without quotes; else empty."""
        if self.kind in (duckdb.token_type.identifier, duckdb.token_type.keyword):
            return self.text.replace('"', "").lower()
        return ""


def tokens(statements: str) -> list[Token]:
    """All but comments.

    Raises:
        UsageError: the text has what no UTF-8 can say.
    """
    # DuckDB counts bytes.
    text = _with_plain_blanks(encoded(statements))
    found = [*duckdb.tokenize(text.decode()), (len(text), None)]
    told = []
    for (start, kind), (end, _) in pairwise(found):
        if kind != duckdb.token_type.comment:
            part = text[start:end].rstrip()
            token = Token(
                start=start,
                end=start + len(part),
                text=part.decode(),
                kind=kind,
            )
            told.append(token)
    return told


def _with_plain_blanks(text: bytes) -> bytes:
    """The text with spaces in the place of other blanks between words, each word where it was."""
    statements = text.decode()
    if not _BLANKS.search(statements):
        return text
    found = [*duckdb.tokenize(statements), (len(text), None)]
    parts = [text[: found[0][0]]]
    for (start, kind), (end, _) in pairwise(found):
        part = text[start:end].decode()
        # In a text, a comment and a name in quotes they are what is said.
        is_bare = kind == duckdb.token_type.identifier and not part.startswith(_QUOTE)
        plain = _BLANKS.sub(_spaces, part) if is_bare else part
        parts.append(plain.encode())
    return b"".join(parts)


def _spaces(blank: re.Match[str]) -> str:
    """As many as the blank has bytes."""
    return " " * len(blank[0].encode())


def encoded(statements: str) -> bytes:
    """The statements as DuckDB takes them.

    Raises:
        UsageError: the text has what no UTF-8 can say, such as bytes of another encoding.
    """
    try:
        return statements.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"The statement is not UTF-8: {error}") from None


def text_of(words: Iterable[Token]) -> str:
    """The tokens as SQL again, without the comments that stood between them."""
    return " ".join(word.text for word in words)


def is_ended(statements: str) -> bool:
    """Whether the last one ends with a semicolon that is none of a text or a comment."""
    said = tokens(statements)
    return bool(said) and said[-1].text == _END


def as_name(name: str) -> str:
    """The name as a statement says it: in quotes where it would not be read as one."""
    if _PLAIN_NAME.fullmatch(name) and name.lower() not in _words("reserved"):
        return name
    return quoted(name)


def is_alias(token: Token) -> bool:
    """Whether a table that is named right before it is called so, without an AS between them."""
    is_name = token.kind == duckdb.token_type.identifier
    # Of the words of SQL all but those of other clauses, such as `old` and `new`.
    return is_name or token.word in _words("unreserved", "column_name")


def as_table(name: str) -> str:
    """The SQL name of a table of the lake as a statement says it."""
    return ".".join(map(as_name, name.split(".", maxsplit=1)))


def quoted(name: str) -> str:
    """The name in quotes, as a statement may say any."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


@cache
def _words(*kinds: str) -> frozenset[str]:
    """Words of SQL of these kinds, as DuckDB tells them: what is reserved names nothing."""
    asked = (
        "SELECT keyword_name FROM duckdb_keywords() "
        "WHERE keyword_category IN (SELECT unnest($kinds))"
    )
    with duckdb.connect(":memory:") as database:
        found = database.execute(asked, {"kinds": list(kinds)}).fetchall()
    return frozenset(word for (word,) in found)


def lists_tables(said: list[Token], place: int) -> bool:
    """Whether `SHOW TABLES` stands there, a statement by itself or in parentheses."""
    words = [token.word for token in said[place : place + 2]]
    after = said[place + 2 : place + 3]
    is_asked = words in (["show", "tables"], ["describe", "tables"])
    return is_asked and all(token.text in (_END, ")") for token in after)
