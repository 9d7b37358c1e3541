"""Serving reports, as devices send them: a window, the device's drift, and drift alerts."""

from sqlmodel import Session

from cloud.devices import service as devices
from cloud.events.handlers import Handlers
from cloud.monitoring.models import DriftReferenceRow
from cloud.monitoring.references import reference_of
from cloud.monitoring.reports import check_report, with_thresholds
from cloud.monitoring.service import record_report
from shared.ids import DeviceId
from shared.messages.base import MalformedMessageError
from shared.messages.events import Envelope, EventKind, ServingReport


def on_serving_report(session: Session, device_id: DeviceId, envelope: Envelope, received_at: float) -> None:
    """Takes over a report; repetitions and stragglers decide nothing."""
    report = ServingReport.parse_document(envelope.body)
    reference = _reference(session, report)
    check_report(report, features=list(reference.thresholds))
    report = with_thresholds(report, reference.thresholds, examples_min=reference.examples_min)
    if record_report(session, device_id, envelope, report, received_at=received_at):
        devices.record_drift(session, device_id, report.drift)


HANDLERS: Handlers = {EventKind.SERVING_REPORT: (on_serving_report,)}


def _reference(session: Session, report: ServingReport) -> DriftReferenceRow:
    reference = reference_of(session, report.release_id)
    if reference is None:
        raise MalformedMessageError(
            f"Expected a ServingReport: release_id: a release of a rollout, got {report.release_id[:64]!r}"
        )
    return reference
