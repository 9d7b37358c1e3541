"""A model as its exact difference to another of the same shapes: what comes down to a device that has the round before.

Numbers of two neighbouring rounds share sign, exponent and first digits. So the words of 32 bits are subtracted, the
signs folded in (small differences of either sign become small numbers), and the four bytes of all words laid out one
after the other: the upper ones are nearly constant and deflate well, the lowest are noise and travel as they are.
Layers that were not trained cost next to nothing. Lossless for any bytes; whoever rebuilds compares the digest.

    4 bytes   "FLD" and the version, 1
    8 bytes   length of both files
    4 times   1 byte method (0 as it is, 1 deflated), 8 bytes length, the bytes
    the rest  of a length that is no multiple of four, as it is

Needs neither torch nor a model: a device's light half rebuilds with it.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from shared.compression.errors import MalformedPayloadError

MAGIC = b"FLD\x01"
_LENGTH, _PLANE = struct.Struct("<Q"), struct.Struct("<BQ")
_STORED, _DEFLATED = 0, 1
_WORD = 4
_SAMPLED = 1 << 16
"""Bytes of a plane that are tried before all of it is deflated."""
Words = NDArray[np.uint32]


def delta_between(base: bytes, target: bytes) -> bytes | None:
    """What makes `target` out of `base`; nothing where their lengths differ, and they are of different models."""
    if len(base) != len(target):
        return None
    whole = len(target) // _WORD * _WORD
    changed = _folded(_words(target[:whole]) - _words(base[:whole]))
    planes = changed.view(np.uint8).reshape(-1, _WORD).T
    packed = (_packed(np.ascontiguousarray(plane).tobytes()) for plane in planes)
    return b"".join((MAGIC, _LENGTH.pack(len(target)), *packed, target[whole:]))


def rebuilt(base: bytes, delta: bytes) -> bytes:
    """The target. Memory is a few times the base's length, whatever the delta says. Raises MalformedPayloadError."""
    start = len(MAGIC) + _LENGTH.size
    if delta[: len(MAGIC)] != MAGIC or len(delta) < start:
        raise MalformedPayloadError(f"Expected a delta of version {MAGIC[-1]}, got {delta[:4].hex() or 'nothing'}")
    if (length := _LENGTH.unpack_from(delta, len(MAGIC))[0]) != len(base):
        raise MalformedPayloadError(f"Expected a delta to {len(base)} bytes, got one to {length}")
    words, planes = len(base) // _WORD, []
    for _ in range(_WORD):
        plane, start = _unpacked(delta, start, size=words)
        planes.append(plane)
    rest = delta[start:]
    if len(rest) != len(base) % _WORD:
        raise MalformedPayloadError(f"Expected {len(base) % _WORD} last bytes, got {len(rest)}")
    changed = np.stack([np.frombuffer(plane, np.uint8) for plane in planes], axis=1).reshape(-1).view("<u4")
    return (_words(base[: words * _WORD]) + _unfolded(changed)).astype("<u4").tobytes() + rest


def _words(content: bytes) -> Words:
    return np.frombuffer(content, "<u4").astype(np.uint32, copy=False)


def _folded(difference: Words) -> Words:
    """0, -1, 1, -2 ... as 0, 1, 2, 3 ..."""
    signed = difference.view(np.int32)
    return ((signed << 1) ^ (signed >> 31)).view(np.uint32)


def _unfolded(folded: Words) -> Words:
    return (folded >> np.uint32(1)) ^ (np.uint32(0) - (folded & np.uint32(1)))


def _packed(plane: bytes) -> bytes:
    # Level 1: a plane is nearly constant, or noise that no level makes smaller; a sample tells noise at once.
    sample = plane[:_SAMPLED]
    is_noise = len(zlib.compress(sample, 1)) >= len(sample)
    deflated = plane if is_noise else zlib.compress(plane, 1)
    method, content = (_DEFLATED, deflated) if len(deflated) < len(plane) else (_STORED, plane)
    return _PLANE.pack(method, len(content)) + content


def _unpacked(delta: bytes, start: int, *, size: int) -> tuple[bytes, int]:
    """The plane that begins at `start`, of exactly this size, and where the next one does."""
    if len(delta) < start + _PLANE.size:
        raise MalformedPayloadError("Expected four planes, got fewer")
    method, length = _PLANE.unpack_from(delta, start)
    end = start + _PLANE.size + length
    content = delta[start + _PLANE.size : end]
    plane = _inflated(content, size=size) if method == _DEFLATED else content
    if len(plane) != size or end > len(delta) or method not in (_STORED, _DEFLATED):
        raise MalformedPayloadError(f"Expected a plane of {size} bytes, got {len(plane)}")
    return plane, end


def _inflated(content: bytes, *, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plane = inflater.decompress(content, max(1, size))
    except zlib.error as error:
        raise MalformedPayloadError(f"Expected deflated bytes: {error}") from error
    if not inflater.eof and size:
        raise MalformedPayloadError(f"Expected a plane of {size} bytes, got more or fewer")
    return plane
