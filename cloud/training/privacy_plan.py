"""How much noise a campaign needs, so that all of its rounds together cost at most what was asked."""

from shared.accountant import least_noise
from shared.privacy import AdaptiveClipping, NoiseBy, PrivacySpec, UserPrivacySpec


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


def plan_user_privacy(
    *,
    epsilon: float,
    delta: float,
    population: int,
    cohort: float,
    rounds: int,
    clip_norm: float,
    adaptive: AdaptiveClipping | None = None,
    noise_by: NoiseBy = NoiseBy.SERVER,
    noise_clients_min: int = 1,
) -> UserPrivacySpec:
    """User-level privacy with the least noise whose rounds together stay within `epsilon` at `delta`.

    Args:
        epsilon: What all rounds may cost a device.
        delta: Should be well below one over the population.
        population: Devices that may take part.
        cohort: Devices in a round on average; each is in it by an independent coin.
        rounds: Of the campaign.
        clip_norm: Bound of an update's norm, or the first where it adapts.
        adaptive: How the bound follows the norms, if it does.
        noise_by: Who adds the noise.
        noise_clients_min: Clients whose shares make all of the noise, where they add it.

    Raises:
        PrivacyPlanError: The budget cannot be kept.
    """
    rate = cohort / population
    return UserPrivacySpec(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=least_noise(epsilon=epsilon, delta=delta, sampling_rate=rate, steps=rounds),
        clip_norm=clip_norm,
        adaptive=adaptive,
        sampling_rate=rate,
        expected_clients=cohort,
        rounds=rounds,
        noise_by=noise_by,
        noise_clients_min=noise_clients_min,
    )
