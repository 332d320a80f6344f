"""Set-up: what it pins, and what it says when this machine lacks something.

It can be interrupted, and run twice at once.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from socket import gethostname

import pytest

from jobs.spark import server
from pipelines.environment import ROOT
from tests.proxy import VARIABLES, dead_end
from tools.setup import console, cuda, environment, horovod, jars, machine
from tools.setup import uv as installer
from tools.setup.__main__ import fingerprint
from tools.setup.console import SetupError
from tools.setup.proxy import java_options

LOCKS = (
    environment.LOCK,
    environment.RUNTIME_LOCK,
    horovod.LOCK,
    cuda.LOCK,
    ROOT / "tools" / "setup" / "uv.lock",
    ROOT / "bench" / "lightgbm.lock",
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lock: Path) -> dict[str, list[str]]:
    """Per package of a lock, its hashes."""
    blocks = re.split(r"\n(?=\S)", lock.read_text().strip())
    hashes = r"--hash=sha256:[0-9a-f]{64}\b"
    return {package_of(block): re.findall(hashes, block) for block in blocks}


def asked(requirements: Path) -> list[str]:
    """The packages of a file of requirements, without its comments."""
    lines = requirements.read_text().splitlines()
    said = [line.partition("#")[0].strip() for line in lines]
    others = [line.removeprefix("-r ") for line in said if line.startswith("-r ")]
    packages = [package_of(line) for line in said if line and not line.startswith("-r ")]
    return packages + [name for other in others for name in asked(requirements.parent / other)]


def package_of(line: str) -> str:
    name = re.match(r"[\w.-]+", line)
    assert name, f"no package in {line!r}"
    return normal(name.group())


def java_that_says(folder: Path, version: str) -> Path:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    return java


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with nothing on PATH, no JAVA_HOME and no right to install.

    Returns:
        The only folder on its PATH.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(cuda, "_OF_NVIDIA", tmp_path / "cuda")
    monkeypatch.setattr(machine, "can_install", lambda: False)
    return tmp_path


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_everything_is_pinned_by_hash_and_nothing_by_address(lock: Path) -> None:
    assert [name for name, hashes in pinned(lock).items() if not hashes] == []
    assert not re.search(r"https?://|index-url|find-links", lock.read_text())


def test_the_locks_hold_what_is_asked_for() -> None:
    assert set(asked(ROOT / "requirements.in")) <= set(pinned(environment.LOCK))
    assert set(asked(ROOT / "runtime.in")) <= set(pinned(environment.RUNTIME_LOCK))
    assert asked(ROOT / "tools" / "setup" / "horovod.in") == list(pinned(horovod.LOCK))
    assert asked(ROOT / "bench" / "lightgbm.in") == list(pinned(ROOT / "bench" / "lightgbm.lock"))


def test_an_image_gets_the_versions_that_were_tested_and_no_test_tools() -> None:
    tested = set(re.findall(r"^\S+==\S+", environment.LOCK.read_text(), re.MULTILINE))
    shipped = set(re.findall(r"^\S+==\S+", environment.RUNTIME_LOCK.read_text(), re.MULTILINE))
    assert shipped < tested
    assert not {"pytest", "hypothesis", "playwright", "ruff"} & set(
        pinned(environment.RUNTIME_LOCK)
    )


def test_a_set_up_for_gpus_adds_nvidias_libraries_and_no_other_version() -> None:
    known = set(re.findall(r"^\S+==\S+", environment.RUNTIME_LOCK.read_text(), re.MULTILINE))
    of_gpus = set(re.findall(r"^\S+==\S+", cuda.LOCK.read_text(), re.MULTILINE))
    added = {package_of(pin) for pin in of_gpus - known}
    assert all(name.startswith("nvidia-") for name in added)
    assert {"nvidia-nccl-cu12", "nvidia-cudnn-cu12", "nvidia-cuda-runtime-cu12"} <= added
    asks_for = (ROOT / "tools" / "setup" / "gpu.in").read_text()
    (version,) = re.findall(r"^tensorflow\[and-cuda\]==(\S+)$", asks_for, re.MULTILINE)
    assert f"tensorflow=={version}" in known


def test_the_jars_fit_the_delta_of_the_lock() -> None:
    locked = (ROOT / "requirements.lock").read_text()
    version = re.search(r"^delta-spark==(\S+)", locked, re.MULTILINE)
    assert version
    coordinates = [one for one, _ in jars.DELTA.pins().values()]
    delta = [one for one in coordinates if one.startswith("io.delta:")]
    assert {one.split(":")[2] for one in delta} == {version.group(1)}


def test_the_jars_of_s3_fit_the_hadoop_that_spark_brings() -> None:
    (client,) = (server.spark_home() / "jars").glob("hadoop-client-api-*.jar")
    version = client.stem.removeprefix("hadoop-client-api-")
    coordinates = [one for one, _ in jars.S3.pins().values()]
    assert f"org.apache.hadoop:hadoop-aws:{version}" in coordinates


@pytest.mark.parametrize("some", jars.ALL, ids=lambda some: some.lock.stem)
def test_the_jars_here_are_those_that_are_pinned(some: jars.Jars) -> None:
    assert some.wrong(some.folder) == []
    there = [path.name for path in some.folder.iterdir()]
    assert sorted(there) == sorted(some.pins())


def test_a_jar_with_another_content_is_not_taken(tmp_path: Path) -> None:
    for name in jars.DELTA.pins():
        (tmp_path / name).write_bytes(b"not this")
    assert jars.DELTA.wrong(tmp_path) == list(jars.DELTA.pins())


def test_jars_are_fetched_whatever_this_machine_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(jars, "run", lambda _, env: asked.append(env))
    jars.DELTA._resolve(tmp_path)
    # Spark would ask for the address of the machine's own name, and end where that has none.
    assert [env["SPARK_LOCAL_IP"] for env in asked] == ["127.0.0.1"]


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def options_that_fetch_jars(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(jars, "run", lambda _, env: asked.append(env))
    jars.DELTA._resolve(scratch)
    (env,) = asked
    return env["SPARK_SUBMIT_OPTS"].split()


@pytest.mark.usefixtures("no_proxy")
def test_jars_are_fetched_by_the_proxy_that_leads_pip_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "maven.example, .corp.example,*.other.example")
    monkeypatch.setenv("SPARK_SUBMIT_OPTS", "-Dhttps.proxyPort=8080 -Dx=y")
    direct = (
        "localhost|127.*|[::1]|maven.example|*.maven.example|corp.example|*.corp.example"
        "|other.example|*.other.example"
    )
    assert options_that_fetch_jars(tmp_path, monkeypatch) == [
        f"-Duser.home={tmp_path}",
        "-Dhttps.proxyHost=proxy.example",
        "-Dhttps.proxyPort=3128",
        f"-Dhttp.nonProxyHosts={direct}",
        # Of two that say the same, Java takes the last.
        "-Dhttps.proxyPort=8080",
        "-Dx=y",
    ]


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    ("told", "options"),
    [
        ({}, []),
        ({"HTTPS_PROXY": "proxy"}, ["-Dhttps.proxyHost=proxy", "-Dhttps.proxyPort=80"]),
        (
            {"all_proxy": "http://night:secret@proxy:3128", "http_proxy": "http://another:80"},
            [
                *("-Dhttp.proxyHost=another", "-Dhttp.proxyPort=80"),
                *("-Dhttps.proxyHost=proxy", "-Dhttps.proxyPort=3128"),
            ],
        ),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "*"}, []),
        ({"https_proxy": "https://proxy:3128"}, []),
        ({"all_proxy": "socks5://proxy:1080"}, []),
    ],
)
def test_java_is_told_of_the_proxy_that_it_can_speak_to(
    told: dict[str, str], options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    direct = ["-Dhttp.nonProxyHosts=localhost|127.*|[::1]"] if options else []
    assert java_options() == [*options, *direct]


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize(
    ("said", "direct"),
    [
        ("maven.example:8081", "maven.example|*.maven.example"),
        ("10.0.0.0/8", "10.*"),
        ("192.168.7.0/24,10.1.2.3/32", "192.168.7.*|10.1.2.3"),
        ("172.16.0.0/14", "172.16.*|172.17.*|172.18.*|172.19.*"),
        ("0.0.0.0/0", "*"),
        ("fd00::1", "fd00::1|*.fd00::1"),
        ("fd00::/8,10.0.0.0/99", ""),
    ],
)
def test_java_goes_straight_to_hosts_with_a_port_and_to_networks(
    said: str, direct: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", said)
    hosts = "|".join(filter(None, ["localhost|127.*|[::1]", direct]))
    assert java_options()[-1] == f"-Dhttp.nonProxyHosts={hosts}"


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("port", ["http", "99999"])
def test_a_proxy_whose_port_is_no_number_is_told_without_its_password(
    port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://night:secret@proxy:{port}")
    with pytest.raises(SetupError, match=r"^https_proxy.*the port of proxy is no") as refused:
        java_options()
    assert "secret" not in str(refused.value)


@pytest.mark.usefixtures("no_proxy")
def test_spark_asks_that_proxy_for_jars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LOG", tmp_path / "setup.log")
    with dead_end() as proxy:
        monkeypatch.setenv("https_proxy", proxy.address)
        monkeypatch.setenv("DEFAULT_ARTIFACT_REPOSITORY", "https://maven.invalid/maven2/")
        with pytest.raises(SetupError, match="unresolved dependency"):
            jars.DELTA._resolve(tmp_path)
    assert "CONNECT maven.invalid:443 HTTP/1.1" in proxy.asked


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("17.0.13", 17),
        ("21", 21),
        ("1.8.0_392", 8),
    ],
)
def test_a_java_tells_its_version(said: str, version: int, tmp_path: Path) -> None:
    assert machine.java_version(str(java_that_says(tmp_path, said))) == version


def test_without_java_it_says_what_to_install(bare_machine: Path) -> None:
    with pytest.raises(SetupError, match="No Java was found.*openjdk-17-jre-headless"):
        machine.provide([machine.JAVA])


def test_an_old_java_is_named_with_its_version(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java_that_says(bare_machine, "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(bare_machine))
    expected = f"JAVA_HOME={bare_machine} holds Java 11; Spark needs 17 or newer"
    with pytest.raises(SetupError, match=expected):
        machine.provide([machine.JAVA])


def test_without_a_compiler_it_says_what_to_install(bare_machine: Path) -> None:
    with pytest.raises(SetupError, match=r"No C\+\+ compiler.*build-essential"):
        machine.provide([machine.COMPILER])


def test_without_cudas_compiler_it_says_what_to_install(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SetupError, match=r"No CUDA compiler \(nvcc\).*nvidia-cuda-toolkit"):
        cuda.require_compiler()
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    with pytest.raises(SetupError, match="was found in CUDA_HOME=/nowhere"):
        cuda.require_compiler()


def nvcc_that_takes(folder: Path, compiler: str) -> None:
    """An nvcc that refuses each other compiler."""
    program(
        folder / "cuda" / "bin" / "nvcc",
        f'[ "$1" = --version ] && {{ echo "Cuda"; echo "Build cuda_12.5"; exit; }}\n'
        f'[ "$2" = {folder}/{compiler} ] || {{ echo "h:1: #error unsupported" >&2; exit 1; }}',
    )


def program(file: Path, lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{lines}\n")
    file.chmod(0o755)


def test_of_several_compilers_the_first_that_cudas_takes_builds_horovod(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc_that_takes(bare_machine, "g++-11")
    program(bare_machine / "g++", "")
    with pytest.raises(SetupError, match=r"by none of \S+/g\+\+: h:1: #error unsupported"):
        cuda.require_compiler()
    program(bare_machine / "g++-11", "")
    assert cuda.host_compiler(cuda.home()) == str(bare_machine / "g++-11")
    monkeypatch.setenv("CXX", "g++")
    with pytest.raises(SetupError, match="CXX names the compiler"):
        cuda.require_compiler()


def test_horovod_for_gpus_is_built_with_the_nccl_that_tensorflow_takes(
    bare_machine: Path, tmp_path: Path
) -> None:
    nvcc_that_takes(bare_machine, "g++")
    program(bare_machine / "g++", "")
    packages, scratch = tmp_path / "site-packages", tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(SetupError, match=r"NCCL's headers are not in \.venv.*nvidia-nccl-cu12"):
        cuda.variables(packages, scratch)
    header = packages / "nvidia" / "nccl" / "include" / "nccl.h"
    header.parent.mkdir(parents=True)
    header.touch()
    for _ in range(2):
        made = cuda.variables(packages, scratch)
    assert made == {
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_CUDA_HOME": str(bare_machine / "cuda"),
        "HOROVOD_NCCL_INCLUDE": str(header.parent),
        "HOROVOD_NCCL_LIB": str(scratch),
        "HOROVOD_NCCL_LINK": "SHARED",
        "CXX": str(bare_machine / "g++"),
    }
    library = packages / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
    assert (scratch / "libnccl.so").readlink() == library


def test_what_tasks_in_pods_need_is_added_to_an_image_in_the_version_that_is_tested() -> None:
    added = environment.KUBERNETES_LOCK.read_text()
    of_kubernetes = set(re.findall(r"^\S+==\S+", added, re.MULTILINE))
    tested = set(re.findall(r"^\S+==\S+", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert of_kubernetes <= tested
    assert "apache-airflow-providers-cncf-kubernetes" in map(package_of, of_kubernetes)
    assert fingerprint(ROOT) != fingerprint(ROOT, kubernetes=True)


def test_a_build_for_gpus_is_never_taken_for_one_of_gloo_alone(bare_machine: Path) -> None:
    nvcc_that_takes(bare_machine, "g++")
    of_gloo = horovod.options("tensorflow==2.21.0")[-1]
    assert re.fullmatch(r"nightshift-build=tensorflow==2\.21\.0,[0-9a-f]{12},gloo", of_gloo)
    of_gpus = horovod.options("tensorflow==2.21.0", gpu=True)[-1]
    assert of_gpus == f"{of_gloo},nccl,cuda_12.5"
    assert fingerprint(ROOT) != fingerprint(ROOT, gpu=True)


WAITS = """
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cstdio>

