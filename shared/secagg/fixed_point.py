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

    @property
    def step(self) -> float:
        """What one stands for: the smallest power of two that the sum of all clients' largest numbers fits."""
        room = self.value_max + _NOISE_DEVIATIONS * self.noise_share
        return 2.0 ** math.ceil(math.log2(room * self.clients_max / (_SUM_MAX - self.clients_max)))

    @property
    def integer_max(self) -> int:
        """Largest absolute integer that a client may send."""
        return _SUM_MAX // self.clients_max

    def encode(self, values: NDArray[np.floating], *, normal: NDArray[np.float64] | None = None) -> Words:
        """The nearest integers, plus rounded noise.

        Rounded noise on integers is the rounding of noised integers: what the noise hides, rounding does not show.

        Args:
            values: `(parameters,)`.
            normal: Standard normal numbers, `(parameters,)`, unknown to all others, where the client adds noise.

        Raises:
            UnencodableUpdateError: A number is NaN, infinite, or beyond `value_max`.
        """
        largest = float(np.max(np.abs(values), initial=0.0))
        if not largest <= self.value_max:
            raise UnencodableUpdateError(
                f"Expected numbers of at most {self.value_max:g}, got {largest:g}",
                hint="Clip the update, or choose the format for larger numbers.",
            )
        integers = np.rint(np.asarray(values, np.float64) / self.step)
        if normal is not None:
            integers += np.rint(normal * (self.noise_share / self.step))
            if (found := float(np.max(np.abs(integers), initial=0.0))) > self.integer_max:
                raise UnencodableUpdateError(f"Expected integers of at most {self.integer_max}, got {found:g}")
        return integers.astype(np.int64).astype(np.uint32)

    def decode(self, total: Words) -> NDArray[np.float64]:
        """The sum of what clients encoded, `(parameters,)`."""
        return total.view(np.int32).astype(np.float64) * self.step

    def norm_max(self, norm: float, parameters: int) -> float:
        """Norm of a rounded vector whose exact one has at most this: what the noise must hide (the sensitivity)."""
        return norm + self.step * math.sqrt(parameters) / 2
