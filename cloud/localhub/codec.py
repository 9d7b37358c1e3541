"""MQTT 3.1.1 packets to bytes and back, for the server's side of IoT Hub's subset. Sans-I/O.

Follows the OASIS standard of 29 October 2014; section numbers stand beside the rules. QoS 2's later packets are not
decoded, because IoT Hub closes a connection that publishes with QoS 2.

    decoder = Decoder(packet_bytes_max=330_000)
    for packet in decoder.feed(data):   # raises MqttError; the connection is then over
        ...
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloud.localhub.errors import MqttError

_T = TypeVar("_T")

_CONNECT, _CONNACK, _PUBLISH, _PUBACK = 1, 2, 3, 4
_SUBSCRIBE, _SUBACK, _UNSUBSCRIBE, _UNSUBACK = 8, 9, 10, 11
_PINGREQ, _PINGRESP, _DISCONNECT = 12, 13, 14

_LENGTH_BYTES_MAX = 4
_STRING_BYTES_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Will:
    """What the hub publishes for a client that goes without saying so."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Connect:
    """The client's first packet."""

    client_id: str
    clean_session: bool = True
    keep_alive_s: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    protocol_level: int = 4


@dataclass(frozen=True, slots=True)
class ConnAck:
    """The answer to Connect: 0 accepted, 1 protocol, 2 identifier, 3 unavailable, 4 bad credentials, 5 refused."""

    return_code: int
    session_present: bool = False


@dataclass(slots=True)
class Publish:
    """An application message; `packet_id` is 0 exactly when `qos` is 0.

    Not frozen, though nobody changes one: a frozen one takes three times as long to make.
    """

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0
    retain: bool = False
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class PubAck:
    packet_id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Topic filters with the QoS asked for."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SubAck:
    """One return code a filter: the granted QoS, or 0x80 for refused."""

    packet_id: int
    return_codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnsubAck:
    packet_id: int


@dataclass(frozen=True, slots=True)
class PingReq:
    pass


@dataclass(frozen=True, slots=True)
class PingResp:
    pass


@dataclass(frozen=True, slots=True)
class Disconnect:
    pass


Packet = (
    Connect | ConnAck | Publish | PubAck | Subscribe | SubAck | Unsubscribe | UnsubAck | PingReq | PingResp | Disconnect
)


class Decoder:
    """Cuts a stream of bytes into packets; holds at most one incomplete packet of `packet_bytes_max`."""

    def __init__(self, *, packet_bytes_max: int) -> None:
        self._packet_bytes_max = packet_bytes_max
        self._buffer = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yields each packet that `data` completes. Raises MqttError; do not feed it again after that.

        Mostly packets come whole, and are cut from `data` itself. One that comes in pieces is looked at again only when
        it is complete, so that a sender of single bytes costs no more than another.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        start, available = 0, len(data)
        while start < available:
            header_bytes, body_bytes = self._header(data, start)
            body = start + header_bytes
            end = body + body_bytes
            if not header_bytes or end > available:
                self._needed = end - start if header_bytes else available - start + 1
                self._buffer += data[start:]
                return
            yield _decode(data[start] >> 4, data[start] & 0x0F, data[body:end])
            start = end

    def _header(self, data: bytes, start: int) -> tuple[int, int]:
        """Header and body size of the packet that starts there, zeros while the header is incomplete (2.2.3)."""
        size = 0
        for index in range(1, min(len(data) - start, _LENGTH_BYTES_MAX + 1)):
            byte = data[start + index]
            size |= (byte & 0x7F) << 7 * (index - 1)
            if byte < 0x80:
                if size > self._packet_bytes_max:
                    raise MqttError(f"Expected a packet of at most {self._packet_bytes_max} bytes, got {size}")
                return index + 1, size
        if len(data) - start > _LENGTH_BYTES_MAX:
            raise MqttError("Expected a remaining length of at most 4 bytes, got more")
        return 0, 0


