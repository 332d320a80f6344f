"""Where a run happens: every environment variable that Nightshift reads.

Each has a default that works on a laptop.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: the folder that holds `pipelines/`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Paths, addresses and sizes of one installation."""

    home: Path
    """`NIGHTSHIFT_HOME`: all state of this installation. Two homes never touch each other."""
    lake: str
    """`NIGHTSHIFT_LAKE`: root of the Delta tables, a path or a URL that Spark can write."""
    landing: Path
    """`NIGHTSHIFT_LANDING`: where sources drop their files, one folder a pipeline."""
    spark_remote: str | None
    """`SPARK_REMOTE`: a cluster's Spark Connect address; None: the embedded server."""
    mlflow_uri: str
    """`MLFLOW_TRACKING_URI`: runs and model registry."""
    spark_port: int
    """`NIGHTSHIFT_SPARK_PORT`: of the embedded Spark Connect server, on loopback."""
    airflow_port: int
    """`NIGHTSHIFT_AIRFLOW_PORT`: of the Airflow UI and API, on loopback."""
    spark_memory: str
    """`NIGHTSHIFT_SPARK_MEMORY`: heap of the embedded server, as Java writes it."""
    spark_cores: int
    """`NIGHTSHIFT_SPARK_CORES`: cores of the embedded server."""
    ranks: int | None
    """`NIGHTSHIFT_RANKS`: Horovod ranks; None: as many as the pipeline declares."""
    webhook_url: str | None = field(repr=False)  # a secret: whoever knows it may post there
    """`NIGHTSHIFT_WEBHOOK_URL`: where the channel `webhook` posts; None: nowhere."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Environment:
        """The environment that the variables describe.

        Raises:
            UsageError: a number is not a number in its range; the message names the variable.
        """
        home = _absolute(environ.get("NIGHTSHIFT_HOME") or ROOT / "var")
        return cls(
            home=home,
            lake=_absolute_or_url(environ.get("NIGHTSHIFT_LAKE") or str(home / "lake")),
            landing=_absolute(environ.get("NIGHTSHIFT_LANDING") or home / "landing"),
            spark_remote=environ.get("SPARK_REMOTE") or None,
            mlflow_uri=environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home}/mlflow.db",
            spark_port=_integer(environ, "NIGHTSHIFT_SPARK_PORT", 15002, 1024, 65535),
            airflow_port=_integer(environ, "NIGHTSHIFT_AIRFLOW_PORT", 8080, 1024, 65535),
            spark_memory=environ.get("NIGHTSHIFT_SPARK_MEMORY") or "3g",
            spark_cores=_integer(environ, "NIGHTSHIFT_SPARK_CORES", os.cpu_count() or 2, 1, 1024),
            ranks=_integer(environ, "NIGHTSHIFT_RANKS", 0, 1, 4096) or None,
            webhook_url=environ.get("NIGHTSHIFT_WEBHOOK_URL") or None,
        )

    def variables(self) -> dict[str, str]:
        """The variables that recreate this environment in another process."""
        spark = {"SPARK_REMOTE": self.spark_remote} if self.spark_remote else {}
        ranks = {"NIGHTSHIFT_RANKS": str(self.ranks)} if self.ranks else {}
        webhook = {"NIGHTSHIFT_WEBHOOK_URL": self.webhook_url} if self.webhook_url else {}
        return {
            "NIGHTSHIFT_HOME": str(self.home),
            "NIGHTSHIFT_LAKE": self.lake,
            "NIGHTSHIFT_LANDING": str(self.landing),
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "NIGHTSHIFT_SPARK_PORT": str(self.spark_port),
            "NIGHTSHIFT_AIRFLOW_PORT": str(self.airflow_port),
            "NIGHTSHIFT_SPARK_MEMORY": self.spark_memory,
            "NIGHTSHIFT_SPARK_CORES": str(self.spark_cores),
            **spark,
            **ranks,
            **webhook,
        }

    @property
    def secrets(self) -> Path:
        """Folder (0700) of generated secrets, each a file with mode 0600."""
        return self.home / "secrets"

    @property
    def logs(self) -> Path:
        """Folder of the services' logs."""
        return self.home / "logs"

    @property
    def runtime(self) -> Path:
        """Folder (0700) of sockets, locks and process ids."""
        return self.home / "run"

    @property
    def reports(self) -> Path:
        """Folder of data-quality reports, `<pipeline>/<first day>..<last day>/<table>/`."""
        return self.home / "reports"

    def table_path(self, table: str) -> str:
        """Where the table of that SQL name (`<pipeline>.<table>`) is stored."""
        pipeline, _, name = table.partition(".")
        return f"{self.lake}/{pipeline}/{name}"


def _absolute(path: str | Path) -> Path:
    # Processes with other working folders use it too.
    return Path(path).expanduser().resolve()


def _absolute_or_url(text: str) -> str:
    return text if "://" in text else str(_absolute(text))


def _integer(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    if not text.strip().isdigit() or not least <= int(text) <= most:
        raise UsageError(
            f"{name}='{text}' is not a whole number from {least} to {most}. "
            f"Unset it to use {default or 'the default'}."
        )
    return int(text)
