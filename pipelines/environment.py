"""Where a run happens: every environment variable that Nightshift reads.

Each has a default that works on a laptop. A setting is declared once, as a field of `Environment`:
reading it, handing it to another process and showing it follow from the declaration.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipelines import places
from pipelines.cores import at_least_one
from pipelines.errors import UsageError

REPORTS_ADDRESS = "/nightshift/reports"
"""Path below Airflow's own at which its API server shows the folder of reports."""
PAGES_ADDRESS = "/nightshift/pages"
"""Path at which it shows the pages about nights, data, predictions and models."""
PAGES: Mapping[str, str] = {
    "nights": "Nights",
    "quality": "Data quality",
    "predictions": "Predictions",
    "models": "Models",
    "dictionary": "Data dictionary",
    "sql": "SQL",
}
"""The pages by the last part of their addresses, with their titles, in the order of their tabs."""
ROOT = Path(__file__).resolve().parent.parent
"""The checkout: the folder that holds `pipelines/`."""
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
"""How an address of a database that MLflow can open begins."""
_SERVERS = ("postgresql", "mysql", "mssql", "http", "https")
"""How that of a server begins by which MLflow keeps runs, its own or one of a database."""
_FILE_DATABASE = "sqlite:////"
"""How that of a file begins, with the whole path: the same one for every process."""
_ROLES = ("viewer", "user", "op", "admin")
"""What a person may do in Airflow's UI, its API and our pages, from least to most."""
_USER = re.compile(rf"([A-Za-z0-9][A-Za-z0-9_.-]{{0,63}}):({'|'.join(_ROLES)})")
ADMIN = "admin"
"""The user that every home has."""
JDBC_PORT = 10000
"""Of the JDBC server that is asked for without a port; Hive's own, which clients offer."""
SERVICES = (
    *("spark", "stages", "airflow-api", "scheduler", "dag-processor", "triggerer"),
    *("worker", "mlflow", "jdbc"),
)
"""What `nightshift up` can start."""
_OF_AIRFLOW = frozenset({"airflow-api", "scheduler", "dag-processor", "triggerer"})
_WORKER = "worker"
"""Not among them: there is none where schedulers run their tasks themselves."""
_QUEUE = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_LEAST_SECRET = 32
"""Characters: what is derived from fewer could be found by trying."""
_STORE = re.compile(r"https?://[\w.:\[\]-]+(/[^\s?#]*)?", re.ASCII)
_NO_TABLE = re.compile(r"[%\[\]^|\\\x00-\x1f\x7f]")
_NO_HOME = re.compile(r"[?,]|\s[;#]|\$[\w{]")
_LIKE_URL = re.compile(r"^\s*[A-Za-z][\w+.-]*:/|://")
_SPARK_MASTER = re.compile(
    r"spark://[\w.-]+:\d+(,[\w.-]+:\d+)*|yarn|k8s://(https?://)?[\w.-]+(:\d+)?/?", re.ASCII
)
_SPARK_ADDRESS = re.compile(r"sc://[^/;?#@\s]+(/(;[^;=?#\s]+=[^;=?#\s]*)*)?")
"""`sc://host:port`, and after a slash any number of `;name=value`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One environment variable."""

    variable: str
    does: str
    """What it decides, in words."""
    default: str | None
    """What is read when the variable is unset or empty; `{home}` stands for the home. None: the
    setting is None."""
    parse: Callable[[str], object]
    """The setting's value from its text.

    Raises ValueError that says what the text is not."""
    is_secret: bool = False
    """Its value is shown to nobody."""
    is_address: bool = False
    """It may hold a password or a token, so it is shown only without them."""

    def read(self, environ: Mapping[str, str], home: Path | None = None) -> Any:
        """The value that the variables give it.

        Raises:
            UsageError: the variable holds no such value; the message names it.
        """
        text = environ.get(self.variable)
        if not text:
            return self._read_default(home)
        try:
            return self.parse(text)
        except ValueError as error:
            # In an address that cannot be read, nobody knows where a password ends.
            may_hide = self.is_secret or self.is_address or "@" in text
            given = "" if may_hide else f"='{text}'"
            standard = self.default_at(home) or "the default"
            # Nobody sees it where the value is hidden.
            blank = "" if text == text.strip() else " It begins or ends with a blank."
            raise UsageError(
                f"{self.variable}{given} is not {error}.{blank} Unset it to use {standard}."
            ) from None

    def _read_default(self, home: Path | None) -> Any:
        standard = self.default_at(home)
        if standard is None:
            return None
        try:
            return self.parse(standard)
        except ValueError as error:
            # Such as the checkout's own folder.
            raise UsageError(
                f"The default of {self.variable}, '{standard}', is not {error}. Set it."
            ) from None

    def default_at(self, home: Path | None) -> str | None:
        """The default's text in that home."""
        return self.default and self.default.replace("{home}", str(home))


