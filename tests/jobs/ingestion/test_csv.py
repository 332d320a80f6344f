"""A gzipped file is whole, or refused by its name.

The lines of CSV are tested in `test_records`.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.ingestion.contents import Unfit
from jobs.ingestion.csv import Csv
from jobs.ingestion.drops import find_drops
from jobs.ingestion.records import records
from pipelines.environment import Environment
from tests.jobs.toy import HEADER, drop, readings_in, run_of_feeds

_FEED = readings_in("csv_gzip")
_GZIPPED = Csv(is_gzipped=True)
_NOISE = os.urandom(5_000).hex().encode()
_BYTES = gzip.compress(HEADER + b"1,,,a\n2,,," + _NOISE + b"\n")


def test_the_lines_of_a_gzipped_file_are_counted_whatever_its_members(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    # The last one is empty, as some programs end a file: it ends with nine zeros.
    path.write_bytes(_BYTES + gzip.compress(b"3,,,b\n\n") + gzip.compress(b""))
    contents = _GZIPPED.contents(path, _FEED)
    assert contents.columns == ("id", "taken", "amount", "note")
    assert contents.records == 3


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (_BYTES[:-9], "the gzip file is cut off"),
        (_BYTES[:3000], "the gzip file is cut off"),
        (_BYTES[:1000] + b"\xff" * 40 + _BYTES[1040:], "the gzip file is damaged: "),
        (_BYTES[:-8] + b"\0" * 4 + _BYTES[-4:], "the gzip file is damaged: CRC check failed"),
        (_BYTES + b"more", "the gzip file is damaged: Not a gzipped file"),
        (_BYTES + bytes(512), "the gzip file is damaged: it ends with zeros"),
        # As a cipher pads what it encrypts.
        (_BYTES + bytes(1), "the gzip file is damaged: it ends with zeros"),
        (_BYTES + bytes(15), "the gzip file is damaged: it ends with zeros"),
        (_BYTES + gzip.compress(b"") + bytes(4), "the gzip file is damaged: it ends with zeros"),
        (HEADER + b"1,,,a\n", "the gzip file is damaged: Not a gzipped file"),
        (b"", "the file is empty"),
        (gzip.compress(b"", mtime=0), "the file is empty"),
        (gzip.compress(b"\xff\xfe,", mtime=0), "the header is not UTF-8 text"),
    ],
)
def test_a_damaged_gzip_file_is_unfit(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(content)
    with pytest.raises(Unfit, match=why):
        _GZIPPED.contents(path, _FEED)


def test_gzipped_lines_keep_their_numbers_over_the_files_members(
    spark: SparkSession, environment: Environment
) -> None:
    feed = readings_in("csv_gzip")
    members = gzip.compress(HEADER + b"1,,,a\n") + gzip.compress(b"x,,,b\n3,,,c\n")
    drop(environment, "readings/2013-01-01.csv.gz", members)
    drops = find_drops(run_of_feeds(environment, [feed], "2013-01-01"))[feed.name]
    rows = records(spark, feed, drops).orderBy("source_line").collect()
    assert [(row["source_line"], row["id"], row["reason"]) for row in rows] == [
        (2, 1, None),
        (3, None, "id: 'x' is not an int"),
        (4, 3, None),
    ]
