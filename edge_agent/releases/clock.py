"""The device's time for judging metadata: never before what it has already proved to be past.

A board without a battery wakes up in 1970, and then everything is valid for ever, or nothing is valid yet. So time is
the latest of: the system clock, the day this program was built, and the newest signing time in verified metadata.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from shared.files import write_atomically

BUILD_TIME = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
"""Moved forward with each version of fleetlearn."""

CLOCK_FILE = "clock.json"


def device_time(state_dir: Path, *, system_time: float) -> float:
    """Seconds since the epoch, as far as this device can know."""
    return max(system_time, BUILD_TIME, _proved(state_dir))


def raise_floor(state_dir: Path, *, proved_time: float) -> None:
    """Remembers that this time is past; never goes back."""
    if proved_time > _proved(state_dir):
        write_atomically(state_dir / CLOCK_FILE, json.dumps({"proved_time": int(proved_time)}).encode())


def _proved(state_dir: Path) -> float:
    try:
        return float(json.loads((state_dir / CLOCK_FILE).read_bytes())["proved_time"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0  # Not there yet, or damaged: the floor is the build, and the next verified metadata raises it.
