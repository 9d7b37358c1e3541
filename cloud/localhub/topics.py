"""IoT Hub's topics, read and written: which request a topic is, and its property bag. Pure.

The topics carry no device id where IoT Hub's do not (`$iothub/...`), so they mean something only together with the
connection they came on: a topic of one device can never reach another. Whose connection it is says its key, which is
`{device}` or `{device}/{module}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

from cloud.localhub.errors import MqttError

METHODS_FILTER = "$iothub/methods/POST/#"
TWIN_ANSWERS_FILTER = "$iothub/twin/res/#"
DESIRED_FILTER = "$iothub/twin/PATCH/properties/desired/#"
REGISTRATION_FILTER = "$dps/registrations/res/#"

_TWIN_GET = "$iothub/twin/GET/"
_TWIN_PATCH = "$iothub/twin/PATCH/properties/reported/"
_METHOD_ANSWER = "$iothub/methods/res/"
_REGISTER = "$dps/registrations/PUT/iotdps-register/"
_OPERATION_STATUS = "$dps/registrations/GET/iotdps-get-operationstatus/"
_RID_CHARACTERS_MAX = 128
_SHORT_CHARACTERS = 64


@dataclass(frozen=True)
class Telemetry:
    """An event of the device; a property's value is None where the bag has the key without `=`."""

    properties: dict[str, str | None]


@dataclass(frozen=True)
class TwinGet:
    rid: str


@dataclass(frozen=True)
class TwinPatch:
    rid: str


@dataclass(frozen=True)
class MethodAnswer:
    rid: str
    status: int


Request = Telemetry | TwinGet | TwinPatch | MethodAnswer


@dataclass(frozen=True)
class Register:
    """To the provisioning service: a device asks to be assigned to a hub."""

    rid: str


@dataclass(frozen=True)
class OperationStatus:
    """To the provisioning service: a device asks how its registration ended."""

    rid: str
    operation_id: str


def topic_base(key: str) -> str:
    """How the topics begin that name a device or a module. It is also the path of the resource that a token is for."""
    device_id, slash, module_id = key.partition("/")
    return f"devices/{device_id}/modules/{module_id}" if slash else f"devices/{device_id}"


def parse_publish_topic(topic: str, key: str) -> Request:
    """What a publish of this device or module asks for. Raises MqttError for any other topic, another's included."""
    telemetry = f"{topic_base(key)}/messages/events"
    if topic == telemetry or topic.startswith(telemetry + "/"):
        return Telemetry(parse_properties(topic[len(telemetry) + 1 :].removesuffix("/")))
    if topic.startswith(_TWIN_GET):
        return TwinGet(_rid(topic[len(_TWIN_GET) :]))
    if topic.startswith(_TWIN_PATCH):
        return TwinPatch(_rid(topic[len(_TWIN_PATCH) :]))
    if topic.startswith(_METHOD_ANSWER):
        status, _, query = topic[len(_METHOD_ANSWER) :].partition("/")
        if not status.isascii() or not status.removeprefix("-").isdigit() or len(status) > 9:
            raise MqttError(f"Expected a whole number as the method's status, got {status[:20]!r}")
        return MethodAnswer(_rid(query), int(status))
    raise MqttError(f"Expected a topic of this device that IoT Hub knows, got {topic[:80]!r}")


def parse_registration_topic(topic: str) -> Register | OperationStatus:
    """What a publish to the provisioning service asks for. Raises MqttError for any other topic."""
    if topic.startswith(_REGISTER):
        return Register(_rid(topic[len(_REGISTER) :]))
    if topic.startswith(_OPERATION_STATUS):
        query = topic[len(_OPERATION_STATUS) :]
        operation_id = parse_properties(query).get("operationId") or ""
        if not 0 < len(operation_id) <= _RID_CHARACTERS_MAX:
            raise MqttError(f"Expected an operationId of 1 to {_RID_CHARACTERS_MAX} characters, got {query[:80]!r}")
        return OperationStatus(_rid(query), operation_id)
    raise MqttError(f"Expected a topic that the provisioning service knows, got {topic[:80]!r}")


def messages_filter(device_id: str) -> str:
    """The filter of messages from the cloud."""
    return f"devices/{device_id}/messages/devicebound/#"


def allowed_filters(key: str) -> frozenset[str]:
    """The filters this device or module may subscribe to. A module has inputs, which only an edge gateway feeds."""
    own = f"{topic_base(key)}/inputs/#" if "/" in key else messages_filter(key)
    return frozenset((METHODS_FILTER, TWIN_ANSWERS_FILTER, DESIRED_FILTER, own))


def message_topic(device_id: str, properties: Mapping[str, str | None]) -> str:
    """Where a message from the cloud arrives, with its property bag."""
    return f"devices/{device_id}/messages/devicebound/{format_properties(properties)}"


def method_topic(name: str, rid: str) -> str:
    return f"$iothub/methods/POST/{quote(name, safe='')}/?$rid={rid}"


def twin_answer_topic(status: int, rid: str, *, version: int | None = None) -> str:
    suffix = "" if version is None else f"&$version={version}"
    return f"$iothub/twin/res/{status}/?$rid={quote(rid, safe='')}{suffix}"


def registration_answer_topic(status: int, rid: str, *, retry_after_s: int | None = None) -> str:
    suffix = "" if retry_after_s is None else f"&retry-after={retry_after_s}"
    return f"$dps/registrations/res/{status}/?$rid={quote(rid, safe='')}{suffix}"


def desired_topic(version: int) -> str:
    return f"$iothub/twin/PATCH/properties/desired/?$version={version}"


def parse_properties(bag: str) -> dict[str, str | None]:
    """The property bag `a=1&b=&c`: keys and values URL-decoded, `c` is None."""
    properties: dict[str, str | None] = {}
    for part in bag.removeprefix("?").split("&"):
        key, equals, value = part.partition("=")
        if key:
            properties[_decoded(key)] = _decoded(value) if equals else None
    return properties


def _decoded(text: str) -> str:
    """URL-decoded; the SDK writes `%24.ct` in every event, so what is short is decoded once."""
    if "%" not in text:
        return text
    return _decoded_short(text) if len(text) <= _SHORT_CHARACTERS else unquote(text)


@lru_cache(maxsize=1_024)
def _decoded_short(text: str) -> str:
    return unquote(text)


def format_properties(properties: Mapping[str, str | None]) -> str:
    """The property bag that `parse_properties` reads back."""
    parts = (
        quote(key, safe="") + ("" if value is None else f"={quote(value, safe='')}")
        for key, value in properties.items()
    )
    return "&".join(parts)


def _rid(query: str) -> str:
    rid = parse_properties(query).get("$rid")
    if not rid or len(rid) > _RID_CHARACTERS_MAX:
        raise MqttError(f"Expected a request id $rid of 1 to {_RID_CHARACTERS_MAX} characters, got {query[:80]!r}")
    return rid
