"""What devices say about releases: a bounded history, and the newest status of each device by its own order."""

from collections.abc import Sequence

from sqlmodel import Session, col, delete, select

from cloud.events.order import EventPosition, is_newer
from cloud.rollouts.models import DeviceReleaseRow, ReleaseStatusRow
from shared.ids import DeviceId
from shared.messages.events import Envelope, ReleaseStatus

HISTORY_MAX = 200
"""Statuses kept of each device; older ones are forgotten."""


def record_status(
    session: Session, device_id: DeviceId, envelope: Envelope, status: ReleaseStatus, *, received_at: float
) -> bool:
    """Stores a status, and returns whether it is news: neither a repetition nor older than what is known."""
    if _is_known(session, device_id, envelope.id):
        return False
    position = EventPosition.of(envelope)
    newest = session.get(DeviceReleaseRow, device_id)
    is_news = is_newer(
        position,
        newest=None if newest is None else EventPosition(boot_id=newest.boot_id, sequence=newest.sequence),
        boots_seen=_boots_seen(session, device_id),
    ) and (newest is None or status.generation >= newest.generation)
    session.add(_history_row(device_id, envelope, status, received_at=received_at))
    session.flush()
    _forget_oldest(session, device_id)
    if is_news:
        session.add(_newest_row(newest, device_id, position, status, received_at=received_at))
        session.flush()
    return is_news


def history(session: Session, device_id: DeviceId, *, limit: int) -> Sequence[ReleaseStatusRow]:
    """The statuses of a device, newest arrival first."""
    query = select(ReleaseStatusRow).where(ReleaseStatusRow.device_id == device_id)
    return session.exec(query.order_by(col(ReleaseStatusRow.status_id).desc()).limit(limit)).all()


def _is_known(session: Session, device_id: DeviceId, event_id: str) -> bool:
    query = select(ReleaseStatusRow.status_id).where(
        ReleaseStatusRow.device_id == device_id, ReleaseStatusRow.event_id == event_id
    )
    return session.exec(query).first() is not None


def _boots_seen(session: Session, device_id: DeviceId) -> set[str]:
    query = select(ReleaseStatusRow.boot_id).where(ReleaseStatusRow.device_id == device_id).distinct()
    return set(session.exec(query))


def _forget_oldest(session: Session, device_id: DeviceId) -> None:
    of_device = col(ReleaseStatusRow.device_id) == device_id
    newest_first = select(ReleaseStatusRow.status_id).where(of_device).order_by(col(ReleaseStatusRow.status_id).desc())
    too_old = session.exec(newest_first.offset(HISTORY_MAX).limit(1)).first()
    if too_old is not None:
        session.exec(delete(ReleaseStatusRow).where(of_device, col(ReleaseStatusRow.status_id) <= too_old))


def _history_row(
    device_id: DeviceId, envelope: Envelope, status: ReleaseStatus, *, received_at: float
) -> ReleaseStatusRow:
    return ReleaseStatusRow(
        device_id=device_id,
        event_id=envelope.id,
        boot_id=envelope.boot_id,
        sequence=envelope.sequence,
        received_at=received_at,
        release_id=status.release_id,
        generation=status.generation,
        state=status.state,
        error=status.error,
        active_release_id=status.active_release_id,
        self_test_ms=status.self_test_ms,
    )


def _newest_row(
    newest: DeviceReleaseRow | None,
    device_id: DeviceId,
    position: EventPosition,
    status: ReleaseStatus,
    *,
    received_at: float,
) -> DeviceReleaseRow:
    row = DeviceReleaseRow(
        device_id=device_id,
        boot_id=position.boot_id,
        sequence=position.sequence,
        release_id=status.release_id,
        generation=status.generation,
        state=status.state,
        error=status.error,
        active_release_id=status.active_release_id,
        state_since=received_at,
    )
    if newest is None:
        return row
    if (newest.generation, newest.state) == (row.generation, row.state):
        row.state_since = newest.state_since  # said again, after a reconnect or a restart: nothing changed
    return newest.sqlmodel_update(row.model_dump())
