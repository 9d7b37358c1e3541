"""What a device's mechanism events cost together: Opacus' RDP accountant behind a signature of our own."""

import warnings
from collections.abc import Sequence

from shared.privacy import MechanismEvent


def epsilon_of(events: Sequence[MechanismEvent], delta: float) -> float:
    """Epsilon at `delta` of all events composed, by Rényi DP (Mironov 2017; Mironov, Talwar, Zhang 2019).

    All events must be on one data set, unit and adjacency; the caller groups them.
    """
    if not events:
        return 0.0
    # Opacus brings torch: seconds and hundreds of megabytes, so only the training process pays for it.
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(event.noise_multiplier, event.sampling_rate, event.steps) for event in events]
    with warnings.catch_warnings():
        # "Optimal order is the largest alpha": then epsilon is an upper bound that is not tight, which is safe.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        return float(accountant.get_epsilon(delta=delta))
