"""Gaussian noise for DP-SGD: from a secure generator, added in place, fast enough to be a part of every step.

Draws are Box and Muller's, two from a pair of random words of 32 bits. Floating-point draws have gaps, which betray
what they were added to (Mironov 2012). Two defences:

- A normal is not a draw but a combination of *sixteen*, and whatever an observer computes from many normals still
  contains at least four draws: thirteen normals are made of sixteen draws (see `MIXING`), so that each attempt to tell
  reachable from unreachable values must guess some of the generator's words. Holohan and Braghin (2021,
  arXiv:2107.10138, 5.1) reach the same with four fresh draws for each normal.
- What comes out is a multiple of a grid, a power of two near a hundredth of the standard deviation: the low bits, from
  which a gradient could be read, are not published. (Rounding is postprocessing: it costs no privacy.)
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared.randomness import SecureRandomness

if TYPE_CHECKING:
    import torch

_DRAWS, _NORMALS = 16, 13
_PAIRS = _DRAWS // 2
_COLUMNS_MAX = 8192
"""A block and its intermediate results take 2 MB: about a second-level cache, and few enough calls."""
_LOW_BITS, _EXTRA_BITS = 31, 9
"""Of a pair's two words, what makes the radius: a normal's tail reaches 7.5 deviations."""
_GRID_EXPONENT = -7


def _chebyshev() -> NDArray[np.float64]:
    """Chebyshev polynomials of degree 0 to 12 at the sixteen roots of the last: orthonormal rows `(13, 16)`.

    A combination of rows is a polynomial of degree 12 at sixteen places: at most twelve of its values are 0.
    """
    angles = (np.arange(_DRAWS) + 0.5) * math.pi / _DRAWS
    rows = np.cos(np.arange(_NORMALS)[:, None] * angles)
    orthonormal: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return orthonormal


MIXING = _chebyshev()


class GaussianNoise:
    """Independent normal noise for vectors of one size; what it needs it allocates once.

    Args:
        randomness: Where all of it comes from.
        size: Of the vectors.
        standard_deviation: More than 0.
    """

    def __init__(self, randomness: SecureRandomness, *, size: int, standard_deviation: float) -> None:
        import torch

        half = min(_COLUMNS_MAX, -(-size // _NORMALS) + 1) // 2
        self._randomness, self._half = randomness, half
        self._grid = 2.0 ** (math.floor(math.log2(standard_deviation)) + _GRID_EXPONENT)
        self._mixing = torch.from_numpy(MIXING * (standard_deviation / self._grid)).float()
        self._bits = np.zeros((_PAIRS, 2 * half), np.int64)
        self._low, self._high = self._bits.view(np.int32).reshape(2, _PAIRS, 2 * half)
        self._radius, self._angle = np.empty((2, _PAIRS, 2 * half), np.float32)
        self._draws = np.empty((_DRAWS, 2 * half), np.float32)
        self._mixed = torch.from_numpy(self._draws)
        self._normals = torch.empty(_NORMALS, 2 * half)

    def add_to(self, total: "torch.Tensor") -> None:
        """Adds noise to each number of `total`, `(size,)` and without a gradient, in place, and rounds to the grid."""
        import torch

        for start in range(0, len(total), self._normals.numel()):
            block = total[start : start + self._normals.numel()]
            self._draw()
            torch.mm(self._mixing, self._mixed, out=self._normals)
            normals = self._normals.view(-1)[: len(block)]
            torch.add(normals, block, alpha=1 / self._grid, out=block).round_().mul_(self._grid)

    def _draw(self) -> None:
        """Fills the rows of draws, normal of variance one; the sixteen of one column come from eight pairs of words.

        By numpy: its float32 logarithm, sine and cosine take a third of the time of torch's.
        """
        self._randomness.fill(self._bits)
        radius, angle, half = self._radius, self._angle, self._half
        self._uniform()
        np.sqrt(np.multiply(np.log(radius, out=radius), -2, out=radius), out=radius)
        cosines, sines = self._draws[:_PAIRS], self._draws[_PAIRS:]
        np.multiply(np.cos(angle, out=cosines), radius, out=cosines)
        np.sin(angle, out=angle)
        # Half a block along, so that the sine and the cosine of one pair meet in no sum.
        np.multiply(angle[:, half:], radius[:, half:], out=sines[:, :half])
        np.multiply(angle[:, :half], radius[:, :half], out=sines[:, half:])

    def _uniform(self) -> None:
        """Radii in (0, 1] from 40 of each pair's bits, a half added, and angles in [-pi, pi) from the other 23."""
        low, high, radius, angle = self._low, self._high, self._radius, self._angle
        np.copyto(radius, np.bitwise_and(high, (1 << _EXTRA_BITS) - 1), casting="unsafe")
        np.copyto(angle, np.bitwise_and(low, (1 << _LOW_BITS) - 1, out=low), casting="unsafe")
        np.multiply(np.add(radius, 0.5, out=radius), 2.0 ** -(_EXTRA_BITS + _LOW_BITS), out=radius)
        np.add(radius, np.multiply(angle, 2.0**-_LOW_BITS, out=angle), out=radius)
        np.copyto(angle, np.right_shift(high, _EXTRA_BITS, out=high), casting="unsafe")
        np.multiply(angle, math.pi * 2.0 ** (_EXTRA_BITS - 31), out=angle)
