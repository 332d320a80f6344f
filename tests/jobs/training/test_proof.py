from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest

from jobs.services.child import ALLOWED
from jobs.training import candidate, proof, scoring
from jobs.training.candidate import Candidate, Member
from jobs.training.encoding import ENCODING
from jobs.training.families import family_of
from jobs.training.families.linear import Linear, LinearFit
from jobs.training.families.neural_network import NeuralNetworkFamily
from jobs.training.families.neural_network.light import LiteRT
from jobs.training.metrics import Vector
from pipelines.environment import Environment
from pipelines.errors import NightshiftError, Refused
from pipelines.model import Family
from pipelines.run import Run
from tests.jobs.training import small

if TYPE_CHECKING:
    from jobs.training.families.light import Model

FAMILY = NeuralNetworkFamily()


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A fit that nobody trained."""

    sample_scores: Vector
    curves: Mapping[str, list[float]] = field(default_factory=dict)
    calibration_slope: float | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Its files are there."""


def _member(family: Family, environment: Environment, folder: Path) -> Member:
    folder.mkdir()
    data = small.data_of(small.learned_by(small.SMALL, family).training)
    fit = family_of(family.name).fit(data, family, environment, folder)
    return Member(
        fit=fit,
        encoding=data.encoding,
        fit_rows=512,
        sample=data.fit.sample(),
    )


def _saved(family: Family, environment: Environment, folder: Path) -> tuple[Candidate, Path]:
    judged = _member(family, environment, folder / "of the judged")
    fresh = _member(family, environment, folder / "of the fresh")
    made = Candidate(judged=judged, fresh=fresh, validation_rows=64)
    return made, folder / "files"


def _prove(run: Run, family: Family, made: Candidate, files: Path) -> proof.Proof:
    work = files.parent / "work"
    work.mkdir()
    return proof.prove(run, family.name, made, files, work)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return small.run_of(small.environment_at(tmp_path), "train")


def _limited(run: Run, **limits: Any) -> Run:
    promotion = replace(run.pipeline.promotion, **limits)
    return replace(run, pipeline=replace(run.pipeline, promotion=promotion))


def _linear(run: Run, folder: Path) -> tuple[Candidate, Path]:
    made, files = _saved(small.LINEAR, run.environment, folder)
    files.mkdir()
    made.save(files)
    return made, files


def _other(fit: LinearFit, change: float) -> LinearFit:
    model: Linear = fit.model
    return replace(fit, model=replace(model, intercept=model.intercept + change))


def test_the_stage_server_may_fork_it() -> None:
    assert proof.FUNCTION in ALLOWED


@pytest.mark.parametrize(
    "family",
    [small.NETWORK, small.LINEAR],
    ids=lambda one: one.name,
)
def test_saved_files_serve_as_the_trained_model_did(
    family: Family, ranked: Environment, tmp_path: Path
) -> None:
    made, files = _saved(family, ranked, tmp_path)
    files.mkdir()
    made.save(files)
    proven = _prove(small.run_of(ranked, "train"), family, made, files)
    assert 0 < proven.megabytes < 1
    assert 0 < proven.seconds_per_1000_rows < 1


def _network(environment: Environment, folder: Path) -> tuple[Candidate, Path]:
    """Both models are networks that are drawn; light files are not there yet."""
    data = small.data_of()
    files = folder / "files"
    members = []
    for seed, place in ((1, files / candidate.JUDGED), (2, files)):
        place.mkdir(parents=True, exist_ok=True)
        small.save_network(small.TRAINING, place, seed)
        (place / ENCODING).write_text(data.encoding.to_json())
        model = scoring.load_trained_from(place, FAMILY).model
        fit = Drawn(sample_scores=model.score(data.fit.sample()))
        members.append(
            Member(
                fit=fit,
                encoding=data.encoding,
                fit_rows=512,
                sample=data.fit.sample(),
            )
        )
        for name in FAMILY.light.files.values():
            (place / name).unlink()
    judged, fresh = members
    return Candidate(judged=judged, fresh=fresh, validation_rows=64), files


def _light_files(files: Path) -> list[str]:
    return sorted(file.relative_to(files).as_posix() for file in files.rglob("*.tflite"))


def test_a_network_gets_light_files_by_which_it_serves(ranked: Environment, tmp_path: Path) -> None:
    made, files = _network(ranked, tmp_path)
    proven = _prove(small.run_of(ranked, "train"), small.NETWORK, made, files)
    names = ["model.tflite", "quantised.tflite"]
    assert _light_files(files) == [*(f"judged/{name}" for name in names), *names]
    assert proven.is_light
    assert proven.quantised is not None
    # Of a network this small hardly a layer is large.
    assert 0 < proven.quantised.share_of_size < 1.05
    assert 0 < proven.quantised.seconds_per_1000_rows < 0.1


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        ("scores-exact.npy", "of the one that serves it says "),
        ("failure-exact.txt", "of the one that serves it could not be made (Broken: op)."),
    ],
)
def test_where_light_files_say_something_else_none_is_kept(
    ranked: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    break_it: str,
    why: str,
) -> None:
    made, files = _network(ranked, tmp_path)
    in_other_processes = proof._in_other_processes

    def broken(*arguments: Any) -> None:
        in_other_processes(*arguments)
        file = tmp_path / "work" / "fresh" / break_it
        if file.suffix == ".txt":
            file.write_text("Broken: op")
        else:
            np.save(file, np.load(file) + 3e-6)

    monkeypatch.setattr(proof, "_in_other_processes", broken)
    proven = _prove(small.run_of(ranked, "train"), small.NETWORK, made, files)
    assert (proven.is_light, proven.quantised, _light_files(files)) == (False, None, [])
    told = capsys.readouterr().err
    assert "is kept without its exact file for LiteRT: " in told
    assert "It is scored as it was trained, which takes longer." in told
    assert why in told


