"""Runs the endpoint under uvicorn in the agent's own event loop, and says where it listens."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import uvicorn

from edge_agent.errors import AddressNotAvailableError, AddressRefusedError
from edge_agent.serving.app import InferenceApp

CONNECTIONS_MAX = 256
"""More requests at once are answered with 503."""
SHUTDOWN_S = 2


@dataclass(frozen=True)
class Endpoint:
    """Where the endpoint listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the agent has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: InferenceApp, *, host: str, port: int, for_anyone: bool = False) -> AsyncIterator[Endpoint]:
    """Listens while the context is open; port 0 takes a free one.

    Raises:
        AddressRefusedError: The address can be reached from other machines, and nobody said that it may be.
        AddressNotAvailableError: The address is taken or not this machine's.
    """
    listener = _listen(host, port, for_anyone=for_anyone)
    server = _Server(
        uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=SHUTDOWN_S,
            limit_concurrency=CONNECTIONS_MAX,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listener]), name="serving")
    try:
        bound = listener.getsockname()
        yield Endpoint(bound[0], bound[1])
    finally:
        server.should_exit = True
        await task


def _listen(host: str, port: int, *, for_anyone: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise AddressNotAvailableError(f"Expected an address of this machine to serve on, got {host!r}") from error
    if not for_anyone and not _is_loopback(str(address[0])):
        raise AddressRefusedError(
            f"Expected a loopback address to serve on, got {host}: the endpoint asks nobody who they are",
            hint="Keep the default, or say --serve-anyone if every machine that reaches it may use it.",
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise AddressNotAvailableError(
            f"Expected to serve on {host}:{port}, got: {error.strerror}",
            hint="Another program may use the port; --serve-port 0 takes a free one.",
        ) from error
    listener.setblocking(False)
    return listener


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
