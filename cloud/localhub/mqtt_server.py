"""The devices' door: listens for MQTT over TLS, and knows which connections are open."""

import asyncio
import ssl

from cloud.localhub.connection import Connection
from cloud.localhub.hub import Hub
from cloud.localhub.tls import TlsServer, Unencrypted

_CLOSE_S = 5.0
"""What the connections' tasks get to end in."""


class MqttServer:
    """Listens for devices. `await start(...)`, then `await close()`."""

    def __init__(self, hub: Hub, tls: ssl.SSLContext) -> None:
        self.port = 0
        self._hub = hub
        self._tls = tls
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, *, address: str, port: int) -> None:
        """Listens from now on. Raises OSError where it cannot."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: self.connection(TlsServer(self._tls)), address, port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def connection(self, tls: TlsServer | Unencrypted) -> Connection:
        """A connection that counts here, for whoever has a transport for it."""
        return Connection(self._hub, tls, connections=self._connections)

    async def close(self) -> None:
        """Stops listening and waits for the connections' tasks."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.close("the hub is stopping")
        tasks = [connection.task for connection in connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)
