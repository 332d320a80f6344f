"""The figures of density, each on a source so small that one can count by eye."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from pipelines.environment import ROOT
from tools import PACKAGES, density

TWO_FUNCTIONS = '''\
"""A docstring
of two lines."""

import os  # why


# A remark.
def short(a: int, *rest: str, b=1) -> int:
    return a


class Place:
    street: str
    """Doc under
    a field."""

    def long(self, other: str) -> str:
        """Docstring of a method."""
        text = f"{self.street} {other}"
        return text
'''


def measured(folder: Path, text: str) -> list[density.Source]:
    (folder / "code.py").write_text(text)
    return density.measure(folder)


def figure(folder: Path, text: str, name: str) -> str:
    return density.FIGURES[name](measured(folder, text))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("files", "1"),
        ("lines", "20"),
        ("function median / p90", "3 / 4"),
        ("annotated", "75 %"),
        ("comments per 100 lines", "10.0"),
        ("docs under fields per 100 lines", "10.0"),
        ("lines over 100 columns", "0.0 %"),
        ("lines over 25 tokens per 1,000 lines", "0.0"),
        ("nested comprehensions per 1,000 lines", "0.0"),
    ],
)
def test_a_small_source_gives_each_figure(name: str, value: str, tmp_path: Path) -> None:
    assert figure(tmp_path, TWO_FUNCTIONS, name) == value


def test_nine_in_ten_functions_are_shorter_than_the_p90(tmp_path: Path) -> None:
    functions = []
    for lines in range(2, 12):
        body = "    a = 1\n" * (lines - 1)
        functions.append(f"def f{lines}() -> None:\n{body}")
    assert figure(tmp_path, "\n".join(functions), "function median / p90") == "6.5 / 11"


def test_self_and_cls_need_no_annotation(tmp_path: Path) -> None:
    text = """
class A:
    def plain(self, a): ...
    @classmethod
    def of(cls, *, a: int, **more: int): ...
