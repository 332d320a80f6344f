"""The rows behind a scored row are those that its night saw, with file and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from jobs.lake import publications
from jobs.lake.behind import Behind, behind
from jobs.lake.publications import Input, Publication
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.features import Feature, FeatureView, day_end
from pipelines.feeds import Column, Feed
from pipelines.run import Run
from pipelines.spec import Table
from tests.jobs.toy import TOY

NIGHT = date(2013, 2, 3)
NOON = datetime(2013, 2, 3, 12, tzinfo=UTC)
MOMENT = datetime(2013, 2, 4, 5, tzinfo=UTC)
ENTITY = {"reading_date": NIGHT + timedelta(days=1), "id": 7}
VISITS = Feed(
    name="visits",
    path="visits/{date}.csv",
    columns=(
        Column(name="place", required=True),
        Column(name="seen_at", type="timestamp", required=True),
    ),
    key=("place", "seen_at"),
)
PLANNED = Feed(
    name="planned",
    path="planned/{date}.csv",
    columns=(Column(name="id", type="int", required=True),),
    key=("id",),
)
REGISTER = Feed(
    name="register",
    path="register.csv",
    columns=(
        Column(name="place", required=True),
        Column(name="of_listed", type="double"),
        Column(name="event_timestamp", type="timestamp"),
    ),
    key=("place",),
)


def _view(name: str, table: str, **more: Any) -> FeatureView:
    return FeatureView(
        name=name,
        table=table,
        keys={"place": "place"},
        features=(Feature(name=f"of_{name}"),),
        **more,
    )


VIEWS = (
    _view("latest", "hourly", event="observed_at", created="known_at", max_age_hours=48),
    _view("last_week", "weekly"),
    _view("busy_week", "weekly"),
    _view("listed", "register"),
)
PIPELINE = replace(
    TOY,
    feeds=(VISITS, PLANNED, REGISTER),
    derived=(
        Table(
            name="entities",
            made_by="transform",
            reads=("planned",),
            key=("reading_date", "id"),
        ),
        Table(
            name="hourly",
            made_by="transform",
            reads=("visits",),
            key=("place", "observed_at"),
        ),
        Table(
            name="weekly",
            made_by="transform",
            reads=("hourly",),
            key=("place",),
            window_days=3,
        ),
    ),
    entity_table="entities",
    views=VIEWS,
    training=replace(TOY.training, numeric=tuple(f"of_{view.name}" for view in VIEWS)),
)
Rows = Sequence[dict[str, Any]]


class Lake:
    """Publishes tables of the pipeline, day by day."""

    def __init__(self, home: Path) -> None:
        self.environment = Environment.read({"NIGHTSHIFT_HOME": str(home)})
        self.run = Run(pipeline=PIPELINE, days=Days.of(NIGHT), environment=self.environment)

    def publish(
        self,
        table: str,
        day: date,
        rows: Rows,
        known: date | None = None,
        file: str = "",
    ) -> None:
        """Replace a day of a table, from the file of that day or another one."""
        path = self.environment.table_path(f"toy.{table}")
        named = pa.Table.from_pylist([{"landed_date": day, **row} for row in rows])
        how: dict[str, Any] = {"mode": "append"}
        if DeltaTable.is_deltatable(path):
            how = {"mode": "overwrite", "predicate": f"landed_date = '{day}'"}
        write_deltalake(path, named, partition_by=["landed_date"], **how)
        version = DeltaTable(path).version()
        name = file or f"toy/{table}/{day}.csv"
        given = Input(name=name, first_day=day, last_day=day, digest="d")
        told = Publication(
            day=day,
            version=version,
            attempt=version + 1,
            run_id="r1",
            stage="check_raw",
            rows=len(rows),
            checksum=f"{day} {version}",
            definition="one",
            inputs=(given,),
            changed=True,
            code_version="1",
            published_at=publications.now(),
            known_day=known or day,
        )
        publications.record(self.run, table, [told])


def _raw(line: int, **row: Any) -> dict[str, Any]:
    return {**row, "source_file": "toy/of_that_day.csv", "source_line": line}


def _hour(
    hours: int,
    known_at: datetime = MOMENT,
    place: str = "attic",
) -> dict[str, Any]:
    return {"place": place, "observed_at": NOON + timedelta(hours=hours), "known_at": known_at}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path)
    own = {**ENTITY, "place": "attic", "event_timestamp": MOMENT}
    made.publish("entities", NIGHT, [{**own, "id": 6}, own])
    made.publish(
        "planned",
        NIGHT,
        [_raw(2, id=6), _raw(3, id=7)],
    )
    late = _hour(9, known_at=MOMENT + timedelta(hours=1))
    made.publish(
        "hourly",
        NIGHT,
        [_hour(1), _hour(2), late, _hour(3, place="cellar")],
    )
    for days_ago in range(4):
        day = NIGHT - timedelta(days=days_ago)
        visits = []
        for number in range(5):
            seen_at = NOON + timedelta(hours=number)
            visits.append(_raw(number + 2, place="attic", seen_at=seen_at))
        made.publish("visits", day, visits)
    made.publish("weekly", NIGHT, [{"place": "attic", "event_timestamp": MOMENT}])
    made.publish(
        "register",
        NIGHT - timedelta(days=33),
        [_raw(4, place="attic")],
    )
    return made


def _of(found: Sequence[Behind], table: str) -> list[tuple[object, ...]]:
    rows = [one for one in found if one.table == f"toy.{table}"]
    told = attrgetter("days", "row", "file", "line", "read_for")
    return [told(one) for one in rows]


def test_each_row_is_told_with_its_file_and_line(lake: Lake) -> None:
    found = behind(lake.run, ENTITY)
    file = "toy/of_that_day.csv"
    day = str(NIGHT)
    assert _of(found, "entities") == [(day, "reading_date=2013-02-04 id=7", None, None, "entity")]
    assert _of(found, "planned") == [(day, "id=7", file, 3, "entity")]
    at = NOON + timedelta(hours=2)
    # The last one that was known by the moment, and not the later one that became known after it.
    assert _of(found, "hourly") == [(day, f"place=attic observed_at={at}", None, None, "latest")]
    first, windows = _of(found, "visits")
    assert first == (day, f"place=attic seen_at={at}", file, 4, "latest")
    files = "toy/visits/2013-02-01.csv … toy/visits/2013-02-03.csv (3 files)"
    weeks = "last_week, busy_week"
    assert windows == ("2013-02-01..2013-02-03", "not listed", files, None, weeks)
    assert _of(found, "weekly") == [(day, "place=attic", None, None, weeks)]
    assert _of(found, "register") == [("2013-01-01", "place=attic", file, 4, "listed")]


def test_a_view_that_found_nothing_is_told_too(lake: Lake) -> None:
    own = {**ENTITY, "place": "roof", "event_timestamp": MOMENT}
    lake.publish("entities", NIGHT, [own])
    found = behind(lake.run, ENTITY)
    nothing = ("until 2013-02-03", "none with place=roof", None, None)
    assert _of(found, "hourly") == [(*nothing, "latest")]
    assert _of(found, "weekly") == [(*nothing, "last_week, busy_week")]


def test_what_became_known_later_is_not_behind_a_row(lake: Lake) -> None:
    before = behind(lake.run, ENTITY)
    later = NIGHT + timedelta(days=2)
    lake.publish("planned", NIGHT, [_raw(9, id=7)], known=later)
    lake.publish("register", later, [_raw(9, place="attic")])
    again = [_raw(2, place="attic", seen_at=NOON)]
    lake.publish("visits", NIGHT, again, later, "toy/visits/corrected.csv")
    assert behind(lake.run, ENTITY) == before


def test_many_rows_of_a_day_are_counted(lake: Lake) -> None:
    lake.publish(
        "hourly",
        NIGHT,
        [_hour(30, known_at=NOON), _hour(-30, known_at=NOON)],
    )
    found = behind(lake.run, ENTITY)
    # None of the visits has the time of what the view found.
    counted = "5 rows with place=attic"
    told = (str(NIGHT), counted, "toy/visits/2013-02-03.csv", None, "latest")
    assert told in _of(found, "visits")


@pytest.mark.parametrize("number", ["A7", 1.5])
def test_a_transform_may_put_something_else_in_the_place_of_a_feeds_key(
    number: object, tmp_path: Path
) -> None:
    lake = Lake(tmp_path)
    entity = {**ENTITY, "id": number}
    lake.publish("entities", NIGHT, [{**entity, "place": "attic", "event_timestamp": MOMENT}])
    lake.publish("planned", NIGHT, [_raw(2, id=7)])
    lake.publish("visits", NIGHT, [_raw(3, place="attic", seen_at=NOON)])
    in_words = {"observed_at": "2013-02-03 at noon", "seen_at": "at noon"}
    lake.publish("hourly", NIGHT, [{**_hour(0, known_at=NOON), **in_words}])
    training = replace(TOY.training, numeric=("of_latest",))
    pipeline = replace(PIPELINE, views=VIEWS[:1], training=training)
    found = behind(replace(lake.run, pipeline=pipeline), entity)
    assert len(_of(found, "entities")) == 1
    day = str(NIGHT)
    planned = (day, "not listed", "toy/planned/2013-02-03.csv", None, "entity")
    assert _of(found, "planned") == [planned]
    # What the row has of the key tells it.
    visit = (day, f"place=attic seen_at={NOON}", "toy/of_that_day.csv", 3, "latest")
    assert _of(found, "visits") == [visit]


def test_without_a_row_of_the_entity_nothing_is_told(lake: Lake) -> None:
    assert behind(lake.run, {**ENTITY, "id": 99}) == []


def test_a_row_that_is_too_old_for_a_view_is_not_behind_what_it_found(lake: Lake) -> None:
    at = NOON - timedelta(hours=30)
    lake.publish("hourly", NIGHT, [_hour(1, place="cellar")])
    # Both on a day that the view looks into, the later one an hour before it begins.
    lake.publish(
        "hourly",
        NIGHT - timedelta(days=2),
        [_hour(-32, known_at=NOON), _hour(-50, known_at=NOON)],
    )
    nothing = [("until 2013-02-03", "none with place=attic", None, None, "latest")]
    assert _of(behind(lake.run, ENTITY), "hourly") == nothing
    older = [_hour(-50, known_at=NOON), _hour(-30, known_at=NOON)]
    lake.publish("hourly", NIGHT - timedelta(days=2), older)
    (found,) = _of(behind(lake.run, ENTITY), "hourly")
    assert found[1::3] == (f"place=attic observed_at={at}", "latest")


def test_a_row_that_came_late_is_not_the_last_one_for_that(lake: Lake) -> None:
    # The later day holds the earlier observation, as of a file that was late.
    lake.publish("hourly", NIGHT, [_hour(-20, known_at=NOON)])
    lake.publish(
        "hourly",
        NIGHT - timedelta(days=1),
        [_hour(-10, known_at=NOON), _hour(-15, known_at=NOON)],
    )
    at = NOON - timedelta(hours=10)
    ((days, row, *_),) = _of(behind(lake.run, ENTITY), "hourly")
    assert (days, row) == ("2013-02-02", f"place=attic observed_at={at}")
    lake.publish("hourly", NIGHT, [_hour(-9, known_at=NOON)])
    ((days, *_),) = _of(behind(lake.run, ENTITY), "hourly")
    assert days == str(NIGHT)


def test_views_of_one_key_that_look_differently_are_each_told_what_they_found(lake: Lake) -> None:
    patient = _view("patient", "hourly", event="observed_at", created="known_at")
    hasty = replace(VIEWS[0], max_age_hours=12)
    training = replace(TOY.training, numeric=("of_latest", "of_patient"))
    pipeline = replace(PIPELINE, views=(hasty, patient), training=training)
    run = replace(lake.run, pipeline=pipeline)
    at = NOON + timedelta(hours=2)
    (nothing, found) = _of(behind(run, ENTITY), "hourly")
    assert nothing[1::3] == ("none with place=attic", "latest")
    assert found[1::3] == (f"place=attic observed_at={at}", "patient")


@pytest.mark.parametrize("hours", [4, 5])
def test_the_age_of_a_row_that_holds_from_a_day_on_is_counted_from_its_midnight(
    hours: int, lake: Lake
) -> None:
    # The register is of a day that began 34 days and five hours before the moment.
    age = 34 * 24 + hours
    by_day = _view("listed", "register", event="landed_date", max_age_hours=age)
    run = replace(lake.run, pipeline=replace(PIPELINE, views=(by_day,)))
    ((days, *_),) = _of(behind(run, ENTITY), "register")
    assert days == ("2013-01-01" if hours == 5 else "until 2013-02-03")


@pytest.mark.parametrize(
    ("by", "sees_its_own_day"),
    [
        ({"event": "observed_at"}, False),
        ({"event": day_end("landed_date", TOY.timezone)}, False),
        ({"event": "observed_at", "created": "known_at"}, True),
    ],
    ids=["landed", "holds", "known"],
)
def test_a_row_of_a_day_that_had_not_ended_is_behind_none_that_knows_it_by_the_days_end(
    lake: Lake, by: dict[str, str], sees_its_own_day: bool
) -> None:
    # In the evening, hours before the local day ends.
    moment = MOMENT - timedelta(hours=6)
    own = {**ENTITY, "place": "attic", "event_timestamp": moment}
    lake.publish("entities", NIGHT, [own])
    day_before = NIGHT - timedelta(days=1)
    for day, hours in ((day_before, -20), (NIGHT, 2)):
        lake.publish("hourly", day, [_hour(hours, known_at=NOON)])
    view = _view("latest", "hourly", max_age_hours=48, **by)
    training = replace(TOY.training, numeric=("of_latest",))
    pipeline = replace(PIPELINE, views=(view,), training=training)
    run = replace(lake.run, pipeline=pipeline)
    ((days, *_),) = _of(behind(run, ENTITY), "hourly")
    assert days == str(NIGHT if sees_its_own_day else day_before)
