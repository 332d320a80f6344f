from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.lake import ops, tables
from jobs.stages import predict
from jobs.training import encoding, scoring, serving
from jobs.training import model as network
from jobs.training.registry import ModelVersion, Registry
from jobs.training.scoring import Scorer
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import Refused
from tests.jobs.training import small

NIGHTS = Days(date(2013, 1, 23), date(2013, 1, 25))
ROWS = small.scoring_rows(NIGHTS, per_day=30)


def _promote(environment: Environment, folder: Path, as_of: date) -> ModelVersion:
    registry, work = Registry(environment, "small"), small.job_of()
    files = folder / f"files-{as_of}"
    files.mkdir()
    network.save(network.build(work.encoding, small.TRAINING), files / "model.keras")
    (files / "encoding.json").write_text(work.encoding.to_json())
    model = registry.keep(files, as_of, str(as_of), {}, {}, {})
    registry.promote(model)
    event = {
        "pipeline": "small",
        "as_of": as_of,
        "event": "promoted",
        "model_version": model.version,
        "metrics": "{}",
        "created_at": ops.now(),
    }
    ops.append(environment, serving.EVENTS, [event])
    return model


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> list[pa.Table]:
    """What was staged, without Spark."""
    found: list[pa.Table] = []

    class Session:
        def createDataFrame(self, rows: pa.Table, _schema: object) -> pa.Table:  # noqa: N802 - Spark's name
            return rows

    monkeypatch.setattr(predict, "connect", lambda _: Session())

    def stage_rows(_run: object, _name: str, rows: pa.Table, _days: object) -> int:
        found.append(rows)
        return len(rows)

    monkeypatch.setattr(tables, "stage_rows", stage_rows)
    return found


def test_each_night_is_scored_by_the_champion_of_that_night(
    tmp_path: Path, staged: list[pa.Table]
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    first, second = (
        _promote(environment, tmp_path, day) for day in (date(2013, 1, 24), date(2013, 1, 25))
    )
    told = predict.predict(small.run_of(environment, "predict", NIGHTS.last, NIGHTS.first))
    assert told["nights_without_model"] == ["2013-01-23"]
    assert (told["models"], told["predictions"], told["scoring_version"]) == (["1", "2"], 60, 0)
    rows = staged[0]
    by_date = {(row["flight_date"], row["model_version"]) for row in rows.to_pylist()}
    assert by_date == {(date(2013, 1, 25), first.version), (date(2013, 1, 26), second.version)}
    assert set(rows["model_run_id"].to_pylist()) == {first.run_id, second.run_id}
    assert rows.column_names == [
        *(
            "flight_date",
            "carrier",
            "flight",
            "origin",
            "dest",
            "sched_dep_time",
            "late_probability",
        ),
        *(
            "model_name",
            "model_version",
            "model_run_id",
            "run_id",
            "predicted_at",
            "scoring_version",
            "code_version",
        ),
    ]


def test_one_pass_over_nights_gives_the_floats_of_each_night_alone(
    tmp_path: Path, staged: list[pa.Table]
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, ROWS, "scoring")
    _promote(environment, tmp_path, NIGHTS.first)
    for days in (NIGHTS, *(Days.of(day) for day in NIGHTS)):
        predict.predict(small.run_of(environment, "predict", days.last, days.first))
    own = [*small.SMALL.entity, "late_probability", "model_version"]
    bulk, *nightly = (rows.select(own) for rows in staged)
    assert bulk == pa.concat_tables(nightly)


def test_without_any_model_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"No model of 'small' was in force on 2013-01-24: nothing can be scored"
    ):
        predict.predict(small.run_of(small.models_at(tmp_path), "predict"))


def test_a_night_without_any_scoring_row_publishes_an_empty_day(
    environment: Environment, tmp_path: Path
) -> None:
    small.publish(environment, ROWS, "scoring")
    _promote(environment, tmp_path, small.LAST)
    full, empty = (
        small.run_of(environment, "predict"),
        small.run_of(environment, "predict", NIGHTS.last + timedelta(days=10)),
    )
    for run, rows in ((full, 30), (empty, 0)):
        assert predict.predict(run)["predictions"] == rows
        assert tables.publish(run, "predictions").rows == rows
    assert tables.read(empty, "predictions").schema == tables.staged(empty, "predictions").schema


def test_predictions_are_staged_through_spark(environment: Environment, tmp_path: Path) -> None:
    small.publish(environment, ROWS, "scoring")
    _promote(environment, tmp_path, small.LAST)
    run = small.run_of(environment, "predict")
    assert predict.predict(run)["predictions"] == 30
    found = {
        row["flight"]: row["late_probability"]
        for row in tables.staged(run, "predictions").collect()
    }
    night = ROWS.filter(pa.compute.equal(ROWS["landed_date"], pa.scalar(small.LAST)))
    expected = scoring.load(
        Registry(environment, "small"), Registry(environment, "small").version("1")
    ).score(night)
    assert found == dict(zip(night["flight"].to_pylist(), expected.tolist(), strict=True))


def test_a_score_does_not_depend_on_the_rows_around_it() -> None:
    work = small.job_of()
    scorer = Scorer(model=network.build(work.encoding, small.TRAINING), encoding=work.encoding)
    rows = small.rows_of(Days.of(small.FIRST), per_day=3000)
    together = scorer.score(rows)
    np.testing.assert_array_equal(together[:700], scorer.score(rows.slice(0, 700)))
    assert len(together) == 3000
    assert len(encoding.encode(rows, work.encoding)) == 3000
