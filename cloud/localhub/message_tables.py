"""What the hub does to the messages to devices, uploads, and notices to services: operations for `Store.submit`."""

import json
import sqlite3
from collections.abc import Iterable, Mapping

from cloud.localhub import tables
from cloud.localhub.errors import ServiceError
from cloud.localhub.messages import Message, Outcome, feedback_on
from cloud.localhub.twins import compact

_COLUMNS = "sequence, device_id, properties, body, enqueued_at, expires_at, deliveries"
_EXPIRE_ROWS_MAX = 1_000


def enqueue(database: sqlite3.Connection, message: Message, *, pending_max: int) -> int:
    """Appends to its device's queue and returns the sequence number. Raises ServiceError where it is full."""
    tables.get_device(database, message.device_id)
    if count(database, message.device_id, now=message.enqueued_at) >= pending_max:
        text = f"Expected at most {pending_max} messages in the queue of {message.device_id}, got one more"
        raise ServiceError(403, 403004, "DeviceMaximumQueueDepthExceeded", text)
    columns = "(device_id, properties, body, enqueued_at, expires_at) VALUES (?, ?, ?, ?, ?)"
    row = (message.device_id, compact(message.properties), message.body, message.enqueued_at, message.expires_at)
    return int(database.execute(f"INSERT INTO messages {columns}", row).lastrowid or 0)


def pending(database: sqlite3.Connection, device_id: str, *, now: float) -> list[Message]:
    """The device's messages that have not expired, oldest first; never more than a queue holds."""
    query = f"SELECT {_COLUMNS} FROM messages WHERE device_id = ? AND expires_at > ? ORDER BY sequence"
    return [_message(row) for row in database.execute(query, (device_id, now))]


def count(database: sqlite3.Connection, device_id: str, *, now: float) -> int:
    """How many messages wait for the device."""
    query = "SELECT count(*) FROM messages WHERE device_id = ? AND expires_at > ?"
    return int(database.execute(query, (device_id, now)).fetchone()[0])


def settle(
    database: sqlite3.Connection, device_id: str, sequence: int, outcome: Outcome, *, now: float, stamp: str
) -> bool:
    """Ends a message, with the feedback on it; False where it ended before. `stamp` is `now` in ISO 8601."""
    query = f"SELECT {_COLUMNS} FROM messages WHERE sequence = ? AND device_id = ?"
    row = database.execute(query, (sequence, device_id)).fetchone()
    if row is None:
        return False
    _end(database, [_message(row)], outcome, now=now, stamp=stamp)
    return True


def give_back(
    database: sqlite3.Connection, device_id: str, sequence: int, *, deliveries_max: int, now: float, stamp: str
) -> bool:
    """Counts one more delivery in vain; True where it was the last that the message had."""
    statement = (
        "UPDATE messages SET deliveries = deliveries + 1 WHERE sequence = ? AND device_id = ? RETURNING deliveries"
    )
    row = database.execute(statement, (sequence, device_id)).fetchone()
    if row is None or row[0] < deliveries_max:
        return False
    return settle(database, device_id, sequence, Outcome.DELIVERY_COUNT_EXCEEDED, now=now, stamp=stamp)


def purge(database: sqlite3.Connection, device_id: str, *, now: float, stamp: str) -> list[int]:
    """Ends all messages of the device; their sequence numbers. Raises ServiceError where there is no such device."""
    tables.get_device(database, device_id)
    rows = database.execute(f"SELECT {_COLUMNS} FROM messages WHERE device_id = ?", (device_id,)).fetchall()
    return _end(database, map(_message, rows), Outcome.PURGED, now=now, stamp=stamp)


def expire(database: sqlite3.Connection, *, now: float, stamp: str) -> list[int]:
    """Ends messages whose time is over, of any device; their sequence numbers. Call until there are none."""
    query = f"SELECT {_COLUMNS} FROM messages WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
    rows = database.execute(query, (now, _EXPIRE_ROWS_MAX)).fetchall()
    return _end(database, map(_message, rows), Outcome.EXPIRED, now=now, stamp=stamp)


def add_notice(database: sqlite3.Connection, kind: str, record: Mapping[str, object], *, now: float) -> None:
    """Appends to what services have to be told."""
    row = (kind, now, compact(record))
    database.execute("INSERT INTO notices (kind, recorded_at, record) VALUES (?, ?, ?)", row)


def read_notices(database: sqlite3.Connection, kind: str, *, limit: int) -> list[tuple[int, float, dict[str, object]]]:
    """Up to `limit` of a kind, oldest first: number, time, record."""
    query = "SELECT sequence, recorded_at, record FROM notices WHERE kind = ? ORDER BY sequence LIMIT ?"
    return [(number, at, json.loads(record)) for number, at, record in database.execute(query, (kind, limit))]


def remove_notices(database: sqlite3.Connection, kind: str, *, last: int) -> None:
    """Removes those of a kind up to this number."""
    database.execute("DELETE FROM notices WHERE kind = ? AND sequence <= ?", (kind, last))


def expire_notices(database: sqlite3.Connection, kind: str, *, before: float) -> None:
    """Removes those that are older."""
    database.execute("DELETE FROM notices WHERE kind = ? AND recorded_at < ?", (kind, before))


def add_upload(
    database: sqlite3.Connection, correlation_id: str, device_id: str, blob_name: str, *, expires_at: float
) -> None:
    """Notes that a device may upload a file."""
    database.execute("INSERT INTO uploads VALUES (?, ?, ?, ?)", (correlation_id, device_id, blob_name, expires_at))


def count_uploads(database: sqlite3.Connection, device_id: str, *, now: float) -> int:
    """How many uploads of the device are open; forgets those of any device that were never ended."""
    database.execute("DELETE FROM uploads WHERE expires_at <= ?", (now,))
    return int(database.execute("SELECT count(*) FROM uploads WHERE device_id = ?", (device_id,)).fetchone()[0])


def take_upload(database: sqlite3.Connection, correlation_id: str, device_id: str) -> str | None:
    """Ends an upload; the blob's name, or None where the device has no such upload."""
    statement = "DELETE FROM uploads WHERE correlation_id = ? AND device_id = ? RETURNING blob_name"
    row = database.execute(statement, (correlation_id, device_id)).fetchone()
    return None if row is None else str(row[0])


def _end(
    database: sqlite3.Connection, messages: Iterable[Message], outcome: Outcome, *, now: float, stamp: str
) -> list[int]:
    ended = []
    for message in messages:
        database.execute("DELETE FROM messages WHERE sequence = ?", (message.sequence,))
        device = tables.find_device(database, message.device_id)
        generation_id = "" if device is None else device.identity.generation_id
        record = feedback_on(message, outcome, generation_id=generation_id, now=stamp)
        if record is not None:
            add_notice(database, "feedback", record, now=now)
        ended.append(message.sequence)
    return ended


def _message(row: tuple[int, str, str, bytes, float, float, int]) -> Message:
    sequence, device_id, properties, body, enqueued_at, expires_at, deliveries = row
    return Message(sequence, device_id, json.loads(properties), bytes(body), enqueued_at, expires_at, deliveries)
