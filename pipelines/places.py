"""Where tables and files lie: on a disk, or in an object store by its URL.

Five libraries read and write a store: delta-rs, Arrow, Hadoop's S3A, s3fs and MLflow's boto3. All
of them take credentials where Amazon's own programs look: variables (`AWS_ACCESS_KEY_ID` …), a file
(`~/.aws/credentials`), or the role of the machine. So a URL holds none, and no setting of ours
does. In the rest they differ by names; `agreed` says the same to each.

The only module here that needs a library, and only for a URL (docs/decisions/0023). The light
`nightshift` command imports it each time: what it rarely needs is imported where that is needed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader, RawIOBase
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit

from pipelines.errors import NightshiftError

_SCHEME = "s3://"
_PART = r"/(?!\.{1,2}(?:/|$))[\w.=+-]+"
_URL = re.compile(rf"s3[an]?://([a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9])((?:{_PART})*)/?", re.ASCII)
"""Bucket, and the folder in it. What Delta's writer would read as a part of a URL is no part, nor
are '.' and '..', of which libraries think differently."""
ENDPOINT = "AWS_ENDPOINT_URL"
"""Variable of the address of a store that is not Amazon's."""
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", ENDPOINT)
"""Both by which it may be told; libraries take the first that is set."""
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""Programs differ in which of the two they read."""
_ALLOW_HTTP = "AWS_ALLOW_HTTP"
_NO_PROXY = "no_proxy"
_NO_PROXY_AT_ALL = "*"
"""Of `NO_PROXY`: every host is reached without one."""
THIS_MACHINE = ("127.0.0.1", "localhost")
"""Where no proxy leads."""
PROXY_OF_HADOOP = "spark.hadoop.fs.s3a.proxy."
"""How settings of Spark begin that say through which proxy it reaches the store."""
_HTTP_PORT = 80
_HTTPS_PORT = 443
_CERTIFICATES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
"""Of the file with the authorities that are trusted: s3fs and boto3 read the first, delta-rs and
Arrow the second."""
_ANY_REGION = "us-east-1"
"""Of a store that has none."""
_NANOSECONDS = 1_000_000_000
_seen_buckets: set[str] = set()
"""That are there: each is asked for once by a process."""
_AHEAD_BYTES = 8 * 1024 * 1024
"""Of an object that are fetched at once: s3fs' own 50 MB are most of a large file's split."""
_CONNECT_SECONDS = 10
_ATTEMPTS = 6
"""Of a request that fails, with longer and longer pauses: some 20 seconds together."""
_OF_PATTERNS = re.compile(r"[\[\]{}*?\\]")
"""What Spark takes for part of a pattern of paths."""


def endpoint(environ: Mapping[str, str]) -> str:
    """The address of a store that is not Amazon's; empty: it is."""
    return _first(environ, ENDPOINTS)


def certificates(environ: Mapping[str, str]) -> str:
    """The file with the authorities whose certificates are trusted; empty: a library's own."""
    return _first(environ, _CERTIFICATES)


def _first(environ: Mapping[str, str], names: Iterable[str]) -> str:
    """What the first of these variables says that says anything; empty: none does."""
    return next(filter(None, map(environ.get, names)), "")


def is_url(place: object) -> bool:
    """Whether that place is in an object store, and not on a disk."""
    return str(place).startswith(_SCHEME)


def parse_url(text: str) -> str:
    """The URL as all libraries take it: without a slash at the end, and `s3` for Hadoop's `s3a`.

    Raises:
        ValueError: it is none; the message says what it is not.
    """
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(
            "a folder, or a URL such as s3://bucket/folder (letters, digits and ._=+- alone; "
            "credentials are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from "
            "~/.aws/credentials or from the machine's role, and another store's address from "
            f"{ENDPOINT})"
        )
    bucket, folder = found.groups()
    return f"{_SCHEME}{bucket}{folder}"


def place(text: str) -> Path:
    """The folder or file of that path or URL, with the methods of a path for either.

    What is written in an object store is there as a whole or not at all, and needs no folder. One
    that has been used does not work in a forked child: make it there.
    """
    if not is_url(text):
        return Path(text)
    from upath import UPath  # a tenth of a second, and only needed here

    # Else what another program has written since the first look would not be seen.
    found = UPath(text, use_listings_cache=False, config_kwargs=_of_botocore())
    # Of its methods we use those that a path has too.
    return cast("Path", found)


def require_bucket(path: Path) -> None:
    """Refuse a place in a bucket that is not there: all that is looked for would only be missing.

    Args:
        path: A place in a store.

    Raises:
        NightshiftError: the store has no such bucket.
        OSError: the store is away.
    """
    of_store: Any = path
    bucket = of_store.path.partition("/")[0]
    if bucket in _seen_buckets:
        return
    try:
        # Who may not ask that may read in it all the same.
        with suppress(PermissionError):
            of_store.fs.call_s3("head_bucket", Bucket=bucket)
    except FileNotFoundError:
        raise NightshiftError(
            f"The object store has no bucket '{bucket}', so nothing can be at {path}. Make it, or "
            "mend the setting that names it: `nightshift config` shows them."
        ) from None
    _seen_buckets.add(bucket)


