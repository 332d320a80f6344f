"""Tells where a process spends its time: looks many times a second at what its threads are doing.

Of a moment in which several threads work, each gets its part, so that the seconds add up to those
on the clock. A thread that waits for what a pool or a queue gives it has none.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType

from pipelines.environment import ROOT

_LOOK_SECONDS = 0.01
_UNKNOWN = ""
PLANS = "Spark plans"
COMPUTES = "Spark computes"
FILES = "tables and files"
CHECKS = "Great Expectations"
MODELS = "model libraries"
RANKS = "ranks and other processes"
IMPORTS = "imports"
PYTHON = "Python"
KINDS = (PLANS, COMPUTES, FILES, CHECKS, MODELS, RANKS, IMPORTS, PYTHON)
"""What a thread may be doing."""
_OWN = {f"{ROOT}/{name}/": name for name in ("jobs", "pipelines", "expectations", "features")}
_RANKS = f"{ROOT}/jobs/training/families/neural_network"
_WAIT_FOR_PROCESSES = (
    f"{ROOT}/jobs/services/stage_client.py",
    f"{_RANKS}/numbered.py",
    f"{_RANKS}/executors.py",
)
_BY_PATH = (
    # Within these, a thread waits for another, whose seconds they are.
    ("/concurrent/futures/", None),
    ("/queue.py", None),
    ("/socketserver.py", None),
    ("/pyspark/sql/connect/client/", COMPUTES),
    ("/great_expectations/", CHECKS),
    ("/deltalake/", FILES),
    ("/pyarrow/", FILES),
    ("/sqlalchemy/", FILES),
    ("/tensorflow/", MODELS),
    ("/keras/", MODELS),
    ("/ai_edge_litert/", MODELS),
    ("/sklearn/", MODELS),
    ("/subprocess.py", RANKS),
    ("<frozen importlib", IMPORTS),
    # What is not Python leaves no frame: its seconds are those of the function that calls it.
    *((path, RANKS) for path in _WAIT_FOR_PROCESSES),
    # Beside who waits for ranks: this holds their lines.
    (f"{_RANKS}/wanted.py", None),
    (f"{ROOT}/jobs/lake/", FILES),
    *((path, PYTHON) for path in _OWN),
)
"""In the path of a function's file -> what a thread does in it; the innermost that is known
counts."""
_PLANS = "_analyze"
"""Function of Spark's client that asks for a plan, such as for the columns of a query."""


_Seen = dict[tuple[str, str], float]
"""Seconds by kind, and by our function that was being worked for: `jobs/night.py perform`."""


@contextmanager
def sampling(file: Path, about: Mapping[str, str]) -> Iterator[None]:
    """Look while the block lasts, and write what was seen into the file, as JSON.

    Args:
        file: Which is written.
        about: What is written with it.
    """
    seen: _Seen = {}
    ended = threading.Event()
    looking = threading.Thread(target=_look, args=(seen, ended), daemon=True)
    started = time.monotonic()
    began = time.time()
    looking.start()
    try:
        yield
    finally:
        ended.set()
        looking.join()
        seconds = time.monotonic() - started
        places = [[*place, spent] for place, spent in seen.items()]
        told = {**about, "began": began, "seconds": seconds, "places": places}
        _keep(file, told)


def _keep(file: Path, told: Mapping[str, object]) -> None:
    """Write it in full or not at all; a failure here never fails the work."""
    fresh = file.with_suffix(".fresh")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(told))
        fresh.rename(file)
    except OSError as error:
        print(f"Warning: where its time went is not kept: {error}", file=sys.stderr, flush=True)


def _look(seen: _Seen, ended: threading.Event) -> None:
    own = threading.get_ident()
    last = time.monotonic()
    is_over = False
    while not is_over:
        is_over = ended.wait(_LOOK_SECONDS)
        now = time.monotonic()
        frames = [frame for thread, frame in sys._current_frames().items() if thread != own]
        working = [one for frame in frames if (one := doing(frame)) is not None]
        for one in working:
            part = (now - last) / len(working)
            seen[one] = seen.get(one, 0.0) + part
        last = now


def doing(innermost: FrameType) -> tuple[str, str] | None:
    """What the thread of that frame does, and for which function of ours.

    None: it waits, or works for a library alone.
    """
    frames = list(_outwards(innermost))
    kinds = (_kind(frame.f_code.co_filename, frame.f_code.co_name) for frame in frames)
    kind = next((kind for kind in kinds if kind != _UNKNOWN), None)
    place = next(filter(None, map(_place, frames)), None)
    return None if kind is None or place is None else (kind, place)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@lru_cache(maxsize=10_000)
def _kind(path: str, function: str) -> str | None:
    """`_UNKNOWN`: the function tells nothing, so look at who has called it."""
    for part, kind in _BY_PATH:
        if part in path:
            return PLANS if kind == COMPUTES and function == _PLANS else kind
    return _UNKNOWN


def _place(frame: FrameType) -> str | None:
    path = frame.f_code.co_filename
    if path in _WAIT_FOR_PROCESSES:
        # Who waits tells more.
        return None
    for own, name in _OWN.items():
        if path.startswith(own):
            return f"{name}/{path.removeprefix(own)} {frame.f_code.co_name}"
    return None
