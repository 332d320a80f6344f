"""Prints rows the way the caller asked for: a table for people, csv or json for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import TextIO

FORMATS = ("table", "csv", "json")


def show(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    form: str = "table",
    to: TextIO | None = None,
) -> None:
    """Print rows under their column names in one of `FORMATS`."""
    out = to or sys.stdout
    if form == "csv":
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    elif form == "json":
        print(
            json.dumps(
                [dict(zip(columns, row, strict=True)) for row in rows], default=str, indent=1
            ),
            file=out,
        )
    else:
        from tabulate import tabulate

        print(
            tabulate(
                rows,
                headers=list(columns),
                tablefmt="psql",
                missingval="null",
                disable_numparse=False,
            ),
            file=out,
        )
