"""What the event log does to its tables: each function is one operation for `Store.submit` or `Store.read`.

An event has two numbers: its offset, which counts all events of the hub from 1, and its sequence number, which counts
the events of its partition from 0. Neither is ever given twice.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

READ_BYTES_MAX = 4 * 1024 * 1024
"""Bodies in one answer; at least one event is always answered."""
_TRIM_ROWS_MAX = 5_000
_ROWS_AT_ONCE = (128, 16, 1)
"""Rows of one INSERT. Python holds its lock between statements, so a few large ones leave it to the event loop."""
_COLUMNS = "event_offset, partition, sequence_number, device_id, enqueued_at, properties, body"


class NewEvent(NamedTuple):
    """One event on its way to the log; `properties` is a JSON object, as text."""

    partition: int
    device_id: str
    enqueued_at: float
    properties: str
    body: bytes


@dataclass(frozen=True)
class LoggedEvent:
    """One event of the log; `properties` as the device sent them."""

    offset: int
    partition: int
    sequence_number: int
    device_id: str
    enqueued_at: float
    properties: dict[str, str | None]
    body: bytes


@dataclass(frozen=True)
class PartitionState:
    """The part of a partition that is kept: numbers of its first and last event (first above last: none is kept).

    `last_sequence_number` is the newest ever given, -1 before the first. Offset and time are the last kept event's.
    """

    partition: int
    first_sequence_number: int
    last_sequence_number: int
    last_offset: int | None
    last_enqueued_at: float | None


def append_events(database: sqlite3.Connection, events: Sequence[NewEvent]) -> int:
    """Appends in this order and returns the last one's offset. `bytes_before` runs on, so sizes are differences."""
    last = dict(database.execute("SELECT partition, last_sequence_number FROM partitions"))
    (total,) = database.execute("SELECT value FROM totals WHERE name = 'event_bytes'").fetchone()
    rows = []
    for partition, device_id, enqueued_at, properties, body in events:
        last[partition] = number = last[partition] + 1
        rows.append((partition, number, device_id, enqueued_at, total, properties, body))
        total += len(properties) + len(body)
    _insert(database, rows)
    touched = {event.partition for event in events}
    database.executemany(
        "UPDATE partitions SET last_sequence_number = ? WHERE partition = ?",
        [(last[partition], partition) for partition in touched],
    )
    database.execute("UPDATE totals SET value = ? WHERE name = 'event_bytes'", (total,))
    (offset,) = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(offset)


def _insert(database: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    start = 0
    for size in _ROWS_AT_ONCE:
        while len(rows) - start >= size:
            database.execute(_insertion(size), [value for row in rows[start : start + size] for value in row])
            start += size


@lru_cache
def _insertion(rows: int) -> str:
    values = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * rows)
    columns = "partition, sequence_number, device_id, enqueued_at, bytes_before, properties, body"
    return f"INSERT INTO events ({columns}) VALUES {values}"


def read_events(database: sqlite3.Connection, *, after: int, limit: int) -> list[LoggedEvent]:
    """Up to `limit` events after the offset, oldest first, together at most READ_BYTES_MAX (or one event)."""
    query = f"SELECT {_COLUMNS} FROM events WHERE event_offset > ? ORDER BY event_offset LIMIT ?"
    return list(_up_to_bytes(database.execute(query, (after, limit))))


def read_partition(database: sqlite3.Connection, partition: int, *, after: int, limit: int) -> list[LoggedEvent]:
    """The same of one partition, after a sequence number."""
    query = (
        f"SELECT {_COLUMNS} FROM events WHERE partition = ? AND sequence_number > ? ORDER BY sequence_number LIMIT ?"
    )
    return list(_up_to_bytes(database.execute(query, (partition, after, limit))))


def event_range(database: sqlite3.Connection) -> tuple[int, int]:
    """The oldest offset that is kept (or the next one, where none is) and the newest that was given."""
    (first,) = database.execute("SELECT min(event_offset) FROM events").fetchone()
    row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    last = row[0] if row else 0
    return (first or last + 1, last)


def count_partitions(database: sqlite3.Connection) -> int:
    (count,) = database.execute("SELECT count(*) FROM partitions").fetchone()
    return int(count)


