"""What images are made of, as far as it can be known without making one.

`make image`, `make compose-test` and `make chart-test` do the rest.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml

from jobs.services.definitions import services
from pipelines.environment import ROOT, Environment

_DOCKER = ROOT / "docker"
_COMPOSE = yaml.safe_load((_DOCKER / "compose.yaml").read_text())
_PARTS = {name: _COMPOSE["services"][name] for name in ("pages", "control", "platform")}


def test_all_our_packages_are_in_the_image_and_no_state() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    taken = {line[1:] for line in ignored if line.startswith("!")}
    assert {package.rstrip("*") for package in packages} <= taken
    assert "*" in ignored
    assert "var" not in taken
    assert all((ROOT / name).exists() for name in taken)


def test_each_variable_that_is_set_is_one_of_ours() -> None:
    known = {setting.variable for setting in Environment.settings().values()}
    of_image = set(re.findall(r"NIGHTSHIFT_\w+(?==)", (_DOCKER / "Dockerfile").read_text()))
    assert of_image == {"NIGHTSHIFT_HOME", "NIGHTSHIFT_AIRFLOW_HOST"}
    # How Amazon's own programs call them, and Airflow.
    of_store = set(_COMPOSE["x-store"])
    for part in _PARTS.values():
        told = set(part["environment"])
        assert of_store <= told
        own = {name for name in told - of_store if not name.startswith("AIRFLOW__")}
        assert of_image | own <= known


def test_each_service_of_the_platform_is_in_one_part() -> None:
    started = [part["environment"]["NIGHTSHIFT_SERVICES"].split(",") for part in _PARTS.values()]
    environment = Environment.read({})
    assert sorted(chain.from_iterable(started)) == sorted(one.name for one in services(environment))


def test_no_service_has_a_right_or_a_root_that_it_can_write() -> None:
    for name, service in _COMPOSE["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_nothing_is_reached_from_another_machine() -> None:
    services = _COMPOSE["services"].values()
    ports = [one.get("ports", ()) for one in services]
    published = list(chain.from_iterable(ports))
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_links_lead_to_the_port_at_which_people_reach_the_stack() -> None:
    (published,) = _PARTS["pages"]["ports"]
    host, port = published.removesuffix(":8080").split(":", 1)
    for part in _PARTS.values():
        assert part["environment"]["NIGHTSHIFT_AIRFLOW_URL"] == f"http://{host}:{port}"


@pytest.mark.parametrize(
    ("asked", "tag", "options"),
    [
        ({"GPU": ""}, "latest", ""),
        ({"GPU": "1"}, "gpu", "--build-arg GPU=1 "),
        ({"KUBERNETES": "1"}, "kubernetes", "--build-arg KUBERNETES=1 "),
        (
            {"GPU": "1", "KUBERNETES": "1"},
            "gpu-kubernetes",
            "--build-arg KUBERNETES=1 --build-arg GPU=1 ",
        ),
    ],
)
def test_an_image_with_more_is_built_from_the_same_file_under_a_tag_of_its_own(
    asked: dict[str, str], tag: str, options: str, tmp_path: Path
) -> None:
    _stub(tmp_path / "docker", '[ "$1" = info ] || echo "$@"')
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", **asked}
    command = [str(_DOCKER / "build"), "--build-arg", "BASE=mine"]
    built = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    done, told = built.stdout.splitlines()
    image = f"localhost/nightshift:{tag}"
    wanted = f"build --tag {image} --file docker/Dockerfile {options}--build-arg BASE=mine ."
    assert (done, told) == (wanted, f"Built {image}.")


def _command(file: str, pattern: str) -> str:
    """The command of a Dockerfile's RUN that matches."""
    lines = (_DOCKER / file).read_text().splitlines()
    (found,) = [line for line in lines if re.search(pattern, line)]
    return re.sub(r"^(RUN|    &&) | \\$", "", found)


def test_the_image_can_be_read_by_others_whatever_the_umask_of_the_checkout(tmp_path: Path) -> None:
    modes = {"jobs/night.py": 0o600, "docker/slim.sh": 0o710, ".venv/kept": 0o600}
    for name, mode in modes.items():
        file = tmp_path / name
        file.parent.mkdir(mode=0o700)
        file.touch()
        file.chmod(mode)
    command = _command("Dockerfile", "chmod go=")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    found = {name: _mode(tmp_path / name) for name in modes}
    # The other layer is not written anew: it has gigabytes, and is not of the checkout.
    assert found == {"jobs/night.py": 0o644, "docker/slim.sh": 0o755, ".venv/kept": 0o600}
    assert _mode(tmp_path / "jobs") == 0o755


