"""A correction that is bad stops no night; a bad night is told as one."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from jobs import night
from jobs.lake import commits
from pipelines.days import Days
from pipelines.errors import NightshiftError, NotLanded, Refused
from pipelines.run import Run
from pipelines.stages import STAGES
from tests.jobs.tiny_home import BAD, DAYS, WINDOW, Home, stages_of


def test_a_check_by_itself_judges_what_its_run_has_staged(home: Home) -> None:
    home.night(DAYS[0])
    home.performed.clear()
    run = replace(home.run(DAYS[2]), run_id="scheduled__1")
    ingest, check = (STAGES[0],), (STAGES[1],)
    with home._stages():
        assert night.make_true(run, ingest, notify=False) == 0
        # Dropped between two tasks of Airflow: staged by none, so judged by none.
        home.land(DAYS[0], 77)
        assert night.make_true(run, check, notify=False) == 0
    assert stages_of(home)["check_raw"] == [f"{DAYS[1]}..{DAYS[2]}"]
    assert list(home.published("readings")) == DAYS[:3]
    # Cleared later: all of it is published, and an old staging is not judged again.
    home.performed.clear()
    with home._stages():
        assert night.make_true(run, check, notify=False) == 0
    assert home.performed == []
    other = replace(run, run_id="manual__2")
    home.performed.clear()
    with home._stages():
        assert night.make_true(other, check, notify=False) == 0
    assert home.performed == []


@pytest.mark.parametrize("corrected", [DAYS[1], DAYS[4]])
def test_a_bad_correction_of_an_old_day_stops_no_night(
    home: Home, corrected: date, capsys: pytest.CaptureFixture[str]
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    before = home.ids_in(corrected)
    home.land(corrected, BAD)
    for last in DAYS[5:7]:
        assert home.night(last) == Refused.exit_code
        assert home.published("readings")[corrected] == before
        marks = home.published("marks")[last]
        assert home.published("sums")[last] == [sum(marks) + _before(last)]
        assert {"train", "evaluate", "predict", "monitor"} <= set(stages_of(home))
        told = f"New files of {corrected} were not accepted (see above)"
        assert told in capsys.readouterr().err
    home.land(corrected, 7)
    assert home.night(DAYS[6]) == 0
    assert home.published("readings")[corrected] == [7]


def test_a_correction_of_which_only_clean_tables_are_refused_ends_nights_until_it_is_taken_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    before = home.ids_in(DAYS[1])
    publish = home._publish_waiting

    def judge(run: Run) -> None:
        if run.doing.name == "check_clean" and home.published("readings")[DAYS[1]] != before:
            raise Refused("bad")
        publish(run)

    monkeypatch.setattr(home, "_publish_waiting", judge)
    home.land(DAYS[1], 7)
    for last in DAYS[5:7]:
        assert home.night(last) == Refused.exit_code
        assert home.published("readings")[DAYS[1]] == [7]
        assert home.performed[-1][0] == "check_clean"
        assert last not in home.published("marks")
    home.land(DAYS[1], *before)
    assert home.night(DAYS[6]) == 0
    assert set(DAYS[5:7]) <= set(home.published("marks"))


def test_a_good_correction_does_not_wait_for_a_bad_one_of_a_day_beside_it(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.night(DAYS[5], first=DAYS[0])
    for number in range(5):
        home.land(DAYS[number], 100 + number)
    home.land(DAYS[3], BAD)
    assert home.night(DAYS[6]) == Refused.exit_code
    readings = home.published("readings")
    assert [readings[day] for day in DAYS[:5]] == [
        [100],
        [101],
        [102],
        [30, 31],
        [104],
    ]
    assert f"New files of {DAYS[3]} were not accepted" in capsys.readouterr().err
    halves = ["05..09", "05..06", "07..09", "07", "08..09", "08", "09", "11"]
    tried = [days.replace("2013-01-", "") for days in stages_of(home)["ingest"]]
    assert tried == halves
    # Only what is bad is tried again.
    assert home.night(DAYS[6]) == Refused.exit_code
    assert stages_of(home)["ingest"] == [str(DAYS[3])]


@pytest.mark.parametrize("corrected", [DAYS[1], DAYS[4]])
@pytest.mark.parametrize("is_due", [True, False])
def test_a_bad_correction_stops_no_task_of_airflow(
    home: Home, corrected: date, is_due: bool
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    before = home.ids_in(corrected)
    home.land(corrected, BAD)
    last = DAYS[5] if is_due else DAYS[4]
    run = replace(home.run(last), run_id="scheduled__1")
    codes: dict[str, int] = {}
    kept: list[Days] = []
    with home._stages():
        for one in STAGES:
            codes[one.name] = night.make_true(
                run,
                (one,),
                notify=False,
                kept=kept,
            )
    assert codes == dict.fromkeys(codes, 0) | {"ingest": Refused.exit_code}
    # A file of the run's own night is none of a day before.
    assert kept == ([] if corrected == last else [Days.of(corrected)])
    assert home.published("readings")[corrected] == before
    if is_due:
        marks = home.published("marks")[last]
        assert home.published("sums")[last] == [sum(marks) + _before(last)]


def _ingested(home: Home) -> tuple[int, list[Days]]:
    """The exit code of the night of `DAYS[5]` by its first stage, and the days that are kept."""
    kept: list[Days] = []
    with home._stages():
        code = night.make_true(
            home.run(DAYS[5]),
            STAGES[:1],
            notify=False,
            kept=kept,
        )
    return code, kept


def test_days_are_not_said_to_be_kept_where_the_night_itself_is_refused(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], BAD)
    home.land(DAYS[5], BAD)
    assert _ingested(home) == (Refused.exit_code, [])


@pytest.mark.parametrize("own", [NotLanded, Refused, commits.Fenced])
@pytest.mark.parametrize("corrected", [NotLanded, Refused])
def test_a_night_ends_by_what_is_wrong_with_itself_whatever_a_correction_said(
    home: Home,
    corrected: type[NightshiftError],
    own: type[NightshiftError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], 7)

    def fail(run: Run) -> None:
        raise (corrected if run.days.last == DAYS[1] else own)("bad")

    monkeypatch.setattr(home, "_ingest", fail)
    assert _ingested(home) == (own.exit_code, [])


def test_a_night_waits_for_its_late_file_though_a_correction_is_bad(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], BAD)
    home._file(DAYS[5]).unlink()
    assert home.night(DAYS[5]) == NotLanded.exit_code
    home.land(DAYS[5], 7)
    assert home.night(DAYS[5]) == Refused.exit_code
    assert home.published("readings")[DAYS[5]] == [7]


def test_a_check_that_refuses_the_night_itself_keeps_no_days_though_another_run_has_made_some(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of a backfill that are cleared together take no turns."""

    def refuse(_: Run) -> None:
        raise Refused("bad")

    home.night(DAYS[0])
    run = replace(home.run(DAYS[2]), run_id="backfill__1")
    with home._stages():
        assert night.make_true(run, STAGES[:1], notify=False) == 0
    assert stages_of(home)["ingest"][-1] == f"{DAYS[1]}..{DAYS[2]}"
    assert home.night(DAYS[1]) == 0
    monkeypatch.setattr(home, "_publish_waiting", refuse)
    kept: list[Days] = []
    with home._stages():
        code = night.make_true(run, STAGES[1:2], notify=False, kept=kept)
    assert (code, kept) == (Refused.exit_code, [])


def _before(night: date) -> int:
    """The sum of the window of a night without its own day, as the files first were."""
    number = DAYS.index(night)
    return sum(20 * one + 1 for one in range(number - WINDOW + 1, number))


def test_a_bad_file_of_the_nights_own_or_of_a_missed_one_ends_it(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home.land(DAYS[2], BAD)
    assert home.night(DAYS[3]) == Refused.exit_code
    assert [name for name, _ in home.performed] == ["ingest"]
    home.land(DAYS[1], BAD)
    assert home.night(DAYS[1]) == Refused.exit_code
    assert [name for name, _ in home.performed] == ["ingest"]
