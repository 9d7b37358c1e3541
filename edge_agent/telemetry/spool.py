"""The durable outbox: an event that is in it survives any kill, and leaves it once the hub has it on disk.

    outbox = Outbox.open(state_dir / "outbox.sqlite", bounds=OutboxBounds())
    outbox.add(kind, payload)          # on disk when this returns
    for row in outbox.head(limit=16):  # oldest first
        ...send, wait for the acknowledgement...
        outbox.remove(row.number)

A kill between acknowledgement and removal sends the event twice; its id tells the receiver.

Bounds: at `rows_max` or `bytes_max` the oldest serving reports go first, then the oldest release statuses. Work
results are never dropped: they are as many as the work that was fetched, and the agent fetches none while
`is_congested`. Finished work is remembered, the newest `RESULTS_KEPT`, so that work fetched twice is answered twice.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from edge_agent.durable_sqlite import open_durable, transaction
from edge_agent.errors import DamagedStateError
from shared.messages.events import EventKind

RESULTS_KEPT = 1024
RESULTS_WAITING_MAX = 256
"""With so many unsent work results the agent stops fetching work."""
_DROP_ORDER = (EventKind.SERVING_REPORT, EventKind.RELEASE_STATUS)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, subject TEXT NOT NULL, payload BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS outbox_by_kind ON outbox (kind, number);
CREATE TABLE IF NOT EXISTS results (
    number INTEGER PRIMARY KEY AUTOINCREMENT, work_id TEXT NOT NULL UNIQUE, payload BLOB NOT NULL);
"""

_log = structlog.get_logger()


@dataclass(frozen=True)
class OutboxBounds:
    """How much waits at most; see the module for what happens then."""

    rows_max: int = 10_000
    bytes_max: int = 32 * 1024 * 1024


@dataclass(frozen=True)
class OutboxRow:
    """One event that waits; numbers grow with age's opposite, so the smallest is the oldest."""

    number: int
    kind: str
    payload: bytes


class Outbox:
    """SQLite in WAL mode with synchronous=FULL. Safe to use from several threads."""

    def __init__(self, connection: sqlite3.Connection, bounds: OutboxBounds) -> None:
        self._connection = connection
        self._bounds = bounds
        self._lock = threading.Lock()
        self.dropped = 0
        """Events dropped at the bound since the start."""

    @classmethod
    def open(cls, path: Path, *, bounds: OutboxBounds | None = None) -> "Outbox":
        """Opens or makes the outbox. Raises DamagedStateError where the file is no database."""
        try:
            connection = open_durable(path, schema=_SCHEMA)
        except DamagedStateError as error:
            hint = "Move the file away: the events in it are lost, everything else is kept."
            raise DamagedStateError(f"{error.message} (the outbox)", hint=hint) from error
        return cls(connection, bounds or OutboxBounds())

    def add(self, kind: EventKind, payload: bytes) -> None:
        """Keeps an event; it is on disk when this returns."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO outbox (kind, subject, payload) VALUES (?, '', ?)", (kind, payload))
            self._make_room(connection)

    def add_result(self, work_id: str, payload: bytes) -> None:
        """Keeps a work result, to be sent now and again whenever the same work is fetched again."""
        with self._transaction() as connection:
            _remember_result(connection, work_id, payload)
            _queue_result(connection, work_id, payload)
            self._make_room(connection)

    def remember_result(self, work_id: str, payload: bytes) -> None:
        """Keeps a work result that the coordinator has already, to be sent if the same work is fetched again."""
        with self._transaction() as connection:
            _remember_result(connection, work_id, payload)

    def resend_result(self, work_id: str) -> None:
        """Queues a remembered result again, unless it still waits or is forgotten."""
        with self._transaction() as connection:
            row = connection.execute("SELECT payload FROM results WHERE work_id = ?", (work_id,)).fetchone()
            if row is not None:
                _queue_result(connection, work_id, row[0])

    def finished(self, work_ids: Collection[str]) -> frozenset[str]:
        """Which of these pieces of work have a remembered result."""
        with self._lock:
            marks = ",".join("?" * len(work_ids))
            rows = self._connection.execute(f"SELECT work_id FROM results WHERE work_id IN ({marks})", tuple(work_ids))  # noqa: S608  # only question marks
            return frozenset(work_id for (work_id,) in rows)

    def head(self, *, limit: int) -> list[OutboxRow]:
        """The oldest events, in the order they were added."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT number, kind, payload FROM outbox ORDER BY number LIMIT ?", (limit,)
            ).fetchall()
        return [OutboxRow(*row) for row in rows]

    def remove(self, number: int) -> None:
        """Forgets an event that the hub has acknowledged."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE number = ?", (number,))

    def __len__(self) -> int:
        with self._lock:
            return int(self._connection.execute("SELECT count(*) FROM outbox").fetchone()[0])

    @property
    def is_congested(self) -> bool:
        """Whether so many work results wait that no further work should be fetched."""
        with self._lock:
            query = "SELECT count(*) FROM outbox WHERE kind = ?"
            return bool(self._connection.execute(query, (EventKind.WORK_RESULT,)).fetchone()[0] >= RESULTS_WAITING_MAX)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, transaction(self._connection) as connection:
            yield connection

    def _make_room(self, connection: sqlite3.Connection) -> None:
        for kind in _DROP_ORDER:
            while self._is_over(connection):
                oldest = connection.execute("SELECT min(number) FROM outbox WHERE kind = ?", (kind,)).fetchone()[0]
                if oldest is None:
                    break
                connection.execute("DELETE FROM outbox WHERE number = ?", (oldest,))
                self.dropped += 1
                if self.dropped == 1:
                    _log.warning("outbox_full", dropping=kind.value)

    def _is_over(self, connection: sqlite3.Connection) -> bool:
        rows, size = connection.execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM outbox").fetchone()
        return bool(rows > self._bounds.rows_max or size > self._bounds.bytes_max)


def _remember_result(connection: sqlite3.Connection, work_id: str, payload: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO results (work_id, payload) VALUES (?, ?)", (work_id, payload))
    connection.execute("DELETE FROM results WHERE number <= (SELECT max(number) FROM results) - ?", (RESULTS_KEPT,))


def _queue_result(connection: sqlite3.Connection, work_id: str, payload: bytes) -> None:
    """Puts a result into the outbox once, however often it is asked for before it is sent."""
    kind = EventKind.WORK_RESULT.value
    waiting = connection.execute("SELECT 1 FROM outbox WHERE kind = ? AND subject = ?", (kind, work_id)).fetchone()
    if waiting is None:
        connection.execute("INSERT INTO outbox (kind, subject, payload) VALUES (?, ?, ?)", (kind, work_id, payload))