def _is_like_url(text: str) -> bool:
    """Also where a slash is missing: a folder 's3:' below the working one is what nobody means."""
    return bool(_LIKE_URL.search(text))


def _absolute(path: str) -> Path:
    if _is_like_url(path):
        raise ValueError("a path on this machine, such as /srv/nights (it is written like a URL)")
    try:
        # Processes with other working folders use it too.
        return Path(path).expanduser().resolve()
    except RuntimeError:
        # Of a user who is not there, or of ours where HOME is not set.
        raise ValueError("a path whose ~ leads anywhere") from None
    except FileNotFoundError:
        # Below a working folder that somebody has deleted, such as an old checkout.
        raise ValueError("a whole path, and the working folder is gone") from None


def _absolute_of_tables(path: str) -> Path:
    absolute = _absolute(path)
    if _NO_TABLE.search(str(absolute)):
        # delta-rs opens a path as a URL: of '%20' it makes a space, and of others nothing.
        raise ValueError(
            "a folder for tables: no part of its path may hold '%', which Delta's writer reads as "
            "part of a URL, nor one of [ ] ^ | \\ or what is not printed, which it cannot read"
        )
    return absolute


def _absolute_of_home(path: str) -> Path:
    absolute = _absolute_of_tables(path)
    if _NO_HOME.search(str(absolute)):
        # Programs of the platform would look for it elsewhere, maybe in the home of another.
        raise ValueError(
            "a folder for a home: no part of its path may hold '?', where the address of a "
            "database in it ends, nor ',', where Spark takes the rest for another folder, nor a "
            "blank before '#' or ';', where the supervisor takes the rest for a comment, nor a "
            "name after '$', which Airflow takes for a variable's"
        )
    return absolute


def _absolute_or_url(text: str) -> str:
    return places.parse_url(text) if _is_like_url(text) else str(_absolute_of_tables(text))


def _place(text: str) -> Path:
    return places.place(places.parse_url(text)) if _is_like_url(text) else _absolute(text)


_OF_HOST = "{host}"
_PORT_OF_POSTGRES = 5432
_IN_A_PASSWORD = "in a password, write %40 for @, %2F for / and %3F for ?"


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    is_whole = bool(parts.hostname) and _is_printed(text) and _has_port(text)
    if parts.scheme not in {"http", "https"} or not is_whole:
        raise ValueError("an http or https address")
    return text


def _spark_address(text: str) -> str:
    # Asked here, because Spark's client quotes what it cannot read, and that may be a token.
    if not _SPARK_ADDRESS.fullmatch(text) or not _has_port(text):
        raise ValueError(
            "a Spark Connect address, such as sc://host:15002/;use_ssl=true;token=*** "
            "(in a token, write %3D for = and %3B for a semicolon)"
        )
    return text


def _spark_master(text: str) -> str:
    masters = text.split(",")
    if not _SPARK_MASTER.fullmatch(text) or not all(map(_has_port, masters)):
        raise ValueError(
            "the master of a cluster as spark-submit takes it: spark://host:7077 of a standalone "
            "one, yarn, or k8s://https://host:6443 (where Spark Connect runs, set SPARK_REMOTE)"
        )
    return text


def _postgres_address(text: str) -> str:
    if not text.startswith(("postgresql://", "postgres://")) or not _is_whole(text):
        raise ValueError(
            f"an address such as postgresql://user:password@host:5432/database ({_IN_A_PASSWORD})"
        )
    return text


