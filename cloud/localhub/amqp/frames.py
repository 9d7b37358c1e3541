"""AMQP 1.0's frames: the stream cut into them, and the performatives that they carry. Sans-I/O.

A performative is a list with a descriptor (part 2, section 2.7); here it is a dict of its fields by name, with what the
other side left out as None. Names are the standard's, with underscores.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloud.localhub.amqp.types import Described, Reader, Ulong, Value, encode
from cloud.localhub.errors import AmqpError

PROTOCOL_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
FRAME_BYTES_MAX = 64 * 1024
"""What the hub takes, and says so in its `open`."""
_AMQP, _SASL = 0, 1

_FIELDS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "open": (
        0x10,
        (
            *("container_id", "hostname", "max_frame_size", "channel_max", "idle_time_out", "outgoing_locales"),
            *("incoming_locales", "offered_capabilities", "desired_capabilities", "properties"),
        ),
    ),
    "begin": (
        0x11,
        (
            *("remote_channel", "next_outgoing_id", "incoming_window", "outgoing_window", "handle_max"),
            *("offered_capabilities", "desired_capabilities", "properties"),
        ),
    ),
    "attach": (
        0x12,
        (
            *("name", "handle", "role", "snd_settle_mode", "rcv_settle_mode", "source", "target", "unsettled"),
            *("incomplete_unsettled", "initial_delivery_count", "max_message_size", "offered_capabilities"),
            *("desired_capabilities", "properties"),
        ),
    ),
    "flow": (
        0x13,
        (
            *("next_incoming_id", "incoming_window", "next_outgoing_id", "outgoing_window", "handle"),
            *("delivery_count", "link_credit", "available", "drain", "echo", "properties"),
        ),
    ),
    "transfer": (
        0x14,
        (
            *("handle", "delivery_id", "delivery_tag", "message_format", "settled", "more", "rcv_settle_mode"),
            *("state", "resume", "aborted", "batchable"),
        ),
    ),
    "disposition": (0x15, ("role", "first", "last", "settled", "state", "batchable")),
    "detach": (0x16, ("handle", "closed", "error")),
    "end": (0x17, ("error",)),
    "close": (0x18, ("error",)),
    "sasl_mechanisms": (0x40, ("mechanisms",)),
    "sasl_init": (0x41, ("mechanism", "initial_response", "hostname")),
    "sasl_outcome": (0x44, ("code", "additional_data")),
}
_NAMES = {code: name for name, (code, _) in _FIELDS.items()}


@dataclass(frozen=True)
class Frame:
    """One performative with its fields, and the bytes after it (a transfer's part of a message)."""

    channel: int
    name: str
    fields: Mapping[str, Any]
    """Values of AMQP; `Any`, because each field has a type of its own, checked where it is used."""
    payload: bytes = b""

    def __getitem__(self, field: str) -> Any:
        return self.fields.get(field)

    def whole(self, field: str, default: int | None = None) -> int:
        """A field that must be a whole number, unless there is a default. Raises AmqpError."""
        value = self.fields.get(field)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise AmqpError(f"Expected {field} of {self.name} as a whole number, got {type(value).__name__}")
        return value


class Splitter:
    """Cuts a stream into protocol headers and frames; holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | Frame]:
        """Yields each header, as bytes, and each frame that `data` completes; an empty frame (keep-alive) is none.

        Raises AmqpError; do not feed it again after that.
        """
        self._buffer += data
        while len(self._buffer) >= 8:
            if self._buffer[:4] == b"AMQP":
                yield bytes(self._buffer[:8])
                del self._buffer[:8]
                continue
            size = int.from_bytes(self._buffer[:4], "big")
            if not 8 <= size <= FRAME_BYTES_MAX:
                raise AmqpError(f"Expected a frame of 8 to {FRAME_BYTES_MAX} bytes, got {size}")
            if len(self._buffer) < size:
                return
            frame = bytes(self._buffer[:size])
            del self._buffer[:size]
            if (decoded := _decode(frame)) is not None:
                yield decoded


def _decode(data: bytes) -> Frame | None:
    start, kind, channel = data[4] * 4, data[5], int.from_bytes(data[6:8], "big")
    if start < 8 or start > len(data) or kind not in (_AMQP, _SASL):
        raise AmqpError(f"Expected a frame of AMQP or SASL, got type {kind} with a body at {start}")
    if start == len(data):
        return None
    reader = Reader(data[start:])
    performative = reader.value()
    if not isinstance(performative, Described) or not isinstance(performative.value, list):
        raise AmqpError("Expected a performative, got another value")
    code = performative.descriptor
    name = _NAMES.get(code) if isinstance(code, int) else None
    if name is None or (kind == _SASL) != name.startswith("sasl"):
        raise AmqpError(f"Expected a performative of AMQP, got descriptor {code!r:.80}")
    return Frame(channel, name, dict(zip(_FIELDS[name][1], performative.value, strict=False)), reader.rest())


def encode_frame(channel: int, name: str, payload: bytes = b"", /, **fields: Value) -> bytes:
    """A frame's bytes; fields not given are null, and written all the same: azure-eventhub counts on all of them."""
    code, names = _FIELDS[name]
    values = [fields.pop(each, None) for each in names]
    assert not fields, f"{name} has no {', '.join(fields)}"
    body = encode(Described(Ulong(code), values)) + payload
    kind = _SASL if name.startswith("sasl") else _AMQP
    return (8 + len(body)).to_bytes(4, "big") + bytes((2, kind)) + channel.to_bytes(2, "big") + body


EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"
"""Keeps a connection alive (2.4.5)."""
