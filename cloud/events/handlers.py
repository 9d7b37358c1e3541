"""What a domain gives to the event consumer."""

from collections.abc import Callable, Mapping

from sqlmodel import Session

from shared.ids import DeviceId
from shared.messages.events import Envelope, EventKind

Handler = Callable[[Session, DeviceId, Envelope, float], None]
"""(session, authenticated device, envelope, received_at): called inside the transaction that also moves the offset.

Idempotent: the same event may come again. Raises MalformedMessageError for a body that does not parse; the consumer
counts and rejects it and goes on.
"""

Handlers = Mapping[EventKind, tuple[Handler, ...]]
