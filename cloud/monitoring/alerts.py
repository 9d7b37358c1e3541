"""Alerts as rows: opened once, counted while they repeat, closed by an operator or by themselves."""

import uuid
from collections.abc import Sequence

from sqlmodel import Session, col, delete, select

from cloud.monitoring.alerting import AlertKind, Finding, Severity
from cloud.monitoring.errors import UnknownAlertError
from cloud.monitoring.models import AlertRow
from shared.api.alerts import Alert
from shared.ids import DeviceId

_NAMESPACE = uuid.UUID("0d9e1c1e-2f0b-4d7e-9a53-6f2a63f1c7b1")
_MESSAGE_CHARACTERS_MAX = 2000


def raise_alert(session: Session, finding: Finding, *, cause_id: str, now: float) -> AlertRow:
    """Opens an alert, or raises the count of the open one; its severity never falls while it is open.

    Args:
        session: In a transaction.
        finding: What is the matter.
        cause_id: Names what found it (an event's id), so that the alert's id follows from its cause.
        now: Seconds since the epoch.
    """
    row = _open_one(session, finding.kind, finding.device_id, finding.subject)
    if row is None:
        row = AlertRow(
            alert_id=_alert_id(finding, cause_id),
            kind=finding.kind,
            severity=finding.severity,
            device_id=finding.device_id,
            subject=finding.subject,
            message="",
            opened_at=now,
            last_seen_at=now,
            count=0,
        )
    if finding.severity is Severity.CRITICAL:
        row.severity = Severity.CRITICAL
    row.message = finding.message[:_MESSAGE_CHARACTERS_MAX]
    row.value, row.threshold = finding.value, finding.threshold
    row.last_seen_at = now
    row.count += 1
    session.add(row)
    session.flush()
    return row


def clear_alerts(session: Session, kind: AlertKind, device_id: DeviceId, subjects: Sequence[str], *, now: float) -> int:
    """Closes these open alerts because their cause is gone; returns how many there were."""
    rows = [row for row in open_alerts(session, kind=kind, device_id=device_id) if row.subject in subjects]
    for row in rows:
        row.closed_at = now
        session.add(row)
    session.flush()
    return len(rows)


def close_alert(session: Session, alert_id: str, *, principal: str, role: str, now: float) -> AlertRow:
    """Closes an alert by an operator's hand; closing a closed one changes nothing. Raises UnknownAlertError."""
    row = get_alert(session, alert_id)
    if row.closed_at is None:
        row.closed_at = now
        row.closed_by_principal, row.closed_by_role = principal, role
        session.add(row)
        session.flush()
    return row


def get_alert(session: Session, alert_id: str) -> AlertRow:
    row = session.get(AlertRow, alert_id)
    if row is None:
        raise UnknownAlertError(f"Expected the id of an alert, got {alert_id[:80]!r}")
    return row


def open_alerts(
    session: Session, *, kind: AlertKind | None = None, device_id: DeviceId | None = None
) -> Sequence[AlertRow]:
    """All open alerts of a kind, of a device, or of both."""
    query = select(AlertRow).where(col(AlertRow.closed_at).is_(None))
    if kind is not None:
        query = query.where(AlertRow.kind == kind)
    if device_id is not None:
        query = query.where(AlertRow.device_id == device_id)
    return session.exec(query).all()


def newest_alerts(session: Session, *, is_open: bool | None, limit: int) -> Sequence[AlertRow]:
    """Alerts, newest first; only open or only closed ones if asked."""
    query = select(AlertRow).order_by(col(AlertRow.opened_at).desc(), col(AlertRow.alert_id).desc()).limit(limit)
    if is_open is not None:
        query = query.where(col(AlertRow.closed_at).is_(None) if is_open else col(AlertRow.closed_at).is_not(None))
    return session.exec(query).all()


def closing_times(session: Session, kind: AlertKind, device_id: DeviceId) -> dict[str, float]:
    """When the last closed alert of each subject closed."""
    query = select(AlertRow.subject, AlertRow.closed_at).where(
        AlertRow.kind == kind, AlertRow.device_id == device_id, col(AlertRow.closed_at).is_not(None)
    )
    times: dict[str, float] = {}
    for subject, closed_at in session.exec(query):
        times[subject] = max(closed_at or 0.0, times.get(subject, 0.0))
    return times


def forget_closed(session: Session, *, before: float) -> int:
    """Deletes alerts that closed before this moment; returns how many."""
    return session.exec(delete(AlertRow).where(col(AlertRow.closed_at) < before)).rowcount


def shape(row: AlertRow) -> Alert:
    """The alert as the API shows it."""
    return Alert.model_validate(row.model_dump())


def _open_one(session: Session, kind: AlertKind, device_id: DeviceId, subject: str) -> AlertRow | None:
    rows = (row for row in open_alerts(session, kind=kind, device_id=device_id) if row.subject == subject)
    return next(rows, None)


def _alert_id(finding: Finding, cause_id: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{finding.kind}/{finding.device_id}/{finding.subject}/{cause_id}"))
