"""Whether a model's saved files serve as the model did that was trained, before they are kept.

Each is loaded in a process of its own that cannot import Horovod, as everyone does who scores. It
also makes the light files (`jobs/training/families/light.py`), which are kept where they say the
same.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jobs.services import stage_client
from jobs.training.candidate import JUDGED
from jobs.training.encoding import ENCODING, Encoding, Examples
from jobs.training.families import family_of
from jobs.training.families.light import EXACT, QUANTISED, Variant
from pipelines.errors import NightshiftError, Refused
from pipelines.spec import TRAINING

if TYPE_CHECKING:
    from jobs.training.candidate import Candidate, Member
    from jobs.training.families import ModelFamily
    from jobs.training.families.light import LightFormat, Model
    from jobs.training.metrics import Vector
    from pipelines.run import Run

FUNCTION = "jobs.training.proof:in_child"
"""What the stage server forks; it must be among those that it allows."""
TOLERANCE = 1e-4
"""Of the largest score. A float32 keeps seven digits, and sums over some hundred units that are
added in another order lose two of them; a wrong scale or a lost layer changes the first."""
PARITY = 1e-6
"""The same of exact light files, of a score of 1 where the largest is smaller: they do the same
sums, in single precision too."""
_ALLOWED: Mapping[Variant, float] = {EXACT: PARITY, QUANTISED: 0.2}
"""The same by variant. What rounding costs in quality `evaluate` tells; here nonsense is found."""
_MEANS: Mapping[Variant, str] = {
    EXACT: "It is scored as it was trained, which takes longer.",
    QUANTISED: "It can only serve without rounding.",
}
_TIMEOUT_SECONDS = 300
"""Importing TensorFlow anew takes 13, and longer on a busy machine."""
_REPEATS = 3
"""The fastest counts: the first builds what the others use, and others may use the machine."""
_TIMED_ROWS = 1000
_SAMPLE = "sample.npz"
_TRAINED = "trained"
"""The model as it was trained, beside its variants."""
_ABSENT = "horovod"
_BYTES_OF_A_MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What a model costs those who serve it."""

    megabytes: float
    """Of all its files."""
    seconds_per_1000_rows: float
    """To score by what serves, once it is loaded."""
    is_light: bool
    """Whether what serves needs no library that trained it."""
    quantised: Quantised | None
    """None: there is no such variant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantised:
    """What the variant with rounded weights saves."""

    share_of_size: float
    """Of its file in that of the exact variant."""
    seconds_per_1000_rows: float


def prove(
    run: Run,
    family: str,
    made: Candidate,
    files: Path,
    folder: Path,
) -> Proof:
    """Load the saved files elsewhere, and compare what they say with what the model said.

    Args:
        run: Of the night.
        family: Name of the models' family.
        made: The models as they were trained.
        files: Folder to which they were saved.
        folder: A private one, for what the other process is given and gives.

    Raises:
        Refused: a prediction is no finite number or another one, or a budget is exceeded.
        NightshiftError: the files could not be loaded.
    """
    members = (
        _Saved("serves", made.fresh, files, folder / "fresh"),
        _Saved("is judged", made.judged, files / JUDGED, folder / "judged"),
    )
    for one in members:
        _write_sample(one.work, one.member.sample)
    _in_other_processes(run, {one.role: one.asked(family) for one in members})
    for one in members:
        scores = one.scores(_TRAINED)
        _require_finite(run, one.role, scores)
        _require_the_same(run, one.role, scores, one.member)
    kept = _kept_variants(run, family_of(family), members)
    serves = EXACT if EXACT in kept else _TRAINED
    proof = Proof(
        megabytes=_megabytes(files),
        seconds_per_1000_rows=max(one.seconds_per_1000_rows(serves) for one in members),
        is_light=EXACT in kept,
        quantised=_quantised(family_of(family), members) if QUANTISED in kept else None,
    )
    _require_within_budgets(run, proof)
    return proof


@dataclass(frozen=True, slots=True)
class _Saved:
    """One of the two models."""

    role: str
    """What it does, for people."""
    member: Member
    files: Path
    work: Path
    """What the other process is given and gives."""

    def asked(self, family: str) -> dict[str, str]:
        """What the other process is to do: see `in_child`."""
        return {"family": family, "files": str(self.files), "work": str(self.work)}

    def scores(self, how: str) -> Vector:
        """Of the sample, as the other process scored it: by a variant, or as it was trained."""
        scores: Vector = np.load(_scores_file(self.work, how), allow_pickle=False)
        return scores

    def seconds_per_1000_rows(self, how: str) -> float:
        """As the other process has measured it."""
        seconds: float = json.loads(_seconds_file(self.work, how).read_text())
        return seconds


def in_child(argument: Mapping[str, str]) -> None:
    """Load a model, score its sample and take the time, where nothing can import Horovod.

    Args:
        argument: Name of the family, and the folders of the model's files and of the work.
    """
    _hide(_ABSENT)
    family = family_of(argument["family"])
    folder, work = Path(argument["files"]), Path(argument["work"])
    encoding = Encoding.from_json((folder / ENCODING).read_text())
    model = family.load(folder, encoding)
    sample = _read_sample(work)
    _try(model, sample, work, _TRAINED)
    if family.light:
        _try_light(family.light, model, folder, sample, work)


def _try_light(
    light: LightFormat,
    model: Model,
    folder: Path,
    sample: Examples,
    work: Path,
) -> None:
    for variant in light.files:
        try:
            light.make(model, folder, variant)
            _try(light.load(folder, variant), sample, work, variant)
        # Whatever a converter raises: the model serves without that file.
        except Exception as error:
            _failure_file(work, variant).write_text(f"{type(error).__name__}: {error}")


def _try(model: Model, sample: Examples, work: Path, how: str) -> None:
    """Keep what the model says of the sample, and how long it takes."""
    np.save(_scores_file(work, how), model.score(sample), allow_pickle=False)
    # Of a few rows most of the time is the call's own, and would count a thousandfold.
    timed = sample.take(np.arange(_TIMED_ROWS) % len(sample))
    seconds = []
    for _ in range(_REPEATS):
        started = time.monotonic()
        model.score(timed)
        seconds.append(time.monotonic() - started)
    _seconds_file(work, how).write_text(json.dumps(min(seconds)))


def _scores_file(work: Path, how: str) -> Path:
    return work / f"scores-{how}.npy"


def _failure_file(work: Path, how: str) -> Path:
    return work / f"failure-{how}.txt"


def _seconds_file(work: Path, how: str) -> Path:
    return work / f"seconds-{how}.json"


def _kept_variants(run: Run, family: ModelFamily, members: Iterable[_Saved]) -> list[Variant]:
    """Those whose files say what the models say; others are deleted, and people told.

    Without the exact variant none is kept: a quantised one is judged beside it.
    """
    if family.light is None:
        return []
    kept: list[Variant] = []
    for variant in (EXACT, QUANTISED):
        reasons = [reason for one in members if (reason := _why_not(one, variant))]
        if not reasons and (variant == EXACT or EXACT in kept):
            kept.append(variant)
            continue
        for one in members:
            (one.files / family.light.files[variant]).unlink(missing_ok=True)
        if reasons:
            _warn(run, variant, reasons)
    return kept


def _why_not(one: _Saved, variant: Variant) -> str | None:
    failure = _failure_file(one.work, variant)
    if failure.exists():
        return f"of the one that {one.role} it could not be made ({failure.read_text()})."
    trained = one.scores(_TRAINED)
    apart = float(np.abs(one.scores(variant) - trained).max())
    allowed = _ALLOWED[variant] * max(1.0, float(np.abs(trained).max()))
    # No number at all is no more near than one far away.
    if apart <= allowed:
        return None
    return (
        f"of the one that {one.role} it says {apart:.3g} more or less, and {allowed:.3g} are "
        "allowed."
    )


def _warn(run: Run, variant: Variant, reasons: Iterable[str]) -> None:
    print(
        f"Warning: the model of '{run.pipeline.name}' that was trained as of {run.days.last} is "
        f"kept without its {variant} file for LiteRT: {' '.join(reasons)} {_MEANS[variant]}",
        file=sys.stderr,
        flush=True,
    )


def _quantised(family: ModelFamily, members: Iterable[_Saved]) -> Quantised:
    assert family.light is not None, "only light files have a quantised variant"
    sizes: dict[Variant, int] = {}
    for variant, name in family.light.files.items():
        sizes[variant] = sum((one.files / name).stat().st_size for one in members)
    seconds = max(one.seconds_per_1000_rows(QUANTISED) for one in members)
    return Quantised(
        share_of_size=sizes[QUANTISED] / sizes[EXACT],
        seconds_per_1000_rows=seconds,
    )


class _Hidden(MetaPathFinder):
    """Finds a package in no place, whether it is installed or not."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, fullname: str, *_: object) -> None:
        """Called by Python for each import, before it looks anywhere else."""
        if fullname.partition(".")[0] == self._package:
            raise ModuleNotFoundError(f"{fullname} is hidden: who serves has it not")


