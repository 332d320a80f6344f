"""Declarations refuse nonsense and say what would be right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.errors import UsageError
from pipelines.features import Feature, FeatureView, day_end, names
from pipelines.feeds import Column, Feed
from pipelines.model import GroupMean, Logarithm, NeuralNetwork, Promotion, Watch
from pipelines.resources import TRAINING, Pool, Resources
from pipelines.rolling import Grain
from pipelines.run import Run
from pipelines.spec import RESERVED_PIPELINES, Pipeline, Table
from pipelines.stages import STAGES, select
from tests.jobs.toy import READINGS, SENSORS, TOY

FLIGHTS = catalog.pipeline("flights")
PART_FOLDERS = ("pipelines", "jobs/transforms", "jobs/examples", "expectations", "dags")
"""Folders in which each pipeline has a module of its name."""


def _table(name: str) -> Table:
    return Table(name=name, made_by="transform", key=("id",))


def test_an_unknown_pipeline_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match="Did you mean 'flights'"):
        catalog.pipeline("flihgts")


def test_a_feed_refuses_a_key_that_is_no_column() -> None:
    with pytest.raises(UsageError, match=r"key columns \['id'\]"):
        Feed(
            name="trips",
            path="trips/{date}.csv",
            columns=(Column(name="trip"),),
            key=("id",),
        )


def test_a_column_refuses_an_unknown_type_and_lists_the_known() -> None:
    with pytest.raises(UsageError, match="no type 'number'.*double"):
        Column(name="fare", type="number")  # type: ignore[arg-type]


def test_a_pipeline_refuses_a_table_that_reads_what_nothing_makes() -> None:
    stray = replace(_table("stray"), reads=("nowhere",))
    with pytest.raises(UsageError, match=r"reads \['nowhere'\]"):
        replace(FLIGHTS, derived=(*FLIGHTS.derived, stray))


def test_the_feeds_behind_a_table_are_those_that_it_is_made_from_whatever_lies_between() -> None:
    others = replace(READINGS, name="others", path="others/{date}.csv")
    near = replace(_table("near"), reads=("readings",))
    far = replace(_table("far"), reads=("near", "sensors"))
    pipeline = replace(TOY, feeds=(READINGS, SENSORS, others), derived=(near, far))
    behind = {}
    for table in pipeline.tables:
        behind[table.name] = [feed.name for feed in pipeline.feeds_behind(table)]
    assert behind["near"] == behind["scoring"] == behind["predictions"] == ["readings"]
    assert behind["far"] == ["readings", "sensors"]
    assert behind["others"] == ["others"]


def test_days_outside_the_feeds_are_refused_with_the_days_that_they_cover() -> None:
    with pytest.raises(UsageError, match="from 2012-12-31 to 2013-12-31"):
        FLIGHTS.require_days(Days.of(date(2014, 1, 1)))


def test_flights_declares_its_95_numeric_features_once_each() -> None:
    training = FLIGHTS.training
    assert len(training.numeric) == 95
    assert len(set(training.features)) == 95 + len(training.categorical)


def test_stages_are_selected_in_the_order_of_the_night() -> None:
    assert [s.name for s in select(["predict", "ingest"])] == ["ingest", "predict"]
    assert select([]) == STAGES


def test_an_unknown_stage_is_refused_with_the_near_miss() -> None:
    message = r"Did you mean 'ingest'\? Known: ingest, check_raw, transform, "
    with pytest.raises(UsageError, match=message):
        select(["ingst"])


@pytest.mark.parametrize(
    "given", [{"needs_approval": True, "approval_hours": 0}, {"approval_hours": 48}]
)
def test_a_deadline_of_approvals_needs_approvals_and_time(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="approval_hours must be above 0, and needs"):
        Promotion(**given)


@pytest.mark.parametrize(
    "by",
    [time(6, tzinfo=UTC), time(6, 0, 30)],
)
def test_a_deadline_is_a_time_of_day_in_the_zone_of_the_pipeline(by: time) -> None:
    with pytest.raises(UsageError, match=r"predictions_by 06:00.* must be hours and minutes"):
        replace(FLIGHTS, predictions_by=by)


@pytest.mark.parametrize(
    ("schedule", "by", "is_kept"),
    [
        ("30 4 * * *", time(4, 31), True),
        ("30 4 * * *", time(4, 30), False),
        # The evening of a day makes no predictions for its morning.
        ("0 22 * * *", time(6), False),
        ("0 22 * * MON-FRI", time(23, 59), True),
        ("@daily", time(0, 1), True),
        ("@midnight", time(0), False),
        # Of several times none is its own.
        ("0 4,22 * * *", time(3), True),
    ],
)
def test_a_deadline_that_every_night_would_miss_is_refused(
    schedule: str, by: time, is_kept: bool
) -> None:
    live = replace(FLIGHTS, last_day=None, replay=None, predictions_by=None, schedule=schedule)
    refused = pytest.raises(UsageError, match=f"predictions_by {by:%H:%M} does not come after")
    with nullcontext() if is_kept else refused:
        replace(live, predictions_by=by)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pool(name=" ", slots=1), "A pool needs a name"),
        (lambda: Pool(name="p", slots=0), "Pool 'p': slots must be at least 1"),
        (lambda: Resources(pool_slots=0), "pool_slots must be at least 1"),
        (lambda: Resources(pool=TRAINING, pool_slots=2), "pool_slots is 2, of 1"),
        (lambda: replace(FLIGHTS, resources={"trian": Resources()}), "Did you mean 'train'"),
        (lambda: replace(FLIGHTS, resources={"train": TRAINING}), "must be Resources, but is Pool"),
        (lambda: replace(FLIGHTS, outcomes=("flihgts",)), r"outcomes names \['flihgts'\]"),
    ],
)
def test_resources_that_no_scheduler_could_give_are_refused(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_a_pipeline_that_somebody_is_writing_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalog, "names", lambda: ["flights", "unfinished"])
    assert catalog.readable() == [FLIGHTS]
    assert catalog.pools() == [TRAINING]


def test_one_pool_that_is_declared_in_two_ways_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = Resources(pool=Pool(name="training", slots=2))
    given = {"flights": FLIGHTS, "weather": replace(FLIGHTS, resources={"train": wide})}
    monkeypatch.setattr(catalog, "pipeline", given.__getitem__)
    with pytest.raises(UsageError, match=r"its pool is Pool\(name='training', slots=2"):
        catalog.pools()


def test_a_run_survives_the_way_to_another_process() -> None:
    run = Run(
        pipeline=FLIGHTS,
        days=Days.of(date(2013, 1, 5)),
        environment=Environment.read({"SPARK_REMOTE": "sc://cluster:15002"}),
        retrain=True,
        rescore=True,
        is_exact=True,
    ).at(STAGES[3])
    assert Run.from_json(run.to_json()) == run


@pytest.mark.parametrize("run_id", ["", "a b", "x; rm -rf /", "ü", ".", ".."])
def test_a_run_id_that_a_shell_or_a_file_system_could_misread_is_refused(run_id: str) -> None:
    with pytest.raises(UsageError, match="not a run id"):
        Run(
            pipeline=FLIGHTS,
            days=Days.of(date(2013, 1, 5)),
            environment=Environment.read({}),
            run_id=run_id,
        )


@pytest.mark.parametrize("name", ["training", "scoring", "predictions", "predictions_history"])
def test_a_table_that_the_platform_makes_itself_cannot_be_declared(name: str) -> None:
    with pytest.raises(UsageError, match=f"must not be named 'toy.{name}'"):
        replace(TOY, derived=(_table(name),))
    with pytest.raises(UsageError, match=f"must not be named 'toy.{name}'"):
        replace(TOY, feeds=(replace(READINGS, name=name),))


def test_a_table_named_like_a_quarantine_is_refused() -> None:
    quarantine = replace(SENSORS, name="readings_quarantine", path="q.csv")
    with pytest.raises(UsageError, match="must not be named 'toy.readings_quarantine'"):
        replace(TOY, feeds=(*TOY.feeds, quarantine))


@pytest.mark.parametrize("name", ["Readings", "a b", "a.b", "_staging", "", "1st", "x/../y"])
def test_a_table_name_that_a_path_or_sql_could_misread_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a table"):
        replace(TOY, derived=(_table(name),))


@pytest.mark.parametrize(
    "name",
    [
        *("ops", "gate", "snapshots", "spec", "tasks", "store", "suite"),
        *("static", "nights", "sql", "toy_source", "flights_deadline", "memory", "pg_sales"),
    ],
)
def test_a_pipeline_cannot_be_named_like_what_the_platform_has(name: str) -> None:
    with pytest.raises(UsageError, match=f"must not be named '{name}'"):
        replace(TOY, name=name)


def _is_understood(query: str) -> bool:
    try:
        duckdb.extract_statements(query)
    except duckdb.ParserException:
        return False
    return True


def test_a_pipeline_cannot_be_named_by_a_word_that_sql_would_have_quoted() -> None:
    listed = duckdb.execute("SELECT DISTINCT keyword_name FROM duckdb_keywords()").fetchall()
    words = [word for (word,) in listed if not _is_understood(f"SELECT * FROM {word}.predictions")]
    assert {"order", "group", "left"} <= {*words}
    # PostgreSQL and Spark have more.
    for name in (*words, "user", "grant", "minus"):
        with pytest.raises(UsageError, match=f"must not be named '{name}'"):
            replace(TOY, name=name)


@pytest.mark.parametrize("name", ["Flights", "a-b", "", "_x", "a.b"])
def test_a_pipeline_name_that_no_module_or_schema_can_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a pipeline"):
        replace(TOY, name=name)


def test_what_an_editor_or_a_copy_leaves_beside_the_pipelines_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taxi.py").touch()
    (tmp_path / "taxi.old.py").touch()
    (tmp_path / ".#taxi.py").symlink_to("nobody@host.1")
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "catalog.py"))
    assert catalog.names() == ["taxi"]


@pytest.mark.parametrize("folder", PART_FOLDERS)
def test_every_module_that_lies_beside_a_pipelines_parts_is_a_reserved_name(folder: str) -> None:
    stems = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert stems - set(catalog.names()) <= RESERVED_PIPELINES


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="no time zone 'New York'"):
        replace(TOY, timezone="New York")


def test_a_folder_of_time_zones_is_none() -> None:
    with pytest.raises(UsageError, match="no time zone 'America'"):
        replace(TOY, timezone="America")


def test_two_feeds_cannot_be_the_same_file() -> None:
    with pytest.raises(UsageError, match="two feeds of one path"):
        replace(TOY, feeds=(READINGS, replace(READINGS, name="again")))


@pytest.mark.parametrize(
    ("feeds", "found"),
    [
        ((SENSORS,), r"reference files alone \(sensors.csv\)"),
        ((), "no feed"),
    ],
    ids=["references", "none"],
)
def test_a_pipeline_has_a_feed_by_whose_files_its_nights_are_known(
    feeds: tuple[Feed, ...], found: str
) -> None:
    # Of what is scored, too: it could be made of reference files alone.
    scored = replace(_table("scored"), reads=tuple(feed.name for feed in feeds))
    message = f"Pipeline 'toy' has {found}: .* must have '{{date}}' in its path"
    with pytest.raises(UsageError, match=message):
        replace(TOY, feeds=feeds, derived=(scored,), entity_table="scored")
    replace(TOY, feeds=(READINGS,))


def test_a_feature_view_must_look_into_a_table_that_is_made() -> None:
    stray = replace(FLIGHTS.views[0], table="nowhere")
    with pytest.raises(UsageError, match="looks into 'flights.nowhere'"):
        replace(FLIGHTS, views=(stray,))


_PLACED = FeatureView(
    name="placed",
    table="sensors",
    keys={"id": "id"},
    features=(Feature(name="height"), Feature(name="far", column="length(place)")),
    event="landed_date",
)
"""A view of a feed, whose feature the feed does not declare."""


def _with_view(view: FeatureView, sensors: Feed = SENSORS) -> Pipeline:
    numeric = ("amount", *names([view]))
    training = replace(TOY.training, numeric=numeric)
    return replace(TOY, feeds=(READINGS, sensors), views=(view,), training=training)


@pytest.mark.parametrize(
    ("view", "unknown"),
    [
        (_PLACED, "height"),
        (replace(_PLACED, keys={"height": "id"}), "height"),
        (replace(_PLACED, constants={"height": "low"}), "height"),
        (replace(_PLACED, event="height"), "height"),
        (replace(_PLACED, created="height"), "height"),
        (replace(_PLACED, features=(Feature(name="near", column="height"),)), "height"),
    ],
    ids=["feature", "key", "constant", "event", "created", "column"],
)
def test_a_view_of_a_feed_reads_columns_that_the_feed_declares(
    view: FeatureView, unknown: str
) -> None:
    message = (
        rf"view 'placed' reads \['{unknown}'\] of 'toy.sensors', which feed 'sensors' does not "
        "declare. Declare them, or name some of id, place, landed_date, source_file, source_line"
    )
    with pytest.raises(UsageError, match=message):
        _with_view(view)
    # Its files may bring the column, or they do.
    _with_view(view, replace(SENSORS, new_columns="add"))
    _with_view(view, SENSORS.with_new(["Height"]))


def test_the_view_of_a_feed_that_says_no_moment_is_told_of_one() -> None:
    view = replace(_PLACED, features=_PLACED.features[1:], event="event_timestamp")
    with pytest.raises(UsageError, match=r"\['event_timestamp'\].*event: day_end\("):
        _with_view(view)


_FAR = replace(_PLACED, features=_PLACED.features[1:])
"""The same view without that feature."""


@pytest.mark.parametrize(
    "event",
    ["landed_date", "Landed_Date", day_end("landed_date", TOY.timezone)],
)
def test_rows_of_a_reference_file_do_not_become_too_old_within_a_month(event: str) -> None:
    view = replace(_FAR, event=event, max_age_hours=743)
    message = (
        "'placed' has max_age_hours=743 and looks into 'toy.sensors', a reference file.*"
        r"Leave max_age_hours out, .* at least 744 \(31 days\)"
    )
    with pytest.raises(UsageError, match=message):
        _with_view(view)
    _with_view(replace(view, max_age_hours=744))
    # These are as old as they say themselves.
    dated = SENSORS.with_new(["seen_at"])
    _with_view(replace(view, event="seen_at"), dated)
    named = SENSORS.with_new(["first_landed_date"])
    _with_view(replace(view, event="first_landed_date"), named)
    # Each day has files of these.
    _with_view(replace(view, table="readings", features=(Feature(name="taken"),)))


def test_what_is_carried_from_a_feed_is_declared_by_it() -> None:
    replace(TOY, carried=("note", "amount"))
    with pytest.raises(
        UsageError, match=r"Pipeline 'toy': carried names \['place'\] of 'toy.readings'"
    ):
        replace(TOY, carried=("note", "place"))
    # A feature is looked up elsewhere.
    height = SENSORS.with_new(["height"])
    replace(_with_view(_PLACED, height), carried=("far",))


def _asking(name: str, feature: Feature, constants: Mapping[str, str]) -> FeatureView:
    return FeatureView(
        name=name,
        table="rolling",
        keys={"key": "origin_key"},
        constants=constants,
        features=(feature,),
        past_days=28,
    )


@pytest.mark.parametrize(
    ("one", "other", "column"),
    [
        (
            _asking("sales", Feature(name="a"), {"region_kind": "city"}),
            _asking("sales_region", Feature(name="b"), {"kind": "day"}),
            "__sales_region_kind",
        ),
        (
            _asking("store", Feature(name="week_sales", column="coalesce(n_7, 0)"), {}),
            _asking("store_week", Feature(name="sales", column="n_7 / 7"), {}),
            "sql_store_week_sales",
        ),
        (
            _asking("a", Feature(name="one", column="b__c"), {}),
            _asking("a__b", Feature(name="other", column="c"), {}),
            "a__b__c",
        ),
    ],
    ids=["constants", "expressions", "looked up"],
)
def test_two_views_cannot_be_given_one_column(
    one: FeatureView, other: FeatureView, column: str
) -> None:
    told = f"'{one.name}' and '{other.name}' of pipeline 'flights' would .* column '{column}'"
    with pytest.raises(UsageError, match=told):
        replace(FLIGHTS, views=(*FLIGHTS.views, one, other))
    views = (*FLIGHTS.views, one, replace(other, name="other"))
    added = names(views[-2:])
    numeric = (*FLIGHTS.training.numeric, *added)
    replace(FLIGHTS, views=views, training=replace(FLIGHTS.training, numeric=numeric))


def test_views_whose_names_differ_in_case_alone_are_refused() -> None:
    small = _asking("store", Feature(name="a"), {})
    large = _asking("Store", Feature(name="b"), {})
    with pytest.raises(UsageError, match=r"two feature views named \['store'\]"):
        replace(FLIGHTS, views=(*FLIGHTS.views, small, large))


def test_two_features_cannot_have_one_name() -> None:
    again = replace(FLIGHTS.views[0], name="again")
    with pytest.raises(UsageError, match=r"two features named \['co_canc_1'"):
        replace(FLIGHTS, views=(*FLIGHTS.views, again))


def test_the_entity_table_must_be_made() -> None:
    with pytest.raises(UsageError, match="entity_table 'toy.nowhere' is made by no feed"):
        replace(TOY, entity_table="nowhere")


@pytest.mark.parametrize(
    "odd",
    [{"partition": "on_day"}, {"partition_lead_days": 1}],
    ids=str,
)
def test_what_is_joined_must_be_partitioned_by_its_night(odd: dict[str, Any]) -> None:
    ahead = replace(_table("ahead"), **odd)
    view = FeatureView(
        name="latest",
        table="ahead",
        keys={"id": "id"},
        features=(Feature(name="amount"),),
    )
    # Nobody joins it.
    replace(TOY, derived=(ahead,))
    message = "'toy.ahead', whose partition is another than landed_date"
    with pytest.raises(UsageError, match=f"Feature view 'latest' looks into {message}"):
        replace(TOY, derived=(ahead,), views=(view,))
    with pytest.raises(UsageError, match=f"entity_table is {message}"):
        replace(TOY, derived=(ahead,), entity_table="ahead")


def test_an_unknown_channel_is_refused() -> None:
    with pytest.raises(UsageError, match=r"No notification channel \[.*\]. Known: log, webhook"):
        replace(TOY, notify=("pigeon",))  # type: ignore[arg-type]


def test_a_missing_part_is_named_with_what_it_is_for() -> None:
    with pytest.raises(UsageError, match=r"expectations/toy.py does not exist.*for its suites"):
        catalog.part("expectations", TOY, "its suites")


def test_a_part_that_fails_to_import_something_else_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "toy.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        catalog.part("parts", TOY, "a test")


@pytest.mark.parametrize(
    "name", ["reading_date", "run_id", "model_version", "landed_date", "amount", "", "a b", "high"]
)
def test_the_prediction_must_have_a_name_of_its_own(name: str) -> None:
    with pytest.raises(UsageError, match="no name of its own|both named"):
        replace(TOY, prediction=name)


@pytest.mark.parametrize("name", ["id", "learned", "event_timestamp", "a b"])
def test_the_label_must_have_a_name_of_its_own(name: str) -> None:
    with pytest.raises(UsageError, match="no name of its own"):
        replace(TOY, training=replace(TOY.training, label=name))


@pytest.mark.parametrize("field", ["categorical", "unread"])
def test_what_a_model_could_read_is_no_other_column_of_training(field: str) -> None:
    def declared(*names: str) -> Pipeline:
        more: dict[str, Any] = {field: names}
        return replace(TOY, training=replace(TOY.training, **more))

    with pytest.raises(UsageError, match="training.label 'high' is no name of its own"):
        declared("note", "high")
    for name in ("landed_date", "event_timestamp", "learned"):
        with pytest.raises(UsageError, match=rf"\['{name}'\] cannot name a feature"):
            declared(name)
    # What is scored may be a category, and what predictions alone have.
    declared("id", "run_id")


@pytest.mark.parametrize(
    "declared",
    [
        {"prediction": "Amount"},
        {"prediction": "Reading_date"},
        {"prediction": "Run_id"},
        {"carried": ("ID",)},
        {"training": replace(TOY.training, label="AMOUNT")},
        {"training": replace(TOY.training, numeric=(*TOY.training.numeric, "Amount"))},
    ],
    ids=lambda declared: next(iter(declared)),
)
def test_columns_that_differ_only_in_case_are_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="' and '.*' differ only in case"):
        replace(TOY, **declared)


def test_a_carried_column_that_the_platform_adds_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\['run_id'\] cannot name"):
        replace(TOY, carried=("run_id",))


def test_a_feature_that_the_model_does_not_read_is_refused() -> None:
    training = replace(FLIGHTS.training, numeric=FLIGHTS.training.numeric[1:])
    with pytest.raises(UsageError, match=r"give \['co_n_1'\], which training.numeric lacks"):
        replace(FLIGHTS, training=training)


def test_a_feature_may_be_declared_as_unread() -> None:
    declared = FLIGHTS.training
    tails = [name for name in declared.features if name.startswith("tail_")]
    training = declared.without(tails)
    assert sorted(training.features + training.unread) == sorted(declared.features)
    assert training.unread == tuple(tails)
    # Its settings of single features still name them.
    assert replace(FLIGHTS, training=training).training == training
    with pytest.raises(UsageError, match=r"read and unread: \['tail_"):
        replace(declared, unread=tuple(tails))


@pytest.mark.parametrize(
    "singled_out",
    [
        {"shared": ("ghost",)},
        {"logarithms": (Logarithm(features=("ghost",)),)},
    ],
    ids=["shared", "logarithms"],
)
def test_what_is_read_in_a_way_of_its_own_must_be_read(singled_out: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"name \['ghost'\], which are no numeric features"):
        replace(TOY, training=replace(TOY.training, **singled_out))


def test_what_a_baseline_or_a_slice_reads_must_be_there() -> None:
    with pytest.raises(UsageError, match=r"read \['ghost'\]"):
        replace(TOY, training=replace(TOY.training, slices=("ghost",)))


def test_a_derived_table_is_made_by_transform() -> None:
    sums = Table(name="sums", made_by="predict", key=("id",))
    with pytest.raises(UsageError, match="made_by='predict'"):
        replace(TOY, derived=(sums,))


@pytest.mark.parametrize("name", ["days", "labels", "class"])
def test_a_table_cannot_be_named_like_a_word_of_its_module(name: str) -> None:
    odd = Table(name=name, made_by="transform", key=("id",))
    with pytest.raises(UsageError, match=f"must not be named 'toy.{name}'"):
        replace(TOY, derived=(odd,))


def test_a_name_without_its_comma_is_refused() -> None:
    with pytest.raises(UsageError, match="entity must be a tuple of names, but is the text"):
        replace(TOY, entity="reading_date")  # type: ignore[arg-type]


def test_days_that_end_before_they_begin_are_refused() -> None:
    new_year = date(2013, 1, 1)
    new_years_eve = date(2013, 12, 31)
    with pytest.raises(UsageError, match="first day 2013-12-31 is after its last 2013-01-01"):
        replace(TOY, first_day=new_years_eve, last_day=new_year)


@pytest.mark.parametrize(
    ("deadline", "patience"),
    [(-1, 2), (3, 2), (2, 25)],
)
def test_a_night_waits_for_files_less_than_a_day_and_tells_of_it_before(
    deadline: float, patience: float
) -> None:
    replace(TOY, feed_deadline_hours=0, feed_patience_hours=0)
    with pytest.raises(UsageError, match=f"feed_deadline_hours {deadline} must be from 0"):
        replace(TOY, feed_deadline_hours=deadline, feed_patience_hours=patience)


def test_a_module_without_its_pipeline_is_told_what_to_define(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalog, "names", lambda: ["days"])
    with pytest.raises(UsageError, match="must define PIPELINE = Pipeline"):
        catalog.pipeline("days")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"min_nights": 8}, "min_nights must be from 1 to nights, 7"),
        ({"min_nights": 0}, "min_nights must be from 1"),
        ({"reference_nights": 6}, "reference_nights must be at least 7"),
        ({"drift_multiple": 0.9}, "drift_multiple must be at least 1"),
        ({"quality_days": 3}, "quality_days must be at least 7"),
        ({"max_skew": 0.0, "least_drift": 2.0}, "least_drift, max_skew must be above 0"),
        ({"holds": ("skew", "drift")}, r"holds: no kind \['drift'\]. Known: feature, prediction,"),
        ({"retrains": "quality"}, r"retrains must be a tuple of names.*\('quality',\)"),
    ],
)
def test_a_watch_refuses_nonsense(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Watch(**declared)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"accumulated_batches": 0}, "accumulated_batches must be at least 1"),
        ({"compression": "zip"}, "No compression 'zip'. Known: none, fp16"),
        ({"precision": "float16"}, "No precision 'float16'. Known: float32, mixed_float16"),
        ({"reduction": "adasum"}, "No reduction 'adasum': use 'average'. Horovod's Adasum needs"),
    ],
)
def test_a_network_refuses_what_its_ranks_cannot_do(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        NeuralNetwork(**declared)


def test_what_is_not_watched_is_a_feature() -> None:
    with pytest.raises(UsageError, match=r"watch.unwatched names \['moon'\], which are no feat"):
        replace(TOY, watch=Watch(unwatched=("moon",)))
    with pytest.raises(UsageError, match="unwatched must be a tuple"):
        Watch(unwatched="moon")  # type: ignore[arg-type]


_KEY = ("id",)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Column(name="a", null_token=0), "Column 'a': null_token .* 0 is no text or None"),
        (
            lambda: replace(READINGS, columns=Column(name="id")),
            "Feed 'readings': columns .* Column",
        ),
        (lambda: replace(READINGS, columns=("id",)), r"\('id',\) is no tuple of Column"),
        (lambda: replace(READINGS, key="id"), r"key must be a tuple of names.*\('id',\)"),
        (lambda: replace(TOY, feeds=READINGS), "Pipeline 'toy': feeds .* is no tuple of Feed"),
        (lambda: replace(TOY, feeds=[READINGS]), "feeds .* is no tuple of Feed, such as"),
        (lambda: replace(TOY, first_day="2013-01-01"), "first_day .* '2013-01-01' is no date"),
        (
            lambda: replace(TOY, first_day=datetime(2013, 1, 1, tzinfo=UTC)),
            "is no date",
        ),
        (lambda: replace(TOY, notify="log"), r"notify must be a tuple of names.*\('log',\)"),
        (lambda: replace(_table("a"), window_days="7"), "Table 'a': window_days .* whole number"),
        (
            lambda: replace(TOY, feed_deadline_hours=float("nan")),
            "'toy': feed_deadline_hours .* nan is no finite number",
        ),
        (lambda: Promotion(min_win_rate="high"), "Promotion: min_win_rate .* finite number"),
        (lambda: Feature(name="a", least="0"), "Feature 'a': least .* finite number or None"),
        (
            lambda: FeatureView(name="v", table="t", keys=_KEY, features=()),
            "keys .* dictionary of",
        ),
        (
            lambda: replace(_PLACED, constants={"hour": 7}),
            r"view '\w+': constants has 7 for 'hour', which is no text\. Write '7'",
        ),
        (lambda: replace(_PLACED, keys={"id": None}), "keys has None for 'id', .* no text"),
        (
            lambda: Grain(
                name="g",
                columns="id",
                windows=(7,),
                statistics=("n",),
            ),
            "Grain 'g': col",
        ),
        (
            lambda: Grain(name="g", columns=_KEY, windows=7, statistics=("n",)),
            "whole numbers",
        ),
    ],
)
def test_a_value_of_another_kind_than_its_field_takes_is_refused_and_named(
    declare: Callable[[], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        declare()


@pytest.mark.parametrize("windows", [(0, 7), (-1,)])
def test_a_window_of_no_day_is_refused(windows: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"Grain 'g': windows has \[(0|-1)\]"):
        Grain(name="g", columns=_KEY, windows=windows, statistics=("n",))


def test_a_table_of_windows_is_made_from_as_many_days_as_the_longest() -> None:
    rolling = next(table for table in FLIGHTS.derived if table.name == "rolling")
    short = replace(rolling, window_days=7)
    others = [table for table in FLIGHTS.derived if table.name != "rolling"]
    with pytest.raises(UsageError, match="'flights.rolling', which is made from 7 day.*least 28"):
        replace(FLIGHTS, derived=(*others, short))


def test_a_table_of_one_day_follows_corrections_in_any_case() -> None:
    week = replace(_table("a"), window_days=7)
    assert week.is_of_the_moment
    assert not replace(week, follows_corrections=True).is_of_the_moment
    with pytest.raises(UsageError, match="'a' follows corrections of its day in any case"):
        replace(_table("a"), follows_corrections=True)


def test_labels_that_come_after_all_days_that_models_are_compared_on_are_refused() -> None:
    held_out = TOY.training.holdout_days
    late = replace(TOY.promotion, label_lag_days=held_out)
    assert replace(TOY, promotion=replace(late, label_lag_days=held_out - 1))
    with pytest.raises(UsageError, match=f"label_lag_days {held_out} must be less than"):
        replace(TOY, promotion=late)


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "every night",
        "@weekly",
        "30 4 * *",
        "30 25 * * *",
        "60 4 * * *",
        "a b c d e",
        "*/0 4 * * *",
    ],
)
def test_a_schedule_that_is_no_cron_expression_is_refused(cron: str) -> None:
    with pytest.raises(UsageError, match=f"schedule '{re.escape(cron)}' is no cron expression"):
        replace(TOY, schedule=cron)


@pytest.mark.parametrize("cron", ["0 4 31 2 *", "0 4 30-31 feb *", "0 4 31 2,4,jun,09,11 *"])
def test_a_schedule_that_never_comes_is_refused(cron: str) -> None:
    with pytest.raises(UsageError, match="never comes: none of its months has such a day"):
        replace(TOY, schedule=cron)


@pytest.mark.parametrize("cron", ["0 4 29 2 *", "0 4 31 2 mon", "0 4 31 2,3 *", "0 4 */31 2 *"])
def test_a_schedule_that_comes_seldom_is_one(cron: str) -> None:
    assert replace(TOY, schedule=cron).schedule == cron


@pytest.mark.parametrize(
    "cron", ["@daily", "05 04 * * *", "0,30 1-5/2 1 jan-mar MON-FRI", "*/15 * * * 7"]
)
def test_a_schedule_says_all_that_cron_can(cron: str) -> None:
    assert replace(TOY, schedule=cron).schedule == cron


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 +\n", "pipelines/odd.py, line 2: SyntaxError: invalid syntax"),
        ("import no_such_library\n", "pipelines/odd.py, line 1: ModuleNotFoundError: No module"),
        (
            "from pipelines.feeds import Column\nA = Column(\n    name='a', type='decimal'\n)\n",
            "pipelines/odd.py, line 2: Column 'a': no type 'decimal'",
        ),
    ],
)
def test_a_declaration_that_cannot_be_imported_is_told_with_file_and_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd.py").write_text(text)
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "catalog.py"))
    monkeypatch.setattr("pipelines.__path__", [str(tmp_path)])
    with pytest.raises(UsageError, match=message):
        catalog.pipeline("odd")


@pytest.mark.parametrize("name", ["model", "champion", "candidate", "quantised"])
def test_a_baseline_takes_the_name_of_no_other_model(name: str) -> None:
    with pytest.raises(UsageError, match=rf"A baseline must not be named \['{name}'\]"):
        replace(TOY.training, baselines=(GroupMean(columns=("id",), name=name),))
