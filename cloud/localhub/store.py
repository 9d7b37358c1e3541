"""The hub's disk: one SQLite file, a thread that writes with group commit, and one that reads beside it.

Everything that is submitted while a commit is under way shares the next one, so that a thousand devices' events cost
a few syncs. A future resolves only after its commit is on disk (WAL, synchronous=FULL): what was acknowledged survives
`kill -9` and a power cut. Operations run one after another, so each sees all before it. Reads beside them see what
was committed before they began.
"""

import asyncio
import contextlib
import fcntl
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from cloud.localhub.errors import DataFolderBusyError, ServiceError, StoreMismatchError
from cloud.localhub.event_tables import count_partitions
from cloud.localhub.partitions import PARTITIONS_DEFAULT
from cloud.localhub.schema import STEPS, migrate

_T = TypeVar("_T")

_BATCH_MAX = 1024
_READ_S = 30.0
"""The longest one read may take."""
_STEPS_A_LOOK = 100_000
"""SQLite's steps between two looks at the clock, about a millisecond."""
Operation = Callable[[sqlite3.Connection], _T]


@dataclass
class _Job(Generic[_T]):
    operation: Operation[_T]
    future: "asyncio.Future[_T]"


class Store:
    """The database behind its thread. Make it inside the running loop; `close` it once."""

    def __init__(self, data_dir: Path, *, partitions: int | None = None) -> None:
        """Opens, creates or brings up to date the file.

        Args:
            data_dir: Made where it is missing.
            partitions: Of the event log, fixed when it is made; None takes what is there, or the default.

        Raises:
            DataFolderBusyError: Another process has it open.
            StoreMismatchError: It is of a newer hub, or has another number of partitions.
        """
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = data_dir / "hub.sqlite"
        self._lock = _lock(data_dir / "hub.lock")
        try:
            self._database = _open(path, partitions=partitions)
        except BaseException:
            self._lock.close()
            raise
        self._reader = _connect(path)
        self._reader.execute("PRAGMA query_only=ON")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="localhub-reads")
        self.partitions = count_partitions(self._database)
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="localhub-store", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[_T]) -> "asyncio.Future[_T]":
        """Runs the operation in the next transaction; the future resolves, in order, once it is on disk.

        An operation that raises is rolled back alone. Where the disk fails, every future of the batch says so.
        """
        future: asyncio.Future[_T] = self._loop.create_future()
        if self._closed:
            future.set_exception(_unavailable())
        else:
            self._jobs.put(_Job(operation, future))
        return future

    async def read(self, operation: Operation[_T]) -> _T:
        """What the operation reads, beside the writing and without waiting for it. Raises ServiceError."""
        if self._closed:
            raise _unavailable()
        try:
            return await self._loop.run_in_executor(self._reading, self._read, operation)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def _read(self, operation: Operation[_T]) -> _T:
        deadline = time.monotonic() + _READ_S
        self._reader.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_A_LOOK)
        return operation(self._reader)

    async def close(self) -> None:
        """Finishes what was submitted, then closes the file."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._finish)
            self._lock.close()

    def _finish(self) -> None:
        self._reading.shutdown()
        self._reader.close()
        self._thread.join()

    def _work(self) -> None:
        running = True
        while running:
            jobs, running = self._next_batch()
            if jobs:
                outcomes = self._commit(jobs)
                with contextlib.suppress(RuntimeError):  # The loop is gone: nobody waits for the outcomes.
                    self._loop.call_soon_threadsafe(_resolve, outcomes)
        self._database.close()

    def _next_batch(self) -> tuple[list[_Job[Any]], bool]:
        """Waits for the first job and takes those that wait behind it; False when the store closes."""
        jobs: list[_Job[Any]] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == _BATCH_MAX:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _commit(self, jobs: list[_Job[Any]]) -> list[tuple[_Job[Any], Any, Exception | None]]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            outcomes = [(job, *self._run(job.operation)) for job in jobs]
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself where it could not go on.
                self._database.execute("ROLLBACK")
            return [(job, None, _unavailable(error)) for job in jobs]
        return outcomes

    def _run(self, operation: Operation[Any]) -> tuple[Any, Exception | None]:
        self._database.execute("SAVEPOINT operation")
        try:
            result, error = operation(self._database), None
        except sqlite3.Error:
            raise
        except Exception as exc:
            self._database.execute("ROLLBACK TO operation")
            result, error = None, exc
        self._database.execute("RELEASE operation")
        return result, error


def _resolve(outcomes: list[tuple[_Job[Any], Any, Exception | None]]) -> None:
    for job, result, error in outcomes:
        if job.future.done():
            continue  # Its caller went away; what was done stays done.
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)


def _unavailable(error: Exception | None = None) -> ServiceError:
    what = "is closing" if error is None else f"failed: {error}"
    return ServiceError(
        503, 503001, "ServiceUnavailable", f"Expected the hub's store to take the change, but it {what}"
    )


def _lock(path: Path) -> IO[str]:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DataFolderBusyError(f"Expected {path.parent} to be free, but another hub works on it") from error
    return file


def _connect(path: Path) -> sqlite3.Connection:
    # The thread that works is not the one that opens; only one at a time touches it.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _open(path: Path, *, partitions: int | None) -> sqlite3.Connection:
    path.touch(mode=0o600)
    database = _connect(path)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=1000", "temp_store=MEMORY"):
        database.execute(f"PRAGMA {pragma}")
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > len(STEPS):
            raise StoreMismatchError(f"Expected a store of version {len(STEPS)} or older in {path}, got {version}")
        migrate(database, partitions=partitions or PARTITIONS_DEFAULT)
        there = count_partitions(database)
        if partitions not in (None, there):
            raise StoreMismatchError(
                f"Expected {partitions} partitions in {path}, got a log that was made with {there}"
            )
    except (sqlite3.Error, StoreMismatchError):
        database.close()
        raise
    return database
