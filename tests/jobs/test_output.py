"""Rows are printed as they are: in tables for people, in CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from jobs import output
from jobs.output import log_to_stderr, show
from pipelines.errors import UsageError


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def printed(
    columns: list[str],
    rows: list[tuple[object, ...]],
    form: str = "table",
) -> str:
    out = io.StringIO()
    show(columns, rows, form, out)
    return out.getvalue()


def on_terminal(columns: list[str], rows: list[tuple[object, ...]]) -> str:
    out = Terminal()
    show(columns, rows, "table", out)
    return out.getvalue()


def test_a_table_prints_text_as_it_is_and_numbers_to_the_right() -> None:
    rows = [("1E5", "00501", 7, None), ("12", "1_000", 12, 0.25)]
    assert printed(["name", "zip", "n", "share"], rows) == (
        "+------+-------+----+-------+\n"
        "| name | zip   |  n | share |\n"
        "|------+-------+----+-------|\n"
        "| 1E5  | 00501 |  7 |  null |\n"
        "| 12   | 1_000 | 12 |  0.25 |\n"
        "+------+-------+----+-------+\n"
    )


def test_a_terminal_shows_the_same_table() -> None:
    columns = ["name", "n", "share"]
    rows = [("1E5", 7, None), ("[red]x", 12, 0.25)]
    assert on_terminal(columns, rows) == printed(columns, rows)


def test_markup_in_data_is_not_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    data = "[red]x[/red] :smile: [/] [link=x] 7"
    expected = [f"| {data} |"] * 2
    columns = [data]
    rows = [(data,)]
    for text in (printed(columns, rows), on_terminal(columns, rows)):
        assert text.splitlines()[1:4:2] == expected


@pytest.mark.parametrize(
    ("data", "harmless"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("a\x9bb\x7f", "a\\x9bb\\x7f"),
        ("a\u202eb\u2028c", "a\\u202eb\\u2028c"),
        ("a\udc80b", "a\\udc80b"),
        ("caf\xe9\xa0\u6771\u4eac", "caf\xe9\xa0\u6771\u4eac"),
    ],
)
def test_control_characters_reach_no_terminal(data: str, harmless: str) -> None:
    columns = [data]
    rows = [(data,)]
    for text in (printed(columns, rows), on_terminal(columns, rows)):
        header, _, row = text.splitlines()[1:4]
        assert header == row == f"| {harmless} |"


def test_wide_characters_keep_the_columns_in_line() -> None:
    rows = [("\u6771\u4eac", "x"), ("Rome", "y")]
    assert printed(["city", "b"], rows).splitlines()[3:5] == [
        "| \u6771\u4eac | x |",
        "| Rome | y |",
    ]


def test_a_file_gets_every_row_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MOST_ON_TERMINAL", 2)
    lines = printed(["text"], [("x" * 500,)] * 3).splitlines()
    assert [len(line) for line in lines] == [504] * 7


def test_a_terminal_gets_what_fits_and_a_word_about_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "MOST_ON_TERMINAL", 2)
    monkeypatch.setenv("COLUMNS", "40")
    lines = on_terminal(["text"], [("y" * 50,)] * 3).splitlines()
    assert max(map(len, lines)) <= 40
    assert "".join(lines).count("y") == 100
    assert "Only the first 2 rows" in capsys.readouterr().err


def test_columns_that_a_terminal_is_too_narrow_for_are_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    columns = [f"column_{number}" for number in range(20)]
    rows: list[tuple[object, ...]] = [tuple(f"value {number}" for number in range(20))]
    assert on_terminal(columns, rows) == printed(columns, rows)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.float64(24.5120461), "24.512046"),
        (0.6436512470245361, "0.643651"),
        (123456.7890123, "123456.789012"),
        (1e-9, "1e-09"),
        (2.0, "2.0"),
        (float("nan"), "nan"),
        (1e300, "1e+300"),
        (Decimal("1.10"), "1.10"),
        (Decimal("0E-10"), "0.0000000000"),
        ([Decimal("1.0E-9")], '["0.0000000010"]'),
        (True, "true"),
        (b"\x00\xff", "00ff"),
        ([1, None, "a"], '[1, null, "a"]'),
        ([math.nan, {"a": math.inf}], '[NaN, {"a": Infinity}]'),
        (datetime(2013, 1, 1, 5, tzinfo=UTC), "2013-01-01 05:00:00+00:00"),
    ],
)
def test_a_table_shows_each_kind_of_value(value: object, shown: str) -> None:
    assert output.shown(value) == shown


@pytest.mark.parametrize(
    ("value", "four", "six"),
    [
        (0.0, "0.0000", "0.000000"),
        (-1.2195814, "-1.2196", "-1.219581"),
        (0.00123456, "0.0012", "0.001235"),
        (0.00000123456789, "1.235e-06", "1.23457e-06"),
    ],
)
def test_a_fraction_keeps_digits_that_count(value: float, four: str, six: str) -> None:
    assert (output.decimals(value), output.decimals(value, 6)) == (four, six)


def test_a_column_of_numbers_and_words_is_text() -> None:
    lines = printed(["a"], [(1,), ("one",)]).splitlines()
    assert lines[3] == "| 1   |"


def test_a_table_without_rows_or_columns_is_still_one() -> None:
    assert printed(["a"], []) == "+---+\n| a |\n|---|\n+---+\n"


def test_json_is_what_any_reader_accepts() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    row = {
        "nan": float("nan"),
        "infinite": [float("inf"), {"deep": float("-inf")}],
        "day": date(2013, 1, 1),
        "at": datetime(2013, 1, 1, 5, tzinfo=UTC),
        "exact": Decimal("12345678901234567890.10"),
        "bytes": b"\x00\xff",
        "nested": {1: [date(2013, 1, 2), None, True]},
        "huge": 2**70,
        "text": "\x1b[31m\u6771\udc80",
        "id": UUID(int=1),
        "lasted": timedelta(hours=1),
    }
    text = printed(list(row), [tuple(row.values())], "json")
    assert text.isascii()
    assert json.loads(text, parse_constant=refuse) == [
        {
            "nan": None,
            "infinite": [None, {"deep": None}],
            "day": "2013-01-01",
            "at": "2013-01-01T05:00:00+00:00",
            "exact": "12345678901234567890.10",
            "bytes": "00ff",
            "nested": {"1": ["2013-01-02", None, True]},
            "huge": 2**70,
            "text": "\x1b[31m\u6771\udc80",
            "id": "00000000-0000-0000-0000-000000000001",
            "lasted": "1:00:00",
        }
    ]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_json_of_any_number_of_rows_is_a_list(count: int) -> None:
    text = printed(["a"], [(1,)] * count, "json")
    assert json.loads(text) == [{"a": 1}] * count


def test_json_refuses_two_columns_of_one_name() -> None:
    with pytest.raises(UsageError, match="Two columns are named 'a'"):
        printed(["a", "b", "a"], [(1, 2, 3)], "json")


def test_csv_repeats_text_to_the_letter_and_leaves_null_empty() -> None:
    row = ("1E5", "00501", 'say "x",\ny', None, 0.6436512470245361, True)
    text = printed(list("abcdef"), [row], "csv")
    assert list(csv.reader(io.StringIO(text))) == [
        list("abcdef"),
        ["1E5", "00501", 'say "x",\ny', "", "0.6436512470245361", "true"],
    ]


def test_csv_tells_an_empty_text_from_what_is_absent() -> None:
    rows = [
        ("", None, 1),
        (None, "", 'say "x"'),
        ("", "", ""),
    ]
    assert printed(list("abc"), rows, "csv") == 'a,b,c\n"",,1\n,"","say ""x"""\n"","",""\n'


