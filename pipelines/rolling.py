"""What rolls over the past: daily sums by entity, and the figures of windows that follow from them.

`jobs/transforms/rolling.py` makes two tables of such a declaration: tiles (a day's sums by entity
and key) and windows (figures over the days that end with a day).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from pipelines.errors import refuse_unless
from pipelines.features import Feature, FeatureView
from pipelines.kinds import refuse_odd_kinds

_COUNT = re.compile(r"count(_if)?\([^()]*\)", re.IGNORECASE)
"""SQL of a daily sum that is whole, whatever the table holds."""
_OF_EVERY_TILE = ("landed_date", "grain", "key")
"""Columns of every table of daily sums."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DailySum:
    """A sum over the rows of a day. Sums add up: a mean is made of two of them."""

    name: str
    sql: str
    """Aggregate over the rows that share a day and a key. Whole numbers or decimals: a sum of
    doubles would depend on the order in which they come. Where it is null it adds nothing."""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"DailySum '{self.name}'", self)

    @property
    def is_whole(self) -> bool | None:
        """True where it counts; None: only its table tells whether it is whole."""
        return bool(_COUNT.fullmatch(self.sql.strip())) or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistic:
    """A figure of a window."""

    name: str
    amount: str
    """The daily sum that is summed over the window."""
    per: str = ""
    """The daily sum by which it is divided, null where that is 0; empty: it is the sum itself, such
    as a count. Of values of which some are unknown it is the count of the known ones."""
    least: float | None = None
    most: float | None = None
    doc: str = ""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"Statistic '{self.name}'", self)

    @property
    def is_count(self) -> bool:
        """True for a sum, which is 0 where nothing is; False for a mean, which is null."""
        return not self.per

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of the daily sums that it reads."""
        return (self.amount,) if self.is_count else (self.amount, self.per)

    def column(self, window: int) -> str:
        """Its column for a window of so many days."""
        return f"{self.name}_{window}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Grain:
    """Things whose past is summed up: rows with the same values in these columns."""

    name: str
    columns: tuple[str, ...]
    """A row's key is their values joined by '|', as `joined` of `jobs/transforms/columns.py` does
    it; a row that lacks one of them does not count."""
    windows: tuple[int, ...]
    """Days of the windows that models read; each ends with the day of the scoring moment."""
    statistics: tuple[str, ...]
    """Names of the statistics that models read."""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"Grain '{self.name}'", self)
        refuse_unless(
            bool(self.columns and self.windows and self.statistics),
            f"Grain '{self.name}' needs a column, a window and a statistic.",
        )
        odd = [days for days in self.windows if days < 1]
        refuse_unless(
            not odd,
            f"Grain '{self.name}': windows has {odd}, but the shortest is 1 day, the one that ends "
            "with the scoring moment.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rolling:
    """Sums by day, statistics by window, for some grains."""

    sums: tuple[DailySum, ...]
    statistics: tuple[Statistic, ...]
    grains: tuple[Grain, ...]

    def __post_init__(self) -> None:
        refuse_odd_kinds("Rolling", self)
        for kind, names in (
            # To Spark 'Id' and 'id' are one column.
            ("sums", [one.name.lower() for one in self.sums]),
            ("statistics", [one.name.lower() for one in self.statistics]),
            ("grains", [one.name.lower() for one in self.grains]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            refuse_unless(not twice, f"Rolling has two {kind} named {twice}.")
        sums = {one.name for one in self.sums}
        given = sorted(name for name in sums if name.lower() in _OF_EVERY_TILE)
        refuse_unless(
            not given,
            f"Rolling has sums named {given}, as columns that every table of daily sums has. Give "
            "them other names.",
        )
        used: set[str] = set()
        for statistic in self.statistics:
            used.update(statistic.sums)
        unmade = sorted(used - sums)
        refuse_unless(not unmade, f"Statistics read sums that nobody makes: {unmade}.")
        read: set[str] = set()
        for grain in self.grains:
            read.update(grain.statistics)
        unknown = sorted(read - {one.name for one in self.statistics})
        refuse_unless(not unknown, f"Grains read unknown statistics: {unknown}.")

    @property
    def windows(self) -> tuple[int, ...]:
        """Every length of window that some grain reads, ascending, in days."""
        lengths: set[int] = set()
        for grain in self.grains:
            lengths.update(grain.windows)
        return tuple(sorted(lengths))

    @property
    def figures(self) -> tuple[tuple[Statistic, int], ...]:
        """Each statistic and window that is kept: those that some grain reads, and every count."""
        read: set[tuple[str, int]] = set()
        for grain in self.grains:
            read.update(product(grain.statistics, grain.windows))
        kept = []
        for window, statistic in product(self.windows, self.statistics):
            if statistic.is_count or (statistic.name, window) in read:
                kept.append((statistic, window))
        return tuple(kept)

    @property
    def sum_docs(self) -> dict[str, str]:
        """What each column of the daily sums means."""
        return {one.name: f"Of the day: {one.sql}." for one in self.sums}

    @property
    def figure_docs(self) -> dict[str, str]:
        """What each column of the windows means."""
        docs = {}
        for statistic, days in self.figures:
            over = f"Over the {days} days that end with landed_date."
            docs[f"{statistic.name}_{days}"] = f"{statistic.doc} {over}".lstrip()
        return docs

    @property
    def key_docs(self) -> dict[str, str]:
        """What each column means by which the entity table looks into the windows."""
        docs = {}
        for grain in self.grains:
            docs[f"{grain.name}_key"] = f"Key of grain '{grain.name}': {'|'.join(grain.columns)}."
        return docs

    def features(self, grain: Grain) -> tuple[Feature, ...]:
        """The features of a grain: `<grain>_<statistic>_<days>`."""
        known = {one.name: one for one in self.statistics}
        sums = {one.name: one for one in self.sums}
        made = []
        for name, days in product(grain.statistics, grain.windows):
            statistic = known[name]
            made.append(_feature(grain, statistic, sums[statistic.amount], days))
        return tuple(made)


def _feature(grain: Grain, statistic: Statistic, amount: DailySum, days: int) -> Feature:
    return Feature(
        name=f"{grain.name}_{statistic.name}_{days}",
        column=statistic.column(days),
        # A sum of decimals has a fraction.
        is_whole=amount.is_whole if statistic.is_count else False,
        when_unknown=0 if statistic.is_count else None,
        is_required=statistic.is_count,
        least=statistic.least,
        most=statistic.most,
        doc=f"{statistic.doc} Over the {days} days that end with the scoring day.".strip(),
    )


def rolling_views(rolling: Rolling, *, table: str, max_age_hours: int) -> tuple[FeatureView, ...]:
    """A feature view for each grain, named after it, over the table of windows.

    The entity table holds the grain's key as `<grain>_key`.
    """
    return tuple(
        FeatureView(
            name=grain.name,
            table=table,
            keys={"key": f"{grain.name}_key"},
            constants={"grain": grain.name},
            features=rolling.features(grain),
            max_age_hours=max_age_hours,
            # Of all grains: a key has a row as long as the longest window holds something of it.
            past_days=max(rolling.windows),
            doc=f"The past by {', '.join(grain.columns)}.",
        )
        for grain in rolling.grains
    )
