"""TLS on a device whose clock stands behind what it has proved to be past: certificates are judged at the proved time.

Python's ssl judges at the system clock and takes no other time. So OpenSSL is told to leave out the time and nothing
else, and the validity of the server's certificate and its CA's is looked at here, after the handshake and before a
byte of a request is sent. A device with a right clock never comes here: OpenSSL's own check is the better one.

    trust = coordinator_trust(ca_pem, state_dir=state.releases, system_time=time.time)
    origin = HttpsOrigin(url, trust.context, check=trust.check)

The hub's SDK makes its own TLS context and has no place for this: see docs/reference/agent.md.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from edge_agent.https import PeerCheck, pinned_context
from edge_agent.releases.clock import device_time

_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python's ssl does not name."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class Trust:
    """Whom a connection trusts: by OpenSSL, and where its clock cannot be used, by the check as well."""

    context: ssl.SSLContext
    check: PeerCheck | None = None


def coordinator_trust(ca_pem: str, *, state_dir: Path, system_time: Callable[[], float]) -> Trust:
    """Trust in this CA alone, at the device's time.

    Args:
        ca_pem: The fleet's CA.
        state_dir: Of the releases, where the proved time lies.
        system_time: Seconds since the epoch; may be wrong.
    """

    def now() -> float:
        return device_time(state_dir, system_time=system_time())

    context = pinned_context(ca_pem)
    behind_s = now() - system_time()
    if behind_s <= 0:
        return Trust(context)
    _log.warning("clock_behind", behind_s=round(behind_s), hint="Give this device a time source: the hub needs one.")
    context.verify_flags = ssl.VerifyFlags(context.verify_flags | _NO_CHECK_TIME)
    ca = x509.load_pem_x509_certificate(ca_pem.encode())

    def check(certificate_der: bytes) -> None:
        check_validity(x509.load_der_x509_certificate(certificate_der), ca, now=now())

    return Trust(context, check)


def check_validity(certificate: x509.Certificate, ca: x509.Certificate, *, now: float) -> None:
    """Returns when both are valid now and nothing lies between them. Raises ssl.SSLCertVerificationError."""
    for one in (certificate, ca):
        if not one.not_valid_before_utc.timestamp() <= now <= one.not_valid_after_utc.timestamp():
            raise ssl.SSLCertVerificationError("Expected a certificate that is valid at this device's time")
    try:
        # An intermediate's validity would have been judged by nobody.
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ssl.SSLCertVerificationError("Expected a certificate that the fleet's CA itself has signed") from error
