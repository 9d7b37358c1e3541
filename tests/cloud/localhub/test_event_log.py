"""The event log: partitions, acknowledgements after the disk, consumer groups, and what an older hub left behind."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.localhub import event_tables
from cloud.localhub.errors import ServiceError, StoreMismatchError
from cloud.localhub.event_log import EventLog
from cloud.localhub.event_tables import NewEvent
from cloud.localhub.limits import Limits
from cloud.localhub.partitions import partition_of
from cloud.localhub.schema import STEPS, migrate
from cloud.localhub.store import Store


class _Recorder:
    """A sender that remembers what it was told, and whether that was on disk by then."""

    def __init__(self, folder: Path) -> None:
        self.stored: list[int] = []
        self.times_told = 0
        self.is_lost = False
        self._path = folder / "hub.sqlite"

    def events_stored(self, tokens: Sequence[int]) -> None:
        self.stored += tokens
        self.times_told += 1
        with closing(sqlite3.connect(self._path)) as another:
            (committed,) = another.execute("SELECT count(*) FROM events").fetchone()
        assert committed >= len(self.stored)

    def events_lost(self) -> None:
        self.is_lost = True


def _play(
    folder: Path,
    story: Callable[[Store, EventLog], Awaitable[None]],
    *,
    limits: Limits | None = None,
    partitions: int | None = None,
) -> None:
    async def run() -> None:
        store = Store(folder, partitions=partitions)
        try:
            await story(store, EventLog(store, limits=limits or Limits(), clock=lambda: 1000.0))
        finally:
            await store.close()

    asyncio.run(run())


async def _append(log: EventLog, devices: Sequence[str]) -> None:
    for number, device in enumerate(devices):
        await log.append_one(device, {}, str(number).encode())


@given(st.text(max_size=40).filter(lambda text: "/" not in text), st.integers(1, 32))
def test_a_device_and_its_modules_have_one_partition(device: str, partitions: int) -> None:
    assert 0 <= partition_of(device, partitions) == partition_of(f"{device}/camera", partitions) < partitions


def test_partitions_are_the_same_in_every_release() -> None:
    assert [partition_of(f"press-{number}", 4) for number in range(8)] == [2, 0, 2, 0, 3, 1, 3, 1]


def test_a_sender_hears_of_its_events_many_at_a_time_once_they_are_on_disk(tmp_path: Path) -> None:
    async def story(store: Store, log: EventLog) -> None:
        one, other = _Recorder(tmp_path), _Recorder(tmp_path)
        for token in range(300):
            log.append("press-07", {"a": "b"}, b"x", sender=one if token % 3 else other, token=token)
        assert one.stored == other.stored == []
        assert len(await log.read(after=0, limit=1000, wait_s=10)) == 300
        await log.append_one("press-07", {}, b"last")
        assert one.stored == [token for token in range(300) if token % 3]
        assert other.stored == [token for token in range(300) if not token % 3]
        assert one.times_told == other.times_told == 1

    _play(tmp_path, story)


def test_a_sender_hears_that_the_disk_is_full_and_nothing_of_its_batch_is_kept(tmp_path: Path) -> None:
    async def story(store: Store, log: EventLog) -> None:
        await log.append_one("press-07", {}, b"before")
        await store.submit(lambda database: database.execute("PRAGMA max_page_count = 30").fetchall())
        sender = _Recorder(tmp_path)
        log.append("press-07", {}, bytes(1_000_000), sender=sender, token=1)
        with pytest.raises(ServiceError, match="failed"):
            await log.append_one("press-07", {}, bytes(1_000_000))
        assert sender.is_lost
        assert sender.stored == []
        await store.submit(lambda database: database.execute("PRAGMA max_page_count = 100000").fetchall())
        assert await log.append_one("press-07", {}, b"after") == 2
        assert [event.sequence_number for event in await log.read(after=0, limit=9, wait_s=0)] == [0, 1]

    _play(tmp_path, story)


def test_every_partition_counts_its_own_events_and_keeps_their_order(tmp_path: Path) -> None:
    async def story(store: Store, log: EventLog) -> None:
        devices = [f"press-{number % 8}" for number in range(200)]
        await _append(log, devices)
        seen = []
        for partition in range(log.partitions):
            events = await log.read_partition(partition, after=-1, limit=1000, wait_s=0)
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert {partition_of(event.device_id, log.partitions) for event in events} <= {partition}
            assert [event.offset for event in events] == sorted(event.offset for event in events)
            seen += [int(event.body) for event in events]
        assert sorted(seen) == list(range(200))
        whole = await log.read(after=0, limit=1000, wait_s=0)
        assert [(event.offset, int(event.body)) for event in whole] == [(number + 1, number) for number in range(200)]

    _play(tmp_path, story)


def test_a_reader_of_a_partition_waits_for_its_next_event_and_not_for_others(tmp_path: Path) -> None:
    async def story(store: Store, log: EventLog) -> None:
        partition = partition_of("press-07", log.partitions)
        elsewhere = next(f"x{n}" for n in range(99) if partition_of(f"x{n}", log.partitions) != partition)
        reading = asyncio.ensure_future(log.read_partition(partition, after=-1, limit=9, wait_s=60))
        await log.append_one(elsewhere, {}, b"not this")
        await log.append_one("press-07", {}, b"this")
        assert [event.body for event in await reading] == [b"this"]
        assert await log.read_partition(partition, after=0, limit=9, wait_s=0) == []

    _play(tmp_path, story)


def test_a_group_goes_on_where_it_was_after_a_restart_and_others_are_not_moved(tmp_path: Path) -> None:
    async def before(store: Store, log: EventLog) -> None:
        await _append(log, ["press-07"] * 5)
        for group in ("drift", "billing"):
            await log.add_group(group)
        await log.put_checkpoint("drift", partition_of("press-07", 4), 2)
        await log.add_group("drift")

    async def after(store: Store, log: EventLog) -> None:
        partition = partition_of("press-07", 4)
        assert await log.groups() == ["$Default", "billing", "drift"]
        assert [await log.checkpoint(group, partition) for group in ("drift", "billing")] == [2, -1]
        await log.put_checkpoint("drift", partition, 0)
        assert await log.checkpoint("drift", partition) == 0
        await log.remove_group("drift")
        await log.add_group("drift")
        assert await log.checkpoint("drift", partition) == -1

    _play(tmp_path, before)
    _play(tmp_path, after)


def test_groups_and_partitions_that_are_not_there_are_refused(tmp_path: Path) -> None:
    async def story(store: Store, log: EventLog) -> None:
        refused: list[tuple[Awaitable[object], int]] = [
            (log.checkpoint("nobody", 0), 404),
            (log.checkpoint("$Default", 4), 404),
            (log.read_partition(9, after=-1, limit=1, wait_s=0), 404),
            (log.put_checkpoint("$Default", 0, 0), 400),
            (log.remove_group("nobody"), 404),
            (log.remove_group("$Default"), 400),
            (log.add_group("a b"), 400),
            (log.add_group("x" * 51), 400),
            (log.add_group(""), 400),
        ]
        for call, status in refused:
            with pytest.raises(ServiceError) as failure:
                await call
            assert failure.value.status == status
        await log.add_group("one")
        with pytest.raises(ServiceError) as failure:
            await log.add_group("one-too-many")
        assert failure.value.status == 403

    _play(tmp_path, story, limits=Limits(consumer_groups_max=2))


def test_what_retention_took_is_gone_from_its_partition_and_numbers_go_on(tmp_path: Path) -> None:
    async def story(store: Store, log: EventLog) -> None:
        await _append(log, ["press-07"] * 10)
        assert await log.trim() == 10
        state = (await log.states())[partition_of("press-07", 4)]
        assert (state.first_sequence_number, state.last_sequence_number, state.last_offset) == (10, 9, None)
        assert await log.append_one("press-07", {}, b"next") == 11
        (event,) = await log.read(after=0, limit=9, wait_s=0)
        assert (event.offset, event.sequence_number) == (11, 10)
        assert await log.offsets() == (11, 11)

    _play(tmp_path, story, limits=Limits(retention_bytes_max=0))


def test_the_number_of_partitions_is_fixed_when_the_log_is_made(tmp_path: Path) -> None:
    async def story(store: Store, log: EventLog) -> None:
        assert log.partitions == 7

    _play(tmp_path, story, partitions=7)
    _play(tmp_path, story)
    with pytest.raises(StoreMismatchError, match="Expected 8 partitions"):
        _play(tmp_path, story, partitions=8)


def test_a_log_of_the_first_release_gets_partitions_and_loses_nothing(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "hub.sqlite")) as old:
        old.executescript(f"BEGIN;{STEPS[0]}PRAGMA user_version=1;COMMIT;")
        row = "INSERT INTO events (device_id, enqueued_at, properties, body, bytes_before) VALUES (?, ?, ?, ?, ?)"
        for number in range(100):
            old.execute(
                row, (f"press-{number % 5}", float(number), json.dumps({"n": str(number)}), b"body", number * 16)
            )
        old.execute("DELETE FROM events WHERE event_offset <= 20")
        old.commit()

    async def story(store: Store, log: EventLog) -> None:
        events = await log.read(after=0, limit=1000, wait_s=0)
        assert [(event.offset, event.properties["n"]) for event in events] == [(n + 1, str(n)) for n in range(20, 100)]
        for state in await log.states():
            part = [event for event in events if event.partition == state.partition]
            assert [event.sequence_number for event in part] == list(range(state.last_sequence_number + 1))
            assert all(partition_of(event.device_id, 4) == state.partition for event in part)
        assert await log.append_one("press-1", {}, b"new") == 101
        (total,) = await store.read(
            lambda db: db.execute("SELECT value FROM totals WHERE name='event_bytes'").fetchone()
        )
        assert total == 99 * 16 + len('{"n": "99"}') + 4 + len("{}") + 3

    _play(tmp_path, story)


@given(st.lists(st.integers(0, 3), max_size=300))
def test_many_rows_at_once_are_the_same_as_one_by_one(partitions: list[int]) -> None:
    logs = []
    for step in (1, len(partitions) or 1):
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
            migrate(database, partitions=4)
            events = [NewEvent(p, f"d{p}", float(n), "{}", bytes(n % 7)) for n, p in enumerate(partitions)]
            for start in range(0, len(events), step):
                event_tables.append_events(database, events[start : start + step])
            logs.append(list(database.execute("SELECT * FROM events")) + list(database.execute("SELECT * FROM totals")))
    assert logs[0] == logs[1]
