"""A device's identity: its own P-256 key, which never leaves it, and the certificate the fleet's CA gave it.

`enrolment.json` is written last, so a folder that has it is whole; one without it is enrolled again with the same key.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent.errors import CoordinatorIdentityError, DamagedStateError, NotEnrolledError
from shared.files import write_atomically
from shared.ids import DeviceId, parse_device_id
from shared.messages.base import MalformedMessageError, Message

_KEY, _CERTIFICATE, _CA, _ENROLMENT = "device.key", "device.pem", "ca.pem", "enrolment.json"
_RENEW_AT = 2 / 3


class Enrolment(Message):
    """What enrolment gave, apart from the certificates."""

    device_id: str
    coordinator_url: str
    hub_hostname: str
    hub_url: str = ""
    """An MQTT broker instead."""
    hub_ca_pem: str = ""
    """The CA of the broker's certificate; empty: the fleet's."""
    data_dir: str = ""
    """Where the device's own data lies; empty: it holds none."""


@dataclass(frozen=True)
class Identity:
    """A whole identity, read from its folder."""

    folder: Path
    enrolment: Enrolment
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    ca_pem: str

    @property
    def device_id(self) -> DeviceId:
        return DeviceId(self.enrolment.device_id)

    @property
    def certificate_file(self) -> Path:
        return self.folder / _CERTIFICATE

    @property
    def key_file(self) -> Path:
        return self.folder / _KEY

    @property
    def data_dir(self) -> Path | None:
        """The device's own data, if enrolment was told of any."""
        return Path(self.enrolment.data_dir) if self.enrolment.data_dir else None

    @property
    def expires_at(self) -> float:
        """Seconds since the epoch."""
        return self.certificate.not_valid_after_utc.timestamp()

    @property
    def renew_at(self) -> float:
        """When two thirds of the certificate's life are over, in seconds since the epoch."""
        start = self.certificate.not_valid_before_utc.timestamp()
        return start + (self.expires_at - start) * _RENEW_AT


def is_enrolled(folder: Path) -> bool:
    return (folder / _ENROLMENT).exists()


def read_identity(folder: Path) -> Identity:
    """The identity in this folder. Raises NotEnrolledError or DamagedStateError."""
    if not is_enrolled(folder):
        raise NotEnrolledError(
            f"Expected an enrolled device in {folder.parent}, got none",
            hint="Enrol it first: `fleetlearn agent enrol --token TOKEN --state DIR`.",
        )
    try:
        enrolment = Enrolment.parse((folder / _ENROLMENT).read_bytes())
        parse_device_id(enrolment.device_id)
        key = read_key(folder / _KEY)
        certificate = x509.load_pem_x509_certificate((folder / _CERTIFICATE).read_bytes())
        return Identity(folder, enrolment, key, certificate, (folder / _CA).read_text(encoding="ascii"))
    except (OSError, ValueError, MalformedMessageError) as error:
        raise DamagedStateError(
            f"Expected a whole identity in {folder}, got: {error}",
            hint="Remove the folder and enrol the device again under a new name.",
        ) from error


def own_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """This device's key: the one it made before, or a new one, on disk for its owner alone when this returns."""
    path = folder / _KEY
    if path.exists():
        return read_key(path)
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomically(path, pem, mode=0o600)
    return key


def signing_request(device_id: DeviceId, key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate signing request for this name, in PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def checked_certificate(pem: str, *, device_id: DeviceId, key: ec.EllipticCurvePrivateKey, ca_pem: str) -> bytes:
    """The certificate in PEM, if it is this device's, for this key, by this CA. Raises CoordinatorIdentityError."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem.encode()))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CoordinatorIdentityError("Expected a certificate signed by the fleet's CA, got another") from error
    names = [str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [device_id] or certificate.public_key() != key.public_key():
        raise CoordinatorIdentityError(f"Expected a certificate for {device_id} and its own key, got another")
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_identity(folder: Path, *, enrolment: Enrolment, certificate_pem: bytes, ca_pem: str) -> None:
    """Makes the identity whole; the key is there already."""
    write_atomically(folder / _CA, ca_pem.encode())
    write_atomically(folder / _CERTIFICATE, certificate_pem)
    write_atomically(folder / _ENROLMENT, enrolment.encode())


def write_certificate(folder: Path, certificate_pem: bytes) -> None:
    """Switches to a renewed certificate, atomically; the key stays."""
    write_atomically(folder / _CERTIFICATE, certificate_pem)


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in this file. Raises DamagedStateError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("a key that is not on the curve P-256")
    except (OSError, ValueError) as error:
        raise DamagedStateError(f"Expected this device's key at {path}, got: {error}") from error
    return key
