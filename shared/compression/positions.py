"""Ascending positions in few bits: Elias-Fano (Elias 1974, doi:10.1145/321812.321820).

Of each position the lower bits are written as they are, the upper ones in unary, as ones in a row of bits. The size
follows from the count and the range alone, within half a bit a position of the least there can be: 8.7 bits a position
where one in a hundred travels, where an int32 takes 32.
"""

import numpy as np
from numpy.typing import NDArray

from shared.compression.errors import MalformedPayloadError

Positions = NDArray[np.int64]


def size_bytes(count: int, *, parameters: int) -> int:
    """Bytes of `count` ascending positions below `parameters`."""
    return sum(_sizes(count, parameters))


def pack(positions: Positions, *, parameters: int) -> bytes:
    """The positions, ascending and each once, as bytes."""
    lower_bits = _lower_bits(len(positions), parameters)
    lower = (positions[:, None] >> np.arange(lower_bits)) & 1
    upper = np.zeros(8 * _sizes(len(positions), parameters)[1], np.uint8)
    upper[(positions >> lower_bits) + np.arange(len(positions))] = 1
    return np.packbits(lower.astype(np.uint8)).tobytes() + np.packbits(upper).tobytes()


def unpack(payload: memoryview, *, count: int, parameters: int) -> Positions:
    """What `pack` was given, of exactly `size_bytes` bytes. Raises MalformedPayloadError where it cannot have been."""
    lower_bits = _lower_bits(count, parameters)
    lower_bytes = _sizes(count, parameters)[0]
    bits = np.unpackbits(np.frombuffer(payload[:lower_bytes], np.uint8), count=count * lower_bits)
    lower = bits.reshape(count, lower_bits).astype(np.int64) @ (1 << np.arange(lower_bits, dtype=np.int64))
    upper = np.flatnonzero(np.unpackbits(np.frombuffer(payload[lower_bytes:], np.uint8)))
    if len(upper) != count:
        raise MalformedPayloadError(f"Expected {count} positions, got {len(upper)}")
    positions: Positions = ((upper - np.arange(count)) << lower_bits) + lower
    if (np.diff(positions) <= 0).any() or positions[-1] >= parameters:
        raise MalformedPayloadError(f"Expected ascending positions below {parameters}, got others")
    return positions


def _lower_bits(count: int, parameters: int) -> int:
    return max(0, (parameters // count).bit_length() - 1)


def _sizes(count: int, parameters: int) -> tuple[int, int]:
    """Bytes of the lower bits and of the upper."""
    lower_bits = _lower_bits(count, parameters)
    return -(-count * lower_bits // 8), -(-(count + ((parameters - 1) >> lower_bits) + 1) // 8)
