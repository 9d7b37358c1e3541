"""Privacy over all campaigns over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.auth.operators import require_operator
from cloud.campaigns.accounts import service
from cloud.db import reading
from cloud.dependencies import Limit, services
from cloud.services import Services
from shared.api.privacy import PrivacyAccount

router = APIRouter(prefix="/v1/privacy", tags=["privacy"], dependencies=[Depends(require_operator)])
DeviceId = Annotated[str | None, Query(max_length=64, description="Only this device's; none: the newest devices'")]


@router.get("")
def list_accounts(
    services: Annotated[Services, Depends(services)], device_id: DeviceId = None, limit: Limit = 100
) -> list[PrivacyAccount]:
    """What each account of these devices may have spent, on which campaigns, and what is left of its limit."""
    with reading(services.sessions) as session:
        return service.list_accounts(session, device_id=device_id, limit=limit)
