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
from jobs.training.families.neural_network.on_host import LEFT_ALONE, require_meeting_point
from jobs.training.families.neural_network.on_pod import come, take_part
from jobs.training.families.neural_network.rendezvous import ADDRESS
from jobs.training.families.neural_network.wanted import End
from pipelines.errors import NightshiftError

_TOLD_BYTES = 2000
"""Of what it has said: the end names the fault."""


def main(folder: str, port: int, number: int) -> int:
    """Take part in the training as soon as all ranks can, and tell the end by the line.

    Returns:
        0: it was told. `LEFT_ALONE`: nobody wants the rank any more.

    Raises:
        NightshiftError: this executor does not reach the stage.
    """
    require_meeting_point(os.environ[ADDRESS], port)
    line = come(port, number)
    if line is None:
        return LEFT_ALONE
    with TemporaryFile() as said:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(said.fileno(), stream.fileno())
        code = take_part(folder, number, line)
        sys.stderr.flush()
        wanted.tell_end(line, End(code, end_of_output(said)))
    return 0


def end_of_output(said: IO[bytes]) -> str:
    """The last words that a program has written into a file."""
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _TOLD_BYTES))
    return said.read().decode(errors="replace").strip()


if __name__ == "__main__":
    job_folder, own_port, own_number = sys.argv[1:]
    try:
        code = main(job_folder, int(own_port), int(own_number))
    except NightshiftError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    # At once: the others, or the next attempt, would wait while TensorFlow tidies up.
    end(code)
