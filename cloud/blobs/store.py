"""Content-addressed objects on any file system that fsspec knows; the local disk by default.

An object is there completely or not at all: on the local disk it is written beside, flushed and renamed; object stores
do the same by themselves. Its name is its SHA-256, so that writing twice does no harm and reading can be verified.
"""

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from cloud.errors import CoordinatorError, NotFoundError
from shared.files import replacing
from shared.ids import Digest, parse_digest
from shared.messages.base import ObjectRef

CHUNK_BYTES = 256 * 1024


class UnknownObjectError(NotFoundError):
    """No object has this digest."""

    code = "unknown_object"


class CorruptObjectError(CoordinatorError):
    """The stored bytes are not those that were put."""

    code = "corrupt_object"


class BlobStore:
    """Objects by digest; safe to use from several threads and processes.

    Args:
        url: A folder, or a URL of fsspec's (`abfs://container/folder`, `s3://bucket/folder`, `memory://name`).
    """

    def __init__(self, url: str) -> None:
        # Any: fsspec has no types.
        self._files: Any
        self._files, self._root = fsspec.core.url_to_fs(url)
        self._is_local = isinstance(self._files, LocalFileSystem)

    def put(self, payload: bytes) -> ObjectRef:
        """Stores the bytes; on disk when this returns."""
        digest = Digest(hashlib.sha256(payload).hexdigest())
        if not self.exists(digest):
            self._write(digest, iter((payload,)))
        return ObjectRef(digest=digest, size_bytes=len(payload))

    def put_file(self, path: Path) -> ObjectRef:
        """Stores a copy of the file, never all of it in memory; on disk when this returns."""
        with path.open("rb") as file:
            digest = Digest(hashlib.file_digest(file, "sha256").hexdigest())
            size_bytes = file.tell()
            if not self.exists(digest):
                file.seek(0)
                self._write(digest, _chunks(file))
        return ObjectRef(digest=digest, size_bytes=size_bytes)

    def get(self, digest: Digest) -> bytes:
        """The object's bytes, verified. Raises UnknownObjectError or CorruptObjectError."""
        payload = b"".join(self.open_range(digest, 0))
        found = hashlib.sha256(payload).hexdigest()
        if found != digest:
            raise CorruptObjectError(f"Expected object {digest}, got bytes with digest {found}")
        return payload

    def open_range(self, digest: Digest, offset: int, *, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` up to, not including, `end`, in chunks. Raises UnknownObjectError at once."""
        size_bytes = self.size(digest)
        return self._read(digest, offset, size_bytes if end is None else min(end, size_bytes))

    def size(self, digest: Digest) -> int:
        """Bytes of the object. Raises UnknownObjectError."""
        try:
            return int(self._files.size(self._path(digest)))
        except FileNotFoundError:
            raise UnknownObjectError(f"Expected a stored object, got the unknown digest {digest}") from None

    def exists(self, digest: Digest) -> bool:
        return bool(self._files.isfile(self._path(digest)))

    def _path(self, digest: Digest) -> str:
        checked = parse_digest(digest)  # A digest is part of a path here: nothing else may be.
        return f"{self._root}/{checked[:2]}/{checked}"

    def _read(self, digest: Digest, offset: int, end: int) -> Iterator[bytes]:
        with self._files.open(self._path(digest), "rb") as file:
            file.seek(offset)
            left = end - offset
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk

    def _write(self, digest: Digest, chunks: Iterator[bytes]) -> None:
        path = self._path(digest)
        if self._is_local:
            _write_local(Path(path), chunks)
            return
        with self._files.open(path, "wb") as file:
            for chunk in chunks:
                file.write(chunk)


def _write_local(path: Path, chunks: Iterator[bytes]) -> None:
    """Each writer has a draft of its own, so that two of the same object do not meet; the last rename wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, draft=secrets.token_hex(8)) as file:
        file.writelines(chunks)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
