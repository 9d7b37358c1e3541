"""A device's signed requests in tests, without the agent's own client."""

import hashlib

import httpx

from shared.device_auth import AUTHORIZATION_SCHEME, NONCE_HEADER, SignedRequest, sign
from shared.ids import Digest
from tests.support.coordinator import Machine
from tests.support.http import AppClient


def signed(
    client: AppClient,
    device: Machine,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    nonce: str | None = None,
) -> httpx.Response:
    """One request with a fresh nonce, or with the one given."""
    fresh = nonce or client.get("/v1/nonce").headers[NONCE_HEADER]
    request = SignedRequest(device.device_id, method, path, Digest(hashlib.sha256(body).hexdigest()), fresh)
    authorization = {"Authorization": f"{AUTHORIZATION_SCHEME} {sign(request, device.key)}"}
    return client.request(method, path, content=body, headers=authorization | (headers or {}))
