"""The desired and the reported document of a device: sections, each with a generation.

Desired state carries digests and names, never URLs. A device refuses an older generation than it has accepted.
"""

from pydantic import Field

from shared.lifecycles import ReleaseState
from shared.messages.base import Message
from shared.messages.events import PRINTABLE


class DesiredRelease(Message):
    """Section `release` of the desired document: what this device shall serve."""

    generation: int = Field(gt=0)
    release_id: str = Field(min_length=1, max_length=64, pattern=PRINTABLE)
    rollout_id: str = ""


class DesiredDocument(Message):
    """What the cloud wants of one device; an absent section asks for nothing."""

    release: DesiredRelease | None = None


class ReportedRelease(Message):
    """Section `release` of the reported document: how far the device is."""

    generation: int = Field(ge=0)
    release_id: str | None = None
    """The release asked for last."""
    state: ReleaseState
    error: str = ""
    active_release_id: str | None = None


class ReportedDocument(Message):
    """What one device says of itself."""

    release: ReportedRelease | None = None
