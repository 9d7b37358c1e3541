"""The agent's one connection to the hub, from connect to its end: signals in, outbox and reports out."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from edge_agent.core import reply_to
from edge_agent.signals import CommandArrived, Connected, DesiredPatched, Disconnected, FetchDue, Signal, TwinRead
from edge_agent.telemetry.spool import Outbox
from shared.hub.port import EVENT_BYTES_MAX, CommandReply, DeviceHub, HubError, HubRefusedError
from shared.messages.desired import ReportedRelease

_BATCH = 16
_log = structlog.get_logger()
Emit = Callable[[Signal], Awaitable[None]]


class HubLink:
    """Connects when told to, and keeps what is to be said until it can be said.

    Args:
        hub: The device's end of a hub.
        outbox: Events go from it in order, and leave it once acknowledged.
        emit: Takes signals for the core.
        clock: Monotonic seconds.
    """

    def __init__(self, hub: DeviceHub, outbox: Outbox, *, emit: Emit, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._outbox = outbox
        self._emit = emit
        self._clock = clock
        self._news = asyncio.Event()
        self._heartbeat: bytes | None = None
        self._report: ReportedRelease | None = None
        self._said = ""
        """What the log was last told of the connection, so that it is told of changes alone."""
        hub.on_command(self._on_command)

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._news.set()

    def say_alive(self, heartbeat: bytes) -> None:
        """Sends this heartbeat next; one that could not be sent is replaced, never queued."""
        self._heartbeat = heartbeat
        self._news.set()

    def report(self, release: ReportedRelease) -> None:
        """Writes this to the reported document next; only the newest counts."""
        self._report = release
        self._news.set()

    async def read_twin(self) -> None:
        with suppress(HubError):  # the connection is gone: the next connect reads it
            desired = (await self._hub.get_twin()).desired
            await self._emit(TwinRead(desired.document, desired.version))

    async def connect_once(self) -> None:
        """One connection, from its start to its end; tells the core of both."""
        started: float | None = None
        try:
            await self._hub.connect()
            desired = (await self._hub.get_twin()).desired
            started = self._clock()
            await self._emit(Connected(desired.document, desired.version))
            self._say("hub_connected")
            await self._pump()
            self._say("hub_connection_lost", reason="the connection ended")
        except HubRefusedError as error:
            self._say("hub_refused", reason=error.message)
            await self._emit(FetchDue())  # over HTTPS the coordinator says whether this device is revoked
        except HubError as error:
            self._say("hub_not_reached" if started is None else "hub_connection_lost", reason=error.message)
        finally:
            with suppress(HubError):
                await self._hub.close()
        await self._emit(Disconnected(0.0 if started is None else self._clock() - started))

    def _say(self, event: str, **about: str) -> None:
        """Logs a change: lost once, however many tries fail after it, and back once."""
        is_lost_still = event == "hub_not_reached" and self._said not in ("", "hub_connected")
        if event != self._said and not is_lost_still:
            self._said = event
            (_log.info if event == "hub_connected" else _log.warning)(event, **about)

    async def _pump(self) -> None:
        """Both directions, until the connection ends."""
        tasks = [
            asyncio.create_task(self._take_patches()),
            asyncio.create_task(self._send()),
            asyncio.create_task(self._hub.wait_closed()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_patches(self) -> None:
        async for change in self._hub.desired_changes():
            await self._emit(DesiredPatched(change.document, change.version))

    async def _send(self) -> None:
        """Report, heartbeat, outbox, in this order; then waits for news."""
        while True:
            self._news.clear()
            await self._send_report()
            await self._send_heartbeat()
            rows = await asyncio.to_thread(lambda: self._outbox.head(limit=_BATCH))
            for row in rows:
                if len(row.payload) <= EVENT_BYTES_MAX:
                    await self._hub.send_event(row.payload)
                else:
                    _log.error("event_too_large", kind=row.kind, bytes=len(row.payload))
                await asyncio.to_thread(self._outbox.remove, row.number)
            if len(rows) < _BATCH:
                await self._news.wait()

    async def _send_report(self) -> None:
        while (release := self._report) is not None:
            try:
                await self._hub.report({"release": release.model_dump(mode="json")})
            except HubRefusedError as error:
                _log.error("report_refused", reason=error.message)
            if self._report is release:
                self._report = None

    async def _send_heartbeat(self) -> None:
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is not None:
            await self._hub.send_event(heartbeat)

    async def _on_command(self, name: str, payload: object) -> CommandReply:
        await self._emit(CommandArrived(name, payload))
        return reply_to(name, payload)
