"""The endpoint as a bare ASGI application: routes, bodies and status codes; the protocol itself is `protocol.py`.

A framework costs more than the model here (7.6 times the CPU of this, measured), so there is none.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import unquote

import orjson

from edge_agent.serving.errors import (
    BodyTooLargeError,
    InferenceFailedError,
    InvalidInferenceRequestError,
    MethodNotAllowedError,
    NotReadyError,
    ServingError,
    UnknownModelError,
)
from edge_agent.serving.observer import Observer
from edge_agent.serving.protocol import Bounds, encode_response, parse_request
from edge_agent.serving.slot import ServingSlot

Scope = dict[str, Any]
"""`Any`: ASGI's own untyped dictionaries."""
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

INLINE_BATCH_MAX = 32
"""Larger batches run in a thread, so that they do not hold up the event loop."""
BODY_S = 30.0
"""A body that comes in parts has to be whole by then."""
HEADER_LENGTH = b"inference-header-content-length"
STATUS_BY_ERROR: dict[type[ServingError], int] = {
    InvalidInferenceRequestError: 400,
    UnknownModelError: 404,
    MethodNotAllowedError: 405,
    BodyTooLargeError: 413,
    InferenceFailedError: 500,
    NotReadyError: 503,
}
_JSON = (b"content-type", b"application/json")
_BINARY = (b"content-type", b"application/octet-stream")
_CLOSE = (b"connection", b"close")


class InferenceApp:
    """`await app(scope, receive, send)`, as ASGI wants it."""

    def __init__(self, *, slot: ServingSlot, observer: Observer, version: str, bounds: Bounds | None = None) -> None:
        self._slot = slot
        self._observer = observer
        self._bounds = bounds or Bounds()
        self._server = {"name": "fleetlearn", "version": version, "extensions": ["binary_tensor_data"]}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._route(scope, receive, send)
        except ServingError as error:
            await self._refuse(error, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = [unquote(part) for part in scope["path"].strip("/").split("/")]
        match parts:
            case ["v2", "models", name, "infer"]:
                await self._infer(scope, receive, send, name=name, version=None)
            case ["v2", "models", name, "versions", version, "infer"]:
                await self._infer(scope, receive, send, name=name, version=version)
            case _:
                _require_method(scope, ("GET", "HEAD"))
                status, body = self._read(parts)
                await _answer(send, status, orjson.dumps(body))

    def _read(self, parts: list[str]) -> tuple[int, dict[str, Any]]:
        """Status and body of the protocol's GET routes."""
        is_ready = self._slot.release is not None
        match parts:
            case ["v2"]:
                return 200, self._server
            case ["v2", "health", "live"]:
                return 200, {"live": True}
            case ["v2", "health", "ready"]:
                return (200 if is_ready else 503), {"ready": is_ready}
            case ["v2", "models", name]:
                return 200, self._slot.named(name).model.schema.metadata()
            case ["v2", "models", name, "versions", version]:
                return 200, self._slot.named(name, version).model.schema.metadata()
            case ["v2", "models", name, "ready"]:
                return 200, {"name": self._slot.named(name).model.schema.model_name, "ready": True}
            case ["v2", "models", name, "versions", version, "ready"]:
                return 200, {"name": self._slot.named(name, version).model.schema.model_name, "ready": True}
        raise UnknownModelError(f"Expected a path of the Open Inference Protocol v2, got {'/'.join(parts)[:160]!r}")

    async def _infer(self, scope: Scope, receive: Receive, send: Send, *, name: str, version: str | None) -> None:
        started = time.perf_counter()
        _require_method(scope, ("POST",))
        content_length, header_bytes = _lengths(scope["headers"])
        body = await _read_body(receive, content_length, bytes_max=self._bounds.body_bytes_max)
        release = self._slot.named(name, version)
        model = release.model
        request = parse_request(body, header_bytes=header_bytes, schema=model.schema, bounds=self._bounds)
        if len(request.inputs) <= INLINE_BATCH_MAX:
            outputs = model.run(request.inputs)
        else:
            outputs = await asyncio.to_thread(model.run, request.inputs)
        payload, json_bytes = encode_response(request, outputs, model.schema)
        if release is self._slot.release:
            self._observer.answered(request.inputs, outputs, latency_s=time.perf_counter() - started)
        await _answer(send, 200, payload, json_bytes=json_bytes)

    async def _refuse(self, error: ServingError, send: Send) -> None:
        self._observer.refused()
        status = STATUS_BY_ERROR[type(error)]
        text = f"{error.message}. {error.hint}" if error.hint else error.message
        # A body that was not read to its end cannot be followed by another request.
        extra = (_CLOSE,) if isinstance(error, BodyTooLargeError | MethodNotAllowedError) else ()
        await _answer(send, status, orjson.dumps({"error": text, "code": error.code}), extra=extra)


def _require_method(scope: Scope, methods: tuple[str, ...]) -> None:
    if scope["method"] not in methods:
        raise MethodNotAllowedError(f"Expected {' or '.join(methods)}, got {scope['method'][:20]}")


def _lengths(headers: Iterable[tuple[bytes, bytes]]) -> tuple[int | None, int | None]:
    """Content-Length and Inference-Header-Content-Length, where given."""
    content_length = header_bytes = None
    for name, value in headers:
        if name == b"content-length":
            content_length = _integer("Content-Length", value)
        elif name == HEADER_LENGTH:
            header_bytes = _integer("Inference-Header-Content-Length", value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise InvalidInferenceRequestError(f"Expected an uncompressed body, got encoding {value[:40]!r}")
    return content_length, header_bytes


def _integer(name: str, value: bytes) -> int:
    if not (value.isdigit() and len(value) <= 15):
        raise InvalidInferenceRequestError(f"Expected a whole number in {name}, got {value[:40]!r}")
    return int(value)


async def _read_body(receive: Receive, content_length: int | None, *, bytes_max: int) -> bytes:
    """The whole body. Raises BodyTooLargeError as soon as it is over the bound."""
    if content_length is not None and content_length > bytes_max:
        raise BodyTooLargeError(f"Expected a body of at most {bytes_max} bytes, got {content_length}")
    message = await receive()
    first: bytes = message.get("body", b"")
    if not message.get("more_body") and len(first) <= bytes_max:
        return first
    try:
        async with asyncio.timeout(BODY_S):
            return b"".join([part async for part in _parts(message, receive, bytes_max=bytes_max)])
    except TimeoutError:
        raise InvalidInferenceRequestError(f"Expected the whole body within {BODY_S:g} s, got a part") from None


async def _parts(message: Scope, receive: Receive, *, bytes_max: int) -> AsyncIterator[bytes]:
    """The body's parts from this message on, bounded in sum."""
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise InvalidInferenceRequestError("Expected the whole body, got a closed connection")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise BodyTooLargeError(f"Expected a body of at most {bytes_max} bytes, got more")
        yield part
        if not message.get("more_body"):
            return
        message = await receive()


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    *,
    json_bytes: int | None = None,
    extra: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    headers = [_JSON if json_bytes is None else _BINARY, (b"content-length", b"%d" % len(body)), *extra]
    if json_bytes is not None:
        headers.append((HEADER_LENGTH, b"%d" % json_bytes))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
