"""Ties a process to the one that started it: when the parent dies, however it dies, the child does too."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with(parent_pid: int) -> None:
    """From now on this process is killed when its parent ends; ends it at once if the parent is gone already.

    Linux only; elsewhere it does nothing, and the parent's own clean-up is all there is.
    """
    tie = lifeline()
    tie()
    if os.getppid() != parent_pid:
        sys.exit(f"expected parent process {parent_pid}, it is gone")


def lifeline() -> Callable[[], None]:
    """A function for `preexec_fn`, with everything loaded before the fork."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return tie
