"""What MLflow loads and serves says what `predict` publishes, and no pickle is read."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pyarrow as pa
import pytest
from mlflow.exceptions import MlflowException

from jobs.services import processes
from jobs.services.die_with_parent import dying_with_parent
from jobs.stages import train
from jobs.training import mlflow_flavor, scoring
from jobs.training.encoding import ENCODING
from jobs.training.families import family_of
from jobs.training.families.neural_network import MODEL, network
from jobs.training.registry import FILES, ModelVersion, Registry
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.environment import ROOT, Environment
from pipelines.model import LinearModel
from pipelines.spec import Pipeline
from tests.jobs.training import small

LINEAR = small.learned_by(small.SMALL, small.LINEAR)
KINDS = (
    LINEAR,
    small.SMALL,
    small.learned_by(small.TWIN, small.LINEAR),
    small.TWIN,
)
ROWS = small.scoring_rows(Days.of(small.LAST), per_day=50)
"""A fifth of them without `gappy`."""
_READY_SECONDS = 180
"""TensorFlow alone takes ten to import, and the machine may be busy."""


def _title(pipeline: Pipeline) -> str:
    return f"{pipeline.training.task}-{pipeline.training.family.name}"


def keep(environment: Environment, pipeline: Pipeline, folder: Path) -> ModelVersion:
    """A registered model of the pipeline's family, as `train` leaves it."""
    training = pipeline.training
    data = small.data_of(training)
    files = folder / "files"
    files.mkdir()
    if isinstance(training.family, LinearModel):
        family_of("linear").fit(data, training.family, environment, files).save(files)
    else:
        made = network.build(data.encoding, training.family, task_of(training.task))
        network.save(made, files / MODEL)
    (files / ENCODING).write_text(data.encoding.to_json())
    mlflow_flavor.describe(files, training.family.name, data.encoding, pipeline.prediction)
    return Registry(environment, pipeline.name).keep(
        files,
        as_of=small.LAST,
        fingerprint="f",
        recipe="",
        family=training.family.name,
        params={},
        curves={},
        pins={},
    )


def request_of(pipeline: Pipeline, rows: pa.Table) -> dict[str, Any]:
    """What a client posts of the rows."""
    columns = rows.select(list(pipeline.training.features))
    data = [list(row.values()) for row in columns.to_pylist()]
    return {"dataframe_split": {"columns": columns.column_names, "data": data}}


