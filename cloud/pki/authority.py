"""The fleet's CA on disk, and what the coordinator does with it. Private keys are written with mode 0600."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.pki.certificates import (
    SERVER_LIFE,
    expires_at,
    fingerprint,
    make_ca,
    parse_request,
    pem_of,
    sign_client,
    sign_device,
    sign_server,
)
from cloud.pki.errors import DamagedKeyFilesError
from shared.files import write_atomically
from shared.ids import DeviceId

CA_NAME = "fleetlearn fleet CA"
_RENEW_SERVER_BEFORE_S = SERVER_LIFE.total_seconds() / 3
"""A certificate is renewed at two thirds of its life."""


@dataclass(frozen=True)
class Authority:
    """The CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> str:
        return pem_of(self.certificate)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)

    def sign_device_request(
        self, csr_pem: str, *, device_id: DeviceId, now: float, life_days: float
    ) -> x509.Certificate:
        """A certificate for this device. Raises MalformedRequestError or WrongNameError."""
        request = parse_request(csr_pem, device_id=device_id)
        life = timedelta(days=life_days)
        return sign_device(self.certificate, self.key, request, device_id=device_id, now=now, life=life)


def load_or_create_authority(folder: Path, *, now: float) -> Authority:
    """The CA in `ca.pem` and `ca.key`; makes both where there is none. Raises DamagedKeyFilesError."""
    certificate_file, key_file = folder / "ca.pem", folder / "ca.key"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The key comes first: a crash in between leaves a key without certificate, which is made again from it.
    key = _load_or_create_key(key_file)
    if not certificate_file.exists():
        write_atomically(certificate_file, pem_of(make_ca(key, name=CA_NAME, now=now)).encode())
    certificate = _load_certificate(certificate_file)
    if certificate.public_key() != key.public_key():
        raise DamagedKeyFilesError(f"Expected the key of {certificate_file} in {key_file}, got another key")
    return Authority(certificate, key)


def ensure_server_certificate(authority: Authority, folder: Path, name: str, *, names: list[str], now: float) -> bool:
    """`NAME.pem` and `NAME.key` for a server with these names; made anew when they changed or it nears its end.

    Returns whether it was made anew: a server that runs has to be started again to show it.
    """
    certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    key = _load_or_create_key(key_file)
    if certificate_file.exists() and _is_good(_load_certificate(certificate_file), authority, key, names, now=now):
        return False
    certificate = sign_server(authority.certificate, authority.key, key.public_key(), names=names, now=now)
    write_atomically(certificate_file, pem_of(certificate).encode())
    return True


def ensure_client_certificate(authority: Authority, folder: Path, name: str, *, common_name: str, now: float) -> None:
    """`NAME.pem` and `NAME.key` of a client with this common name; made anew when it nears its end."""
    certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    key = _load_or_create_key(key_file)
    if certificate_file.exists() and _is_ours(_load_certificate(certificate_file), authority, key, now=now):
        return
    certificate = sign_client(authority.certificate, authority.key, key.public_key(), name=common_name, now=now)
    write_atomically(certificate_file, pem_of(certificate).encode())


def _is_good(
    certificate: x509.Certificate,
    authority: Authority,
    key: ec.EllipticCurvePrivateKey,
    names: list[str],
    *,
    now: float,
) -> bool:
    alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    has_names = [str(alternative.value) for alternative in alternatives] == names
    return has_names and _is_ours(certificate, authority, key, now=now)


def _is_ours(
    certificate: x509.Certificate, authority: Authority, key: ec.EllipticCurvePrivateKey, *, now: float
) -> bool:
    return (
        certificate.issuer == authority.certificate.subject
        and certificate.public_key() == key.public_key()
        and expires_at(certificate) - now > _RENEW_SERVER_BEFORE_S
    )


def _load_or_create_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        encoded = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(path, encoded, mode=0o600)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise DamagedKeyFilesError(f"Expected a private key in PEM in {path}, got something else") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DamagedKeyFilesError(f"Expected an EC key in {path}, got another kind of key")
    return key


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise DamagedKeyFilesError(f"Expected a certificate in PEM in {path}, got something else") from error
