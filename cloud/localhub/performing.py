"""What a device's packets lead to in the hub: performs the effects of its session.

`perform_now` does what needs no waiting; `perform` does everything, one effect after the other. Throttles and injected
faults stand before both. Events are appended without waiting and acknowledged when the log says that they are on disk.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from cloud.localhub import codec, session, topics
from cloud.localhub.certificates import PeerCertificate
from cloud.localhub.errors import MqttError, RefusedError, ServiceError
from cloud.localhub.gates import Verdict
from cloud.localhub.hub import Hub
from cloud.localhub.links import Link
from cloud.localhub.provisioning import Registrant
from cloud.localhub.throttles import Operation
from cloud.localhub.twins import compact

_log = structlog.get_logger("localhub")

_UNAVAILABLE, _NOT_AUTHORIZED = 3, 5
"""Return codes of a CONNACK (MQTT 3.1.1, 3.2.2.3)."""


class Line(Protocol):
    """What is needed of the connection."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is about to."""
        ...

    def peer_certificate(self) -> PeerCertificate | None:
        """The verified client certificate, or None where there is none."""
        ...

    def expire_at(self, time_s: float) -> None:
        """Ends it at that time of the hub, unless it ends before."""
        ...

    def send(self, packet: codec.Packet) -> None:
        """Queues a packet."""
        ...

    def write(self, data: bytes) -> None:
        """Queues encoded packets."""
        ...

    def close(self, reason: str) -> None:
        """Ends it. Safe to call twice."""
        ...


