"""Work for the device that asks, and what became of it."""

import hashlib
from asyncio import to_thread
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from cloud.auth.device_requests import require_device
from cloud.blobs.store import CorruptObjectError, UnknownObjectError
from cloud.blobs.uploads import UploadDigestError, UploadTooLargeError
from cloud.campaigns.late import note_late_result
from cloud.dependencies import services
from cloud.devices.service import record_rejection, record_seen
from cloud.errors import InvalidRequestError, NotFoundError, TooLargeError
from cloud.monitoring.ledgers import judge_result
from cloud.services import Services
from cloud.work.service import may_read, pending_for, record_result
from shared.ids import DeviceId, Digest, parse_digest
from shared.messages.attached import ATTACHED_BYTES_MAX, CONTENT_TYPE, attach, detach
from shared.messages.base import MalformedMessageError, ObjectRef
from shared.messages.events import WorkResult
from shared.messages.work import AttachedModel, WorkKind, WorkList

router = APIRouter(prefix="/v1/device/work", tags=["device"])


@router.get("", response_model=WorkList)
def get_work(
    services: Annotated[Services, Depends(services)],
    device_id: Annotated[DeviceId, Depends(require_device)],
    base: Annotated[str | None, Query(max_length=64)] = None,
) -> WorkList | Response:
    """All that waits for this device, oldest first. Asking twice gives the same.

    A device that names the model it has, or none with an empty `base`, gets what its oldest work needs behind the
    answer, where that is small.
    """
    with services.sessions() as session, session.begin():
        found = WorkList(work=pending_for(session, device_id, now=services.now()))
        known = parse_digest(base) if base and found.work else None
        has_base = known is not None and may_read(session, device_id, known)
    if base is None or not found.work:
        return found
    oldest = found.work[0]
    # A step of secure aggregation comes with a message, and a question with zeros, which no model resembles.
    is_model = has_base and oldest.kind in (WorkKind.TRAIN, WorkKind.EVALUATE)
    attached = _attached(services, oldest.model, base=known if is_model else None)
    if attached is None:
        return found
    described, content = attached
    answer = found.model_copy(update={"attached": described})
    return Response(attach(answer, content), media_type=CONTENT_TYPE)


@router.put("/{work_id}/result", status_code=204)
async def put_result(
    work_id: str,
    request: Request,
    services: Annotated[Services, Depends(services)],
    device_id: Annotated[DeviceId, Depends(require_device)],
) -> Response:
    """What became of work, with the update behind it where that is small; both are on disk when this answers.

    The first result counts: handing it in again does no harm. It is the same result that an event may bring.
    """
    try:
        result, content = _handed_in(await request.body(), work_id)
        await to_thread(store_result, services, device_id, result, content)
    except (InvalidRequestError, MalformedMessageError, NotFoundError, TooLargeError):
        await to_thread(_count_rejection, services, device_id)
        raise
    return Response(status_code=204)


def _handed_in(body: bytes, work_id: str) -> tuple[WorkResult, bytes]:
    document, content = detach(body)
    result = WorkResult.parse(document)
    if result.work_id != work_id:
        raise InvalidRequestError(f"Expected the result of work {work_id[:64]!r}, got that of {result.work_id[:64]!r}")
    return result, content


def _count_rejection(services: Services, device_id: DeviceId) -> None:
    with services.sessions() as session, session.begin():
        record_rejection(session, device_id)


def store_result(services: Services, device_id: DeviceId, result: WorkResult, content: bytes) -> None:
    """Puts the update, if there is one, and then the result on disk. Raises what the route answers with."""
    if content:
        _check_update(result, content, bytes_max=services.settings.upload_bytes_max)
        services.blobs.put(content)
    now = services.now()
    with services.sessions() as session, session.begin():
        record_result(session, device_id, result, now=now)
        judge_result(session, device_id, result, now=now)
        note_late_result(session, result.work_id, device_id=device_id)
        record_seen(session, [device_id], now=now)
    services.bell.ring()


def _check_update(result: WorkResult, content: bytes, *, bytes_max: int) -> None:
    if len(content) > bytes_max:
        raise UploadTooLargeError(f"Expected an update of at most {bytes_max} bytes, got {len(content)}")
    found = ObjectRef(digest=Digest(hashlib.sha256(content).hexdigest()), size_bytes=len(content))
    if result.update != found:
        raise UploadDigestError(
            f"Expected the update that the result names, got {len(content)} bytes with digest {found.digest}",
            hint="Send the bytes that are named, or none.",
        )


def _attached(services: Services, model: ObjectRef, *, base: Digest | None) -> tuple[AttachedModel, bytes] | None:
    """What makes the model of the base, or is the model; None where it travels by itself."""
    if base == model.digest:
        return None
    if base is not None:
        with suppress(UnknownObjectError):
            delta = services.deltas.between(services.blobs, base=base, target=model.digest)
            return (AttachedModel(model=model, base=base), delta) if len(delta) <= ATTACHED_BYTES_MAX else None
    if model.size_bytes <= ATTACHED_BYTES_MAX:
        with suppress(UnknownObjectError, CorruptObjectError):
            return AttachedModel(model=model), services.blobs.get(model.digest)
    return None
