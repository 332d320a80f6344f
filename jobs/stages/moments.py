"""A row is scored before the facts of the day after its night are known, or it is refused.

Its own night has none of them. The pass that trains on the row later has: what kept them from it is
the moment alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F
from pyspark.sql.types import TimestampType

from pipelines.errors import refuse_unless
from pipelines.features import day_end

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import StructType

    from pipelines.spec import Pipeline

_MOMENT = "event_timestamp"
_WHY = (
    ", but it must lie before the end of the day after that: by then the facts of that day are "
    "known, which no night has that scores the row. Give the scoring moment, the end of "
    "landed_date: in a transform `scoring_moment(TIMEZONE)`. What was made before is made anew by "
    "--restate, from its first night on: each night reads rows of the evenings before it."
)


def require_instants(given: StructType, whose: str) -> None:
    """Refuse rows to be scored whose moments are no instants.

    Args:
        given: Columns and types of the rows. Of one that is not there Spark tells.
        whose: What gave them, for the message.

    Raises:
        UsageError: they are of another type; the message says what to give.
    """
    kinds = {column.name: column.dataType for column in given}
    kind = kinds.get(_MOMENT, TimestampType())
    refuse_unless(
        isinstance(kind, TimestampType),
        f"{whose} gave {_MOMENT} as {kind.simpleString()}, which must be a timestamp: the instant "
        "as of which features are looked up. Give the scoring moment: in a transform "
        "`scoring_moment(TIMEZONE)`, in a feed a column of type timestamp. What was made before is "
        "made anew by --restate.",
    )


def refusing_late_moments(rows: DataFrame, pipeline: Pipeline) -> DataFrame:
    """The rows to be scored; whoever computes them is told of a moment too late, or of none.

    By Spark while it computes them, because to look for it is a pass of its own.

    Raises:
        UsageError: their moments are no instants.
    """
    require_instants(rows.schema, f"{pipeline.name}.{pipeline.entity_table}")
    moment = F.col(_MOMENT)
    next_day = "date_add(landed_date, 1)"
    too_late = moment >= F.expr(day_end(next_day, pipeline.timezone))
    at = F.date_format(moment, "yyyy-MM-dd HH:mm:ss '(UTC)'")
    told = F.concat(
        F.lit(f"{_MOMENT} is "),
        F.coalesce(at, F.lit("missing")),
        F.lit(" in a row whose landed_date is "),
        F.col("landed_date").cast("string"),
        F.lit(_WHY),
    )
    # Nothing is found as of no moment: it would be scored as what nobody knows anything of.
    refused = F.when(too_late | moment.isNull(), F.raise_error(told))
    return rows.withColumn(_MOMENT, refused.otherwise(moment))
