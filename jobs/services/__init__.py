"""The services that a night needs.

They run on loopback. Here are their definitions, their secrets, their health, and a stop that
leaves no process behind.
"""

from __future__ import annotations

from pipelines.environment import Environment


def up(environment: Environment) -> int:
    """Start what does not run yet and wait until all of it is healthy; returns the exit code."""
    from jobs.services import lifecycle

    return lifecycle.up(environment)


def stay_up(environment: Environment) -> int:
    """Start the platform and keep it up until this process is asked to end; the exit code."""
    from jobs.services import foreground

    return foreground.run(environment)


def down(environment: Environment) -> int:
    """Stop everything that `up` started; returns the exit code."""
    from jobs.services import lifecycle

    return lifecycle.down(environment)


def status(environment: Environment) -> int:
    """Print how each service is; returns 0 only when all are healthy."""
    from jobs.services import lifecycle

    return lifecycle.status(environment)
