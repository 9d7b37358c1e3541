"""What stands before every operation: the throttles and quota of a tier, and injected faults. All off until told.

    if hub.gates.are_shut:
        verdict = await hub.gates.ask(Operation.SEND, device_id, size_bytes=len(body))

Both doors ask, and each does what its protocol can: HTTPS answers a refusal, MQTT leaves an event unacknowledged or
closes. The switches live in memory: a restarted hub has those of its command line.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable
from enum import Enum
from typing import Any

from cloud.localhub.errors import ServiceError, invalid_argument
from cloud.localhub.faults import Fault, Faults, Kind, form, parse_faults, refusal
from cloud.localhub.methods import whole_of
from cloud.localhub.throttles import METERED, UNITS_MAX, Operation, Plan, Quota, Refuse, Tier, parts, throttles_of

_METHOD_PART_BYTES = 4096


class Verdict(Enum):
    """What to do with an operation that was not refused."""

    GO = "go"
    TWICE = "twice"
    DROP = "drop"
    """Act as if it had never come."""
    CLOSE = "close"
    """Close the caller's connection."""


class Gates:
    """The switches of one hub. `clock` gives seconds since the epoch, for the day of the quota."""

    def __init__(self, *, clock: Callable[[], float], plan: Plan | None = None, faults: tuple[Fault, ...] = ()) -> None:
        self._clock = clock
        self._faults = Faults(faults)
        self._set_plan(plan)
        self._note_whether_shut()

    def _note_whether_shut(self) -> None:
        # An attribute, because every event looks at it.
        self.are_shut = self._plan is not None or bool(self._faults.faults)

    def _set_plan(self, plan: Plan | None) -> None:
        self._plan = plan
        self._throttles = {} if plan is None else throttles_of(plan.rates())
        self._quota = None if plan is None else Quota(plan.messages_a_day)

    async def ask(
        self, operation: Operation, device_id: str = "", *, size_bytes: int = 0, cost: float | None = None
    ) -> Verdict:
        """Returns when the operation may go on, and how. Raises ServiceError for one that is refused."""
        if cost is None:
            is_method = operation is Operation.METHOD
            cost = parts(size_bytes, part_bytes=_METHOD_PART_BYTES) if is_method else 1.0
        await self._take_turn(operation, cost)
        self._take_quota(operation, size_bytes)
        return await self._inject(operation, device_id)

    async def pace(self, operation: Operation, *, cost: float) -> None:
        """Returns when operations of that cost may go on; waits as long as it takes."""
        if throttle := self._throttles.get(operation):
            answer = throttle.ask(now=time.monotonic(), cost=cost, queue_s=math.inf)
            assert not isinstance(answer, Refuse)
            await asyncio.sleep(answer.seconds)

    def _take_quota(self, operation: Operation, size_bytes: int) -> None:
        if self._plan is None or self._quota is None or operation not in METERED:
            return
        messages = parts(size_bytes, part_bytes=self._plan.meter_bytes)
        if not self._quota.take(messages, now=self._clock()):
            message = (
                f"Total number of messages on IoT Hub exceeded the allocated quota of {self._quota.messages_a_day}"
            )
            raise ServiceError(403, 403002, "IotHubQuotaExceeded", message)

    async def _take_turn(self, operation: Operation, cost: float) -> None:
        throttle = self._throttles.get(operation)
        if throttle is None:
            return
        answer = throttle.ask(now=time.monotonic(), cost=cost)
        if isinstance(answer, Refuse):
            message = f"Throttling error: expected at most {throttle.rate:.4g} {operation} operations a second"
            raise ServiceError(429, 429001, "ThrottlingException", message, retry_after_s=answer.retry_after_s)
        if answer.seconds:
            await asyncio.sleep(answer.seconds)

    async def _inject(self, operation: Operation, device_id: str) -> Verdict:
        verdict = Verdict.GO
        for fault in self._faults.choose(operation, device_id, draw=random.random):
            match fault.kind:
                case Kind.DELAY:
                    await asyncio.sleep(fault.delay_s)
                case Kind.REFUSE:
                    raise refusal(fault)
                case Kind.DROP:
                    return Verdict.DROP
                case Kind.DISCONNECT:
                    return Verdict.CLOSE
                case Kind.DUPLICATE:
                    verdict = Verdict.TWICE
        return verdict

    # The switches

    def switches(self) -> dict[str, Any]:
        """What is on now."""
        plan = None if self._plan is None else {"tier": self._plan.tier, "units": self._plan.units}
        used = {} if self._quota is None else {"messagesToday": self._quota.used}
        return {"throttles": plan, "faults": [form(fault) for fault in self._faults.faults], **used}

    def switch(self, body: dict[str, Any]) -> None:
        """Sets the switches that the body names, all or none. Raises ServiceError."""
        if unknown := body.keys() - {"throttles", "faults"}:
            raise invalid_argument(f"Expected throttles and faults, got {min(unknown)[:40]!r}")
        plan = _plan(body.get("throttles"))
        faults = parse_faults(body.get("faults", []))
        if "throttles" in body:
            self._set_plan(plan)
        if "faults" in body:
            self._faults = Faults(faults)
        self._note_whether_shut()


def _plan(told: object) -> Plan | None:
    if told is None:
        return None
    if not isinstance(told, dict) or told.get("tier") not in set(Tier):
        raise invalid_argument(f"Expected throttles as null or an object with a tier of {', '.join(Tier)}")
    return Plan(Tier(told["tier"]), whole_of(told, "units", default=1, bounds=(1, UNITS_MAX)))
