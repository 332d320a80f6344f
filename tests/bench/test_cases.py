from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from bench import bare_night, cases, stock_night
from bench.cases import gate, idle, join, night, scoring, sql, start, training, year
from bench.cases.gate import _holds
from bench.harness import OURS
from expectations.suite import between, one_of
from jobs.commands.land import land
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.flights import PIPELINE

FIRST = date(2013, 1, 1)


@pytest.mark.parametrize("name", cases.NAMES)
def test_a_case_has_all_its_ways(name: str) -> None:
    module = cases.module(name)
    assert module.CASE.name == name
    for way in ("prepare", OURS, *(peer.name for peer in module.CASE.peers)):
        assert callable(getattr(module, way))


def test_the_script_joins_many_days_as_it_joins_each_of_them(tmp_path: Path) -> None:
    environment = Environment.read({"NIGHTSHIFT_HOME": str(tmp_path)})
    days = Days(FIRST, date(2013, 1, 9))
    land(PIPELINE, environment, days)
    landing = environment.landing / PIPELINE.name
    for day in days:
        bare_night.join(landing, tmp_path / "each", [day])
    bare_night.join(landing, tmp_path / "all", list(days))
    for kind in ("scoring", "training"):
        for day in days:
            own, other = (
                pl.read_parquet(tmp_path / way / kind / f"{day}.parquet").sort(bare_night.KEY)
                for way in ("each", "all")
            )
            # The first day has scored nothing before.
            assert len(own) > 100 or (kind, day) == ("training", FIRST)
            assert_frame_equal(own, other, check_column_order=False, rel_tol=1e-9)