def test_a_quantised_variant_that_says_nonsense_is_not_kept(
    ranked: Environment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, files = _network(ranked, tmp_path)
    in_other_processes = proof._in_other_processes

    def broken(*arguments: Any) -> None:
        in_other_processes(*arguments)
        file = tmp_path / "work" / "judged" / "scores-quantised.npy"
        np.save(file, np.load(file) * np.nan)

    monkeypatch.setattr(proof, "_in_other_processes", broken)
    proven = _prove(small.run_of(ranked, "train"), small.NETWORK, made, files)
    assert (proven.is_light, proven.quantised) == (True, None)
    assert _light_files(files) == ["judged/model.tflite", "model.tflite"]
    told = capsys.readouterr().err
    assert "quantised file for LiteRT: of the one that is judged it says nan" in told


def test_a_network_that_cannot_be_converted_serves_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(_: object, model: object, folder: Path, variant: str) -> None:
        raise RuntimeError(f"no such {variant} operation")

    small.save_network(small.TRAINING, tmp_path)
    monkeypatch.setattr(LiteRT, "make", make)
    model = cast("Model", None)  # which nothing reads any more
    proof._try_light(FAMILY.light, model, tmp_path, small.data_of().fit, tmp_path)
    for variant in FAMILY.light.files:
        told = (tmp_path / f"failure-{variant}.txt").read_text()
        assert told == f"RuntimeError: no such {variant} operation"


def test_a_sample_of_one_row_is_timed_as_a_thousand_rows(run: Run, tmp_path: Path) -> None:
    made, files = _linear(run, tmp_path)

    def of_one_row(member: Member) -> Member:
        fit = replace(member.fit, sample_scores=member.fit.sample_scores[:1])
        return replace(member, fit=fit, sample=member.sample.take(np.arange(1)))

    few = replace(made, judged=of_one_row(made.judged), fresh=of_one_row(made.fresh))
    # A call takes 60 microseconds, and a thousand rows at once a few milliseconds.
    assert _prove(run, small.LINEAR, few, files).seconds_per_1000_rows < 0.01


def test_files_that_say_something_else_are_refused(run: Run, tmp_path: Path) -> None:
    made, files = _linear(run, tmp_path)
    files_of_another = replace(made.fresh, fit=_other(made.fresh.fit, 0.01))
    files_of_another.fit.save(files)
    with pytest.raises(Refused, match=r"is not kept: the saved files of the one that serves give"):
        _prove(run, small.LINEAR, made, files)


def test_the_judged_files_are_proven_too(run: Run, tmp_path: Path) -> None:
    made, files = _linear(run, tmp_path)
    _other(made.judged.fit, 0.01).save(files / candidate.JUDGED)
    with pytest.raises(Refused, match=r"the saved files of the one that is judged give"):
        _prove(run, small.LINEAR, made, files)


def test_what_the_last_digits_tell_is_no_difference(run: Run, tmp_path: Path) -> None:
    made, files = _linear(run, tmp_path)
    _other(made.fresh.fit, 1e-6).save(files)
    _prove(run, small.LINEAR, made, files)


def test_predictions_that_are_no_numbers_are_refused(run: Run, tmp_path: Path) -> None:
    made, files = _linear(run, tmp_path)
    _other(made.fresh.fit, np.nan).save(files)
    with pytest.raises(Refused, match=r"512 of 512 predictions are no finite number"):
        _prove(run, small.LINEAR, made, files)


def test_files_that_cannot_be_loaded_are_no_model(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made, files = _linear(run, tmp_path)
    (files / "linear.json").unlink()
    with pytest.raises(NightshiftError, match=r"without Horovod ended with exit code 3"):
        _prove(run, small.LINEAR, made, files)
    assert "linear.json" in capfd.readouterr().err


@pytest.mark.parametrize("limit", ["max_megabytes", "max_seconds_per_1000_rows"])
def test_a_model_over_its_budget_is_refused(run: Run, tmp_path: Path, limit: str) -> None:
    made, files = _linear(run, tmp_path)
    with pytest.raises(Refused, match=rf"{limit} is 1e-09"):
        _prove(_limited(run, **{limit: 1e-9}), small.LINEAR, made, files)


_LEANING = """
import sys
import horovod
from jobs.training import proof
from jobs.training.families.linear import LinearFamily

load = LinearFamily.load

def leaning(*arguments):
    import horovod
    return load(*arguments)

if sys.argv[3] == "leaning":
    LinearFamily.load = leaning
proof.in_child({"family": "linear", "work": sys.argv[1], "files": sys.argv[2]})
assert "horovod" not in sys.modules
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [("free", 0), ("leaning", 1)],
)
def test_a_model_that_needs_horovod_to_be_loaded_is_found_out(
    run: Run, tmp_path: Path, how: str, code: int
) -> None:
    made, files = _linear(run, tmp_path)
    work = tmp_path / "work"
    proof._write_sample(work, made.fresh.sample)
    ended = subprocess.run(
        [sys.executable, "-c", _LEANING, str(work), str(files), how],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code, ended.stderr
    assert ("horovod is hidden" in ended.stderr) == bool(code)
