"""Azure IoT Hub's tiers: quotas, throttles and prices, as tables. Pure.

Quotas and throttles are those of Azure's documentation, "IoT Hub quotas and throttling" (the table of 2023; the free
tier has S1's throttles). Prices are the US list prices a unit and month as commonly quoted, without tax or discount;
Azure's price page has the ones of a region. Both change: what a plan says is as good as these tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Operation(StrEnum):
    """What IoT Hub throttles and this product does."""

    SEND = "events sent"
    CONNECT = "connections opened"
    REGISTER = "identities registered"
    TWIN_READ = "twin reads"
    TWIN_UPDATE = "twin updates"
    METHOD = "direct methods"


@dataclass(frozen=True)
class Throttle:
    """Operations a second: so many for the hub, or so many a unit, whichever is more."""

    per_hub: float = 0.0
    per_unit: float = 0.0

    def per_s(self, units: int) -> float:
        return max(self.per_hub, self.per_unit * units)


@dataclass(frozen=True)
class Tier:
    """One edition. A message is metered in pieces of `meter_bytes`; what is left of one counts as a whole."""

    name: str
    units_max: int
    messages_per_day: int
    """A unit, events, methods and twin operations together."""
    meter_bytes: int
    usd_per_month: float
    """A unit."""
    devices_max: int
    throttles: Mapping[Operation, Throttle]

    def metered(self, size_bytes: int) -> int:
        """Messages that one of this size counts as."""
        return max(1, -(-size_bytes // self.meter_bytes))


_METHOD_METER_BYTES = 4 * 1024
"""A direct method's request is throttled in pieces of this, whatever its size."""
_MINUTE = 1 / 60


def _methods(kilobytes_per_s: float) -> Throttle:
    return Throttle(per_unit=kilobytes_per_s * 1024 / _METHOD_METER_BYTES)


_S1 = {
    Operation.SEND: Throttle(100, 12),
    Operation.CONNECT: Throttle(100, 12),
    Operation.REGISTER: Throttle(per_unit=100 * _MINUTE),
    Operation.TWIN_READ: Throttle(100),
    Operation.TWIN_UPDATE: Throttle(50),
    Operation.METHOD: _methods(160),
}
_S2 = {
    Operation.SEND: Throttle(per_unit=120),
    Operation.CONNECT: Throttle(per_unit=120),
    Operation.REGISTER: Throttle(per_unit=100 * _MINUTE),
    Operation.TWIN_READ: Throttle(100, 10),
    Operation.TWIN_UPDATE: Throttle(50, 5),
    Operation.METHOD: _methods(480),
}
_S3 = {
    Operation.SEND: Throttle(per_unit=6_000),
    Operation.CONNECT: Throttle(per_unit=6_000),
    Operation.REGISTER: Throttle(per_unit=5_000 * _MINUTE),
    Operation.TWIN_READ: Throttle(per_unit=500),
    Operation.TWIN_UPDATE: Throttle(per_unit=250),
    Operation.METHOD: _methods(24 * 1024),
}

TIERS: Mapping[str, Tier] = {
    tier.name: tier
    for tier in (
        Tier("F1", 1, 8_000, 512, 0.0, 500, _S1),
        Tier("S1", 200, 400_000, 4096, 25.0, 1_000_000, _S1),
        Tier("S2", 200, 6_000_000, 4096, 250.0, 1_000_000, _S2),
        Tier("S3", 10, 300_000_000, 4096, 2_500.0, 1_000_000, _S3),
    )
}
"""The tiers that have twins and direct methods; the basic ones, B1 to B3, do not, and cannot run a fleet."""
