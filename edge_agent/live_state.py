"""How the device is right now, read from Linux's own files; what cannot be read is not said.

A few small files, a millisecond: a heartbeat can afford it. Elsewhere than on Linux nothing is there and nothing said.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from shared.messages.events import LiveState

_FILES_LOOKED_AT_MAX = 1000
_ON_POWER = ("Charging", "Full", "Not charging")
_CELLULAR = ("wwan", "ppp", "rmnet", "usb_modem")
_ROUTE_IS_UP = 0x1


def live_state(*, data_dir: Path | None = None, root: Path = Path("/"), now: float | None = None) -> LiveState:
    """The state of this moment.

    Args:
        data_dir: The device's own data, if it has any.
        root: Where `sys` and `proc` are.
        now: Seconds since the epoch by the device's clock; only differences to its own files count.
    """
    battery, is_charging = _power(root / "sys/class/power_supply")
    return LiveState(
        battery=battery,
        is_charging=is_charging,
        network=_network(root),
        temperature_c=_temperature_c(root / "sys/class/thermal"),
        memory_free_bytes=_memory_free_bytes(root / "proc/meminfo"),
        data_age_s=None if data_dir is None else _age_s(data_dir, time.time() if now is None else now),
    )


def _power(supplies: Path) -> tuple[float | None, bool | None]:
    """The emptiest battery of the machine itself, and whether it runs on external power."""
    charges: list[float] = []
    is_on_power = False
    for supply in _entries(supplies):
        kind = _text(supply / "type")
        if kind == "Battery" and _text(supply / "scope") != "Device":  # a device's: a mouse, a keyboard
            with suppress(ValueError):
                charges.append(min(max(int(_text(supply / "capacity")), 0), 100) / 100)
            is_on_power |= _text(supply / "status") in _ON_POWER
        elif kind in ("Mains", "USB", "Wireless"):
            is_on_power |= _text(supply / "online") == "1"
    return (min(charges), is_on_power) if charges else (None, None)


def _network(root: Path) -> str:
    """What the default route of least cost goes over."""
    routes = [line.split() for line in _text(root / "proc/net/route").splitlines()[1:]]
    found: list[tuple[int, str]] = []
    for fields in routes:
        with suppress(ValueError, IndexError):
            if fields[1] == "00000000" and int(fields[3], 16) & _ROUTE_IS_UP:
                found.append((int(fields[6]), fields[0]))
    if not found:
        return ""
    name = min(found)[1]
    interface = root / "sys/class/net" / name
    if name.startswith(_CELLULAR) or "DEVTYPE=wwan" in _text(interface / "uevent"):
        return "cellular"
    is_wireless = (interface / "wireless").exists() or "DEVTYPE=wlan" in _text(interface / "uevent")
    return "wifi" if is_wireless else "ethernet"


def _temperature_c(zones: Path) -> float | None:
    """Of the hottest zone; a zone that says something impossible says nothing."""
    temperatures = []
    for zone in _entries(zones):
        with suppress(ValueError):
            temperatures.append(int(_text(zone / "temp")) / 1000)
    return max((value for value in temperatures if -50 < value < 200), default=None)


def _memory_free_bytes(meminfo: Path) -> int | None:
    for line in _text(meminfo).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            with suppress(ValueError, IndexError):
                return int(value.split()[0]) * 1024
    return None


def _age_s(folder: Path, now: float) -> float | None:
    """Since the newest file of the folder changed; of a large folder, of its first thousand entries."""
    changed = []
    with suppress(OSError):
        for path in islice(folder.rglob("*"), _FILES_LOOKED_AT_MAX):
            with suppress(OSError):
                changed.append(path.stat().st_mtime)
    return max(0.0, now - max(changed)) if changed else None


def _entries(folder: Path) -> Iterator[Path]:
    entries: Iterable[Path] = ()
    with suppress(OSError):
        entries = sorted(folder.iterdir())
    yield from entries


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
