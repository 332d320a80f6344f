"""Arrow's file system of a place: by itself it knows no proxy."""

from __future__ import annotations

import os

from pyarrow import fs

from pipelines import places


def file_system(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URL, and what is the place there."""
    proxy = places.proxy(os.environ) if places.is_url(place) else ""
    if not proxy:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(place)
        return found
    # A URL cannot tell of a proxy.
    return _store_behind(proxy), place.partition("://")[2]


def _store_behind(proxy: str) -> fs.S3FileSystem:
    scheme, _, host = places.endpoint(os.environ).partition("://")
    return fs.S3FileSystem(
        scheme=scheme or "https",
        endpoint_override=host or None,
        region=os.environ.get("AWS_REGION"),
        proxy_options=proxy,
    )
