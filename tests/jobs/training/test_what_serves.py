"""One truth about what serves, whatever order nights, people and kills come in.

A small pipeline lives through any sequence of nights, of old nights that are run again, of
rollbacks and approvals, of aliases moved by hand and of kills. What models are worth is planted;
the gate, the record, the turns, the alias and its tag in MLflow are the real ones. A plain model of
docs/decisions/0013, 0015 and 0027, which shares no code with them, foretells each step.
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, TypeVar

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobs.commands import decide
from jobs.commands.decide import Said
from jobs.lake import model_events, ops
from jobs.services import stage_client
from jobs.stages import evaluate as stage
from jobs.training import cards, comparison, promotion, scoring, serving, shadow
from jobs.training.comparison import CANDIDATE, CHAMPION, HeldOut
from jobs.training.metrics import Metrics
from jobs.training.registry import NOWHERE, ModelVersion, Registry
from jobs.training.tasks import task_of
from pipelines import catalog
from pipelines.environment import Environment
from pipelines.errors import Refused, UsageError
from pipelines.model import Promotion
from tests.conftest import SWEEP_EXAMPLES
from tests.jobs.training import small

SAID = Said(who="alice", why="it was odd")
REFRESH_DAYS, MAX_AGE_DAYS = 2, 5
LIMITS = Promotion(
    refresh_days=REFRESH_DAYS,
    max_age_days=MAX_AGE_DAYS,
    max_slice_loss=1.0,
)
UNFIT, BEST = 0, 3
"""Of the qualities that are planted, whose higher one is the better."""
DAYS_TOLD = 12
"""Enough for evidence of any difference."""
TOLD = ("event", "model_version", "champion_before", "serves", "alias_was_moved_to")
Told = dict[str, Any]
"""Of the stage's metrics those of `TOLD`."""
RECIPES = ("as ever", "another")
SETTERS = tuple(
    f"{does}_registered_model_{what}" for does in ("set", "delete") for what in ("alias", "tag")
)
CALLS = 3
"""Of MLflow by which the alias is set: a process may be killed before each."""
_NUMBERS = itertools.count()
_T = TypeVar("_T")


class KilledError(BaseException):
    """In the place of SIGKILL: nothing of ours catches it."""


