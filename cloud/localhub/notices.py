"""What the hub has to tell services: feedback on messages, and uploads of files. A queue on disk for each.

A service takes a batch, which is locked for it, and completes it; a batch that is abandoned, or whose lock runs out, is
offered again. The lock is only in memory: a hub that restarts offers the batch again.
"""

import math
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from cloud.localhub import message_tables
from cloud.localhub.errors import lock_lost
from cloud.localhub.limits import Limits
from cloud.localhub.store import Store


class Kind(StrEnum):
    FEEDBACK = "feedback"
    FILES = "files"


@dataclass(frozen=True)
class Batch:
    """Notices for a service; `until` is when the lock runs out, in the clock's time."""

    token: str
    records: tuple[dict[str, object], ...]
    last: int
    until: float


class Notices:
    """One queue. A batch is handed out when it is full, or when its oldest notice has waited long enough."""

    def __init__(
        self, store: Store, kind: Kind, *, batch_max: int, wait_s: float, limits: Limits, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._kind = kind
        self._batch_max = batch_max
        self._wait_s = wait_s
        self._limits = limits
        self._clock = clock
        self._batch: Batch | None = None

    async def receive(self) -> Batch | None:
        """The next batch, locked; None where there is none, or another caller has it."""
        now = self._clock()
        if self._batch is not None and self._batch.until > now:
            return None
        rows = await self._store.submit(
            lambda database: message_tables.read_notices(database, self._kind, limit=self._batch_max)
        )
        if not rows or (len(rows) < self._batch_max and rows[0][1] + self._wait_s > now):
            return None
        until = now + self._limits.notice_lock_s
        self._batch = Batch(secrets.token_hex(16), tuple(row[2] for row in rows), rows[-1][0], until)
        return self._batch

    async def complete(self, token: str) -> None:
        """Removes the batch. Raises ServiceError where the lock is lost."""
        last = self._held(token).last
        await self._store.submit(lambda database: message_tables.remove_notices(database, self._kind, last=last))
        self._batch = None

    def abandon(self, token: str) -> None:
        """Offers the batch again at once. Raises ServiceError where the lock is lost."""
        self._batch = replace(self._held(token), until=-math.inf)

    def expire(self, database: sqlite3.Connection) -> None:
        """An operation: drops what nobody fetched in time."""
        before = self._clock() - self._limits.notice_life_s
        message_tables.expire_notices(database, self._kind, before=before)

    def _held(self, token: str) -> Batch:
        batch = self._batch
        if (
            batch is None
            or not secrets.compare_digest(batch.token.encode(), token.encode())
            or batch.until <= self._clock()
        ):
            raise lock_lost("this batch")
        return batch
