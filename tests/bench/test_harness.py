from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from bench import cases, compare, harness, many_nights, report, runner
from bench.__main__ import main as bench
from bench.ending import INTERRUPTED
from bench.harness import OURS, Case, Measured, Peer, measure
from jobs.lake import publications
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.run import Run
from tests.bench import endless, toy
from tests.jobs.training.small import publication


@pytest.fixture(autouse=True)
def below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders of runs are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _with_peers(*names: str) -> Case:
    return replace(
        toy.CASE,
        peers=tuple(Peer(name=name, what=name) for name in names),
    )


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


def test_what_sleeps_between_its_turns_is_woken_before_each() -> None:
    assert len(measure(_with_peers("woken"), 10)[1].seconds) == 3


def test_memory_that_processes_share_counts_once() -> None:
    *_, forked = measure(_with_peers("forked"), 10, 1)
    assert 300 < forked.peak_megabytes < 500


def test_what_looks_at_memory_rests_twenty_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    pauses: list[float] = []

    class Over:
        """Ends it with the second look, and waits for nothing."""

        def wait(self, seconds: float) -> bool:
            pauses.append(seconds)
            return len(pauses) == 2

    def slow(_: object) -> int:
        time.sleep(0.05)
        looks.append(1)
        return len(looks)

    monkeypatch.setattr(runner, "_size", slow)
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: [])
    peak = runner._Peak()
    monkeypatch.setattr(peak, "_ended", Over())
    peak.run()
    assert peak.bytes == len(looks) == 2
    # After a look that took so long.
    assert pauses[0] < 20 * 0.05 <= pauses[1]


def test_of_a_process_that_may_not_be_looked_into_all_counts_that_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", refused)
    assert runner._size(psutil.Process()) > 10_000_000


def test_a_machine_is_told_as_far_as_it_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3})
    monkeypatch.setattr(harness, "memory", lambda: 3 * 2**30)
    told = harness.machine()
    assert (told["cores"], told["memory_gib"]) == (1, 3.0)


def test_a_part_of_the_work_is_told_as_all_of_it() -> None:
    of_many = Peer(name="power", what="a part", times=lambda size: 1e6 * size)
    mine, power = measure(replace(toy.CASE, peers=(of_many,)), 10)
    # In truth both take the same microseconds.
    assert mine.ratio is None
    assert power.ratio == mine.median / power.median < 1e-3


@pytest.mark.parametrize(
    ("size", "is_quick", "ways"),
    [
        (10, False, [OURS, "power", "list_of"]),
        (11, False, [OURS, "list_of"]),
        (10, True, [OURS, "power"]),
    ],
)
def test_a_peer_that_takes_long_is_measured_where_it_can_be(
    size: int, is_quick: bool, ways: list[str]
) -> None:
    slow = (
        Peer(name="power", what="", largest=10),
        Peer(name="list_of", what="", in_quick=False),
    )
    measured = measure(replace(toy.CASE, peers=slow), size, 1, is_quick=is_quick)
    assert [one.way for one in measured] == ways


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


RUN = [
    _result(OURS, 2, 1.9, 2.2),
    _result("peer", 4, 4, 4.4, goal=0.4),
]


def test_the_table_has_a_row_for_each_way() -> None:
    assert report.table(RUN).splitlines()[2:] == [
        "| toy | 1,000 | **by ours** | 2.00 | 1.90, 2.20 | 123 MB |  |  |",
        "| toy | 1,000 | by peer | 4.00 | 4.00, 4.40 | 123 MB | 0.500 | at most 0.4: missed |",
    ]


@pytest.mark.parametrize(
    ("ours", "peer", "told"),
    [
        ((2, 2, 2), (4, 5, 5), "met"),
        ((2, 2, 2), (2, 4, 5), "met by the median, not in every round"),
        ((3, 3, 3), (4, 4, 9), "missed by the median, not in every round"),
        ((3, 3), (4, 5), "missed"),
        ((2,), (4,), "met, one round"),
        ((3,), (4,), "missed, one round"),
    ],
)
def test_a_verdict_tells_what_it_rests_on(
    ours: tuple[float, ...], peer: tuple[float, ...], told: str
) -> None:
    mine = replace(RUN[0], seconds=list(ours))
    other = replace(RUN[1], seconds=list(peer), goal=0.5)
    other = replace(other, ratio=mine.median / other.median)
    *_, line = report.table([mine, other]).splitlines()
    assert line.endswith(f"| at most 0.5: {told} |")


def test_a_verdict_by_seconds_of_ours_tells_what_it_rests_on() -> None:
    lines = []
    for seconds in ([1.0, 3.0, 1.5], [1.0]):
        ours = replace(RUN[0], seconds=seconds, goal_seconds=2.0)
        lines.append(report.table([ours]).splitlines()[-1])
    assert lines[0].endswith("| at most 2 s: met by the median, not in every round |")
    assert lines[1].endswith("| at most 2 s: met, one round |")


