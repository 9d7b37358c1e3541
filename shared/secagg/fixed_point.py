"""Real numbers as integers modulo 2**32 whose sum never overflows: the format is chosen for a cohort, then enforced.

    largest possible sum = clients_max * (value_max / step + noise_max) <= 2**31 - 1

Each device refuses to encode what is larger than its part, so the sum is exact: it is the sum of the rounded values. A
wrapped sum would look like any other numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.secagg.errors import UnencodableUpdateError

Words = NDArray[np.uint32]
_SUM_MAX = 2**31 - 1
_NOISE_DEVIATIONS = 16
"""Room for noise; a normal number beyond comes once in 10**56, and is refused like any other."""


@dataclass(frozen=True)
class FixedPoint:
    """A format for the sum of at most `clients_max` vectors."""

    clients_max: int
    value_max: float
    """Largest absolute value of a number, before noise."""
    noise_share: float = 0.0
    """Standard deviation of each client's noise, in the units of the values."""
    step_min: float = 0.0
    """A finer step is not wanted; a power of two, or 0."""

    @property
    def step(self) -> float:
        """What one stands for: the smallest power of two that the sum of all clients' largest numbers fits."""
        room = self.value_max + _NOISE_DEVIATIONS * self.noise_share
        finest = 2.0 ** math.ceil(math.log2(room * self.clients_max / (_SUM_MAX - self.clients_max)))
        return max(finest, self.step_min)

    @property
    def integer_max(self) -> int:
        """Largest absolute integer that a client may send."""
        return _SUM_MAX // self.clients_max

    def encode(self, values: NDArray[np.floating]) -> Words:
        """The nearest integers to the values, `(parameters,)`.

        Raises:
            UnencodableUpdateError: A number is NaN, infinite, or beyond `value_max`.
        """
        largest = float(np.max(np.abs(values), initial=0.0))
        if not largest <= self.value_max:
            raise UnencodableUpdateError(
                f"Expected numbers of at most {self.value_max:g}, got {largest:g}",
                hint="Clip the update, or choose the format for larger numbers.",
            )
        return self.words(np.rint(np.asarray(values, np.float64) / self.step).astype(np.int64))

    def words(self, integers: NDArray[np.int64]) -> Words:
        """Integers as they travel. Raises UnencodableUpdateError for one beyond its part of the sum."""
        if (found := int(np.max(np.abs(integers), initial=0))) > self.integer_max:
            raise UnencodableUpdateError(f"Expected integers of at most {self.integer_max}, got {found}")
        return integers.astype(np.uint32)

    def decode(self, total: Words) -> NDArray[np.float64]:
        """The sum of what clients encoded, `(parameters,)`."""
        return total.view(np.int32).astype(np.float64) * self.step