def test_so_can_what_postgresql_starts_by(tmp_path: Path) -> None:
    started = tmp_path / "entrypoint"
    started.touch(mode=0o600)
    command = _command("postgres.Dockerfile", "^RUN chmod")
    here = command.replace("/usr/local/bin/entrypoint", str(started))
    subprocess.run(["sh", "-c", here], check=True)
    assert _mode(started) == 0o755
    for name in ("make-env", "databases.sh"):
        shutil.copy(_DOCKER / name, tmp_path)
    script = tmp_path / "databases.sh"
    script.chmod(0o600)
    subprocess.run([tmp_path / "make-env"], check=True, capture_output=True)
    assert _mode(script) & 0o555 == 0o555


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _completed(folder: Path, older: str) -> dict[str, str]:
    """The settings of an .env that `make-env` has completed: of two of one name the last counts."""
    shutil.copy(_DOCKER / "make-env", folder)
    file = folder / ".env"
    file.write_text(older)
    subprocess.run([folder / "make-env"], check=True, capture_output=True)
    return dict(line.split("=") for line in file.read_text().split())


def test_what_an_older_env_lacks_is_added_and_what_it_has_stays(tmp_path: Path) -> None:
    settings = _completed(tmp_path, "POSTGRES_PASSWORD=mine\nWORKER_CORES=4\n")
    assert (settings["POSTGRES_PASSWORD"], settings["WORKER_CORES"]) == ("mine", "4")
    assert len(settings["STORE_PASSWORD"]) == 48


def test_a_last_line_without_an_end_stays_and_an_empty_password_is_made(tmp_path: Path) -> None:
    settings = _completed(tmp_path, "POSTGRES_PASSWORD=\nWORKER_CORES=4")
    assert settings["WORKER_CORES"] == "4"
    assert len(settings["POSTGRES_PASSWORD"]) == 48


def test_a_first_start_of_postgresql_that_was_cut_off_is_done_anew(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    _stub(programs / "initdb", 'mkdir "$PGDATA"; echo 17 > "$PGDATA/PG_VERSION"; echo initdb >&2')
    _stub(programs / "pg_ctl", '[ "$1" = stop ] || [ ! -e "$CUT_OFF" ]')
    _stub(programs / "postgres", 'cat "$PGDATA/pg_hba.conf"')
    cut_off = tmp_path / "cut-off"
    cut_off.touch()
    variables = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PGDATA": str(tmp_path / "cluster"),
        "POSTGRES_USER": "postgres",
        "POSTGRES_PASSWORD": "mine",
        "CUT_OFF": str(cut_off),
    }
    command = ["sh", str(_DOCKER / "postgres-entrypoint.sh")]
    assert subprocess.run(command, env=variables, capture_output=True).returncode
    cut_off.unlink()
    rules = "host all all all scram-sha-256\n"
    for made in ("initdb\n", ""):
        started = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        assert (started.stdout, started.stderr) == (rules, made)


def _stub(program: Path, line: str) -> None:
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o700)


def test_workers_see_the_store_and_no_disk_of_the_platform() -> None:
    for name in ("spark-worker-1", "spark-worker-2"):
        worker = _COMPOSE["services"][name]
        assert "volumes" not in worker
        assert worker["environment"].keys() >= _COMPOSE["x-store"].keys()


def test_a_spark_master_that_is_begun_anew_knows_who_computes() -> None:
    master = _COMPOSE["services"]["spark-master"]
    options = dict(re.findall(r"-D(\S+)=(\S+)", master["environment"]["SPARK_MASTER_OPTS"]))
    assert options["spark.deploy.recoveryMode"] == "FILESYSTEM"
    (volume,) = master["volumes"]
    name, _, place = volume.partition(":")
    assert name in _COMPOSE["volumes"]
    assert options["spark.deploy.recoveryDirectory"].startswith(f"{place}/")


def test_passwords_are_made_once_and_for_their_owner_alone(tmp_path: Path) -> None:
    shutil.copy(_DOCKER / "make-env", tmp_path)
    file = tmp_path / ".env"
    made = []
    for _ in range(2):
        subprocess.run([tmp_path / "make-env"], check=True, capture_output=True)
        made.append(file.read_text())
    assert made[0] == made[1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    passwords = dict(line.split("=") for line in made[0].split())
    wanted = set(re.findall(r"\$\{(\w+):\?", (_DOCKER / "compose.yaml").read_text()))
    assert set(passwords) == wanted
    assert len(set(passwords.values())) == len(wanted)
    assert all(len(password) == 48 for password in passwords.values())
