"""Noise that devices make together under secure aggregation, so that nobody ever sees a sum without it.

Each clips its vector, rounds it to the round's fixed point without letting it grow, and adds its own share of discrete
Gaussian noise: the distributed discrete Gaussian mechanism (Kairouz, Liu and Steinke 2021, arXiv:2102.06387), without
the paper's rotation and modular wrap, since words of 32 bits hold the sum as it is. All are integers: what the analysis
speaks of is what is sent.

    noise = SummedNoise(deviation=0.5, norm_max=0.25, clients=7)
    format = format_of(noise, clients_max=10)
    words = noised(vector, noise, format, randomness=SecureRandomness.from_system())

Guarantees:
    A sum with the shares of `noise.clients` honest members hides each of them, with its part in the sum being zero, as
    a Gaussian of `deviation / norm_max` does (`shared.discrete_gaussian.multiplier_of_sum`): against whoever sees sums
    alone, also together with all members that are not honest. Void where fewer are, which `check_noise` has each device
    see to as far as `corrupt_share` is right, or where a device's randomness can be predicted.
"""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from shared.discrete_gaussian import discrete_gaussian
from shared.randomness import SecureRandomness
from shared.secagg.errors import RoundRefusedError, UnencodableUpdateError
from shared.secagg.fixed_point import FixedPoint, Words
from shared.secagg.messages import SummedNoise, Terms

FINENESS_BITS = 16
"""Of all noise's deviation, in integers: finer ones would hide nothing better, and cost room."""
SHARE_MIN = 16.0
"""Least deviation of one share, in integers: there the sum is a Gaussian's to hundreds of digits."""
_SLACK = 2.0**-20
"""Of a clipped vector's norm, relative: what float32 may have added to it."""


def format_of(noise: SummedNoise, *, clients_max: int) -> FixedPoint:
    """The fixed point of a round: no sum of so many vectors and shares overflows it.

    Raises:
        RoundRefusedError: So many devices' shares do not fit, or are too coarse to hide as they should.
    """
    share = share_of(noise)
    step_min = 2.0 ** (math.floor(math.log2(noise.deviation)) - FINENESS_BITS)
    format = FixedPoint(clients_max, noise.norm_max, noise_share=share, step_min=step_min)
    if share / format.step < SHARE_MIN:
        raise RoundRefusedError(
            f"Expected shares of noise of at least {SHARE_MIN:g} steps, got {share / format.step:.3g}",
            hint="Ask fewer devices in a round, or more noise.",
        )
    return format


def share_of(noise: SummedNoise) -> float:
    """Deviation of one device's share."""
    return noise.deviation / math.sqrt(noise.clients)


def honest_min(*, clients_min: int, clients_max: int, corrupt_share: float) -> int:
    """Of a sum's members, how many add their share at least, whoever works for the server."""
    return clients_min - int(corrupt_share * clients_max)


def check_noise(terms: Terms, *, clients_max: int) -> None:
    """Raises RoundRefusedError where fewer honest devices may be in the sum than make all of the noise."""
    if terms.noise is None:
        return
    least = honest_min(clients_min=terms.clients_min, clients_max=clients_max, corrupt_share=terms.corrupt_share)
    if terms.noise.clients > least:
        raise RoundRefusedError(
            f"Expected noise that {max(least, 0)} devices make, as many as are surely honest, got {terms.noise.clients}"
        )


def noised(
    vector: NDArray[np.floating], noise: SummedNoise, format: FixedPoint, *, randomness: SecureRandomness
) -> Words:
    """The vector, rounded within its bound, with this device's share of noise, as words `(parameters,)`.

    Args:
        vector: `(parameters,)`, clipped.
        noise: Of the round.
        format: `format_of` it.
        randomness: Nobody else's.

    Raises:
        UnencodableUpdateError: A vector that was not clipped, NaN, or a share beyond its room.
    """
    whole = _rounded(np.asarray(vector, np.float64) / format.step, bound=noise.norm_max / format.step)
    share = discrete_gaussian(len(whole), deviation=share_of(noise) / format.step, randomness=randomness)
    return format.words(whole + share)


def _rounded(scaled: NDArray[np.float64], *, bound: float) -> NDArray[np.int64]:
    """Integers whose norm is within the bound: the nearest ones, or those towards zero where these are too long."""
    norm = float(np.linalg.norm(scaled))
    if not norm <= bound * (1 + _SLACK):
        raise UnencodableUpdateError(f"Expected a vector clipped to {bound:.6g} steps, got one of {norm:.6g}")
    nearest = np.rint(scaled).astype(np.int64)
    if _is_within(nearest, bound):
        return nearest
    # Towards zero no number grows, and so neither does the norm.
    shorter = np.trunc(scaled * min(1.0, bound * (1 - _SLACK) / norm)).astype(np.int64)
    assert _is_within(shorter, bound)
    return shorter


def _is_within(integers: NDArray[np.int64], bound: float) -> bool:
    """Exactly: squares are added as integers, which 64 bits hold for any bound that fits the format."""
    return int(integers @ integers) <= Fraction(bound) ** 2
