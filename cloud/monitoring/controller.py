"""Looks at what nobody reports: devices that fell silent, and rows that are old enough to forget."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from cloud.db import SessionFactory
from cloud.devices import service as devices
from cloud.monitoring import alerts, retention
from cloud.monitoring.alerting import AlertKind, silence_finding
from cloud.settings import Settings
from shared.errors import FleetlearnError
from shared.ids import DeviceId

INTERVAL_S = 5.0
SILENT_HEARTBEATS = 6
"""A device is silent after this many heartbeats in which nothing came; it is shown as offline after three."""
MALFORMED_QUIET_S = 3600.0
"""The alert of malformed events clears after this long without another one."""

_log = structlog.get_logger()


class Outside(Protocol):
    """What of `cloud.services.Services` this controller needs."""

    @property
    def settings(self) -> Settings: ...
    @property
    def sessions(self) -> SessionFactory: ...
    @property
    def now(self) -> Callable[[], float]: ...
    @property
    def health(self) -> dict[str, str]: ...


class MonitoringController:
    """Opens and clears alerts of silent devices, and bounds the tables. One for a coordinator."""

    def __init__(self, services: Outside) -> None:
        self._services = services

    async def run_forever(self, *, interval_s: float = INTERVAL_S) -> None:
        """Steps until it is cancelled; what the outside does wrong is shown in health and tried again."""
        while True:
            try:
                await self.step()
                self._say("ok")
            except (FleetlearnError, SQLAlchemyError) as error:
                self._say(f"monitoring stands still: {error}")
            await asyncio.sleep(interval_s)

    async def step(self) -> None:
        """One look at all devices, and one round of forgetting."""
        await asyncio.to_thread(self._step)

    def _step(self) -> None:
        now = self._services.now()
        limit_s = SILENT_HEARTBEATS * self._services.settings.heartbeat_s
        with self._services.sessions() as session, session.begin():
            judge_silence(session, now=now, limit_s=limit_s)
            clear_outlived(session, now=now)
        with self._services.sessions() as session, session.begin():
            retention.forget(session, now=now)

    def _say(self, text: str) -> None:
        if self._services.health.get("monitoring") != text:
            self._services.health["monitoring"] = text
            _log.info("monitoring_health", says=text)


def judge_silence(session: Session, *, now: float, limit_s: float) -> None:
    """Opens an alert for each device that was seen once and is silent now, and clears those of the others.

    An open alert is not repeated at every look: it is one silence, however long.
    """
    silent = devices.unseen_since(session, now - limit_s)
    known = {DeviceId(row.device_id) for row in alerts.open_alerts(session, kind=AlertKind.DEVICE_SILENT)}
    for device_id in sorted(silent.keys() - known):
        silent_s = now - silent[device_id]
        finding = silence_finding(device_id, silent_s=silent_s, limit_s=limit_s)
        alerts.raise_alert(session, finding, cause_id=f"at {now}", now=now)
        _log.info("device_silent", device_id=device_id, silent_s=round(silent_s))
    for device_id in sorted(known - silent.keys()):
        alerts.clear_alerts(session, AlertKind.DEVICE_SILENT, device_id, [""], now=now)


def clear_outlived(session: Session, *, now: float) -> None:
    """Clears alerts of devices that lost their access, and of malformed events that stopped."""
    rows = alerts.open_alerts(session)
    active = devices.active_among(session, {row.device_id for row in rows})
    for row in rows:
        is_over = row.kind == AlertKind.MALFORMED_EVENTS and now - row.last_seen_at > MALFORMED_QUIET_S
        if is_over or row.device_id not in active:
            alerts.clear_alerts(session, AlertKind(row.kind), DeviceId(row.device_id), [row.subject], now=now)
