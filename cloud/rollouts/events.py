"""Release statuses, as devices send them: history, the device's read model, and the alert of a failed release."""

import math

from sqlmodel import Session

from cloud.devices import service as devices
from cloud.events.handlers import Handlers
from cloud.monitoring.alerting import release_failed_finding
from cloud.monitoring.service import clear_release_failures, raise_alert
from cloud.rollouts.statuses import record_status
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState
from shared.messages.base import MalformedMessageError
from shared.messages.events import Envelope, EventKind, ReleaseStatus

ERROR_CHARACTERS_MAX = 500


def on_release_status(session: Session, device_id: DeviceId, envelope: Envelope, received_at: float) -> None:
    """Takes over a status; repetitions and stragglers change nothing but the history."""
    status = _parsed(session, device_id, envelope)
    if not record_status(session, device_id, envelope, status, received_at=received_at):
        return
    devices.record_release(session, device_id, status)
    if status.state is ReleaseState.ACTIVE:
        clear_release_failures(session, device_id, now=received_at)
    if status.state is ReleaseState.FAILED:
        finding = release_failed_finding(
            device_id, release_id=status.release_id, sentence=status.error, serves=status.active_release_id
        )
        raise_alert(session, finding, cause_id=envelope.id, now=received_at)


HANDLERS: Handlers = {EventKind.RELEASE_STATUS: (on_release_status,)}


def _parsed(session: Session, device_id: DeviceId, envelope: Envelope) -> ReleaseStatus:
    """Raises MalformedMessageError for a status that nobody asked for, or that no database can hold."""
    status = ReleaseStatus.parse_document(envelope.body)
    asked = devices.get_device(session, device_id).desired_generation
    if status.generation > asked:
        raise MalformedMessageError(
            f"Expected a ReleaseStatus: generation: at most {asked}, which was asked last, got {status.generation}"
        )
    if status.self_test_ms is not None and not math.isfinite(status.self_test_ms):
        raise MalformedMessageError(f"Expected a ReleaseStatus: self_test_ms: a number, got {status.self_test_ms}")
    return status.model_copy(update={"error": _sentence(status.error)})


def _sentence(text: str) -> str:
    """A device's own words, bounded and without control characters."""
    return "".join(character if character.isprintable() else " " for character in text[:ERROR_CHARACTERS_MAX])
