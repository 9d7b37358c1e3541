"""Jobs over a real store: what a stop in their midst leaves, deadlines, turns, and what is forgotten."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud.localhub import tables, twins
from cloud.localhub.devices import Identity
from cloud.localhub.limits import Limits
from cloud.localhub.links import MethodResult
from cloud.localhub.running_jobs import Jobs
from cloud.localhub.store import Store
from tests.cloud.localhub.support import eventually

_DAY_S = 24 * 3600.0
_METHOD = {"type": "scheduleDeviceMethod", "queryCondition": "*", "cloudToDeviceMethod": {"methodName": "reboot"}}
_UPDATE = {"type": "scheduleUpdateTwin", "queryCondition": "*", "updateTwin": {"tags": {"done": 1}}}


@dataclass
class Fleet:
    """Devices that answer methods, except those that are told to hang; and a clock that is told the time."""

    now: float = 1_000_000.0
    hanging: set[str] = field(default_factory=set)
    called: list[str] = field(default_factory=list)

    async def invoke(self, key: str, body: Mapping[str, Any]) -> MethodResult:
        self.called.append(key)
        if key in self.hanging:
            await asyncio.Event().wait()
        return MethodResult(200, body["methodName"])


@asynccontextmanager
async def _jobs(folder: Path, fleet: Fleet, *, running_max: int = 10) -> AsyncIterator[tuple[Jobs, Store]]:
    """A worker over the folder's store, for as long as the context lasts; leaving it stops both at once."""
    store = Store(folder)
    jobs = Jobs(
        store,
        limits=Limits(jobs_running_max=running_max),
        clock=lambda: fleet.now,
        presence=lambda key, name: "",
        invoke=fleet.invoke,
        twin_changed=lambda device, patch: None,
        pace=lambda devices: asyncio.sleep(0),
    )
    worker = asyncio.create_task(jobs.run())
    try:
        yield jobs, store
    finally:
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        await store.close()


async def _add(store: Store, *device_ids: str) -> None:
    for device_id in device_ids:
        device = tables.Device(Identity(device_id, "1", etag="1"), twins.new_twin("now"))
        await store.submit(lambda database, device=device: tables.put_device(database, device))  # type: ignore[misc]  # mypy does not infer defaults of lambdas


async def _status(jobs: Jobs, job_id: str) -> str:
    return str((await jobs.get(job_id))["status"])


async def _until(is_true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await is_true():  # noqa: ASYNC110  # the store tells nobody
            await asyncio.sleep(0.01)


async def _ends(jobs: Jobs, job_id: str, status: str = "completed") -> dict[str, Any]:
    async def has_status() -> bool:
        return await _status(jobs, job_id) == status

    await _until(has_status)
    return await jobs.get(job_id)


def test_a_stop_calls_again_only_whom_it_caught_in_between(tmp_path: Path) -> None:
    async def story() -> None:
        fleet = Fleet(hanging={"b"})
        async with _jobs(tmp_path, fleet) as (jobs, store):
            await _add(store, "a", "b", "c")
            await jobs.put("reboot", _METHOD)

            async def only_b_is_left() -> bool:
                statistics = (await jobs.get("reboot"))["deviceJobStatistics"]
                return bool((statistics["succeededCount"], statistics["runningCount"]) == (2, 1))

            await _until(only_b_is_left)
        fleet.hanging.clear()
        async with _jobs(tmp_path, fleet) as (jobs, _):
            ended = await _ends(jobs, "reboot")
        assert ended["deviceJobStatistics"]["succeededCount"] == 3
        assert sorted(fleet.called) == ["a", "b", "b", "c"]

    asyncio.run(story())


def test_a_twin_is_updated_once_however_often_the_hub_stops(tmp_path: Path) -> None:
    async def story() -> None:
        fleet = Fleet()
        names = [f"device-{number:03d}" for number in range(250)]
        async with _jobs(tmp_path, fleet) as (jobs, store):
            await _add(store, *names)
            await jobs.put("update", _UPDATE)
        for _ in range(20):
            async with _jobs(tmp_path, fleet) as (jobs, _):
                await asyncio.sleep(0)
        async with _jobs(tmp_path, fleet) as (jobs, store):
            ended = await _ends(jobs, "update")
            devices = await store.read(lambda database: tables.list_devices(database, after="", limit=1000))
        assert ended["deviceJobStatistics"]["succeededCount"] == 250
        assert {device.twin.version for device in devices} == {2}

    asyncio.run(story())


def test_a_deadline_fails_whom_it_finds_waiting(tmp_path: Path) -> None:
    async def story() -> None:
        fleet = Fleet(hanging={f"d-{number:02d}" for number in range(16)})
        async with _jobs(tmp_path, fleet) as (jobs, store):
            await _add(store, *(f"d-{number:02d}" for number in range(20)))
            await jobs.put("reboot", {**_METHOD, "maxExecutionTimeInSeconds": 60})
            await eventually(lambda: len(fleet.called) == 16)
        fleet.now += 61
        fleet.hanging.clear()
        async with _jobs(tmp_path, fleet) as (jobs, _):
            ended = await _ends(jobs, "reboot")
        assert (ended["deviceJobStatistics"]["failedCount"], len(fleet.called)) == (20, 16)

    asyncio.run(story())


def test_jobs_take_turns_and_a_cancelled_one_makes_room(tmp_path: Path) -> None:
    async def story() -> None:
        fleet = Fleet(hanging={"a"})
        async with _jobs(tmp_path, fleet, running_max=1) as (jobs, store):
            await _add(store, "a")
            await jobs.put("first", _METHOD)
            await _ends(jobs, "first", "running")
            fleet.now += 1
            await jobs.put("second", _UPDATE)
            assert await _status(jobs, "second") == "queued"
            await jobs.cancel("first")
            assert (await _ends(jobs, "second"))["deviceJobStatistics"]["succeededCount"] == 1
            assert (await jobs.get("first"))["deviceJobStatistics"]["failedCount"] == 1

    asyncio.run(story())


def test_a_job_is_forgotten_thirty_days_after_its_end(tmp_path: Path) -> None:
    async def story() -> None:
        fleet = Fleet()
        async with _jobs(tmp_path, fleet) as (jobs, _):
            await jobs.put("update", _UPDATE)
            await _ends(jobs, "update")
        fleet.now += 31 * _DAY_S
        async with _jobs(tmp_path, fleet) as (jobs, _):

            async def is_forgotten() -> bool:
                return await jobs.find(job_type=None, status=None, after="", limit=10) == ([], None)

            await _until(is_forgotten)

    asyncio.run(story())