def encode(packet: Packet) -> bytes:
    """The packet's bytes."""
    match packet:
        case Publish():
            return _encode_publish(packet)
        case PubAck():
            return struct.pack("!BBH", _PUBACK << 4, 2, packet.packet_id)
        case ConnAck():
            return bytes((_CONNACK << 4, 2, int(packet.session_present), packet.return_code))
        case SubAck():
            return _frame(_SUBACK, 0, struct.pack("!H", packet.packet_id) + bytes(packet.return_codes))
        case UnsubAck():
            return struct.pack("!BBH", _UNSUBACK << 4, 2, packet.packet_id)
        case Connect():
            return _encode_connect(packet)
        case Subscribe():
            topics = b"".join(_string(topic) + bytes((qos,)) for topic, qos in packet.filters)
            return _frame(_SUBSCRIBE, 2, struct.pack("!H", packet.packet_id) + topics)
        case Unsubscribe():
            topics = b"".join(map(_string, packet.filters))
            return _frame(_UNSUBSCRIBE, 2, struct.pack("!H", packet.packet_id) + topics)
        case PingReq():
            return bytes((_PINGREQ << 4, 0))
        case PingResp():
            return bytes((_PINGRESP << 4, 0))
        case Disconnect():
            return bytes((_DISCONNECT << 4, 0))


def encode_acknowledgements(packet_ids: Sequence[int]) -> bytes:
    """A PubAck for each."""
    head = _PUBACK << 28 | 2 << 16
    return struct.pack(f"!{len(packet_ids)}I", *[head | packet_id for packet_id in packet_ids])


def _encode_publish(packet: Publish) -> bytes:
    flags = packet.duplicate << 3 | packet.qos << 1 | packet.retain
    packet_id = struct.pack("!H", packet.packet_id) if packet.qos else b""
    return _frame(_PUBLISH, flags, _string(packet.topic) + packet_id + packet.payload)


def _encode_connect(packet: Connect) -> bytes:
    will = packet.will
    flags = packet.clean_session << 1 | (packet.password is not None) << 6 | (packet.username is not None) << 7
    if will is not None:
        flags |= 1 << 2 | will.qos << 3 | will.retain << 5
    head = _string("MQTT") + struct.pack("!BBH", packet.protocol_level, flags, packet.keep_alive_s)
    parts = [head, _string(packet.client_id)]
    if will is not None:
        parts += [_string(will.topic), _binary(will.payload)]
    if packet.username is not None:
        parts.append(_string(packet.username))
    if packet.password is not None:
        parts.append(_binary(packet.password))
    return _frame(_CONNECT, 0, b"".join(parts))


def _frame(kind: int, flags: int, body: bytes) -> bytes:
    header, size = bytearray((kind << 4 | flags,)), len(body)
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return bytes(header) + body


def _binary(data: bytes) -> bytes:
    if len(data) > _STRING_BYTES_MAX:
        raise ValueError(f"Expected at most {_STRING_BYTES_MAX} bytes in a field, got {len(data)}")
    return struct.pack("!H", len(data)) + data


def _string(text: str) -> bytes:
    return _binary(text.encode())


def _decode(kind: int, flags: int, body: bytes) -> Packet:
    if kind == _PUBLISH:
        return _decode_publish(flags, body)
    expected = 2 if kind in (_SUBSCRIBE, _UNSUBSCRIBE) else 0
    if flags != expected:
        raise MqttError(f"Expected header flags {expected} for packet type {kind}, got {flags}")  # 2.2.2
    reader = _Reader(body)
    match kind:
        case 4:
            return reader.finish(PubAck(reader.packet_id()))
        case 12:
            return reader.finish(PingReq())
        case 8:
            return _decode_subscribe(reader)
        case 1:
            return _decode_connect(reader)
        case 10:
            packet_id = reader.packet_id()
            return Unsubscribe(packet_id, _at_least_one(tuple(reader.strings())))
        case 14:
            return reader.finish(Disconnect())
        case _:
            return _decode_from_server(kind, reader)


def _decode_from_server(kind: int, reader: "_Reader") -> Packet:
    match kind:
        case 2:
            present, code = reader.byte(), reader.byte()
            if present > 1:
                raise MqttError(f"Expected CONNACK flags 0 or 1, got {present}")
            return reader.finish(ConnAck(code, bool(present)))
        case 9:
            return SubAck(reader.packet_id(), tuple(reader.rest()))
        case 11:
            return reader.finish(UnsubAck(reader.packet_id()))
        case 13:
            return reader.finish(PingResp())
        case _:
            raise MqttError(f"Expected a packet of QoS 0 or 1, got packet type {kind}")


