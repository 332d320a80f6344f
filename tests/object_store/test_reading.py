"""Of a large object that is read in part little more is fetched than that part."""

from __future__ import annotations

from typing import Any

import pytest
from s3fs.core import S3File

from pipelines import places
from tests.object_store.conftest import ObjectStore

_MEGABYTE = 1_000_000


def test_a_split_of_a_large_file_is_fetched_and_little_more(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = places.place(f"s3://{store.new_bucket()}/landing/large.csv")
    content = b"123456789\n" * (6 * _MEGABYTE)
    file.write_bytes(content)
    fetched: list[int] = []
    fetch = S3File._fetch_range

    def seen(self: S3File, start: int, end: int) -> Any:
        fetched.append(end - start)
        return fetch(self, start, end)

    monkeypatch.setattr(S3File, "_fetch_range", seen)
    with places.opened(file) as opened:
        opened.seek(10 * _MEGABYTE)
        for piece in range(5):
            first = (10 + 4 * piece) * _MEGABYTE
            assert opened.read(4 * _MEGABYTE) == content[first : first + 4 * _MEGABYTE]
    assert sum(fetched) < 30 * _MEGABYTE
    fetched.clear()
    with places.opened(file) as opened:
        assert opened.readline() == b"123456789\n"
    assert sum(fetched) < 10 * _MEGABYTE
