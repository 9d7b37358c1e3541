"""The cloud's end of Azure IoT Hub, and of the local hub, which speaks the same: a small REST client.

Identities, twins and commands are IoT Hub's service API. Events come from the local hub's own `/events`; Azure's come
over AMQP from an Event Hubs-compatible endpoint (`event_hub`).
"""

import asyncio
import base64
import math
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import httpx

from cloud.hubs.access import Access, KeyAccess
from shared.hub.port import (
    CommandReply,
    DeviceOfflineError,
    Document,
    Event,
    HubError,
    HubRefusedError,
    HubUnavailableError,
    Twin,
    UnknownDeviceError,
    VersionConflictError,
    Versioned,
    log_started_over,
)
from shared.ids import DeviceId

_API_VERSION = "2021-04-12"
_REQUEST_S = 30.0
_RESPONSE_TIMEOUT_S = (5, 300)
_EVENT_WAIT_S_MAX = 60.0


class EventSource(Protocol):
    """Where the events of an Azure IoT Hub come from; the local hub's come by its own service API."""

    async def read(self, after: int, *, limit: int, wait_s: float) -> list[Event]:
        """As `FleetHub.read_events`. Raises HubError."""
        ...

    async def close(self) -> None: ...


class IotHubFleet:
    """Every device of one hub. Implements `shared.hub.port.FleetHub`.

    Args:
        access: The connection string of a policy with RegistryReadWrite and ServiceConnect, or another proof.
        ca_file: PEM of the CA that signed the local hub's certificate; None trusts the system's, as for Azure.
        events: Where events come from; None means the local hub's own log.
        clock: Seconds since the epoch, for a connection string's tokens.
    """

    def __init__(
        self,
        access: str | Access,
        *,
        ca_file: Path | None,
        events: EventSource | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._access = KeyAccess(access, clock=clock) if isinstance(access, str) else access
        self._events = events
        self._client = httpx.AsyncClient(
            base_url=f"https://{self._access.hostname}",
            params={"api-version": _API_VERSION},
            verify=_tls(ca_file),
            timeout=_REQUEST_S,
            trust_env=ca_file is None,
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=16),
        )

    async def add_device(self, device_id: DeviceId) -> None:
        body = {"deviceId": device_id, "status": "enabled", "authentication": {"type": "certificateAuthority"}}
        try:
            await self._request("PUT", f"/devices/{_segment(device_id)}", body=body)
        except VersionConflictError:
            return  # It exists: added before, by us or by a call whose answer was lost.

    async def remove_device(self, device_id: DeviceId) -> None:
        try:
            await self._request("DELETE", f"/devices/{_segment(device_id)}", headers={"If-Match": "*"})
        except UnknownDeviceError:
            return

    async def get_twin(self, device_id: DeviceId) -> Twin:
        answer = await self._request("GET", f"/twins/{_segment(device_id)}")
        properties = answer["properties"]
        return Twin(desired=_versioned(properties["desired"]), reported=_versioned(properties["reported"]))

    async def set_desired(self, device_id: DeviceId, patch: Document) -> int:
        body = {"properties": {"desired": dict(patch)}}
        answer = await self._request("PATCH", f"/twins/{_segment(device_id)}", body=body, headers={"If-Match": "*"})
        return int(answer["properties"]["desired"]["$version"])

    async def command(self, device_id: DeviceId, name: str, payload: Any, *, timeout_s: float) -> CommandReply:
        low, high = _RESPONSE_TIMEOUT_S
        body = {
            "methodName": name,
            "payload": payload,
            "responseTimeoutInSeconds": min(max(math.ceil(timeout_s), low), high),
            "connectTimeoutInSeconds": 0,
        }
        path = f"/twins/{_segment(device_id)}/methods"
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._request("POST", path, body=body, timeout_s=timeout_s + _REQUEST_S)
        except TimeoutError:
            raise DeviceOfflineError(
                f"Expected device {device_id} to answer {name!r} within {timeout_s:g} s, got nothing"
            ) from None
        return CommandReply(int(answer["status"]), answer.get("payload"))

    async def read_events(self, after_offset: int, *, limit: int, wait_s: float) -> list[Event]:
        if self._events is not None:
            return await self._events.read(after_offset, limit=limit, wait_s=wait_s)
        wait_s = min(wait_s, _EVENT_WAIT_S_MAX)
        query = {"after": after_offset, "limit": limit, "waitSeconds": wait_s}
        answer = await self._request("GET", "/events", query=query, timeout_s=wait_s + _REQUEST_S)
        if answer["lastOffset"] < after_offset:
            raise log_started_over(newest=answer["lastOffset"], after=after_offset)
        return [_event(form) for form in answer["events"]]

    async def close(self) -> None:
        if self._events is not None:
            await self._events.close()
        await self._access.close()
        await self._client.aclose()

    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        query: Mapping[str, float] | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = _REQUEST_S,
    ) -> Any:
        """The answer's JSON, None where it has none. Raises HubError."""
        authorization = await self._access.authorization()
        try:
            response = await self._client.request(
                method,
                path,
                json=body,
                params=query,
                headers={"Authorization": authorization, **(headers or {})},
                timeout=timeout_s,
            )
            if response.is_success:
                return response.json() if response.content else None
        except httpx.HTTPError as error:
            raise _unreachable(self._access.hostname, error) from error
        except ValueError as error:
            raise HubUnavailableError(f"Expected JSON from the hub, got: {error}") from error
        raise _refusal(response)


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        raise HubRefusedError(f"Expected the hub's CA in {ca_file}, got: {error}") from error


def _segment(text: str) -> str:
    return quote(text, safe="")


def _versioned(section: dict[str, Any]) -> Versioned:
    document = {key: value for key, value in section.items() if key not in ("$version", "$metadata")}
    return Versioned(document, int(section["$version"]))


def _event(form: dict[str, Any]) -> Event:
    return Event(
        device_id=DeviceId(form["deviceId"]),
        offset=int(form["offset"]),
        enqueued_at=datetime.fromisoformat(form["enqueuedTime"]).timestamp(),
        payload=base64.b64decode(form["body"]),
    )


def _unreachable(hostname: str, error: httpx.HTTPError) -> HubError:
    cause: BaseException | None = error
    for _ in range(10):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return HubRefusedError(
                f"Expected a certificate of a trusted CA from {hostname}, got: {cause.verify_message}"
            )
        cause = None if cause is None else cause.__cause__ or cause.__context__
    return HubUnavailableError(f"Expected the hub at {hostname} to answer, got {type(error).__name__}: {error}")


def _refusal(response: httpx.Response) -> HubError:
    """The hub's error in the port's words."""
    message = _message(response)
    match response.status_code:
        case 404 if "404103" in message or "DeviceNotOnline" in message:
            return DeviceOfflineError(f"Expected the device to be connected, got: {message}")
        case 504:
            return DeviceOfflineError(f"Expected the device to answer in time, got: {message}")
        case 404:
            return UnknownDeviceError(f"Expected a registered device, got: {message}")
        case 409 | 412:
            return VersionConflictError(f"Expected the version that was read, got: {message}")
        case 408 | 429:
            return HubUnavailableError(f"Expected the hub to have room, got: {message}")
        case status if status >= 500:
            return HubUnavailableError(f"Expected the hub to answer, got {status}: {message}")
        case status:
            return HubRefusedError(f"Expected the hub to take the request, got {status}: {message}")


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["Message"])[:500]
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
