"""Releases: immutable, signed packages that a device can serve."""

from enum import StrEnum

from pydantic import Field

from shared.api.base import Shape
from shared.manifests import Manifest


class ReleaseStage(StrEnum):
    DRAFT = "draft"
    """Packaged and gated; not signed, no device can get it."""
    PUBLISHED = "published"


class ReleaseCreate(Shape):
    """Packages a model version; a job does it, and its result has `release_id`."""

    model_version_id: str


class Release(Shape):
    release_id: str
    task: str
    stage: ReleaseStage
    model_version_id: str
    manifest: Manifest
    created_at: float
    published_at: float | None = None


class SigningRequest(Shape):
    """What the operator's own machine signs: the next targets metadata, unsigned, as canonical JSON text."""

    release_id: str
    targets_version: int
    targets_metadata: str


class SignedTargets(Shape):
    """The same metadata with the targets key's signatures; the coordinator verifies, then publishes."""

    targets_metadata: str = Field(max_length=5_000_000)
