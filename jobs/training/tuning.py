"""Which settings make the best model: Optuna proposes them, and backtests judge.

A trial is a backtest with other settings, over the same nights as every other trial. The declared
settings are the first one. What is done stays in the home: the next time goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from mlflow.entities import Metric, Param
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from jobs.services import signals
from jobs.services.home import private_home
from jobs.training import backtest, paired
from jobs.training.backtest import MODEL, Backtest
from jobs.training.families import NeedsMore
from jobs.training.registry import client_of, experiment_of
from jobs.training.tasks import task_of
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.model import Between, OneOf
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from optuna.trial import FrozenTrial, Trial

    from jobs.training.paired import Difference
    from pipelines.environment import Environment
    from pipelines.model import Choice
    from pipelines.spec import Pipeline

_SEED = 0
"""Of the sampler of a tuning that begins: the same trials follow from the same results."""
_DRAWS = 50
"""Of settings for a trial, while they are those of one that has ended: few values have few
combinations, and all of them may have been tried."""
_TRIALS_BEFORE_PRUNING = 4
_NIGHTS_BEFORE_PRUNING = 2
"""A trial goes on at least so long: one night tells little."""
_DIGITS = 12
"""Of a digest in a name: enough to tell a person's tunings apart."""
_BACKTEST = "backtest"
_REFUSED = "refused"
_AGAIN = "again"
_FAULT = "fault"
"""What a trial remembers: the digest of its backtest, why its settings have failed, the number of
the one that was cut off and whose settings it tries again, and the fault that cut it off."""


class _Failed(Exception):
    """A trial has failed by its settings, and others may do better."""


class _CutOff(Exception):
    """A trial was cut off; the next time goes on from its last night."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _End:
    """When trials are cut off with the night that they are at."""

    deadline: float
    """On the monotonic clock; infinite: none."""
    told: Event
    """A person has interrupted the tuning, or a fault has ended it."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is tried, on which nights."""

    declared: Backtest
    """With the settings as they are declared; its pipeline's `search` says what else to try."""

    # Once: a night may publish rows while settings are tried.
    @cached_property
    def rows_said(self) -> str:
        """What the training table said at first: losses over other rows cannot be compared.

        Raises:
            NightshiftError: the training table has never been published.
        """
        return backtest.rows_said(self.declared)

    @property
    def digest(self) -> str:
        """By which this tuning is told apart from others."""
        search = {name: repr(choice) for name, choice in self.pipeline.search.items()}
        days = self.declared.days
        about = [search, str(days.first), str(days.last)]
        told = [*about, self.declared.settings, self.rows_said]
        text = json.dumps(told, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]

    @property
    def pipeline(self) -> Pipeline:
        """As declared."""
        return self.declared.pipeline

    @property
    def environment(self) -> Environment:
        """Whose lake and home it is."""
        return self.declared.environment

    @property
    def journal(self) -> Path:
        """File of everything that was tried."""
        folder = self.environment.home / "tunings" / self.pipeline.name
        return folder / f"{self.digest}.log"

    def trial(self, settings: Mapping[str, Any]) -> Backtest:
        """The backtest with these settings."""
        training = self.pipeline.training
        own = training.settings
        # A whole number that Optuna gives back as a fraction is no other setting.
        others = {one: value for one, value in settings.items() if value != own[one]}
        changed = training.with_settings(others)
        return replace(self.declared, pipeline=replace(self.pipeline, training=changed))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """One trial that has ended, or whose time was up."""

    number: int
    """From 0, in the order in which they began."""
    state: str
    """done, pruned (it was clearly worse than others halfway), failed, or cut off."""
    loss: float | None
    """Mean loss of a row; of a pruned one over the nights until then; None: it failed, or was cut
    off."""
    settings: Mapping[str, Any]
    backtest: str
    """Digest; empty: it failed before."""
    why: str
    """It failed or was cut off; empty: it did not, and was not."""
    gain: Difference | None
    """By how much its loss of a row is below that of the declared settings; None: these are they,
    or one of both was not done, or its results are gone."""


