"""One device's connection: its packets in their order, and its end.

What a packet leads to happens at once, where the bytes arrive, as long as nothing has to be waited for. What waits
(proof of identity, twins, room for events) is a task's, and all that comes meanwhile queues behind it, so that a
device's packets are handled in their order. A connection that is idle has a timer and no task.

A connection counts from the moment it is accepted, so handshakes are bounded too. Received packets wait in a bounded
inbox (the socket is not read while it is full), and a device that does not read what it is sent is closed.

The bytes are `wire`'s, the time is `patience`'s, and what the session decides is done by `performing`.
"""

import asyncio
import ssl
from collections import deque
from typing import cast

from cloud.localhub import codec
from cloud.localhub.certificates import PeerCertificate
from cloud.localhub.errors import MqttError
from cloud.localhub.hub import Hub
from cloud.localhub.patience import Patience
from cloud.localhub.performing import Performer
from cloud.localhub.session import Effect, Session
from cloud.localhub.tls import TlsServer, Unencrypted
from cloud.localhub.wire import Wire


class Connection(asyncio.Protocol):
    """One socket: plain at first, then TLS, then a session. Behind a WebSocket, TLS is done when it begins.

    Args:
        hub: What it connects to.
        tls: The server's side of it.
        connections: All that are open; this one adds itself, and takes itself out when it has ended.
    """

    __slots__ = (
        "_connections",
        "_effects",
        "_ending",
        "_failure",
        "_hub",
        "_inbox",
        "_inbox_bytes",
        "_is_paused",
        "_patience",
        "_performer",
        "_session",
        "_wire",
        "task",
    )

    def __init__(self, hub: Hub, tls: TlsServer | Unencrypted, *, connections: "set[Connection]") -> None:
        self.task: asyncio.Task[None] | None = None
        """What waits at the moment, and in the end what takes the connection out of the books."""
        self._hub = hub
        self._connections = connections
        self._session = Session()
        self._wire = Wire(tls)
        self._patience = Patience(self._session, self._wire, hub.limits, on_late=self._late)
        self._performer = Performer(hub, self._session, self)
        self._inbox: deque[codec.Packet] | None = None
        """Packets that wait for the task; made when the first one does, because even an empty one is large."""
        self._inbox_bytes = 0
        self._is_paused = False
        self._effects: list[Effect] = []
        self._failure: str | None = None
        self._ending: str | None = None
        """Why nothing more will come; what came before is handled all the same."""

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins, or ends at once where there are too many."""
        transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it
        if len(self._connections) >= self._hub.limits.connections_max:
            self._failure = "there are too many connections"
            transport.abort()
            return
        self._connections.add(self)
        self._wire.open(transport)
        self._patience.open()

    def data_received(self, data: bytes) -> None:
        """Handles the packets that these bytes complete."""
        if self._failure is not None:
            return
        self._patience.heard()
        was_secure = self._wire.is_secure
        try:
            packets = self._wire.receive(data)
            if self._wire.is_secure and not was_secure:
                self._patience.secured()
            for packet in packets:
                if self._failure is None:
                    self._receive(packet)
        except MqttError as error:
            self.close(str(error))
        except ssl.SSLError as error:
            self.close(f"TLS failed: {error}")
        else:
            self._count_waiting(len(data))
            if self._wire.is_ended:
                self._end("the device ended TLS")

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._end("the connection was lost" if exc is None else f"the connection was lost: {exc}")

    # Packets, in their order.

    def _receive(self, packet: codec.Packet) -> None:
        if not self._effects:
            self._effects += self._session.receive(packet)
            self._advance()
        elif self._inbox is None:
            self._inbox = deque((packet,))
        else:
            self._inbox.append(packet)

    def _count_waiting(self, size: int) -> None:
        if self._effects:
            self._inbox_bytes += size
            if self._inbox_bytes > self._hub.limits.inbox_bytes_max and not self._is_paused:
                self._is_paused = True
                self._wire.pause()

    def _advance(self) -> None:
        """Handles what needs no waiting, in order; a task takes over at the first effect that does."""
        while self._failure is None:
            while self._effects:
                if not self._performer.perform_now(self._effects[0]):
                    if self.task is None:
                        self.task = asyncio.get_running_loop().create_task(self._work())
                    return
                del self._effects[0]
            if not self._inbox:
                break
            self._effects += self._session.receive(self._inbox.popleft())
        if self._ending is not None:
            self.close(self._ending)
        self._drained()

    def _drained(self) -> None:
        self._inbox, self._inbox_bytes = None, 0
        if self._is_paused and self._failure is None:
            self._is_paused = False
            self._wire.resume()

    async def _work(self) -> None:
        """Performs what has to be waited for, and what queued behind it; the connection's end too, where it comes."""
        try:
            while self._effects and self._failure is None:
                await self._performer.perform(self._effects[0])
                del self._effects[0]
                self._advance()
                if self._failure is None:
                    self._patience.renew()
        finally:
            if self._effects:
                self.close("the connection's task ended")
            if self._failure is not None:
                await self._finish()
            self.task = None

    # What performing needs of a connection.

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._failure is not None

    def peer_certificate(self) -> PeerCertificate | None:
        """The verified client certificate, or None where there is none."""
        return self._wire.peer_certificate()

    def expire_at(self, time_s: float) -> None:
        """Ends it at that time of the hub, unless it ends before."""
        self._patience.expires_at = asyncio.get_running_loop().time() + time_s - self._hub.time()

    def send(self, packet: codec.Packet) -> None:
        """Queues a packet; closes a device that does not read."""
        self.write(codec.encode(packet))

    def write(self, data: bytes) -> None:
        """Queues encoded packets; closes a device that does not read."""
        if self._failure is None and self._wire.send(data) > self._hub.limits.outgoing_bytes_max:
            self.close("the device reads too slowly")
            self._wire.abort()

    # The end.

    def _late(self) -> None:
        self.close("nothing came in the time allowed, or the token expired")

    def _end(self, reason: str) -> None:
        """Nothing more will come; closes when what came before is handled."""
        if self._effects:
            self._ending = reason
        else:
            self.close(reason)

    def close(self, reason: str) -> None:
        """Ends the connection; what was sent before still goes out, if the device reads it soon. Safe to call twice."""
        if self._failure is not None:
            return
        self._failure = reason
        self._performer.stop_waiting()
        self._patience.end()
        self._wire.close()
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._finish())

    async def _finish(self) -> None:
        self._connections.discard(self)
        await self._performer.finish(self._failure or "")
        # They refer back to this: its TLS, which is large, would live until the garbage collector looks.
        del self._performer, self._patience
