"""Feast sources over the tables of the lake."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

from pipelines.environment import Environment
from pipelines.features import GIVEN
from pipelines.quoting import aliased, quoted

_EVENT, _CREATED, PARTITION = GIVEN


def lake_source(
    environment: Environment,
    *,
    name: str,
    table: str,
    columns: Iterable[str],
    event: str,
    created: str | None = None,
    computed: Mapping[str, str] | None = None,
) -> SparkSource:
    """A source over a published table.

    Args:
        environment: Tells where the lake is.
        name: Of the source; its feature view's name will do.
        table: SQL name, `<pipeline>.<table>`.
        columns: Keys and features, as the table names them.
        event: SQL expression of the time at which the fact holds.
        created: SQL expression of the time at which it became known, when that can be later.
        computed: Further features: name -> SQL expression over the table.
    """
    named = {**(computed or {}), _EVENT: event}
    if created:
        named[_CREATED] = created
    selected = [quoted(column) for column in (*columns, PARTITION)]
    selected += aliased(named)
    with warnings.catch_warnings():
        # Feast calls every SparkSource experimental.
        warnings.simplefilter("ignore", RuntimeWarning)
        return SparkSource(
            name=name,
            query=f"SELECT {', '.join(selected)} FROM {relation(environment, table)}",
            timestamp_field=_EVENT,
            created_timestamp_column=_CREATED if created else "",
            date_partition_column=PARTITION,
        )


def relation(environment: Environment, table: str) -> str:
    """What stands behind FROM for a table of that SQL name."""
    return f"delta.{quoted(environment.table_path(table))}"
