"""Gaussian noise for DP-SGD: from a secure generator, added in place, fast enough to be a part of every step.

Draws are Box and Muller's, two from a pair of random words of 32 bits. Floating-point draws have gaps, which betray
what they were added to (Mironov 2012). Two defences:

- A normal is not a draw but a combination of *sixty-four*, and whatever an observer computes from many normals still
  contains at least four draws: sixty-one normals are made of sixty-four draws (see `_mixing`), so that each attempt to
  tell reachable from unreachable values must guess some of the generator's words. Holohan and Braghin (2021,
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

_DRAWS, _NORMALS = 64, 61
_COLUMNS_MAX = 4096
"""A block and its intermediate results take 2 MB. Smaller ones fit the second-level cache, and lose more in calls."""
_GRID_EXPONENT = -7
_TAIL_BITS = 20
"""One length of 2**20, the largest, is drawn anew from 53 bits: the last few values of a word are far apart there."""


def _mixing() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`share` `(3, 64)` and `spread` `(61, 3)`: of 64 draws z, `z[:61] - spread @ (share @ z)` are 61 normals.

    They are independent since these are the first rows of a reflection (Householder's, of three vectors at once). It
    takes the vectors (1, cos, sin) of sixty-four points on a circle to the last three axes, so that its first rows, and
    all combinations of them, are at right angles to those vectors. A combination of three draws or fewer could be so
    only if three points of a circle lay on a line.
    """
    angles = np.arange(_DRAWS) * 2 * math.pi / _DRAWS
    circle = np.stack([np.full(_DRAWS, 0.5**0.5), np.cos(angles), np.sin(angles)], axis=1) * (2 / _DRAWS) ** 0.5
    left, _, right = np.linalg.svd(circle[_NORMALS:])
    mirror = circle.copy()
    mirror[_NORMALS:] += left @ right
    share: NDArray[np.float64] = np.linalg.solve(mirror.T @ circle, mirror.T)
    return share, mirror[:_NORMALS]


SHARE, SPREAD = _mixing()


class GaussianNoise:
    """Independent normal noise for vectors of one size; what it needs it allocates once.

    Args:
        randomness: Where all of it comes from.
        size: Of the vectors.
        standard_deviation: More than 0.
    """

    def __init__(self, randomness: SecureRandomness, *, size: int, standard_deviation: float) -> None:
        import torch

        blocks = max(1, -(-size // (_COLUMNS_MAX * _NORMALS)))
        self._half = max(1, -(-size // (2 * blocks * _NORMALS)))
        self._randomness = randomness
        self._grid = 2.0 ** (math.floor(math.log2(standard_deviation)) + _GRID_EXPONENT)
        self._deviation = standard_deviation / self._grid
        self._words = np.zeros((2, _DRAWS * self._half), np.int32)
        self._polar = np.empty(self._words.shape, np.float32)
        self._draws = self._words.view(np.float32)
        self._mixed = torch.from_numpy(self._draws).view(_DRAWS, 2 * self._half)
        self._share, self._spread = (torch.from_numpy(part).float() for part in (SHARE, SPREAD))
        self._shared = torch.empty(len(SHARE), 2 * self._half)

    def add_to(self, total: "torch.Tensor", *, scale: float = 1.0) -> None:
        """Adds noise to each number of `total`, in place, and rounds to the grid.

        Args:
            total: `(size,)`, without a gradient.
            scale: Of what comes out.
        """
        import torch

        normals = self._mixed[:_NORMALS]
        for start in range(0, total.numel(), normals.numel()):
            block = total[start : start + normals.numel()]
            self._draw()
            torch.mm(self._share, self._mixed, out=self._shared)
            normals.addmm_(self._spread, self._shared, beta=self._deviation, alpha=-self._deviation)
            some = normals.view(-1)[: block.numel()]
            torch.add(some, block, alpha=1 / self._grid, out=block).round_().mul_(self._grid * scale)

    def _draw(self) -> None:
        """Replaces the words by draws, normal of variance one, two of each pair of words.

        By numpy: its float32 logarithm, sine and cosine take a third of the time of torch's.
        """
        self._randomness.fill(self._words)
        (radii, angles), (cosines, sines), half = self._polar, self._draws, self._half
        np.copyto(radii, self._words[0])
        to_radii(radii, self._randomness)
        np.copyto(angles, self._words[1])
        np.multiply(angles, math.pi * 2.0**-31, out=angles)
        np.multiply(np.cos(angles, out=cosines), radii, out=cosines)
        np.sin(angles, out=angles)
        # Half a row along, so that the sine and the cosine of one pair meet in no sum.
        np.multiply(angles[half:], radii[half:], out=sines[:-half])
        np.multiply(angles[:half], radii[:half], out=sines[-half:])


def to_radii(words: NDArray[np.float32], randomness: SecureRandomness) -> None:
    """Replaces signed words of 32 bits by lengths of pairs of normal numbers: `sqrt(-2 ln u)` of u = |word| / 2**31.

    The tail of all words below `2**(31 - _TAIL_BITS)` gets new numbers of the same distribution, which reaches 10.1
    deviations instead of 6.6.

    Args:
        words: `(n,)`.
        randomness: Of the tail.
    """
    with np.errstate(divide="ignore"):  # a word of 0 is in the tail
        np.divide(2.0**62, np.multiply(words, words, out=words), out=words)
    largest, is_tail = 4.0**_TAIL_BITS, None
    if words.max() > largest:
        is_tail = words > largest
    np.log(words, out=words)
    if is_tail is not None:
        # Each word but 0 stands for two values of 2**32.
        chance = (2.0 ** (32 - _TAIL_BITS) - 1) * 2.0**-32
        words[is_tail] = -2 * np.log(chance * randomness.uniform(int(is_tail.sum())))
    np.sqrt(words, out=words)
