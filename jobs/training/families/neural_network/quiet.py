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

_CHATTER = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|I0000 |INFO: Created TensorFlow Lite"
)


def import_tensorflow() -> None:
    """Import it if it is not there yet."""
    if "tensorflow" not in sys.modules:
        with without_chatter():
            import tensorflow  # noqa: F401


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back this process's standard error, and give all but the chatter at the end.

    C++ writes to it by its number.
    """
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
