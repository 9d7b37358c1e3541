"""Blocking calls beside the event loop, in threads that do not keep the process alive.

The pool of `asyncio.to_thread` is waited for when the process ends; a download may hold it for half a minute, and
nothing is lost by leaving it: everything it writes is whole or ignored.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


async def in_thread(function: Callable[[], _T], *, name: str) -> _T:
    """What the function returns or raises, run in a thread of its own; cancelling leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def deliver(setter: Callable[[], None]) -> None:
        if not future.done():
            setter()

    def work() -> None:
        try:
            result = function()
        except BaseException as error:  # handed over to whoever awaits
            caught = error
            _hand_over(loop, lambda: deliver(lambda: future.set_exception(caught)))
        else:
            _hand_over(loop, lambda: deliver(lambda: future.set_result(result)))

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future


def _hand_over(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return  # the loop is closed: the process ends, and nobody waits any more
