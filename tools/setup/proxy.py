"""The proxy of this machine, as a Java is told of it.

pip and uv read `https_proxy`; Java does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from tools.setup.console import SetupError

_SCHEMES = ("http", "https")
_HTTP_PORT = 80
_ALL = "*"
"""Of `no_proxy`: every host is reached without one."""
_OF_JAVA = ("localhost", "127.*", "[::1]")
"""Hosts that Java reaches without one unless it is told of others."""
_BITS = 8
"""Of a part of an address between two dots: Java knows networks that end with one."""


def java_options() -> list[str]:
    """Options of a Java that goes out as pip and uv do; none where these use no proxy.

    Raises:
        SetupError: the port of a proxy is no number.
    """
    known = getproxies()
    direct = known.get("no", "").strip()
    if direct == _ALL:
        return []
    found = {scheme: known.get(scheme, known.get("all", "")) for scheme in _SCHEMES}
    options = [option for scheme in _SCHEMES for option in _options(scheme, found[scheme])]
    if options:
        options.append(f"-Dhttp.nonProxyHosts={_hosts(direct)}")
    return options


def _options(scheme: str, address: str) -> list[str]:
    told = urlsplit(address if "://" in address else f"http://{address}")
    # Java speaks neither TLS nor, by these options, SOCKS to one.
    if told.scheme != "http" or not told.hostname:
        return []
    port = _port(scheme, told) or _HTTP_PORT
    return [f"-D{scheme}.proxyHost={told.hostname}", f"-D{scheme}.proxyPort={port}"]


def _port(scheme: str, told: SplitResult) -> int | None:
    try:
        return told.port
    except ValueError:
        # Of the address no more, which may hold a password.
        raise SetupError(
            f"{scheme}_proxy, or all_proxy: the port of {told.hostname} is no number up to 65535. "
            "Write the address as http://HOST:PORT."
        ) from None


def _hosts(direct: str) -> str:
    """The hosts of `no_proxy`, each with all below it, and those of its networks."""
    hosts = list(_OF_JAVA)
    for said in direct.split(","):
        name = said.strip().lstrip("*.")
        if "/" in name:
            hosts += _of_network(name)
        elif name:
            host = _without_port(name)
            hosts += [host, f"*.{host}"]
    return "|".join(hosts)


def _without_port(name: str) -> str:
    """The host, of which Java knows no single port; as it is, if it is an address of IPv6."""
    host, colon, port = name.rpartition(":")
    return host if colon and port.isdecimal() and ":" not in host else name


def _of_network(said: str) -> Iterator[str]:
    """The addresses of a network, as beginnings of their texts; none of what is no IPv4 network."""
    try:
        network = IPv4Network(said, strict=False)
    except ValueError:
        return
    parts = -(-network.prefixlen // _BITS)
    for part in network.subnets(new_prefix=parts * _BITS):
        told = str(part.network_address).split(".")[:parts]
        is_whole = part.num_addresses == 1
        yield ".".join(told if is_whole else [*told, "*"])
