"""Which devices move to a release, and in which order: pure, computed once, then stored and shown.

The order is deterministic: devices tagged `canary` first, then devices that are online, then by a digest of release
and device, so that it is not the same device that always goes first. What may not or need not move is left out with a
reason, never silently.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise

from cloud.rollouts.errors import InvalidPolicyError
from cloud.rollouts.values import Candidate, LeftOut, Policy, RolloutPlan, Target
from shared.ids import DeviceId

CANARY_TAG = "canary"
"""A device whose tag of this name is `true` goes first."""


def plan(target: Target, policy: Policy, inventory: Sequence[Candidate], *, generation_floor: int) -> RolloutPlan:
    """The plan that moves these devices to the target.

    Args:
        target: The release.
        policy: Waves and gates, as the operator wants them.
        inventory: The devices to consider, in any order.
        generation_floor: The greatest generation that any rollout ever used.

    Raises:
        InvalidPolicyError: The waves are not a plan, or no wave could ever pass its gate.
    """
    check_policy(policy)
    reasons = {candidate.device_id: why_left_out(target, candidate) for candidate in inventory}
    moving = sorted(
        (candidate for candidate in inventory if not reasons[candidate.device_id]),
        key=lambda candidate: _order(target.release_id, candidate),
    )
    return RolloutPlan(
        release_id=target.release_id,
        generation=1 + max([generation_floor, *(candidate.desired_generation for candidate in inventory)]),
        policy=policy,
        waves=_cut([candidate.device_id for candidate in moving], policy.wave_fractions),
        left_out=tuple(LeftOut(device, reason) for device, reason in sorted(reasons.items()) if reason),
    )


def check_policy(policy: Policy) -> None:
    """Raises InvalidPolicyError where the gates could not be meant."""
    fractions = policy.wave_fractions
    ascending = all(earlier < later for earlier, later in pairwise((0.0, *fractions)))
    if not fractions or not ascending or fractions[-1] != 1:
        raise InvalidPolicyError(
            f"Expected wave fractions that rise from above 0 to exactly 1, got {list(fractions)}",
            hint="Fractions are cumulative: 0.2, 1 means a fifth first, then the rest.",
        )
    if not policy.soak_s < policy.wave_timeout_s:
        raise InvalidPolicyError(
            f"Expected a wave timeout above the soak time of {policy.soak_s:g} s, got {policy.wave_timeout_s:g} s"
        )


def why_left_out(target: Target, candidate: Candidate) -> str:
    """Why this device does not move to the target, one sentence; empty when it moves."""
    version = candidate.tasks.get(target.task)
    if candidate.is_revoked:
        return "Its certificate is revoked."
    if candidate.opset_max == 0:
        return "It has not said yet what it can run."
    if version is None:
        return f"It does not have the task {target.task} installed."
    if version != target.task_version:
        return f"Its task {target.task} has version {version}, the release needs {target.task_version}."
    if candidate.opset_max < target.opset:
        return f"Its runtime serves ONNX opsets up to {candidate.opset_max}, the release needs {target.opset}."
    if candidate.serves == target.release_id and candidate.desired_release_id in (target.release_id, None):
        return "It serves this release already."
    return ""


def _order(release_id: str, candidate: Candidate) -> tuple[bool, bool, bytes]:
    digest = hashlib.sha256(f"{release_id}/{candidate.device_id}".encode()).digest()
    return (not candidate.is_canary, not candidate.is_online, digest)


def _cut(devices: Sequence[DeviceId], fractions: Sequence[float]) -> tuple[tuple[DeviceId, ...], ...]:
    """Waves by cumulative shares, rounded up, so that the first one has a device; empty waves vanish."""
    # Rounded first: 0.07 of 100 devices is 7.000000000000001 in binary, and means 7.
    ends = [0, *(math.ceil(round(fraction * len(devices), 6)) for fraction in fractions)]
    return tuple(tuple(devices[start:end]) for start, end in pairwise(ends) if end > start)
