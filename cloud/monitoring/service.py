"""Monitoring as other domains use it: what was served, what is critical, and raising alerts."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlmodel import Session, col, select

from cloud.events.order import EventPosition, is_newer
from cloud.monitoring import alerts
from cloud.monitoring.alerting import (
    AlertKind,
    DriftPolicy,
    DriftReport,
    Reading,
    Severity,
    decide_drift,
    malformed_finding,
)
from cloud.monitoring.alerts import clear_alerts, raise_alert
from cloud.monitoring.models import AlertRow, ServingWindowRow
from cloud.monitoring.references import keep_reference
from shared.ids import DeviceId
from shared.messages.events import Envelope, ServingReport

__all__ = [
    "Served",
    "clear_release_failures",
    "critical_since",
    "heard_since",
    "keep_reference",
    "note_malformed_event",
    "raise_alert",
    "record_report",
    "served_since",
]

POLICY = DriftPolicy()
REPORTS_KEPT_IN_MIND = max(POLICY.reports_to_open, POLICY.reports_to_clear)


@dataclass(frozen=True)
class Served:
    """What a device answered."""

    requests: int = 0
    errors: int = 0


def record_report(
    session: Session, device_id: DeviceId, envelope: Envelope, report: ServingReport, *, received_at: float
) -> bool:
    """Stores a serving report as a window, and opens, repeats or clears drift alerts by it.

    Returns whether it is news: neither a repetition nor older than what is known.
    """
    if _is_known(session, device_id, envelope.id):
        return False
    is_news = _is_news(session, device_id, EventPosition.of(envelope))
    session.add(_window_row(device_id, envelope, report, is_straggler=not is_news, received_at=received_at))
    session.flush()
    if is_news and report.drift:
        _judge_drift(session, device_id, report.release_id, cause_id=envelope.id, now=received_at)
    return is_news


def served_since(session: Session, since: Mapping[DeviceId, float], *, release_id: str) -> dict[DeviceId, Served]:
    """What each of these devices answered with this release after its own moment; only those that answered."""
    if not since:
        return {}
    query = select(
        ServingWindowRow.device_id, ServingWindowRow.received_at, ServingWindowRow.requests, ServingWindowRow.errors
    ).where(ServingWindowRow.release_id == release_id, ServingWindowRow.received_at > min(since.values()))
    served: dict[DeviceId, Served] = {}
    for name, received_at, requests, errors in session.exec(query):
        device = DeviceId(name)
        if device in since and received_at > since[device]:
            so_far = served.get(device, Served())
            served[device] = Served(requests=so_far.requests + requests, errors=so_far.errors + errors)
    return served


def heard_since(session: Session, since: float, *, limit: int) -> dict[str, list[float]]:
    """When reports of each device came, from this moment on; of many, the newest `limit`."""
    query = (
        select(ServingWindowRow.device_id, ServingWindowRow.received_at)
        .where(ServingWindowRow.received_at >= since)
        .order_by(col(ServingWindowRow.received_at).desc())
        .limit(limit)
    )
    heard: dict[str, list[float]] = {}
    for device_id, received_at in session.exec(query):
        heard.setdefault(device_id, []).append(received_at)
    return heard


def critical_since(session: Session, since: Mapping[DeviceId, float]) -> dict[DeviceId, str]:
    """Messages of open critical alerts that opened after each device's own moment."""
    if not since:
        return {}
    query = select(AlertRow).where(
        col(AlertRow.closed_at).is_(None),
        AlertRow.severity == Severity.CRITICAL,
        AlertRow.opened_at > min(since.values()),
    )
    rows = [(DeviceId(row.device_id), row) for row in session.exec(query)]
    return {device: row.message for device, row in rows if device in since and row.opened_at > since[device]}


