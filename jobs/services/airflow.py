"""Airflow as a service of the platform: its variables, its database, its login, its health.

Never imports it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from http.client import HTTPException
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.services import accounts, addresses, executors
from jobs.services.die_with_parent import dying_with_parent
from jobs.services.home import private_home
from jobs.services.leftovers import Cleaned, Rule
from jobs.services.processes import MARK, is_clock_put_back
from jobs.services.secrets import private_folder
from jobs.services.stage_client import python_path
from jobs.services.text import tail
from pipelines.environment import ADMIN, ROOT, Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.places import THIS_MACHINE, hosts_without_proxy

USER = ADMIN
_CONFIGURATION = ROOT / "airflow.cfg"
COMPONENTS: Mapping[str, str] = {
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}
"""Services that tell their health through the API: our name -> the name there."""
_KUBERNETES = "kubernetes.default.svc"
"""By which name Spark asks it; Airflow does by the address that each Pod is told."""
_FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
"""Keeps users and roles in Airflow's database."""
_SQLITE = "sqlite:///"
_ASK_SECONDS = 5
_SEND_SECONDS = 0.2
"""Enough to ask on loopback, not to be answered."""
_GROWING_TABLES = (
    *("dag_run", "task_instance", "task_instance_history", "task_reschedule", "xcom", "log"),
    *("job", "trigger", "callback", "deadline", "asset_event", "import_error", "revoked_token"),
    # Of Celery's results and of FAB's sign-ins: Airflow passes over those that it does not have.
    *("celery_taskmeta", "celery_tasksetmeta", "session"),
)
"""Not `dag` and `dag_version`: what a platform that was down for long had parsed is still right."""
_FOUND = re.compile(r"^Found (\d+) rows meeting deletion criteria", re.MULTILINE)
"""What Airflow says of each table."""
_LINES_OF_A_FAULT = 20
_LOGS_OF_RUNS = "dag_id=*/run_id=*"
_HIDDEN_DATABASE = "airflow-db-not-allowed:///"
"""What Airflow sets for a task in place of the database's address (seen in 3.3.2); ours is in
`airflow.cfg`."""
_SET_BY = {
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "NIGHTSHIFT_AIRFLOW_DATABASE",
    "AIRFLOW__API__HOST": "NIGHTSHIFT_AIRFLOW_HOST",
    "AIRFLOW__API__PORT": "NIGHTSHIFT_AIRFLOW_PORT",
    "AIRFLOW__API__BASE_URL": "NIGHTSHIFT_AIRFLOW_URL",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "NIGHTSHIFT_AIRFLOW_API",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "NIGHTSHIFT_USERS",
    "AIRFLOW__CORE__AUTH_MANAGER": "NIGHTSHIFT_AUTH",
    "AIRFLOW__OPENLINEAGE__TRANSPORT": "NIGHTSHIFT_LINEAGE",
    "AIRFLOW__OPENLINEAGE__NAMESPACE": "NIGHTSHIFT_LINEAGE",
}
"""Variables of Airflow's that `variables` may set -> our own by which it does."""
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""No proxy, whatever the environment says: Airflow is on loopback, where none leads."""


def variables(environment: Environment) -> dict[str, str]:
    """Variables of every Airflow process; `airflow.cfg` refers to them."""
    # Tasks call `nightshift`, which must be the one beside our own Python.
    own_programs = Path(sys.executable).parent
    other_programs = os.environ.get("PATH", os.defpath)
    return {
        **executors.settings(),
        # Of these a person may have set any; `up` sees by them that one has changed.
        **_given_settings(),
        "AIRFLOW_HOME": str(_folder(environment)),
        "AIRFLOW_CONFIG": str(_CONFIGURATION),
        "NIGHTSHIFT_ROOT": str(ROOT),
        "PYTHONPATH": python_path(),
        "PATH": f"{own_programs}{os.pathsep}{other_programs}",
        # Programs differ in which they read, and ask for the other where that is not there.
        "NO_PROXY": _hosts_without_proxy(environment, ("NO_PROXY", "no_proxy")),
        "no_proxy": _hosts_without_proxy(environment, ("no_proxy", "NO_PROXY")),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": environment.airflow_database,
        **_address_settings(environment),
        **_login_settings(environment),
        **_lineage_settings(environment),
    }


def require_configuration() -> None:
    """Refuse to be an Airflow where the file is missing that sets it up, as in a package.

    Airflow would write one there that it runs by from then on: without our DAGs, and with passwords
    of its own.

    Raises:
        UsageError: it is missing.
    """
    if not _CONFIGURATION.exists():
        raise UsageError(
            f"{_CONFIGURATION}, by which the platform's own Airflow is set up, is not there: an "
            "installed package has none. Run this in a checkout. Beside an Airflow that is there "
            "use that one's own command, and say what else runs here, such as "
            "NIGHTSHIFT_SERVICES=stages."
        )


def require_own_settings(environment: Environment) -> None:
    """Refuse a variable of Airflow's that would be overwritten by ours.

    Raises:
        UsageError: one is set; the message names the variable to set in its place.
    """
    ours = variables(environment)
    for name, value in _given_settings().items():
        own = _SET_BY.get(name)
        if own and value != ours[name]:
            raise UsageError(
                f"{name} is set, and Nightshift sets it itself, by {own}: unset {name}, and set "
                f"{own} in its place."
            )


def _given_settings() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("AIRFLOW__") and value != _HIDDEN_DATABASE
    }


def _address_settings(environment: Environment) -> dict[str, str]:
    # Elsewhere nobody would find it: neither the platform nor its tasks.
    found = {
        "AIRFLOW__API__HOST": environment.airflow_host,
        "AIRFLOW__API__PORT": str(environment.airflow_port),
    }
    if environment.airflow_url:
        found["AIRFLOW__API__BASE_URL"] = environment.airflow_url
    if environment.airflow_api:
        execution = f"{addresses.of_api(environment)}/execution/"
        found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = execution
    return found


def _login_settings(environment: Environment) -> dict[str, str]:
    if environment.auth == "fab":
        return {"AIRFLOW__CORE__AUTH_MANAGER": _FAB}
    return {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": accounts.roles(environment)}


def _lineage_settings(environment: Environment) -> dict[str, str]:
    where = environment.lineage
    if where is None:
        return {}
    transport = (
        {"type": "http", "url": where}
        if "://" in where
        else {"type": "file", "log_file_path": where, "append": True}
    )
    return {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "nightshift",
    }


def program(*arguments: str) -> list[str]:
    """The command line of an Airflow component."""
    return [sys.executable, "-m", "airflow", *arguments]


def make_login(environment: Environment) -> None:
    """Make the folders and the passwords that Airflow expects to find."""
    private_home(environment)
    private_folder(_folder(environment))
    accounts.write_passwords(environment)


def migration(environment: Environment) -> subprocess.Popen[bytes] | None:
    """Bring the database to the installed version in a process of its own.

    It also makes the accounts that are kept there. None when all is there already.
    """
    # A database elsewhere may have been made anew since.
    if _has_file(environment) and _stamp(environment).exists():
        return None
    work = [sys.executable, "-m", "jobs.services.airflow_database"]
    with _migration_log(environment).open("wb") as log:
        return subprocess.Popen(
            dying_with_parent(work),
            env=every_variable(environment),
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
        log = _migration_log(environment)
        raise NightshiftError(
            f"Airflow's database could not be prepared (exit code {code}). "
            f"The end of {log}:\n{tail(log)}"
        )
    _stamp(environment).touch()


def clean_database(environment: Environment, rule: Rule) -> Cleaned | None:
    """Delete old rows of Airflow's database: runs, tasks, and what happened to them.

    Airflow may run meanwhile. None when there is no database.

    Raises:
        NightshiftError: Airflow could not; the message holds the end of what it said.
    """
    made = _folder(environment).glob(f"{_database_stamp(environment)}*")
    is_elsewhere = not environment.airflow_database.startswith(_SQLITE)
    if not any(made) or not (is_elsewhere or _has_file(environment)):
        return None
    before = f"--clean-before-timestamp={rule.before.isoformat()}"
    tables = f"--tables={','.join(_GROWING_TABLES)}"
    options = [before, tables, "--yes", "--skip-archive", "--error-on-cleanup-failure"]
    if rule.is_dry:
        options.append("--dry-run")
    cleaned = subprocess.run(
        dying_with_parent(program("db", "clean", *options)),
        env=every_variable(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if cleaned.returncode:
        # What went well may come last on standard output, by many lines.
        said = cleaned.stderr or cleaned.stdout
        end = "\n".join(said.splitlines()[-_LINES_OF_A_FAULT:])
        raise NightshiftError(
            f"Airflow's database could not be cleaned (exit code {cleaned.returncode}):\n{end}"
        )
    deleted = sum(map(int, _FOUND.findall(cleaned.stdout)))
    return Cleaned(what="Airflow's database", kept=None, deleted=deleted, note="rows")


def task_logs(environment: Environment) -> Iterable[Path]:
    """The folders of the logs of Airflow's runs, and of each day of its DAG processor."""
    return chain(own_logs(environment), environment.logs_of_pods.glob(_LOGS_OF_RUNS))


