"""An empty model registry, copied: MLflow takes seconds to make one."""

from __future__ import annotations

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp


def put_in(folder: Path) -> str:
    """Put an empty registry into the folder; its address."""
    shutil.copyfile(_empty(), folder / "mlflow.db")
    return _address(folder)


@cache
def _empty() -> Path:
    from mlflow.tracking import MlflowClient

    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    MlflowClient(_address(folder)).search_experiments()
    return folder / "mlflow.db"


def _address(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"
