"""Rollouts: moving devices from one release to another in waves, with gates."""

from pydantic import Field

from shared.api.base import Shape
from shared.lifecycles import RolloutState


class RolloutCreate(Shape):
    """Plans a rollout. The plan is stored and shown; nothing moves until it is started."""

    release_id: str
    devices: list[str] = Field(default_factory=list)
    """Only these; empty means every device that serves or may serve the release's task."""
    wave_fractions: list[float] = Field(default_factory=lambda: [0.2, 1.0])
    """Cumulative shares of the fleet after each wave: canary first, the last one is 1."""
    soak_s: float = Field(default=5, ge=0)
    """How long a wave must stay healthy before the next one starts."""
    wave_timeout_s: float = Field(default=600, gt=0)
    failures_max: int = Field(default=0, ge=0)
    """More failed devices than this in a wave halt the rollout."""
    error_rate_max: float = Field(default=0.01, ge=0, le=1)
    """A device that answers more than this share of its requests with an error has failed."""


class DeviceProgress(Shape):
    device_id: str
    state: str
    """`waiting`, `asked`, then the device's own release state; `healthy` once it is active and answers.
    Otherwise `failed`, `late` or `left_out`, and the reason beside it."""
    reason: str = ""


class Wave(Shape):
    number: int
    state: str
    """`waiting`, `moving`, `soaking`, `healthy`, `failed`."""
    started_at: float | None = None
    finished_at: float | None = None
    devices: list[DeviceProgress] = Field(default_factory=list)


class Rollout(Shape):
    rollout_id: str
    release_id: str
    state: RolloutState
    reason: str = ""
    """Why it halted or was stopped, one sentence."""
    generation: int
    created_at: float
    finished_at: float | None = None
    soak_s: float
    waves: list[Wave] = Field(default_factory=list)
    left_out: list[DeviceProgress] = Field(default_factory=list)
    """Devices the plan does not touch, and why."""
