"""The command `nightshift doctor`: what this machine offers, what is used of it, what is amiss.

Nothing heavy is imported, and everything is asked at once: it takes as long as the slowest answer.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

import psutil

from jobs.lake.store_faults import what_store_says
from jobs.notifications import channels, email, webhook
from jobs.services import executors, processes, shared_locks, stage_client, usage
from jobs.services.definitions import Health, as_started, services
from jobs.services.lifecycle import needs_others, require_shared
from jobs.services.startup import state
from jobs.services.supervision import Supervisor
from jobs.spark import java
from jobs.spark.server import cores_at_once, master_answers
from jobs.version import source_hash
from jobs.warehouse import connection
from pipelines import catalog
from pipelines.cores import at_least_one
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError, UsageError
from pipelines.model import NeuralNetwork
from pipelines.places import is_url, nearest_existing, place, require_bucket
from pipelines.redaction import redacted, without_secrets

COLUMNS = ("what", "found", "state", "way_out")
_SECONDS = 3
"""For an answer of another machine."""
_BUILD_SECONDS = 30
"""To load Horovod's libraries from a cold disk."""
_DRIVER_SECONDS = 30
"""For NVIDIA's driver, which first wakes each GPU that nobody uses."""
_PYTHONS = ((3, 11), (3, 12), (3, 13))
_GIGABYTE = 1 << 30
_LEAST_MEMORY, _LEAST_FREE_MEMORY = 7.5, 2.0
"""Gigabytes: a machine of 8 keeps some for itself."""
_LEAST_DISK, _SCARCE_DISK = 1.0, 5.0
"""Gigabytes."""
_URL_AND_KEYS = "the URL and the credentials"
_SPARK_PORT = 15002
"""Of a Spark Connect address that names none."""
_SET_UP_ANEW = "make setup"
_FOR_GPUS = "make setup GPU=1, or the image for GPUs: docs/how-to/horovod.md#gpus"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable of CUDA's: which GPUs a program sees, by number or name; empty: none."""
_FEWER_RANKS = f"NIGHTSHIFT_RANKS={{}}, or {_VISIBLE}= for the processor"
_WHERE_RANKS_ARE = {
    "NIGHTSHIFT_RANK_HOSTS": "on other hosts",
    "NIGHTSHIFT_RANK_POD": "in Pods of their own",
    "NIGHTSHIFT_RANK_EXECUTORS": "on executors of Spark",
}
State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One row."""

    what: str
    found: str
    state: State = "ok"
    way_out: str = ""


def doctor(environment: Environment) -> tuple[int, list[tuple[str, ...]]]:
    """Ask about everything at once.

    Returns:
        The exit code, that of a fault where there is a problem, and the rows by `COLUMNS`.
    """
    with ThreadPoolExecutor(len(_CHECKS)) as pool:
        asked = [pool.submit(_findings, what, environment) for what in _CHECKS]
        found = list(chain.from_iterable(one.result() for one in asked))
    settings = environment.variables()
    rows: list[tuple[str, ...]] = []
    for one in found:
        told = (one.what, one.found, one.state, one.way_out)
        rows.append(tuple(redacted(text, settings) for text in told))
    has_problem = any(one.state == "problem" for one in found)
    return NightshiftError.exit_code if has_problem else 0, rows


def _findings(what: str, environment: Environment) -> list[Finding]:
    try:
        return list(_CHECKS[what](environment))
    except Exception as error:
        # What cannot be asked is a row too, and hides no other.
        found = f"cannot be told: {type(error).__name__} {error}"
        return [Finding(what=what, found=found, state="problem")]


def _judged(
    what: str,
    found: str,
    is_well: bool,
    way_out: str,
    otherwise: State = "problem",
) -> Finding:
    """A row whose way out is told only where it is needed."""
    if is_well:
        return Finding(what=what, found=found)
    return Finding(what=what, found=found, state=otherwise, way_out=way_out)


def _python(_: Environment) -> Iterator[Finding]:
    found = f"{platform.python_version()} at {sys.executable}"
    is_known = sys.version_info[:2] in _PYTHONS
    yield _judged("Python", found, is_known, "Set it up with Python 3.11, 3.12 or 3.13.")


def _java(environment: Environment) -> Iterator[Finding]:
    if environment.spark_remote:
        yield Finding(what="Java", found="not needed: Spark is elsewhere")
        return
    try:
        home = java.java_home()
    except NightshiftError as error:
        yield Finding(what="Java", found="none", state="problem", way_out=str(error))
        return
    yield Finding(what="Java", found=f"{java.version(home / 'bin' / 'java')} at {home}")


def _master(address: str) -> Finding:
    if address == "yarn":
        return Finding(what="Spark cluster", found="YARN, where HADOOP_CONF_DIR says")
    answers = master_answers(address)
    found = f"{address} {'answers' if answers else 'does not answer'}"
    way_out = "Start its master, or unset NIGHTSHIFT_SPARK_MASTER to compute on this machine."
    return _judged("Spark cluster", found, answers, way_out)


def _spark(environment: Environment) -> Iterator[Finding]:
    if not environment.spark_remote:
        size = f"{environment.spark_cores} cores, {environment.spark_memory} of heap"
        yield Finding(what="Spark", found=f"embedded: {size}")
        if environment.spark_master:
            yield _master(environment.spark_master)
        return
    address = urlsplit(environment.spark_remote)
    port = address.port or _SPARK_PORT
    answers = processes.answers(port, str(address.hostname))
    found = f"{address.hostname}:{port} {'answers' if answers else 'does not answer'}"
    way_out = "Start it, or unset SPARK_REMOTE to use the embedded server."
    yield _judged("Spark", found, answers, way_out)


def _libraries(_: Environment) -> Iterator[Finding]:
    for name in ("TensorFlow", "Keras", "Horovod"):
        try:
            yield Finding(what=name, found=version(name.lower()))
        except PackageNotFoundError:
            yield Finding(what=name, found="missing", state="problem", way_out=_SET_UP_ANEW)


def _build(_: Environment) -> Iterator[Finding]:
    built, why = horovod_build()
    names = [name for name in ("nccl", "gloo", "mpi") if built.get(name)]
    found = ", ".join(map(_written, names)) or why
    way_out = f"Ranks find each other by Gloo: {_SET_UP_ANEW}"
    yield _judged("Horovod is built with", found, "gloo" in names, way_out)


def _devices(environment: Environment) -> Iterator[Finding]:
    if environment.place_of_ranks:
        yield from _ranks_elsewhere(environment)
        return
    gpus = seen_gpus()
    by = f" ({_VISIBLE}={os.environ[_VISIBLE]})" if _VISIBLE in os.environ else ""
    yield Finding(what="GPUs", found=("; ".join(gpus) or "none seen") + by)
    if not gpus:
        yield Finding(what="ranks run on", found="the processor")
        yield Finding(what="gradients go by", found="Gloo")
        return
    yield _ranks_on_gpus(environment, len(gpus))
    built, _ = horovod_build()
    has_nccl = built.get("nccl", False)
    # NCCL refuses a GPU that comes twice.
    goes_by_nccl = has_nccl and _ranks(environment) <= len(gpus)
    found = "NCCL" if goes_by_nccl else "Gloo, through the host's memory"
    way_out = _FEWER_RANKS.format(len(gpus)) if has_nccl else _FOR_GPUS
    yield _judged("gradients go by", found, goes_by_nccl, way_out, "warning")


def _ranks_elsewhere(environment: Environment) -> Iterator[Finding]:
    if environment.rank_executors == "on":
        return _executors(environment)
    return _hosts(environment) if environment.hosts else _pods(environment)


def _executors(environment: Environment) -> Iterator[Finding]:
    """Whether executors can train."""
    from jobs.training.families.neural_network.executors import OnExecutors

    what = "ranks are tasks of"
    ranks = _ranks(environment)
    try:
        launcher = OnExecutors(environment)
        launcher.hosts(ranks)
    except UsageError as error:
        way_out = "docs/how-to/horovod.md#on-the-executors-of-a-spark-cluster"
        yield Finding(what=what, found=str(error), state="problem", way_out=way_out)
        return
    found = f"{environment.spark_master}, {ranks} of {cores_at_once(environment)} cores"
    yield Finding(what=what, found=found)
    yield _at(launcher.address)


def _hosts(environment: Environment) -> Iterator[Finding]:
    """What each host says that ranks are started on."""
    from jobs.training.families.neural_network.launchers import OnHosts

    what = "ranks find each other at"
    try:
        launcher = OnHosts(environment)
    except UsageError as error:
        yield Finding(what=what, found="nothing", state="problem", way_out=str(error))
        return
    yield _at(launcher.address)
    own = source_hash()
    for host, (answers, said) in launcher.code_hashes().items():
        what = f"ranks on {host}"
        if not answers:
            way_out = "NIGHTSHIFT_HOST_COMMAND: Python with the platform's packages there"
            yield Finding(what=what, found=said, state="problem", way_out=way_out)
            continue
        found = f"{environment.hosts[host]}, with the code of here"
        way_out = "Ranks need one code: install there what is here."
        lines = said.splitlines()
        is_alike = own in lines
        yield _judged(what, found if is_alike else f"other code: {lines[-1]}", is_alike, way_out)


def _pods(environment: Environment) -> Iterator[Finding]:
    """What Kubernetes says of ranks in Pods."""
    from jobs.training.families.neural_network.pods import OnPods

    what = "ranks are Pods in"
    try:
        launcher = OnPods(environment)
        namespace = launcher.try_out(_ranks(environment))
    except NightshiftError as error:
        way_out = "docs/how-to/horovod.md#in-pods-of-kubernetes"
        yield Finding(what=what, found=str(error), state="problem", way_out=way_out)
        return
    yield Finding(what=what, found=f"the namespace {namespace}")
    yield _at(launcher.address)


def _at(address: str) -> Finding:
    why = _why_not_ours(address)
    way_out = "NIGHTSHIFT_RENDEZVOUS_ADDRESS: one of this machine that the hosts reach"
    what = "ranks find each other at"
    if not why and ip_address(address).is_loopback:
        found = f"{address}, which leads each host to itself"
        return Finding(what=what, found=found, state="warning", way_out=way_out)
    return _judged(what, why or address, not why, way_out)


def _why_not_ours(address: str) -> str:
    """Why this machine cannot listen at an address; empty: it can."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return f"{address}: {error.strerror}"
    return ""


