"""Who gives a command. Importing this is cheap."""

from __future__ import annotations

import os
import pwd


def user() -> str:
    """The name of the user of the operating system, in whose process this is."""
    # Not by the environment, which anyone may set.
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # such as in a container
        return f"user {number}"
