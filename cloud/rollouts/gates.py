"""Executes a plan, one step at a time, as a pure function: what to store, whom to ask, when to halt.

A step judges every device of the waves begun so far, then the rollout:

1. a failed or late device beyond `failures_max` in any wave halts it, with one sentence;
2. a wave passes when each of its devices is settled and at least one is healthy; then the next one begins;
3. only devices of the current wave are asked, so that only one wave moves; one that takes part in a federated round is
   asked once it has answered there.

A device is healthy when it says that it serves the plan's release, was heard from more than `soak_s` after that, and
neither answers with errors nor has a critical alert. What one device did not survive, the next wave never sees.

    decision = step(plan, progress, observed, now=now, asks_max=64)
    # store decision.progress, tell the hub about decision.asks, then store `delivered(...)`, and again

Doing a step twice with the same facts gives the same asks; telling a device twice does no harm.
"""

from collections.abc import Mapping
from dataclasses import replace

from cloud.rollouts.values import (
    FAILURES,
    SETTLED,
    Ask,
    Decision,
    DeviceProgress,
    DeviceStep,
    Observation,
    Policy,
    Progress,
    RolloutPlan,
    WaveProgress,
)
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState, RolloutEvent

_UNKNOWN = Observation()


def step(
    plan: RolloutPlan,
    progress: Progress,
    observed: Mapping[DeviceId, Observation],
    *,
    now: float,
    asks_max: int,
) -> Decision:
    """The next progress, and what to do about it once it is stored.

    Args:
        plan: As it was stored.
        progress: As the last step, `delivered`, `refused` or `resumed` left it.
        observed: By device; one that is missing is no longer enrolled.
        now: Seconds since the epoch.
        asks_max: At most this many devices are being told at once.
    """
    progress = _judged(plan, progress if progress.wave else _begun(progress, 1, now=now), observed, now=now)
    for _ in plan.waves:  # after a resume, several waves may have passed already
        reason = _why_halt(plan.policy, progress)
        if reason:
            return Decision(progress, event=RolloutEvent.HALT, reason=reason)
        if not _is_settled(progress, progress.wave):
            break
        progress = _finished(progress, now=now)
        if progress.wave == len(plan.waves):
            return Decision(progress, event=RolloutEvent.FINISH)
        # The next wave's devices are judged before they are asked: some may be revoked by now.
        progress = _judged(plan, _begun(progress, progress.wave + 1, now=now), observed, now=now)
    progress = _asked(progress, observed, now=now, asks_max=asks_max)
    return Decision(progress, asks=_open_asks(progress))


def delivered(progress: Progress, device: DeviceId) -> Progress:
    """The hub has the desired document of this device."""
    return progress.with_devices({device: replace(progress.devices[device], is_delivered=True)})


def refused(progress: Progress, device: DeviceId, *, reason: str) -> Progress:
    """The hub will not take a desired document for this device, and trying again does not help."""
    return progress.with_devices(
        {device: replace(progress.devices[device], step=DeviceStep.FAILED, reason=reason)},
    )


def resumed(progress: Progress, observed: Mapping[DeviceId, Observation], *, generation: int, now: float) -> Progress:
    """After an operator's resume: failures are forgiven, and clocks start anew.

    A device that said it failed is asked again, under `generation`, because it has closed the older one; all others
    keep the generation they have.
    """
    changed = {
        device: _retried(device_progress, observed.get(device, _UNKNOWN), generation=generation, now=now)
        for device, device_progress in progress.devices.items()
        if device_progress.step in FAILURES
    }
    progress = progress.with_devices(changed)
    unsettled = [number for number in range(1, progress.wave + 1) if not _is_settled(progress, number)]
    return _begun(progress, min(unsettled, default=progress.wave), now=now) if progress.wave else progress


def wave_state(progress: Progress, observed: Mapping[DeviceId, Observation], number: int, *, release_id: str) -> str:
    """`waiting`, `moving`, `soaking`, `healthy` or `failed`, for people who watch."""
    wave = progress.waves[number - 1]
    if wave.started_at is None:
        return "waiting"
    devices = progress.of_wave(number)
    if wave.finished_at is not None:
        return "healthy"
    if any(device_progress.step in FAILURES for _, device_progress in devices):
        return "failed"
    is_active = (
        device_progress.step in SETTLED or _is_active(release_id, device_progress, observed.get(device, _UNKNOWN))
        for device, device_progress in devices
    )
    return "soaking" if all(is_active) else "moving"


# 1. Judging devices


def _judged(plan: RolloutPlan, progress: Progress, observed: Mapping[DeviceId, Observation], *, now: float) -> Progress:
    changed = {}
    for device, device_progress in progress.devices.items():
        wave = progress.waves[device_progress.wave - 1]
        if wave.started_at is None:
            continue
        is_late = device_progress.wave == progress.wave and now - (wave.clock_from or 0) > plan.policy.wave_timeout_s
        judged = _judge(plan, device_progress, observed.get(device, _UNKNOWN), is_late=is_late)
        if judged != device_progress:
            changed[device] = judged
    return progress.with_devices(changed)


