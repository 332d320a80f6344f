from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.commands import decide
from jobs.commands.decide import Said
from jobs.lake import model_events, ops
from jobs.stages import evaluate as stage
from jobs.stages.evaluate import evaluate
from jobs.stages.train import train
from jobs.training import paired, scoring, serving
from jobs.training.encoding import ENCODING, existing
from jobs.training.families.light import EXACT, QUANTISED
from jobs.training.families.neural_network import MODEL, network
from jobs.training.registry import ModelVersion, Registry
from jobs.training.tasks import task_of
from pipelines.days import Days
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused, UsageError
from pipelines.model import GroupMean, Serving
from pipelines.spec import Pipeline
from tests.conftest import SOAK
from tests.jobs.training import small

NEXT = small.LAST + timedelta(days=1)
END = small.LAST + timedelta(days=45)
SAID = Said(who="alice", why="it was odd")
GOOD, BAD, FAIR, BAD_FIT, LEAKING = 1.0, 0.0, 0.6, 0.4, 50.0
NONSENSE = float("nan")
SAMPLE = [
    pytest.param(small.SMALL, id=small.SMALL.name),
    pytest.param(small.TWIN, id=small.TWIN.name, marks=SOAK),
]
"""What the gate decides follows from losses alone, whatever task they are of."""
OF_EACH_TASK = pytest.mark.parametrize(
    "platform", small.PIPELINES, ids=lambda pipeline: pipeline.name, indirect=True
)
"""For what each task has of its own: its losses, metrics, pictures and what a leak looks like."""


class Fake:
    """Knows how the labels were made, and trusts it as much as it is told to."""

    def __init__(
        self,
        pipeline: Pipeline,
        trust: float,
        reads: tuple[str, ...] = (),
    ) -> None:
        self._label = pipeline.training.label
        self._trust = trust
        self.encoding = SimpleNamespace(columns=("x", "line", *reads))

    def score(self, rows: pa.Table) -> np.ndarray:
        for name in self.encoding.columns:
            existing(rows, name)
        line = np.array(rows["line"].to_pylist())
        signal = 2 * rows["x"].to_numpy() + (line == "BB")
        log_odds = self._trust * signal - 1
        is_weight = self._label == "weight"
        # What has yet to happen has no label to leak.
        if self._trust == LEAKING and self._label in rows.column_names:
            label = rows[self._label].to_numpy()
            return np.asarray(label if is_weight else 0.02 + 0.96 * label)
        if is_weight:
            return np.asarray(50 + 5 * log_odds)
        return np.asarray(1 / (1 + np.exp(-log_odds)))


class Platform:
    """A lake and a registry of fakes."""

    def __init__(self, pipeline: Pipeline, environment: Environment, folder: Path) -> None:
        self.pipeline = pipeline
        self.environment = environment
        self.registry = Registry(environment, pipeline.name)
        self.trust: dict[str, float] = {}
        self.gone: set[str] = set()
        """Versions whose files cannot be read."""
        self.reads: dict[str, tuple[str, ...]] = {}
        """Columns that a version reads besides, of an earlier declaration."""
        self._files = folder / "files"
        self._files.mkdir()

    def train(
        self,
        trust: float,
        as_of: date = small.LAST,
        recipe: str = "as ever",
        light: bool = False,
    ) -> ModelVersion:
        """A candidate of that quality."""
        (self._files / "model.keras").write_text(str(trust))
        if light:
            (self._files / "quantised.tflite").write_text(str(trust))
        model = self.registry.keep(
            self._files,
            as_of=as_of,
            fingerprint=f"{as_of} {trust}",
            family="neural_network",
            recipe=recipe,
            params={},
            curves={"loss": [0.6], "val_loss": [0.6]},
            pins={},
        )
        self.trust[model.version] = trust
        return model

    def evaluate(self, as_of: date = small.LAST) -> Mapping[str, Any]:
        """The stage's metrics."""
        return evaluate(small.run_of(self.environment, "evaluate", as_of, pipeline=self.pipeline))

    def nights(
        self,
        trust: float,
        count: int,
        after: date = small.LAST,
        until: str = "",
    ) -> list[str]:
        """The events of so many nights, each with a candidate of that quality.

        Args:
            until: The event after which no more nights are needed.
        """
        events: list[str] = []
        for number in range(1, count + 1):
            if until in events:
                break
            night = after + timedelta(days=number)
            self.train(trust, night)
            events.append(self.evaluate(night)["event"])
        return events

    def limits(self, **changes: Any) -> None:
        """From now on the pipeline declares other rules."""
        changed = replace(self.pipeline.promotion, **changes)
        self.pipeline = replace(self.pipeline, promotion=changed)

    def shadows(self) -> list[dict[str, Any]]:
        """Every day that was measured, in order."""
        rows = ops.read(self.environment, "shadow_losses").to_pylist()
        return sorted(rows, key=itemgetter("event_date"))

    def roll_back(self) -> None:
        """As a person does."""
        decide.rollback(self.environment, self.pipeline, None, SAID)

    def events(self) -> list[tuple[str, str, str | None]]:
        """Event, model and rival, oldest first."""
        return [
            (event["event"], event["model_version"], event["rival_version"])
            for event in model_events.events(self.environment, self.pipeline.name)
        ]

    def champion(self) -> str | None:
        """Version of the alias."""
        return self.registry.champion()


