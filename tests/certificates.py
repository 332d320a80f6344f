"""A certificate of the tests' own, of an authority that nobody knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


def write(folder: Path) -> Path:
    """Make one for servers of 127.0.0.1.

    Returns:
        A file with its key, itself and its authority: what a server shows, and what trusts it.
    """
    of_authority, of_server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate(of_authority, of_authority, "authority", is_authority=True)
    server = _certificate(of_server, of_authority, "server", is_authority=False)
    form, open_to_all = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    parts = (
        of_server.private_bytes(_PEM, form, open_to_all),
        server.public_bytes(_PEM),
        authority.public_bytes(_PEM),
    )
    file = folder / "certificate.pem"
    file.write_bytes(b"".join(parts))
    return file


def _certificate(
    own: ec.EllipticCurvePrivateKey,
    signing: ec.EllipticCurvePrivateKey,
    name: str,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    constraints = x509.BasicConstraints(ca=is_authority, path_length=None)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("authority"))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(constraints, critical=True)
        .sign(signing, hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{text} of the tests")])
