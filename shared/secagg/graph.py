"""Who shares masks with whom: a random k-regular graph, and the k and threshold that a cohort needs.

SecAgg+ (Bell, Bonawitz, Gascón, Lepoint and Raykova 2020, eprint 2020/704): neighbours suffice where the first protocol
(Bonawitz et al. 2017) let everybody share with everybody, because a random graph stays connected with few edges. The
graph follows from the roster alone, which every device holds: the server cannot choose a victim's neighbours.
"""

import hashlib
import math
import random
from dataclasses import dataclass
from functools import lru_cache

from shared.secagg.errors import SecureAggregationError

_SECURITY_BITS, _CORRECTNESS_BITS = 40, 30
"""The paper's sigma and eta: a round is unsafe once in 2**40, lost without reason once in 2**30."""


@dataclass(frozen=True)
class Topology:
    """How many neighbours each has, and how many devices it takes for what."""

    degree: int
    threshold: int
    """Neighbours whose shares give a secret back."""
    agreement: int
    """Devices that must sign the same survivors: two lists can never both have so many honest ones."""


@lru_cache(maxsize=64)
def topology(clients: int, *, corrupt_share: float, dropout_share: float) -> Topology:
    """The smallest that is safe against so many liars and survives so many dropouts (the paper's section 3.3).

    Safe: nobody's lying neighbours can give a secret back by themselves, nor a minority of neighbours; and the graph of
    the honest who stay is connected. In a small cohort everybody is everybody's neighbour, and no chance is left.

    Raises:
        SecureAggregationError: No graph of so many clients is both.
    """
    corrupt, dropped = int(corrupt_share * clients), int(dropout_share * clients)
    agreement = (clients + corrupt) // 2 + 1
    if clients < 3 or clients - dropped < agreement:
        raise _neither(clients, corrupt, dropped)
    for degree in range(2, clients - 1, 2):
        if clients * (corrupt_share + dropout_share) ** (degree / 2) > 2.0**-_SECURITY_BITS:
            continue
        lying = _exceeded_rarely(clients - 1, corrupt, degree, bits=_SECURITY_BITS + math.log2(clients))
        gone = _exceeded_rarely(clients - 1, dropped, degree, bits=_CORRECTNESS_BITS + math.log2(clients))
        if degree - gone > (threshold := max(lying, degree // 2)):
            return Topology(degree, threshold + 1, agreement)
    degree, threshold = clients - 1, max(corrupt, (clients - 1) // 2) + 1
    if degree - dropped < threshold:
        raise _neither(clients, corrupt, dropped)
    return Topology(degree, threshold, agreement)


def _neither(clients: int, corrupt: int, dropped: int) -> SecureAggregationError:
    return SecureAggregationError(
        f"Expected a cohort that can lose {dropped} and hold {corrupt} liars, got {clients} devices",
        hint="Ask more devices in each round, or plan for fewer dropouts or liars.",
    )


def neighbours_of(position: int, *, clients: int, degree: int, roster_digest: bytes) -> tuple[int, ...]:
    """Positions in the roster, ascending: those nearest on a ring in an order that follows from the roster."""
    ring, place = _ring(clients, roster_digest)
    if degree >= clients - 1:
        return tuple(other for other in range(clients) if other != position)
    here = place[position]
    near = (ring[(here + step) % clients] for step in range(-degree // 2, degree // 2 + 1) if step)
    return tuple(sorted(near))


@lru_cache(maxsize=8)
def _ring(clients: int, roster_digest: bytes) -> tuple[list[int], list[int]]:
    """The order of the ring, and where each position lies in it."""
    # random.Random need not be secure here: what matters is that nobody could choose the digest.
    ring = list(range(clients))
    random.Random(hashlib.sha256(b"ring" + roster_digest).digest()).shuffle(ring)
    place = [0] * clients
    for index, position in enumerate(ring):
        place[position] = index
    return ring, place


def _exceeded_rarely(population: int, marked: int, drawn: int, *, bits: float) -> int:
    """The least number that more marked ones than it are drawn with a chance of at most `2**-bits` (hypergeometric)."""
    everything, tail = math.comb(population, drawn), 0
    for count in range(min(marked, drawn), 0, -1):
        tail += math.comb(marked, count) * math.comb(population - marked, drawn - count)
        if tail > 0 and math.log2(tail) - math.log2(everything) > -bits:
            return count
    return 0
