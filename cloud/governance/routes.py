"""Reading the audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from cloud.auth.operators import require_operator
from cloud.dependencies import Limit, services
from cloud.governance.service import list_entries
from cloud.services import Services
from shared.api.base import Shape

router = APIRouter(prefix="/v1/audit", tags=["audit"], dependencies=[Depends(require_operator)])


class AuditLine(Shape):
    """One act of one principal."""

    entry_id: int
    at: float
    principal: str
    role: str
    action: str
    subject: str
    details: dict[str, Any]
    """`Any`: JSON."""


@router.get("")
def get_entries(services: Annotated[Services, Depends(services)], limit: Limit = 100) -> list[AuditLine]:
    """Newest first."""
    with services.sessions() as session, session.begin():
        return [AuditLine.model_validate(entry.model_dump()) for entry in list_entries(session, limit=limit)]
