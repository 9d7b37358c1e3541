"""Import and export jobs kept, and run, one at a time, as on IoT Hub.

An export writes all identities and twins as lines into a blob; an import changes identities as a blob's lines say, and
writes what failed into another. A job that was under way when the hub stopped has failed: whoever wants it asks again.
"""

import asyncio
import contextlib
import json
import sqlite3
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol

import structlog

from cloud.localhub import tables
from cloud.localhub.containers import get_blob, put_blob
from cloud.localhub.errors import LocalHubError, ServiceError, invalid_argument, job_not_found
from cloud.localhub.store import Store
from cloud.localhub.transfers import Transfer, TransferStatus, TransferType, line_of, parse_transfer, service_form

_log = structlog.get_logger("localhub")

_PAGE = 500
_LINES_AT_ONCE = 100
_LINE_BYTES_MAX = 256 * 1024
TRANSFERS_MAX = 100
"""Kept; the oldest are forgotten."""

Change = Callable[[list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]]
"""Changes identities as the entries say; the errors of those that failed."""


class Read(Protocol):
    """A page of identities in order of their keys."""

    def __call__(self, database: sqlite3.Connection, *, after: str, limit: int) -> list[tables.Device]: ...


class Transfers:
    """The import and export jobs of a hub."""

    def __init__(self, store: Store, *, clock: Callable[[], float], change: Change) -> None:
        self._store = store
        self._clock = clock
        self._change = change
        self._running: str | None = None
        self._task: asyncio.Task[None] | None = None

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Starts a job. Raises ServiceError."""
        transfer = parse_transfer(str(uuid.uuid4()), body, now=self._clock())
        if self._running is not None:
            raise ServiceError(403, 403008, "JobQuotaExceeded", "Expected one import or export at a time, got another")
        self._running = transfer.id
        try:
            await self._store.submit(lambda database: _put(database, transfer))
        except ServiceError:
            self._running = None
            raise
        self._task = asyncio.create_task(self._run(transfer))
        return service_form(transfer)

    async def get(self, transfer_id: str) -> dict[str, Any]:
        """Raises ServiceError where there is none."""
        return service_form(await self._store.read(lambda database: _get(database, transfer_id)))

    async def all(self) -> list[dict[str, Any]]:
        """The newest first."""
        return [service_form(each) for each in await self._store.read(_all)]

    async def cancel(self, transfer_id: str) -> None:
        """Stops a job; what it has done stays done. Raises ServiceError."""
        await self.get(transfer_id)
        if self._running == transfer_id and self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def start(self) -> None:
        """Notes that what was under way when the hub stopped has failed. Raises ServiceError."""
        now = self._clock()

        def operation(database: sqlite3.Connection) -> None:
            for each in _all(database):
                if each.status is TransferStatus.RUNNING:
                    _put(database, _ended(each, TransferStatus.FAILED, "The hub was stopped", now=now))

        await self._store.submit(operation)

    async def stop(self) -> None:
        """Ends the job that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, transfer: Transfer) -> None:
        status, reason = TransferStatus.FAILED, "The hub made a mistake; its log says which"
        try:
            with tempfile.TemporaryDirectory(prefix="localhub-", ignore_cleanup_errors=True) as folder:
                work = self._export if transfer.type is TransferType.EXPORT else self._import
                await work(transfer, Path(folder))
            status, reason = TransferStatus.COMPLETED, ""
        except asyncio.CancelledError:
            status, reason = TransferStatus.CANCELLED, ""
        except (LocalHubError, OSError) as error:
            reason = str(error)
        finally:
            self._running = None
            ended = _ended(transfer, status, reason, now=self._clock())
            with contextlib.suppress(ServiceError):
                await self._store.submit(lambda database: _put(database, ended))
            _log.info("transfer_ended", transfer_id=transfer.id, type=transfer.type, status=status, reason=reason)

    async def _export(self, transfer: Transfer, folder: Path) -> None:
        path = folder / "lines"
        with path.open("w", encoding="utf-8") as file:
            for read in (tables.list_devices, tables.page_of_modules):
                await self._write_all(file, read, excludes_keys=transfer.excludes_keys)
        await asyncio.to_thread(put_blob, transfer.output_uri, transfer.output_name, path)

    async def _write_all(self, file: IO[str], read: Read, *, excludes_keys: bool) -> None:
        after = ""
        while page := await self._store.read(partial(read, after=after, limit=_PAGE)):
            after = page[-1].identity.key
            file.writelines(line_of(device, excludes_keys=excludes_keys) + "\n" for device in page)

    async def _import(self, transfer: Transfer, folder: Path) -> None:
        lines, errors = folder / "lines", folder / "errors"
        await asyncio.to_thread(get_blob, transfer.input_uri, transfer.input_name, lines)
        with lines.open("rb") as file, errors.open("w", encoding="utf-8") as failed:
            while entries := _entries(file):
                for error in await self._change(entries):
                    failed.write(json.dumps(error, ensure_ascii=False) + "\n")
        await asyncio.to_thread(put_blob, transfer.output_uri, transfer.output_name, errors)


def _entries(file: IO[bytes]) -> list[dict[str, Any]]:
    """The next entries of an import's lines, none at the end. Raises ServiceError for a line that is none."""
    entries: list[dict[str, Any]] = []
    while len(entries) < _LINES_AT_ONCE and (line := file.readline(_LINE_BYTES_MAX)):
        if line.strip():
            entries.append(_entry(line))
    return entries


def _entry(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"Expected a device as JSON in each line, got {line[:40]!r}") from error
    if not isinstance(entry, dict):
        raise invalid_argument(f"Expected a JSON object in each line, got {line[:40]!r}")
    return {"importMode": "createOrUpdate", **entry}


def _ended(transfer: Transfer, status: TransferStatus, reason: str, *, now: float) -> Transfer:
    return replace(transfer, status=status, ended_at=now, failure_reason=reason or None)


def _put(database: sqlite3.Connection, transfer: Transfer) -> None:
    row = (transfer.id, transfer.started_at, transfer.dumps())
    database.execute("INSERT OR REPLACE INTO transfers VALUES (?, ?, ?)", row)
    newest = "SELECT transfer_id FROM transfers ORDER BY started_at DESC LIMIT ?"
    database.execute(f"DELETE FROM transfers WHERE transfer_id NOT IN ({newest})", (TRANSFERS_MAX,))  # noqa: S608  # a constant


def _all(database: sqlite3.Connection) -> list[Transfer]:
    rows = database.execute("SELECT document FROM transfers ORDER BY started_at DESC")
    return [Transfer.loads(text) for (text,) in rows]


def _get(database: sqlite3.Connection, transfer_id: str) -> Transfer:
    row = database.execute("SELECT document FROM transfers WHERE transfer_id = ?", (transfer_id,)).fetchone()
    if row is None:
        raise job_not_found(transfer_id)
    return Transfer.loads(row[0])
