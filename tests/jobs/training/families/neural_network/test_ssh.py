"""Ranks on other hosts by ssh, as it is by default: a real sshd in each network namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jobs.services.processes import answers
from jobs.training.families.neural_network import MODEL, NeuralNetworkFamily
from jobs.training.families.neural_network.launchers import OnHosts
from jobs.training.families.neural_network.network import load
from jobs.version import source_hash
from pipelines.environment import Environment
from tests.hosts import Network, ip, on_host, two_hosts
from tests.jobs.training.families.neural_network.losing import train_and_lose
from tests.jobs.training.small import NETWORK, data_of

SSHD = Path("/usr/sbin/sshd")
"""Not on everybody's PATH; it starts only by its whole path."""
_START_SECONDS = 20


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if shutil.which("ssh") is None or not SSHD.exists():
        pytest.skip("ranks by ssh need ssh and sshd (Debian: openssh-client, openssh-server)")
    with two_hosts() as made:
        yield made


@pytest.fixture
def reached(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Environment]:
    """An environment that trains on both hosts, and names no command to reach them by."""
    keys = tmp_path / "ssh"
    keys.mkdir(mode=0o700)
    for name in ("host", "client"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(key, check=True)
    _ssh_that_knows(network.addresses, keys, monkeypatch)
    variables = {
        "NIGHTSHIFT_HOME": str(tmp_path),
        "NIGHTSHIFT_RANK_HOSTS": ",".join(f"{host}:1" for host in network.hosts),
        "NIGHTSHIFT_RENDEZVOUS_ADDRESS": network.address,
    }
    with ExitStack() as stack:
        for host, address in network.addresses.items():
            stack.enter_context(_sshd(host, address, keys))
        yield Environment.read(variables)


def _ssh_that_knows(addresses: dict[str, str], keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `ssh` read a configuration of these tests, in the place of the user's own."""
    lines = [f"Host {host}\n  HostName {address}" for host, address in addresses.items()]
    settings = {
        "User": "root",
        "IdentityFile": keys / "client",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": keys / "known_hosts",
        "StrictHostKeyChecking": "accept-new",
        "LogLevel": "ERROR",
    }
    lines.append("Host *")
    lines += [f"  {name} {value}" for name, value in settings.items()]
    (keys / "config").write_text("\n".join(lines) + "\n")
    program = keys / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {keys / "config"} "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@contextmanager
def _sshd(host: str, address: str, keys: Path) -> Iterator[None]:
    settings = {
        "ListenAddress": address,
        "HostKey": keys / "host",
        "AuthorizedKeysFile": keys / "client.pub",
        "PidFile": "none",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        # It would wait for hours for a client that a pulled cable has cut off.
        "ClientAliveInterval": 2,
        # Its folders belong to everybody: those of tests lie in /tmp.
        "StrictModes": "no",
    }
    file = keys / f"sshd-{host}"
    file.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    # Where it goes before anybody is known; Debian's start of the service makes it.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    command = on_host(host, str(SSHD), "-D", "-e", "-f", str(file))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            _await_answer(address, server)
            yield
        finally:
            server.terminate()


def _await_answer(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers(22, address):
        assert server.poll() is None and time.monotonic() < deadline, "sshd does not answer"
        time.sleep(0.1)


def test_hosts_that_ssh_reaches_train_the_model_of_two_ranks_on_one(
    ranked: Environment, reached: Environment, tmp_path: Path
) -> None:
    told = OnHosts(reached).code_hashes()
    assert told == dict.fromkeys(reached.hosts, (True, source_hash()))
    weights = []
    for name, environment in (("here", ranked), ("apart", reached)):
        folder = tmp_path / name
        folder.mkdir()
        NeuralNetworkFamily().fit(data_of(), replace(NETWORK, ranks=2), environment, folder)
        weights.append(load(folder / MODEL).get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.soak
def test_a_host_whose_cable_is_pulled_is_left_out_and_the_training_goes_on(
    network: Network, reached: Environment, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left, lost = network.hosts
    try:
        train_and_lose(reached, tmp_path, capfd, left, lambda: ip(f"link set v{lost} down"))
    finally:
        ip(f"link set v{lost} up")
