"""Carries running rollouts forward: decides a step, stores it, tells the hub, stores that it was told.

The order is what makes a kill harmless at any point: what a device is asked for is on disk before the hub hears it,
and is told again until it is on disk that the hub has it. Telling twice does no harm, because a device takes each
generation once.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from cloud.db import SessionFactory
from cloud.devices import service as devices
from cloud.rollouts import gates, store
from cloud.rollouts.observations import observe
from cloud.rollouts.service import end_rollout
from cloud.rollouts.values import Ask, Decision, DeviceStep, Progress
from shared.errors import FleetlearnError
from shared.hub.port import FleetHub, HubError, HubRefusedError, UnknownDeviceError
from shared.lifecycles import RolloutState
from shared.messages.desired import DesiredRelease

ASKS_MAX = 64
"""Devices that the hub is told about in one step."""
INTERVAL_S = 0.3
IDLE_SHARE = 4
"""A step is followed by a pause of at least this many times its own length, so that large rollouts leave air."""

_log = structlog.get_logger()


class Outside(Protocol):
    """What of `cloud.services.Services` this controller needs."""

    @property
    def sessions(self) -> SessionFactory: ...
    @property
    def hub(self) -> FleetHub: ...
    @property
    def now(self) -> Callable[[], float]: ...
    @property
    def health(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Answer:
    """What the hub said to an ask."""

    ask: Ask
    refusal: str = ""
    """Empty when the hub has the desired document."""


class RolloutController:
    """Executes the plans of all running rollouts. One for a coordinator."""

    def __init__(self, services: Outside) -> None:
        self._services = services

    async def run_forever(self, *, interval_s: float = INTERVAL_S) -> None:
        """Steps until it is cancelled; what the outside does wrong is shown in health and tried again."""
        while True:
            started = time.monotonic()
            try:
                await self.step()
                self._say("ok")
            except (FleetlearnError, SQLAlchemyError) as error:
                self._say(f"rollouts stand still: {error}")
            await asyncio.sleep(max(interval_s, IDLE_SHARE * (time.monotonic() - started)))

    async def step(self) -> None:
        """One step of every running rollout."""
        for rollout_id in await asyncio.to_thread(self._running):
            release_id, asks = await asyncio.to_thread(self._decide, rollout_id)
            answers = await asyncio.gather(*(self._tell(rollout_id, release_id, ask) for ask in asks))
            settled = [answer for answer in answers if answer is not None]
            if settled:
                await asyncio.to_thread(self._record, rollout_id, settled)

    def _running(self) -> list[str]:
        with self._services.sessions() as session, session.begin():
            return [row.rollout_id for row in store.rollouts_in(session, [RolloutState.RUNNING])]

    def _decide(self, rollout_id: str) -> tuple[str, Sequence[Ask]]:
        """Stores the next step, the devices' read model included; returns whom to tell about which release."""
        now = self._services.now()
        with self._services.sessions() as session, session.begin():
            row = store.get_rollout(session, rollout_id, is_locked=True)
            if row.state != RolloutState.RUNNING:  # stopped since it was listed
                return row.release_id, ()
            before = store.load_progress(session, row)
            observed = observe(session, before, release_id=row.release_id)
            plan = store.load_plan(session, row)
            decision = gates.step(plan, before, observed, now=now, asks_max=ASKS_MAX)
            if decision.event is not None:
                end_rollout(row, decision.event, reason=decision.reason, now=now)
            store.save_progress(session, row, before=before, after=decision.progress)
            for ask in decision.asks:
                devices.set_desired_release(
                    session, ask.device_id, release_id=row.release_id, generation=ask.generation
                )
        _log_step(rollout_id, before, decision)
        return row.release_id, decision.asks

    async def _tell(self, rollout_id: str, release_id: str, ask: Ask) -> Answer | None:
        """Writes the desired document; None means to try again with the next step."""
        wanted = DesiredRelease(generation=ask.generation, release_id=release_id, rollout_id=rollout_id)
        try:
            await self._services.hub.set_desired(ask.device_id, {"release": wanted.model_dump()})
        except (HubRefusedError, UnknownDeviceError) as error:
            return Answer(ask, refusal=f"The hub did not take it: {error.message}")
        except HubError:
            return None
        return Answer(ask)

    def _record(self, rollout_id: str, answers: Sequence[Answer]) -> None:
        with self._services.sessions() as session, session.begin():
            row = store.get_rollout(session, rollout_id, is_locked=True)
            before = store.load_progress(session, row)
            after = before
            for answer in answers:
                after = _with_answer(after, answer)
            store.save_progress(session, row, before=before, after=after)

    def _say(self, text: str) -> None:
        if self._services.health.get("rollouts") != text:
            self._services.health["rollouts"] = text
            _log.info("rollouts_health", says=text)


def _with_answer(progress: Progress, answer: Answer) -> Progress:
    """The progress after the hub's answer; an operator may have resumed the rollout in the meantime."""
    device = progress.devices[answer.ask.device_id]
    if device.generation != answer.ask.generation or device.step is not DeviceStep.ASKED:
        return progress
    if answer.refusal:
        return gates.refused(progress, answer.ask.device_id, reason=answer.refusal)
    return gates.delivered(progress, answer.ask.device_id)


def _log_step(rollout_id: str, before: Progress, decision: Decision) -> None:
    if decision.progress.wave != before.wave:
        _log.info("rollout_wave_started", rollout_id=rollout_id, wave=decision.progress.wave)
    if decision.event is not None:
        _log.info("rollout_ended", rollout_id=rollout_id, by=decision.event.value, reason=decision.reason)
