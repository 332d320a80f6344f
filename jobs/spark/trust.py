"""The authorities of certificates that a person trusts, as Java reads them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from pipelines.errors import NightshiftError
from pipelines.places import certificates

_PASSWORD = "changeit"
"""Java's own word. Nothing in the file is secret."""


def write(file: Path, environ: Mapping[str, str]) -> None:
    """Leave a file of those that the variables name; nothing where they name none.

    Raises:
        NightshiftError: they name a file without certificates.
    """
    named = certificates(environ)
    if not named:
        return

    from cryptography import x509  # a tenth of a second, and only needed here
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    try:
        with warnings.catch_warnings():
            # Of old authorities, such as some of every system, whose numbers break a rule.
            warnings.simplefilter("ignore")
            found = x509.load_pem_x509_certificates(Path(named).read_bytes())
    except (OSError, ValueError) as error:
        raise NightshiftError(
            f"{named} (AWS_CA_BUNDLE or SSL_CERT_FILE) holds no certificates: {error}"
        ) from None
    entries = [
        pkcs12.PKCS12Certificate(one, str(number).encode()) for number, one in enumerate(found)
    ]
    password = BestAvailableEncryption(_PASSWORD.encode())
    file.write_bytes(pkcs12.serialize_java_truststore(entries, password))


def options(file: Path, environ: Mapping[str, str]) -> list[str]:
    """Options of Java by which it trusts those of the file, where the variables name some."""
    if not certificates(environ):
        return []
    named = {"": str(file), "Type": "PKCS12", "Password": _PASSWORD}
    return [f"-Djavax.net.ssl.trustStore{name}={quote(value)}" for name, value in named.items()]