def _decode_publish(flags: int, body: bytes) -> Publish:
    """Without a reader, which would take longer than all the rest: this is the packet that each event is."""
    qos = flags >> 1 & 3
    if qos == 3:
        raise MqttError("Expected QoS 0, 1 or 2, got 3")  # 3.3.1-4
    topic_end = 2 + int.from_bytes(body[:2], "big")
    payload_start = topic_end + 2 if qos else topic_end
    if payload_start > len(body):
        raise MqttError(f"Expected a packet of at least {payload_start} bytes, got {len(body)}")
    topic = _text(body[2:topic_end])
    if not topic or "+" in topic or "#" in topic:
        raise MqttError(f"Expected a topic without wildcards, got {topic[:80]!r}")  # 3.3.2-2
    packet_id = int.from_bytes(body[topic_end:payload_start], "big")
    if qos and not packet_id:
        raise _no_packet_id()
    return Publish(topic, body[payload_start:], qos, packet_id, bool(flags & 1), bool(flags & 8))


def _decode_subscribe(reader: "_Reader") -> Subscribe:
    packet_id, filters = reader.packet_id(), []
    while reader.left:
        topic, qos = reader.string(), reader.byte()
        if qos > 2:
            raise MqttError(f"Expected a requested QoS of 0 to 2, got {qos}")  # 3-8.3-4
        filters.append((topic, qos))
    return Subscribe(packet_id, _at_least_one(tuple(filters)))


def _decode_connect(reader: "_Reader") -> Connect:
    name, level, flags, keep_alive_s = reader.string(), reader.byte(), reader.byte(), reader.short()
    if name not in ("MQTT", "MQIsdp"):
        raise MqttError(f"Expected protocol MQTT, got {name[:20]!r}")  # 3.1.2-1
    if flags & 1:
        raise MqttError("Expected the reserved CONNECT flag to be 0, got 1")  # 3.1.2-3
    client_id = reader.string()
    will = _decode_will(reader, flags)
    username = reader.string() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    connect = Connect(client_id, bool(flags & 2), keep_alive_s, username, password, will, level)
    return reader.finish(connect)


def _decode_will(reader: "_Reader", flags: int) -> Will | None:
    qos, retain = flags >> 3 & 3, bool(flags & 0x20)
    if not flags & 4:
        if qos or retain:
            raise MqttError("Expected no will QoS or retain without a will")  # 3.1.2-13, 3.1.2-15
        return None
    if qos == 3:
        raise MqttError("Expected a will QoS of 0 to 2, got 3")  # 3.1.2-14
    return Will(reader.string(), reader.binary(), qos, retain)


def _at_least_one(filters: tuple[_T, ...]) -> tuple[_T, ...]:
    if not filters:
        raise MqttError("Expected at least one topic filter, got none")  # 3.8.3-3, 3.10.3-2
    return filters


def _text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise MqttError("Expected a field in UTF-8, got other bytes") from None  # 1.5.3-1
    if "\0" in text:
        raise MqttError("Expected a field without U+0000")  # 1.5.3-2
    return text


def _no_packet_id() -> MqttError:
    return MqttError("Expected a packet id of 1 to 65535, got 0")  # 2.3.1-1


class _Reader:
    """Takes fields off a packet's body; each raises MqttError where the body ends too early."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._body) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise MqttError(f"Expected {size} more bytes in the packet, got {self.left}")
        self._at += size
        return self._body[self._at - size : self._at]

    def rest(self) -> bytes:
        return self.take(self.left)

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def packet_id(self) -> int:
        value = self.short()
        if value == 0:
            raise _no_packet_id()
        return value

    def binary(self) -> bytes:
        return self.take(self.short())

    def string(self) -> str:
        return _text(self.binary())

    def strings(self) -> Iterator[str]:
        while self.left:
            yield self.string()

    def finish(self, packet: _T) -> _T:
        if self.left:
            raise MqttError(f"Expected the packet to end, got {self.left} more bytes")
        return packet