def own_logs(environment: Environment) -> Iterable[Path]:
    """Those of them that lie in this home, and not where Pods have left them."""
    of_files = (environment.logs / "airflow").glob("dag_processor/*")
    return chain(own_logs_of_runs(environment), of_files)


def own_logs_of_runs(environment: Environment) -> Iterable[Path]:
    """Those of runs in this home: a folder each."""
    return (environment.logs / "airflow").glob(_LOGS_OF_RUNS)


def health(environment: Environment) -> dict[str, Any]:
    """What the API tells of itself and the other components; empty while it does not answer."""
    url = f"{addresses.of_api(environment)}/api/v2/monitor/health"
    try:
        with NO_PROXY.open(url, timeout=_ASK_SECONDS) as answer:
            content = json.load(answer)
    except (OSError, HTTPException, ValueError):
        # Another program may have the port, and speak no HTTP.
        return {}
    return content if isinstance(content, dict) else {}


def prepare_for_tasks(environment: Environment) -> None:
    """Have the API make what the first task would wait for, three seconds or more.

    It goes on with it when nobody waits for its answer any more.
    """
    url = f"{addresses.of_api(environment)}/execution/health"
    with suppress(OSError, HTTPException):
        NO_PROXY.open(url, timeout=_SEND_SECONDS).close()


