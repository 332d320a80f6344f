"""`python -m bench [CASE…]`: ours beside its peers, into bench/results.json and the docs.

`--quick` measures small inputs, and prints how the ratios stand beside those that are kept.
`python -m bench.compare OLD NEW` tells two files of results apart.
"""

from __future__ import annotations

import argparse
import sys

from bench import cases, compare, report
from bench.harness import Case, Measured, measure


def main() -> int:
    """Measure, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("case", nargs="*", help=f"of {', '.join(cases.NAMES)}; without: all")
    parser.add_argument("--quick", action="store_true", help="small inputs; nothing is kept")
    parser.add_argument("--size", type=int, action="append", help="instead of the case's own")
    parser.add_argument("--repeats", type=int, help="instead of the case's own")
    asked = parser.parse_args()
    unknown = sorted(set(asked.case) - set(cases.NAMES))
    if unknown:
        parser.error(f"no case {', '.join(unknown)}. Known: {', '.join(cases.NAMES)}")
    measured: list[Measured] = []
    for name in asked.case or cases.NAMES:
        case: Case = cases.module(name).CASE
        quick = (case.quick_size,)
        for size in asked.size or (quick if asked.quick else case.sizes):
            found = measure(case, size, asked.repeats)
            measured += found
            if not asked.quick:
                # After each, so that an interrupted run keeps what it has measured.
                report.keep(found)
    print(report.table(measured))
    if asked.quick:
        kept = report.read(report.RESULTS)
        print(compare.of(kept, [one.to_json() for one in measured]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
