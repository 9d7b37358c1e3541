"""What a plan needs of other domains: the release as a target, its drift reference in place, and the devices."""

from dataclasses import dataclass

from sqlmodel import Session

from cloud.blobs.store import BlobStore
from cloud.devices.errors import UnknownDeviceError
from cloud.monitoring.service import keep_reference
from cloud.releases import service as releases
from cloud.rollouts.errors import ReleaseNotPublishedError, UnknownRolloutDeviceError
from cloud.rollouts.observations import inventory
from cloud.rollouts.values import Candidate, Target
from shared.api.releases import Release, ReleaseStage
from shared.api.rollouts import RolloutCreate
from shared.manifests import PROFILE_FILE
from shared.sketches import DriftProfile


@dataclass(frozen=True)
class Prepared:
    """The facts of a plan."""

    target: Target
    inventory: list[Candidate]


def prepare(session: Session, blobs: BlobStore, request: RolloutCreate, *, now: float, heartbeat_s: float) -> Prepared:
    """Gathers the facts, and keeps the release's drift reference, so that it is there before any device reports.

    Raises:
        UnknownReleaseError: There is no such release.
        ReleaseNotPublishedError: It is not signed yet.
        UnknownRolloutDeviceError: A named device is not enrolled.
    """
    release = releases.get_release(session, request.release_id)
    if release.stage is not ReleaseStage.PUBLISHED:
        raise ReleaseNotPublishedError(
            f"Expected a published release, got {release.release_id}, which is a {release.stage.value}",
            hint=f"Sign it first: fleetlearn releases publish {release.release_id}",
        )
    keep_reference(session, release.release_id, _profile(blobs, release))
    try:
        fleet = inventory(session, only=request.devices, now=now, heartbeat_s=heartbeat_s)
    except UnknownDeviceError as error:
        raise UnknownRolloutDeviceError(error.message, hint="`fleetlearn devices list` shows them.") from error
    return Prepared(target=_target(release), inventory=fleet)


def _target(release: Release) -> Target:
    manifest = release.manifest
    return Target(
        release_id=release.release_id, task=manifest.task, task_version=manifest.task_version, opset=manifest.opset
    )


def _profile(blobs: BlobStore, release: Release) -> DriftProfile:
    return DriftProfile.parse(blobs.get(release.manifest.files[PROFILE_FILE].digest))
