"""Who takes part in a round: functions of (seed, round), so that a resumed run asks the same clients."""

import numpy as np

from simulations.populations.errors import CohortTooLargeError
from simulations.populations.port import Clients


def uniform_cohort(clients: int, size: int, *, seed: int, round: int) -> Clients:
    """So many different clients, in ascending order, each set of them equally likely.

    numpy draws by Floyd's method (Bentley and Floyd 1987) where the population is large, so the cost is the cohort's.
    """
    check_cohort(clients, size)
    generator = np.random.default_rng([seed, round, 0xC0])
    return np.sort(generator.choice(clients, size, replace=False, shuffle=False))


def poisson_cohort(clients: int, rate: float, *, seed: int, round: int) -> Clients:
    """Each client with this chance, independently; perhaps nobody. What amplification by subsampling assumes."""
    generator = np.random.default_rng([seed, round, 0xC1])
    size = int(generator.binomial(clients, rate))
    return np.sort(generator.choice(clients, size, replace=False, shuffle=False))


def check_cohort(clients: int, size: int) -> None:
    """Raises CohortTooLargeError where there are fewer clients than a round asks for."""
    if not 1 <= size <= clients:
        raise CohortTooLargeError(
            f"Expected a cohort between 1 and {clients}, the number of clients, got {size}",
            hint="Ask fewer clients a round, or simulate more of them.",
        )