def clear_release_failures(session: Session, device_id: DeviceId, *, now: float) -> None:
    """Closes the alerts of failed releases, because the device took one on since."""
    rows = alerts.open_alerts(session, kind=AlertKind.RELEASE_FAILED, device_id=device_id)
    clear_alerts(session, AlertKind.RELEASE_FAILED, device_id, [row.subject for row in rows], now=now)


def note_malformed_event(session: Session, device_id: DeviceId, *, reason: str, cause_id: str, now: float) -> None:
    """Opens or repeats the alert of a device that sends what no device should.

    Args:
        session: In a transaction.
        device_id: Authenticated by the hub.
        reason: One sentence.
        cause_id: Names the event, for example by its offset: it may have no id of its own.
        now: Seconds since the epoch.
    """
    raise_alert(session, malformed_finding(device_id, reason=reason), cause_id=cause_id, now=now)


def _judge_drift(session: Session, device_id: DeviceId, release_id: str, *, cause_id: str, now: float) -> None:
    open_rows = alerts.open_alerts(session, kind=AlertKind.DRIFT, device_id=device_id)
    changes = decide_drift(
        POLICY,
        device_id,
        _newest_reports(session, device_id, release_id),
        open_features=frozenset(row.subject for row in open_rows),
        closed_at=alerts.closing_times(session, AlertKind.DRIFT, device_id),
    )
    for finding in changes.findings:
        raise_alert(session, finding, cause_id=cause_id, now=now)
    clear_alerts(session, AlertKind.DRIFT, device_id, changes.cleared, now=now)


def _newest_reports(session: Session, device_id: DeviceId, release_id: str) -> list[DriftReport]:
    """The last few reports of this release that carry figures, oldest first."""
    query = (
        select(ServingWindowRow)
        .where(
            ServingWindowRow.device_id == device_id,
            ServingWindowRow.release_id == release_id,
            ServingWindowRow.drift_examples > 0,
            col(ServingWindowRow.is_straggler).is_(False),
        )
        .order_by(col(ServingWindowRow.window_id).desc())
        .limit(REPORTS_KEPT_IN_MIND)
    )
    return [
        DriftReport(
            received_at=row.received_at,
            readings={
                feature: Reading(psi=psi, threshold=threshold) for feature, (psi, threshold) in row.drift.items()
            },
        )
        for row in reversed(session.exec(query).all())
    ]


def _is_known(session: Session, device_id: DeviceId, event_id: str) -> bool:
    query = select(ServingWindowRow.window_id).where(
        ServingWindowRow.device_id == device_id, ServingWindowRow.event_id == event_id
    )
    return session.exec(query).first() is not None


def _is_news(session: Session, device_id: DeviceId, position: EventPosition) -> bool:
    of_device = ServingWindowRow.device_id == device_id
    newest = session.exec(
        select(ServingWindowRow)
        .where(of_device, col(ServingWindowRow.is_straggler).is_(False))
        .order_by(col(ServingWindowRow.window_id).desc())
        .limit(1)
    ).first()
    return is_newer(
        position,
        newest=None if newest is None else EventPosition(boot_id=newest.boot_id, sequence=newest.sequence),
        boots_seen=set(session.exec(select(ServingWindowRow.boot_id).where(of_device).distinct())),
    )


def _window_row(
    device_id: DeviceId, envelope: Envelope, report: ServingReport, *, is_straggler: bool, received_at: float
) -> ServingWindowRow:
    return ServingWindowRow(
        device_id=device_id,
        event_id=envelope.id,
        boot_id=envelope.boot_id,
        sequence=envelope.sequence,
        is_straggler=is_straggler,
        received_at=received_at,
        release_id=report.release_id,
        window_s=report.window_s,
        requests=report.requests,
        examples=report.examples,
        errors=report.errors,
        latency_p50_ms=report.latency_p50_ms,
        latency_p99_ms=report.latency_p99_ms,
        drift={each.feature: [each.psi, each.threshold] for each in report.drift},
        drift_examples=report.drift_examples if report.drift else 0,  # figures or none, in one column
    )