class Performer:
    """Performs one session's effects; its events' `Sender`, and the owner of its `Link`."""

    __slots__ = ("_hub", "_in_flight", "_keeps_session", "_line", "_link", "_registrant", "_room", "_session")

    def __init__(self, hub: Hub, own: session.Session, line: Line) -> None:
        self._hub = hub
        self._session = own
        self._line = line
        self._link: Link | None = None
        self._registrant: Registrant | None = None
        self._keeps_session = False
        self._in_flight = 0
        self._room: asyncio.Event | None = None

    def perform_now(self, effect: session.Effect) -> bool:
        """Performs an effect, or returns False where something has to be waited for."""
        must_ask = self._hub.gates.are_shut and _asked_of(effect) is not None
        return not must_ask and self._perform_at_once(effect)

    async def perform(self, effect: session.Effect) -> None:
        """Performs an effect, whatever has to be waited for."""
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

    def stop_waiting(self) -> None:
        """Lets an event that waits for room go: the connection is over."""
        if self._room is not None:
            self._room.set()

    async def finish(self, reason: str) -> None:
        """Takes the device's link out of the hub, and publishes the will of one that went without a word."""
        if self._link is None:
            _log.debug("connection_ended", reason=reason)
            return
        self._hub.remove_link(self._link)
        will = self._session.will
        if will is not None:
            with contextlib.suppress(ServiceError):
                await self._hub.events.append_one(self._session.key, will.properties, will.body)
        _log.info("device_disconnected", device_id=self._session.key, reason=reason)

    def _perform_at_once(self, effect: session.Effect) -> bool:
        match effect:
            case session.StoreEvent():
                if self._in_flight >= self._hub.limits.in_flight_max or not self._hub.events.has_room:
                    return False
                self._append(effect)
            case session.Reply(packet):
                self._line.send(packet)
            case session.AnswerMethod(rid, status, body):
                self._answer_method(rid, status, body)
            case session.Acknowledged(packet_id):
                if self._link is not None:
                    self._hub.mailbox.acknowledged(self._link, packet_id)
            case session.Close(reason):
                self._line.close(reason)
            case _:
                return False
        return True

    # Throttles and faults.

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
            self._line.close("a fault that was injected")
        if verdict is Verdict.TWICE and isinstance(effect, session.StoreEvent):
            await self._append_when_there_is_room(replace(effect, packet_id=0))
        return verdict in (Verdict.GO, Verdict.TWICE)

    def _refuse(self, effect: session.Effect, error: ServiceError) -> None:
        """Refuses as MQTT can: a twin's request has a status, a CONNECT a return code, an event only the connection."""
        match effect:
            case session.GetTwin(rid) | session.PatchReported(rid):
                self._send_twin(topics.twin_answer_topic(error.status, rid))
            case session.Authenticate():
                self._turn_away(error, code=_UNAVAILABLE)
            case _:
                self._line.close(str(error))

    # Events.

    def _append(self, event: session.StoreEvent) -> None:
        assert self._link is not None
        self._in_flight += 1
        self._link.seen_at = self._hub.time()
        device_id = self._session.key
        self._hub.events.append(device_id, event.properties, event.body, sender=self, token=event.packet_id)

    async def _append_when_there_is_room(self, event: session.StoreEvent) -> None:
        await self._hub.events.room()
        while self._in_flight >= self._hub.limits.in_flight_max and not self._line.is_over:
            self._room = asyncio.Event()
            await self._room.wait()
        if not self._line.is_over:
            self._append(event)

    def events_stored(self, tokens: Sequence[int]) -> None:
        """Acknowledges what is on disk, all in one write; a token is the packet's id, 0 for one of QoS 0."""
        self._in_flight -= len(tokens)
        if packet_ids := [token for token in tokens if token]:
            self._line.write(codec.encode_acknowledgements(packet_ids))
        if self._room is not None:
            self._room.set()

    def events_lost(self) -> None:
        """Ends the connection, so that the device sends again what was not acknowledged."""
        self._line.close("an event could not be stored")

    # Twins and methods.

    async def _answer_twin(self, rid: str) -> None:
        try:
            twin = await self._hub.twin_of(self._session.key)
        except ServiceError as error:
            self._send_twin(topics.twin_answer_topic(error.status, rid))
            return
        body = {"desired": twin.desired.for_device(), "reported": twin.reported.for_device()}
        self._send_twin(topics.twin_answer_topic(200, rid), compact(body).encode())

    async def _patch_reported(self, rid: str, body: bytes) -> None:
        try:
            version = await self._hub.patch_reported(self._session.key, body)
        except ServiceError as error:
            text = compact({"errorCode": error.number, "message": str(error)}).encode()
            self._send_twin(topics.twin_answer_topic(error.status, rid), text)
            return
        self._send_twin(topics.twin_answer_topic(204, rid, version=version))

    def _send_twin(self, topic: str, body: bytes = b"") -> None:
        if topics.TWIN_ANSWERS_FILTER in self._session.filters:
            self._line.send(codec.Publish(topic, body))

    def _answer_method(self, rid: str, status: int, body: bytes) -> None:
        assert self._link is not None
        try:
            self._link.answer_method(rid, status, body)
        except MqttError as error:
            self._line.close(str(error))

    # Messages from the cloud.

    async def _keep_subscriptions(self, filters: Mapping[str, int], reply: codec.Packet) -> None:
        if self._keeps_session:
            try:
                await self._hub.keep_filters(self._session.key, filters)
            except ServiceError as error:
                self._line.close(str(error))
                return
        self._hub.links.subscriptions_changed()
        self._line.send(reply)
        await self._deliver_messages()

    async def _deliver_messages(self) -> None:
        """Sends the messages from the cloud that wait, if the device listens to them."""
        if self._link is None:
            return
        try:
            await self._hub.mailbox.deliver(self._link)
        except ServiceError as error:
            self._line.close(str(error))

    # Who the device is.

    async def _authenticate(self, request: session.Authenticate) -> None:
        try:
            proven = await self._hub.authenticate(request, self._line.peer_certificate())
        except RefusedError as error:
            _log.warning("device_refused", device_id=request.key, reason=str(error))
            self._turn_away(error, code=_NOT_AUTHORIZED)
            return
        except ServiceError as error:
            self._turn_away(error, code=_UNAVAILABLE)
            return
        if self._line.is_over:
            return
        self._line.expire_at(proven.expiry)
        self._keeps_session = not request.clean_session
        replies = self._session.accept(proven.device.filters, clean_session=request.clean_session)
        self._link = Link(self._session, self._line.send, self._line.close)
        self._hub.add_link(self._link)
        for reply in replies:
            await self.perform(reply)
        _log.info("device_connected", device_id=request.key)
        if request.clean_session and proven.device.filters:
            await self._hub.keep_filters(request.key, {})
        await self._deliver_messages()

    async def _authenticate_registration(self, request: session.AuthenticateRegistration) -> None:
        try:
            self._registrant = await self._hub.provisioning.authenticate(request, self._line.peer_certificate())
        except RefusedError as error:
            _log.warning("registration_refused", registration_id=request.registration_id, reason=str(error))
            self._turn_away(error, code=_NOT_AUTHORIZED)
            return
        except ServiceError as error:
            self._turn_away(error, code=_UNAVAILABLE)
            return
        self._line.expire_at(self._registrant.expiry)
        for reply in self._session.accept({}, clean_session=True):
            await self.perform(reply)

    def _turn_away(self, error: RefusedError | ServiceError, *, code: int) -> None:
        self._line.send(codec.ConnAck(code))
        self._line.close(str(error))

    async def _provision(self, request: topics.Register | topics.OperationStatus) -> None:
        assert self._registrant is not None
        answer = await self._hub.provisioning.answer(self._registrant, request)
        if topics.REGISTRATION_FILTER in self._session.filters:
            self._line.send(answer)


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
