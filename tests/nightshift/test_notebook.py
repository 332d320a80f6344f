"""The notebook of the docs runs, from its first cell to its last, and shows what the lake holds."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import nbformat
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from nbclient import NotebookClient

from jobs.lake import ops
from pipelines.environment import ROOT, Environment

NOTEBOOK = ROOT / "docs" / "notebooks" / "predictions.ipynb"
_TODAY, _TOMORROW = date(2013, 2, 8), date(2013, 2, 9)
_NOW = datetime(2013, 2, 9, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Predictions of two days, of which the first one came true, and a check that refused one."""
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # What a kernel would write into the home of the person.
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    environment = Environment.read()
    predictions = pa.table(
        {
            "flight_date": pa.array([_TODAY, _TOMORROW, _TOMORROW]),
            "carrier": ["UA", "AA", "B6"],
            "flight": [1, 2, 3],
            "origin": ["EWR", "JFK", "LGA"],
            "dest": ["IAH", "MIA", "BOS"],
            "sched_dep_time": [515, 540, 600],
            "late_probability": [0.1, 0.125, 0.875],
        }
    )
    place = environment.table_path("flights.predictions")
    write_deltalake(place, predictions, partition_by=["flight_date"])
    measured = {"pipeline": "flights", "event_date": _TODAY, "measured_at": _NOW}
    # Two drops brought the labels of the day.
    quality = [
        {**measured, "rows": 3, "mean_prediction": 0.25, "label_mean": 0.5},
        {**measured, "rows": 1, "mean_prediction": 0.75, "label_mean": 0.25},
    ]
    ops.append(environment, "live_quality", quality)
    judged = {"pipeline": "flights", "table_name": "flights.weather", "first_day": _TODAY}
    checks = [
        {**judged, "severity": "critical", "success": False, "expectation": "too_warm"},
        {**judged, "severity": "warning", "success": False, "expectation": "seldom"},
        {**judged, "severity": "critical", "success": True, "expectation": "holds"},
    ]
    ops.append(environment, "check_results", checks)
    return environment


def _shown(cell: Any) -> str:
    """What people see below a cell, as text."""
    outputs = [one["data"] for one in cell["outputs"] if "data" in one]
    return "\n".join(str(data.get("text/plain", "")) for data in outputs)


def test_the_notebook_shows_what_the_lake_holds(lake: Environment) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    place = {"metadata": {"path": str(lake.home)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tomorrow, calibration, refused = map(_shown, code[1:])
    assert "UA" not in tomorrow
    # The most probable first.
    assert tomorrow.index("B6") < tomorrow.index("AA")
    assert "0.375" in calibration and "0.4375" in calibration
    assert any("image/png" in one["data"] for one in code[2]["outputs"] if "data" in one)
    assert "too_warm" in refused
    assert "seldom" not in refused and "holds" not in refused


def test_it_is_kept_without_what_a_run_of_it_showed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
