"""The vocabulary of a pipeline: frozen values that say what exists and refuse nonsense."""

from __future__ import annotations

import keyword
import re
from calendar import monthrange
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from functools import cached_property
from itertools import chain
from typing import Literal, NoReturn, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelines import features as feature_names
from pipelines.days import Days
from pipelines.environment import PAGES
from pipelines.errors import no_such, refuse_unless
from pipelines.events import Channel
from pipelines.features import Feature, FeatureView
from pipelines.feeds import PROVENANCE, Feed, Type
from pipelines.kinds import fits, refuse_odd_kinds, said_kind
from pipelines.model import (
    Between,
    Choice,
    OneOf,
    Promotion,
    Serving,
    Training,
    Watch,
)
from pipelines.resources import Resources
from pipelines.stages import Stage, stage

Maker = Literal["ingest", "transform", "features", "predict"]

TRAINING, SCORING, PREDICTIONS = "training", "scoring", "predictions"
"""Tables that every pipeline has."""
HISTORY_SUFFIX = "_history"
"""Of the name of every version of a table's days, in SQL alone: no table of the lake."""
QUARANTINE_SUFFIX = "_quarantine"
OPS = "ops"
"""Schema of the platform's own tables."""
WAREHOUSE = "nightshift"
"""Schema of PostgreSQL that tells what was published there."""
_RESERVED_TABLES = frozenset({TRAINING, SCORING, PREDICTIONS})
_TRANSFORM_ARGUMENTS = frozenset({"days", "labels"})
"""Names that a table cannot have, because its module of transforms uses them for something else."""
_MADE_COLUMNS = frozenset(
    {
        *("landed_date", "event_timestamp", "learned", "model_name", "model_version"),
        *("model_run_id", "run_id", "predicted_at", "scoring_version", "code_version"),
    }
)
"""Columns that the platform gives training, scoring and predictions itself."""
_OF_TRAINING = frozenset({"landed_date", "event_timestamp", "learned"})
"""Those of them that training has."""
_EVENT = "event_timestamp"
"""Where a view says nothing else, the column of its table with the instant at which a row holds."""
_SAY_WHAT_LOSS_IS = ("task", "label")
"""Settings of a training by which losses are no longer of the same thing."""
RESERVED_PIPELINES = frozenset(
    {
        # Schemas of the lake and of its SQL.
        *(OPS, "main", "memory", "information_schema", "pg_catalog", "system", "temp"),
        # Schemas of PostgreSQL that are there already, and the one that we make.
        *("public", WAREHOUSE),
        # Modules beside which a pipeline's own would lie: in `pipelines`,
        *("catalog", "cores", "days", "environment", "errors", "events", "features", "feeds"),
        "landing",
        *("for_ranks", "forwarding", "kinds", "model", "places", "prices", "quoting", "redaction"),
        *("replay", "resources", "rolling", "run", "spec", "stages", "waivers", "wire"),
        # in `jobs/transforms` and `jobs/examples`,
        *("columns", "snapshots", "files", "nycflights13"),
        # in `expectations`,
        *("data_docs", "feature_rules", "fragments", "gate", "lookup", "predictions", "report"),
        *("page", "report_page", "row_rules", "suite"),
        # in `features` and `dags`.
        *("asof", "definitions", "sources", "store"),
        *("callbacks", "deadline", "deadlines", "declarations", "drops", "forwarded", "lineage"),
        *("maintenance", "nights", "process", "reports", "scheduler", "tasks", "waiting"),
        # Modules of `jobs/commands` and `jobs/lake` that a pipeline would be mistaken for.
        *("land", "tables"),
        # Fixed parts of addresses in the UI, in place of which a pipeline's page has its name.
        *("static", *PAGES),
    }
)
"""Names that no pipeline may have; a test compares them with the modules that are there."""
_WORDS_OF_SQL = frozenset(
    {
        *("all", "analyse", "analyze", "anti", "any", "array", "asc", "asof", "asymmetric", "at"),
        *("authorization", "binary", "both", "by", "case", "cast", "check", "collate"),
        *("collation", "column", "concurrently", "constraint", "create", "cross"),
        *("current_catalog", "current_date", "current_role", "current_time", "current_timestamp"),
        *("current_user", "default", "deferrable", "desc", "describe", "distinct", "do", "end"),
        *("false", "fetch", "foreign", "freeze", "full", "glob", "grant", "group"),
        *("having", "ilike", "initially", "inner", "intersect", "into", "isnull", "join"),
        *("lateral", "leading", "left", "like", "limit", "localtime", "localtimestamp"),
        *("minus", "natural", "notnull", "null", "offset", "on", "only", "order", "outer"),
        *("overlaps", "pivot", "pivot_longer", "pivot_wider", "placing", "positional", "primary"),
        *("qualify", "references", "returning", "right", "select", "semi", "session_user"),
        *("show", "similar", "some", "summarize", "symmetric", "system_user", "table"),
        *("tablesample", "then", "to", "trailing", "true", "union"),
        *("unique", "unpack", "unpivot", "user", "using", "variadic", "verbose", "when", "where"),
        "window",
    }
)
"""Words that DuckDB, PostgreSQL or Spark take for their own where a schema is named: each query of
such a pipeline would have to quote its name. A test compares them with DuckDB's."""
SOURCE_SUFFIX, DEADLINE_SUFFIX = "_source", "_deadline"
RESERVED_SUFFIXES = (SOURCE_SUFFIX, DEADLINE_SUFFIX)
"""Of a pipeline's name in those of the DAGs that are made for it beside its own."""
_LEAST_AGE_HOURS = 31 * 24
"""Of rows of a reference file, which may well not change for a month."""
_OF_LANDING = re.compile(r"\blanded_date\b", re.IGNORECASE)
"""SQL by which a row holds from the day on that it landed on."""
_MOST_HOURS = 24
"""That a night may wait for its files: while it does, the next one does not begin."""
_MONTHS = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_LEAP_YEAR = 2024
"""Its months have as many days as they ever have."""
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAILY = ("@daily", "@midnight")
_LAG_DAYS = 7
"""Days after an event by which its label has landed, unless more are declared; later ones are not
measured."""