// As a thread sleeps so often, of a number of looks at an event that nobody takes away.
int main() {
  int ends[2];
  if (pipe(ends) || write(ends[1], "x", 1) != 1) return 1;
  const int epoll = epoll_create1(0);
  epoll_event event = {};
  event.events = EPOLLIN;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event)) return 1;
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  int found = 0;
  for (int look = 0; look < 101; ++look) found += epoll_wait(epoll, &event, 1, -1);
  getrusage(RUSAGE_SELF, &after);
  char taken;
  if (read(ends[0], &taken, 1) != 1) return 1;
  const int nothing = epoll_wait(epoll, &event, 1, 10);
  std::printf("%d %ld %d", found, after.ru_nvcsw - before.ru_nvcsw, nothing);
}
"""


def test_the_loop_of_horovod_rests_where_it_finds_the_same_event_again(tmp_path: Path) -> None:
    source, program = tmp_path / "waits.cpp", tmp_path / "waits"
    source.write_text(WAITS)
    folders = horovod.headers(environment.VENV / "bin" / "python", tmp_path / "headers")
    own = {**os.environ, **horovod.variables(folders)}
    subprocess.run(["g++", "-o", program, source], env=own, check=True)
    said = subprocess.check_output([program], text=True)
    found, rests, nothing = map(int, said.split())
    # The first look may be answered at once.
    assert (found, nothing) == (101, 0)
    # A busy machine may leave one out now and then: the process rests by being put aside.
    assert rests > found / 2


@pytest.mark.parametrize(
    ("folder", "adds"),
    [
        ("/home/ann/My Projects/nightshift", "My Projects/nightshift has: clone into another"),
        ("/home/ann/projects/nightshift", ""),
    ],
)
def test_a_build_of_horovod_that_fails_names_a_blank_in_its_path(
    folder: str, adds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SetupError("g++: error: Projects/nightshift/.venv: No such file")

    monkeypatch.setattr(environment, "ROOT", Path(folder))
    monkeypatch.setattr(environment, "_pip", fail)
    monkeypatch.setattr(horovod, "headers", lambda *_: [])
    with pytest.raises(SetupError) as told:
        environment._install_horovod("uv", environment.LOCK, gpu=False)
    said, _, added = str(told.value).partition("\n")
    assert said == "g++: error: Projects/nightshift/.venv: No such file"
    assert bool(added) == bool(adds) and adds in added


def test_horovod_was_built_with_that_loop() -> None:
    (library,) = environment.VENV.glob("lib/python3*/site-packages/horovod/tensorflow/mpi_lib*.so")
    assert b"resting_epoll_wait" in library.read_bytes()


NAMED = """
#include <netdb.h>
#include <cstdio>

