"""When this device trains, decided by its owner and on the device: a campaign may ask, and is refused with the reason.

Pure: what is the case comes in (`surroundings` looks), a sentence comes out. Evaluation is not limited.
"""

from dataclasses import dataclass
from fnmatch import fnmatch

MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True)
class Window:
    """Minutes of the device's local day, from `start` to `end`; over midnight where the end comes first."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> "Window":
        """From `HH:MM-HH:MM`. Raises ValueError."""
        start, end = (_minutes(part) for part in text.split("-"))
        return cls(start, end)

    def holds(self, minute: int) -> bool:
        if self.start <= self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def __str__(self) -> str:
        return "-".join(f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (self.start, self.end))


@dataclass(frozen=True)
class TrainingLimits:
    """What the owner allows; the defaults allow everything."""

    only_on_charger: bool = False
    metered_interfaces: tuple[str, ...] = ()
    """Patterns of network interfaces that cost by the byte, `wwan*`: no training while traffic leaves by one."""
    window: Window | None = None
    a_day_max: int = 0
    """Most pieces of training work begun in one local day; 0: no limit."""


@dataclass(frozen=True)
class Surroundings:
    """What is the case on the device."""

    on_charger: bool
    interface: str
    """By which traffic leaves; empty where none does."""
    minute: int
    """Of the local day."""
    begun_today: int
    """Other training work begun on this local day."""


def refusal(limits: TrainingLimits, now: Surroundings) -> str:
    """Why the device will not train now, one sentence; empty where it may."""
    if limits.only_on_charger and not now.on_charger:
        return "Expected this device on its charger, as its owner wants for training, got it on battery"
    if any(fnmatch(now.interface, pattern) for pattern in limits.metered_interfaces):
        return f"Expected an unmetered network, as this device's owner wants for training, got {now.interface}"
    if limits.window is not None and not limits.window.holds(now.minute):
        at = f"{now.minute // 60:02}:{now.minute % 60:02}"
        return f"Expected a time within {limits.window}, as this device's owner wants for training, got {at}"
    if limits.a_day_max and now.begun_today >= limits.a_day_max:
        return f"Expected at most {limits.a_day_max} trainings a day, as this device's owner wants, got another"
    return ""


def _minutes(text: str) -> int:
    hours, minutes = (int(part) for part in text.split(":"))
    if not (0 <= hours <= 24 and 0 <= minutes < 60 and hours * 60 + minutes <= MINUTES_A_DAY):
        raise ValueError(f"Expected a time of day, got {text!r}")
    return hours * 60 + minutes