def tune(
    tuning: Tuning,
    ranks_in: Environment,
    *,
    trials: int,
    seconds: float | None,
    at_once: int,
    told: Callable[[Tried], None],
) -> list[Tried]:
    """Try settings until there are so many trials or the time is up.

    Args:
        tuning: What to try.
        ranks_in: Where the processes of a training are started.
        trials: In all, with those of earlier times.
        seconds: After which no trial is begun, and those that run are cut off with their current
            night; None: no bound.
        at_once: Trials that run side by side, each in a thread with ranks of its own.
        told: Is called when a trial has ended or was cut off.

    Returns:
        Every trial that has ended, best first.

    Raises:
        UsageError: the pipeline declares nothing to try.
        Refused: no row about the days has a label.
        NightshiftError: a training failed, and not by its settings, which the next time are tried
            again, and a second fault is taken for theirs; or training rows changed meanwhile; or
            the experiment was deleted in MLflow.
        KeyboardInterrupt: a person has interrupted it, and no trial runs any more.
    """
    if not tuning.pipeline.search:
        raise UsageError(
            f"Pipeline '{tuning.pipeline.name}' declares nothing to try. Say what: "
            'search={"learning_rate": Between(low=1e-4, high=1e-2, is_log=True)}'
        )
    # No fault of any settings, to which it would count for ever.
    backtest.require_labels(tuning.declared)
    study = _study(tuning, at_once)
    _go_on(study, _declared(tuning))
    ended = len(_ended(study))

    faults: list[BaseException] = []
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    end = _End(deadline=deadline, told=Event())

    def judge(trial: Trial) -> float:
        with _kept_in(faults, end):
            return _judge(tuning, trial, ranks_in, end)

    def tell(_: optuna.Study, trial: FrozenTrial) -> None:
        if end.told.is_set():
            # No other is begun.
            study.stop()
            if _was_cut_off(trial):
                return
        tried = _tried(tuning, trial)
        with _kept_in(faults, end):
            if not _was_cut_off(trial):
                _log(tuning, trial, tried)
            told(tried)

    if ended < trials:
        # Before a trial that could not be kept.
        _experiment(tuning, client_of(tuning.environment))
        with _interrupted(end, at_once):
            study.optimize(
                judge,
                n_trials=trials - ended,
                timeout=seconds,
                n_jobs=at_once,
                catch=(_Failed, _CutOff),
                callbacks=[tell],
            )
    if faults:
        raise faults[0]
    return _best_first(tuning, study)


@contextmanager
def _kept_in(faults: list[BaseException], end: _End) -> Iterator[None]:
    """Keep what ends the tuning: of the last trials side by side Optuna loses what they raise."""
    try:
        yield
    except (_Failed, _CutOff, optuna.TrialPruned):
        raise
    except BaseException as error:
        faults.append(error)
        # Optuna waits for the others.
        end.told.set()
        raise


def _interrupted(end: _End, at_once: int) -> AbstractContextManager[None]:
    """Let Ctrl-C end trials; side by side they are in threads, for which Optuna waits."""
    if at_once == 1:
        return nullcontext()

    def tell() -> None:
        end.told.set()
        print(
            "\nEnding with the night that each trial is at. Ctrl-C again ends at once, and the "
            "same command then trains these nights anew.",
            file=sys.stderr,
            flush=True,
        )

    return signals.interrupted_once_done(tell)


def _study(tuning: Tuning, at_once: int) -> optuna.Study:
    # Its lines would say what ours do.
    optuna.logging.set_verbosity(logging.ERROR)
    private_home(tuning.environment)
    tuning.journal.parent.mkdir(parents=True, exist_ok=True)
    _cut_to_whole_lines(tuning.journal)
    study = optuna.create_study(
        study_name=tuning.digest,
        storage=JournalStorage(JournalFileBackend(str(tuning.journal))),
        pruner=optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING, _NIGHTS_BEFORE_PRUNING),
        direction="minimize",
        load_if_exists=True,
    )
    # The numbers that a command before has drawn would propose its settings again.
    seed = _SEED + len(study.trials)
    study.sampler = _Sampler(tuning.pipeline.search, seed, at_once)
    return study


def _cut_to_whole_lines(journal: Path) -> None:
    """Keep what was written before the first line that is not whole, as after a full disk.

    Optuna reads no journal that goes on behind such a line. Nobody else writes into it: who tunes
    the same waits. The nights of a trial that is cut off stay in its backtest.
    """
    if not journal.exists():
        return
    with journal.open("r+b") as file:
        whole = 0
        for line in file:
            if not _is_whole(line):
                break
            whole += len(line)
        file.truncate(whole)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return line.endswith(b"\n")


class _Sampler(optuna.samplers.TPESampler):
    """Optuna's, which draws again where a trial with the same settings has ended."""

    def __init__(self, search: Mapping[str, Choice], seed: int, at_once: int) -> None:
        # Where trials run side by side, those that still run count as bad: others look elsewhere.
        super().__init__(seed=seed, constant_liar=at_once > 1)
        self._space = {name: _distribution(choice) for name, choice in search.items()}

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Every setting, so that all are drawn at once."""
        return self._space

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Settings that no trial had which has ended, where a few draws find such."""
        drawn: dict[str, Any] = {}
        for _ in range(_DRAWS):
            drawn = {
                name: self.sample_independent(study, trial, name, one)
                for name, one in search_space.items()
            }
            if _same(study, drawn) is None:
                break
        return drawn


