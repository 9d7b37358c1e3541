"""Cuts the power at the n-th change of the file system: it does not happen, and neither does any later one."""

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

_CHANGES = ("replace", "rename", "unlink", "remove", "rmdir", "mkdir", "symlink", "link", "truncate")


class PowerCutError(BaseException):
    """Not an Exception: no handler of a program sees a power cut."""


@contextmanager
def power_cut(*, before: int) -> Iterator[Callable[[], int]]:
    """Runs the block; the change number `before` (from 0) and all later ones raise PowerCutError.

    Gives a function that says how many changes were tried, so that a caller knows when it has cut everywhere.
    """
    tried = 0

    def step() -> None:
        nonlocal tried
        tried += 1
        if tried > before:
            raise PowerCutError(f"before change {before}")

    def cutting(function: Callable[..., Any]) -> Callable[..., Any]:  # Any: it stands for many functions of os
        def call(*args: Any, **kwargs: Any) -> Any:
            step()
            return function(*args, **kwargs)

        return call

    def os_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            step()
        return real_os_open(path, flags, *args, **kwargs)

    def file_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wxa+"):
            step()
        return real_open(file, mode, *args, **kwargs)

    real_os_open, real_open = os.open, io.open
    patches = [patch.object(os, name, cutting(getattr(os, name))) for name in _CHANGES]
    patches += [patch.object(os, "fsync", cutting(os.fsync)), patch.object(os, "open", os_open)]
    patches += [patch.object(io, "open", file_open), patch.object(builtins, "open", file_open)]
    for each in patches:
        each.start()
    try:
        yield lambda: tried
    finally:
        for each in patches:
            each.stop()
