"""Faults to inject, so that people can see how their devices and services take them: read and chosen. Pure.

[[faults]]
on = "send"               # an operation, or "*" for all
device = "press-*"        # whose; all where it is left out
kind = "disconnect"       # drop, delay, disconnect, refuse, duplicate
probability = 0.05        # 1 where it is left out
times = 3                 # no more often than this; without end where it is left out
delay_s = 2.5             # of a delay
status = 503              # of a refusal: 429 or 500 to 599
"""

import fnmatch
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.throttles import Operation

FAULTS_MAX = 100
DELAY_S_MAX = 600.0
_EVERY = "*"


class Kind(StrEnum):
    DROP = "drop"
    DELAY = "delay"
    DISCONNECT = "disconnect"
    REFUSE = "refuse"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Fault:
    """One fault; `times` is None for without end."""

    on: str
    kind: Kind
    device: str = _EVERY
    probability: float = 1.0
    times: int | None = None
    delay_s: float = 0.0
    status: int = 503

    def fits(self, operation: Operation, device_id: str) -> bool:
        return self.on in (_EVERY, operation) and fnmatch.fnmatchcase(device_id, self.device)


class Faults:
    """What is injected now, and how often each fault still may be."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        self._left = [fault.times for fault in faults]

    def choose(self, operation: Operation, device_id: str, *, draw: Callable[[], float]) -> list[Fault]:
        """The faults that strike this operation, in their order; `draw` gives a number in [0, 1) for each that fits."""
        struck = []
        for number, fault in enumerate(self.faults):
            left = self._left[number]
            if left != 0 and fault.fits(operation, device_id) and draw() < fault.probability:
                self._left[number] = None if left is None else left - 1
                struck.append(fault)
        return struck


def parse_toml(text: str) -> tuple[Fault, ...]:
    """The faults of a file. Raises ServiceError."""
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise invalid_argument(f"Expected faults as TOML: {error}") from error
    if unknown := told.keys() - {"faults"}:
        raise invalid_argument(f"Expected [[faults]] alone, got {', '.join(sorted(unknown))[:80]}")
    return parse_faults(told.get("faults", []))


def parse_faults(told: object) -> tuple[Fault, ...]:
    """Faults from a list of tables. Raises ServiceError."""
    if not isinstance(told, list) or len(told) > FAULTS_MAX or not all(isinstance(each, dict) for each in told):
        raise invalid_argument(f"Expected faults as a list of at most {FAULTS_MAX} tables")
    return tuple(_fault(each) for each in told)


def form(fault: Fault) -> dict[str, Any]:
    """A fault as it is told, without what was left out."""
    return {name: value for name, value in asdict(fault).items() if value is not None}


def refusal(fault: Fault) -> ServiceError:
    """The error of a fault that refuses."""
    name = (
        "ThrottlingException" if fault.status == 429 else "ServerError" if fault.status == 500 else "ServiceUnavailable"
    )
    return ServiceError(fault.status, fault.status * 1000 + 1, name, "A fault that was injected")


def _fault(told: Mapping[str, Any]) -> Fault:
    if unknown := told.keys() - Fault.__dataclass_fields__.keys():
        raise invalid_argument(f"Expected a fault's {', '.join(Fault.__dataclass_fields__)}, got {min(unknown)[:40]!r}")
    on, kind, device = told.get("on"), told.get("kind"), told.get("device", _EVERY)
    if on not in (_EVERY, *Operation):
        raise invalid_argument(f"Expected on = * or one of {', '.join(Operation)}, got {str(on)[:40]!r}")
    if kind not in set(Kind):
        raise invalid_argument(f"Expected kind of {', '.join(Kind)}, got {str(kind)[:40]!r}")
    if not isinstance(device, str):
        raise invalid_argument("Expected device as a text like 'press-*'")
    times, status = told.get("times"), told.get("status", 503)
    if times is not None and not (isinstance(times, int) and times >= 0):
        raise invalid_argument(f"Expected times as a whole number, got {str(times)[:40]}")
    if status not in (429, *range(500, 600)):
        raise invalid_argument(f"Expected status as 429 or 500 to 599, got {str(status)[:40]}")
    probability = _number(told, "probability", default=1.0, high=1.0)
    delay_s = _number(told, "delay_s", default=0.0, high=DELAY_S_MAX)
    return Fault(str(on), Kind(kind), device, probability, times, delay_s, status)


def _number(told: Mapping[str, Any], name: str, *, default: float, high: float) -> float:
    value = told.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise invalid_argument(f"Expected {name} as a number of 0 to {high:g}, got {str(value)[:40]}")
    return float(value)
