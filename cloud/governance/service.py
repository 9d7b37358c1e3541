"""The audit log: written in the same transaction as the act itself, so that neither is there without the other."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlmodel import Session, col, select

from cloud.auth.operators import Principal
from cloud.governance.models import AuditEntry


def record(
    session: Session,
    principal: Principal,
    *,
    action: str,
    subject: str,
    at: float,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Notes an operator's act. `Any`: JSON; never put a secret in it."""
    session.add(
        AuditEntry(
            at=at,
            principal=principal.name,
            role=principal.role,
            action=action,
            subject=subject,
            details=dict(details or {}),
        )
    )


def list_entries(session: Session, *, limit: int) -> Sequence[AuditEntry]:
    """Newest first."""
    return session.exec(select(AuditEntry).order_by(col(AuditEntry.entry_id).desc()).limit(limit)).all()
