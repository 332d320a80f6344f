"""What rows say, as one number: the project's only hash of rows.

Two frames hold the same rows when they have as many and the same fingerprint. It is a sum of the
rows' hashes, so that neither their order nor their files matter, and a row that comes twice counts
twice. As a decimal, because a sum of 64-bit hashes would overflow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from pipelines.quoting import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column

# Spark's widest number, enough for the hashes of 10^19 rows.
_WIDE = "decimal(38,0)"


def fingerprint(
    columns: Iterable[str],
    where: Column | None = None,
    added: Iterable[str] = (),
) -> Column:
    """An aggregate: what the rows say in these columns, 0 when there are none.

    Args:
        columns: Names, in an order that must be the same on both sides of a comparison.
        where: Only rows for which this holds; None: all.
        added: More columns, of which a null says the same as no such column.
    """
    # The inner hash keeps a null apart from its neighbour's value: xxhash64 over several columns
    # skips nulls.
    hashes = [F.xxhash64(_column(name)) for name in columns]
    hashes += [_hash_of_added(name) for name in sorted(added)]
    row = F.xxhash64(*hashes).cast(_WIDE)
    counted = row if where is None else F.when(where, row)
    return F.coalesce(F.sum(counted), F.lit(0).cast(_WIDE))


def _hash_of_added(name: str) -> Column:
    """Of a value with the name of its column; null, and so skipped, where there is none."""
    value = _column(name)
    return F.when(value.isNotNull(), F.xxhash64(F.lit(name), value))


def _column(name: str) -> Column:
    """The column of that name, whatever signs it has."""
    return F.col(quoted(name))
