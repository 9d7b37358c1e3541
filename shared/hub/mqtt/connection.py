"""One MQTT connection on asyncio, from its connect to its end: adapts paho-mqtt 1.6, without its threads.

It never comes back by itself: back-off is its owner's, once. MQTT 5 is tried first, for what it adds (a session and a
message that expire, and reasons for a refusal), and 3.1.1 where the broker does not know it; nothing else differs.

paho's habits that this file keeps away from its callers:
- It acknowledges a message as soon as its callback returns: here `acknowledge` does, once the message is on disk.
- Its connect blocks: it runs on a thread. The socket of a failed handshake would stay open: it is closed here.
- It hides what the network raises in one place, and lets it through in others: all becomes a HubError, or the end.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shared.hub.mqtt.address import BrokerAddress
from shared.hub.port import HubError, HubRefusedError, HubUnavailableError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

RECEIVE_MAX = 1000
"""Messages that the broker sends before the first of them is acknowledged; MQTT 5 alone can say so."""
VERSIONS = (5, 4)
"""Of MQTT as CONNECT has them, in the order of trying; 4 is 3.1.1."""
_CALL_S = 30.0
_TICK_S = 1.0
_READS_MAX = 64
"""Packets taken from a TLS buffer before the loop's other work has its turn."""
_UNSUPPORTED = 0x84
_REFUSALS_5 = {0x85, 0x86, 0x87, 0x8A, 0x8C}
_REFUSALS_311 = {2, 4, 5}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Credential:
    """PEM files; read again at each connect, so that a renewed certificate is used from then on."""

    certificate_file: Path
    key_file: Path
    ca_pem: str
    """The CAs that may sign the broker's certificate, as text."""

    def context(self) -> ssl.SSLContext:
        """Raises HubRefusedError."""
        try:
            context = ssl.create_default_context(cadata=self.ca_pem)
            context.load_cert_chain(self.certificate_file, self.key_file)
            return context
        except (OSError, ValueError) as error:
            raise HubRefusedError(
                f"Expected a certificate, its key and the broker's CA in PEM, got: {error}",
                hint="Enrol the device again, or restore its identity folder.",
            ) from error


@dataclass(frozen=True)
class Session:
    """Who connects, and what the broker does when this connection is gone."""

    client_id: str
    expiry_s: int = 0
    """How long the broker keeps subscriptions and what they bring after the end. MQTT 3.1.1 has no such time: 0."""
    will: str | None = None
    """The topic of an empty message that the broker sends when the connection breaks."""
    keep_alive_s: int = 60


Take = Callable[["MqttConnection", str, bytes, int], None]
"""Called on the loop with (connection, topic, payload, message id).

`acknowledge` the id, or the broker sends the message again; 0 is a message that needs none (QoS 0).
"""


