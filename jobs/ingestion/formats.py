"""The source formats: what each must give, and which one a feed's declaration chooses.

A new format is a file beside this one, its name in `pipelines.feeds.Format`, and a line in
`FORMATS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from jobs.ingestion.csv import Csv
from jobs.ingestion.json_lines import JsonLines
from jobs.ingestion.parquet import Parquet

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.ingestion.contents import Contents, Drop
    from pipelines.feeds import Feed, Format


class SourceFormat(Protocol):
    """How the files of a feed are read."""

    def contents(self, path: Path, feed: Feed) -> Contents:
        """What the file of the feed says about itself, without Spark.

        Raises:
            Unfit: the file is damaged, or holds what no feed can declare.
            OSError: the file is missing or cannot be read.
        """

    def records(self, spark: SparkSession, feed: Feed, drops: Sequence[Drop]) -> DataFrame:
        """One row for each record of the files, which have one layout.

        Args:
            spark: Who reads.
            feed: Whose files they are. Columns that are added to its own are among its columns.
            drops: The files.

        Its columns: the text of each declared column (null: no value), `landed_date`,
        `source_file`, `source_line` (1-based place in the file), `record` (the record's own text)
        and `_broken` (why it is no record of this feed; null when it may be one).
        """


FORMATS: dict[Format, SourceFormat] = {
    "csv": Csv(),
    "csv_gzip": Csv(is_gzipped=True),
    "json_lines": JsonLines(),
    "parquet": Parquet(),
}
