"""A bell for waiters: rings now for all who wait, remembers nothing."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class Bell:
    """Wakes everybody who waits for something that may have changed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()

    def next_ring(self) -> asyncio.Event:
        """Set by the next ring. Take it before looking at what may change, then wait for it: no ring is missed."""
        return self._event

    async def wait_for(self, check: Callable[[], _T | None], *, timeout_s: float) -> _T | None:
        """The first value of `check` that is not None, tried now and at each ring, or None after the time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (value := check()) is None:
            if not await wait_until(self._event, deadline):
                return check()
        return value


async def wait_until(event: asyncio.Event, deadline: float) -> bool:
    """Whether the event was set before the deadline, in the loop's time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await event.wait()
    return event.is_set()
