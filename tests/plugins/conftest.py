"""Airflow reads its home when it is imported: the throw-away one of the DAGs' tests."""

from __future__ import annotations

import tests.dags.conftest  # noqa: F401