def is_healthy(health: Mapping[str, Any], service: str, since: float) -> bool:
    """Whether a component has been well since that moment.

    A heartbeat of its predecessor does not count.

    Args:
        health: What `health` gave.
        service: One of `COMPONENTS`.
        since: Seconds since 1970.
    """
    component = COMPONENTS[service]
    state = health.get(component) or {}
    heartbeat = state.get(f"latest_{component}_heartbeat")
    if state.get("status") != "healthy" or not heartbeat:
        return False
    if is_clock_put_back(since):
        # Only Airflow's word is left.
        return True
    return datetime.fromisoformat(str(heartbeat)).timestamp() >= since


def every_variable(environment: Environment) -> dict[str, str]:
    """The variables of an Airflow process that is no service of the supervisor's."""
    # Airflow hides its database from tasks, and one task cleans it.
    given = {name: value for name, value in os.environ.items() if value != _HIDDEN_DATABASE}
    return {
        **given,
        **environment.variables(),
        **variables(environment),
        MARK: str(environment.home),
    }


def _folder(environment: Environment) -> Path:
    return environment.home / "airflow"


def _migration_log(environment: Environment) -> Path:
    return environment.logs / "airflow-migrate.log"


def _stamp(environment: Environment) -> Path:
    name = _database_stamp(environment)
    if environment.auth == "fab":
        # Others keep no accounts in the database.
        name += f"-fab-{_digest(accounts.roles(environment))}"
    return _folder(environment) / name


def _database_stamp(environment: Environment) -> str:
    # Named after what it holds for, so that an upgrade or another database migrates again.
    return f".migrated-{version('apache-airflow')}-{_digest(environment.airflow_database)}"


def _has_file(environment: Environment) -> bool:
    """Whether the database is a file that is there: somebody may have deleted it since."""
    address = environment.airflow_database
    file = address.removeprefix(_SQLITE).partition("?")[0]
    return address.startswith(_SQLITE) and Path(file).exists()


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]


def _hosts_without_proxy(environment: Environment, names: Sequence[str]) -> str:
    """Hosts that are reached without a proxy: what a person says, and those of the platform.

    Args:
        environment: Whose platform it is.
        names: Variables by which it may be said, of which the first that says something counts.
    """
    given = [os.environ[name] for name in names if os.environ.get(name)]
    # The platform is on loopback and on machines of its own, whatever proxy is used for the world.
    own = list(THIS_MACHINE)
    api = urlsplit(addresses.of_api(environment)).hostname
    if api and api not in own:
        own.append(api)
    if cluster := os.environ.get(executors.OF_CLUSTER):
        own += [cluster, _KUBERNETES]
    return hosts_without_proxy(given[0] if given else "", own)
