"""The vocabulary of a pipeline: frozen values that say what exists and refuse nonsense."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal, NoReturn, get_args
from zoneinfo import ZoneInfo

from pipelines.days import Days
from pipelines.errors import UsageError, no_such

Type = Literal["string", "int", "long", "double", "boolean", "date", "timestamp"]
Maker = Literal["ingest", "transform", "features", "predict"]


def _refuse_unless(holds: bool, what: str) -> None:
    if not holds:
        raise UsageError(what)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a feed, as the source writes it."""

    name: str
    type: Type = "string"
    required: bool = False
    """A row without a value here is quarantined."""
    doc: str = ""
    """Meaning and unit."""

    def __post_init__(self) -> None:
        _refuse_unless(
            self.type in get_args(Type),
            f"Column '{self.name}': no type '{self.type}'. Known: {', '.join(get_args(Type))}.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """Files that a source drops, and the raw table that they become (same name)."""

    name: str
    path: str
    """Below `<landing>/<pipeline>/`. With `{date}`: one file a day. Without: a reference file,
    landed when it changes."""
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    """Columns that identify a row within one drop."""
    first_day: date | None = None
    """First day with a drop; None: the pipeline's own first day."""
    last_day: date | None = None
    """Last day with a drop; None: the pipeline's own last day."""
    null_token: str = "NA"
    """Text that the source writes for a missing value, besides the empty field."""
    max_quarantine_share: float = 0.02
    """Share of a drop's rows, 0 to 1, that may be quarantined before the drop is refused, and with
    it the run."""
    doc: str = ""

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        _refuse_unless(
            len(names) == len(set(names)), f"Feed '{self.name}' declares a column twice: {names}."
        )
        missing = [k for k in self.key if k not in names]
        _refuse_unless(
            bool(self.key) and not missing,
            f"Feed '{self.name}': key columns {missing or '()'} are not among its columns {names}.",
        )
        _refuse_unless(
            0 <= self.max_quarantine_share <= 1,
            f"Feed '{self.name}': max_quarantine_share must be from 0 to 1.",
        )

    @property
    def is_reference(self) -> bool:
        """True for a whole reference file, False for one drop a day."""
        return "{date}" not in self.path

    @property
    def required(self) -> frozenset[str]:
        """Columns that must hold a value: the key and those declared required."""
        return frozenset(self.key) | {c.name for c in self.columns if c.required}


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
    tomorrow)."""
    volatile: tuple[str, ...] = ()
    """Columns that tell how a row was made, not what it says: a rerun that changes only these
    changes nothing."""
    doc: str = ""

    def __post_init__(self) -> None:
        _refuse_unless(
            self.window_days >= 1,
            f"Table '{self.name}': window_days must be at least 1, the day itself.",
        )
        _refuse_unless(bool(self.key), f"Table '{self.name}' needs a key.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How the model is trained. Rows are those of the training table whose label is known."""

    label: str
    """Column of the training table: 1, 0, or null when there is no label."""
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    baseline: tuple[str, ...]
    """Columns whose historical rate is the simple baseline that a model must beat."""
    slices: tuple[str, ...] = ()
    """Columns by whose values quality is also reported and protected."""
    window_days: int = 90
    """Days of labels before the held-out days that are trained on."""
    holdout_days: int = 14
    """Newest days of labels, never trained on: candidate, champion and baseline are compared
    there."""
    validation_days: int = 7
    """Days at the end of the window kept out of `fit`, for early stopping and calibration."""
    min_rows: int = 2000
    ranks: int = 2
    hidden: tuple[int, ...] = (128, 64)
    embedding_size: int = 8
    dropout: float = 0.3
    """Share of hidden units left out of each training step, 0 to 1."""
    input_dropout: float = 0.3
    """Share of inputs left out of each training step, 0 to 1: a few dozen days must not be told
    apart by their weather."""
    epochs: int = 6
    patience: int = 3
    batch_size: int = 1024
    """Rows per rank and step."""
    learning_rate: float = 1e-3
    """Of one rank; scaled by the number of ranks after a warm-up."""
    seed: int = 20130101
    timeout_seconds: int = 1800
    """Training that takes longer is ended: ranks that disagree would wait for ever."""

    def __post_init__(self) -> None:
        both = set(self.numeric) & set(self.categorical)
        _refuse_unless(not both, f"Features declared both numeric and categorical: {sorted(both)}.")
        _refuse_unless(
            0 < self.validation_days < self.window_days,
            "validation_days must be from 1 to window_days - 1.",
        )
        _refuse_unless(
            self.holdout_days >= 1 and self.ranks >= 1 and self.epochs >= 1,
            "holdout_days, ranks and epochs must be at least 1.",
        )

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature that the model reads, numeric first."""
        return self.numeric + self.categorical


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """When a candidate may serve. Differences are paired by day and bootstrapped over days."""

    resamples: int = 2000
    min_win_rate: float = 0.75
    """Share of bootstrap resamples in which the candidate's log loss must be below the rival's."""
    max_slice_loss: float = 0.02
    """How much worse (log loss) the candidate may be than the champion on any slice."""
    min_slice_rows: int = 500
    """Slices with fewer held-out rows are reported and not judged."""
    max_auc: float = 0.90
    """A pooled AUC above this means that the future leaked in: refused."""

    def __post_init__(self) -> None:
        _refuse_unless(0.5 <= self.min_win_rate <= 1, "min_win_rate must be from 0.5 to 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    """One pipeline: its feeds, its tables, its model."""

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
    feeds: tuple[Feed, ...]
    derived: tuple[Table, ...]
    """Tables that the transform stage makes, in order: a table may read those before it."""
    entity: tuple[str, ...]
    """Columns that identify what is scored, and the key of training, scoring and predictions."""
    training: Training
    gate: Gate = field(default_factory=Gate)
    event_date: str = "flight_date"
    """Entity column with the date that a prediction is about: the day after the night that scores
    it."""
    prediction: str = "probability"
    """Column of the predictions table with the model's probability."""
    carried: tuple[str, ...] = ()
    """Columns of the scoring table that predictions show beside the entity."""
    doc: str = ""

    def __post_init__(self) -> None:
        ZoneInfo(self.timezone)
        names = [f.name for f in self.feeds] + [t.name for t in self.derived]
        _refuse_unless(
            len(names) == len(set(names)),
            f"Pipeline '{self.name}' has two tables of one name: {sorted(names)}.",
        )
        known = {f.name for f in self.feeds}
        for table in self.derived:
            unknown = [r for r in table.reads if r not in known]
            _refuse_unless(
                not unknown,
                f"Table '{self.name}.{table.name}' reads {unknown}, which no feed or table before"
                f" it makes. Known: {sorted(known)}.",
            )
            known.add(table.name)
        _refuse_unless(
            self.event_date in self.entity,
            f"event_date '{self.event_date}' must be one of the entity columns {self.entity}.",
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every gated table of the pipeline, in the order in which a night makes them."""
        raw = tuple(
            Table(
                name=f.name,
                made_by="ingest",
                key=f.key,
                volatile=("source_file", "source_line"),
                doc=f.doc,
            )
            for f in self.feeds
        )
        own = (
            Table(
                name="training",
                made_by="features",
                key=self.entity,
                doc="Point-in-time features and label of what became known on landed_date.",
            ),
            Table(
                name="scoring",
                made_by="features",
                key=self.entity,
                doc="Features of what is scheduled for the day after landed_date.",
            ),
            Table(
                name="predictions",
                made_by="predict",
                key=self.entity,
                partition=self.event_date,
                partition_lead_days=1,
                volatile=("run_id", "predicted_at", "scoring_version", "code_version"),
                doc="Probabilities that the champion of the night gave.",
            ),
        )
        return raw + self.derived + own

    def feed(self, name: str) -> Feed:
        """The feed of that name.

        Raises:
            UsageError: there is none.
        """
        return {f.name: f for f in self.feeds}.get(name) or self._no_such(
            "feed", name, [f.name for f in self.feeds]
        )

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
            UsageError: there is none.
        """
        return {t.name: t for t in self.tables}.get(name) or self._no_such(
            "table", name, [t.name for t in self.tables]
        )

    def _no_such(self, kind: str, name: str, known: list[str]) -> NoReturn:
        raise no_such(f"{kind} of '{self.name}'", name, known)

    def drop_days(self, feed: Feed, days: Days) -> Days | None:
        """The days of the range on which the feed drops a file; None when there are none."""
        return days.within(feed.first_day or self.first_day, feed.last_day or self.last_day)

    def require_days(self, days: Days) -> None:
        """Refuse days outside the time that the feeds cover.

        Raises:
            UsageError: a day lies before `first_day` or after `last_day`.
        """
        end = self.last_day or date.max - timedelta(days=1)
        if days.first < self.first_day or days.last > end:
            covers = f"from {self.first_day}" + (f" to {self.last_day}" if self.last_day else " on")
            raise UsageError(
                f"'{self.name}' has no data for {days}: its feeds cover the days {covers}."
            )
