"""Polling with a deadline, for tests of processes; nothing here waits longer than it is told."""

import time
from collections.abc import Callable

POLL_S = 0.05


def wait_until(is_true: Callable[[], bool], *, timeout_s: float, otherwise: Callable[[], str] | None = None) -> None:
    """Returns once `is_true`; fails after `timeout_s` with what `otherwise` finds to say then."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        if time.monotonic() >= deadline:
            raise AssertionError(otherwise() if otherwise else f"expected it to become true within {timeout_s} s")
        time.sleep(POLL_S)
