"""Rényi differential privacy of the subsampled Gaussian mechanism, in plain floating-point arithmetic.

Mironov, Talwar and Zhang 2019 (arXiv:1908.10530), section 3.3; from orders to epsilon by Balle et al. 2020
(arXiv:1905.09982), theorem 21. The same series as Opacus and TensorFlow Privacy, and tests compare; here it needs no
torch, so that a device, a coordinator and a command line charge and plan without seconds of imports.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), *(float(order) for order in range(12, 64)))
"""Opacus' own."""
_CACHED_MAX = 256
_LOG_TERM_MIN = -30.0
"""The series of a fractional order ends where its terms are this small."""


@lru_cache(maxsize=_CACHED_MAX)
def divergences(noise_multiplier: float, sampling_rate: float, orders: tuple[float, ...] = ORDERS) -> tuple[float, ...]:
    """The divergence of one step at each order, in nats; infinite where it cannot be computed.

    Args:
        noise_multiplier: Standard deviation of the noise by the sensitivity, sigma.
        sampling_rate: Chance of a unit to take part, q.
        orders: Above 1 each.
    """
    return tuple(_divergence(sampling_rate, noise_multiplier, order) for order in orders)


def epsilon_at(delta: float, divergences: Sequence[float], orders: Sequence[float] = ORDERS) -> float:
    """The smallest epsilon that the divergences at these orders allow; they add up when mechanisms compose."""
    return max(
        0.0,
        min(
            divergence - (math.log(delta) + math.log(order)) / (order - 1) + math.log1p(-1 / order)
            for divergence, order in zip(divergences, orders, strict=True)
        ),
    )


def _divergence(q: float, sigma: float, order: float) -> float:
    if q == 1:
        return order / (2 * sigma**2)
    try:
        log_moment = _log_moment_whole(q, sigma, int(order)) if order == int(order) else _log_moment(q, sigma, order)
    except OverflowError:
        return math.inf
    return log_moment / (order - 1)


def _log_moment_whole(q: float, sigma: float, order: int) -> float:
    """Logarithm of the moment A at a whole order: a binomial sum."""
    terms = [
        math.log(math.comb(order, i)) + i * math.log(q) + (order - i) * math.log1p(-q) + (i * i - i) / (2 * sigma**2)
        for i in range(order + 1)
    ]
    largest = max(terms)
    return largest + math.log(sum(math.exp(term - largest) for term in terms))


def _log_moment(q: float, sigma: float, order: float) -> float:
    """Logarithm of the moment A at a fractional order: two series, left and right of where the densities meet."""
    middle = sigma**2 * math.log(1 / q - 1) + 0.5
    left, right = -math.inf, -math.inf
    log_coefficient, sign, i = 0.0, 1, 0
    while True:
        j = order - i
        left_term = log_coefficient + i * math.log(q) + j * math.log1p(-q) + (i * i - i) / (2 * sigma**2)
        left_term += _log_tail((i - middle) / sigma)
        right_term = log_coefficient + j * math.log(q) + i * math.log1p(-q) + (j * j - j) / (2 * sigma**2)
        right_term += _log_tail((middle - j) / sigma)
        left, right = _log_sum(left, left_term, sign=sign), _log_sum(right, right_term, sign=sign)
        if max(left_term, right_term) < _LOG_TERM_MIN:
            return _log_sum(left, right, sign=1)
        factor = (order - i) / (i + 1)
        log_coefficient, sign, i = log_coefficient + math.log(abs(factor)), sign if factor > 0 else -sign, i + 1


def _log_sum(one: float, other: float, *, sign: int) -> float:
    """`log(exp(one) + sign * exp(other))`."""
    if other == -math.inf:
        return one
    if sign > 0:
        low, high = sorted((one, other))
        return high + math.log1p(math.exp(low - high))
    if other > one:
        raise OverflowError("the series does not converge")
    return one + math.log1p(-math.exp(other - one)) if other < one else -math.inf


def _log_tail(z: float) -> float:
    """Logarithm of the chance that a standard normal number is above z."""
    x = z / math.sqrt(2)
    if x < 25:
        return math.log(0.5 * math.erfc(x))
    # The asymptotic series, beyond which erfc would be 0.
    squared = x * x
    return -squared - math.log(2 * x * math.sqrt(math.pi)) + math.log1p(-1 / (2 * squared) + 3 / (4 * squared**2))