@dataclass(eq=False)
class MqttConnection:
    """A live connection; make one with `open`."""

    take: Take
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    version: str = ""
    """Of MQTT, as people say it."""
    _client: "Client" = field(init=False)
    _socket: int = -1
    _waiting: dict[int, asyncio.Future[Sequence[int]]] = field(default_factory=dict)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _connected: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _tick: asyncio.TimerHandle | None = None

    @classmethod
    async def open(
        cls, address: BrokerAddress, credential: Credential, session: Session, take: Take, *, timeout_s: float = 30.0
    ) -> "MqttConnection":
        """Connects and authenticates. Raises HubUnavailableError or HubRefusedError."""
        context = credential.context()
        try:
            async with asyncio.timeout(timeout_s):
                for version in VERSIONS:
                    connection = cls(take)
                    code = await connection._open(address, context, session, version, timeout_s=timeout_s)
                    if code == 0:
                        return connection
                    if code != _UNSUPPORTED:
                        break
        except TimeoutError:
            raise HubUnavailableError(f"Expected {address} to answer within {timeout_s:g} s, got nothing") from None
        raise _connect_refusal(address, version, code)

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Returns when the broker has confirmed. Raises HubRefusedError where it will not."""
        self._check_live()
        _, message_id = self._client.subscribe([(name, 1) for name in filters])
        granted = await self._confirmed(message_id)
        if any(code >= 0x80 for code in granted):
            raise HubRefusedError(
                f"Expected the broker to grant {', '.join(filters)}, got a refusal",
                hint="Write its access list anew: `fleetlearn hub acl`.",
            )

    async def publish(self, topic: str, payload: bytes, *, expires_s: float | None = None) -> None:
        """Returns when the broker has the message. `expires_s` is how long it is of use; only MQTT 5 can say so."""
        self._check_live()
        info = self._client.publish(topic, payload, qos=1, properties=self._expiry(expires_s))
        await self._confirmed(info.mid)

    def post(self, topic: str, payload: bytes) -> None:
        """Sends a message that is of use to nobody but a client connected now (QoS 0). Raises HubUnavailableError."""
        self._check_live()
        self._client.publish(topic, payload, qos=0)

    def acknowledge(self, message_id: int) -> None:
        """The broker may forget this message."""
        if message_id and not self.closed.is_set():
            self._client.acknowledge(message_id)

    async def until_closed(self, work: Awaitable[_T], *, timeout_s: float = _CALL_S) -> _T:
        """Awaits it: not longer than the time, and not longer than the connection lives. Raises HubUnavailableError."""
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait({task, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            ended.cancel()
            task.cancel()
        if self.closed.is_set():
            raise lost()
        raise HubUnavailableError(f"Expected an answer within {timeout_s:g} s, got nothing")

    async def close(self) -> None:
        """Says goodbye, so that the broker sends no will; safe to call twice."""
        if not self.closed.is_set():
            with contextlib.suppress(OSError):
                self._client.disconnect()
                self._write()
        self.end()

    # Opening

    async def _open(
        self, address: BrokerAddress, context: ssl.SSLContext, session: Session, version: int, *, timeout_s: float
    ) -> int:
        """0, or why the broker refused. Raises HubError, or TimeoutError."""
        self.version = "5" if version == 5 else "3.1.1"
        self._client = _make_client(session, version)
        self._client.tls_set_context(_Handshake(context, timeout_s=timeout_s))
        try:
            await asyncio.to_thread(self._connect, address, session, version)
            self._attach()
            code = await self._connected
        except BaseException as error:
            self.end()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise _translated(error, address) from error
            raise
        if code:
            self.end()
        return code

    def _connect(self, address: BrokerAddress, session: Session, version: int) -> None:
        """On a thread: the name, TCP, TLS, and the first packet."""
        extra: dict[str, Any] = {}  # Any: paho's own arguments
        if version == 5:
            extra = {"clean_start": session.expiry_s == 0, "properties": _connect_properties(session)}
        self._client.connect(address.host, address.port, session.keep_alive_s, **extra)
        if self.closed.is_set():  # nobody waited so long
            self._client._sock_close()

    def _attach(self) -> None:
        """From here on the loop reads and writes, and every callback of paho's comes on it."""
        client, sock = self._client, self._client.socket()
        if sock is None:
            raise lost()
        self._socket = sock.fileno()
        client.on_connect = lambda _c, _u, _flags, reason, *_: _settle(self._connected, _number(reason))
        client.on_disconnect = lambda *_: self.end()
        client.on_publish = lambda _c, _u, mid: self._confirm(mid, ())
        client.on_subscribe = lambda _c, _u, mid, codes, *_: self._confirm(mid, [_number(code) for code in codes])
        client.on_message = lambda _c, _u, message: self.take(self, message.topic, message.payload, message.mid)
        client.on_socket_register_write = lambda *_: self._want_write(is_wanted=True)
        client.on_socket_unregister_write = lambda *_: self._want_write(is_wanted=False)
        client.on_socket_close = lambda *_: self._detach()
        self._loop.add_reader(self._socket, self._read)
        self._want_write(is_wanted=client.want_write())
        self._tick = self._loop.call_later(_TICK_S, self._keep_alive)

    def _want_write(self, *, is_wanted: bool) -> None:
        if self._socket < 0:
            return
        if is_wanted:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)

    def _detach(self) -> None:
        descriptor, self._socket = self._socket, -1
        if descriptor >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)

    # The loop calls these

    def _read(self) -> None:
        try:
            for _ in range(_READS_MAX):
                self._client.loop_read()
                sock = self._client.socket()
                if sock is None or not sock.pending():
                    return
            self._loop.call_soon(self._read)
        except OSError as error:
            if not self._connected.done():
                self._connected.set_exception(error)
            self.end()

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except OSError:
            self.end()

    def _keep_alive(self) -> None:
        with contextlib.suppress(OSError):
            self._client.loop_misc()
        if not self.closed.is_set():
            self._tick = self._loop.call_later(_TICK_S, self._keep_alive)

    def end(self) -> None:
        """Drops the connection without a goodbye; safe to call twice."""
        if self.closed.is_set():
            return
        self.closed.set()
        if not self._connected.done():
            self._connected.set_exception(lost())
            self._connected.exception()  # looked at: there may be nobody who waits
        if self._tick is not None:
            self._tick.cancel()
        self._detach()
        # Not at once: paho may be in the middle of a callback, with a lock that closing takes too.
        self._loop.call_soon(self._client._sock_close)

    # Confirmations

    async def _confirmed(self, message_id: int | None) -> Sequence[int]:
        if message_id is None:
            raise lost()
        confirmed: asyncio.Future[Sequence[int]] = self._loop.create_future()
        self._waiting[message_id] = confirmed
        try:
            return await self.until_closed(confirmed)
        finally:
            self._waiting.pop(message_id, None)

    def _confirm(self, message_id: int, codes: Sequence[int]) -> None:
        waiting = self._waiting.get(message_id)
        if waiting is not None:
            _settle(waiting, codes)

    def _expiry(self, expires_s: float | None) -> Any:  # Any: paho's Properties
        if expires_s is None or self.version != "5":
            return None
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.PUBLISH)
        properties.MessageExpiryInterval = max(1, round(expires_s))
        return properties

    def _check_live(self) -> None:
        if self.closed.is_set():
            raise lost()


