"""Devices for operators: list, show, revoke."""

from typing import Annotated

from anyio.from_thread import run as run_async
from fastapi import APIRouter, Depends

from cloud.auth.operators import Principal, require_operator
from cloud.dependencies import Limit, services
from cloud.devices.controller import try_to_tell_hub
from cloud.devices.ledgers import accept_ledger
from cloud.devices.service import get_device, list_devices, mark_revoked, view
from cloud.governance.service import record
from cloud.services import Services
from shared.api.devices import Device
from shared.ids import parse_device_id

router = APIRouter(prefix="/v1/devices", tags=["devices"])


@router.get("", dependencies=[Depends(require_operator)])
def get_devices(services: Annotated[Services, Depends(services)], limit: Limit = 100) -> list[Device]:
    """Newest first."""
    now, heartbeat_s = services.now(), services.settings.heartbeat_s
    with services.sessions() as session, session.begin():
        return [view(device, now=now, heartbeat_s=heartbeat_s) for device in list_devices(session, limit=limit)]


@router.get("/{device_id}", dependencies=[Depends(require_operator)])
def get_one_device(device_id: str, services: Annotated[Services, Depends(services)]) -> Device:
    """One device."""
    with services.sessions() as session, session.begin():
        return view(get_device(session, device_id), now=services.now(), heartbeat_s=services.settings.heartbeat_s)


@router.post("/{device_id}/accept-ledger")
def accept_device_ledger(
    device_id: str,
    services: Annotated[Services, Depends(services)],
    principal: Annotated[Principal, Depends(require_operator)],
) -> Device:
    """Takes the device's privacy ledger as it is from now on: its data was retired, or what it spent is known."""
    now = services.now()
    with services.sessions() as session, session.begin():
        accept_ledger(session, parse_device_id(device_id))
        record(session, principal, action="device.accept_ledger", subject=device_id, at=now)
        return view(get_device(session, device_id), now=now, heartbeat_s=services.settings.heartbeat_s)


@router.delete("/{device_id}", status_code=204)
def delete_device(
    device_id: str,
    services: Annotated[Services, Depends(services)],
    principal: Annotated[Principal, Depends(require_operator)],
) -> None:
    """Takes the device's access away for good: HTTPS at once, then the hub. Doing it twice does no harm.

    A hub that is away is told when it is back; until then the device is shown with that reason.
    """
    checked, now = parse_device_id(device_id), services.now()
    with services.sessions() as session, session.begin():
        mark_revoked(session, checked, now=now)
        record(session, principal, action="device.revoke", subject=checked, at=now)
    run_async(try_to_tell_hub, services, checked)
