"""What mechanism events cost together, and what noise a budget needs, behind signatures of our own.

The unit may be an example on a device or a device in a fleet: the mathematics is the same. Ledgers charge by Rényi DP,
which composes by adding, and needs no torch; `tight_epsilon_of` is nearer to the truth, takes seconds and Opacus, and
is for reports.
"""

import math
from collections.abc import Sequence

import numpy as np

from shared import renyi
from shared.errors import FleetlearnError
from shared.privacy import MechanismEvent, PrivacySpec

_EPSILON_TOLERANCE = 1e-3
_NOISE_MAX = 1e6


class PrivacyPlanError(FleetlearnError):
    """A privacy budget that no amount of noise can keep, or that makes no sense."""

    code = "privacy_plan"


def epsilon_of(events: Sequence[MechanismEvent], delta: float, *, orders: tuple[float, ...] = ()) -> float:
    """Epsilon at `delta` of all events composed, by Rényi DP (Mironov 2017; Mironov, Talwar, Zhang 2019).

    Args:
        events: All on one data set, unit and adjacency; the caller groups them.
        delta: Of the guarantee.
        orders: Rényi orders to take the best of; `renyi.ORDERS` unless given.
    """
    if not events:
        return 0.0
    orders = orders or renyi.ORDERS
    total = [0.0] * len(orders)
    for event in events:
        step = renyi.divergences(event.noise_multiplier, event.sampling_rate, orders)
        total = [spent + event.steps * divergence for spent, divergence in zip(total, step, strict=True)]
    return renyi.epsilon_at(delta, total, orders)


def epsilon_after(spec: PrivacySpec, *, rounds: int) -> float:
    """What so many rounds of a campaign cost one device's data, at the campaign's delta."""
    step = renyi.divergences(spec.noise_multiplier, spec.sampling_rate)
    return renyi.epsilon_at(spec.delta, [rounds * spec.steps_per_round * each for each in step]) if rounds else 0.0


def tight_epsilon_of(events: Sequence[MechanismEvent], delta: float, *, error: float = 1e-3) -> float:
    """Epsilon at `delta` of all events composed, by numerical convolution (Gopi, Lee and Wutschitz 2021), from above.

    Args:
        events: All on one data set, unit and adjacency; the caller groups them.
        delta: Of the guarantee.
        error: How far above the truth the result may be; a tenth of it takes ten times as long.
    """
    if not events:
        return 0.0
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(event.noise_multiplier, event.sampling_rate, event.steps) for event in events]
    with np.errstate(divide="ignore"):  # At a sampling rate of 1 it takes the logarithm of 0, and goes on rightly.
        return float(accountant.get_epsilon(delta, eps_error=error))


def least_noise(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The smallest noise multiplier with which so many steps cost at most `epsilon` at `delta`, by `epsilon_of`.

    Raises:
        PrivacyPlanError: The budget cannot be kept.
    """

    def cost(noise: float) -> float:
        divergences = renyi.divergences(noise, sampling_rate)
        return renyi.epsilon_at(delta, [steps * divergence for divergence in divergences])

    # The orders are finite, so that even endless noise costs something; and much noise takes long to charge.
    can_be_kept = renyi.epsilon_at(delta, [0.0] * len(renyi.ORDERS)) < epsilon
    little, much, spent = 0.0, 10.0, math.inf
    while can_be_kept and (spent := cost(much)) > epsilon:
        much *= 2
        can_be_kept = much <= _NOISE_MAX
    if not can_be_kept:
        raise PrivacyPlanError(
            f"Expected a budget that noise can keep, got epsilon {epsilon:g} at delta {delta:g}",
            hint="Ask for a larger epsilon, fewer rounds or a smaller sampling rate.",
        )
    while epsilon - spent > min(_EPSILON_TOLERANCE, epsilon / 100):
        between = (little + much) / 2
        if (cost_between := cost(between)) < epsilon:
            much, spent = between, cost_between
        else:
            little = between
    return much
