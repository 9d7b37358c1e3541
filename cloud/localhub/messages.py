"""Cloud-to-device messages as values: their properties, when they expire, and the feedback their senders get. Pure.

A message waits in its device's queue, is locked while the device has it, and ends in one of five ways, on which its
sender is told as much as its `iothub-ack` asks for.
https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from cloud.localhub.errors import ServiceError, invalid_argument

MESSAGE_BYTES_MAX = 64 * 1024
LIFE_S_MAX = 2 * 24 * 3600.0

Properties = dict[str, str | None]

_ACK = "iothub-ack"
_EXPIRY = "$.exp"
_SYSTEM_HEADERS = {
    "iothub-messageid": "$.mid",
    "iothub-correlationid": "$.cid",
    "iothub-userid": "$.uid",
    "iothub-contenttype": "$.ct",
    "iothub-contentencoding": "$.ce",
    "iothub-expiry": _EXPIRY,
    "iothub-ack": _ACK,
}
_APPLICATION_HEADER = "iothub-app-"


class Outcome(StrEnum):
    """How a message ended, as the feedback calls it."""

    SUCCESS = "Success"
    EXPIRED = "Expired"
    DELIVERY_COUNT_EXCEEDED = "DeliveryCountExceeded"
    REJECTED = "Rejected"
    PURGED = "Purged"


_WANTED: dict[str, frozenset[Outcome]] = {
    "none": frozenset(),
    "positive": frozenset((Outcome.SUCCESS,)),
    "negative": frozenset(Outcome) - {Outcome.SUCCESS},
    "full": frozenset(Outcome),
}


@dataclass(frozen=True)
class Message:
    """A message in a device's queue. Times are seconds since the epoch; `deliveries` counts those it gave back."""

    sequence: int
    device_id: str
    properties: Properties
    body: bytes
    enqueued_at: float
    expires_at: float
    deliveries: int = 0


def parse_message(device_id: str, headers: Mapping[str, str], body: bytes, *, now: float, life_s: float) -> Message:
    """A message as the REST API's headers describe it, with no sequence number yet. Raises ServiceError.

    Args:
        device_id: Whose message it is.
        headers: In lower case: `iothub-messageid`, ..., and `iothub-app-{name}` for the sender's own properties.
        body: The content.
        now: Seconds since the epoch.
        life_s: How long a message lives that does not say when it expires.
    """
    properties = parse_properties(headers)
    ack = properties.get(_ACK) or "none"
    if ack not in _WANTED:
        raise invalid_argument(f"Expected {_ACK} as one of {', '.join(_WANTED)}, got {ack[:40]!r}")
    expires_at = now + life_s
    if expiry := properties.get(_EXPIRY):
        expires_at = _seconds(expiry)
        if not now < expires_at <= now + LIFE_S_MAX:
            raise invalid_argument(f"Expected an expiry within the next two days, got {expiry[:40]!r}")
    message = Message(0, device_id, properties, body, now, expires_at)
    if (size := _size(message)) > MESSAGE_BYTES_MAX:
        raise ServiceError(
            413, 413001, "MessageTooLarge", f"Expected a message of at most {MESSAGE_BYTES_MAX} bytes, got {size}"
        )
    return message


def parse_properties(headers: Mapping[str, str]) -> Properties:
    """The system's and the sender's own properties, out of a request's headers in lower case."""
    system: Properties = {key: _from_header(headers[name]) for name, key in _SYSTEM_HEADERS.items() if name in headers}
    own = {
        name.removeprefix(_APPLICATION_HEADER): _from_header(value)
        for name, value in headers.items()
        if name.startswith(_APPLICATION_HEADER)
    }
    return system | own


def properties_for_device(message: Message) -> Properties:
    """The properties in the order in which IoT Hub puts them into the topic, with the address."""
    return {"$.to": f"/devices/{message.device_id}/messages/devicebound"} | message.properties


def headers_for_device(message: Message, *, lock_token: str, enqueued: str) -> dict[str, str]:
    """The headers of a message that a device fetches over HTTPS."""
    names = {key: name for name, key in _SYSTEM_HEADERS.items()}
    properties = {
        names.get(key, _APPLICATION_HEADER + key): _to_header(value or "") for key, value in message.properties.items()
    }
    return properties | {
        "etag": f'"{lock_token}"',
        "iothub-sequencenumber": str(message.sequence),
        "iothub-enqueuedtime": enqueued,
        "iothub-deliverycount": str(message.deliveries),
        "iothub-to": f"/devices/{message.device_id}/messages/devicebound",
    }


def feedback_on(message: Message, outcome: Outcome, *, generation_id: str, now: str) -> dict[str, object] | None:
    """The record that the sender asked for, or None."""
    if outcome not in _WANTED[message.properties.get(_ACK) or "none"]:
        return None
    return {
        "originalMessageId": message.properties.get("$.mid") or "",
        "description": outcome.value,
        "statusCode": outcome.value,
        "deviceGenerationId": generation_id,
        "deviceId": message.device_id,
        "enqueuedTimeUtc": now,
    }


def _from_header(value: str) -> str:
    """Headers are read as Latin-1; what is UTF-8 in truth is taken as such."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _to_header(value: str) -> str:
    return value.encode().decode("latin-1")


def _size(message: Message) -> int:
    """IoT Hub counts the body and the properties."""
    return len(message.body) + sum(len(key) + len(value or "") for key, value in message.properties.items())


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid_argument(f"Expected an expiry in ISO 8601, got {text[:40]!r}") from error
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
