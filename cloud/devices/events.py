"""Heartbeats, as devices send them."""

from sqlmodel import Session

from cloud.devices.service import record_heartbeat
from cloud.events.handlers import Handlers
from shared.ids import DeviceId
from shared.messages.events import Envelope, EventKind


def on_heartbeat(session: Session, device_id: DeviceId, envelope: Envelope, _received_at: float) -> None:
    """Inventory and privacy; that the device was seen is noted by the consumer, for every kind of event."""
    record_heartbeat(session, device_id, envelope)


HANDLERS: Handlers = {EventKind.HEARTBEAT: (on_heartbeat,)}
