"""A definition changes with what makes rows, and with nothing else."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import date
from types import ModuleType
from typing import get_args

import pytest

from jobs.lake.definition import digest
from jobs.lake.transforms import _features_shown, definitions
from jobs.transforms import columns
from jobs.transforms import flights as transforms
from pipelines.errors import UsageError
from pipelines.feeds import Feed, NewColumns
from pipelines.flights import FLIGHTS, PIPELINE, SCHEDULE
from pipelines.spec import TRAINING
from tests.jobs.toy import READINGS

_LIMIT = 15


def _with_days(flights: object, *, days: object) -> None:
    """Takes the days, as the functions of tables do."""


def _misspelled(flihgts: object) -> None:
    """Takes a table that there is not."""


@dataclass(frozen=True)
class _Settings:
    windows: tuple[int, ...] = (7, 28)
    other: int = 0


_SETTINGS = _Settings()


@dataclass(frozen=True)
class _Season:
    first_day: date
    last_day: date
    least: int


_SUMMER = _Season(
    first_day=date(2013, 6, 1),
    last_day=date(2013, 8, 31),
    least=10,
)
_SEASONS = (_SUMMER,)


@dataclass(frozen=True, kw_only=True)
class _Tide(Feed):
    most: int


def _seasons(values: list[int]) -> list[_Season]:
    return [one for one in _SEASONS if one.least <= max(values)]


def _helper(value: int) -> bool:
    """Tells people something."""
    return value > _LIMIT


def _rows(values: list[int]) -> list[int]:
    # A comment.
    return [value for value in values if _helper(value)]


def _windowed(values: list[int]) -> list[int]:
    return values[: max(_SETTINGS.windows)]


def test_the_code_of_a_function_its_helpers_and_constants_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = digest(_rows)
    assert digest(_rows) == before
    with monkeypatch.context() as changed:
        changed.setitem(globals(), "_LIMIT", 16)
        assert digest(_rows) != before
    with monkeypatch.context() as changed:
        changed.setitem(globals(), "_helper", _windowed)
        assert digest(_rows) != before
    assert digest(_rows) == before


def test_code_that_uses_nothing_else_is_what_it_was() -> None:
    # As the code before closures, states and imports counted made them: no home is outdated.
    found = [digest(_rows), digest(_windowed), digest(_wrapped), digest(_SHIFT)]
    assert found == ["ff1b14daddccdd6a", "b76be51c35e71969", "936d3aa3a95335de", "a06db38b40636a1c"]


def test_a_policy_for_new_columns_counts_and_none_leaves_a_feed_as_it_was() -> None:
    # As the code before there was such a field made it: no day of a home is outdated by it.
    assert digest(READINGS) == "4910433b2bf8c704"
    policies: tuple[NewColumns, ...] = get_args(NewColumns)
    assert len({digest(replace(READINGS, new_columns=one)) for one in policies}) == 3


class _Scale:
    """Multiplies."""

    def of(self, value: int) -> int:
        return value * self._factor()

    def _factor(self) -> int:
        return _FACTOR


@dataclass(frozen=True)
class _Shift:
    by: int = 1

    def of(self, value: int) -> int:
        return value + self.by + _FACTOR


_FACTOR = 2
_SCALE = _Scale()
_SHIFT = _Shift()


@functools.cache
def _kept(value: int) -> int:
    return value * _FACTOR


_HALF_MADE = functools.partial(_kept, 3)


def _twice(made: Callable[[int], int]) -> Callable[[int], int]:
    def wrapper(value: int) -> int:
        return made(made(value))

    return wrapper


@_twice
def _wrapped(value: int) -> int:
    return value * _FACTOR


@pytest.mark.parametrize(
    "using",
    [
        lambda: _SCALE.of(1),
        lambda: _Scale().of(1),
        lambda: _SHIFT.of(1),
        lambda: _Shift(by=3).of(1),
        lambda: _kept(1),
        lambda: _HALF_MADE(),
        lambda: _wrapped(1),
    ],
    ids=["method", "class", "dataclass method", "dataclass", "cache", "partial", "wrapper"],
)
def test_code_counts_through_whatever_calls_it(
    using: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(using)
    assert digest(using) == before
    monkeypatch.setitem(globals(), "_FACTOR", 3)
    assert digest(using) != before


def _scaled(by: int) -> Callable[[int], int]:
    def scale(value: int) -> int:
        return value * by

    return scale


class _Plain:
    """Says nothing of itself."""

    def __init__(self, by: int) -> None:
        self.by = by
        self.itself = self
        # As Python shows it, it has the address of another object.
        self.strip = re.compile(str(by)).sub
        self._known: dict[int, int] = {}

    @functools.cached_property
    def doubled(self) -> int:
        return self.by * 2

    def of(self, value: int) -> int:
        self._known[value] = value * self.doubled
        return self._known[value]


def _lifted(by: int) -> Callable[[int], int]:
    def lift(value: int, by: int = by, *, factor: int = by) -> int:
        return value * factor + by

    return lift


_SHORT, _LONG = _scaled(2), _scaled(30)
_LOW, _HIGH = _lifted(2), _lifted(30)
_FIRST = [lambda value: value + 1]
_SECOND = [lambda value: value * 2]
_PLAIN = _Plain(2)


def _by_closures(value: int) -> int:
    return _SHORT(value) + _LONG(value)


def _by_defaults(value: int) -> int:
    return _LOW(value) + _HIGH(value)


def _by_lambdas(value: int) -> int:
    return _FIRST[0](value) + _SECOND[0](value)


def _by_state(value: int) -> int:
    return _PLAIN.of(value)


def _by_a_name_of_others(values: list[int]) -> list[int]:
    largest = max(values, key=lambda _helper: -_helper)
    return [value for value in values if _helper(value + largest)]


def _by_import(values: list[int]) -> object:
    from jobs.transforms.columns import joined

    return joined(*map(str, values))


def _by_imported_module(values: list[int]) -> object:
    from jobs.transforms import columns as given

    return given.joined(*map(str, values))


def _by_renamed_module(values: list[int]) -> object:
    import jobs.transforms.columns as given

    return given.joined(*map(str, values))


def _by_path_of_module(values: list[int]) -> object:
    import jobs.transforms.columns

    return jobs.transforms.columns.joined(*map(str, values))


_HERE = sys.modules[__name__]


@pytest.mark.parametrize(
    ("using", "module", "name", "other"),
    [
        (_by_closures, _HERE, "_LONG", _scaled(31)),
        (_by_defaults, _HERE, "_HIGH", _lifted(31)),
        (_by_lambdas, _HERE, "_SECOND", [lambda value: value * 3]),
        (_by_state, _HERE, "_PLAIN", _Plain(3)),
        (_by_a_name_of_others, _HERE, "_helper", _windowed),
        (_by_import, columns, "joined", _windowed),
        (_by_imported_module, columns, "joined", _windowed),
        (_by_renamed_module, columns, "joined", _windowed),
        (_by_path_of_module, columns, "joined", _windowed),
    ],
    ids=[
        *("closure", "default", "lambda", "state", "name"),
        *("import", "module", "renamed", "path"),
    ],
)
def test_code_counts_whatever_else_has_its_name(
    monkeypatch: pytest.MonkeyPatch,
    using: Callable[..., object],
    module: ModuleType,
    name: str,
    other: object,
) -> None:
    before = digest(using)
    assert digest(using) == before
    monkeypatch.setattr(module, name, other)
    assert digest(using) != before


def test_what_an_object_keeps_of_its_own_work_counts_nothing() -> None:
    before = digest(_Plain(2))
    # Else the same pattern would be at hand still.
    re.purge()
    used = _Plain(2)
    assert used.of(1) == 4
    assert digest(used) == before


_CLEANED = {
    "more": lambda value: value + 1,
    "twice": lambda value: value * 2,
    "least": (lambda value: max(value, _FACTOR)) if _LIMIT else (lambda value: value),
    "value": (lambda value: value) if _LIMIT else (lambda value: max(value, _FACTOR)),
    "scaled": lambda value: lambda other: value * other if value else _helper(other),
}


def _by_dict(name: str, value: int) -> int:
    return _CLEANED[name](value)


@pytest.mark.parametrize("name", _CLEANED)
def test_lambdas_of_a_dict_count_each(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(_by_dict)
    assert digest(_by_dict) == before
    others = {
        "another": lambda value: value * 7,
    }
    monkeypatch.setitem(_CLEANED, name, others["another"])
    assert digest(_by_dict) != before


def test_a_lambda_counts_as_it_stands_and_not_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: digest(one) for name, one in _CLEANED.items()}
    assert len(set(before.values())) == len(before)
    monkeypatch.setitem(globals(), "_FACTOR", 3)
    after = {name: digest(one) for name, one in _CLEANED.items()}
    assert [name for name in before if after[name] != before[name]] == ["least"]


def test_a_function_that_is_no_code_apart_from_what_is_around_it_counts() -> None:
    def told(limit: int) -> str:
        return f"""
