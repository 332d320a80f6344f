"""Other machines: network namespaces, each with an address of its own and no way but that."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

import psutil
import pytest

NAMES = Path("/etc/netns")
"""`ip netns exec` shows a namespace the files of its folder there as those of /etc."""


@dataclass(frozen=True)
class Network:
    """Of this machine and two hosts."""

    address: str
    """Of this machine."""
    hosts: tuple[str, str]
    addresses: dict[str, str]
    """Of the hosts."""
    bridge: str


@contextmanager
def two_hosts() -> Iterator[Network]:
    """Two hosts beside this machine; a test is skipped where none can be made."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and the program ip (iproute2)")
    if why := _why_none():
        pytest.skip(f"no network namespace can be made here: {why}")
    # Of this process alone: tests may run side by side.
    number = os.getpid() % 250
    bridge, subnet = f"br{os.getpid()}", f"10.89.{number}"
    hosts = (f"a{os.getpid()}", f"b{os.getpid()}")
    addresses = {host: f"{subnet}.{place}" for place, host in enumerate(hosts, start=2)}
    try:
        # Its own, for good: else it takes that of a host, and another once that host is lost. The
        # other would go on sending to the one that is gone for a minute.
        ip(f"link add {bridge} address 02:00:0a:59:{number:02x}:01 type bridge")
        ip(f"addr add {subnet}.1/24 dev {bridge}")
        ip(f"link set {bridge} up")
        for host, address in addresses.items():
            make_host(host, address, bridge)
        yield Network(f"{subnet}.1", hosts, addresses, bridge)
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], check=False)
            shutil.rmtree(NAMES / host, ignore_errors=True)
        subprocess.run(["ip", "link", "del", bridge], check=False)


def _why_none() -> str:
    """Why root may not do here what it may on a machine of its own; empty: it may."""
    name = f"p{os.getpid()}"
    try:
        ip(f"netns add {name}")
        ip(f"netns del {name}")
        ip(f"link add {name} type bridge")
        ip(f"link del {name}")
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode())
    return ""


def make_host(host: str, address: str, bridge: str) -> None:
    """Make a host of that name and address on the bridge."""
    ip(f"netns add {host}")
    # Of one that was lost the old pair may be gone with it, or only soon.
    subprocess.run(["ip", "link", "del", f"v{host}"], check=False, capture_output=True)
    ip(f"link add v{host} type veth peer name eth0 netns {host}")
    ip(f"link set v{host} master {bridge} up")
    ip(f"-n {host} addr add {address}/24 dev eth0")
    ip(f"-n {host} link set eth0 up")
    ip(f"-n {host} link set lo up")
    # What its own name leads to there.
    (NAMES / host).mkdir(parents=True, exist_ok=True)
    (NAMES / host / "hosts").write_text(f"127.0.0.1 localhost\n{address} {gethostname()}\n")


def on_host(host: str, *command: str) -> list[str]:
    """The command line by which a command runs on a host."""
    return ["ip", "netns", "exec", host, *command]


def kill_all_in(host: str) -> None:
    """Power off: every process of the host ends at once."""
    found = subprocess.run(
        ["ip", "netns", "pids", host], check=True, capture_output=True, text=True
    )
    for number in found.stdout.split():
        # Some die with another: a rank with what has started it.
        with suppress(psutil.NoSuchProcess):
            psutil.Process(int(number)).kill()


def ip(arguments: str) -> None:
    """Run the program of that name."""
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)
