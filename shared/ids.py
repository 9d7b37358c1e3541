"""Names of things, and their parsers: an id that has a type has been checked."""

import re
import uuid
from typing import NewType

from shared.errors import FleetlearnError

DeviceId = NewType("DeviceId", str)
"""`[a-z0-9-]{1,64}`, equal to the certificate's common name, never reused."""

_DEVICE_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")

Digest = NewType("Digest", str)
"""SHA-256 of some bytes, 64 lower-case hexadecimal characters."""


class InvalidIdError(FleetlearnError):
    """A name that cannot be a name of that kind."""

    code = "invalid_id"


def parse_device_id(text: str) -> DeviceId:
    """Returns the id, or raises InvalidIdError."""
    if not _DEVICE_ID.fullmatch(text):
        raise InvalidIdError(
            f"Expected a device id of 1 to 64 characters a-z, 0-9 and inner '-', got {text[:80]!r}",
            hint="Choose a name such as press-07.",
        )
    return DeviceId(text)


def parse_digest(text: str) -> Digest:
    """Returns the digest, or raises InvalidIdError."""
    if not _DIGEST.fullmatch(text):
        raise InvalidIdError(f"Expected a SHA-256 digest of 64 hexadecimal characters, got {text[:80]!r}")
    return Digest(text)


def uuid7(*, unix_ms: int, random_bytes: bytes) -> str:
    """A UUID version 7 (RFC 9562, 5.7): sorts by time, unique by its 74 random bits.

    Args:
        unix_ms: Milliseconds since the epoch.
        random_bytes: Ten bytes of which 74 bits are used.
    """
    if len(random_bytes) != 10:
        raise ValueError(f"Expected 10 random bytes, got {len(random_bytes)}")
    value = (unix_ms & (1 << 48) - 1) << 80 | int.from_bytes(random_bytes, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
