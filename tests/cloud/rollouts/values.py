"""Small values for stories about rollouts."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cloud.rollouts.planner import plan
from cloud.rollouts.values import Candidate, DeviceProgress, Observation, Policy, Progress, RolloutPlan, Target
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState

TARGET = Target(release_id="r-2", task="digits", task_version="1", opset=17)
POLICY = Policy(wave_fractions=(0.2, 1.0), soak_s=5, wave_timeout_s=60, failures_max=0, error_rate_max=0.01)


def names(count: int) -> list[DeviceId]:
    return [DeviceId(f"d-{number:02d}") for number in range(count)]


def candidate(name: str, **changed: object) -> Candidate:
    standard = Candidate(DeviceId(name), tasks={"digits": "1"}, opset_max=21)
    return replace(standard, **changed)  # type: ignore[arg-type]  # the caller names fields of Candidate


def plan_for(devices: Iterable[str], *, policy: Policy = POLICY) -> RolloutPlan:
    return plan(TARGET, policy, [candidate(name) for name in devices], generation_floor=0)


def idle(**changed: object) -> Observation:
    """An enrolled device that was heard from at the beginning, and said nothing about releases."""
    return replace(Observation(is_enrolled=True, last_seen_at=0.0), **changed)  # type: ignore[arg-type]  # fields


def active(progress: DeviceProgress, *, since: float, seen: float) -> Observation:
    """A device that serves what it was asked for."""
    return idle(
        desired_generation=progress.generation,
        generation=progress.generation,
        state=ReleaseState.ACTIVE,
        active_release_id=TARGET.release_id,
        state_since=since,
        last_seen_at=seen,
    )


def failed(progress: DeviceProgress, sentence: str = "Expected output 1, got 2") -> Observation:
    return idle(
        desired_generation=progress.generation,
        generation=progress.generation,
        state=ReleaseState.FAILED,
        error=sentence,
    )


def all_idle(progress: Progress) -> Mapping[DeviceId, Observation]:
    return {device: idle(desired_generation=each.generation) for device, each in progress.devices.items()}
