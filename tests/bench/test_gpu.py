"""The measurement of GPUs, as far as it can be tried without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import __main__ as gpu
from jobs.training.families.neural_network.job import Outcome


def test_without_a_gpu_nothing_is_measured_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "seen_gpus", list)
    monkeypatch.setattr("sys.argv", ["bench.gpu"])
    assert gpu.main() == 2
    assert "No GPU is seen" in capsys.readouterr().err


def test_each_precision_is_measured_and_several_gpus_with_each_compression() -> None:
    assert [way.device for way in gpu.ways(0)] == ["processor"]
    one = [(way.device, way.precision) for way in gpu.ways(1)]
    assert one == [
        ("processor", "float32"),
        ("GPU", "float32"),
        ("GPU", "mixed_float16"),
        ("GPU", "mixed_bfloat16"),
    ]
    many = gpu.ways(4)[len(one) :]
    assert [(way.ranks, way.compression) for way in many] == [
        (4, "none"),
        (4, "fp16"),
    ]


def test_figures_are_written_and_the_start_of_libraries_is_taken_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []

    def trained(
        home: Path,
        way: gpu.Way,
        rows: Any,
        epochs: int,
    ) -> tuple[float, Outcome]:
        seen.append((way.device, os.environ.get("CUDA_VISIBLE_DEVICES")))
        history = {"loss": [0.7] * (epochs - 1) + [0.5]}
        found = Outcome(
            history=history,
            slope=1.0,
            ranks=1,
            steps_per_epoch=1,
            scores=[0.1],
        )
        return 10.0 + 2 * epochs, found

    monkeypatch.setattr(gpu, "_trained", trained)
    monkeypatch.setattr(gpu, "seen_gpus", lambda: ["NVIDIA of a test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    into = tmp_path / "figures.json"
    monkeypatch.setattr("sys.argv", ["bench.gpu", "--rows=100", "--epochs=4", f"--into={into}"])
    assert gpu.main() == 0
    told = json.loads(into.read_text())
    assert told["gpus"] == ["NVIDIA of a test"]
    first = told["ways"][0]
    assert (first["rows_per_second"], first["loss"], first["is_repeatable"]) == (50, 0.5, True)
    # A way on the processor hides the GPUs that a person has chosen, and no other way does.
    assert set(seen) == {("processor", "-1"), ("GPU", "0")}
