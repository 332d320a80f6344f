"""The command explains what was served: one prediction, or nights of them, and says what is not."""

from __future__ import annotations

import atexit
import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.__main__ import main
from jobs.commands import explain as command
from jobs.commands.explain import OF_NIGHT, OF_ONE, parse_key, tell
from jobs.lake import model_events, publications
from jobs.lake.publications import Publication
from jobs.services import child
from jobs.stages import train as stage
from jobs.training import explanations
from jobs.training.explanations.served import Explainer, one_of, published
from jobs.training.families.light import EXACT, QUANTISED, Variant
from jobs.training.registry import Registry
from jobs.training.scoring import load
from pipelines import catalog
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.spec import Pipeline
from tests.jobs.commands.conftest import StageServer
from tests.jobs.training import small

NIGHT = small.LAST
NIGHTS = Days.of(NIGHT)
LINEAR = small.learned_by(small.SMALL, small.LINEAR)
WEIGHED = small.learned_by(small.TWIN, small.LINEAR)
KEY = {"batch": "7"}
AT = datetime(2013, 1, 25, 4, 30, tzinfo=UTC)
Shown = list[dict[str, Any]]
Explained = Callable[..., tuple[Shown, str]]


def publication(day: date, version: int = 0, attempt: int = 1) -> Publication:
    made = small.publication(day, version=version, attempt=attempt, stage="check_predictions")
    return replace(made, rows=40, checksum=f"{day} {attempt}")


def serve(
    environment: Environment,
    pipeline: Pipeline,
    nights: Days = NIGHTS,
    variant: Variant = EXACT,
) -> pa.Table:
    """A trained model and what it says of the nights, published; returns the predictions.

    A linear one is trained once for all tests, which get copies of the home in which it served.
    """
    if pipeline not in (LINEAR, WEIGHED):
        return _serve(environment, pipeline, nights, variant)
    made, said = _served(pipeline.name, nights)
    shutil.copytree(made, environment.home, dirs_exist_ok=True)
    return said


@cache
def _served(name: str, nights: Days) -> tuple[Path, pa.Table]:
    (pipeline,) = (one for one in (LINEAR, WEIGHED) if one.name == name)
    home = Path(mkdtemp())
    atexit.register(shutil.rmtree, home)
    return home, _serve(small.models_at(home), pipeline, nights, EXACT)


def _serve(
    environment: Environment,
    pipeline: Pipeline,
    nights: Days,
    variant: Variant,
) -> pa.Table:
    rows = small.rows_of(Days(small.FIRST, small.LAST))
    small.publish(environment, rows, pipeline=pipeline)
    stage.train(small.run_of(environment, "train", pipeline=pipeline))
    registry = Registry(environment, pipeline.name)
    model = registry.version("1")
    scored = small.scoring_rows(nights)
    small.publish(environment, scored, "scoring", pipeline=pipeline)
    names = dict.fromkeys((*pipeline.entity, *pipeline.carried))
    shown = scored.select(list(names))
    scores = pa.array(load(registry, model, variant).score(scored))
    said = shown.append_column(pipeline.prediction, scores)
    made_by = {"model_version": "1", "model_run_id": model.run_id, "run_id": "r1"}
    made_by |= {"predicted_at": AT, "scoring_version": 0, "code_version": "1"}
    for name, value in made_by.items():
        said = said.append_column(name, pa.repeat(pa.scalar(value), len(said)))
    publish_predictions(environment, pipeline, said, nights)
    return said


def publish_predictions(
    environment: Environment,
    pipeline: Pipeline,
    rows: pa.Table,
    nights: Days = NIGHTS,
    version: int = 0,
) -> None:
    path = environment.table_path(f"{pipeline.name}.predictions")
    write_deltalake(path, rows, partition_by=["batch_date"], mode="overwrite")
    run = small.run_of(environment, "check_predictions", pipeline=pipeline)
    days = [night + timedelta(days=1) for night in nights]
    told = [publication(day, version, version + 1) for day in days]
    publications.record(run, "predictions", told)


