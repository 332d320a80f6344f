"""Files that are gone, and ranges that are made anew over them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from jobs import night
from jobs.commands.plan import plan
from jobs.lake import knowledge, ops, publications
from pipelines.errors import NotLanded, Refused
from pipelines.stages import STAGES, Stage, select, stage
from tests.jobs.tiny_home import DAYS, Home, stages_of, told_of


def test_the_plan_tells_of_a_file_that_is_gone_and_how_its_rows_are_withdrawn(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    for day in DAYS[1:3]:
        home._file(day).unlink()
    (told,) = [row for row in told_of(home, "current") if row[3]]
    why = "its file is gone; its rows stay. To withdraw them, land a file without rows"
    assert told == ("tiny.readings", 2, f"{DAYS[1]}..{DAYS[2]}", why)
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    home.land(DAYS[1])
    home.land(DAYS[2])
    assert home.night(DAYS[3]) == 0
    assert home.published("readings")[DAYS[1]] == []
    assert not [row for row in told_of(home, "current") if row[3]]


def test_the_plan_tells_of_a_register_that_is_gone(home: Home) -> None:
    home.night(DAYS[3], first=DAYS[0])
    home.land_register(2)
    register = home.environment.landing / "tiny" / "sensors.csv"
    register.rename(register.with_suffix(".kept"))
    (told,) = [row for row in told_of(home, "current") if row[3]]
    why = "its file is gone; nights that are made keep its last rows, and a new one waits"
    assert told == ("tiny.sensors", 1, str(DAYS[3]), why)
    assert home.night(DAYS[3]) == 0
    assert home.performed == []
    register.with_suffix(".kept").rename(register)
    assert home.night(DAYS[3]) == 0
    assert home.registered() == {
        DAYS[0]: [1],
        DAYS[3]: [2],
    }


def test_the_plan_to_restate_names_the_files_that_are_not_there(home: Home) -> None:
    home.night(DAYS[1], first=DAYS[0])
    home._file(DAYS[1]).unlink()
    home._file(DAYS[2]).unlink()
    with home._stages():
        run = home.run(DAYS[2], DAYS[0])
        rows = plan(run, is_exact=True).rows
        learning = plan(run, (stage("train"),), is_exact=True).rows
    names = [f"tiny/readings/{day}.csv is not there" for day in DAYS[1:3]]
    holes = [row[3:] for row in rows if row[1] == "hole"]
    assert holes == [
        (str(DAYS[1]), f"{names[0]}; --allow-gap keeps its raw rows"),
        (str(DAYS[2]), names[1]),
    ]
    assert not [row for row in learning if row[1] == "hole"]
    assert home.restate(DAYS[0], DAYS[2]) == NotLanded.exit_code


def test_a_range_is_restated_over_a_gap_where_that_is_allowed(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    home.night(DAYS[4], first=DAYS[0])
    home.land(DAYS[1], 7)
    # Of one night the file is gone that it was made from, and the other never had any.
    home._file(DAYS[2]).unlink()
    home._file(DAYS[5]).unlink()
    assert home.restate(DAYS[0], DAYS[6]) == NotLanded.exit_code
    home.definition = "another"
    home.performed.clear()
    kept = f"{DAYS[2]} keeps its raw rows: tiny/readings/{DAYS[2]}.csv is not there"
    left_out = f"{DAYS[5]} is left out: tiny/readings/{DAYS[5]}.csv is not there"
    made = [f"{DAYS[0]}..{DAYS[4]}", str(DAYS[6])]
    with home._stages():
        run = home.run(DAYS[6], DAYS[0])
        rows = plan(run, allow_gap=True, is_exact=True).rows
    of_pipeline = [row for row in rows if row[0] == "tiny"][-4:]
    told = [(row[1], row[3], row[4]) for row in of_pipeline]
    why = "--restate does all stages on these days"
    gaps = [
        ("hole", str(DAYS[2]), kept),
        ("hole", str(DAYS[5]), left_out),
    ]
    assert told == [*gaps, *(("due", days, why) for days in made)]
    assert home.restate(DAYS[0], DAYS[6], allow_gap=True) == 0
    read = [f"{DAYS[0]}..{DAYS[1]}", f"{DAYS[3]}..{DAYS[4]}", str(DAYS[6])]
    assert stages_of(home)["ingest"] == read
    for name in ("check_clean", "features", "monitor"):
        assert stages_of(home)[name] == made
    assert stages_of(home)["train"] == made[-1:]
    said = capsys.readouterr().out
    assert f"{kept}.\n{left_out}.\n" in said
    # Windows over a gap are as they truly are.
    assert home.published("sums")[DAYS[3]] == [7 + 41 + 61]
    assert home.published("sums")[DAYS[6]] == [81 + 121]
    assert DAYS[5] not in home.published("readings")
    known = publications.in_force(home.run(DAYS[6]), "sums")
    assert {one.definition for one in known.values()} == {"another"}


def test_a_range_is_restated_without_its_reference_file_where_a_gap_is_allowed(
    home: Home,
) -> None:
    home.night(DAYS[2], first=DAYS[0])
    home._register.unlink()
    home._file(DAYS[1]).unlink()
    home.definition = "another"
    run = home.run(DAYS[2], DAYS[0])
    with home._stages():
        rows = plan(run, allow_gap=True, is_exact=True).rows
    kept = [str(row[4]) for row in rows if row[1] == "hole"]
    assert len(kept) == 3
    assert all("keeps its raw rows: " in one for one in kept)
    assert all("sensors.csv" in one for one in kept)
    assert home.restate(DAYS[0], DAYS[2], allow_gap=True) == 0
    known = publications.in_force(home.run(DAYS[2]), "sums")
    assert {one.definition for one in known.values()} == {"another"}


def test_a_scheduler_restates_a_range_over_a_gap_as_a_command_does(home: Home) -> None:
    home._file(DAYS[3]).unlink()
    home.night(DAYS[2], first=DAYS[0])
    home.night(DAYS[6], first=DAYS[4], allow_gap=True)
    home.land(DAYS[2], 7)
    run = replace(home.run(DAYS[6], DAYS[0]), run_id="manual__1")
    home.performed.clear()
    with home._stages():
        for one in STAGES:
            assert night.run_night(run, (one,), allow_gap=True, notify=False) == 0
    # What windows over the gap read of before it is published by then.
    assert home.published("marks")[DAYS[2]] == [7]
    assert home.published("sums")[DAYS[4]] == [7 + 81]
    beside = [f"{DAYS[0]}..{DAYS[2]}", f"{DAYS[4]}..{DAYS[6]}"]
    for name, days in stages_of(home).items():
        assert days == (beside[-1:] if name in ("train", "evaluate") else beside), name


def test_a_check_over_a_gap_judges_what_its_run_has_staged(home: Home) -> None:
    file = home._file(DAYS[3])
    landed = file.read_text()
    file.unlink()
    home.night(DAYS[2], first=DAYS[0])
    home.night(DAYS[6], first=DAYS[4], allow_gap=True)
    home.land(DAYS[5], 7)
    run = replace(home.run(DAYS[6], DAYS[0]), run_id="manual__1")
    home.performed.clear()
    with home._stages():
        assert night.run_night(run, STAGES[:1], allow_gap=True, notify=False) == 0
        # Between two tasks: staged by none, so judged by none.
        file.write_text(landed)
        assert night.run_night(run, STAGES[1:2], allow_gap=True, notify=False) == 0
    beside = [f"{DAYS[0]}..{DAYS[2]}", f"{DAYS[4]}..{DAYS[6]}"]
    assert stages_of(home)["check_raw"] == beside
    assert home.published("readings")[DAYS[5]] == [7]
    assert DAYS[3] not in home.published("readings")


def test_a_range_whose_files_are_all_gone_is_made_anew_from_its_raw_tables(home: Home) -> None:
    home.night(DAYS[4], first=DAYS[0])
    for day in DAYS:
        home._file(day).unlink()
    home.definition = "another"
    home.performed.clear()
    assert home.restate(DAYS[0], DAYS[4], allow_gap=True) == 0
    assert "ingest" not in stages_of(home)
    assert stages_of(home)["check_clean"] == [f"{DAYS[0]}..{DAYS[4]}"]
    # A stage without anything to do is on record as that: the night is whole.
    recorded = ops.read(home.environment, "stage_runs", [("status", "=", "current")])
    assert set(recorded["stage"].to_pylist()) == {"ingest", "check_raw"}
    # A last night that was never made is what the run is about: its file is waited for.
    assert home.restate(DAYS[3], DAYS[5], allow_gap=True) == NotLanded.exit_code


@pytest.mark.parametrize("stages", [STAGES, select(["transform", "check_clean", "features"])])
def test_raw_rows_that_were_corrected_late_are_made_anew_for_every_night_that_sees_them(
    home: Home, stages: tuple[Stage, ...]
) -> None:
    home.definition = "first"
    home.night(DAYS[3], first=DAYS[0])
    home.land(DAYS[1], 7)
    assert home.night(DAYS[4]) == 0
    for day in DAYS:
        home._file(day).unlink()
    home.definition = "another"
    assert home.restate(DAYS[0], DAYS[4], allow_gap=True, stages=stages) == 0
    for name in ("marks", "sums", "training", "scoring"):
        seen = knowledge.visible(publications.every(home.run(DAYS[4]), name))
        assert {one.definition for one in seen} == {"another"}, name
    # As `--restate` with files does.
    assert home.as_of("marks", DAYS[1])[DAYS[1]] == [7]
    assert home.published("sums")[DAYS[2]] == [1 + 7 + 41]
    assert home.as_of("readings", DAYS[3])[DAYS[1]] == [10, 11]
    assert home.night(DAYS[4]) == 0
    assert not {"transform", "features"} & stages_of(home).keys()


def test_stages_after_ingest_make_no_night_that_was_never_read(home: Home) -> None:
    shape = select(["transform", "check_clean", "features"])
    hole = DAYS[2]
    file = home._file(hole)
    landed = file.read_text()
    file.unlink()
    assert home.night(DAYS[1], first=DAYS[0]) == 0
    assert home.night(DAYS[3], allow_gap=True) == 0

    def made() -> set[date]:
        names = ("marks", "sums", "training", "scoring")
        return set().union(*(home.published(name) for name in names))

    home.performed.clear()
    why = f"tiny/readings/{hole}.csv is not there"
    with pytest.raises(Refused, match=rf"\n  - {hole}: {why}\nStage 'ingest' reads them"):
        home.restate(DAYS[1], DAYS[3], stages=shape)
    assert not home.performed
    recorded = ops.read(home.environment, "stage_runs", [("status", "=", "refused")])
    assert recorded["stage"].to_pylist() == ["transform"]
    with home._stages():
        run = home.run(DAYS[3], DAYS[1])
        rows = plan(run, shape, is_exact=True).rows
    holes = [row[3:] for row in rows if row[1] == "hole"]
    assert holes == [(str(hole), why)]
    # Where gaps are allowed it is left out, but for a last night, which the run is about.
    assert home.restate(DAYS[1], DAYS[3], allow_gap=True, stages=shape) == 0
    beside = [str(DAYS[1]), str(DAYS[3])]
    assert stages_of(home)["features"] == beside
    with pytest.raises(Refused, match=why):
        home.restate(DAYS[1], hole, allow_gap=True, stages=shape)
    file.write_text(landed)
    with pytest.raises(Refused, match=f"  - {hole}: 'ingest' has not read its files"):
        home.restate(DAYS[1], DAYS[3], allow_gap=True, stages=shape)
    assert hole not in made()
    assert home.restate(DAYS[1], DAYS[3]) == 0
    assert home.restate(DAYS[1], DAYS[3], stages=shape) == 0
    assert hole in made()
