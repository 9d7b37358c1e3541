"""Results of work, as devices report them."""

from sqlmodel import Session

from cloud.events.handlers import Handlers
from cloud.work.errors import UnknownWorkError
from cloud.work.service import record_result
from shared.ids import DeviceId
from shared.messages.base import MalformedMessageError
from shared.messages.events import Envelope, EventKind, WorkResult


def on_work_result(session: Session, device_id: DeviceId, envelope: Envelope, received_at: float) -> None:
    """Stores the result. A result of work that is not this device's is rejected like any malformed event."""
    result = WorkResult.parse_document(envelope.body)
    try:
        record_result(session, device_id, result, now=received_at)
    except UnknownWorkError as error:
        raise MalformedMessageError(error.message) from error


HANDLERS: Handlers = {EventKind.WORK_RESULT: (on_work_result,)}
