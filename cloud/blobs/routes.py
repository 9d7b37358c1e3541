"""Objects for devices: download in parts, upload with resume."""

from asyncio import to_thread
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse

from cloud.auth.device_requests import require_device
from cloud.blobs.store import UnknownObjectError
from cloud.blobs.uploads import Chunk, Upload, Uploads
from cloud.dependencies import services
from cloud.ranges import ranged_response
from cloud.services import Services
from cloud.work.service import may_read
from shared.ids import DeviceId, parse_digest

router = APIRouter(prefix="/v1/device", tags=["device"])
_OFFSET_MAX = 2**53


def uploads(services: Annotated[Services, Depends(services)]) -> Uploads:
    settings = services.settings
    return Uploads(settings.uploads_dir, services.blobs, bytes_max=settings.upload_bytes_max)


@router.get("/objects/{digest}")
def get_object(
    digest: str,
    services: Annotated[Services, Depends(services)],
    device_id: Annotated[DeviceId, Depends(require_device)],
    range_header: Annotated[str | None, Header(alias="Range")] = None,
) -> StreamingResponse:
    """An object, or a part of it. One that is not of this device's work is as unknown as one that is not there."""
    wanted = parse_digest(digest)
    with services.sessions() as session, session.begin():
        if not may_read(session, device_id, wanted):
            raise UnknownObjectError(f"Expected an object of this device's work, got {wanted}")
    blobs = services.blobs
    return ranged_response(
        range_header,
        size_bytes=blobs.size(wanted),
        open_range=lambda start, end: blobs.open_range(wanted, start, end=end),
        etag=wanted,
    )


@router.get("/objects/{digest}/from/{base}")
def get_delta(
    digest: str,
    base: str,
    services: Annotated[Services, Depends(services)],
    device_id: Annotated[DeviceId, Depends(require_device)],
) -> Response:
    """An object as the difference to another; both are of this device's work, or unknown."""
    target, known = parse_digest(digest), parse_digest(base)
    with services.sessions() as session, session.begin():
        if not all(may_read(session, device_id, one) for one in (target, known)):
            raise UnknownObjectError(f"Expected two objects of this device's work, got {target} and {known}")
    delta = services.deltas.between(services.blobs, base=known, target=target)
    return Response(delta, media_type="application/octet-stream")


@router.head("/uploads/{digest}")
def head_upload(
    digest: str,
    uploads: Annotated[Uploads, Depends(uploads)],
    device_id: Annotated[DeviceId, Depends(require_device)],
) -> Response:
    """How far an upload is."""
    return Response(headers=_headers(uploads.state(device_id, parse_digest(digest))))


@router.patch("/uploads/{digest}", status_code=204)
async def patch_upload(
    digest: str,
    request: Request,
    uploads: Annotated[Uploads, Depends(uploads)],
    device_id: Annotated[DeviceId, Depends(require_device)],
    upload_offset: Annotated[int, Header(ge=0, le=_OFFSET_MAX)],
    upload_length: Annotated[int, Header(ge=0, le=_OFFSET_MAX)],
) -> Response:
    """Appends the body. 409 names the right offset when the chunk does not fit."""
    chunk = Chunk(upload_offset, upload_length, await request.body())
    upload = await to_thread(uploads.append, device_id, parse_digest(digest), chunk)
    return Response(status_code=204, headers=_headers(upload))


def _headers(upload: Upload) -> dict[str, str]:
    complete = {"Upload-Complete": "1"} if upload.is_complete else {}
    return {"Upload-Offset": str(upload.offset)} | complete
