"""A night's publications are a set: a reader sees the tables as one run left them, or none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from jobs.lake import as_left, datasets, ops, retention
from jobs.lake.commits import publish
from jobs.lake.publications import Origin
from jobs.lake.sql import query
from jobs.services.leftovers import Rule
from pipelines.days import Days
from pipelines.errors import UsageError
from pipelines.run import Run
from pipelines.stages import STAGES, stage
from tests.jobs.lake.test_commits import FIRST, SECOND, run_at, staged
from tests.jobs.lake.test_retention import age

NAMES = tuple(one.name for one in STAGES)
DAY = Days.of(FIRST)
IDS = "SELECT id FROM toy.{} ORDER BY id"


def night(home: Path, run_id: str, days: Days = DAY) -> Run:
    return replace(run_at(home, days), run_id=run_id)


def end(
    run: Run,
    stages: Sequence[str] = NAMES,
    status: str = "done",
    since: datetime | None = None,
) -> None:
    """Record that these stages of the run have ended, one after the other, just now."""
    now = datetime.now(UTC)
    began = since or now
    rows = [
        {
            "run_id": run.run_id,
            "pipeline": run.pipeline.name,
            "stage": name,
            "first_day": run.days.first,
            "last_day": run.days.last,
            "status": status,
            "started_at": began + timedelta(microseconds=number),
            "seconds": (now - began).total_seconds(),
            "metrics": "{}",
        }
        for number, name in enumerate(stages)
    ]
    ops.append(run.environment, "stage_runs", rows)


def publish_ids(run: Run, name: str, *ids: int) -> None:
    publish(
        run,
        name,
        staged(run, {run.days.first: list(ids)}, name),
    )


def seen(run: Run, name: str, run_id: str | None) -> list[int]:
    _, rows = query(run.environment, IDS.format(name), run_id)
    return [number for (number,) in rows]


def test_each_table_is_shown_as_the_run_left_it(tmp_path: Path) -> None:
    first = night(tmp_path, "first")
    publish_ids(first, "readings", 1)
    publish_ids(first, "scoring", 10)
    end(first)
    second = night(tmp_path, "second")
    publish_ids(second, "readings", 2)
    # Of the scoring rows it has changed none.
    end(second)
    third = night(tmp_path, "third")
    publish_ids(third, "readings", 3)
    publish_ids(third, "scoring", 30)
    publish_ids(third, "training", 300)
    end(third)
    found = {
        run_id: [seen(first, name, run_id) for name in ("readings", "scoring")]
        for run_id in ("first", "second", "third", None)
    }
    assert found == {
        "first": [[1], [10]],
        "second": [[2], [10]],
        "third": [[3], [30]],
        None: [[3], [30]],
    }


def test_a_table_that_was_published_later_is_not_there(tmp_path: Path) -> None:
    first = night(tmp_path, "first")
    publish_ids(first, "readings", 1)
    end(first)
    publish_ids(night(tmp_path, "second"), "training", 2)
    tables = query(first.environment, "SHOW TABLES", "first")[1]
    assert ("toy.training",) not in tables
    assert ("toy.readings",) in tables
    # Of the platform, and other pipelines, everything is as it is now.
    assert ("ops.stage_runs",) in tables
    with pytest.raises(UsageError, match="Table with name training does not exist"):
        seen(first, "training", "first")


def test_the_history_ends_with_the_run(tmp_path: Path) -> None:
    for run_id, number in (("first", 1), ("second", 2), ("third", 3)):
        run = night(tmp_path, run_id)
        publish_ids(run, "predictions", number)
        end(run)
    told = "SELECT id, revision, is_in_force FROM toy.predictions_history ORDER BY id"
    assert query(run.environment, told, "second")[1] == [
        (1, 1, False),
        (2, 2, True),
    ]


def test_the_history_tells_what_was_known_when_the_run_ended(tmp_path: Path) -> None:
    found = night(tmp_path, "found")
    publish(found, "readings", staged(found, {FIRST: [1]}))
    late = Origin(known={FIRST: SECOND})
    publish(found, "readings", staged(found, {FIRST: [2]}, origin=late))
    end(found)
    # The correction is restated as it is: from now on nobody sees the rows of before.
    restated = night(tmp_path, "restated")
    publish(restated, "readings", staged(restated, {FIRST: [2]}))
    end(restated)
    told = "SELECT id, known_date, revision FROM toy.readings_history ORDER BY id"
    before, correction = (1, FIRST, 1), (2, SECOND, 2)
    assert query(found.environment, told, "found")[1] == [before, correction]
    for run_id in ("restated", None):
        assert query(found.environment, told, run_id)[1] == [(2, FIRST, 1)]


def test_of_runs_that_overlap_each_sees_what_it_has_published(tmp_path: Path) -> None:
    slow = night(tmp_path, "slow", Days(FIRST, SECOND))
    publish(slow, "readings", staged(slow, {FIRST: [1], SECOND: [2]}))
    quick = night(tmp_path, "quick")
    publish_ids(quick, "readings", 5)
    end(quick)
    end(slow)
    assert seen(slow, "readings", "slow") == [1, 2]
    assert seen(slow, "readings", "quick") == [2, 5]


@pytest.mark.parametrize(
    ("done", "told"),
    [
        (NAMES[:3], "check_clean was not done; .*monitor was not done"),
        # What was asked for by `--stage`, too, leaves the other tables behind.
        (("monitor",), "ingest was not done"),
    ],
)
def test_half_a_night_is_not_shown(tmp_path: Path, done: Sequence[str], told: str) -> None:
    run = night(tmp_path, "half")
    publish_ids(run, "readings", 1)
    end(run, done)
    with pytest.raises(UsageError, match=f"Run half of 'toy' has not finished: .*{told}") as error:
        seen(run, "readings", "half")
    assert "nightshift run toy --date 2013-01-05 --run-id half" in str(error.value)
    assert seen(run, "readings", None) == [1]


CLEAN = NAMES.index("check_clean")


def publish_at(run: Run, stage_name: str, name: str, *ids: int) -> None:
    publish_ids(run.at(stage(stage_name)), name, *ids)


def test_a_run_that_was_refused_shows_whole_stages_and_says_which_are_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = night(tmp_path, "first")
    publish_at(first, "check_raw", "readings", 1)
    publish_at(first, "features", "training", 10)
    end(first)
    refused = night(tmp_path, "refused")
    publish_at(refused, "check_raw", "readings", 2)
    end(refused, NAMES[:CLEAN])
    end(refused, ["check_clean"], "refused")
    third = night(tmp_path, "third")
    publish_at(third, "check_raw", "readings", 3)
    publish_at(third, "features", "training", 30)
    end(third)
    assert not capsys.readouterr().err
    assert seen(first, "readings", "refused") == [2]
    assert capsys.readouterr().err == (
        "Run refused of 'toy' did not do all stages: check_clean ended as 'refused' for "
        "2013-01-05; left out for that: features, train, evaluate, predict, check_predictions, "
        "monitor. But for what it has published itself, toy.training: as they were before it.\n"
    )
    assert seen(first, "training", "refused") == [10]


def test_a_night_that_went_on_without_a_model_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = night(tmp_path, "went_on")
    publish_at(run, "check_raw", "readings", 1)
    publish_at(run, "features", "training", 10)
    end(run, NAMES[: NAMES.index("train")])
    end(run, ["train"], "failed")
    with pytest.raises(UsageError, match="predict was not done; .*monitor was not done"):
        seen(run, "training", "went_on")
    end(run, NAMES[NAMES.index("predict") :])
    assert seen(run, "training", "went_on") == [10]
    assert "train ended as 'failed' for 2013-01-05; left out for that: evaluate. These stages " in (
        capsys.readouterr().err
    )


def test_a_stage_that_was_refused_hides_no_table_of_the_others(tmp_path: Path) -> None:
    run = night(tmp_path, "refused")
    publish_ids(run, "readings", 1)
    end(run)
    end(run, ["monitor"], "refused")
    assert seen(run, "readings", "refused") == [1]
    # It waits for its files, and goes on when they are there.
    end(run, ["monitor"], "not landed")
    with pytest.raises(UsageError, match="not finished: monitor ended as 'not landed'"):
        seen(run, "readings", "refused")
    # Done since, by the same run.
    end(run, ["monitor"], "current")
    assert seen(run, "readings", "refused") == [1]


def test_a_stage_that_published_a_part_of_its_tables_is_not_shown(tmp_path: Path) -> None:
    run = night(tmp_path, "part")
    publish_at(run, "check_raw", "readings", 1)
    end(run, NAMES[:CLEAN])
    publish_at(run, "check_clean", "scoring", 10)
    end(run, ["check_clean"], "failed")
    half = r"check_clean has published toy\.scoring, and was not done to its end since"
    with pytest.raises(UsageError, match=half):
        seen(run, "readings", "part")
    # Whatever the next attempt says of the files, the tables are what they were.
    end(run, NAMES[:CLEAN])
    end(run, ["check_clean"], "refused")
    with pytest.raises(UsageError, match=half):
        seen(run, "readings", "part")
    publish_at(run, "check_clean", "training", 100)
    end(run, NAMES[CLEAN:])
    found = [seen(run, name, "part") for name in ("readings", "scoring", "training")]
    assert found == [[1], [10], [100]]


def test_a_kill_before_a_refusal_is_half_a_night_too(tmp_path: Path) -> None:
    run = night(tmp_path, "killed")
    end(run, NAMES[:CLEAN])
    # Killed with its process: nobody has recorded how it ended.
    publish_at(run, "check_clean", "scoring", 10)
    end(run, NAMES[:1], "refused")
    half = r"check_clean has published toy\.scoring, and was not done to its end since"
    with pytest.raises(UsageError, match=half):
        seen(run, "scoring", "killed")


def test_a_correction_that_was_refused_hides_no_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = night(tmp_path, "correction")
    began = datetime.now(UTC)
    publish_at(run, "ingest", "readings_quarantine", 5)
    end(run, NAMES[:1], "refused", began)
    end(run, NAMES[2:], "current")
    assert seen(run, "readings_quarantine", "correction") == [5]
    assert "ingest ended as 'refused' for 2013-01-05; left out for that: check_raw" in (
        capsys.readouterr().err
    )


def test_a_second_attempt_that_was_killed_makes_it_half_a_night(tmp_path: Path) -> None:
    run = night(tmp_path, "again")
    publish_ids(run, "readings", 1)
    end(run)
    publish_ids(run, "readings", 2)
    with pytest.raises(UsageError, match=r"has published toy\.readings since its last stage ended"):
        seen(run, "readings", "again")
    end(run, NAMES[:2])
    with pytest.raises(UsageError, match="transform was not done again after check_raw"):
        seen(run, "readings", "again")
    end(run)
    assert seen(run, "readings", "again") == [2]


def test_an_unknown_run_is_refused_with_the_near_miss_and_the_last_runs(tmp_path: Path) -> None:
    run = night(tmp_path, "run__2026-11-25T09:27:52_d8644b")
    publish_ids(run, "readings", 1)
    end(run)
    near = "run__2026-11-25T09:27:52_d8644"
    with pytest.raises(UsageError) as refused:
        seen(run, "readings", near)
    assert str(refused.value) == (
        f"No run named '{near}'. Did you mean '{run.run_id}'? The last runs: {run.run_id} (toy)."
    )


def test_a_run_of_another_moment_is_no_near_miss(tmp_path: Path) -> None:
    run = night(tmp_path, "run__2026-12-02T13:37:01_00d362")
    publish_ids(run, "readings", 1)
    end(run)
    other = "run__2026-11-25T09:27:52_d8644b"
    with pytest.raises(UsageError) as refused:
        seen(run, "readings", other)
    assert str(refused.value) == f"No run named '{other}'. The last runs: {run.run_id} (toy)."


def test_an_empty_id_is_no_run_and_not_all_of_them(tmp_path: Path) -> None:
    run = night(tmp_path, "first")
    publish_ids(run, "readings", 1)
    with pytest.raises(UsageError, match=r"No run named ''\. The last runs: none yet"):
        seen(run, "readings", "")


def test_what_maintenance_has_deleted_is_refused_by_name(tmp_path: Path) -> None:
    first = night(tmp_path, "first")
    publish_ids(first, "readings", 1)
    publish_ids(first, "scoring", 10)
    end(first)
    second = night(tmp_path, "second")
    publish_ids(second, "readings", 2)
    age(first, "readings")
    rule = Rule(before=datetime.now(UTC) - timedelta(days=30), is_dry=False)
    list(retention.clean_tables(second, (), rule))
    lost = r"toy\.readings cannot be read any more as it was in version 0: 1 of its files"
    with pytest.raises(UsageError, match=lost):
        seen(first, "readings", "first")
    # What is named beside it is still there.
    assert seen(first, "scoring", "first") == [10]


def test_a_version_that_the_log_has_lost_is_refused_by_name(tmp_path: Path) -> None:
    first = night(tmp_path, "first")
    publish_ids(first, "readings", 1)
    end(first)
    publish_ids(night(tmp_path, "second"), "readings", 2)
    place = Path(first.environment.table_path("toy.readings"))
    DeltaTable(str(place)).create_checkpoint()
    (place / "_delta_log" / "00000000000000000000.json").unlink()
    lost = r"toy\.readings cannot be opened any more as it was in version 0"
    with pytest.raises(UsageError, match=lost):
        seen(first, "readings", "first")


@pytest.mark.parametrize("opens", [as_left.open_at, datasets._older])
def test_a_version_that_a_store_does_not_give_is_told_as_the_store_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens: Callable[..., DeltaTable]
) -> None:
    def away(*_: object, **__: object) -> DeltaTable:
        raise OSError("Generic S3 error: error sending request: connection refused")

    for module in (as_left, datasets):
        monkeypatch.setattr(module, "DeltaTable", away)
    with pytest.raises(OSError, match="Generic S3 error"):
        opens(night(tmp_path, "first").environment, "toy.readings", 0)


def test_a_table_that_was_deleted_and_made_again_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = night(tmp_path, "first")
    publish_ids(first, "readings", 1)
    publish_ids(first, "scoring", 10)
    end(first)
    assert seen(first, "readings", "first") == [1]
    shutil.rmtree(first.environment.table_path("toy.readings"))
    second = night(tmp_path, "second")
    publish_ids(second, "readings", 2)
    end(second)
    capsys.readouterr()
    assert seen(first, "scoring", "first") == [10]
    assert capsys.readouterr().err == (
        "Not shown: toy.readings. Run first of 'toy' did the stage that makes it, but all that is "
        "there was published later: it was deleted and made again since, or declared later.\n"
    )
    with pytest.raises(UsageError, match="readings"):
        seen(first, "readings", "first")
    assert seen(second, "readings", "second") == [2]


def test_rows_that_were_refused_first_after_a_run_are_no_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = night(tmp_path, "first")
    publish_ids(first, "readings", 1)
    end(first)
    publish_ids(night(tmp_path, "second"), "readings_quarantine", 5)
    capsys.readouterr()
    assert seen(first, "readings", "first") == [1]
    assert capsys.readouterr().err == ""