int main() {
  char name[256] = "";
  const int code = gethostname(name, sizeof name);
  std::printf("%d %s", code, code ? "" : name);
}
"""


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that says what Horovod takes for this machine's name."""
    folder = tmp_path_factory.mktemp("named")
    source, program = folder / "named.cpp", folder / "named"
    source.write_text(NAMED)
    folders = horovod.headers(environment.VENV / "bin" / "python", folder / "headers")
    own = {**os.environ, **horovod.variables(folders)}
    subprocess.run(["g++", "-o", program, source], env=own, check=True)
    return program


def _named(program: Path, **variables: str) -> str:
    return subprocess.check_output([program], env=variables, text=True)


def test_a_rank_is_where_it_was_told_to_be_whatever_its_machine_is_called(named: Path) -> None:
    assert _named(named, HOROVOD_HOSTNAME="127.0.0.1") == "0 127.0.0.1"
    assert _named(named, HOROVOD_HOSTNAME="localhost") == "0 localhost"
    own = _named(named)
    assert own in (f"0 {gethostname()}", "-1 ")
    # Of horovod.spark, which tells a digest.
    assert _named(named, HOROVOD_HOSTNAME="not a name of any machine") == own
    assert _named(named, HOROVOD_HOSTNAME="x" * 300) == own


