"""What the endpoint answers: routes, methods and status codes; HTTP is `http.py`, the inference protocol `protocol.py`.

A framework costs several times what the model does (`fleetlearn bench serve` measures one), so there is none.
"""

import asyncio
import time
from functools import lru_cache, partial
from typing import Any
from urllib.parse import unquote

import orjson

from edge_agent.serving.batching import EXAMPLES_MAX, Batcher, Outcome
from edge_agent.serving.errors import (
    BodyTooLargeError,
    BusyError,
    HeadTooLargeError,
    InferenceFailedError,
    InvalidHttpError,
    InvalidInferenceRequestError,
    MethodNotAllowedError,
    NotReadyError,
    RequestTimeoutError,
    ServingError,
    UnknownModelError,
)
from edge_agent.serving.http import Answer, Request
from edge_agent.serving.observer import Observer
from edge_agent.serving.protocol import Bounds, InferenceRequest, encode_response, parse_request
from edge_agent.serving.session import LoadedRelease
from edge_agent.serving.slot import ServingSlot

STATUS_BY_ERROR: dict[type[ServingError], int] = {
    InvalidHttpError: 400,
    InvalidInferenceRequestError: 400,
    UnknownModelError: 404,
    MethodNotAllowedError: 405,
    RequestTimeoutError: 408,
    BodyTooLargeError: 413,
    HeadTooLargeError: 431,
    InferenceFailedError: 500,
    BusyError: 503,
    NotReadyError: 503,
}


class InferenceApp:
    """Implements `edge_agent.serving.http.Application`. Used on the event loop only."""

    def __init__(self, *, slot: ServingSlot, observer: Observer, version: str, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._slot = slot
        self._observer = observer
        self._server = {"name": "fleetlearn", "version": version, "extensions": ["binary_tensor_data"]}
        self._batcher = Batcher()
        self._beside: set[asyncio.Task[None]] = set()

    def respond(self, request: Request, answer: Answer) -> None:
        """Answers, now or later."""
        try:
            self._route(request, answer)
        except ServingError as error:
            self.refuse(error, answer)

    def refuse(self, error: ServingError, answer: Answer) -> None:
        """Answers with the error."""
        self._observer.refused()
        text = f"{error.message}. {error.hint}" if error.hint else error.message
        answer(STATUS_BY_ERROR[type(error)], orjson.dumps({"error": text, "code": error.code}))

    def _route(self, request: Request, answer: Answer) -> None:
        parts = _parts(request.target)
        match parts:
            case ("v2", "models", name, "infer"):
                self._infer(request, answer, name=name, version=None)
            case ("v2", "models", name, "versions", version, "infer"):
                self._infer(request, answer, name=name, version=version)
            case _:
                _require_method(request, ("GET", "HEAD"))
                status, body = self._read(parts)
                answer(status, orjson.dumps(body))

    def _read(self, parts: tuple[str, ...]) -> tuple[int, dict[str, Any]]:
        """Status and body of the protocol's GET routes."""
        is_ready = self._slot.release is not None
        match parts:
            case ("v2",):
                return 200, self._server
            case ("v2", "health", "live"):
                return 200, {"live": True}
            case ("v2", "health", "ready"):
                return (200 if is_ready else 503), {"ready": is_ready}
            case ("v2", "models", name):
                return 200, self._slot.named(name).model.schema.metadata()
            case ("v2", "models", name, "versions", version):
                return 200, self._slot.named(name, version).model.schema.metadata()
            case ("v2", "models", name, "ready"):
                return 200, {"name": self._slot.named(name).model.schema.model_name, "ready": True}
            case ("v2", "models", name, "versions", version, "ready"):
                return 200, {"name": self._slot.named(name, version).model.schema.model_name, "ready": True}
        raise UnknownModelError(f"Expected a path of the Open Inference Protocol v2, got {'/'.join(parts)[:160]!r}")

    def _infer(self, request: Request, answer: Answer, *, name: str, version: str | None) -> None:
        started = time.perf_counter()
        _require_method(request, ("POST",))
        if request.encoding and request.encoding.lower() != b"identity":
            raise InvalidInferenceRequestError(f"Expected an uncompressed body, got encoding {request.encoding[:40]!r}")
        release = self._slot.named(name, version)
        model = release.model
        header_bytes = _header_bytes(request.json_bytes)
        parsed = parse_request(request.body, header_bytes=header_bytes, schema=model.schema, bounds=self.bounds)
        finish = partial(self._finish, parsed, release, answer, started)
        loop = asyncio.get_running_loop()
        if len(parsed.inputs) <= EXAMPLES_MAX:
            self._batcher.submit(model, parsed.inputs, finish, call_soon=loop.call_soon)
            return
        task = loop.create_task(self._run_beside(release, parsed, answer, started))
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _run_beside(
        self, release: LoadedRelease, parsed: InferenceRequest, answer: Answer, started: float
    ) -> None:
        """Runs a large batch in a thread, so that it does not hold up the event loop."""
        try:
            outcome: Outcome = await asyncio.to_thread(release.model.run, parsed.inputs)
        except InferenceFailedError as error:
            outcome = error
        self._finish(parsed, release, answer, started, outcome)

    def _finish(
        self, parsed: InferenceRequest, release: LoadedRelease, answer: Answer, started: float, outcome: Outcome
    ) -> None:
        if isinstance(outcome, InferenceFailedError):
            self.refuse(outcome, answer)
            return
        payload, json_bytes = encode_response(parsed, outcome, release.model.schema)
        if release is self._slot.release:
            self._observer.answered(parsed.inputs, outcome, latency_s=time.perf_counter() - started)
        answer(200, payload, json_bytes=json_bytes)


@lru_cache(maxsize=256)
def _parts(target: bytes) -> tuple[str, ...]:
    """The path's parts; clients ask for few different ones."""
    path = target.partition(b"?")[0].decode("latin-1")
    return tuple(unquote(part) for part in path.strip("/").split("/"))


def _require_method(request: Request, methods: tuple[str, ...]) -> None:
    if request.method not in methods:
        raise MethodNotAllowedError(f"Expected {' or '.join(methods)}, got {request.method[:20]}")


def _header_bytes(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not (value.isdigit() and len(value) <= 15):
        raise InvalidInferenceRequestError(
            f"Expected a whole number in Inference-Header-Content-Length, got {value[:40]!r}"
        )
    return int(value)
