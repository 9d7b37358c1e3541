"""Random numbers as a function of a seed and a position: the same on every machine, device and version.

A wire format cannot rest on a library's generator, whose stream may change with its version. This one is SplitMix64
(Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195) read as a counter: word i is `mix(seed + i * golden)`.
Enough for dithering and for choosing positions; never for privacy, whose noise comes from a secure generator.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD = 1 << 64


def signed(word: int) -> int:
    """A 64-bit word as torch's int64 holds it."""
    return (word + (_WORD >> 1)) % _WORD - (_WORD >> 1)


def seed_tensor(seed: int) -> "torch.Tensor":
    """One seed, `(1,)` int64; any Python integer, modulo 2**64."""
    import torch

    return torch.tensor([signed(seed)])


def words(seeds: "torch.Tensor", start: int, stop: int) -> "torch.Tensor":
    """Random words number `start` to `stop` of each seed, `(clients, stop - start)` int64."""
    import torch

    counter = torch.arange(start + 1, stop + 1, device=seeds.device) * signed(_GOLDEN)
    return _mix(counter + seeds[:, None])


def derived(seeds: "torch.Tensor", purpose: int) -> "torch.Tensor":
    """Seeds for another purpose, `(clients,)`: streams of two purposes have nothing to do with each other."""
    return _mix(words(seeds, purpose, purpose + 1)[:, 0])


def dither(seeds: "torch.Tensor", start: int, stop: int) -> "torch.Tensor":
    """Uniform numbers in (0, 1), multiples of 2**-16 plus half of it, `(clients, stop - start)` float32.

    Four come from one word, so `start` is a multiple of four. A dithered rounding is unbiased to 2**-16 of its step.
    """
    import torch

    assert start % 4 == 0
    quarters = words(seeds, start // 4, -(-stop // 4)).view(torch.int16)[:, : stop - start]
    return quarters.float().mul_(2.0**-16).add_(0.5 + 2.0**-17)


def _mix(state: "torch.Tensor") -> "torch.Tensor":
    """SplitMix64's output function, in place; products wrap modulo 2**64."""
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        state.bitwise_xor_(_shifted(state, shift)).mul_(signed(multiplier))
    return state.bitwise_xor_(_shifted(state, 31))


def _shifted(state: "torch.Tensor", shift: int) -> "torch.Tensor":
    """A logical shift to the right: torch's own keeps the sign."""
    return (state >> shift).bitwise_and_((1 << (64 - shift)) - 1)
