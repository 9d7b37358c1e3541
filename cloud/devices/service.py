"""Devices: who is enrolled, what each last said, and what it should serve. One transaction is the caller's."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlmodel import Session, col, or_, select, update

from cloud.devices.errors import DeviceRevokedError, UnknownDeviceError
from cloud.devices.models import DeviceRecord
from cloud.devices.target import Standing, is_online, why_not_at_target
from cloud.events.order import EventPosition, is_newer
from shared.api.devices import Device
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState
from shared.messages.events import Envelope, FeatureDrift, Heartbeat, LiveState, ReleaseStatus
from shared.privacy import PrivacySpent

_BOOTS_KEPT = 8
_CHUNK = 500
"""Devices in one query: databases bound the number of parameters."""
_CANDIDATE_COLUMNS = (
    *(DeviceRecord.device_id, DeviceRecord.tags, DeviceRecord.enrolled_at, DeviceRecord.last_seen_at),
    *(DeviceRecord.tasks, DeviceRecord.release_id, DeviceRecord.release_state, DeviceRecord.desired_release_id),
    *(DeviceRecord.drift, DeviceRecord.codecs, DeviceRecord.live, DeviceRecord.ledger_problem),
)


def get_device(session: Session, device_id: str) -> DeviceRecord:
    """Raises UnknownDeviceError."""
    found = session.get(DeviceRecord, device_id)
    if found is None:
        raise _unknown(device_id)
    return found


def get_active_device(session: Session, device_id: str) -> DeviceRecord:
    """The device, if its access was not taken away. Raises UnknownDeviceError or DeviceRevokedError."""
    found = get_device(session, device_id)
    if found.revoked_at is not None:
        raise _revoked(device_id)
    return found


def signing_keys(session: Session, device_id: str) -> tuple[str, str | None]:
    """The device's public key in PEM and, until a renewed one is used, its last one.

    Reads three columns: this is asked with every request of every device. Raises UnknownDeviceError or
    DeviceRevokedError.
    """
    query = select(DeviceRecord.public_key_pem, DeviceRecord.previous_public_key_pem, DeviceRecord.revoked_at)
    found = session.exec(query.where(DeviceRecord.device_id == device_id)).first()
    if found is None:
        raise _unknown(device_id)
    current, previous, revoked_at = found
    if revoked_at is not None:
        raise _revoked(device_id)
    return current, previous


def list_devices(session: Session, *, limit: int = 1000) -> Sequence[DeviceRecord]:
    """Devices, newest first, revoked ones included."""
    query = select(DeviceRecord).order_by(col(DeviceRecord.enrolled_at).desc(), col(DeviceRecord.device_id))
    return session.exec(query.limit(limit)).all()


def active_devices(session: Session, *, only: Iterable[str] = ()) -> Sequence[DeviceRecord]:
    """Devices with access, by name; only these where any are named."""
    query = select(DeviceRecord).where(col(DeviceRecord.revoked_at).is_(None)).order_by(col(DeviceRecord.device_id))
    names = list(only)
    return session.exec(query.where(col(DeviceRecord.device_id).in_(names)) if names else query).all()


def codecs_of(session: Session, device_ids: Iterable[str]) -> dict[DeviceId, list[str]]:
    """What each of these devices can compress with, as it says."""
    names, found = list(device_ids), dict[DeviceId, list[str]]()
    query = select(DeviceRecord.device_id, DeviceRecord.codecs)
    for start in range(0, len(names), _CHUNK):
        some = query.where(col(DeviceRecord.device_id).in_(names[start : start + _CHUNK]))
        found.update((DeviceId(device_id), list(codecs)) for device_id, codecs in session.exec(some))
    return found


def unseen_since(session: Session, moment: float) -> dict[DeviceId, float]:
    """Devices with access that were seen, and last before this moment; with when that was."""
    query = select(DeviceRecord.device_id, DeviceRecord.last_seen_at).where(col(DeviceRecord.revoked_at).is_(None))
    found = session.exec(query.where(col(DeviceRecord.last_seen_at) < moment))
    return {DeviceId(device_id): seen_at for device_id, seen_at in found if seen_at is not None}


def active_among(session: Session, device_ids: Iterable[str]) -> set[str]:
    """Those of these devices that have access."""
    names, active = sorted(device_ids), set[str]()
    query = select(DeviceRecord.device_id).where(col(DeviceRecord.revoked_at).is_(None))
    for start in range(0, len(names), _CHUNK):
        active.update(session.exec(query.where(col(DeviceRecord.device_id).in_(names[start : start + _CHUNK]))))
    return active


def candidates(session: Session, *, only: Iterable[str], now: float, heartbeat_s: float) -> list[Device]:
    """Devices with access as a campaign looks at them, by name: what it selects by, and nothing else.

    A round looks at the whole fleet, so this reads the columns that it needs.
    """
    names = list(only)
    rows = select(DeviceRecord).where(col(DeviceRecord.revoked_at).is_(None)).order_by(col(DeviceRecord.device_id))
    rows = rows.where(col(DeviceRecord.device_id).in_(names)) if names else rows
    found = session.connection().execute(rows.with_only_columns(*(col(column) for column in _CANDIDATE_COLUMNS)))
    return [_candidate(row._asdict(), now=now, heartbeat_s=heartbeat_s) for row in found]


def devices_named(session: Session, device_ids: Iterable[str]) -> Sequence[DeviceRecord]:
    """Those of these devices that are enrolled; while the caller keeps them, the session knows them."""
    return session.exec(select(DeviceRecord).where(col(DeviceRecord.device_id).in_(list(device_ids)))).all()


def record_seen(session: Session, device_ids: Iterable[DeviceId], *, now: float) -> None:
    """Notes that something came from these devices. An unknown one is no news."""
    seen = col(DeviceRecord.last_seen_at)
    of_them = update(DeviceRecord).where(col(DeviceRecord.device_id).in_(list(device_ids)))
    earlier = of_them.where(or_(seen.is_(None), seen < now)).values(last_seen_at=now)
    # What the session holds of them is not read again.
    session.exec(earlier.execution_options(synchronize_session=False))


def record_rejection(session: Session, device_id: DeviceId) -> None:
    """Counts one thing that was refused: a malformed event or result, an update that is none.

    An unknown device's is only logged by who refused it.
    """
    device = session.get(DeviceRecord, device_id, with_for_update=True)
    if device is not None:
        device.events_rejected += 1
        session.add(device)


def record_heartbeat(session: Session, device_id: DeviceId, envelope: Envelope) -> None:
    """Takes over what the device says of itself, unless a newer heartbeat came before."""
    heartbeat = Heartbeat.parse_document(envelope.body)
    device = get_device(session, device_id)
    position = EventPosition.of(envelope)
    newest = None if device.boot_id is None else EventPosition(boot_id=device.boot_id, sequence=device.sequence)
    if not is_newer(position, newest=newest, boots_seen=device.boots_seen):
        return
    if position.boot_id != device.boot_id:
        device.boots_seen = [*device.boots_seen, position.boot_id][-_BOOTS_KEPT:]
    device.boot_id, device.sequence = position.boot_id, position.sequence
    _copy_inventory(device, heartbeat)
    session.add(device)


def record_release(session: Session, device_id: DeviceId, status: ReleaseStatus) -> None:
    """Takes over how far a release is on the device. The caller keeps the order; an older generation is ignored."""
    device = get_device(session, device_id)
    if status.generation < device.release_generation:
        return
    device.release_id = status.active_release_id
    device.release_asked_id = status.release_id
    device.release_state = status.state
    device.release_error = status.error
    device.release_generation = status.generation
    session.add(device)


def set_desired_release(session: Session, device_id: DeviceId, *, release_id: str, generation: int) -> None:
    """Notes what the device should serve; the hub is told by the caller. An older generation is ignored."""
    device = get_device(session, device_id)
    if generation >= device.desired_generation:
        device.desired_release_id = release_id
        device.desired_generation = generation
        session.add(device)


def record_drift(session: Session, device_id: DeviceId, drift: list[FeatureDrift]) -> None:
    """Takes over the newest drift figures."""
    device = get_device(session, device_id)
    device.drift = [feature.model_dump(mode="json") for feature in drift]
    session.add(device)


def replace_certificate(
    session: Session, device_id: DeviceId, *, public_key_pem: str, certificate_pem: str, expires_at: float
) -> None:
    """A renewed certificate; an old key stays good until the new one is used."""
    device = get_active_device(session, device_id)
    if public_key_pem != device.public_key_pem:
        # A renewal that got lost and is repeated must not push out the key that the device really has.
        device.previous_public_key_pem = device.previous_public_key_pem or device.public_key_pem
    device.public_key_pem, device.certificate_pem = public_key_pem, certificate_pem
    device.certificate_expires_at = expires_at
    session.add(device)


def drop_previous_key(session: Session, device_id: DeviceId, *, used: str) -> None:
    """This newest key was used: the one before is no longer good. Nothing where there is a newer one by now."""
    device = get_device(session, device_id)
    if device.public_key_pem == used:
        device.previous_public_key_pem = None
        session.add(device)


def mark_revoked(session: Session, device_id: DeviceId, *, now: float) -> None:
    """Takes the device's access away for good; the hub is told by the caller. Raises UnknownDeviceError."""
    device = get_device(session, device_id)
    device.revoked_at = device.revoked_at or now
    session.add(device)