@cache
def _home() -> tuple[Environment, ModelVersion]:
    """A home whose registry all examples share, and a model that has what it takes to serve."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    environment = small.models_at(folder)
    files = folder / "files"
    files.mkdir()
    for name in ("encoding.json", "linear.json"):
        (files / name).write_text(name)
    pattern = Registry(environment, "pattern").keep(
        files,
        as_of=small.LAST,
        fingerprint="pattern",
        family="linear",
        recipe=RECIPES[0],
        params={},
        curves={},
        pins={},
    )
    return environment, pattern


class Platform:
    """The real record and registry, of models whose quality is planted."""

    def __init__(self, folder: Path) -> None:
        environment, pattern = _home()
        self.environment = replace(environment, lake=str(folder / "lake"))
        name = f"serves_{next(_NUMBERS)}"
        training = replace(small.TRAINING, slices=())
        self.pipeline = replace(small.SMALL, name=name, training=training, promotion=LIMITS)
        self.registry = Registry(self.environment, name)
        self.quality: dict[str, int] = {}
        """By fingerprint."""
        self.is_up = False
        """Whether the stage server is, in whose place is this process."""
        self.kill: int | None = None
        self._run_id = pattern.run_id
        self._digests = {f"sha256.{file}": digest for file, digest in pattern.sha256.items()}

    def put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        """Have the real code find what is planted, and be killed where it is to be."""
        for loading in ("load", "load_judged"):
            patch.setattr(scoring, loading, self._load)
        patch.setattr(stage, "_held_out", _held_out)
        patch.setattr(comparison, "measure", _measure)
        patch.setattr(comparison, "to_json", _to_json)
        patch.setattr(shadow, "told", _told)
        patch.setattr(stage, "_log", _nothing)
        patch.setattr(cards, "keep", _nothing)
        patch.setattr(catalog, "pipeline", lambda _: self.pipeline)
        patch.setattr(stage_client, "available", lambda _: self.is_up)
        patch.setattr(stage_client, "call", _call)
        patch.setattr(stage_client, "Forked", Child)
        for setting in (Registry.set_champion, Registry.remove_champion):
            patch.setattr(Registry, setting.__name__, self._killed(setting))

    def _killed(self, whole: Callable[..., None]) -> Callable[..., None]:
        """The same, killed before one of its calls of MLflow, where it is to be, once."""

        def setting(registry: Registry, *arguments: str) -> None:
            calls = itertools.count()
            kill, self.kill = self.kill, None

            def counted(call: Callable[..., None], *more: str) -> None:
                if next(calls) == kill:
                    raise KilledError
                call(*more)

            with pytest.MonkeyPatch.context() as patch:
                for name in SETTERS:
                    call = getattr(registry._client, name)
                    patch.setattr(registry._client, name, partial(counted, call))
                whole(registry, *arguments)

        return setting

    def train(self, night: date, fingerprint: str, recipe: str) -> ModelVersion:
        """A candidate, of which the registry knows all but the files."""
        tags = {
            "as_of": str(night),
            "fingerprint": fingerprint,
            "family": "linear",
            "recipe": recipe,
            **self._digests,
        }
        return self.registry.challenge(self.registry._register(self._run_id, tags))

    def evaluate(self, night: date, *, needs_approval: bool) -> Told:
        """What the stage tells; nothing: the candidate was refused, and no other model serves."""
        run = small.run_of(self.environment, "evaluate", night, pipeline=self.pipeline)
        try:
            told = stage.evaluate(replace(run, needs_approval=needs_approval))
        except Refused:
            return {}
        return {name: told[name] for name in TOLD}

    def recorded(self) -> list[dict[str, Any]]:
        """The whole record, oldest first."""
        rows = ops.read(self.environment, "model_events").to_pylist()
        return sorted(rows, key=itemgetter("created_at"))

    def turns(self) -> list[model_events.Turn]:
        return model_events.turns(self.environment, self.pipeline.name)

    def moves(self) -> list[str]:
        """Where the alias was moved to by hand, as the record tells."""
        moves = model_events.alias_moves(self.environment, self.pipeline.name)
        return [_moved_to(move) for move in moves]

    def _load(self, _: Registry, model: ModelVersion) -> SimpleNamespace:
        says = np.array([self.quality[model.fingerprint]], dtype=np.float64)
        return SimpleNamespace(score=lambda _: says)


def _moved_to(move: Mapping[str, Any]) -> str:
    deleted = "deleted the alias" in move["reason"]
    return NOWHERE if deleted else str(move["model_version"])


def _held_out(_: object, scorers: Iterable[Any]) -> HeldOut:
    """One row; what is said of it is the quality of who says it."""
    candidate, *_rest = scorers
    rows = pa.table({"quality": [0.0]})
    return HeldOut(
        task=task_of("regression"),
        rows=rows,
        day=np.zeros(1),
        label=np.zeros(1),
        models={CANDIDATE: candidate.score(rows)},
        baselines={},
    )


def _told(_: object, __: object, ___: object, held: HeldOut) -> shadow.Told:
    """Evidence of whatever difference there is."""
    gain = held.models[CANDIDATE] - held.models[CHAMPION]
    return shadow.Told(gains=np.repeat(gain, DAYS_TOLD), held_out=0)


def _measure(
    held: HeldOut,
    _: object,
    __: object,
    challenge: promotion.Challenge | None,
) -> promotion.Evidence:
    qualities = {name: float(says[0]) for name, says in held.models.items()}
    fits = {name: float(quality > UNFIT) for name, quality in qualities.items()}
    measured: dict[str, Metrics] = {}
    for name, quality in qualities.items():
        measured[name] = {"r2": 0.5, "rmse": 9 - quality}
    return promotion.Evidence(
        task=held.task,
        candidate=measured[CANDIDATE],
        champion=measured.get(CHAMPION),
        baselines={"usual": {"r2": 0.4, "rmse": 8.5}},
        wins_over_baselines={"usual": fits[CANDIDATE]},
        champion_wins={"usual": fits[CHAMPION]} if CHAMPION in fits else {},
        challenge=challenge,
        days=DAYS_TOLD,
        score_within_day=None,
    )


def _to_json(evidence: promotion.Evidence, _: object) -> dict[str, Any]:
    return {
        "rows": 1,
        "days": evidence.days,
        "candidate": evidence.candidate,
        "champion": evidence.champion,
        "baselines": evidence.baselines,
        "challenge": evidence.challenge and asdict(evidence.challenge),
    }


def _nothing(*_: object) -> None:
    pass


def _called(function: str, argument: Mapping[str, Any]) -> int:
    _, _, name = function.partition(":")
    code: int = getattr(serving, name)(argument)
    return code


def _call(
    _: object,
    function: str,
    argument: Mapping[str, Any],
    __: object,
) -> int:
    return _called(function, argument)


class Child:
    """Of the stage server, in this process."""

    message = ""

    def __init__(
        self,
        _: Environment,
        function: str,
        argument: Mapping[str, Any],
        __: object,
        output: IO[str],
    ) -> None:
        self._code = _called(function, argument)
        output.write("it is there\n")

    def wait(self, _: float) -> int:
        return self._code

    def kill(self) -> None:
        pass


@dataclass(kw_only=True, slots=True)
class Model:
    """One version, as the plain model knows it."""

    version: str
    night: date
    fingerprint: str
    recipe: str
    last: list[object] = field(default_factory=list)
    """What the gate has said of it last, with what it rests on."""
    word: str | None = None
    """What a person has said of it last."""
    awaits: bool = False
    trusted: bool = False
    """Whether a person has ever let it serve."""


@dataclass(kw_only=True, slots=True)
class Spell:
    """A version serves from a night on."""

    night: date
    version: str
    since: date
    said: int
    """Its number among all."""
    held: bool = False

    @property
    def place(self) -> tuple[date, int]:
        """Of one night the last that was said comes last."""
        return self.night, self.said


@dataclass(kw_only=True, slots=True)
class Expected:
    """What serves when, by the decisions."""

    quality: dict[str, int]
    models: dict[str, Model] = field(default_factory=dict)
    said: list[Spell] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    let_in: dict[str, Spell] = field(default_factory=dict)
    """The first spell of each version to which a person may go back."""
    newest: date = date.min
    challenger: str = ""
    events: int = 0
    alias: str | None = None
    left_at: list[str | None] = field(default_factory=lambda: [None])
    """Where the platform has left the alias; of several the last that it was about to set."""
    moves: list[str] = field(default_factory=list)
    kill: int | None = None

    def spells(self, besides: str = "") -> list[Spell]:
        """In their order."""
        others = [spell for spell in self.said if spell.version != besides]
        return sorted(others, key=lambda spell: spell.place)

    def spell(self, night: date, besides: str = "") -> Spell | None:
        """What serves that night."""
        by_then = [spell for spell in self.spells(besides) if spell.night <= night]
        return by_then[-1] if by_then else None

    def now(self) -> str | None:
        return self.spells()[-1].version if self.said else None

    def candidate(self, night: date) -> Model:
        if self.models[self.challenger].night == night:
            return self.models[self.challenger]
        return [model for model in self.models.values() if model.night == night][-1]

    def look(self) -> str | None:
        """Somebody looks at the alias, who tells where a hand has moved it to."""
        serves = self.now()
        if self.alias == serves:
            return None
        moved = None
        if self.alias not in self.left_at:
            moved = self.alias or NOWHERE
            self.moves.append(moved)
            self.events += 1
        self._point_to(serves)
        return moved

    def _point_to(self, version: str | None) -> None:
        calls = CALLS if self.kill is None else self.kill
        if calls > 0:
            others = [place for place in self.left_at if place != version]
            self.left_at = [*others, version]
        if calls > 1:
            self.alias = version
        if calls < CALLS:
            raise KilledError
        self.left_at = [version]

    def evaluate(self, night: date, *, needs_approval: bool) -> Told:
        """What the stage tells."""
        moved = self.look()
        model = self.candidate(night)
        champion = self.spell(night, besides=model.version)
        event = self._word(model)
        if event is None:
            event, *why = self._verdict(model, champion)
            if event == "promoted" and needs_approval:
                event = "awaiting"
            self._settle(model, event, why)
            if event == "refused" and champion is None:
                return {}
        serves = self.spell(night)
        return {
            "event": event,
            "model_version": model.version,
            "champion_before": champion and champion.version,
            "serves": serves and serves.version,
            "alias_was_moved_to": moved,
        }

    def _settle(self, model: Model, event: str, why: list[object]) -> None:
        # The same words again are said once.
        if model.last == [event, *why]:
            return
        model.last = [event, *why]
        self.events += 1
        self.newest = max(self.newest, model.night)
        model.awaits = event == "awaiting"
        if event == "promoted":
            self._begin(model)
        elif event == "refused":
            self._never_was(model)
        self.look()

    def _word(self, model: Model) -> str | None:
        """A person's, which the gate never overrules."""
        if model.word:
            return model.word
        for other in self.models.values():
            is_against = other.word in ("rejected", "rolled_back")
            if is_against and other.fingerprint == model.fingerprint:
                return other.word
        return None

    def _verdict(self, model: Model, champion: Spell | None) -> tuple[Any, ...]:
        """The gate's, and all that it rests on."""
        own = self.quality[model.fingerprint]
        if champion is None:
            return "refused" if own == UNFIT else "promoted", own
        rival = self.models[champion.version]
        others = self.quality[rival.fingerprint]
        age = max(0, (model.night - champion.since).days)
        is_newer_fit = rival.recipe == model.recipe
        is_refresh = is_newer_fit and not champion.held
        is_old = age > MAX_AGE_DAYS or (is_refresh and age >= REFRESH_DAYS)
        event = "promoted" if own > others or (is_old and own == others) else "kept"
        if own == UNFIT:
            event = "refused"
        # Whether its turn was said once or again is no reason.
        turn = champion.version, champion.night, champion.since, champion.held
        return event, own, others, age, turn, is_newer_fit

    def _begin(self, model: Model) -> None:
        spell = self._say(model.night, model.version, model.night)
        self.let_in.setdefault(model.version, spell)

    def _say(
        self,
        night: date,
        version: str,
        since: date,
        *,
        held: bool = False,
    ) -> Spell:
        spell = Spell(
            night=night,
            version=version,
            since=since,
            said=next(self.numbers),
            held=held,
        )
        self.said.append(spell)
        return spell

    def _never_was(self, model: Model) -> None:
        self._withdraw(model.version)
        self.let_in.pop(model.version, None)

    def _withdraw(self, version: str) -> None:
        self.said = [spell for spell in self.said if spell.version != version]

    def approve(self, version: str) -> None:
        self._decide(version, "approved")
        self._begin(self.models[version])

    def reject(self, version: str) -> None:
        self._decide(version, "rejected")
        self._never_was(self.models[version])

    def _decide(self, version: str, word: str) -> None:
        model = self.models[version]
        model.awaits = False
        model.word = word
        self.events += 1

    def can_roll_back(self, to: str | None, *, refresh: bool) -> bool:
        if not self.said:
            return False
        now = self.spells()[-1]
        if to is None:
            return any(spell.version != now.version for spell in self.said)
        if to == now.version:
            return refresh and now.held
        return to in self.let_in

    def roll_back(self, to: str | None, *, refresh: bool) -> None:
        spells = self.spells()
        now = spells[-1]
        if to == now.version:
            self._release(to)
            return
        target = to or [spell.version for spell in spells if spell.version != now.version][-1]
        own = [spell for spell in spells if spell.version == target]
        last = own[-1] if own else self.let_in[target]
        # Whatever has served before it stays, with all that it serves.
        stay = {spell.version for spell in spells if spell.place <= last.place}
        gone = {spell.version for spell in spells} - stay
        if to is None:
            gone.add(now.version)
        for version in gone:
            self._withdraw(version)
            self._has_word(version, "rolled_back")
        self._has_word(target, "restored")
        self._say(now.night, target, self.newest, held=not refresh)
        self.events += len(gone) + 1
        if refresh:
            self._release(target)

    def _has_word(self, version: str, word: str) -> None:
        """A person's, for which the model waits no more."""
        self.models[version].word = word
        self.models[version].awaits = False

    def _release(self, version: str) -> None:
        """Of all its turns: it is said of the version."""
        self.events += 1
        for spell in self.said:
            spell.held = spell.held and spell.version != version