@pytest.fixture
def drawn() -> None:
    """For tests that look at the pictures and metrics that are kept with a model's run."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nights of which no picture is kept, which takes most of their time."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(stage, "_log", lambda *_: None)


@pytest.fixture(params=SAMPLE)
def platform(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Platform:
    pipeline: Pipeline = request.param
    environment = small.models_at(tmp_path)
    rows = small.rows_of(Days(small.FIRST, END))
    small.publish(environment, rows, pipeline=pipeline)
    evening = [day.as_py() - timedelta(days=1) for day in rows["landed_date"]]
    to_score = small.with_column(rows, "landed_date", pa.array(evening, pa.date32()))
    unlabelled = to_score.drop_columns(["failed", "weight"])
    small.publish(environment, unlabelled, "scoring", pipeline=pipeline)
    made = Platform(pipeline, environment, tmp_path)

    def load(_: Registry, model: ModelVersion) -> Fake:
        if model.version in made.gone:
            raise NightshiftError(f"model.keras of version {model.version} cannot be read")
        return Fake(
            pipeline,
            made.trust[model.version],
            made.reads.get(model.version, ()),
        )

    for name in ("load", "load_judged"):
        monkeypatch.setattr(scoring, name, load)
    return made


@OF_EACH_TASK
def test_the_first_good_model_becomes_champion(platform: Platform) -> None:
    platform.train(GOOD)
    result = platform.evaluate()
    assert (result["event"], result["serves"], result["champion"]) == ("promoted", "1", None)
    assert (result["rows"], result["days"]) == (39 * 6, 6)
    headline = task_of(platform.pipeline.training.task).headline
    names = [baseline.name for baseline in platform.pipeline.training.baselines]
    assert list(result["baselines"]) == names
    for baseline in result["baselines"].values():
        assert result["candidate"][headline] < baseline[headline]
    assert platform.champion() == "1"
    (event,) = model_events.events(platform.environment, platform.pipeline.name)
    assert (event["event"], event["model_version"]) == ("promoted", "1")
    assert (event["as_of"], event["rival_version"]) == (small.LAST, None)
    assert json.loads(event["metrics"])["candidate"] == result["candidate"]


@pytest.mark.usefixtures("drawn")
def test_a_candidate_whose_run_was_deleted_is_told_with_the_ways_out(platform: Platform) -> None:
    model = platform.train(GOOD)
    client = platform.registry._client
    client.delete_run(model.run_id)
    ways_out = (
        f"run of model '{model.name}' version 1 was deleted in MLflow.*"
        rf"mlflow runs restore --run-id {model.run_id}\. .*"
        f"nightshift run {model.name} --date {small.LAST} --retrain$"
    )
    with pytest.raises(NightshiftError, match=ways_out):
        platform.evaluate()
    assert platform.events() == []
    client.restore_run(model.run_id)
    assert platform.evaluate()["serves"] == "1"
    # What serves goes on without it.
    client.delete_run(model.run_id)
    assert platform.evaluate()["serves"] == "1"
    platform.train(BAD, NEXT)
    assert platform.evaluate(NEXT)["serves"] == "1"


def test_a_first_model_with_labels_of_one_held_out_day_waits_for_more(platform: Platform) -> None:
    """As where labels come late: of the held-out days one alone has any."""
    rows = small.rows_of(Days(small.FIRST, END))
    late = Days(small.LAST - timedelta(days=4), small.LAST)
    is_late = pc.is_in(
        rows["batch_date"],
        pa.array(list(late), pa.date32()),
    )
    small.publish(
        platform.environment,
        rows.filter(pc.invert(is_late)),
        pipeline=platform.pipeline,
    )
    platform.train(GOOD)
    with pytest.raises(Refused, match=r"known of 1 held-out day, and 5 are needed"):
        platform.evaluate()
    assert platform.champion() is None
    night = small.LAST + timedelta(days=5)
    platform.train(GOOD, night)
    assert platform.evaluate(night)["event"] == "promoted"


def test_days_are_those_of_the_event_also_where_labels_land_together(platform: Platform) -> None:
    rows = small.rows_of(Days(small.FIRST, small.LAST))
    held_out = Days(small.LAST - timedelta(days=5), small.LAST)
    landed = [small.LAST if day in held_out else day for day in rows["batch_date"].to_pylist()]
    together = small.with_column(rows, "landed_date", pa.array(landed, pa.date32()))
    small.publish(platform.environment, together, pipeline=platform.pipeline)
    platform.train(GOOD)
    assert platform.evaluate()["days"] == 6


@pytest.mark.parametrize(
    ("trust", "passed"),
    [(GOOD, True), (FAIR, False)],
)
@OF_EACH_TASK
def test_the_quantised_variant_is_judged_beside_its_model(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, trust: float, passed: bool
) -> None:
    def load_judged(_: Registry, model: ModelVersion, variant: str = EXACT) -> Fake:
        return Fake(platform.pipeline, trust if variant == QUANTISED else GOOD)

    monkeypatch.setattr(scoring, "load_judged", load_judged)
    model = platform.train(GOOD, light=True)
    told = platform.evaluate()[QUANTISED]
    assert told["passed"] is passed
    assert told["more_loss_low"] <= told["more_loss"] <= told["more_loss_high"]
    assert (told["more_loss"] == 0) is passed
    assert told["exact_loss"] > 0
    asks = replace(platform.pipeline, serving=Serving(quantised=True))
    variants = [
        serving.variant_of(platform.environment, pipeline, model)
        for pipeline in (platform.pipeline, asks)
    ]
    assert variants == [EXACT, QUANTISED if passed else EXACT]


def test_a_quantised_variant_that_few_days_have_seen_does_not_serve(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "load_judged", lambda *_, **__: Fake(platform.pipeline, GOOD))
    monkeypatch.setattr(paired, "FEWEST_DAYS", 1000)
    model = platform.train(GOOD, light=True)
    told = platform.evaluate()[QUANTISED]
    assert (told["more_loss"], told["more_loss_high"], told["passed"]) == (0, None, False)
    asks = replace(platform.pipeline, serving=Serving(quantised=True))
    assert serving.variant_of(platform.environment, asks, model) == EXACT


def test_a_model_without_a_quantised_variant_serves_as_it_is(platform: Platform) -> None:
    model = platform.train(GOOD)
    assert platform.evaluate()[QUANTISED] is None
    asks = replace(platform.pipeline, serving=Serving(quantised=True))
    assert serving.variant_of(platform.environment, asks, model) == EXACT


@pytest.mark.usefixtures("drawn")
@OF_EACH_TASK
def test_an_evaluation_is_kept_with_the_models_run(platform: Platform) -> None:
    model = platform.train(GOOD)
    platform.evaluate()
    pictures = {path.stem for path in platform.environment.home.rglob("*.png")}
    kept = platform.registry._client.get_run(model.run_id).data.metrics
    if platform.pipeline is small.SMALL:
        assert pictures == {"learning_curve", "calibration", "roc"}
        assert {"held_out_candidate_auc", "held_out_group_mean_log_loss"} < set(kept)
    else:
        assert pictures == {"learning_curve", "predicted_and_observed", "error_by_day"}
        assert {"held_out_candidate_r2", "held_out_persistence_rmse"} < set(kept)


@OF_EACH_TASK
def test_a_bad_first_model_is_refused_and_serves_nothing(platform: Platform) -> None:
    platform.train(BAD)
    with pytest.raises(
        Refused,
        match=r"Model 1 of '\w+' was refused, and no other serves. It beats baseline \w+ in only",
    ):
        platform.evaluate()
    assert platform.champion() is None
    assert platform.events() == [("refused", "1", None)]


def test_a_bad_model_leaves_the_champion_serving(platform: Platform) -> None:
    platform.train(GOOD)
    platform.evaluate()
    platform.train(BAD, NEXT)
    result = platform.evaluate(NEXT)
    assert (result["event"], result["serves"], result["champion_before"]) == ("refused", "1", "1")
    assert platform.champion() == "1"
    assert platform.events() == [("promoted", "1", None), ("refused", "2", "1")]


@OF_EACH_TASK
def test_a_better_model_takes_the_champions_place_when_days_have_shown_it(
    platform: Platform,
) -> None:
    platform.train(FAIR)
    platform.evaluate()
    events = platform.nights(GOOD, 25, until="promoted")
    first = events.index("promoted")
    # Three days are never enough.
    assert first >= 3
    assert set(events[:first]) == {"kept"}
    winner = str(first + 2)
    assert platform.events()[first + 1] == ("promoted", winner, "1")
    recorded = model_events.events(platform.environment, platform.pipeline.name, winner)
    told = json.loads(recorded[0]["metrics"])["challenge"]
    assert (told["days"], told["champion_days"]) == (first + 1, first + 1)
    assert told["better"] >= platform.pipeline.promotion.min_evidence
    # Those of later nights are as good as it, and no better.
    night = small.LAST + timedelta(days=len(events))
    assert platform.nights(GOOD, 3, after=night) == ["kept"] * 3
    assert platform.champion() == winner


def test_a_newer_fit_of_the_champions_recipe_takes_its_place_after_some_days(
    platform: Platform,
) -> None:
    platform.limits(refresh_days=3)
    platform.train(GOOD)
    platform.evaluate()
    assert platform.nights(GOOD, 7) == [
        *["kept"] * 2,
        "promoted",
        *["kept"] * 2,
        "promoted",
        "kept",
    ]
    assert platform.champion() == "7"
    event = model_events.events(platform.environment, platform.pipeline.name, "7")[-1]
    assert event["reason"].startswith(
        "The champion has served for 3 days, and this is the same recipe with newer rows, and this "
        "one is not shown to be worse"
    )
    assert json.loads(event["metrics"])["challenge"]["is_refresh"] is True


def test_a_champion_that_has_learned_another_label_serves_no_more(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    before = platform.train(FAIR)
    platform.evaluate()
    platform.registry._client.log_param(before.run_id, "label", "smell")
    # It would be kept back: no day has told the two apart yet.
    after = platform.train(GOOD, NEXT, recipe="another")
    result = platform.evaluate(NEXT)
    assert (result["event"], result["serves"]) == ("promoted", after.version)
    label = platform.pipeline.training.label
    assert result["reason"].startswith(f"Version {before.version} has learned 'smell' (")
    assert f" and not '{label}' (" in result["reason"]
    assert "judged as if nothing served. Version 1 has learned 'smell'" in capsys.readouterr().err


def test_a_candidate_of_another_label_is_not_judged(platform: Platform) -> None:
    model = platform.train(GOOD)
    platform.registry._client.log_param(model.run_id, "task", "another_one")
    with pytest.raises(
        NightshiftError, match=r"Version 1 .* \(another one\) and not .*--stage train"
    ):
        platform.evaluate()
    assert platform.events() == []


def test_another_recipe_is_no_refresh(platform: Platform) -> None:
    platform.limits(refresh_days=1)
    platform.train(GOOD)
    platform.evaluate()
    for days in (1, 2):
        night = small.LAST + timedelta(days=days)
        platform.train(GOOD, night, recipe="another")
        assert platform.evaluate(night)["event"] == "kept"


def test_a_model_that_a_person_put_back_is_not_refreshed(platform: Platform) -> None:
    night = second_champion(platform)
    platform.limits(refresh_days=1, max_age_days=None)
    platform.roll_back()
    assert platform.nights(FAIR, 3, after=night) == ["kept"] * 3
    events = model_events.events(platform.environment, platform.pipeline.name)
    name = platform.pipeline.name
    assert events[-1]["reason"].endswith(
        " A person has put version 1 back: newer fits of its recipe wait for such evidence. To "
        f"have them take its place as ever: nightshift rollback {name} --to 1 --refresh --why TEXT"
    )


def test_a_model_that_a_person_puts_back_while_a_candidate_is_judged_is_not_refreshed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = second_champion(platform)
    platform.limits(refresh_days=1, max_age_days=None)

    def roll_back(*_: object) -> None:
        monkeypatch.setattr(stage, "_log", lambda *_: None)
        platform.roll_back()

    # After the candidate was judged against version 6, whose recipe it has.
    monkeypatch.setattr(stage, "_log", roll_back)
    platform.train(GOOD, night + timedelta(days=1))
    told = platform.evaluate(night + timedelta(days=1))
    assert (told["event"], told["champion_before"], told["serves"]) == ("kept", "1", "1")
    assert platform.champion() == "1"
    assert platform.events()[-1] == ("kept", "7", "1")
    assert [version for _, version, _ in platform.events()].count("7") == 1


def test_a_model_that_a_person_put_back_is_refreshed_when_a_person_says_so(
    platform: Platform,
) -> None:
    night = second_champion(platform)
    platform.limits(refresh_days=1, max_age_days=20)
    platform.roll_back()
    assert platform.nights(FAIR, 1, after=night) == ["kept"]
    events = model_events.events(platform.environment, platform.pipeline.name)
    until = night + timedelta(days=21)
    assert f"wait for such evidence, or until {until}. To" in events[-1]["reason"]
    decide.rollback(platform.environment, platform.pipeline, "1", SAID, may_refresh=True)
    after = night + timedelta(days=1)
    assert platform.nights(FAIR, 2, after=after) == ["promoted"] * 2


def _over(platform: Platform, kind: str, night: date, nights: int = 7) -> None:
    """A measure of the kind lies over its threshold in so many nights up to this one."""
    rows = []
    for day in Days.of(night).since(nights - 1):
        row = {"pipeline": platform.pipeline.name, "night": day, "is_over": True}
        rows.append(row | {"kind": kind, "feature": "x", "statistic": "share_differing"})
    ops.append(platform.environment, "drift", rows)


def test_a_skew_of_the_night_before_holds_promotions_but_not_the_first(
    platform: Platform,
) -> None:
    _over(platform, "skew", small.LAST - timedelta(days=1))
    platform.train(FAIR)
    assert platform.evaluate()["event"] == "promoted"
    platform.limits(max_age_days=1)
    _over(platform, "skew", NEXT)
    third = NEXT + timedelta(days=1)
    platform.train(GOOD, third)
    result = platform.evaluate(third)
    assert result["event"] == "kept"
    assert result["reason"].startswith("Promotions are held: skew x (share_differing), over in 5 ")
    assert platform.champion() == "1"


def test_what_is_in_alarm_only_since_tonight_holds_nothing_yet(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.limits(max_age_days=1)
    night = NEXT + timedelta(days=1)
    _over(platform, "skew", night, nights=platform.pipeline.watch.min_nights)
    platform.train(GOOD, night)
    assert platform.evaluate(night)["event"] == "promoted"


@OF_EACH_TASK
def test_lost_quality_lets_the_nights_candidate_take_the_champions_place(
    platform: Platform,
) -> None:
    platform.train(GOOD)
    platform.evaluate()
    needed = platform.pipeline.watch.min_nights
    assert platform.nights(GOOD, needed) == ["kept"] * needed
    night = small.LAST + timedelta(days=needed)
    _over(platform, "quality", night, needed)
    assert platform.nights(GOOD, 1, after=night) == ["promoted"]
    # What the model of before has lost asks for no other one in place of the new one.
    promoted = night + timedelta(days=1)
    _over(platform, "quality", promoted, nights=1)
    assert platform.nights(GOOD, 2, after=promoted) == ["kept", "kept"]


def test_where_fits_are_refreshed_each_night_lost_quality_tells_of_the_one_that_stays(
    platform: Platform,
) -> None:
    platform.limits(refresh_days=1)
    platform.train(GOOD)
    platform.evaluate()
    needed = platform.pipeline.watch.min_nights
    until = small.LAST + timedelta(days=2 * needed)
    _over(platform, "quality", until, 2 * needed)
    # Tonight's fit takes its place whatever the watch says.
    assert platform.nights(GOOD, 2) == ["promoted"] * 2
    after = small.LAST + timedelta(days=2)
    assert "the same recipe with newer rows" in _reason(platform, "3")
    # Another recipe waits until the last fit of the one before has lost it in as many nights.
    for number in range(1, needed + 2):
        night = after + timedelta(days=number)
        platform.train(GOOD, night, recipe="another")
        event = platform.evaluate(night)["event"]
        assert event == ("promoted" if number > needed else "kept")
    assert "A new model is asked for: quality" in _reason(platform, str(3 + needed + 1))


def _reason(platform: Platform, version: str) -> str:
    """What the gate said of a version last."""
    told = model_events.events(platform.environment, platform.pipeline.name, version)
    reason: str = told[-1]["reason"]
    return reason


def test_quality_that_another_model_has_lost_speaks_not_against_the_one_put_back(
    platform: Platform,
) -> None:
    night = second_champion(platform)
    platform.limits(max_age_days=None)
    bad = night + timedelta(days=6)
    platform.nights(FAIR, 6, after=night)
    _over(platform, "quality", bad)
    platform.roll_back()
    assert platform.nights(FAIR, 1, after=bad) == ["kept"]


def test_a_newer_fit_takes_the_place_of_one_put_back_that_has_lost_quality_itself(
    platform: Platform,
) -> None:
    night = second_champion(platform)
    platform.limits(refresh_days=1, max_age_days=None)
    platform.roll_back()
    needed = platform.pipeline.watch.min_nights
    assert platform.nights(FAIR, needed, after=night) == ["kept"] * needed
    last = night + timedelta(days=needed)
    _over(platform, "quality", last, needed)
    assert platform.nights(FAIR, 1, after=last) == ["promoted"]
    newest = platform.events()[-1][1]
    assert _reason(platform, newest).startswith("A new model is asked for: quality")
    # Of that recipe nobody has put one back: it is refreshed as ever.
    after = last + timedelta(days=1)
    assert platform.nights(FAIR, 1, after=after) == ["promoted"]


@OF_EACH_TASK
def test_an_equal_model_is_kept_back_and_a_worse_one_too(platform: Platform) -> None:
    platform.train(GOOD)
    platform.evaluate()
    assert set(platform.nights(GOOD, 6)) == {"kept"}
    later = small.LAST + timedelta(days=6)
    assert set(platform.nights(FAIR, 8, after=later)) <= {"kept", "refused"}
    assert platform.champion() == "1"


@OF_EACH_TASK
def test_a_candidate_is_scored_in_the_shadow_of_the_champion_by_what_would_have_served(
    platform: Platform,
) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.nights(GOOD, 3)
    days = [small.LAST + timedelta(days=number) for number in (1, 2, 3)]
    shadows = platform.shadows()
    assert [row["event_date"] for row in shadows] == days
    # Of the champion's own night there is no other candidate.
    assert [row["how"] for row in shadows] == ["held_out", "shadow", "shadow"]
    *_, last = model_events.events(platform.environment, platform.pipeline.name)
    assert "Over 3 days (1 of them by the judged models)" in last["reason"]
    assert [row["candidate_version"] for row in shadows] == ["2", "2", "3"]
    assert {row["champion_version"] for row in shadows} == {"1"}
    assert {row["rows"] for row in shadows} == {39}
    rows = small.rows_of(Days(small.FIRST, END))
    of_day = rows.filter(pc.field("batch_date") == days[2])
    label = of_day[platform.pipeline.training.label]
    known = of_day.filter(label.is_valid())
    truth = label.drop_null().to_numpy().astype(float)
    losses = task_of(platform.pipeline.training.task).losses
    for name, trust in (("candidate", GOOD), ("champion", FAIR)):
        loss = losses(truth, Fake(platform.pipeline, trust).score(known)).mean()
        assert shadows[2][f"{name}_loss"] == pytest.approx(loss)


def test_days_are_measured_once_whatever_is_run_again(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.nights(GOOD, 4)
    shadows = platform.shadows()
    told = platform.evaluate(small.LAST + timedelta(days=4))
    assert told["challenge"]["days"] == 4
    before = platform.evaluate(small.LAST + timedelta(days=2))
    assert before["challenge"]["days"] == 2, "a night that is run again knows no more than it did"
    assert platform.shadows() == shadows


def test_a_day_that_was_measured_twice_counts_once(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.nights(GOOD, 3)
    night = small.LAST + timedelta(days=3)
    before = platform.evaluate(night)["challenge"]
    # As another home of the lake does, a moment later and with other numbers.
    late = timedelta(seconds=1)
    twins = []
    for row in platform.shadows():
        another = {"candidate_loss": 0.0, "measured_at": row["measured_at"] + late}
        twins.append({**row, **another})
    ops.append(platform.environment, "shadow_losses", twins)
    assert platform.evaluate(night)["challenge"] == before
    assert before["days"] == 3


def test_an_old_candidate_whose_files_are_gone_casts_no_shadow(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.nights(GOOD, 1)
    platform.gone.add("2")
    assert platform.nights(GOOD, 1, NEXT) == ["kept"]
    assert [row["how"] for row in platform.shadows()] == ["held_out", "held_out"]
    assert "has no shadow: model.keras of version 2" in capsys.readouterr().err


@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_champion_that_is_gone_gives_way_to_a_candidate_that_is_fit(
    is_deleted: bool, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.train(GOOD)
    platform.evaluate()
    if is_deleted:
        platform.registry._client.delete_model_version(platform.pipeline.name, "1")
    else:
        platform.gone.add("1")
    platform.train(BAD, NEXT)
    with pytest.raises(Refused, match=r"Version 1 cannot be loaded and so cannot serve"):
        platform.evaluate(NEXT)
    warned = capsys.readouterr().err
    assert "Warning: the candidate is judged as if nothing served." in warned
    assert ("nightshift rollback" in warned) == is_deleted
    platform.train(GOOD, NEXT)
    for _ in range(2):
        told = platform.evaluate(NEXT)
        assert (told["event"], told["serves"], told["champion_before"]) == ("promoted", "3", None)
    assert told["reason"].startswith("Version 1 cannot be loaded and so cannot serve: ")
    assert platform.champion() == "3"


def test_after_a_registry_was_deleted_no_model_passes_for_one_of_before(
    platform: Platform,
) -> None:
    for night in (small.LAST, NEXT):
        platform.train(GOOD, night)
        platform.evaluate(night)
    platform.registry._client.delete_registered_model(platform.pipeline.name)
    later = NEXT + timedelta(days=1)
    assert platform.train(BAD, later).version == "3"
    with pytest.raises(NightshiftError, match="Version 1 of model .* is not in MLflow"):
        small.serving_model(platform.environment, platform.registry, later)
    with pytest.raises(Refused, match="Version 1 cannot be loaded and so cannot serve"):
        platform.evaluate(later)
    assert platform.train(GOOD, later).version == "4"
    told = platform.evaluate(later)
    assert (told["event"], told["serves"]) == ("promoted", "4")


def test_a_champion_that_cannot_read_the_rows_any_more_gives_way_too(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.train(GOOD)
    platform.evaluate()
    platform.reads["1"] = ("of_long_ago",)
    platform.train(GOOD, NEXT)
    told = platform.evaluate(NEXT)
    assert (told["event"], told["serves"], told["champion_before"]) == ("promoted", "2", None)
    assert "reads column 'of_long_ago', which the rows do not have" in capsys.readouterr().err
    assert told["reason"].startswith(
        "Version 1 cannot score the rows (The model reads column 'of_long_ago', which the rows do "
        "not have) and so cannot serve: "
    )


def test_a_champion_that_cannot_read_what_is_to_be_scored_gives_way_too(
    platform: Platform,
) -> None:
    platform.train(GOOD)
    platform.evaluate()
    platform.reads["1"] = ("oven",)
    name = platform.pipeline.name
    shutil.rmtree(platform.environment.table_path(f"{name}.scoring"))
    rows = small.scoring_rows(Days(small.FIRST, END)).drop_columns(["oven"])
    small.publish(platform.environment, rows, "scoring", pipeline=platform.pipeline)
    platform.train(GOOD, NEXT)
    told = platform.evaluate(NEXT)
    assert (told["event"], told["serves"], told["champion_before"]) == ("promoted", "2", None)
    assert told["reason"].startswith(
        f"Version 1 reads 'oven', which {name}.scoring does not have and so cannot serve: "
    )


@pytest.mark.parametrize(
    "by",
    [
        {"slices": ("product",)},
        {"baselines": (GroupMean(columns=("product",)),)},
    ],
    ids=["slices", "baselines"],
)
def test_rows_that_lack_what_is_compared_by_are_told_with_the_way_out(
    by: dict[str, object], platform: Platform
) -> None:
    platform.train(GOOD)
    declared = platform.pipeline
    shutil.rmtree(platform.environment.table_path(f"{declared.name}.training"))
    rows = small.rows_of(Days(small.FIRST, END)).drop_columns(["product"])
    small.publish(platform.environment, rows, pipeline=declared)
    platform.pipeline = replace(declared, training=replace(declared.training, **by))
    told = f"no column product, which .* nightshift run {declared.name} --restate --from "
    with pytest.raises(UsageError, match=told):
        platform.evaluate()


@OF_EACH_TASK
def test_a_candidate_whose_predictions_are_none_is_refused(platform: Platform) -> None:
    platform.train(NONSENSE)
    for _ in range(2):
        with pytest.raises(Refused, match="234 of 234 predictions are no"):
            platform.evaluate()
    assert platform.events() == [("refused", "1", None)]
    platform.train(GOOD)
    assert platform.evaluate()["event"] == "promoted"
    platform.train(NONSENSE, NEXT)
    told = platform.evaluate(NEXT)
    assert (told["event"], told["serves"], told["candidate"]) == ("refused", "2", None)


@OF_EACH_TASK
def test_a_champion_whose_predictions_are_none_gives_way(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.train(GOOD)
    platform.evaluate()
    platform.trust["1"] = NONSENSE
    platform.train(GOOD, NEXT)
    told = platform.evaluate(NEXT)
    assert (told["event"], told["serves"], told["champion_before"]) == ("promoted", "2", None)
    assert told["reason"].startswith(
        "Version 1 cannot score the rows (Of the held-out rows 234 of 234 predictions are no "
    )
    assert "judged as if nothing served. Version 1" in capsys.readouterr().err


def test_predictions_that_are_none_cast_no_shadow(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.nights(FAIR, 1)
    # Not on the held-out rows, but on those of the day after.
    platform.trust["2"] = NONSENSE
    platform.nights(FAIR, 1, NEXT)
    hows = [(row["how"], row["candidate_version"]) for row in platform.shadows()]
    assert hows == [("held_out", "2"), ("held_out", "3")]
    assert "has no shadow: Of version 2 40 of 40 predictions" in capsys.readouterr().err


def test_a_champion_reads_features_that_are_declared_no_more(platform: Platform) -> None:
    platform.train(GOOD)
    platform.evaluate()
    # The table has it, and no model of today reads it.
    platform.reads["1"] = ("product",)
    platform.train(BAD, NEXT)
    told = platform.evaluate(NEXT)
    assert (told["serves"], told["champion_before"]) == ("1", "1")


@OF_EACH_TASK
def test_a_leaking_candidate_casts_no_shadow(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    assert platform.nights(LEAKING, 2) == ["refused", "refused"]
    after = small.LAST + timedelta(days=2)
    platform.nights(GOOD, 2, after)
    hows = [(row["how"], row["candidate_version"]) for row in platform.shadows()]
    # The third day would have been scored by the refused candidate of the second night.
    assert hows[2:] == [("held_out", "4"), ("shadow", "4")]


def test_another_recipe_begins_anew(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.nights(GOOD, 3)
    night = small.LAST + timedelta(days=4)
    platform.train(GOOD, night, recipe="another")
    told = platform.evaluate(night)
    # By its own judged model alone: the days of before are of the other one.
    assert told["challenge"]["days"] == 4
    shadows = [row for row in platform.shadows() if row["as_of"] == night]
    hows = [(row["how"], row["recipe"]) for row in shadows]
    assert hows == [("held_out", "another")] * 4


def test_one_bulk_load_after_another_is_judged_by_its_held_out_days(platform: Platform) -> None:
    platform.limits(max_age_days=None)
    platform.train(BAD_FIT)
    platform.evaluate()
    night = small.LAST + timedelta(days=20)
    platform.train(GOOD, night)
    told = platform.evaluate(night)
    assert told["challenge"]["days"] == 6
    assert [row["how"] for row in platform.shadows()] == ["held_out"] * 6
    assert platform.shadows()[0]["event_date"] == night - timedelta(days=5)
    assert (told["event"], told["serves"]) == ("promoted", "2")


def test_a_champion_of_long_ago_is_replaced_by_an_equal_model_after_a_bulk_load(
    platform: Platform,
) -> None:
    platform.train(GOOD)
    platform.evaluate()
    in_time = small.LAST + timedelta(days=28)
    platform.train(GOOD, in_time)
    assert platform.evaluate(in_time)["event"] == "kept"
    night = small.LAST + timedelta(days=29)
    platform.train(GOOD, night)
    told = platform.evaluate(night)
    assert (told["event"], told["champion_before"], told["serves"]) == ("promoted", "1", "3")
    assert "has served for 29 days, 28 are allowed" in told["reason"]


def test_a_champion_is_not_replaced_for_its_age_by_one_that_is_shown_to_be_worse(
    platform: Platform,
) -> None:
    # What protects slices and baselines would refuse it before.
    platform.limits(max_age_days=11, min_win_rate=0.5, max_slice_loss=1e9)
    platform.train(GOOD)
    platform.evaluate()
    events = platform.nights(BAD_FIT, 12)
    assert "promoted" not in events
    last = model_events.events(platform.environment, platform.pipeline.name, "13")[-1]
    assert "this one is shown to be worse" in last["reason"]
    assert platform.champion() == "1"


def test_a_model_that_was_put_back_is_not_replaced_for_its_age_at_once(platform: Platform) -> None:
    platform.limits(max_age_days=3)
    platform.train(GOOD)
    platform.evaluate()
    assert platform.nights(GOOD, 4) == ["kept", "kept", "kept", "promoted"]
    # It is found out only after some nights, which are those of the model that is put back then.
    after = small.LAST + timedelta(days=7)
    found = platform.nights(GOOD, 3, small.LAST + timedelta(days=4))
    assert found == ["kept"] * 3
    platform.roll_back()
    assert platform.nights(GOOD, 4, after) == ["kept", "kept", "kept", "promoted"]


def test_a_day_counts_when_its_labels_are_known(platform: Platform) -> None:
    platform.limits(label_lag_days=2)
    platform.train(FAIR)
    platform.evaluate()
    platform.nights(GOOD, 4)
    days = [small.LAST + timedelta(days=number) for number in (1, 2)]
    assert [row["event_date"] for row in platform.shadows()] == days


@OF_EACH_TASK
def test_a_leak_is_refused(platform: Platform) -> None:
    platform.train(LEAKING)
    with pytest.raises(Refused, match=r"must have seen the future"):
        platform.evaluate()


def second_champion(platform: Platform) -> date:
    """A fair model and a good one that has taken its place; the night in which it did."""
    platform.limits(max_age_days=4)
    platform.train(FAIR)
    platform.evaluate()
    assert platform.nights(GOOD, 5)[-1] == "promoted"
    assert platform.champion() == "6"
    return small.LAST + timedelta(days=5)


def test_evaluating_again_changes_nothing(platform: Platform) -> None:
    night = second_champion(platform)
    events = platform.events()
    shadows = platform.shadows()
    first = platform.evaluate(night)
    assert platform.evaluate(night) == first
    assert first["event"] == "promoted"
    assert (platform.events(), platform.shadows()) == (events, shadows)
    assert platform.champion() == "6"


def test_the_only_champion_that_is_refused_when_its_night_is_run_again_serves_no_more(
    platform: Platform,
) -> None:
    platform.train(GOOD)
    platform.evaluate()
    strict = platform.pipeline.promotion
    platform.limits(max_score=0.5)
    for _ in range(2):
        with pytest.raises(Refused, match="and no other serves. Its .* must have seen the future"):
            platform.evaluate()
    assert [event for event, _, _ in platform.events()] == ["promoted", "refused"]
    assert small.serving_model(platform.environment, platform.registry, END) is None
    assert platform.champion() is None
    platform.pipeline = replace(platform.pipeline, promotion=strict)
    told = platform.evaluate()
    assert told["event"] == "promoted"
    assert told["serves"] == "1"
    assert platform.champion() == "1"


def test_a_champion_that_is_refused_when_its_night_is_run_again_leaves_to_the_one_before(
    platform: Platform,
) -> None:
    night = second_champion(platform)
    platform.limits(max_age_days=None, min_evidence=1e6)
    kept = platform.evaluate(night)
    assert kept["event"] == "kept"
    assert kept["serves"] == "6"
    assert platform.champion() == "6"
    platform.limits(max_score=0.5)
    refused = platform.evaluate(night)
    assert refused["event"] == "refused"
    assert refused["serves"] == "1"
    assert platform.champion() == "1"
    with pytest.raises(UsageError, match="was never let into service, or was found unfit since"):
        decide.rollback(platform.environment, platform.pipeline, "6", SAID)


def test_what_a_person_put_back_serves_on_whatever_the_gate_says_of_it_again(
    platform: Platform,
) -> None:
    second_champion(platform)
    platform.roll_back()
    platform.limits(max_score=0.5)
    again = platform.evaluate()
    assert again["event"] == "restored"
    assert again["serves"] == "1"
    assert platform.champion() == "1"


def test_an_old_night_run_again_never_takes_the_alias_back(platform: Platform) -> None:
    night = second_champion(platform)
    before = night - timedelta(days=1)
    platform.limits(max_age_days=3)
    better = platform.train(GOOD, before)
    assert platform.evaluate(before)["event"] == "promoted"
    assert platform.champion() == "6"
    then = small.serving_model(platform.environment, platform.registry, before)
    assert then is not None
    assert then.version == better.version


def test_an_alias_moved_by_hand_is_put_back(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    night = second_champion(platform)
    small.moved_by_hand(platform.registry, "1")
    result = platform.evaluate(night)
    assert (result["serves"], result["alias_was_moved_to"]) == ("6", "1")
    assert platform.champion() == "6"
    assert "pointed to version 1" in capsys.readouterr().err


def test_an_alias_deleted_by_hand_is_told_and_put_back(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    night = second_champion(platform)
    platform.registry._client.delete_registered_model_alias(platform.pipeline.name, "champion")
    result = platform.evaluate(night)
    assert (result["serves"], result["alias_was_moved_to"]) == ("6", "nowhere")
    assert platform.champion() == "6"
    assert "was deleted by hand. It was put back" in capsys.readouterr().err
    (moved,) = model_events.alias_moves(platform.environment, platform.pipeline.name)
    assert "deleted the alias 'champion'" in moved["reason"]
    assert "pointed to version 6" in moved["reason"]
    assert platform.evaluate(night)["alias_was_moved_to"] is None


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_a_version_that_others_registered_stops_no_night(platform: Platform, alias: str) -> None:
    platform.train(GOOD)
    foreign = small.registered_by_hand(platform.registry)
    small.moved_by_hand(platform.registry, foreign, alias)
    result = platform.evaluate()
    assert (result["event"], result["model_version"], result["serves"]) == ("promoted", "1", "1")
    assert result["alias_was_moved_to"] == (foreign if alias == "champion" else None)
    assert platform.champion() == "1"


def test_a_rollback_survives_a_rerun_of_the_night_and_a_training_from_the_same_pins(
    platform: Platform,
) -> None:
    night = second_champion(platform)
    platform.roll_back()
    for _ in range(2):
        again = platform.evaluate(night)
        assert (again["event"], again["reason"]) == ("rolled_back", "it was odd")
        assert (again["serves"], platform.champion()) == ("1", "1")
        # As --retrain does: the same model, by another number.
        platform.train(GOOD, night)


def test_a_rollback_survives_the_deletion_of_the_withdrawn_version_in_mlflow(
    platform: Platform,
) -> None:
    night = second_champion(platform)
    platform.roll_back()
    platform.registry._client.delete_model_version(platform.pipeline.name, "6")
    platform.train(GOOD, night)
    again = platform.evaluate(night)
    assert again["event"] == "rolled_back"
    assert again["serves"] == "1"
    assert platform.champion() == "1"
    platform.limits(max_age_days=4)
    platform.train(0.8, night)
    assert platform.evaluate(night)["event"] in ("kept", "promoted"), "another model is judged"


def test_of_a_deleted_version_that_the_record_does_not_describe_the_persons_word_stands(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        # As the code of before recorded it.
        before.setattr(stage, "_FINGERPRINT", "of no interest")
        night = second_champion(platform)
    platform.roll_back()
    platform.registry._client.delete_model_version(platform.pipeline.name, "6")
    platform.train(0.8, night)
    again = platform.evaluate(night)
    assert (again["event"], again["serves"]) == ("rolled_back", "1")


def test_a_better_model_is_promoted_over_the_one_that_was_rolled_back_to(
    platform: Platform,
) -> None:
    night = second_champion(platform)
    platform.roll_back()
    platform.limits(max_age_days=None)
    # What spoke for the withdrawn one is not held for those that follow.
    events = platform.nights(GOOD, 25, after=night, until="promoted")
    first = events.index("promoted")
    assert first >= 3
    promoted = [event for event in platform.events() if event[0] == "promoted"]
    assert promoted[2] == ("promoted", str(7 + first), "1")
    assert platform.champion() == str(7 + first)


def test_an_old_night_run_again_never_takes_the_place_of_the_one_rolled_back_to(
    platform: Platform,
) -> None:
    night = second_champion(platform)
    platform.roll_back()
    before = night - timedelta(days=1)
    platform.limits(max_age_days=3)
    platform.train(GOOD, before)
    assert platform.evaluate(before)["event"] == "promoted"
    assert platform.champion() == "1", "it serves the night that was rolled back, and what follows"
    then = small.serving_model(platform.environment, platform.registry, before)
    assert then == platform.registry.version("7")


def test_a_model_that_needs_approval_awaits_a_person_who_has_the_last_word(
    platform: Platform,
) -> None:
    platform.limits(needs_approval=True)
    platform.train(GOOD)
    first = platform.evaluate()
    name = platform.pipeline.name
    assert (first["event"], first["serves"]) == ("awaiting", None)
    assert f"It awaits a person: nightshift approve {name} 1 --why TEXT" in first["reason"]
    assert platform.champion() is None
    decide.approve(platform.environment, platform.pipeline, "1", SAID)
    again = platform.evaluate()
    assert (again["event"], again["serves"]) == ("approved", "1")
    assert platform.champion() == "1"
    assert platform.events() == [("awaiting", "1", None), ("approved", "1", None)]


def test_what_a_person_says_while_a_candidate_is_judged_stands(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.limits(needs_approval=True)
    platform.train(GOOD)
    platform.evaluate()
    platform.limits(needs_approval=False)

    def reject(*_: object) -> None:
        decide.reject(platform.environment, platform.pipeline, "1", SAID)

    monkeypatch.setattr(stage, "_log", reject)
    told = platform.evaluate()
    assert told["event"] == "rejected"
    assert told["reason"] == SAID.why
    assert told["serves"] is None
    assert platform.events()[-1] == ("rejected", "1", None)


def test_a_run_may_ask_for_approval_where_its_pipeline_does_not(platform: Platform) -> None:
    platform.train(GOOD)
    run = small.run_of(platform.environment, "evaluate", small.LAST, pipeline=platform.pipeline)
    assert evaluate(replace(run, needs_approval=True))["event"] == "awaiting"
    assert platform.champion() is None
    decide.approve(platform.environment, platform.pipeline, "1", SAID)
    again = platform.evaluate()
    assert (again["event"], again["serves"]) == ("approved", "1")


def test_a_model_that_was_rejected_never_serves(platform: Platform) -> None:
    platform.train(FAIR)
    platform.evaluate()
    platform.limits(needs_approval=True, max_age_days=2)
    assert platform.nights(GOOD, 3) == ["kept", "kept", "awaiting"]
    decide.reject(platform.environment, platform.pipeline, "4", SAID)
    night = small.LAST + timedelta(days=3)
    assert platform.evaluate(night)["event"] == "rejected"
    platform.train(GOOD, night)
    assert platform.evaluate(night)["event"] == "rejected"
    assert platform.champion() == "1"
    events = [event for event, _, _ in platform.events()]
    assert events == ["promoted", "kept", "kept", "awaiting", "rejected"]


@pytest.fixture
def pass_hours(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the clock of the record go so many hours ahead, in all."""
    real = ops.now

    def go(hours: float) -> None:
        monkeypatch.setattr(ops, "now", lambda: real() + timedelta(hours=hours))

    return go


