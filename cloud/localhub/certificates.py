"""What a client's certificate says, once TLS has checked its chain."""

import hashlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


@dataclass(frozen=True)
class PeerCertificate:
    """A certificate of a CA that the hub trusts; thumbprints are upper-case hexadecimal SHA-1 and SHA-256 of it."""

    common_name: str
    thumbprints: tuple[str, ...]
    encoded: bytes = b""
    """DER."""


def peer_certificate(tls: ssl.SSLObject) -> PeerCertificate | None:
    """The certificate that the other side of an established connection showed, or None."""
    encoded = tls.getpeercert(binary_form=True)
    if encoded is None:
        return None
    subject: tuple[tuple[tuple[str, str], ...], ...] = (tls.getpeercert() or {}).get("subject", ())  # type: ignore[assignment]  # typeshed knows no shape
    names = [value for part in subject for key, value in part if key == "commonName"]
    # With several common names it is nobody's.
    return PeerCertificate(names[0] if len(names) == 1 else "", _thumbprints(encoded), encoded)


def thumbprints_of(pem: str) -> tuple[str, ...]:
    """SHA-1 and SHA-256 of a certificate in PEM. Raises ValueError for something else."""
    encoded = ssl.PEM_cert_to_DER_cert(pem.strip())
    _load(encoded)
    return _thumbprints(encoded)


def is_signed_by(certificate: PeerCertificate, authority_pem: str) -> bool:
    """Whether this CA itself signed the certificate."""
    # cryptography takes 30 ms to load; only a group of certificates needs it.
    from cryptography.exceptions import InvalidSignature

    try:
        _load(certificate.encoded).verify_directly_issued_by(_load(ssl.PEM_cert_to_DER_cert(authority_pem.strip())))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _load(encoded: bytes) -> "Certificate":
    from cryptography.x509 import load_der_x509_certificate

    return load_der_x509_certificate(encoded)


def _thumbprints(encoded: bytes) -> tuple[str, ...]:
    digests = (hashlib.sha1(encoded, usedforsecurity=False), hashlib.sha256(encoded))
    return tuple(digest.hexdigest().upper() for digest in digests)
