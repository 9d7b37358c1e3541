"""What mechanism events cost together, and what noise a budget needs: Opacus' analyses behind signatures of our own.

The unit may be an example on a device or a device in a fleet: the mathematics is the same. Ledgers charge by Rényi DP,
which composes by adding; `tight_epsilon_of` is nearer to the truth, takes seconds, and is for reports.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shared.errors import FleetlearnError
from shared.privacy import MechanismEvent

_MECHANISMS_CACHED_MAX = 256
_EPSILON_TOLERANCE = 1e-3


class PrivacyPlanError(FleetlearnError):
    """A privacy budget that no amount of noise can keep, or that makes no sense."""

    code = "privacy_plan"


def epsilon_of(events: Sequence[MechanismEvent], delta: float, *, orders: tuple[float, ...] = ()) -> float:
    """Epsilon at `delta` of all events composed, by Rényi DP (Mironov 2017; Mironov, Talwar, Zhang 2019).

    Args:
        events: All on one data set, unit and adjacency; the caller groups them.
        delta: Of the guarantee.
        orders: Rényi orders to take the best of; Opacus' own unless given.
    """
    if not events:
        return 0.0
    # Opacus brings torch: seconds and hundreds of megabytes, so only the training process pays for it.
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis import rdp

    orders = orders or tuple(RDPAccountant.DEFAULT_ALPHAS)
    total = sum((_rdp(event.noise_multiplier, event.sampling_rate, orders) * event.steps for event in events), 0.0)
    with warnings.catch_warnings():
        # "Optimal order is the largest alpha": then epsilon is an upper bound that is not tight, which is safe.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        epsilon, _ = rdp.get_privacy_spent(orders=list(orders), rdp=total, delta=delta)
    return float(epsilon)


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
    # Opacus brings torch: only who plans private training pays for it.
    from opacus.accountants.utils import get_noise_multiplier

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")
        try:
            found = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sampling_rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=min(_EPSILON_TOLERANCE, epsilon / 100),
            )
        except ValueError as error:
            raise PrivacyPlanError(
                f"Expected a budget that noise can keep, got epsilon {epsilon:g} at delta {delta:g}: {error}",
                hint="Ask for a larger epsilon, fewer rounds or a smaller sampling rate.",
            ) from error
    return float(found)


@lru_cache(maxsize=_MECHANISMS_CACHED_MAX)
def _rdp(noise_multiplier: float, sampling_rate: float, orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Rényi divergence of one step at each order; it takes a third of a second."""
    from opacus.accountants.analysis import rdp

    found: NDArray[np.float64] = rdp.compute_rdp(
        q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(orders)
    )
    return found
