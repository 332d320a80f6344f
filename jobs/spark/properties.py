"""A site's own settings of Spark: a file as spark-submit's `--properties-file` reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pipelines.environment import Environment
from pipelines.errors import UsageError

_SETTING = re.compile(r"\s*([^\s=:#!][^\s=:]*)\s*[\s=:]\s*(.*?)\s*")
"""As Java reads a line of properties; `#` and `!` begin a comment."""


def read(environment: Environment) -> dict[str, str]:
    """What the file sets; nothing where none is named.

    Raises:
        UsageError: it cannot be read.
    """
    file = environment.spark_properties
    if file is None:
        return {}
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(f"{_variable()}={file} cannot be read: {why}.") from None
    found = map(_SETTING.fullmatch, _whole(lines))
    return {one[1]: one[2] for one in found if one}


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """The lines, one that ends with a backslash together with what it goes on in."""
    begun = ""
    for line in lines:
        whole = begun + line.lstrip()
        # Of several backslashes, each two are one of the value.
        backslashes = len(whole) - len(whole.rstrip("\\"))
        goes_on = backslashes % 2 == 1 and not whole.startswith(("#", "!"))
        begun = whole[:-1] if goes_on else ""
        if not goes_on:
            yield whole
    yield begun


def options(file: Path | None) -> list[str]:
    """What names the file to spark-submit, which holds it for less than what is said by --conf."""
    return [] if file is None else ["--properties-file", str(file)]


def require_others(given: Mapping[str, str], own: Iterable[str]) -> None:
    """Refuse to have set in the file what the platform sets: its value would be ignored.

    Raises:
        UsageError: some of it is; the message names it, and no value, which may be a secret.
    """
    both = sorted(set(given).intersection(own))
    if both:
        raise UsageError(
            f"The file of {_variable()} sets {', '.join(both)}, which Nightshift sets itself: take "
            "that out (docs/reference/settings.md tells what of it there is a variable for)."
        )


def _variable() -> str:
    return Environment.settings()["spark_properties"].variable
