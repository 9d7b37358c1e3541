"""The database: one engine for a process, sessions for units of work.

SQLite by default, in WAL mode with synchronous=FULL: what was committed is on disk. PostgreSQL by URL. Tables live in
each domain's `models.py`; `cloud.migrations` brings any older database to the present.

Transactions run one after the other, on both databases: each takes the one lock when it begins and frees it when it
ends, however it ends. So what a transaction reads stays true until it commits (a token that is unused, the newest
generation, the next queued job), no two of them can fail each other half-way, and a race that cannot happen on one
database cannot happen on the other. The price is that they must be short: nothing waits for a hub, copies files or
computes inside one. What only looks, and writes nothing that rests on what it saw, takes no lock (`reading`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import BigInteger, Engine, Integer, event
from sqlmodel import Session, create_engine

SessionFactory = Callable[[], Session]
"""`with sessions() as session, session.begin():` is one transaction."""

ROW_NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""A primary key that the database counts; SQLite counts only what is called INTEGER, which has 64 bits there."""

WAIT_S = 30
"""How long a transaction waits for its turn before it fails."""
_IDLE_S = 120
"""PostgreSQL ends a transaction whose client says nothing for this long: its machine may be gone."""
_LOCK_KEY = 0x666C6565746C  # "fleetl"
_READS = "fleetlearn_reads"
_TURN = "fleetlearn_turn"


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///path` or `postgresql+psycopg://...`."""
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": WAIT_S, "check_same_thread": False})
        turns = _Turns()
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", turns.begin)
        event.listen(engine, "checkin", turns.end)
    else:
        engine = create_engine(url, pool_pre_ping=True)
        event.listen(engine, "connect", _bound_waits)
        event.listen(engine, "begin", _take_the_lock)
    return engine


def session_factory(engine: Engine) -> SessionFactory:
    return lambda: Session(engine, expire_on_commit=False)


@contextmanager
def reading(sessions: SessionFactory) -> Iterator[Session]:
    """A transaction that sees one moment of the database, waits for no other and holds none up.

    What it reads may be history a moment later: for questions whose answer may be that old, never for a decision that
    a later transaction writes down. Nothing may be written in it.
    """
    with sessions() as session, session.begin():
        session.connection(execution_options={_READS: True})
        yield session
        assert not any((session.new, session.dirty, session.deleted)), "Expected a transaction that only reads"


def _prepare_sqlite(connection: Any, _record: object) -> None:  # Any: sqlite3's connection, through SQLAlchemy's event
    connection.isolation_level = None  # SQLAlchemy's own BEGIN below, not the driver's late one
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


class _Turns:
    """SQLite's write lock, taken at the start, so that two writers wait for each other instead of failing half-way.

    SQLite lets who waits look again after 1 ms, then 2, 5 and up to 100; so the threads of one process wait for a lock
    of their own first, which wakes the next one at once. Other processes are left to SQLite.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def begin(self, connection: Any) -> None:  # Any: SQLAlchemy's connection, through its event
        if _only_reads(connection):
            connection.exec_driver_sql("BEGIN")
            return
        if _TURN not in connection.info:
            # Whoever waits in vain goes on to SQLite, which then says so.
            connection.info[_TURN] = self._lock.acquire(timeout=WAIT_S)
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def end(self, _connection: object, record: Any) -> None:  # Any: the pool's record, through SQLAlchemy's event
        """The connection is back in the pool: its transaction has ended, however it did."""
        if record.info.pop(_TURN, False):
            self._lock.release()


def _bound_waits(connection: Any, _record: object) -> None:  # Any: psycopg's connection, through SQLAlchemy's event
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{WAIT_S}s'")
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_S}s'")
    cursor.close()
    connection.commit()  # or the pool's clean-up would take the settings back


def _take_the_lock(connection: Any) -> None:  # Any: SQLAlchemy's connection, through its event
    """PostgreSQL's way to the same: a lock that ends with the transaction, or with its connection."""
    if _only_reads(connection):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")


def _only_reads(connection: Any) -> bool:  # Any: SQLAlchemy's connection, through its event
    return bool(connection.get_execution_options().get(_READS))
