"""Devices prove themselves by signing each request with the key of their certificate (`shared/device_auth.py`)."""

import asyncio
import hashlib
from functools import lru_cache
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import Depends, Request

from cloud.auth.errors import MissingSignatureError, StaleNonceError, UnknownSignerError
from cloud.db import SessionFactory, reading
from cloud.dependencies import services
from cloud.devices.errors import UnknownDeviceError
from cloud.devices.service import drop_previous_key, signing_keys
from cloud.services import Services
from shared.device_auth import AUTHORIZATION_SCHEME, BadSignatureError, SignedRequest, claimed, verify
from shared.ids import DeviceId, Digest

_KEYS_KEPT = 4096


async def require_device(request: Request, services: Annotated[Services, Depends(services)]) -> DeviceId:
    """The device that signed exactly this request, its body included.

    Raises MissingSignatureError, BadSignatureError, StaleNonceError, UnknownSignerError or DeviceRevokedError.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme != AUTHORIZATION_SCHEME or not token:
        raise MissingSignatureError(f"Expected 'Authorization: {AUTHORIZATION_SCHEME} ...', got no device signature")
    body = await request.body()
    received = (request.method, _path_as_sent(request), Digest(hashlib.sha256(body).hexdigest()))
    return await asyncio.to_thread(_verified, services, token, *received)


def verify_signer(sessions: SessionFactory, token: str, expected: SignedRequest) -> None:
    """Returns when the named device has access and signed this request with its key or, once renewed, its last one.

    It only reads, so that a device's request waits for no other's; but for the first use of a renewed key.
    """
    try:
        with reading(sessions) as session:
            current, previous = signing_keys(session, expected.device_id)
    except UnknownDeviceError as error:
        raise UnknownSignerError(error.message) from error
    try:
        verify(token, expected=expected, key=_key(current))
    except BadSignatureError:
        if previous is None:
            raise
        verify(token, expected=expected, key=_key(previous))
        return
    if previous is not None:
        with sessions() as session, session.begin():
            drop_previous_key(session, expected.device_id, used=current)


def _verified(services: Services, token: str, method: str, path: str, body: Digest) -> DeviceId:
    claims = claimed(token)
    if not services.nonces.is_fresh(claims.nonce, now=services.now()):
        raise StaleNonceError("Expected a fresh nonce, got an old or a foreign one", hint="Use the answer's.")
    expected = SignedRequest(claims.device_id, method, path, body, claims.nonce)
    verify_signer(services.sessions, token, expected)
    return claims.device_id


def _path_as_sent(request: Request) -> str:
    raw_path: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    # Test clients put the query into raw_path too; a server does not.
    path = raw_path.partition(b"?")[0].decode("latin-1")
    return f"{path}?{query.decode('latin-1')}" if query else path


@lru_cache(maxsize=_KEYS_KEPT)
def _key(pem: str) -> ec.EllipticCurvePublicKey:
    """The key that this text is, whoever's: reading it takes as long as verifying with it."""
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)  # Only such keys are ever stored.
    return key
