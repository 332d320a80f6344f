"""Logs of tasks that run in Pods, kept where all machines see them: a Pod is gone with its disk.

Airflow knows of it by `[logging] logging_config_class`, which `up` sets where there are such Pods.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG
from airflow.configuration import conf

from pipelines.environment import Environment

if TYPE_CHECKING:
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

LOGGING: dict[str, Any] = DEFAULT_LOGGING_CONFIG
"""Airflow's own."""


class KeptLogs:
    """Airflow's way to and from the place of these logs."""

    processors = ()
    """A log is kept when its task has ended, and not line by line."""

    def upload(
        self,
        path: os.PathLike[str] | str,
        ti: RuntimeTaskInstanceProtocol | None = None,
    ) -> None:
        """Keep a log, after what an earlier Pod of the same attempt has written, as of a wait.

        Args:
            path: Of the file, below Airflow's folder of logs.
            ti: Whose it is.
        """
        written = Path(conf.get_mandatory_value("logging", "base_log_folder")) / path
        kept = Environment.read().logs_of_pods / path
        before = kept.read_bytes() if kept.exists() else b""
        said = written.read_bytes()
        # A file that outlives its task, as a trigger's, has all of it.
        if not said.startswith(before):
            said = before + said
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(said)

    def read(
        self, relative_path: str, ti: RuntimeTaskInstanceProtocol
    ) -> tuple[list[str], list[str] | None]:
        """Where a log is kept, and what it says.

        Args:
            relative_path: As of `upload`.
            ti: Whose it is.
        """
        log = Environment.read().logs_of_pods / relative_path
        # Beside it lie those of its triggers, whose names go on from its own.
        try:
            beside = sorted(log.parent.iterdir())
            kept = [one for one in beside if one.name.startswith(log.name)]
            said = [one.read_text(encoding="utf-8", errors="replace") for one in kept]
        except (FileNotFoundError, NotADirectoryError):
            # Of a task that runs nothing is kept yet; a store has no empty folders.
            return [], None
        except Exception as error:  # a store that is away hides nothing else that is known
            return [f"{log} cannot be read now: {error}"], None
        return [str(one) for one in kept], said or None


REMOTE_TASK_LOG = KeptLogs()
"""By this name Airflow looks for it."""
