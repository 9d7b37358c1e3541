"""Serving windows as operators see them."""

from sqlmodel import Session, col, select

from cloud.monitoring.models import ServingWindowRow
from shared.api.alerts import ServingWindow


def newest_windows(session: Session, *, device_id: str | None, limit: int) -> list[ServingWindow]:
    """Windows, newest first; of one device if asked."""
    query = select(ServingWindowRow).order_by(col(ServingWindowRow.window_id).desc()).limit(limit)
    if device_id is not None:
        query = query.where(ServingWindowRow.device_id == device_id)
    return [_shape(row) for row in session.exec(query)]


def _shape(row: ServingWindowRow) -> ServingWindow:
    return ServingWindow(
        device_id=row.device_id,
        received_at=row.received_at,
        release_id=row.release_id,
        window_s=row.window_s,
        requests=row.requests,
        examples=row.examples,
        errors=row.errors,
        latency_p50_ms=row.latency_p50_ms,
        latency_p99_ms=row.latency_p99_ms,
        psi={feature: psi for feature, (psi, _threshold) in row.drift.items()},
    )
