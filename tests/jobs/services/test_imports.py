from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys, time
from jobs.services.imports import import_meanwhile

import_meanwhile("json.nothing_of_the_kind", "wave", "xdrlib_of_tomorrow", "colorsys")
while not {"wave", "colorsys"} <= set(sys.modules):
    time.sleep(0.01)
print("there")
"""


def test_all_that_can_be_imported_are_there_soon_and_the_rest_is_not_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("there\n", "")


def test_a_process_that_ends_at_once_ends_in_peace() -> None:
    program = "from jobs.services.imports import import_meanwhile as go; go('pyarrow', 'deltalake')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
