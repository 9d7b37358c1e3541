"""Keeps the agent small: glibc's allocator is told what a process of few, mostly idle threads needs.

By default every thread may get an arena of its own, and arenas keep what they once took. Elsewhere than on glibc these
calls do nothing.
"""

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
ARENAS = 2
KEPT_BYTES = 128 * 1024
"""Free memory at the heap's end beyond this goes back; larger pieces come from the system and go back to it."""


def stay_small() -> None:
    """To be called before threads start.

    glibc raises both thresholds by itself when large pieces are freed, up to 64 MiB that stay: 20 MB after an hour of
    requests with batches.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_ARENA_MAX, ARENAS)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Gives free pages back to the system, and lets the collector pass over what lives as long as the process."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
