"""The pictures of README and docs, taken from those that the browser tests made last.

`make test` leaves them in artifacts/e2e; `python -m tools.pictures` makes docs/pictures of them.
Look at each before it is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
MADE = ROOT / "artifacts" / "e2e"
SHOWN = ROOT / "docs" / "pictures"
PICTURES = {
    "airflow": "8-night",
    "report": "7-green-report",
    "report-red": "6-red-report",
    "page-nights": "page-nights",
    "page-quality": "page-quality",
    "page-predictions": "page-predictions",
    "page-predictions-why": "page-predictions-why",
    "page-models": "page-models-decided",
    "page-sql": "page-sql",
    "page-dictionary": "page-dictionary",
}
"""Name in docs -> name that a test gave it."""
_COLOURS = 128
"""Enough for pages and charts, at a third of the size."""
_HIGHEST = 1400
"""Pixels; the rest of a long report says no more."""


def main() -> int:
    """Write every picture; the exit code is 1 when a test has not made one."""
    lacking = [made for made in PICTURES.values() if not _file(made).exists()]
    if lacking:
        print(f"Not made: {', '.join(lacking)}. `make test ARGS=tests/e2e` makes them.")
        return 1
    for shown, made in PICTURES.items():
        with Image.open(_file(made)) as picture:
            height = min(picture.height, _HIGHEST)
            top = picture.convert("RGB").crop((0, 0, picture.width, height))
            top.quantize(_COLOURS).save(SHOWN / f"{shown}.png", optimize=True)
    print(f"{len(PICTURES)} pictures in {SHOWN.relative_to(ROOT)}: look at each.")
    return 0


def _file(made: str) -> Path:
    return MADE / f"{made}.png"


if __name__ == "__main__":
    sys.exit(main())
