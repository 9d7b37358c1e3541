"""X.509 for one fleet (RFC 5280): a CA, certificates for servers, and certificates for devices from their requests.

Pure: keys, names, times and serial numbers in, certificates out. All keys are EC P-256.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.pki.errors import MalformedRequestError, WrongNameError
from shared.ids import DeviceId

CA_LIFE = timedelta(days=20 * 365)
SERVER_LIFE = timedelta(days=397)
BACKDATED = timedelta(days=1)
"""Certificates start to be valid earlier than they are made, for devices whose clock is late."""
_CSR_CHARS_MAX = 16_384


def make_ca(key: ec.EllipticCurvePrivateKey, *, name: str, now: float) -> x509.Certificate:
    """A self-signed CA that signs end certificates only."""
    subject = _name(name)
    builder = _dated(subject, subject, key.public_key(), now=now, life=CA_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def sign_server(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    names: Sequence[str],
    now: float,
) -> x509.Certificate:
    """A server's certificate for these DNS names and IP addresses; the first one is its common name."""
    builder = _dated(_name(names[0]), ca.subject, public_key, now=now, life=SERVER_LIFE)
    builder = _end_entity(builder, ca_key, ExtendedKeyUsageOID.SERVER_AUTH)
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    return builder.add_extension(alternatives, critical=False).sign(ca_key, hashes.SHA256())


def sign_client(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    name: str,
    now: float,
) -> x509.Certificate:
    """A certificate for client authentication of one of our own servers, towards a server of others."""
    builder = _dated(_name(name), ca.subject, public_key, now=now, life=SERVER_LIFE)
    return _end_entity(builder, ca_key, ExtendedKeyUsageOID.CLIENT_AUTH).sign(ca_key, hashes.SHA256())


def sign_device(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    request: x509.CertificateSigningRequest,
    *,
    device_id: DeviceId,
    now: float,
    life: timedelta,
) -> x509.Certificate:
    """A device's certificate for client authentication. Nothing but the public key is taken from the request."""
    builder = _dated(_name(device_id), ca.subject, public_key_of(request), now=now, life=life)
    return _end_entity(builder, ca_key, ExtendedKeyUsageOID.CLIENT_AUTH).sign(ca_key, hashes.SHA256())


def parse_request(pem: str, *, device_id: DeviceId) -> x509.CertificateSigningRequest:
    """A request that proves its key and asks for this device's name. Raises MalformedRequestError or WrongNameError."""
    try:
        if len(pem) > _CSR_CHARS_MAX:
            raise ValueError("too long")
        request = x509.load_pem_x509_csr(pem.encode())
        names = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        is_proven = request.is_signature_valid
        public_key_of(request)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise MalformedRequestError("Expected a certificate signing request in PEM, got something else") from error
    if not is_proven:
        raise MalformedRequestError("Expected a certificate request signed by its own key, got another signature")
    if names != [device_id]:
        shown = ", ".join(names)[:80] or "no name"
        raise WrongNameError(f"Expected a certificate signing request for {device_id}, got one for {shown}")
    return request


def public_key_of(signed: x509.CertificateSigningRequest | x509.Certificate) -> ec.EllipticCurvePublicKey:
    """The EC P-256 key in it. Raises MalformedRequestError for another kind of key."""
    key = signed.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MalformedRequestError("Expected a key on the curve P-256, got another kind of key")
    return key


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate in DER, 64 hexadecimal characters: what an enrolment token carries of the CA."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER)."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(encoded)
    return digest.finalize().hex()


def pem_of(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def public_pem_of(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def expires_at(certificate: x509.Certificate) -> float:
    """Seconds since the epoch."""
    return certificate.not_valid_after_utc.timestamp()


def _dated(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, now: float, life: timedelta
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(int(now), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATED)
        .not_valid_after(moment + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _end_entity(
    builder: x509.CertificateBuilder, ca_key: ec.EllipticCurvePrivateKey, usage: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(issuer, critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
