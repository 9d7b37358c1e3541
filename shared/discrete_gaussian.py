"""Discrete Gaussian noise: integers with `P(x) ~ exp(-x^2 / (2 sigma^2))`, which have no low bits to betray anything.

Drawn by Canonne, Kamath and Steinke 2020 (arXiv:2004.00010), algorithm 3: discrete Laplace numbers, of which each is
kept with the right chance. A deviation from it: chances come from 53 random bits in floating point and not from exact
fractions of bits, so that a million numbers take tenths of a second. To a deviation of 10**5, chances within eight
deviations are right to about one part in 10**7.

What several clients' numbers add up to is not discrete Gaussian itself, but so near to it that nobody can tell
(Kairouz, Liu and Steinke 2021, arXiv:2102.06387): `multiplier_of_sum` bounds the difference.
"""

import math

import numpy as np
from numpy.typing import NDArray

from shared.randomness import SecureRandomness

Integers = NDArray[np.int64]
_SPARE = 1.5
"""Numbers drawn for each that is still missing: about three in four are kept."""
DEVIATION_MAX = 2.0**31
"""Above it, 53 bits are too few for the numbers near zero."""


def discrete_gaussian(count: int, *, deviation: float, randomness: SecureRandomness) -> Integers:
    """`(count,)` independent numbers of this standard deviation, at least 1/2.

    Args:
        count: How many.
        deviation: The sigma of the density, to a relative 10**-3 that of the numbers from 1/2 on.
        randomness: Where all of it comes from.
    """
    assert 0.5 <= deviation <= DEVIATION_MAX, f"Expected a deviation from 0.5 to {DEVIATION_MAX:g}, got {deviation}"
    kept: list[Integers] = []
    missing = count
    while missing > 0:
        drawn = _candidates(int(_SPARE * missing) + 16, deviation=deviation, randomness=randomness)[:missing]
        kept.append(drawn)
        missing -= len(drawn)
    return np.concatenate(kept) if kept else np.zeros(0, np.int64)


def multiplier_of_sum(*, noise_multiplier: float, share_deviation: float, clients: int, parameters: int) -> float:
    """The noise multiplier of a Gaussian that protects no better than the sum of clients' discrete Gaussian shares.

    Guarantees:
        The sum of at least `clients` shares is `epsilon^2 / 2`-concentrated differentially private, with `epsilon` one
        by the result, as a Gaussian of that multiplier is (Kairouz, Liu and Steinke 2021, theorem 1). The neighbouring
        relation is the sum's own.

    Args:
        noise_multiplier: Deviation of all shares together, by the L2 sensitivity.
        share_deviation: Of one share, in integers; at least 1/2.
        clients: Whose shares make all of it.
        parameters: Numbers in the vector.
    """
    assert share_deviation >= 0.5, f"Expected shares of a deviation of at least 1/2, got {share_deviation}"
    # Of the sum over k of exp(-2 pi^2 sigma^2 k / (k + 1)) the first term is the largest.
    most = math.exp(-2 * math.pi**2 * share_deviation**2 / 2)
    tau = 10 * (clients - 1) * most
    one = 1 / noise_multiplier
    return 1 / min(math.sqrt(one**2 + tau * parameters / 2), one + tau * math.sqrt(parameters))


def _candidates(count: int, *, deviation: float, randomness: SecureRandomness) -> Integers:
    """Some numbers of the distribution; how many is up to chance."""
    scale = math.floor(deviation) + 1
    # A geometric number with a sign is discrete Laplace, once the second zero is left out.
    sizes = np.floor(-scale * np.log(randomness.uniform(count)))
    is_negative = randomness.uniform(count) < 0.5
    chance = np.exp(-((sizes - deviation**2 / scale) ** 2) / (2 * deviation**2))
    is_kept = (randomness.uniform(count) < chance) & ~(is_negative & (sizes == 0))
    numbers: Integers = np.where(is_negative, -sizes, sizes)[is_kept].astype(np.int64)
    return numbers
