"""The process that Spark forks its Python workers from, with the libraries imported that they take.

Spark ends a worker that had nothing to do for a minute, and each new one would import them again,
which takes longer than to score a hundred thousand rows. Our own modules are not among them: an
edit is in force at the next worker.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from pyspark import daemon

PRELOAD = (
    "numpy",
    "pandas",
    "pyarrow.compute",
    "pyarrow.fs",
    "pyarrow.parquet",
    "ai_edge_litert.interpreter",
    "deltalake",
    "pyspark.worker",
)
"""What workers were seen to import. One that cannot be imported is left to the
worker that needs it."""


def main() -> None:
    """Import, then be Spark's own daemon."""
    for module in PRELOAD:
        with suppress(Exception):
            import_module(module)
    daemon.manager()


if __name__ == "__main__":
    main()
