"""What is true of every request: its body is bounded, and an answer to a device carries a nonce (ASGI)."""

from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.auth.nonces import Nonces
from cloud.errors import TooLargeError
from shared.api.base import Problem
from shared.device_auth import NONCE_HEADER

_FOR_DEVICES = ("/v1/device/", "/v1/nonce", "/v1/enrol")


class BodyLimit:
    """Refuses a request whose body is larger than a bound, before it is in memory."""

    def __init__(self, app: ASGIApp, *, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._bytes_max:
            await self._refuse(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        """For a body that comes in chunks, without its length in the header."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._bytes_max:
                raise TooLargeError(self._sentence)
            return message

        return counted

    @property
    def _sentence(self) -> str:
        return f"Expected a body of at most {self._bytes_max} bytes, got a larger one"

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = Problem(code=TooLargeError.code, message=self._sentence)
        answer = JSONResponse(problem.model_dump(), status_code=413, headers={"Connection": "close"})
        await answer(scope, receive, send)


class NonceOnAnswers:
    """Puts a nonce on every answer to a device, refusals included."""

    def __init__(self, app: ASGIApp, *, nonces: Nonces, now: Callable[[], float]) -> None:
        self._app = app
        self._nonces = nonces
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_nonce(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[NONCE_HEADER] = self._nonces.current(now=self._now())
            await send(message)

        is_for_device = scope["type"] == "http" and scope["path"].startswith(_FOR_DEVICES)
        await self._app(scope, receive, with_nonce if is_for_device else send)
