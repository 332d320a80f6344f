"""Feast sources over the tables of the lake."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

from pipelines.environment import Environment

PARTITION = "landed_date"


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
    times = {"event_timestamp": event, **({"created_timestamp": created} if created else {})}
    named = {**(computed or {}), **times}
    selected = ", ".join(
        [
            *(f"`{column}`" for column in (*columns, PARTITION)),
            *(f"{sql} AS `{name}`" for name, sql in named.items()),
        ]
    )
    place = environment.table_path(table).replace("`", "``")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # Feast calls every SparkSource experimental
        return SparkSource(
            name=name,
            query=f"SELECT {selected} FROM delta.`{place}`",
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp" if created else "",
            date_partition_column=PARTITION,
        )


def day_end(day: str, timezone: str) -> str:
    """SQL of the instant when that column's local day ends, whatever the session's time zone."""
    following = f"date_add({day}, 1)"
    return (
        f"make_timestamp(year({following}), month({following}), "
        f"day({following}), 0, 0, 0, '{timezone}')"
    )
