"""Makes the envelopes of this agent's events: ids, boot and sequence in one place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from shared.ids import DeviceId
from shared.messages.base import Message
from shared.messages.events import Envelope, EventKind


@dataclass(frozen=True)
class EventMaker:
    """One boot's events. Used on the event loop only, so the sequence needs no lock.

    Args:
        device_id: Who sends.
        boot_id: New with each start of the agent.
        new_id: A fresh UUID version 7.
    """

    device_id: DeviceId
    boot_id: str
    new_id: Callable[[], str]
    _sequence: "count[int]" = field(default_factory=count)

    def make(self, kind: EventKind, body: Message) -> bytes:
        """The event's bytes, ready to send."""
        envelope = Envelope(
            kind=kind.value,
            id=self.new_id(),
            device_id=self.device_id,
            boot_id=self.boot_id,
            sequence=next(self._sequence),
            body=body.model_dump(mode="json"),
        )
        return envelope.encode()
