"""SQLite files that survive a kill: write-ahead log, flushed at each commit, and never replaced when damaged."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.errors import DamagedStateError

_BUSY_TIMEOUT_S = 10.0


def open_durable(path: Path, *, schema: str) -> sqlite3.Connection:
    """The database at `path`, made if absent; for several threads, if their calls exclude each other.

    Args:
        path: On a local disk.
        schema: Statements that make what is not there yet.

    Raises:
        DamagedStateError: The file is no database, or not a sound one. It is left as it is.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(schema)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        # Locked, full, not to be opened: nothing that says the file is damaged.
        connection.close()
        raise
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _damaged(path, str(error)) from error
    if verdict != "ok":
        connection.close()
        raise _damaged(path, verdict.splitlines()[-1])
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Writes of the block together, on disk at its end, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _damaged(path: Path, reason: str) -> DamagedStateError:
    return DamagedStateError(f"Expected a sound database at {path}, got a damaged file: {reason}")
