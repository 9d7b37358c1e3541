"""What a fleet asks of Azure IoT Hub, and how long its work takes under a tier's throttles. Pure.

    plan(Fleet(devices=10_000, heartbeat_s=300), TIERS["S1"], units=None)

A plan says what the hub allows, not what it will do: IoT Hub lets short bursts pass and shares its rates with whatever
else uses it. Bytes travel beside the hub, so models and updates are not in it.
"""

import math
from dataclasses import dataclass

from cloud.hubs.tiers import Operation, Tier

_DAY_S = 86_400
HEARTBEAT_BYTES = 1_000
REPORT_BYTES = 3_000
"""One window of telemetry; both are sizes as the reference tasks have them."""
ROLLOUT_UPDATES = 5
"""Twin updates of a device in a rollout: what is wanted, then what it reports: fetching, staged, probation, active."""
ROUND_CALLS = 1
"""Direct methods of a device in a round: the doorbell. Model and update travel over HTTPS."""


@dataclass(frozen=True)
class Fleet:
    """What the devices do. A cohort is how many train in a round."""

    devices: int
    heartbeat_s: float = 10.0
    report_window_s: float = 60.0
    cohort: int = 1_000
    rollouts_per_day: float = 0.1
    rounds_per_day: float = 20.0


@dataclass(frozen=True)
class Check:
    """Something asked of the hub, and what it allows."""

    name: str
    asked: float
    allowed: float
    unit: str

    @property
    def holds(self) -> bool:
        return self.asked <= self.allowed


@dataclass(frozen=True)
class Duration:
    """How long some work takes at least, and the throttle that decides it."""

    name: str
    seconds: float
    bound_by: Operation


@dataclass(frozen=True)
class Plan:
    """What to expect of a tier with so many units."""

    tier: Tier
    units: int
    usd_per_month: float
    messages_per_day: float
    checks: tuple[Check, ...]
    durations: tuple[Duration, ...]
    heartbeat_s_min: float | None
    """The shortest interval of heartbeats that the quota leaves room for, or None where nothing fits."""

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)


def plan(fleet: Fleet, tier: Tier, *, units: int | None) -> Plan:
    """The plan with so many units, or with the fewest that hold, or with as many as the tier has where none do."""
    if units is None:
        units = next((count for count in range(1, tier.units_max + 1) if _holds(fleet, tier, count)), tier.units_max)
    return Plan(
        tier,
        units,
        usd_per_month=units * tier.usd_per_month,
        messages_per_day=_messages_per_day(fleet, tier),
        checks=_checks(fleet, tier, units),
        durations=_durations(fleet, tier, units),
        heartbeat_s_min=_shortest_heartbeat(fleet, tier, units),
    )


def _holds(fleet: Fleet, tier: Tier, units: int) -> bool:
    return all(check.holds for check in _checks(fleet, tier, units))


def _checks(fleet: Fleet, tier: Tier, units: int) -> tuple[Check, ...]:
    sends_per_s = fleet.devices * (1 / fleet.heartbeat_s + 1 / fleet.report_window_s)
    return (
        Check("devices", fleet.devices, tier.devices_max, "devices"),
        Check("units", units, tier.units_max, "units"),
        Check("daily quota", _messages_per_day(fleet, tier), units * tier.messages_per_day, "messages a day"),
        Check("send throttle", sends_per_s, tier.throttles[Operation.SEND].per_s(units), "events a second"),
    )


def _messages_per_day(fleet: Fleet, tier: Tier) -> float:
    """Everything that IoT Hub meters: events, twin operations, direct methods with their answers."""
    return fleet.devices * _DAY_S / fleet.heartbeat_s * tier.metered(HEARTBEAT_BYTES) + _without_heartbeats(fleet, tier)


def _without_heartbeats(fleet: Fleet, tier: Tier) -> float:
    reports = fleet.devices * _DAY_S / fleet.report_window_s * tier.metered(REPORT_BYTES)
    rollouts = fleet.rollouts_per_day * fleet.devices * ROLLOUT_UPDATES
    rounds = fleet.rounds_per_day * min(fleet.cohort, fleet.devices) * ROUND_CALLS * 2
    return reports + rollouts + rounds


def _shortest_heartbeat(fleet: Fleet, tier: Tier, units: int) -> float | None:
    messages = units * tier.messages_per_day - _without_heartbeats(fleet, tier)
    sends_per_s = tier.throttles[Operation.SEND].per_s(units) - fleet.devices / fleet.report_window_s
    if messages <= 0 or sends_per_s <= 0:
        return None
    by_quota = fleet.devices * _DAY_S * tier.metered(HEARTBEAT_BYTES) / messages
    return math.ceil(max(by_quota, fleet.devices / sends_per_s))


def _durations(fleet: Fleet, tier: Tier, units: int) -> tuple[Duration, ...]:
    cohort = min(fleet.cohort, fleet.devices)

    def takes(name: str, operation: Operation, count: float) -> Duration:
        return Duration(name, count / tier.throttles[operation].per_s(units), operation)

    return (
        takes("enrol every device", Operation.REGISTER, fleet.devices),
        takes("all devices connect again", Operation.CONNECT, fleet.devices),
        takes("all devices read their twin", Operation.TWIN_READ, fleet.devices),
        takes("a rollout to every device", Operation.TWIN_UPDATE, fleet.devices * ROLLOUT_UPDATES),
        takes(f"wake a round's cohort of {cohort:,}", Operation.METHOD, cohort * ROUND_CALLS),
    )