def _ranks_on_gpus(environment: Environment, gpus: int) -> Finding:
    if not _has_cuda():
        return Finding(
            what="ranks run on",
            found="the processor: TensorFlow finds no CUDA libraries",
            state="warning",
            way_out=_FOR_GPUS,
        )
    ranks = _ranks(environment)
    has_each = ranks <= gpus
    found = f"a GPU each, {ranks} of {gpus}" if has_each else f"{ranks} ranks share {gpus} GPUs"
    way_out = _FEWER_RANKS.format(gpus)
    return _judged("ranks run on", found, has_each, way_out, "warning")


def _processor(environment: Environment) -> Iterator[Finding]:
    cores = at_least_one()
    if environment.place_of_ranks:
        where = _WHERE_RANKS_ARE[environment.place_of_ranks]
        yield Finding(what="processor", found=f"{cores} cores; ranks are {where}")
        return
    ranks = _ranks(environment)
    found = f"{cores} cores; {ranks} ranks with a thread each"
    way_out = f"Ranks wait for each other: NIGHTSHIFT_RANKS={cores}"
    yield _judged("processor", found, ranks <= cores, way_out, "warning")


def _memory(_: Environment) -> Iterator[Finding]:
    total = usage.memory() / _GIGABYTE
    free = min(psutil.virtual_memory().available / _GIGABYTE, total)
    is_enough = total >= _LEAST_MEMORY and free >= _LEAST_FREE_MEMORY
    found = f"{free:.1f} GB free of {total:.1f} GB"
    way_out = "Give Spark less (NIGHTSHIFT_SPARK_MEMORY), or end programs."
    yield _judged("memory", found, is_enough, way_out, "warning")


