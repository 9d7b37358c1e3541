"""Downloads one signed file: resumed after any interruption, never longer than signed, never kept when wrong.

What has come lies in `<folder>/<sha256>.part` and survives restarts; the name is the content's, so another release
with the same file goes on with it. Only what has the signed length and hash becomes `<folder>/<sha256>`.
"""

import hashlib
import os
from pathlib import Path

from edge_agent.releases.errors import FetchError, IncompleteDownloadError, WrongHashError, WrongLengthError
from edge_agent.releases.transport import ReleaseTransport, fetch
from edge_agent.releases.trust import SignedFile
from shared.files import sync_folder

CONTINUATIONS_MAX = 5
"""How often an interrupted download goes on at once, as long as each try brings something; waiting is the caller's."""

_HASH_CHUNK_BYTES = 1 << 20


def download(transport: ReleaseTransport, file: SignedFile, *, folder: Path) -> Path:
    """Where the whole, verified file lies. What came before an error stays for the next call.

    Raises:
        FetchError: It did not come, or what came is not what was signed.
        OSError: This device could not write.
    """
    done, partial = folder / file.sha256, folder / f"{file.sha256}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if done.exists() and matches(done, sha256=file.sha256, size_bytes=file.size_bytes):
        return done
    if (resumed_at := _size(partial)) > file.size_bytes:
        partial.unlink()  # A power cut left it longer than it can be; nothing of it is worth keeping.
        resumed_at = 0
    _complete(transport, file, partial)
    if not matches(partial, sha256=file.sha256, size_bytes=file.size_bytes):
        # A power cut may have torn the old part, which is nobody's fault: once more, from the beginning.
        partial.unlink()
        if resumed_at:
            _complete(transport, file, partial)
        if not resumed_at or not matches(partial, sha256=file.sha256, size_bytes=file.size_bytes):
            partial.unlink(missing_ok=True)
            raise WrongHashError(
                f"Expected {file.name} with SHA-256 {file.sha256}, got other bytes",
                hint="Something between the signature and this device changed the file.",
            )
    make_durable(partial)
    partial.replace(done)
    sync_folder(folder)
    return done


def matches(path: Path, *, sha256: str, size_bytes: int) -> bool:
    """Whether the file has exactly this content; the length is looked at first, it costs nothing."""
    try:
        if path.stat().st_size != size_bytes:
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == sha256


def _complete(transport: ReleaseTransport, file: SignedFile, partial: Path) -> None:
    """Appends to the part until it is as long as signed."""
    for _ in range(1 + CONTINUATIONS_MAX):
        before = _size(partial)
        try:
            _append(transport, file, partial, offset=before)
            return
        except (WrongLengthError, WrongHashError):
            partial.unlink(missing_ok=True)
            raise
        except FetchError:
            if _size(partial) == before:
                raise
    raise IncompleteDownloadError(
        f"Expected {file.size_bytes} bytes of {file.name}, got {_size(partial)} after {1 + CONTINUATIONS_MAX} tries"
    )


def _append(transport: ReleaseTransport, file: SignedFile, partial: Path, *, offset: int) -> None:
    size = offset
    with partial.open("ab") as out:
        if size < file.size_bytes or not offset:
            for chunk in fetch(transport, file.remote_path, offset=offset, bytes_max=file.size_bytes - offset):
                size += len(chunk)
                if size > file.size_bytes:
                    raise WrongLengthError(f"Expected {file.size_bytes} bytes of {file.name}, got more")
                out.write(chunk)
    if size < file.size_bytes:
        raise IncompleteDownloadError(f"Expected {file.size_bytes} bytes of {file.name}, got {size}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def make_durable(path: Path) -> None:
    """Flushes a file's content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