def test_a_goal_may_be_seconds_of_ours() -> None:
    ways = []
    for seconds in (5.0, 1e-9):
        ours, peer, _ = measure(replace(toy.CASE, goal_seconds=seconds), 10)
        assert peer.goal_seconds is None
        ways.append(ours)
    enough, too_little = report.table(ways).splitlines()[2:]
    assert enough.endswith("| at most 5 s: met |")
    assert too_little.endswith("| at most 1e-09 s: missed |")


def test_memory_that_nobody_looked_at_is_not_told() -> None:
    one = replace(RUN[0], peak_megabytes=0)
    *_, line = report.table([one]).splitlines()
    assert line == "| toy | 1,000 | **by ours** | 2.00 | 1.90, 2.20 |  |  |  |"


def test_late_nights_are_told_as_a_case_beside_early_ones() -> None:
    night = many_nights.Night(
        day=date(2013, 1, 1),
        seconds=0,
        files=1,
        megabytes=1,
        live_files=1,
        rows=1,
    )
    young = [replace(night, seconds=one) for one in (10, 11, 30)]
    late = [replace(night, seconds=one) for one in (11, 22, 12)]
    homes = {"young": young, "old": late}
    told, beside = report.table(many_nights.measured(300, homes)).splitlines()[2:]
    assert told.startswith("| many_nights | 300 | **nights 291 to 300 of `weather`")
    missed = "missed by the median, not in every round"
    assert beside.endswith(f"| 11.00 | 10.00, 30.00 |  | 1.091 | at most 1.05: {missed} |")


def test_a_night_that_published_no_predictions_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"NIGHTSHIFT_HOME": str(tmp_path)}
    environment = Environment.read(variables)
    days = Days.of(date(2013, 3, 1))
    run = Run(pipeline=many_nights.WEATHER, days=days, environment=environment)
    write_deltalake(environment.table_path("weather.predictions"), pa.table({"hour": [1]}))
    publications.record(run, "predictions", [publication(day=date(2013, 3, 2))])
    monkeypatch.setattr(many_nights, "nightshift", lambda *_, **__: None)
    assert many_nights._night(variables, run.days.last).live_files > 0
    with pytest.raises(SystemExit, match=r"2013-03-02 has published no weather\.predictions of"):
        many_nights._night(variables, date(2013, 3, 2))


