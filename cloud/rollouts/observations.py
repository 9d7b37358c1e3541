"""What the coordinator knows of devices, gathered from other domains' services for planner and gates."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from sqlmodel import Session, col, select

from cloud.devices import service as devices
from cloud.devices.models import DeviceRecord
from cloud.devices.target import is_online
from cloud.monitoring import service as monitoring
from cloud.rollouts.models import DeviceReleaseRow
from cloud.rollouts.planner import CANARY_TAG
from cloud.rollouts.values import Candidate, Observation, Progress
from cloud.work import service as work
from shared.ids import DeviceId
from shared.lifecycles import ReleaseState

_CHUNK = 500
"""Devices in one query: databases bound the number of parameters."""
_NOTHING_SERVED = monitoring.Served()


def inventory(session: Session, *, only: Sequence[str], now: float, heartbeat_s: float) -> list[Candidate]:
    """The devices a plan considers: these, or the whole fleet where none are named.

    Raises:
        UnknownDeviceError: A named device is not enrolled.
    """
    named = [devices.get_device(session, device_id) for device_id in dict.fromkeys(only)]
    records = named or devices.active_devices(session)
    return [_candidate(record, now=now, heartbeat_s=heartbeat_s) for record in records]


def observe(session: Session, progress: Progress, *, release_id: str) -> dict[DeviceId, Observation]:
    """What gates judge: each planned device that still has access."""
    begun = {device: each.judged_from for device, each in progress.devices.items() if each.asked_at is not None}
    served = monitoring.served_since(session, begun, release_id=release_id)
    critical = monitoring.critical_since(session, begun)
    records = dict(_records(session, progress.devices))
    statuses = newest_statuses(session, progress.devices)
    in_round = work.busy_devices(session)
    return {
        device: _observation(
            record,
            statuses.get(device),
            served=served.get(device, _NOTHING_SERVED),
            critical=critical.get(device, ""),
            is_in_round=device in in_round,
        )
        for device, record in records.items()
    }


def newest_statuses(session: Session, device_ids: Iterable[DeviceId]) -> dict[DeviceId, DeviceReleaseRow]:
    """The newest release status of each of these devices that ever sent one."""
    found: dict[DeviceId, DeviceReleaseRow] = {}
    for chunk in _chunks(device_ids):
        query = select(DeviceReleaseRow).where(col(DeviceReleaseRow.device_id).in_(chunk))
        found.update((DeviceId(row.device_id), row) for row in session.exec(query))
    return found


def newest_generation(session: Session, device_ids: Iterable[DeviceId]) -> int:
    """The greatest generation any of these devices was asked for."""
    return max((record.desired_generation for _, record in _records(session, device_ids)), default=0)


def _records(session: Session, device_ids: Iterable[DeviceId]) -> Iterator[tuple[DeviceId, DeviceRecord]]:
    for chunk in _chunks(device_ids):
        for record in devices.active_devices(session, only=chunk):
            yield DeviceId(record.device_id), record


def _chunks(device_ids: Iterable[DeviceId]) -> Iterator[list[DeviceId]]:
    names = list(device_ids)
    return (names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK))


def _candidate(record: DeviceRecord, *, now: float, heartbeat_s: float) -> Candidate:
    return Candidate(
        device_id=DeviceId(record.device_id),
        tasks=record.tasks,
        opset_max=record.opset_max,
        is_revoked=record.revoked_at is not None,
        is_online=is_online(record.last_seen_at, now=now, heartbeat_s=heartbeat_s),
        is_canary=record.tags.get(CANARY_TAG) == "true",
        serves=record.release_id,
        desired_release_id=record.desired_release_id,
        desired_generation=record.desired_generation,
    )


def _observation(
    record: DeviceRecord,
    status: DeviceReleaseRow | None,
    *,
    served: monitoring.Served,
    critical: str,
    is_in_round: bool,
) -> Observation:
    known = Observation(
        is_enrolled=True,
        desired_generation=record.desired_generation,
        last_seen_at=record.last_seen_at,
        requests=served.requests,
        errors=served.errors,
        critical=critical,
        is_in_round=is_in_round,
    )
    return known if status is None else _with_status(known, status)


def _with_status(known: Observation, status: DeviceReleaseRow) -> Observation:
    return replace(
        known,
        generation=status.generation,
        state=ReleaseState(status.state),
        error=status.error,
        active_release_id=status.active_release_id,
        state_since=status.state_since,
    )
