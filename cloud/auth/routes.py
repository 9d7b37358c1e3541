"""How devices and operators get in: tokens, enrolment, nonces, certificates."""

import secrets
from pathlib import Path
from typing import Annotated

from anyio.from_thread import run as run_async
from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from cloud.auth.device_requests import require_device
from cloud.auth.enrolment import create_token, enrol, renew
from cloud.auth.operators import Principal, require_operator
from cloud.dependencies import services
from cloud.devices.controller import tell_hub
from cloud.governance.service import record
from cloud.services import Services
from cloud.settings import Settings
from shared.api.enrolment import (
    Enrolled,
    EnrolmentToken,
    EnrolRequest,
    Renewed,
    RenewRequest,
    TokenCreate,
    TokenCreated,
)
from shared.ids import DeviceId, parse_device_id

router = APIRouter(prefix="/v1", tags=["enrolment"])
_SECRET_BYTES = 32


@router.post("/tokens", status_code=201)
def post_token(
    request: TokenCreate,
    services: Annotated[Services, Depends(services)],
    principal: Annotated[Principal, Depends(require_operator)],
) -> TokenCreated:
    """A one-time enrolment token, shown this once."""
    secret, now = secrets.token_urlsafe(_SECRET_BYTES), services.now()
    with services.sessions() as session, session.begin():
        row = create_token(session, request, token_id=services.new_id(), secret=secret, now=now, principal=principal)
        subject = row.device_id or "any device"
        record(session, principal, action="token.create", subject=row.token_id, at=now, details={"for": subject})
    token = EnrolmentToken(
        coordinator_url=services.settings.url, ca_fingerprint=services.authority.fingerprint, secret=secret
    )
    return TokenCreated(token_id=row.token_id, token=token.encode(), expires_at=row.expires_at)


@router.post("/enrol")
def post_enrol(request: EnrolRequest, services: Annotated[Services, Depends(services)]) -> Enrolled:
    """Exchanges a token and a certificate request for a certificate. Asking again with the same key does no harm."""
    days = services.settings.certificate_days
    with services.sessions() as session, session.begin():
        device = enrol(session, request, services.authority, now=services.now(), certificate_days=days)
    run_async(tell_hub, services, parse_device_id(device.device_id))
    return Enrolled(
        device_id=device.device_id,
        certificate_pem=device.certificate_pem,
        ca_pem=services.authority.pem,
        hub_hostname=services.settings.device_hub_hostname,
        hub_url=services.settings.device_hub,
        hub_ca_pem=_hub_ca(services.settings),
        coordinator_url=services.settings.url,
        tuf_root=services.tuf_repository.root().decode(),
    )


def _hub_ca(settings: Settings) -> str:
    return Path(settings.hub_ca_file).read_text(encoding="ascii") if settings.hub_ca_file else ""


@router.get("/nonce", status_code=204)
def get_nonce() -> Response:
    """A nonce in the header that every answer to a device carries."""
    return Response(status_code=204)


@router.get("/ca", response_class=PlainTextResponse)
def get_ca(services: Annotated[Services, Depends(services)]) -> str:
    """The fleet's CA certificate in PEM; trust it only if its fingerprint is the token's."""
    return services.authority.pem


@router.post("/device/certificate")
def post_certificate(
    request: RenewRequest,
    services: Annotated[Services, Depends(services)],
    device_id: Annotated[DeviceId, Depends(require_device)],
) -> Renewed:
    """A new certificate for the same name."""
    days = services.settings.certificate_days
    with services.sessions() as session, session.begin():
        pem = renew(session, device_id, request.csr_pem, services.authority, now=services.now(), certificate_days=days)
    return Renewed(certificate_pem=pem)
