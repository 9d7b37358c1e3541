"""The cloud's end of Azure IoT Hub, and of the local hub, which speaks the same: a small REST client.

Identities, twins and commands are IoT Hub's service API. Events come from the local hub's own `/events`; on Azure they
come over AMQP from an Event Hubs endpoint, which this client does not read.
"""

import asyncio
import base64
import binascii
import hmac
import math
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx

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
_TOKEN_S = 3600
_RENEW_BEFORE_S = 300
_REQUEST_S = 30.0
_RESPONSE_TIMEOUT_S = (5, 300)
_EVENT_WAIT_S_MAX = 60.0


class ConnectionStringError(HubError):
    """Not a service connection string of an IoT Hub."""

    code = "connection_string"


@dataclass(frozen=True)
class ConnectionString:
    """`HostName=...;SharedAccessKeyName=...;SharedAccessKey=...`, read; the key never shows."""

    hostname: str
    policy: str
    key: bytes

    @classmethod
    def parse(cls, text: str) -> "ConnectionString":
        """Raises ConnectionStringError."""
        fields = dict(part.partition("=")[::2] for part in text.strip().split(";"))
        try:
            key = base64.b64decode(fields["SharedAccessKey"], validate=True)
            return cls(fields["HostName"], fields["SharedAccessKeyName"], key)
        except (KeyError, binascii.Error) as error:
            raise ConnectionStringError(
                "Expected HostName, SharedAccessKeyName and SharedAccessKey in the connection string",
                hint="`fleetlearn hub connection-string` prints the local hub's; Azure's portal shows IoT Hub's.",
            ) from error

    def __repr__(self) -> str:
        return f"ConnectionString(hostname={self.hostname!r}, policy={self.policy!r})"

    def token(self, *, now: float) -> str:
        """A token for the service API that lives an hour."""
        resource, expiry = quote_plus(self.hostname), int(now) + _TOKEN_S
        digest = hmac.digest(self.key, f"{resource}\n{expiry}".encode(), "sha256")
        signature = quote_plus(base64.b64encode(digest))
        return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={quote_plus(self.policy)}"


class IotHubFleet:
    """Every device of one hub. Implements `shared.hub.port.FleetHub`.

    Args:
        connection_string: A policy with RegistryReadWrite and ServiceConnect, such as `iothubowner`.
        ca_file: PEM of the CA that signed the local hub's certificate; None trusts the system's, as for Azure.
        clock: Seconds since the epoch, for the tokens.
    """

    def __init__(self, connection_string: str, *, ca_file: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._connection = ConnectionString.parse(connection_string)
        self._clock = clock
        self._token = ""
        self._token_renewal = -math.inf
        self._client = httpx.AsyncClient(
            base_url=f"https://{self._connection.hostname}",
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
        wait_s = min(wait_s, _EVENT_WAIT_S_MAX)
        query = {"after": after_offset, "limit": limit, "waitSeconds": wait_s}
        answer = await self._request("GET", "/events", query=query, timeout_s=wait_s + _REQUEST_S)
        if answer["lastOffset"] < after_offset:
            raise log_started_over(newest=answer["lastOffset"], after=after_offset)
        return [_event(form) for form in answer["events"]]

    async def close(self) -> None:
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
        try:
            response = await self._client.request(
                method,
                path,
                json=body,
                params=query,
                headers={"Authorization": self._authorization(), **(headers or {})},
                timeout=timeout_s,
            )
            if response.is_success:
                return response.json() if response.content else None
        except httpx.HTTPError as error:
            raise _unreachable(self._connection.hostname, error) from error
        except ValueError as error:
            raise HubUnavailableError(f"Expected JSON from the hub, got: {error}") from error
        raise _refusal(response)

    def _authorization(self) -> str:
        now = self._clock()
        if now >= self._token_renewal:
            self._token = self._connection.token(now=now)
            self._token_renewal = now + _TOKEN_S - _RENEW_BEFORE_S
        return self._token


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
