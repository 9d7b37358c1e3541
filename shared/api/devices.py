"""Devices as operators see them."""

from pydantic import Field

from shared.api.base import Shape
from shared.lifecycles import ReleaseState
from shared.messages.events import FeatureDrift, LiveState
from shared.privacy import PrivacySpent


class Device(Shape):
    """One enrolled device, from the coordinator's own read model: no hub is asked for a listing."""

    device_id: str
    tags: dict[str, str] = Field(default_factory=dict)
    enrolled_at: float
    last_seen_at: float | None = None
    """When the coordinator last received anything from it; seconds since the epoch, by the coordinator's clock."""
    is_online: bool = False
    """Seen within three heartbeats."""
    is_revoked: bool = False
    agent_version: str = ""
    tasks: dict[str, str] = Field(default_factory=dict)
    runtime: str = ""
    opset_max: int = 0
    memory_rss_bytes: int = 0
    serving_url: str = ""
    events_rejected: int = 0
    release_id: str | None = None
    """What it serves, as it last reported."""
    release_state: ReleaseState | None = None
    release_error: str = ""
    desired_release_id: str | None = None
    desired_generation: int = 0
    why_not_at_target: str = ""
    """One line, empty when the device is where it should be."""
    drift: list[FeatureDrift] = Field(default_factory=list)
    privacy: list[PrivacySpent] = Field(default_factory=list)
    ledger_problem: str = ""
    """How its privacy ledger is not the one that it told of before; empty when it is."""
    certificate_expires_at: float | None = None
    codecs: list[str] = Field(default_factory=list)
    """What it can compress updates with; empty: it does not say."""
    live: LiveState = Field(default_factory=LiveState)
    """How it was at its newest heartbeat."""