def _numbers(least: int, most: int) -> tuple[str, ...]:
    return tuple(map(str, range(least, most + 1)))


_CRON = (
    _numbers(0, 59),
    _numbers(0, 23),
    _numbers(1, 31),
    (*_numbers(1, 12), *_MONTHS),
    (*_numbers(0, 7), *_WEEKDAYS),
)
"""What each field of a cron expression may say."""
_LONGEST_IN_WAREHOUSE = 50
"""Letters of a table's name: PostgreSQL cuts off names of more than 63, and indexes are named after
their table."""
_DECIMAL = re.compile(r"decimal\([0-9]+,[0-9]+\)")
"""A type of columns that no feed has: its digits, and how many of them are behind the point."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""What a module of Python, a schema of SQL and a folder can be named."""


def has_letters_of_a_name(text: str) -> bool:
    """Whether a pipeline, or a table that it declares, may be named so, but for words in use."""
    return bool(_NAME.fullmatch(text))


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of the lake, partitioned by one date column."""

    name: str
    made_by: Maker
    key: tuple[str, ...]
    """Columns that identify a row within one partition."""
    reads: tuple[str, ...] = ()
    """Tables that its transform takes as arguments, by name."""
    window_days: int = 1
    """Days of its inputs that a day of it needs: the day itself and those before it."""
    partition: str = "landed_date"
    partition_lead_days: int = 0
    """How far the partition's date lies ahead of the night that writes it (1: a table about
    tomorrow). 0 of a table that is scored or that a feature view looks into, with `landed_date`."""
    volatile: tuple[str, ...] = ()
    """Columns that tell how a row was made, not what it says: a rerun that changes only these
    changes nothing."""
    is_asked_once: bool = False
    """Its rows are what a night asked and was told; see `is_of_the_moment`."""
    follows_corrections: bool = False
    """Of a table with a window: a day of it is made anew when any day of its window changes, as
    outcomes that take days to tell must be. Otherwise it says for ever what its own night knew."""
    warehouse: bool = False
    """It is published to PostgreSQL too, when NIGHTSHIFT_WAREHOUSE_URL is set. Predictions always
    are."""
    doc: str = ""
    docs: Mapping[str, str] = field(default_factory=dict)
    """Meaning and unit of columns that no feed, feature or sum declares, by name."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Type of columns that predictions show, by name: of those that no feed declares, or that are
    made to another one. The types of feeds, and `decimal(9,2)`."""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"Table '{self.name}'", self)
        refuse_unless(
            self.window_days >= 1,
            f"Table '{self.name}': window_days must be at least 1, the day itself.",
        )
        refuse_unless(
            self.window_days > 1 or not self.follows_corrections,
            f"Table '{self.name}' follows corrections of its day in any case: follows_corrections "
            "is for a window_days of 2 or more.",
        )
        refuse_unless(bool(self.key), f"Table '{self.name}' needs a key.")
        refuse_unless(
            not self.warehouse or len(self.name) <= _LONGEST_IN_WAREHOUSE,
            f"Table '{self.name}' is published to PostgreSQL: its name may have at most "
            f"{_LONGEST_IN_WAREHOUSE} letters.",
        )
        _refuse_odd_types(f"Table '{self.name}'", self.types.values())

    def day_of(self, night: date) -> date:
        """The partition date that a night writes."""
        return night + timedelta(days=self.partition_lead_days)

    def night_of(self, day: date) -> date:
        """The night that writes a partition date."""
        return day - timedelta(days=self.partition_lead_days)

    @property
    def is_of_the_moment(self) -> bool:
        """Whether a day of it says what its own night knew of the days up to then.

        What becomes known later changes no such day. A day of another table says what is known of
        its day, or of its window, and has a new version when that changes.
        """
        keeps_its_moment = self.window_days > 1 and not self.follows_corrections
        return self.is_asked_once or keeps_its_moment


@dataclass(frozen=True, kw_only=True, slots=True)
class Deprecation:
    """A column of the predictions that people shall not use any more, and that will go."""

    column: str
    since: date
    until: date
    """From this day on the column may go. Before it, it stays: null where nothing makes it."""
    why: str
    """And what to use instead."""
    type: str | None = None
    """Of a column that nothing makes any more; None: it is still made."""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"Deprecation of '{self.column}'", self)
        _refuse_odd_types(f"Deprecation of '{self.column}'", filter(None, [self.type]))
        refuse_unless(
            self.since < self.until,
            f"Deprecation of '{self.column}': since {self.since} must be before until "
            f"{self.until}.",
        )
        refuse_unless(
            bool(self.why.strip()), f"Deprecation of '{self.column}': say why, and what to use."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """How recorded days are played against today's calendar; see `pipelines/replay.py`."""

    first: date
    """Recorded day that the day before the replay begins stands for. What is recorded before it is
    the history that the first night loads."""
    drops: str
    """Cron expression in the pipeline's zone, before its `schedule`: when the source drops the
    files of the day before."""


