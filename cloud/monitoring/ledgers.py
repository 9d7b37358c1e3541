"""Alerts of privacy ledgers that went back or forked: what such a device has spent is not known any more."""

from sqlmodel import Session

from cloud.devices.ledgers import witness_heartbeat, witness_result
from cloud.events.handlers import Handlers
from cloud.monitoring.alerting import AlertKind, ledger_finding
from cloud.monitoring.alerts import clear_alerts, open_alerts, raise_alert
from shared.ids import DeviceId
from shared.messages.events import Envelope, EventKind, Heartbeat, WorkResult


def on_heartbeat(session: Session, device_id: DeviceId, envelope: Envelope, received_at: float) -> None:
    """After what the device is was noted. An agent of before, or without data, tells nothing of a ledger."""
    if told := Heartbeat.parse_document(envelope.body).ledger:
        problem = witness_heartbeat(session, device_id, envelope, told)
        _show(session, device_id, problem, cause_id=envelope.id, now=received_at)


def on_work_result(session: Session, device_id: DeviceId, envelope: Envelope, received_at: float) -> None:
    """A result that came as an event."""
    judge_result(session, device_id, WorkResult.parse_document(envelope.body), now=received_at)


def judge_result(session: Session, device_id: DeviceId, result: WorkResult, *, now: float) -> None:
    """A result, however it came."""
    if result.ledger and (problem := witness_result(session, device_id, result.ledger)):
        _show(session, device_id, problem, cause_id=result.work_id, now=now)


HANDLERS: Handlers = {EventKind.HEARTBEAT: (on_heartbeat,), EventKind.WORK_RESULT: (on_work_result,)}


def _show(session: Session, device_id: DeviceId, problem: str, *, cause_id: str, now: float) -> None:
    """One alert for one problem, until it is mended."""
    is_open = bool(open_alerts(session, kind=AlertKind.LEDGER, device_id=device_id))
    if problem and not is_open:
        raise_alert(session, ledger_finding(device_id, problem=problem), cause_id=cause_id, now=now)
    elif is_open and not problem:
        clear_alerts(session, AlertKind.LEDGER, device_id, [""], now=now)