@pytest.mark.parametrize("text", ["x\ny", "x\ry", "x\r\ny", "\r", "\n", "x\r"])
@pytest.mark.parametrize("beside", ["", None, "z"])
def test_csv_has_a_line_for_each_row_whatever_breaks_its_texts(
    text: str, beside: str | None
) -> None:
    given = [(beside, text), (text, beside)]
    written = printed(["a", "b"], given, "csv")
    _, *rows = csv.reader(io.StringIO(written, newline=""))
    told = beside or ""
    assert rows == [[told, text], [text, told]]
    # What tells lines apart by either sign finds those that are quoted alone.
    assert written.count(f'"{text}"') == 2


def test_csv_of_one_column_has_no_line_that_readers_leave_out() -> None:
    rows = [("",), (None,), ("x",)]
    written = printed(["a"], rows, "csv")
    assert written == 'a\n""\n""\nx\n'
    lines = csv.reader(io.StringIO(written))
    assert ["".join(line) for line in lines] == ["a", "", "", "x"]


def test_a_table_in_full_streams_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_ROWS_MEASURED", 2)
    out = io.StringIO()
    seen = []

    def rows() -> Iterator[tuple[str]]:
        for text in ("one", "two", "three", "4"):
            seen.append(out.getvalue().count("\n"))
            yield (text,)

    show(["text"], rows(), to=out)
    assert seen == [0, 0, 5, 6]
    assert out.getvalue().splitlines()[3:] == [
        "| one  |",
        "| two  |",
        "| three |",
        "| 4    |",
        "+------+",
    ]


def test_a_large_result_takes_seconds() -> None:
    rows = [(number, f"text {number}", None, number / 7) for number in range(100_000)]
    for form in ("table", "csv", "json"):
        started = time.monotonic()
        printed(["a", "b", "c", "d"], rows, form)
        assert time.monotonic() - started < 20


def test_rich_is_imported_only_for_a_table() -> None:
    program = (
        "import sys; from jobs.output import show; "
        "show(['a'], [(1,)], 'csv'); show(['a'], [(1,)], 'json'); print('rich' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "False", ended.stderr


def test_what_is_printed_meanwhile_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with log_to_stderr():
        print("from Python")
        os.write(1, b"from below\n")
        subprocess.run(["echo", "from a child"], check=True)
    print("a row")
    captured = capfd.readouterr()
    assert captured.out == "a row\n"
    assert sorted(captured.err.splitlines()) == ["from Python", "from a child", "from below"]


def test_stdout_comes_back_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), log_to_stderr():
        raise KeyError
    os.write(1, b"a row\n")
    assert capfd.readouterr().out == "a row\n"


def test_every_form_goes_to_a_file_too(tmp_path: Path) -> None:
    for form in output.FORMATS:
        with (tmp_path / form).open("w", encoding="utf-8") as file:
            show(["a"], [("\u6771",)], form, file)
        assert (tmp_path / form).read_text(encoding="utf-8")
