"""The device's end of Azure IoT Hub, and of the local hub, which speaks the same: adapts azure-iot-device.

The SDK's habits that this file keeps away from the agent:
- It reconnects by itself at a fixed interval and connects by itself on use: both are off, back-off is the agent's.
- A client that lost its connection does not always come back: each `connect` makes a fresh one and shuts the old down.
- Its calls can wait without end: each has a bound here, and ends at once when the connection does.
- It calls handlers on threads of its own: they only hand over to the agent's event loop.
- It keeps a few threads a process (pipeline, callbacks, three loops) for good; a client that is shut down keeps none.
- It logs failures that it also raises: its loggers are silenced.
- It leaves the socket of a failed TLS handshake open: it is closed here.
"""

import asyncio
import logging
import re
import ssl
import traceback
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from edge_agent.hubs.commands import BUSY, COMMANDS_MAX, handled
from edge_agent.hubs.provisioning import assigned_hub, is_provisioned
from edge_agent.light_imports import without
from shared.hub.port import (
    EVENT_BYTES_MAX,
    CommandHandler,
    Document,
    HubRefusedError,
    HubUnavailableError,
    Twin,
    Versioned,
)
from shared.hub.queues import until_closed
from shared.ids import DeviceId

if TYPE_CHECKING:
    from azure.iot.device.aio import IoTHubDeviceClient

_log = structlog.get_logger("hub")
_T = TypeVar("_T")

_CALL_S = 30.0
_SHUTDOWN_S = 5.0
_AZURE = tuple(f".azure-devices{kind}.{ending}" for kind in ("", "-provisioning") for ending in ("net", "us", "cn"))
_PATCHES_MAX = 256
_CAUSES_MAX = 10
_TWIN_REFUSAL = re.compile(r"returned status 4(?!08|29)\d\d")
"""The SDK's words for a twin request that the hub refused for good."""


def is_azures(hostname: str) -> bool:
    """Whether this is a hub of Azure itself, or its provisioning service: their certificates are of a public CA."""
    return hostname.lower().endswith(_AZURE)