def _disks(environment: Environment) -> Iterator[Finding]:
    disks = {"disk of the home": str(environment.home), "disk of the lake": environment.lake}
    for what, folder in disks.items():
        if is_url(folder):
            continue
        free = shutil.disk_usage(nearest_existing(Path(folder))).free / _GIGABYTE
        found = f"{free:.1f} GB free at {folder}"
        way_out = "nightshift maintain, or a larger disk"
        level: State = "warning" if free >= _LEAST_DISK else "problem"
        yield _judged(what, found, free >= max(_LEAST_DISK, _SCARCE_DISK), way_out, level)


def _object_store(environment: Environment) -> Iterator[Finding]:
    stored = (
        ("lake", place(environment.lake), _place_of_ours),
        ("landing folder", environment.landing, _place_of_others),
        ("reports", environment.reports, _place_of_ours),
        ("files of models", environment.models, _place_of_ours),
        ("jobs of trainings", environment.jobs, _place_of_ours),
    )
    for what, folder, look in stored:
        if is_url(folder):
            yield look(what, folder)


def _place_of_ours(what: str, folder: Path) -> Finding:
    return _answer(what, partial(_written_at, folder), _URL_AND_KEYS)


def _place_of_others(what: str, folder: Path) -> Finding:
    """Their files are only read; those of a replay are dropped there by us."""
    read = _answer(what, partial(_read_at, folder), _URL_AND_KEYS)
    replayed = [one.name for one in catalog.readable() if one.replay]
    if read.state == "problem" or not replayed:
        return read
    written = _place_of_ours(what, folder)
    if written.state == "ok":
        return written
    way_out = f"Where {', '.join(replayed)} shall be replayed, let us write into it."
    found = f"{read.found}, and not written: {written.found}"
    return Finding(what=what, found=found, state="warning", way_out=way_out)