def test_horovod_needs_no_address_of_this_machines_name() -> None:
    """In a namespace of its own, of another name."""
    proof = [environment.VENV / "bin" / "python", "-c", horovod.PROOF]
    script = 'hostname no-machine.invalid && exec "$@"'
    apart = ["unshare", "--user", "--map-root-user", "--uts"]
    has_programs = shutil.which("unshare") and shutil.which("hostname")
    if not has_programs or subprocess.run([*apart, "true"]).returncode:
        pytest.skip("this machine gives nobody a namespace")
    words = [*apart, "sh", "-c", script, "sh", *proof]
    subprocess.run(words, env={**os.environ, **horovod.OF_PROOF}, check=True)


def test_without_a_python_of_ours_it_says_which_would_do(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    with pytest.raises(SetupError, match=r"No Python 3\.11 or 3\.12 or 3\.13 is on PATH"):
        machine.python()


def test_everything_that_is_missing_is_said_at_once(bare_machine: Path) -> None:
    with pytest.raises(SetupError, match=r"(?s)No Java.*No C\+\+ compiler"):
        machine.provide([machine.JAVA, machine.COMPILER])


def test_only_ci_insists_on_what_some_tests_run_beside_them(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "POSTGRES", bare_machine)
    monkeypatch.delenv("CI", raising=False)
    machine.provide_services()
    said = capsys.readouterr().out
    assert "will be skipped" in said
    assert "No 'chromium'" in said and "No PostgreSQL server" in said and "No 'ip'" in said
    monkeypatch.setenv("CI", "true")
    with pytest.raises(SetupError, match=r"(?s)No 'chromium'.*No PostgreSQL server.*No 'ip'"):
        machine.provide_services()


def test_of_several_versions_of_postgresql_the_newest_is_taken(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "POSTGRES", tmp_path / "lib")
    assert machine.postgres_programs() is None
    for version in ("9.6", "15", "14"):
        folder = tmp_path / "lib" / version / "bin"
        folder.mkdir(parents=True)
        (folder / "initdb").touch()
        # A client alone is no server.
        if version != "15":
            (folder / "postgres").touch()
    assert machine.postgres_programs() == tmp_path / "lib" / "14" / "bin"


def test_without_uv_and_pip_it_says_what_to_install(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installer, "can_install", lambda: False)
    monkeypatch.setattr(installer, "OLDEST", (999,))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SetupError, match="There is no uv, and no pip"):
        installer.uv()


