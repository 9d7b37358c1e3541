"""Keeps the agent small: glibc's allocator is told what a process of few, mostly idle threads needs.

By default every thread may get an arena of its own, which keeps what it once took. Elsewhere than on glibc these calls
do nothing.
"""

import ctypes
import gc
import sys

_M_ARENA_MAX = -8
ARENAS = 2


def use_few_arenas() -> None:
    """To be called before threads start."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_ARENA_MAX, ARENAS)


def give_back() -> None:
    """Gives free pages back to the system, and lets the collector pass over what lives as long as the process."""
    gc.collect()
    gc.freeze()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
