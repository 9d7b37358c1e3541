"""Answers to campaigns' work that nobody waits for any more, as they come: also after the campaign's end."""

from sqlmodel import Session

from cloud.campaigns.late import note_late_result
from cloud.events.handlers import Handlers
from shared.ids import DeviceId
from shared.messages.events import Envelope, EventKind, WorkResult


def on_work_result(session: Session, device_id: DeviceId, envelope: Envelope, received_at: float) -> None:
    """Shows a device as late whose work was taken back before it answered."""
    note_late_result(session, WorkResult.parse_document(envelope.body).work_id, device_id=device_id)


HANDLERS: Handlers = {EventKind.WORK_RESULT: (on_work_result,)}
