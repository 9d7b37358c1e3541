"""The store: commits in groups, rolls back alone, keeps what it promised, and the event log's bounds."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import pytest

from cloud.localhub import event_tables, tables
from cloud.localhub.devices import Identity
from cloud.localhub.errors import DataFolderBusyError, ServiceError, StoreMismatchError
from cloud.localhub.event_tables import NewEvent
from cloud.localhub.policies import PolicyError, connection_string, load_or_create_policies
from cloud.localhub.schema import STEPS
from cloud.localhub.store import Store
from cloud.localhub.tables import Device
from cloud.localhub.twins import new_twin


def _append(database: sqlite3.Connection, *, body: bytes = b"x", at: float = 0.0) -> int:
    return event_tables.append_events(database, [NewEvent(0, "press-07", at, "{}", body)])


def test_what_is_submitted_together_is_committed_in_few_groups(tmp_path: Path) -> None:
    async def story() -> None:
        statements: list[str] = []
        store = Store(tmp_path)
        await store.submit(lambda database: database.set_trace_callback(statements.append))
        offsets = await asyncio.gather(*(store.submit(_append) for _ in range(500)))
        assert offsets == list(range(1, 501))
        assert 1 <= statements.count("COMMIT") <= 50
        await store.close()

    asyncio.run(story())


def test_an_operation_that_fails_is_rolled_back_alone(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path)

        def fails(database: sqlite3.Connection) -> None:
            _append(database, body=b"never")
            raise ServiceError(400, 400004, "ArgumentInvalid", "no")

        results = await asyncio.gather(
            store.submit(_append), store.submit(fails), store.submit(_append), return_exceptions=True
        )
        assert isinstance(results[1], ServiceError)
        events = await store.submit(lambda database: event_tables.read_events(database, after=0, limit=10))
        assert [event.body for event in events] == [b"x", b"x"]
        await store.close()

    asyncio.run(story())


def test_a_failing_disk_acknowledges_nothing_and_the_store_goes_on_when_it_heals(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path)
        await store.submit(lambda database: database.execute("PRAGMA max_page_count = 20").fetchall())
        with pytest.raises(ServiceError, match="failed"):
            await store.submit(lambda database: _append(database, body=bytes(1_000_000)))
        await store.submit(lambda database: database.execute("PRAGMA max_page_count = 100000").fetchall())
        await store.submit(lambda database: _append(database, body=bytes(1_000_000)))
        assert len(await store.submit(lambda database: event_tables.read_events(database, after=0, limit=10))) == 1
        await store.close()

    asyncio.run(story())


def test_everything_is_there_after_a_restart_and_offsets_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path)
        device = Device(Identity("press-07", "1", "1"), new_twin("now"), {"a": 1})
        await store.submit(lambda database: tables.put_device(database, device))
        await store.submit(_append)
        with pytest.raises(DataFolderBusyError):
            Store(tmp_path)
        await store.close()
        with pytest.raises(ServiceError):
            await store.submit(_append)
        again = Store(tmp_path)
        assert await again.submit(lambda database: tables.get_device(database, "press-07")) == device
        assert await again.submit(tables.count_devices) == 1
        assert await again.submit(_append) == 2
        await again.close()

    asyncio.run(story())


def test_a_store_of_an_older_release_keeps_its_subscriptions_and_one_of_a_newer_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        with sqlite3.connect(tmp_path / "hub.sqlite") as old:
            old.executescript(f"{STEPS[0]}PRAGMA user_version=1;")
            device = Device(Identity("press-07", "1", "1"), new_twin("now"), {"a": 1, "b": 1})
            row = (device.identity.dumps(), device.twin.dumps(), '["a", "b"]')
            old.execute("INSERT INTO devices VALUES ('press-07', ?, ?, ?)", row)
        old.close()
        store = Store(tmp_path)
        assert await store.submit(lambda database: tables.get_device(database, "press-07")) == device
        await store.submit(lambda database: database.execute("PRAGMA user_version=9999"))
        await store.close()
        with pytest.raises(StoreMismatchError, match="9999"):
            Store(tmp_path)

    asyncio.run(story())


def test_a_device_goes_with_its_modules_and_its_namesakes_stay(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path)
        keys = ["press", "press/camera", "press/lamp", "press0", "press0/camera", "press-1", "press-1/camera"]
        for key in keys:
            device_id, _, module_id = key.partition("/")
            device = Device(Identity(device_id, "1", "1", module_id=module_id), new_twin("now"))
            await store.submit(lambda database, device=device: tables.put_device(database, device))  # type: ignore[misc]
        modules = await store.submit(lambda database: tables.list_modules(database, "press"))
        assert [module.identity.key for module in modules] == ["press/camera", "press/lamp"]
        await store.submit(lambda database: tables.delete_device(database, "press"))
        left = [await store.submit(lambda database, key=key: tables.find_device(database, key)) for key in keys]  # type: ignore[misc]
        assert [device.identity.key for device in left if device is not None] == keys[3:]
        assert await store.submit(tables.count_devices) == 2
        await store.close()

    asyncio.run(story())


def test_the_log_forgets_by_age_and_by_size_and_never_reuses_an_offset(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path)
        for number in range(10):
            await store.submit(lambda database, at=number: _append(database, body=bytes(100), at=at))  # type: ignore[misc]
        old = await store.submit(lambda database: event_tables.trim_events(database, before=3.0, bytes_max=10_000))
        big = await store.submit(lambda database: event_tables.trim_events(database, before=0.0, bytes_max=410))
        assert (old, big) == (3, 3)
        kept = await store.submit(lambda database: event_tables.read_events(database, after=0, limit=99))
        assert [event.offset for event in kept] == [7, 8, 9, 10]
        assert await store.submit(event_tables.event_range) == (7, 10)
        await store.submit(lambda database: event_tables.trim_events(database, before=99.0, bytes_max=0))
        assert await store.submit(_append) == 11
        await store.close()

    asyncio.run(story())


def test_one_answer_of_the_log_is_bounded_in_bytes_and_never_empty_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path)
        for _ in range(3):
            await store.submit(lambda database: _append(database, body=bytes(event_tables.READ_BYTES_MAX // 2)))
        await store.submit(lambda database: _append(database, body=bytes(event_tables.READ_BYTES_MAX + 1)))
        page = await store.submit(lambda database: event_tables.read_events(database, after=0, limit=10))
        assert [event.offset for event in page] == [1, 2]
        page = await store.submit(lambda database: event_tables.read_events(database, after=3, limit=10))
        assert [event.offset for event in page] == [4]
        await store.close()

    asyncio.run(story())


def test_policies_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    policies = load_or_create_policies(tmp_path / "hub")
    assert load_or_create_policies(tmp_path / "hub") == policies
    assert set(policies) == {"iothubowner", "service", "device", "registryRead", "registryReadWrite"}
    (file,) = (tmp_path / "hub").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = connection_string(tmp_path / "hub", hostname="localhost:8443", policy="service")
    expected = f"SharedAccessKeyName=service;SharedAccessKey={policies['service'].primary_key}"
    assert text == f"HostName=localhost:8443;{expected}"
    with pytest.raises(PolicyError, match="Expected a policy of"):
        connection_string(tmp_path / "hub", hostname="localhost", policy="root")
    file.write_text("{}")
    with pytest.raises(PolicyError, match="damaged"):
        load_or_create_policies(tmp_path / "hub")
