"""TensorFlow's import says nothing, and hides nothing."""

from __future__ import annotations

import os
import subprocess
import sys

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