@pytest.fixture
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where results are kept, and told."""
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(report, "PICTURE", tmp_path / "bench.svg")
    monkeypatch.setattr(report, "DOCUMENT", tmp_path / "performance.md")


@pytest.mark.usefixtures("own_places")
def test_results_are_kept_in_the_place_of_those_of_before() -> None:
    report.DOCUMENT.write_text("before\n<!-- bench -->\nold\n<!-- end of bench -->\nafter\n")
    report.keep([_result(OURS, 9, 9, 9), RUN[1]])
    report.keep([RUN[0]])
    kept = report.read(report.RESULTS)
    assert [(one["way"], one["median"]) for one in kept] == [
        (OURS, 2),
        ("peer", 4),
    ]
    text = report.DOCUMENT.read_text()
    assert text.startswith("before\n<!-- bench -->\n### ")
    assert text.endswith("<!-- end of bench -->\nafter\n")
    assert "old" not in text
    assert f"\n\n{report.markdown(kept)}\n\nMeasured on " in text
    drawn = report.PICTURE.read_text()
    assert "<svg" in drawn
    report.keep([RUN[0]])
    assert report.PICTURE.read_text() == drawn


def _on(name: str, results: Iterable[report.Result]) -> list[report.Result]:
    machine = {"cores": 2, "processor": name, "memory_gib": 8.0, "python": "3.11.7"}
    return [one | {"machine": {**machine, "measured_at": "2026-11-01 09:35"}} for one in results]


@pytest.mark.usefixtures("own_places")
def test_what_another_machine_has_measured_stays_in_a_table_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report.DOCUMENT.write_text("<!-- bench --><!-- end of bench -->")
    own: dict[str, object] = {}
    monkeypatch.setattr(report, "machine", lambda: own["machine"])
    for name, seconds in (("Zen", 3), ("Atom", 9), ("Zen", 1)):
        own |= _on(name, [{}])[0]
        report.keep([_result(OURS, seconds, seconds, seconds), RUN[1]])
    told = report.by_machine(report.read(report.RESULTS))
    assert list(told) == ["2 cores of Atom", "2 cores of Zen"]
    medians = [one["median"] for of_machine in told.values() for one in of_machine]
    assert medians == [9, 4, 1, 4]
    lines = report.DOCUMENT.read_text().splitlines()
    assert [line for line in lines if line.startswith("###")] == [f"### {name}" for name in told]
    drawn = report.PICTURE.read_text()
    assert all(f"<!-- {name} -->" in drawn for name in told)


def test_it_is_told_when_and_how_often_and_on_which_machine_each_case_was_measured() -> None:
    one = {"processor": "A", "cores": 2, "memory_gib": 8.0, "python": "3.11.7"}
    other = {**one, "processor": "B"}
    results = []
    for day, machine, size in (
        ("01", one, 10),
        ("02", other, 1000),
        ("03", one, 2000),
    ):
        for told in RUN:
            measured = {"measured_at": f"2026-11-{day} 09:35", **machine}
            results.append(told.to_json() | {"size": size, "machine": measured})
    results[-1]["seconds"] = [4, 4]
    assert report.circumstances(results) == (
        "2 cores of A, 8.0 GiB, Python 3.11.7: toy 10 (2026-11-01, 3 rounds), "
        "toy 2,000 (2026-11-03, 2 or 3 rounds); "
        "2 cores of B, 8.0 GiB, Python 3.11.7: toy 1,000 (2026-11-02, 3 rounds)"
    )


def test_results_are_whole_after_an_end_in_the_midst_of_their_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.json")
    report.RESULTS.write_text(json.dumps([one.to_json() for one in RUN]))
    write = Path.write_text

    def half(file: Path, text: str) -> None:
        write(file, text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        report.keep([_result(OURS, 9, 9, 9)])
    assert [one["median"] for one in report.read(report.RESULTS)] == [2, 4]


@pytest.mark.usefixtures("as_at_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_of_a_run_that_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    with _at_work(tmp_path) as run:
        run.send_signal(number)
        _, told = run.communicate(timeout=60)
    assert run.returncode == INTERRUPTED
    assert told.splitlines()[-1] == "Interrupted: nothing of it runs any more."
    assert _left(tmp_path) == ["at work", "cleared"]


def test_nothing_is_left_of_a_way_that_is_killed(tmp_path: Path) -> None:
    with _at_work(tmp_path) as run:
        (way,) = psutil.Process(run.pid).children()
        way.kill()
        _, told = run.communicate(timeout=60)
    assert run.returncode == 1
    assert told.splitlines()[-1] == "ours ended with exit code -9."
    assert _left(tmp_path) == ["at work"]


@contextmanager
def _at_work(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in the midst of its work."""
    program = [sys.executable, "-m", endless.__name__, "--quick", endless.__name__]
    own = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        program,
        env=own,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (folder / "at work").exists():
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield run
    finally:
        run.kill()


def _left(folder: Path) -> list[str]:
    """The files, and the commands of processes that name the folder."""
    files = sorted(path.name for path in folder.iterdir())
    processes = psutil.process_iter(["cmdline"])
    commands = [" ".join(one.info["cmdline"] or ()) for one in processes]
    return [*files, *(command for command in commands if str(folder) in command)]


