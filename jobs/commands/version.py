"""The option `--version`: which package, and which code."""

from __future__ import annotations

import argparse
from typing import Any


class Version(argparse.Action):
    """Prints the versions and ends; argparse's own would ask git at every start."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, nargs=0)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """See `argparse.Action`."""
        from jobs.version import code_version

        print(f"nightshift {package_version()} (code {code_version()})")
        parser.exit()


def package_version() -> str:
    """The version in pyproject.toml, as it was installed."""
    # Imported here: every command imports this module, and few ask for the version.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nightshift")
    except PackageNotFoundError:
        return "not installed"
