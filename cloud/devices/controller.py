"""Tells the hub which devices may connect, until it has been told.

What is wanted is the device's row: all but the revoked ones. What the hub was told stands beside it, and this
controller removes the difference, so that enrolment and revocation survive a hub that is away, a killed coordinator,
and a hub that lost its data.
"""

import asyncio
import random
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from cloud.db import SessionFactory
from cloud.devices.service import devices_to_tell_hub, get_device, record_hub_access
from cloud.health import OK
from shared.backoff import Backoff
from shared.hub.port import FleetHub, HubError
from shared.ids import DeviceId

INTERVAL_S = 1.0
TOLD_MAX = 64
"""Devices that the hub is told of in one step."""
_BACKOFF = Backoff(base_s=1.0, cap_s=60.0)
_log = structlog.get_logger()


class Outside(Protocol):
    """What of `cloud.services.Services` this needs."""

    @property
    def sessions(self) -> SessionFactory: ...
    @property
    def hub(self) -> FleetHub: ...
    @property
    def health(self) -> dict[str, str]: ...


class HubAccessController:
    """One for a coordinator; `health["devices"]` says how it goes."""

    def __init__(self, services: Outside, *, rng: random.Random | None = None) -> None:
        self._services = services
        self._rng = rng or random.Random()

    async def run_forever(self, *, interval_s: float = INTERVAL_S) -> None:
        """Steps until it is cancelled; waits longer and longer while the hub or the database is away."""
        misses = 0
        while True:
            try:
                wrong = await self.step()
            except SQLAlchemyError as error:
                wrong = f"the database does not answer: {type(error).__name__}"
            misses = misses + 1 if wrong else 0
            self._services.health["devices"] = wrong or OK
            await asyncio.sleep(_BACKOFF.delay_s(misses, self._rng) if wrong else interval_s)

    async def step(self) -> str:
        """Tells the hub of a few devices; returns what went wrong, empty when all went well."""
        to_tell = await asyncio.to_thread(self._to_tell)
        answers = await asyncio.gather(
            *(tell_hub(self._services, device_id) for device_id in to_tell), return_exceptions=True
        )
        failures = [answer for answer in answers if answer is not None]
        for failure in failures:
            if not isinstance(failure, HubError):
                raise failure
        return f"the hub could not be told of {len(failures)} devices: {failures[0]}" if failures else ""

    def _to_tell(self) -> list[DeviceId]:
        with self._services.sessions() as session, session.begin():
            return [DeviceId(device.device_id) for device in devices_to_tell_hub(session, limit=TOLD_MAX)]


async def tell_hub(services: Outside, device_id: DeviceId) -> None:
    """Lets the device into the hub, or removes it and closes its connection, as is wanted now. Raises HubError."""
    is_wanted = await asyncio.to_thread(_is_wanted, services.sessions, device_id)
    await (services.hub.add_device if is_wanted else services.hub.remove_device)(device_id)
    await asyncio.to_thread(_note, services.sessions, device_id, is_wanted)


async def try_to_tell_hub(services: Outside, device_id: DeviceId) -> str:
    """As `tell_hub`, but leaves a hub that is away to the controller, and returns the reason, or nothing."""
    try:
        await tell_hub(services, device_id)
    except HubError as error:
        _log.warning("hub_not_told_yet", device_id=device_id, reason=error.message)
        return error.message
    return ""


def _is_wanted(sessions: SessionFactory, device_id: DeviceId) -> bool:
    with sessions() as session, session.begin():
        return get_device(session, device_id).revoked_at is None


def _note(sessions: SessionFactory, device_id: DeviceId, is_in_hub: bool) -> None:
    with sessions() as session, session.begin():
        record_hub_access(session, device_id, is_in_hub=is_in_hub)
