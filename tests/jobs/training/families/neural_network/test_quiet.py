"""TensorFlow's import says nothing, and hides nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from jobs.training.families.neural_network import quiet


def test_the_import_is_silent() -> None:
    code = (
        "from jobs.training.families.neural_network.quiet import import_tensorflow\n"
        "import_tensorflow()\n"
        "import sys; print('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("True\n", "")


def _load_badly() -> None:
    os.write(
        2,
        b"I0000 00:00:1795597789.990631 6599 cudart_stub.cc:31] Could not find cuda drivers\nE0000"
        b" a broken driver\n",
    )
    raise ImportError


def test_what_is_no_chatter_is_shown_and_an_error_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportError), quiet.without_chatter():
        _load_badly()
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "E0000 a broken driver\nafterwards\n"


def test_two_threads_may_import_it_at_once() -> None:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from jobs.training.families.neural_network.quiet import import_tensorflow\n"
        "def load(_):\n"
        "    import_tensorflow()\n"
        "    from jobs.training.families.neural_network import network\n"
        "    return network.load.__name__\n"
        "with ThreadPoolExecutor(2) as both: print(*both.map(load, range(2)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("load load\n", "")


def test_two_threads_leave_standard_error_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    is_held = Event()

    def hold() -> None:
        with quiet.without_chatter():
            is_held.set()

    with ThreadPoolExecutor() as other:
        with quiet.without_chatter():
            held = other.submit(hold)
            # As long as one holds it the other must wait.
            assert not is_held.wait(0.2)
        held.result(timeout=10)
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "afterwards\n"
