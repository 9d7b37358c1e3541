"""The coordinator's copy of what it has yet to read from a partitioned log: one order, one offset, on its own disk.

An Event Hub has a position for each partition, and keeps none of them itself; the port has one offset, which the reader
keeps. So each event is written here with the position of its partition, in one transaction, and gets the next offset;
what the reader has passed is removed. An event that arrives twice is here once.
"""

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shared.hub.port import Event, HubRefusedError, log_started_over
from shared.ids import DeviceId

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    event_offset INTEGER PRIMARY KEY AUTOINCREMENT,
    device_id TEXT NOT NULL,
    enqueued_at REAL NOT NULL,
    payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS positions (partition TEXT PRIMARY KEY, sequence_number INTEGER NOT NULL) WITHOUT ROWID;
"""


class Arrival(NamedTuple):
    """One event of a partition."""

    sequence_number: int
    device_id: str
    enqueued_at: float
    payload: bytes


class Inbox:
    """The file, for the threads of one process. Every method returns when it is on disk."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it. Raises HubRefusedError where the file is none of ours."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            self._database.close()
            raise HubRefusedError(f"Expected an inbox of events in {path}, got: {error}") from error

    def positions(self) -> dict[str, int]:
        """The last sequence number of each partition that is here, or was."""
        with self._lock:
            return dict(self._database.execute("SELECT partition, sequence_number FROM positions"))

    def put(self, partition: str, arrivals: Sequence[Arrival]) -> None:
        """Appends what is new of these, and moves the partition's position, at once."""
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            row = self._database.execute(
                "SELECT sequence_number FROM positions WHERE partition = ?", (partition,)
            ).fetchone()
            last = -1 if row is None else row[0]
            fresh = [arrival for arrival in arrivals if arrival.sequence_number > last]
            self._database.executemany(
                "INSERT INTO events (device_id, enqueued_at, payload) VALUES (?, ?, ?)",
                [arrival[1:] for arrival in fresh],
            )
            if fresh:
                self._database.execute(
                    "INSERT OR REPLACE INTO positions VALUES (?, ?)", (partition, fresh[-1].sequence_number)
                )

    def read(self, after: int, *, limit: int) -> list[Event]:
        """Up to `limit` events after the offset; forgets those before. Raises LogStartedOverError."""
        with self._lock, self._database:
            self._database.execute("BEGIN IMMEDIATE")
            row = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
            newest = 0 if row is None else row[0]
            if after > newest:
                raise log_started_over(newest=newest, after=after)
            self._database.execute("DELETE FROM events WHERE event_offset <= ?", (after,))
            rows = self._database.execute("SELECT * FROM events ORDER BY event_offset LIMIT ?", (limit,)).fetchall()
        return [Event(DeviceId(device_id), offset, at, bytes(payload)) for offset, device_id, at, payload in rows]

    def unread(self) -> int:
        with self._lock:
            (count,) = self._database.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    def close(self) -> None:
        with self._lock:
            self._database.close()