"""
    assert figure(tmp_path, text, "annotated") == "67 %"


def test_tokens_are_counted_by_the_line_on_which_they_begin(tmp_path: Path) -> None:
    (source,) = measured(tmp_path, TWO_FUNCTIONS)
    assert source.tokens == {
        4: 2,  # import os
        8: 19,  # def short ( a : int , * rest : str , b = 1 ) -> int :
        9: 2,  # return a
        12: 3,  # class Place :
        13: 3,  # street : str
        17: 12,  # def long ( self , other : str ) -> str :
        19: 3,  # text = f"…": an f-string is one token
        20: 2,  # return text
    }


def test_a_string_that_is_used_is_code_and_a_docstring_is_not(tmp_path: Path) -> None:
    text = '"""A docstring."""\nQUERY = """\nSELECT 1\n"""\n'
    assert figure(tmp_path, text, "tokens a code line") == "3.0"


def test_an_fstring_within_an_fstring_is_one_token(tmp_path: Path) -> None:
    text = "a = f\"{b:{c}} {f'{d}'}\"\n"
    assert figure(tmp_path, text, "tokens a code line") == "3.0"


def test_a_line_of_101_columns_is_over_100_and_one_of_100_is_not(tmp_path: Path) -> None:
    text = f"# {'x' * 98}\n# {'x' * 99}\n"
    assert figure(tmp_path, text, "lines over 100 columns") == "50.0 %"


def test_a_line_of_26_tokens_is_dense_and_one_of_25_is_not(tmp_path: Path) -> None:
    twelve = "a + " * 11 + "a"
    text = f"b = {twelve}\nb = -{twelve}\n"
    assert figure(tmp_path, text, "lines over 25 tokens per 1,000 lines") == "500.0"


@pytest.mark.parametrize(
    ("line", "is_nested"),
    [
        ("[a for a in b]", False),
        ("[a for a in b if a]", False),
        ("[a for b in c for a in b]", True),
        ("[[a for a in b] for b in c]", True),
        ("sum(a for a in {b: c for b in d})", True),
        ("[f(lambda: {a for a in b}) for b in c]", True),
    ],
)
def test_a_comprehension_within_one_or_with_two_fors_is_nested(
    line: str, is_nested: bool, tmp_path: Path
) -> None:
    (source,) = measured(tmp_path, f"{line}\n")
    assert bool(source.nested) == is_nested


def test_tests_and_hidden_folders_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    for name in ("code.py", "test_code.py", "tests/small.py", ".venv/library.py", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("a = 1\n")
    without = [source.path.name for source in density.measure(tmp_path)]
    with_tests = [source.path.name for source in density.measure(tmp_path, with_tests=True)]
    assert without == ["code.py"]
    assert with_tests == ["code.py", "test_code.py", "small.py"]


def test_one_file_can_be_measured(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("a = 1\n")
    (source,) = density.measure(tmp_path / "code.py")
    assert source.lines == 1


def test_the_table_has_a_row_for_each_folder_and_one_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "code.py").write_text("a = 1\nb = 2\n")
        folders.append(str(folder))
    assert density.main(folders) == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("|  | files | lines |")
    assert rule.startswith("| --- | --- |")
    assert [row.split(" | ")[:3] for row in rows] == [
        [f"| {folders[0]}", "1", "2"],
        [f"| {folders[1]}", "1", "2"],
        ["| together", "2", "4"],
    ]


def test_the_list_names_what_is_dense_the_densest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tmp_path / "code.py"
    dense = "b = " + "a + " * 13 + "a"
    denser = "b = " + "a + " * 14 + "a"
    wide = f"# {'x' * 99}"
    nested = "[a for b in c for a in b]"
    code.write_text(f"{dense}\n{denser}\n{nested}\n{wide}\n")
    assert density.main(["--list", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{code}:2: 31 tokens",
        f"{code}:1: 29 tokens",
        f"{code}:3: nested comprehension",
        f"{code}:4: 101 columns",
    ]


@pytest.mark.policy
@pytest.mark.parametrize("folder", [*PACKAGES, "bench", "tools", "tests"])
def test_no_line_of_ours_is_dense(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that a line is told by its path in the project.
    monkeypatch.chdir(ROOT)
    dense = density.dense_lines(density.measure(Path(folder), with_tests=True))
    assert not dense, (
        f"More than {density.DENSEST} tokens. Name a step, take a comprehension apart, or give "
        "each argument a line by a comma behind the last one:\n" + "\n".join(dense)
    )


def test_the_row_of_the_document_is_replaced_and_no_other(tmp_path: Path) -> None:
    document = tmp_path / "architecture.md"
    document.write_text("| others | 1 |\n| Nightshift on 2001-01-01 | old |\nthe end\n")
    density.write(document, measured(tmp_path, "a = 1\n"), date(2013, 4, 1))
    others, own, end = document.read_text().splitlines()
    assert (others, end) == ("| others | 1 |", "the end")
    assert own.startswith("| Nightshift on 2013-04-01 | 1 | 1 |")


def test_a_document_without_a_row_of_ours_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "architecture.md"
    document.write_text("| others | 1 |\n")
    with pytest.raises(ValueError, match="must hold one row .* but holds 0"):
        density.write(document, measured(tmp_path, "a = 1\n"), date(2013, 4, 1))


def test_the_document_has_the_row_that_is_written_anew() -> None:
    assert len(density.OWN_ROW.findall(density.DOCUMENT.read_text())) == 1


def test_a_folder_without_python_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert density.main([str(tmp_path)]) == 2
    assert f"'{tmp_path}' holds no Python file" in capsys.readouterr().err


def test_a_file_that_is_no_python_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tmp_path / "code.py"
    code.write_text("a = 1\nb = = 2\n")
    assert density.main([str(tmp_path)]) == 2
    assert f"{code}:2: invalid syntax" in capsys.readouterr().err
