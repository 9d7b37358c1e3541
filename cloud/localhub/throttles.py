"""The throttles of IoT Hub's tiers: how fast each kind of operation may go. Pure: the time is an argument.

IoT Hub measures rates over about a minute, lets a burst pass, then queues, then answers 429. Here each kind has one
number, the time up to which its rate is used up (the generic cell rate algorithm): an operation passes at once while
that is less than a minute ahead, waits while the queue has room, and is refused beyond, without using anything up.
Figures: https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling (read 2026-11; the burst is ours).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

BURST_S = 60.0
"""Rates hold over this time: so much of them may be used at once."""
QUEUE_S = 10.0
"""The longest an operation waits for its turn; one that would wait longer is refused."""
UNITS_MAX = 200
_DAY_S = 24 * 3600


class Operation(StrEnum):
    """What is throttled, each by itself; also the words that faults are injected by."""

    REGISTRY = "registry"
    CONNECT = "connect"
    SEND = "send"
    SEND_TO_DEVICE = "send_to_device"
    FILE_UPLOAD = "file_upload"
    METHOD = "method"
    QUERY = "query"
    TWIN_READ = "twin_read"
    TWIN_UPDATE = "twin_update"
    JOB = "job"
    JOB_DEVICE = "job_device"
    CONFIGURATION = "configuration"


METERED = (
    Operation.SEND,
    Operation.SEND_TO_DEVICE,
    Operation.METHOD,
    Operation.TWIN_READ,
    Operation.TWIN_UPDATE,
)
"""What counts as messages of the day."""


class Tier(StrEnum):
    F1 = "F1"
    S1 = "S1"
    S2 = "S2"
    S3 = "S3"


@dataclass(frozen=True)
class Plan:
    """A tier and its units; the free tier has one."""

    tier: Tier
    units: int = 1

    @property
    def meter_bytes(self) -> int:
        """A message of the day is a part of this size of what is sent."""
        return 512 if self.tier is Tier.F1 else 4096

    @property
    def messages_a_day(self) -> int:
        return {Tier.F1: 8_000, Tier.S1: 400_000, Tier.S2: 6_000_000, Tier.S3: 300_000_000}[self.tier] * self.units

    def rates(self) -> dict[Operation, float]:
        """Operations a second; of methods, parts of 4 KB a second."""
        n = self.units
        column = {Tier.F1: 0, Tier.S1: 0, Tier.S2: 1, Tier.S3: 2}[self.tier]
        table: dict[Operation, tuple[float, float, float]] = {
            Operation.REGISTRY: (n * 100 / 60, n * 100 / 60, n * 5_000 / 60),
            Operation.CONNECT: (max(100, n * 12), n * 120, n * 6_000),
            Operation.SEND: (max(100, n * 12), n * 120, n * 6_000),
            Operation.SEND_TO_DEVICE: (n * 100 / 60, n * 100 / 60, n * 5_000 / 60),
            Operation.FILE_UPLOAD: (n * 100 / 60, n * 100 / 60, n * 5_000 / 60),
            Operation.METHOD: (n * 160 / 4, n * 480 / 4, n * 24 * 1024 / 4),
            Operation.QUERY: (n * 20 / 60, n * 20 / 60, n * 1_000 / 60),
            Operation.TWIN_READ: (100, max(100, n * 10), n * 500),
            Operation.TWIN_UPDATE: (50, max(50, n * 5), n * 250),
            Operation.JOB: (n * 100 / 60, n * 100 / 60, n * 5_000 / 60),
            Operation.JOB_DEVICE: (10, max(10, n), n * 50),
            Operation.CONFIGURATION: (n * 20 / 60, n * 20 / 60, n * 20 / 60),
        }
        return {operation: rates[column] for operation, rates in table.items()}


@dataclass(frozen=True)
class Wait:
    """Pass after so many seconds, 0 for at once."""

    seconds: float


@dataclass(frozen=True)
class Refuse:
    """Too fast; may pass after so many seconds."""

    retry_after_s: float


@dataclass
class Throttle:
    """One kind's rate. `used_until` is the time up to which the rate is used up."""

    rate: float
    used_until: float = -math.inf

    def ask(self, *, now: float, cost: float = 1.0, queue_s: float = QUEUE_S) -> Wait | Refuse:
        """Takes what the operation costs, or refuses it and takes nothing."""
        until = max(self.used_until, now) + cost / self.rate
        ahead_s = until - now - max(BURST_S, cost / self.rate)
        if ahead_s > queue_s:
            return Refuse(ahead_s - queue_s)
        self.used_until = until
        return Wait(max(0.0, ahead_s))


@dataclass
class Quota:
    """The messages of a day, by UTC; `day` counts days since the epoch."""

    messages_a_day: int
    day: int = 0
    used: int = 0

    def take(self, messages: int, *, now: float) -> bool:
        """Whether they were left, in which case they are used; `now` is in seconds since the epoch."""
        day = int(now // _DAY_S)
        if day != self.day:
            self.day, self.used = day, 0
        if self.used + messages > self.messages_a_day:
            return False
        self.used += messages
        return True


def parts(size_bytes: int, *, part_bytes: int) -> int:
    """How many parts a size counts as: at least one."""
    return max(1, -(-size_bytes // part_bytes))


def throttles_of(rates: Mapping[Operation, float]) -> dict[Operation, Throttle]:
    return {operation: Throttle(rate) for operation, rate in rates.items()}
