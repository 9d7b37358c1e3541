"""Documents and events of an MQTT fleet in the coordinator's database. Blocking: call it on a thread.

`answer` takes what many devices asked in one transaction: a group commit. One request that cannot be done is refused
by itself; the others go on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, delete, func, select

from cloud.db import SessionFactory
from cloud.hubs.mqtt.models import MqttDeviceRow, MqttEventRow
from shared.hub.documents import merge, over_the_wire
from shared.hub.port import (
    DOCUMENT_BYTES_MAX,
    EVENT_BYTES_MAX,
    Document,
    Event,
    HubRefusedError,
    Twin,
    UnknownDeviceError,
    Versioned,
    log_started_over,
)
from shared.ids import DeviceId

EVENTS_KEPT = 10_000
"""Events that stay after they were read."""
EVENTS_MAX = 1_000_000
"""Events in the log, read or not; beyond it devices are asked to keep theirs (429)."""
_SESSION_CHARACTERS_MAX = 64


@dataclass(frozen=True)
class Request:
    """What a device asks, or says: `kind` is the topic's word for it."""

    device_id: DeviceId
    kind: str
    key: str
    """The request's id; of a goodbye, the session that ended; of `told`, the version."""
    payload: bytes = b""


@dataclass(frozen=True)
class Answer:
    """HTTP-like status, and JSON or nothing."""

    status: int
    body: Any = None


class MqttStore:
    """The documents and the log.

    Args:
        sessions: Of the coordinator's database, whose transactions follow each other.
        now: Seconds since the epoch.
    """

    def __init__(self, sessions: SessionFactory, *, now: Callable[[], float]) -> None:
        self._sessions = sessions
        self._now = now

    # The fleet's side

    def add(self, device_id: DeviceId) -> None:
        """Lets the device in; one that is known keeps its documents."""
        with self._sessions() as session, session.begin():
            if session.get(MqttDeviceRow, device_id) is None:
                session.add(MqttDeviceRow(device_id=device_id))

    def remove(self, device_id: DeviceId) -> None:
        """Forgets the device."""
        with self._sessions() as session, session.begin():
            session.exec(delete(MqttDeviceRow).where(col(MqttDeviceRow.device_id) == device_id))

    def twin(self, device_id: DeviceId) -> Twin:
        """Raises UnknownDeviceError."""
        with self._sessions() as session, session.begin():
            return _twin(_known(session, device_id))

    def set_desired(self, device_id: DeviceId, patch: Document) -> int:
        """The new version. Raises UnknownDeviceError or HubRefusedError."""
        with self._sessions() as session, session.begin():
            row = _known(session, device_id)
            document = merge(row.desired, patch)
            over_the_wire(document, bytes_max=DOCUMENT_BYTES_MAX, name="the desired document")
            row.desired, row.desired_version, row.is_told = document, row.desired_version + 1, False
            session.add(row)
            return row.desired_version

    def is_connected(self, device_id: DeviceId) -> bool:
        """By its own last word. Raises UnknownDeviceError."""
        with self._sessions() as session, session.begin():
            return bool(_known(session, device_id).session)

    def untold(self, *, limit: int) -> list[DeviceId]:
        """Connected devices with a patch that the broker did not take."""
        query = select(MqttDeviceRow.device_id).where(col(MqttDeviceRow.is_told).is_(False)).limit(limit)
        with self._sessions() as session, session.begin():
            return [DeviceId(device_id) for device_id in session.exec(query.where(col(MqttDeviceRow.session) != ""))]

    def events(self, after: int, *, limit: int) -> list[Event]:
        """Events with a greater offset, oldest first. Raises LogStartedOverError."""
        query = select(MqttEventRow).where(col(MqttEventRow.offset) > after).order_by(col(MqttEventRow.offset))
        with self._sessions() as session, session.begin():
            oldest, newest = _ends(session)
            if after > newest:
                raise log_started_over(newest=newest, after=after)
            if after - oldest > 2 * EVENTS_KEPT:
                session.exec(delete(MqttEventRow).where(col(MqttEventRow.offset) <= after - EVENTS_KEPT))
            return [
                Event(DeviceId(row.device_id), row.offset, row.enqueued_at, row.payload)
                for row in session.exec(query.limit(limit))
            ]

    # The devices' side

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """An answer to each, in their order; all are on disk when this returns."""
        with self._sessions() as session, session.begin():
            names = {request.device_id for request in requests}
            rows = {row.device_id: row for row in session.exec(select(MqttDeviceRow).where(_is_one_of(names)))}
            oldest, newest = _ends(session)
            log = _Log(session, newest=newest, room=EVENTS_MAX - (newest - oldest), now=self._now())
            answers = [_answered(request, rows.get(request.device_id), log) for request in requests]
            session.add_all(rows.values())
        return answers


