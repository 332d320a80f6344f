"""TensorFlow's import and LiteRT's start, without what they write to standard error.

`TF_CPP_MIN_LOG_LEVEL` does not reach these lines:
https://github.com/tensorflow/tensorflow/issues/100442. Delete this file, and its calls, when that
issue is closed by a release whose import is silent.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

_CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|I0000 |INFO: Created TensorFlow Lite"
)

_ONE_AT_A_TIME = RLock()
"""Standard error is the process's own: of two threads the second would put back what the first has
put there."""


def import_tensorflow() -> None:
    """Import it, and Keras with it, if they are not there yet."""
    # Networks are tried side by side on threads: of two that import it each would find what the
    # other has imported half.
    with _ONE_AT_A_TIME:
        if "keras" not in sys.modules:
            with without_chatter():
                import keras  # noqa: F401
                import tensorflow  # noqa: F401


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back this process's standard error, and give all but the chatter at the end.

    C++ writes to it by its number.
    """
    with _ONE_AT_A_TIME:
        yield from _held_back()


def _held_back() -> Iterator[None]:
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if not _CHATTER.match(line):
                    os.write(2, line)