def _database_address(text: str) -> str:
    is_postgres = text.startswith(("postgresql://", "postgresql+psycopg2://"))
    if not (is_postgres and _is_whole(text)) and not text.startswith(_FILE_DATABASE):
        raise ValueError(
            "an address of a database, such as postgresql://user:password@host/airflow "
            f"({_IN_A_PASSWORD}) or sqlite:////folder/airflow.db"
        )
    return text


def _registry_address(text: str) -> str:
    kind, _, place = text.partition("://")
    is_server = kind.partition("+")[0] in _SERVERS and place and _is_whole(text)
    # Not a path below a working folder: each process has its own.
    if not is_server and not text.startswith(_FILE_DATABASE) and kind != "databricks":
        raise ValueError(
            "an address of a database, such as postgresql://user:password@host/mlflow "
            f"({_IN_A_PASSWORD}) or sqlite:////folder/mlflow.db, or of an MLflow server, such as "
            "https://mlflow.example.org"
        )
    return text


def _is_whole(address: str) -> bool:
    """Whether an address can be taken apart, and no part of it goes on in another."""
    return _has_port(address) and _is_printed(address) and not _is_password_cut(address)


def _is_printed(address: str) -> bool:
    """Whether it has no line end or tab, nor a blank at an end: these are copied along."""
    return address.isprintable() and address == address.strip()


def _has_port(address: str) -> bool:
    """Whether its port can be one, or it names none."""
    _, _, place = address.rpartition("://")
    try:
        urlsplit(f"//{place}").port  # noqa: B018  # reading it is what finds a wrong one
    except ValueError:
        return False
    return True


def _is_password_cut(address: str) -> bool:
    """Whether a password seems to end early: the rest would be told as the name of a host."""
    # A slash, '?' or '#' in it ends the part with the host, and leaves the '@' behind.
    user_and_host = re.split("[/?#]", address.partition("://")[2])[0]
    return address.count("@") > min(user_and_host.count("@"), 1)


def _address_of_airflow(text: str) -> str:
    parts = urlsplit(_web_address(text))
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ValueError("an http or https address without a path, such as http://10.0.0.5:8080")
    return text.rstrip("/")


def _services(text: str) -> str:
    names = [word.strip() for word in text.split(",")]
    if not set(names) <= set(SERVICES) or len(set(names)) < len(names):
        raise ValueError(f"a list of services, each once, of {', '.join(SERVICES)}")
    return ",".join(names)


def _queues(text: str) -> str:
    names = [word.strip() for word in text.split(",")]
    is_twice = len(set(names)) < len(names)
    if is_twice or not all(map(_QUEUE.fullmatch, names)):
        raise ValueError("a list of queues, each once, such as default,big")
    return ",".join(names)


def _shared_secret(text: str) -> str:
    # A Secret made from a file ends with the file's line end: on each machine it shall be the same.
    text = text.strip()
    if len(text) < _LEAST_SECRET:
        raise ValueError(
            f"a secret of at least {_LEAST_SECRET} characters, such as `openssl rand -hex 32` gives"
        )
    return text


def _users(text: str) -> str:
    names = []
    for word in text.split(","):
        user = _USER.fullmatch(word.strip())
        if not user:
            roles = ", ".join(_ROLES)
            raise ValueError(f"a list such as ann:viewer,bob:user (a role is one of {roles})")
        names.append(user[1])
    if len({ADMIN, *names}) <= len(names):
        raise ValueError(f"a list that names each user once, and not '{ADMIN}', which is there")
    return text


def _database(address: str) -> tuple[object, ...]:
    """What two addresses of one database have in common, whoever asks by which driver."""
    if address.startswith(_FILE_DATABASE):
        return (address,)
    parts = urlsplit(address)
    kind = parts.scheme.partition("+")[0].replace("postgresql", "postgres")
    port = parts.port or (_PORT_OF_POSTGRES if kind == "postgres" else None)
    # A search path is there, where one database has a schema for each.
    schemas = parse_qs(parts.query).get("options")
    return kind, parts.hostname, port, parts.path, schemas


