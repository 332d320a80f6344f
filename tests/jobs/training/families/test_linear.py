from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.services import usage
from jobs.training.dataset import Dataset
from jobs.training.encoding import Encoding, Examples
from jobs.training.families import linear
from jobs.training.families.linear import MODEL, LinearFamily, LinearFit
from jobs.training.tasks import task_of
from pipelines.environment import ROOT
from pipelines.errors import NightshiftError, Refused
from pipelines.model import LinearModel, Training
from tests.jobs.training.small import LINEAR, TRAINING, TWIN, data_of, environment_at

FAMILY = LinearFamily()
BOTH_TASKS = pytest.mark.parametrize(
    "training", [TRAINING, TWIN.training], ids=["binary_classification", "regression"]
)


@BOTH_TASKS
def test_it_beats_the_mean_label_on_days_that_it_was_not_fitted_to(
    training: Training, tmp_path: Path
) -> None:
    data = data_of(training)
    task = task_of(training.task)
    label = data.validation.label.astype(np.float64)
    means = np.full(len(label), data.encoding.label_mean)
    (loss,) = _fit(data, tmp_path).curves["val_loss"]
    assert loss < 0.9 * task.losses(label, means).mean()


@BOTH_TASKS
def test_the_same_data_gives_the_same_file_byte_for_byte(
    training: Training, tmp_path: Path
) -> None:
    files: list[bytes] = []
    for folder in (tmp_path / "first", tmp_path / "again"):
        folder.mkdir()
        _fit(data_of(training), folder).save(folder)
        files.append((folder / MODEL).read_bytes())
    assert files[0] == files[1]


@BOTH_TASKS
def test_a_loaded_model_scores_like_the_fitted_one(training: Training, tmp_path: Path) -> None:
    data = data_of(training)
    fit = _fit(data, tmp_path)
    fit.save(tmp_path)
    loaded = FAMILY.load(tmp_path, data.encoding)
    expected = fit.model.score(data.fit)
    np.testing.assert_array_equal(loaded.score(data.fit), expected)


def test_a_file_names_what_each_coefficient_is_of(tmp_path: Path) -> None:
    data = data_of(TWIN.training)
    _fit(data, tmp_path).save(tmp_path)
    content = json.loads((tmp_path / MODEL).read_text())
    by_column = dict(zip(content["columns"], content["coefficients"], strict=True))
    assert list(by_column) == [
        *("x", "gappy", "noise", "last_weight", "gappy is missing", "last_weight is missing"),
        *("line is unknown", "line = AA", "line = BB", "line = CC"),
        *("oven is unknown", "oven = north", "oven = south"),
    ]
    # Made with 10 per standard deviation of x, and 5 more for line BB.
    assert by_column["x"] == pytest.approx(10, abs=1.5)
    assert by_column["line = BB"] - by_column["line = AA"] == pytest.approx(5, abs=1.5)
    assert by_column["noise"] == pytest.approx(0, abs=0.7)


def test_a_model_beside_the_encoding_of_another_is_refused(tmp_path: Path) -> None:
    _fit(data_of(TRAINING), tmp_path).save(tmp_path)
    with pytest.raises(NightshiftError, match="belong to different models"):
        FAMILY.load(tmp_path, data_of(TWIN.training).encoding)


def test_more_weight_on_the_coefficients_makes_them_smaller(tmp_path: Path) -> None:
    data = data_of(TWIN.training)
    loose = FAMILY.fit(data, LinearModel(l2=0.1), environment_at(tmp_path), tmp_path)
    tight = FAMILY.fit(data, LinearModel(l2=1000), environment_at(tmp_path), tmp_path)
    small = np.abs(tight.model.coefficients).sum()
    large = np.abs(loose.model.coefficients).sum()
    assert small < 0.7 * large


def test_a_missing_number_counts_as_the_mean_and_a_far_one_as_the_farthest_seen() -> None:
    data = data_of(TRAINING)
    numeric = data.validation.numeric[:3].copy()
    numeric[:, 0] = [np.nan, 50, 5000]
    some = replace(data.validation.take(np.arange(3)), numeric=numeric)
    rows = linear.design(some, data.encoding)
    assert rows[0, 0] == 0
    assert rows[1, 0] == rows[2, 0] == data.encoding.highs[0]


