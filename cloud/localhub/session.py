"""One device's MQTT session, decided without I/O: packets in, effects out.

The shell performs the effects in order. What needs the store (proving who it is, events, twins) comes back through
`accept` and the answers that the shell sends itself. The lifecycle:

    new --Connect--> authenticating --accept()--> connected --Disconnect, error--> closed

Rules are IoT Hub's: QoS 2 closes, at most five subscriptions, only the documented topics, errors close the connection.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cloud.localhub import codec, topics
from cloud.localhub.errors import MqttError

SUBSCRIPTIONS_MAX = 5
KEEP_ALIVE_S_MAX = 1767
EVENT_BYTES_MAX = 256 * 1024
_REMEMBERED_CHARACTERS_MAX = 1_000
PACKET_BYTES_MAX = EVENT_BYTES_MAX + 65_535 + 16
"""The largest event, with the longest topic that MQTT allows."""
MODEL_ID_MAX = 256

_KEY = r"(?P<key>[^/]{1,128}(?:/[^/]{1,128})?)"
_USERNAME = re.compile(rf"(?P<host>[^/]{{1,255}})/{_KEY}/\?(?P<query>.{{1,2048}})", re.DOTALL)
_REGISTRATION = re.compile(
    r"(?P<scope>[^/]{1,64})/registrations/(?P<id>[^/]{1,128})/(?P<query>api-version=.{1,2048})", re.DOTALL
)
_API_VERSION = re.compile(r"20\d\d-\d\d-\d\d(-preview)?")


class State(StrEnum):
    NEW = "new"
    AUTHENTICATING = "authenticating"
    CONNECTED = "connected"
    CLOSED = "closed"


@dataclass(frozen=True)
class Reply:
    packet: codec.Packet


@dataclass(frozen=True)
class Authenticate:
    """The shell looks up the device or module and calls `accept`, or refuses with a ConnAck and closes."""

    key: str
    hostname: str
    token: str | None
    clean_session: bool
    model_id: str = ""
    """The IoT Plug and Play model that the device says it implements."""


@dataclass(frozen=True)
class AuthenticateRegistration:
    """The same for a device that calls the provisioning service."""

    id_scope: str
    registration_id: str
    token: str | None


@dataclass(frozen=True)
class Provision:
    """A request to the provisioning service, to be answered if the device listens."""

    request: topics.Register | topics.OperationStatus


@dataclass(slots=True)  # Not frozen: that takes three times as long to make, and there is one for each event.
class StoreEvent:
    """Acknowledge with PubAck(packet_id) once it is on disk; 0 means without."""

    packet_id: int
    properties: dict[str, str | None]
    body: bytes


@dataclass(frozen=True)
class GetTwin:
    rid: str


@dataclass(frozen=True)
class PatchReported:
    rid: str
    body: bytes


@dataclass(frozen=True)
class AnswerMethod:
    rid: str
    status: int
    body: bytes


@dataclass(frozen=True)
class KeepSubscriptions:
    """The set of filters changed: keep it for the next connection, then send the reply."""

    filters: dict[str, int]
    reply: codec.Packet


@dataclass(frozen=True)
class Acknowledged:
    """The device has taken the message that was sent to it with this packet id."""

    packet_id: int


@dataclass(frozen=True)
class Close:
    """Ends the connection; a graceful one discards the will."""

    reason: str
    graceful: bool = False


Effect = (
    Reply
    | Authenticate
    | AuthenticateRegistration
    | Provision
    | StoreEvent
    | GetTwin
    | PatchReported
    | AnswerMethod
    | KeepSubscriptions
    | Acknowledged
    | Close
)


class Session:
    """The state of one connection. Every method returns the effects it leads to, and never raises."""

    def __init__(self) -> None:
        self.state = State.NEW
        self.key = ""
        """Whose session it is: `{device}` or `{device}/{module}`; empty for one with the provisioning service."""
        self.keep_alive_s = KEEP_ALIVE_S_MAX
        self.filters: dict[str, int] = {}
        """The filters it is subscribed to, with the QoS granted to each."""
        self.will: StoreEvent | None = None
        self._events_topic = ""
        self._events_properties: dict[str, str | None] = {}

    def receive(self, packet: codec.Packet) -> list[Effect]:
        """What a packet of the client leads to."""
        try:
            return self._receive(packet)
        except MqttError as error:
            return self._close(str(error))

    def accept(self, stored_filters: Mapping[str, int], *, clean_session: bool) -> list[Effect]:
        """What the proof of identity leads to. `stored_filters` are those of the last connection."""
        self.state = State.CONNECTED
        if not clean_session:
            allowed = self._allowed_filters()
            self.filters = {topic: qos for topic, qos in stored_filters.items() if topic in allowed}
        return [Reply(codec.ConnAck(0, session_present=bool(self.filters)))]

    def _receive(self, packet: codec.Packet) -> list[Effect]:
        match self.state, packet:
            case State.NEW, codec.Connect():
                return self._connect(packet)
            case State.CONNECTED, codec.Publish():
                return self._publish(packet)
            case State.CONNECTED, codec.Subscribe():
                return self._subscribe(packet)
            case State.CONNECTED, codec.Unsubscribe():
                self.filters = {topic: qos for topic, qos in self.filters.items() if topic not in packet.filters}
                return [KeepSubscriptions(self.filters, codec.UnsubAck(packet.packet_id))]
            case State.CONNECTED, codec.PingReq():
                return [Reply(codec.PingResp())]
            case State.CONNECTED, codec.PubAck():
                return [Acknowledged(packet.packet_id)]
            case State.CONNECTED, codec.Disconnect():
                return self._close("the device disconnected", graceful=True)
            case State.CLOSED, _:
                return []
            case _:
                raise MqttError(f"Expected no {type(packet).__name__} while {self.state}, got one")

    def _connect(self, packet: codec.Connect) -> list[Effect]:
        if packet.protocol_level != 4:
            return [Reply(codec.ConnAck(1)), *self._close("the protocol is not MQTT 3.1.1")]
        if registration := _REGISTRATION.fullmatch(packet.username or ""):
            return self._connect_registration(packet, registration)
        username = _USERNAME.fullmatch(packet.username or "")
        if username is None or not _has_api_version(username["query"]):
            return [
                Reply(codec.ConnAck(4)),
                *self._close("the user name is not {host}/{device}[/{module}]/?api-version=..."),
            ]
        if username["key"] != packet.client_id:
            return [Reply(codec.ConnAck(2)), *self._close("the client id is not the user name's device or module")]
        self.key = packet.client_id
        self.will = self._parse_will(packet.will)
        model_id = topics.parse_properties(username["query"]).get("model-id") or ""
        proof = self._begin(packet)
        return [Authenticate(packet.client_id, username["host"], proof, packet.clean_session, model_id[:MODEL_ID_MAX])]

    def _connect_registration(self, packet: codec.Connect, username: "re.Match[str]") -> list[Effect]:
        if not _has_api_version(username["query"]):
            return [Reply(codec.ConnAck(4)), *self._close("the user name has no valid api-version")]
        if username["id"] != packet.client_id:
            return [Reply(codec.ConnAck(2)), *self._close("the client id is not the user name's registration id")]
        if packet.will is not None:
            raise MqttError("Expected no will for the provisioning service, got one")
        return [AuthenticateRegistration(username["scope"], packet.client_id, self._begin(packet))]

    def _begin(self, packet: codec.Connect) -> str | None:
        """What every connection begins with; returns its token."""
        self.keep_alive_s = min(packet.keep_alive_s or KEEP_ALIVE_S_MAX, KEEP_ALIVE_S_MAX)
        self.state = State.AUTHENTICATING
        return packet.password.decode("utf-8", "replace") if packet.password else None

    def _parse_will(self, will: codec.Will | None) -> StoreEvent | None:
        if will is None:
            return None
        match topics.parse_publish_topic(will.topic, self.key):
            case topics.Telemetry(properties):
                _check_event(will.topic, will.payload)
                return StoreEvent(0, properties | {"iothub-MessageType": "Will"}, will.payload)
            case _:
                raise MqttError(f"Expected a will on the events' topic, got {will.topic[:80]!r}")

    def _publish(self, packet: codec.Publish) -> list[Effect]:
        if packet.qos == 2:
            raise MqttError("Expected QoS 0 or 1, got 2")
        if packet.topic == self._events_topic and not packet.retain:
            # A device's events mostly have the topic of the one before, which is read already.
            _check_event(packet.topic, packet.payload)
            return [StoreEvent(packet.packet_id, self._events_properties, packet.payload)]
        acknowledged: list[Effect] = [Reply(codec.PubAck(packet.packet_id))] if packet.qos else []
        if not self.key:
            return [*acknowledged, Provision(topics.parse_registration_topic(packet.topic))]
        match topics.parse_publish_topic(packet.topic, self.key):
            case topics.Telemetry(properties):
                _check_event(packet.topic, packet.payload)
                if len(packet.topic) <= _REMEMBERED_CHARACTERS_MAX:
                    self._events_topic, self._events_properties = packet.topic, properties
                retained: dict[str, str | None] = {"mqtt-retain": "true"} if packet.retain else {}
                return [StoreEvent(packet.packet_id, properties | retained, packet.payload)]
            case topics.TwinGet(rid):
                return [*acknowledged, GetTwin(rid)]
            case topics.TwinPatch(rid):
                return [*acknowledged, PatchReported(rid, packet.payload)]
            case topics.MethodAnswer(rid, status):
                return [*acknowledged, AnswerMethod(rid, status, packet.payload)]

    def _subscribe(self, packet: codec.Subscribe) -> list[Effect]:
        allowed = self._allowed_filters()
        wanted = {topic: min(qos, 1) for topic, qos in packet.filters}
        if len(self.filters | wanted) > SUBSCRIPTIONS_MAX:
            raise MqttError(f"Expected at most {SUBSCRIPTIONS_MAX} subscriptions, got {len(self.filters | wanted)}")
        codes = tuple(min(qos, 1) if topic in allowed else 0x80 for topic, qos in packet.filters)
        self.filters = self.filters | {topic: qos for topic, qos in wanted.items() if topic in allowed}
        return [KeepSubscriptions(self.filters, codec.SubAck(packet.packet_id, codes))]

    def _allowed_filters(self) -> frozenset[str]:
        return topics.allowed_filters(self.key) if self.key else frozenset((topics.REGISTRATION_FILTER,))

    def _close(self, reason: str, *, graceful: bool = False) -> list[Effect]:
        self.state = State.CLOSED
        if graceful:
            self.will = None
        return [Close(reason, graceful)]


def _has_api_version(query: str) -> bool:
    version = topics.parse_properties(query).get("api-version")
    return version is not None and _API_VERSION.fullmatch(version) is not None


def _check_event(topic: str, payload: bytes) -> None:
    """IoT Hub counts the body and the properties, which travel in the topic."""
    size = len(payload) + len(topic.encode())
    if size > EVENT_BYTES_MAX:
        raise MqttError(f"Expected an event of at most {EVENT_BYTES_MAX} bytes, got {size}")
