"""Small texts for people: the end of a log, a size, a duration."""

from __future__ import annotations

from pathlib import Path

_MOST_BYTES = 16_384
"""Of a log's end, so that a large log is not read whole."""
_MINUTE = 60
_HOUR = 3600


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    if not log.exists():
        return "(empty)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MOST_BYTES))
        end = file.read().decode(errors="replace")
    return "\n".join(end.splitlines()[-lines:]) or "(empty)"


def duration(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    # Of what a clock tells that was put back meanwhile, nothing is known.
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, _HOUR)
    minutes, left = divmod(rest, _MINUTE)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {left} s"
    return f"{left} s"