def record_hub_access(session: Session, device_id: DeviceId, *, is_in_hub: bool) -> None:
    """Notes what the hub was told."""
    device = get_device(session, device_id)
    device.is_in_hub = is_in_hub
    session.add(device)


def devices_to_tell_hub(session: Session, *, limit: int) -> Sequence[DeviceRecord]:
    """Devices of which the hub was not told what is wanted: to let in all but the revoked ones."""
    is_wanted = col(DeviceRecord.revoked_at).is_(None)
    query = select(DeviceRecord).where(col(DeviceRecord.is_in_hub).is_distinct_from(is_wanted))
    return session.exec(query.order_by(col(DeviceRecord.device_id)).limit(limit)).all()


def tell_hub_again(session: Session) -> None:
    """The hub has forgotten what it was told of any device."""
    session.exec(update(DeviceRecord).values(is_in_hub=None))


def view(device: DeviceRecord, *, now: float, heartbeat_s: float) -> Device:
    """The device as operators see it."""
    return Device(
        device_id=device.device_id,
        tags=device.tags,
        enrolled_at=device.enrolled_at,
        last_seen_at=device.last_seen_at,
        is_online=device.revoked_at is None and is_online(device.last_seen_at, now=now, heartbeat_s=heartbeat_s),
        is_revoked=device.revoked_at is not None,
        agent_version=device.agent_version,
        tasks=device.tasks,
        runtime=device.runtime,
        opset_max=device.opset_max,
        memory_rss_bytes=device.memory_rss_bytes,
        serving_url=device.serving_url,
        events_rejected=device.events_rejected + device.agent_rejections,
        release_id=device.release_id,
        release_state=_state(device),
        release_error=device.release_error,
        desired_release_id=device.desired_release_id,
        desired_generation=device.desired_generation,
        why_not_at_target=why_not_at_target(_standing(device), now=now, heartbeat_s=heartbeat_s),
        drift=[FeatureDrift.parse_document(feature) for feature in device.drift],
        privacy=[PrivacySpent.model_validate(spent) for spent in device.privacy],
        ledger_problem=device.ledger_problem,
        certificate_expires_at=device.certificate_expires_at,
        codecs=device.codecs,
        live=LiveState.parse_document(device.live),
    )


