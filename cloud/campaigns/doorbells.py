"""Rings devices without waiting for them: one hub connection in a thread of its own, for as long as a campaign runs.

A doorbell only saves time. Work is a durable row, and a device that heard nothing finds it when it next asks; so a
doorbell that fails is told to the log once, and the campaign goes on.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import structlog

from shared.hub.port import DeviceOfflineError, FleetHub, HubError, UnknownDeviceError
from shared.ids import DeviceId
from shared.messages.work import DOORBELL

AT_ONCE_MAX = 32
"""Commands under way at the same time."""
ANSWER_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 10.0

_log = structlog.get_logger()


class Doorbells:
    """`with Doorbells(open_hub) as doorbells: doorbells.ring(devices)`; leaving it closes the hub."""

    def __init__(self, open_hub: Callable[[], FleetHub]) -> None:
        self._open_hub = open_hub
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="doorbells", daemon=True)
        self._hub: FleetHub | None = None
        self._limit = asyncio.Semaphore(AT_ONCE_MAX)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_CLOSE_TIMEOUT_S)
        except TimeoutError:
            _log.warning("doorbells_close_timed_out", timeout_s=_CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    def ring(self, devices: Iterable[DeviceId]) -> None:
        """Starts ringing these devices, and returns at once."""
        asyncio.run_coroutine_threadsafe(self._ring_all(tuple(devices)), self._loop)

    async def _ring_all(self, devices: tuple[DeviceId, ...]) -> None:
        try:
            self._hub = self._hub or self._open_hub()
            outcomes = await asyncio.gather(*(self._ring_one(self._hub, device) for device in devices))
        except HubError as error:
            _log.warning("doorbells_failed", devices=len(devices), reason=error.message)
            return
        _log.info("doorbells_rung", devices=len(devices), answered=sum(outcomes))

    async def _ring_one(self, hub: FleetHub, device: DeviceId) -> bool:
        """Whether the device answered. Raises HubError when the hub itself is the trouble."""
        async with self._limit:
            try:
                await hub.command(device, DOORBELL, {}, timeout_s=ANSWER_TIMEOUT_S)
            except (DeviceOfflineError, UnknownDeviceError):
                return False
            return True

    async def _close(self) -> None:
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._hub is not None:
            await self._hub.close()