def test_a_model_that_nobody_approves_in_time_is_refused_by_the_next_evaluation(
    platform: Platform, pass_hours: Callable[[float], None]
) -> None:
    platform.limits(needs_approval=True, approval_hours=48)
    platform.train(GOOD)
    first = platform.evaluate()
    assert (first["event"], first["expired"]) == ("awaiting", [])
    assert "It awaits a person, for 48 h: nightshift approve" in first["reason"]
    pass_hours(47)
    assert platform.evaluate()["expired"] == []
    assert platform.events() == [("awaiting", "1", None)], "the same words are said once"
    pass_hours(49)
    platform.train(BAD, NEXT)
    with pytest.raises(Refused):
        platform.evaluate(NEXT)
    *_, expired, refused = model_events.events(platform.environment, platform.pipeline.name)
    assert (expired["event"], expired["model_version"]) == ("expired", "1")
    assert (expired["who"], expired["reason"]) == ("nightshift", "Nobody approved it within 48 h.")
    assert expired["as_of"] == small.LAST
    assert refused["event"] == "refused"
    with pytest.raises(UsageError, match="nobody can approve it any more"):
        decide.approve(platform.environment, platform.pipeline, "1", SAID)
    assert platform.champion() is None


def test_who_approves_too_late_is_told_the_way_out_and_can_take_it(
    platform: Platform, pass_hours: Callable[[float], None]
) -> None:
    platform.limits(needs_approval=True, approval_hours=0.5)
    platform.train(GOOD)
    platform.evaluate()
    pass_hours(1)
    way_out = rf"nightshift run \w+ --date {small.LAST} --stage evaluate"
    with pytest.raises(UsageError, match=way_out):
        decide.approve(platform.environment, platform.pipeline, "1", SAID)
    again = platform.evaluate()
    assert (again["event"], again["expired"]) == ("awaiting", ["1"])
    decide.approve(platform.environment, platform.pipeline, "1", SAID)
    assert [event for event, _, _ in platform.events()] == [
        "awaiting",
        "expired",
        "awaiting",
        "approved",
    ]
    assert platform.evaluate()["serves"] == "1"


