"""How often the record is read, and how much of it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from deltalake import DeltaTable

from jobs import night
from jobs.lake import ops, publications
from jobs.planning import survey
from jobs.planning.passes import of_stage
from pipelines.days import Days
from pipelines.stages import stage
from tests.jobs.tiny_home import DAYS, Home


def _count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ops tables that are read from now on, by a process that has read none so far."""
    read: list[str] = []
    whole = ops._rows

    def counted(table: DeltaTable, name: str, *more: Any) -> Any:
        read.append(name)
        return whole(table, name, *more)

    monkeypatch.setattr(ops, "_rows", counted)
    monkeypatch.setattr(ops, "_KEPT", {})
    return read


def test_what_was_done_is_read_once_for_all_stages(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[0])
    run = home.run(DAYS[0])
    found = survey.Survey(run)
    read = _count_reads(monkeypatch)
    for name in ("train", "evaluate"):
        of_stage(run, stage(name), found)
    assert read == ["stage_runs"]
    made = [table.name for table in run.pipeline.tables]
    assert len(made) > 1
    read.clear()
    assert publications.next_attempt(run, made) > 1
    assert read == ["publications"]


def test_a_process_makes_each_publication_on_record_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[0])
    home.night(DAYS[1])
    made: list[tuple[object, ...]] = []
    from_rows = publications._from_rows

    def told(recorded: Any) -> Any:
        columns = (recorded[name] for name in ("table_name", "day", "version", "published_at"))
        made.extend(zip(*(column.to_pylist() for column in columns), strict=True))
        return from_rows(recorded)

    monkeypatch.setattr(publications, "_from_rows", told)
    monkeypatch.setattr(publications, "_MADE", {})
    read = _count_reads(monkeypatch)
    home.night(DAYS[2])
    survey.Survey(home.run(DAYS[2])).foreseen_by_record()
    assert len(made) > 10
    assert len(set(made)) == len(made)
    # Whole once, though each stage of the night has added to it.
    assert read.count("publications") == 1


def test_a_stage_alone_reads_the_record_once_and_makes_only_what_it_asks_about(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[1])
    made: set[str] = set()
    from_rows = publications._from_rows

    def told(recorded: Any) -> Any:
        made.update(recorded["table_name"].to_pylist())
        return from_rows(recorded)

    monkeypatch.setattr(publications, "_from_rows", told)
    monkeypatch.setattr(publications, "_MADE", {})
    read = _count_reads(monkeypatch)
    with home._stages():
        run = home.run(DAYS[1])
        assert night.make_true(run, (stage("transform"),), notify=False) == 0
    assert read == ["publications"]
    # What it makes, what that is made from, and which nights have landed.
    assert made == {"tiny.readings", "tiny.marks", "tiny.sums"}


@pytest.mark.parametrize(
    ("names", "looks"),
    [
        (("ingest",), 1),
        (("ingest", "check_raw"), 1),
        (("ingest", "check_raw", "train"), 2),
        (("ingest", "check_raw", "transform", "check_clean"), 2),
    ],
)
def test_how_things_stand_is_looked_at_again_only_where_a_stage_follows(
    names: tuple[str, ...], looks: int, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.night(DAYS[0])
    looked: list[date] = []
    nights = survey.Survey._nights

    def counted(found: survey.Survey) -> Days:
        looked.append(DAYS[1])
        return nights(found)

    monkeypatch.setattr(survey.Survey, "_nights", counted)
    home.performed.clear()
    with home._stages():
        stages = tuple(map(stage, names))
        assert night.make_true(home.run(DAYS[1]), stages, notify=False) == 0
    assert len(looked) == looks
    # What one stage makes the next one finds.
    assert [name for name, _ in home.performed] == list(names)
