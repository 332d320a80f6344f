"""A model as MLflow knows it: what `mlflow models serve` loads, without a pickle.

`describe` writes it beside the files of a model, and MLflow calls `_load_pyfunc`. What answers is
the scorer of `predict`, so it says the same, unless a pipeline has the quantised variant serve.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from jobs.training import scoring
from jobs.training.bends import unbent
from jobs.training.families import family_of

if TYPE_CHECKING:
    import pandas as pd

    from jobs.training.encoding import Encoding
    from jobs.training.scoring import Scorer

MODEL = "MLmodel"
"""The file by which MLflow knows a model."""
_EXAMPLE = "input_example.json"
_REQUEST = "serving_input_example.json"
"""The example as it is posted to `/invocations`."""
_OURS = "nightshift"
"""Our flavour: what `_load_pyfunc` must know besides the files."""
_PYFUNC = "python_function"
"""MLflow's name for what all its tools can load."""
_LOADER = "jobs.training.mlflow_flavor"
"""This module: whoever serves the model has our code installed."""
_EXAMPLE_DIGITS = 6


class Served:
    """A model that MLflow has loaded."""

    def __init__(self, scorer: Scorer, prediction: str) -> None:
        self._scorer = scorer
        self._prediction = prediction

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, object] | None = None
    ) -> pd.DataFrame:
        """A column of predictions for the rows, in their order.

        Args:
            model_input: The features as columns, as MLflow has checked by the signature.
            params: None are known; MLflow hands them over.

        Raises:
            NightshiftError: a feature is not there; the message names it.
        """
        import pandas as pd

        encoding = self._scorer.encoding
        rows = pa.table(
            {
                **{name: _numbers(model_input, name) for name in encoding.numeric},
                **{name: _texts(model_input, name) for name in encoding.categorical},
            }
        )
        return pd.DataFrame({self._prediction: self._scorer.score(rows)})


def describe(folder: Path, family: str, encoding: Encoding, prediction: str) -> None:
    """Write what MLflow must know of a model beside its files.

    Args:
        folder: With the model's files.
        family: By which it is loaded.
        encoding: Its features.
        prediction: The column that it gives.
    """
    example = _example(encoding)
    table = {"columns": list(example), "data": [list(example.values())]}
    (folder / _EXAMPLE).write_text(json.dumps(table))
    (folder / _REQUEST).write_text(json.dumps({"dataframe_split": table}))
    model = Model(
        signature=_signature(encoding, prediction),
        saved_input_example_info={
            "artifact_path": _EXAMPLE,
            "serving_input_path": _REQUEST,
            "type": "dataframe",
            "pandas_orient": "split",
        },
    )
    model.add_flavor(_PYFUNC, loader_module=_LOADER)
    model.add_flavor(_OURS, family=family, prediction=prediction)
    model.save(str(folder / MODEL))


def _load_pyfunc(path: str) -> Served:
    """The model whose files lie in the folder; the name is what MLflow calls."""
    folder = Path(path)
    ours = Model.load(path).flavors[_OURS]
    scorer = scoring.load_from(folder, family_of(ours["family"]))
    return Served(scorer, ours["prediction"])


def _signature(encoding: Encoding, prediction: str) -> ModelSignature:
    # Whatever type a table has them in: the encoding reads numbers as doubles, the rest as texts.
    numbers = [ColSpec("double", name) for name in encoding.numeric]
    texts = [ColSpec("string", name) for name in encoding.categorical]
    given = ColSpec("double", prediction)
    return ModelSignature(inputs=Schema([*numbers, *texts]), outputs=Schema([given]))


def _example(encoding: Encoding) -> dict[str, float | str]:
    """A row that is nobody's: every number at its mean, every category the first that is known."""
    row: dict[str, float | str] = {}
    for name, mean in zip(encoding.numeric, encoding.means, strict=True):
        own = unbent(mean, encoding.bends.get(name))
        row[name] = float(f"{own:.{_EXAMPLE_DIGITS}g}")
    for name, known in encoding.vocabularies.items():
        row[name] = known[0] if known else ""
    return row


def _numbers(frame: pd.DataFrame, name: str) -> pa.Array:
    # A null in JSON has become NaN, which the encoding reads as missing.
    return pa.array(frame[name].astype("float64"), pa.float64(), from_pandas=False)


def _texts(frame: pd.DataFrame, name: str) -> pa.Array:
    return pa.array(frame[name], pa.string(), from_pandas=True)
