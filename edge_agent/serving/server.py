"""Runs the endpoint in the agent's own event loop, and says where it listens."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from edge_agent.errors import AddressNotAvailableError, AddressRefusedError
from edge_agent.serving.app import InferenceApp
from edge_agent.serving.http import Connections

CONNECTIONS_MAX = 256
"""More are answered with 503."""
SHUTDOWN_S = 2.0
WATCH_S = 1.0
"""Between two looks for connections whose time is over."""


@dataclass(frozen=True)
class Endpoint:
    """Where the endpoint listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


@contextlib.asynccontextmanager
async def serving(app: InferenceApp, *, host: str, port: int, for_anyone: bool = False) -> AsyncIterator[Endpoint]:
    """Listens while the context is open; port 0 takes a free one. Requests that have begun are answered at its end.

    Raises:
        AddressRefusedError: The address can be reached from other machines, and nobody said that it may be.
        AddressNotAvailableError: The address is taken or not this machine's.
    """
    listener = _listen(host, port, for_anyone=for_anyone)
    loop = asyncio.get_running_loop()
    bound = listener.getsockname()
    connections = Connections(
        app, body_bytes_max=app.bounds.body_bytes_max, connections_max=CONNECTIONS_MAX, clock=loop.time
    )
    server = await loop.create_server(connections, sock=listener)
    watch = asyncio.create_task(_watch(connections), name="serving")
    try:
        yield Endpoint(bound[0], bound[1])
    finally:
        watch.cancel()
        server.close()
        await _finish(connections)


async def _watch(connections: Connections) -> None:
    while True:
        await asyncio.sleep(WATCH_S)
        connections.expire()


async def _finish(connections: Connections) -> None:
    """Ends all connections: gently, for a while."""
    connections.finish()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(connections.all_closed(), SHUTDOWN_S)
    connections.abort()
    await asyncio.sleep(0)


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
