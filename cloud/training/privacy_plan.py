"""How much noise a campaign needs, so that all of its rounds together cost at most what was asked."""

from shared.accountant import least_noise
from shared.privacy import PrivacySpec


def plan_privacy(
    *, epsilon: float, delta: float, sampling_rate: float, steps_per_round: int, rounds: int, max_grad_norm: float
) -> PrivacySpec:
    """The campaign's mechanism, with the least noise whose rounds together stay within `epsilon` at `delta`.

    Uses the accountant the devices charge with, so a device with this limit takes part in every round.

    Raises:
        PrivacyPlanError: The budget cannot be kept.
    """
    noise_multiplier = least_noise(
        epsilon=epsilon, delta=delta, sampling_rate=sampling_rate, steps=steps_per_round * rounds
    )
    return PrivacySpec(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
        sampling_rate=sampling_rate,
        steps_per_round=steps_per_round,
        rounds=rounds,
    )
