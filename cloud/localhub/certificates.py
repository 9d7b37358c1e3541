"""What a client's certificate says, once TLS has checked its chain."""

import hashlib
import ssl
from dataclasses import dataclass


@dataclass(frozen=True)
class PeerCertificate:
    """A certificate of a CA that the hub trusts; thumbprints are upper-case hexadecimal SHA-1 and SHA-256 of it."""

    common_name: str
    thumbprints: tuple[str, ...]


def peer_certificate(tls: ssl.SSLObject) -> PeerCertificate | None:
    """The certificate that the other side of an established connection showed, or None."""
    encoded = tls.getpeercert(binary_form=True)
    if encoded is None:
        return None
    subject: tuple[tuple[tuple[str, str], ...], ...] = (tls.getpeercert() or {}).get("subject", ())  # type: ignore[assignment]  # typeshed knows no shape
    names = [value for part in subject for key, value in part if key == "commonName"]
    digests = (hashlib.sha1(encoded, usedforsecurity=False), hashlib.sha256(encoded))
    # With several common names it is nobody's.
    return PeerCertificate(names[0] if len(names) == 1 else "", tuple(digest.hexdigest().upper() for digest in digests))
