"""Parts of an object over HTTP (RFC 9110, section 14): one range of bytes, or else all of it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fastapi.responses import StreamingResponse

from cloud.errors import RangeError

_RANGE = re.compile(r"bytes=([0-9]{1,18})?-([0-9]{1,18})?", re.ASCII)

OpenRange = Callable[[int, int], Iterator[bytes]]
"""(first byte, one after the last byte) -> those bytes in chunks."""


@dataclass(frozen=True)
class ByteRange:
    """Bytes from `start` up to, not including, `end`."""

    start: int
    end: int


def parse_range(header: str | None, *, size_bytes: int) -> ByteRange | None:
    """The range asked for, or None for all of it.

    A header that is malformed, or asks for several ranges, is ignored, as section 14.2 allows. Raises RangeError (416)
    for a well-formed range of which the object has no byte.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match.group(1, 2) == (None, None):
        return None
    first, last = match.group(1, 2)
    if first is None:
        length = min(int(last), size_bytes)
        return _checked(ByteRange(size_bytes - length, size_bytes), size_bytes)
    if last is not None and int(last) < int(first):
        return None  # Section 14.1.1: such a range is invalid, not unsatisfiable.
    end = size_bytes if last is None else min(int(last) + 1, size_bytes)
    return _checked(ByteRange(int(first), end), size_bytes)


def ranged_response(
    header: str | None,
    *,
    size_bytes: int,
    open_range: OpenRange,
    etag: str,
    media_type: str = "application/octet-stream",
) -> StreamingResponse:
    """200 with all bytes, or 206 with those asked for. Raises RangeError (416)."""
    part = parse_range(header, size_bytes=size_bytes)
    chosen = part or ByteRange(0, size_bytes)
    headers: Mapping[str, str] = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(chosen.end - chosen.start),
        "ETag": f'"{etag}"',
    } | ({} if part is None else {"Content-Range": f"bytes {part.start}-{part.end - 1}/{size_bytes}"})
    return StreamingResponse(
        open_range(chosen.start, chosen.end),
        status_code=200 if part is None else 206,
        media_type=media_type,
        headers=headers,
    )


def _checked(part: ByteRange, size_bytes: int) -> ByteRange:
    if part.start >= part.end:
        raise RangeError(
            f"Expected a range within {size_bytes} bytes, got one from {part.start}", size_bytes=size_bytes
        )
    return part
