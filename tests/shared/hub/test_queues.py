"""Reading a connection's queue: to its end, and without a trace when the reader is gone first."""

import asyncio
import gc
from typing import Any

from shared.hub.queues import until_closed


def run(story: Any) -> list[str]:  # Any: a coroutine function of the loop's complaints
    """Plays it; what asyncio complained of meanwhile, garbage collected."""
    complaints: list[str] = []

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, about: complaints.append(str(about["message"])))
        await story()
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(play())
    gc.collect()
    return complaints


def test_what_arrived_before_the_end_is_still_read() -> None:
    read: list[int] = []

    async def story() -> None:
        queue, closed = asyncio.Queue[int](), asyncio.Event()
        for number in (1, 2, 3):
            queue.put_nowait(number)
        closed.set()
        read.extend([number async for number in until_closed(queue, closed)])

    assert run(story) == []
    assert read == [1, 2, 3]


def test_a_reader_that_is_cancelled_leaves_no_task_behind() -> None:
    async def story() -> None:
        queue, closed = asyncio.Queue[int](), asyncio.Event()
        before = asyncio.all_tasks()

        async def read() -> None:
            async for _ in until_closed(queue, closed):
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    assert run(story) == []


def test_the_end_leaves_no_task_behind() -> None:
    async def story() -> None:
        queue, closed = asyncio.Queue[int](), asyncio.Event()
        before = asyncio.all_tasks()
        asyncio.get_running_loop().call_later(0.01, closed.set)
        assert [number async for number in until_closed(queue, closed)] == []
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    assert run(story) == []
