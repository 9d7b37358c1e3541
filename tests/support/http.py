"""HTTP to an ASGI application without a socket: plain calls for tests, the application in an event loop of its own."""

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

ResultT = TypeVar("ResultT")


class AppClient:
    """A client of one application; its loop runs, and its lifespan with it, inside the context."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        self._portal = self._stack.enter_context(start_blocking_portal())
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="https://coordinator")
        self._stack.callback(self._portal.call, self._http.aclose)
        lifespan = self._app.router.lifespan_context(self._app)
        self._stack.enter_context(self._portal.wrap_async_context_manager(lifespan))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def call(self, function: Callable[..., Awaitable[ResultT]], *arguments: object) -> ResultT:
        """Runs something in the application's loop, where its hub lives."""
        assert self._portal is not None, "use the client as a context manager"
        return self._portal.call(function, *arguments)

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:  # Any: httpx's own arguments
        async def send() -> httpx.Response:
            return await self._http.request(method, path, **given)

        return self.call(send)

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.request("GET", path, **given)

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self.request("POST", path, **given)

    def delete(self, path: str, **given: Any) -> httpx.Response:
        return self.request("DELETE", path, **given)
