"""A hub in memory with seeded faults: both ends of the port, for tests and simulations.

    hub = MemoryHub(random.Random(7), Faults(loss=0.1, duplication=0.1))
    fleet, device = hub.fleet(), hub.device(DeviceId("press-07"))

It keeps what the port promises and no more. With faults, calls fail before or after they took effect, events, patches
and commands come twice, events and patches out of order, and everything takes its time: what the port says a caller
must bear. Chances are drawn in the order of the calls, so one seed and one order of calls give one history.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from shared.hub.documents import merge, over_the_wire
from shared.hub.port import (
    COMMAND_BYTES_MAX,
    DOCUMENT_BYTES_MAX,
    EVENT_BYTES_MAX,
    CommandHandler,
    CommandReply,
    DeviceOfflineError,
    Document,
    Event,
    HubRefusedError,
    HubUnavailableError,
    Twin,
    UnknownDeviceError,
    Versioned,
    log_started_over,
)
from shared.hub.queues import until_closed
from shared.ids import DeviceId

_PATCHES_MAX = 256
_HELD_S_MAX = 0.05
"""A patch that is held back comes after the next one, or after this long where there is none: late, never lost."""


@dataclass(frozen=True)
class Faults:
    """How often things go wrong: chances from 0 to 1 for each message.

    A lost call raises HubUnavailableError, and half of the time it took effect before. `reordering` swaps an event or
    a patch with the next one. `delay_s_max` bounds a uniform delay of each call, and of each patch by itself.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    delay_s_max: float = 0.0


@dataclass
class _Device:
    desired: Versioned = field(default_factory=lambda: Versioned({}, 1))
    reported: Versioned = field(default_factory=lambda: Versioned({}, 1))
    connection: "_Connection | None" = None


@dataclass(eq=False)
class _Connection:
    handler: CommandHandler | None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    patches: asyncio.Queue[Versioned] = field(default_factory=lambda: asyncio.Queue(_PATCHES_MAX))
    held: Versioned | None = None

    def take(self, change: Versioned) -> None:
        """Queues a patch; where there is no room the connection ends, and the device reads its document anew."""
        if self.patches.full():
            self.closed.set()
        elif not self.closed.is_set():
            self.patches.put_nowait(change)


