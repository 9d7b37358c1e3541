"""How long monitoring remembers: bounded by age, and by count for each device."""

from sqlalchemy import func
from sqlmodel import Session, col, delete, select

from cloud.monitoring import alerts
from cloud.monitoring.models import ServingWindowRow

WINDOW_AGE_S_MAX = 7 * 24 * 3600.0
WINDOWS_OF_DEVICE_MAX = 2000
CLOSED_ALERT_AGE_S_MAX = 90 * 24 * 3600.0
DEVICES_AT_ONCE = 100
"""Devices whose surplus is forgotten in one transaction; the next look takes the others."""


def forget(session: Session, *, now: float) -> None:
    """Deletes windows and closed alerts beyond the bounds."""
    session.exec(delete(ServingWindowRow).where(col(ServingWindowRow.received_at) < now - WINDOW_AGE_S_MAX))
    alerts.forget_closed(session, before=now - CLOSED_ALERT_AGE_S_MAX)
    crowded = (
        select(ServingWindowRow.device_id)
        .group_by(ServingWindowRow.device_id)
        .having(func.count() > WINDOWS_OF_DEVICE_MAX)
        .limit(DEVICES_AT_ONCE)
    )
    for device_id in session.exec(crowded).all():
        _forget_surplus(session, device_id)


def _forget_surplus(session: Session, device_id: str) -> None:
    of_device = col(ServingWindowRow.device_id) == device_id
    newest_first = select(ServingWindowRow.window_id).where(of_device).order_by(col(ServingWindowRow.window_id).desc())
    too_old = session.exec(newest_first.offset(WINDOWS_OF_DEVICE_MAX).limit(1)).one()
    session.exec(delete(ServingWindowRow).where(of_device, col(ServingWindowRow.window_id) <= too_old))
