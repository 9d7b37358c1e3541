"""Applies a batch of events in one transaction: the handlers' work and the offset are on disk together, or neither is.

An event that does not parse, names another device, or is refused by a handler is undone by itself, counted and kept
for people; the others go on. What breaks the whole batch (the database) is the caller's to try again.

Nearly all batches are without such an event, so a batch is first applied as a whole, with a few statements for all of
its events; only one that fails is undone and applied event by event.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import tuple_
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, col, delete, select

from cloud.devices.service import devices_named, record_rejection, record_seen
from cloud.events.handlers import Handlers
from cloud.events.models import EventOffset, RejectedEvent, SeenEvent
from shared.errors import FleetlearnError
from shared.hub.port import Event
from shared.messages.base import MalformedMessageError
from shared.messages.events import Envelope, EventKind

CONSUMER = "coordinator"
SEEN_KEPT_S = 24 * 3600
REJECTED_KEPT = 1000
_PAYLOAD_KEPT_BYTES = 4096
_REASON_CHARACTERS_MAX = 500
_KINDS = {kind.value: kind for kind in EventKind}
_log = structlog.get_logger()

OnRejected = Callable[[Session, Event, str, float], None]
"""(session, event, reason, now): what else happens to a refused event."""

OnStartedOver = Callable[[Session], None]
"""What else happens when the hub turns out to have lost its data; in the transaction that starts over."""


@dataclass(frozen=True)
class Outcome:
    """What became of a batch."""

    applied: int = 0
    repeated: int = 0
    rejected: int = 0


def read_offset(session: Session) -> int:
    """The offset of the newest event that was applied; 0 before the first."""
    row = session.get(EventOffset, CONSUMER)
    return 0 if row is None else row.offset


def start_over(session: Session) -> None:
    """Reads a new log from its start. What it repeats of the old one is known by its id, and does no harm."""
    session.merge(EventOffset(consumer=CONSUMER, offset=0))


def apply_events(
    session: Session, events: Sequence[Event], handlers: Handlers, *, on_rejected: OnRejected, now: float
) -> Outcome:
    """Applies events that come after the stored offset, and moves it; older ones are skipped.

    Args:
        session: In a transaction of its own.
        events: In the order of their offsets.
        handlers: By kind; a kind without handlers is kept by nobody and is no error.
        on_rejected: Called for each event that is refused.
        now: Seconds since the epoch; `received_at` of all of them.
    """
    offset = session.get(EventOffset, CONSUMER, with_for_update=True) or EventOffset(consumer=CONSUMER, offset=0)
    fresh = [event for event in events if event.offset > offset.offset]
    counts = Counter[str]()
    if fresh:
        try:
            with session.begin_nested():
                counts = _apply_all(session, fresh, handlers, now)
        except Exception:  # whatever it was, it is met again, one by one
            counts = Counter(_apply_one(session, event, handlers, on_rejected, now) for event in fresh)
    if fresh:
        record_seen(session, {event.device_id for event in fresh}, now=now)
        offset.offset = fresh[-1].offset
        session.add(offset)
        _forget_old(session, now=now)
    return Outcome(**counts)


def _apply_all(session: Session, events: Sequence[Event], handlers: Handlers, now: float) -> Counter[str]:
    """How many were applied and repeated. Raises at the first that is not to be applied."""
    envelopes = [_envelope_of(event) for event in events]
    names = [(event.device_id, envelope.id) for event, envelope in zip(events, envelopes, strict=True)]
    known = tuple_(col(SeenEvent.device_id), col(SeenEvent.event_id)).in_(names)
    seen = set(session.exec(select(SeenEvent.device_id, SeenEvent.event_id).where(known)))
    devices = devices_named(session, {event.device_id for event in events})  # handlers find them in the session now
    counts = Counter[str]()
    for event, envelope, name in zip(events, envelopes, names, strict=True):
        if name in seen:
            counts["repeated"] += 1
            continue
        seen.add(name)
        _take_in(session, event, envelope, handlers, now)
        counts["applied"] += 1
    session.flush()
    del devices
    return counts


def _apply_one(session: Session, event: Event, handlers: Handlers, on_rejected: OnRejected, now: float) -> str:
    try:
        with session.begin_nested():
            return _handle(session, event, handlers, now)
    except FleetlearnError as error:
        reason = error.message
    except DBAPIError as error:
        if error.connection_invalidated or not _is_about_values(error):
            raise
        reason = f"it cannot be stored: {type(error.orig).__name__}"
    except Exception as error:
        # A mistake of ours must not hold up every device's events for ever: it is logged, and the event is kept.
        _log.exception("event_handler_failed", device_id=event.device_id, offset=event.offset)
        reason = f"the coordinator could not handle it: {type(error).__name__}"
    _reject(session, event, reason, on_rejected, now)
    return "rejected"


def _handle(session: Session, event: Event, handlers: Handlers, now: float) -> str:
    envelope = _envelope_of(event)
    if session.get(SeenEvent, (event.device_id, envelope.id)) is not None:
        return "repeated"
    _take_in(session, event, envelope, handlers, now)
    session.flush()
    return "applied"


def _envelope_of(event: Event) -> Envelope:
    envelope = Envelope.parse(event.payload)
    if envelope.device_id != event.device_id:
        raise MalformedMessageError(
            f"Expected an event of {event.device_id}, got one that names {envelope.device_id!r:.80}"
        )
    return envelope


def _take_in(session: Session, event: Event, envelope: Envelope, handlers: Handlers, now: float) -> None:
    session.add(SeenEvent(device_id=event.device_id, event_id=envelope.id, seen_at=now))
    kind = _KINDS.get(envelope.kind)
    for handler in handlers.get(kind, ()) if kind else ():
        handler(session, event.device_id, envelope, now)


def _is_about_values(error: DBAPIError) -> bool:
    """Whether the database refused the data (NUL in a text, a number out of range), not the connection or the disk."""
    return type(error).__name__ in ("DataError", "IntegrityError")


def _reject(session: Session, event: Event, reason: str, on_rejected: OnRejected, now: float) -> None:
    reason = reason[:_REASON_CHARACTERS_MAX].replace("\x00", "\\0")
    record_rejection(session, event.device_id)
    rejected = RejectedEvent(
        offset=event.offset,
        device_id=event.device_id,
        received_at=now,
        reason=reason,
        payload=event.payload[:_PAYLOAD_KEPT_BYTES],
    )
    session.merge(rejected)
    on_rejected(session, event, reason, now)


def _forget_old(session: Session, *, now: float) -> None:
    session.exec(delete(SeenEvent).where(col(SeenEvent.seen_at) < now - SEEN_KEPT_S))
    newest = select(RejectedEvent.offset).order_by(col(RejectedEvent.offset).desc()).offset(REJECTED_KEPT).limit(1)
    oldest_kept = session.exec(newest).first()
    if oldest_kept is not None:
        session.exec(delete(RejectedEvent).where(col(RejectedEvent.offset) <= oldest_kept))