def _read_at(folder: Path) -> str:
    """That what lies there can be asked for; nothing need be there yet."""
    with _in_words_of_the_store():
        require_bucket(folder)
        # A key below it: whether a bucket is there is answered without a word of a refusal.
        (folder / f".doctor-{uuid4().hex}").exists()
    return f"{folder} can be read"


def _written_at(folder: Path) -> str:
    """That a file can be put there and taken away again."""
    probe = folder / f".doctor-{uuid4().hex}"
    with _in_words_of_the_store():
        probe.write_bytes(b"")
        probe.unlink()
    return f"{folder} can be written"


@contextmanager
def _in_words_of_the_store() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise NightshiftError(what_store_says(error) or str(error)) from None


def _ports(environment: Environment) -> Iterator[Finding]:
    started = as_started(environment, Supervisor(environment).processes())
    for service in services(started):
        if not service.port:
            continue
        what = f"port {service.port} ({service.name})"
        if not processes.answers(service.port):
            yield Finding(what=what, found="free")
            continue
        holder = processes.listener(service.port)
        is_ours = processes.belongs(holder, environment.home)
        found = "taken by this platform" if is_ours else f"by {processes.describe(holder)}"
        yield _judged(what, found, is_ours, f"Stop that, or set {service.port_variable}.")


def _warehouse(environment: Environment) -> Iterator[Finding]:
    if not environment.warehouse_url:
        yield Finding(what="warehouse", found="not set")
        return
    limits = connection.Limits(connect=_SECONDS)

    def ask() -> str:
        with connection.opened(environment, limits) as opened:
            return f"PostgreSQL {connection.version_of(opened)}"

    yield _answer("warehouse", ask, connection.VARIABLE)


def _databases(environment: Environment) -> Iterator[Finding]:
    yield _database(
        "Airflow's database", environment.airflow_database, "NIGHTSHIFT_AIRFLOW_DATABASE"
    )
    yield _database("MLflow", environment.mlflow_uri, "MLFLOW_TRACKING_URI")


