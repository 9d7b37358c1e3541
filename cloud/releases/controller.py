"""Keeps the repository's short-lived metadata fresh, as long as the coordinator lives."""

import asyncio

import structlog

from cloud.errors import CoordinatorError
from cloud.releases import service
from cloud.releases.metadata import DAY_S
from cloud.services import Services

PERIOD_S = 600.0
"""How often it looks; a timestamp is renewed with half of its day left."""
WARN_BEFORE_S = 60 * DAY_S
"""How long before the end of what only operators can renew it starts to say so."""

_log = structlog.get_logger()


class TimestampController:
    """Signs new timestamps in time, heals interrupted publications, and warns before offline signatures run out."""

    def __init__(self, services: Services, *, period_s: float = PERIOD_S) -> None:
        self._services = services
        self._period_s = period_s

    async def run_forever(self) -> None:
        """Until cancelled. A failure is logged and tried again after the period; `health` says so meanwhile."""
        while True:
            try:
                await asyncio.to_thread(self.step)
                self._services.health["releases"] = "ok"
            except (CoordinatorError, OSError) as error:
                self._services.health["releases"] = str(error)
                _log.error("release_metadata_not_refreshed", reason=str(error))
            await asyncio.sleep(self._period_s)

    def step(self) -> None:
        """One look at the repository; blocks."""
        services = self._services
        now = services.now()
        if services.tuf_repository.refresh_timestamp(now):
            _log.info("release_metadata_refreshed")
        with services.sessions() as session, session.begin():
            if healed := service.heal(session, repository=services.tuf_repository, now=now):
                _log.warning("releases_healed", releases=healed)
        for role, expires in services.tuf_repository.offline_expiry().items():
            if expires - now < WARN_BEFORE_S:
                _log.warning("release_metadata_expires", role=role, days=int((expires - now) / DAY_S))