def changed_ns(found: Any) -> int:
    """When a file was last written, in nanoseconds since 1970.

    An object store tells whole seconds. The rest is drawn from what it says of the content, its
    ETag: so two contents of one second have two times.

    Args:
        found: What `stat` of a path gives.
    """
    told = found.as_info() if hasattr(found, "as_info") else {}
    return int(found.st_mtime_ns) + (_drawn(told.get("ETag", "")) if told else 0)


def mark(found: Any) -> int:
    """A number that is another as soon as a file may say something else.

    Of an object it is `changed_ns`. On a disk it begins with the second in which the file's entry
    was changed: a copy may keep time and size of the file that it replaces, but not that.

    Args:
        found: What `stat` of a path gives.
    """
    if hasattr(found, "as_info"):
        return changed_ns(found)
    second = found.st_ctime_ns - found.st_ctime_ns % _NANOSECONDS
    return int(second) + _drawn(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _drawn(*facts: object) -> int:
    """Nanoseconds of less than a second that nearly always differ where the facts do."""
    import hashlib

    told = " ".join(map(str, facts))
    return int.from_bytes(hashlib.sha256(told.encode()).digest()) % _NANOSECONDS


def below(path: str, folder: Path) -> str | None:
    """What leads from a folder to a place; None: it is not in it.

    Args:
        path: A path or URL, such as one that was recorded when the folder was another.
        folder: On a disk or in a store.
    """
    if is_url(path) != is_url(folder) or not place(path).is_relative_to(folder):
        return None
    return place(path).relative_to(folder).as_posix()


def literal(path: str) -> str:
    """What Spark takes for that very path: it may be a pattern."""
    return _OF_PATTERNS.sub(r"\\\g<0>", path)


def followed(path: str, folder: Path, parts: int) -> str:
    """Where a place is that was recorded when its folder may have been another, as before a move.

    Args:
        path: A path or URL, as it was recorded.
        folder: Where the folder is by now.
        parts: How many names lead from the folder to the place.

    Returns:
        The place in the folder; the path as it is, where nothing is there.
    """
    if below(path, folder):
        return path
    here = folder.joinpath(*PurePosixPath(path).parts[-parts:])
    return str(here) if here.exists() else path


def overlap(one: object, other: object) -> bool:
    """Whether two places are the same, or one lies in the other."""
    first, second = PurePosixPath(str(one)), PurePosixPath(str(other))
    return first.is_relative_to(second) or second.is_relative_to(first)


def nearest_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(one for one in (path, *path.parents) if one.exists())


def opened(path: Path) -> BufferedReader:
    """The file, to be read as bytes; of an object what is read is fetched, in large pieces.

    Raises:
        OSError: it cannot be read, or is a pipe, a socket or a device.
    """
    if not is_url(path):
        mode = path.stat().st_mode
        # Who opens a pipe waits until somebody writes into it.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return path.open("rb")
    of_store: Any = path
    # The object's own kind reads no more than lines of any length.
    return BufferedReader(cast("RawIOBase", of_store.open("rb", block_size=_AHEAD_BYTES)))


def read_range(path: Path, first: int, count: int) -> bytes:
    """So many bytes of a file from that one on, fewer where it ends; no others are fetched.

    Of an object `opened` fetches some more, for who reads on.
    """
    if not is_url(path):
        with path.open("rb") as file:
            file.seek(first)
            return file.read(count)
    of_store: Any = path
    try:
        found: bytes = of_store.fs.cat_file(of_store.path, start=first, end=first + count)
    except OSError as error:
        # It ends before that.
        if error.errno != errno.EINVAL:
            raise
        return b""
    return found


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, whoever may be reading it."""
    if is_url(path):
        path.write_bytes(content)
        return
    with _unfinished(path, content) as draft:
        draft.replace(path)


def write_once(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all; of several writers the first wins."""
    if is_url(path):
        of_store: Any = path
        with suppress(FileExistsError):
            of_store.fs.pipe_file(of_store.path, content, mode="create")
        return
    # Unlike a rename, a link fails when the file is there.
    with _unfinished(path, content) as draft, suppress(FileExistsError):
        path.hardlink_to(draft)


@contextmanager
def _unfinished(path: Path, content: bytes) -> Iterator[Path]:
    """The content in a file beside the path, which then gets its name or is gone."""
    from uuid import uuid4

    path.parent.mkdir(parents=True, exist_ok=True)
    # Of this writer alone, and hidden until it has its name. Not by the process id: on a disk that
    # machines share, two may have the same.
    draft = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        draft.write_bytes(content)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Delete a folder and what is in it, as far as that is possible."""
    if is_url(folder):
        of_store: Any = folder
        # Of a store that is away not all that its library raises is an `OSError`.
        with suppress(Exception):
            of_store.fs.rm(of_store.path, recursive=True)
    else:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _of_botocore() -> dict[str, object]:
    settings: dict[str, object] = {
        "connect_timeout": _CONNECT_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
    }
    if endpoint(os.environ):
        settings["s3"] = {"addressing_style": "path"}
    return settings


def agreed(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are missing for all libraries to talk to the same store in the same way.

    Args:
        environ: What is set.
    """
    address = endpoint(environ)
    region = _first(environ, _REGIONS) or (_ANY_REGION if address else "")
    wanted = dict.fromkeys(_REGIONS, region) if region else {}
    if address:
        # Amazon's buckets have host names of their own; of other stores few have.
        wanted["MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE"] = "path"
    if address and not environ.get("AWS_ACCESS_KEY_ID"):
        # delta-rs looks into files only when it is told to.
        wanted["AWS_FORCE_CREDENTIAL_LOAD"] = "true"
    if address.startswith("http://"):
        # delta-rs asks for it to be said twice.
        wanted[_ALLOW_HTTP] = "true"
    if trusted := certificates(environ):
        wanted |= dict.fromkeys(_CERTIFICATES, trusted)
    return {name: value for name, value in wanted.items() if not environ.get(name)}


def address_of_store(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that say where the store is; no credentials are among them."""
    known = {**environ, **agreed(environ)}
    names = (*ENDPOINTS, *_REGIONS, _ALLOW_HTTP)
    return {name: known[name] for name in names if known.get(name)}


def hosts_without_proxy(said: str, own: Iterable[str]) -> str:
    """The list of hosts that are reached without a proxy, as `NO_PROXY` has it.

    Args:
        said: What a person says.
        own: Those that are so in any case.
    """
    others = said.strip()
    # Among others it would be the name of a host.
    if others == _NO_PROXY_AT_ALL:
        return others
    return ",".join(filter(None, [*own, others]))


def proxy(environ: Mapping[str, str]) -> str:
    """The address of the proxy that leads to the store; empty: none does.

    s3fs, boto3 and delta-rs look for it themselves, in the same variables.
    """
    _, _, rest = _address(environ).partition("://")
    found = _in_either_case(environ, _name_of_proxy(environ))
    if not found or _is_without_proxy(rest.partition("/")[0], environ):
        return ""
    whole = found if "://" in found else f"http://{found}"
    # Not all of the libraries speak SOCKS.
    return whole if whole.startswith(("http://", "https://")) else ""


def variables_of_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables by which libraries elsewhere find the proxy that leads to the store.

    None of one whose address holds a login: where they are told, everybody would see it.
    """
    address = proxy(environ)
    if not address or "@" in address:
        return {}
    told = {
        _name_of_proxy(environ): address,
        _NO_PROXY: _in_either_case(environ, _NO_PROXY),
    }
    return {name: value for name, value in told.items() if value}


def _name_of_proxy(environ: Mapping[str, str]) -> str:
    return f"{_address(environ).partition('://')[0]}_proxy"


def _address(environ: Mapping[str, str]) -> str:
    return endpoint(environ) or _amazons_address(environ)


def _amazons_address(environ: Mapping[str, str]) -> str:
    region = _first(environ, _REGIONS) or _ANY_REGION
    return f"https://s3.{region}.amazonaws.com"


def _is_without_proxy(host: str, environ: Mapping[str, str]) -> bool:
    from urllib.request import proxy_bypass  # slow to import, and rarely needed

    return bool(proxy_bypass(host, {"no": _in_either_case(environ, _NO_PROXY)}))


def _in_either_case(environ: Mapping[str, str], name: str) -> str:
    # As Python's own libraries have it: small letters go first, also where they say nothing.
    return environ.get(name, environ.get(name.upper(), ""))


def settings_of_hadoop(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings of Spark by which it reads and writes `s3://`; no credentials are among them."""
    settings = {
        "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "fs.s3a.aws.credentials.provider": (
            "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
        ),
    }
    known = address_of_store(environ)
    if address := endpoint(known):
        settings["fs.s3a.endpoint"] = address
        settings["fs.s3a.path.style.access"] = "true"
    if region := known.get(_REGIONS[0]):
        settings["fs.s3a.endpoint.region"] = region
    told = {f"spark.hadoop.{name}": value for name, value in settings.items()}
    return told | _proxy_of_hadoop(proxy(environ))


def _proxy_of_hadoop(address: str) -> dict[str, str]:
    """Without a password: everybody who sees Spark's settings would see it."""
    if not address:
        return {}
    told = urlsplit(address)
    is_by_tls = told.scheme == "https"
    standard = _HTTPS_PORT if is_by_tls else _HTTP_PORT
    return {
        f"{PROXY_OF_HADOOP}host": str(told.hostname),
        f"{PROXY_OF_HADOOP}port": str(told.port or standard),
        f"{PROXY_OF_HADOOP}ssl.enabled": str(is_by_tls).lower(),
    }
