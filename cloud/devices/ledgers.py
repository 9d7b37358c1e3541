"""What devices tell of their privacy ledgers' heads, in heartbeats and with results; see `witness`."""

from sqlmodel import Session

from cloud.devices.models import DeviceRecord
from cloud.devices.service import get_device
from cloud.devices.witness import Witnessed, fork_of, judge
from cloud.events.order import EventPosition, is_newer
from shared.ids import DeviceId
from shared.messages.events import Envelope, LedgerHead


def witness_heartbeat(session: Session, device_id: DeviceId, envelope: Envelope, told: LedgerHead) -> str:
    """What is wrong with the device's ledger after this heartbeat, in one sentence; empty where nothing is.

    Args:
        session: In a transaction, in which the heartbeat itself was noted.
        device_id: Authenticated by the hub.
        envelope: The heartbeat's; a straggler decides nothing.
        told: The head in it.
    """
    device = get_device(session, device_id)
    if not _is_newest(device, EventPosition.of(envelope)):
        return device.ledger_problem
    judged = judge(told, _known(device))
    if judged.problem is not None:
        # The newest copy, put back, mends it.
        device.ledger_problem = judged.problem
    if not device.ledger_problem:
        device.ledger = judged.witnessed.model_dump()
    session.add(device)
    return device.ledger_problem


def witness_result(session: Session, device_id: DeviceId, told: LedgerHead) -> str:
    """The same after a result, which tells of the ledger as it was when its work ended, however long ago that is.

    So it shows a fork, and nothing by being behind.
    """
    device = get_device(session, device_id)
    if fork := fork_of(told, _known(device)):
        device.ledger_problem = fork
        session.add(device)
    return device.ledger_problem


def accept_ledger(session: Session, device_id: DeviceId) -> None:
    """Takes the device's ledger as it is from now on, whatever it was before. Raises UnknownDeviceError."""
    device = get_device(session, device_id)
    device.ledger, device.ledger_problem = None, ""
    session.add(device)


def _known(device: DeviceRecord) -> Witnessed | None:
    return Witnessed.model_validate(device.ledger) if device.ledger else None


def _is_newest(device: DeviceRecord, at: EventPosition) -> bool:
    """Whether the heartbeat is not a straggler; the newest one itself was noted before this is asked."""
    newest = None if device.boot_id is None else EventPosition(boot_id=device.boot_id, sequence=device.sequence)
    return at == newest or is_newer(at, newest=newest, boots_seen=device.boots_seen)
