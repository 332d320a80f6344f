"""Airflow as a service of the platform: its variables, its database, its login, its health.

Never imports it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jobs.services.die_with_parent import dying_with_parent
from jobs.services.processes import LOOPBACK, MARK
from jobs.services.secrets import private_folder, secret, write_once
from jobs.services.text import tail
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError

USER = "admin"
COMPONENTS: Mapping[str, str] = {
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}
"""Services that tell their health through the API: our name -> the name there."""
_ASK_SECONDS = 5
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def variables(environment: Environment) -> dict[str, str]:
    """Variables of every Airflow process; `airflow.cfg` refers to them."""
    return {
        "AIRFLOW_HOME": str(environment.home / "airflow"),
        "AIRFLOW_CONFIG": str(ROOT / "airflow.cfg"),
        "NIGHTSHIFT_ROOT": str(ROOT),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "PATH": os.pathsep.join(
            (str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))
        ),
        # The platform is on loopback, whatever proxy the machine uses for the world.
        "NO_PROXY": f"{LOOPBACK},localhost,{os.environ.get('NO_PROXY', '')}".rstrip(","),
        "no_proxy": f"{LOOPBACK},localhost,{os.environ.get('no_proxy', '')}".rstrip(","),
    }


def program(*arguments: str) -> list[str]:
    """The command line of an Airflow component."""
    return [sys.executable, "-m", "airflow", *arguments]


def prepare(environment: Environment) -> None:
    """Make the folders and the login that Airflow expects to find."""
    private_folder(environment.home / "airflow")
    passwords = json.dumps({USER: secret(environment, "admin_password")})
    write_once(environment.secrets / "airflow_passwords.json", passwords)


def migration(environment: Environment) -> subprocess.Popen[bytes] | None:
    """Bring the database to the installed version in a process of its own.

    None when it is there already.
    """
    if _stamp(environment).exists():
        return None
    log = (environment.logs / "airflow-migrate.log").open("wb")
    with log:
        variables_of_it = {
            **os.environ,
            **environment.variables(),
            **variables(environment),
            MARK: str(environment.home),
        }
        return subprocess.Popen(
            dying_with_parent(program("db", "migrate")),
            env=variables_of_it,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def migrated(environment: Environment, code: int) -> None:
    """Remember that the migration succeeded.

    Raises:
        NightshiftError: it did not; the message holds the end of its log.
    """
    if code:
        log = environment.logs / "airflow-migrate.log"
        raise NightshiftError(
            f"Airflow's database could not be prepared (exit code {code}). "
            f"The end of {log}:\n{tail(log)}"
        )
    _stamp(environment).touch()


def health(environment: Environment) -> dict[str, Any]:
    """What the API tells of itself and the other components; empty while it does not answer."""
    try:
        with _NO_PROXY.open(
            f"http://{LOOPBACK}:{environment.airflow_port}/api/v2/monitor/health",
            timeout=_ASK_SECONDS,
        ) as answer:
            content = json.load(answer)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_healthy(health: Mapping[str, Any], service: str, since: float) -> bool:
    """Whether a component has been well since that moment.

    A heartbeat of its predecessor does not count.
    """
    component = COMPONENTS[service]
    state = health.get(component) or {}
    beat = state.get(f"latest_{component}_heartbeat")
    return (
        state.get("status") == "healthy"
        and bool(beat)
        and datetime.fromisoformat(str(beat)).timestamp() >= since
    )


def _stamp(environment: Environment) -> Path:
    return environment.home / "airflow" / f".migrated-{version('apache-airflow')}"
