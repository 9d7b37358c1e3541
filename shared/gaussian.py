"""Gaussian noise for DP-SGD: from a secure generator, added in place, fast enough to be a part of every step.

Draws are Box and Muller's, from 64 random bits for two. Floating-point draws have gaps, which betray what they were
added to (Mironov 2012). Two defences:

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
_WORDS = _DRAWS // 2
_COLUMNS_MAX = 4096
"""A block and its intermediate results stay in the second-level cache."""
_RADIUS_BITS = 40
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
        # Root two is Box and Muller's.
        self._mixing = torch.from_numpy(MIXING * (math.sqrt(2) * standard_deviation / self._grid)).float()
        self._numbers = np.zeros((_WORDS, 2 * half), np.int64)
        self._words = torch.from_numpy(self._numbers)
        self._least = torch.tensor(2.0 ** -(_RADIUS_BITS + 1))
        self._radius, self._angle = torch.empty(_WORDS, 2 * half), torch.empty(_WORDS, 2 * half)
        self._draws = torch.empty(_DRAWS, 2 * half)
        self._normals = torch.empty(_NORMALS, 2 * half)

    def add_to(self, total: "torch.Tensor") -> None:
        """Adds noise to each number of `total`, `(size,)` and without a gradient, in place, and rounds to the grid."""
        import torch

        for start in range(0, len(total), self._normals.numel()):
            block = total[start : start + self._normals.numel()]
            self._draw()
            torch.mm(self._mixing, self._draws, out=self._normals)
            normals = self._normals.view(-1)[: len(block)]
            torch.add(normals, block, alpha=1 / self._grid, out=block).round_().mul_(self._grid)

    def _draw(self) -> None:
        """Fills the rows of draws, of variance one half; the sixteen of one column come from sixteen words."""
        import torch

        self._randomness.fill(self._numbers)
        # Rounded to the word's high bits, which the radius does not have.
        self._angle.copy_(self._words).mul_(math.pi * 2.0**-63)
        self._radius.copy_(self._words.bitwise_and_((1 << _RADIUS_BITS) - 1))
        torch.add(self._least, self._radius, alpha=2.0**-_RADIUS_BITS, out=self._radius).log_().neg_().sqrt_()
        cosines, sines, half = self._draws[:_WORDS], self._draws[_WORDS:], self._half
        torch.cos(self._angle, out=cosines).mul_(self._radius)
        self._angle.sin_()
        # Half a block along, so that the sine and the cosine of one word meet in no sum.
        torch.mul(self._angle[:, half:], self._radius[:, half:], out=sines[:, :half])
        torch.mul(self._angle[:, :half], self._radius[:, :half], out=sines[:, half:])