def test_only_a_classifier_is_calibrated(tmp_path: Path) -> None:
    assert _fit(data_of(TRAINING), tmp_path).calibration_slope is not None
    assert _fit(data_of(TWIN.training), tmp_path).calibration_slope is None


def test_a_solver_that_was_ended_says_after_how_many_iterations(tmp_path: Path) -> None:
    short = LinearModel(max_iterations=2)
    fit = FAMILY.fit(data_of(TRAINING), short, environment_at(tmp_path), tmp_path)
    assert fit.facts["iterations"] == 2


def test_loading_and_scoring_take_numpy_alone() -> None:
    code = (
        "import sys\n"
        "from jobs.training.families.linear import LinearFamily\n"
        "print({'sklearn', 'scipy', 'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


def _fit(data: Dataset, folder: Path) -> LinearFit:
    return FAMILY.fit(data, LINEAR, environment_at(folder), folder)


def test_without_validation_days_the_slope_that_is_known_stretches_the_model(
    tmp_path: Path,
) -> None:
    fits = []
    for slope in (None, 0.5):
        told: Future[float | None] = Future()
        told.set_result(slope)
        fits.append(_fit(replace(data_of(TRAINING), validation=None, calibration=told), tmp_path))
    plain, stretched = fits
    assert (plain.calibration_slope, stretched.calibration_slope) == (None, 0.5)
    assert set(stretched.curves) == {"loss"}
    np.testing.assert_allclose(stretched.model.coefficients, plain.model.coefficients * 0.5)


def test_a_design_that_the_machine_has_no_room_for_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(TRAINING)
    size = 512 * 11 * 8
    assert linear.design(data.fit, data.encoding).nbytes == size
    monkeypatch.setattr(usage, "memory", lambda: 2 * size)
    _fit(data, tmp_path)
    monkeypatch.setattr(usage, "memory", lambda: 2 * size - 1)
    monkeypatch.setattr(linear, "design", None)
    with pytest.raises(Refused, match=r"\(512 rows by 11 columns; 'line' alone has 3 categories\)"):
        _fit(data, tmp_path)


def test_a_design_of_gigabytes_is_told_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = data_of(TRAINING).encoding
    customers = tuple(map(str, range(9_994)))
    many = replace(encoding, vocabularies={**encoding.vocabularies, "line": customers})
    monkeypatch.setattr(usage, "memory", lambda: 8 * 1024**3)
    with pytest.raises(Refused, match=r"74\.5 GB \(1,000,000 rows by 10,002 columns") as refused:
        linear._require_memory(1_000_000, many)
    assert "more than half of the 8.0 GB of memory. Lower max_categories" in str(refused.value)
    linear._require_memory(50_000, many)


@pytest.mark.parametrize("rows_at_once", [0, 1, 7, 511])
def test_rows_that_are_scored_in_pieces_get_the_scores_of_all_at_once(
    rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(TRAINING)
    fit = _fit(data, tmp_path)
    monkeypatch.setattr(linear, "_CELLS", rows_at_once * linear.width(data.encoding))
    most = 0

    def counted(examples: Examples, encoding: Encoding) -> NDArray[np.float64]:
        nonlocal most
        most = max(most, len(examples))
        return design(examples, encoding)

    design = linear.design
    monkeypatch.setattr(linear, "design", counted)
    scores = fit.model.score(data.fit)
    assert most == max(1, rows_at_once)
    monkeypatch.undo()
    np.testing.assert_array_equal(scores, fit.model.score(data.fit))


def test_rows_of_one_class_alone_are_refused_and_no_fault(tmp_path: Path) -> None:
    data = data_of(TRAINING)
    alike = replace(data.fit, label=np.zeros_like(data.fit.label))
    with pytest.raises(Refused, match="rows to fit on have the label 0"):
        _fit(replace(data, fit=alike), tmp_path)