def _require_address_of_store(environ: Mapping[str, str]) -> None:
    """Refuse an address that some libraries would read otherwise than others.

    Raises:
        UsageError: it is none, or holds a password.
    """
    for variable in places.ENDPOINTS:
        address = environ.get(variable, "")
        if "@" in address:
            raise UsageError(
                f"{variable} holds a user or password, which command lines would show: give "
                "them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        if address and not (_STORE.fullmatch(address) and _is_whole(address)):
            raise UsageError(
                f"{variable} is not the address of a store, such as https://store.example.org "
                "(https or http in small letters, and nothing after '?')."
            )


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(f"'{word}'" for word in words))
        return text

    return parse


def _file_or_web_address(text: str) -> str:
    return _web_address(text) if "://" in text else str(_absolute(text))


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # `int` alone would take '1_000' and the digits of other scripts.
        if not re.fullmatch(r"\s*[0-9]+\s*", text) or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _size(text: str) -> str:
    if not re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*[KMGT]i?B\s*", text, re.IGNORECASE):
        raise ValueError("a size such as 4GB or 512MB")
    return text.strip()


_UNITS_OF_JAVA = {"k": 1, "m": 1024, "g": 1024**2, "t": 1024**3}
_LEAST_HEAP = 450 * 1024
"""In the first of these units."""


def _heap(text: str) -> str:
    # Without a unit it would be bytes to Java, and megabytes to Spark's executors.
    if not re.fullmatch(r"\s*[1-9][0-9]*[kmgt]\s*", text, re.IGNORECASE | re.ASCII):
        raise ValueError("a size as Java writes it, such as 3g or 512m")
    size = text.strip()
    number, unit = size[:-1], size[-1].lower()
    if int(number) * _UNITS_OF_JAVA[unit] < _LEAST_HEAP:
        raise ValueError("at least 450m: Spark does not start in less")
    return size


_HOST = re.compile(r"(?P<name>[a-zA-Z0-9][\w.-]*)(?::(?P<ranks>[1-9]\d{0,3}))?", re.ASCII)


def _hosts(text: str) -> str:
    found = [_HOST.fullmatch(one.strip()) for one in text.split(",")]
    hosts = {one["name"]: one["ranks"] or "1" for one in found if one}
    if len(hosts) < len(found):
        raise ValueError("a list of hosts, each once, such as trainer-1:2,trainer-2:2")
    return ",".join(f"{name}:{ranks}" for name, ranks in hosts.items())


