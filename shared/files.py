"""The one way files are written that must survive a power cut: beside, flush, rename, flush the folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_atomically(path: Path, payload: bytes, *, mode: int = 0o644) -> None:
    """Writes all of `payload` or leaves the old file as it was; on disk when this returns.

    Args:
        path: In an existing folder; its neighbour `.<name>.new` is used on the way.
        payload: The whole new content.
        mode: Permissions of the new file, in force before any byte is in it.
    """
    with replacing(path, mode=mode) as file:
        file.write(payload)


@contextmanager
def replacing(path: Path, *, mode: int = 0o644, draft: str = "new") -> Iterator[IO[bytes]]:
    """A file to write what `path` shall be; in place and on disk when the context ends, gone where it ends by an error.

    Args:
        path: In an existing folder; its neighbour `.<name>.<draft>` is used on the way.
        mode: Permissions of the new file, in force before any byte is in it.
        draft: Another for each writer, where several may write the same file at once.
    """
    beside = path.with_name(f".{path.name}.{draft}")
    beside.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
