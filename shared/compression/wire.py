"""The frame of a payload, and its numbers as bytes. Little-endian throughout.

4 bytes   "FLC" and the version, 1
1 byte    length of the compression's name
n bytes   the compression, in words, ASCII: `top-k=0.01+int8`
8 bytes   count of the update's numbers
...       positions (top-k: Elias-Fano) or their seed (random-k: 8 bytes), or nothing
...       scales, float32, one for each block of numbers
...       codes: float32, float16, int8, or two int4 a byte
"""

import struct
from typing import TYPE_CHECKING

import numpy as np

from shared.compression.errors import MalformedPayloadError
from shared.compression.settings import WORDS_MAX, Number
from shared.tensors import Array

if TYPE_CHECKING:
    import torch

MAGIC = b"FLC\x01"
_COUNT = struct.Struct("<Q")
_TYPES = {Number.FLOAT32: "<f4", Number.FLOAT16: "<f2", Number.INT8: "<i1"}
_NIBBLE_ZERO = 8
"""int4 codes -7 to 7 are written as 1 to 15."""


def head_bytes(name: str) -> int:
    return len(MAGIC) + 1 + len(name) + _COUNT.size


def head(name: str, *, parameters: int) -> bytes:
    """The frame's beginning."""
    return MAGIC + bytes([len(name)]) + name.encode("ascii") + _COUNT.pack(parameters)


def split(payload: bytes) -> tuple[str, int, memoryview]:
    """Name, count of numbers, and the body. Raises MalformedPayloadError."""
    if payload[: len(MAGIC)] != MAGIC:
        raise MalformedPayloadError(f"Expected a payload of version {MAGIC[-1]}, got {payload[:4].hex() or 'nothing'}")
    length = payload[len(MAGIC)] if len(payload) > len(MAGIC) else 0
    name = payload[len(MAGIC) + 1 :][:length]
    if not 0 < length <= WORDS_MAX or not name.isascii() or len(payload) < (start := head_bytes(name.decode("ascii"))):
        raise MalformedPayloadError(f"Expected a compression's name of up to {WORDS_MAX} letters and a count, got less")
    (parameters,) = _COUNT.unpack_from(payload, start - _COUNT.size)
    return name.decode("ascii"), parameters, memoryview(payload)[start:]


def pack_floats(values: "torch.Tensor") -> memoryview:
    return _bytes_of(values.numpy().astype("<f4", copy=False))


def unpack_floats(packed: memoryview) -> "torch.Tensor":
    import torch

    return torch.from_numpy(np.frombuffer(packed, "<f4").astype(np.float32))


def pack_codes(codes: "torch.Tensor", number: Number) -> memoryview:
    """Codes `(numbers,)` as bytes; of an int4's bytes, the first half of the numbers lies in the lower bits."""
    if number is not Number.INT4:
        return _bytes_of(codes.numpy().astype(_TYPES[number], copy=False))
    shifted = (codes.numpy() + _NIBBLE_ZERO).astype(np.uint8)
    half = -(-len(shifted) // 2)
    packed = shifted[:half].copy()
    packed[: len(shifted) - half] |= shifted[half:] << 4
    return _bytes_of(packed)


def unpack_codes(packed: memoryview, number: Number, *, count: int) -> "torch.Tensor":
    import torch

    if number is not Number.INT4:
        native = np.dtype(_TYPES[number]).newbyteorder("=")
        return torch.from_numpy(np.frombuffer(packed, _TYPES[number]).astype(native))
    nibbles = np.frombuffer(packed, np.uint8)
    codes = np.concatenate([nibbles & 15, nibbles >> 4])[:count].astype(np.int8) - np.int8(_NIBBLE_ZERO)
    return torch.from_numpy(codes)


def _bytes_of(values: Array) -> memoryview:
    """The array's own memory: joining payloads copies it once."""
    return values.view(np.uint8).data
