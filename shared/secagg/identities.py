"""Signatures of devices' identities: ECDSA over P-256, under certificates of the fleet's own CA.

The server relays certificates and cannot make any without the CA's key. Where coordinator and CA are one machine, as in
the embedded default, whoever controls it could enrol devices of its own: that is what `corrupt_share` is for.
"""

from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from shared.secagg.device import Sign, Verify
from shared.secagg.messages import Advertisement


def signer(key: ec.EllipticCurvePrivateKey) -> Sign:
    return lambda signed: key.sign(signed, ec.ECDSA(SHA256()))


def verifier(ca_pem: str) -> Verify:
    """Trusts certificates of this CA whose common name is the device's id; their age is the coordinator's matter."""
    ca = x509.load_pem_x509_certificate(ca_pem.encode())

    @lru_cache(maxsize=4096)
    def key_of(device: str, certificate: bytes) -> ec.EllipticCurvePublicKey | None:
        try:
            found = x509.load_pem_x509_certificate(certificate)
            found.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature):
            return None
        names = [name.value for name in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = found.public_key()
        return key if names == [device] and isinstance(key, ec.EllipticCurvePublicKey) else None

    def verify(advertisement: Advertisement, signed: bytes, signature: bytes) -> bool:
        key = key_of(advertisement.device, advertisement.certificate)
        if key is None:
            return False
        try:
            key.verify(signature, signed, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    return verify