def _database(what: str, address: str, variable: str) -> Finding:
    kind = urlsplit(address).scheme
    if kind.startswith("postgresql"):
        # The driver, as in postgresql+psycopg2, is SQLAlchemy's matter.
        plain = address.replace(kind, "postgresql", 1)
        return _answer(
            what, lambda: f"PostgreSQL {connection.version_at(plain, _SECONDS)}", variable
        )
    if kind in {"http", "https"}:
        return _answer(what, lambda: _asked_by_http(f"{address.rstrip('/')}/health"), variable)
    return Finding(what=what, found=without_secrets(address))


def _smtp(environment: Environment) -> Iterator[Finding]:
    url = environment.smtp_url
    if not url:
        yield Finding(what="SMTP server", found="not set")
        return

    def ask() -> str:
        email.sign_in(url, _SECONDS)
        return "answers"

    yield _answer("SMTP server", ask, email.SERVER)
    yield _usable("e-mail", partial(email.require_whole, environment))


def _webhook(environment: Environment) -> Iterator[Finding]:
    """Whether the address is one to post to. Nothing is posted: people would take it for news."""
    url = environment.webhook_url
    if url:
        yield _usable("webhook", partial(webhook.require_address, url))


def _usable(what: str, require: Callable[[], None]) -> Finding:
    try:
        require()
    except UsageError as error:
        return Finding(what=what, found="tells nobody", state="problem", way_out=str(error))
    return Finding(what=what, found="is set")


def _told(environment: Environment) -> Iterator[Finding]:
    """By which channels people are told of the nights of each pipeline."""
    for pipeline in catalog.readable():
        found = channels.channels_of(environment, pipeline)
        yield Finding(what=f"{pipeline.name} tells people by", found=", ".join(found) or "nothing")


def _pipelines(_: Environment) -> Iterator[Finding]:
    """Those that cannot be imported; others are looked at without them."""
    for name, why in catalog.unreadable().items():
        way_out = "Mend its declaration: it has no nights until then."
        yield Finding(what=f"pipeline {name}", found=str(why), state="problem", way_out=way_out)


def _part(environment: Environment) -> Iterator[Finding]:
    """Whether a part of a platform is told what the parts share."""
    if not needs_others(environment):
        return
    try:
        require_shared(environment)
    except UsageError as error:
        way_out = "The same settings on every machine: docs/how-to/machines.md"
        yield Finding(what="this part", found=str(error), state="problem", way_out=way_out)
    else:
        yield Finding(what="this part", found="has what the parts share")


def _turns(environment: Environment) -> Iterator[Finding]:
    """Whether machines that share the registry of models wait for each other."""
    why = shared_locks.why_no_turns(environment)
    if why:
        way_out = "A PostgreSQL for Airflow (docs/how-to/machines.md), or nights on one machine"
        yield Finding(what="turns of machines", found=why, state="warning", way_out=way_out)


def _executor(environment: Environment) -> Iterator[Finding]:
    """Whether an executor that is not Airflow's default here has what it needs."""
    told = executors.told()
    if not told:
        return
    try:
        executors.require_all(environment)
    except UsageError as error:
        way_out = "docs/how-to/machines.md tells what each is"
        yield Finding(what="executor", found=str(error), state="problem", way_out=way_out)
    else:
        yield Finding(what="executor", found=f"{told} has what it needs")


def _platform(environment: Environment) -> Iterator[Finding]:
    known = Supervisor(environment).processes()
    if not known:
        yield _unwatched(environment)
        return
    health = Health.ask(environment)
    wanted = services(as_started(environment, known))
    ill: list[str] = []
    for one in wanted:
        word = state(one, known.get(one.name), health)
        if word != "healthy":
            ill.append(f"{one.name} {word}")
    found = ", ".join(ill) or f"up, {len(wanted)} services healthy"
    yield _judged("platform", found, not ill, "nightshift status; nightshift logs SERVICE")