_QUALITY = st.integers(UNFIT, BEST)
_WHICH = st.integers(0, 5)
_KILL = st.none() | st.integers(0, CALLS - 1)
_WORDS = ("promoted", "approved", "restored", "refused", "rejected", "rolled_back")


def _has_models(machine: AnyOrder) -> bool:
    return bool(machine.expected.models)


def _has_awaiting(machine: AnyOrder) -> bool:
    return any(model.awaits for model in machine.expected.models.values())


class AnyOrder(RuleBasedStateMachine):
    """Nights, people, hands and kills in any order."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.home = Platform(self.folder)
        self.home.put_in_place(self.patch)
        self.expected = Expected(quality=self.home.quality)
        self.night = small.LAST
        self.seen: list[dict[str, Any]] = []

    @rule(
        gap=st.integers(1, 3),
        quality=_QUALITY,
        recipe=st.sampled_from(RECIPES),
        needs_approval=st.booleans(),
        kill=_KILL,
    )
    def night_of_a_new_candidate(
        self, gap: int, quality: int, recipe: str, needs_approval: bool, kill: int | None
    ) -> None:
        self.night += timedelta(days=gap)
        self._train(self.night, quality, recipe)
        self._evaluate(self.night, needs_approval, kill)

    @precondition(_has_models)
    @rule(which=_WHICH, needs_approval=st.booleans(), kill=_KILL)
    def night_again(self, which: int, needs_approval: bool, kill: int | None) -> None:
        """As it was, by the candidate that there is."""
        self._evaluate(self._model(which).night, needs_approval, kill)

    @precondition(_has_models)
    @rule(which=_WHICH, quality=_QUALITY)
    def night_again_by_other_labels(self, which: int, quality: int) -> None:
        """Those that came late: another quality is measured of the same model."""
        model = self._model(which)
        self.home.quality[model.fingerprint] = quality
        self._evaluate(model.night, needs_approval=False)

    @precondition(_has_models)
    @rule(which=_WHICH, needs_approval=st.booleans())
    def trained_again_from_the_same_pins(self, which: int, needs_approval: bool) -> None:
        """The training is found as it was made: its version is the challenger again."""
        model = self._model(which)
        self.home.registry.challenge(self.home.registry.version(model.version))
        self.expected.challenger = model.version
        self._evaluate(model.night, needs_approval)

    @precondition(_has_models)
    @rule(which=_WHICH)
    def retrained_from_the_same_pins(self, which: int) -> None:
        """The same model by another number."""
        model = self._model(which)
        self._register(model.night, model.fingerprint, model.recipe)
        self._evaluate(model.night, needs_approval=False)

    @precondition(_has_models)
    @rule(which=_WHICH, quality=_QUALITY, recipe=st.sampled_from(RECIPES))
    def old_night_with_another_model(self, which: int, quality: int, recipe: str) -> None:
        night = self._model(which).night
        self._train(night, quality, recipe)
        self._evaluate(night, needs_approval=False)

    @rule(
        which=st.none() | _WHICH,
        refresh=st.booleans(),
        is_up=st.booleans(),
    )
    def roll_back(self, which: int | None, refresh: bool, is_up: bool) -> None:
        known = bool(self.expected.models) and which is not None
        to = self._model(which or 0).version if known else None
        roll_back = partial(
            decide.rollback,
            self.home.environment,
            self.home.pipeline,
            to,
            SAID,
            may_refresh=refresh,
        )
        if not self.expected.can_roll_back(to, refresh=refresh):
            with pytest.raises(UsageError):
                roll_back()
            return
        self.home.is_up = is_up
        roll_back()
        self.expected.roll_back(to, refresh=refresh)
        self._followed(is_up)
        assert to in (None, self.expected.now())

    @precondition(_has_awaiting)
    @rule(which=_WHICH, agrees=st.booleans(), is_up=st.booleans())
    def decide(self, which: int, agrees: bool, is_up: bool) -> None:
        waiting = [model for model in self.expected.models.values() if model.awaits]
        version = waiting[which % len(waiting)].version
        self.home.is_up = is_up
        does = decide.approve if agrees else decide.reject
        does(self.home.environment, self.home.pipeline, version, SAID)
        if agrees:
            self.expected.approve(version)
        else:
            self.expected.reject(version)
        self._followed(is_up)

    @precondition(lambda self: self.expected.alias is not None)
    @rule(which=st.none() | _WHICH)
    def hand_moves_the_alias(self, which: int | None) -> None:
        """To another version, or away."""
        name = self.home.pipeline.name
        self.expected.alias = None if which is None else self._model(which).version
        if self.expected.alias:
            small.moved_by_hand(self.home.registry, self.expected.alias)
        else:
            self.home.registry._client.delete_registered_model_alias(name, CHAMPION)

    @precondition(_has_models)
    @rule(kill=_KILL)
    def predict_looks(self, kill: int | None) -> None:
        """As each stage does that asks what serves."""
        self.home.kill = self.expected.kill = kill
        look = partial(serving.put_right, self.home.environment, self.home.registry)
        self._as_expected(look, self.expected.look)

    def _model(self, which: int) -> Model:
        models = [*self.expected.models.values()]
        return models[which % len(models)]

    def _train(self, night: date, quality: int, recipe: str) -> None:
        fingerprint = f"{night} {len(self.expected.models)}"
        self.home.quality[fingerprint] = quality
        self._register(night, fingerprint, recipe)

    def _register(self, night: date, fingerprint: str, recipe: str) -> None:
        version = self.home.train(night, fingerprint, recipe).version
        self.expected.models[version] = Model(
            version=version, night=night, fingerprint=fingerprint, recipe=recipe
        )
        self.expected.challenger = version

    def _evaluate(self, night: date, needs_approval: bool, kill: int | None = None) -> None:
        before = self.expected.spells()[-1:]
        self.home.kill = self.expected.kill = kill
        evaluate = partial(self.home.evaluate, night, needs_approval=needs_approval)
        told = self._as_expected(
            evaluate,
            partial(self.expected.evaluate, night, needs_approval=needs_approval),
        )
        if before and night < before[0].night:
            assert self.home.turns()[-1].version == before[0].version, "an old night serves now"
        if told is None:
            return
        recorded = self.home.recorded()
        again = {**told, "alias_was_moved_to": None} if told else {}
        assert evaluate() == again
        assert self.home.recorded() == recorded, "the same words again"

    def _as_expected(
        self,
        does: Callable[[], _T],
        expected: Callable[[], _T],
    ) -> _T | None:
        """Do it, and have the plain model do it; None: both were killed."""
        try:
            foretold = expected()
        except KilledError:
            with pytest.raises(KilledError):
                does()
            return None
        finally:
            self.expected.kill = None
        assert does() == foretold
        self.home.kill = None
        assert self.expected.alias == self.expected.now()
        return foretold

    def _followed(self, is_up: bool) -> None:
        self.home.is_up = False
        if is_up:
            self.expected.look()

    @invariant()
    def what_serves_is_what_was_foretold(self) -> None:
        spells = self.expected.spells()
        foretold = [(spell.night, spell.version, spell.since, spell.held) for spell in spells]
        known = self.home.turns()
        turns = [(turn.night, turn.version, turn.since, turn.is_held) for turn in known]
        assert turns == foretold
        night = self.night + timedelta(days=1)
        serves = small.serving_model(self.home.environment, self.home.registry, night)
        assert (serves and serves.version) == self.expected.now()

    @invariant()
    def the_alias_is_where_it_was_left(self) -> None:
        assert self.home.registry.champion() == self.expected.alias
        assert self.home.moves() == self.expected.moves

    @invariant()
    def what_is_recorded_stays(self) -> None:
        recorded = self.home.recorded()
        assert recorded[: len(self.seen)] == self.seen
        assert len(recorded) == self.expected.events
        self.seen = recorded

    @invariant()
    def nothing_serves_that_was_refused_or_rejected(self) -> None:
        """By the record alone: of each version the last word for it or against it."""
        words: dict[str, str] = {}
        for event in self.home.recorded():
            word, version = event["event"], event["model_version"]
            is_overruled = word == "refused" and words.get(version) in ("approved", "restored")
            if word in _WORDS and not is_overruled:
                words[version] = word
        for turn in self.home.turns():
            assert words[turn.version] in ("promoted", "approved", "restored")

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)


_ROLL_BACK = partial(
    AnyOrder.roll_back,
    which=None,
    refresh=False,
    is_up=False,
)
_LOOK = partial(AnyOrder.predict_looks, kill=None)


def _night(quality: int, **more: Any) -> Callable[[AnyOrder], None]:
    usual = {"gap": 1, "recipe": RECIPES[0], "needs_approval": False, "kill": None}
    return partial(AnyOrder.night_of_a_new_candidate, quality=quality, **{**usual, **more})


WALKS: dict[str, list[Callable[[AnyOrder], None]]] = {
    "the night of the withdrawn model again": [
        _night(1),
        _night(3),
        _ROLL_BACK,
        partial(AnyOrder.night_again, which=1, needs_approval=False, kill=None),
        partial(AnyOrder.retrained_from_the_same_pins, which=1),
    ],
    "an alias moved, and deleted": [
        _night(1),
        _night(3),
        partial(AnyOrder.hand_moves_the_alias, which=0),
        _LOOK,
        partial(AnyOrder.hand_moves_the_alias, which=None),
        _night(UNFIT),
    ],
    "a rollback is no refresh's to undo": [
        _night(1),
        _night(3),
        _ROLL_BACK,
        _night(1, gap=3),
        partial(AnyOrder.roll_back, which=0, refresh=True, is_up=True),
        _night(1, gap=3),
    ],
    "the one that serves is refused": [
        _night(1),
        _night(3),
        partial(AnyOrder.night_again_by_other_labels, which=1, quality=UNFIT),
        partial(AnyOrder.roll_back, which=1, refresh=False, is_up=False),
    ],
    "killed while the alias is set": [
        _night(1),
        _night(3, kill=2),
        _ROLL_BACK,
        _LOOK,
    ],
    "approved and rejected": [
        _night(1),
        _night(3, needs_approval=True),
        _night(2, needs_approval=True),
        partial(AnyOrder.decide, which=1, agrees=True, is_up=True),
        partial(AnyOrder.decide, which=0, agrees=False, is_up=True),
        partial(AnyOrder.night_again, which=1, needs_approval=False, kill=None),
    ],
}
"""Of which chance finds each too seldom in a short sample."""


@pytest.mark.parametrize("name", WALKS)
def test_what_serves_is_what_the_record_says_on_a_walk(name: str) -> None:
    machine = AnyOrder()
    machine.begin()
    try:
        for step in WALKS[name]:
            step(machine)
            machine.what_serves_is_what_was_foretold()
            machine.the_alias_is_where_it_was_left()
            machine.what_is_recorded_stays()
            machine.nothing_serves_that_was_refused_or_rejected()
    finally:
        machine.teardown()


AnyOrder.TestCase.settings = settings(
    max_examples=SWEEP_EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_what_serves_is_what_the_record_says = pytest.mark.soak(AnyOrder.TestCase)
