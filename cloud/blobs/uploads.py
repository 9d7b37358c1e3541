"""Resumable uploads: a device appends to a partial file of its own until it has all bytes; then it is an object.

What HEAD says is on disk. A crash in the middle of an append leaves more or fewer bytes than were acknowledged, never
wrong ones that count: the digest is verified before the object exists. Partial files are bounded for each device.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cloud.blobs.store import BlobStore
from cloud.errors import ConflictError, InvalidRequestError, TooLargeError
from shared.ids import DeviceId, Digest

PARTIALS_MAX = 8
"""Most unfinished uploads of one device; the one that was left alone longest makes room."""


class UploadOffsetError(ConflictError):
    """The chunk does not start where the last one ended."""

    code = "upload_offset"

    def __init__(self, *, expected: int, got: int) -> None:
        super().__init__(f"Expected a chunk at offset {expected}, got one at {got}", hint="Go on from there.")
        self.offset = expected


class UploadDigestError(InvalidRequestError):
    """All bytes came, and they are not what the digest names."""

    code = "upload_digest"


class UploadLengthError(InvalidRequestError):
    """The chunk goes beyond the announced length."""

    code = "upload_length"


class UploadTooLargeError(TooLargeError):
    """Larger than a device may upload."""

    code = "upload_too_large"


@dataclass(frozen=True)
class Upload:
    """How far an upload is."""

    offset: int
    is_complete: bool


@dataclass(frozen=True)
class Chunk:
    """Some bytes of an upload, and where they belong."""

    offset: int
    length: int
    """Of the whole upload."""
    payload: bytes


class Uploads:
    """Partial files below `folder`, one folder for each device; finished ones go to the store."""

    def __init__(self, folder: Path, blobs: BlobStore, *, bytes_max: int) -> None:
        self._folder = folder
        self._blobs = blobs
        self._bytes_max = bytes_max

    def state(self, device_id: DeviceId, digest: Digest) -> Upload:
        """How many bytes are on disk; 0 for an upload that nobody began."""
        if self._blobs.exists(digest):
            return Upload(self._blobs.size(digest), is_complete=True)
        try:
            return Upload((self._folder / device_id / digest).stat().st_size, is_complete=False)
        except FileNotFoundError:
            return Upload(0, is_complete=False)

    def append(self, device_id: DeviceId, digest: Digest, chunk: Chunk) -> Upload:
        """Appends; on disk when this returns. The last chunk makes the object.

        Raises UploadOffsetError, UploadLengthError, UploadTooLargeError or UploadDigestError.
        """
        if self._blobs.exists(digest):
            return self.state(device_id, digest)
        self._check(chunk)
        with self._partial(device_id, digest) as file:
            _append(file, chunk)
            if file.tell() < chunk.length:
                return Upload(file.tell(), is_complete=False)
            self._finish(file, Path(file.name), digest)
        return Upload(chunk.length, is_complete=True)

    def _check(self, chunk: Chunk) -> None:
        if chunk.length > self._bytes_max:
            raise UploadTooLargeError(f"Expected an upload of at most {self._bytes_max} bytes, got {chunk.length}")
        end = chunk.offset + len(chunk.payload)
        if end > chunk.length:
            raise UploadLengthError(f"Expected at most {chunk.length} bytes, got a chunk that ends at {end}")

    @contextmanager
    def _partial(self, device_id: DeviceId, digest: Digest) -> Iterator[IO[bytes]]:
        folder = self._folder / device_id
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, digest)
        with (folder / digest).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # Two requests for one upload take turns; the later one gets a 409.
            yield file

    def _finish(self, file: IO[bytes], path: Path, digest: Digest) -> None:
        with path.open("rb") as written:
            found = hashlib.file_digest(written, "sha256").hexdigest()
        if found == digest:
            self._blobs.put_file(path)
        path.unlink(missing_ok=True)
        if found != digest:
            raise UploadDigestError(
                f"Expected bytes with digest {digest}, got {found}", hint="The upload was dropped: begin it again."
            )


def _append(file: IO[bytes], chunk: Chunk) -> None:
    at = file.seek(0, os.SEEK_END)
    if at != chunk.offset:
        raise UploadOffsetError(expected=at, got=chunk.offset)
    file.write(chunk.payload)
    file.flush()
    os.fsync(file.fileno())


def _make_room(folder: Path, digest: Digest) -> None:
    others = [path for path in folder.iterdir() if path.name != digest]
    if len(others) >= PARTIALS_MAX:
        min(others, key=lambda path: path.stat().st_mtime).unlink(missing_ok=True)
