"""What a model learns, how, and when it may serve."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, get_args

from pipelines.errors import refuse_unless
from pipelines.kinds import fits, kinds, refuse_odd_kinds

Task = Literal["binary_classification", "regression"]
"""What the label is: 1 or 0, or a number. Loss, metrics, plots and suites follow from it."""
Compression = Literal["none", "fp16"]
"""How gradients travel between ranks: as they are, or as 16-bit floats."""
Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]
"""Of hidden layers while they learn, by Keras' names: 32-bit floats, or sums of products of 16-bit
ones, with weights of 32 bits."""
Reduction = Literal["average"]
"""What ranks make of their gradients."""
OddInputs = Literal["score", "refuse"]
"""What becomes of a row with a value that no row of training had: it is scored and counted, or the
night's predictions are refused."""
WatchKind = Literal["feature", "prediction", "skew", "coverage", "quality"]
"""What is watched each night: drift of features and of predictions, rows that are scored by other
features than are learned from, predictions and labels without each other, and live quality."""
_SEEDS = 2**32
_MOST_DAYS = 36_525
"""A century. Of a longer window the first day may lie before the year 1, which no date does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuralNetwork:
    """A Keras network, wide and deep, trained by Horovod on many ranks.

    The wide part is linear in the numbers and the categories; the deep part has hidden layers over
    the numbers and embedded categories.
    """

    name: ClassVar[str] = "neural_network"
    decides_nothing: ClassVar[tuple[str, ...]] = (
        "ranks",
        "timeout_seconds",
        "restarts",
        "checkpoint_seconds",
    )
    """Settings that do not change the model."""

    ranks: int = 2
    """Processes that share each batch; the environment may name another number."""
    hidden: tuple[int, ...] = (128, 64)
    """Units of each hidden layer of the deep part."""
    embedding_size: int = 8
    """Numbers by which each category is embedded."""
    dropout: float = 0.3
    """Share of hidden units left out of each training step, 0 to 1, to the nearest 256th."""
    input_dropout: float = 0.3
    """The same of the deep part's inputs: a few dozen days must not be told apart by what all rows
    of a day share."""
    shared_weight: float = 0.3
    """By which inputs that all rows of a day share (`Training.shared`) are multiplied, above 0, at
    most 1: the smaller, the less is learned from them. Thousands of rows tell no more of them than
    a few dozen days do."""
    epochs: int = 12
    """How often each row is learned from. `nightshift backtest` tells which number is good: the few
    days of a validation are too noisy to."""
    batch_size: int = 2048
    """Rows of a step, shared by the ranks."""
    learning_rate: float = 2e-3
    """The highest: it warms up to it, and then decays to 0."""
    precision: Precision = "float32"
    """Of hidden layers while they learn; what scores is of 32 bits. A GPU multiplies 16-bit floats
    many times as fast, a processor none faster. With `mixed_float16` the loss is scaled so that
    small gradients do not vanish."""
    compression: Compression = "none"
    """Of gradients between ranks: `fp16` sends half the bytes, and rounds them to three digits."""
    accumulated_batches: int = 1
    """Batches whose gradients each rank averages before the ranks exchange them and the weights
    move: a step of so many times the rows, in the memory of one batch."""
    reduction: Reduction = "average"
    """What ranks make of their gradients."""
    timeout_seconds: int = 1800
    """A training that takes longer, restarts and all, is ended: ranks that disagree would wait for
    ever. A night trains two models."""
    restarts: int = 1
    """How often ranks are started anew after one was lost: killed, or its host gone."""
    checkpoint_seconds: float = 60
    """From one checkpoint to the next, at least, at the end of an epoch: restarted ranks, and the
    next attempt of a night that was killed, go on from there."""

    def __post_init__(self) -> None:
        refuse_odd_kinds(type(self).__name__, self)
        counts = (
            *("ranks", "epochs", "batch_size", "embedding_size", "timeout_seconds"),
            "accumulated_batches",
        )
        small = [name for name in counts if getattr(self, name) < 1]
        refuse_unless(not small, f"{', '.join(small)} must be at least 1.")
        refuse_unless(
            self.restarts >= 0 and self.checkpoint_seconds >= 0,
            "restarts and checkpoint_seconds must be at least 0.",
        )
        shares = 0 <= self.dropout < 1 and 0 <= self.input_dropout < 1
        refuse_unless(shares, "dropout and input_dropout are shares: from 0 to below 1.")
        refuse_unless(0 < self.shared_weight <= 1, "shared_weight must be above 0, and at most 1.")
        refuse_unless(self.learning_rate > 0, "learning_rate must be above 0.")
        refuse_unless(all(units >= 1 for units in self.hidden), "hidden layers need a unit.")
        for name, choices in (("precision", Precision), ("compression", Compression)):
            chosen, known = getattr(self, name), get_args(choices)
            refuse_unless(chosen in known, f"No {name} '{chosen}'. Known: {', '.join(known)}.")
        refuse_unless(
            self.reduction in get_args(Reduction),
            f"No reduction '{self.reduction}': use 'average'. Horovod's Adasum needs MPI, and here "
            "ranks speak Gloo, which answers 'No Adasum operation enabled'.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearModel:
    """Ridge or logistic regression by the task, over scaled numbers and one-hot categories."""

    name: ClassVar[str] = "linear"
    decides_nothing: ClassVar[tuple[str, ...]] = ()

    l2: float = 1.0
    """Weight of the squared coefficients against the sum of the rows' losses."""
    max_iterations: int = 500
    """Of the solver of logistic regression; ridge regression is solved at once."""

    def __post_init__(self) -> None:
        refuse_odd_kinds(type(self).__name__, self)
        refuse_unless(self.l2 > 0, "l2 must be above 0.")
        refuse_unless(self.max_iterations >= 1, "max_iterations must be at least 1.")


