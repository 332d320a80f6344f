"""The proxy of this machine, as a Java is told of it.

pip and uv read `https_proxy`; Java does not.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies

_SCHEMES = ("http", "https")
_HTTP_PORT = 80
_ALL = "*"
"""Of `no_proxy`: every host is reached without one."""
_OF_JAVA = ("localhost", "127.*", "[::1]")
"""Hosts that Java reaches without one unless it is told of others."""


def java_options() -> list[str]:
    """Options of a Java that goes out as pip and uv do; none where these use no proxy."""
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
    port = told.port or _HTTP_PORT
    return [f"-D{scheme}.proxyHost={told.hostname}", f"-D{scheme}.proxyPort={port}"]


def _hosts(direct: str) -> str:
    """The hosts of `no_proxy`, each with all below it."""
    hosts = list(_OF_JAVA)
    for said in direct.split(","):
        name = said.strip().lstrip("*.")
        if name:
            hosts += [name, f"*.{name}"]
    return "|".join(hosts)