def _same(study: optuna.Study, settings: Mapping[str, Any]) -> FrozenTrial | None:
    """The trial with these settings that has ended first; None: there is none."""
    return next((one for one in _ended(study) if one.params == settings), None)


def _distribution(choice: Choice) -> BaseDistribution:
    if isinstance(choice, OneOf):
        return CategoricalDistribution([*_by_text(choice)])
    if choice.is_whole:
        return IntDistribution(int(choice.low), int(choice.high), log=choice.is_log)
    return FloatDistribution(choice.low, choice.high, log=choice.is_log)


def _go_on(study: optuna.Study, declared: Mapping[str, Any]) -> None:
    """Begin with the declared settings; what was cut off is done again, from where it was."""
    if not study.trials:
        study.enqueue_trial(dict(declared))
    for trial in study.trials:
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)
    tried_again = {trial.user_attrs.get(_AGAIN) for trial in study.trials}
    for trial in study.trials:
        if _was_cut_off(trial) and trial.number not in tried_again:
            settings = trial.params or dict(declared)
            kept = {name: trial.user_attrs[name] for name in (_FAULT,) if name in trial.user_attrs}
            study.enqueue_trial(settings, user_attrs={_AGAIN: trial.number, **kept})


def _was_cut_off(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and _REFUSED not in trial.user_attrs


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ended by themselves."""
    return [one for one in study.trials if one.state.is_finished() and not _was_cut_off(one)]


def _declared(tuning: Tuning) -> dict[str, Any]:
    """The declared value of each setting that is tried, as Optuna writes it."""
    settings = tuning.pipeline.training.settings
    written = {}
    for name, choice in tuning.pipeline.search.items():
        value = settings[name]
        if isinstance(choice, OneOf):
            # As it is written there: 1 may be declared, and 1.0 be among the values.
            value = next(_text(one) for one in choice.values if one == value)
        written[name] = value
    return written


def _judge(tuning: Tuning, trial: Trial, ranks_in: Environment, end: _End) -> float:
    """Mean loss of a row in the backtest of the trial's settings.

    Raises:
        TrialPruned: it is clearly worse than others.
        _CutOff: it has nights left.
        _Failed: its settings make no model.
        NightshiftError: what failed may be the machine.
    """
    search = tuning.pipeline.search
    settings = {name: _proposed(trial, name, one) for name, one in search.items()}
    if (before := _same(trial.study, trial.params)) is not None:
        return _taken_over(trial, before)
    try:
        return _mean_loss(tuning, trial, settings, ranks_in, end)
    except NightshiftError as error:
        why = error
    if end.told.is_set():
        # Ctrl-C ends ranks too.
        raise _CutOff from why
    # Such as weights that are not finite under a rate that is too high, a network that is too
    # large, or a value that does not go with another.
    is_of_settings = isinstance(why, Refused | NeedsMore | UsageError)
    # The machine may be at fault once, and would be so with all other settings too.
    if not is_of_settings and _FAULT not in trial.user_attrs:
        trial.set_user_attr(_FAULT, str(why))
        raise why
    trial.set_user_attr(_REFUSED, str(why))
    raise _Failed from why


def _taken_over(trial: Trial, before: FrozenTrial) -> float:
    """How a trial with the same settings has ended, which is not judged again.

    Raises:
        TrialPruned, _Failed: so it has ended.
    """
    for name in (_BACKTEST, _REFUSED):
        if name in before.user_attrs:
            trial.set_user_attr(name, before.user_attrs[name])
    for night, loss in before.intermediate_values.items():
        trial.report(loss, night)
    if before.state == TrialState.PRUNED:
        raise optuna.TrialPruned
    if before.state == TrialState.FAIL:
        raise _Failed(before.user_attrs[_REFUSED])
    assert before.value is not None, "it was done"
    return before.value


def _mean_loss(
    tuning: Tuning,
    trial: Trial,
    settings: Mapping[str, Any],
    ranks_in: Environment,
    end: _End,
) -> float:
    asked = tuning.trial(settings)
    trial.set_user_attr(_BACKTEST, asked.digest)
    loss = float("nan")
    last = len(asked.parts) - 1
    for night, done in enumerate(backtest.walk(asked, ranks_in)):
        if not done.rows:
            # No label tells how good this night was.
            continue
        loss = _loss(asked, night + 1)
        trial.report(loss, night)
        if trial.should_prune():
            raise optuna.TrialPruned
        # Not after a night that was done before: else little time would bring it no further.
        is_new = done.seconds is not None
        is_late = is_new and time.monotonic() > end.deadline
        if night < last and (is_late or end.told.is_set()):
            raise _CutOff
    _require_same_rows(tuning)
    return loss


def _require_same_rows(tuning: Tuning) -> None:
    """Refuse to compare a trial with others that scored other rows.

    Raises:
        NightshiftError: the training rows are not those that the tuning began with.
    """
    if backtest.rows_said(tuning.declared) != tuning.rows_said:
        pipeline, days = tuning.pipeline.name, tuning.declared.days
        raise NightshiftError(
            f"{pipeline}.{TRAINING} has changed while settings were tried over {days}: their "
            "losses are of other rows. Give the same command again: it begins anew, and nights "
            "that read nothing of the change are not trained again."
        )


def _proposed(trial: Trial, name: str, choice: Choice) -> Any:
    if isinstance(choice, Between):
        if choice.is_whole:
            low, high = int(choice.low), int(choice.high)
            return trial.suggest_int(name, low, high, log=choice.is_log)
        return trial.suggest_float(name, choice.low, choice.high, log=choice.is_log)
    values = _by_text(choice)
    return values[trial.suggest_categorical(name, list(values))]


def _by_text(choice: OneOf) -> dict[str, Any]:
    # Optuna keeps texts and numbers, and a value may be a tuple.
    return {_text(value): value for value in choice.values}


def _loss(asked: Backtest, nights: int) -> float:
    results = backtest.read(asked, nights)
    task = task_of(asked.pipeline.training.task)
    return float(np.mean(task.losses(results.label, results.predictions[MODEL])))


def _best_first(tuning: Tuning, study: optuna.Study) -> list[Tried]:
    tried = [_tried(tuning, trial) for trial in _ended(study)]
    order = {"done": 0, "pruned": 1, "failed": 2}

    def rank(one: Tried) -> tuple[int, float, int]:
        return order[one.state], one.loss or 0, one.number

    return sorted(tried, key=rank)


def _tried(tuning: Tuning, trial: FrozenTrial) -> Tried:
    states = {TrialState.COMPLETE: "done", TrialState.PRUNED: "pruned"}
    settings = _settings(tuning, trial)
    is_done = trial.state == TrialState.COMPLETE
    unended, why = "failed", str(trial.user_attrs.get(_REFUSED, ""))
    if _was_cut_off(trial):
        unended, why = "cut off", "time is up, and the same command goes on from there"
    return Tried(
        number=trial.number,
        state=states.get(trial.state, unended),
        loss=trial.value,
        settings=settings,
        backtest=str(trial.user_attrs.get(_BACKTEST, "")),
        why=why,
        gain=_gain(tuning, settings) if is_done else None,
    )


def _settings(tuning: Tuning, trial: FrozenTrial) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, kept in trial.params.items():
        choice = tuning.pipeline.search[name]
        value = kept
        if isinstance(choice, OneOf):
            value = _by_text(choice)[kept]
        declared = tuning.pipeline.training.settings[name]
        # As it is written down: Optuna gives a whole number back as a fraction.
        settings[name] = declared if value == declared else value
    return settings


def _gain(tuning: Tuning, settings: Mapping[str, Any]) -> Difference | None:
    asked = tuning.trial(settings)
    if asked.digest == tuning.declared.digest:
        return None
    try:
        own, declared = backtest.read(asked), backtest.read(tuning.declared)
    except FileNotFoundError:
        # Another trial came in before the first one, which runs beside it; or somebody has deleted
        # what backtests have kept.
        return None
    task = task_of(tuning.pipeline.training.task)
    before = task.losses(declared.label, declared.predictions[MODEL])
    losses = task.losses(own.label, own.predictions[MODEL])
    return paired.difference(before, losses, own.day)


def _experiment(tuning: Tuning, client: MlflowClient) -> str:
    return experiment_of(client, f"{tuning.pipeline.name}-tune")


def _log(tuning: Tuning, trial: FrozenTrial, tried: Tried) -> None:
    """Keep a trial in MLflow, where people compare runs."""
    client = client_of(tuning.environment)
    tags = {"tuning": tuning.digest, "state": tried.state, _BACKTEST: tried.backtest}
    experiment = _experiment(tuning, client)
    run = client.create_run(experiment, run_name=f"trial {tried.number}", tags=tags)
    params = [Param(name, _text(value)) for name, value in tried.settings.items()]
    steps = trial.intermediate_values.items()
    finite = [(step, loss) for step, loss in steps if np.isfinite(loss)]
    metrics = [Metric("mean_loss", loss, 0, step) for step, loss in finite]
    client.log_batch(run.info.run_id, metrics, params)
    client.set_terminated(run.info.run_id, "FAILED" if tried.state == "failed" else "FINISHED")


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