# Without slots, which have no room for what is worked out once.
@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One pipeline: its feeds, its tables, its features, its model."""

    name: str
    title: str
    owner: str
    timezone: str
    """IANA name; a day of this pipeline is a local day there."""
    schedule: str
    """Cron expression in `timezone`: when the night of the day before is run."""
    first_day: date
    last_day: date | None
    """Last day that the feeds cover; None for a live feed."""
    replay: Replay | None = None
    """How an example whose days are over goes on living; None for every other pipeline."""
    feeds: tuple[Feed, ...]
    derived: tuple[Table, ...]
    """Tables that the transform stage makes, in order: a table may read those before it."""
    entity: tuple[str, ...]
    """Columns that identify what is scored, and the key of training, scoring and predictions."""
    event_date: str
    """Entity column with the date that a prediction is about: the day after the night that scores
    it."""
    entity_table: str
    """Table whose rows are scored: `event_timestamp` (the scoring moment, before the end of the day
    after its night), the entity, and every column that a feature view looks up by."""
    outcomes: tuple[str, ...] = ()
    """Tables that its labels are made from, as the function that makes them names them."""
    training: Training
    views: tuple[FeatureView, ...] = ()
    """Where the model's numbers are looked up; numeric features that no view gives come from the
    entity table itself."""
    promotion: Promotion = field(default_factory=Promotion)
    search: Mapping[str, Choice] = field(default_factory=dict)
    """What `nightshift tune` may try: settings of the model family or of `Training`, by name."""
    serving: Serving = field(default_factory=Serving)
    watch: Watch = field(default_factory=Watch)
    prediction: str = "prediction"
    """Column of the predictions table with what the model says: a probability or a number."""
    carried: tuple[str, ...] = ()
    """Columns of the scoring table that predictions show beside the entity."""
    features_in_warehouse: bool = False
    """Training and scoring rows are published to PostgreSQL too, as predictions always are."""
    deprecated: tuple[Deprecation, ...] = ()
    """Columns of the predictions that will go; see `nightshift contract`."""
    notify: tuple[Channel, ...] | None = None
    """Where people are told of what happened in the night. None: in the log, and by each channel
    that the settings of the platform have an address for."""
    feed_deadline_hours: float = 2
    """Hours that a night in Airflow waits for files before people are told that they are late."""
    feed_patience_hours: float = 12
    """Hours after which it gives up and ends as not landed; 0: it does not wait at all."""
    predictions_by: time | None = None
    """By when, of the local day that they are about, predictions must be published: else people are
    told. None: nobody waits for them."""
    resources: Mapping[str, Resources] = field(default_factory=dict)
    """By stage, where this pipeline needs others than the stage declares."""
    doc: str = ""

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"Pipeline '{self.name}'", self)
        self._refuse_odd_names()
        self._refuse_no_daily_feed()
        self._refuse_odd_days()
        self._refuse_odd_schedules()
        self._refuse_odd_hours()
        self._refuse_odd_resources()
        self._refuse_unmade_inputs()
        self._refuse_odd_views()
        self._refuse_late_labels()
        self._refuse_odd_columns()
        self._refuse_twins()
        self._refuse_odd_search()
        self._refuse_unknown_columns()
        refuse_unless(
            self.event_date in self.entity,
            f"event_date '{self.event_date}' must be one of the entity columns {self.entity}.",
        )
        channels = get_args(Channel)
        unknown = sorted(set(self.notify or ()) - set(channels))
        refuse_unless(
            not unknown, f"No notification channel {unknown}. Known: {', '.join(channels)}."
        )

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """Every gated table of the pipeline, in the order in which a night makes them."""
        return tuple(map(_raw_table, self.feeds)) + self.derived + self._model_tables

    @property
    def features(self) -> tuple[Feature, ...]:
        """Every feature of the views, in order."""
        return tuple(chain.from_iterable(view.features for view in self.views))

    def feed(self, name: str) -> Feed:
        """The feed of that name.

        Raises:
            UsageError: there is none.
        """
        known = {feed.name: feed for feed in self.feeds}
        return known.get(name) or self._no_such("feed", name, list(known))

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
            UsageError: there is none.
        """
        known = {table.name: table for table in self.tables}
        return known.get(name) or self._no_such("table", name, list(known))

    def sources_of(self, table: Table) -> tuple[str, ...]:
        """The tables that a table is made from, each once; of a raw table none."""
        if table.name == PREDICTIONS:
            return (SCORING,)
        if table.made_by != "features":
            return table.reads
        views = [view.table for view in self.views]
        # What is to be scored has no outcome yet.
        outcomes = self.outcomes if table.name == TRAINING else ()
        return tuple(dict.fromkeys([self.entity_table, *views, *outcomes]))

    def feeds_behind(self, table: Table) -> tuple[Feed, ...]:
        """The feeds that a table is made from, by itself or by tables that it is made from."""
        behind = {table.name}
        # Each is made after those that it is made from.
        for made in reversed(self.tables):
            if made.name in behind:
                behind.update(self.sources_of(made))
        return tuple(feed for feed in self.feeds if feed.name in behind)

    def resources_of(self, stage: Stage) -> Resources:
        """What a scheduler gives the stage."""
        return self.resources.get(stage.name, stage.resources)

    def drop_days(self, feed: Feed, days: Days) -> Days | None:
        """The days of the range on which the feed drops a file; None when there are none."""
        return days.within(feed.first_day or self.first_day, feed.last_day or self.last_day)

    def labels_land(self, events: Days) -> Days:
        """The days on which labels of events of those days land, but for the last stragglers."""
        lag = max(_LAG_DAYS, self.promotion.label_lag_days)
        return Days(events.first, events.last + timedelta(days=lag))

    def require_days(self, days: Days) -> None:
        """Refuse days outside the time that the feeds cover.

        Raises:
            UsageError: a day lies before `first_day` or after `last_day`.
        """
        end = self.last_day or date.max - timedelta(days=1)
        until = f" to {self.last_day}" if self.last_day else " on"
        refuse_unless(
            self.first_day <= days.first and days.last <= end,
            f"'{self.name}' has no data for {days}: its feeds cover the days from "
            f"{self.first_day}{until}.",
        )

    @property
    def _model_tables(self) -> tuple[Table, ...]:
        return (
            Table(
                name=TRAINING,
                made_by="features",
                key=self.entity,
                warehouse=self.features_in_warehouse,
                doc="Point-in-time features and label of what became known on landed_date.",
            ),
            Table(
                name=SCORING,
                made_by="features",
                key=self.entity,
                is_asked_once=True,
                warehouse=self.features_in_warehouse,
                doc="Features of what is to be scored for the day after landed_date.",
            ),
            Table(
                name=PREDICTIONS,
                made_by="predict",
                key=self.entity,
                partition=self.event_date,
                partition_lead_days=1,
                is_asked_once=True,
                warehouse=True,
                volatile=("run_id", "predicted_at", "scoring_version", "code_version"),
                doc="What the champion of the night foretold.",
            ),
        )

    def _refuse_odd_search(self) -> None:
        known = self.training.settings
        for name, choice in self.search.items():
            if name not in known:
                self._no_such("setting", name, sorted(known))
            where = f"Pipeline '{self.name}': search['{name}']"
            refuse_unless(
                name not in _SAY_WHAT_LOSS_IS,
                f"{where} would compare losses of different things: leave it out.",
            )
            refuse_unless(
                isinstance(choice, Choice),
                f"{where} must be a Between or a OneOf, but is {choice!r}.",
            )
            if isinstance(choice, Between):
                self._refuse_odd_between(where, choice, self.training.kinds[name])
            else:
                self._refuse_odd_one_of(where, choice, self.training.kinds[name], known[name])

    def _refuse_odd_between(self, where: str, choice: Between, kind: object) -> None:
        is_number = fits(1, kind)
        refuse_unless(
            is_number,
            f"{where} is {choice}, but takes a {said_kind(kind)}: name some, as "
            "OneOf(values=(…, …)).",
        )
        refuse_unless(
            choice.is_whole or fits(0.5, kind),
            f"{where} is {choice}, but takes a {said_kind(kind)}: add is_whole=True.",
        )

    def _refuse_odd_one_of(self, where: str, choice: OneOf, kind: object, declared: object) -> None:
        odd = [value for value in choice.values if not fits(value, kind)]
        refuse_unless(not odd, f"{where} has the values {odd}, but takes a {said_kind(kind)}.")
        refuse_unless(
            declared in choice.values,
            f"{where} lacks {declared!r}, which is declared and is tried first: add it to the "
            f"values {choice.values}.",
        )

    def _refuse_odd_names(self) -> None:
        refuse_unless(
            has_letters_of_a_name(self.name),
            f"'{self.name}' is no name for a pipeline: small letters, digits and '_', at most 63, "
            "and a letter first.",
        )
        refuse_unless(
            self.name not in RESERVED_PIPELINES and not keyword.iskeyword(self.name),
            f"A pipeline must not be named '{self.name}': the platform has a schema, a module or "
            "an address of that name.",
        )
        refuse_unless(
            not self.name.startswith("pg_"),
            f"A pipeline must not be named '{self.name}': PostgreSQL makes no schema whose name "
            "begins with 'pg_'.",
        )
        refuse_unless(
            self.name not in _WORDS_OF_SQL,
            f"A pipeline must not be named '{self.name}': it is a word of SQL, and its tables are "
            f"asked for as {self.name}.{PREDICTIONS}. Give it another name, such as "
            f"'{self.name}_nights'.",
        )
        refuse_unless(
            not self.name.endswith(RESERVED_SUFFIXES),
            f"A pipeline must not be named '{self.name}': names that end in "
            f"{' or '.join(RESERVED_SUFFIXES)} are those of DAGs that the platform makes for a "
            "pipeline.",
        )
        try:
            ZoneInfo(self.timezone)
        # An OSError: 'America' is a folder of zones.
        except (ZoneInfoNotFoundError, ValueError, OSError):
            refuse_unless(False, f"Pipeline '{self.name}': no time zone '{self.timezone}'.")
        names = [feed.name for feed in self.feeds] + [table.name for table in self.derived]
        for name in names:
            self._refuse_odd_table(name)
        for feed in self.feeds:
            # What a table refuses.
            _raw_table(feed)
        refuse_unless(
            len(names) == len(set(names)),
            f"Pipeline '{self.name}' has two tables of one name: {sorted(names)}.",
        )
        files = [feed.path for feed in self.feeds]
        refuse_unless(
            len(files) == len(set(files)),
            f"Pipeline '{self.name}' has two feeds of one path: {sorted(files)}.",
        )

    def _refuse_no_daily_feed(self) -> None:
        """Refuse a pipeline without files of a day: by them it is known which nights there were."""
        references = [feed.path for feed in self.feeds if feed.is_reference]
        named = f"reference files alone ({', '.join(references)})" if references else "no feed"
        refuse_unless(
            len(references) < len(self.feeds),
            f"Pipeline '{self.name}' has {named}: by the files of a day the platform knows which "
            "nights there were, so one feed at least must have '{date}' in its path. Have the "
            "source write the day into the name, such as 'orders/{date}.csv': a whole export each "
            "day is a feed like any other.",
        )

    def _refuse_odd_table(self, name: str) -> None:
        refuse_unless(
            has_letters_of_a_name(name),
            f"'{self.name}.{name}' is no name for a table: small letters, digits and '_', at most "
            "63, and a letter first.",
        )
        refuse_unless(
            name not in _RESERVED_TABLES | _TRANSFORM_ARGUMENTS
            and not keyword.iskeyword(name)
            and not name.endswith((QUARANTINE_SUFFIX, HISTORY_SUFFIX)),
            f"A table must not be named '{self.name}.{name}': the platform makes a table of that "
            f"name itself. Reserved: {', '.join(sorted(_RESERVED_TABLES | _TRANSFORM_ARGUMENTS))}, "
            f"…{QUARANTINE_SUFFIX}, …{HISTORY_SUFFIX}, and the words of Python.",
        )

    def _refuse_unmade_inputs(self) -> None:
        known = {feed.name for feed in self.feeds}
        for table in self.derived:
            refuse_unless(
                table.made_by == "transform",
                f"Table '{self.name}.{table.name}' is among the derived ones, which 'transform' "
                f"makes, but says made_by='{table.made_by}'.",
            )
            unknown = [name for name in table.reads if name not in known]
            refuse_unless(
                not unknown,
                f"Table '{self.name}.{table.name}' reads {unknown}, which no feed or table before "
                f"it makes. Known: {sorted(known)}.",
            )
            known.add(table.name)
        unknown = [name for name in self.outcomes if name not in known]
        refuse_unless(
            not unknown,
            f"Pipeline '{self.name}': outcomes names {unknown}, which no feed or transform makes. "
            f"Known: {sorted(known)}.",
        )

    def _refuse_late_labels(self) -> None:
        lag, held_out = self.promotion.label_lag_days, self.training.holdout_days
        refuse_unless(
            lag < held_out,
            f"Pipeline '{self.name}': promotion.label_lag_days {lag} must be less than "
            f"training.holdout_days {held_out}, or no day is ever settled in which two models "
            "could be compared.",
        )

    def _refuse_odd_views(self) -> None:
        known = {feed.name for feed in self.feeds} | {table.name for table in self.derived}
        for view in self.views:
            refuse_unless(
                view.table in known,
                f"Feature view '{view.name}' looks into '{self.name}.{view.table}', which no feed "
                f"or transform makes. Known: {sorted(known)}.",
            )
            self._refuse_short_window(view)
            self._refuse_short_age(view)
            self._refuse_undeclared(f"Feature view '{view.name}' reads", view.table, view.columns)
            self._refuse_other_partition(f"Feature view '{view.name}' looks into", view.table)
        refuse_unless(
            self.entity_table in known,
            f"entity_table '{self.name}.{self.entity_table}' is made by no feed or transform. "
            f"Known: {sorted(known)}.",
        )
        self._refuse_other_partition("entity_table is", self.entity_table)
        for kind, names in (
            # To Feast 'Id' and 'id' are one name.
            ("feature views", [view.name.lower() for view in self.views]),
            ("features", list(feature_names.names(self.views))),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            refuse_unless(not twice, f"Pipeline '{self.name}' has two {kind} named {twice}.")
        self._refuse_shared_columns()

    def _refuse_shared_columns(self) -> None:
        """Refuse two views of which one would read what is looked up for the other."""
        owners: dict[str, str] = {}
        for view in self.views:
            for column in view.made_columns:
                # To Spark 'Id' and 'id' are one column.
                owner = owners.setdefault(column.lower(), view.name)
                refuse_unless(
                    owner == view.name,
                    f"Feature views '{owner}' and '{view.name}' of pipeline '{self.name}' would "
                    f"both be given a column '{column}', which is made of a view's name and of "
                    "what it looks up. Give one of the views another name.",
                )

    def _refuse_short_window(self, view: FeatureView) -> None:
        windows = {table.name: table.window_days for table in self.derived}
        # Of a feed, a day of the table is about that day.
        days = windows.get(view.table, 1)
        refuse_unless(
            view.past_days <= days,
            f"Feature view '{view.name}' looks up windows of up to {view.past_days} days in "
            f"'{self.name}.{view.table}', which is made from {days} day(s): its window_days must "
            f"be at least {view.past_days}.",
        )

    def _refuse_short_age(self, view: FeatureView) -> None:
        """Refuse an age that rows of a file that changes seldom soon have."""
        references = {feed.name for feed in self.feeds if feed.is_reference}
        # With an event of their own, rows are as old as that.
        holds_as_landed = view.table in references and bool(_OF_LANDING.search(view.event))
        age = view.max_age_hours
        is_short = age is not None and age < _LEAST_AGE_HOURS
        refuse_unless(
            not (holds_as_landed and is_short),
            f"Feature view '{view.name}' has max_age_hours={age} and looks into "
            f"'{self.name}.{view.table}', a reference file: its rows are as old as the last change "
            f"of the file, and {age} hours after it none would be found any more. Leave "
            f"max_age_hours out, or, where an age is meant, make it at least {_LEAST_AGE_HOURS} "
            "(31 days).",
        )

    def _refuse_undeclared(self, whose: str, table: str, columns: Iterable[str]) -> None:
        """Refuse columns that the table of a feed cannot have."""
        feeds = {feed.name: feed for feed in self.feeds}
        feed = feeds.get(table)
        # What a transform gives is not declared, and files may add columns where they are let.
        if feed is None or feed.new_columns == "add":
            return
        there = (*feed.column_names, *PROVENANCE)
        # To Spark 'Id' and 'id' are one column.
        known = {name.lower() for name in there}
        unknown = [name for name in columns if name.lower() not in known]
        of_event = (
            " When a row holds is said by the view's event: "
            'day_end("landed_date", TIMEZONE) is the end of the day that it landed on.'
        )
        way_out = of_event if _EVENT in unknown else ""
        refuse_unless(
            not unknown,
            f"{whose} {unknown} of '{self.name}.{table}', which feed '{table}' does not declare. "
            f"Declare them, or name some of {', '.join(there)}.{way_out}",
        )

    def _refuse_other_partition(self, whose: str, name: str) -> None:
        made = {table.name: table for table in self.derived}
        # A feed's table is partitioned so.
        table = made.get(name)
        refuse_unless(
            table is None or (table.partition, table.partition_lead_days) == ("landed_date", 0),
            f"{whose} '{self.name}.{name}', whose partition is another than landed_date: what is "
            "joined is found by the night that made it. Leave out partition and "
            "partition_lead_days; the day that a row is about is a column of its own.",
        )

    def _refuse_odd_days(self) -> None:
        spans = {f"Pipeline '{self.name}'": (self.first_day, self.last_day)}
        for feed in self.feeds:
            first = feed.first_day or self.first_day
            spans[f"Feed '{feed.name}'"] = (first, feed.last_day or self.last_day)
        for whose, (first, last) in spans.items():
            refuse_unless(
                last is None or first <= last,
                f"{whose}: its first day {first} is after its last {last}.",
            )
        if self.replay:
            refuse_unless(
                self.last_day is not None and self.first_day <= self.replay.first <= self.last_day,
                f"Pipeline '{self.name}': its replay begins with {self.replay.first}, which is no "
                f"recorded day: {self.first_day} to {self.last_day}.",
            )

    def _refuse_odd_hours(self) -> None:
        refuse_unless(
            0 <= self.feed_deadline_hours <= self.feed_patience_hours <= _MOST_HOURS,
            f"Pipeline '{self.name}': feed_deadline_hours {self.feed_deadline_hours} must be from "
            f"0 to feed_patience_hours {self.feed_patience_hours}, and that at most {_MOST_HOURS}: "
            "then the next night is due.",
        )
        by = self.predictions_by
        if by is None:
            return
        # A cron expression has no seconds; a time with a zone is never like one without.
        plain = time(by.hour, by.minute)
        refuse_unless(
            by == plain,
            f"Pipeline '{self.name}': predictions_by {by} must be hours and minutes, without a "
            "zone: it is a time of day in the pipeline's own.",
        )
        at = _time_of(self.schedule)
        refuse_unless(
            at is None or at < by,
            f"Pipeline '{self.name}': predictions_by {by:%H:%M} does not come after its schedule "
            f"'{self.schedule}': the night that makes the predictions of a day is run on that day, "
            "and they would be late each day.",
        )

    def _refuse_odd_schedules(self) -> None:
        schedules = {"schedule": self.schedule}
        if self.replay:
            schedules["replay.drops"] = self.replay.drops
        for name, cron in schedules.items():
            refuse_unless(
                _is_cron(cron),
                f"Pipeline '{self.name}': {name} '{cron}' is no cron expression. It has five "
                "fields (minute, hour, day of the month, month, day of the week), such as "
                "'30 4 * * *': at 04:30 of each day in the pipeline's zone.",
            )
            refuse_unless(
                not _never_comes(cron),
                f"Pipeline '{self.name}': {name} '{cron}' never comes: none of its months has such "
                "a day.",
            )

    def _refuse_odd_resources(self) -> None:
        for name, given in self.resources.items():
            stage(name)
            refuse_unless(
                isinstance(given, Resources),
                f"Pipeline '{self.name}': resources['{name}'] must be Resources, but is {given!r}.",
            )

    def _refuse_odd_columns(self) -> None:
        """No column of training, scoring and predictions may be named as another."""
        shown = {*self.entity, *self.carried}
        training = self.training
        features = {*feature_names.names(self.views), *training.numeric}
        # Predictions show none of these: only training could have two columns of one name.
        learned = {*training.categorical, *training.unread}
        named = (
            ("prediction", self.prediction, shown | features),
            ("training.label", training.label, shown | features | learned),
        )
        for field_name, name, others in named:
            refuse_unless(
                name.isidentifier() and name not in others | _MADE_COLUMNS,
                f"Pipeline '{self.name}': {field_name} '{name}' is no name of its own: entity, "
                "carried columns, features and what the platform adds have others.",
            )
        refuse_unless(
            self.prediction != training.label,
            f"Pipeline '{self.name}': prediction and label are both named '{training.label}'.",
        )
        made = _MADE_COLUMNS & (shown | features) | _OF_TRAINING & learned
        taken = sorted(made | set(self.entity) & features)
        refuse_unless(
            not taken,
            f"Pipeline '{self.name}': {taken} cannot name a feature or a carried column: the "
            "entity or the platform has columns of these names.",
        )

    def _refuse_twins(self) -> None:
        """Of training, scoring and predictions: to Spark 'Id' and 'id' are one column."""
        training = self.training
        features = (*feature_names.names(self.views), *training.features, *training.unread)
        named = (*self.entity, *self.carried, *features, training.label, self.prediction)
        spelt = {name: name for name in _MADE_COLUMNS}
        for name in named:
            there = spelt.setdefault(name.lower(), name)
            refuse_unless(
                there == name,
                f"Pipeline '{self.name}': the columns '{there}' and '{name}' differ only in case. "
                "Write both alike where one column is meant, or rename one of them.",
            )

    def _refuse_unknown_columns(self) -> None:
        """What the model reads is given, and what is given is read."""
        training = self.training
        given = feature_names.names(self.views)
        numeric = {*training.numeric, *training.unread}
        forgotten = [name for name in given if name not in numeric]
        refuse_unless(
            not forgotten,
            f"Pipeline '{self.name}': its views give {forgotten}, which training.numeric lacks. "
            "Write numeric=names(VIEWS), and what the entity table gives itself after it.",
        )
        own = [name for name in self.carried if name not in given]
        whose = f"Pipeline '{self.name}': carried names"
        self._refuse_undeclared(whose, self.entity_table, own)
        singled_out = (*training.shared, *training.bends)
        odd = [name for name in singled_out if name not in numeric]
        refuse_unless(
            not odd,
            f"Pipeline '{self.name}': shared or logarithms name {odd}, which are no numeric "
            "features.",
        )
        features = {*training.features, *training.unread}
        unknown = [name for name in self.watch.unwatched if name not in features]
        refuse_unless(
            not unknown,
            f"Pipeline '{self.name}': watch.unwatched names {unknown}, which are no features.",
        )
        known = {*self.entity, *self.carried, *features}
        read = {*training.baseline_columns, *training.slices}
        refuse_unless(
            read <= known,
            f"Pipeline '{self.name}': baselines or slices read {sorted(read - known)}, which are "
            "neither entity nor carried columns nor features.",
        )

    def _no_such(self, kind: str, name: str, known: list[str]) -> NoReturn:
        raise no_such(f"{kind} of '{self.name}'", name, known)


def _refuse_odd_types(whose: str, types: Iterable[object]) -> None:
    """Refuse types that no column of predictions can be promised to have."""
    known = (*get_args(Type), "decimal(9,2)")
    unknown = [one for one in types if one not in known and not _DECIMAL.fullmatch(str(one))]
    refuse_unless(not unknown, f"{whose}: no types {unknown}. Known: {', '.join(known)}.")


def _is_cron(text: str) -> bool:
    fields = text.split()
    if len(fields) != len(_CRON):
        return text in _DAILY
    return all(map(_is_cron_field, fields, _CRON))


def _is_cron_field(text: str, known: tuple[str, ...]) -> bool:
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        least, dash, most = span.partition("-")
        ends = (least, most) if dash else (least,)
        # `*`, one value, or two with a '-' between them.
        is_span = span == "*" or all(end.removeprefix("0") in known or end in known for end in ends)
        if not is_span or (slash and not (step.isdecimal() and int(step))):
            return False
    return True


def _time_of(cron: str) -> time | None:
    """The time of day that a cron expression says; None: it says several."""
    fields = cron.split()
    if len(fields) != len(_CRON):
        return time()
    minute, hour, *_ = fields
    is_one = minute.isdecimal() and hour.isdecimal()
    return time(int(hour), int(minute)) if is_one else None


def _never_comes(cron: str) -> bool:
    """Whether a cron expression asks for days that none of its months has: 31 February."""
    fields = cron.lower().split()
    if len(fields) != len(_CRON):
        return False
    *_, days, months, weekdays = fields
    # Beside a day of the week, that is enough.
    if weekdays != "*":
        return False
    least = min(map(_first_day_of, days.split(",")))
    return least > max(monthrange(_LEAP_YEAR, month)[1] for month in _months_of(months))


def _first_day_of(part: str) -> int:
    """The first day of the month that a part of a field says."""
    least = re.split("[-/]", part)[0]
    return 1 if least == "*" else int(least)


def _months_of(field: str) -> set[int]:
    """The months that a field says, and perhaps more."""
    found: set[int] = set()
    for part in field.split(","):
        if "*" in part or "/" in part or "-" in part:
            found.update(range(1, len(_MONTHS) + 1))
        else:
            found.add(_MONTHS.index(part) + 1 if part in _MONTHS else int(part))
    return found


def _raw_table(feed: Feed) -> Table:
    # Where a row stood in its files: the same rows in another order are no change.
    volatile = ("source_file", "source_line")
    return Table(
        name=feed.name,
        made_by="ingest",
        key=feed.key,
        volatile=volatile,
        warehouse=feed.warehouse,
        doc=feed.doc,
    )
