"""How much noise a campaign needs, so that all of its rounds together cost a device at most what was asked."""

import warnings

from shared.errors import FleetlearnError
from shared.privacy import PrivacySpec

_EPSILON_TOLERANCE = 1e-3


class PrivacyPlanError(FleetlearnError):
    """A privacy budget that no amount of noise can keep, or that makes no sense."""

    code = "privacy_plan"


def plan_privacy(
    *, epsilon: float, delta: float, sampling_rate: float, steps_per_round: int, rounds: int, max_grad_norm: float
) -> PrivacySpec:
    """The campaign's mechanism, with the least noise whose rounds together stay within `epsilon` at `delta`.

    Uses the accountant the devices charge with (RDP, Opacus), so a device with this limit takes part in every round.

    Raises:
        PrivacyPlanError: The budget cannot be kept.
    """
    # Opacus brings torch: only who plans private campaigns pays for it.
    from opacus.accountants.utils import get_noise_multiplier

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        try:
            noise_multiplier = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sampling_rate,
                steps=steps_per_round * rounds,
                accountant="rdp",
                epsilon_tolerance=min(_EPSILON_TOLERANCE, epsilon / 100),
            )
        except ValueError as error:
            raise PrivacyPlanError(
                f"Expected a budget that noise can keep, got epsilon {epsilon:g} at delta {delta:g}: {error}",
                hint="Ask for a larger epsilon, fewer rounds or a smaller sampling rate.",
            ) from error
    return PrivacySpec(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=float(noise_multiplier),
        max_grad_norm=max_grad_norm,
        sampling_rate=sampling_rate,
        steps_per_round=steps_per_round,
        rounds=rounds,
    )
