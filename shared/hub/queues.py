"""Reading a connection's queue for as long as the connection lives."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

_T = TypeVar("_T")


async def until_closed(queue: asyncio.Queue[_T], closed: asyncio.Event) -> AsyncIterator[_T]:
    """What arrives in the queue, until `closed` is set and nothing waits."""
    ended = asyncio.ensure_future(closed.wait())
    arrival: asyncio.Future[_T] | None = None
    try:
        while True:
            arrival = asyncio.ensure_future(queue.get())
            await asyncio.wait({arrival, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not arrival.done():
                return
            yield arrival.result()
    finally:
        # Whichever way it ends, also in the middle of a wait: a task that nobody holds is an error in the log.
        ended.cancel()
        if arrival is not None:
            arrival.cancel()
