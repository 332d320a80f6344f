"""One rank on an executor of Spark.

`python -m jobs.training.families.neural_network.on_executor JOB PORT NUMBER`; what is the same for
all ranks is in its variables.
"""

from __future__ import annotations

import os
import sys
from tempfile import TemporaryFile
from typing import IO

from jobs.services.child import end
from jobs.training.families.neural_network import wanted
from jobs.training.families.neural_network.on_host import LEFT_ALONE
from jobs.training.families.neural_network.on_pod import come, take_part
from jobs.training.families.neural_network.wanted import End

_TOLD_BYTES = 2000
"""Of what it has said: the end names the fault."""


def main(folder: str, port: int, number: int) -> int:
    """Take part in the training as soon as all ranks can, and tell the end; gives the exit code."""
    with TemporaryFile() as said:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(said.fileno(), stream.fileno())
        line = come(port, number)
        if line is None:
            return LEFT_ALONE
        code = take_part(folder, number, line)
        sys.stderr.flush()
        wanted.tell_end(line, End(code, _end_of(said)))
    return code


def _end_of(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _TOLD_BYTES))
    return said.read().decode(errors="replace").strip()


if __name__ == "__main__":
    # At once: the others, or the next attempt, would wait while TensorFlow tidies up.
    job_folder, own_port, own_number = sys.argv[1:]
    end(main(job_folder, int(own_port), int(own_number)))
