"""The database: one engine for a process, sessions for units of work.

SQLite by default, in WAL mode with synchronous=FULL: what was committed is on disk. PostgreSQL by URL. Tables live in
each domain's `models.py`; `cloud.migrations` brings any older database to the present.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event
from sqlmodel import Session, create_engine

SessionFactory = Callable[[], Session]
"""`with sessions() as session, session.begin():` is one transaction."""


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///path` or `postgresql+psycopg://...`."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def session_factory(engine: Engine) -> SessionFactory:
    return lambda: Session(engine, expire_on_commit=False)


def _prepare_sqlite(connection: Any, _record: object) -> None:  # Any: sqlite3's connection, through SQLAlchemy's event
    connection.isolation_level = None  # SQLAlchemy's own BEGIN below, not the driver's late one
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_immediate(connection: Any) -> None:  # Any: SQLAlchemy's connection, through its event
    """Takes the write lock at the start, so that two writers wait for each other instead of failing half-way."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
