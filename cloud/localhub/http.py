"""Requests and responses over bare ASGI, bounded: the little the service API needs of a framework."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from cloud.localhub.errors import ServiceError, invalid_argument

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_DRAIN_FACTOR = 4


@dataclass(frozen=True)
class Response:
    """A status, a JSON value (None: no body; bytes: the body itself) and headers."""

    status: int
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A request whose caller is allowed to make it: path groups, query, headers in lower case, body."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises ServiceError."""
        value = self.json()
        if not isinstance(value, dict):
            raise invalid_argument(f"Expected a JSON object as the body, got {type(value).__name__}")
        return value

    def json_array(self, *, items_max: int) -> list[dict[str, Any]]:
        """The body as a JSON array of objects. Raises ServiceError."""
        value = self.json()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise invalid_argument("Expected a JSON array of objects as the body, got something else")
        if len(value) > items_max:
            raise invalid_argument(f"Expected at most {items_max} objects in the body, got {len(value)}")
        return value

    def json(self) -> object:
        """The body as JSON. Raises ServiceError."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise invalid_argument("Expected a JSON body, got something else") from error

    def if_match(self) -> str | None:
        """The ETag without its quotes, `*` for any, None without the header."""
        value = self.headers.get("if-match")
        return None if value is None else value.strip().strip('"')

    def whole(self, key: str, *, default: int, low: int, high: int) -> int:
        return _whole(self.query.get(key), key, default=default, low=low, high=high)

    def header_whole(self, key: str, *, default: int, low: int, high: int) -> int:
        return _whole(self.headers.get(key), key, default=default, low=low, high=high)

    def seconds(self, key: str, *, default: float, high: float) -> float:
        text = self.query.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= high:
            raise invalid_argument(f"Expected {key} of 0 to {high:g} seconds, got {text[:40]!r}")
        return value


async def read_body(receive: Receive, *, bytes_max: int, timeout_s: float) -> bytes:
    """The whole body. Raises ServiceError where it is too large or too slow, or the caller left."""
    body, received = bytearray(), 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise invalid_argument("Expected the rest of the body, got the end of the connection")
                chunk = message.get("body", b"")
                received += len(chunk)
                if received <= bytes_max:
                    body += chunk
                # A body that is a little too large is read to its end, so that its sender sees the answer.
                if received > bytes_max * _DRAIN_FACTOR or not message.get("more_body", False):
                    break
    except TimeoutError:
        raise ServiceError(408, 408001, "RequestTimeout", f"Expected the body within {timeout_s:g} s") from None
    if received > bytes_max:
        raise ServiceError(413, 413001, "MessageTooLarge", f"Expected a body of at most {bytes_max} bytes")
    return bytes(body)


async def respond(send: Send, response: Response) -> None:
    """Sends the response; a value as JSON."""
    body, kind = _encoded(response.body)
    headers = [(key.encode(), value.encode("latin-1")) for key, value in response.headers.items()]
    if kind and "content-type" not in response.headers:
        headers.append((b"content-type", kind))
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _encoded(body: object) -> tuple[bytes, bytes]:
    """The bytes of a body and their content type, which is empty where there is no body."""
    if body is None:
        return b"", b""
    if isinstance(body, bytes):
        return body, b"application/octet-stream"
    return json.dumps(body).encode(), b"application/json; charset=utf-8"


def _whole(text: str | None, key: str, *, default: int, low: int, high: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and low <= int(text) <= high):
        raise invalid_argument(f"Expected {key} of {low} to {high}, got {text[:40]!r}")
    return int(text)
