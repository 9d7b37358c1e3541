"""The one way files are written that must survive a power cut: beside, flush, rename, flush the folder."""

import os
from pathlib import Path


def write_atomically(path: Path, payload: bytes, *, mode: int = 0o644) -> None:
    """Writes all of `payload` or leaves the old file as it was; on disk when this returns.

    Args:
        path: In an existing folder; its neighbour `.<name>.new` is used on the way.
        payload: The whole new content.
        mode: Permissions of the new file, in force before any byte is in it.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
