"""Horovod's rendezvous server, on one address: loopback, or a private one for ranks on other hosts.

Horovod 0.28.1 and older bind this HTTP server to every interface and unpickle what its relatives
receive (CVE-2024-10190, no fixed release): whoever reaches those ports can run code. This one keeps
bytes and unpickles nothing, but does not ask who speaks: who reaches it can stop a training. Delete
this file when a release binds to a given address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

from horovod.runner.common.util.hosts import HostInfo, SlotInfo, get_host_assignments
from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

from pipelines.errors import NightshiftError

LOOPBACK = "127.0.0.1"
HERE = "localhost"
ADDRESS, PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"
"""Variables by which a rank is told of this server."""
OF_A_RANK = ("HOROVOD_RANK", "HOROVOD_CROSS_RANK", "HOROVOD_HOSTNAME")
"""Variables of each rank alone, which one in a Pod or on an executor tells itself."""
DEFAULTS = {
    # Gloo needs nothing but sockets, and MPI would be one more thing to install.
    "HOROVOD_CONTROLLER": "gloo",
    "HOROVOD_CPU_OPERATIONS": "gloo",
    "HOROVOD_GLOO_TIMEOUT_SECONDS": "60",
}
"""Of these variables a person may set others."""


@dataclass(frozen=True, slots=True)
class Place:
    """Of a rank."""

    host: str
    variables: dict[str, str]
    """By which it finds the others."""


@contextmanager
def rendezvous(
    hosts: Mapping[str, int],
    ranks: int,
    address: str,
) -> Iterator[list[Place]]:
    """Serve while the block lasts; gives the place of each rank, in the order of their numbers.

    Args:
        hosts: How many ranks each may have.
        ranks: How many there are in all.
        address: Of this machine.

    Raises:
        NightshiftError: this machine has no such address.
    """
    infos = [HostInfo(name, slots) for name, slots in hosts.items()]
    slots = get_host_assignments(infos, ranks, ranks)
    server = _bound(address)
    server.daemon_threads = True
    server.init(slots)
    # The default, half a second, is how long the shutdown below would wait.
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield [
            Place(slot.hostname, _variables(slot, address, server.server_port)) for slot in slots
        ]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _bound(address: str) -> RendezvousHTTPServer:
    try:
        return RendezvousHTTPServer((address, 0), RendezvousHandler, False)
    except OSError as error:
        raise NightshiftError(
            f"Ranks cannot find each other at {address}: {error.strerror}. Set "
            "NIGHTSHIFT_RENDEZVOUS_ADDRESS to an address of this machine that their hosts reach."
        ) from error


def _variables(slot: SlotInfo, address: str, port: int) -> dict[str, str]:
    return {
        **DEFAULTS,
        "HOROVOD_HOSTNAME": slot.hostname,
        "HOROVOD_RANK": str(slot.rank),
        "HOROVOD_SIZE": str(slot.size),
        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
        "HOROVOD_GLOO_IFACE": "lo",
        ADDRESS: address,
        PORT: str(port),
    }