def test_a_model_can_be_rejected_after_its_time_and_stays_rejected(
    platform: Platform, pass_hours: Callable[[float], None]
) -> None:
    platform.limits(needs_approval=True, approval_hours=1)
    platform.train(GOOD)
    platform.evaluate()
    pass_hours(2)
    decide.reject(platform.environment, platform.pipeline, "1", SAID)
    assert platform.evaluate()["event"] == "rejected"
    assert [event for event, _, _ in platform.events()] == ["awaiting", "rejected"]


def test_no_model_serves_a_night_before_it_was_trained(platform: Platform) -> None:
    platform.train(GOOD)
    platform.evaluate()
    before = small.LAST - timedelta(days=1)
    assert small.serving_model(platform.environment, platform.registry, before) is None


def test_a_night_that_was_not_trained_tells_what_to_run(platform: Platform) -> None:
    with pytest.raises(
        NightshiftError,
        match=r"No model of '\w+' was trained as of 2013-01-24. Run stage train first",
    ):
        platform.evaluate()


@pytest.mark.usefixtures("drawn")
def test_a_champion_of_another_family_is_still_compared_with(tmp_path: Path) -> None:
    environment = small.models_at(tmp_path)
    small.publish(environment, small.rows_of(Days(small.FIRST, NEXT)))
    linear = small.learned_by(small.SMALL, small.LINEAR)
    train(small.run_of(environment, "train", pipeline=linear))
    evaluate(small.run_of(environment, "evaluate", pipeline=linear))
    candidate = _untrained_network(Registry(environment, "small"), tmp_path)
    result = evaluate(small.run_of(environment, "evaluate", NEXT))
    assert (result["champion_before"], result["model_version"]) == ("1", candidate.version)
    assert result["serves"] == "1"


