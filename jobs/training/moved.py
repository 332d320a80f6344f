"""Has the registry of a home that was moved or copied find the files of models in that home.

MLflow keeps the whole address of each run's files, with the folder of the home in it. A copy would
read and write the files of the home that it was copied from, whose clean-up deletes what its own
registry does not know.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_WAIT_SECONDS = 30.0
"""For another process that writes into the database."""
_SUFFIX = "artifacts"
"""Folder of a run's files, in the folder that has the run's id."""


def follow(database: Path, name: str, folder: Path) -> None:
    """Tell MLflow of the runs whose files lie in the folder, and that the next ones do.

    Nothing is changed where none lies there: the files are where they were meant to be.

    Args:
        database: SQLite, of MLflow; it need not be there yet.
        name: Of the experiment.
        folder: Where the files of its runs would lie, had it been made now.
    """
    if not database.exists() or not folder.is_dir():
        return
    with closing(sqlite3.connect(database, timeout=_WAIT_SECONDS)) as opened, opened:
        if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone():
            return  # another process makes the tables
        experiment = opened.execute(
            "SELECT experiment_id FROM experiments WHERE name = ? AND artifact_location <> ?",
            (name, folder.as_uri()),
        ).fetchone()
        if not experiment:
            return
        runs = opened.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", experiment)
        found = [run_id for (run_id,) in runs.fetchall()]
        here = [run_id for run_id in found if (folder / run_id).is_dir()]
        if not here:
            return
        opened.executemany(
            "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?",
            [(f"{(folder / run_id).as_uri()}/{_SUFFIX}", run_id) for run_id in here],
        )
        opened.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (folder.as_uri(), *experiment),
        )
