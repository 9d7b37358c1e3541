"""What the limits on training ask about: the charger, the network, the time of day, and what was begun today.

Linux tells of power in /sys/class/power_supply and of routes in /proc/net/route; a machine that tells nothing of a
battery is taken for one on mains.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.training_limits import Surroundings, TrainingLimits, refusal
from shared.files import write_atomically

_SUPPLIES = "sys/class/power_supply"
_ROUTES = "proc/net/route"
_DEFAULT_ROUTE = "00000000"


@dataclass(frozen=True)
class TrainingGate:
    """Asks the limits before work, and counts what was let through.

    Args:
        limits: The owner's.
        path: Which work was begun today; survives restarts.
        now: Seconds since the epoch.
        root: Where the kernel's `sys` and `proc` are.
    """

    limits: TrainingLimits
    path: Path
    now: Callable[[], float] = time.time
    root: Path = Path("/")

    def refusal(self, work_id: str) -> str:
        """Why this training may not begin now; empty, and counted on disk, where it may. A retry counts once."""
        local = time.localtime(self.now())
        day = time.strftime("%Y-%m-%d", local)
        others = [begun for begun in self._begun(day) if begun != work_id]
        reason = refusal(
            self.limits,
            Surroundings(
                on_charger=on_charger(self.root / _SUPPLIES),
                interface=outgoing_interface(self.root / _ROUTES),
                minute=local.tm_hour * 60 + local.tm_min,
                begun_today=len(others),
            ),
        )
        if not reason and self.limits.a_day_max:
            write_atomically(self.path, json.dumps({"day": day, "work": [*others, work_id]}).encode())
        return reason

    def _begun(self, day: str) -> list[str]:
        try:
            document = json.loads(self.path.read_bytes())
            return [str(work) for work in document["work"]] if document["day"] == day else []
        except (OSError, ValueError, TypeError, KeyError):
            return []


def on_charger(supplies: Path) -> bool:
    """Whether power comes from outside, or the device has no battery."""
    kinds = {supply: _read(supply / "type") for supply in (supplies.iterdir() if supplies.is_dir() else ())}
    if any(kind not in ("", "Battery") and _read(supply / "online") == "1" for supply, kind in kinds.items()):
        return True
    batteries = [supply for supply, kind in kinds.items() if kind == "Battery" and _read(supply / "scope") != "Device"]
    return all(_read(battery / "status") in ("Charging", "Full", "Not charging") for battery in batteries)


def outgoing_interface(routes: Path) -> str:
    """The interface of the default route with the smallest metric; empty where there is none."""
    try:
        rows = [line.split() for line in routes.read_text(encoding="ascii").splitlines()[1:]]
        found = [(int(row[6]), row[0]) for row in rows if row[1] == row[7] == _DEFAULT_ROUTE]
    except (OSError, ValueError, IndexError):
        return ""
    return min(found)[1] if found else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