def _command_on_host(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if _OF_HOST not in text or not words or _OF_HOST in words[0]:
        raise ValueError(
            f"a command with {_OF_HOST} among its arguments, such as ssh {_OF_HOST} /opt/python"
        )
    return text


def _private_address(text: str) -> str:
    try:
        # Horovod's server speaks no other.
        address = ipaddress.IPv4Address(text)
    except ValueError:
        address = None
    # Who reaches it can stop a training: nothing proves who a rank is.
    if address is None or address.is_unspecified or address.is_global or address.is_multicast:
        raise ValueError("an IPv4 address of a private network, such as 10.0.0.5")
    return text


def _https_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_good = parts.scheme == "https" and bool(parts.hostname) and not parts.path.strip("/")
    except ValueError:
        is_good = False
    is_whole = is_good and _is_printed(text) and _has_port(text)
    # What asks there shows its token.
    if not is_whole or "@" in text:
        raise ValueError("an https address without a path, such as https://10.0.0.1:6443")
    return text.rstrip("/")


# Ports below need root.
_PORT = _whole_number(1024, 65535)


def setting(
    variable: str,
    does: str,
    default: str | None,
    parse: Callable[[str], object] = str,
    *,
    is_secret: bool = False,
    is_address: bool = False,
) -> dict[str, Setting]:
    """The metadata of a field of `Environment`."""
    return {
        "setting": Setting(
            variable=variable,
            does=does,
            default=default,
            parse=parse,
            is_secret=is_secret,
            is_address=is_address,
        )
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Paths, addresses and sizes of one installation."""

    home: Path = field(
        metadata=setting(
            "NIGHTSHIFT_HOME",
            "all state of this installation; two homes never touch each other",
            str(ROOT / "var"),
            _absolute_of_home,
        )
    )
    lake: str = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_LAKE",
            "root of the Delta tables, a folder or a URL such as s3://bucket/lake",
            "{home}/lake",
            _absolute_or_url,
            is_address=True,
        ),
    )
    landing: Path = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_LANDING",
            "where sources drop their files, one folder a pipeline; a folder or a URL such as "
            "s3://bucket/landing",
            "{home}/landing",
            _place,
            is_address=True,
        ),
    )
    reports: Path = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_REPORTS",
            "data-quality reports and cards of models; a folder or a URL such as "
            "s3://bucket/reports",
            "{home}/reports",
            _place,
            is_address=True,
        ),
    )
    models: Path = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_MODELS",
            "files of models that are trained for the first time, where no MLflow server keeps "
            "them; a folder or a URL such as s3://bucket/models",
            "{home}/mlartifacts",
            _place,
            is_address=True,
        ),
    )
    spark_remote: str | None = field(
        repr=False,
        metadata=setting(
            "SPARK_REMOTE",
            "a cluster's Spark Connect address; unset: the embedded server",
            None,
            _spark_address,
            is_address=True,
        ),
    )
    spark_master: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_SPARK_MASTER",
            "a Spark cluster that the embedded server computes on, as spark-submit takes it: "
            "spark://host:7077, yarn or k8s://https://host:6443; unset: this machine",
            None,
            _spark_master,
        ),
    )
    spark_properties: Path | None = field(
        metadata=setting(
            "NIGHTSHIFT_SPARK_PROPERTIES",
            "a file of further settings of Spark's, as `spark-submit --properties-file` reads it, "
            "such as a queue, an image or a keytab; unset: none",
            None,
            _absolute,
        ),
    )
    spark_host: str = field(
        metadata=setting(
            "NIGHTSHIFT_SPARK_HOST",
            "address of this machine by which the executors of that cluster reach it",
            "127.0.0.1",
        ),
    )
    mlflow_uri: str = field(
        repr=False,
        metadata=setting(
            "MLFLOW_TRACKING_URI",
            "runs and model registry",
            "sqlite:///{home}/mlflow.db",
            _registry_address,
            is_address=True,
        ),
    )
    spark_port: int = field(
        metadata=setting(
            "NIGHTSHIFT_SPARK_PORT",
            "port of the embedded Spark Connect server, on loopback",
            "15002",
            _PORT,
        )
    )
    airflow_port: int = field(
        metadata=setting(
            "NIGHTSHIFT_AIRFLOW_PORT",
            "port of the Airflow UI and API, on loopback",
            "8080",
            _PORT,
        )
    )
    airflow_host: str = field(
        metadata=setting(
            "NIGHTSHIFT_AIRFLOW_HOST",
            "where the Airflow UI and API listen: 127.0.0.1, or 0.0.0.0 inside a container, whose "
            "own network decides who reaches it",
            "127.0.0.1",
            # The platform itself asks on loopback.
            _one_of("127.0.0.1", "0.0.0.0"),
        )
    )
    airflow_url: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_AIRFLOW_URL",
            "where people reach the Airflow UI, such as https://nights.example.org: links lead "
            "there; unset: where programs reach the API",
            None,
            _address_of_airflow,
        )
    )
    airflow_api: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_AIRFLOW_API",
            "where the programs of a machine that does not run it reach the Airflow API, such as "
            "http://10.0.0.5:8080; unset: on this machine, by its port",
            None,
            _address_of_airflow,
        )
    )
    services: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_SERVICES",
            "which services `up` starts on this machine, such as spark,stages,scheduler; unset: "
            "all that are needed",
            None,
            _services,
        )
    )
    queues: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_QUEUES",
            "queues whose tasks the Celery worker of this machine takes, such as default,big; "
            "unset: Airflow's default queue",
            None,
            _queues,
        )
    )
    secret: str | None = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_SECRET",
            "what all passwords and keys are derived from where machines share a platform; unset: "
            "each home draws its own",
            None,
            _shared_secret,
            is_secret=True,
        ),
    )
    mlflow_port: int = field(
        metadata=setting(
            "NIGHTSHIFT_MLFLOW_PORT",
            "port of MLflow's UI and API, on loopback",
            "5000",
            _PORT,
        )
    )
    jdbc_port: int | None = field(
        metadata=setting(
            "NIGHTSHIFT_JDBC_PORT",
            "port of the JDBC server, on loopback, such as 10000; unset: there is none",
            None,
            _PORT,
        )
    )
    airflow_database: str = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_AIRFLOW_DATABASE",
            "Airflow's own database: SQLite, or PostgreSQL where it has to hold more",
            "sqlite:///{home}/airflow/airflow.db",
            _database_address,
            is_address=True,
        ),
    )
    users: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_USERS",
            f"who may sign in beside '{ADMIN}', such as ann:viewer,bob:user",
            None,
            _users,
        )
    )
    auth: str = field(
        metadata=setting(
            "NIGHTSHIFT_AUTH",
            "who keeps users and roles: 'simple', these variables; 'fab', Airflow's database, by "
            "its UI",
            "simple",
            _one_of("simple", "fab"),
        )
    )
    lineage: str | None = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_LINEAGE",
            "where OpenLineage events go, an http(s) address or a file; unset: nowhere",
            None,
            _file_or_web_address,
            is_address=True,
        ),
    )
    spark_memory: str = field(
        metadata=setting(
            "NIGHTSHIFT_SPARK_MEMORY",
            "heap of the embedded Spark server, and of a cluster's executors, as Java writes it",
            "3g",
            _heap,
        )
    )
    jdbc_memory: str = field(
        metadata=setting(
            "NIGHTSHIFT_JDBC_MEMORY",
            "heap of the JDBC server, as Java writes it",
            "1g",
            _heap,
        )
    )
    sql_memory: str = field(
        metadata=setting(
            "NIGHTSHIFT_SQL_MEMORY",
            "memory of a `nightshift sql`, as DuckDB writes it; a statement that needs more is "
            "refused",
            "4GB",
            _size,
        )
    )
    spark_cores: int = field(
        metadata=setting(
            "NIGHTSHIFT_SPARK_CORES",
            "cores of the embedded Spark server, or those that it takes of a cluster",
            str(at_least_one()),
            _whole_number(1, 1024),
        )
    )
    ranks: int | None = field(
        metadata=setting(
            "NIGHTSHIFT_RANKS",
            "Horovod ranks; unset: as many as the pipeline declares",
            None,
            _whole_number(1, 4096),
        )
    )
    rank_hosts: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_RANK_HOSTS",
            "hosts that train, each with its number of ranks, such as trainer-1:2,trainer-2:2; "
            "unset: this machine",
            None,
            _hosts,
        )
    )
    host_command: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_HOST_COMMAND",
            "how Python with the platform's packages is started on a host, such as "
            "ssh {host} /opt/python; unset: ssh, and the path of this machine's Python",
            None,
            _command_on_host,
        )
    )
    rank_pod: Path | None = field(
        metadata=setting(
            "NIGHTSHIFT_RANK_POD",
            "file with the template of a rank's Pod, in JSON: the ranks of a training are the Pods "
            "of a Kubernetes Job; unset: they are none",
            None,
            _absolute,
        )
    )
    train_pod: Path | None = field(
        metadata=setting(
            "NIGHTSHIFT_TRAIN_POD",
            "file with the template of the Pod in which `train` runs, such as one with GPUs, where "
            "Airflow's tasks have Pods of their own; unset: that of the other tasks",
            None,
            _absolute,
        )
    )
    rank_executors: str = field(
        metadata=setting(
            "NIGHTSHIFT_RANK_EXECUTORS",
            "'on': the executors of NIGHTSHIFT_SPARK_MASTER train, with a core for each rank",
            "off",
            _one_of("on", "off"),
        )
    )
    kubernetes_api: str = field(
        metadata=setting(
            "NIGHTSHIFT_KUBERNETES_API",
            "https address of the Kubernetes that runs such Pods",
            "https://kubernetes.default.svc",
            _https_address,
        )
    )
    kubernetes_account: Path = field(
        metadata=setting(
            "NIGHTSHIFT_KUBERNETES_ACCOUNT",
            "folder of the account that asks it: the files token, ca.crt and namespace, as "
            "Kubernetes gives them to a Pod",
            "/var/run/secrets/kubernetes.io/serviceaccount",
            _absolute,
        )
    )
    rendezvous_address: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_RENDEZVOUS_ADDRESS",
            "this machine's private IPv4 address, at which ranks on other hosts, in Pods, or on "
            "executors find each other; such ranks need it",
            None,
            _private_address,
        )
    )
    jobs: Path = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_JOBS",
            "checkpoints, what trainings lay out for ranks on other hosts, logs of tasks in Pods, "
            "and what landed files said when they were read again: a folder that all of them see, "
            "or a URL such as s3://bucket/jobs",
            "{home}/jobs",
            _place,
            is_address=True,
        ),
    )
    timeline: str = field(
        metadata=setting(
            "NIGHTSHIFT_TIMELINE",
            "'on': Horovod's timeline of each training, what ranks waited for and sent, is kept in "
            "MLflow with the model",
            "off",
            _one_of("on", "off"),
        )
    )
    retention_days: int = field(
        metadata=setting(
            "NIGHTSHIFT_RETENTION_DAYS",
            "days that `nightshift maintain` keeps what nobody needs any more",
            "30",
            # A stage may take a day, and what it stages must stay.
            _whole_number(2, 36500),
        )
    )
    webhook_url: str | None = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_WEBHOOK_URL",
            "where notifications are posted, http or https, of each pipeline that declares no "
            "channels or this one; unset: nowhere",
            None,
            _web_address,
            is_secret=True,
        ),
    )
    warehouse_url: str | None = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_WAREHOUSE_URL",
            "PostgreSQL to which predictions are published, such as "
            "postgresql://user:password@host:5432/database; unset: none",
            None,
            _postgres_address,
            is_secret=True,
        ),
    )
    smtp_url: str | None = field(
        repr=False,
        metadata=setting(
            "NIGHTSHIFT_SMTP_URL",
            "server that sends e-mail, such as smtp://user:password@host:587 or smtps://…, of each "
            "pipeline that declares no channels or this one; unset: none is sent",
            None,
            is_secret=True,
        ),
    )
    email_from: str | None = field(
        metadata=setting("NIGHTSHIFT_EMAIL_FROM", "address that e-mail comes from", None)
    )
    email_to: str | None = field(
        metadata=setting(
            "NIGHTSHIFT_EMAIL_TO", "addresses that e-mail goes to, with commas between", None
        )
    )

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Environment:
        """The environment that the variables describe.

        Where this process's own variables are read and a place is a URL, it gets those by which all
        libraries talk to the same object store (`places.agreed`).

        Raises:
            UsageError: a variable holds no value of its kind; the message names the variable.
        """
        settings = cls.settings()
        home = settings["home"].read(environ)
        values = {name: one.read(environ, home) for name, one in settings.items()}
        found = cls(**values)
        found._refuse_overlaps()
        found._refuse_one_database()
        one, *others = found._places_of_ranks() or [""]
        if others:
            raise UsageError(f"{one} and {others[0]} both say where ranks are: unset one.")
        if any(map(places.is_url, found._places().values())):
            _require_address_of_store(environ)
            if environ is os.environ:
                os.environ.update(places.agreed(os.environ))
        return found

    def _places(self) -> dict[str, object]:
        """What may lie in an object store, by variable."""
        named = ("lake", "landing", "reports", "models", "jobs")
        return {self.settings()[name].variable: getattr(self, name) for name in named}

    def _refuse_one_database(self) -> None:
        """See to it that Airflow and MLflow do not both say which version its tables have.

        Raises:
            UsageError: both addresses lead to one database, and in it to the same schemas.
        """
        if _database(self.airflow_database) == _database(self.mlflow_uri):
            names = self.settings()
            raise UsageError(
                f"{names['airflow_database'].variable} and {names['mlflow_uri'].variable} name one "
                "database, in which Airflow and MLflow would each take the other's tables for its "
                "own: give each one of its own, such as by CREATE DATABASE mlflow."
            )

    def _refuse_overlaps(self) -> None:
        """See to it that what is cleaned up in one place is never a part of another.

        Raises:
            UsageError: two places are the same, or one lies in the other.
        """
        pairs = combinations(self._places().items(), 2)
        for (one, place), (other, beside) in pairs:
            if places.overlap(place, beside):
                raise UsageError(
                    f"{one} and {other} are the same place, or one lies in the other: give each a "
                    "folder of its own."
                )

    @classmethod
    def settings(cls) -> dict[str, Setting]:
        """Every setting by the name of its field."""
        return {one.name: one.metadata["setting"] for one in fields(cls)}

    def variables(self) -> dict[str, str]:
        """The variables that recreate this environment in another process."""
        variables = {}
        for name, setting in self.settings().items():
            value = getattr(self, name)
            # None is said by leaving the variable out: a text would be parsed.
            if value is not None:
                variables[setting.variable] = str(value)
        return variables

    def with_jdbc(self) -> Environment:
        """The same with a JDBC server: at its port, or at the one that such servers have."""
        return self if self.jdbc_port else replace(self, jdbc_port=JDBC_PORT)

    @property
    def hosts(self) -> dict[str, int]:
        """The ranks of each host that trains; empty: this machine does."""
        told = self.rank_hosts.split(",") if self.rank_hosts else []
        parts = [one.partition(":") for one in told]
        return {name: int(ranks) for name, _, ranks in parts}

    def _places_of_ranks(self) -> list[str]:
        """Variables that say that ranks are not on this machine."""
        said = {
            "rank_hosts": bool(self.hosts),
            "rank_pod": self.rank_pod is not None,
            "rank_executors": self.rank_executors == "on",
        }
        names = self.settings()
        return [names[name].variable for name, is_set in said.items() if is_set]

    @property
    def place_of_ranks(self) -> str | None:
        """The variable that says that ranks are not on this machine; None: they are."""
        return next(iter(self._places_of_ranks()), None)

    @property
    def keeps_models(self) -> bool:
        """Whether the models are in a database that we open, and not behind an MLflow server."""
        return self.mlflow_uri.startswith(_DATABASES)

    def runs(self, service: str) -> bool:
        """Whether this machine is to run the service, one of `SERVICES`, where it is needed."""
        return self.services is None or service in self.services.split(",")

    @property
    def is_part(self) -> bool:
        """Whether this machine runs some services of an Airflow, and others run the rest."""
        here = sum(map(self.runs, _OF_AIRFLOW))
        return here < len(_OF_AIRFLOW) and (here > 0 or self.runs(_WORKER))

    def own_places(self) -> list[str]:
        """Variables of the places in the home, which other machines do not see."""
        return [
            variable
            for variable, place in self._places().items()
            if PurePosixPath(str(place)).is_relative_to(self.home)
        ]

    @property
    def uses_object_store(self) -> bool:
        """Whether Spark reads or writes in an object store."""
        return places.is_url(self.lake) or places.is_url(self.landing)

    @property
    def secrets(self) -> Path:
        """Folder (0700) of generated secrets, each a file with mode 0600."""
        return self.home / "secrets"

    @property
    def logs(self) -> Path:
        """Folder of the services' logs."""
        return self.home / "logs"

    @property
    def logs_of_pods(self) -> Path:
        """Folder of the logs of tasks that ran in Pods, as Airflow names them."""
        return self.jobs / "logs"

    @property
    def runtime(self) -> Path:
        """Folder (0700) of sockets, locks and process ids."""
        return self.home / "run"

    def cards(self, pipeline: str) -> Path:
        """Folder of the cards of a pipeline's models, `<version>/`; beside its reports."""
        return self.reports / pipeline / "models"

    def report(self, recorded: str) -> str:
        """Where a data-quality report is by now: the record has its place before a home moved."""
        # <pipeline>/<days>/<run>/index.html
        return places.followed(recorded, self.reports, parts=4)

    def table_path(self, table: str) -> str:
        """Where the table of that SQL name (`<pipeline>.<table>`) is stored."""
        pipeline, _, name = table.partition(".")
        return f"{self.lake}/{pipeline}/{name}"