above {limit}
"""

    before = digest(told)

    def told(limit: int) -> str:  # type: ignore[no-redef]
        return f"""
below {limit}
"""

    assert digest(told) != before


def test_docs_and_comments_count_nothing() -> None:
    def documented(value: int) -> int:
        """Some words."""
        # And more of them.
        return value + 1

    first = digest(documented)

    def documented(value: int) -> int:  # type: ignore[no-redef]
        """Other words."""
        return value + 1

    assert digest(documented) == first


def test_of_a_declaration_only_the_attribute_that_is_used_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = digest(_windowed)
    monkeypatch.setitem(globals(), "_SETTINGS", _Settings(other=5))
    assert digest(_windowed) == before
    monkeypatch.setitem(globals(), "_SETTINGS", _Settings(windows=(7,)))
    assert digest(_windowed) != before


def test_what_judges_or_describes_rows_makes_none() -> None:
    assert digest(replace(FLIGHTS, doc="Other words.", max_quarantine_share=0.5)) == digest(FLIGHTS)
    assert digest(replace(FLIGHTS, null_token="-")) != digest(FLIGHTS)
    assert digest(FLIGHTS) != digest(SCHEDULE)


def test_a_feed_whose_files_come_in_another_way_has_the_same_rows() -> None:
    first, last = date(2013, 2, 1), date(2013, 11, 30)
    moved = replace(FLIGHTS, first_day=first, last_day=last)
    path = "from.2014/of-{date}.csv"
    changed = replace(moved, marker="{date}.done", is_optional=True, path=path)
    assert digest(changed) == digest(FLIGHTS)
    # A file a day and one register are two ways to know rows.
    register = replace(FLIGHTS, path="flights.csv", first_day=None, last_day=None)
    assert digest(register) != digest(FLIGHTS)
    feeds = tuple(changed if one == FLIGHTS else one for one in PIPELINE.feeds)
    assert definitions(replace(PIPELINE, feeds=feeds)) == definitions(PIPELINE)


@pytest.mark.parametrize("module", [__name__, "pipelines.own"])
@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("first_day", date(2013, 7, 1)),
        ("last_day", date(2013, 7, 31)),
        ("least", 20),
    ],
)
def test_what_a_transform_uses_counts_whatever_its_fields_are_called(
    monkeypatch: pytest.MonkeyPatch, field: str, other: object, module: str
) -> None:
    # Beside the transform, or beside the declaration.
    monkeypatch.setattr(_Season, "__module__", module)
    before = digest(_seasons)
    moved = replace(_SUMMER, **{field: other})
    monkeypatch.setitem(globals(), "_SEASONS", (moved,))
    assert digest(_seasons) != before


def test_a_feed_of_a_class_of_ones_own_has_the_rows_of_a_feed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Tide, "__module__", "pipelines.own")
    given = {one.name: getattr(FLIGHTS, one.name) for one in fields(FLIGHTS)}
    tide = _Tide(**given, most=3)
    assert digest(replace(tide, doc="Other words.")) == digest(tide)
    assert digest(replace(tide, most=4)) != digest(tide)


def test_a_table_depends_on_its_own_transform_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = digest(PIPELINE.table("tiles"), transforms.tiles)
    departures = digest(PIPELINE.table("departures"), transforms.departures)
    monkeypatch.setattr(transforms, "_PUERTO_RICO", ("SJU",))
    assert digest(PIPELINE.table("tiles"), transforms.tiles) == tiles
    assert digest(PIPELINE.table("departures"), transforms.departures) != departures


def test_a_feature_that_is_read_no_more_outdates_no_row() -> None:
    names = PIPELINE.training.numeric
    before = definitions(PIPELINE)
    for name in (names[0], names[5], names[-1]):
        unread = replace(PIPELINE, training=PIPELINE.training.without([name]))
        assert definitions(unread)[TRAINING] == before[TRAINING]
    # Of a home that has all of them read nothing is outdated.
    assert _features_shown(PIPELINE) == PIPELINE.training.features


@pytest.mark.parametrize(
    ("labels", "strange"),
    [(_with_days, "days"), (_misspelled, "flihgts")],
    ids=["days", "table"],
)
def test_labels_of_what_is_no_table_are_told_which_there_are(
    monkeypatch: pytest.MonkeyPatch, labels: Callable[..., None], strange: str
) -> None:
    monkeypatch.setattr(transforms, "labels", labels)
    message = f"`labels` of jobs/transforms/flights.py takes {strange}, .* Known: .*flights, "
    with pytest.raises(UsageError, match=message):
        definitions(PIPELINE)