def test_an_interrupted_environment_is_not_sound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert environment.is_sound()
    marker = tmp_path / ".unfinished"
    marker.touch()
    monkeypatch.setattr(environment, "_UNFINISHED", marker)
    assert not environment.is_sound()


def test_an_environment_that_was_moved_is_not_sound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text("VIRTUAL_ENV='/where/it/was/.venv'\n")
    monkeypatch.setattr(environment, "VENV", tmp_path)
    assert not environment.is_sound()


@pytest.mark.parametrize(
    ("name", "text", "asks"),
    [
        ("requirements.lock", "other", True),
        ("tools/setup/delta_jars.lock", "other", True),
        ("pyproject.toml", "[project]\nname = 'other'\n[tool.ruff]\nline-length = 140\n", True),
        ("pyproject.toml", "[project]\nname = 'one'\n[tool.ruff]\nline-length = 80\n", False),
    ],
)
def test_what_set_up_reads_asks_for_a_new_one_when_it_changes(
    name: str, text: str, asks: bool, tmp_path: Path
) -> None:
    (tmp_path / "tools" / "setup").mkdir(parents=True)
    (tmp_path / "requirements.lock").write_text("one")
    (tmp_path / "tools" / "setup" / "delta_jars.lock").write_text("one")
    (tmp_path / "pyproject.toml").write_text(
        "[project]\nname = 'one'\n[tool.ruff]\nline-length = 140\n"
    )
    before = fingerprint(tmp_path)
    (tmp_path / name).write_text(text)
    assert (fingerprint(tmp_path) != before) == asks


def test_a_second_set_up_says_nothing_and_takes_no_time() -> None:
    command = [sys.executable, "-m", "tools.setup"]
    before = _seconds_of_children()
    # One that waits for a network would take no processor.
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    # 0.2 on a quiet machine. Of the processor: others may use the machine.
    assert _seconds_of_children() - before < 3


def _seconds_of_children() -> float:
    """What those that have ended took of the processor."""
    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken.ru_utime + taken.ru_stime


def test_two_set_ups_take_turns() -> None:
    with (ROOT / ".tools" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "tools.setup"]
        second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert second.stdout
        waits = "setup: waiting for another set-up of this folder to end ...\n"
        assert second.stdout.readline() == waits
        assert second.poll() is None
    assert second.wait(timeout=30) == 0


def test_every_target_is_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets
    # `make test` hands its own flags down to what it runs.
    helped = subprocess.run(
        ["make", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MAKEFLAGS": ""},
    )
    listed = re.findall(r"^  make (\S+) +\S", helped.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(targets.group(1).split())
