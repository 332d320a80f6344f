"""How ratios have changed between two files of results: `python -m bench.compare OLD NEW`.

A change is told when no round of the new run has a ratio that one of the old run had: what is
within the spread of either is noise; of one or two rounds a spread is not known, and assumed.
What only one of them has, and what they were measured on, is told too: another machine, or another
version of a peer, changes ratios as the code does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import OURS
from bench.report import Result, by_machine, ratios, read

_FEW_ROUNDS = 3
"""Fewer do not show by how much ratios differ from round to round."""
_UNSEEN_SPREAD = 0.1
"""Of a ratio of few rounds: by such a share it may well be smaller or larger the next time."""
_Span = tuple[float, float]
_Key = tuple[str, int, str]
"""Case, size and peer."""


def main() -> int:
    """Print a line for each ratio that changed, and how many did not."""
    parser = argparse.ArgumentParser(prog="bench.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    asked = parser.parse_args()
    for file in (asked.old, asked.new):
        if not file.is_file():
            parser.error(f"there is no file {file}")
    print(of(read(asked.old), read(asked.new)))
    return 0


def of(old: Iterable[Result], new: Iterable[Result]) -> str:
    """The changes in words.

    What a machine has measured is compared with what the same machine had measured; where there is
    nothing of it, with the first machine of the old.
    """
    before, after = by_machine(old), by_machine(new)
    left = dict(before)
    lines = []
    for machine, now in after.items():
        if len(after) > 1:
            lines.append(f"{machine}:")
        other = machine if machine in before else next(iter(before), machine)
        left.pop(other, None)
        lines.append(_of_one(before.get(other, []), now))
    lines += [f"not compared: {machine}" for machine in left]
    return "\n".join(lines)


def _of_one(was: Sequence[Result], now: Sequence[Result]) -> str:
    before, after = dict(_by_key(was)), dict(_by_key(now))
    both = [key for key in after if key in before]
    lines = []
    for key in both:
        low, high = _reach(before[key])
        least, most = _reach(after[key])
        if least > high or most < low:
            how = "slower" if least > high else "faster"
            told = f"{_in_words(after[key])} of its time, was {_in_words(before[key])}"
            lines.append(f"{how}: {_named(key)}: {told}")
    lines.append(f"{len(both) - len(lines)} of {len(both)} ratios are as they were.")
    lines += [f"only in the old: {_named(key)}" for key in before if key not in after]
    lines += [f"only in the new: {_named(key)}" for key in after if key not in before]
    return "\n".join([*lines, *_circumstances(was, now, both)])


def _named(key: _Key) -> str:
    case, size, way = key
    return f"{case} {size:,}, against {way}"


def _reach(rounds: Sequence[float]) -> _Span:
    """From where to where a ratio of another round would be no surprise."""
    unseen = _UNSEEN_SPREAD if len(rounds) < _FEW_ROUNDS else 0.0
    return min(rounds) * (1 - unseen), max(rounds) * (1 + unseen)


def _in_words(rounds: Sequence[float]) -> str:
    return f"{min(rounds):.3f} to {max(rounds):.3f}"


def _by_key(results: Iterable[Result]) -> Iterator[tuple[_Key, Sequence[float]]]:
    """Those of the rounds, by case, size and peer."""
    told = list(results)
    ours = {}
    for one in told:
        if one["way"] == OURS:
            ours[one["case"], one["size"]] = one["seconds"]
    for one in told:
        own = ours.get((one["case"], one["size"]))
        if one["way"] == OURS or own is None:
            continue
        key = (one["case"], one["size"], one["way"])
        yield key, ratios(own, one["seconds"])


def _circumstances(
    old: Iterable[Result], new: Iterable[Result], both: Iterable[_Key]
) -> Iterator[str]:
    """What the compared ones were measured on, where it is not the same; a line each."""
    before, after = dict(_machines(old)), dict(_machines(new))
    cases: dict[str, list[str]] = {}
    for key in both:
        was, now = before.get(key, {}), after.get(key, {})
        for name in sorted({*was} & {*now}):
            if was[name] != now[name]:
                of_change = cases.setdefault(f"{name} {now[name]}, was {was[name]}", [])
                of_change.append(f"{key[0]} {key[1]:,}")
    for change, names in cases.items():
        yield f"measured with {change}: {', '.join(dict.fromkeys(names))}"


def _machines(
    results: Iterable[Result],
) -> Iterator[tuple[_Key, Mapping[str, Any]]]:
    """Processor, memory, versions and the like; of results that are kept."""
    for one in results:
        if machine := dict(one.get("machine", {})):
            versions = machine.pop("libraries", {})
            # When it was is no circumstance.
            machine.pop("measured_at", None)
            yield (one["case"], one["size"], one["way"]), {**machine, **versions}


if __name__ == "__main__":
    sys.exit(main())
