"""One feature, one place: what it is, where it is looked up, and what must hold of it.

From these declarations follow the Feast views and service, the columns of the training and scoring
tables, and the expectations about them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from pipelines.errors import refuse_unless
from pipelines.kinds import refuse_odd_kinds

_HOURS_OF_A_DAY = 24
GIVEN = ("event_timestamp", "created_timestamp", "landed_date")
"""Columns that a view may give beside keys and features."""
_PLAIN = re.compile(r"[A-Za-z_]\w*")
"""The name of a column; anything else is an expression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """A number that a model reads.

    A category as of the scoring moment is none: the transform joins it into the entity table.
    """

    name: str
    column: str = ""
    """Column of the view's table, or SQL over one of its rows; empty: the column of that name."""
    made_by: str = ""
    """SQL by which the table's transform makes the column (`made_by(features)` in
    `jobs/transforms/columns.py`); empty: the transform writes it out itself."""
    finish: str = ""
    """SQL of the value that the model reads, over the joined row, where the looked-up value is
    `value`; empty: that value as it is."""
    is_whole: bool | None = False
    """A whole number (bigint), and not a double; None: it is where the column looked up is."""
    when_unknown: int | None = None
    """What it is when nothing is found: 0 for a count of nothing; None: null."""
    is_required: bool = False
    """A training or scoring row without a value is refused."""
    least: float | None = None
    """A smaller value is refused; None: no bound."""
    most: float | None = None
    """A greater value is refused; None: no bound."""
    doc: str = ""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"Feature '{self.name}'", self)
        refuse_unless(self.name.isidentifier(), f"A feature cannot be named '{self.name}'.")
        bounds = (self.least, self.most)
        refuse_unless(
            None in bounds or bounds[0] <= bounds[1],  # type: ignore[operator]
            f"Feature '{self.name}': least {self.least} is above most {self.most}.",
        )

    @property
    def looked_up(self) -> str:
        """Column of the view's table, or SQL over one of its rows."""
        return self.column or self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureView:
    """Features that are looked up together: in one table, by one key, as of the scoring moment.

    A row that a newer snapshot of a reference feed no longer lists is still found, as it was last;
    `latest_by_day` in a transform leaves it out.
    """

    name: str
    table: str
    """Table of the pipeline."""
    keys: Mapping[str, str]
    """Key column of the table -> the column of the entity table that holds its value."""
    features: tuple[Feature, ...]
    constants: Mapping[str, str] = field(default_factory=dict)
    """Key column of the table -> the one value that this view looks up."""
    event: str = "event_timestamp"
    """SQL of the instant at which a row of the table holds."""
    created: str | None = None
    """SQL of the instant at which it became known; None: at the end of the day that it landed on.
    An earlier one lets training see what no night could: facts of the files of the day after."""
    max_age_hours: int | None = None
    """Older facts count as none; None: any age will do. With it a fact that lands more than a day
    before it holds, such as a forecast of next week, may not be found. By the day that it landed on
    a row of a reference file is as old as the last change of the file: leave it out there."""
    past_days: int = 1
    """Days up to its own that a row of the table is about: so many must its `window_days` be."""
    doc: str = ""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"Feature view '{self.name}'", self)
        refuse_unless(self.name.isidentifier(), f"A feature view cannot be named '{self.name}'.")
        refuse_unless(bool(self.keys), f"Feature view '{self.name}' needs a key.")
        refuse_unless(bool(self.features), f"Feature view '{self.name}' has no features.")
        self._refuse_odd_values()
        age = self.max_age_hours
        refuse_unless(
            age is None or age >= 1,
            f"Feature view '{self.name}': max_age_hours must be at least 1.",
        )

    def _refuse_odd_values(self) -> None:
        for name, values in (("keys", self.keys), ("constants", self.constants)):
            for key, value in values.items():
                refuse_unless(
                    isinstance(value, str),
                    f"Feature view '{self.name}': {name} has {value!r} for '{key}', which is no "
                    f"text. Write '{value}': Spark compares it with values of the column's type.",
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of its table that it names, each once; what SQL over a row reads is not told."""
        expressions = [feature.looked_up for feature in self.features]
        expressions += [self.event, self.created or ""]
        named = filter(is_plain, expressions)
        return tuple(dict.fromkeys([*self.keys, *self.constants, *named]))

    def constant_column(self, key: str) -> str:
        """Column of the rows that ask that holds the one value of this key."""
        return f"__{self.name}_{key}"

    def lookup_column(self, feature: Feature) -> str:
        """Column that a feature is looked up by: of its table, or one that is made of its SQL."""
        sql = feature.looked_up
        # To Spark 'Id' and 'id' are one column.
        names = (*self.keys, *self.constants, *GIVEN)
        given = {name.lower() for name in names}
        if is_plain(sql) and sql.lower() not in given:
            return sql
        # Of an expression, and of what is read besides, a name that no column of the table has.
        return f"sql_{self.name}_{feature.name}"

    @property
    def made_columns(self) -> tuple[str, ...]:
        """Columns that are made for this view when its features are looked up, each once."""
        made = [self.constant_column(key) for key in self.constants]
        for feature in self.features:
            name = self.lookup_column(feature)
            if name != feature.looked_up:
                made.append(name)
            # So Feast calls what it looked up.
            made.append(f"{self.name}__{name}")
        return tuple(dict.fromkeys(made))


def known_since(view: FeatureView, timezone: str) -> str | None:
    """SQL of the instant at which a row of the view's table became known; None: as it holds."""
    landed = day_end("landed_date", timezone)
    if view.created is None and view.event != landed:
        return landed
    return view.created


def days_back(view: FeatureView) -> int | None:
    """How many days before a night a fact may have landed that the view gives it; None: any."""
    if view.max_age_hours is None:
        return None
    # A fact of an evening may have landed on the day before.
    return view.max_age_hours // _HOURS_OF_A_DAY + 1


def is_plain(text: str) -> bool:
    """Whether SQL over a row is the name of a column, and nothing else."""
    return bool(_PLAIN.fullmatch(text))


def names(views: Iterable[FeatureView]) -> tuple[str, ...]:
    """Names of all features of the views, in order."""
    features = chain.from_iterable(view.features for view in views)
    return tuple(feature.name for feature in features)


def day_end(day: str, timezone: str) -> str:
    """SQL of the instant at which the local day in that column ends: its night's scoring moment.

    It does not depend on the session's time zone.
    """
    following = f"date_add({day}, 1)"
    parts = f"year({following}), month({following}), day({following})"
    return f"make_timestamp({parts}, 0, 0, 0, '{timezone}')"
