"""What lies within a text of several lines is found as Python's own reader of CSV would."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.ingestion import open_texts
from jobs.ingestion.contents import Unfit
from jobs.ingestion.csv import Csv
from jobs.ingestion.open_texts import OpenTexts, Within
from tests.conftest import SWEEP_EXAMPLES
from tests.jobs.toy import READINGS

TEXTS = st.text(st.sampled_from('a,"\n '), max_size=8)
ROWS = st.lists(TEXTS, min_size=2, max_size=3)


def _found(content: bytes, piece_bytes: int = 1000) -> tuple[Within, ...]:
    texts = OpenTexts(1)
    for begin in range(0, len(content), piece_bytes):
        texts.see(content[begin : begin + piece_bytes])
    return texts.end()


@settings(max_examples=SWEEP_EXAMPLES, deadline=None)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=8),
    quotes_all=st.booleans(),
    line_end=st.sampled_from(["\n", "\r\n"]),
    piece_bytes=st.integers(1, 9),
    ends=st.booleans(),
)
def test_what_a_writer_of_csv_puts_on_several_lines_is_found(
    rows: list[list[str]], quotes_all: bool, line_end: str, piece_bytes: int, ends: bool
) -> None:
    written = StringIO(newline="")
    quoting = csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL
    csv.writer(written, quoting=quoting, lineterminator=line_end).writerows(rows)
    content = written.getvalue() if ends else written.getvalue().removesuffix(line_end)
    reader = csv.reader(StringIO(content, newline=""))
    expected = []
    begins = 1
    for _ in reader:
        if reader.line_num - begins > 1:
            expected.append(Within(begins + 1, reader.line_num - 1))
        begins = reader.line_num + 1
    assert _found(content.encode(), piece_bytes) == tuple(expected)


@pytest.mark.parametrize(
    "lines",
    [
        # Quotes that open nothing, or close nothing.
        ['1,5" pipe', "2,good", '3,6" pipe'],
        ['1,"a', "2,good", '3,6" pipe'],
        ['1,5" pipe', "2,good", '3,a"'],
        # A field does not go on behind its closing quote.
        ['1,"a', "2,good", '3,a"b'],
        ['1,"a', '2,b"'],
        ['"', '"'],
    ],
)
def test_a_quote_too_many_takes_no_other_line_with_it(lines: list[str]) -> None:
    assert _found("\n".join(lines).encode()) == ()


def test_an_opened_text_ends_at_the_next_one_that_is_opened() -> None:
    lines = ['1,"never closed', "2,good", '3,"a', "4,b", 'c"', "5,good"]
    assert _found("\n".join(lines).encode()) == (Within(4, 4),)


def test_what_is_too_long_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_texts, "_MOST_LINES", 3)
    text = ['1,"a', "2,b", "3,c", 'd"']
    assert _found("\n".join(text).encode()) == (Within(2, 3),)
    text.insert(1, "4,e")
    assert _found("\n".join(text).encode()) == ()
    monkeypatch.setattr(open_texts, "_LONGEST_LINE", 20)
    assert _found(b"x" * 21 + b'\n1,"a\n2,b\nc"\n', 7) == ()


def test_a_file_with_more_such_lines_than_are_held_is_no_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_texts, "MOST_FOUND", 4)
    file = tmp_path / "readings.csv"
    text = '1,"a\n2,b\n3,c"\n'
    file.write_text("id,note\n" + text * 4)
    assert len(Csv().contents(file, READINGS).within_texts) == 4
    file.write_text("id,note\n" + text * 1000)
    with pytest.raises(Unfit, match="of its lines lie within texts of several lines"):
        Csv().contents(file, READINGS)
    texts = OpenTexts(1)
    texts.see((text * 1000).encode())
    assert len(texts.end()) == 5


def test_a_line_of_many_quotes_takes_no_time() -> None:
    lines = [
        b'"' * 200_001,
        b'"a",' * 50_000 + b'"',
        b'""' * 100_000 + b'"x',
    ]
    assert _found(b"\n".join(lines)) == ()
