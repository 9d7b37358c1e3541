"""The event log of a running hub: events go in and are acknowledged in batches, readers wait at the end.

What arrives in one turn of the event loop is one job of the store, and jobs that wait for the disk together are one
commit, so that neither a future nor a callback is made for each event. A sender hears of its events once they are on
disk, many at a time.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloud.localhub import event_tables
from cloud.localhub.bell import Bell, wait_until
from cloud.localhub.errors import ServiceError, group_not_found, invalid_argument, partition_not_found
from cloud.localhub.event_tables import LoggedEvent, NewEvent, PartitionState
from cloud.localhub.limits import Limits
from cloud.localhub.partitions import partition_of
from cloud.localhub.store import Operation, Store
from cloud.localhub.twins import compact

DEFAULT_GROUP = "$Default"
_GROUP_CHARACTERS_MAX = 50


class Sender(Protocol):
    """Who waits for its events to be on disk."""

    def events_stored(self, tokens: Sequence[int]) -> None:
        """These are on disk, in the order in which they were appended."""
        ...

    def events_lost(self) -> None:
        """Events could not be stored."""
        ...


@dataclass(eq=False)
class _Batch:
    events: list[NewEvent] = field(default_factory=list)
    tokens: dict[Sender, list[int]] = field(default_factory=dict)
    size: int = 0


class EventLog:
    """Appends and reads. `clock` gives seconds since the epoch."""

    def __init__(self, store: Store, *, limits: Limits, clock: Callable[[], float]) -> None:
        self.partitions = store.partitions
        self._store = store
        self._limits = limits
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._batch: _Batch | None = None
        self._pending_bytes = 0
        self._arrived = Bell()
        self._room = Bell()
        self._readers = 0
        self.is_stopping = False

    # Writing

    @property
    def has_room(self) -> bool:
        """Whether fewer bytes than the bound wait for the disk."""
        return self._pending_bytes <= self._limits.pending_bytes_max

    async def room(self) -> None:
        """Returns when there is room."""
        while not self.has_room:
            await self._room.next_ring().wait()

    def append(
        self, device_id: str, properties: Mapping[str, str | None], body: bytes, *, sender: Sender, token: int
    ) -> None:
        """Appends an event; the sender hears of its token once the event is on disk."""
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch()
            self._loop.call_soon(self._submit)
        text = compact(properties) if properties else "{}"
        partition = partition_of(device_id, self.partitions)
        batch.events.append(NewEvent(partition, device_id, self._clock(), text, body))
        batch.tokens.setdefault(sender, []).append(token)
        batch.size += len(body)
        self._pending_bytes += len(body)

    async def append_one(self, device_id: str, properties: Mapping[str, str | None], body: bytes) -> int:
        """Appends an event after all before it, and returns its offset once it is on disk. Raises ServiceError."""
        self._submit()
        partition = partition_of(device_id, self.partitions)
        event = NewEvent(partition, device_id, self._clock(), compact(properties), body)
        offset = await self._store.submit(lambda database: event_tables.append_events(database, [event]))
        self._arrived.ring()
        return offset

    def _submit(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            future = self._store.submit(lambda database: event_tables.append_events(database, batch.events))
            future.add_done_callback(lambda done: self._settle(batch, done))

    def _settle(self, batch: _Batch, done: "asyncio.Future[int]") -> None:
        self._pending_bytes -= batch.size
        is_stored = not done.cancelled() and done.exception() is None
        for sender, tokens in batch.tokens.items():
            if is_stored:
                sender.events_stored(tokens)
            else:
                sender.events_lost()
        self._arrived.ring()
        self._room.ring()

    async def trim(self) -> int:
        """Removes what is older or more than the log keeps; returns the number of events removed."""
        before, total = self._clock() - self._limits.retention_s, 0
        bytes_max = self._limits.retention_bytes_max
        while removed := await self._store.submit(
            lambda database: event_tables.trim_events(database, before=before, bytes_max=bytes_max)
        ):
            total += removed
        return total

    def stop(self) -> None:
        """Lets waiting readers go."""
        self.is_stopping = True
        self._arrived.ring()

    # Reading

    async def read(self, *, after: int, limit: int, wait_s: float) -> list[LoggedEvent]:
        """Events of all partitions after the offset; waits for the first. Raises ServiceError."""
        return await self._read(lambda db: event_tables.read_events(db, after=after, limit=limit), wait_s)

    async def read_partition(self, partition: int, *, after: int, limit: int, wait_s: float) -> list[LoggedEvent]:
        """Events of one partition after the sequence number; waits for the first. Raises ServiceError."""
        self._check_partition(partition)
        return await self._read(lambda db: event_tables.read_partition(db, partition, after=after, limit=limit), wait_s)

    async def _read(self, operation: Operation[list[LoggedEvent]], wait_s: float) -> list[LoggedEvent]:
        if self._readers >= self._limits.readers_max:
            message = f"Expected at most {self._limits.readers_max} readers at once, got one more"
            raise ServiceError(429, 429001, "ThrottlingException", message)
        self._readers += 1
        deadline = self._loop.time() + wait_s
        try:
            while True:
                ring = self._arrived.next_ring()
                events = await self._store.read(operation)
                if events or self.is_stopping or not await wait_until(ring, deadline):
                    return events
        finally:
            self._readers -= 1

    async def offsets(self) -> tuple[int, int]:
        """Oldest kept and newest given offset."""
        return await self._store.read(event_tables.event_range)

    async def states(self) -> list[PartitionState]:
        """Every partition, in order."""
        return await self._store.read(event_tables.partition_states)

    async def sequence_before(self, partition: int, passed: Callable[[int, int, float], bool] | None) -> int:
        """The last sequence number that a reader is past; None for a reader of what is yet to come."""
        if passed is None:
            return (await self.states())[partition].last_sequence_number
        return await self._store.read(lambda db: event_tables.sequence_before(db, partition, passed))

    # Consumer groups

    async def groups(self) -> list[str]:
        return await self._store.read(event_tables.list_groups)

    async def add_group(self, name: str) -> None:
        """Adds a group; one that is there stays as it is. Raises ServiceError."""
        is_valid = all(c.isascii() and (c.isalnum() or c in "-._") for c in name)
        if name != DEFAULT_GROUP and (not is_valid or not 0 < len(name) <= _GROUP_CHARACTERS_MAX):
            raise invalid_argument(f"Expected a group of 1 to 50 letters, digits, or any of - . _, got {name[:80]!r}")
        groups_max = self._limits.consumer_groups_max

        def operation(database: sqlite3.Connection) -> None:
            names = event_tables.list_groups(database)
            if name not in names and len(names) >= groups_max:
                raise ServiceError(403, 403010, "QuotaExceeded", f"Expected at most {groups_max} groups, got one more")
            event_tables.add_group(database, name)

        await self._store.submit(operation)

    async def remove_group(self, name: str) -> None:
        """Removes a group and its checkpoints. Raises ServiceError."""
        if name == DEFAULT_GROUP:
            raise invalid_argument(f"Expected another group than {DEFAULT_GROUP}, which always is")
        if not await self._store.submit(lambda database: event_tables.remove_group(database, name)):
            raise group_not_found(name)

    async def checkpoint(self, group: str, partition: int) -> int:
        """The last sequence number that the group has read of the partition, or -1. Raises ServiceError."""
        self._check_partition(partition)
        found = await self._store.read(lambda database: event_tables.find_checkpoint(database, group, partition))
        if found is None:
            raise group_not_found(group)
        return found

    async def put_checkpoint(self, group: str, partition: int, sequence_number: int) -> None:
        """Keeps how far the group has read; on disk when it returns. Raises ServiceError."""
        await self.checkpoint(group, partition)
        last = (await self.states())[partition].last_sequence_number
        if not -1 <= sequence_number <= last:
            raise invalid_argument(f"Expected a sequence number of -1 to {last}, got {sequence_number}")
        await self._store.submit(
            lambda database: event_tables.put_checkpoint(database, group, partition, sequence_number)
        )

    def _check_partition(self, partition: int) -> None:
        if not 0 <= partition < self.partitions:
            raise partition_not_found(partition, partitions=self.partitions)
