"""The devices' door: MQTT over TLS. The thin shell around `session.Session`.

What a packet leads to happens at once, where the bytes arrive, as long as nothing has to be waited for. What waits
(proof of identity, twins, room for events) is a task's, and all that comes meanwhile queues behind it, so that a
device's packets are handled in their order. A connection that is idle has a timer and no task.

A connection counts from the moment it is accepted, so handshakes are bounded too. Received packets wait in a bounded
inbox (the socket is not read while it is full), and a device that does not read what it is sent is closed.
"""

import asyncio
import contextlib
import math
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import structlog

from cloud.localhub import codec, session, topics
from cloud.localhub.errors import MqttError, RefusedError, ServiceError
from cloud.localhub.gates import Verdict
from cloud.localhub.hub import Hub
from cloud.localhub.links import Link
from cloud.localhub.provisioning import Registrant
from cloud.localhub.throttles import Operation
from cloud.localhub.tls import TlsServer, Unencrypted
from cloud.localhub.twins import compact

_log = structlog.get_logger("localhub")

_SHUTDOWN_S = 5.0
"""A device that does not take what was sent last is cut off after this."""


class MqttServer:
    """Listens for devices. `await start(...)`, then `await close()`."""

    def __init__(self, hub: Hub, tls: ssl.SSLContext) -> None:
        self.hub = hub
        self.tls = tls
        self.port = 0
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, *, address: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), address, port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    def opened(self, connection: "Connection") -> bool:
        """Counts a connection in; False where there are too many."""
        if len(self._connections) >= self.hub.limits.connections_max:
            return False
        self._connections.add(connection)
        return True

    def ended(self, connection: "Connection") -> None:
        self._connections.discard(connection)

    async def close(self) -> None:
        """Stops listening and waits for the connections' tasks."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.close("the hub is stopping")
        tasks = [connection.task for connection in connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=5.0)


class Connection(asyncio.Protocol):
    """One socket: plain at first, then TLS, then a session. Behind a WebSocket, TLS is done when it begins."""

    def __init__(self, server: MqttServer, tls: TlsServer | Unencrypted | None = None) -> None:
        self.task: asyncio.Task[None] | None = None
        """What waits at the moment, and in the end what takes the connection out of the books."""
        self._server = server
        self._hub = server.hub
        self._limits = server.hub.limits
        self._transport: asyncio.Transport | None = None
        self._tls = tls or TlsServer(server.tls)
        self._secured_at = 0.0
        self._decoder = codec.Decoder(packet_bytes_max=session.PACKET_BYTES_MAX)
        self._inbox: deque[codec.Packet] | None = None
        """Packets that wait for the task; made when the first one does, because even an empty one is large."""
        self._inbox_bytes = 0
        self._is_paused = False
        self._effects: list[session.Effect] = []
        self._in_flight = 0
        self._room: asyncio.Event | None = None
        self._opened_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._session = session.Session()
        self._link: Link | None = None
        self._registrant: Registrant | None = None
        self._keeps_session = False
        self._failure: str | None = None
        self._ending: str | None = None
        """Why nothing more will come; what came before is handled all the same."""
        self._last_received = 0.0
        self._expires_at = math.inf

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it
        if not self._server.opened(self):
            self._failure = "there are too many connections"
            transport.abort()
            return
        self._transport = transport
        self._opened_at = self._secured_at = asyncio.get_running_loop().time()
        self._arm()

    def data_received(self, data: bytes) -> None:
        if self._failure is not None:
            return
        self._last_received = asyncio.get_running_loop().time()
        try:
            for packet in self._decoder.feed(self._decrypt(data)):
                if self._failure is None:
                    self._receive(packet)
        except MqttError as error:
            self.close(str(error))
        except ssl.SSLError as error:
            self.close(f"TLS failed: {error}")
        else:
            self._count_waiting(len(data))
            if self._tls.is_ended:
                self._end("the device ended TLS")

    def _receive(self, packet: codec.Packet) -> None:
        if not self._effects:
            self._effects += self._session.receive(packet)
            self._advance()
        elif self._inbox is None:
            self._inbox = deque((packet,))
        else:
            self._inbox.append(packet)

    def _count_waiting(self, size: int) -> None:
        if self._effects and self._transport is not None:
            self._inbox_bytes += size
            if self._inbox_bytes > self._limits.inbox_bytes_max and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("the connection was lost" if exc is None else f"the connection was lost: {exc}")

    def _end(self, reason: str) -> None:
        """Nothing more will come; closes when what came before is handled."""
        if self._effects:
            self._ending = reason
        else:
            self.close(reason)

    def _decrypt(self, data: bytes) -> bytes:
        was_established = self._tls.is_established
        try:
            return self._tls.receive(data)
        finally:
            self._flush()
            if self._tls.is_established and not was_established:
                self._secured_at = self._last_received
                self._arm()

    def _flush(self) -> None:
        if self._transport is not None and (encrypted := self._tls.outgoing()):
            self._transport.write(encrypted)

    # What a packet leads to.

    def _advance(self) -> None:
        """Handles what needs no waiting, in order; a task takes over at the first effect that does."""
        while self._failure is None:
            while self._effects:
                if not self._perform_now(self._effects[0]):
                    if self.task is None:
                        self.task = asyncio.get_running_loop().create_task(self._work())
                    return
                del self._effects[0]
            if not self._inbox:
                break
            self._effects += self._session.receive(self._inbox.popleft())
        if self._ending is not None:
            self.close(self._ending)
        self._drained()

    async def _work(self) -> None:
        """Performs what has to be waited for, and what queued behind it; the connection's end too, where it comes."""
        try:
            while self._effects and self._failure is None:
                await self._perform(self._effects[0])
                del self._effects[0]
                self._advance()
                self._arm()
        finally:
            if self._effects:
                self.close("the connection's task ended")
            if self._failure is not None:
                await self._finish()
            self.task = None

    def _drained(self) -> None:
        self._inbox, self._inbox_bytes = None, 0
        if self._is_paused and self._transport is not None and self._failure is None:
            self._is_paused = False
            self._transport.resume_reading()

    # Time.

    def _arm(self) -> None:
        """Looks at the deadline when it comes; what arrives meanwhile moves it, and not the timer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._failure is None:
            self._timer = asyncio.get_running_loop().call_at(self._deadline(), self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        if asyncio.get_running_loop().time() >= self._deadline():
            self.close("nothing came in the time allowed, or the token expired")
        else:
            self._arm()

    def _deadline(self) -> float:
        if self._session.state is session.State.CONNECTED:
            silent_until = self._last_received + 1.5 * self._session.keep_alive_s
            return min(silent_until, self._expires_at)
        if self._tls.is_established:
            return self._secured_at + self._limits.connect_s
        return self._opened_at + self._limits.handshake_s

    async def _finish(self) -> None:
        """Takes the connection out of the books, and publishes the will of one that went without a word."""
        self._server.ended(self)
        if self._link is None:
            _log.debug("connection_ended", reason=self._failure)
            return
        self._hub.remove_link(self._link)
        will = self._session.will
        if will is not None:
            with contextlib.suppress(ServiceError):
                await self._hub.events.append_one(self._session.key, will.properties, will.body)
        _log.info("device_disconnected", device_id=self._session.key, reason=self._failure)

    # Effects of the session.

    def _perform_now(self, effect: session.Effect) -> bool:
        """Performs an effect, or returns False where something has to be waited for."""
        must_ask = self._hub.gates.are_shut and _asked_of(effect) is not None
        return not must_ask and self._perform_at_once(effect)

    def _perform_at_once(self, effect: session.Effect) -> bool:
        match effect:
            case session.StoreEvent():
                if self._in_flight >= self._limits.in_flight_max or not self._hub.events.has_room:
                    return False
                self._append(effect)
            case session.Reply(packet):
                self.send(packet)
            case session.AnswerMethod(rid, status, body):
                self._answer_method(rid, status, body)
            case session.Acknowledged(packet_id):
                if self._link is not None:
                    self._hub.mailbox.acknowledged(self._link, packet_id)
            case session.Close(reason):
                self.close(reason)
            case _:
                return False
        return True

    async def _perform(self, effect: session.Effect) -> None:
        if self._hub.gates.are_shut and not await self._passes(effect):
            return
        if self._perform_at_once(effect):
            return
        match effect:
            case session.StoreEvent():
                await self._append_when_there_is_room(effect)
            case session.GetTwin(rid):
                await self._answer_twin(rid)
            case session.PatchReported(rid, body):
                await self._patch_reported(rid, body)
            case session.KeepSubscriptions(filters, reply):
                await self._keep_subscriptions(filters, reply)
            case session.AuthenticateRegistration():
                await self._authenticate_registration(effect)
            case session.Provision(request):
                await self._provision(request)
            case session.Authenticate():
                await self._authenticate(effect)

    def _append(self, event: session.StoreEvent) -> None:
        assert self._link is not None
        self._in_flight += 1
        self._link.seen_at = self._hub.time()
        device_id = self._session.key
        self._hub.events.append(device_id, event.properties, event.body, sender=self, token=event.packet_id)

    async def _passes(self, effect: session.Effect) -> bool:
        """Whether throttles and injected faults let an effect pass; what they do instead is done by then."""
        asked = _asked_of(effect)
        if asked is None:
            return True
        operation, size_bytes = asked
        key = effect.key if isinstance(effect, session.Authenticate) else self._session.key
        try:
            verdict = await self._hub.gates.ask(operation, key, size_bytes=size_bytes)
        except ServiceError as error:
            self._refuse(effect, error)
            return False
        if verdict is Verdict.CLOSE:
            self.close("a fault that was injected")
        if verdict is Verdict.TWICE and isinstance(effect, session.StoreEvent):
            await self._append_when_there_is_room(replace(effect, packet_id=0))
        return verdict in (Verdict.GO, Verdict.TWICE)

    def _refuse(self, effect: session.Effect, error: ServiceError) -> None:
        """Refuses as MQTT can: a twin's request has a status, a CONNECT a return code, an event only the connection."""
        match effect:
            case session.GetTwin(rid) | session.PatchReported(rid):
                self._twin_answer(topics.twin_answer_topic(error.status, rid))
                return
            case session.Authenticate():
                self.send(codec.ConnAck(3))
        self.close(str(error))

    async def _append_when_there_is_room(self, event: session.StoreEvent) -> None:
        await self._hub.events.room()
        while self._in_flight >= self._limits.in_flight_max and self._failure is None:
            self._room = asyncio.Event()
            await self._room.wait()
        if self._failure is None:
            self._append(event)

    def events_stored(self, tokens: Sequence[int]) -> None:
        """Acknowledges what is on disk, all in one write; a token is the packet's id, 0 for one of QoS 0."""
        self._in_flight -= len(tokens)
        if packet_ids := [token for token in tokens if token]:
            self._send(codec.encode_acknowledgements(packet_ids))
        if self._room is not None:
            self._room.set()

    def events_lost(self) -> None:
        self.close("an event could not be stored")

    async def _answer_twin(self, rid: str) -> None:
        try:
            twin = await self._hub.twin_of(self._session.key)
        except ServiceError as error:
            self._twin_answer(topics.twin_answer_topic(error.status, rid))
            return
        body = {"desired": twin.desired.for_device(), "reported": twin.reported.for_device()}
        self._twin_answer(topics.twin_answer_topic(200, rid), compact(body).encode())

    async def _patch_reported(self, rid: str, body: bytes) -> None:
        try:
            version = await self._hub.patch_reported(self._session.key, body)
        except ServiceError as error:
            text = compact({"errorCode": error.number, "message": str(error)}).encode()
            self._twin_answer(topics.twin_answer_topic(error.status, rid), text)
            return
        self._twin_answer(topics.twin_answer_topic(204, rid, version=version))

    def _twin_answer(self, topic: str, body: bytes = b"") -> None:
        if topics.TWIN_ANSWERS_FILTER in self._session.filters:
            self.send(codec.Publish(topic, body))

    def _answer_method(self, rid: str, status: int, body: bytes) -> None:
        assert self._link is not None
        try:
            self._link.answer_method(rid, status, body)
        except MqttError as error:
            self.close(str(error))

    async def _keep_subscriptions(self, filters: Mapping[str, int], reply: codec.Packet) -> None:
        if self._keeps_session:
            try:
                await self._hub.keep_filters(self._session.key, filters)
            except ServiceError as error:
                self.close(str(error))
                return
        self._hub.links.subscriptions_changed()
        self.send(reply)
        await self._deliver_messages()

    async def _deliver_messages(self) -> None:
        """Sends the messages from the cloud that wait, if the device listens to them."""
        if self._link is None:
            return
        try:
            await self._hub.mailbox.deliver(self._link)
        except ServiceError as error:
            self.close(str(error))

    async def _authenticate(self, request: session.Authenticate) -> None:
        try:
            proven = await self._hub.authenticate(request, self._tls.peer_certificate())
        except RefusedError as error:
            _log.warning("device_refused", device_id=request.key, reason=str(error))
            self.send(codec.ConnAck(5))
            self.close(str(error))
            return
        except ServiceError as error:
            self.send(codec.ConnAck(3))
            self.close(str(error))
            return
        if self._failure is not None:
            return
        self._expires_at = asyncio.get_running_loop().time() + proven.expiry - self._hub.time()
        self._keeps_session = not request.clean_session
        replies = self._session.accept(proven.device.filters, clean_session=request.clean_session)
        self._link = Link(self._session, self.send, self.close)
        self._hub.add_link(self._link)
        for reply in replies:
            await self._perform(reply)
        _log.info("device_connected", device_id=request.key)
        if request.clean_session and proven.device.filters:
            await self._hub.keep_filters(request.key, {})
        await self._deliver_messages()

    async def _authenticate_registration(self, request: session.AuthenticateRegistration) -> None:
        try:
            self._registrant = await self._hub.provisioning.authenticate(request, self._tls.peer_certificate())
        except RefusedError as error:
            _log.warning("registration_refused", registration_id=request.registration_id, reason=str(error))
            self.send(codec.ConnAck(5))
            self.close(str(error))
            return
        except ServiceError as error:
            self.send(codec.ConnAck(3))
            self.close(str(error))
            return
        self._expires_at = asyncio.get_running_loop().time() + self._registrant.expiry - self._hub.time()
        for reply in self._session.accept({}, clean_session=True):
            await self._perform(reply)

    async def _provision(self, request: topics.Register | topics.OperationStatus) -> None:
        assert self._registrant is not None
        answer = await self._hub.provisioning.answer(self._registrant, request)
        if topics.REGISTRATION_FILTER in self._session.filters:
            self.send(answer)

    # What the hub and the task do to the socket.

    def send(self, packet: codec.Packet) -> None:
        """Queues a packet; closes a device that does not read."""
        self._send(codec.encode(packet))

    def _send(self, data: bytes) -> None:
        if self._failure is not None or self._transport is None or self._transport.is_closing():
            return
        self._tls.send(data)
        self._flush()
        if self._transport.get_write_buffer_size() > self._limits.outgoing_bytes_max:
            self.close("the device reads too slowly")
            self._transport.abort()

    def close(self, reason: str) -> None:
        """Ends the connection; what was sent before still goes out, if the device reads it soon. Safe to call twice."""
        if self._failure is not None:
            return
        self._failure = reason
        if self._room is not None:
            self._room.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            if self._tls.is_established:
                self._tls.end()
            self._flush()
            self._transport.close()
            asyncio.get_running_loop().call_later(_SHUTDOWN_S, self._transport.abort)
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._finish())


def _asked_of(effect: session.Effect) -> tuple[Operation, int] | None:
    """What a throttle counts an effect as, and its size in bytes; None for what is not counted."""
    match effect:
        case session.StoreEvent():
            return Operation.SEND, len(effect.body)
        case session.GetTwin():
            return Operation.TWIN_READ, 0
        case session.PatchReported(_, body):
            return Operation.TWIN_UPDATE, len(body)
        case session.Authenticate():
            return Operation.CONNECT, 0
    return None
