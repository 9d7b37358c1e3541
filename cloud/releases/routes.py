"""Releases over HTTP: for operators (package, sign, publish) and for devices (the TUF repository)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response, status
from fastapi.responses import StreamingResponse

from cloud.auth.device_requests import require_device
from cloud.auth.operators import Principal, require_operator
from cloud.blobs.store import CHUNK_BYTES
from cloud.dependencies import Limit, services
from cloud.governance.service import record
from cloud.packaging.service import start_packaging
from cloud.ranges import ranged_response
from cloud.releases import service
from cloud.services import Services
from shared.api.jobs import Job
from shared.api.releases import Release, ReleaseCreate, SignedTargets, SigningRequest
from shared.ids import Digest

router = APIRouter(prefix="/v1/releases", tags=["releases"], dependencies=[Depends(require_operator)])
device_router = APIRouter(prefix="/v1/device/tuf", tags=["device"], dependencies=[Depends(require_device)])
_Services = Annotated[Services, Depends(services)]
_Operator = Annotated[Principal, Depends(require_operator)]


@router.post("", status_code=status.HTTP_201_CREATED)
def create_release(asked: ReleaseCreate, services: _Services, principal: _Operator) -> Job:
    """Packages a model version, in a worker process; follow the job, its result has `release_id`."""
    now = services.now()
    with services.sessions() as session, session.begin():
        job = start_packaging(session, asked, job_id=services.new_id(), now=now, principal=principal)
        record(session, principal, action="release.package", subject=job.job_id, at=now, details=asked.model_dump())
        return job


@router.get("")
def list_releases(services: _Services, limit: Limit = 100) -> list[Release]:
    """The newest releases, newest first."""
    with services.sessions() as session, session.begin():
        return service.list_releases(session, limit=limit)


@router.get("/{release_id}")
def show_release(release_id: str, services: _Services) -> Release:
    """One release with its manifest."""
    with services.sessions() as session, session.begin():
        return service.get_release(session, release_id)


@router.post("/{release_id}/signing-request")
def request_signature(release_id: str, services: _Services, principal: _Operator) -> SigningRequest:
    """What to sign on a machine that has the targets key: `fleetlearn releases publish` does it."""
    now = services.now()
    with services.sessions() as session, session.begin():
        record(session, principal, action="release.request_signing", subject=release_id, at=now)
        return service.signing_request(session, release_id, repository=services.tuf_repository, now=now)


@router.post("/{release_id}/publish")
def publish_release(release_id: str, signed: SignedTargets, services: _Services, principal: _Operator) -> Release:
    """Verifies the signature against the root, and puts the release where devices get it."""
    return service.publish(
        services.sessions,
        release_id,
        signed,
        repository=services.tuf_repository,
        open_object=lambda digest: services.blobs.open_range(digest, 0),
        now=services.now(),
        author=principal,
    )


@device_router.get("/metadata/{name}")
def read_metadata(name: str, services: _Services) -> Response:
    """A metadata file; 404 where there is none of this name."""
    payload = services.tuf_repository.metadata_file(name).read_bytes()
    # Only the timestamp ever changes; whoever caches it would keep new releases from devices.
    return Response(payload, media_type="application/json", headers={"Cache-Control": "no-store"})


@device_router.get("/targets/{path:path}")
def read_target(path: str, services: _Services, range: Annotated[str | None, Header()] = None) -> StreamingResponse:
    """A release's file under its hash-prefixed name; with Range, a download goes on where it stopped."""
    file = services.tuf_repository.target_file(path)
    return ranged_response(
        range,
        size_bytes=file.stat().st_size,
        open_range=lambda start, end: _read(file, start=start, end=end),
        etag=Digest(hashlib.sha256(path.encode()).hexdigest()),
    )


def _read(path: Path, *, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
            start += len(chunk)
            yield chunk
