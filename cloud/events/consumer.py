"""Reads the hub's events for ever, applies them in bounded batches, and waits out a hub that is away."""

import asyncio
import random

import structlog
from sqlalchemy.exc import DBAPIError

from cloud.events.batch import OnRejected, OnStartedOver, Outcome, apply_events, read_offset, start_over
from cloud.events.handlers import Handlers
from cloud.health import OK
from cloud.services import Services
from shared.backoff import Backoff
from shared.hub.port import Event, HubError, LogStartedOverError

BATCH_MAX = 200
WAIT_S = 20.0
_BACKOFF = Backoff(base_s=0.2, cap_s=5.0)
_log = structlog.get_logger()


class EventConsumer:
    """One reader of the event log; `health["hub"]` says how it goes."""

    def __init__(
        self,
        services: Services,
        handlers: Handlers,
        *,
        on_rejected: OnRejected,
        on_started_over: OnStartedOver = lambda _session: None,
        rng: random.Random | None = None,
    ) -> None:
        self._services = services
        self._handlers = handlers
        self._on_rejected = on_rejected
        self._on_started_over = on_started_over
        self._rng = rng or random.Random()
        self._misses = 0

    async def run_forever(self) -> None:
        """Reads until it is cancelled."""
        while True:
            try:
                # The first look does not wait, so that health is known at once.
                await self.run_once(wait_s=WAIT_S if self._services.health.get("hub") == OK else 0)
            except (HubError, DBAPIError) as error:
                self._missed(error)
                await asyncio.sleep(_BACKOFF.delay_s(self._misses, self._rng))
            else:
                self._succeeded()

    async def run_once(self, *, wait_s: float = 0) -> Outcome:
        """One batch: waits up to `wait_s` for the first event. Raises HubError or DBAPIError."""
        after = await asyncio.to_thread(self._offset)
        try:
            events = await self._services.hub.read_events(after, limit=BATCH_MAX, wait_s=wait_s)
        except LogStartedOverError as error:
            await asyncio.to_thread(self._start_over)
            _log.warning("event_log_started_over", reason=error.message)
            return Outcome()
        return await asyncio.to_thread(self._apply, events) if events else Outcome()

    def _offset(self) -> int:
        with self._services.sessions() as session, session.begin():
            return read_offset(session)

    def _start_over(self) -> None:
        with self._services.sessions() as session, session.begin():
            start_over(session)
            self._on_started_over(session)

    def _apply(self, events: list[Event]) -> Outcome:
        now = self._services.now()
        with self._services.sessions() as session, session.begin():
            outcome = apply_events(session, events, self._handlers, on_rejected=self._on_rejected, now=now)
        if outcome.applied:
            self._services.bell.ring()
        if outcome.rejected:
            _log.warning("events_rejected", count=outcome.rejected, up_to_offset=events[-1].offset)
        return outcome

    def _missed(self, error: Exception) -> None:
        if self._misses == 0:
            _log.warning("events_unreadable", reason=str(error))
        self._misses += 1
        self._services.health["hub"] = f"unavailable: {error}"

    def _succeeded(self) -> None:
        if self._misses:
            _log.info("events_readable_again", misses=self._misses)
        self._misses = 0
        self._services.health["hub"] = OK
