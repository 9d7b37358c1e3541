"""Keeps the coordinator's one connection to the broker up: back-off with full jitter, said once when lost and back."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from shared.backoff import Backoff
from shared.hub.mqtt.connection import MqttConnection
from shared.hub.port import HubError, HubUnavailableError

BACKOFF = Backoff(base_s=0.2, cap_s=30.0)
STABLE_S = 30.0
"""A connection that lasted this long forgives the failures before it."""
_log = structlog.get_logger()


class Line:
    """It begins to connect when it is made, in the event loop that runs then.

    Args:
        dial: Makes a connection that is ready for use. Raises HubError.
        greet: What is said on each new one, once it is up.
        rng: For the jitter.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[MqttConnection]],
        greet: Callable[[MqttConnection], Awaitable[None]],
        *,
        rng: random.Random,
    ) -> None:
        self._dial = dial
        self._greet = greet
        self._rng = rng
        self._connection: MqttConnection | None = None
        self._is_up = asyncio.Event()
        self._reason = "not connected yet"
        self._failures = 0
        self._is_lost = False
        """Whether the log was told: once, however many tries fail after it."""
        self._task = asyncio.create_task(self._keep_up())

    async def live(self, *, wait_s: float) -> MqttConnection:
        """The connection, waited for if need be. Raises HubUnavailableError."""
        try:
            async with asyncio.timeout(wait_s):
                await self._is_up.wait()
        except TimeoutError:
            pass
        if self._connection is None:
            raise HubUnavailableError(f"Expected a connection to the broker within {wait_s:g} s: {self._reason}")
        return self._connection

    async def up(self) -> None:
        """Returns when there is a connection."""
        await self._is_up.wait()

    async def close(self) -> None:
        """Ends it for good."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._one_connection()
            except HubError as error:
                self._reason = error.message
                self._say_lost("broker_not_reached", error.message)
            self._failures = 0 if loop.time() - started >= STABLE_S else self._failures + 1
            await asyncio.sleep(BACKOFF.delay_s(self._failures, self._rng))

    async def _one_connection(self) -> None:
        """From its start to its end. Raises HubError where there is no start."""
        connection = await self._dial()
        try:
            _log.info("broker_connected", mqtt=connection.version)
            self._is_lost = False
            self._connection = connection
            self._is_up.set()
            await self._greet(connection)
            await connection.closed.wait()
            self._reason = "the connection was lost"
            self._say_lost("broker_connection_lost", self._reason)
        finally:
            self._connection = None
            self._is_up.clear()
            await connection.close()

    def _say_lost(self, event: str, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            _log.warning(event, reason=reason)
