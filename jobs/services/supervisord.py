"""Supervisord, `python -m jobs.services.supervisord`, whose services outlive a full disk.

Once a line of a service cannot be written into its log, supervisord 4.3 reads no more of what that
service prints (https://github.com/Supervisor/supervisor/issues/853). The pipe between them fills,
and the service waits in its next line without end, though there be room again by then. Delete this
file, and start `supervisor.supervisord` again, when supervisord goes on reading.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor import loggers, supervisord

_tell = loggers.Handler.handleError
_roll_over = loggers.RotatingFileHandler.doRollover


def _drop(handler: Any) -> None:
    """Do without a line that the disk does not take; of any other error the log tells."""
    if not isinstance(sys.exc_info()[1], OSError):
        # The log of errors lies on the same disk.
        with suppress(OSError):
            _tell(handler)


def _roll_over_or_go_on(handler: Any) -> None:
    try:
        _roll_over(handler)
    except (OSError, ValueError):
        # It was closed, and a new one may not be had.
        with suppress(OSError):
            # It is the handler that closes it.
            handler.stream = Path(handler.baseFilename).open("ab")  # noqa: SIM115


def main() -> None:
    """Be supervisord, with its own arguments."""
    loggers.Handler.handleError = _drop
    loggers.RotatingFileHandler.doRollover = _roll_over_or_go_on
    supervisord.main()


if __name__ == "__main__":
    main()
