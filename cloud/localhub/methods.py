"""What a caller of a direct method asks for, read and checked. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.links import METHOD_BYTES_MAX

RESPONSE_TIMEOUT_S = (5, 300)
CONNECT_TIMEOUT_S = (0, 300)
_NAME_CHARACTERS_MAX = 100


@dataclass(frozen=True)
class MethodCall:
    name: str
    payload: Any
    response_timeout_s: int
    connect_timeout_s: int


def parse_method(body: Mapping[str, Any]) -> MethodCall:
    """The call that a JSON body asks for. Raises ServiceError."""
    name, payload = body.get("methodName"), body.get("payload")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARACTERS_MAX:
        raise invalid_argument(f"Expected methodName of 1 to {_NAME_CHARACTERS_MAX} characters")
    if len(json.dumps(payload).encode()) > METHOD_BYTES_MAX:
        raise ServiceError(413, 413001, "MessageTooLarge", f"Expected a payload of at most {METHOD_BYTES_MAX} bytes")
    response_s = whole_of(body, "responseTimeoutInSeconds", default=30, bounds=RESPONSE_TIMEOUT_S)
    connect_s = whole_of(body, "connectTimeoutInSeconds", default=0, bounds=CONNECT_TIMEOUT_S)
    return MethodCall(name, payload, response_s, connect_s)


def whole_of(body: Mapping[str, Any], key: str, *, default: int, bounds: tuple[int, int]) -> int:
    """A whole number of a JSON body. Raises ServiceError."""
    value = body.get(key)
    if value is None:
        return default
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise invalid_argument(f"Expected {key} of {low} to {high}, got {str(value)[:40]}")
    return value