class IotHubDevice:
    """One device's connection. Implements `shared.hub.port.DeviceHub`.

    Args:
        hostname: The hub's name, as in its certificate, or `ID_SCOPE@HOST` of a provisioning service that assigns one.
            The port is 8883, fixed in the SDK.
        device_id: Equal to the certificate's common name.
        certificate_file: PEM; read again at each connect, so a renewed one is used from then on.
        key_file: PEM.
        ca_pem: PEM text of the CAs that may sign the hub's certificate; None for the system's, as for Azure's hubs.
        keep_alive_s: The hub notices a silent device after one and a half times this. A TLS handshake that the other
            side never finishes also occupies the SDK's thread for this long, whatever `connect_timeout_s` says.
        connect_timeout_s: How long `connect` waits before it raises HubUnavailableError.
    """

    def __init__(
        self,
        *,
        hostname: str,
        device_id: DeviceId,
        certificate_file: Path,
        key_file: Path,
        ca_pem: str | None,
        keep_alive_s: int = 60,
        connect_timeout_s: float = 30.0,
    ) -> None:
        self._hostname = hostname
        self._device_id = device_id
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._ca_pem = ca_pem
        self._keep_alive_s = keep_alive_s
        self._connect_timeout_s = connect_timeout_s
        self._handler: CommandHandler | None = None
        self._connection: _Connection | None = None
        self._assigned_hub = ""

    async def connect(self) -> None:
        await self.close()
        connection = _Connection(self._client(await self._find_hub()), self._handler)
        try:
            await connection.open(timeout_s=self._connect_timeout_s)
        except BaseException as error:
            if isinstance(error, HubRefusedError):
                self._assigned_hub = ""  # Another one may have it by now.
            await connection.close()
            raise
        self._connection = connection

    async def _find_hub(self) -> str:
        """The hub's host: as given, or as a provisioning service has assigned it."""
        if not is_provisioned(self._hostname):
            return self._hostname
        if not self._assigned_hub:
            self._assigned_hub = await assigned_hub(
                self._hostname,
                device_id=self._device_id,
                certificate_file=self._certificate_file,
                key_file=self._key_file,
                ca_pem=self._ca_pem,
            )
            _log.info("hub_assigned", hub=self._assigned_hub)
        return self._assigned_hub

    async def send_event(self, payload: bytes) -> None:
        if len(payload) > EVENT_BYTES_MAX:
            raise HubRefusedError(f"Expected an event of at most {EVENT_BYTES_MAX} bytes, got {len(payload)}")
        await self._live().send_event(payload)

    async def get_twin(self) -> Twin:
        return await self._live().get_twin()

    async def desired_changes(self) -> AsyncIterator[Versioned]:
        async for change in self._live().desired_changes():
            yield change

    async def report(self, patch: Document) -> None:
        await self._live().report(patch)

    def on_command(self, handler: CommandHandler) -> None:
        self._handler = handler

    async def wait_closed(self) -> None:
        if self._connection is not None:
            await self._connection.closed.wait()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _live(self) -> "_Connection":
        if self._connection is None or self._connection.closed.is_set():
            raise _lost()
        return self._connection

    def _client(self, hostname: str) -> "IoTHubDeviceClient":
        # The SDK takes 7 MB and half a second; a device on another hub never loads it. It brings requests, which it
        # uses for uploads alone, and that a guesser of encodings: 3 MB more, and a warning when it is missing.
        with warnings.catch_warnings(), without("charset_normalizer", "chardet"):
            warnings.simplefilter("ignore")
            from azure.iot.device import X509
            from azure.iot.device.aio import IoTHubDeviceClient

        for name in ("azure.iot.device", "paho"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            return IoTHubDeviceClient.create_from_x509_certificate(
                X509(str(self._certificate_file), str(self._key_file)),  # type: ignore[no-untyped-call]  # the SDK's
                hostname,
                self._device_id,
                server_verification_cert=self._ca_pem,
                keep_alive=self._keep_alive_s,
                auto_connect=False,
                connection_retry=False,
                ensure_desired_properties=False,
            )
        except (OSError, ValueError) as error:
            raise HubRefusedError(
                f"Expected a certificate, its key and the hub's CA in PEM, got: {error}",
                hint="Enrol the device again, or restore its identity folder.",
            ) from error


class _Connection:
    """One SDK client, from its connect to its end."""

    def __init__(self, client: "IoTHubDeviceClient", handler: CommandHandler | None) -> None:
        self.closed = asyncio.Event()
        self._client = client
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._patches: asyncio.Queue[Versioned] = asyncio.Queue(_PATCHES_MAX)
        self._commands: set[asyncio.Task[None]] = set()
        self._abandoned: set[asyncio.Future[Any]] = set()

    async def open(self, *, timeout_s: float) -> None:
        """Connects, and listens to everything, so that nothing is missed after the first read of the twin."""
        await self._call(self._client.connect(), timeout_s=timeout_s)
        self._client.on_connection_state_change = self._on_state_change  # type: ignore[assignment]  # called without arguments
        if not self._client.connected:
            raise _lost()
        await self._listen("on_twin_desired_properties_patch_received", self._on_patch)
        if self._handler is not None:
            await self._listen("on_method_request_received", self._on_method)

    async def send_event(self, payload: bytes) -> None:
        from azure.iot.device import Message

        message = Message(payload, content_encoding="utf-8", content_type="application/json")  # type: ignore[no-untyped-call]  # the SDK's
        await self._call(self._client.send_message(message))

    async def get_twin(self) -> Twin:
        twin = await self._call(self._client.get_twin())
        return Twin(desired=_versioned(twin["desired"]), reported=_versioned(twin["reported"]))

    async def report(self, patch: Document) -> None:
        await self._call(self._client.patch_twin_reported_properties(dict(patch)))

    def desired_changes(self) -> AsyncIterator[Versioned]:
        """Patches until the connection ends."""
        return until_closed(self._patches, self.closed)

    async def close(self) -> None:
        """Ends the connection and the client's threads; a client that hangs is left behind after a while."""
        self.closed.set()
        for task in self._commands:
            task.cancel()
        try:
            async with asyncio.timeout(_SHUTDOWN_S):
                await self._client.shutdown()
        except Exception as error:
            # Whatever a dying client says, there is nothing left to do with it.
            _log.warning("hub_client_not_shut_down", error=type(error).__name__)

    # Calls into the SDK

    async def _call(self, call: Awaitable[_T], *, timeout_s: float = _CALL_S) -> _T:
        """Awaits the SDK: not longer than the time, and not longer than the connection lives. Raises HubError."""
        work = asyncio.ensure_future(call)
        ended = asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait({work, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
        except Exception as error:
            _close_sockets(error)
            raise _translated(error) from error
        finally:
            ended.cancel()
            if not work.done():
                # Not cancelled: the SDK would later set the result of a cancelled future, and asyncio log an error.
                self._abandoned.add(work)
                work.add_done_callback(self._forget)
        if self.closed.is_set():
            raise _lost()
        raise HubUnavailableError(f"Expected the hub to answer within {timeout_s:g} s, got nothing")

    def _forget(self, work: "asyncio.Future[Any]") -> None:
        self._abandoned.discard(work)
        if not work.cancelled():
            work.exception()  # Looked at, so that asyncio does not report it: its caller has had its answer.

    async def _listen(self, feature: str, handler: Callable[[Any], None]) -> None:
        """Sets a handler; the SDK's setter blocks until the hub has confirmed the subscription, so on a thread."""
        await self._call(asyncio.to_thread(setattr, self._client, feature, handler))

    # The SDK's threads call these.

    def _on_state_change(self) -> None:
        if not self._client.connected:
            self._hand_over(self.closed.set)

    def _on_patch(self, patch: dict[str, Any]) -> None:
        self._hand_over(self._take_patch, _versioned(patch))

    def _on_method(self, request: Any) -> None:  # the SDK's MethodRequest; untyped
        self._hand_over(self._take_command, request)

    def _hand_over(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    # On the agent's loop

    def _take_patch(self, change: Versioned) -> None:
        if self._patches.full():
            # Losing one would leave a hole; after a new connection the agent reads the whole document.
            self.closed.set()
            return
        self._patches.put_nowait(change)

    def _take_command(self, request: Any) -> None:
        if self.closed.is_set() or self._handler is None:
            return
        task = self._loop.create_task(self._answer(request, self._handler))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)

    async def _answer(self, request: Any, handler: CommandHandler) -> None:
        from azure.iot.device import MethodResponse

        if len(self._commands) > COMMANDS_MAX:
            reply = BUSY
        else:
            reply = await handled(handler, request.name, request.payload)
        response = MethodResponse.create_from_method_request(request, reply.status, reply.payload)
        try:
            await self._call(self._client.send_method_response(response))
        except HubUnavailableError:
            _log.warning("command_reply_lost", command=request.name)


def _versioned(section: dict[str, Any]) -> Versioned:
    document = {key: value for key, value in section.items() if key != "$version"}
    return Versioned(document, int(section.get("$version", 0)))


def _lost() -> HubUnavailableError:
    return HubUnavailableError("Expected a live connection to the hub, got none", hint="Connect again.")


def _translated(error: Exception) -> HubUnavailableError | HubRefusedError:
    """The SDK's error in the port's words: refused where trying again does not help."""
    from azure.iot.device import exceptions

    causes = _causes(error)
    if any(isinstance(cause, exceptions.CredentialError) or _is_tls_refusal(cause) for cause in causes):
        return HubRefusedError(
            f"Expected the hub to accept this device's certificate, got: {causes[-1]}",
            hint="Check that the device is enrolled and enabled, and that the hub's CA is the one expected.",
        )
    if any(_TWIN_REFUSAL.search(str(cause)) for cause in causes):
        return HubRefusedError(f"Expected a document that the hub takes, got: {causes[-1]}")
    if isinstance(error, ValueError | TypeError):
        return HubRefusedError(f"Expected a message that the hub takes, got: {error}")
    return HubUnavailableError(f"Expected the hub to answer, got {type(causes[-1]).__name__}: {causes[-1]}")


def _close_sockets(error: BaseException) -> None:
    """Closes the socket that paho leaves open when a TLS handshake fails, rather than wait for the gc."""
    for cause in _causes(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            for value in list(frame.f_locals.values()):
                if isinstance(value, ssl.SSLSocket) and frame.f_code.co_name == "reconnect":
                    value.close()


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None and len(chain) < _CAUSES_MAX:
        chain.append(chain[-1].__cause__)
    return chain


def _is_tls_refusal(error: BaseException) -> bool:
    """A certificate that one side does not accept; broken handshakes are not among them."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    text = str(error).upper() if isinstance(error, ssl.SSLError) else ""
    return any(
        alert in text for alert in ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED")
    )
