"""The values a rollout is made of: what planning and gates take and give. Nothing here reads a clock or a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from shared.ids import DeviceId
from shared.lifecycles import ReleaseState, RolloutEvent


@dataclass(frozen=True)
class Target:
    """The release devices shall move to, and what it needs of them."""

    release_id: str
    task: str
    task_version: str
    opset: int


@dataclass(frozen=True)
class Policy:
    """How carefully a rollout moves; frozen with its plan."""

    wave_fractions: tuple[float, ...]
    """Cumulative shares of the planned devices, ascending; the last is 1."""
    soak_s: float
    """A device is healthy once it was heard from this long after it became active."""
    wave_timeout_s: float
    """A device that is not healthy this long after its wave began counts as failed."""
    failures_max: int
    """More failed devices than this in a wave halt the rollout."""
    error_rate_max: float
    """A device that answers more than this share of its requests with an error, since it was asked, has failed."""


@dataclass(frozen=True)
class Candidate:
    """What planning knows of one enrolled device."""

    device_id: DeviceId
    tasks: Mapping[str, str]
    """Installed tasks: name to version."""
    opset_max: int
    """Newest ONNX opset it can serve; 0 until it said so."""
    is_revoked: bool = False
    is_online: bool = True
    is_canary: bool = False
    """Tagged by the operator to go first."""
    serves: str | None = None
    """The release it last reported as active."""
    desired_release_id: str | None = None
    desired_generation: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A device the plan does not touch, and why, in one sentence."""

    device_id: DeviceId
    reason: str


@dataclass(frozen=True)
class RolloutPlan:
    """Which devices move to which release, in which order. Computed once, stored, shown, then executed."""

    release_id: str
    generation: int
    """Greater than any generation a device was asked for before."""
    policy: Policy
    waves: tuple[tuple[DeviceId, ...], ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def devices(self) -> tuple[DeviceId, ...]:
        """All that move, in order."""
        return tuple(device for wave in self.waves for device in wave)


class DeviceStep(StrEnum):
    """How far a rollout is with one device; what the device itself says is beside it, in the observation."""

    WAITING = "waiting"
    ASKED = "asked"
    HEALTHY = "healthy"
    LATE = "late"
    """Not healthy in time. Counts as failed, and becomes healthy or failed all the same when it answers."""
    FAILED = "failed"
    LEFT_OUT = "left_out"
    """Revoked, or asked for something newer, since the plan was made."""


SETTLED = frozenset({DeviceStep.HEALTHY, DeviceStep.LATE, DeviceStep.FAILED, DeviceStep.LEFT_OUT})
"""Steps in which a wave does not wait for a device."""
FAILURES = frozenset({DeviceStep.LATE, DeviceStep.FAILED})


@dataclass(frozen=True)
class DeviceProgress:
    """One device of a running rollout."""

    wave: int
    """Number of its wave, from 1."""
    generation: int
    """What it is asked with; a retry after a failure has a greater one."""
    step: DeviceStep = DeviceStep.WAITING
    asked_at: float | None = None
    """When the intent to ask was stored; the hub was told after that."""
    is_delivered: bool = False
    """The hub has the desired document. Until then asking is repeated."""
    judged_from: float = 0
    """Errors and silence before this moment are forgiven: when it was asked, or when an operator resumed."""
    reason: str = ""


@dataclass(frozen=True)
class WaveProgress:
    started_at: float | None = None
    clock_from: float | None = None
    """The wave's timeout counts from here: its start, or the last resume."""
    finished_at: float | None = None


@dataclass(frozen=True)
class Progress:
    """How far a rollout is. The first step begins wave 1."""

    wave: int
    """Number of the wave that may be asked now; 0 before the first step."""
    waves: tuple[WaveProgress, ...]
    devices: Mapping[DeviceId, DeviceProgress]

    @staticmethod
    def of(plan: RolloutPlan) -> "Progress":
        """Nothing has happened yet."""
        devices = {
            device: DeviceProgress(wave=number, generation=plan.generation)
            for number, wave in enumerate(plan.waves, start=1)
            for device in wave
        }
        return Progress(wave=0, waves=tuple(WaveProgress() for _ in plan.waves), devices=devices)

    def with_devices(self, changed: Mapping[DeviceId, DeviceProgress]) -> "Progress":
        return replace(self, devices={**self.devices, **changed}) if changed else self

    def with_wave(self, number: int, wave: WaveProgress) -> "Progress":
        return replace(self, waves=(*self.waves[: number - 1], wave, *self.waves[number:]))

    def of_wave(self, number: int) -> list[tuple[DeviceId, DeviceProgress]]:
        """The wave's devices, in the plan's order."""
        return [(device, progress) for device, progress in self.devices.items() if progress.wave == number]


@dataclass(frozen=True)
class Observation:
    """What the coordinator knows of one device now. The default is: no longer enrolled."""

    is_enrolled: bool = False
    desired_generation: int = 0
    last_seen_at: float | None = None
    """By the coordinator's clock, as all times here."""
    generation: int = 0
    """Of the newest release status it sent; 0 if none."""
    state: ReleaseState | None = None
    error: str = ""
    active_release_id: str | None = None
    state_since: float = 0
    """When that status was received."""
    requests: int = 0
    """Served with the rollout's release since `judged_from`."""
    errors: int = 0
    critical: str = ""
    """An open critical alert of this device since `judged_from`, its message; otherwise empty."""
    is_in_round: bool = False
    """A campaign waits for its answer: it is asked to install once it has given it."""


@dataclass(frozen=True)
class Ask:
    """An action: tell the hub that this device shall serve the plan's release."""

    device_id: DeviceId
    generation: int


@dataclass(frozen=True)
class Decision:
    """What a step found: the progress to store first, then the devices to ask, then the rollout's own transition."""

    progress: Progress
    asks: tuple[Ask, ...] = ()
    event: RolloutEvent | None = None
    reason: str = field(default="")
    """Why it halts, one sentence."""
