"""Horovod's rendezvous server, on loopback.

Horovod 0.28.1 and older bind this HTTP server to every interface and unpickle what its relatives
receive (CVE-2024-10190, no fixed release): whoever reaches the port can run code. Delete this file
when a release binds to a given address, and pass it 127.0.0.1. On a cluster the launcher is
Horovod's own, behind a private network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from horovod.runner.common.util.hosts import HostInfo, SlotInfo, get_host_assignments
from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

LOOPBACK = "127.0.0.1"
# A name: Horovod resolves it for its process sets, whatever HOROVOD_GLOO_IFACE says.
_HOST = "localhost"


@contextmanager
def rendezvous(ranks: int) -> Iterator[list[dict[str, str]]]:
    """Serve while the block lasts.

    Gives the environment variables by which each rank finds the others.
    """
    slots = get_host_assignments([HostInfo(_HOST, ranks)], ranks)
    server = RendezvousHTTPServer((LOOPBACK, 0), RendezvousHandler, False)
    server.daemon_threads = True
    server.init(slots)
    # The default, half a second, is how long the shutdown below would wait.
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield [_variables(slot, server.server_port) for slot in slots]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _variables(slot: SlotInfo, port: int) -> dict[str, str]:
    return {
        "HOROVOD_HOSTNAME": _HOST,
        "HOROVOD_RANK": str(slot.rank),
        "HOROVOD_SIZE": str(slot.size),
        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
        # Gloo needs nothing but sockets, and MPI would be one more thing to install.
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_IFACE": "lo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": LOOPBACK,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "60",
    }