def _candidate(row: Mapping[str, Any], *, now: float, heartbeat_s: float) -> Device:  # Any: the columns' own types
    known = {name: value for name, value in row.items() if name != "last_seen_at"}
    return Device.model_validate(
        {**known, "is_online": is_online(row["last_seen_at"], now=now, heartbeat_s=heartbeat_s)}
    )


def _copy_inventory(device: DeviceRecord, heartbeat: Heartbeat) -> None:
    device.agent_version = heartbeat.agent_version
    device.protocol_version = heartbeat.protocol_version
    device.tasks = heartbeat.tasks
    device.runtime = heartbeat.runtime
    device.opset_max = heartbeat.opset_max
    device.memory_rss_bytes = heartbeat.memory_rss_bytes
    device.serving_url = heartbeat.serving_url
    device.agent_rejections = heartbeat.events_rejected
    device.privacy = [spent.model_dump(mode="json") for spent in heartbeat.privacy]
    device.privacy_limits = heartbeat.privacy_limits.model_dump() if heartbeat.privacy_limits else None
    device.codecs = heartbeat.codecs
    device.live = heartbeat.live.model_dump(mode="json")


def _standing(device: DeviceRecord) -> Standing:
    return Standing(
        is_revoked=device.revoked_at is not None,
        is_in_hub=device.is_in_hub is not False,
        last_seen_at=device.last_seen_at,
        desired_release_id=device.desired_release_id,
        desired_generation=device.desired_generation,
        release_id=device.release_id,
        asked_release_id=device.release_asked_id,
        release_state=_state(device),
        release_generation=device.release_generation,
        release_error=device.release_error,
    )


def _unknown(device_id: str) -> UnknownDeviceError:
    return UnknownDeviceError(f"Expected an enrolled device, got {device_id[:80]!r}")


def _revoked(device_id: str) -> DeviceRevokedError:
    return DeviceRevokedError(
        f"Expected a device with access, got {device_id}, which was revoked",
        hint="Enrol the machine again under a new name.",
    )


def _state(device: DeviceRecord) -> ReleaseState | None:
    return None if device.release_state is None else ReleaseState(device.release_state)
