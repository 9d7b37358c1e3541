"""What a ServerApp saw and did, recorded, and shown again to one that starts anew. Pure.

A ServerApp owns its loop and keeps its model in memory. So it is resumed by running it again from the start: as long as
it sends what it sent before, it is given what it was given before, at once and in the same order; where the recording
ends it goes on with the fleet. Where it sends something else it is another run, and is stopped with the difference.

    tape = Tape(events)
    tape.nodes()          # the devices it saw then, or None: ask the fleet
    tape.sent(messages)   # the work of then, or None: ask the devices. Raises DepartedError
    tape.has_answers      # False: look for answers to what it sent
    tape.received(ids)    # the answers it got then, or None: another caller's turn
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cloud.campaigns.errors import DepartedError
from shared.ids import DeviceId, Digest

DIGEST_CHARS = 12
"""Of a message's content, in what people read."""


class EventKind(StrEnum):
    NODES = "nodes"
    SENT = "sent"
    RECEIVED = "received"


@dataclass(frozen=True)
class Asked:
    """One message to a device: equal where Flower's metadata and every byte of the records are."""

    device: DeviceId
    message_type: str
    group: str
    records: Digest

    def __str__(self) -> str:
        group = f", group {self.group!r}" if self.group else ""
        return f"{self.message_type!r} to {self.device}{group}, content {self.records[:DIGEST_CHARS]}"


@dataclass(frozen=True)
class Nodes:
    """Which devices could be asked."""

    devices: tuple[DeviceId, ...]


@dataclass(frozen=True)
class Sent:
    """Messages that went out together, and the work that each became."""

    messages: tuple[Asked, ...]
    work_ids: tuple[str, ...]


@dataclass(frozen=True)
class Received:
    """Answers that came in together."""

    work_ids: tuple[str, ...]


Event = Nodes | Sent | Received


class Tape:
    """One campaign's events, and how far a ServerApp that started anew has come in them."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._left: list[Event] = list(events)
        self._seen: tuple[DeviceId, ...] | None = None
        """Devices as the app saw them last."""

    @property
    def is_at_end(self) -> bool:
        """Whether everything recorded was shown."""
        return not self._left

    def nodes(self) -> tuple[DeviceId, ...] | None:
        """The devices that could be asked then; None where the recording has no more.

        Only changes are recorded: until the next event is one, the app sees what it saw last.
        """
        if self._left and isinstance(event := self._left[0], Nodes):
            self._left.pop(0)
            self._seen = event.devices
        elif not self._left:
            return None
        return self._seen or ()

    def saw(self, devices: tuple[DeviceId, ...]) -> bool:
        """Notes what the app sees now; whether that must be recorded."""
        is_new, self._seen = devices != self._seen, devices
        return is_new

    def sent(self, messages: Sequence[Asked]) -> tuple[str, ...] | None:
        """The work that these messages became, in their order; None where they are new.

        Batches may come in another order than then, as threads have it, and so may messages within one.

        Raises DepartedError.
        """
        for event in self._left:
            if isinstance(event, Sent) and Counter(event.messages) == Counter(messages):
                self._left.remove(event)
                return _in_order_of(messages, event)
        if expected := self.next_sent():
            raise DepartedError.between(expected, messages)
        return None

    @property
    def has_answers(self) -> bool:
        """Whether answers are left that the app got then."""
        return any(isinstance(event, Received) for event in self._left)

    def received(self, wanted: Collection[str]) -> tuple[str, ...] | None:
        """The next answers that the app got then; None where they are not among those that are wanted here."""
        event = next(event for event in self._left if isinstance(event, Received))
        if not set(event.work_ids) <= set(wanted):
            return None
        self._left.remove(event)
        return event.work_ids

    def next_sent(self) -> tuple[Asked, ...]:
        """What the app sent next then."""
        return next((event.messages for event in self._left if isinstance(event, Sent)), ())

    def check_is_at_end(self) -> None:
        """Raises DepartedError where the app ended earlier than it did before."""
        if expected := self.next_sent():
            raise DepartedError.between(expected, ())


def _in_order_of(messages: Sequence[Asked], event: Sent) -> tuple[str, ...]:
    left = dict[Asked, list[str]]()
    for message, work_id in zip(event.messages, event.work_ids, strict=True):
        left.setdefault(message, []).append(work_id)
    return tuple(left[message].pop(0) for message in messages)
