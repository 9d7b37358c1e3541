"""How each number is written: float32, or float16, int8 and int4 with one float32 scale for each block of numbers.

The integers are QSGD's (Alistarh et al. 2017, arXiv:1610.02132): a number between two levels becomes one of them by
chance, so that on average it is itself. Levels are uniform between plus and minus the block's largest magnitude (their
section 4: buckets and the maximum in place of the norm).

Guarantees, for a block of B numbers with largest magnitude M and s levels above zero (127 or 7):
    Each number is off by less than M / s; its expectation is itself, to 2**-16 of a step. The squared error of the
    block is in expectation at most B / (4 s^2) times its squared norm: 0.016 for int8 and 0.65 for int4, below one,
    which is what error feedback needs. float16 is off by at most 2**-11 of a number above 2**-14 M, by 2**-25 M below.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.compression.draws import dither
from shared.compression.settings import Number

if TYPE_CHECKING:
    import torch

_SCALE_MIN = 1e-30
"""A block whose largest magnitude is below this is written as zeros: the inverse of its scale would overflow."""
_CACHED = 1 << 18
"""Numbers worked on at once on a CPU, so that they stay in its cache."""
_AT_ONCE = 1 << 26
"""The same on other devices, so that temporary memory stays bounded."""


@dataclass(frozen=True)
class Written:
    """Numbers of some clients, as they will travel."""

    codes: "torch.Tensor"
    """`(clients, numbers)` float32, float16 or int8 (int4 too: one code a byte, packed on the wire)."""
    scales: "torch.Tensor"
    """`(clients, blocks)` float32; no blocks for float32 codes."""


@dataclass(frozen=True)
class Format:
    """One way to write numbers."""

    number: Number
    block: int
    """Numbers that share a scale; 0 where none is needed."""
    levels: int
    """Steps above zero, for integers; 1 for floats."""
    bits: int

    def size_bytes(self, count: int) -> int:
        """Bytes of codes and scales for this many numbers."""
        return -(-count * self.bits // 8) + 4 * self.blocks(count)

    def blocks(self, count: int) -> int:
        return -(-count // self.block) if self.block else 0

    def write(self, values: "torch.Tensor", seeds: "torch.Tensor") -> Written:
        """Values `(clients, numbers)` float32 as codes; what is not finite stays so in its block.

        Args:
            values: Unchanged.
            seeds: `(clients,)` int64: of the dithering.
        """
        clients, count = values.shape
        if not self.block:
            return Written(values, values.new_empty((clients, 0)))
        codes = values.new_empty((clients, count), dtype=self._dtype)
        scales = values.new_empty((clients, self.blocks(count)))
        for span, block in self._spans(values):
            parts = values[:, span].view(clients, -1, block)
            scale = _scale_of(parts)
            scales[:, span.start // self.block :][:, : scale.shape[1]] = scale
            inverse = (self.levels / scale).where(scale > 0, 0)
            codes[:, span] = self._rounded((parts * inverse[..., None]).flatten(1), seeds, span)
        return Written(codes, scales)

    def read(self, written: Written) -> "torch.Tensor":
        """The numbers that a receiver gets, `(clients, numbers)` float32."""
        if not self.block:
            return written.codes
        values = written.codes.float()
        clients = len(values)
        # A product, not a quotient: a GPU divides by a constant by multiplying, and then the last bit would differ.
        steps = written.scales * (1 / self.levels)
        for span, block in self._spans(values):
            parts = values[:, span].view(clients, -1, block)
            parts.mul_(steps[:, span.start // self.block :][:, : parts.shape[1], None])
        return values

    @property
    def _dtype(self) -> "torch.dtype":
        import torch

        return torch.float16 if self.number is Number.FLOAT16 else torch.int8

    def _rounded(self, scaled: "torch.Tensor", seeds: "torch.Tensor", span: slice) -> "torch.Tensor":
        if self.number is Number.FLOAT16:
            return scaled
        chance = dither(seeds, span.start, span.stop)
        # The clamp is for the largest number of a block, which rounding may have put one ulp above the last level.
        return scaled.add_(chance).floor_().clamp_(-self.levels, self.levels)

    def _spans(self, values: "torch.Tensor") -> Iterator[tuple[slice, int]]:
        """Columns to work on at once, with their block length; the last block may be shorter than the others."""
        clients, count = values.shape
        at_once = _CACHED if values.device.type == "cpu" else _AT_ONCE
        step = max(1, at_once // max(1, clients) // self.block) * self.block
        whole = count - count % self.block
        for start in range(0, whole, step):
            yield slice(start, min(whole, start + step)), self.block
        if whole < count:
            yield slice(whole, count), count - whole


FORMATS = {
    Number.FLOAT32: Format(Number.FLOAT32, block=0, levels=1, bits=32),
    Number.FLOAT16: Format(Number.FLOAT16, block=1024, levels=1, bits=16),
    Number.INT8: Format(Number.INT8, block=1024, levels=127, bits=8),
    Number.INT4: Format(Number.INT4, block=128, levels=7, bits=4),
}


def _scale_of(parts: "torch.Tensor") -> "torch.Tensor":
    """Each block's largest magnitude, `(clients, blocks)`; NaN where a block has one."""
    low, high = parts.amin(2), parts.amax(2)
    scale = high.maximum(-low)
    return scale.masked_fill(scale < _SCALE_MIN, 0)