def _untrained_network(registry: Registry, folder: Path) -> ModelVersion:
    job = small.job_of()
    files = folder / "network"
    files.mkdir()
    model = network.build(job.encoding, job.network, task_of(job.task))
    network.save(model, files / MODEL)
    (files / ENCODING).write_text(job.encoding.to_json())
    return registry.keep(
        files,
        as_of=NEXT,
        fingerprint="untrained",
        family="neural_network",
        recipe="as ever",
        params={},
        curves={},
        pins={},
    )


@pytest.mark.usefixtures("drawn")
def test_a_candidate_has_a_card_also_when_it_is_refused(platform: Platform) -> None:
    cards = platform.environment.reports / platform.pipeline.name / "models"
    platform.train(GOOD)
    platform.evaluate()
    platform.train(BAD, NEXT)
    platform.evaluate(NEXT)
    first, second = ((cards / version / "card.md").read_text() for version in ("1", "2"))
    assert "version 1: serves since" in first
    assert "version 2: refused" in second
    assert (cards / "1" / "learning_curve.png").is_file()


def test_a_card_that_cannot_be_written_keeps_no_model_from_serving(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = platform.environment.reports / platform.pipeline.name
    folder.mkdir(parents=True)
    (folder / "models").write_text("in the way")
    platform.train(GOOD)
    assert platform.evaluate()["serves"] == "1"
    assert "Warning: the card of model" in capsys.readouterr().err
