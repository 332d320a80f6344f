"""Ranks on other hosts: network namespaces, each with an address of its own and no way but that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from socket import create_connection, gethostbyname, gethostname, socket
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from jobs.training import shards
from jobs.training.families import TIMELINE
from jobs.training.families.neural_network import (
    MODEL,
    NeuralNetworkFamily,
    _seen_by_ranks,
    alike,
    job,
    launchers,
    on_host,
)
from jobs.training.families.neural_network.launch import launch
from jobs.training.families.neural_network.launchers import OnHosts
from jobs.training.families.neural_network.network import load
from jobs.training.families.neural_network.rendezvous import rendezvous
from jobs.training.families.neural_network.told import told_by_variables
from jobs.version import source_hash
from pipelines.environment import ROOT, Environment
from pipelines.errors import NightshiftError, Refused, UsageError
from tests.conftest import SOAK
from tests.hosts import NAMES, Network, ip, kill_all_in, make_host, two_hosts
from tests.jobs.training.families.neural_network.losing import train_and_lose
from tests.jobs.training.small import NETWORK, data_of, environment_at, job_of

DROPPING = replace(NETWORK, dropout=0.3)
ENDLESS = replace(NETWORK, epochs=100_000)
COMMAND = f"ip netns exec {{host}} {sys.executable}"
ANY_HOST = {
    "NIGHTSHIFT_RANK_HOSTS": "one:1",
    "NIGHTSHIFT_RENDEZVOUS_ADDRESS": "127.0.0.1",
}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with two_hosts() as made:
        yield made


@pytest.fixture
def apart(network: Network, tmp_path: Path) -> Environment:
    """An environment that trains on both hosts."""
    return _environment(tmp_path, network.address, *network.hosts)


def _environment(home: Path, address: str, *hosts: str) -> Environment:
    variables = {
        "NIGHTSHIFT_HOME": str(home),
        "NIGHTSHIFT_RANK_HOSTS": ",".join(f"{host}:1" for host in hosts),
        "NIGHTSHIFT_HOST_COMMAND": COMMAND,
        "NIGHTSHIFT_RENDEZVOUS_ADDRESS": address,
    }
    return Environment.read(variables)


@pytest.fixture(autouse=True)
def _hosts_have_this_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_two_hosts_train_the_model_of_two_ranks_on_one(
    ranked: Environment, apart: Environment, tmp_path: Path
) -> None:
    folders = [tmp_path / "here", tmp_path / "apart"]
    weights = []
    for environment, folder in zip((ranked, apart), folders, strict=True):
        folder.mkdir()
        settings = replace(DROPPING, ranks=2)
        fit = NeuralNetworkFamily().fit(
            data_of(), settings, replace(environment, timeline="on"), folder
        )
        weights.append((load(folder / MODEL).get_weights(), fit.curves, fit.calibration_slope))
    (here, curves_here, slope_here), (there, curves_there, slope_there) = weights
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert curves_here == curves_there
    assert slope_here == slope_there
    assert "ALLREDUCE" in (folders[1] / TIMELINE).read_text()
    # Nothing of the job is left where the hosts saw it.
    assert not list(apart.jobs.iterdir())


def test_a_host_that_is_lost_is_left_out_and_the_training_goes_on(
    network: Network,
    apart: Environment,
    ranked: Environment,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    left, lost = network.hosts

    def lose() -> None:
        kill_all_in(lost)
        ip(f"netns del {lost}")

    try:
        work = train_and_lose(apart, tmp_path, capfd, left, lose)
    finally:
        make_host(lost, network.addresses[lost], network.bridge)
    outcome = job.read_outcome(tmp_path)
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    job.write(undisturbed, replace(work, checkpoint=undisturbed / "checkpoint"))
    launch(ranked, undisturbed, 1, timeout_seconds=240)
    expected = job.read_outcome(undisturbed).history["loss"]
    np.testing.assert_allclose(outcome.history["loss"], expected, rtol=1e-3)


def test_ranks_end_when_nobody_holds_their_connection_any_more(
    apart: Environment, tmp_path: Path
) -> None:
    job.write(tmp_path, job_of(ENDLESS))
    with pytest.raises(NightshiftError, match=r"ended after 15 s: ranks \[0, 1\] still ran"):
        launch(apart, tmp_path, 2, timeout_seconds=15)
    assert not _ranks()


def test_a_rank_that_hangs_ends_too_when_nobody_holds_its_connection(tmp_path: Path) -> None:
    address = gethostbyname(gethostname())
    job.write(tmp_path, replace(job_of(ENDLESS), checkpoint=tmp_path / "checkpoint"))
    with rendezvous({"here": 1}, 1, address) as (place,):
        request = {"folder": str(tmp_path), "variables": place.variables}
        command = [sys.executable, "-m", "jobs.training.families.neural_network.on_host"]
        # As behind ssh: nothing but its input reaches it.
        with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as reached:
            assert reached.stdin is not None
            reached.stdin.write(json.dumps(request).encode() + b"\n")
            reached.stdin.flush()
            file = job.process_file(tmp_path, 0)
            deadline = time.monotonic() + 60
            while not file.exists() or not file.read_text():
                assert time.monotonic() < deadline and reached.poll() is None
                time.sleep(0.05)
            rank = psutil.Process(int(file.read_text()))
            rank.suspend()
            reached.stdin.close()
            try:
                assert reached.wait(timeout=20) == 75
                assert not rank.is_running()
            finally:
                with suppress(psutil.NoSuchProcess):
                    rank.kill()


def _ranks() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(word.endswith("neural_network.on_host") for word in command):
            found.append(process)
    return found


def test_a_host_that_cannot_be_reached_is_named_with_what_was_said(
    network: Network, tmp_path: Path
) -> None:
    nowhere = _environment(tmp_path, network.address, "nowhere")
    job.write(tmp_path, job_of())
    with pytest.raises(NightshiftError, match=r"None of the hosts .* reached\. nowhere: Cannot"):
        launch(nowhere, tmp_path, 1, timeout_seconds=60, restarts=1)
    with pytest.raises(NightshiftError, match=r"Rank 0 .* gone .*It said last: Cannot open netw"):
        launch(nowhere, tmp_path, 1, timeout_seconds=60)


@pytest.fixture
def mixed(tmp_path: Path) -> Environment:
    """An environment with two hosts: `alike` has our code, `unlike` another."""
    copy = tmp_path / "code"
    for package in ("pipelines", "jobs", "expectations", "features"):
        shutil.copytree(ROOT / package, copy / package)
    feed = copy / "jobs/training/families/neural_network/feed.py"
    feed.write_text(f"{feed.read_text()}# Another line.\n")
    reach = tmp_path / "reach"
    reach.write_text(
        f"#!/bin/sh\nPYTHONPATH={ROOT}\n[ $1 = unlike ] && PYTHONPATH={copy}\n"
        f'export PYTHONPATH\nshift\ncd {tmp_path}\nexec {sys.executable} "$@"\n'
    )
    reach.chmod(0o700)
    variables = {
        "NIGHTSHIFT_HOME": str(tmp_path),
        "NIGHTSHIFT_RANK_HOSTS": "alike:1,unlike:1",
        "NIGHTSHIFT_HOST_COMMAND": f"{reach} {{host}}",
        "NIGHTSHIFT_RENDEZVOUS_ADDRESS": gethostbyname(gethostname()),
    }
    return Environment.read(variables)


def test_a_host_with_other_code_is_refused_and_the_codes_are_named(
    mixed: Environment, tmp_path: Path
) -> None:
    job.write(tmp_path, replace(job_of(), checkpoint=tmp_path / "checkpoint"))
    told = rf"The host {gethostname()} has code source-\w+, where the stage has {source_hash()}: "
    with pytest.raises(Refused, match=told):
        launch(mixed, tmp_path, 2, timeout_seconds=100)


def test_a_host_with_other_code_does_not_take_the_place_of_a_lost_one(
    mixed: Environment, tmp_path: Path
) -> None:
    assert OnHosts(mixed).left(2) == {"alike": 1}
    alone = replace(mixed, rank_hosts="unlike:1")
    with pytest.raises(NightshiftError, match=rf"has our code, {source_hash()}, .* unlike: source"):
        OnHosts(alone).left(1)


def test_other_libraries_are_refused() -> None:
    here = alike.of_here()
    alike.require_alike(here)
    with pytest.raises(Refused, match=r"has keras .*, where the stage has 1\.2: .* from one image"):
        alike.require_alike({**here, "keras": "1.2"})


@pytest.mark.parametrize(
    "leads",
    [
        pytest.param("127.0.1.1 {}\n", id="to itself"),
        pytest.param("", id="nowhere", marks=SOAK),
    ],
)
def test_ranks_find_each_other_wherever_the_names_of_their_hosts_lead(
    network: Network, apart: Environment, tmp_path: Path, leads: str
) -> None:
    names = [NAMES / host / "hosts" for host in network.hosts]
    good = [file.read_text() for file in names]
    job.write(tmp_path, job_of())
    try:
        for file in names:
            file.write_text(leads.format(gethostname()))
        launch(apart, tmp_path, 2, timeout_seconds=120)
    finally:
        for file, text in zip(names, good, strict=True):
            file.write_text(text)


def test_a_meeting_point_that_a_host_does_not_reach_is_told_with_its_setting() -> None:
    with socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        told = rf"reach 127\.0\.0\.1:{port}, .*: Connection refused.*NIGHTSHIFT_RENDEZVOUS_ADDRESS"
        with pytest.raises(NightshiftError, match=told):
            on_host.require_meeting_point("127.0.0.1", port)


def test_a_meeting_point_that_a_network_finds_only_after_a_while_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(on_host, "_TRY_SECONDS", 0.2)
    with socket() as full, socket() as first:
        full.bind(("127.0.0.1", 0))
        # One connection waits to be taken, and of the next ones the system drops what they send.
        full.listen(0)
        address, port = full.getsockname()
        first.connect((address, port))
        with pytest.raises(TimeoutError):
            create_connection((address, port), 0.2)
        monkeypatch.setattr(on_host, "_REACHED_SECONDS", 0.5)
        with pytest.raises(NightshiftError, match=rf"reach 127\.0\.0\.1:{port}, .*: timed out"):
            on_host.require_meeting_point(address, port)
        monkeypatch.setattr(on_host, "_REACHED_SECONDS", 30)
        found = threading.Timer(1, full.accept)
        found.start()
        on_host.require_meeting_point(address, port)
        found.join()


def test_a_host_that_does_not_see_the_job_or_its_rows_is_told_what_it_lacks(
    network: Network, tmp_path: Path
) -> None:
    environment = _environment(tmp_path, network.address, network.hosts[0])
    told = r"said last: This host does not see {}: it is not there. .*NIGHTSHIFT_JOBS"
    unseen = tmp_path / "unseen"
    with pytest.raises(NightshiftError, match=told.format(unseen / "settings.json")):
        launch(environment, unseen, 1, timeout_seconds=60)
    job.write(tmp_path, job_of())
    (tmp_path / "fit" / shards.INDEX).unlink()
    with pytest.raises(NightshiftError, match=told.format(tmp_path / "fit" / shards.INDEX)):
        launch(environment, tmp_path, 1, timeout_seconds=60)


def test_an_address_that_this_machine_does_not_have_is_told(tmp_path: Path) -> None:
    environment = Environment.read(
        {**ANY_HOST, "NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_RENDEZVOUS_ADDRESS": "10.1.2.3"}
    )
    with pytest.raises(NightshiftError, match=r"cannot find each other at 10\.1\.2\.3: Cannot as"):
        launch(environment, tmp_path, 1, timeout_seconds=60)


def test_hosts_without_an_address_of_ours_are_refused(tmp_path: Path) -> None:
    environment = Environment.read(
        {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_RANK_HOSTS": "one,two"}
    )
    with pytest.raises(UsageError, match=r"needs NIGHTSHIFT_RENDEZVOUS_ADDRESS"):
        OnHosts(environment)


def test_more_ranks_than_the_hosts_have_places_for_are_refused(tmp_path: Path) -> None:
    environment = Environment.read({**ANY_HOST, "NIGHTSHIFT_HOME": str(tmp_path)})
    with pytest.raises(UsageError, match=r"3 ranks were asked for, and .* has places for 1"):
        launch(environment, tmp_path, 3, timeout_seconds=60)


def test_hosts_decide_over_the_number_of_ranks_unless_it_is_named(tmp_path: Path) -> None:
    hosts = {**ANY_HOST, "NIGHTSHIFT_RANK_HOSTS": "one:2,two:3", "NIGHTSHIFT_HOME": str(tmp_path)}
    family = NeuralNetworkFamily()
    assert family.settings(NETWORK, Environment.read(hosts)).ranks == 5
    named = Environment.read({**hosts, "NIGHTSHIFT_RANKS": "4"})
    assert family.settings(NETWORK, named).ranks == 4


def test_rows_of_a_training_on_a_disk_of_all_hosts_are_for_its_user_alone(tmp_path: Path) -> None:
    variables = {"NIGHTSHIFT_HOME": str(tmp_path), "NIGHTSHIFT_JOBS": str(tmp_path / "shared")}
    environment = Environment.read({**ANY_HOST, **variables})
    with _seen_by_ranks(environment, tmp_path) as seen:
        assert seen.is_relative_to(tmp_path / "shared")
        assert seen.stat().st_mode & 0o777 == 0o700


def test_a_python_whose_path_has_a_blank_is_one_word_for_the_shell_of_a_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "my nights" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "it began: $*"\n')
    python.chmod(0o700)
    # As ssh does: the words become one line, which a shell takes apart.
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nwhile [ "$1" != one ]; do shift; done\nshift\nexec sh -c "$*"\n')
    ssh.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(launchers, "sys", SimpleNamespace(executable=str(python)))
    environment = Environment.read({**ANY_HOST, "NIGHTSHIFT_HOME": str(tmp_path)})
    assert OnHosts(environment).code_hashes() == {"one": (True, "it began: -m jobs.version")}


def test_a_person_may_set_how_long_ranks_wait_and_no_gpu_of_here_is_told_to_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOROVOD_GLOO_TIMEOUT_SECONDS", "300")
    monkeypatch.setenv("HOROVOD_RANK", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    environment = Environment.read({**ANY_HOST, "NIGHTSHIFT_HOME": str(tmp_path)})
    here = environment_at(tmp_path)
    with rendezvous({"one": 1}, 1, "127.0.0.1") as (place,):
        told = told_by_variables(environment, tmp_path, place)
        told_here = told_by_variables(here, tmp_path, place)
    assert told["HOROVOD_GLOO_TIMEOUT_SECONDS"] == "300"
    assert told["HOROVOD_CONTROLLER"] == told["HOROVOD_CPU_OPERATIONS"] == "gloo"
    # Where a rank stands the launcher tells alone.
    assert told["HOROVOD_RANK"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in told
    assert told_here["CUDA_VISIBLE_DEVICES"] == "3"


def test_what_a_rank_needs_is_on_no_command_line_and_no_secret_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOROVOD_CYCLE_TIME", "7.5")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    told = tmp_path / "told"
    # What stands for a host writes down what it is sent, and by which command.
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\nread line\necho "$0 $@ $line" > {told}\n')
    spy.chmod(0o700)
    environment = Environment.read(
        {
            **ANY_HOST,
            "NIGHTSHIFT_HOME": str(tmp_path),
            "NIGHTSHIFT_HOST_COMMAND": f"{spy} {{host}} python",
        }
    )
    launch(environment, tmp_path, 1, timeout_seconds=60)
    deadline = time.monotonic() + 10
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    command, _, sent = told.read_text().partition("{")
    assert command.split() == [
        *(str(spy), "one", "python", "-m"),
        "jobs.training.families.neural_network.on_host",
    ]
    assert '"HOROVOD_CYCLE_TIME": "7.5"' in sent
    assert '"AWS_ENDPOINT_URL": "http://store.example:9000"' in sent
    assert "s3cret" not in sent