def _judge(plan: RolloutPlan, device: DeviceProgress, seen: Observation, *, is_late: bool) -> DeviceProgress:
    if device.step in (DeviceStep.LEFT_OUT, DeviceStep.FAILED):
        return device
    gone = _why_gone(device, seen)
    if gone:
        return replace(device, step=DeviceStep.LEFT_OUT, reason=gone)
    failure = _why_failed(plan.policy, device, seen) if device.asked_at is not None else ""
    if failure:
        return replace(device, step=DeviceStep.FAILED, reason=failure)
    if _is_healthy(plan, device, seen):
        return replace(device, step=DeviceStep.HEALTHY, reason="")
    if is_late and device.step in (DeviceStep.WAITING, DeviceStep.ASKED):
        return replace(device, step=DeviceStep.LATE, reason=_why_late(plan, device, seen))
    return device


def _why_gone(device: DeviceProgress, seen: Observation) -> str:
    if not seen.is_enrolled:
        return "It is revoked or no longer enrolled."
    if seen.desired_generation > device.generation:
        return f"It was asked for something newer since: generation {seen.desired_generation}."
    return ""


def _why_failed(policy: Policy, device: DeviceProgress, seen: Observation) -> str:
    if seen.generation == device.generation and seen.state is ReleaseState.FAILED:
        return seen.error or "It reported a failure without a reason."
    if seen.errors > policy.error_rate_max * max(seen.requests, seen.errors):
        return f"It answered {seen.errors} of {max(seen.requests, seen.errors)} requests with an error."
    return seen.critical


def _is_active(release_id: str, device: DeviceProgress, seen: Observation) -> bool:
    return (
        seen.generation == device.generation
        and seen.state is ReleaseState.ACTIVE
        and seen.active_release_id == release_id
    )


def _is_healthy(plan: RolloutPlan, device: DeviceProgress, seen: Observation) -> bool:
    if device.step is DeviceStep.HEALTHY:
        return True
    if device.asked_at is None or not _is_active(plan.release_id, device, seen):
        return False
    return (seen.last_seen_at or 0) > max(seen.state_since, device.judged_from) + plan.policy.soak_s


def _why_late(plan: RolloutPlan, device: DeviceProgress, seen: Observation) -> str:
    within = f"within {plan.policy.wave_timeout_s:g} s"
    if not device.is_delivered:
        return f"It could not be asked {within}."
    if _is_active(plan.release_id, device, seen):
        return f"It became active and was not heard from again {within}."
    said = seen.state if seen.generation == device.generation and seen.state else "nothing"
    return f"It was not active {within}; it last said: {said}."


# 2. Judging waves


def _why_halt(policy: Policy, progress: Progress) -> str:
    for number in range(1, len(progress.waves) + 1):
        devices = progress.of_wave(number)
        failed = [(device, each) for device, each in devices if each.step in FAILURES]
        if len(failed) > policy.failures_max:
            device, first = failed[0]
            return (
                f"Wave {number}: {len(failed)} of {len(devices)} devices failed, {policy.failures_max} allowed; "
                f"{device}: {first.reason}"
            )
    devices = progress.of_wave(progress.wave)
    if _is_settled(progress, progress.wave) and not any(each.step is DeviceStep.HEALTHY for _, each in devices):
        return f"Wave {progress.wave}: none of its devices is healthy, so nothing speaks for the release."
    return ""


def _is_settled(progress: Progress, number: int) -> bool:
    return all(device.step in SETTLED for _, device in progress.of_wave(number))


def _begun(progress: Progress, number: int, *, now: float) -> Progress:
    """Makes the wave current; one that began before keeps its start, and gets a new clock."""
    started_at = progress.waves[number - 1].started_at
    wave = WaveProgress(started_at=now if started_at is None else started_at, clock_from=now)
    return replace(progress.with_wave(number, wave), wave=number)


def _finished(progress: Progress, *, now: float) -> Progress:
    return progress.with_wave(progress.wave, replace(progress.waves[progress.wave - 1], finished_at=now))


# 3. Asking


def _asked(progress: Progress, observed: Mapping[DeviceId, Observation], *, now: float, asks_max: int) -> Progress:
    """Asks those that wait, but for devices in the middle of a federated round: they finish it first."""
    room = asks_max - len(_open_asks(progress))
    waiting = [
        (device, each)
        for device, each in progress.of_wave(progress.wave)
        if each.step is DeviceStep.WAITING and not observed.get(device, _UNKNOWN).is_in_round
    ]
    return progress.with_devices(
        {
            device: replace(each, step=DeviceStep.ASKED, asked_at=now, judged_from=now, is_delivered=False, reason="")
            for device, each in waiting[: max(0, room)]
        }
    )


def _open_asks(progress: Progress) -> tuple[Ask, ...]:
    return tuple(
        Ask(device, each.generation)
        for device, each in progress.devices.items()
        if each.step is DeviceStep.ASKED and not each.is_delivered and each.wave <= progress.wave
    )


def _retried(device: DeviceProgress, seen: Observation, *, generation: int, now: float) -> DeviceProgress:
    has_said_failed = seen.generation == device.generation and seen.state is ReleaseState.FAILED
    if has_said_failed:
        return DeviceProgress(wave=device.wave, generation=generation)
    if device.asked_at is None:
        return replace(device, step=DeviceStep.WAITING, reason="")
    return replace(device, step=DeviceStep.ASKED, judged_from=now, reason="")
