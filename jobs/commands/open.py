"""The command `nightshift open`: where a page is, and opens it where there is a screen."""

from __future__ import annotations

import os
import sys
import webbrowser

from jobs.services import addresses
from pipelines.environment import Environment


def open_page(environment: Environment, page: str, *, only_print: bool) -> int:
    """Print the address of a page in the Airflow UI, and open it in a browser if there is a screen.

    Args:
        environment: Whose Airflow it is.
        page: One of `PAGES`.
        only_print: Open nothing.

    Returns:
        The exit code 0.
    """
    address = addresses.of_page(environment, page)
    print(address)
    if only_print or not _has_screen():
        return 0
    if not webbrowser.open(address):
        print("No browser could be opened: open the address yourself.", file=sys.stderr)
    return 0


def _has_screen() -> bool:
    names = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform == "darwin" or any(os.environ.get(name) for name in names)
