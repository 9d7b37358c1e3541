"""Draws a cohort among the clients that are there, at the cost of those that are looked at."""

from collections.abc import Callable

import numpy as np

from simulations.behaviour.availability import Flags
from simulations.keyed import Stream
from simulations.populations.cohorts import check_cohort
from simulations.populations.port import Clients

LOOKS_MAX = 2_000_000
"""Clients looked at for one cohort before the rest counts as absent."""


def available_cohort(
    clients: int, size: int, is_there: Callable[[Clients], Flags], *, seed: int, round: int
) -> Clients:
    """Up to so many different clients that are there, ascending; each set of those that are is equally likely.

    Walks a random order of the whole population, which is a keyed permutation and therefore never written down.
    """
    check_cohort(clients, size)
    order, found = Stream.named(seed, "order"), np.zeros(0, np.int64)
    looked, block = 0, max(2 * size, 256)
    while len(found) < size and looked < min(clients, LOOKS_MAX):
        places = np.arange(looked, min(clients, LOOKS_MAX, looked + block))
        some = order.permuted(places, clients, round)
        found = np.concatenate([found, some[is_there(some)]])
        looked, block = looked + len(places), 2 * block
    return np.sort(found[:size])
