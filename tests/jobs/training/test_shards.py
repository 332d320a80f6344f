from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training import shards
from jobs.training.encoding import Examples
from pipelines.errors import NightshiftError


def _examples(rows: int) -> Examples:
    draw = np.random.default_rng(rows)
    numeric = draw.normal(size=(rows, 3)).astype(np.float32)
    numeric[draw.random((rows, 3)) < 0.2] = np.nan
    return Examples(
        numeric=numeric,
        categorical=draw.integers(0, 1000, (rows, 2), np.int32),
        label=draw.normal(size=rows).astype(np.float32),
    )


def _require_equal(ours: Examples, theirs: Examples) -> None:
    for part in ("numeric", "categorical", "label"):
        one, other = getattr(ours, part), getattr(theirs, part)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 7)


@pytest.mark.usefixtures("small_files")
def test_any_rows_are_read_as_they_were_written_whichever_files_they_lie_in(
    tmp_path: Path,
) -> None:
    written = _examples(40)
    shards.write(tmp_path, written)
    found = shards.find(tmp_path)
    assert found.rows == (7, 7, 7, 7, 7, 5)

    @given(st.integers(0, 40), st.integers(0, 40))
    def any_rows(one: int, other: int) -> None:
        first, last = sorted((one, other))
        _require_equal(
            found.read(first, last - first),
            written.take(np.arange(first, last)),
        )

    any_rows()
    told = [len(piece) for piece in shards.pieces(found, 16)]
    assert told == [16, 16, 8]
    _require_equal(found.sample(), written)


def test_of_wide_rows_a_file_has_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shards.rows_of_file(98) == shards.SHARD_ROWS
    # By Spark a file goes as one value, which has 2 GB at most.
    for columns in (200, 500, 2050, 20_000):
        size = shards.rows_of_file(columns) * (columns + 1) * 4
        assert 0.99 * shards.SHARD_BYTES < size <= shards.SHARD_BYTES
    written = _examples(40)
    monkeypatch.setattr(shards, "SHARD_BYTES", 15 * 24)
    found = shards.write(tmp_path / "wide", written)
    assert found.rows == (15, 15, 10)
    _require_equal(found.read(0, 40), written)
    monkeypatch.setattr(shards, "SHARD_BYTES", 23)
    assert shards.write(tmp_path / "wider", written).rows == (1,) * 40


def test_no_rows_are_no_files(tmp_path: Path) -> None:
    assert len(shards.write(tmp_path, _examples(0))) == 0
    assert len(shards.find(tmp_path).read(0, 0)) == 0


@pytest.mark.usefixtures("small_files")
def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    found = shards.write(tmp_path, _examples(20))
    file = tmp_path / "shard-00001"
    file.write_bytes(file.read_bytes()[:-1])
    _require_equal(
        found.read(0, 7),
        _examples(20).take(np.arange(7)),
    )
    with pytest.raises(NightshiftError, match=r"shard-00001 has 167 of the 168 bytes .*--retrain"):
        found.read(6, 9)