def _hide(package: str) -> None:
    # The stage server has imported it, and its children find it there.
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            del sys.modules[name]
    sys.meta_path.insert(0, _Hidden(package))


def _in_other_processes(run: Run, asked: Mapping[str, Mapping[str, str]]) -> None:
    """One for each model, at once: most of their time makes files of one kind from another.

    Args:
        run: Of the night.
        asked: What each is to do, by the role of its model.
    """
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    with ExitStack() as ending:
        started = {}
        for role, one in asked.items():
            started[role] = stage_client.spawn(run.environment, FUNCTION, dict(one), quiet)
            ending.callback(started[role].kill)
        for role, work in started.items():
            _require_ended_well(run, role, work.wait(max(0.0, deadline - time.monotonic())))


def _require_ended_well(run: Run, role: str, code: int | None) -> None:
    if code == 0:
        return
    how = f"ended with exit code {code}" if code else f"took over {_TIMEOUT_SECONDS} s"
    raise NightshiftError(
        f"The model of '{run.pipeline.name}' that was trained as of {run.days.last} is not "
        f"kept: of the one that {role} the process that loaded its files without Horovod {how}. "
        "Its error is above."
    )


def _write_sample(folder: Path, sample: Examples) -> None:
    folder.mkdir()
    np.savez(
        folder / _SAMPLE,
        numeric=sample.numeric,
        categorical=sample.categorical,
        label=sample.label,
    )


