"""`python -m bench [CASE…]`: ours beside its peers, into bench/results.json and the docs.

`--quick` measures small inputs, and prints how the ratios stand beside those that are kept.
`python -m bench.compare OLD NEW` tells two files of results apart.
"""

from __future__ import annotations

import argparse
import sys

from bench import cases, compare, report
from bench.ending import INTERRUPTED, end_as_by_ctrl_c
from bench.harness import Case, Measured, machine, measure


def main() -> int:
    """Measure, print the table, and keep it."""
    asked = _asked()
    # Before anything is measured, which may take hours: a file that is none ends it here.
    kept = report.read(report.RESULTS)
    end_as_by_ctrl_c()
    try:
        measured = _measured(asked)
    except KeyboardInterrupt:
        print("Interrupted: nothing of it runs any more.", file=sys.stderr)
        return INTERRUPTED
    print(report.table(measured))
    if asked.quick:
        own = machine()
        new = [one.to_json() | {"machine": own} for one in measured]
        sizes = {(one.case, one.size) for one in measured}
        old = [one for one in kept if (one["case"], one["size"]) in sizes]
        print(compare.of(old, new))
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(cases.NAMES)}; without: all")
    parser.add_argument("--quick", action="store_true", help="small inputs; nothing is kept")
    own = "instead of the case's own"
    parser.add_argument("--size", type=_positive, action="append", help=own)
    parser.add_argument("--repeats", type=_positive, help=own)
    asked = parser.parse_args()
    unknown = sorted(set(asked.case) - set(cases.NAMES))
    if unknown:
        parser.error(f"no case {', '.join(unknown)}. Known: {', '.join(cases.NAMES)}")
    for name in asked.case or cases.NAMES:
        most = cases.module(name).CASE.most_repeats
        if asked.repeats and most and asked.repeats > most:
            told = f"{asked.repeats} are too many of {name}: {most} at most"
            parser.error(f"argument --repeats: {told}")
    return asked


def _measured(asked: argparse.Namespace) -> list[Measured]:
    measured: list[Measured] = []
    for name in asked.case or cases.NAMES:
        case: Case = cases.module(name).CASE
        quick = (case.quick_size,)
        for size in asked.size or (quick if asked.quick else case.sizes):
            found = measure(case, size, asked.repeats, is_quick=asked.quick)
            measured += found
            if not asked.quick:
                # After each, so that an interrupted run keeps what it has measured.
                report.keep(found)
    return measured


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
