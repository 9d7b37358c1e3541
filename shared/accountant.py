"""What a device's mechanism events cost together: Opacus' RDP analysis behind a signature of our own."""

import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from shared.privacy import MechanismEvent

_MECHANISMS_CACHED_MAX = 256


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


@lru_cache(maxsize=_MECHANISMS_CACHED_MAX)
def _rdp(noise_multiplier: float, sampling_rate: float, orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Rényi divergence of one step at each order; it takes a third of a second."""
    from opacus.accountants.analysis import rdp

    found: NDArray[np.float64] = rdp.compute_rdp(
        q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(orders)
    )
    return found