@dataclass(frozen=True)
class _Handshake:
    """Where paho wraps its socket: shakes hands at once, within the time, and closes the socket where that fails."""

    context: ssl.SSLContext
    timeout_s: float
    check_hostname: bool = True

    def wrap_socket(self, sock: Any, *, server_hostname: str, do_handshake_on_connect: bool) -> ssl.SSLSocket:
        try:
            sock.settimeout(self.timeout_s)
            # An answer and an acknowledgement are two small packets: the second would wait 40 ms for the first's ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self.context.wrap_socket(sock, server_hostname=server_hostname)
        except BaseException:
            sock.close()
            raise


def _make_client(session: Session, version: int) -> "Client":
    # paho is loaded only where a broker is the hub: 2 MB, and the light commands do without.
    from paho.mqtt.client import Client, MQTTv5

    class Deferring(Client):  # type: ignore[misc]  # untyped
        """paho 1.6 has no manual acknowledgement: this is what its 2.0 calls `ack`."""

        def _send_puback(self, mid: int) -> int:
            return 0

        def acknowledge(self, mid: int) -> None:
            super()._send_puback(mid)

    keeps = {} if version == MQTTv5 else {"clean_session": True}
    client = Deferring(client_id=session.client_id, protocol=version, reconnect_on_failure=False, **keeps)
    if session.will is not None:
        client.will_set(session.will, b"", qos=1)
    return client


def _connect_properties(session: Session) -> Any:  # Any: paho's Properties
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = session.expiry_s
    properties.ReceiveMaximum = RECEIVE_MAX
    return properties


def lost() -> HubUnavailableError:
    return HubUnavailableError("Expected a live connection to the broker, got none", hint="Connect again.")


def _number(reason: Any) -> int:  # Any: an integer under 3.1.1, paho's ReasonCodes under 5
    return int(getattr(reason, "value", reason))


def _settle(future: "asyncio.Future[_T]", value: _T) -> None:
    if not future.done():
        future.set_result(value)


def _connect_refusal(address: BrokerAddress, version: int, code: int) -> HubError:
    if code in (_REFUSALS_5 if version == 5 else _REFUSALS_311):
        return HubRefusedError(
            f"Expected {address} to accept this certificate, got refusal {code:#x}",
            hint="Its common name must be the user name, and the broker's access list must know the fleet.",
        )
    return HubUnavailableError(f"Expected {address} to accept the connection, got reason {code:#x}")


def _translated(error: OSError, address: BrokerAddress) -> HubError:
    if is_certificate_refused(error):
        return HubRefusedError(
            f"Expected {address} and this client to accept each other's certificates, got: {error}",
            hint="Check the CA of the broker's certificate, the CA that it trusts, and this client's certificate.",
        )
    # A broker may hang up before the alert that says why is read.
    hint = "If it goes on: does the broker trust the CA of this client's certificate?"
    is_tls = isinstance(error, ssl.SSLError)
    message = f"Expected {address} to answer, got {type(error).__name__}: {error}"
    return HubUnavailableError(message, hint=hint if is_tls else "")


def is_certificate_refused(error: BaseException) -> bool:
    """A certificate that one side does not accept; broken handshakes are not among them."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    text = str(error).upper().replace(" ", "_") if isinstance(error, ssl.SSLError) else ""
    alerts = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED", "CERTIFICATE_REQUIRED")
    return any(alert in text for alert in alerts)
