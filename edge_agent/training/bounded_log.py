"""What the training process says on standard error: the beginning in a file, the end in memory."""

import asyncio
from pathlib import Path

LOG_BYTES_MAX = 1 << 20
_CHUNK_BYTES = 1 << 16
_TAIL_BYTES = 400
_NOTICE = b"\n[log full: what follows is not kept]\n"


class BoundedLog:
    """Copies a stream into a file until `bytes_max`, says so there once, and reads on, so that nobody blocks.

    Args:
        path: Truncated: the log of one process, read when that process fails.
        bytes_max: Of the stream; the notice comes on top.
    """

    def __init__(self, path: Path, *, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._path, self._room = path, bytes_max
        self._tail = b""

    async def copy(self, stream: asyncio.StreamReader) -> None:
        """Copies until the stream ends."""
        with self._path.open("wb", buffering=0) as log:
            while chunk := await stream.read(_CHUNK_BYTES):
                self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
                if self._room > 0:
                    log.write(chunk[: self._room])
                    self._room -= len(chunk)
                    if self._room < 0:
                        log.write(_NOTICE)

    @property
    def last_line(self) -> str:
        """The last line so far, also where the file has no room for it; empty where nothing was said."""
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
