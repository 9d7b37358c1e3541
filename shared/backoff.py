"""How long to wait before trying again: exponential, with full jitter, so that a fleet does not come back at once.

Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015 (full jitter).
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Delays drawn from [0, min(cap, base * 2**attempt)], never below `floor_s`."""

    base_s: float = 0.5
    cap_s: float = 60.0
    floor_s: float = 0.05

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """Delay before try number `attempt + 1`; attempts count from 0."""
        ceiling = min(self.cap_s, self.base_s * 2 ** min(attempt, 32))
        return max(self.floor_s, rng.uniform(0, ceiling))
