from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from bench import compare, report
from bench.harness import OURS, Case, Measured, Peer, measure
from tests.bench import toy


@pytest.fixture(autouse=True)
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders of runs are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _with_peers(*names: str) -> Case:
    return replace(toy.CASE, peers=tuple(Peer(name=name, what=name) for name in names))


def test_all_ways_are_compared_first_and_then_measured_in_turns(below: Path) -> None:
    measured = measure(toy.CASE, 10)
    ways = [OURS, "power", "list_of"]
    assert [one.way for one in measured] == ways
    assert (below / "order").read_text().split() == ways * 4
    for one in measured:
        assert len(one.seconds) == 3
        assert 0 < one.median < 1
        assert 10 < one.peak_megabytes < 2000
    mine, power, _ = measured
    assert (mine.ratio, mine.goal) == (None, None)
    assert power.ratio == mine.median / power.median
    assert power.to_json()["is_met"] is True


def test_a_way_that_says_something_else_is_not_measured(below: Path) -> None:
    with pytest.raises(SystemExit, match=r"toy: wrong says something else than ours\."):
        measure(_with_peers("power", "wrong"), 10)
    assert (below / "order").read_text().split() == [OURS, "power", "wrong"]


def test_a_way_that_fails_ends_the_run() -> None:
    with pytest.raises(SystemExit, match=r"failing ended with exit code 1\."):
        measure(_with_peers("failing"), 10)


def test_what_stays_is_ended_after_each_round(below: Path) -> None:
    assert len(measure(_with_peers("lasting"), 10)[1].seconds) == 3
    assert (below / "ended").read_text() == "True"


def test_a_part_of_the_work_is_told_as_all_of_it() -> None:
    of_many = Peer(name="power", what="a part", times=lambda size: 1e6 * size)
    mine, power = measure(replace(toy.CASE, peers=(of_many,)), 10)
    # In truth both take the same microseconds.
    assert mine.ratio is None
    assert power.ratio == mine.median / power.median < 1e-3


def _result(way: str, *seconds: float, goal: float | None = None) -> Measured:
    return Measured(
        case="toy",
        size=1000,
        way=way,
        what=f"by {way}",
        seconds=list(seconds),
        peak_megabytes=123.4,
        goal=goal,
        ratio=None if way == OURS else 2 / sorted(seconds)[1],
    )


RUN = [_result(OURS, 2, 1.9, 2.2), _result("peer", 4, 4, 4.4, goal=0.4)]


def test_the_table_has_a_row_for_each_way() -> None:
    assert report.table(RUN).splitlines()[2:] == [
        "| toy | 1,000 | **by ours** | 2.00 | 1.90, 2.20 | 123 MB |  |  |",
        "| toy | 1,000 | by peer | 4.00 | 4.00, 4.40 | 123 MB | 0.500 | at most 0.4: missed |",
    ]


def test_results_are_kept_in_the_place_of_those_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(report, "PICTURE", tmp_path / "bench.svg")
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "performance.md")
    report.DOCUMENT.write_text("before\n<!-- bench -->\nold\n<!-- end of bench -->\nafter\n")
    report.keep([_result(OURS, 9, 9, 9), RUN[1]])
    report.keep([RUN[0]])
    kept = report.read(report.RESULTS)
    assert [(one["way"], one["median"]) for one in kept] == [(OURS, 2), ("peer", 4)]
    text = report.DOCUMENT.read_text()
    assert text.startswith("before\n<!-- bench -->\n| case |")
    assert text.endswith("<!-- end of bench -->\nafter\n")
    assert "old" not in text
    assert f"{report.markdown(kept)}\n\nMeasured on " in text
    assert "<svg" in report.PICTURE.read_text()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        ((2.1, 2.0, 2.1), "1 of 1 ratios are as they were."),
        ((3, 3, 3.5), "slower: toy 1,000, against peer: 0.750 to 0.795 of its time, was"),
        ((1, 1.1, 1), "faster: toy 1,000, against peer: 0.227 to 0.275 of its time, was"),
    ],
)
def test_a_ratio_that_no_round_of_before_had_is_told(seconds: tuple[float, ...], told: str) -> None:
    new = [_result(OURS, *seconds), RUN[1]]
    lines = compare.of(*([one.to_json() for one in run] for run in (RUN, new)))
    assert lines.startswith(told)


def test_what_only_one_run_has_is_not_compared() -> None:
    assert compare.of([], [one.to_json() for one in RUN]) == "0 of 0 ratios are as they were."


def test_the_kept_results_are_those_of_the_document() -> None:
    text = report.DOCUMENT.read_text()
    for line in report.markdown(report.read(report.RESULTS)).splitlines():
        assert line in text
