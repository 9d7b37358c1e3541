"""One coordinator for one PostgreSQL database, wherever their data folders are.

The lock belongs to one connection, so PostgreSQL frees it however the process ends. SQLite needs none: its file lies in
the data folder, which has a lock of its own. Databases are told apart by their schema too.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Connection, Engine, NullPool
from sqlalchemy.exc import DBAPIError
from sqlmodel import create_engine

from cloud.locks import AlreadyRunningError

CHECK_S = 2.0
"""How often the connection is looked at."""
WAIT_S = 3.0
"""How long to wait for a coordinator that has just ended; PostgreSQL notices its end a moment later."""
_POLL_S = 0.1
_END_S = 10.0
_KEY = 0x666C6561  # "flea"
_TAKE = f"SELECT pg_try_advisory_lock({_KEY}, hashtext(coalesce(current_schema(), '')))"
_PATIENCE = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
"""For libpq, in s and ms: a database machine that is gone is noticed."""
_KEEPALIVE = "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
"""For the server, in seconds: a coordinator's machine that is gone frees its lock in half a minute."""
_log = structlog.get_logger()


class DatabaseLock:
    """Held for the length of the context; nothing at all for SQLite.

    Args:
        url: Of the database, as SQLAlchemy names it.
        wait_s: How long entering waits for the one who has it.
    """

    def __init__(self, url: str, *, wait_s: float = WAIT_S) -> None:
        self._engine = None if url.startswith("sqlite") else _own_engine(url)
        self._wait_s = wait_s
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        """Takes the lock. Raises AlreadyRunningError when another keeps it."""
        if self._engine is not None:
            self._connection = _take(self._engine, wait_s=self._wait_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def look(self) -> None:
        """Takes the lock again where its connection was lost; while the database is away, only says so in the log.

        Raises:
            AlreadyRunningError: Another coordinator was faster.
        """
        if self._engine is None:
            return
        try:
            if self._connection is not None:
                self._connection.exec_driver_sql("SELECT 1")
                return
            self._connection = _take(self._engine, wait_s=0)
            _log.info("database_lock_taken_again")
        except DBAPIError as error:
            _log.warning("database_lock_lost", reason=type(error).__name__)
            self._let_go()

    @contextmanager
    def watched(self, *, stop: Callable[[], None], check_s: float = CHECK_S) -> Iterator[None]:
        """Looks regularly, in a thread; calls `stop` once another has the lock, and raises AlreadyRunningError then."""
        ended, lost = threading.Event(), list[AlreadyRunningError]()

        def watch() -> None:
            while not lost and not ended.wait(check_s):
                try:
                    self.look()
                except AlreadyRunningError as error:
                    lost.append(error)
                    stop()

        thread = threading.Thread(target=watch, name="database-lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_END_S)
        if lost:
            raise lost[0]

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


def _own_engine(url: str) -> Engine:
    return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=_PATIENCE)


def _take(engine: Engine, *, wait_s: float) -> Connection:
    connection = engine.connect()
    try:
        connection.exec_driver_sql(_KEEPALIVE)
        deadline = time.monotonic() + wait_s
        while not connection.exec_driver_sql(_TAKE).scalar_one():
            if time.monotonic() >= deadline:
                raise AlreadyRunningError(
                    f"Expected no other coordinator on database {engine.url.database!r}, one is running",
                    hint="Stop it, or choose another database_url.",
                )
            time.sleep(_POLL_S)
    except BaseException:
        connection.close()
        raise
    return connection
