"""Drift references: what a release's profile says about features and thresholds, kept where events are judged.

A device's own word on thresholds is not asked: the profile was made and signed here.
"""

from sqlmodel import Session

from cloud.monitoring.models import DriftReferenceRow
from shared.sketches import DriftProfile


def keep_reference(session: Session, release_id: str, profile: DriftProfile) -> None:
    """Stores what judging needs of a release's profile; a release never changes, so storing it twice does no harm."""
    if session.get(DriftReferenceRow, release_id) is None:
        session.add(
            DriftReferenceRow(
                release_id=release_id,
                thresholds={feature.feature: feature.threshold for feature in profile.features},
                examples_min=profile.examples_min,
            )
        )
        session.flush()


def reference_of(session: Session, release_id: str) -> DriftReferenceRow | None:
    """The reference, if any device was ever to serve this release."""
    return session.get(DriftReferenceRow, release_id)
