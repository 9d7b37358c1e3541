"""AMQP messages: an event as Event Hubs delivers it, and requests and answers of `$cbs` and `$management`.

Part 3, section 3.2 of the standard. Sections that are not needed here are skipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloud.localhub.amqp.types import Described, Reader, Symbol, Timestamp, Ulong, Value, encode
from cloud.localhub.errors import AmqpError
from cloud.localhub.event_tables import LoggedEvent

_ANNOTATIONS, _PROPERTIES, _APPLICATION, _DATA, _VALUE = 0x72, 0x73, 0x74, 0x75, 0x77
_PROPERTY_NAMES = (
    *("message_id", "user_id", "to", "subject", "reply_to", "correlation_id", "content_type", "content_encoding"),
    *("absolute_expiry_time", "creation_time"),
)
_SYSTEM_PROPERTIES = {
    "$.mid": "message_id",
    "$.cid": "correlation_id",
    "$.uid": "user_id",
    "$.ct": "content_type",
    "$.ce": "content_encoding",
}


@dataclass(frozen=True)
class Message:
    """What a client asks: the properties it set, its application properties, and a value as the body."""

    properties: Mapping[str, Value] = field(default_factory=dict)
    application: Mapping[str, Value] = field(default_factory=dict)
    value: Value = None


def decode_message(data: bytes) -> Message:
    """Reads the sections that a request has. Raises AmqpError."""
    reader, sections = Reader(data), dict[int, Value]()
    while reader.left:
        section = reader.value()
        if not isinstance(section, Described) or not isinstance(section.descriptor, int):
            raise AmqpError("Expected the sections of a message, got another value")
        sections[section.descriptor] = section.value
    properties, application = sections.get(_PROPERTIES, []), sections.get(_APPLICATION, {})
    if not isinstance(properties, list) or not isinstance(application, dict):
        raise AmqpError("Expected properties as a list and application properties as a map")
    return Message(
        properties=dict(zip(_PROPERTY_NAMES, properties, strict=False)),
        application={str(key): value for key, value in application.items()},
        value=sections.get(_VALUE),
    )


def answer(request: Message, *, status: int, description: str, value: Value = None) -> bytes:
    """The answer to a request, in the names of both `$cbs` and `$management`."""
    application: dict[Value, Value] = {"status-code": status, "status-description": description}
    correlation = {"correlation_id": request.properties.get("message_id")}
    return b"".join((_properties(correlation), _section(_APPLICATION, application), _section(_VALUE, value)))


def encode_event(event: LoggedEvent) -> bytes:
    """An event with IoT Hub's annotations, system properties and application properties."""
    device_id, _, module_id = event.device_id.partition("/")
    at = Timestamp(event.enqueued_at * 1000)
    annotations: dict[Value, Value] = {
        Symbol("x-opt-sequence-number"): event.sequence_number,
        Symbol("x-opt-offset"): str(event.offset),
        Symbol("x-opt-enqueued-time"): at,
        Symbol("x-opt-partition-key"): device_id,
        Symbol("iothub-connection-device-id"): device_id,
        Symbol("iothub-enqueuedtime"): at,
        Symbol("iothub-message-source"): "Telemetry",
    }
    if module_id:
        annotations[Symbol("iothub-connection-module-id")] = module_id
    system = {_SYSTEM_PROPERTIES[key]: value for key, value in event.properties.items() if key in _SYSTEM_PROPERTIES}
    application: dict[Value, Value] = {
        key: value for key, value in event.properties.items() if not key.startswith("$.")
    }
    return b"".join(
        (
            _section(_ANNOTATIONS, annotations),
            _properties({"to": f"/devices/{device_id}/messages/events", **_typed(system)}),
            _section(_APPLICATION, application),
            _section(_DATA, event.body),
        )
    )


def _typed(system: Mapping[str, str | None]) -> dict[str, Value]:
    """Each system property as the type that the standard gives it (3.2.4)."""
    typed: dict[str, Value] = dict(system)
    for name in ("content_type", "content_encoding"):
        if (text := system.get(name)) is not None:
            typed[name] = Symbol(text) if text.isascii() else None
    if (user := system.get("user_id")) is not None:
        typed["user_id"] = user.encode()
    return typed


def _properties(values: Mapping[str, Value]) -> bytes:
    return _section(_PROPERTIES, [values.get(name) for name in _PROPERTY_NAMES])


def _section(code: int, value: Value) -> bytes:
    return encode(Described(Ulong(code), value))
