"""The consumers' door: an Event Hubs-compatible endpoint over AMQP 1.0 and TLS, for `azure-eventhub` and its like.

    Endpoint=sb://HOST/;SharedAccessKeyName=service;SharedAccessKey=...;EntityPath=events

What it offers is what such a consumer needs: tokens put on `$cbs`, properties of the hub and of partitions read on
`$management`, and links that read a partition for a consumer group, from an offset, a sequence number or a time, with
epochs (owner levels). Sending to it is not offered: events come from devices.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable

import structlog

from cloud.localhub.amqp.connection import (
    CBS,
    IDLE_S,
    Close,
    Connection,
    Effect,
    Link,
    MaySend,
    OpenReader,
    ReaderGone,
    Request,
)
from cloud.localhub.amqp.frames import EMPTY_FRAME
from cloud.localhub.amqp.messages import answer, encode_event
from cloud.localhub.amqp.nodes import answer_management, check_token
from cloud.localhub.amqp.reading import Place, parse_address, parse_selector
from cloud.localhub.errors import RefusedError, ServiceError
from cloud.localhub.hub import Hub

_log = structlog.get_logger("localhub")

_READ_BYTES = 65_536
_WAIT_S = 30.0
_BATCH_MAX = 300
_STOLEN = "amqp:link:stolen"
_CONDITIONS = {400: "amqp:not-allowed", 404: "amqp:not-found", 429: "com.microsoft:server-busy"}


class AmqpServer:
    """Listens for consumers. `await start(...)`, then `await close()`."""

    def __init__(self, hub: Hub, tls: ssl.SSLContext) -> None:
        self.port = 0
        self._hub = hub
        self._tls = tls
        self._readers = Readers()
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, *, address: str, port: int) -> None:
        self._server = await asyncio.start_server(
            self._serve, address, port, ssl=self._tls, ssl_handshake_timeout=self._hub.limits.handshake_s
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        if self._clients:
            await asyncio.wait(self._clients, timeout=5.0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= self._hub.limits.consumers_max:
            writer.transport.abort()
            return
        self._clients.add(task)
        client = _Client(self._hub, self._readers, writer)
        try:
            await client.serve(reader)
        except (OSError, TimeoutError) as error:
            _log.debug("consumer_lost", reason=str(error))
        except asyncio.CancelledError:
            _log.debug("consumer_lost", reason="the hub is stopping")  # Raised on, asyncio would log it as a mistake.
        finally:
            self._clients.discard(task)
            client.stop()
            writer.close()


class Readers:
    """Who reads a partition for a group now: with owner levels (epochs), the highest alone."""

    def __init__(self) -> None:
        self._readers: dict[Place, dict[Link, Callable[[], None]]] = {}

    def add(self, place: Place, link: Link, steal: Callable[[], None]) -> bool:
        """Takes a reader in, and ends those that it outranks; False where it is outranked itself."""
        there = self._readers.setdefault(place, {})
        highest = max((other.epoch for other in there if other.epoch is not None), default=None)
        if highest is not None and (link.epoch is None or link.epoch < highest):
            return False
        if link.epoch is not None:
            for steal_other in list(there.values()):
                steal_other()
        there[link] = steal
        return True

    def remove(self, place: Place, link: Link) -> None:
        self._readers.get(place, {}).pop(link, None)


class _Client:
    """One connection: the shell around `connection.Connection`, with a task for each link that reads."""

    def __init__(self, hub: Hub, readers: Readers, writer: asyncio.StreamWriter) -> None:
        self._hub = hub
        self._readers = readers
        self._writer = writer
        self._connection = Connection("localhub")
        self._tasks: dict[Link, asyncio.Task[None]] = {}
        self._rooms: dict[Link, asyncio.Event] = {}
        self._allowed_until = 0.0
        self._beat: asyncio.Task[None] | None = None
        self._is_over = False

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Until the client leaves. Raises OSError, TimeoutError."""
        while not self._is_over:
            async with asyncio.timeout(IDLE_S):
                data = await reader.read(_READ_BYTES)
            if not data:
                return
            for effect in self._connection.receive(data):
                await self._perform(effect)
            self._flush()
            await self._writer.drain()
            if self._beat is None and self._connection.idle_s is not None:
                self._beat = asyncio.create_task(self._keep_alive(self._connection.idle_s / 2))

    def stop(self) -> None:
        for task in (*self._tasks.values(), self._beat):
            if task is not None:
                task.cancel()

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Request(node) if node == CBS:
                self._put_token(effect)
            case Request():
                await self._manage(effect)
            case OpenReader(link):
                await self._open_reader(link)
            case MaySend(link):
                if link in self._rooms:
                    self._rooms[link].set()
            case ReaderGone(link):
                self._end(link)
            case Close(reason):
                _log.debug("consumer_closed", reason=reason)
                self._is_over = True

    def _put_token(self, request: Request) -> None:
        try:
            expiry = check_token(request.message, self._hub.policies, now=self._hub.time())
        except RefusedError as error:
            _log.warning("consumer_refused", reason=str(error))
            self._connection.answer(request, answer(request.message, status=401, description=str(error)))
            return
        self._allowed_until = max(self._allowed_until, expiry)
        self._connection.answer(request, answer(request.message, status=202, description="Accepted"))

    async def _manage(self, request: Request) -> None:
        if not self._is_allowed:
            reply = answer(request.message, status=401, description="Expected a token on $cbs first")
        else:
            reply = answer_management(request.message, await self._hub.events.states())
        self._connection.answer(request, reply)

    @property
    def _is_allowed(self) -> bool:
        return self._hub.time() < self._allowed_until

    # Links that read

    async def _open_reader(self, link: Link) -> None:
        if not self._is_allowed:
            self._connection.refuse(link, "amqp:unauthorized-access", "Expected a valid token on $cbs first")
            return
        try:
            place = parse_address(link.address, partitions=self._hub.events.partitions)
            await self._hub.events.checkpoint(place.group, place.partition)  # The group has to be there.
            after = await self._hub.events.sequence_before(place.partition, parse_selector(link.selector))
        except ServiceError as error:
            self._connection.refuse(link, _CONDITIONS.get(error.status, "amqp:internal-error"), str(error))
            return
        if not self._readers.add(place, link, lambda: self._steal(link)):
            self._connection.refuse(link, _STOLEN, "A reader with a higher epoch is there")
            return
        self._connection.accept(link)
        self._rooms[link] = asyncio.Event()
        task = self._tasks[link] = asyncio.create_task(self._read(link, place, after))
        task.add_done_callback(lambda _: self._readers.remove(place, link))

    def _steal(self, link: Link) -> None:
        self._connection.refuse(link, _STOLEN, "A reader with a higher epoch came")
        self._flush()
        self._end(link)

    def _end(self, link: Link) -> None:
        self._rooms.pop(link, None)
        if (task := self._tasks.pop(link, None)) is not None:
            task.cancel()

    async def _read(self, link: Link, place: Place, after: int) -> None:
        room = self._rooms[link]
        try:
            while self._is_allowed and not self._hub.events.is_stopping:
                await self._until(room, lambda: link.credit > 0)
                limit = min(link.credit, _BATCH_MAX)
                events = await self._hub.events.read_partition(
                    place.partition, after=after, limit=limit, wait_s=_WAIT_S
                )
                for event in events:
                    message = encode_event(event)
                    await self._until(room, lambda message=message: self._connection.send(link, message))  # type: ignore[misc]  # mypy does not infer defaults of lambdas
                    after = event.sequence_number
                self._flush()
                await self._writer.drain()
            self._connection.refuse(link, "amqp:unauthorized-access", "The token has expired, or the hub is stopping")
        except ServiceError as error:
            self._connection.refuse(link, _CONDITIONS.get(error.status, "amqp:internal-error"), str(error))
        except OSError:
            return
        self._flush()

    async def _until(self, room: asyncio.Event, check: Callable[[], bool]) -> None:
        """Returns once the check holds, tried now and whenever the client has made room."""
        while not check():
            room.clear()
            self._flush()
            await room.wait()

    async def _keep_alive(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            self._writer.write(EMPTY_FRAME)

    def _flush(self) -> None:
        if data := self._connection.take():
            with contextlib.suppress(OSError):
                self._writer.write(data)
