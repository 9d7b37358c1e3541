"""A device signs each HTTPS request: method, path, body digest and a nonce of the server, in a short JWT (RFC 7519).

No clock of the device takes part: freshness is the server's nonce (the idea of RFC 9449, section 8), which rides on
every answer in `NONCE_HEADER`; a stale one is answered with 401 and a fresh one. Within a nonce's life a request can
only be repeated unchanged, and every device route is idempotent. Algorithm: ES256 (P-256, RFC 7518, 3.4), raw r || s.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from shared.errors import FleetlearnError
from shared.ids import DeviceId, Digest, parse_device_id

AUTHORIZATION_SCHEME = "Device"
"""`Authorization: Device <token>`."""
NONCE_HEADER = "Fleetlearn-Nonce"
EMPTY_BODY = Digest(hashlib.sha256(b"").hexdigest())
_TOKEN_CHARS_MAX = 4096


class BadSignatureError(FleetlearnError):
    """A request that the device it names did not sign."""

    code = "bad_device_signature"


@dataclass(frozen=True)
class SignedRequest:
    """What a device signs. `path` includes the query; `body` is the SHA-256 of the bytes sent."""

    device_id: DeviceId
    method: str
    path: str
    body: Digest
    nonce: str


def sign(request: SignedRequest, key: ec.EllipticCurvePrivateKey) -> str:
    """The token for the Authorization header."""
    claims = {"sub": request.device_id, "m": request.method, "p": request.path, "b": request.body, "n": request.nonce}
    signed = f"{_encode_json({'alg': 'ES256', 'typ': 'JWT'})}.{_encode_json(claims)}"
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
    return f"{signed}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def claimed(token: str) -> SignedRequest:
    """What the token claims, not yet verified: only good for looking up the device's key. Raises BadSignatureError."""
    try:
        if len(token) > _TOKEN_CHARS_MAX:
            raise ValueError("too long")
        header, claims, _ = (_unb64(part) for part in token.split("."))
        if json.loads(header).get("alg") != "ES256":
            raise ValueError("algorithm")
        c = json.loads(claims)
        return SignedRequest(parse_device_id(c["sub"]), str(c["m"]), str(c["p"]), Digest(str(c["b"])), str(c["n"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error, FleetlearnError):
        raise BadSignatureError("Expected a signed device token, got something else") from None


def verify(token: str, *, expected: SignedRequest, key: ec.EllipticCurvePublicKey) -> None:
    """Returns when this device signed exactly this request. Raises BadSignatureError."""
    if claimed(token) != expected:
        raise BadSignatureError("Expected a token for this very request, got one for another")
    signed, _, signature_text = token.rpartition(".")
    try:
        raw = _unb64(signature_text)
        if len(raw) != 64:
            raise ValueError("length")
        der = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        key.verify(der, signed.encode(), ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError, binascii.Error):
        raise BadSignatureError("Expected a token signed with this device's key, got another signature") from None


def _encode_json(value: dict[str, str]) -> str:
    return _b64(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