@dataclass
class _Log:
    """The end of the log within one transaction."""

    session: Session
    newest: int
    room: int
    now: float

    def append(self, device_id: DeviceId, payload: bytes) -> Answer:
        if self.room <= 0:
            return Answer(429, {"error": f"the coordinator keeps {EVENTS_MAX} events and reads none"})
        if len(payload) > EVENT_BYTES_MAX:
            return Answer(400, {"error": f"an event has at most {EVENT_BYTES_MAX} bytes, not {len(payload)}"})
        self.newest, self.room = self.newest + 1, self.room - 1
        row = MqttEventRow(offset=self.newest, device_id=device_id, enqueued_at=self.now, payload=payload)
        self.session.add(row)
        return Answer(200)


def _answered(request: Request, row: MqttDeviceRow | None, log: _Log) -> Answer:
    if row is None:
        return Answer(404, {"error": "the coordinator does not know this device"})
    match request.kind:
        case "events":
            return log.append(request.device_id, request.payload)
        case "get":
            return Answer(200, _documents(row))
        case "report":
            return _reported(row, request.payload)
        case "hello":
            return _welcomed(row, request.payload)
        case "bye":
            row.session = "" if row.session == request.key else row.session
        case "told":
            row.is_told = row.is_told or row.desired_version == int(request.key)
    return Answer(200)


def _welcomed(row: MqttDeviceRow, payload: bytes) -> Answer:
    said = _parsed(payload)
    session = said.get("session") if isinstance(said, dict) else None
    if not isinstance(session, str) or not 0 < len(session) <= _SESSION_CHARACTERS_MAX or "\x00" in session:
        return Answer(400, {"error": "hello names its session"})
    row.session, row.is_told = session, True  # it reads its document next
    return Answer(200)


def _reported(row: MqttDeviceRow, payload: bytes) -> Answer:
    patch = _parsed(payload)
    if not isinstance(patch, dict):
        return Answer(400, {"error": "a patch of the reported document is a JSON object"})
    try:
        document = merge(row.reported, patch)
        over_the_wire(document, bytes_max=DOCUMENT_BYTES_MAX, name="the reported document")
    except (HubRefusedError, RecursionError) as error:
        return Answer(400, {"error": str(error)})
    row.reported, row.reported_version = document, row.reported_version + 1
    return Answer(200, {"version": row.reported_version})


def _parsed(payload: bytes) -> Any:  # Any: JSON
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return None


def _documents(row: MqttDeviceRow) -> dict[str, Any]:
    return {
        "desired": {"document": row.desired, "version": row.desired_version},
        "reported": {"document": row.reported, "version": row.reported_version},
    }


def _twin(row: MqttDeviceRow) -> Twin:
    return Twin(Versioned(row.desired, row.desired_version), Versioned(row.reported, row.reported_version))


def _known(session: Session, device_id: DeviceId) -> MqttDeviceRow:
    row = session.get(MqttDeviceRow, device_id)
    if row is None:
        raise UnknownDeviceError(f"Expected a registered device, got {device_id!r}")
    return row


def _ends(session: Session) -> tuple[int, int]:
    """The offset before the oldest event, and that of the newest; both 0 for an empty log."""
    oldest = session.exec(select(func.min(MqttEventRow.offset))).one()
    newest = session.exec(select(func.max(MqttEventRow.offset))).one()
    return (oldest or 1) - 1, newest or 0


def _is_one_of(names: set[DeviceId]) -> Any:  # Any: SQLAlchemy's condition
    return col(MqttDeviceRow.device_id).in_(names)
