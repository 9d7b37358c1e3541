"""Devices prove themselves by signing each request with the key of their certificate (`shared/device_auth.py`)."""

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fastapi import Depends, Request
from sqlmodel import Session

from cloud.auth.errors import MissingSignatureError, StaleNonceError, UnknownSignerError
from cloud.dependencies import services
from cloud.devices.errors import UnknownDeviceError
from cloud.devices.models import DeviceRecord
from cloud.devices.service import drop_previous_key, get_active_device
from cloud.services import Services
from shared.device_auth import AUTHORIZATION_SCHEME, BadSignatureError, SignedRequest, claimed, verify
from shared.ids import DeviceId, Digest


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


def verify_signer(session: Session, token: str, expected: SignedRequest) -> None:
    """Returns when the named device has access and signed this request with its key or, once renewed, its last one."""
    try:
        device = get_active_device(session, expected.device_id)
    except UnknownDeviceError as error:
        raise UnknownSignerError(error.message) from error
    current, *previous = _keys(device)
    try:
        verify(token, expected=expected, key=current)
    except BadSignatureError:
        if not previous:
            raise
        verify(token, expected=expected, key=previous[0])
        return
    if previous:
        drop_previous_key(session, device)


def _verified(services: Services, token: str, method: str, path: str, body: Digest) -> DeviceId:
    claims = claimed(token)
    if not services.nonces.is_fresh(claims.nonce, now=services.now()):
        raise StaleNonceError("Expected a fresh nonce, got an old or a foreign one", hint="Use the answer's.")
    expected = SignedRequest(claims.device_id, method, path, body, claims.nonce)
    with services.sessions() as session, session.begin():
        verify_signer(session, token, expected)
    return claims.device_id


def _path_as_sent(request: Request) -> str:
    raw_path: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    # Test clients put the query into raw_path too; a server does not.
    path = raw_path.partition(b"?")[0].decode("latin-1")
    return f"{path}?{query.decode('latin-1')}" if query else path


def _keys(device: DeviceRecord) -> Iterator[ec.EllipticCurvePublicKey]:
    for pem in (device.public_key_pem, device.previous_public_key_pem):
        if pem is not None:
            key = load_pem_public_key(pem.encode())
            assert isinstance(key, ec.EllipticCurvePublicKey)  # Only such keys are ever stored.
            yield key