Family = NeuralNetwork | LinearModel
_FAMILIES: tuple[type[Family], ...] = get_args(Family)
FAMILIES: Mapping[str, type[Family]] = {family.name: family for family in _FAMILIES}
"""By the name that people give."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupMean:
    """A baseline: the mean label of past rows with the same values in a few columns.

    Of a binary label this is a rate, as if one more row had been seen with the overall one; of a
    measurement a climatology.
    """

    columns: tuple[str, ...]
    name: str = "group_mean"

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"GroupMean '{self.name}'", self)
        refuse_unless(bool(self.columns), f"GroupMean '{self.name}' needs a column.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LastValue:
    """A baseline: what a numeric feature says now will be so.

    Where it is missing or infinite, the mean label.

    Of a measurement this is persistence.
    """

    feature: str
    name: str = "last_value"

    def __post_init__(self) -> None:
        refuse_odd_kinds(f"LastValue '{self.name}'", self)


Baseline = GroupMean | LastValue


@dataclass(frozen=True, kw_only=True, slots=True)
class Logarithm:
    """Features with a long tail: a model reads `sign(x) * log(1 + |x| / bend)` of them."""

    features: tuple[str, ...]
    bend: float = 1.0
    """Below this size, in the feature's unit, the curve is nearly straight."""

    def __post_init__(self) -> None:
        refuse_odd_kinds("Logarithm", self)
        refuse_unless(self.bend > 0, "The bend of a Logarithm must be above 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Between:
    """A setting that may have any value of a span."""

    low: float
    high: float
    is_log: bool = False
    """Small values are tried as closely as large ones: its logarithm is drawn evenly."""
    is_whole: bool = False

    def __post_init__(self) -> None:
        are_numbers = fits(self.low, float) and fits(self.high, float)
        refuse_unless(are_numbers, f"{self}: its ends must be finite numbers.")
        refuse_unless(self.low < self.high, f"{self} holds nothing: low must be below high.")
        refuse_unless(self.low > 0 or not self.is_log, f"{self}: a logarithm needs a low above 0.")
        is_fraction = any(end != int(end) for end in (self.low, self.high))
        refuse_unless(not (self.is_whole and is_fraction), f"{self}: its ends must be whole.")


@dataclass(frozen=True, kw_only=True, slots=True)
class OneOf:
    """A setting that has one of some values."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        refuse_unless(len(self.values) > 1, f"{self} leaves no choice.")


Choice = Between | OneOf


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What a model learns from: rows of the training table whose label is known, all alike.

    There are no weights of samples.
    """

    task: Task
    label: str
    """Column of the training table: 1 or 0 for a binary task, else a number; null when there is no
    label."""
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    baselines: tuple[Baseline, ...]
    """Simple models that a candidate must beat, each of them."""
    family: Family = field(default_factory=NeuralNetwork)
    """How it learns."""
    logarithms: tuple[Logarithm, ...] = ()
    """Numeric features that are read by their logarithm."""
    shared: tuple[str, ...] = ()
    """Numeric features that all rows of a day share, or most, such as its weather."""
    unread: tuple[str, ...] = ()
    """Features that the tables have and the model does not read, as where a backtest leaves some
    out. The settings of features may name them."""
    expected_slope: float = 1.0
    """How far log-odds are stretched around the mean to fit days to come; below 1 a model is
    overconfident. `nightshift backtest` tells it; a week of validation can only correct it."""
    slices: tuple[str, ...] = ()
    """Columns by whose values quality is also reported and protected."""
    window_days: int = 90
    """Days of labels that are trained on: the newest of all for the model that serves, those before
    the held-out days for the one by which it is judged."""
    holdout_days: int = 14
    """Newest days of labels, from which the judged model learns nothing: candidate, champion and
    baselines are compared there. Nor from the `Promotion.label_lag_days` before them."""
    validation_days: int = 7
    """Days at the end of the judged model's window kept out of its `fit`, for calibration."""
    min_rows: int = 2000
    """Fewest labelled rows to fit on, for what is judged and for the model that serves."""
    max_categories: int = 10_000
    """Of each categorical column, the most frequent ones: all others count as one, the unknown. The
    more there are, the more memory a model and each row that it scores take. It changes nothing of
    what counts as a value that no row of training had."""
    rows_in_process: int | None = 2_000_000
    """A window of more rows is laid out by Spark, and read piece by piece by a family that can
    (docs/how-to/large-training.md); None: never. The order in which rows are learned from differs,
    and with it the weights."""
    seed: int = 20130101
    """Of all that is drawn: the same rows and seed give the same weights."""

    def __post_init__(self) -> None:
        refuse_unless(
            self.task in get_args(Task),
            f"No task '{self.task}'. Known: {', '.join(get_args(Task))}.",
        )
        families = ", ".join(one.__name__ for one in get_args(Family))
        refuse_unless(
            isinstance(self.family, Family),
            f"family must be a value such as LinearModel(), but is {self.family!r}. "
            f"Known: {families}.",
        )
        refuse_odd_kinds("Training", self)
        refuse_unless(0 <= self.seed < _SEEDS, f"seed must be from 0 to {_SEEDS - 1}.")
        refuse_unless(self.min_rows >= 1, "min_rows must be at least 1.")
        refuse_unless(self.max_categories >= 1, "max_categories must be at least 1.")
        most = self.rows_in_process
        refuse_unless(most is None or most >= 0, "rows_in_process must be at least 0, or None.")
        twice = sorted({name for name in self.features if self.features.count(name) > 1})
        refuse_unless(not twice, f"Features declared twice: {twice}.")
        refuse_unless(bool(self.numeric), "A model needs at least one numeric feature.")
        both = sorted(set(self.unread) & set(self.features))
        refuse_unless(not both, f"Features that are read and unread: {both}.")
        refuse_unless(
            0 < self.validation_days < self.window_days,
            "validation_days must be from 1 to window_days - 1.",
        )
        refuse_unless(0.5 <= self.expected_slope <= 2, "expected_slope must be from 0.5 to 2.")
        refuse_unless(self.holdout_days >= 1, "holdout_days must be at least 1.")
        refuse_unless(
            self.window_days + self.holdout_days <= _MOST_DAYS,
            f"window_days and holdout_days must be at most {_MOST_DAYS:,} together. A window goes "
            "no further back than the feeds.",
        )
        self._refuse_odd_baselines()

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by its name, those of the family too."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        del found["family"]
        for one in fields(self.family):
            found[one.name] = getattr(self.family, one.name)
        return found

    @property
    def kinds(self) -> dict[str, Any]:
        """What each of its `settings` takes, as it is annotated."""
        known = {**kinds(type(self)), **kinds(type(self.family))}
        return {name: known[name] for name in self.settings}

    def with_settings(self, values: Mapping[str, Any]) -> Training:
        """The same with other values of settings, by their names."""
        of_family = {one.name for one in fields(self.family)}
        family = {name: value for name, value in values.items() if name in of_family}
        own = {name: value for name, value in values.items() if name not in of_family}
        learned_by: Any = replace(self.family, **family)
        return replace(self, **own, family=learned_by)

    def without(self, names: Collection[str]) -> Training:
        """The same with a model that does not read these of its features."""
        left_out = tuple(name for name in self.features if name in names)
        return replace(
            self,
            numeric=tuple(name for name in self.numeric if name not in left_out),
            categorical=tuple(name for name in self.categorical if name not in left_out),
            unread=self.unread + left_out,
        )

    @property
    def features(self) -> tuple[str, ...]:
        """Every feature that the model reads, numeric first."""
        return self.numeric + self.categorical

    @property
    def bends(self) -> dict[str, float]:
        """The bend of each feature that is read by its logarithm."""
        found: dict[str, float] = {}
        for one in self.logarithms:
            found |= dict.fromkeys(one.features, one.bend)
        return found

    @property
    def baseline_columns(self) -> tuple[str, ...]:
        """Every column that a baseline reads."""
        read: list[str] = []
        for baseline in self.baselines:
            read += baseline.columns if isinstance(baseline, GroupMean) else [baseline.feature]
        return tuple(dict.fromkeys(read))

    def _refuse_odd_baselines(self) -> None:
        names = [baseline.name for baseline in self.baselines]
        refuse_unless(bool(names), "A model needs a baseline to beat.")
        odd = [name for name in names if not name.isidentifier()]
        # The name becomes part of the names of metrics and columns.
        refuse_unless(not odd, f"A baseline cannot be named {odd}: letters, digits and '_' only.")
        refuse_unless(len(names) == len(set(names)), f"Two baselines have one name: {names}.")
        taken = {"candidate", "champion", "quantised", "model"} & set(names)
        refuse_unless(not taken, f"A baseline must not be named {sorted(taken)}.")
        read = [one.feature for one in self.baselines if isinstance(one, LastValue)]
        unknown = [feature for feature in read if feature not in self.numeric]
        refuse_unless(not unknown, f"LastValue of {unknown}, which are no numeric features.")
        refuse_unless(
            not read or self.task == "regression",
            "LastValue foretells a number, and a binary task has none: use GroupMean.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """When a candidate may serve; docs/decisions/0015 tells how these rules came to be.

    Baselines are compared with on the held-out days, the champion by evidence that piles up day by
    day from the night in which it began to serve.
    """

    resamples: int = 2000
    """Bootstrap resamples of the held-out days: with so many a share is known to about one
    percent."""
    min_win_rate: float = 0.75
    """Share of resamples in which the candidate's loss must be below each baseline's, where the
    champion's is not in fewer. From it follows how many held-out days need labels: 2 for 0.75, 5
    for 0.95."""
    min_first_win_rate: float = 0.95
    """The same while no model serves: then nothing else keeps a bad one out."""
    min_evidence: float = 2.5
    """Evidence of a lower loss than the champion's that takes its place. A candidate that is no
    better reaches it in one of so many nights at most."""
    min_effect: float = 0.25
    """Mean gain of a day at which evidence grows fastest, in standard deviations of the daily
    difference. A smaller gain takes longer to be seen."""
    max_age_days: int | None = 28
    """A model that has served for longer is replaced by a candidate that is not shown to be worse
    than it; None: it serves until a better one comes."""
    refresh_days: int | None = 7
    """The same for a candidate of the champion's own recipe, which differs by newer rows alone: it
    takes the place of one that has served for so many days. Not of one that a person has put back
    (but for `nightshift rollback --refresh`); None: it is as any other candidate."""
    tolerance: float = 0.1
    """By how much such a candidate may be worse, in the same standard deviations."""
    label_lag_days: int = 0
    """Days after the event by which its labels are known; then the day counts as evidence. So many
    days before the held-out ones the judged model learns nothing from: they tell of what was not
    known when these were scored."""
    max_slice_loss: float | None = None
    """How much worse (loss per row) the candidate may be than the champion on any slice; None:
    what the task takes for much (`jobs/training/tasks`). Harmed is a slice whose 95 % interval lies
    above it."""
    min_slice_rows: int = 500
    """Slices with fewer held-out rows are reported and not judged."""
    max_score: float | None = None
    """A pooled score (AUC of a binary task, R² of a regression) above this means that the future
    leaked in, and the candidate is refused; None: what the task takes for too good."""
    max_score_within_day: float | None = None
    """The same for the mean of the days' own scores, which what tells days apart cannot raise."""
    max_megabytes: float = 100.0
    """Of the files of a model: each night keeps a version."""
    max_seconds_per_1000_rows: float = 1.0
    """To score, once the model is loaded: a million rows then take a quarter of an hour."""
    needs_approval: bool = False
    """What the gate would promote awaits a person, who says `nightshift approve`; until then the
    champion serves on."""
    approval_hours: float | None = None
    """Hours that it awaits a person; then it does not serve, and people are told. None: for
    ever."""

    def __post_init__(self) -> None:
        refuse_odd_kinds("Promotion", self)
        # Below a half the worse of two models would be promoted.
        rates = (self.min_win_rate, self.min_first_win_rate)
        refuse_unless(
            all(0.5 <= rate <= 1 for rate in rates),
            "min_win_rate and min_first_win_rate must be from 0.5 to 1.",
        )
        refuse_unless(self.resamples >= 1, "resamples must be at least 1.")
        # Evidence begins at 1.
        refuse_unless(self.min_evidence > 1, "min_evidence must be above 1.")
        refuse_unless(0 < self.min_effect <= 1, "min_effect must be above 0, and at most 1.")
        refuse_unless(self.tolerance >= 0, "tolerance must be at least 0.")
        refuse_unless(self.label_lag_days >= 0, "label_lag_days must be at least 0.")
        refuse_unless(
            self.max_age_days is None or self.max_age_days >= 1,
            "max_age_days must be at least 1, or None.",
        )
        refuse_unless(
            self.refresh_days is None or self.refresh_days >= 1,
            "refresh_days must be at least 1, or None.",
        )
        hours = self.approval_hours
        refuse_unless(
            hours is None or (hours > 0 and self.needs_approval),
            "approval_hours must be above 0, and needs needs_approval=True.",
        )
        budgets = (self.max_megabytes, self.max_seconds_per_1000_rows)
        refuse_unless(
            all(budget > 0 for budget in budgets),
            "max_megabytes and max_seconds_per_1000_rows must be above 0.",
        )

    def needed_win_rate(self, *, is_first: bool) -> float:
        """Share of resamples in which a candidate must win over each baseline."""
        return self.min_first_win_rate if is_first else self.min_win_rate

    def fewest_days(self, *, is_first: bool) -> int:
        """Held-out days with labels of which that share can be told.

        A model that is no better wins on each of n days by chance once in 2**n: of fewer days it
        reaches the share too often.
        """
        # No share of so many resamples is finer than one of them.
        chance = max(1 - self.needed_win_rate(is_first=is_first), 1 / self.resamples)
        return max(1, math.ceil(-math.log2(chance)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """What is too much of a change, and what follows; docs/decisions/0017 tells why so.

    A measure is in alarm when it lies over its threshold in `min_nights` of the last `nights`. Each
    alarm is told; some kinds do more.
    """

    nights: int = 7
    """The last nights that are looked at."""
    min_nights: int = 5
    """In so many of them a measure must lie over its threshold."""
    reference_nights: int = 28
    """Nights that a night is compared with: those before the last `nights`, so that a change is not
    compared with itself. With fewer than three quarters of them nothing is told of drift."""
    unwatched: tuple[str, ...] = ()
    """Features that drift by what they are, such as the month: nothing is told of their drift."""
    drift_multiple: float = 1.5
    """How far a night may lie from the reference, in multiples of the farthest of its nights. Of
    shares and categories, which cannot lie farther off than 1: half as far, unless a quarter of the
    nights lies as far off by itself."""
    least_drift: float = 0.1
    """A smaller drift is none: standard deviations of a number, a distance from 0 to 1 of a
    category, a share of rows of missing values."""
    max_skew: float = 0.01
    """Share of training rows with another value of a feature than the row that was scored."""
    max_unpredicted: float = 0.05
    """Share of a night's labels that nothing was foretold for."""
    max_unlabelled: float = 0.25
    """Share of predictions whose label is not known `Promotion.label_lag_days` after the event."""
    quality_days: int = 28
    """Days of labels over which live quality is compared with what the gate promised; of these what
    was foretold since the champion's recipe began to serve."""
    max_quality_loss: float = 0.3
    """Share of the promised quality that may be lost: over it is a loss whose 95 % interval lies
    above."""
    holds: tuple[WatchKind, ...] = ("skew",)
    """While a measure of these kinds is in alarm, no candidate takes a champion's place."""
    retrains: tuple[WatchKind, ...] = ("quality",)
    """While one of these is, by the nights since the champion's turn began, it counts as too old
    (`Promotion.max_age_days`): the night's candidate takes its place unless it is shown to be
    worse. Where `Promotion.refresh_days` is no more than `min_nights`, newer fits take it before:
    then it changes only what becomes of another recipe, and of a champion that was put back."""

    def __post_init__(self) -> None:
        refuse_odd_kinds("Watch", self)
        refuse_unless(
            1 <= self.min_nights <= self.nights,
            f"min_nights must be from 1 to nights, {self.nights}.",
        )
        refuse_unless(self.reference_nights >= 7, "reference_nights must be at least 7: a week.")
        # Below 1 the reference itself would drift.
        refuse_unless(self.drift_multiple >= 1, "drift_multiple must be at least 1.")
        refuse_unless(self.quality_days >= 7, "quality_days must be at least 7: a week.")
        names = ("least_drift", "max_skew", "max_unpredicted", "max_unlabelled", "max_quality_loss")
        odd = [name for name in names if not 0 < getattr(self, name) < 1]
        refuse_unless(not odd, f"{', '.join(odd)} must be above 0 and below 1.")
        for name in ("holds", "retrains"):
            kinds = getattr(self, name)
            unknown = sorted(set(kinds) - set(get_args(WatchKind)))
            known = ", ".join(get_args(WatchKind))
            refuse_unless(not unknown, f"{name}: no kind {unknown}. Known: {known}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """How rows are scored by the model that serves."""

    odd_inputs: OddInputs = "score"
    """A number that is missing counts as its mean, an infinite one as the bound of its end, beyond
    which lies a thousandth of what was seen, an unknown category as the unknown one. `refuse`: no
    night is published that needs it. Of a column with more than 10,000 categories that were not
    learned, such as ids, a missing one alone is told from what some row of training had."""
    quantised: bool = False
    """Whether the variant with numbers of 8 bits serves, where it has passed; else, and without
    one, the model without rounding."""
    max_quantised_loss: float = 0.002
    """By which share of itself the mean loss of a row may grow in the quantised variant, on the
    held-out days: it passes when the 95 % interval of the growth lies below."""

    def __post_init__(self) -> None:
        refuse_odd_kinds("Serving", self)
        known = ", ".join(get_args(OddInputs))
        refuse_unless(
            self.odd_inputs in get_args(OddInputs),
            f"odd_inputs cannot be '{self.odd_inputs}'. Known: {known}.",
        )
        share = self.max_quantised_loss
        refuse_unless(0 < share < 1, "max_quantised_loss must be above 0 and below 1.")