def have_foretold_nothing_by(environment: Environment, said: pa.Table, name: str) -> None:
    """Put a table in place of that of the predictions which has a column of that name, empty."""
    shutil.rmtree(environment.table_path("small.predictions"))
    nothing = pa.nulls(len(said), pa.float64())
    publish_predictions(environment, LINEAR, said.append_column(name, nothing))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return small.models_at(tmp_path)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A home in which a model has served a night, for tests that change nothing of it."""
    environment = small.models_at(tmp_path_factory.mktemp("kept"))
    serve(environment, LINEAR)
    return environment


@pytest.fixture
def explained(environment: Environment, capsys: pytest.CaptureFixture[str]) -> Explained:
    """Rows and words of an explanation."""

    def explain(
        pipeline: Pipeline = LINEAR, key: dict[str, str] | None = None, nights: Days = NIGHTS
    ) -> tuple[Shown, str]:
        capsys.readouterr()
        tell(environment, pipeline, nights, key or {}, "json")
        printed = capsys.readouterr()
        return json.loads(printed.out), printed.err

    return explain


def _log_odds(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def test_one_prediction_is_told_from_its_features_to_its_score(
    environment: Environment, explained: Explained
) -> None:
    said = serve(environment, LINEAR)
    rows, words = explained(key=KEY)
    assert tuple(rows[0]) == OF_ONE
    assert {row["feature"] for row in rows} == set(LINEAR.training.features)
    sizes = [abs(row["attribution"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    scored = small.scoring_rows(NIGHTS).to_pylist()[7]
    assert {row["feature"]: row["value"] for row in rows} == {
        name: scored[name] for name in LINEAR.training.features
    }
    bases = {row["feature"]: row["base"] for row in rows}
    assert bases["line"] == "unknown"
    assert abs(bases["x"]) < 0.2
    base = float(words.split("categories unknown): ")[1].split(",")[0])
    served = said["failure_probability"][7].as_py()
    assert base + sum(row["attribution"] for row in rows) == pytest.approx(
        _log_odds(served), abs=1e-5
    )
    (difference,) = re.findall(rf"published {served:.6f} \(difference (.*)\)\.", words)
    assert float(difference) < 1e-12
    assert "Scored by version 1 (linear, trained as of 2013-01-24, MLflow run " in words
    assert "from small.scoring version 0." in words
    assert "Published by run r1 at 2013-01-25 04:30 UTC, revision 1 of 1" in words


def test_a_number_is_told_in_its_own_unit(environment: Environment, explained: Explained) -> None:
    said = serve(environment, WEIGHED)
    rows, words = explained(WEIGHED, KEY)
    served = said["expected_weight"][7].as_py()
    base = float(words.split("categories unknown): ")[1].split(",")[0])
    assert base + sum(row["attribution"] for row in rows) == pytest.approx(served, abs=1e-5)
    assert "Attributions are in the unit of weight" in words


def test_a_network_is_explained_as_it_was_served(
    ranked: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    said = serve(ranked, small.SMALL)
    tell(ranked, small.SMALL, NIGHTS, KEY, "json")
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    base = float(printed.err.split("categories unknown): ")[1].split(",")[0])
    served = said["failure_probability"][7].as_py()
    assert base + sum(row["attribution"] for row in rows) == pytest.approx(
        _log_odds(served), abs=1e-4
    )


def test_what_a_quantised_variant_has_served_is_explained_too(
    ranked: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = small.learned_by(small.SMALL, replace(small.NETWORK, hidden=(128, 64)))
    said = serve(ranked, wide, variant=QUANTISED)
    registry = Registry(ranked, "small")
    exact = load(registry, registry.version("1")).score(small.scoring_rows(NIGHTS))
    served = said["failure_probability"].to_numpy()
    assert 1e-5 < np.abs(exact - served).max() < 0.05, "rounding is seen"
    tell(ranked, wide, NIGHTS, KEY, "json")
    printed = capsys.readouterr()
    base = float(printed.err.split("categories unknown): ")[1].split(",")[0])
    added = base + sum(row["attribution"] for row in json.loads(printed.out))
    assert added == pytest.approx(_log_odds(exact[7]), abs=1e-4), "of the exact one"


def test_a_night_is_told_by_feature(environment: Environment, explained: Explained) -> None:
    said = serve(environment, LINEAR)
    rows, words = explained()
    assert tuple(rows[0]) == OF_NIGHT
    assert rows[0]["feature"] == "x", "by which batches fail"
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert words.startswith("small 2013-01-24: 40 predictions, by version 1 (linear).")
    whole, _ = explained(key={"batch": "0"})
    (told,) = [row["attribution"] for row in whole if row["feature"] == "x"]
    of_x = _of_x_alone(environment)
    assert told == of_x[0]
    assert rows[0]["mean_absolute"] == pytest.approx(np.abs(of_x).mean())
    assert rows[0]["mean"] == pytest.approx(np.mean(of_x))
    assert len(whole) == len(rows)
    assert len(said) == 40


def _of_x_alone(environment: Environment) -> list[float]:
    """What x gives to each prediction where it is explained alone; without its picture."""
    explainer = Explainer.of(environment, LINEAR)
    predictions = published(environment, LINEAR, NIGHT)
    found = []
    for batch in range(40):
        one = one_of(LINEAR, predictions, {"batch": str(batch)})
        (explained,) = explainer.explain(NIGHT, one)
        (attributions,) = explained.attribution.of_features.tolist()
        found.append(attributions[explained.scorer.encoding.columns.index("x")])
    return found


def test_of_many_predictions_some_are_taken_and_it_is_said(
    environment: Environment, explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = Days(NIGHT, NIGHT + timedelta(days=1))
    serve(environment, LINEAR, nights)
    whole, words = explained(nights=nights)
    assert " 80 predictions, " in words
    monkeypatch.setattr(command, "_MOST_ROWS", 30)
    some, words = explained(nights=nights)
    assert "small 2013-01-24..2013-01-25: 30 of 80 predictions, by version 1" in words
    assert some[0]["mean_absolute"] != whole[0]["mean_absolute"]
    assert some[0]["mean_absolute"] == pytest.approx(whole[0]["mean_absolute"], rel=0.3)


def test_a_picture_lies_beside_the_reports_and_its_name_leads_nowhere_else(
    environment: Environment, explained: Explained
) -> None:
    said = serve(environment, LINEAR)
    evil = small.with_column(said, "oven", pa.repeat("../../x$y$", len(said)))
    scored = small.scoring_rows(NIGHTS)
    moved = small.with_column(scored, "oven", pa.repeat("../../x$y$", len(scored)))
    registry = Registry(environment, "small")
    model = registry.version("1")
    again = pa.array(load(registry, model).score(moved))
    publish_predictions(
        environment, LINEAR, small.with_column(evil, "failure_probability", again), version=1
    )
    small.publish(environment, moved, "scoring")
    one = small.with_column(
        evil,
        "scoring_version",
        pa.repeat(pa.scalar(1), len(evil)),
    )
    publish_predictions(
        environment, LINEAR, small.with_column(one, "failure_probability", again), version=2
    )
    _, words = explained(key=KEY)
    folder = environment.reports / "small" / "2013-01-24..2013-01-24" / "explanations"
    (name,) = [file.name for file in folder.iterdir()]
    assert re.fullmatch(rf"2013-01-25_{said['line'][7]}_7_------x-y--[0-9a-f]{{8}}\.png", name)
    assert "revision 3 of 3" in words
    explained()
    night = (folder / "night.png").read_bytes()
    assert night.startswith(b"\x89PNG")
    assert f"Picture: {folder}" in words


def test_pictures_of_keys_that_read_alike_have_names_of_their_own() -> None:
    assert command._file_name([date(2013, 1, 24), "EWR", 7]) == "2013-01-24_EWR_7"
    keys = (
        ["a_b", "c"],
        ["a", "b_c"],
        ["قلم"],
        ["كتب"],
        ["x" * 90 + "y"],
        ["x" * 90 + "z"],
        ["---"],
    )
    assert len({command._file_name(key) for key in keys}) == len(keys)


def test_as_a_table_the_rows_behind_are_told_too(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(environment, LINEAR)
    raw = pa.table(
        {
            "landed_date": pa.array([NIGHT] * 40, pa.date32()),
            "batch": pa.array(range(40), pa.int32()),
            "event_timestamp": pa.array([AT] * 40),
            "source_file": ["small/batches/2013-01-24.csv"] * 40,
            "source_line": pa.array(range(2, 42), pa.int32()),
        }
    )
    small.publish(environment, raw, "batches")
    run = small.run_of(environment, "check_raw", pipeline=LINEAR)
    publications.record(run, "batches", [publication(NIGHT)])
    tell(environment, LINEAR, NIGHTS, KEY, "table")
    lines = capsys.readouterr().out.splitlines()
    (told,) = [line for line in lines if "small/batches/2013-01-24.csv" in line]
    cells = [cell.strip() for cell in told.strip("|").split("|")]
    assert cells == [
        "small.batches",
        "2013-01-24",
        "batch=7",
        "small/batches/2013-01-24.csv",
        "9",
        "entity",
    ]
    assert any(line.startswith("Left out: ") for line in lines)


def test_rows_alone_are_on_stdout_for_programs(
    kept: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(kept, LINEAR, NIGHTS, KEY, "csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == len(LINEAR.training.features)
    assert float(rows[0]["attribution"])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"batsh": "7"}, "No column of a key of 'small' named 'batsh'. Did you mean 'batch'"),
        ({"batch": "77"}, "No prediction of the night has batch=77. There are: "),
        ({"oven": "nort"}, "has oven=nort. There are: north"),
        ({"oven": "north", "batch": "410"}, r"of the night with oven=north has batch=410. There"),
        ({"oven": "north"}, r"predictions have oven=north. Say more of the key: batch_date=2013"),
    ],
)
def test_a_key_of_no_row_or_of_several_is_told_with_what_is_near(
    key: dict[str, str], message: str, kept: Environment
) -> None:
    with pytest.raises(UsageError, match=message):
        tell(kept, LINEAR, NIGHTS, key, "json")


def test_a_column_of_a_key_that_has_no_value_is_told(environment: Environment) -> None:
    none = pa.array([None, None], pa.string())
    predictions = pa.table({"batch": none})
    with pytest.raises(UsageError, match="No prediction of the night has a value of batch"):
        one_of(LINEAR, predictions, {"batch": "7"})


def test_a_key_is_of_one_night(environment: Environment) -> None:
    with pytest.raises(UsageError, match="one prediction of one night"):
        tell(environment, LINEAR, Days(small.FIRST, NIGHT), KEY, "json")


@pytest.mark.parametrize("key", [{}, KEY], ids=["night", "one"])
def test_a_day_without_predictions_is_told_with_days_that_have_some(
    key: dict[str, str], environment: Environment, kept: Environment
) -> None:
    empty = Days.of(small.FIRST)
    with pytest.raises(UsageError, match="no prediction on 2013-01-01.*Its last nights: none yet"):
        tell(environment, LINEAR, empty, key, "json")
    with pytest.raises(UsageError, match="Its last nights: 2013-01-24"):
        tell(kept, LINEAR, empty, key, "json")


DAY_RENAMED = f"as 'about', and is '{LINEAR.event_date}' in the table.*Name the column"


def day_renamed(pipeline: Pipeline) -> Pipeline:
    """The pipeline with another name of the column that tells the days of its predictions."""
    entity = ["about" if one == pipeline.event_date else one for one in pipeline.entity]
    return replace(pipeline, entity=tuple(entity), event_date="about")


RENAMED = "made when another name of the prediction was declared.*small --date 2013-01-24 --rescore"


@pytest.mark.parametrize("key", [{}, KEY], ids=["night", "one"])
def test_a_night_of_before_the_prediction_was_named_anew_is_told(
    key: dict[str, str], environment: Environment
) -> None:
    said = serve(environment, LINEAR)
    newer = replace(LINEAR, prediction="risk")
    with pytest.raises(UsageError, match=RENAMED):
        tell(environment, newer, NIGHTS, key, "json")
    # As soon as another night has made the column, this one has it too.
    have_foretold_nothing_by(environment, said, newer.prediction)
    with pytest.raises(UsageError, match=RENAMED):
        tell(environment, newer, NIGHTS, key, "json")


@pytest.mark.parametrize("key", [{}, KEY], ids=["night", "one"])
def test_a_night_of_before_another_entity_was_declared_is_told(
    key: dict[str, str], environment: Environment
) -> None:
    said = serve(environment, LINEAR)
    newer = replace(LINEAR, entity=(*LINEAR.entity, "shelf"))
    told = "no shelf: .* another entity.*small --date 2013-01-24 --rescore --restate"
    with pytest.raises(UsageError, match=told):
        tell(environment, newer, NIGHTS, key, "json")
    # As soon as another night has made the column, this one has it too.
    have_foretold_nothing_by(environment, said, "shelf")
    with pytest.raises(UsageError, match=told):
        tell(environment, newer, NIGHTS, key, "json")


@pytest.mark.parametrize("key", [{}, KEY], ids=["night", "one"])
def test_a_night_of_before_its_day_was_named_anew_is_told(
    key: dict[str, str], environment: Environment
) -> None:
    serve(environment, LINEAR)
    with pytest.raises(NightshiftError, match=DAY_RENAMED):
        tell(environment, day_renamed(LINEAR), NIGHTS, key, "json")


def test_a_model_without_files_is_told(environment: Environment) -> None:
    serve(environment, LINEAR)
    for file in (environment.home / "mlartifacts").rglob("linear.json"):
        file.unlink()
    with pytest.raises(NightshiftError, match=r"linear.json of model 'small' version 1 cannot be"):
        tell(environment, LINEAR, NIGHTS, KEY, "json")


GONE = (
    "Version 1 of model 'small' made these predictions of 2013-01-24 and is not in MLflow, so "
    "nothing tells why they came out so. Restore MLflow from a backup"
)


def have_serve(environment: Environment, version: str) -> None:
    event = {"pipeline": "small", "as_of": NIGHT, "event": "promoted", "model_version": version}
    model_events.record(environment, [event])


def gone(environment: Environment) -> str:
    """What is told of predictions whose model is gone."""
    Registry(environment, "small")._client.delete_model_version("small", "1")
    with pytest.raises(NightshiftError) as raised:
        tell(environment, LINEAR, NIGHTS, KEY, "json")
    assert raised.value.exit_code == NightshiftError.exit_code
    return str(raised.value)


def test_a_model_that_is_gone_is_no_wrong_usage(environment: Environment) -> None:
    serve(environment, LINEAR)
    have_serve(environment, "1")
    registry = Registry(environment, "small")
    first = registry.version("1")
    registry._register(first.run_id, registry._client.get_run(first.run_id).data.tags)
    have_serve(environment, "2")
    way = ", or have the night scored again by version 2, and explain that: nightshift run small "
    assert gone(environment) == f"{GONE}{way}--date 2013-01-24 --rescore"
    # The model that the command would score the night by.
    turn = small.serving_model(environment, registry, NIGHT)
    assert turn
    assert turn.version == "2"


def test_of_a_model_that_is_gone_in_whose_turn_the_night_is_no_rescore_is_offered(
    environment: Environment,
) -> None:
    serve(environment, LINEAR)
    have_serve(environment, "1")
    assert gone(environment) == f"{GONE}."


def test_a_prediction_of_before_is_explained_by_the_task_of_then(
    environment: Environment, explained: Explained
) -> None:
    serve(environment, LINEAR)
    before = explained(key=KEY)
    declared = replace(LINEAR, training=WEIGHED.training)
    rows, words = explained(declared, KEY)
    assert "Attributions are in log-odds" in words
    assert rows == before[0]
    _, words = explained(declared)
    assert "Attributions are in log-odds" in words


def test_a_family_without_a_method_is_refused(
    kept: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanations, "METHODS", {})
    with pytest.raises(Refused, match="'linear' is not explained"):
        tell(kept, LINEAR, NIGHTS, KEY, "json")


def test_a_score_that_is_not_the_published_one_is_not_explained(environment: Environment) -> None:
    said = serve(environment, LINEAR)
    other = pa.array(said["failure_probability"].to_numpy() + 1e-3)
    changed = small.with_column(said, "failure_probability", other)
    publish_predictions(environment, LINEAR, changed, version=1)
    with pytest.raises(NightshiftError, match=r"1 of 1 published predictions are not what version"):
        tell(environment, LINEAR, NIGHTS, KEY, "json")


def test_what_was_scored_is_explained_though_its_rows_are_others_by_now(
    environment: Environment, explained: Explained
) -> None:
    serve(environment, LINEAR)
    before, _ = explained(key=KEY)
    scored = small.scoring_rows(NIGHTS)
    other = small.with_column(scored, "x", pa.array(np.ones(len(scored))))
    small.publish(environment, other, "scoring", pipeline=LINEAR)
    after, _ = explained(key=KEY)
    assert after == before
    for file in sorted(Path(environment.table_path("small.scoring")).rglob("*.parquet")):
        file.unlink()
    with pytest.raises(UsageError, match=r"in version 0.*Score anew: nightshift run small --date"):
        explained(key=KEY)


def test_a_key_is_written_as_columns_with_values() -> None:
    assert parse_key(["a=1", "b=x=y", "c="]) == {"a": "1", "b": "x=y", "c": ""}
    for keys in (["a"], ["a=1", "a=2"]):
        with pytest.raises(UsageError, match=r"column=value|two values of 'a'"):
            parse_key(keys)
    with pytest.raises(UsageError, match=r"^--key is not UTF-8: 'a=\\udcff'$"):
        parse_key(["a=\udcff"])


def test_the_command_asks_the_stage_server_where_one_is_up(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage_server: StageServer,
) -> None:
    stage_server.codes = [2]
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    line = ["explain", "flights", "--date", "2013-02-08", "--key", "carrier=UA", "flight=1"]
    assert main([*line, "--key", "origin=EWR"]) == 2
    ((function, argument),) = stage_server.asked
    assert function in child.ALLOWED
    assert argument["key"] == {"carrier": "UA", "flight": "1", "origin": "EWR"}
    monkeypatch.setattr("jobs.services.stage_client.available", lambda _: False)
    capsys.readouterr()
    assert main(line) == 2, "nothing was published in this home"
    assert len(stage_server.asked) == 1
    here = capsys.readouterr()
    assert here.err.startswith("Usage: 'flights' has published no prediction on 2013-02-08")
    assert command.in_child(argument) == 2
    assert capsys.readouterr() == here


@pytest.mark.parametrize(
    "written",
    [
        # As a page writes it, as Arrow does, of another zone, and as a person does.
        str(datetime(2013, 4, 3, 5, tzinfo=UTC)),
        "2013-04-03 05:00:00.000000Z",
        "2013-04-03T01:00:00-04:00",
        "2013-04-03 05:00",
    ],
)
@pytest.mark.parametrize("zone", ["UTC", None])
def test_an_instant_of_a_key_may_be_written_in_any_way(written: str, zone: str | None) -> None:
    weather = catalog.pipeline("weather")
    first = datetime(2013, 4, 3, 4, tzinfo=UTC)
    hours = [first + timedelta(hours=number) for number in range(3)]
    instants = pa.array(hours, pa.timestamp("us", "UTC"))
    predictions = pa.table(
        {
            "forecast_date": pa.repeat(date(2013, 4, 3), 3),
            "station": ["EWR"] * 3,
            "forecast_at": instants.cast(pa.timestamp("us", zone)),
            "hour": [4, 5, 6],
        }
    )
    found = one_of(weather, predictions, {"station": "EWR", "forecast_at": written})
    assert found["hour"].to_pylist() == [5]
    with pytest.raises(UsageError, match="has forecast_at=now.*2013-04-03 05:00:00"):
        one_of(weather, predictions, {"station": "EWR", "forecast_at": "now"})
    # In UTC it lies beyond the calendar.
    with pytest.raises(UsageError, match="has forecast_at=9999-12-31T23:59-05:00. There are"):
        one_of(weather, predictions, {"forecast_at": "9999-12-31T23:59-05:00"})


@pytest.mark.parametrize(
    ("values", "written"),
    [
        # As a page writes it, and as Arrow does.
        ([True, False], ["True", "true"]),
        ([1.0, 2.5], ["1.0", "1"]),
    ],
)
def test_so_may_a_truth_value_and_a_fraction(values: list[Any], written: list[str]) -> None:
    weather = catalog.pipeline("weather")
    predictions = pa.table({"station": values, "hour": [4, 5]})
    for text in written:
        assert one_of(weather, predictions, {"station": text})["hour"].to_pylist() == [4]
    with pytest.raises(UsageError, match="has station=neither"):
        one_of(weather, predictions, {"station": "neither"})