class MemoryHub:
    """The hub; make both ends from it. It lives in one event loop."""

    def __init__(self, random: Random, faults: Faults | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._random = random
        self._faults = faults or Faults()
        self._clock = clock
        self._devices: dict[DeviceId, _Device] = {}
        self._events: list[Event] = []
        self._held: tuple[DeviceId, bytes] | None = None
        self._arrived = asyncio.Event()
        self._is_away = False

    def device(self, device_id: DeviceId) -> "MemoryDevice":
        """The device's end; more than one of a name is possible, and the newest connection wins."""
        return MemoryDevice(self, device_id)

    def fleet(self) -> "MemoryFleet":
        """The cloud's end."""
        return MemoryFleet(self)

    def set_away(self, *, is_away: bool) -> None:
        """While it is away every call fails, as when a hub is down; going away drops every connection."""
        self._is_away = is_away
        if is_away:
            self.restart()

    def restart(self) -> None:
        """Drops every connection and keeps everything else, as a hub that is killed and comes back."""
        for device_id in self._devices:
            self.disconnect(device_id)

    def disconnect(self, device_id: DeviceId) -> None:
        """Drops one device's connection."""
        device = self._devices[device_id]
        if device.connection is not None:
            device.connection.closed.set()
            device.connection = None

    # What both ends do

    async def _pass(self) -> bool:
        """Delays a call; False when its answer shall be lost. Raises HubUnavailableError when the call is lost."""
        if self._faults.delay_s_max:
            await asyncio.sleep(self._random.uniform(0, self._faults.delay_s_max))
        if self._is_away:
            raise _lost()
        if not self._happens(self._faults.loss):
            return True
        if self._happens(0.5):
            raise _lost()
        return False

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self._random.random() < chance

    def _find(self, device_id: DeviceId) -> _Device:
        try:
            return self._devices[device_id]
        except KeyError:
            raise UnknownDeviceError(f"Expected a registered device, got {device_id!r}") from None

    def _log(self, device_id: DeviceId, payload: bytes) -> None:
        if self._held is None and self._happens(self._faults.reordering):
            self._held = (device_id, payload)
            return
        for _ in range(2 if self._happens(self._faults.duplication) else 1):
            self._append(device_id, payload)
        self._release()

    def _release(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._append(*held)

    def _append(self, device_id: DeviceId, payload: bytes) -> None:
        self._events.append(Event(device_id, len(self._events) + 1, self._clock(), payload))
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()

    def _notify(self, connection: _Connection, change: Versioned) -> None:
        if connection.held is None and self._happens(self._faults.reordering):
            connection.held = change
            asyncio.get_running_loop().call_later(_HELD_S_MAX, self._let_go, connection, change)
            return
        for _ in range(2 if self._happens(self._faults.duplication) else 1):
            self._deliver(connection, change)
        if connection.held is not None:
            self._let_go(connection, connection.held)

    def _let_go(self, connection: _Connection, change: Versioned) -> None:
        if connection.held is change:
            connection.held = None
            self._deliver(connection, change)

    def _deliver(self, connection: _Connection, change: Versioned) -> None:
        if self._faults.delay_s_max:
            delay_s = self._random.uniform(0, self._faults.delay_s_max)
            asyncio.get_running_loop().call_later(delay_s, connection.take, change)
        else:
            connection.take(change)


class MemoryDevice:
    """One device's end. Implements `shared.hub.port.DeviceHub`."""

    def __init__(self, hub: MemoryHub, device_id: DeviceId) -> None:
        self._hub = hub
        self._device_id = device_id
        self._handler: CommandHandler | None = None
        self._connection: _Connection | None = None

    async def connect(self) -> None:
        await self.close()
        is_kept = await self._hub._pass()
        device = self._hub._devices.get(self._device_id)
        if device is None:
            raise HubRefusedError(f"Expected a registered device, got {self._device_id!r}")
        if device.connection is not None:
            device.connection.closed.set()
        if not is_kept:
            raise _lost()
        self._connection = device.connection = _Connection(self._handler)

    async def send_event(self, payload: bytes) -> None:
        if len(payload) > EVENT_BYTES_MAX:
            raise HubRefusedError(f"Expected an event of at most {EVENT_BYTES_MAX} bytes, got {len(payload)}")
        is_kept = await self._pass()
        self._hub._log(self._device_id, payload)
        self._answer(is_kept)

    async def get_twin(self) -> Twin:
        is_kept = await self._pass()
        device = self._hub._find(self._device_id)
        twin = Twin(device.desired, device.reported)
        self._answer(is_kept)
        return twin

    async def desired_changes(self) -> AsyncIterator[Versioned]:
        connection = self._live()
        async for change in until_closed(connection.patches, connection.closed):
            yield change

    async def report(self, patch: Document) -> None:
        patch = over_the_wire(dict(patch), bytes_max=DOCUMENT_BYTES_MAX, name="the reported patch")
        is_kept = await self._pass()
        device = self._hub._find(self._device_id)
        document = merge(device.reported.document, patch)
        over_the_wire(document, bytes_max=DOCUMENT_BYTES_MAX, name="the reported document")
        device.reported = Versioned(document, device.reported.version + 1)
        self._answer(is_kept)

    def on_command(self, handler: CommandHandler) -> None:
        self._handler = handler

    async def wait_closed(self) -> None:
        if self._connection is not None:
            await self._connection.closed.wait()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.closed.set()
            device = self._hub._devices.get(self._device_id)
            if device is not None and device.connection is connection:
                device.connection = None

    async def _pass(self) -> bool:
        """As the hub's; a call that is lost takes the connection with it, as TCP would."""
        connection = self._live()
        try:
            is_kept = await self._hub._pass()
        except HubUnavailableError:
            connection.closed.set()
            raise
        self._live()
        return is_kept

    def _answer(self, is_kept: bool) -> None:
        if not is_kept:
            self._live().closed.set()
            raise _lost()

    def _live(self) -> _Connection:
        if self._connection is None or self._connection.closed.is_set():
            raise _lost()
        return self._connection


class MemoryFleet:
    """The cloud's end. Implements `shared.hub.port.FleetHub`."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub

    async def add_device(self, device_id: DeviceId) -> None:
        is_kept = await self._hub._pass()
        self._hub._devices.setdefault(device_id, _Device())
        self._answer(is_kept)

    async def remove_device(self, device_id: DeviceId) -> None:
        is_kept = await self._hub._pass()
        if device_id in self._hub._devices:
            self._hub.disconnect(device_id)
            del self._hub._devices[device_id]
        self._answer(is_kept)

    async def get_twin(self, device_id: DeviceId) -> Twin:
        is_kept = await self._hub._pass()
        device = self._hub._find(device_id)
        self._answer(is_kept)
        return Twin(device.desired, device.reported)

    async def set_desired(self, device_id: DeviceId, patch: Document) -> int:
        patch = over_the_wire(dict(patch), bytes_max=DOCUMENT_BYTES_MAX, name="the desired patch")
        is_kept = await self._hub._pass()
        device = self._hub._find(device_id)
        document = merge(device.desired.document, patch)
        over_the_wire(document, bytes_max=DOCUMENT_BYTES_MAX, name="the desired document")
        device.desired = Versioned(document, device.desired.version + 1)
        if device.connection is not None and not device.connection.closed.is_set():
            self._hub._notify(device.connection, Versioned(patch, device.desired.version))
        self._answer(is_kept)
        return device.desired.version

    async def command(self, device_id: DeviceId, name: str, payload: Any, *, timeout_s: float) -> CommandReply:
        payload = over_the_wire(payload, bytes_max=COMMAND_BYTES_MAX, name="the command's payload")
        is_kept = await self._hub._pass()
        connection = self._hub._find(device_id).connection
        if connection is None or connection.closed.is_set() or connection.handler is None:
            raise DeviceOfflineError(f"Expected device {device_id} to be connected, got none")
        for _ in range(2 if self._hub._happens(self._hub._faults.duplication) else 1):
            reply = await self._call(connection.handler, name, payload, timeout_s=timeout_s)
        self._answer(is_kept)
        return reply

    async def _call(self, handler: CommandHandler, name: str, payload: Any, *, timeout_s: float) -> CommandReply:
        try:
            async with asyncio.timeout(timeout_s):
                reply = await handler(name, payload)
        except TimeoutError:
            raise DeviceOfflineError(f"Expected a reply within {timeout_s:g} s, got nothing") from None
        except Exception:
            # As on a device: a mistake in the handler is the device's, and its caller sees a 500.
            return CommandReply(500, {"error": "the command failed on the device"})
        return CommandReply(reply.status, over_the_wire(reply.payload, bytes_max=COMMAND_BYTES_MAX, name="the reply"))

    async def read_events(self, after_offset: int, *, limit: int, wait_s: float) -> list[Event]:
        is_kept = await self._hub._pass()
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            arrived = self._hub._arrived
            self._hub._release()
            if after_offset > len(self._hub._events):
                raise log_started_over(newest=len(self._hub._events), after=after_offset)
            events = self._hub._events[after_offset : after_offset + limit]
            if events or asyncio.get_running_loop().time() >= deadline:
                self._answer(is_kept)
                return events
            try:
                async with asyncio.timeout_at(deadline):
                    await arrived.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        return

    @staticmethod
    def _answer(is_kept: bool) -> None:
        if not is_kept:
            raise _lost()


def _lost() -> HubUnavailableError:
    return HubUnavailableError("Expected the hub to answer, got no connection", hint="Connect again.")