def test_a_stock_night_tells_how_long_each_stage_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "days").write_text("5")
    monkeypatch.setattr(night, "java_home", lambda: tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    for work in night.stock(tmp_path):
        capfd.readouterr()
        work()
    told = [line.split() for line in capfd.readouterr().err.splitlines()]
    assert [stage for stage, *_ in told] == list(stock_night.STAGES)
    assert {unit for _, _, unit in told} == {"s"}


def _verdicts(*told: tuple[str, bool, int]) -> pa.Table:
    names, successes, counts = zip(*told, strict=True)
    return pa.table({"expectation": names, "success": successes, "unexpected": counts})


JUDGED = _verdicts(("a", True, 0), ("b", False, 3))


@pytest.mark.parametrize(
    ("theirs", "is_same"),
    [
        (JUDGED, True),
        (_verdicts(("a", True, 0), ("b", False, 4)), False),
        (_verdicts(("a", True, 0), ("b", True, 0)), False),
        (_verdicts(("a", True, 0)), False),
    ],
)
def test_the_gate_is_compared_by_verdicts_and_counts(theirs: pa.Table, is_same: bool) -> None:
    assert gate.CASE.same(JUDGED, theirs) is is_same


def test_a_gate_that_judged_nothing_is_not_compared() -> None:
    assert not gate.CASE.same(
        JUDGED.slice(0, 0),
        JUDGED.slice(0, 0),
    )


@pytest.mark.parametrize(
    ("expectation", "value", "holds"),
    [
        (between("rows", 1, 3), 3.0, True),
        (between("rows", 1, 3), 3.5, False),
        (between("rows", 1, None), 0.0, False),
        (between("rows", None, 3), -5.0, True),
        (between("rows", 1, 3), None, True),
        (one_of("rows", [0, 2]), 2.0, True),
        (one_of("rows", [0, 2]), 1.0, False),
    ],
)
def test_the_aggregation_judges_a_measure(
    expectation: Any, value: float | None, holds: bool
) -> None:
    assert _holds(expectation, value) is holds


def _rows(count: int = 3) -> pa.Table:
    """Rows to learn from, of which the last has no label."""
    columns: dict[str, Any] = dict.fromkeys(
        PIPELINE.training.features,
        np.arange(count) / 3,
    )
    keys = {name: list(map(str, range(count))) for name in bare_night.KEY}
    label = {year._LABEL: [*range(count - 1), None]}
    return pa.table({**columns, **keys, "landed_date": [FIRST] * count, **label})


def _with(name: str, change: Callable[[Any], Any]) -> pa.Table:
    rows = _rows()
    values = [None if value is None else change(value) for value in rows[name].to_pylist()]
    return rows.set_column(rows.column_names.index(name), name, [values])


def test_the_year_is_compared_by_the_rows_that_have_a_label() -> None:
    assert year.CASE.same(_rows(), _rows().slice(0, 2))
    number = PIPELINE.training.numeric[0]
    assert year.CASE.same(
        _rows(),
        _with(number, lambda value: value * (1 + 1e-12)),
    )
    assert not year.CASE.same(_rows(), _with(number, lambda value: value + 1e-6))
    assert not year.CASE.same(
        _rows(),
        _with(year._LABEL, lambda value: value + 1),
    )
    assert not year.CASE.same(_rows(), _rows().slice(0, 1))
    assert not year.CASE.same(_rows(), _rows().drop_columns([number]))
    assert not year.CASE.same(
        _rows().slice(2),
        _rows().slice(2),
    )


def test_a_start_is_compared_only_when_all_is_well() -> None:
    well, ill = (
        pa.table({"component": ["a", "b", "c"], "is_healthy": healthy})
        for healthy in ([True] * 3, [True, False, True])
    )
    assert start.CASE.same(well, well)
    assert not start.CASE.same(well, ill)
    assert not start.CASE.same(ill, ill)


SCORES = pa.table(
    {
        "row": [1, 2, 3],
        "late_probability": [0.1, 0.2, 0.3],
    }
)
ANSWERS = pa.table(
    {
        "question": [1, 2, 3],
        "value": pa.array([7, None, 9], pa.int64()),
    }
)
COUNTS = pa.table(
    {
        "carrier": ["AA", "UA"],
        "flights": [10, 20],
        "mean": [0.2, 0.3],
    }
)


def _scores(*values: float) -> pa.Table:
    return SCORES.set_column(1, "late_probability", [values])


def _answers(*values: float | None) -> pa.Table:
    return ANSWERS.set_column(1, "value", [values])


def _curve(*losses: float) -> pa.Table:
    return pa.table({"loss": losses})


CURVE = _curve(0.5, 0.42, 0.401, 0.4)


@pytest.mark.parametrize(
    ("case", "ours", "theirs", "is_same"),
    [
        (scoring, SCORES, SCORES.take([2, 0, 1]), True),
        (scoring, SCORES, SCORES.slice(1), False),
        (scoring, SCORES, _scores(0.1, 0.2, 0.30001), False),
        (scoring, SCORES, _scores(0.1, 0.2, np.nan), False),
        (scoring, SCORES.slice(3), SCORES.slice(3), False),
        (join, ANSWERS, ANSWERS.take([2, 0, 1]), True),
        (join, ANSWERS, ANSWERS.slice(0, 2), False),
        (join, ANSWERS, pa.concat_tables([ANSWERS, ANSWERS.slice(2)]), False),
        (join, ANSWERS, _answers(7.0, None, 9.5), False),
        (join, ANSWERS, _answers(7, 8, 9), False),
        (join, ANSWERS.slice(1, 1), ANSWERS.slice(1, 1), False),
        (training, CURVE, _curve(0.51, 0.43, 0.41, 0.402), True),
        (training, CURVE, CURVE.slice(0, 3), False),
        (training, CURVE, _curve(0.5, 0.45, 0.43, 0.42), False),
        (training, CURVE, _curve(0.4, 0.4, 0.4, 0.4), False),
        (training, CURVE, _curve(0.5, 0.4, 0.4, np.nan), False),
        (training, CURVE.slice(4), CURVE.slice(4), False),
        (sql, COUNTS, COUNTS, True),
        (sql, COUNTS, COUNTS.slice(1), False),
        (sql, COUNTS, COUNTS.set_column(2, "mean", [[0.2, 0.3001]]), False),
        (sql, COUNTS, COUNTS.set_column(1, "flights", [[10, 21]]), False),
        (sql, COUNTS.slice(2), COUNTS.slice(2), False),
        (night, _rows(), _rows(), True),
        (night, _rows(), _rows().slice(1), False),
        (
            night,
            _rows(),
            _with(PIPELINE.training.numeric[0], lambda value: value + 1e-6),
            False,
        ),
        (
            night,
            _rows(),
            _rows().drop_columns([PIPELINE.training.numeric[0]]),
            False,
        ),
        (night, _rows().slice(3), _rows().slice(3), False),
        (idle, _rows(), _rows(), True),
        (idle, _rows(), _rows().slice(1), False),
        (idle, _rows().slice(3), _rows().slice(3), False),
    ],
)
def test_an_answer_that_is_not_ours_is_refused(
    case: ModuleType, ours: pa.Table, theirs: pa.Table, is_same: bool
) -> None:
    assert case.CASE.same(ours, theirs) is is_same


def test_the_join_is_asked_at_the_very_moment_of_facts_too(tmp_path: Path) -> None:
    join.prepare(tmp_path, 1000)
    asked, facts = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("asked", "facts"))
    moment = {"left_on": ["place", "event_timestamp"], "right_on": ["place", "event"]}
    assert len(asked.join(facts, how="semi", **moment)) >= 100