def _read_sample(folder: Path) -> Examples:
    with np.load(folder / _SAMPLE, allow_pickle=False) as parts:
        return Examples(**parts)


def _require_finite(run: Run, role: str, scores: Vector) -> None:
    """A weight that is no number makes each prediction none that it has a part in."""
    odd = int((~np.isfinite(scores)).sum())
    if odd:
        raise _refused(
            run,
            f"of the one that {role} {odd} of {len(scores)} predictions are no finite number. "
            "The same rows and settings would give it again: lower the learning rate, or look for "
            "values that are out of all proportion in "
            f"{run.pipeline.name}.{TRAINING}.",
        )


def _require_the_same(run: Run, role: str, scores: Vector, member: Member) -> None:
    before = member.fit.sample_scores
    apart = float(np.abs(scores - before).max())
    allowed = TOLERANCE * float(np.abs(before).max())
    if apart > allowed:
        raise _refused(
            run,
            f"the saved files of the one that {role} give predictions that differ by up to "
            f"{apart:.3g} from those of the model in memory, and {allowed:.3g} are allowed. "
            "What saves or loads it loses a part of it.",
        )


def _require_within_budgets(run: Run, proof: Proof) -> None:
    limits = run.pipeline.promotion
    if proof.megabytes > limits.max_megabytes:
        raise _refused(
            run,
            f"its files have {proof.megabytes:.1f} MB, and max_megabytes is "
            f"{limits.max_megabytes:g}.",
        )
    if proof.seconds_per_1000_rows > limits.max_seconds_per_1000_rows:
        raise _refused(
            run,
            f"it takes {proof.seconds_per_1000_rows:.2f} s to score 1,000 rows, and "
            f"max_seconds_per_1000_rows is {limits.max_seconds_per_1000_rows:g}.",
        )


def _refused(run: Run, why: str) -> Refused:
    name = run.pipeline.name
    return Refused(
        f"The model of '{name}' that was trained as of {run.days.last} is not kept: {why}"
    )


def _megabytes(files: Path) -> float:
    size = 0
    for file in files.rglob("*"):
        if file.is_file():
            size += file.stat().st_size
    return size / _BYTES_OF_A_MEGABYTE
