"""Releases: drafts that packaging makes, signing requests, publication. Knows no HTTP.

The repository is the truth about what devices can get; the table follows it. So the repository is written first, and a
kill in between is healed by the next look at the release.
"""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from cloud.auth.operators import Principal
from cloud.db import SessionFactory
from cloud.governance.service import record
from cloud.registry.service import approve_candidate
from cloud.releases.errors import AlreadyPublishedError, UnknownReleaseError
from cloud.releases.metadata import ReleaseFiles
from cloud.releases.models import ReleaseRow
from cloud.releases.repository import OpenObject, TufRepository
from shared.api.releases import Release, ReleaseStage, SignedTargets, SigningRequest
from shared.manifests import MANIFEST_FILE, Manifest
from shared.messages.base import ObjectRef


@dataclass(frozen=True)
class NewRelease:
    """A release to be: packaged, past its gates, not signed."""

    origin: str
    model_version_id: str
    manifest: Manifest
    manifest_object: ObjectRef
    author: Principal


def create_draft(session: Session, new: NewRelease) -> Release:
    """The release of this origin: a new draft, or the one that an earlier run of the same job made."""
    existing = session.exec(select(ReleaseRow).where(ReleaseRow.origin == new.origin)).first()
    if existing is not None:
        return _shape(existing)
    row = ReleaseRow(
        release_id=new.manifest.release_id,
        origin=new.origin,
        task=new.manifest.task,
        stage=ReleaseStage.DRAFT.value,
        model_version_id=new.model_version_id,
        manifest=new.manifest.model_dump(mode="json"),
        manifest_object=new.manifest_object.model_dump(),
        created_at=new.manifest.created_at,
        created_by_principal=new.author.name,
        created_by_role=new.author.role,
    )
    session.add(row)
    session.flush()
    return _shape(row)


def find_by_origin(session: Session, origin: str) -> Release | None:
    """What this origin made, if it made it already."""
    row = session.exec(select(ReleaseRow).where(ReleaseRow.origin == origin)).first()
    return _shape(row) if row else None


def get_release(session: Session, release_id: str) -> Release:
    """The release. Raises UnknownReleaseError."""
    return _shape(_row(session, release_id))


def list_releases(session: Session, *, limit: int) -> list[Release]:
    """The newest releases, newest first."""
    order = (col(ReleaseRow.created_at).desc(), col(ReleaseRow.release_id).desc())
    return [_shape(row) for row in session.exec(select(ReleaseRow).order_by(*order).limit(limit))]


def signing_request(session: Session, release_id: str, *, repository: TufRepository, now: float) -> SigningRequest:
    """What an operator signs to publish the release. Raises UnknownReleaseError, AlreadyPublishedError."""
    files = _files(_row(session, release_id))
    if repository.is_published(files):
        raise AlreadyPublishedError(f"Expected a draft, got release {release_id}, which is published")
    version, text = repository.signing_request(files, now=now)
    return SigningRequest(release_id=release_id, targets_version=version, targets_metadata=text)


def publish(
    sessions: SessionFactory,
    release_id: str,
    signed: SignedTargets,
    *,
    repository: TufRepository,
    open_object: OpenObject,
    now: float,
    author: Principal,
) -> Release:
    """Puts the signed release where devices get it; the same signature again does no harm.

    The database is free while files are copied: its writers would have to wait for a large model.

    Raises:
        UnknownReleaseError: There is no such release.
        UntrustedTargetsError: The metadata is not signed by the targets keys, or says something else.
        StaleSigningRequestError: Another release was published since the request.
    """
    with sessions() as session, session.begin():
        files = _files(_row(session, release_id))
    repository.accept_targets(signed.targets_metadata, files, open_object=open_object, now=now)
    with sessions() as session, session.begin():
        row = _row(session, release_id)
        if row.stage != ReleaseStage.PUBLISHED:
            _mark_published(session, row, now=now, author=author)
        return _shape(row)


def heal(session: Session, *, repository: TufRepository, now: float) -> int:
    """Marks drafts as published that the repository already has: somebody was killed in between. Returns how many."""
    drafts = session.exec(select(ReleaseRow).where(ReleaseRow.stage == ReleaseStage.DRAFT.value)).all()
    published = [row for row in drafts if repository.is_published(_files(row))]
    for row in published:
        _mark_published(session, row, now=now, author=Principal("coordinator", "service"))
    return len(published)


def _mark_published(session: Session, row: ReleaseRow, *, now: float, author: Principal) -> None:
    row.stage = ReleaseStage.PUBLISHED.value
    row.published_at = now
    row.published_by_principal, row.published_by_role = author.name, author.role
    session.add(row)
    approve_candidate(session, row.model_version_id)  # Who signs a release approves its model.
    record(session, author, action="release.publish", subject=row.release_id, at=now)
    session.flush()


def _files(row: ReleaseRow) -> ReleaseFiles:
    manifest = Manifest.model_validate(row.manifest)
    files = {MANIFEST_FILE: ObjectRef.model_validate(row.manifest_object), **manifest.files}
    return ReleaseFiles(row.release_id, task=row.task, opset=manifest.opset, files=files)


def _row(session: Session, release_id: str) -> ReleaseRow:
    row = session.get(ReleaseRow, release_id)
    if row is None:
        raise UnknownReleaseError(
            f"Expected a release, got {release_id[:80]!r}", hint="`fleetlearn releases list` shows them."
        )
    return row


def _shape(row: ReleaseRow) -> Release:
    return Release(
        release_id=row.release_id,
        task=row.task,
        stage=ReleaseStage(row.stage),
        model_version_id=row.model_version_id,
        manifest=Manifest.model_validate(row.manifest),
        created_at=row.created_at,
        published_at=row.published_at,
    )
