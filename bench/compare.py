"""How ratios have changed between two files of results: `python -m bench.compare OLD NEW`.

A change is told when no round of the new run has a ratio that one of the old run had: what is
within the spread of either is noise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.harness import OURS
from bench.report import Result, read

_Span = tuple[float, float]


def main() -> int:
    """Print a line for each ratio that changed, and how many did not."""
    parser = argparse.ArgumentParser(prog="bench.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    asked = parser.parse_args()
    print(of(read(asked.old), read(asked.new)))
    return 0


def of(old: Iterable[Result], new: Iterable[Result]) -> str:
    """The changes in words."""
    before = dict(_spans(old))
    after = dict(_spans(new))
    both = [key for key in after if key in before]
    lines = []
    for key in both:
        (low, high), (least, most) = before[key], after[key]
        if least > high or most < low:
            how = "slower" if least > high else "faster"
            case, size, way = key
            lines.append(
                f"{how}: {case} {size:,}, against {way}: {least:.3f} to {most:.3f} of its "
                f"time, was {low:.3f} to {high:.3f}"
            )
    lines.append(f"{len(both) - len(lines)} of {len(both)} ratios are as they were.")
    return "\n".join(lines)


def _spans(results: Iterable[Result]) -> Iterator[tuple[tuple[str, int, str], _Span]]:
    """The least and the largest ratio of a round, by case, size and peer."""
    told = list(results)
    ours = {(one["case"], one["size"]): one["seconds"] for one in told if one["way"] == OURS}
    for one in told:
        own = ours.get((one["case"], one["size"]))
        if one["way"] == OURS or own is None:
            continue
        ratios = [mine / its for mine, its in zip(own, one["seconds"], strict=False)]
        yield (one["case"], one["size"], one["way"]), (min(ratios), max(ratios))


if __name__ == "__main__":
    sys.exit(main())
