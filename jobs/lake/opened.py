"""Versions of Delta tables that this process has opened: none is opened twice while it is there.

To open a table takes the longer the longer its log and the wider its rows are.
"""

from __future__ import annotations

from dataclasses import dataclass

from deltalake import DeltaTable

from jobs.lake.log import Mark, marks

_MOST = 64
"""Tables that are kept open: those of two pipelines, at a few versions each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """A table at one version."""

    table: DeltaTable
    mark: Mark


_KEPT: dict[tuple[str, int], _Kept] = {}
"""By path or URL and version, the one that was opened last at the end."""
_NEWEST: dict[str, int] = {}
"""By path or URL the newest version that this process knows of."""


def newest(place: str) -> DeltaTable:
    """The table at its newest version, to be read and never written by: others share it.

    Args:
        place: The table's path or URL.

    Raises:
        TableNotFoundError: there is none.
    """
    version = _NEWEST.get(place, -1)
    kept = _KEPT.get((place, version))
    if kept is not None:
        own, following = marks(place, version, version + 1)
        if own == kept.mark and following is None:
            return kept.table
    table = DeltaTable(place)
    _NEWEST[place] = table.version()
    _keep(place, table)
    return table


def at(place: str, version: int) -> DeltaTable:
    """The same at a version.

    Raises:
        DeltaError: it has no such version, or not any more.
    """
    kept = _KEPT.get((place, version))
    if kept is not None and marks(place, version) == [kept.mark]:
        return kept.table
    table = DeltaTable(place, version=version)
    _keep(place, table)
    return table


def _keep(place: str, table: DeltaTable) -> None:
    version = table.version()
    (mark,) = marks(place, version)
    _KEPT.pop((place, version), None)
    # Of a commit whose file is gone nobody could tell whether it is another one's by now.
    if mark is None:
        return
    _KEPT[place, version] = _Kept(table=table, mark=mark)
    # A list: another thread may take one away at the same time.
    for oldest in list(_KEPT)[:-_MOST]:
        _KEPT.pop(oldest, None)
