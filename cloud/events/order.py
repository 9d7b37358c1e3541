"""The order of one device's events: by sequence within a boot; boots by who came first.

Events arrive twice, late and reordered, and a device's clock decides nothing here. A handler that keeps only the
newest state asks `is_newer` before it applies an event.
"""

from collections.abc import Container
from dataclasses import dataclass

from shared.messages.events import Envelope


@dataclass(frozen=True)
class EventPosition:
    """Where an event stands among those of its device."""

    boot_id: str
    sequence: int

    @staticmethod
    def of(envelope: Envelope) -> "EventPosition":
        return EventPosition(boot_id=envelope.boot_id, sequence=envelope.sequence)


def is_newer(event: EventPosition, *, newest: EventPosition | None, boots_seen: Container[str]) -> bool:
    """Whether an event is newer than the newest one applied so far.

    A boot that was seen before and is not the newest one's is over: its stragglers are old.
    """
    if newest is None:
        return True
    if event.boot_id == newest.boot_id:
        return event.sequence > newest.sequence
    return event.boot_id not in boots_seen
