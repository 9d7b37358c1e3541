"""How values read on a screen: times, sizes, shares, bars, sparklines. Pure; the time is an argument."""

import math
import re
import unicodedata
from collections.abc import Sequence

_SPARKS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def printable(text: str) -> str:
    """The text on one line without control characters: what a device says cannot steer the operator's terminal."""
    spaced = "".join(" " if letter.isspace() else letter for letter in text)
    return "".join(letter for letter in spaced if unicodedata.category(letter) not in _UNPRINTABLE)


def ago(then: float | None, *, now: float) -> str:
    """`3 s ago`; `never` for None. A time slightly ahead, by clocks that differ, is `now`."""
    if then is None:
        return "never"
    seconds = now - then
    return "now" if seconds < 1 else f"{span(seconds)} ago"


def until(then: float | None, *, now: float) -> str:
    """`in 5 h`; `expired` when it is past; nothing for None."""
    if then is None:
        return ""
    return f"in {span(then - now)}" if then > now else "expired"


def span(seconds: float) -> str:
    """The largest whole unit: `42 s`, `5 min`, `3 h`, `12 d`."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if whole >= length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def duration(seconds: float) -> str:
    """A measured time, with the digits that matter: `850 ms`, `3.2 s`, `42 s`, `1 min 20 s`, `2 h 5 min`."""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Bytes with SI units: `512 B`, `12.3 kB`, `105 MB`."""
    if count < 1000:
        return f"{max(0, int(count))} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.5 or unit == "PB":
            break
    return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.1f} {unit}"


def percent(fraction: float | None) -> str:
    """`82.1 %`; `–` for None or what is not a number."""
    return "–" if fraction is None or not math.isfinite(fraction) else f"{fraction * 100:.1f} %"


def number(value: float | None, *, digits: int = 2) -> str:
    """`1.25`; `–` for None or what is not a number."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def short(name: str, *, width: int = 24) -> str:
    """A name that fits: a UUID by its end, where UUIDs of one minute differ; another long name by its middle."""
    if _UUID.fullmatch(name):
        return short_uuid(name)
    if len(name) <= width:
        return name
    head = (width - 1) // 2
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def short_uuid(name: str) -> str:
    """A UUID by its end; anything else as it is."""
    return f"…{name[-8:]}" if _UUID.fullmatch(name) else name


def bar(fraction: float, *, width: int) -> str:
    """A bar of exactly `width` characters, filled in eighths of one."""
    share = min(1.0, max(0.0, fraction)) if math.isfinite(fraction) else 0.0
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    partial = _EIGHTHS[rest] if full < width else ""
    return ("█" * full + partial).ljust(width)[:width]


def sparkline(values: Sequence[float], *, width: int = 16, low: float = 0.0, high: float = 1.0) -> str:
    """The last `width` values as blocks, scaled from `low` to `high`; what is not a number leaves a gap."""
    extent = max(high - low, 1e-12)
    return "".join(_spark((value - low) / extent) for value in values[-width:])


def _spark(share: float) -> str:
    if not math.isfinite(share):
        return " "
    return _SPARKS[min(len(_SPARKS) - 1, int(min(1.0, max(0.0, share)) * len(_SPARKS)))]
