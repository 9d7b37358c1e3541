"""Reading a connection's queue for as long as the connection lives."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

_T = TypeVar("_T")


async def until_closed(queue: asyncio.Queue[_T], closed: asyncio.Event) -> AsyncIterator[_T]:
    """What arrives in the queue, until `closed` is set and nothing waits."""
    ended = asyncio.ensure_future(closed.wait())
    try:
        while True:
            arrival = asyncio.ensure_future(queue.get())
            await asyncio.wait({arrival, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not arrival.done():
                arrival.cancel()
                return
            yield arrival.result()
    finally:
        ended.cancel()
