"""The demonstration's folder: begun empty, held by one demonstration at a time, and never somebody else's files."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulations.demo.options import DemoError

_MARKER = ".fleetlearn-demo"


@contextmanager
def claimed(data_dir: Path) -> Iterator[None]:
    """Empties an earlier demonstration's folder and holds it. Raises DemoError for anybody else's, or one in use."""
    _refuse_others(data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        marker = (data_dir / _MARKER).open("ab")
    except OSError as error:
        raise DemoError(f"Expected a folder to write to at {data_dir}, got: {error.strerror}") from error
    with marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoError(
                f"Expected a folder of its own at {data_dir}, got one that a running demonstration uses",
                hint="Stop the other one, or give another folder with --data.",
            ) from error
        _empty(data_dir)
        yield


def _refuse_others(data_dir: Path) -> None:
    if data_dir.exists() and not data_dir.is_dir():
        raise DemoError(f"Expected a folder at {data_dir}, got a file", hint="Give a new folder with --data.")
    if data_dir.is_dir() and any(data_dir.iterdir()) and not (data_dir / _MARKER).exists():
        raise DemoError(
            f"Expected a new folder or an earlier demonstration's at {data_dir}, got other files",
            hint="Nothing was touched. Give a new folder with --data.",
        )


def _empty(data_dir: Path) -> None:
    # The marker stays: it carries the lock, and it says whose folder this is if the next line is interrupted.
    for path in data_dir.iterdir():
        if path.name == _MARKER:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
