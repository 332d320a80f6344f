"""What each pipeline promises to consumers of its predictions: `pipelines/contracts/`.

`python -m tools.contracts` tells what differs from the declarations, and what would break a
promise. With `--write` it writes the files anew, except where a promise would be broken.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from jobs.lake import contract
from pipelines import catalog


def main(argv: list[str] | None = None) -> int:
    """Compare or write the contracts; the exit code is 1 when one is broken or not up to date."""
    is_written = "--write" in (sys.argv[1:] if argv is None else argv)
    problems = []
    for name in catalog.names():
        found = differences(name)
        if found and is_written:
            found = _write(name)
        problems += found
    print("\n".join(problems) or "Every contract is what is declared.")
    return 1 if problems else 0


def differences(name: str) -> list[str]:
    """What is wrong with the file of a pipeline; nothing when it is what is declared."""
    now = contract.contract(catalog.pipeline(name))
    file = contract.file_of(name)
    before = contract.promised(file)
    broken = _breaches(name, before, now)
    there = file.read_text(encoding="utf-8") if file.exists() else None
    if broken or there == contract.written(now):
        return broken
    return [f"{file.name} is not what is declared. Write it: python -m tools.contracts --write"]


def _write(name: str) -> list[str]:
    now = contract.contract(catalog.pipeline(name))
    file = contract.file_of(name)
    broken = _breaches(name, contract.promised(file), now)
    if not broken:
        file.write_text(contract.written(now), encoding="utf-8")
    return broken


def _breaches(name: str, before: contract.Contract, now: contract.Contract) -> list[str]:
    return contract.breaches(name, before, now, datetime.now(UTC).date())


if __name__ == "__main__":
    sys.exit(main())