def partition_states(database: sqlite3.Connection) -> list[PartitionState]:
    """Every partition, in order."""
    states = []
    for partition, last in database.execute("SELECT * FROM partitions ORDER BY partition").fetchall():
        where = "FROM events WHERE partition = ? ORDER BY sequence_number"
        oldest = database.execute(f"SELECT sequence_number {where} LIMIT 1", (partition,)).fetchone()
        newest = database.execute(f"SELECT event_offset, enqueued_at {where} DESC LIMIT 1", (partition,)).fetchone()
        first = oldest[0] if oldest else last + 1
        states.append(PartitionState(partition, first, last, *(newest or (None, None))))
    return states


def sequence_before(database: sqlite3.Connection, partition: int, passed: Callable[[int, int, float], bool]) -> int:
    """The last sequence number of the partition that a reader is past: it reads what comes after.

    `passed` says so of a sequence number, an offset and a time, all of which grow along the partition; so it is asked
    about a few, not about all.
    """
    query = "SELECT event_offset, enqueued_at FROM events WHERE partition = ? AND sequence_number = ?"
    (low,) = database.execute(
        "SELECT coalesce(min(sequence_number) - 1, -1) FROM events WHERE partition = ?", (partition,)
    ).fetchone()
    (high,) = database.execute(
        "SELECT last_sequence_number FROM partitions WHERE partition = ?", (partition,)
    ).fetchone()
    while low < high:
        middle = (low + high + 1) // 2
        row = database.execute(query, (partition, middle)).fetchone()
        if row is None or passed(middle, *row):  # Retention has taken it meanwhile, or all of them: past it.
            low = middle
        else:
            high = middle - 1
    return int(low)


def trim_events(database: sqlite3.Connection, *, before: float, bytes_max: int) -> int:
    """Removes events older than `before`, and the oldest beyond `bytes_max`; returns how many. Call until it is 0."""
    (total,) = database.execute("SELECT value FROM totals WHERE name = 'event_bytes'").fetchone()
    statement = """
        DELETE FROM events WHERE event_offset IN (
            SELECT event_offset FROM (
                SELECT event_offset, enqueued_at, bytes_before FROM events ORDER BY event_offset LIMIT ?
            ) WHERE enqueued_at < ? OR bytes_before < ?
        )
    """
    return database.execute(statement, (_TRIM_ROWS_MAX, before, total - bytes_max)).rowcount


def _up_to_bytes(rows: Iterable[tuple[int, int, int, str, float, str, bytes]]) -> Iterable[LoggedEvent]:
    total = 0
    for offset, partition, number, device_id, enqueued_at, properties, body in rows:
        total += len(body)
        if total > READ_BYTES_MAX and total > len(body):
            return
        yield LoggedEvent(offset, partition, number, device_id, enqueued_at, json.loads(properties), bytes(body))


# Consumer groups: who has read how far


def list_groups(database: sqlite3.Connection) -> list[str]:
    return [name for (name,) in database.execute("SELECT name FROM consumer_groups ORDER BY name")]


def add_group(database: sqlite3.Connection, name: str) -> None:
    """Adds it; one that is there keeps its checkpoints."""
    database.execute("INSERT INTO consumer_groups VALUES (?) ON CONFLICT DO NOTHING", (name,))


def remove_group(database: sqlite3.Connection, name: str) -> bool:
    """Removes the group with its checkpoints; False where there is none."""
    database.execute("DELETE FROM checkpoints WHERE group_name = ?", (name,))
    return database.execute("DELETE FROM consumer_groups WHERE name = ?", (name,)).rowcount == 1


def find_checkpoint(database: sqlite3.Connection, group: str, partition: int) -> int | None:
    """The sequence number up to which the group has read the partition, -1 before the first; None without the group."""
    row = database.execute(
        "SELECT coalesce(sequence_number, -1) FROM consumer_groups "
        "LEFT JOIN checkpoints ON group_name = name AND partition = ? WHERE name = ?",
        (partition, group),
    ).fetchone()
    return None if row is None else int(row[0])


def put_checkpoint(database: sqlite3.Connection, group: str, partition: int, sequence_number: int) -> None:
    """Keeps how far the group has read; it may go back, to read again."""
    database.execute(
        "INSERT INTO checkpoints VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sequence_number = excluded.sequence_number",
        (group, partition, sequence_number),
    )