@pytest.mark.parametrize(
    ("case", "most"),
    [
        ("idle", 20),
        ("night", 40),
    ],
)
def test_more_rounds_than_there_are_nights_are_refused_at_once(
    case: str,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured: list[str] = []

    def measure_none(one: Case, *_: object, **__: object) -> list[Measured]:
        measured.append(one.name)
        return []

    monkeypatch.setattr("bench.__main__.measure", measure_none)
    monkeypatch.setattr("sys.argv", ["bench", "--quick", case, "--repeats", str(most)])
    assert bench() == 0
    monkeypatch.setattr("sys.argv", ["bench", "--quick", "sql", case, "--repeats", str(most + 1)])
    with pytest.raises(SystemExit, match="2"):
        bench()
    told = f"argument --repeats: {most + 1} are too many of {case}: {most} at most"
    assert told in capsys.readouterr().err
    assert measured == [case]


@pytest.mark.parametrize("option", ["--repeats", "--size"])
def test_numbers_that_measure_nothing_are_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in ("0", "-1", "many"):
        monkeypatch.setattr("sys.argv", ["bench", "sql", option, number])
        with pytest.raises(SystemExit, match="2"):
            bench()
        told = f"argument {option}: '{number}' is no whole number of 1 or more"
        assert told in capsys.readouterr().err


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
    before = [one.to_json() for one in RUN]
    lines = compare.of(before, [one.to_json() for one in new])
    assert lines.startswith(told)


@pytest.mark.parametrize("rounds", [1, 2])
def test_few_rounds_tell_no_change_that_another_round_could_undo(rounds: int) -> None:
    def run(seconds: float) -> list[report.Result]:
        ours = _result(OURS, *[seconds] * rounds)
        peer = replace(RUN[1], seconds=[4.0] * rounds)
        return [one.to_json() for one in (ours, peer)]

    assert compare.of(run(2), run(2.02)) == "1 of 1 ratios are as they were."
    # Three rounds of one side do not tell of the other.
    assert compare.of(KEPT, run(2.1)) == "1 of 1 ratios are as they were."
    slower = "slower: toy 1,000, against peer: 0.750 to 0.750 of its time, was 0.500 to 0.500"
    assert compare.of(run(2), run(3)).startswith(slower)


KEPT = [one.to_json() for one in RUN]


def test_what_only_one_run_has_is_told_and_not_compared() -> None:
    none = "0 of 0 ratios are as they were."
    assert compare.of([], KEPT) == f"{none}\nonly in the new: toy 1,000, against peer"
    renamed = [one | {"case": "game"} for one in KEPT]
    assert compare.of(KEPT, renamed).splitlines() == [
        none,
        "only in the old: toy 1,000, against peer",
        "only in the new: game 1,000, against peer",
    ]
    # Without ours there is no ratio.
    assert compare.of(KEPT, KEPT[1:]) == f"{none}\nonly in the old: toy 1,000, against peer"


def test_what_a_machine_measured_is_compared_with_what_the_same_had_measured() -> None:
    slow = _result(OURS, 4, 3.8, 4.4).to_json()
    old = _on("Atom", [slow, KEPT[1]]) + _on("Zen", KEPT)
    new = _on("Atom", KEPT) + _on("Zen", KEPT)
    faster = "faster: toy 1,000, against peer: 0.475 to 0.500 of its time, was 0.950 to 1.000"
    assert compare.of(old, new).splitlines() == [
        "2 cores of Atom:",
        faster,
        "0 of 1 ratios are as they were.",
        "2 cores of Zen:",
        "1 of 1 ratios are as they were.",
    ]
    assert compare.of(old, _on("Zen", KEPT)).splitlines() == [
        "1 of 1 ratios are as they were.",
        "not compared: 2 cores of Atom",
    ]
    assert compare.of(old, _on("Ryzen", KEPT)).splitlines() == [
        faster,
        "0 of 1 ratios are as they were.",
        "measured with processor Ryzen, was Atom: toy 1,000",
        "not compared: 2 cores of Zen",
    ]


def test_another_machine_and_other_versions_are_told() -> None:
    def measured_on(cores: int, polars: str, at: str) -> list[report.Result]:
        machine = {"cores": cores, "libraries": {"polars": polars}, "measured_at": at}
        return [one | {"machine": machine} for one in KEPT]

    old = measured_on(2, "1", "yesterday")
    assert compare.of(old, measured_on(4, "2", "today")).splitlines() == [
        "1 of 1 ratios are as they were.",
        "measured with cores 4, was 2: toy 1,000",
        "measured with polars 2, was 1: toy 1,000",
    ]
    same = "1 of 1 ratios are as they were."
    assert compare.of(old, measured_on(2, "1", "today")) == same
    assert compare.of(old, KEPT) == same


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Expecting value"),
        (json.dumps(KEPT)[:-9], "Expecting|Unterminated|delimiter"),
        ("{}", "it is no list"),
        ("[1]", "."),
        (json.dumps([{"case": "toy"}]), "it lacks 'size'"),
        *(
            (json.dumps([KEPT[1] | {"seconds": seconds}]), "seconds of toy 1,000, peer are")
            for seconds in (
                [],
                [1, 0],
                [1, -1],
                [float("nan")],
                [float("inf"), 1],
            )
        ),
    ],
)
def test_a_file_that_holds_no_measurements_is_refused(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(SystemExit, match=rf"{file} is no file of results: .*{told}"):
        report.read(file)


def test_a_file_that_is_not_there_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["compare", str(report.RESULTS), str(tmp_path / "nothing")])
    with pytest.raises(SystemExit):
        compare.main()
    assert f"there is no file {tmp_path / 'nothing'}" in capsys.readouterr().err


def test_the_kept_results_are_those_of_the_document() -> None:
    kept = report.tables(report.read(report.RESULTS))
    assert f"<!-- bench -->\n{kept}\n<!-- end of bench -->" in report.DOCUMENT.read_text()


def test_the_kept_results_are_of_ways_that_there_are() -> None:
    for one in report.read(report.RESULTS):
        if one["case"] == many_nights.CASE:
            # Which runs for hours, and by a command of its own.
            assert one["way"] in (OURS, many_nights.YOUNG)
            continue
        case: Case = cases.module(one["case"]).CASE
        assert one["way"] in (OURS, *(peer.name for peer in case.peers))
