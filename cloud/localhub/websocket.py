"""MQTT over WebSockets (MQTT 3.1.1, section 6), at the path that IoT Hub has, on the services' port.

Uvicorn and `websockets` speak HTTP, TLS and frames. A connection here is the same `Connection` as behind TCP: it gets
the bytes of binary messages in place of decrypted ones, and a transport that sends messages.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from cloud.localhub.certificates import PeerCertificate
from cloud.localhub.connection import Connection
from cloud.localhub.http import Receive, Scope, Send
from cloud.localhub.mqtt_server import MqttServer
from cloud.localhub.tls import Unencrypted

PATH = "/$iothub/websocket"
SUBPROTOCOL = "mqtt"

_NORMAL_CLOSURE = 1000


async def serve_websocket(
    devices: MqttServer, scope: Scope, receive: Receive, send: Send, certificate: PeerCertificate | None
) -> None:
    """One device's connection, from the request for it to its end."""
    await receive()
    if scope["path"] != PATH or SUBPROTOCOL not in _offered(scope["subprotocols"]):
        await send({"type": "websocket.close", "code": _NORMAL_CLOSURE})
        return
    await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
    transport = _Messages()
    connection = devices.connection(Unencrypted(certificate))
    connection.connection_made(transport)
    reading = asyncio.ensure_future(_read(receive, connection, transport))
    try:
        while (data := await transport.next_message()) is not None:
            await send({"type": "websocket.send", "bytes": data})
        if not reading.done():
            await send({"type": "websocket.close", "code": _NORMAL_CLOSURE})
    finally:
        reading.cancel()
        connection.connection_lost(None)
        await asyncio.wait({reading})


async def _read(receive: Receive, connection: Connection, transport: "_Messages") -> None:
    """Hands binary messages to the connection, in turn with its reading; ends with the WebSocket."""
    while True:
        await transport.readable()
        message = await receive()
        if message["type"] == "websocket.disconnect":
            connection.connection_lost(None)
            transport.abort()
            return
        data = message.get("bytes")
        if data is None:
            # MQTT 3.1.1, 6: text frames are a protocol error.
            connection.close("a text frame came")
            return
        connection.data_received(data)


def _offered(subprotocols: Sequence[str]) -> list[str]:
    return [name.strip() for header in subprotocols for name in header.split(",")]


class _Messages(asyncio.Transport):
    """What a connection writes, as a queue of messages, and whether it wants to read."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._is_closing = False
        self._changed = asyncio.Event()
        self._readable = asyncio.Event()
        self._readable.set()

    async def next_message(self) -> bytes | None:
        """The next message to send, or None when the connection has closed and all is sent."""
        while not self._queue:
            if self._is_closing:
                return None
            self._changed.clear()
            await self._changed.wait()
        data = self._queue.popleft()
        self._queued_bytes -= len(data)
        return data

    async def readable(self) -> None:
        """Returns when the connection wants to read."""
        await self._readable.wait()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing:
            self._queue.append(bytes(data))
            self._queued_bytes += len(data)
            self._changed.set()

    def get_write_buffer_size(self) -> int:
        return self._queued_bytes

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True
        self._changed.set()

    def abort(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        self.close()

    def pause_reading(self) -> None:
        self._readable.clear()

    def resume_reading(self) -> None:
        self._readable.set()