@contextmanager
def served(environment: Environment, uri: str) -> Iterator[str]:
    """The address at which `mlflow models serve` answers for the model."""
    port = processes.free_port()
    address = f"http://127.0.0.1:{port}"
    options = ["--model-uri", uri, "--env-manager", "local", "--port", str(port), "--workers", "1"]
    program = [sys.executable, "-m", "mlflow", "models", "serve", *options]
    # It looks for uvicorn there, which is beside our Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {**environment.variables(), "PYTHONPATH": str(ROOT), "PATH": path}
    log = environment.home / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            dying_with_parent(program),
            env={**os.environ, **own},
            cwd="/",
            start_new_session=True,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not _answers(f"{address}/ping"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.parametrize("pipeline", [LINEAR, small.TWIN], ids=_title)
def test_what_mlflow_serves_answers_as_predict_does(tmp_path: Path, pipeline: Pipeline) -> None:
    environment = small.models_at(tmp_path)
    model = keep(environment, pipeline, tmp_path)
    scores = scoring.load(Registry(environment, pipeline.name), model).score(ROWS)
    gap = ROWS["gappy"].to_pylist().index(None)
    with served(environment, f"models:/{pipeline.name}/1") as address:
        answer = _post(f"{address}/invocations", request_of(pipeline, ROWS))
        alone = _post(f"{address}/invocations", request_of(pipeline, ROWS.slice(gap, 1)))
    assert [row[pipeline.prediction] for row in answer["predictions"]] == scores.tolist()
    assert alone["predictions"] == [{pipeline.prediction: scores[gap]}]


@pytest.mark.parametrize("pipeline", KINDS, ids=_title)
def test_a_model_loads_by_its_signature_and_answers_its_own_example(
    tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = small.models_at(tmp_path)
    model = keep(environment, pipeline, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment.mlflow_uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{pipeline.name}/1")
    inputs, outputs = loaded.metadata.get_input_schema(), loaded.metadata.get_output_schema()
    kinds = map(str, inputs.input_types())
    types = dict(zip(inputs.input_names(), kinds, strict=True))
    numeric = dict.fromkeys(pipeline.training.numeric, "DataType.double")
    categorical = dict.fromkeys(pipeline.training.categorical, "DataType.string")
    assert types == {**numeric, **categorical}
    assert outputs.input_names() == [pipeline.prediction]
    (answer,) = loaded.predict(loaded.input_example)[pipeline.prediction]
    registry = Registry(environment, pipeline.name)
    example = pa.Table.from_pandas(loaded.input_example)
    assert [answer] == scoring.load(registry, model).score(example).tolist()


def test_a_number_that_is_missing_is_read_as_missing_also_when_it_is_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = small.models_at(tmp_path)
    model = keep(environment, LINEAR, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment.mlflow_uri)
    gaps = ROWS.filter(pa.compute.is_null(ROWS["gappy"]))
    assert 5 < len(gaps) < len(ROWS)
    loaded = mlflow.pyfunc.load_model("models:/small/1")
    answer = loaded.predict(gaps.to_pandas())[LINEAR.prediction]
    expected = scoring.load(Registry(environment, "small"), model).score(gaps)
    assert answer.tolist() == expected.tolist()


def test_a_feature_that_is_left_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = small.models_at(tmp_path)
    keep(environment, LINEAR, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment.mlflow_uri)
    loaded = mlflow.pyfunc.load_model("models:/small/1")
    with pytest.raises(MlflowException, match="noise"):
        loaded.predict(ROWS.drop_columns(["noise"]).to_pandas())


def test_what_was_read_by_its_logarithm_is_in_the_example_as_it_is_given(tmp_path: Path) -> None:
    data = small.data_of()
    bends = {"x": 2.0, "noise": 0.5}
    means = (
        float(np.log1p(6 / 2.0)),
        0.25,
        float(-np.log1p(3 / 0.5)),
    )
    encoding = replace(data.encoding, means=means, bends=bends)
    mlflow_flavor.describe(tmp_path, "linear", encoding, "p")
    table = json.loads((tmp_path / "input_example.json").read_text())
    example = dict(zip(table["columns"], table["data"][0], strict=True))
    assert example["x"] == 6.0
    assert example["gappy"] == 0.25
    assert example["noise"] == -3.0
    assert (example["line"], example["oven"]) == ("AA", "north")


@pytest.mark.parametrize("pipeline", KINDS[:2], ids=_title)
def test_no_file_of_a_model_is_a_pickle(tmp_path: Path, pipeline: Pipeline) -> None:
    environment = small.models_at(tmp_path)
    model = keep(environment, pipeline, tmp_path)
    folder = environment.home / "mlartifacts" / "small" / model.run_id / "artifacts" / FILES
    for file in folder.rglob("*"):
        if file.name == MODEL:
            _require_plain_archive(file)
            continue
        json.loads(file.read_text()) if file.suffix == ".json" else file.read_text()
    described = (folder / mlflow_flavor.MODEL).read_text()
    assert "python_model" not in described
    assert "pickle" not in described


def _require_plain_archive(file: Path) -> None:
    """A Keras file is texts, and arrays as HDF5 has them."""
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(".h5"):
                assert content.startswith(b"\x89HDF")
            else:
                json.loads(content)


class Planted:
    """Whoever unpickles it makes a file."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._place,)


@pytest.mark.parametrize("pipeline", KINDS[:2], ids=_title)
def test_a_pickle_among_a_models_files_is_not_read(tmp_path: Path, pipeline: Pipeline) -> None:
    keep(small.models_at(tmp_path), pipeline, tmp_path)
    folder, ran = tmp_path / "files", tmp_path / "ran"
    payload = pickle.dumps(Planted(ran))
    # Where MLflow's own flavours have theirs: nobody looks at it.
    (folder / "python_model.pkl").write_bytes(payload)
    loaded = mlflow.pyfunc.load_model(str(folder))
    assert len(loaded.predict(ROWS.to_pandas())) == len(ROWS)
    for name in (ENCODING, *family_of(pipeline.training.family.name).files):
        own = (folder / name).read_bytes()
        (folder / name).write_bytes(payload)
        with pytest.raises(ValueError, match=r"decode|not a valid|accessible"):
            mlflow.pyfunc.load_model(str(folder))
        (folder / name).write_bytes(own)
    assert not ran.exists()
    pickle.loads(payload)
    assert ran.exists()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _post(url: str, content: object) -> Any:
    body = json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


def test_a_model_that_train_has_kept_can_be_loaded_by_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, small.LAST)))
    train.train(small.run_of(environment, "train", pipeline=LINEAR))
    registry = Registry(environment, "small")
    model = registry.version("1")
    assert mlflow_flavor.MODEL in model.sha256
    monkeypatch.setenv("MLFLOW_TRACKING_URI", environment.mlflow_uri)
    answer = mlflow.pyfunc.load_model("models:/small/1").predict(ROWS.to_pandas())
    expected = scoring.load(registry, model).score(ROWS)
    assert answer[LINEAR.prediction].tolist() == expected.tolist()
