"""Keeps the controllers running beside the routes: one that breaks is logged, shown in /health and started again."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from cloud.health import OK
from shared.backoff import Backoff

_BACKOFF = Backoff(base_s=1.0, cap_s=60.0)
_log = structlog.get_logger()

Controller = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def running(controllers: Mapping[str, Controller], health: dict[str, str]) -> AsyncIterator[None]:
    """Runs them for the length of the context; each is cancelled, and waited for, at its end."""
    health.update(dict.fromkeys(controllers, "starting"))
    tasks = [asyncio.create_task(_keep(name, run, health), name=name) for name, run in controllers.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(name: str, run: Controller, health: dict[str, str]) -> None:
    rng, attempt = random.Random(), 0
    while True:
        try:
            await run()
            reason = "ended"
        except Exception as error:
            # A mistake of ours stops this controller, not the routes: operators can still see what is wrong.
            _log.exception("controller_broke", controller=name)
            reason = f"broke: {type(error).__name__}: {error}"
        was_ok = health.get(name) == OK
        health[name] = reason
        attempt = 0 if was_ok else attempt + 1
        await asyncio.sleep(_BACKOFF.delay_s(attempt, rng))