def _unwatched(environment: Environment) -> Finding:
    """The platform where no supervisor answers."""
    left = processes.marked(environment.home)
    if not left:
        return Finding(what="platform", found="down", way_out="nightshift up")
    if stopped := Supervisor(environment).stopped_pid():
        return Finding(
            what="platform",
            found="its supervisor is stopped (SIGSTOP), and nothing watches the rest",
            state="problem",
            way_out=f"{processes.how_to_go_on(stopped)}; nightshift down ends all.",
        )
    return Finding(
        what="platform",
        found=f"{len(left)} of its processes run, and nothing watches them",
        state="problem",
        way_out="nightshift down ends them, nightshift up starts anew.",
    )


_CHECKS: dict[str, Callable[[Environment], Iterator[Finding]]] = {
    "Python": _python,
    "Java": _java,
    "Spark": _spark,
    "libraries": _libraries,
    "Horovod is built with": _build,
    "GPUs": _devices,
    "processor": _processor,
    "memory": _memory,
    "disks": _disks,
    "ports": _ports,
    "part of a platform": _part,
    "turns of machines": _turns,
    "executor": _executor,
    "platform": _platform,
    "object store": _object_store,
    "warehouse": _warehouse,
    "databases": _databases,
    "SMTP server": _smtp,
    "webhook": _webhook,
    "notifications": _told,
    "pipelines": _pipelines,
}


@cache
def horovod_build() -> tuple[dict[str, bool], str]:
    """What Horovod was built with, by name, and why nothing is known of it."""
    asked = subprocess.run(
        [sys.executable, "-m", "jobs.training.horovod_build"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": stage_client.python_path()},
        timeout=_BUILD_SECONDS,
    )
    if asked.returncode:
        last = asked.stderr.strip().splitlines()[-1:]
        return {}, f"it cannot be loaded: {''.join(last)}"
    built: dict[str, bool] = json.loads(asked.stdout)
    return built, "neither NCCL nor Gloo nor MPI"


def seen_gpus() -> list[str]:
    """What NVIDIA's driver names, and programs may see; nothing where there is no driver."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    asked = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_DRIVER_SECONDS,
        check=False,
    )
    named = [] if asked.returncode else asked.stdout.splitlines()
    told = os.environ.get(_VISIBLE)
    return named if told is None else list(_visible(named, told))


def _visible(named: Sequence[str], told: str) -> Iterator[str]:
    """Those of the GPUs that CUDA shows: up to the first word that is none of them."""
    for one in map(str.strip, told.split(",")):
        if one.startswith(("GPU-", "MIG-")):
            yield one
        elif one.isdecimal() and int(one) < len(named):
            yield named[int(one)]
        else:
            return


def _has_cuda() -> bool:
    """Whether TensorFlow's CUDA libraries are installed beside it."""
    return find_spec("nvidia") is not None and find_spec("nvidia.cuda_runtime") is not None


def _ranks(environment: Environment) -> int:
    families = [pipeline.training.family for pipeline in catalog.readable()]
    declared = [one.ranks for one in families if isinstance(one, NeuralNetwork)]
    return environment.ranks or max(declared, default=1)


def _answer(what: str, ask: Callable[[], str], variable: str) -> Finding:
    try:
        return Finding(what=what, found=ask())
    except (NightshiftError, OSError, HTTPException) as error:
        way_out = f"Start it, or look at {variable}."
        return Finding(what=what, found=str(error), state="problem", way_out=way_out)


def _asked_by_http(address: str) -> str:
    parts = urlsplit(address)
    login, _, host = parts.netloc.rpartition("@")
    # With a login in the address the standard library looks for a host of that name.
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
    if login:
        signed = b64encode(unquote(login).encode()).decode()
        # To nobody to whom the server sends us on.
        request.add_unredirected_header("Authorization", f"Basic {signed}")
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        return f"answers {answer.status}"


def _written(part: str) -> str:
    return "Gloo" if part == "gloo" else part.upper()
