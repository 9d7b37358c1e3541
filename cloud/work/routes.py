"""Work for the device that asks."""

from typing import Annotated

from fastapi import APIRouter, Depends

from cloud.auth.device_requests import require_device
from cloud.dependencies import services
from cloud.services import Services
from cloud.work.service import pending_for
from shared.ids import DeviceId
from shared.messages.work import WorkList

router = APIRouter(prefix="/v1/device/work", tags=["device"])


@router.get("")
def get_work(
    services: Annotated[Services, Depends(services)], device_id: Annotated[DeviceId, Depends(require_device)]
) -> WorkList:
    """All that waits for this device, oldest first. Asking twice gives the same."""
    with services.sessions() as session, session.begin():
        return WorkList(work=pending_for(session, device_id, now=services.now()))
