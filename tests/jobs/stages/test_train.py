from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.stages import train as stage
from jobs.training.job import Job
from jobs.training.registry import Registry
from jobs.training.scoring import load
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import Refused
from pipelines.run import Run
from tests.jobs.training import small


def test_a_night_is_trained_once_and_a_forced_retraining_gives_the_same_model(
    ranked: Environment,
) -> None:
    small.publish(ranked, small.rows_of(Days(small.FIRST, small.LAST)))
    first = stage.train(small.run_of(ranked, "train"))
    again = stage.train(small.run_of(ranked, "train"))
    forced = stage.train(small.run_of(ranked, "train", retrain=True))
    assert [(told["model_version"], told["reused"]) for told in (first, again, forced)] == [
        ("1", False),
        ("1", True),
        ("2", False),
    ]
    assert first["fit_rows"] == 39 * 12
    registry, rows = Registry(ranked, "small"), small.rows_of(Days.of(small.LAST))
    scores = [load(registry, registry.version(version)).score(rows) for version in ("1", "2")]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert registry.version("1").fingerprint == registry.version("2").fingerprint
    assert list((ranked.home / "training" / "small").iterdir()) == []


def test_labels_of_the_held_out_days_change_nothing(
    ranked: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    days, seen = Days(small.FIRST, small.LAST), list[str]()

    def look(_run: Run, _registry: object, work: Job, *_: object) -> dict[str, object]:
        seen.append(work.fit.fingerprint() + work.validation.fingerprint())
        return {}

    monkeypatch.setattr(stage, "_train", look)
    rows = small.rows_of(days)
    small.publish(ranked, rows)
    stage.train(small.run_of(ranked, "train"))
    held_out = np.array(rows["landed_date"]) > np.datetime64("2013-01-18")
    turned = np.where(
        held_out, 1 - rows["late"].fill_null(0).to_numpy(), rows["late"].fill_null(0).to_numpy()
    )
    late = pa.array(turned, pa.int32(), mask=np.array(rows["late"].is_null()))
    small.publish(ranked, rows.set_column(rows.column_names.index("late"), "late", late))
    stage.train(small.run_of(ranked, "train"))
    assert seen[0] == seen[1]


def test_too_few_labels_are_refused_with_both_numbers(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, small.LAST), per_day=5))
    with pytest.raises(
        Refused,
        match=(
            r"as of 2013-01-24 has 48 labelled rows to fit on 2013-01-03..2013-01-14, and needs 100"
        ),
    ):
        stage.train(small.run_of(environment, "train"))


def test_days_without_any_label_are_refused(tmp_path: Path) -> None:
    environment = small.environment_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, date(2013, 1, 14))))
    with pytest.raises(
        Refused, match=r"0 labelled rows to validate on 2013-01-15..2013-01-18, and needs 1"
    ):
        stage.train(small.run_of(environment, "train"))
