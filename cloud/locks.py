"""A lock on a folder that ends with its process, however that ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloud.errors import ConflictError


class AlreadyRunningError(ConflictError):
    """Another process works with this folder or database."""

    code = "already_running"


@contextmanager
def exclusive(path: Path, *, what: str) -> Iterator[None]:
    """Holds the lock file for the length of the context. Raises AlreadyRunningError at once when another has it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"Expected no other {what} in {path.parent}, one is running", hint="Stop it, or choose another --data."
            ) from None
        yield
