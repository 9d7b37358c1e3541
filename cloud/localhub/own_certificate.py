"""A certificate for a hub that was given none: its own CA and a server certificate, made once in the data folder.

For a laptop, a test, a first look. Clients trust `tls/ca.pem`; whoever reads `tls/ca.key` can pretend to be any device
that proves itself by a CA-signed certificate, so the folder is its owner's alone. A fleet has a CA of its own.

Importing this loads cryptography (30 ms), which the hub's other commands do without.
"""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.localhub.tls import ca_file

_CA_DAYS, _SERVER_DAYS = 3650, 365
_RENEW_DAYS = 30
_CLOCK_SKEW = datetime.timedelta(days=1)


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files; `server` holds the certificate and its key together, so that they are replaced together."""

    server: Path
    ca: Path


def ensure_certificate(data_dir: Path, *, address: str) -> CertificateFiles:
    """The hub's own certificate for `localhost` and the address; made where there is none, or it ends soon."""
    ca = ca_file(data_dir)
    files = CertificateFiles(ca.with_name("hub.pem"), ca)
    ca.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    now = datetime.datetime.now(datetime.UTC)
    if not ca.exists():
        _make_ca(ca, now)
    if not _still_serves(files.server, address=address, now=now):
        _make_server(files, address=address, now=now)
    return files


def _make_ca(path: Path, now: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("fleetlearn local hub")
    builder = _builder(key, subject=name, issuer=name, issuer_key=key, now=now, days=_CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    _write_private(path.with_suffix(".key"), _pem(key))
    _write_private(path, certificate.public_bytes(Encoding.PEM))


def _make_server(files: CertificateFiles, *, address: str, now: datetime.datetime) -> None:
    ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    ca_key = load_pem_private_key(files.ca.with_suffix(".key").read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("localhost")
    builder = _builder(key, subject=subject, issuer=ca.subject, issuer_key=ca_key, now=now, days=_SERVER_DAYS)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(_names(address)), critical=False)
    certificate = builder.sign(ca_key, hashes.SHA256())
    _write_private(files.server, certificate.public_bytes(Encoding.PEM) + _pem(key))


def _still_serves(path: Path, *, address: str, now: datetime.datetime) -> bool:
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ends_soon = certificate.not_valid_after_utc - now < datetime.timedelta(days=_RENEW_DAYS)
    return not ends_soon and all(name in held for name in _names(address))


def _names(address: str) -> list[x509.GeneralName]:
    addresses = dict.fromkeys(("127.0.0.1", address))
    return [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]


def _builder(
    key: ec.EllipticCurvePrivateKey,
    *,
    subject: x509.Name,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(issuer_id, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, readable by the owner alone."""
    draft = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
